//! Planted bugs and correct variants: recipes that the suite must accuse, and recipes that it must never accuse.
//!
//! A planted bug is an edited [`Rule`] (or an unstable [`Program`]); a correct variant is another order of operations
//! under the pristine rule.

use crate::arithmetic::{EpsPlace, Form, Order, Program, RunningQuantity, VarianceMethod};
use crate::case::Flag;
use crate::operation::{Average, BATCH, CENTRED, FAMILY, GradientRule, OneValue, Operation, RUNNING, Rule, Updates};

/// How a compiled-in subject computes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recipe {
    /// Its formula, for an operation whose dialect has PyTorch's rule.
    pub rule: Rule,
    /// Its order of operations.
    pub program: Program,
    /// Accumulates in f64 whatever the input.
    pub wide: bool,
    /// Keeps mean and 1/σ in the input's type if that is a half type, or else in f16.
    pub half_statistics: bool,
    made: Made,
}

/// What a recipe makes of the rule of an operation's dialect.
#[derive(Clone, Copy, Debug, Default)]
enum Made {
    /// It follows it.
    #[default]
    Pristine,
    /// It edits it.
    Edited(fn(&mut Recipe)),
    /// It has its own, whatever is asked.
    Fixed,
}

impl Recipe {
    /// A program that follows `rule`, whatever dialect it is asked in.
    pub fn of_rule(rule: Rule) -> Recipe {
        Recipe { rule, made: Made::Fixed, ..Recipe::default() }
    }

    /// This recipe for an operation, whose dialect may have another rule than PyTorch's.
    pub fn on(&self, operation: &Operation) -> Recipe {
        match self.made {
            Made::Fixed => *self,
            Made::Pristine => Recipe { rule: operation.rule(), ..*self },
            Made::Edited(edit) => {
                let mut recipe = Recipe { rule: operation.rule(), ..Recipe::default() };
                edit(&mut recipe);
                recipe
            }
        }
    }
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
        let mut recipe = Recipe { made: Made::Edited(self.edit), ..Recipe::default() };
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
];
/// Those whose 1/σ is a step of its own.
const SCALED: &[&str] =
    &["batch_norm", "sync_batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm", "frozen_batch_norm"];
const GROUP: &[&str] = &["group_norm"];
const RESPONSE: &[&str] = &["local_response_norm", "cross_map_lrn"];

/// Every planted bug.
pub const BUGS: &[Bug] = &[
    Bug {
        name: "unbiased_variance",
        flag: Flag::VarianceDenominator,
        sentence: "it divides the variance by n − 1 instead of n",
        operations: FAMILY,
        edit: |recipe| recipe.rule.degrees_of_freedom = 1,
    },
    Bug {
        name: "eps_outside_root",
        flag: Flag::EpsPlace,
        sentence: "it adds eps to the standard deviation instead of the variance",
        operations: SCALED,
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
        sentence: "its momentum weighs the other of the old value and the new one",
        operations: RUNNING,
        edit: |recipe| recipe.rule.momentum = recipe.rule.momentum.flipped(),
    },
    Bug {
        name: "biased_running_var",
        flag: Flag::RunningVarBias,
        sentence: "its running_var averages the biased variance",
        operations: RUNNING,
        edit: |recipe| recipe.rule.running_degrees_of_freedom = 0,
    },
    Bug {
        name: "unbiased_running_var",
        flag: Flag::RunningVarBias,
        sentence: "its running_var averages the unbiased variance where its dialect averages the biased one",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.running_degrees_of_freedom = 1,
    },
    Bug {
        name: "bessel_unguarded",
        flag: Flag::BatchOne,
        sentence: "Bessel's correction of one value is 1/0, and running_var NaN",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.bessel_guarded = false,
    },
    Bug {
        name: "average_plain",
        flag: Flag::Debiasing,
        sentence: "it keeps a plain moving average where its dialect debiases, sums or replaces",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.average = Average::Exponential,
    },
    Bug {
        name: "debias_late",
        flag: Flag::Debiasing,
        sentence: "it debiases with one batch too many",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.debias_offset = 1,
    },
    Bug {
        name: "one_value_refused",
        flag: Flag::BatchOne,
        sentence: "it refuses one value per channel where its dialect answers",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.one_value = OneValue::Refused,
    },
    Bug {
        name: "pytorch_conventions",
        flag: Flag::Dialect,
        sentence: "it follows PyTorch's conventions whatever its dialect",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule = Rule::default(),
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
        operations: RUNNING,
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
        operations: FAMILY,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutWeight,
    },
    Bug {
        name: "weight_gradient_raw",
        flag: Flag::ParameterGradient,
        sentence: "its weight gradient multiplies by the raw input",
        operations: FAMILY,
        edit: |recipe| recipe.rule.gradient = GradientRule::WeightOfRawInput,
    },
    Bug {
        name: "parameter_gradient_averaged",
        flag: Flag::ParameterGradient,
        sentence: "its weight and bias gradients are averages instead of sums",
        operations: FAMILY,
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
        operations: &["normalize"],
        edit: |recipe| recipe.rule.eps_added = true,
    },
    Bug {
        name: "norm_squared",
        flag: Flag::NormKind,
        sentence: "it divides by the square of the norm",
        operations: &["normalize"],
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
