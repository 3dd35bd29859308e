//! The dialects of batch norm, as data: which weight momentum is, what the running variance averages, how the averages are
//! kept, what one value per channel does.
//!
//! Each is the layer as its framework ships it. The one that departs in nothing else from another is still a dialect: its
//! users ask for it by name, and its recordings are its own. [`BatchNormDialect::rule`] makes a dialect's [`Rule`], of which
//! a planted bug is an edit; [`Average`] has the formulas of the averages.

use serde::{Deserialize, Serialize};

use super::{Average, MomentumSense, OneValue, Rule, TrainingStatistics};

/// What a framework chose for its batch norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conventions {
    /// The name in the protocol.
    pub name: &'static str,
    /// The framework and the version whose source or answers say so.
    pub title: &'static str,
    /// What it calls the momentum.
    pub parameter: &'static str,
    /// Which weight that is.
    pub momentum: MomentumSense,
    /// Its default.
    pub default_momentum: Option<f64>,
    /// The default of eps.
    pub default_eps: Option<f64>,
    /// The divisor of the averaged variance is n − this.
    pub running_degrees_of_freedom: u8,
    /// Of one value it is n.
    pub bessel_guarded: bool,
    /// How the averages are kept.
    pub average: Average,
    /// What normalizes in training.
    pub training: TrainingStatistics,
    /// What one value per channel does in training.
    pub one_value: OneValue,
    /// The state that a call hands on.
    pub state: &'static [&'static str],
    /// Whether it has a weight and a bias of its own.
    pub affine: bool,
    /// Whether momentum and eps are numbers of binary32, whatever the input: they are fields of a protocol buffer.
    pub single_parameters: bool,
    /// How it departs from PyTorch, in a sentence.
    pub departure: &'static str,
    /// Where that stands.
    pub source: &'static str,
}

/// Running statistics, and nothing else.
const RUNNING: &[&str] = &["running_mean", "running_var"];
/// With a counter.
const COUNTED: &[&str] = &["running_mean", "running_var", "num_batches_tracked"];
/// The averages, what they are made of, and the counter that debiases them.
const DEBIASED: &[&str] = &["running_mean", "running_var", "hidden_mean", "hidden_var", "num_batches_tracked"];
/// Sums, and the weight that they have gathered.
const SUMS: &[&str] = &["running_mean", "running_var", "scale_factor"];

/// What most frameworks do that are not PyTorch: momentum weighs the old value, the biased variance is averaged, one value
/// is answered.
const OF_OLD: Conventions = Conventions {
    name: "",
    title: "",
    parameter: "momentum",
    momentum: MomentumSense::OfOld,
    default_momentum: Some(0.9),
    default_eps: Some(1e-5),
    running_degrees_of_freedom: 0,
    bessel_guarded: false,
    average: Average::Exponential,
    training: TrainingStatistics::Batch,
    one_value: OneValue::Accepted,
    state: RUNNING,
    affine: true,
    single_parameters: false,
    departure: "",
    source: "",
};

