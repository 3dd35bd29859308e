//! Calls that must be refused, and their neighbours that must not; tensors without elements.

use super::batch_norm::operation as batch_norm;
use super::{Call, Maker, short};
use crate::arithmetic::DataType;
use crate::arithmetic::format::power_of_two;
use crate::case::Flag;
use crate::case::values::Values;
use crate::operation::{Dialect, GroupNorm, LayerNorm, Operation, RmsNorm};

pub(super) fn make(maker: &mut Maker) {
    for dtype in DataType::FLOATS {
        boundary(maker, dtype);
    }
    shapes(maker);
    empty(maker);
}

fn group_norm(num_groups: usize) -> Operation {
    Operation::GroupNorm(GroupNorm { num_groups, eps: 1e-5, dialect: Dialect::Pytorch })
}

fn layer_norm(normalized_shape: &[usize]) -> Operation {
    Operation::LayerNorm(LayerNorm {
        normalized_shape: normalized_shape.to_vec(),
        eps: 1e-5,
        dialect: Dialect::Pytorch,
    })
}

fn rms_norm(normalized_shape: &[usize], eps: Option<f64>) -> Operation {
    Operation::RmsNorm(RmsNorm { normalized_shape: normalized_shape.to_vec(), eps, dialect: Dialect::Pytorch })
}

fn values(name: &str, shape: &[usize]) -> Vec<f64> {
    Values::named(name).normals(shape.iter().product(), 1.0, 1.0)
}

/// How many values a group must have.
fn boundary(maker: &mut Maker, dtype: DataType) {
    let topics = &[Flag::Refusal, Flag::BatchOne];
    for (shape, spatial_dims) in [
        (&[1, 3][..], Some(1)),
        (&[2, 3], Some(1)),
        (&[1, 3, 1], Some(1)),
        (&[1, 3, 2], Some(1)),
        (&[1, 2, 1, 1], Some(2)),
        (&[1, 2, 1, 2], Some(2)),
        (&[1, 2, 1, 1, 1], Some(3)),
        (&[2, 2, 1, 1, 1], Some(3)),
    ] {
        for tracked in [true, false] {
            let state = if tracked { "tracked" } else { "untracked" };
            let name = format!("batch_norm-{}-values-{}-{state}", short(dtype), times(shape));
            let call = Call::new(batch_norm(spatial_dims, 1e-5, Some(0.1)), dtype).train();
            let call = if tracked { call.fresh(shape[1]) } else { call };
            let step = call.input(shape, values(&name, shape)).step();
            maker.add_step(name, "Training needs more than one value per channel: N·L > 1.", topics, step);
        }
    }
    for (shape, num_groups) in
        [(&[1, 4][..], 4), (&[2, 4], 4), (&[1, 4], 2), (&[1, 4, 1], 4), (&[1, 4, 2], 4), (&[1, 2, 1, 1], 2)]
    {
        let name = format!("group_norm-{}-values-{}-groups-{num_groups}", short(dtype), times(shape));
        let step = Call::new(group_norm(num_groups), dtype).input(shape, values(&name, shape)).step();
        let comment = "PyTorch refuses one value per group only in a batch of one sample.";
        maker.add_step(name, comment, topics, step);
    }
    for (operation, label) in [(layer_norm(&[1]), "layer_norm"), (rms_norm(&[1], Some(1e-5)), "rms_norm")] {
        let name = format!("{label}-{}-values-1", short(dtype));
        let step = Call::new(operation, dtype).input(&[3, 1], values(&name, &[3, 1])).step();
        maker.add_step(name, "One value per group is answered: its deviation is 0.", &[Flag::BatchOne], step);
    }
    for (label, weight) in [("large", 1.0), ("large-weight", power_of_two(34))] {
        if dtype == DataType::F16 {
            continue;
        }
        let name = format!("layer_norm-{}-one-value-{label}", short(dtype));
        let input = values(&name, &[3, 1]).into_iter().map(|x| x * power_of_two(20)).collect();
        let call = Call::new(layer_norm(&[1]), dtype).parameter("weight", &[1], vec![weight]);
        let step = call.parameter("bias", &[1], vec![0.5]).input(&[3, 1], input).step();
        let comment = "One large value per group: the output is the bias and every gradient but the bias's is 0.";
        maker.add_both(name, comment, &[Flag::BatchOne, Flag::ConstantGroup], step);
    }
    let name = format!("rms_norm-{}-eps-null", short(dtype));
    let input = values(&name, &[4, 6]).into_iter().map(|x| x / 4096.0).collect();
    let step = Call::new(rms_norm(&[6], None), dtype).input(&[4, 6], input).step();
    let comment = "eps null is machine epsilon: of F64 for F64, of F32 for all others.";
    maker.add_step(name, comment, &[], step);
}

