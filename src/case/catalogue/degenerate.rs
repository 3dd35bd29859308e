//! Degenerate inputs of the layers of `torch.nn` that their own families leave out: nothing, constants, zeros, one value, a
//! batch of one with space and without.

use super::{Call, Maker};
use crate::arithmetic::DataType;
use crate::case::Flag;
use crate::case::values::Values;
use crate::operation::{
    ConvBatchNormFold, CrossMapLrn, Dialect, FrozenBatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm,
    Normalize, Operation, Renorm, RmsNorm, SpectralNorm, SyncBatchNorm, WeightNorm,
};

/// What an input holds.
#[derive(Clone, Copy)]
enum Of {
    Normal,
    Constant(f64),
}

pub(super) fn make(maker: &mut Maker) {
    for (shape, label, of) in [
        (&[0, 4, 3][..], "empty", Of::Normal),
        (&[2, 4, 3], "constant", Of::Constant(0.375)),
        (&[2, 4, 3], "zero", Of::Constant(0.0)),
        (&[3, 1, 1], "one-value", Of::Normal),
        (&[1, 4, 3], "one-sample", Of::Normal),
        (&[1, 4, 1], "one-sample-flat", Of::Normal),
    ] {
        for name in [
            "instance_norm",
            "sync_batch_norm",
            "layer_norm",
            "group_norm",
            "rms_norm",
            "local_response_norm",
            "cross_map_lrn",
            "normalize",
            "renorm",
            "frozen_batch_norm",
        ] {
            activations(maker, name, label, shape, of);
        }
    }
    for (shape, label, of) in [
        (&[3, 4][..], "constant", Of::Constant(0.375)),
        (&[3, 4], "zero", Of::Constant(0.0)),
        (&[3, 1], "one-value", Of::Normal),
    ] {
        for name in ["weight_norm", "spectral_norm", "conv_batch_norm_fold"] {
            weights(maker, name, label, shape, of);
        }
    }
}

const DTYPE: DataType = DataType::F32;

fn filled(name: &str, shape: &[usize], of: Of) -> Vec<f64> {
    let count = shape.iter().product();
    match of {
        Of::Normal => Values::named(name).normals(count, 0.5, 1.0),
        Of::Constant(value) => vec![value; count],
    }
}

fn add(maker: &mut Maker, name: String, label: &str, call: Call, shape: &[usize], of: Of) {
    let (topics, comment): (&[Flag], _) = match label {
        "empty" => (&[Flag::Empty], "A tensor without elements."),
        "constant" => (&[Flag::ConstantGroup], "A constant."),
        "zero" => (&[Flag::ConstantGroup], "Zeros."),
        "one-value" => (&[Flag::BatchOne], "One value of everything but samples."),
        "one-sample" => (&[Flag::BatchOne], "A batch of one with space."),
        _ => (&[Flag::BatchOne], "A batch of one without space."),
    };
    let input = filled(&name, shape, of);
    maker.add_step(name, comment, topics, call.input(shape, input).step());
}

/// An input whose axis 0 is samples.
fn activations(maker: &mut Maker, name: &str, label: &str, shape: &[usize], of: Of) {
    let (channels, eps) = (shape[1], 1e-5);
    let image = [shape, &[1]].concat();
    let normalized_shape = shape[1..].to_vec();
    let mut shape = shape;
    let call = |operation| Call::new(operation, DTYPE);
    let call = match name {
        "instance_norm" => call(Operation::InstanceNorm(InstanceNorm { spatial_dims: 1, eps, momentum: Some(0.1) })),
        "sync_batch_norm" => {
            let splits = vec![shape[0]];
            let norm = SyncBatchNorm { eps, momentum: Some(0.1), splits };
            call(Operation::SyncBatchNorm(norm)).train().fresh(channels)
        }
        "layer_norm" => call(Operation::LayerNorm(LayerNorm { normalized_shape, eps, dialect: Dialect::Pytorch })),
        "group_norm" => {
            let num_groups = if channels.is_multiple_of(2) { 2 } else { 1 };
            call(Operation::GroupNorm(GroupNorm { num_groups, eps, dialect: Dialect::Pytorch }))
        }
        "rms_norm" => {
            let norm = RmsNorm { normalized_shape, eps: Some(eps), dialect: Dialect::Pytorch };
            call(Operation::RmsNorm(norm))
        }
        "local_response_norm" => {
            call(Operation::LocalResponseNorm(LocalResponseNorm { size: 3, alpha: 0.5, beta: 0.75, k: 1.0 }))
        }
        "cross_map_lrn" => {
            shape = &image;
            call(Operation::CrossMapLrn(CrossMapLrn { size: 3, alpha: 0.5, beta: 0.75, k: 1.0 }))
        }
        "normalize" => call(Operation::Normalize(Normalize { p: 2.0, dim: 1, eps: 1e-3 })),
        "renorm" => call(Operation::Renorm(Renorm { p: 2.0, dim: 0, maxnorm: 1.0 })),
        _ => {
            shape = &image;
            let ones = || vec![1.0; channels];
            call(Operation::FrozenBatchNorm(FrozenBatchNorm { eps }))
                .parameter("weight", &[channels], ones())
                .parameter("bias", &[channels], vec![0.25; channels])
                .parameter("running_mean", &[channels], vec![0.5; channels])
                .parameter("running_var", &[channels], ones())
        }
    };
    add(maker, format!("{name}-f32-degenerate-{label}"), label, call, shape, of);
}

/// A weight, which has no samples.
fn weights(maker: &mut Maker, name: &str, label: &str, shape: &[usize], of: Of) {
    let (rows, columns) = (shape[0], shape[1]);
    let call = match name {
        "weight_norm" => Call::new(Operation::WeightNorm(WeightNorm { dim: Some(0) }), DTYPE).parameter(
            "weight",
            &[rows, 1],
            vec![1.5; rows],
        ),
        "spectral_norm" => {
            let norm = SpectralNorm { dim: 0, n_power_iterations: 1, eps: 1e-12 };
            Call::new(Operation::SpectralNorm(norm), DTYPE).train().parameter("u", &[rows], vec![0.5; rows]).parameter(
                "v",
                &[columns],
                vec![0.5; columns],
            )
        }
        _ => {
            let fold = ConvBatchNormFold { eps: 1e-5, transposed: false };
            Call::new(Operation::ConvBatchNormFold(fold), DTYPE)
                .parameter("weight", &[rows], vec![1.5; rows])
                .parameter("bias", &[rows], vec![0.25; rows])
                .parameter("running_mean", &[rows], vec![0.5; rows])
                .parameter("running_var", &[rows], vec![1.25; rows])
        }
    };
    add(maker, format!("{name}-f32-degenerate-{label}"), label, call, shape, of);
}
