//! Momentum from one framework to another, and from one batch size to another.
//!
//! Every framework moves r ← (1 − m)·r + m·s; they differ in which weight they call momentum. PyTorch and its kin name m, the
//! weight of the new batch; Keras, Flax, ONNX and their kin name the decay d = 1 − m, the weight of the old value. For
//! another batch size, the window in samples stays if (1 − m') = (1 − m)^(B'/B): so many updates replace one.

/// Which weight is called momentum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The new batch's.
    New,
    /// The old value's.
    Old,
}

/// A framework's running statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Framework {
    /// Its name here.
    pub name: &'static str,
    /// What it calls the hyper-parameter.
    pub parameter: &'static str,
    /// Which weight that is.
    pub weight: Weight,
    /// Its default.
    pub default: Option<f64>,
    /// Whether the running variance averages the variance over n − 1.
    pub unbiased: bool,
    /// What else one should know.
    pub note: &'static str,
}

macro_rules! frameworks {
    ($($name:literal $parameter:literal $weight:ident $default:expr, $unbiased:literal, $note:literal;)*) => {
        /// The frameworks.
        pub const FRAMEWORKS: &[Framework] = &[$(Framework {
            name: $name,
            parameter: $parameter,
            weight: Weight::$weight,
            default: $default,
            unbiased: $unbiased,
            note: $note,
        }),*];
    };
}

frameworks! {
    "pytorch" "momentum" New Some(0.1), true, "";
    "mlx" "momentum" New Some(0.1), true, "";
    "candle" "momentum" New Some(0.1), true, "";
    "tinygrad" "momentum" New Some(0.1), true, "";
    "burn" "momentum" New Some(0.1), false, "";
    "cudnn" "exponentialAverageFactor" New None, true, "";
    "keras" "momentum" Old Some(0.99), false, "";
    "flax" "momentum" Old Some(0.99), false, "";
    "haiku" "decay_rate" Old None, false, "It divides by 1 − dᵗ, so the first batch counts in full.";
    "equinox" "momentum" Old Some(0.99), false, "";
    "onnx" "momentum" Old Some(0.9), false, "";
    "mxnet" "momentum" Old Some(0.9), false, "";
    "paddle" "momentum" Old Some(0.9), false, "";
    "mindspore" "momentum" Old Some(0.9), false, "This is nn.BatchNorm; mint.nn has PyTorch's sense.";
    "caffe" "moving_average_fraction" Old Some(0.999), true, "It divides by 1 − λᵗ, so the first batch counts in full.";
}

impl Framework {
    /// The framework called `name`.
    pub fn from_name(name: &str) -> Option<&'static Framework> {
        FRAMEWORKS.iter().find(|framework| framework.name == name)
    }

    /// Its parameter as the weight of the new batch, and back: either way the same.
    pub fn weight_of_new(&self, value: f64) -> f64 {
        match self.weight {
            Weight::New => value,
            Weight::Old => 1.0 - value,
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
        for from in FRAMEWORKS {
            for to in FRAMEWORKS {
                let there = convert(0.25, from, to, 32.0, 4.0);
                // A decay near 1 leaves its weight of the new batch, 0.035, with an error of 2⁻⁵⁴, 14 units of it; that and a
                // dozen roundings of the two powers come back as at most three times as much of 0.25.
                let back = convert(there, to, from, 4.0, 32.0);
                assert_relative_eq!(back, 0.25, max_relative = 3.0 * 26.0 * f64::EPSILON / 2.0);
            }
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