/// Ranks, sizes, hyper-parameters, data types that do not fit.
fn shapes(maker: &mut Maker) {
    let dtype = DataType::F32;
    let topics = &[Flag::Refusal];
    let mut refuse = |name: &str, comment: &str, call: Call, shape: &[usize]| {
        maker.add_step(name.to_owned(), comment, topics, call.input(shape, values(name, shape)).step());
    };
    let bn = |dims, eps| Call::new(batch_norm(dims, eps, Some(0.1)), dtype).train();
    refuse("batch_norm-f32-refuses-rank-1", "BatchNorm1d takes rank 2 or 3.", bn(Some(1), 1e-5).fresh(3), &[3]);
    refuse(
        "batch_norm-f32-refuses-rank-4",
        "BatchNorm1d takes rank 2 or 3.",
        bn(Some(1), 1e-5).fresh(3),
        &[2, 3, 2, 2],
    );
    refuse("batch_norm-f32-refuses-2d-rank-3", "BatchNorm2d takes rank 4.", bn(Some(2), 1e-5).fresh(3), &[2, 3, 4]);
    refuse("batch_norm-f32-refuses-3d-rank-4", "BatchNorm3d takes rank 5.", bn(Some(3), 1e-5).fresh(3), &[2, 3, 2, 2]);
    refuse(
        "batch_norm-f32-refuses-channels",
        "Statistics of another number of channels.",
        bn(Some(1), 1e-5).fresh(4),
        &[2, 3],
    );
    let weight = bn(Some(1), 1e-5).fresh(3).parameter("weight", &[4], vec![1.0; 4]);
    refuse("batch_norm-f32-refuses-weight", "A weight of another number of channels.", weight, &[2, 3]);
    let half = bn(Some(1), 1e-5).parameter("running_mean", &[3], vec![0.0; 3]);
    refuse("batch_norm-f32-refuses-missing-variance", "running_mean without running_var.", half, &[2, 3]);
    refuse("batch_norm-f32-refuses-eps-0", "eps must be positive in training.", bn(Some(1), 0.0).fresh(3), &[4, 3]);
    let zero = Call::new(batch_norm(Some(1), 1e-5, None), dtype).train().fresh(3).counter(-1);
    refuse("batch_norm-f32-refuses-counter", "A cumulative average over 0 batches.", zero, &[4, 3]);
    let mixed = bn(Some(1), 1e-5).parameters_in(DataType::F64).fresh(3);
    refuse("batch_norm-f32-refuses-f64-statistics", "F64 statistics with an F32 input.", mixed, &[4, 3]);

    let gn = |groups| Call::new(group_norm(groups), dtype);
    refuse("group_norm-f32-refuses-indivisible", "Channels must be divisible by the groups.", gn(3), &[2, 4, 2]);
    refuse("group_norm-f32-refuses-rank-1", "Rank 2 or more.", gn(1), &[4]);
    let weight = gn(2).parameter("weight", &[2], vec![1.0; 2]);
    refuse("group_norm-f32-refuses-weight-per-group", "Weights are per channel, not per group.", weight, &[2, 4, 2]);

    let ln = |shape: &[usize]| Call::new(layer_norm(shape), dtype);
    refuse("layer_norm-f32-refuses-shape", "The input must end with normalized_shape.", ln(&[3]), &[2, 4]);
    refuse("layer_norm-f32-refuses-rank", "The input must end with normalized_shape.", ln(&[2, 4]), &[4]);
    refuse("layer_norm-f32-refuses-no-axes", "normalized_shape has at least one axis.", ln(&[]), &[2, 4]);
    let weight = ln(&[4]).parameter("weight", &[1, 4], vec![1.0; 4]);
    refuse("layer_norm-f32-refuses-weight", "The weight has normalized_shape.", weight, &[2, 4]);
    let mixed = ln(&[4]).parameters_in(DataType::F16).parameter("weight", &[4], vec![1.0; 4]);
    refuse("layer_norm-f32-refuses-f16-weight", "An F16 weight with an F32 input.", mixed, &[2, 4]);
    let rms = Call::new(rms_norm(&[3], Some(1e-5)), dtype);
    refuse("rms_norm-f32-refuses-shape", "The input must end with normalized_shape.", rms, &[2, 4]);
}

/// Tensors without elements.
fn empty(maker: &mut Maker) {
    let dtype = DataType::F32;
    let topics = &[Flag::Empty];
    let mut add = |name: &str, call: Call, shape: &[usize]| {
        maker.add_step(name.to_owned(), "A tensor without elements.", topics, call.input(shape, vec![]).step());
    };
    let bn = || Call::new(batch_norm(Some(1), 1e-5, Some(0.1)), dtype).train();
    add("batch_norm-f32-empty-batch", bn().fresh(3), &[0, 3]);
    add("batch_norm-f32-empty-length", bn().fresh(3), &[2, 3, 0]);
    let eval = Call::new(batch_norm(Some(1), 1e-5, Some(0.1)), dtype).fresh(3);
    add("batch_norm-f32-empty-eval", eval, &[0, 3]);
    add("group_norm-f32-empty-batch", Call::new(group_norm(2), dtype), &[0, 4]);
    add("group_norm-f32-empty-length", Call::new(group_norm(2), dtype), &[2, 4, 0]);
    add("layer_norm-f32-empty-batch", Call::new(layer_norm(&[4]), dtype), &[0, 4]);
    add("layer_norm-f32-empty-row", Call::new(layer_norm(&[0]), dtype), &[2, 0]);
    add("rms_norm-f32-empty-batch", Call::new(rms_norm(&[4], Some(1e-5)), dtype), &[0, 4]);
}

fn times(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}
