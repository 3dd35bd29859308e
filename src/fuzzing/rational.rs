//! Rational numbers, as few as the target `running` needs: an oracle beside the exact one, which shares no code with it.

use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Sub};

use dashu_int::IBig;
use dashu_int::ops::Abs;

/// p/q, q > 0; not reduced, since none lives long.
#[derive(Clone, Debug)]
pub(super) struct Rational {
    numerator: IBig,
    denominator: IBig,
}

impl Rational {
    /// `numerator`/`denominator`, which is not 0.
    pub fn of(numerator: i64, denominator: i64) -> Rational {
        Rational { numerator: numerator.into(), denominator: denominator.into() }.signed()
    }

    /// A binary64 number, which is finite.
    pub fn from_f64(value: f64) -> Rational {
        let bits = value.to_bits();
        let (biased, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
        let (significand, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
        let significand = IBig::from(significand) * if value < 0.0 { -1 } else { 1 };
        let power = IBig::from(1) << exponent.unsigned_abs() as usize;
        if exponent < 0 {
            Rational { numerator: significand, denominator: power }
        } else {
            Rational { numerator: significand * power, denominator: IBig::from(1) }
        }
    }

    pub fn abs(&self) -> Rational {
        Rational { numerator: self.numerator.clone().abs(), denominator: self.denominator.clone() }
    }

    fn signed(self) -> Rational {
        if self.denominator < IBig::from(0) {
            return Rational { numerator: -self.numerator, denominator: -self.denominator };
        }
        self
    }
}

impl Add for Rational {
    type Output = Rational;
    fn add(self, other: Rational) -> Rational {
        Rational {
            numerator: self.numerator * &other.denominator + other.numerator * &self.denominator,
            denominator: self.denominator * other.denominator,
        }
    }
}

impl Sub for Rational {
    type Output = Rational;
    fn sub(self, other: Rational) -> Rational {
        self + Rational { numerator: -other.numerator, denominator: other.denominator }
    }
}

impl Mul for Rational {
    type Output = Rational;
    fn mul(self, other: Rational) -> Rational {
        Rational { numerator: self.numerator * other.numerator, denominator: self.denominator * other.denominator }
    }
}

impl Div for Rational {
    type Output = Rational;
    fn div(self, other: Rational) -> Rational {
        Rational { numerator: self.numerator * other.denominator, denominator: self.denominator * other.numerator }
            .signed()
    }
}

impl PartialEq for Rational {
    fn eq(&self, other: &Rational) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rational {}

impl PartialOrd for Rational {
    fn partial_cmp(&self, other: &Rational) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rational {
    fn cmp(&self, other: &Rational) -> Ordering {
        (&self.numerator * &other.denominator).cmp(&(&other.numerator * &self.denominator))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_computed_exactly() {
        let third = Rational::of(-1, -3);
        assert_eq!(third.clone() + Rational::of(1, 6), Rational::of(1, 2));
        assert_eq!(third.clone() - Rational::of(1, 2), Rational::of(1, -6));
        assert_eq!(third.clone() / Rational::of(-2, 3), Rational::from_f64(-0.5));
        assert_eq!(Rational::from_f64(0.1) * Rational::of(1 << 55, 1), Rational::of(3602879701896397, 1));
        assert_eq!(Rational::from_f64(-5e-324) / Rational::from_f64(5e-324), Rational::of(-1, 1));
        assert!(Rational::from_f64(1e300) > Rational::from_f64(1e299) && Rational::from_f64(1.0 / 3.0) < third);
    }
}
