//! Planted bugs and correct variants: recipes that the suite must accuse, and recipes that it must never accuse.
//!
//! A planted bug is an edited [`Rule`] (or an unstable [`Program`]); a correct variant is another order of operations
//! under the pristine rule.

use crate::arithmetic::{EpsPlace, Form, Order, Program, RunningQuantity, VarianceMethod};
use crate::case::Flag;
use crate::operation::{
    Average, BATCH, BesselCount, CENTRED, Centring, Cumulative, Elements, EpsValue, FAMILY, FoldingRule, GradientRule,
    Grouping, IterationRule, MaskRule, NormRule, OneValue, Operation, RUNNING, Rule, TORCH_FAMILY, TrainingStatistics,
    Updates, WEIGHTED, WeightReading, WindowRule,
};

/// How a compiled-in subject computes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recipe {
    /// Its formula, for an operation whose dialect has PyTorch's rule.
    pub rule: Rule,
    /// Its order of operations.
    pub program: Program,
    /// Accumulates in f64 whatever the input.
    pub wide: bool,
    /// What it keeps in the input's type if that is a half type, or else in f16.
    pub half: Half,
    made: Made,
}

/// What a program keeps in half precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Half {
    /// Nothing but what comes in and goes out.
    #[default]
    Nothing,
    /// Mean and 1/σ.
    Statistics,
    /// The sums that they are made of, term by term.
    Sums,
}

/// What a recipe makes of the rule of an operation's dialect.
#[derive(Clone, Copy, Debug, Default)]
enum Made {
    /// It follows it.
    #[default]
    Pristine,
    /// It edits it, in the operations that can have the mistake.
    Edited(fn(&mut Recipe), &'static [&'static str]),
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
            Made::Edited(_, operations) if !operations.contains(&operation.name()) => {
                Recipe { rule: operation.rule(), ..Recipe::default() }
            }
            Made::Edited(edit, _) => {
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
    /// Where it was seen: an issue or a pull request, or the layer that does so; empty where none is public.
    pub source: &'static str,
    /// The operations that can have it.
    pub operations: &'static [&'static str],
    edit: fn(&mut Recipe),
}

