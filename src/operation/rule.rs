//! What an operation chose, where it could have chosen otherwise. A planted bug is an edited rule.

use crate::arithmetic::{EpsPlace, RunningQuantity, Scale};

/// The choices of a normalization layer and of its momentum update.
///
/// [`Rule::default`] is PyTorch's. Every other value is some real layer's, or a bug that some real layer had.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The variance that normalizes is divided by n − this (0: biased).
    pub degrees_of_freedom: u8,
    /// Where eps stands.
    pub eps_place: EpsPlace,
    /// eps is replaced by `eps_factor · eps^eps_power` (1 and 1 leave it).
    pub eps_factor: f64,
    /// See `eps_factor`.
    pub eps_power: i32,
    /// 1/σ is wrong by this relative amount.
    pub scale_error: f64,
    /// Groups are every G-th channel rather than neighbouring ones.
    pub strided_groups: bool,
    /// Weight and bias are indexed by group rather than by channel.
    pub affine_per_group: bool,
    /// Each group's statistics see the first value of the next group instead of its own.
    pub leaks: bool,
    /// The normalized value is clipped to ± this.
    pub clip: Option<f64>,
    /// NaN in the output becomes 0.
    pub replaces_nan: bool,
    /// What one value a group does in training.
    pub one_value: OneValue,
    /// Which of old and new the momentum weighs.
    pub momentum: MomentumSense,
    /// The running variance's samples are divided by n − this (1: Bessel's correction).
    pub running_degrees_of_freedom: u8,
    /// What is averaged in `running_var`.
    pub running: RunningQuantity,
    /// When the running statistics move.
    pub updates: Updates,
    /// Evaluation normalizes with the batch's statistics.
    pub batch_statistics_in_eval: bool,
    /// `num_batches_tracked` never moves.
    pub counter_frozen: bool,
    /// The cumulative average divides by the number of batches plus this.
    pub cumulative_offset: i64,
    /// Bessel's correction counts one worker's values instead of all workers'.
    pub local_bessel: bool,
    /// What the backward pass leaves out.
    pub gradient: GradientRule,
    /// What the gradient leaves out that a double backward differentiates, if not what the backward pass does.
    pub second_gradient: Option<GradientRule>,
    /// The window of a local response norm of even size is longer to the right.
    pub window_right: bool,
    /// A local response norm's sum is divided by the channels that are there instead of by the window's size.
    pub window_present: bool,
    /// alpha is not divided by the window's size.
    pub alpha_undivided: bool,
    /// eps is added to a norm instead of being its lower limit.
    pub eps_added: bool,
    /// Norms are those of the whole tensor.
    pub whole_norm: bool,
    /// A norm lacks its root.
    pub norm_squared: bool,
    /// Rows within the limit of a renorm are scaled too.
    pub renorms_all: bool,
    /// A power iteration starts with v.
    pub v_first: bool,
    /// No power iteration is made in training.
    pub no_iteration: bool,
    /// Folding forgets the running mean.
    pub folds_without_mean: bool,
    /// The mean is subtracted where it must not be, and the other way round.
    pub centring_flipped: bool,
    /// The weight multiplies where 1 + weight must, and the other way round.
    pub offset_flipped: bool,
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

/// What a backward pass leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GradientRule {
    /// Nothing.
    #[default]
    Complete,
    /// The dependence of the statistics on the input.
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
}

impl Default for Rule {
    fn default() -> Rule {
        Rule {
            degrees_of_freedom: 0,
            eps_place: EpsPlace::InsideRoot,
            eps_factor: 1.0,
            eps_power: 1,
            scale_error: 0.0,
            strided_groups: false,
            affine_per_group: false,
            leaks: false,
            clip: None,
            replaces_nan: false,
            one_value: OneValue::Refused,
            momentum: MomentumSense::OfNew,
            running_degrees_of_freedom: 1,
            running: RunningQuantity::Variance,
            updates: Updates::InTraining,
            batch_statistics_in_eval: false,
            counter_frozen: false,
            cumulative_offset: 0,
            local_bessel: false,
            gradient: GradientRule::Complete,
            second_gradient: None,
            window_right: false,
            window_present: false,
            alpha_undivided: false,
            eps_added: false,
            whole_norm: false,
            norm_squared: false,
            renorms_all: false,
            v_first: false,
            no_iteration: false,
            folds_without_mean: false,
            centring_flipped: false,
            offset_flipped: false,
            first_condition: false,
            mask: MaskRule::Kept,
            gate_moved: false,
            inactive: false,
            smaller_branch: false,
            chunks_averaged: false,
            unclipped: false,
            fan_in_dropped: false,
            alpha_dropped: false,
            norms_summed: false,
        }
    }
}

impl Rule {
    /// How σ follows from the variance, for an operation's eps.
    pub fn scale(&self, eps: f64) -> Scale {
        Scale {
            eps: self.eps_factor * eps.powi(self.eps_power),
            eps_place: self.eps_place,
            degrees_of_freedom: self.degrees_of_freedom,
            error: self.scale_error,
        }
    }
}

/// What a training step does with one value a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OneValue {
    /// Refused, where the layer refuses it.
    Refused,
    /// Answered: the variance is 0.
    Accepted,
    /// Refused, and with it every batch of one sample, however many values a channel has.
    EveryBatchOfOneRefused,
}

/// When the running statistics move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updates {
    /// In training.
    InTraining,
    /// In training and in evaluation.
    Always,
    /// Not at all.
    Never,
}

/// Which of old and new the momentum m weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentumSense {
    /// (1 − m)·old + m·new: PyTorch.
    OfNew,
    /// m·old + (1 − m)·new: Keras, Flax, ONNX.
    OfOld,
}
