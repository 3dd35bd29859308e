//! Instance norm's own: unbatched inputs, tracking, evaluation; and synchronized batch norm's splits.

use super::{Call, Maker, short, trained};
use crate::arithmetic::DataType;
use crate::case::values::Values;
use crate::case::{Flag, Step};
use crate::operation::{InstanceNorm, Operation, SyncBatchNorm};

pub(super) fn make(maker: &mut Maker) {
    for dtype in DataType::FLOATS {
        shapes(maker, dtype);
        tracking(maker, dtype);
        boundary(maker, dtype);
        splits(maker, dtype);
    }
}

fn instance_norm(spatial_dims: u8, momentum: Option<f64>) -> Operation {
    Operation::InstanceNorm(InstanceNorm { spatial_dims, eps: 1e-5, momentum })
}

fn values(name: &str, shape: &[usize]) -> Vec<f64> {
    Values::named(name).normals(shape.iter().product(), 1.0, 1.0)
}

fn shapes(maker: &mut Maker, dtype: DataType) {
    for (label, spatial_dims, shape) in [
        ("1d", 1, &[2, 3, 5][..]),
        ("1d-unbatched", 1, &[3, 5]),
        ("2d", 2, &[2, 3, 4, 5]),
        ("2d-unbatched", 2, &[3, 4, 5]),
        ("3d", 3, &[2, 2, 2, 3, 2]),
        ("3d-unbatched", 3, &[2, 2, 3, 2]),
        ("batch-1", 2, &[1, 3, 3, 3]),
    ] {
        let name = format!("instance_norm-{}-rank-{label}", short(dtype));
        let channels = shape[shape.len() - usize::from(spatial_dims) - 1];
        let (weight, bias) = trained(&mut Values::named(&format!("{name} parameters")), channels);
        let input = values(&name, shape);
        let step = Call::new(instance_norm(spatial_dims, Some(0.1)), dtype)
            .parameter("weight", &[channels], weight)
            .parameter("bias", &[channels], bias)
            .input(shape, input)
            .step();
        maker.add_both(name, "Every rank that the module takes, batched and not.", &[], step);
    }
}

fn tracking(maker: &mut Maker, dtype: DataType) {
    for (label, momentum) in [("0.1", Some(0.1)), ("1", Some(1.0)), ("none", None)] {
        let name = format!("instance_norm-{}-tracked-{label}", short(dtype));
        let mut values = Values::named(&name);
        let mut step = |index: usize, train: bool| -> Step {
            let call = Call::new(instance_norm(1, momentum), dtype);
            let call = if index == 0 { call.fresh(3) } else { call };
            let call = if train { call.train() } else { call };
            call.input(&[4, 3, 6], values.normals(72, index as f64, 1.0)).step()
        };
        let steps = vec![step(0, true), step(1, true), step(2, false)];
        let comment = "The running statistics average over the samples; the counter never counts, no momentum is 0.";
        maker.add(name, comment, &[Flag::Sequence], steps);
    }
    let name = format!("instance_norm-{}-eval-tracked", short(dtype));
    let mut values = Values::named(&name);
    let step = Call::new(instance_norm(1, Some(0.1)), dtype)
        .parameter("running_mean", &[3], values.normals(3, 1.0, 0.5))
        .parameter("running_var", &[3], (0..3).map(|_| 0.5 + values.uniform()).collect())
        .counter(0)
        .input(&[2, 3, 4], values.normals(24, 1.0, 1.0))
        .step();
    maker.add_both(name, "Evaluation with stored statistics is batch norm's.", &[], step);
}

fn boundary(maker: &mut Maker, dtype: DataType) {
    let topics = &[Flag::Refusal, Flag::BatchOne];
    for (shape, tracked, train) in [
        (&[2, 3, 1][..], false, true),
        (&[2, 3, 1], true, true),
        (&[2, 3, 1], false, false),
        (&[2, 3, 1], true, false),
        (&[2, 3, 2], true, true),
        (&[3, 1], false, true),
        (&[1, 3, 2], false, true),
    ] {
        let sizes = shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let (state, mode) = (if tracked { "tracked" } else { "untracked" }, if train { "train" } else { "eval" });
        let name = format!("instance_norm-{}-values-{sizes}-{state}-{mode}", short(dtype));
        let call = Call::new(instance_norm(1, Some(0.1)), dtype);
        let call = if tracked { call.fresh(3) } else { call };
        let call = if train { call.train() } else { call };
        let input = values(&name, shape);
        let step = call.input(shape, input).step();
        maker.add_step(name, "An instance needs more than one value, however many samples there are.", topics, step);
    }
}

fn splits(maker: &mut Maker, dtype: DataType) {
    for (label, splits) in [
        ("1-1-1-1-1-1", vec![1; 6]),
        ("5-1", vec![5, 1]),
        ("0-6", vec![0, 6]),
        ("2-0-4-0", vec![2, 0, 4, 0]),
        ("6", vec![6]),
    ] {
        let name = format!("sync_batch_norm-{}-splits-{label}", short(dtype));
        let mut values = Values::named(&name);
        let (weight, bias) = trained(&mut values, 4);
        let operation = Operation::SyncBatchNorm(SyncBatchNorm { eps: 1e-5, momentum: Some(0.1), splits });
        let step = Call::new(operation, dtype)
            .train()
            .fresh(4)
            .parameter("weight", &[4], weight)
            .parameter("bias", &[4], bias)
            .input(&[6, 4, 3], values.normals(72, 1.0, 1.0))
            .step();
        maker.add_both(name, "However the batch is split, its statistics are those of the union.", &[], step);
    }
    for (label, momentum) in [("0.1", Some(0.1)), ("none", None)] {
        let name = format!("sync_batch_norm-{}-sequence-{label}", short(dtype));
        let mut values = Values::named(&name);
        let steps = [vec![2, 2], vec![1, 0, 3], vec![4]].into_iter().enumerate().map(|(index, splits)| {
            let call = Call::new(Operation::SyncBatchNorm(SyncBatchNorm { eps: 1e-5, momentum, splits }), dtype);
            let call = if index == 0 { call.fresh(3) } else { call };
            let call = if index == 2 { call } else { call.train() };
            call.input(&[4, 3, 2], values.normals(24, index as f64, 1.0)).step()
        });
        let steps = steps.collect();
        maker.add(name, "Two batches in training, then evaluation.", &[Flag::Sequence], steps);
    }
    for samples in [1, 2] {
        let name = format!("sync_batch_norm-{}-values-{samples}x3", short(dtype));
        let splits = vec![1; samples];
        let operation = Operation::SyncBatchNorm(SyncBatchNorm { eps: 1e-5, momentum: Some(0.1), splits });
        let input = self::values(&name, &[samples, 3]);
        let step = Call::new(operation, dtype).train().fresh(3).input(&[samples, 3], input).step();
        let comment = "What counts is the number of values of all workers.";
        maker.add_step(name, comment, &[Flag::Refusal, Flag::BatchOne], step);
    }
    let name = format!("sync_batch_norm-{}-refuses-splits", short(dtype));
    let operation = Operation::SyncBatchNorm(SyncBatchNorm { eps: 1e-5, momentum: Some(0.1), splits: vec![2, 2] });
    let input = values(&name, &[6, 4]);
    let step = Call::new(operation, dtype).train().fresh(4).input(&[6, 4], input).step();
    maker.add_step(name, "Splits that do not add up to the batch.", &[Flag::Refusal], step);
}
