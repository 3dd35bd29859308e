//! Sketches: the tensors of a call, by the sizes N, C and L, for whoever fills them.
//!
//! One place knows how the operations of tier 2 are called. The catalogue, the random search and the properties ask it, each
//! with values of its own.

use super::values::Values;
use crate::operation::{
    AdaGroupNorm, AdaInstanceNorm, AdaLayerNorm, AdaptiveBatchNorm, BatchChannelNorm, BatchGroupNorm,
    BatchInstanceNorm, BatchRenorm, DecorrelatedBatchNorm, DynamicErf, DynamicTanh, EvoNormB0, EvoNormB1, EvoNormB2,
    EvoNormS0, EvoNormS1, EvoNormS2, ExtendedBatchNorm, Film, FilterResponseNorm, GhostBatchNorm, GlobalResponseNorm,
    IterNorm, L1BatchNorm, LayerNorm1p, LayerNorm2d, MaskedBatchNorm, MaskedGroupNorm, MaskedLayerNorm,
    MeanOnlyBatchNorm, Mode, MovingAverageBatchNorm, OnlineNorm, OnlineNormBackward, Operation, PixelNorm,
    PositionalNorm, PowerNorm, PowerNormBackward, PreciseBatchNormStatistics, ProxyNorm, QkNorm, RmsNormGated,
    ScaleNorm, ScaledWeightStandardization, SimpleNorm, Spade, SplitBatchNorm, SwitchableNorm, UnitNormStep,
    VirtualBatchNorm, WeightDemodulation, WeightStandardization,
};

/// A call without its numbers.
pub(crate) struct Sketch {
    pub operation: Operation,
    pub mode: Mode,
    /// Its tensors, the input first.
    pub parts: Vec<Part>,
}

/// A tensor of a call.
pub(crate) struct Part {
    pub name: &'static str,
    /// The axes, named where they are the input's.
    pub axes: Vec<Along>,
    pub role: Role,
    /// Whether the call is one without it too.
    pub optional: bool,
}

/// What an axis runs along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Along {
    /// The input's first axis, N.
    Samples,
    /// Its second, C.
    Channels,
    /// Its third, L.
    Positions,
    /// An axis of its own.
    Of(usize),
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The input.
    Input,
    /// Values like the input's: a style, keys, a gate.
    Like,
    /// It multiplies.
    Weight,
    /// 1 + it multiplies.
    Offset,
    /// It is added.
    Bias,
    /// A stored mean.
    Mean,
    /// A stored variance or deviation.
    Variance,
    /// 0 or 1, at least two of a group 1.
    Mask,
    /// A positive factor of the input.
    Slope,
    /// e to it, among others, is a weight.
    Logit,
}

impl Part {
    /// Its shape, for the sizes N, C and L.
    pub fn shape(&self, [n, c, l]: [usize; 3]) -> Vec<usize> {
        let size = |along: &Along| match along {
            Along::Samples => n,
            Along::Channels => c,
            Along::Positions => l,
            Along::Of(size) => *size,
        };
        self.axes.iter().map(size).collect()
    }
}

