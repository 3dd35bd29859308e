//! A double-double value with a radius: |value − truth| ≤ radius.
//!
//! The operations are those of ball arithmetic: the radius of a result covers the radii of the operands and the rounding
//! of the double-double operation itself, [`DoubleDouble::ERROR`] relative and [`UNDERFLOW`] absolute.

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::format::power_of_two;
use super::real::step_of;
use super::{DoubleDouble, Format, Function, Real};

/// What a double-double operation may lose at the lower end of the range: its error terms underflow.
pub const UNDERFLOW: f64 = f64::from_bits(4); // 2⁻¹⁰⁷²

/// Covers the roundings of the radius itself.
const OUTWARD: f64 = 1.0 + 1e-12;

/// A value and a radius. A NaN or an infinity with radius 0 is the answer itself; a radius of infinity says that the
/// value is beyond what double-double arithmetic can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// The value.
    pub value: DoubleDouble,
    /// |value − truth| is at most this.
    pub radius: f64,
}

impl Truth {
    /// A value that is exact.
    pub fn exact(value: f64) -> Truth {
        Truth { value: DoubleDouble::from(value), radius: 0.0 }
    }

    /// The result of an operation on double-doubles: what the operands' radii cost, and the operation's own rounding.
    fn computed(value: DoubleDouble, radius: f64) -> Truth {
        let own =
            if value.hi == 0.0 && value.lo == 0.0 { 0.0 } else { DoubleDouble::ERROR * value.hi.abs() + UNDERFLOW };
        if value.hi.is_nan() {
            return Truth { value, radius: 0.0 };
        }
        Truth { value, radius: (radius + own) * OUTWARD }
    }

    /// What IEEE arithmetic makes of an operation where a NaN or an infinity goes in; `None` where none does. It is exact
    /// if what went in is: not a value that overflowed, nor a zero that may be none.
    fn special(left: Truth, right: Truth, operation: fn(f64, f64) -> f64) -> Option<Truth> {
        let (a, b) = (left.value.hi, right.value.hi);
        if a.is_finite() && b.is_finite() {
            return None;
        }
        let sure = |truth: Truth| match truth.value.hi {
            hi if hi.is_finite() => truth.radius < hi.abs() || truth.radius == 0.0,
            _ => truth.radius == 0.0,
        };
        let radius = if sure(left) && sure(right) { 0.0 } else { f64::INFINITY };
        Some(Truth { value: DoubleDouble::from(operation(a, b)), radius })
    }

    /// The value rounded to `format`, if the radius leaves no doubt.
    ///
    /// ```
    /// use normative::arithmetic::{DoubleDouble, Format, Truth};
    /// let third = Truth { value: DoubleDouble::ONE / DoubleDouble::from(3.0), radius: 1e-30 };
    /// assert_eq!(third.round(Format::F32), Some(f64::from(1.0_f32 / 3.0)));
    /// assert_eq!(Truth { radius: 1e-3, ..third }.round(Format::F32), None);
    /// ```
    pub fn round(&self, format: Format) -> Option<f64> {
        if self.radius == 0.0 || !self.value.hi.is_finite() {
            return Some(format.round_double_double(self.value));
        }
        let DoubleDouble { hi, lo } = self.value;
        if self.radius > power_of_two(-60) * hi.abs() {
            return None;
        }
        if format.rounds_alike(hi, lo.abs() + 2.0 * self.radius) {
            return Some(format.round_double_double(self.value));
        }
        // lo ± radius is rounded: one step outward covers that.
        let radius = DoubleDouble::from(self.radius);
        let below = format.round_double_double(self.value - radius);
        let above = format.round_double_double(self.value + radius);
        (below == above).then_some(above)
    }

    /// Whether the truth is a number that can be judged: finite, with a finite radius.
    pub fn is_finite(&self) -> bool {
        self.value.hi.is_finite() && self.radius.is_finite()
    }

    /// The value times 2^exponent.
    pub fn scale(self, exponent: i32) -> Truth {
        if exponent == 0 {
            return self;
        }
        let value = self.value.scale(exponent);
        let lossy = value.scale(-exponent) != self.value;
        let radius = super::format::scale(self.radius, exponent).next_up() + if lossy { UNDERFLOW } else { 0.0 };
        Truth { value, radius: if self.radius == 0.0 && !lossy { 0.0 } else { radius } }
    }
}

