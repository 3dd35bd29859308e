//! The exact oracle: correctly rounded statistics and outputs of a normalization, by integer arithmetic alone.
//!
//! A binary64 number is an integer times a power of two. So the sums n, S = Σx and Σx² of a group are integers on a
//! grid, mean and variance are rational numbers, and an output is algebraic of degree two:
//! ```text
//! μ = S/n        v = (n·Σx² − S²)/n²        v + eps = W/n²
//! w·(x − μ)/√(v + eps) + b  =  b + w·(n·x − S)/√W
//! ```
//! Every such number has the form (P + Q/√R)/D · 2^e with integers P, Q, R > 0 and D > 0; this is [`Exact`]. Its sign
//! is that of P + Q/√R, which the signs of P and Q and of P²·R − Q² decide. Since subtracting a binary64 number
//! keeps the form, so is every comparison, and with it every rounding, decided by integers: there is no precision to
//! choose. Approximations only make it quick, where an interval around the number rounds to a single value.
//!
//! ```
//! use normative::arithmetic::{Format, exact::ExactGroup};
//! // One unit in the last place above two equal values: y = √2, −√½, −√½, whatever the mean.
//! let values = [16_777_215.0, 16_777_214.0, 16_777_214.0];
//! let group = ExactGroup::new(values, true);
//! let scale = group.scale(0.0).expect("the variance is positive");
//! let outputs = values.map(|x| group.element(&scale, x, None, None).round(Format::F64));
//! assert_eq!(outputs, [2.0_f64.sqrt(), -(0.5_f64.sqrt()), -(0.5_f64.sqrt())]);
//! ```

mod gradient;
mod group;
mod integer;
mod rounding;

use std::cmp::Ordering;
use std::sync::Arc;

use dashu_int::{IBig, Sign, UBig, ops::BitTest};

pub use gradient::{ExactGradient, sum};
pub use group::{ExactGroup, ExactScale};
use integer::{Root, align, odd_significand};

/// A real number (P + Q/√R)/D · 2^e, held exactly: P, Q, R > 0 and D > 0 are integers of any size.
///
/// [`ExactGroup`] makes the statistics and the outputs of a normalization, [`mix`] running statistics.
///
/// ```
/// use std::cmp::Ordering;
/// use normative::arithmetic::{Format, exact::ExactGroup};
/// let third = ExactGroup::new([0.0, 0.0, 1.0], true).mean();
/// assert_eq!(third.round(Format::F64), 1.0 / 3.0);
/// assert_eq!(third.compare(1.0 / 3.0), Ordering::Greater); // 1/3 lies above its nearest binary64
/// ```
#[derive(Clone, Debug)]
pub struct Exact {
    /// P.
    rational: IBig,
    /// Q and 1/√R; `None` where Q is 0 or R is 1.
    irrational: Option<(IBig, Arc<Root>)>,
    /// D.
    divisor: UBig,
    /// e.
    exponent: i32,
}

impl Exact {
    /// The value of a binary64 number.
    ///
    /// # Panics
    /// Panics if `value` is infinite or NaN.
    ///
    /// ```
    /// use normative::arithmetic::{Format, exact::Exact};
    /// assert_eq!(Exact::from_f64(65519.0).round(Format::F16), 65504.0);
    /// assert_eq!(Exact::from_f64(65520.0).round(Format::F16), f64::INFINITY);
    /// ```
    pub fn from_f64(value: f64) -> Exact {
        let (significand, exponent) = odd_significand(value);
        Exact { rational: IBig::from(significand), irrational: None, divisor: UBig::ONE, exponent }
    }

    /// P/D · 2^e.
    fn ratio(rational: IBig, divisor: UBig, exponent: i32) -> Exact {
        // A divisor that is a power of two leaves a dyadic number, which needs no division.
        let zeros = divisor.trailing_zeros().expect("a divisor is positive");
        Exact { rational, irrational: None, divisor: divisor >> zeros, exponent: exponent - zeros as i32 }
    }

    /// P · 2^i/D + Q/√R · 2^j/D.
    fn surd(rational: (IBig, i32), irrational: (IBig, i32), root: &Arc<Root>, divisor: UBig) -> Exact {
        let (rational, irrational, exponent) = align(rational, irrational);
        if irrational.is_zero() || root.radicand.is_one() {
            return Exact::ratio(rational + irrational, divisor, exponent);
        }
        let surd = Some((irrational, Arc::clone(root)));
        Exact { irrational: surd, ..Exact::ratio(rational, divisor, exponent) }
    }

    /// Compares with a binary64 number, exactly.
    ///
    /// # Panics
    /// Panics if `value` is infinite or NaN.
    ///
    /// ```
    /// use std::cmp::Ordering;
    /// use normative::arithmetic::exact::ExactGroup;
    /// let invstd = ExactGroup::stored(0.0, 2.0).scale(0.0).unwrap().invstd(); // √½
    /// assert_eq!(invstd.compare(0.7071067811865475), Ordering::Greater);
    /// assert_eq!(invstd.compare(0.7071067811865476), Ordering::Less);
    /// ```
    pub fn compare(&self, value: f64) -> Ordering {
        let (significand, exponent) = odd_significand(value);
        self.minus(significand, exponent).signum().cmp(&0)
    }

