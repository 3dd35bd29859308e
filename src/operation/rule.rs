//! What an operation chose, where it could have chosen otherwise. A planted bug is an edited rule.
//!
//! Each enum is one decision: its default is PyTorch's, every other value is some real layer's, or a bug that some real
//! layer had.

use super::running::Average;
use crate::arithmetic::{EpsPlace, Format, RunningQuantity, Scale};

/// The choices of a normalization layer and of its momentum update.
///
/// [`Rule::default`] is PyTorch's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rule {
    /// The variance that normalizes is divided by n − this (0: biased).
    pub degrees_of_freedom: u8,
    /// Which eps is added.
    pub eps: EpsValue,
    /// Where eps stands.
    pub eps_place: EpsPlace,
    /// 1/σ is wrong by this relative amount.
    pub scale_error: f64,
    /// Whether the mean is subtracted.
    pub centring: Centring,
    /// Which elements make a group.
    pub grouping: Grouping,
    /// Which elements a group's statistics see.
    pub elements: Elements,
    /// Weight and bias are indexed by group rather than by channel.
    pub affine_per_group: bool,
    /// What is taken for the weight, where groups are standardized.
    pub weight: WeightReading,
    /// The normalized value is clipped to ± this.
    pub clip: Option<f64>,
    /// NaN in the output becomes 0.
    pub replaces_nan: bool,
    /// What one value a group does.
    pub one_value: OneValue,
    /// What normalizes in training.
    pub training: TrainingStatistics,
    /// Evaluation normalizes with the batch's statistics.
    pub batch_statistics_in_eval: bool,
    /// Which of old and new the momentum weighs.
    pub momentum: MomentumSense,
    /// What a missing momentum means.
    pub cumulative: Cumulative,
    /// The running variance averages biased variances.
    pub running_biased: bool,
    /// The values that Bessel's correction of the running variance counts.
    pub bessel: BesselCount,
    /// Of one value Bessel's correction is 1 instead of 1/0.
    pub bessel_guarded: bool,
    /// How the running statistics are kept.
    pub average: Average,
    /// A debiased average takes this many batches more for gathered.
    pub debias_offset: i64,
    /// What is averaged in `running_var`.
    pub running: RunningQuantity,
    /// The running statistics see the first half of the batch's samples alone.
    pub running_of_first_half: bool,
    /// When the running statistics move.
    pub updates: Updates,
    /// `num_batches_tracked` never moves.
    pub counter_frozen: bool,
    /// What the backward pass leaves out.
    pub gradient: GradientRule,
    /// What the gradient leaves out that a double backward differentiates, if not what the backward pass does.
    pub second_gradient: Option<GradientRule>,
    /// The windows of a local response norm.
    pub window: WindowRule,
    /// The norm that vectors are divided by.
    pub norm: NormRule,
    /// The power iterations of spectral norm.
    pub iteration: IterationRule,
    /// How a batch norm is folded into a convolution.
    pub folding: FoldingRule,
    /// What online norm does otherwise.
    pub online: OnlineRule,
    /// Every sample is given the first one's conditions.
    pub first_condition: bool,
    /// What a mask does to the statistics.
    pub mask: MaskRule,
    /// The gate stands on the other side of the norm.
    pub gate_moved: bool,
    /// Activations, gates and thresholds are left out.
    pub inactive: bool,
    /// The smaller of two branches divides.
    pub smaller_branch: bool,
    /// Chunks move the running statistics once, by their mean.
    pub chunks_averaged: bool,
    /// r and d are not clipped.
    pub unclipped: bool,
    /// The weight's size is not divided by the root of its fan-in.
    pub fan_in_dropped: bool,
    /// The factor of an activation's argument is left out.
    pub alpha_dropped: bool,
    /// A norm is divided by the sum of its kind instead of their mean.
    pub norms_summed: bool,
}

impl Rule {
    /// How σ follows from the variance, for an operation's eps.
    pub fn scale(&self, eps: f64) -> Scale {
        Scale {
            eps: self.eps.of(eps),
            eps_place: self.eps_place,
            degrees_of_freedom: self.degrees_of_freedom,
            error: self.scale_error,
        }
    }
}

/// Which eps is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EpsValue {
    /// The one that was given.
    #[default]
    AsGiven,
    /// None.
    Dropped,
    /// Its square.
    Squared,
    /// Twice as much.
    Doubled,
    /// What float16 makes of it: 1e-12 is 0.
    InHalf,
    /// At least 1e-5.
    Raised,
}

impl EpsValue {
    fn of(self, eps: f64) -> f64 {
        match self {
            EpsValue::AsGiven => eps,
            EpsValue::Dropped => 0.0,
            EpsValue::Squared => eps * eps,
            EpsValue::Doubled => 2.0 * eps,
            EpsValue::InHalf => Format::F16.round(eps),
            EpsValue::Raised => eps.max(1e-5),
        }
    }
}

/// Whether the mean is subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Centring {
    /// Where the operation says so.
    #[default]
    AsDefined,
    /// Nowhere, though σ is that of the deviations: x/σ.
    Kept,
    /// Everywhere: RMS norm becomes layer norm.
    Subtracted,
}