impl Truth {
    /// A power `value` of this positive number, of about this exponent, with its radius.
    fn power(self, value: DoubleDouble, exponent: f64) -> Truth {
        // d(xᵝ) = β·xᵝ·dx/x, taken at the near end of the ball.
        let near = (self.value.hi - self.radius).max(0.0);
        let spread = if self.radius == 0.0 { 0.0 } else { exponent.abs() * value.hi * self.radius / near * 1.01 };
        let own = DoubleDouble::POWER_ERROR * (exponent.abs() / 64.0).max(1.0);
        Truth::computed(value, spread + own * value.hi)
    }
}

impl From<f64> for Truth {
    fn from(value: f64) -> Truth {
        Truth::exact(value)
    }
}

impl Add for Truth {
    type Output = Truth;
    fn add(self, other: Truth) -> Truth {
        if let Some(special) = Truth::special(self, other, f64::add) {
            return special;
        }
        Truth::computed(self.value + other.value, self.radius + other.radius)
    }
}

impl Sub for Truth {
    type Output = Truth;
    fn sub(self, other: Truth) -> Truth {
        self + -other
    }
}

impl Neg for Truth {
    type Output = Truth;
    fn neg(self) -> Truth {
        Truth { value: -self.value, radius: self.radius }
    }
}

impl Mul for Truth {
    type Output = Truth;
    fn mul(self, other: Truth) -> Truth {
        if let Some(special) = Truth::special(self, other, f64::mul) {
            return special;
        }
        let (a, b) = (self.value.hi.abs(), other.value.hi.abs());
        // hi is within 2⁻⁵³ of the value, which OUTWARD covers. An infinite radius stays infinite, even times 0.
        let spread = |magnitude: f64, radius: f64| match radius {
            0.0 | f64::INFINITY => radius,
            _ => magnitude * radius,
        };
        let radius = spread(a, other.radius) + spread(b, self.radius) + spread(self.radius, other.radius);
        Truth::computed(self.value * other.value, radius * OUTWARD)
    }
}

impl Div for Truth {
    type Output = Truth;
    fn div(self, other: Truth) -> Truth {
        if let Some(special) = Truth::special(self, other, f64::div) {
            return special;
        }
        let value = self.value / other.value;
        let smallest = (other.value.hi.abs() * (1.0 - 1e-15) - other.radius).max(0.0);
        if self.radius == 0.0 && other.radius == 0.0 {
            return Truth::computed(value, 0.0);
        }
        Truth::computed(value, (self.radius + value.hi.abs() * other.radius) / smallest * OUTWARD)
    }
}

impl Real for Truth {
    fn constant(value: f64) -> Truth {
        Truth::exact(value)
    }

    fn powf(self, exponent: f64) -> Truth {
        if !self.value.hi.is_finite() {
            // As IEEE's pow: (−∞)^0.75 is ∞, though its square root is NaN.
            let value = DoubleDouble::from(self.value.hi.powf(exponent));
            return Truth { value, radius: if self.radius == 0.0 { 0.0 } else { f64::INFINITY } };
        }
        // Powers of roots are algebraic, and quicker.
        match exponent {
            0.0 => return Truth::exact(1.0),
            0.5 => return self.sqrt(),
            1.0 => return self,
            2.0 => return self * self,
            0.75 => return self.sqrt() * self.sqrt().sqrt(),
            _ => {}
        }
        if self.value.hi <= 0.0 {
            // A ball about 0 has powers of any size on one side, and none on the other.
            let value = DoubleDouble::from(self.value.hi.powf(exponent));
            return Truth { value, radius: if self.radius == 0.0 { 0.0 } else { f64::INFINITY } };
        }
        self.power(self.value.powf(exponent), exponent)
    }

    fn root(self, degree: f64) -> Truth {
        let exponent = 1.0 / degree;
        let is_exact = DoubleDouble::ONE / DoubleDouble::from(degree) == DoubleDouble::from(exponent);
        if !self.value.hi.is_finite() || self.value.hi <= 0.0 || is_exact {
            return self.powf(exponent);
        }
        self.power(self.value.root(degree), exponent)
    }

    fn sqrt(self) -> Truth {
        let root = self.value.sqrt();
        if !self.value.hi.is_finite() {
            return Truth { value: root, ..self };
        }
        if self.radius == 0.0 {
            return Truth::computed(root, 0.0);
        }
        // |√a − √b| = |a − b| / (√a + √b)
        Truth::computed(root, self.radius / root.hi * OUTWARD)
    }

