//! Planted bugs and correct variants: recipes that the suite must accuse, and recipes that it must never accuse.
//!
//! A planted bug is an edited [`Rule`] (or an unstable [`Program`]); a correct variant is another order of operations
//! under the pristine rule.

use crate::arithmetic::{EpsPlace, Form, Order, Program, RunningQuantity, VarianceMethod};
use crate::case::Flag;
use crate::operation::{
    BATCH, CENTRED, FAMILY, GradientRule, MaskRule, MomentumSense, OneValue, RUNNING, Rule, Updates, WEIGHTED,
};

/// How a compiled-in subject computes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recipe {
    /// Its formula.
    pub rule: Rule,
    /// Its order of operations.
    pub program: Program,
    /// Accumulates in f64 whatever the input.
    pub wide: bool,
    /// Keeps mean and 1/σ in the input's type if that is a half type, or else in f16.
    pub half_statistics: bool,
}

/// A mistake that some real layer makes or made.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// The name for `--builtin`.
    pub name: &'static str,
    /// Its class.
    pub flag: Flag,
    /// What the layer does, in a sentence.
    pub sentence: &'static str,
    /// The operations that can have it.
    pub operations: &'static [&'static str],
    edit: fn(&mut Recipe),
}

impl Bug {
    /// The recipe with this mistake and no other.
    pub fn recipe(&self) -> Recipe {
        let mut recipe = Recipe::default();
        (self.edit)(&mut recipe);
        recipe
    }

    /// The bug called `name`.
    pub fn from_name(name: &str) -> Option<&'static Bug> {
        BUGS.iter().find(|bug| bug.name == name)
    }
}

/// A correct program.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// The name for `--builtin`.
    pub name: &'static str,
    /// How it computes, in a sentence.
    pub sentence: &'static str,
    /// Its order of operations.
    pub recipe: Recipe,
}

/// Those that add an eps to a variance.
const WITH_EPS: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "layer_norm",
    "group_norm",
    "rms_norm",
    "frozen_batch_norm",
    "conv_batch_norm_fold",
    "layer_norm_2d",
    "pixel_norm",
    "layer_norm_1p",
    "simple_norm",
    "qk_norm",
    "rms_norm_gated",
    "filter_response_norm",
    "ada_layer_norm",
    "ada_group_norm",
    "ada_instance_norm",
    "spade",
    "weight_standardization",
    "scaled_weight_standardization",
    "ghost_batch_norm",
    "split_batch_norm",
    "masked_layer_norm",
    "masked_group_norm",
    "masked_batch_norm",
    "global_response_norm",
    "weight_demodulation",
    "evo_norm_b0",
    "evo_norm_b1",
    "evo_norm_b2",
    "evo_norm_s0",
    "evo_norm_s1",
    "evo_norm_s2",
    "batch_renorm",
];
/// Those whose 1/σ is a step of its own.
const SCALED: &[&str] =
    &["batch_norm", "sync_batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm", "frozen_batch_norm"];
/// Those whose eps stands beside a variance, and could stand beside its root.
const ROOTED: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "layer_norm",
    "group_norm",
    "rms_norm",
    "frozen_batch_norm",
    "layer_norm_2d",
    "pixel_norm",
    "layer_norm_1p",
    "simple_norm",
    "qk_norm",
    "filter_response_norm",
    "ada_layer_norm",
    "ada_group_norm",
    "ada_instance_norm",
    "spade",
    "weight_standardization",
    "scaled_weight_standardization",
    "ghost_batch_norm",
    "split_batch_norm",
    "masked_layer_norm",
    "masked_group_norm",
    "masked_batch_norm",
    "batch_renorm",
];
/// Those that divide by n, and could divide by n − 1.
const BIASED: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "layer_norm",
    "group_norm",
    "rms_norm",
    "layer_norm_2d",
    "pixel_norm",
    "layer_norm_1p",
    "filter_response_norm",
    "ada_layer_norm",
    "ada_group_norm",
    "weight_standardization",
    "ada_instance_norm",
    "spade",
    "scaled_weight_standardization",
    "ghost_batch_norm",
    "split_batch_norm",
    "masked_layer_norm",
    "masked_group_norm",
    "masked_batch_norm",
    "evo_norm_b0",
    "evo_norm_s0",
    "batch_renorm",
    "precise_batch_norm_statistics",
];
/// Those whose running statistics weigh the new value by their momentum.
const MOVING: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "spade",
    "ghost_batch_norm",
    "split_batch_norm",
    "masked_batch_norm",
    "evo_norm_b0",
    "evo_norm_b1",
    "evo_norm_b2",
    "batch_renorm",
];
/// Those of them whose running variance is unbiased.
const BESSEL: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "spade",
    "ghost_batch_norm",
    "split_batch_norm",
    "evo_norm_b0",
    "evo_norm_b1",
    "evo_norm_b2",
];
/// Those that subtract nothing, though they standardize.
const UNCENTRED_AND_SIMPLE: &[&str] = &["rms_norm", "pixel_norm", "filter_response_norm", "simple_norm"];
/// Those that could take 1 + weight for weight, or do.
const OFFSET: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "layer_norm",
    "group_norm",
    "rms_norm",
    "layer_norm_2d",
    "filter_response_norm",
    "layer_norm_1p",
    "ada_layer_norm",
    "ada_group_norm",
    "film",
    "spade",
];
/// Those with a condition for each sample, or a weight for each tensor.
const CONDITIONED: &[&str] =
    &["qk_norm", "ada_layer_norm", "ada_group_norm", "ada_instance_norm", "film", "spade", "weight_demodulation"];
