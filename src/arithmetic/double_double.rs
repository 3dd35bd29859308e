//! Double-double numbers: an unevaluated sum hi + lo of two binary64 numbers, |lo| ≤ ½ ulp(hi), about 106 bits.
//!
//! The building blocks are exact: `two_sum` (Knuth), `two_product` (Dekker's splitting, so that the bits do not depend
//! on a fused multiply-add). The compound operations have proven relative errors (Joldes, Muller, Popescu, "Tight and
//! rigorous error bounds for basic building blocks of double-word arithmetic", ACM TOMS 44, 2017), in units of
//! u² = 2⁻¹⁰⁶: sum 3, product 7 (the variants here), quotient 10, square root 8. [`DoubleDouble::ERROR`] covers each.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// An unevaluated sum hi + lo; hi is the nearest binary64 to the sum. Where hi is NaN or infinite, it is what binary64
/// makes of the operation, and lo is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DoubleDouble {
    /// The nearest binary64.
    pub hi: f64,
    /// What is left of it.
    pub lo: f64,
}

impl DoubleDouble {
    /// Zero.
    pub const ZERO: DoubleDouble = DoubleDouble { hi: 0.0, lo: 0.0 };
    /// One.
    pub const ONE: DoubleDouble = DoubleDouble { hi: 1.0, lo: 0.0 };
    /// A bound on the relative error of each operation, 2⁻¹⁰² (sixteen times u²).
    pub const ERROR: f64 = power_of_two_const(-102);

    /// The exact sum of two binary64 numbers.
    pub fn sum(a: f64, b: f64) -> DoubleDouble {
        let (hi, lo) = two_sum(a, b);
        DoubleDouble { hi, lo }
    }

    /// The exact product of two binary64 numbers (no over- or underflow).
    pub fn product(a: f64, b: f64) -> DoubleDouble {
        let (hi, lo) = two_product(a, b);
        DoubleDouble { hi, lo }
    }

    /// The square root; NaN of a negative number, 0 of 0.
    pub fn sqrt(self) -> DoubleDouble {
        if self.hi <= 0.0 || !self.hi.is_finite() {
            return DoubleDouble::from(self.hi.sqrt());
        }
        let root = self.hi.sqrt();
        let rest = self - DoubleDouble::product(root, root);
        let (hi, lo) = fast_two_sum(root, rest.hi / (2.0 * root));
        DoubleDouble { hi, lo }
    }

    /// self^exponent of a positive number, exp(exponent·ln self), to [`DoubleDouble::POWER_ERROR`] where the result is
    /// normal and |exponent| ≤ 64.
    pub fn powf(self, exponent: f64) -> DoubleDouble {
        (self.ln() * exponent).exp()
    }

    /// self^(1/degree) of a positive number, to the same error: 1/degree is a double-double too, within 2⁻¹⁰⁰ of itself.
    pub fn root(self, degree: f64) -> DoubleDouble {
        (self.ln() / DoubleDouble::from(degree)).exp()
    }

    /// A bound on the relative error of [`DoubleDouble::powf`]: ln is within 2⁻⁹⁸ of |ln| + 1, an exponent of 64 and
    /// |ln| < 710 make of that at most 2⁻⁸².
    pub const POWER_ERROR: f64 = power_of_two_const(-80);

    /// The natural logarithm of a positive number: Newton's method for exp from the binary64 logarithm, twice, each step
    /// doubling the digits.
    pub fn ln(self) -> DoubleDouble {
        // The exponent goes apart, so that exp stays near 1.
        let exponent = super::format::exponent_of(self.hi);
        let mantissa = self.scale(-exponent);
        let mut log = DoubleDouble::from(mantissa.hi.ln());
        for _ in 0..2 {
            log = log + (mantissa * (-log).exp() - DoubleDouble::ONE);
        }
        log + LN_2 * f64::from(exponent)
    }

    /// The exponential: x = k·ln 2 + 2⁸·t, |t| < 2⁻⁹, the series of exp t to the ninth term, squared eight times.
    pub fn exp(self) -> DoubleDouble {
        let k = (self.hi / std::f64::consts::LN_2).round();
        if !k.is_finite() || k.abs() > 1100.0 {
            return DoubleDouble::from(self.hi.exp());
        }
        ((self - LN_2 * k).small_exp_m1() + DoubleDouble::ONE).scale(k as i32)
    }

    /// The exponential less 1, to the same relative error near 0 too.
    pub fn exp_m1(self) -> DoubleDouble {
        if self.hi.abs() < 0.25 { self.small_exp_m1() } else { self.exp() - DoubleDouble::ONE }
    }