/// A call of the operation called `name` with an input of N samples, C channels and L positions (of twice as many samples
/// where a batch is split); hyper-parameters that have no better value are picked from `values`. `None` if sketches know no
/// such operation.
pub(crate) fn sketch(name: &str, [n, c, l]: [usize; 3], eps: f64, values: &mut Values) -> Option<Sketch> {
    use Along::{Channels as C, Of, Positions as L, Samples as N};
    use Role::{Bias, Like, Mask, Mean, Offset, Slope, Variance, Weight};
    let (normalized_shape, momentum) = (vec![c, l], 0.25);
    let num_groups = if c.is_multiple_of(2) { 2 } else { 1 };
    let mut sketch = Sketch { operation: Operation::Film(Film {}), mode: Mode::Eval, parts: Vec::new() };
    let input = Part { name: "input", axes: vec![N, C, L], role: Role::Input, optional: false };
    sketch.parts.push(input);
    let split = |sketch: &mut Sketch| sketch.parts[0].axes[0] = Of(2 * n);
    let affine = |sketch: &mut Sketch, axes: &[Along]| {
        sketch.may("weight", axes, Weight);
        sketch.may("bias", axes, Bias);
    };
    let running = |sketch: &mut Sketch, axes: &[Along]| {
        sketch.mode = Mode::Train;
        sketch.may("running_mean", axes, Mean);
        sketch.may("running_var", axes, Variance);
    };
    sketch.operation = match name {
        "layer_norm_2d" => {
            sketch.parts[0].axes.push(Of(1));
            affine(&mut sketch, &[C]);
            Operation::LayerNorm2d(LayerNorm2d { eps })
        }
        "pixel_norm" => Operation::PixelNorm(PixelNorm { eps }),
        "layer_norm_1p" => {
            sketch.may("weight", &[C, L], Offset);
            sketch.may("bias", &[C, L], Bias);
            Operation::LayerNorm1p(LayerNorm1p { normalized_shape, eps })
        }
        "simple_norm" => {
            sketch.may("weight", &[C, L], Weight);
            Operation::SimpleNorm(SimpleNorm { normalized_shape, eps })
        }
        "qk_norm" => {
            sketch.must("key", &[N, Of(1), L], Like);
            sketch.may("weight", &[L], Weight);
            sketch.may("key_weight", &[L], Weight);
            Operation::QkNorm(QkNorm { eps })
        }
        "rms_norm_gated" => {
            sketch.may("gate", &[N, C, L], Like);
            sketch.may("weight", &[L], Weight);
            let group_size = Some(l / 2).filter(|_| l.is_multiple_of(2) && values.below(2) == 0);
            Operation::RmsNormGated(RmsNormGated { group_size, eps, norm_before_gate: values.below(2) == 0 })
        }
        "filter_response_norm" => {
            affine(&mut sketch, &[C]);
            sketch.may("tau", &[C], Bias);
            Operation::FilterResponseNorm(FilterResponseNorm { eps })
        }
        "ada_layer_norm" => {
            sketch.may("scale", &[N, L], Offset);
            sketch.may("shift", &[N, L], Bias);
            Operation::AdaLayerNorm(AdaLayerNorm { eps })
        }
        "ada_group_norm" => {
            sketch.may("scale", &[N, C], Offset);
            sketch.may("shift", &[N, C], Bias);
            Operation::AdaGroupNorm(AdaGroupNorm { num_groups, eps })
        }
        "ada_instance_norm" => {
            sketch.must("style", &[N, C, Of(3)], Like);
            Operation::AdaInstanceNorm(AdaInstanceNorm { eps })
        }
        "film" => {
            sketch.must("gamma", &[N, C], Weight);
            sketch.must("beta", &[N, C], Bias);
            Operation::Film(Film {})
        }
        "spade" => {
            sketch.may("gamma", &[N, C, L], Offset);
            sketch.may("beta", &[N, C, L], Bias);
            running(&mut sketch, &[C]);
            Operation::Spade(Spade { eps, momentum: Some(momentum) })
        }
        "weight_standardization" => Operation::WeightStandardization(WeightStandardization { eps }),
        "scaled_weight_standardization" => {
            sketch.may("gain", &[N], Weight);
            let gamma = values.pick(&[1.0, 1.75]);
            Operation::ScaledWeightStandardization(ScaledWeightStandardization { gamma, eps })
        }
        "ghost_batch_norm" => {
            split(&mut sketch);
            affine(&mut sketch, &[C]);
            running(&mut sketch, &[C]);
            Operation::GhostBatchNorm(GhostBatchNorm { batch_size: n, eps, momentum })
        }
        "split_batch_norm" => {
            split(&mut sketch);
            affine(&mut sketch, &[Of(2), C]);
            running(&mut sketch, &[Of(2), C]);
            Operation::SplitBatchNorm(SplitBatchNorm { num_splits: 2, eps, momentum })
        }
        "masked_layer_norm" => {
            sketch.must("mask", &[N, C, L], Mask);
            affine(&mut sketch, &[C, L]);
            Operation::MaskedLayerNorm(MaskedLayerNorm { normalized_shape, eps })
        }
        "masked_group_norm" => {
            sketch.must("mask", &[N, C, L], Mask);
            affine(&mut sketch, &[C]);
            Operation::MaskedGroupNorm(MaskedGroupNorm { num_groups, eps })
        }
        "masked_batch_norm" => {
            sketch.must("mask", &[N, C, L], Mask);
            affine(&mut sketch, &[C]);
            running(&mut sketch, &[C]);
            Operation::MaskedBatchNorm(MaskedBatchNorm { eps, momentum })
        }
        "scale_norm" => {
            sketch.may("weight", &[Of(1)], Weight);
            Operation::ScaleNorm(ScaleNorm { eps })
        }
        "global_response_norm" => {
            sketch.must("weight", &[C], Weight);
            sketch.must("bias", &[C], Bias);
            Operation::GlobalResponseNorm(GlobalResponseNorm { eps })
        }
        "dynamic_tanh" | "dynamic_erf" => {
            sketch.must("alpha", &[Of(1)], Slope);
            if name == "dynamic_erf" {
                sketch.may("shift", &[Of(1)], Bias);
            }
            affine(&mut sketch, &[L]);
            match name {
                "dynamic_tanh" => Operation::DynamicTanh(DynamicTanh {}),
                _ => Operation::DynamicErf(DynamicErf {}),
            }
        }
        "weight_demodulation" => {
            sketch.must("style", &[Of(2), C], Weight);
            Operation::WeightDemodulation(WeightDemodulation { eps })
        }
        "evo_norm_b0" | "evo_norm_b1" | "evo_norm_b2" => {
            affine(&mut sketch, &[C]);
            if name == "evo_norm_b0" {
                sketch.may("v", &[C], Weight);
            }
            sketch.may("running_var", &[C], Variance);
            sketch.mode = Mode::Train;
            match name {
                "evo_norm_b0" => Operation::EvoNormB0(EvoNormB0 { eps, momentum }),
                "evo_norm_b1" => Operation::EvoNormB1(EvoNormB1 { eps, momentum }),
                _ => Operation::EvoNormB2(EvoNormB2 { eps, momentum }),
            }
        }
        "evo_norm_s0" | "evo_norm_s1" | "evo_norm_s2" => {
            affine(&mut sketch, &[C]);
            if name == "evo_norm_s0" {
                sketch.may("v", &[C], Weight);
            }
            match name {
                "evo_norm_s0" => Operation::EvoNormS0(EvoNormS0 { num_groups, eps }),
                "evo_norm_s1" => Operation::EvoNormS1(EvoNormS1 { num_groups, eps }),
                _ => Operation::EvoNormS2(EvoNormS2 { num_groups, eps }),
            }
        }
        "batch_renorm" => {
            affine(&mut sketch, &[C]);
            sketch.must("running_mean", &[C], Mean);
            sketch.must("running_std", &[C], Variance);
            sketch.mode = Mode::Train;
            let (r_max, d_max) = values.pick(&[(1.0, 0.0), (1.5, 0.25), (3.0, 5.0), (f64::INFINITY, f64::INFINITY)]);
            Operation::BatchRenorm(BatchRenorm { r_max, d_max, eps, momentum })
        }
        "precise_batch_norm_statistics" => {
            let splits = if n > 1 { vec![1, 0, n - 1] } else { vec![n] };
            Operation::PreciseBatchNormStatistics(PreciseBatchNormStatistics { splits })
        }
        _ => return research(name, sketch, eps, momentum, num_groups, values),
    };
    Some(sketch)
}