    /// Whether the number is exactly zero.
    pub fn is_zero(&self) -> bool {
        self.signum() == 0
    }

    /// The sign, −1, 0 or 1.
    ///
    /// ```
    /// use normative::arithmetic::exact::ExactGroup;
    /// let group = ExactGroup::new([3.0, 5.0], true);
    /// let scale = group.scale(0.0).unwrap();
    /// // y = ±1
    /// assert_eq!(group.element(&scale, 3.0, Some(0.1), Some(0.1)).signum(), 0);
    /// assert_eq!(group.element(&scale, 3.0, Some(0.1), Some(0.1_f64.next_down())).signum(), -1);
    /// ```
    pub fn signum(&self) -> i32 {
        let sign = |integer: &IBig| match integer.sign() {
            Sign::Negative => -1,
            Sign::Positive => i32::from(!integer.is_zero()),
        };
        let rational = sign(&self.rational);
        let Some((irrational, root)) = &self.irrational else { return rational };
        let surd = sign(irrational);
        if rational == 0 || rational == surd {
            return surd;
        }
        // The signs differ, so the larger of P² and Q²/R decides; their lengths suffice unless they are close.
        let radicand = &root.radicand;
        let length = 2 * self.rational.bit_len() + radicand.bit_len();
        if length + 2 <= 2 * irrational.bit_len() {
            return surd;
        }
        if length >= 2 * irrational.bit_len() + 3 {
            return rational;
        }
        let left = self.rational.sqr() * radicand;
        match left.cmp(&irrational.sqr()) {
            Ordering::Less => surd,
            Ordering::Equal => 0,
            Ordering::Greater => rational,
        }
    }

    /// The number less m · 2^i: (P·2^e − m·D·2^i + Q/√R · 2^e)/D.
    fn minus(&self, significand: i64, exponent: i32) -> Exact {
        let subtrahend = IBig::from(significand) * &self.divisor;
        let (left, right, grid) = align((self.rational.clone(), self.exponent), (subtrahend, exponent));
        match &self.irrational {
            None => Exact::ratio(left - right, self.divisor.clone(), grid),
            Some((irrational, root)) => {
                Exact::surd((left - right, grid), (irrational.clone(), self.exponent), root, self.divisor.clone())
            }
        }
    }
}

/// (1 − α)·old + α·new with α = `alpha`/`divisor`: one step of a running statistic, before it is stored.
///
/// An exponential average has α = momentum and divisor 1, a cumulative one of t steps α = 1/t.
///
/// # Panics
/// Panics if `old` or `alpha` is infinite or NaN, or if `divisor` is not positive.
///
/// ```
/// use normative::arithmetic::{Format, exact::{ExactGroup, mix}};
/// let group = ExactGroup::new([1.0, 2.0, 6.0], true);
/// assert_eq!(mix(0.0, &group.mean(), 0.5, 1).round(Format::F64), 1.5);
/// assert_eq!(mix(1.0, &group.variance(1), 1.0, 3).round(Format::F64), 3.0); // ⅔·1 + ⅓·7
/// ```
pub fn mix(old: f64, new: &Exact, alpha: f64, divisor: i64) -> Exact {
    assert!(divisor > 0, "the divisor of a running average is positive, not {divisor}");
    let alpha = odd_significand(alpha);
    // [(t − a·2^i)·old·D + (P + Q/√R)·a·2^i] / (t·D)
    let (whole, part, grid) = align((IBig::from(divisor), 0), (IBig::from(alpha.0), alpha.1));
    weighted(old, (whole - part, grid), new, (IBig::from(alpha.0), alpha.1), UBig::from(divisor.unsigned_abs()))
}

/// A running statistic after an update whose weight of the old value is given: `decay`·old + (1 − `decay`)·new.
///
/// # Panics
/// Panics if `old` or `decay` is infinite or NaN.
///
/// ```
/// use normative::arithmetic::{Format, exact::{ExactGroup, mix_of_old}};
/// let group = ExactGroup::new([1.0, 2.0, 6.0], true);
/// assert_eq!(mix_of_old(1.0, &group.mean(), 0.75).round(Format::F64), 1.5);
/// ```
pub fn mix_of_old(old: f64, new: &Exact, decay: f64) -> Exact {
    let decay = odd_significand(decay);
    let kept = (IBig::from(decay.0), decay.1);
    let (whole, part, grid) = align((IBig::ONE, 0), kept.clone());
    weighted(old, kept, new, (whole - part, grid), UBig::ONE)
}

/// (kept·old + added·new)/divisor, both weights on a power-of-two grid.
fn weighted(old: f64, kept: (IBig, i32), new: &Exact, added: (IBig, i32), divisor: UBig) -> Exact {
    let (old, old_exponent) = odd_significand(old);
    let kept = (kept.0 * old * &new.divisor, kept.1 + old_exponent);
    let exponent = new.exponent + added.1;
    let (kept, sum, grid) = align(kept, (&new.rational * &added.0, exponent));
    let divisor = divisor * &new.divisor;
    match &new.irrational {
        None => Exact::ratio(kept + sum, divisor, grid),
        Some((irrational, root)) => Exact::surd((kept + sum, grid), (irrational * &added.0, exponent), root, divisor),
    }
}

#[cfg(test)]
mod tests;
