//! Normal values, for laws that hold of normal values alone.
//!
//! Marsaglia's polar method (1964): of a uniform point in the unit disc, s = u² + v², u·√(−2·ln s/s) is normal. Values are
//! rounded to multiples of 2⁻³⁰, far below what any test here can see, so that they are the same wherever the last bit
//! of a logarithm differs.

use crate::arithmetic::format::power_of_two;
use crate::case::values::Values;

/// A source of normal values.
#[derive(Clone, Debug)]
pub(crate) struct Gaussian {
    values: Values,
    spare: Option<f64>,
}

impl Gaussian {
    /// The source that belongs to a name and a seed.
    pub(crate) fn new(name: &str, seed: u64) -> Gaussian {
        Gaussian { values: Values::named(&format!("{name}-{seed}")), spare: None }
    }

    /// A normal value with mean 0 and variance 1.
    pub(crate) fn next(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (u, v) = (self.centred(), self.centred());
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let factor = (-2.0 * s.ln() / s).sqrt();
                self.spare = Some(rounded(v * factor));
                return rounded(u * factor);
            }
        }
    }

    /// `count` values with the given mean and standard deviation.
    pub(crate) fn take(&mut self, count: usize, mean: f64, deviation: f64) -> Vec<f64> {
        (0..count).map(|_| mean + deviation * self.next()).collect()
    }

    /// Uniform in (−1, 1), forty bits.
    fn centred(&mut self) -> f64 {
        let fraction = self.values.uniform() + self.values.uniform() * power_of_two(-20);
        2.0 * fraction - 1.0 + power_of_two(-40)
    }
}

fn rounded(value: f64) -> f64 {
    (value * power_of_two(30)).round() * power_of_two(-30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::property::statistic::goodness;
    use statrs::distribution::{ContinuousCDF, Normal};

    #[test]
    fn the_values_are_normal() {
        let law = Normal::new(1.0, 2.0).unwrap();
        let values = Gaussian::new("test", 0).take(100_000, 1.0, 2.0);
        assert!(goodness::fit(&values, &|x| law.cdf(x)) > 1e-3);
        // The sum of squares sees the tails, where the fit looks less closely.
        let squares: f64 = values.iter().map(|x| ((x - 1.0) / 2.0).powi(2)).sum();
        assert!(goodness::chi_squared(squares, 1e5) > 1e-3);
    }
}