    /// e^x − 1 for |x| below 1/2.
    fn small_exp_m1(self) -> DoubleDouble {
        let reduced = self.scale(-8);
        // e^t − 1 rather than e^t: squaring 1 + m as 2m + m² keeps the digits of a small m.
        let mut sum = DoubleDouble::ZERO;
        for term in (1..=10).rev() {
            sum = (sum + DoubleDouble::ONE) * reduced / DoubleDouble::from(f64::from(term));
        }
        for _ in 0..8 {
            sum = sum * 2.0 + sum * sum;
        }
        sum
    }

    /// The absolute value.
    pub fn abs(self) -> DoubleDouble {
        if self.hi < 0.0 { -self } else { self }
    }

    /// The value times 2^exponent; exact unless it leaves the normal range.
    pub fn scale(self, exponent: i32) -> DoubleDouble {
        use super::format::scale;
        DoubleDouble { hi: scale(self.hi, exponent), lo: scale(self.lo, exponent) }
    }
}

/// ln 2 to 107 bits.
const LN_2: DoubleDouble = DoubleDouble { hi: std::f64::consts::LN_2, lo: 2.3190468138462996e-17 };

const fn power_of_two_const(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// a + b as the rounded sum and its exact error.
#[inline]
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let virtual_b = sum - a;
    (sum, (a - (sum - virtual_b)) + (b - virtual_b))
}

/// As [`two_sum`], where |a| ≥ |b| or a = 0.
#[inline]
pub fn fast_two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, b - (sum - a))
}

/// a · b as the rounded product and its exact error.
///
/// Exact where neither the product's error underflows nor a splitting overflows (|a|, |b| < 2⁹⁹⁶).
#[inline]
pub fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let (ah, al) = split(a);
    let (bh, bl) = split(b);
    (product, al * bl - (((product - ah * bh) - al * bh) - ah * bl))
}

#[inline]
fn split(a: f64) -> (f64, f64) {
    let shifted = a * 134_217_729.0; // 2²⁷ + 1
    let hi = shifted - (shifted - a);
    (hi, a - hi)
}

impl From<f64> for DoubleDouble {
    fn from(value: f64) -> DoubleDouble {
        DoubleDouble { hi: value, lo: 0.0 }
    }
}

impl Add for DoubleDouble {
    type Output = DoubleDouble;
    #[inline]
    fn add(self, other: DoubleDouble) -> DoubleDouble {
        let (sh, sl) = two_sum(self.hi, other.hi);
        if !sh.is_finite() {
            return DoubleDouble::from(sh);
        }
        let (th, tl) = two_sum(self.lo, other.lo);
        let (vh, vl) = fast_two_sum(sh, sl + th);
        let (hi, lo) = fast_two_sum(vh, tl + vl);
        DoubleDouble { hi, lo }
    }
}

impl Add<f64> for DoubleDouble {
    type Output = DoubleDouble;
    #[inline]
    fn add(self, other: f64) -> DoubleDouble {
        let (sh, sl) = two_sum(self.hi, other);
        if !sh.is_finite() {
            return DoubleDouble::from(sh);
        }
        let (hi, lo) = fast_two_sum(sh, self.lo + sl);
        DoubleDouble { hi, lo }
    }
}

impl Neg for DoubleDouble {
    type Output = DoubleDouble;
    #[inline]
    fn neg(self) -> DoubleDouble {
        DoubleDouble { hi: -self.hi, lo: -self.lo }
    }
}

impl Sub for DoubleDouble {
    type Output = DoubleDouble;
    #[inline]
    fn sub(self, other: DoubleDouble) -> DoubleDouble {
        self + -other
    }
}

impl Mul for DoubleDouble {
    type Output = DoubleDouble;
    #[inline]
    fn mul(self, other: DoubleDouble) -> DoubleDouble {
        let (ph, pl) = two_product(self.hi, other.hi);
        if !ph.is_finite() {
            return DoubleDouble::from(ph);
        }
        let (hi, lo) = fast_two_sum(ph, pl + (self.hi * other.lo + self.lo * other.hi));
        DoubleDouble { hi, lo }
    }
}

impl Mul<f64> for DoubleDouble {
    type Output = DoubleDouble;
    #[inline]
    fn mul(self, other: f64) -> DoubleDouble {
        let (ph, pl) = two_product(self.hi, other);
        if !ph.is_finite() {
            return DoubleDouble::from(ph);
        }
        let (hi, lo) = fast_two_sum(ph, pl + self.lo * other);
        DoubleDouble { hi, lo }
    }
}

