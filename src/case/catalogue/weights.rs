//! Norms of weights: weight norm, spectral norm, frozen batch norm, folding.

use super::{Call, Maker, short, trained};
use crate::arithmetic::DataType;
use crate::arithmetic::format::power_of_two;
use crate::case::Flag;
use crate::case::values::Values;
use crate::operation::{ConvBatchNormFold, FrozenBatchNorm, Operation, SpectralNorm, WeightNorm};

pub(super) fn make(maker: &mut Maker) {
    for dtype in DataType::FLOATS {
        weight_norm(maker, dtype);
        spectral_norm(maker, dtype);
        frozen(maker, dtype);
        folding(maker, dtype);
    }
}

fn weight_norm(maker: &mut Maker, dtype: DataType) {
    for (label, dim, shape, magnitudes) in [
        ("linear", Some(0), &[3, 4][..], &[3, 1][..]),
        ("columns", Some(1), &[3, 4], &[1, 4]),
        ("conv", Some(0), &[4, 3, 2, 2], &[4, 1, 1, 1]),
        ("conv-transposed", Some(1), &[3, 4, 2, 2], &[1, 4, 1, 1]),
        ("negative", Some(-2), &[3, 4], &[3, 1]),
        ("whole", None, &[3, 4], &[]),
        ("minus-one", Some(-1), &[3, 4], &[]),
        ("row", Some(0), &[1, 7], &[1, 1]),
        ("long", Some(0), &[2, 257], &[2, 1]),
    ] {
        let name = format!("weight_norm-{}-{label}", short(dtype));
        let mut values = Values::named(&name);
        let count = magnitudes.iter().product();
        let magnitude = (0..count).map(|_| values.sign() * (0.5 + values.uniform())).collect();
        let step = Call::new(Operation::WeightNorm(WeightNorm { dim }), dtype)
            .parameter("weight", magnitudes, magnitude)
            .input(shape, values.normals(shape.iter().product(), 0.25, 1.0))
            .step();
        maker.add_all(name, "A direction and a magnitude; no dim and −1 are the whole tensor.", &[], step);
    }
    let name = format!("weight_norm-{}-zero-row", short(dtype));
    let step = Call::new(Operation::WeightNorm(WeightNorm { dim: Some(0) }), dtype)
        .parameter("weight", &[2, 1], vec![1.0, 1.0])
        .input(&[2, 3], vec![0.0, 0.0, 0.0, 1.0, 2.0, 2.0])
        .step();
    maker.add_step(name, "There is no eps: a zero direction gives NaN.", &[Flag::NonFinite], step);
    let name = format!("weight_norm-{}-refuses-dim", short(dtype));
    let step = Call::new(Operation::WeightNorm(WeightNorm { dim: Some(2) }), dtype)
        .parameter("weight", &[2, 1], vec![1.0, 1.0])
        .input(&[2, 3], vec![1.0; 6])
        .step();
    maker.add_step(name, "An axis that is not there.", &[Flag::Refusal], step);
}

fn spectral_norm(maker: &mut Maker, dtype: DataType) {
    for (label, dim, n_power_iterations, shape, train) in [
        ("linear", 0, 1, &[3, 4][..], true),
        ("three-iterations", 0, 3, &[3, 4], true),
        ("eval", 0, 1, &[3, 4], false),
        ("conv", 0, 1, &[4, 3, 2, 2], true),
        ("conv-transposed", 1, 1, &[3, 4, 2, 2], true),
        ("row", 0, 1, &[1, 5], true),
        ("column", 0, 1, &[5, 1], true),
        ("wide", 0, 2, &[8, 33], true),
    ] {
        let name = format!("spectral_norm-{}-{label}", short(dtype));
        let mut values = Values::named(&name);
        let axis = dim as usize;
        let (rows, columns) = (shape[axis], shape.iter().product::<usize>() / shape[axis]);
        // Near unit length, as the buffers of a module are.
        let mut unit = |count: usize| {
            let scale = power_of_two(-(count.ilog2() as i32) / 2);
            values.normals(count, 0.5, 0.25).into_iter().map(|x| x * scale).collect::<Vec<f64>>()
        };
        let (u, v) = (unit(rows), unit(columns));
        let operation = Operation::SpectralNorm(SpectralNorm { dim, n_power_iterations, eps: 1e-12 });
        let call = Call::new(operation, dtype).parameter("u", &[rows], u).parameter("v", &[columns], v);
        let call = if train { call.train() } else { call };
        let step = call.input(shape, values.normals(rows * columns, 0.5, 1.0)).step();
        maker.add_all(name, "The weight divided by an estimate of its largest singular value.", &[], step);
    }
    let name = format!("spectral_norm-{}-vector", short(dtype));
    let operation = Operation::SpectralNorm(SpectralNorm { dim: 0, n_power_iterations: 1, eps: 1e-12 });
    let input = Values::named(&name).normals(6, 0.5, 1.0);
    let step = Call::new(operation, dtype).train().input(&[6], input).step();
    maker.add_all(name, "A weight of rank 1 is normalized to length 1.", &[], step);
    let name = format!("spectral_norm-{}-refuses-iterations", short(dtype));
    let operation = Operation::SpectralNorm(SpectralNorm { dim: 0, n_power_iterations: 0, eps: 1e-12 });
    let step = Call::new(operation, dtype)
        .train()
        .parameter("u", &[2], vec![0.75, 0.5])
        .parameter("v", &[2], vec![0.5, 0.75])
        .input(&[2, 2], vec![1.0, 2.0, 3.0, 4.0])
        .step();
    maker.add_step(name, "At least one iteration.", &[Flag::Refusal], step);
}