/// Those with an activation, a gate or a threshold of their own.
const ACTIVATED: &[&str] = &[
    "rms_norm_gated",
    "filter_response_norm",
    "dynamic_tanh",
    "dynamic_erf",
    "evo_norm_s0",
    "evo_norm_s1",
    "evo_norm_s2",
];
const MASKED: &[&str] = &["masked_layer_norm", "masked_group_norm", "masked_batch_norm"];
const GROUP: &[&str] = &["group_norm"];
const RESPONSE: &[&str] = &["local_response_norm", "cross_map_lrn"];

/// Every planted bug.
pub const BUGS: &[Bug] = &[
    Bug {
        name: "unbiased_variance",
        flag: Flag::VarianceDenominator,
        sentence: "it divides the variance by n − 1 instead of n",
        operations: BIASED,
        edit: |recipe| recipe.rule.degrees_of_freedom = 1,
    },
    Bug {
        name: "eps_outside_root",
        flag: Flag::EpsPlace,
        sentence: "it adds eps to the standard deviation instead of the variance",
        operations: ROOTED,
        edit: |recipe| recipe.rule.eps_place = EpsPlace::OutsideRoot,
    },
    Bug {
        name: "eps_dropped",
        flag: Flag::EpsValue,
        sentence: "it does not add eps",
        operations: WITH_EPS,
        edit: |recipe| recipe.rule.eps_factor = 0.0,
    },
    Bug {
        name: "eps_squared",
        flag: Flag::EpsValue,
        sentence: "it adds the square of eps to the variance",
        operations: WITH_EPS,
        edit: |recipe| recipe.rule.eps_power = 2,
    },
    Bug {
        name: "eps_doubled",
        flag: Flag::EpsValue,
        sentence: "it adds eps twice",
        operations: WITH_EPS,
        edit: |recipe| recipe.rule.eps_factor = 2.0,
    },
    Bug {
        name: "one_pass_variance",
        flag: Flag::Cancellation,
        sentence: "it computes the variance as E(x²) − E(x)²",
        operations: CENTRED,
        edit: |recipe| recipe.program.variance = VarianceMethod::OnePass,
    },
    Bug {
        name: "scale_off",
        flag: Flag::ScaleError,
        sentence: "its 1/σ is too large by one part in ten thousand",
        operations: SCALED,
        edit: |recipe| recipe.rule.scale_error = 1e-4,
    },
    Bug {
        name: "half_statistics",
        flag: Flag::LowPrecisionStatistics,
        sentence: "it keeps mean and 1/σ in half precision",
        operations: SCALED,
        edit: |recipe| recipe.half_statistics = true,
    },
    Bug {
        name: "momentum_flipped",
        flag: Flag::MomentumSense,
        sentence: "its momentum weighs the old value instead of the new one",
        operations: MOVING,
        edit: |recipe| recipe.rule.momentum = MomentumSense::OfOld,
    },
    Bug {
        name: "biased_running_var",
        flag: Flag::RunningVarBias,
        sentence: "its running_var averages the biased variance",
        operations: BESSEL,
        edit: |recipe| recipe.rule.running_degrees_of_freedom = 0,
    },
    Bug {
        name: "running_standard_deviation",
        flag: Flag::RunningQuantity,
        sentence: "its running_var averages the standard deviation",
        operations: RUNNING,
        edit: |recipe| recipe.rule.running = RunningQuantity::StandardDeviation,
    },
    Bug {
        name: "eps_in_running_var",
        flag: Flag::RunningQuantity,
        sentence: "its running_var averages the variance plus eps",
        operations: RUNNING,
        edit: |recipe| recipe.rule.running = RunningQuantity::VariancePlusEps,
    },
    Bug {
        name: "updates_in_eval",
        flag: Flag::StateUpdate,
        sentence: "its running statistics move in evaluation",
        operations: RUNNING,
        edit: |recipe| recipe.rule.updates = Updates::Always,
    },
    Bug {
        name: "never_updates",
        flag: Flag::StateUpdate,
        sentence: "its running statistics never move",
        operations: MOVING,
        edit: |recipe| recipe.rule.updates = Updates::Never,
    },
    Bug {
        name: "batch_statistics_in_eval",
        flag: Flag::ModeIgnored,
        sentence: "it normalizes with the batch's own statistics in evaluation",
        operations: RUNNING,
        edit: |recipe| recipe.rule.batch_statistics_in_eval = true,
    },
    Bug {
        name: "counter_frozen",
        flag: Flag::Counter,
        sentence: "its num_batches_tracked never moves",
        operations: BATCH,
        edit: |recipe| recipe.rule.counter_frozen = true,
    },
    Bug {
        name: "cumulative_off_by_one",
        flag: Flag::CumulativeAverage,
        sentence: "its cumulative average counts one batch too many",
        operations: BATCH,
        edit: |recipe| recipe.rule.cumulative_offset = 1,
    },
    Bug {
        name: "strided_groups",
        flag: Flag::GroupAxis,
        sentence: "its groups are every G-th channel instead of neighbouring ones",
        operations: GROUP,
        edit: |recipe| recipe.rule.strided_groups = true,
    },
    Bug {
        name: "affine_per_group",
        flag: Flag::AffineShape,
        sentence: "it takes weight and bias by group instead of by channel",
        operations: GROUP,
        edit: |recipe| recipe.rule.affine_per_group = true,
    },
    Bug {
        name: "leaks",
        flag: Flag::BatchVariance,
        sentence: "each group's statistics see the first value of the next group",
        operations: FAMILY,
        edit: |recipe| recipe.rule.leaks = true,
    },
    Bug {
        name: "clipped",
        flag: Flag::Clipped,
        sentence: "it clips its output to ±5",
        operations: FAMILY,
        edit: |recipe| recipe.rule.clip = Some(5.0),
    },
    Bug {
        name: "nan_replaced",
        flag: Flag::NanPropagation,
        sentence: "it replaces NaN by 0",
        operations: FAMILY,
        edit: |recipe| recipe.rule.replaces_nan = true,
    },
    Bug {
        name: "one_value_accepted",
        flag: Flag::BatchOne,
        sentence: "it answers in training with one value per channel",
        operations: &["batch_norm", "sync_batch_norm", "instance_norm", "group_norm"],
        edit: |recipe| recipe.rule.one_value = OneValue::Accepted,
    },
    Bug {
        name: "batch_of_one_refused",
        flag: Flag::BatchOne,
        sentence: "it refuses a batch of one sample even where a channel has several values",
        operations: BATCH,
        edit: |recipe| recipe.rule.one_value = OneValue::EveryBatchOfOneRefused,
    },
    Bug {
        name: "statistics_constant",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient takes mean and variance for constants",
        operations: FAMILY,
        edit: |recipe| recipe.rule.gradient = GradientRule::StatisticsConstant,
    },
    Bug {
        name: "gradient_without_mean",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient leaves out the mean's part",
        operations: CENTRED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutMean,
    },
    Bug {
        name: "gradient_without_variance",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient leaves out the variance's part",
        operations: FAMILY,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutVariance,
    },
    Bug {
        name: "gradient_without_weight",
        flag: Flag::ParameterGradient,
        sentence: "its input gradient leaves out the weight",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutWeight,
    },
    Bug {
        name: "weight_gradient_raw",
        flag: Flag::ParameterGradient,
        sentence: "its weight gradient multiplies by the raw input",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WeightOfRawInput,
    },
    Bug {
        name: "parameter_gradient_averaged",
        flag: Flag::ParameterGradient,
        sentence: "its weight and bias gradients are averages instead of sums",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::Averaged,
    },
    Bug {
        name: "second_gradient_constant",
        flag: Flag::DoubleBackward,
        sentence: "its double backward differentiates a gradient that takes mean and variance for constants",
        operations: FAMILY,
        edit: |recipe| recipe.rule.second_gradient = Some(GradientRule::StatisticsConstant),
    },
    Bug {
        name: "local_bessel",
        flag: Flag::WorkerCount,
        sentence: "its running_var is corrected by one worker's count",
        operations: &["sync_batch_norm"],
        edit: |recipe| recipe.rule.local_bessel = true,
    },
    Bug {
        name: "window_right",
        flag: Flag::Window,
        sentence: "its window of even size is longer to the right",
        operations: RESPONSE,
        edit: |recipe| recipe.rule.window_right = true,
    },
    Bug {
        name: "window_present",
        flag: Flag::Window,
        sentence: "it divides by the number of channels that are in the window instead of by its size",
        operations: RESPONSE,
        edit: |recipe| recipe.rule.window_present = true,
    },
    Bug {
        name: "alpha_undivided",
        flag: Flag::Window,
        sentence: "it does not divide alpha by the size of the window",
        operations: RESPONSE,
        edit: |recipe| recipe.rule.alpha_undivided = true,
    },
    Bug {
        name: "eps_added",
        flag: Flag::NormKind,
        sentence: "it adds eps to the norm instead of using it as a lower limit",
        operations: &["normalize", "scale_norm"],
        edit: |recipe| recipe.rule.eps_added = true,
    },
    Bug {
        name: "norm_squared",
        flag: Flag::NormKind,
        sentence: "it divides by the square of the norm",
        operations: &["normalize", "scale_norm"],
        edit: |recipe| recipe.rule.norm_squared = true,
    },
    Bug {
        name: "whole_norm",
        flag: Flag::NormKind,
        sentence: "it divides by the norm of the whole tensor",
        operations: &["weight_norm"],
        edit: |recipe| recipe.rule.whole_norm = true,
    },
    Bug {
        name: "renorms_all",
        flag: Flag::NormKind,
        sentence: "it scales the slices within the limit too",
        operations: &["renorm"],
        edit: |recipe| recipe.rule.renorms_all = true,
    },
    Bug {
        name: "v_first",
        flag: Flag::PowerIteration,
        sentence: "its power iteration updates v before u",
        operations: &["spectral_norm"],
        edit: |recipe| recipe.rule.v_first = true,
    },
    Bug {
        name: "no_iteration",
        flag: Flag::PowerIteration,
        sentence: "it makes no power iteration in training",
        operations: &["spectral_norm"],
        edit: |recipe| recipe.rule.no_iteration = true,
    },
    Bug {
        name: "folds_without_mean",
        flag: Flag::Folding,
        sentence: "its folded bias forgets the running mean",
        operations: &["conv_batch_norm_fold"],
        edit: |recipe| recipe.rule.folds_without_mean = true,
    },
    Bug {
        name: "biased_variance",
        flag: Flag::VarianceDenominator,
        sentence: "it divides the variance by n where the layer divides by n − 1",
        operations: &["simple_norm"],
        edit: |recipe| recipe.rule.degrees_of_freedom = 1,
    },
    Bug {
        name: "mean_subtracted",
        flag: Flag::Centring,
        sentence: "it subtracts the mean, which it must not",
        operations: UNCENTRED_AND_SIMPLE,
        edit: |recipe| recipe.rule.centring_flipped = true,
    },
    Bug {
        name: "weight_offset",
        flag: Flag::WeightOffset,
        sentence: "it multiplies by the weight where 1 + weight must multiply, or the other way round",
        operations: OFFSET,
        edit: |recipe| recipe.rule.offset_flipped = true,
    },
    Bug {
        name: "first_condition",
        flag: Flag::Conditioning,
        sentence: "it applies the first sample's condition to every sample, or the queries' weight to the keys",
        operations: CONDITIONED,
        edit: |recipe| recipe.rule.first_condition = true,
    },
    Bug {
        name: "mask_ignored",
        flag: Flag::Mask,
        sentence: "its statistics see what the mask leaves out",
        operations: MASKED,
        edit: |recipe| recipe.rule.mask = MaskRule::Ignored,
    },
    Bug {
        name: "mask_counted",
        flag: Flag::Mask,
        sentence: "what the mask leaves out counts as zeros in its statistics",
        operations: MASKED,
        edit: |recipe| recipe.rule.mask = MaskRule::Counted,
    },
    Bug {
        name: "gate_moved",
        flag: Flag::Activation,
        sentence: "its gate stands on the other side of the norm",
        operations: &["rms_norm_gated"],
        edit: |recipe| recipe.rule.gate_moved = true,
    },
    Bug {
        name: "activation_dropped",
        flag: Flag::Activation,
        sentence: "it leaves out its activation, gate or threshold",
        operations: ACTIVATED,
        edit: |recipe| recipe.rule.inactive = true,
    },
    Bug {
        name: "alpha_dropped",
        flag: Flag::Activation,
        sentence: "it leaves out the factor of its activation's argument",
        operations: &["dynamic_tanh", "dynamic_erf"],
        edit: |recipe| recipe.rule.alpha_dropped = true,
    },
    Bug {
        name: "smaller_branch",
        flag: Flag::Activation,
        sentence: "it divides by the smaller of its two branches",
        operations: &["evo_norm_b0", "evo_norm_b1", "evo_norm_b2"],
        edit: |recipe| recipe.rule.smaller_branch = true,
    },
    Bug {
        name: "chunks_averaged",
        flag: Flag::Chunks,
        sentence: "it averages over the parts of a batch, or takes the first for all, where each must count by itself",
        operations: &["ghost_batch_norm", "split_batch_norm", "precise_batch_norm_statistics"],
        edit: |recipe| recipe.rule.chunks_averaged = true,
    },
    Bug {
        name: "limits_dropped",
        flag: Flag::Limits,
        sentence: "it does not limit r and d",
        operations: &["batch_renorm"],
        edit: |recipe| recipe.rule.unclipped = true,
    },
    Bug {
        name: "running_variance",
        flag: Flag::RunningQuantity,
        sentence: "it averages the variance where the layer averages its root",
        operations: &["batch_renorm"],
        edit: |recipe| recipe.rule.running = RunningQuantity::StandardDeviation,
    },
    Bug {
        name: "fan_in_dropped",
        flag: Flag::NormKind,
        sentence: "it does not divide by the root of the fan-in",
        operations: &["scaled_weight_standardization"],
        edit: |recipe| recipe.rule.fan_in_dropped = true,
    },
    Bug {
        name: "norms_summed",
        flag: Flag::NormKind,
        sentence: "it divides each norm by the sum of all instead of their mean",
        operations: &["global_response_norm"],
        edit: |recipe| recipe.rule.norms_summed = true,
    },
];

