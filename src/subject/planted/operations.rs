//! Which operations can have a planted bug.

use crate::operation::{FAMILY, RUNNING, TORCH_CENTRED, TORCH_FAMILY, WEIGHTED, joined};

/// What masks its input.
pub(super) const MASKED: &[&str] = &["masked_layer_norm", "masked_group_norm", "masked_batch_norm"];
/// Evolved layers that divide by the statistics of a batch, and those that divide by a sample's.
pub(super) const EVOLVED_OF_BATCH: &[&str] = &["evo_norm_b0", "evo_norm_b1", "evo_norm_b2"];
const EVOLVED_OF_SAMPLE: &[&str] = &["evo_norm_s0", "evo_norm_s1", "evo_norm_s2"];
/// Those that standardize by a biased variance, and do more besides.
const STANDARDIZING: &[&str] = joined![
    MASKED,
    &[
        "ada_instance_norm",
        "spade",
        "scaled_weight_standardization",
        "ghost_batch_norm",
        "split_batch_norm",
        "batch_renorm"
    ],
    RESEARCH,
];
/// Those of them from papers that no framework ships.
const RESEARCH: &[&str] = &[
    "switchable_norm",
    "batch_instance_norm",
    "batch_channel_norm",
    "extended_batch_norm",
    "batch_group_norm",
    "adaptive_batch_norm",
    "positional_norm",
];
/// Those that divide by the root of what they have stored, or of a mean square.
const LAGGING: &[&str] =
    &["online_norm", "moving_average_batch_norm", "power_norm", "virtual_batch_norm", "proxy_norm"];
/// Those whose eps stands beside a variance, and could stand beside its root.
pub(super) const ROOTED: &[&str] =
    joined![FAMILY, STANDARDIZING, LAGGING, &["frozen_batch_norm", "simple_norm", "qk_norm"]];
/// Those that add an eps to a variance.
pub(super) const WITH_EPS: &[&str] = joined![
    ROOTED,
    EVOLVED_OF_BATCH,
    EVOLVED_OF_SAMPLE,
    &[
        "conv_batch_norm_fold",
        "rms_norm_gated",
        "global_response_norm",
        "weight_demodulation",
        "l1_batch_norm",
        "unit_norm_step"
    ],
    WHITENING,
];
/// Those that make the channels of a batch uncorrelated.
const WHITENING: &[&str] = &["iter_norm", "decorrelated_batch_norm"];
/// Those that divide by n, and could divide by n − 1.
pub(super) const BIASED: &[&str] =
    joined![FAMILY, STANDARDIZING, &["evo_norm_b0", "evo_norm_s0", "precise_batch_norm_statistics"], WHITENING,];
/// Those whose 1/σ is a step of its own.
pub(super) const SCALED: &[&str] = joined![TORCH_FAMILY, FROZEN];
/// Those that subtract a mean, the stored one too.
pub(super) const SUBTRACTING: &[&str] = joined![TORCH_CENTRED, FROZEN];
const FROZEN: &[&str] = &["frozen_batch_norm"];
/// Those whose groups have neighbouring values in memory.
pub(super) const BLOCKWISE: &[&str] = joined![
    TORCH_FAMILY,
    &["layer_norm_1p", "filter_response_norm", "ada_layer_norm", "ada_group_norm", "weight_standardization"],
];
/// Those that normalize trailing axes.
pub(super) const TRAILING: &[&str] = &["layer_norm", "rms_norm"];
/// Those whose running variance is unbiased.
pub(super) const BESSEL: &[&str] =
    joined![RUNNING, EVOLVED_OF_BATCH, &["spade", "ghost_batch_norm", "split_batch_norm"], MIXED];
/// Those that mix batch norm with a sample's own.
const MIXED: &[&str] = &["batch_instance_norm", "batch_channel_norm"];
/// Those whose running statistics weigh the new value by their momentum.
pub(super) const MOVING: &[&str] = joined![
    BESSEL,
    &[
        "masked_batch_norm",
        "batch_renorm",
        "online_norm",
        "moving_average_batch_norm",
        "power_norm",
        "switchable_norm",
        "mean_only_batch_norm",
        "l1_batch_norm",
        "extended_batch_norm",
        "batch_group_norm"
    ],
    WHITENING,
];
/// Those that subtract nothing, though they standardize.
pub(super) const UNCENTRED: &[&str] = &["rms_norm", "pixel_norm", "filter_response_norm", "simple_norm"];
/// Those that multiply by a weight, or by 1 + weight.
pub(super) const OFFSET: &[&str] = joined![WEIGHTED, FROZEN, &["film", "spade"]];
/// Those with a condition for each sample, or a weight for each tensor.
pub(super) const CONDITIONED: &[&str] =
    &["qk_norm", "ada_layer_norm", "ada_group_norm", "ada_instance_norm", "film", "spade", "weight_demodulation"];
/// Those with an activation, a gate or a threshold of their own.
pub(super) const ACTIVATED: &[&str] = joined![
    EVOLVED_OF_SAMPLE,
    &["rms_norm_gated", "filter_response_norm", "dynamic_tanh", "dynamic_erf", "proxy_norm"]
];
/// Those that divide by a norm.
pub(super) const NORMS: &[&str] = &["normalize", "renorm", "weight_norm", "spectral_norm"];
/// Those with a window of channels.
pub(super) const RESPONSE: &[&str] = &["local_response_norm", "cross_map_lrn"];
