//! Rounding an [`Exact`]: an interval of 126 bits decides nearly always, the sign of a difference otherwise.

use std::cmp::Ordering;

use dashu_int::{Sign, UBig, ops::BitTest, ops::DivRem};

use super::super::{
    DoubleDouble, Format,
    format::{exponent_of, power_of_two},
};
use super::Exact;
use super::integer::{Root, odd_significand, significand};

/// low · 2^e ≤ |z| ≤ high · 2^e with 0 < low ≤ high, and the sign of z.
struct Enclosure {
    negative: bool,
    low: u128,
    high: u128,
    exponent: i32,
}

impl Exact {
    /// The nearest number of `format`, ties to even; beyond its range an infinity.
    ///
    /// The result is correctly rounded in every case, subnormal results included. A number other than zero keeps its
    /// sign when it rounds to zero; zero itself is +0.
    ///
    /// ```
    /// use normative::arithmetic::{Format, exact::ExactGroup};
    /// let group = ExactGroup::new([0.0, 0.0, 0.0, 0.0, 1.0], true);
    /// let scale = group.scale(0.0).unwrap();
    /// let z = |weight, bias| group.element(&scale, 1.0, Some(weight), Some(bias)).round(Format::F16); // y = 2
    /// assert_eq!(z(0.5, 2f64.powi(-11)), 1.0); // halfway between 1 and its successor: to the even 1
    /// assert_eq!(z(0.5, 2f64.powi(-11).next_up()), 1.0009765625);
    /// ```
    pub fn round(&self, format: Format) -> f64 {
        let mut precision = Root::PRECISION;
        loop {
            if let Some(enclosure) = self.enclose(precision) {
                let below = nearest(enclosure.low, enclosure.exponent, format);
                let above = nearest(enclosure.high, enclosure.exponent, format);
                let signed = |magnitude: f64| if enclosure.negative { -magnitude } else { magnitude };
                if below == above {
                    return signed(below);
                }
                if format.neighbours(below).1 == above {
                    // Two candidates, and the point halfway between them decides.
                    let (middle, exponent) = middle_above(below, format);
                    let middle = if enclosure.negative { -middle } else { middle };
                    let side = self.minus(middle, exponent).signum() * middle.signum() as i32;
                    return signed(match side.cmp(&0) {
                        Ordering::Less => below,
                        Ordering::Greater => above,
                        // The middle counts half units: 4k + 1 lies above an even candidate.
                        Ordering::Equal if middle.unsigned_abs() % 4 == 1 => below,
                        Ordering::Equal => above,
                    });
                }
            } else if self.is_zero() {
                return 0.0;
            }
            // P and Q/√R cancel to more bits than the approximation has; since the number is not zero this ends.
            precision *= 2;
        }
    }

    /// The number as a double-double, and a radius: |value − z| ≤ radius.
    ///
    /// hi is z rounded to binary64, lo is z − hi rounded to binary64 (towards zero where it would otherwise reach
    /// the middle between hi and a neighbour, so that hi is the nearest binary64 to hi + lo as well). The radius
    /// is 0 where the value is exact, and otherwise at most 2⁻¹⁰⁵·|z|, or 2⁻¹⁰⁷⁴ where lo is subnormal. Beyond the
    /// range of binary64, hi and the radius are infinite.
    ///
    /// ```
    /// use normative::arithmetic::exact::ExactGroup;
    /// let (value, radius) = ExactGroup::new([0.0, 0.0, 1.0], true).mean().double_double();
    /// assert_eq!(value.hi, 1.0 / 3.0);
    /// assert_eq!(3.0 * value.lo, (1.0 - 3.0 * 0.25) - 3.0 * (value.hi - 0.25)); // 3·lo = 1 − 3·hi
    /// assert!(radius > 0.0 && radius < 1e-32);
    /// ```
    pub fn double_double(&self) -> (DoubleDouble, f64) {
        let hi = self.round(Format::F64);
        if hi.is_infinite() {
            return (DoubleDouble::from(hi), f64::INFINITY);
        }
        let (units, exponent) = odd_significand(hi);
        let rest = self.minus(units, exponent);
        let lo = rest.round(Format::F64);
        if rest.compare(lo) == Ordering::Equal {
            return (DoubleDouble { hi, lo }, 0.0);
        }
        // Half a unit in the last place of lo, a whole one after the step; neither below the smallest subnormal.
        let ulp = if lo == 0.0 { -1074 } else { exponent_of(lo) - 52 };
        if hi + lo == hi {
            (DoubleDouble { hi, lo }, power_of_two((ulp - 1).max(-1074)))
        } else {
            let lo = if lo > 0.0 { lo.next_down() } else { lo.next_up() };
            (DoubleDouble { hi, lo }, power_of_two(ulp.max(-1074)))
        }
    }

