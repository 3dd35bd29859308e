//! The distribution of a·X + b·Y with X and Y independent χ²: the law of a variance of samples that differ.
//!
//! P(a·X + b·Y ≤ t) = ∫ F_X((t − b·r²)/a)·2r·f_Y(r²) dr, by the midpoint rule; r = √Y is spread by about 1/√2 whatever its
//! degrees of freedom (Fisher 1925), so one grid serves all.

use statrs::distribution::{ChiSquared, Continuous, ContinuousCDF};

/// Weights and degrees of freedom of one or two χ² variables.
#[derive(Clone, Debug)]
pub(super) struct Mixture(Vec<(f64, f64)>);

/// The points of the midpoint rule.
const POINTS: usize = 400;

impl Mixture {
    /// Parts without degrees of freedom or without weight are left out.
    pub fn new(parts: [(f64, f64); 2]) -> Mixture {
        Mixture(parts.into_iter().filter(|(weight, degrees)| *weight > 0.0 && *degrees > 0.0).collect())
    }

    pub fn mean(&self) -> f64 {
        self.0.iter().map(|(weight, degrees)| weight * degrees).sum()
    }

    pub fn variance(&self) -> f64 {
        self.0.iter().map(|(weight, degrees)| 2.0 * weight * weight * degrees).sum()
    }

    /// The value below which the sum lies with a chance of `level`, by bisection.
    pub fn quantile(&self, level: f64) -> f64 {
        let (mut low, mut high) = (0.0, self.mean() + 40.0 * self.variance().sqrt());
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if self.cdf(middle) < level { low = middle } else { high = middle }
        }
        0.5 * (low + high)
    }

    fn cdf(&self, t: f64) -> f64 {
        match self.0.as_slice() {
            [] => 1.0,
            [(weight, degrees)] => law(*degrees).cdf(t / weight),
            [(a, of_a), (b, of_b), ..] => {
                let (first, second) = (law(*of_a), law(*of_b));
                let (start, end) = ((of_b.sqrt() - 6.0).max(0.0), of_b.sqrt() + 6.0);
                let width = (end - start) / POINTS as f64;
                let roots = (0..POINTS).map(|i| start + (i as f64 + 0.5) * width);
                roots.map(|r| first.cdf((t - b * r * r) / a) * 2.0 * r * second.pdf(r * r) * width).sum()
            }
        }
    }
}

fn law(degrees: f64) -> ChiSquared {
    ChiSquared::new(degrees).expect("positive degrees of freedom")
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    #[test]
    fn equal_weights_are_one_chi_squared() {
        let whole = Mixture::new([(2.0, 7.0), (0.0, 1.0)]);
        for parts in [[(2.0, 3.0), (2.0, 4.0)], [(2.0, 6.0), (2.0, 1.0)]] {
            let mixed = Mixture::new(parts);
            assert_relative_eq!(mixed.mean(), 14.0);
            assert_relative_eq!(mixed.variance(), whole.variance());
            for level in [0.05, 0.5, 0.95] {
                // The midpoint rule's remainder is h²/24·|f′|, and the integrand's slope is less than 1 everywhere.
                let step = 12.0 / POINTS as f64;
                let reached = whole.cdf(mixed.quantile(level));
                assert!((reached - level).abs() <= step * step / 24.0, "{reached} for {level}");
            }
        }
        // The median of χ² with two degrees of freedom is 2·ln 2.
        // Sixty halvings of an interval of 82 leave nothing; the library's distribution is granted sixteen roundings.
        let median = Mixture::new([(1.0, 2.0), (0.0, 0.0)]).quantile(0.5);
        assert_relative_eq!(median, 2.0 * 2f64.ln(), max_relative = 16.0 * f64::EPSILON);
        assert!(Mixture::new([(1.0, 31.0), (0.5, 1e5)]).quantile(0.5).is_finite());
    }
}