/// Makes the enumeration and the table from one list.
macro_rules! dialects {
    ($($(#[$attribute:meta])* $variant:ident $title:literal { $($field:ident: $value:expr),* $(,)? })*) => {
        /// A dialect of batch norm.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum BatchNormDialect {
            $(
                $(#[$attribute])*
                #[doc = $title]
                $variant,
            )*
        }

        impl BatchNormDialect {
            /// Every dialect, PyTorch's first.
            pub const ALL: &'static [BatchNormDialect] = &[$(BatchNormDialect::$variant),*];

            /// What the dialect's framework chose.
            pub const fn conventions(self) -> &'static Conventions {
                match self {
                    $(BatchNormDialect::$variant => {
                        const CONVENTIONS: Conventions = Conventions { title: $title, $($field: $value,)* ..OF_OLD };
                        &CONVENTIONS
                    })*
                }
            }
        }
    };
}

dialects! {
    #[default]
    Pytorch "PyTorch 2.15" {
        name: "pytorch",
        momentum: MomentumSense::OfNew,
        default_momentum: Some(0.1),
        running_degrees_of_freedom: 1,
        one_value: OneValue::Refused,
        state: COUNTED,
        departure: "the measure of the others: momentum weighs the new batch, the unbiased variance is averaged, one value \
                    per channel is refused in training",
        source: "torch/nn/modules/batchnorm.py",
    }
    Keras "Keras 3.15" {
        name: "keras",
        default_momentum: Some(0.99),
        default_eps: Some(1e-3),
        departure: "momentum weighs the old value, the biased variance is averaged, one value per channel gives the bias, \
                    and there is no counter",
        source: "keras/src/layers/normalization/batch_normalization.py",
    }
    Tensorflow "TensorFlow 2, fused (rank 4)" {
        name: "tensorflow",
        default_momentum: Some(0.99),
        default_eps: Some(1e-3),
        running_degrees_of_freedom: 1,
        bessel_guarded: true,
        single_parameters: true,
        departure: "momentum weighs the old value, one value per channel gives the bias, and Bessel's correction of it is 1 \
                    (the kernel for CPUs; cuDNN's gives NaN); momentum and eps are F32",
        source: "tensorflow/core/kernels/fused_batch_norm_op.cc; tensorflow/tensorflow#55545",
    }
    Flax "Flax 0.12" {
        name: "flax",
        default_momentum: Some(0.99),
        departure: "as Keras: momentum weighs the old value, the biased variance is averaged, one value per channel gives \
                    the bias; by default the variance is one-pass",
        source: "flax/linen/normalization.py",
    }
    Haiku "Haiku 0.0.17" {
        name: "haiku",
        parameter: "decay_rate",
        default_momentum: None,
        average: Average::Debiased,
        state: DEBIASED,
        departure: "the decay weighs the old value, the biased variance is averaged, and the averages are divided by \
                    1 − dᵗ, so that the first batch counts in full",
        source: "haiku/_src/batch_norm.py, moving_averages.py",
    }
    EquinoxEma "Equinox 0.13, mode \"ema\"" {
        name: "equinox_ema",
        default_momentum: Some(0.99),
        average: Average::FirstReplaces,
        training: TrainingStatistics::Updated,
        state: COUNTED,
        departure: "momentum weighs the old value, the biased variance is averaged, the first batch replaces the \
                    statistics, and training normalizes with the statistics that it has just moved",
        source: "equinox/nn/_batch_norm.py",
    }
    EquinoxBatch "Equinox 0.13, mode \"batch\"" {
        name: "equinox_batch",
        default_momentum: Some(0.99),
        average: Average::DebiasedWhenRead,
        state: COUNTED,
        departure: "momentum weighs the old value, the biased variance is averaged, and evaluation divides the averages by \
                    1 − dᵗ though the variance starts at 1",
        source: "equinox/nn/_batch_norm.py",
    }
    Onnx "ONNX BatchNormalization-15" {
        name: "onnx",
        single_parameters: true,
        departure: "as Keras: momentum weighs the old value, the biased variance is averaged, one value per channel gives \
                    the bias; momentum and eps are F32",
        source: "onnx/docs/Operators.md, BatchNormalization",
    }
    Mxnet "MXNet 1.9" {
        name: "mxnet",
        default_eps: Some(1e-3),
        departure: "as Keras: momentum weighs the old value, the biased variance is averaged, one value per channel gives \
                    the bias",
        source: "mxnet.apache.org, operator BatchNorm",
    }
    Paddle "PaddlePaddle 2" {
        name: "paddle",
        one_value: OneValue::PassedOn,
        single_parameters: true,
        departure: "momentum weighs the old value, the biased variance is averaged, and one value per channel is passed \
                    on: y = x, and nothing moves; momentum and eps are F32",
        source: "paddle/phi/kernels/cpu/batch_norm_kernel.cc",
    }
    Caffe "Caffe 1.0" {
        name: "caffe",
        parameter: "moving_average_fraction",
        default_momentum: Some(0.999),
        running_degrees_of_freedom: 1,
        bessel_guarded: true,
        average: Average::Unnormalized,
        state: SUMS,
        affine: false,
        single_parameters: true,
        departure: "the fraction weighs the old value, the statistics are sums beside the weight that they have gathered, \
                    Bessel's correction of one value is 1, weight and bias are another layer's, and fraction and eps are F32",
        source: "caffe/src/caffe/layers/batch_norm_layer.cpp",
    }
    Cudnn "cuDNN" {
        name: "cudnn",
        parameter: "exponentialAverageFactor",
        momentum: MomentumSense::OfNew,
        default_momentum: None,
        default_eps: None,
        running_degrees_of_freedom: 1,
        departure: "as PyTorch but for the counter; what one value per channel does is not documented",
        source: "docs.nvidia.com, cudnnBatchNormalizationForwardTraining",
    }
    Burn "burn 0.22" {
        name: "burn",
        momentum: MomentumSense::OfNew,
        default_momentum: Some(0.1),
        departure: "the biased variance is averaged, one value per channel gives the bias, and there is no counter",
        source: "burn-nn, src/modules/norm/batch.rs",
    }
    Candle "candle 0.11" {
        name: "candle",
        momentum: MomentumSense::OfNew,
        default_momentum: Some(0.1),
        running_degrees_of_freedom: 1,
        departure: "one value per channel gives the bias and NaN in running_var, and there is no counter",
        source: "candle-nn, src/batch_norm.rs",
    }
    Mlx "MLX 0.32" {
        name: "mlx",
        momentum: MomentumSense::OfNew,
        default_momentum: Some(0.1),
        running_degrees_of_freedom: 1,
        one_value: OneValue::Refused,
        departure: "as PyTorch, one value per channel in training included, but for the counter",
        source: "mlx/nn/layers/normalization.py",
    }
}

impl BatchNormDialect {
    /// The dialect called `name`.
    ///
    /// ```
    /// use normative::operation::BatchNormDialect;
    /// assert_eq!(BatchNormDialect::from_name("equinox_ema"), Some(BatchNormDialect::EquinoxEma));
    /// ```
    pub fn from_name(name: &str) -> Option<BatchNormDialect> {
        BatchNormDialect::ALL.iter().copied().find(|dialect| dialect.name() == name)
    }

    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        self.conventions().name
    }

    /// The choices of the dialect's layer.
    pub fn rule(self) -> Rule {
        let conventions = self.conventions();
        Rule {
            momentum: conventions.momentum,
            running_biased: conventions.running_degrees_of_freedom == 0,
            bessel_guarded: conventions.bessel_guarded,
            average: conventions.average,
            training: conventions.training,
            one_value: conventions.one_value,
            ..Rule::default()
        }
    }

    pub(super) fn is_default(&self) -> bool {
        *self == BatchNormDialect::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_protocol() {
        for &dialect in BatchNormDialect::ALL {
            assert_eq!(serde_json::to_value(dialect).unwrap(), dialect.name());
            assert!(!dialect.conventions().departure.is_empty() && !dialect.conventions().source.is_empty());
        }
        assert_eq!(BatchNormDialect::default().rule(), Rule::default());
    }
}
