//! Promises: what each operation must not notice, and what it must.
//!
//! | operation | + constant over | + a constant of each channel | of each sample | −x | a·x, eps·a² | order of samples | channels | positions | other samples |
//! | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
//! | batch norm in training | all: same | same | seen | −y | same | moves | moves | moves | seen |
//! | instance norm | same | same | same | −y | same | moves | moves | moves | not seen |
//! | layer norm over (C, L), group norm | same | seen | same | −y | same | moves | moves, in groups | moves | not seen |
//! | RMS norm over (C, L) | seen | seen | seen | −y | same | moves | moves | moves | not seen |
//! | … | | | | | | | | | |
//!
//! `normative table promises` has every row. What is *seen* is a promise too: a layer that takes its statistics along the
//! wrong axes keeps a symmetry that it must break (a metamorphic relation and its negation; Chen, Cheung and Yiu 1998).

/// Axes of an input (N, C, L…).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// The samples.
    Samples,
    /// The channels.
    Channels,
    /// All axes after them.
    Positions,
}

/// What an operation promises. In the row of a bool, `false` is the promise of the contrary.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// The operation.
    pub operation: &'static str,
    /// y(x + c) = y(x).
    pub shift: bool,
    /// The same with another c for each channel.
    pub shift_of_channels: bool,
    /// The same with another c for each sample.
    pub shift_of_samples: bool,
    /// The sign of y(−x)/y(x).
    pub sign: Sign,
    /// The degree d of y(a·x) = aᵈ·y(x) for a > 0, with eps·a², or alpha/a².
    pub degree: Option<i32>,
    /// Axes along which a permutation of the input permutes the output.
    pub permutes: &'static [Axis],
    /// Whether a sample's output depends on the other samples.
    pub mixes_samples: bool,
    /// Whether the output is a rising function of the element within its group, where the weight is positive.
    pub monotone: bool,
}

/// What becomes of the output where the input changes its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// y(−x) = −y(x).
    Odd,
    /// y(−x) = y(x).
    Even,
    /// Neither.
    Neither,
}