/// Every correct variant.
pub fn variants() -> Vec<Variant> {
    let plain = Program::default();
    let variant = |name, sentence, program| Variant { name, sentence, recipe: Recipe { program, ..Recipe::default() } };
    vec![
        variant("two_pass", "two passes, from the first value to the last", plain),
        variant(
            "two_pass_reversed",
            "two passes, from the last value to the first",
            Program { order: Order::Reversed, ..plain },
        ),
        variant("two_pass_pairwise", "two passes, summing halves", Program { order: Order::Pairwise, ..plain }),
        variant(
            "two_pass_lanes",
            "two passes, eight running sums side by side",
            Program { order: Order::Lanes(8), ..plain },
        ),
        variant(
            "two_pass_reciprocal",
            "two passes, multiplying by a rounded 1/n",
            Program { reciprocal: true, ..plain },
        ),
        variant("two_pass_division", "two passes, dividing by σ", Program { form: Form::Division, ..plain }),
        variant(
            "two_pass_difference",
            "two passes, running statistics as old + m(new − old)",
            Program { difference: true, ..plain },
        ),
        variant("welford", "mean and squares updated together", Program { variance: VarianceMethod::Welford, ..plain }),
        variant(
            "merged",
            "Welford in chunks of sixteen, merged",
            Program { variance: VarianceMethod::Merged(16), ..plain },
        ),
        variant("folded", "x·r + (−μ·r), then the affine parameters", Program { form: Form::Folded, ..plain }),
        variant(
            "fused_folded",
            "x·(w·r) + (b − μ·w·r) with fused multiply-adds",
            Program { form: Form::FusedFolded, ..plain },
        ),
        variant(
            "welford_folded",
            "Welford, then folded",
            Program { variance: VarianceMethod::Welford, form: Form::FusedFolded, ..plain },
        ),
        Variant {
            name: "wide",
            sentence: "two passes in f64 whatever the input",
            recipe: Recipe { wide: true, ..Recipe::default() },
        },
    ]
}
