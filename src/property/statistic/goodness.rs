//! From observations to p-values, and from an error to the sample that shows it.
//!
//! Every p-value here holds at every sample size: none rests on a limit. For a false-alarm rate α, a miss rate β and
//! x = ln(2/α), x' = ln(1/β):
//!
//! ```text
//! fit       p = min(1, 2·exp(−2·N·D²)), D the distance of Kolmogorov and Smirnov         (Massart 1990)
//!           a distribution at distance δ is missed with a chance ≤ β if N ≥ (√x + √x')²/(2δ²)   (Hoeffding 1963)
//! mean      z = (mean − E)·√N/sd is normal, p = erfc(|z|/√2)
//!           a mean off by Δ is missed with a chance ≤ β if N ≥ ((z_{1−α/2} + z_{1−β})·sd/Δ)²
//! variance  Σ((X − E)/sd)² ~ χ²_N, p = 2·min(F, 1 − F)
//! squares   Z = Σ a_i(Y_i² − 1), Y_i normal:  P(Z ≥ 2|a|₂√t + 2|a|_∞·t) ≤ e⁻ᵗ and P(Z ≤ −2|a|₂√t) ≤ e⁻ᵗ
//!                                                                  (Laurent and Massart 2000, lemma 1)
//!           so p = 2e⁻ᵗ; the mean of N such sums off by Δ, its alternative c times as wide, is missed with a chance ≤ β if
//!           Δ ≥ c'(2|a|₂(√x + √x')/√N + 2|a|_∞(x + x')/N), c' = max(1, c)
//! ```
//! The variance's own p-value is no larger than that of the squares, so their sample serves it too.

use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};
use statrs::function::erf::erfc;

/// The rates of error that a test is planned for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// α: the chance of an alarm at a correct layer.
    pub false_alarm: f64,
    /// β: the chance of no alarm at a layer with the error that the test is planned for.
    pub miss: f64,
}

impl Rates {
    fn exponents(self) -> (f64, f64) {
        ((2.0 / self.false_alarm).ln(), (1.0 / self.miss).ln())
    }
}

/// A weighted sum of χ² variables: pairs of a weight and the degrees of freedom that share it.
#[derive(Clone, Debug, PartialEq)]
pub struct Squares(pub Vec<(f64, f64)>);

impl Squares {
    /// Its expectation, Σ weight·degrees.
    pub fn expectation(&self) -> f64 {
        self.0.iter().map(|(weight, degrees)| weight * degrees).sum()
    }

    /// |a|₂ = √(Σ weight²·degrees).
    fn norm(&self) -> f64 {
        self.0.iter().map(|(weight, degrees)| weight * weight * degrees).sum::<f64>().sqrt()
    }

    /// |a|_∞.
    fn largest(&self) -> f64 {
        self.0.iter().map(|(weight, _)| *weight).fold(0.0, f64::max)
    }

    /// The p-value of a mean over `count` independent sums.
    pub fn p_value(&self, mean: f64, count: usize) -> f64 {
        let deviation = mean - self.expectation();
        let (spread, longest) = (self.norm() / (count as f64).sqrt(), self.largest() / count as f64);
        let root = if deviation < 0.0 {
            -deviation / (2.0 * spread)
        } else {
            // The positive root of 2·longest·t + 2·spread·√t = deviation in √t.
            deviation / (spread + (spread * spread + 2.0 * longest * deviation).sqrt())
        };
        ceiling(2.0 * (-root * root).exp())
    }

    /// How many sums show an expectation that is off by the factor `factor`, with fluctuations off by no more.
    pub fn sample(&self, factor: f64, rates: Rates) -> usize {
        let (x, missed) = rates.exponents();
        let wider = factor.max(1.0);
        let off = (factor - 1.0).abs() * self.expectation();
        let (linear, constant) =
            (2.0 * wider * self.norm() * (x.sqrt() + missed.sqrt()), 2.0 * wider * self.largest() * (x + missed));
        let root = (linear + (linear * linear + 4.0 * off * constant).sqrt()) / (2.0 * off);
        (root * root).ceil() as usize
    }
}

/// The p-value of observations whose distribution function is `cdf`; one that is NaN fits nothing.
pub fn fit(values: &[f64], cdf: &dyn Fn(f64) -> f64) -> f64 {
    let distance = distance(values, cdf);
    ceiling(2.0 * (-2.0 * values.len() as f64 * distance * distance).exp())
}

