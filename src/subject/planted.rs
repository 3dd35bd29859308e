//! Planted bugs and correct variants: recipes that the suite must accuse, and recipes that it must never accuse.
//!
//! A planted bug is an edited [`Rule`] (or an unstable [`Program`]); a correct variant is another order of operations
//! under the pristine rule.

use crate::arithmetic::{EpsPlace, Form, Order, Program, RunningQuantity, VarianceMethod};
use crate::case::Flag;
use crate::operation::{MomentumSense, OneValue, Rule, Updates};

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

const ALL: &[&str] = &["batch_norm", "layer_norm", "group_norm", "rms_norm"];
const CENTRED: &[&str] = &["batch_norm", "layer_norm", "group_norm"];
const BATCH: &[&str] = &["batch_norm"];
const GROUP: &[&str] = &["group_norm"];

/// Every planted bug.
pub const BUGS: &[Bug] = &[
    Bug {
        name: "unbiased_variance",
        flag: Flag::VarianceDenominator,
        sentence: "it divides the variance by n − 1 instead of n",
        operations: ALL,
        edit: |recipe| recipe.rule.degrees_of_freedom = 1,
    },
    Bug {
        name: "eps_outside_root",
        flag: Flag::EpsPlace,
        sentence: "it adds eps to the standard deviation instead of the variance",
        operations: ALL,
        edit: |recipe| recipe.rule.eps_place = EpsPlace::OutsideRoot,
    },
    Bug {
        name: "eps_dropped",
        flag: Flag::EpsValue,
        sentence: "it does not add eps",
        operations: ALL,
        edit: |recipe| recipe.rule.eps_factor = 0.0,
    },
    Bug {
        name: "eps_squared",
        flag: Flag::EpsValue,
        sentence: "it adds the square of eps to the variance",
        operations: ALL,
        edit: |recipe| recipe.rule.eps_power = 2,
    },
    Bug {
        name: "eps_doubled",
        flag: Flag::EpsValue,
        sentence: "it adds eps twice",
        operations: ALL,
        edit: |recipe| recipe.rule.eps_factor = 2.0,
    },
    Bug {
        name: "one_pass_variance",
        flag: Flag::Cancellation,
        sentence: "it computes the variance as E[x²] − E[x]²",
        operations: CENTRED,
        edit: |recipe| recipe.program.variance = VarianceMethod::OnePass,
    },
    Bug {
        name: "scale_off",
        flag: Flag::ScaleError,
        sentence: "its 1/σ is too large by one part in ten thousand",
        operations: ALL,
        edit: |recipe| recipe.rule.scale_error = 1e-4,
    },
    Bug {
        name: "half_statistics",
        flag: Flag::LowPrecisionStatistics,
        sentence: "it keeps mean and 1/σ in half precision",
        operations: ALL,
        edit: |recipe| recipe.half_statistics = true,
    },
    Bug {
        name: "momentum_flipped",
        flag: Flag::MomentumSense,
        sentence: "its momentum weighs the old value instead of the new one",
        operations: BATCH,
        edit: |recipe| recipe.rule.momentum = MomentumSense::OfOld,
    },
    Bug {
        name: "biased_running_var",
        flag: Flag::RunningVarBias,
        sentence: "its running_var averages the biased variance",
        operations: BATCH,
        edit: |recipe| recipe.rule.running_degrees_of_freedom = 0,
    },
    Bug {
        name: "running_standard_deviation",
        flag: Flag::RunningQuantity,
        sentence: "its running_var averages the standard deviation",
        operations: BATCH,
        edit: |recipe| recipe.rule.running = RunningQuantity::StandardDeviation,
    },
    Bug {
        name: "eps_in_running_var",
        flag: Flag::RunningQuantity,
        sentence: "its running_var averages the variance plus eps",
        operations: BATCH,
        edit: |recipe| recipe.rule.running = RunningQuantity::VariancePlusEps,
    },
    Bug {
        name: "updates_in_eval",
        flag: Flag::StateUpdate,
        sentence: "its running statistics move in evaluation",
        operations: BATCH,
        edit: |recipe| recipe.rule.updates = Updates::Always,
    },
    Bug {
        name: "never_updates",
        flag: Flag::StateUpdate,
        sentence: "its running statistics never move",
        operations: BATCH,
        edit: |recipe| recipe.rule.updates = Updates::Never,
    },
    Bug {
        name: "batch_statistics_in_eval",
        flag: Flag::ModeIgnored,
        sentence: "it normalizes with the batch's own statistics in evaluation",
        operations: BATCH,
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
        operations: ALL,
        edit: |recipe| recipe.rule.leaks = true,
    },
    Bug {
        name: "clipped",
        flag: Flag::Clipped,
        sentence: "it clips its output to ±5",
        operations: ALL,
        edit: |recipe| recipe.rule.clip = Some(5.0),
    },
    Bug {
        name: "nan_replaced",
        flag: Flag::NanPropagation,
        sentence: "it replaces NaN by 0",
        operations: ALL,
        edit: |recipe| recipe.rule.replaces_nan = true,
    },
    Bug {
        name: "one_value_accepted",
        flag: Flag::BatchOne,
        sentence: "it answers in training with one value per channel",
        operations: &["batch_norm", "group_norm"],
        edit: |recipe| recipe.rule.one_value = OneValue::Accepted,
    },
    Bug {
        name: "batch_of_one_refused",
        flag: Flag::BatchOne,
        sentence: "it refuses a batch of one sample even where a channel has several values",
        operations: BATCH,
        edit: |recipe| recipe.rule.one_value = OneValue::EveryBatchOfOneRefused,
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