fn frozen(maker: &mut Maker, dtype: DataType) {
    for (label, eps, mean, variance) in [
        ("plain", 1e-5, 0.0, 1.0),
        ("eps-0", 0.0, 0.5, 1.0),
        ("small-variance", 1e-3, 0.0, power_of_two(-10)),
        ("large-mean", 1e-5, 100.0, 1.0),
    ] {
        let name = format!("frozen_batch_norm-{}-{label}", short(dtype));
        let mut values = Values::named(&name);
        let (weight, bias) = trained(&mut values, 3);
        let step = Call::new(Operation::FrozenBatchNorm(FrozenBatchNorm { eps }), dtype)
            .parameter("weight", &[3], weight)
            .parameter("bias", &[3], bias)
            .parameter("running_mean", &[3], values.normals(3, mean, 0.5))
            .parameter("running_var", &[3], (0..3).map(|_| variance * (1.0 + values.uniform())).collect())
            .input(&[2, 3, 3, 4], values.normals(72, mean, 1.0))
            .step();
        maker.add_all(name, "Batch norm whose statistics and parameters never change.", &[], step);
    }
    let name = format!("frozen_batch_norm-{}-refuses-channels", short(dtype));
    let four = || vec![1.0; 4];
    let step = Call::new(Operation::FrozenBatchNorm(FrozenBatchNorm { eps: 1e-5 }), dtype)
        .parameter("weight", &[4], four())
        .parameter("bias", &[4], four())
        .parameter("running_mean", &[4], four())
        .parameter("running_var", &[4], four())
        .input(&[1, 3, 2, 2], vec![1.0; 12])
        .step();
    maker.add_step(name, "Vectors of another number of channels.", &[Flag::Refusal], step);
}

fn folding(maker: &mut Maker, dtype: DataType) {
    for (label, transposed, shape, biased, eps) in [
        ("conv1d", false, &[4, 3, 3][..], true, 1e-5),
        ("conv2d", false, &[4, 3, 2, 2], true, 1e-5),
        ("conv2d-no-bias", false, &[4, 3, 2, 2], false, 1e-5),
        ("transposed", true, &[3, 4, 2, 2], true, 1e-5),
        ("transposed-no-bias", true, &[3, 4, 2, 2], false, 1e-3),
        ("one-channel", false, &[1, 2, 3, 3], true, 1e-5),
        ("eps-0.5", false, &[4, 3, 2], true, 0.5),
    ] {
        let name = format!("conv_batch_norm_fold-{}-{label}", short(dtype));
        let mut values = Values::named(&name);
        let channels = shape[usize::from(transposed)];
        let (weight, bias) = trained(&mut values, channels);
        let operation = Operation::ConvBatchNormFold(ConvBatchNormFold { eps, transposed });
        let mut call = Call::new(operation, dtype)
            .parameter("weight", &[channels], weight)
            .parameter("bias", &[channels], bias)
            .parameter("running_mean", &[channels], values.normals(channels, 0.5, 1.0))
            .parameter("running_var", &[channels], (0..channels).map(|_| 0.25 + values.uniform()).collect());
        if biased {
            call = call.parameter("conv_bias", &[channels], values.normals(channels, 0.0, 1.0));
        }
        let step = call.input(shape, values.normals(shape.iter().product(), 0.0, 0.5)).step();
        maker.add_all(name, "An evaluated batch norm folded into the convolution before it.", &[], step);
    }
}