/// The promises of every operation: of batch norm in training, of spectral norm in evaluation; normalization is along the
/// channels, renorm, weight norm and spectral norm along the first axis.
pub fn promises() -> &'static [Promises] {
    use Axis::{Channels, Positions, Samples};
    const EVERY: &[Axis] = &[Samples, Channels, Positions];
    const BATCH: Promises = Promises {
        operation: "batch_norm",
        shift: true,
        shift_of_channels: true,
        shift_of_samples: false,
        sign: Sign::Odd,
        degree: Some(0),
        permutes: EVERY,
        mixes_samples: true,
        monotone: true,
    };
    const LAYER: Promises = Promises {
        operation: "layer_norm",
        shift_of_channels: false,
        shift_of_samples: true,
        mixes_samples: false,
        ..BATCH
    };
    const NORM: Promises = Promises { operation: "rms_norm", shift: false, shift_of_samples: false, ..LAYER };
    const WINDOW: Promises = Promises {
        operation: "local_response_norm",
        degree: Some(1),
        // The window has an order.
        permutes: &[Samples, Positions],
        monotone: false,
        ..NORM
    };
    const STORED: Promises = Promises { operation: "frozen_batch_norm", degree: None, ..NORM };
    const POINTWISE: Promises = Promises { operation: "dynamic_tanh", degree: None, ..NORM };
    // Some of what normalizes is stored, and does not move with the input.
    const LAGGING: Promises = Promises { operation: "adaptive_batch_norm", degree: None, ..NORM };
    const ONE_BY_ONE: Promises = Promises {
        operation: "online_norm",
        permutes: &[Channels, Positions],
        mixes_samples: true,
        monotone: false,
        ..LAGGING
    };
    const EVOLVED: Promises =
        Promises { operation: "evo_norm_s0", sign: Sign::Neither, degree: None, monotone: false, ..NORM };
    const EVOLVED_BATCH: Promises = Promises { operation: "evo_norm_b0", mixes_samples: true, ..EVOLVED };
    &[
        BATCH,
        Promises { operation: "sync_batch_norm", ..BATCH },
        Promises { operation: "instance_norm", shift_of_channels: true, ..LAYER },
        LAYER,
        Promises { operation: "group_norm", ..LAYER },
        NORM,
        WINDOW,
        Promises { operation: "cross_map_lrn", ..WINDOW },
        Promises { operation: "normalize", ..NORM },
        // The 1e-7 that PyTorch adds to the norm does not scale.
        Promises { operation: "renorm", degree: None, ..NORM },
        Promises { operation: "weight_norm", ..NORM },
        // σ changes its sign with the weight, as u and v do not.
        Promises { operation: "spectral_norm", sign: Sign::Even, mixes_samples: true, ..NORM },
        STORED,
        Promises { operation: "conv_batch_norm_fold", ..STORED },
        Promises { operation: "layer_norm_2d", ..LAYER },
        Promises { operation: "pixel_norm", ..NORM },
        Promises { operation: "layer_norm_1p", ..LAYER },
        Promises { operation: "simple_norm", ..NORM },
        Promises { operation: "qk_norm", ..NORM },
        // Neighbouring positions may be groups.
        Promises { operation: "rms_norm_gated", permutes: &[Samples, Channels], ..NORM },
        Promises { operation: "filter_response_norm", ..NORM },
        // Over the last axis: a constant of each row is a constant of its group.
        Promises { operation: "ada_layer_norm", shift_of_channels: true, ..LAYER },
        Promises { operation: "ada_group_norm", ..LAYER },
        // Odd where the style is negated too; its eps does not scale.
        Promises { operation: "ada_instance_norm", shift_of_channels: true, degree: None, ..LAYER },
        Promises { operation: "film", degree: None, monotone: false, ..NORM },
        Promises { operation: "spade", ..BATCH },
        Promises { operation: "weight_standardization", ..LAYER },
        Promises { operation: "scaled_weight_standardization", ..LAYER },
        // The chunks have an order.
        Promises { operation: "ghost_batch_norm", permutes: &[Channels, Positions], ..BATCH },
        Promises { operation: "split_batch_norm", permutes: &[Channels, Positions], ..BATCH },
        Promises { operation: "masked_layer_norm", ..LAYER },
        Promises { operation: "masked_group_norm", ..LAYER },
        Promises { operation: "masked_batch_norm", ..BATCH },
        Promises { operation: "scale_norm", ..NORM },
        Promises { operation: "global_response_norm", degree: Some(1), monotone: false, ..NORM },
        Promises { operation: "dynamic_tanh", ..POINTWISE },
        Promises { operation: "dynamic_erf", ..POINTWISE },
        Promises { operation: "weight_demodulation", monotone: false, ..NORM },
        Promises { operation: "evo_norm_b0", degree: Some(0), ..EVOLVED_BATCH },
        Promises { operation: "evo_norm_b1", ..EVOLVED_BATCH },
        Promises { operation: "evo_norm_b2", degree: Some(0), ..EVOLVED_BATCH },
        Promises { operation: "evo_norm_s0", ..EVOLVED },
        Promises { operation: "evo_norm_s1", ..EVOLVED },
        Promises { operation: "evo_norm_s2", ..EVOLVED },
        // Odd where the running mean is negated too; the running deviation does not scale.
        Promises { operation: "batch_renorm", shift: false, shift_of_channels: false, degree: None, ..BATCH },
        // Its outputs are statistics, not elements.
        Promises {
            operation: "precise_batch_norm_statistics",
            shift: false,
            shift_of_channels: false,
            degree: None,
            permutes: &[],
            monotone: false,
            ..BATCH
        },
        // The samples have an order, and statistics of their own.
        Promises { operation: "online_norm", ..ONE_BY_ONE },
        Promises { operation: "online_norm_backward", ..ONE_BY_ONE },
        Promises { operation: "moving_average_batch_norm", mixes_samples: true, ..LAGGING },
        Promises { operation: "power_norm", mixes_samples: true, ..LAGGING },
        Promises { operation: "power_norm_backward", monotone: false, ..LAGGING },
        Promises { operation: "switchable_norm", shift_of_channels: false, monotone: false, ..BATCH },
        Promises { operation: "batch_instance_norm", monotone: false, ..BATCH },
        Promises { operation: "iter_norm", monotone: false, ..BATCH },
        Promises { operation: "positional_norm", ..LAYER },
        Promises { operation: "mean_only_batch_norm", degree: Some(1), ..BATCH },
        Promises { operation: "l1_batch_norm", ..BATCH },
        // The reference does not move with the input; it is negated with it.
        Promises { operation: "virtual_batch_norm", monotone: false, ..LAGGING },
        Promises { operation: "extended_batch_norm", ..BATCH },
        Promises { operation: "proxy_norm", sign: Sign::Neither, ..LAGGING },
        Promises { operation: "batch_group_norm", shift_of_channels: false, ..BATCH },
        Promises { operation: "batch_channel_norm", shift_of_channels: false, monotone: false, ..BATCH },
        Promises { operation: "adaptive_batch_norm", mixes_samples: true, ..LAGGING },
        Promises { operation: "unit_norm_step", degree: None, monotone: false, ..NORM },
        Promises { operation: "decorrelated_batch_norm", monotone: false, ..BATCH },
    ]
}

/// The promises of the operation called `name`.
///
/// # Panics
/// If there is no such operation.
pub(super) fn of(name: &str) -> &'static Promises {
    promises().iter().find(|promises| promises.operation == name).expect("every operation has its promises")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;

    #[test]
    fn every_operation_promises_in_the_order_of_the_list() {
        let names: Vec<&str> = promises().iter().map(|promises| promises.operation).collect();
        assert_eq!(names, Operation::NAMES);
    }
}
