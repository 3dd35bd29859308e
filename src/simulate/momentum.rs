//! Momentum from one framework to another, and from one batch size to another.
//!
//! Every framework moves r ← (1 − m)·r + m·s; they differ in which weight they call momentum. PyTorch and its kin name m, the
//! weight of the new batch; Keras, Flax, ONNX and their kin name the decay d = 1 − m, the weight of the old value. For
//! another batch size, the window in samples stays if (1 − m') = (1 − m)^(B'/B): so many updates replace one.

use std::sync::LazyLock;

use crate::operation::{Average, BatchNormDialect, MomentumSense};

/// A framework's running statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Framework {
    /// Its name here.
    pub name: &'static str,
    /// What it calls the hyper-parameter.
    pub parameter: &'static str,
    /// Which weight that is.
    pub weight: MomentumSense,
    /// Its default.
    pub default: Option<f64>,
    /// Whether the running variance averages the variance over n − 1.
    pub unbiased: bool,
    /// What else one should know.
    pub note: &'static str,
    /// The dialect of batch norm that has its conventions, if one has.
    pub dialect: Option<BatchNormDialect>,
}

/// Every framework: those of the dialects of batch norm, and some that have no dialect of their own.
pub static FRAMEWORKS: LazyLock<Vec<Framework>> = LazyLock::new(|| {
    let dialects = BatchNormDialect::ALL.iter().copied().map(of_dialect);
    dialects.chain(OTHERS).collect()
});

/// Those without a dialect: tinygrad has PyTorch's conventions, MindSpore's two have each other's.
const OTHERS: [Framework; 2] = [
    Framework {
        name: "tinygrad",
        parameter: "momentum",
        weight: MomentumSense::OfNew,
        default: Some(0.1),
        unbiased: true,
        note: "",
        dialect: None,
    },
    Framework {
        name: "mindspore",
        parameter: "momentum",
        weight: MomentumSense::OfOld,
        default: Some(0.9),
        unbiased: false,
        note: "This is nn.BatchNorm; mint.nn has PyTorch's sense.",
        dialect: None,
    },
];

fn of_dialect(dialect: BatchNormDialect) -> Framework {
    let conventions = dialect.conventions();
    let note = match conventions.average {
        Average::Exponential => "",
        Average::Debiased => "It divides by 1 − dᵗ, so the first batch counts in full.",
        Average::DebiasedWhenRead => "Evaluation divides by 1 − dᵗ, though the variance starts at 1.",
        Average::FirstReplaces => "The first batch counts in full, and training normalizes with the average.",
        Average::Unnormalized => {
            "It divides by the weight gathered, 1 + λ + … + λᵗ⁻¹, so the first batch counts in full."
        }
    };
    Framework {
        name: conventions.name,
        parameter: conventions.parameter,
        weight: conventions.momentum,
        default: conventions.default_momentum,
        unbiased: conventions.running_degrees_of_freedom == 1,
        note,
        dialect: Some(dialect),
    }
}

impl Framework {
    /// The framework called `name`.
    pub fn from_name(name: &str) -> Option<&'static Framework> {
        FRAMEWORKS.iter().find(|framework| framework.name == name)
    }

    /// Its parameter as the weight of the new batch, and back: either way the same.
    pub fn weight_of_new(&self, value: f64) -> f64 {
        match self.weight {
            MomentumSense::OfNew => value,
            MomentumSense::OfOld => 1.0 - value,
        }
    }
}

/// The weight of the new batch that keeps the window in samples when batches of `from` samples become batches of `to`:
/// 1 − (1−m)^(to/from).
///
/// ```
/// use normative::simulate::momentum::rescaled;
/// let smaller = rescaled(0.1, 32.0, 1.0);
/// assert!((smaller - 0.003287).abs() < 1e-6);
/// assert!((rescaled(smaller, 1.0, 32.0) - 0.1).abs() < 1e-15);
/// ```
pub fn rescaled(m: f64, from: f64, to: f64) -> f64 {
    -(to / from * (-m).ln_1p()).exp_m1()
}

/// `value` of framework `from`, at batches of `batch` samples, in the terms of `to` at batches of `to_batch`.
///
/// ```
/// use normative::simulate::momentum::{Framework, convert};
/// let framework = |name| Framework::from_name(name).unwrap();
/// assert_eq!(convert(0.1, framework("pytorch"), framework("keras"), 1.0, 1.0), 0.9);
/// ```
pub fn convert(value: f64, from: &Framework, to: &Framework, batch: f64, to_batch: f64) -> f64 {
    let m = from.weight_of_new(value);
    to.weight_of_new(if batch == to_batch { m } else { rescaled(m, batch, to_batch) })
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    #[test]
    fn there_and_back_is_where_one_was() {
        for from in FRAMEWORKS.iter() {
            for to in FRAMEWORKS.iter() {
                let there = convert(0.25, from, to, 32.0, 4.0);
                // A decay near 1 leaves its weight of the new batch, 0.035, with an error of 2⁻⁵⁴, 14 units of it; that and a
                // dozen roundings of the two powers come back as at most three times as much of 0.25.
                let back = convert(there, to, from, 4.0, 32.0);
                assert_relative_eq!(back, 0.25, max_relative = 3.0 * 26.0 * f64::EPSILON / 2.0);
            }
        }
    }

    /// The defaults of one framework are, in another's terms, what that one's documentation has beside it.
    #[test]
    fn defaults_go_over_into_each_other() {
        let framework = |name| Framework::from_name(name).expect("a framework");
        for (from, to, value) in [
            ("keras", "pytorch", 0.01),
            ("tensorflow", "burn", 0.01),
            ("onnx", "pytorch", 0.1),
            ("caffe", "cudnn", 0.001),
            ("pytorch", "equinox_ema", 0.9),
            ("candle", "haiku", 0.9),
            ("mxnet", "paddle", 0.9),
        ] {
            let from = framework(from);
            let converted = convert(from.default.expect("a default"), from, framework(to), 1.0, 1.0);
            // One subtraction from 1: half a unit in the last place of 1.
            assert!((converted - value).abs() <= f64::EPSILON, "{} to {to}: {converted}", from.name);
        }
    }

    #[test]
    fn four_small_updates_are_one_large_one() {
        let small = rescaled(0.1, 4.0, 1.0);
        // A rounding of 1 − small comes back fourfold, and powi makes three of its own.
        assert_relative_eq!((1.0 - small).powi(4), 0.9, max_relative = 8.0 * f64::EPSILON / 2.0);
        assert_eq!(rescaled(1.0, 4.0, 1.0), 1.0);
        assert_eq!(rescaled(0.0, 4.0, 1.0), 0.0);
    }
}
