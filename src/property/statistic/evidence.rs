//! Evidence that accumulates, and that may be looked at whenever one likes.
//!
//! An *e-value* is a variable of at least 0 whose expectation under the hypothesis, given all that came before, is at most
//! one. The running product of e-values is then a supermartingale, and the chance that it ever reaches 1/α is at most α
//! (Ville 1939): one may stop at any time, for any reason, or go on for ever. A p-value p becomes an e-value by
//! f(p) = (1 − p + p·ln p)/(p·ln² p), the mixture of κ·p^(κ−1) over κ in (0, 1) (Vovk and Wang 2021, *E-values:
//! calibration, combination and applications*): f falls in p and ∫f = 1, so a p-value that is too large does no harm.
//!
//! ```text
//! E_t = f(p_1)·f(p_2)·…·f(p_t)        alarm as soon as E_t ≥ K/α, for K processes side by side
//! ```

use serde::{Deserialize, Serialize};

/// The largest ln f(p) that counts. An e-value may always be taken for a smaller one, and infinity is no number of JSON.
const MOST: f64 = 1000.0;

/// One hypothesis and the evidence against it so far.
///
/// ```
/// use normative::property::statistic::Evidence;
/// let mut evidence = Evidence::default();
/// for p in [0.5, 0.8, 0.1] {
///     evidence.add(p);
/// }
/// assert!(!evidence.rejects(1e-6));
/// for p in [1e-6, 1e-7] {
///     evidence.add(p);
/// }
/// assert!(evidence.rejects(1e-6));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// t, the number of p-values.
    rounds: u64,
    /// ln E_t.
    logarithm: f64,
    /// The largest ln E_t so far: what was once an alarm stays one.
    largest: f64,
}

impl Evidence {
    /// Adds the p-value of a test that is independent of those before, or valid given them.
    pub fn add(&mut self, p: f64) {
        self.rounds += 1;
        self.logarithm += calibrated(p).ln().min(MOST);
        self.largest = self.largest.max(self.logarithm);
    }

    /// t, how many p-values it rests on.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Whether [`Evidence::add`] can have come to these numbers: a product of no p-values is 1, and no more is found later
    /// than the largest found before.
    pub fn is_consistent(&self) -> bool {
        let Evidence { rounds, logarithm, largest } = *self;
        let most = MOST * rounds as f64;
        (0.0..=most).contains(&largest) && logarithm <= largest && (rounds > 0 || logarithm == 0.0)
    }

    /// E_t, the product of the e-values.
    pub fn e_value(&self) -> f64 {
        self.logarithm.exp()
    }

    /// Whether it reached 1/`alpha` at any time: of a true hypothesis this has a chance of at most `alpha`, ever.
    pub fn rejects(&self, alpha: f64) -> bool {
        self.largest >= -alpha.ln()
    }

    /// log₁₀ max E_t, at least 0.
    pub fn exponent(&self) -> f64 {
        self.largest / std::f64::consts::LN_10
    }

    /// 1/max E_t, at most 1: a p-value that holds at any time.
    pub fn p_value(&self) -> f64 {
        (-self.largest).exp()
    }
}