/// Which elements make a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// Those of the definition.
    #[default]
    AsDefined,
    /// Every G-th channel rather than neighbouring ones.
    Strided,
    /// All channels of a sample, whatever G.
    OneGroup,
    /// The last axis alone of those that are normalized.
    LastAxis,
    /// A channel's values in all samples rather than in one.
    Pooled,
}

/// Which elements a group's statistics see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Elements {
    /// The group's own.
    #[default]
    Own,
    /// The first value of the next group instead of its own.
    Shifted,
    /// Those of the group before.
    OfGroupBefore,
    /// The first sixteen of each run of neighbours.
    FirstBlock,
}

/// What is taken for the weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightReading {
    /// The weight.
    #[default]
    AsGiven,
    /// 1 more than the weight, or where the layer takes that, the weight.
    Offset,
    /// 1.
    One,
}

/// What one value a group does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OneValue {
    /// Refused, where the layer refuses it.
    #[default]
    Refused,
    /// Answered: the variance is 0.
    Accepted,
    /// Refused, and with it every batch of one sample, however many values a channel has.
    EveryBatchOfOneRefused,
    /// Refused, in evaluation too.
    RefusedInEvaluation,
    /// Passed on: y = x, and nothing moves.
    PassedOn,
}

/// What normalizes in training, where there are running statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrainingStatistics {
    /// The batch's statistics.
    #[default]
    Batch,
    /// The running statistics before the batch.
    Running,
    /// The running statistics after the batch.
    Updated,
}

/// Which of old and new the momentum m weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentumSense {
    /// (1 − m)·old + m·new: PyTorch.
    #[default]
    OfNew,
    /// m·old + (1 − m)·new: Keras, Flax, ONNX.
    OfOld,
}

/// What a missing momentum means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cumulative {
    /// The average of all batches.
    #[default]
    Average,
    /// An average that counts one batch too many.
    OneTooMany,
    /// The default momentum, 0.1.
    DefaultMomentum,
}

/// The values that Bessel's correction counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BesselCount {
    /// All values of a channel.
    #[default]
    Values,
    /// Those of one worker.
    OneWorker,
    /// The samples.
    Samples,
}

/// When the running statistics move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Updates {
    /// In training.
    #[default]
    InTraining,
    /// In training and in evaluation.
    Always,
    /// Not at all.
    Never,
    /// Twice a training call.
    Twice,
}

/// What a backward pass leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GradientRule {
    /// Nothing.
    #[default]
    Complete,
    /// The dependence of the statistics, or of a norm, on the input.
    StatisticsConstant,
    /// The mean's.
    WithoutMean,
    /// The variance's.
    WithoutVariance,
    /// The weight, in the input's gradient.
    WithoutWeight,
    /// The standardization, in the weight's gradient.
    WeightOfRawInput,
    /// The sum: parameter gradients are averages.
    Averaged,
    /// The parameters: their gradients are 0.
    WithoutParameters,
    /// Nothing, but its own derivative takes the norm for a constant.
    NormSaved,
}

/// The windows of a local response norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowRule {
    /// Longer to the left where the size is even, divided by the size.
    #[default]
    AsDefined,
    /// Longer to the right where the size is even.
    Right,
    /// Divided by the number of channels that are there.
    Present,
    /// The sum is not divided.
    Undivided,
    /// Channel 0 never leaves them.
    FirstChannelStays,
    /// Empty for the channels from the number of samples on.
    OfBatch,
}

/// The norm that vectors are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NormRule {
    /// The one that was asked for.
    #[default]
    AsDefined,
    /// With eps added to it instead of as its lower limit.
    EpsAdded,
    /// Without its root.
    Squared,
    /// That of the whole tensor.
    Whole,
    /// That of vectors along the axis instead of slices across it.
    Along,
    /// Also where it is within the limit.
    WithinLimit,
}

/// The power iterations of spectral norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IterationRule {
    /// u first, in training, kept.
    #[default]
    AsDefined,
    /// v first.
    VFirst,
    /// None.
    Missing,
    /// Made, but u and v are forgotten.
    Forgotten,
}

/// How a batch norm is folded into a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FoldingRule {
    /// (conv_bias − running_mean)·f + bias.
    #[default]
    AsDefined,
    /// conv_bias·f + bias.
    WithoutMean,
    /// conv_bias − running_mean·f + bias.
    BiasUnscaled,
}

/// What online norm does otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnlineRule {
    /// Nothing.
    #[default]
    AsDefined,
    /// The running variance leaves out the spread of the samples' means.
    WithoutSpread,
    /// What keeps outputs or gradients in check is left out: layer scaling, the error along the output.
    WithoutControl,
    /// Every sample of a batch meets the statistics, or the errors, from before the batch.
    OncePerBatch,
}

impl MomentumSense {
    /// The other sense.
    pub fn flipped(self) -> MomentumSense {
        match self {
            MomentumSense::OfNew => MomentumSense::OfOld,
            MomentumSense::OfOld => MomentumSense::OfNew,
        }
    }
}

/// What a masked layer does with its mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskRule {
    /// The statistics are those of the values that the mask keeps.
    #[default]
    Kept,
    /// They are those of all values.
    Ignored,
    /// The sums leave the others out, their number does not.
    Counted,
}