    /// Encloses |z| with 1/√R taken to `precision` bits; `None` where that cannot tell z from zero.
    fn enclose(&self, precision: usize) -> Option<Enclosure> {
        // |P·2^k + Q·⌊2^k/√R⌋|, short of the truth by less than |Q| in the direction of Q.
        let (sum, shift, surd) = match &self.irrational {
            None => (self.rational.clone(), 0, None),
            Some((irrational, root)) => {
                let (reciprocal, shift) = root.reciprocal(precision);
                let sum = (&self.rational << shift) + irrational * reciprocal.as_ref();
                (sum, shift, Some((irrational.sign(), irrational.bit_len())))
            }
        };
        let (sign, mut magnitude) = sum.into_parts();
        let mut exponent = self.exponent - shift as i32;
        let mut exact = surd.is_none();
        // What is missing is less than 2^missing units of the magnitude, here and after each truncation.
        let mut missing = surd.map_or(0, |(_, length)| length);
        if !self.divisor.is_one() {
            let length = self.divisor.bit_len();
            let widened = (Root::PRECISION + length).saturating_sub(magnitude.bit_len());
            let (quotient, remainder) = (magnitude << widened).div_rem(&self.divisor);
            exact &= remainder.is_zero();
            magnitude = quotient;
            exponent -= widened as i32;
            missing = (missing + widened + 1).saturating_sub(length);
        }
        let dropped = magnitude.bit_len().max(missing).saturating_sub(126);
        exact &= dropped == 0 || magnitude.trailing_zeros().is_none_or(|zeros| zeros >= dropped);
        let magnitude = truncated(magnitude, dropped);
        let (low, high) = match surd {
            _ if exact => (magnitude, magnitude),
            None => (magnitude, magnitude + 1),
            Some((direction, _)) => {
                // Both parts were truncated, each by less than one unit.
                let missing = 1_u128 << missing.saturating_sub(dropped);
                if direction == sign {
                    (magnitude, magnitude + missing + 1)
                } else {
                    (magnitude.saturating_sub(missing), magnitude + 1)
                }
            }
        };
        let exponent = exponent + dropped as i32;
        (low > 0).then_some(Enclosure { negative: sign == Sign::Negative, low, high, exponent })
    }
}

/// ⌊magnitude/2^dropped⌋, which has at most 128 bits.
fn truncated(magnitude: UBig, dropped: usize) -> u128 {
    u128::try_from(magnitude >> dropped).expect("as many bits were dropped as exceed 126")
}

/// The number of `format` nearest to magnitude · 2^exponent, ties to even.
fn nearest(magnitude: u128, exponent: i32, format: Format) -> f64 {
    if magnitude == 0 {
        return 0.0;
    }
    let leading = exponent + 127 - magnitude.leading_zeros() as i32;
    let quantum = (leading - format.precision + 1).max(format.quantum);
    let dropped = quantum - exponent;
    let units = if dropped <= 0 {
        magnitude << -dropped
    } else if dropped > 128 {
        0 // less than half a quantum
    } else {
        let half = 1 << (dropped - 1);
        let floor = if dropped == 128 { 0 } else { magnitude >> dropped };
        let rest = magnitude & (half | (half - 1));
        floor + u128::from(rest > half || (rest == half && floor % 2 == 1))
    };
    // At most 2^precision units, so that the product is exact or beyond the range.
    let value = units as f64 * power_of_two(quantum);
    if value > format.max_finite() { f64::INFINITY } else { value }
}