impl Div for DoubleDouble {
    type Output = DoubleDouble;
    fn div(self, other: DoubleDouble) -> DoubleDouble {
        let first = self.hi / other.hi;
        if !first.is_finite() || other.hi.is_infinite() {
            return DoubleDouble::from(first);
        }
        let rest = self - other * first;
        let second = rest.hi / other.hi;
        let rest = rest - other * second;
        let (hi, lo) = fast_two_sum(first, second);
        DoubleDouble { hi, lo } + rest.hi / other.hi
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::power_of_two;
    use super::*;

    fn parts(value: DoubleDouble) -> (f64, f64) {
        (value.hi, value.lo)
    }

    #[test]
    fn roots_and_exponentials_at_their_ends() {
        let of = DoubleDouble::from;
        assert_eq!(parts(of(0.0).sqrt()), (0.0, 0.0));
        assert_eq!(parts(of(f64::INFINITY).sqrt()), (f64::INFINITY, 0.0));
        assert!(of(-1.0).sqrt().hi.is_nan() && of(f64::NAN).sqrt().hi.is_nan());
        for (exponent, expected) in [(800.0, f64::INFINITY), (1e5, f64::INFINITY), (1e300, f64::INFINITY), (-1e5, 0.0)]
        {
            assert_eq!(parts(of(exponent).exp()), (expected, 0.0), "exp {exponent}");
        }
        assert_eq!(parts(of(f64::NEG_INFINITY).exp()), (0.0, 0.0));
        assert!(of(f64::NAN).exp().hi.is_nan());
    }

    #[test]
    fn quotients_at_their_ends() {
        let of = DoubleDouble::from;
        assert_eq!(parts(of(1.0) / of(f64::INFINITY)), (0.0, 0.0));
        assert_eq!(parts(of(1.0) / of(0.0)), (f64::INFINITY, 0.0));
        assert_eq!(parts(of(f64::INFINITY) / of(3.0)), (f64::INFINITY, 0.0));
        assert!((of(0.0) / of(0.0)).hi.is_nan() && (of(f64::INFINITY) / of(f64::INFINITY)).hi.is_nan());
    }

    /// (1 + 2⁻⁶⁰) + 2⁻⁵⁵ and the like: what does not fit in the high part is kept in the low one.
    #[test]
    fn a_binary64_is_added_and_multiplied_exactly_where_the_result_fits() {
        let tiny = power_of_two(-60);
        let one = DoubleDouble::sum(1.0, tiny);
        assert_eq!(parts(one + 32.0 * tiny), (1.0, 33.0 * tiny));
        assert_eq!(parts(one + -32.0 * tiny), (1.0, -31.0 * tiny));
        assert_eq!(parts(one + 2.0), (3.0, tiny));
        assert_eq!(parts(one + DoubleDouble::sum(2.0, 3.0 * tiny)), (3.0, 4.0 * tiny));
        assert_eq!(parts(one * 3.0), (3.0, 3.0 * tiny));
        assert_eq!(parts(one - one), (0.0, 0.0));
        assert_eq!(parts((-one).abs()), (1.0, tiny));
    }

    /// The digits are those of √2, e, ln 2 and ∛2 beyond what binary64 holds.
    #[test]
    fn functions_have_a_hundred_bits() {
        let near = |actual: DoubleDouble, hi: f64, lo: f64| {
            let off = (actual - DoubleDouble { hi, lo }).hi.abs();
            // A logarithm is within 2⁻⁹⁸ of |ln| + 1 < 2.
            assert!(off <= power_of_two(-97) * hi.abs(), "{actual:?}, expected {hi:e} + {lo:e}");
        };
        let of = DoubleDouble::from;
        near(of(2.0).sqrt(), std::f64::consts::SQRT_2, -9.667_293_313_452_913e-17);
        near(of(1.0).exp(), std::f64::consts::E, 1.445_646_891_729_250_2e-16);
        near(of(2.0).ln(), std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);
        near(of(2.0).root(3.0), 1.259_921_049_894_873_2, -2.589_933_375_300_507_3e-17);
        near(of(2.0).powf(2.5), 5.656_854_249_492_381, -3.866_917_325_381_165e-16);
        // e^x − 1 = x + x²/2 + …, on both sides of where the series takes over.
        near(of(1e-20).exp_m1(), 1e-20, 5e-41);
        near(of(0.5).exp_m1(), 0.648_721_270_700_128_2, -4.731_568_479_435_833e-17);
    }
}