/// The e-value of a p-value; infinite at 0, and at what is no number.
pub fn calibrated(p: f64) -> f64 {
    if p.is_nan() || p <= 0.0 {
        return f64::INFINITY;
    }
    let log = p.min(1.0).ln();
    if log > -1e-3 {
        // 1 − p + p·ln p cancels near 1; its series in ln p is ½ln² p + ⅓ln³ p + …
        return (0.5 + log / 3.0) / p.min(1.0);
    }
    (1.0 - p + p * log) / (p * log * log)
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;
    use crate::case::values::Values;

    #[test]
    fn the_calibrator_integrates_to_one() {
        // ∫f(p)dp with p = e^(−u): the integrand (1 − e^(−u)(1 + u))/u² falls as 1/u², so that the tail beyond U is 1/U.
        let (step, end) = (1e-3, 600.0);
        let integrand = |u: f64| calibrated((-u).exp()) * (-u).exp();
        let sum: f64 = (0..600_000).map(|i| integrand((f64::from(i) + 0.5) * step) * step).sum();
        // The midpoint rule's remainder is h²/24·|f′(end) − f′(0)|, and the integrand is ½ − ⅓u + … at 0.
        assert_relative_eq!(sum + 1.0 / end, 1.0, epsilon = step * step / 24.0 / 3.0 * 1.01);
        assert_relative_eq!(calibrated(1.0), 0.5);
        // On either side of where the series ends the slope, by ln p, is about −⅓ + ½: no step is hidden in it.
        let (above, below) = (0.00099_f64, 0.00101_f64);
        assert_relative_eq!(calibrated((-above).exp()), calibrated((-below).exp()), epsilon = 0.5 * (below - above));
    }

    /// At most one in twenty walks may ever reach 20; that it holds at every time at once is the point.
    #[test]
    fn a_true_hypothesis_is_seldom_rejected_however_long_one_looks() {
        let mut values = Values::new(1);
        let mut rejected = 0;
        for _ in 0..2000 {
            let mut evidence = Evidence::default();
            (0..200).for_each(|_| evidence.add(values.uniform() + 0.5_f64.powi(21)));
            rejected += usize::from(evidence.rejects(0.05));
        }
        // 100 expected at most; four standard deviations above is 139.
        assert!((1..=139).contains(&rejected), "{rejected} of 2000");
    }

    /// What was added is consistent, however strong; what no p-values can have come to is not.
    #[test]
    fn only_what_p_values_come_to_is_consistent() {
        let mut evidence = Evidence::default();
        assert!(evidence.is_consistent());
        for (round, p) in [0.0, 0.0, f64::NAN, 0.9].into_iter().enumerate() {
            evidence.add(p);
            assert!(evidence.is_consistent() && evidence.rounds() == round as u64 + 1, "{evidence:?}");
        }
        assert_eq!(evidence.largest, 3.0 * MOST);
        for forged in [
            Evidence { rounds: 2, ..evidence },
            Evidence { logarithm: evidence.largest + 1.0, ..evidence },
            Evidence { largest: -1.0, logarithm: -2.0, ..evidence },
            Evidence { rounds: 0, largest: 0.0, logarithm: -1.0 },
        ] {
            assert!(!forged.is_consistent(), "{forged:?}");
        }
        assert_eq!(Evidence { rounds: 1, logarithm: 0.0, largest: std::f64::consts::LN_10 }.exponent(), 1.0);
    }

    #[test]
    fn the_product_and_its_largest_value_are_told() {
        let mut evidence = Evidence::default();
        // f(1/e) = (1 − 2/e)·e = e − 2, f(1) = ½
        let (first, second) = (std::f64::consts::E - 2.0, 0.5);
        assert_relative_eq!(calibrated((-1.0_f64).exp()), first, max_relative = 4.0 * f64::EPSILON);
        for (p, product, largest) in [((-1.0_f64).exp(), first, 1.0), (1.0, first * second, 1.0)] {
            evidence.add(p);
            // A logarithm and its inverse are each within an ulp, of numbers below 1.
            assert_relative_eq!(evidence.e_value(), product, max_relative = 8.0 * f64::EPSILON);
            assert_eq!(evidence.p_value(), largest);
        }
        let strong = Evidence { rounds: 1, logarithm: 0.0, largest: 4.0_f64.ln() };
        assert_relative_eq!(strong.p_value(), 0.25, max_relative = 4.0 * f64::EPSILON);
        assert!(strong.rejects(0.26) && !strong.rejects(0.24));
    }

    #[test]
    fn a_small_error_is_found_in_time() {
        let mut values = Values::new(2);
        let mut evidence = Evidence::default();
        // p-values whose square root is uniform: a little too often small.
        let count = (1..500).find(|_| {
            evidence.add((values.uniform() + 1e-7).powi(2));
            evidence.rejects(1e-9)
        });
        assert!(count.is_some());
        assert!(evidence.p_value() <= 1e-9);
    }
}