/// The same for the operations of tier 3.
fn research(
    name: &str,
    mut sketch: Sketch,
    eps: f64,
    momentum: f64,
    num_groups: usize,
    values: &mut Values,
) -> Option<Sketch> {
    use Along::{Channels as C, Of, Positions as L, Samples as N};
    use Role::{Bias, Like, Logit, Mean, Offset, Slope, Variance, Weight};
    // Those that have statistics to train.
    let trained: &[(&'static str, &[Along], Role)] = match name {
        "online_norm" | "switchable_norm" | "batch_instance_norm" | "batch_channel_norm" => {
            &[("running_mean", &[C], Mean), ("running_var", &[C], Variance)]
        }
        "moving_average_batch_norm" => &[("history", &[Of(2), C], Variance), ("running_square", &[C], Variance)],
        "power_norm" => &[("running_square", &[C], Variance)],
        "iter_norm" | "decorrelated_batch_norm" => {
            &[("running_mean", &[C], Mean), ("running_projection", &[C, C], Bias)]
        }
        "mean_only_batch_norm" => &[("running_mean", &[C], Mean)],
        "l1_batch_norm" => &[("running_mean", &[C], Mean), ("running_scale", &[C], Variance)],
        "extended_batch_norm" => &[("running_mean", &[C], Mean), ("running_var", &[Of(1)], Variance)],
        "batch_group_norm" => {
            // As many groups as sketches have of an even number of channels, and of an odd one.
            let of_groups: &[Along] = if num_groups == 2 { &[Of(2)] } else { &[Of(1)] };
            for (name, role) in [("running_mean", Mean), ("running_var", Variance)] {
                sketch.must(name, of_groups, role);
            }
            sketch.mode = Mode::Train;
            &[]
        }
        _ => &[],
    };
    for &(name, axes, role) in trained {
        sketch.mode = Mode::Train;
        sketch.must(name, axes, role);
    }
    let bare = ["online_norm_backward", "power_norm_backward", "positional_norm", "proxy_norm", "unit_norm_step"];
    if !bare.contains(&name) {
        if name != "mean_only_batch_norm" {
            sketch.may("weight", &[C], Weight);
        }
        sketch.may("bias", &[C], Bias);
    }
    sketch.operation = match name {
        "online_norm" => {
            let layer_scaling = values.below(2) == 0;
            Operation::OnlineNorm(OnlineNorm { eps, momentum, layer_scaling })
        }
        "online_norm_backward" => {
            sketch.must("normalized", &[N, C, L], Like);
            sketch.must("sigma", &[N, C], Variance);
            sketch.must("error_along", &[C], Mean);
            sketch.must("error_mean", &[C], Mean);
            Operation::OnlineNormBackward(OnlineNormBackward { momentum })
        }
        "moving_average_batch_norm" => Operation::MovingAverageBatchNorm(MovingAverageBatchNorm { eps, momentum }),
        "power_norm" => Operation::PowerNorm(PowerNorm { eps, momentum, warmup: values.below(2) == 0 }),
        "power_norm_backward" => {
            sketch.must("normalized", &[N, C, L], Like);
            sketch.must("sigma", &[C], Variance);
            sketch.must("error_along", &[C], Mean);
            Operation::PowerNormBackward(PowerNormBackward { momentum })
        }
        "switchable_norm" => {
            sketch.must("mean_logits", &[Of(3)], Logit);
            sketch.must("var_logits", &[Of(3)], Logit);
            Operation::SwitchableNorm(SwitchableNorm { eps, momentum })
        }
        "batch_instance_norm" => {
            sketch.must("rho", &[C], Slope);
            Operation::BatchInstanceNorm(BatchInstanceNorm { eps, momentum })
        }
        "batch_channel_norm" => {
            sketch.must("rho", &[Of(1)], Slope);
            Operation::BatchChannelNorm(BatchChannelNorm { eps, momentum })
        }
        "decorrelated_batch_norm" => Operation::DecorrelatedBatchNorm(DecorrelatedBatchNorm { eps, momentum }),
        "iter_norm" => Operation::IterNorm(IterNorm { iterations: values.pick(&[5, 3]), eps, momentum }),
        "positional_norm" => Operation::PositionalNorm(PositionalNorm { eps, unbiased: values.below(2) == 0 }),
        "mean_only_batch_norm" => Operation::MeanOnlyBatchNorm(MeanOnlyBatchNorm { momentum }),
        "l1_batch_norm" => Operation::L1BatchNorm(L1BatchNorm { eps, momentum }),
        "virtual_batch_norm" => {
            sketch.must("reference", &[Of(3), C, L], Like);
            Operation::VirtualBatchNorm(VirtualBatchNorm { eps })
        }
        "extended_batch_norm" => Operation::ExtendedBatchNorm(ExtendedBatchNorm { eps, momentum }),
        "proxy_norm" => {
            sketch.may("proxy_shift", &[C], Bias);
            sketch.may("proxy_scale", &[C], Offset);
            Operation::ProxyNorm(ProxyNorm { eps })
        }
        "batch_group_norm" => Operation::BatchGroupNorm(BatchGroupNorm { num_groups, eps, momentum }),
        "adaptive_batch_norm" => {
            sketch.must("running_mean", &[C], Mean);
            sketch.must("running_var", &[C], Variance);
            let source_count = values.pick(&[16.0, 1.5]);
            Operation::AdaptiveBatchNorm(AdaptiveBatchNorm { source_count, eps })
        }
        "unit_norm_step" => {
            sketch.must("block", &[N, C, L], Like);
            sketch.must("alpha", &[L], Slope);
            Operation::UnitNormStep(UnitNormStep { eps })
        }
        _ => return None,
    };
    Some(sketch)
}

impl Sketch {
    fn must(&mut self, name: &'static str, axes: &[Along], role: Role) {
        self.parts.push(Part { name, axes: axes.to_vec(), role, optional: false });
    }

    fn may(&mut self, name: &'static str, axes: &[Along], role: Role) {
        self.parts.push(Part { name, axes: axes.to_vec(), role, optional: true });
    }
}

/// The tensors of a call that run along an axis of its input, and their own axis.
pub(crate) fn parts_along(name: &str, along: Along) -> Vec<(&'static str, usize)> {
    let parts = sketch(name, [2, 2, 2], 1.0, &mut Values::new(0)).map_or_else(Vec::new, |sketch| sketch.parts);
    let place = |part: &Part| Some((part.name, part.axes.iter().position(|&own| own == along)?));
    parts.iter().skip(1).filter_map(place).collect()
}

/// The axes of a tensor of the operation called `name`, for a reader: N, C and L of the input, S where it has a
/// size of its own.
#[cfg(feature = "cli")]
pub(crate) fn axes_of(name: &str, tensor: &str) -> Option<String> {
    let parts = sketch(name, [2, 2, 2], 1.0, &mut Values::new(0))?.parts;
    let part = parts.into_iter().find(|part| part.name == tensor)?;
    let letter = |along: Along| match along {
        Along::Samples => "N".to_owned(),
        Along::Channels => "C".to_owned(),
        Along::Positions => "L".to_owned(),
        Along::Of(1) => "1".to_owned(),
        Along::Of(_) => "S".to_owned(),
    };
    Some(part.axes.into_iter().map(letter).collect::<Vec<_>>().join(", "))
}
