//! Numbers that a definition can be written over.

use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::Function;

/// A number with the field operations, roots and powers.
pub trait Real:
    Copy
    + Debug
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The number `value`.
    fn constant(value: f64) -> Self;

    /// This hyper-parameter as a program holds it beside `other`: rounded to the type that it computes in.
    fn beside(self, _other: Self) -> Self {
        self
    }

    /// The square root; NaN of a negative number.
    fn sqrt(self) -> Self;

    /// self^exponent, of a number that is not negative.
    fn powf(self, exponent: f64) -> Self;

    /// The root of degree `degree`, of a number that is not negative: self^(1/degree), whose exponent a program rounds.
    fn root(self, degree: f64) -> Self {
        self.powf(1.0 / degree)
    }

    /// An elementary function of it.
    fn function(self, function: Function) -> Self;

    /// 1 of a positive number, 0 of a negative one, ½ of 0: the share that falls to the first of two branches that meet
    /// there, as frameworks have it. An error analysis that cannot tell which it is says so.
    fn step(self) -> Self {
        Self::constant(step_of(self.value()))
    }

    /// The nearest binary64.
    fn value(self) -> f64;

    /// The absolute value.
    fn abs(self) -> Self {
        if self.value() < 0.0 { -self } else { self }
    }

    /// The larger of two numbers, NaN if either is.
    fn max(self, other: Self) -> Self {
        if self.value() >= other.value() || self.value().is_nan() { self } else { other }
    }

    /// `own` where self is the larger of two numbers, `others` where the other is. An error analysis that cannot tell which
    /// it is says so.
    fn where_larger(self, other: Self, own: Self, others: Self) -> Self {
        if self.value() >= other.value() || self.value().is_nan() { own } else { others }
    }

    /// self − mean, where the mean is that of numbers like self: a term of its own to an error analysis.
    fn deviation(self, mean: Self) -> Self {
        self - mean
    }

    /// The same number, held constant in every derivative.
    fn held(self) -> Self {
        self
    }

    /// The sum of any number of terms.
    fn sum(terms: impl Iterator<Item = Self>) -> Self {
        terms.fold(Self::constant(0.0), |sum, term| sum + term)
    }
}

/// See [`Real::step`].
pub(super) fn step_of(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        0.0
    } else {
        x.abs() + 0.5
    }
}

macro_rules! real_float {
    ($($float:ident),*) => {
        $(impl Real for $float {
            fn constant(value: f64) -> $float {
                value as $float
            }

            fn sqrt(self) -> $float {
                $float::sqrt(self)
            }

            fn powf(self, exponent: f64) -> $float {
                match exponent {
                    // The roots are correctly rounded everywhere, the power is a library's.
                    0.5 => $float::sqrt(self),
                    1.0 => self,
                    _ => $float::powf(self, exponent as $float),
                }
            }

            fn function(self, function: Function) -> $float {
                function.of(f64::from(self)) as $float
            }

            fn value(self) -> f64 {
                f64::from(self)
            }
        })*
    };
}
real_float!(f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_by_sign_and_size() {
        assert_eq!([3.0, -3.0].map(<f64 as Real>::abs), [3.0, 3.0]);
        assert_eq!(<f64 as Real>::abs(0.0).to_bits(), 0.0_f64.to_bits());
        assert_eq!([2.0, 1e-300, 0.0, -0.0, -1e-300, -2.0].map(step_of), [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]);
        assert!(step_of(f64::NAN).is_nan() && Real::step(f64::NAN).is_nan());
        assert_eq!(Real::step(7.0_f32), 1.0);
        assert_eq!([<f64 as Real>::max(1.0, 2.0), <f64 as Real>::max(2.0, 1.0)], [2.0, 2.0]);
        assert!(<f64 as Real>::max(f64::NAN, 1.0).is_nan() && <f64 as Real>::max(1.0, f64::NAN).is_nan());
        assert_eq!([1.0.where_larger(2.0, 10.0, 20.0), 2.0.where_larger(1.0, 10.0, 20.0)], [20.0, 10.0]);
        assert_eq!(1.0.where_larger(1.0, 10.0, 20.0), 10.0);
        assert_eq!(f64::NAN.where_larger(1.0, 10.0, 20.0), 10.0);
    }
}