    fn function(self, function: Function) -> Truth {
        if !self.value.hi.is_finite() {
            let value = DoubleDouble::from(function.of(self.value.hi));
            return Truth { value, radius: if self.radius == 0.0 { 0.0 } else { f64::INFINITY } };
        }
        let value = function.of_double_double(self.value);
        let spread = if self.radius == 0.0 { 0.0 } else { function.steepest(self.value.hi, self.radius) * self.radius };
        // What is too small for binary64 is not 0.
        let lost = if value.hi == 0.0 && self.value.hi != 0.0 { f64::MIN_POSITIVE } else { 0.0 };
        Truth::computed(value, spread * 1.01 + DoubleDouble::POWER_ERROR * value.hi.abs() + lost)
    }

    fn step(self) -> Truth {
        let decided = self.radius == 0.0 || self.value.hi.abs() > self.radius;
        Truth { value: DoubleDouble::from(step_of(self.value.hi)), radius: if decided { 0.0 } else { 1.0 } }
    }

    fn where_larger(self, other: Truth, own: Truth, others: Truth) -> Truth {
        let is_own = self.value.hi >= other.value.hi || self.value.hi.is_nan();
        let (chosen, left) = if is_own { (own, others) } else { (others, own) };
        let radius = self.radius + other.radius;
        let decided = (self.value - other.value).hi.abs() > radius || radius == 0.0;
        let apart = (chosen.value - left.value).hi.abs() * OUTWARD + left.radius;
        if decided { chosen } else { Truth { radius: chosen.radius.max(apart), ..chosen } }
    }

    fn max(self, other: Truth) -> Truth {
        let larger = if self.value.hi >= other.value.hi || self.value.hi.is_nan() { self } else { other };
        let decided = (self.value - other.value).hi.abs() > self.radius + other.radius;
        Truth { radius: if decided { larger.radius } else { self.radius.max(other.radius) }, ..larger }
    }

    fn value(self) -> f64 {
        self.value.hi
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws;
    use super::*;

    /// Both ends of the ball are rounded, whether a glance decides or not; balls are put beside ties and powers of two.
    #[test]
    fn a_ball_rounds_to_what_both_its_ends_round_to() {
        let mut values = crate::case::values::Values::new(5);
        let (mut decided, mut open) = (0, 0);
        for _ in 0..draws(20_000) {
            let format = [Format::F64, Format::F32, Format::F16, Format::BF16][values.below(4)];
            // A number of the format, a midpoint or a neighbour of either, at every exponent that it has.
            let exponent = values.below(33) as i32 - 20;
            let steps = values.below(5) as f64 - 2.0;
            let near = format.round(values.normal() * power_of_two(exponent));
            let tie = if values.below(2) == 0 { near } else { (near + format.neighbours(near).1) / 2.0 };
            let power = if values.below(4) == 0 { power_of_two(exponent) } else { tie };
            let hi = power + steps * (power.next_up() - power);
            let half_place = (hi.abs().next_up() - hi.abs()) / 2.0;
            let lo = half_place * [0.0, 1e-9, 0.25, 0.4999999, 0.5, 0.999][values.below(6)] * values.sign();
            let radius = hi.abs() * power_of_two(-61 - values.below(40) as i32);
            let truth = Truth { value: DoubleDouble::sum(hi, lo), radius };
            let ends = [-radius, radius].map(|by| format.round_double_double(truth.value + DoubleDouble::from(by)));
            let expected = (ends[0] == ends[1]).then_some(ends[0]);
            assert_eq!(truth.round(format), expected, "{truth:?} in {format:?}");
            *if expected.is_some() { &mut decided } else { &mut open } += 1;
        }
        assert!(decided > 10 * open && open > draws(200), "{decided} decided, {open} open");
        assert_eq!(Truth { radius: 1e-17, ..Truth::exact(1.5) }.round(Format::BF16), None, "such a ball is too large");
    }

    /// ∛8·t³ = 2·t: what 1/3 lacks when it is rounded would show in the seventeenth digit.
    #[test]
    fn a_root_is_no_power_of_a_rounded_exponent() {
        for t in [1.0, 3.0, 1e5, 7e-9] {
            let cube = Truth::exact(t) * Truth::exact(t) * Truth::exact(t) * Truth::exact(8.0);
            let root = cube.root(3.0);
            let error = (root.value - DoubleDouble::from(2.0 * t)).abs().hi;
            assert!(error <= root.radius && root.radius <= 1e-22 * t, "{t}: {error:e}, {:e}", root.radius);
            assert!((cube.powf(1.0 / 3.0).value.hi - 2.0 * t).abs() <= 1e-13 * t);
        }
        let rounded = Truth::exact(8.0e9).powf(1.0 / 3.0);
        assert!((rounded.value - DoubleDouble::from(2.0e3)).abs().hi > rounded.radius, "the exponent is rounded");
    }
}