/// The largest difference of the observed and the expected distribution function (Kolmogorov 1933).
pub fn distance(values: &[f64], cdf: &dyn Fn(f64) -> f64) -> f64 {
    if values.is_empty() || values.iter().any(|value| value.is_nan()) {
        return 1.0;
    }
    let mut levels: Vec<f64> = values.iter().map(|&value| cdf(value)).collect();
    levels.sort_by(f64::total_cmp);
    let count = levels.len() as f64;
    let steps = levels.iter().enumerate();
    steps.map(|(i, level)| (level - i as f64 / count).max((i + 1) as f64 / count - level)).fold(0.0, f64::max)
}

/// How many observations show a distribution whose function is `distance` away.
pub fn fit_sample(distance: f64, rates: Rates) -> usize {
    let (x, missed) = rates.exponents();
    ((x.sqrt() + missed.sqrt()).powi(2) / (2.0 * distance * distance)).ceil() as usize
}

/// The distance between the distribution functions of X and of `factor`·X, on `grid`.
pub fn distance_scaled(cdf: &dyn Fn(f64) -> f64, factor: f64, grid: impl Iterator<Item = f64>) -> f64 {
    grid.map(|x| (cdf(x) - cdf(x / factor)).abs()).fold(0.0, f64::max)
}

/// The p-value of a value that is normal with the given expectation and standard deviation.
pub fn normal(value: f64, expectation: f64, deviation: f64) -> f64 {
    let z = (value - expectation) / deviation;
    if z.is_nan() { 0.0 } else { ceiling(erfc(z.abs() / std::f64::consts::SQRT_2)) }
}

/// How many values show a mean that is off by `off`.
///
/// # Panics
/// If a rate is no probability.
pub fn normal_sample(deviation: f64, off: f64, rates: Rates) -> usize {
    let standard = Normal::new(0.0, 1.0).expect("a positive deviation");
    let quantile = |tail: f64| -standard.inverse_cdf(tail);
    let z = quantile(rates.false_alarm / 2.0) + quantile(rates.miss);
    (z * deviation / off).powi(2).ceil() as usize
}

/// The two-sided p-value of a χ² variable with `degrees` degrees of freedom.
///
/// # Panics
/// If `degrees` is not positive.
pub fn chi_squared(value: f64, degrees: f64) -> f64 {
    let law = ChiSquared::new(degrees).expect("positive degrees of freedom");
    if value.is_nan() { 0.0 } else { ceiling(2.0 * law.cdf(value).min(law.sf(value))) }
}

