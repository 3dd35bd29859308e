//! Dual numbers a + b·ε, ε² = 0: evaluating a definition in them differentiates it (Clifford 1873; forward-mode
//! automatic differentiation, Wengert 1964). They check backward passes that were written by hand.

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::{Function, Real};

/// A value and its derivative along one direction.
///
/// ```
/// use normative::arithmetic::{Dual, Real};
/// let x = Dual::new(3.0, 1.0);
/// let y = (x * x + Dual::constant(16.0)).sqrt(); // √(x² + 16): 5, derivative x/5
/// assert_eq!((y.value, y.derivative), (5.0, 0.6));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dual<R> {
    /// The value a.
    pub value: R,
    /// The derivative b.
    pub derivative: R,
}

impl<R: Real> Dual<R> {
    /// `value` moving at the rate `derivative`.
    pub fn new(value: R, derivative: R) -> Dual<R> {
        Dual { value, derivative }
    }
}

impl<R: Real> Add for Dual<R> {
    type Output = Dual<R>;
    fn add(self, other: Dual<R>) -> Dual<R> {
        Dual { value: self.value + other.value, derivative: self.derivative + other.derivative }
    }
}

impl<R: Real> Sub for Dual<R> {
    type Output = Dual<R>;
    fn sub(self, other: Dual<R>) -> Dual<R> {
        Dual { value: self.value - other.value, derivative: self.derivative - other.derivative }
    }
}

impl<R: Real> Neg for Dual<R> {
    type Output = Dual<R>;
    fn neg(self) -> Dual<R> {
        Dual { value: -self.value, derivative: -self.derivative }
    }
}

impl<R: Real> Mul for Dual<R> {
    type Output = Dual<R>;
    fn mul(self, other: Dual<R>) -> Dual<R> {
        Dual {
            value: self.value * other.value,
            derivative: self.derivative * other.value + self.value * other.derivative,
        }
    }
}

impl<R: Real> Div for Dual<R> {
    type Output = Dual<R>;
    fn div(self, other: Dual<R>) -> Dual<R> {
        let value = self.value / other.value;
        Dual { value, derivative: (self.derivative - value * other.derivative) / other.value }
    }
}

impl<R: Real> Real for Dual<R> {
    fn constant(value: f64) -> Dual<R> {
        Dual { value: R::constant(value), derivative: R::constant(0.0) }
    }

    fn beside(self, other: Dual<R>) -> Dual<R> {
        Dual { value: self.value.beside(other.value), ..self }
    }

    fn powf(self, exponent: f64) -> Dual<R> {
        let slope = R::constant(exponent) * self.value.powf(exponent - 1.0);
        Dual { value: self.value.powf(exponent), derivative: slope * self.derivative }
    }

    fn sum(terms: impl Iterator<Item = Dual<R>>) -> Dual<R> {
        let (values, derivatives): (Vec<R>, Vec<R>) = terms.map(|term| (term.value, term.derivative)).unzip();
        Dual { value: R::sum(values.into_iter()), derivative: R::sum(derivatives.into_iter()) }
    }

    fn root(self, degree: f64) -> Dual<R> {
        let root = self.value.root(degree);
        Dual { value: root, derivative: self.derivative * root / (R::constant(degree) * self.value) }
    }

    fn sqrt(self) -> Dual<R> {
        let root = self.value.sqrt();
        Dual { value: root, derivative: self.derivative / (root + root) }
    }

    fn function(self, function: Function) -> Dual<R> {
        let value = self.value.function(function);
        Dual { value, derivative: function.slope(self.value, value) * self.derivative }
    }

    fn max(self, other: Dual<R>) -> Dual<R> {
        let derivative = self.value.where_larger(other.value, self.derivative, other.derivative);
        Dual { value: self.value.max(other.value), derivative }
    }

    fn where_larger(self, other: Dual<R>, own: Dual<R>, others: Dual<R>) -> Dual<R> {
        Dual {
            value: self.value.where_larger(other.value, own.value, others.value),
            derivative: self.value.where_larger(other.value, own.derivative, others.derivative),
        }
    }

    fn step(self) -> Dual<R> {
        Dual { value: self.value.step(), derivative: R::constant(0.0) }
    }

    fn value(self) -> f64 {
        self.value.value()
    }

    fn deviation(self, mean: Dual<R>) -> Dual<R> {
        Dual { value: self.value.deviation(mean.value), derivative: self.derivative - mean.derivative }
    }

    fn held(self) -> Dual<R> {
        Dual { value: self.value.held(), derivative: R::constant(0.0) }
    }
}