/// The point halfway between a magnitude of `format` and the next above, as an odd integer times a power of two.
fn middle_above(below: f64, format: Format) -> (i64, i32) {
    let exponent = if below == 0.0 { format.quantum } else { exponent_of(below) };
    let quantum = (exponent - format.precision + 1).max(format.quantum);
    let (units, exponent) = significand(below);
    // A value of the format is a multiple of its quantum, which is no finer than that of binary64 but for zero.
    let units = if units == 0 { 0 } else { units >> (quantum - exponent) };
    (2 * units + 1, quantum - 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dashu_int::IBig;

    use super::*;

    /// Less than 2⁻⁴⁰⁰ above a tie whose lower neighbour is even: what a truncated root and a truncated sum leave of it is
    /// the tie, or less.
    #[test]
    fn a_number_next_to_a_tie_is_decided_beyond_any_approximation() {
        let root = Arc::new(Root::new(UBig::from(2_u8)));
        let (reciprocal, shift) = root.reciprocal(400);
        let (below, tie) = (1_u64 << 53, IBig::from((1_u64 << 54) + 2) << shift);
        let one = (IBig::ONE << shift, -(shift as i32));
        let short = IBig::from(reciprocal.as_ref().clone());
        for (rational, irrational) in [(&tie - &short, one.0.clone()), (&tie + &short + 1, -one.0.clone())] {
            for sign in [1, -1] {
                let number = Exact::surd((&rational * sign, one.1), (&irrational * sign, one.1), &root, UBig::ONE);
                assert_eq!(number.round(Format::F64), f64::from(sign) * (2 * below + 4) as f64);
            }
        }
    }

    #[test]
    fn a_long_divisor_leaves_enough_bits() {
        let divisor = (UBig::ONE << 61) - 1_u8;
        assert_eq!(Exact::ratio(IBig::ONE, divisor.clone(), 0).round(Format::F64), power_of_two(-61));
        let near = Exact::ratio((IBig::ONE << 61) - 2, divisor, 0);
        assert_eq!(near.round(Format::F64), 1.0);
        // 1 − 1/(2⁶¹ − 1) = 1 − 2⁻⁶¹ − 2⁻¹²² − …
        let (value, radius) = near.double_double();
        assert_eq!((value.hi, value.lo, radius), (1.0, -power_of_two(-61), power_of_two(-114)));
    }

    /// The lower half of a double-double is rounded towards zero where it would reach the middle between two numbers.
    #[test]
    fn a_double_double_has_the_nearest_number_for_its_first() {
        let (odd, half, little) = (1.0_f64.next_up(), power_of_two(-53), power_of_two(-140));
        for sign in [1.0, -1.0] {
            for (side, lo) in [(1.0, half.next_down()), (-1.0, -half.next_down())] {
                let row = [4.0 * odd, side * 4.0 * half, -side * 4.0 * little, 0.0].map(|x| sign * x);
                let (value, radius) = super::super::ExactGroup::new(row, true).mean().double_double();
                assert_eq!((value.hi, value.lo, radius), (sign * odd, sign * lo, power_of_two(-105)));
            }
        }
    }

    #[test]
    fn magnitudes_of_every_length_round() {
        // Just below the smallest subnormal, from 128 bits; just above its half, and the half itself.
        assert_eq!(nearest(u128::MAX, -152, Format::F16), power_of_two(-24));
        assert_eq!(nearest((1 << 127) + 1, -152, Format::F16), power_of_two(-24));
        assert_eq!([nearest(1 << 127, -152, Format::F16), nearest(u128::MAX, -153, Format::F16)], [0.0, 0.0]);
    }
}