/// What is no number is no evidence of a correct layer.
fn ceiling(p: f64) -> f64 {
    if p.is_nan() { 0.0 } else { p.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    const RATES: Rates = Rates { false_alarm: 1e-6, miss: 1e-3 };
    /// Few roundings, of numbers of ordinary size.
    const ROUNDED: f64 = 16.0 * f64::EPSILON;

    #[test]
    fn normal_quantiles_are_the_tables() {
        // A relative error u of z is one of z·φ(z)/Φ(−z) ≈ z² of the tail; statrs's erfc is a rational approximation of ten
        // digits, of which a p-value needs two.
        let granted = |z: f64| z * z * f64::EPSILON + 2f64.powi(-33);
        assert_relative_eq!(normal(1.959963984540054, 0.0, 1.0), 0.05, max_relative = granted(1.96));
        assert_relative_eq!(normal(3.0 - 2.0 * 1.959963984540054, 3.0, 2.0), 0.05, max_relative = granted(1.96));
        assert_relative_eq!(normal(-5.0, 1.0, 1.0), 1.973_175_290_075_396e-9, max_relative = granted(6.0));
        // (4.892 + 3.090)² ≈ 63.71
        assert_eq!(normal_sample(1.0, 1.0, RATES), 64);
        assert_eq!(normal(f64::NAN, 0.0, 1.0), 0.0);
    }

    #[test]
    fn the_bound_of_squares_lies_above_the_exact_tails() {
        for degrees in [1.0, 4.0, 100.0] {
            let squares = Squares(vec![(1.0, degrees)]);
            for value in [0.1, 0.5, 0.9, 1.1, 2.0, 5.0].map(|part| part * degrees) {
                let (bound, exact) = (squares.p_value(value, 1), chi_squared(value, degrees));
                assert!(bound >= exact, "{value} with {degrees} degrees: {bound} < {exact}");
            }
        }
    }

    #[test]
    fn a_planned_sample_of_squares_sees_what_it_is_planned_for() {
        let one = Squares(vec![(1.0, 1.0)]);
        let count = one.sample(1.25, RATES);
        let scaled = ChiSquared::new(count as f64).unwrap();
        // The largest value that is not rejected, by bisection, and the chance of 1.25·χ² to stay below it.
        let (mut low, mut high) = (1.0, 2.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if one.p_value(middle, count) > RATES.false_alarm { low = middle } else { high = middle }
        }
        assert!(scaled.cdf(low * count as f64 / 1.25) <= RATES.miss);
    }

    #[test]
    fn the_distance_of_a_fit_is_known_by_hand() {
        let uniform = |x: f64| x.clamp(0.0, 1.0);
        assert_relative_eq!(distance(&[0.5], &uniform), 0.5);
        assert_relative_eq!(distance(&[0.25, 0.75], &uniform), 0.25);
        // Above the steps at 2/3, and below that to 2/3.
        assert_relative_eq!(distance(&[0.45, 0.95, 0.1], &uniform), 0.95 - 2.0 / 3.0, max_relative = ROUNDED);
        assert_relative_eq!(distance(&[0.9, 0.2, 0.05], &uniform), 2.0 / 3.0 - 0.2, max_relative = ROUNDED);
        assert_eq!(distance(&[0.25, f64::NAN], &uniform), 1.0);
        assert_eq!(distance_scaled(&uniform, 0.5, [0.0, 0.25, 0.375].into_iter()), 0.375);
        let grid = (0..=1000).map(|i| f64::from(i) / 1000.0);
        assert_relative_eq!(distance_scaled(&uniform, 0.75, grid), 0.25);
    }

    #[test]
    fn p_values_are_those_of_the_formulas() {
        let uniform = |x: f64| x.clamp(0.0, 1.0);
        // D = ½ for four values in the middle: 2·exp(−2·4·¼)
        assert_relative_eq!(fit(&[0.5; 4], &uniform), 2.0 * (-2.0_f64).exp(), max_relative = ROUNDED);
        assert_eq!(fit(&[0.5], &uniform), 1.0);
        assert_eq!(distance(&[], &uniform), 1.0);
        // D = 1, which is exp(−2) for each.
        assert_relative_eq!(fit(&[f64::NAN; 4], &uniform), 2.0 * (-8.0_f64).exp(), max_relative = ROUNDED);
        // E = 6, |a|₂ = √8, |a|_∞ = 2; over four sums √2 and ½.
        let squares = Squares(vec![(2.0, 1.0), (1.0, 4.0)]);
        assert_eq!(squares.expectation(), 6.0);
        for t in [1.0_f64, 2.25, 9.0] {
            let (one, four) = (2.0 * 8.0_f64.sqrt() * t.sqrt(), 2.0 * 2.0_f64.sqrt() * t.sqrt());
            let expected = 2.0 * (-t).exp();
            // Fewer than sixty roundings; what is wrong by u in t is by t·u in its exponential.
            let granted = 64.0 * f64::EPSILON * (1.0 + t);
            for (mean, count) in [(6.0 + one + 4.0 * t, 1), (6.0 - one, 1), (6.0 + four + t, 4), (6.0 - four, 4)] {
                assert_relative_eq!(squares.p_value(mean, count), expected.min(1.0), max_relative = granted);
            }
        }
        assert_eq!((squares.p_value(f64::NAN, 1), squares.p_value(6.0, 3)), (0.0, 1.0));
        // Of two degrees the tail is exp(−x/2): a quarter on either side, or a half. The series of statrs ends at 10⁻¹⁵.
        for (value, p) in [(2.0 * 4.0_f64.ln(), 0.5), (2.0 * (4.0_f64 / 3.0).ln(), 0.5), (2.0 * 2.0_f64.ln(), 1.0)] {
            assert_relative_eq!(chi_squared(value, 2.0), p, max_relative = ROUNDED);
        }
        assert_eq!(chi_squared(f64::NAN, 2.0), 0.0);
    }

    #[test]
    fn a_sample_is_as_large_as_it_must_be_and_no_larger() {
        // x = ln(2/α) = 4 and x' = ln(1/β) = 1, to a rounding.
        let rates = Rates { false_alarm: 2.0 * (-4.0_f64).exp(), miss: (-1.0_f64).exp() };
        // (√4 + √1)²/(2·0.6²) = 12.5
        assert_eq!(fit_sample(0.6, rates), 13);
        // 16·63.71 = 1019.4
        assert_eq!(normal_sample(2.0, 0.5, RATES), 1020);
        for squares in [Squares(vec![(1.0, 1.0)]), Squares(vec![(2.0, 1.0), (1.0, 4.0)]), Squares(vec![(0.25, 3.0)])] {
            for factor in [0.5_f64, 0.9, 1.1, 2.0, 3.0] {
                let shows = |count: usize| {
                    let count = count as f64;
                    let wide =
                        2.0 * squares.norm() * (2.0 + 1.0) / count.sqrt() + 2.0 * squares.largest() * 5.0 / count;
                    (factor - 1.0).abs() * squares.expectation() >= factor.max(1.0) * wide
                };
                let count = squares.sample(factor, rates);
                assert!(shows(count) && !shows(count - 1), "{squares:?} times {factor}: {count}");
            }
        }
    }
}