impl Bug {
    /// The recipe with this mistake and no other.
    pub fn recipe(&self) -> Recipe {
        let mut recipe = Recipe { made: Made::Edited(self.edit, self.operations), ..Recipe::default() };
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
/// Those that subtract a mean, the stored one too.
const SUBTRACTING: &[&str] =
    &["batch_norm", "sync_batch_norm", "instance_norm", "layer_norm", "group_norm", "frozen_batch_norm"];
/// Those whose groups have neighbouring values in memory.
const BLOCKWISE: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "layer_norm",
    "group_norm",
    "rms_norm",
    "layer_norm_1p",
    "filter_response_norm",
    "ada_layer_norm",
    "ada_group_norm",
    "weight_standardization",
];
/// Those of `torch.nn` that subtract the mean of their input.
const TORCH_CENTRED: &[&str] = &["batch_norm", "sync_batch_norm", "instance_norm", "layer_norm", "group_norm"];
/// Those that normalize trailing axes.
const TRAILING: &[&str] = &["layer_norm", "rms_norm"];
const INSTANCE: &[&str] = &["instance_norm"];
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
const OFFSET: &[&str] =
    &["layer_norm_2d", "filter_response_norm", "layer_norm_1p", "ada_layer_norm", "ada_group_norm", "film", "spade"];
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
const RMS: &[&str] = &["rms_norm"];
/// Those that divide by a norm.
const NORMS: &[&str] = &["normalize", "renorm", "weight_norm", "spectral_norm"];
const RESPONSE: &[&str] = &["local_response_norm", "cross_map_lrn"];

/// Every planted bug; those of a class are neighbours.
pub const BUGS: &[Bug] = &[
    Bug {
        name: "unbiased_variance",
        flag: Flag::VarianceDenominator,
        sentence: "it divides the variance by n − 1 instead of n",
        source: "pytorch/pytorch#19916",
        operations: BIASED,
        edit: |recipe| recipe.rule.degrees_of_freedom = 1,
    },
    Bug {
        name: "eps_outside_root",
        flag: Flag::EpsPlace,
        sentence: "it adds eps to the standard deviation instead of the variance",
        source: "allenai/OLMo#281",
        operations: ROOTED,
        edit: |recipe| recipe.rule.eps_place = EpsPlace::OutsideRoot,
    },
    Bug {
        name: "eps_lower_limit",
        flag: Flag::EpsPlace,
        sentence: "it takes eps for a lower limit of the variance instead of adding it",
        source: "x-transformers, RMSNorm: x/max(‖x‖, eps)",
        operations: SCALED,
        edit: |recipe| recipe.rule.eps_place = EpsPlace::LowerLimit,
    },
    Bug {
        name: "eps_dropped",
        flag: Flag::EpsValue,
        sentence: "it does not add eps",
        source: "microsoft/DeepSpeed#581",
        operations: WITH_EPS,
        edit: |recipe| recipe.rule.eps = EpsValue::Dropped,
    },
    Bug {
        name: "eps_squared",
        flag: Flag::EpsValue,
        sentence: "it adds the square of eps to the variance",
        source: "",
        operations: WITH_EPS,
        edit: |recipe| recipe.rule.eps = EpsValue::Squared,
    },
    Bug {
        name: "eps_doubled",
        flag: Flag::EpsValue,
        sentence: "it adds eps twice",
        source: "",
        operations: WITH_EPS,
        edit: |recipe| recipe.rule.eps = EpsValue::Doubled,
    },
    Bug {
        name: "eps_in_half",
        flag: Flag::EpsValue,
        sentence: "it keeps eps in float16, where 1e-12 is 0",
        source: "pytorch/pytorch#41527",
        operations: FAMILY,
        edit: |recipe| recipe.rule.eps = EpsValue::InHalf,
    },
    Bug {
        name: "eps_raised",
        flag: Flag::EpsValue,
        sentence: "it raises eps to 1e-5",
        source: "tensorflow/tensorflow#37768",
        operations: TORCH_FAMILY,
        edit: |recipe| recipe.rule.eps = EpsValue::Raised,
    },
    Bug {
        name: "variance_cut_off",
        flag: Flag::EpsValue,
        sentence: "it takes a variance below 1e-6 for 0",
        source: "pytorch/pytorch#190491",
        operations: TORCH_CENTRED,
        edit: |recipe| recipe.program.variance = VarianceMethod::CutOff,
    },
    Bug {
        name: "one_pass_variance",
        flag: Flag::Cancellation,
        sentence: "it computes the variance as E(x²) − E(x)²",
        source: "pytorch/pytorch#51102, ml-explore/mlx#2238",
        operations: CENTRED,
        edit: |recipe| recipe.program.variance = VarianceMethod::OnePass,
    },
    Bug {
        name: "scale_off",
        flag: Flag::ScaleError,
        sentence: "its 1/σ is too large by one part in ten thousand",
        source: "",
        operations: SCALED,
        edit: |recipe| recipe.rule.scale_error = 1e-4,
    },
    Bug {
        name: "half_statistics",
        flag: Flag::LowPrecisionStatistics,
        sentence: "it keeps mean and 1/σ in half precision",
        source: "pytorch/pytorch#147303",
        operations: SCALED,
        edit: |recipe| recipe.half = Half::Statistics,
    },
    Bug {
        name: "half_sums",
        flag: Flag::LowPrecisionStatistics,
        sentence: "it adds up values and squares in half precision",
        source: "microsoft/onnxruntime#29034, pytorch/pytorch#66707",
        operations: FAMILY,
        edit: |recipe| recipe.half = Half::Sums,
    },
    Bug {
        name: "mean_kept",
        flag: Flag::Centring,
        sentence: "it divides by σ without subtracting the mean",
        source: "timm, SimpleNorm",
        operations: SUBTRACTING,
        edit: |recipe| recipe.rule.centring = Centring::Kept,
    },
    Bug {
        name: "mean_subtracted",
        flag: Flag::Centring,
        sentence: "it subtracts the mean, as layer norm does",
        source: "mit-han-lab/omniserve#32",
        operations: UNCENTRED_AND_SIMPLE,
        edit: |recipe| recipe.rule.centring = Centring::Subtracted,
    },
    Bug {
        name: "padding_counted",
        flag: Flag::MaskedLanes,
        sentence: "its variance counts the zeros that pad a group to a power of two",
        source: "triton-lang/triton#9838, linkedin/Liger-Kernel#518",
        operations: CENTRED,
        edit: |recipe| recipe.program.variance = VarianceMethod::Padded,
    },
    Bug {
        name: "first_block",
        flag: Flag::MaskedLanes,
        sentence: "its statistics see only the first sixteen of neighbouring values",
        source: "facebookresearch/xformers#785",
        operations: BLOCKWISE,
        edit: |recipe| recipe.rule.elements = Elements::FirstBlock,
    },
    Bug {
        name: "momentum_flipped",
        flag: Flag::MomentumSense,
        sentence: "its momentum weighs the other of the old value and the new one",
        source: "pytorch/pytorch#15298, PaddlePaddle/Paddle#51120",
        operations: MOVING,
        edit: |recipe| recipe.rule.momentum = recipe.rule.momentum.flipped(),
    },
    Bug {
        name: "biased_running_var",
        flag: Flag::RunningVarBias,
        sentence: "its running_var averages the biased variance",
        source: "tinygrad/tinygrad#807, tenstorrent/tt-metal#55438",
        operations: BESSEL,
        edit: |recipe| recipe.rule.running_biased = true,
    },
    Bug {
        name: "unbiased_running_var",
        flag: Flag::RunningVarBias,
        sentence: "its running_var averages the unbiased variance where its dialect averages the biased one",
        source: "",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.running_biased = false,
    },
    Bug {
        name: "bessel_unguarded",
        flag: Flag::BatchOne,
        sentence: "Bessel's correction of one value is 1/0, and running_var NaN",
        source: "candle-nn, src/batch_norm.rs",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.bessel_guarded = false,
    },
    Bug {
        name: "average_plain",
        flag: Flag::Debiasing,
        sentence: "it keeps a plain moving average where its dialect debiases, sums or replaces",
        source: "",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.average = Average::Exponential,
    },
    Bug {
        name: "debias_late",
        flag: Flag::Debiasing,
        sentence: "it debiases with one batch too many",
        source: "",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.debias_offset = 1,
    },
    Bug {
        name: "one_value_refused",
        flag: Flag::BatchOne,
        sentence: "it refuses one value per channel where its dialect answers",
        source: "",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.one_value = OneValue::Refused,
    },
    Bug {
        name: "bessel_of_samples",
        flag: Flag::RunningVarBias,
        sentence: "its running_var is corrected by the number of samples instead of values",
        source: "",
        operations: BATCH,
        edit: |recipe| recipe.rule.bessel = BesselCount::Samples,
    },
    Bug {
        name: "pytorch_conventions",
        flag: Flag::Dialect,
        sentence: "it follows PyTorch's conventions whatever its dialect",
        source: "",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule = Rule::default(),
    },
    Bug {
        name: "running_standard_deviation",
        flag: Flag::RunningQuantity,
        sentence: "its running_var averages the standard deviation",
        source: "Keras, BatchNormalization(renorm=True)",
        operations: RUNNING,
        edit: |recipe| recipe.rule.running = RunningQuantity::StandardDeviation,
    },
    Bug {
        name: "eps_in_running_var",
        flag: Flag::RunningQuantity,
        sentence: "its running_var averages the variance plus eps",
        source: "flagos-ai/FlagGems#4885",
        operations: RUNNING,
        edit: |recipe| recipe.rule.running = RunningQuantity::VariancePlusEps,
    },
    Bug {
        name: "updates_in_eval",
        flag: Flag::StateUpdate,
        sentence: "its running statistics move in evaluation",
        source: "pytorch/pytorch#37823",
        operations: RUNNING,
        edit: |recipe| recipe.rule.updates = Updates::Always,
    },
    Bug {
        name: "never_updates",
        flag: Flag::StateUpdate,
        sentence: "its running statistics never move",
        source: "paiml/aprender#2166",
        operations: MOVING,
        edit: |recipe| recipe.rule.updates = Updates::Never,
    },
    Bug {
        name: "updates_twice",
        flag: Flag::StateUpdate,
        sentence: "its running statistics move twice a call, as where activations are computed again",
        source: "pytorch/pytorch#96136",
        operations: RUNNING,
        edit: |recipe| recipe.rule.updates = Updates::Twice,
    },
    Bug {
        name: "first_batch_replaces",
        flag: Flag::StateUpdate,
        sentence: "its first batch replaces the running statistics, whatever the momentum",
        source: "Equinox, BatchNorm(mode=\"ema\")",
        operations: BATCH,
        edit: |recipe| recipe.rule.updates = Updates::FirstReplaces,
    },
    Bug {
        name: "running_in_training",
        flag: Flag::BatchStatistics,
        sentence: "it normalizes with the running statistics in training",
        source: "MXNet, BatchNorm(use_global_stats=True)",
        operations: RUNNING,
        edit: |recipe| recipe.rule.training = TrainingStatistics::Running,
    },
    Bug {
        name: "updated_in_training",
        flag: Flag::BatchStatistics,
        sentence: "it normalizes with the updated running statistics in training",
        source: "patrick-kidger/equinox#659",
        operations: RUNNING,
        edit: |recipe| recipe.rule.training = TrainingStatistics::Updated,
    },
    Bug {
        name: "batch_statistics_in_eval",
        flag: Flag::ModeIgnored,
        sentence: "it normalizes with the batch's own statistics in evaluation",
        source: "pytorch/pytorch#4348",
        operations: RUNNING,
        edit: |recipe| recipe.rule.batch_statistics_in_eval = true,
    },
    Bug {
        name: "counter_frozen",
        flag: Flag::Counter,
        sentence: "its num_batches_tracked never moves",
        source: "",
        operations: BATCH,
        edit: |recipe| recipe.rule.counter_frozen = true,
    },
    Bug {
        name: "cumulative_off_by_one",
        flag: Flag::CumulativeAverage,
        sentence: "its cumulative average counts one batch too many",
        source: "",
        operations: BATCH,
        edit: |recipe| recipe.rule.cumulative = Cumulative::OneTooMany,
    },
    Bug {
        name: "cumulative_as_default",
        flag: Flag::CumulativeAverage,
        sentence: "it takes a missing momentum for 0.1",
        source: "pytorch/pytorch#31498 (a question)",
        operations: BATCH,
        edit: |recipe| recipe.rule.cumulative = Cumulative::DefaultMomentum,
    },
    Bug {
        name: "strided_groups",
        flag: Flag::GroupAxis,
        sentence: "its groups are every G-th channel instead of neighbouring ones",
        source: "MLX, GroupNorm(pytorch_compatible=False)",
        operations: GROUP,
        edit: |recipe| recipe.rule.grouping = Grouping::Strided,
    },
    Bug {
        name: "one_group",
        flag: Flag::GroupAxis,
        sentence: "it pools all channels of a sample, whatever the number of groups",
        source: "brainpy/BrainPy#765",
        operations: GROUP,
        edit: |recipe| recipe.rule.grouping = Grouping::OneGroup,
    },
    Bug {
        name: "last_axis",
        flag: Flag::GroupAxis,
        sentence: "it normalizes the last axis alone",
        source: "tensorpack/tensorpack#1482",
        operations: TRAILING,
        edit: |recipe| recipe.rule.grouping = Grouping::LastAxis,
    },
    Bug {
        name: "affine_per_group",
        flag: Flag::AffineShape,
        sentence: "it takes weight and bias by group instead of by channel",
        source: "onnx/onnx#5466, Oneflow-Inc/oneflow#4848",
        operations: GROUP,
        edit: |recipe| recipe.rule.affine_per_group = true,
    },
    Bug {
        name: "weight_plus_one",
        flag: Flag::WeightReading,
        sentence: "it multiplies by 1 + weight",
        source: "linkedin/Liger-Kernel#74",
        operations: SCALED,
        edit: |recipe| recipe.rule.weight = WeightReading::PlusOne,
    },
    Bug {
        name: "weight_ignored",
        flag: Flag::WeightReading,
        sentence: "it takes 1 for every weight",
        source: "apache/mxnet#9624",
        operations: SCALED,
        edit: |recipe| recipe.rule.weight = WeightReading::One,
    },
    Bug {
        name: "leaks",
        flag: Flag::BatchVariance,
        sentence: "each group's statistics see the first value of the next group",
        source: "flagos-ai/FlagGems#4984",
        operations: FAMILY,
        edit: |recipe| recipe.rule.elements = Elements::Shifted,
    },
    Bug {
        name: "stale_statistics",
        flag: Flag::BatchVariance,
        sentence: "it normalizes a group with the statistics of the one before",
        source: "PaddlePaddle/Paddle#56100, NVIDIA/apex#1184",
        operations: FAMILY,
        edit: |recipe| recipe.rule.elements = Elements::OfGroupBefore,
    },
    Bug {
        name: "instances_pooled",
        flag: Flag::BatchVariance,
        sentence: "it pools a channel over the samples of the batch",
        source: "sonos/tract#2863",
        operations: INSTANCE,
        edit: |recipe| recipe.rule.grouping = Grouping::Pooled,
    },
    Bug {
        name: "clipped",
        flag: Flag::Clipped,
        sentence: "it clips its output to ±5",
        source: "Online Normalization, arXiv 1905.05894",
        operations: FAMILY,
        edit: |recipe| recipe.rule.clip = Some(5.0),
    },
    Bug {
        name: "nan_replaced",
        flag: Flag::NanPropagation,
        sentence: "it replaces NaN by 0",
        source: "",
        operations: FAMILY,
        edit: |recipe| recipe.rule.replaces_nan = true,
    },
    Bug {
        name: "one_value_accepted",
        flag: Flag::BatchOne,
        sentence: "it answers in training with one value per channel",
        source: "pytorch/pytorch#1381",
        operations: &["batch_norm", "sync_batch_norm", "instance_norm", "group_norm"],
        edit: |recipe| recipe.rule.one_value = OneValue::Accepted,
    },
    Bug {
        name: "batch_of_one_refused",
        flag: Flag::BatchOne,
        sentence: "it refuses a batch of one sample even where a channel has several values",
        source: "pytorch/pytorch#4534",
        operations: BATCH,
        edit: |recipe| recipe.rule.one_value = OneValue::EveryBatchOfOneRefused,
    },
    Bug {
        name: "evaluation_refused",
        flag: Flag::BatchOne,
        sentence: "it refuses one value per channel in evaluation too",
        source: "pytorch/pytorch#2961, dotnet/TorchSharp#500",
        operations: &["batch_norm"],
        edit: |recipe| recipe.rule.one_value = OneValue::RefusedInEvaluation,
    },
    Bug {
        name: "cubed_inverse",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient loses the variance's part in the underflow of 1/σ³",
        source: "PyTorch 2.15, torch.nn.RMSNorm (FINDINGS.md, 3)",
        operations: RMS,
        edit: |recipe| recipe.program.cubes = true,
    },
    Bug {
        name: "statistics_constant",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient takes mean and variance for constants",
        source: "",
        operations: FAMILY,
        edit: |recipe| recipe.rule.gradient = GradientRule::StatisticsConstant,
    },
    Bug {
        name: "gradient_without_mean",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient leaves out the mean's part",
        source: "apache/mxnet#1061",
        operations: CENTRED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutMean,
    },
    Bug {
        name: "gradient_without_variance",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient leaves out the variance's part",
        source: "",
        operations: FAMILY,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutVariance,
    },
    Bug {
        name: "norm_constant",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient takes the norm for a constant",
        source: "pytorch/pytorch#6929",
        operations: NORMS,
        edit: |recipe| recipe.rule.gradient = GradientRule::StatisticsConstant,
    },
    Bug {
        name: "gradient_without_weight",
        flag: Flag::ParameterGradient,
        sentence: "its input gradient leaves out the weight",
        source: "",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutWeight,
    },
    Bug {
        name: "weight_gradient_raw",
        flag: Flag::ParameterGradient,
        sentence: "its weight gradient multiplies by the raw input",
        source: "",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WeightOfRawInput,
    },
    Bug {
        name: "parameter_gradient_averaged",
        flag: Flag::ParameterGradient,
        sentence: "its weight and bias gradients are averages instead of sums",
        source: "",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::Averaged,
    },
    Bug {
        name: "parameter_gradient_missing",
        flag: Flag::ParameterGradient,
        sentence: "its weight and bias gradients are 0",
        source: "PaddlePaddle/Paddle#74149",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutParameters,
    },
    Bug {
        name: "second_gradient_constant",
        flag: Flag::DoubleBackward,
        sentence: "its double backward differentiates a gradient that takes mean and variance for constants",
        source: "pytorch/pytorch#79705",
        operations: FAMILY,
        edit: |recipe| recipe.rule.second_gradient = Some(GradientRule::StatisticsConstant),
    },
    Bug {
        name: "second_norm_constant",
        flag: Flag::DoubleBackward,
        sentence: "its double backward takes the norm for a constant",
        source: "PyTorch 2.15, torch._weight_norm (FINDINGS.md, 2)",
        operations: &["weight_norm"],
        edit: |recipe| recipe.rule.second_gradient = Some(GradientRule::NormSaved),
    },
    Bug {
        name: "local_bessel",
        flag: Flag::WorkerCount,
        sentence: "its running_var is corrected by one worker's count",
        source: "pytorch/pytorch#22192",
        operations: &["sync_batch_norm"],
        edit: |recipe| recipe.rule.bessel = BesselCount::OneWorker,
    },
    Bug {
        name: "running_of_first_half",
        flag: Flag::WorkerCount,
        sentence: "its running statistics see the first half of the batch alone",
        source: "timm, SplitBatchNorm2d",
        operations: BATCH,
        edit: |recipe| recipe.rule.running_of_first_half = true,
    },
    Bug {
        name: "window_right",
        flag: Flag::Window,
        sentence: "its window of even size is longer to the right",
        source: "ONNX, LRN",
        operations: RESPONSE,
        edit: |recipe| recipe.rule.window = WindowRule::Right,
    },
    Bug {
        name: "window_present",
        flag: Flag::Window,
        sentence: "it divides by the number of channels that are in the window instead of by its size",
        source: "",
        operations: RESPONSE,
        edit: |recipe| recipe.rule.window = WindowRule::Present,
    },
    Bug {
        name: "alpha_undivided",
        flag: Flag::Window,
        sentence: "it does not divide alpha by the size of the window",
        source: "TensorFlow, tf.nn.local_response_normalization",
        operations: RESPONSE,
        edit: |recipe| recipe.rule.window = WindowRule::Undivided,
    },
    Bug {
        name: "first_channel_stays",
        flag: Flag::Window,
        sentence: "channel 0 never leaves its window",
        source: "PyTorch 2.15, torch.nn.CrossMapLRN2d (FINDINGS.md, 1)",
        operations: RESPONSE,
        edit: |recipe| recipe.rule.window = WindowRule::FirstChannelStays,
    },
    Bug {
        name: "windows_of_batch",
        flag: Flag::Window,
        sentence: "it makes a window for as many channels as there are samples",
        source: "onnx/onnx#7805",
        operations: RESPONSE,
        edit: |recipe| recipe.rule.window = WindowRule::OfBatch,
    },
    Bug {
        name: "eps_added",
        flag: Flag::NormKind,
        sentence: "it adds eps to the norm instead of using it as a lower limit",
        source: "",
        operations: &["normalize", "scale_norm"],
        edit: |recipe| recipe.rule.norm = NormRule::EpsAdded,
    },
    Bug {
        name: "norm_squared",
        flag: Flag::NormKind,
        sentence: "it divides by the square of the norm",
        source: "",
        operations: &["normalize", "scale_norm"],
        edit: |recipe| recipe.rule.norm = NormRule::Squared,
    },
    Bug {
        name: "whole_norm",
        flag: Flag::NormKind,
        sentence: "it divides by the norm of the whole tensor",
        source: "",
        operations: &["weight_norm"],
        edit: |recipe| recipe.rule.norm = NormRule::Whole,
    },
    Bug {
        name: "renorms_all",
        flag: Flag::NormKind,
        sentence: "it scales the slices within the limit too",
        source: "",
        operations: &["renorm"],
        edit: |recipe| recipe.rule.norm = NormRule::WithinLimit,
    },
    Bug {
        name: "renorms_along",
        flag: Flag::NormKind,
        sentence: "it limits vectors along the axis instead of slices across it",
        source: "pytorch/pytorch#1427",
        operations: &["renorm"],
        edit: |recipe| recipe.rule.norm = NormRule::Along,
    },
    Bug {
        name: "v_first",
        flag: Flag::PowerIteration,
        sentence: "its power iteration updates v before u",
        source: "pytorch/pytorch#6929",
        operations: &["spectral_norm"],
        edit: |recipe| recipe.rule.iteration = IterationRule::VFirst,
    },
    Bug {
        name: "no_iteration",
        flag: Flag::PowerIteration,
        sentence: "it makes no power iteration in training",
        source: "pytorch/pytorch#51800",
        operations: &["spectral_norm"],
        edit: |recipe| recipe.rule.iteration = IterationRule::Missing,
    },
    Bug {
        name: "vectors_forgotten",
        flag: Flag::PowerIteration,
        sentence: "it does not keep u and v of its power iteration",
        source: "pytorch/pytorch#11476",
        operations: &["spectral_norm"],
        edit: |recipe| recipe.rule.iteration = IterationRule::Forgotten,
    },
    Bug {
        name: "folds_without_mean",
        flag: Flag::Folding,
        sentence: "its folded bias forgets the running mean",
        source: "",
        operations: &["conv_batch_norm_fold"],
        edit: |recipe| recipe.rule.folding = FoldingRule::WithoutMean,
    },
    Bug {
        name: "folds_bias_unscaled",
        flag: Flag::Folding,
        sentence: "its folded bias adds the convolution's bias unscaled",
        source: "ultralytics/yolov3#807, Tencent/ncnn#1339",
        operations: &["conv_batch_norm_fold"],
        edit: |recipe| recipe.rule.folding = FoldingRule::BiasUnscaled,
    },
    Bug {
        name: "biased_variance",
        flag: Flag::VarianceDenominator,
        sentence: "it divides the variance by n where the layer divides by n − 1",
        source: "",
        operations: &["simple_norm"],
        edit: |recipe| recipe.rule.degrees_of_freedom = 1,
    },
    Bug {
        name: "weight_offset",
        flag: Flag::WeightReading,
        sentence: "it multiplies by the weight where 1 + weight must multiply, or the other way round",
        source: "",
        operations: OFFSET,
        edit: |recipe| recipe.rule.offset_flipped = true,
    },
    Bug {
        name: "first_condition",
        flag: Flag::Conditioning,
        sentence: "it applies the first sample's condition to every sample, or the queries' weight to the keys",
        source: "",
        operations: CONDITIONED,
        edit: |recipe| recipe.rule.first_condition = true,
    },
    Bug {
        name: "mask_ignored",
        flag: Flag::Mask,
        sentence: "its statistics see what the mask leaves out",
        source: "",
        operations: MASKED,
        edit: |recipe| recipe.rule.mask = MaskRule::Ignored,
    },
    Bug {
        name: "mask_counted",
        flag: Flag::Mask,
        sentence: "what the mask leaves out counts as zeros in its statistics",
        source: "",
        operations: MASKED,
        edit: |recipe| recipe.rule.mask = MaskRule::Counted,
    },
    Bug {
        name: "gate_moved",
        flag: Flag::Activation,
        sentence: "its gate stands on the other side of the norm",
        source: "",
        operations: &["rms_norm_gated"],
        edit: |recipe| recipe.rule.gate_moved = true,
    },
    Bug {
        name: "activation_dropped",
        flag: Flag::Activation,
        sentence: "it leaves out its activation, gate or threshold",
        source: "",
        operations: ACTIVATED,
        edit: |recipe| recipe.rule.inactive = true,
    },
    Bug {
        name: "alpha_dropped",
        flag: Flag::Activation,
        sentence: "it leaves out the factor of its activation's argument",
        source: "",
        operations: &["dynamic_tanh", "dynamic_erf"],
        edit: |recipe| recipe.rule.alpha_dropped = true,
    },
    Bug {
        name: "smaller_branch",
        flag: Flag::Activation,
        sentence: "it divides by the smaller of its two branches",
        source: "",
        operations: &["evo_norm_b0", "evo_norm_b1", "evo_norm_b2"],
        edit: |recipe| recipe.rule.smaller_branch = true,
    },
    Bug {
        name: "chunks_averaged",
        flag: Flag::Chunks,
        sentence: "it averages over the parts of a batch, or takes the first for all, where each must count by itself",
        source: "",
        operations: &["ghost_batch_norm", "split_batch_norm", "precise_batch_norm_statistics"],
        edit: |recipe| recipe.rule.chunks_averaged = true,
    },
    Bug {
        name: "limits_dropped",
        flag: Flag::Limits,
        sentence: "it does not limit r and d",
        source: "",
        operations: &["batch_renorm"],
        edit: |recipe| recipe.rule.unclipped = true,
    },
    Bug {
        name: "running_variance",
        flag: Flag::RunningQuantity,
        sentence: "it averages the variance where the layer averages its root",
        source: "",
        operations: &["batch_renorm"],
        edit: |recipe| recipe.rule.running = RunningQuantity::StandardDeviation,
    },
    Bug {
        name: "fan_in_dropped",
        flag: Flag::NormKind,
        sentence: "it does not divide by the root of the fan-in",
        source: "",
        operations: &["scaled_weight_standardization"],
        edit: |recipe| recipe.rule.fan_in_dropped = true,
    },
    Bug {
        name: "norms_summed",
        flag: Flag::NormKind,
        sentence: "it divides each norm by the sum of all instead of their mean",
        source: "",
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
