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

#[cfg(test)]
mod tests {
    use super::super::{Majorant, format::power_of_two};
    use super::*;

    /// A library's power is within two units in the last place; three roundings follow.
    fn near(actual: Dual<f64>, value: f64, derivative: f64) {
        approx::assert_relative_eq!(actual.value, value, max_relative = 4.0 * f64::EPSILON);
        approx::assert_relative_eq!(actual.derivative, derivative, max_relative = 4.0 * f64::EPSILON);
    }

    #[test]
    fn derivatives_follow_the_rules() {
        let (x, y) = (Dual::new(4.0, 3.0), Dual::new(2.0, 5.0));
        near(x + y, 6.0, 8.0);
        near(x - y, 2.0, -2.0);
        near(-x, -4.0, -3.0);
        near(x * y, 8.0, 26.0);
        near(x / y, 2.0, -3.5);
        near(x.sqrt(), 2.0, 0.75);
        near(x.powf(1.5), 8.0, 9.0);
        near(x.root(2.0), 2.0, 0.75);
        near(y.root(0.5), 4.0, 20.0);
        near(Dual::sum([x, y, x].into_iter()), 10.0, 11.0);
        near(x.deviation(y), 2.0, -2.0);
        near(x.max(y), 4.0, 3.0);
        near(y.max(x), 4.0, 3.0);
        near(x.where_larger(y, y, x), 2.0, 5.0);
        near(y.where_larger(x, y, x), 4.0, 3.0);
        near(x.held(), 4.0, 0.0);
        near(x.beside(y), 4.0, 3.0);
        near(x.step(), 1.0, 0.0);
        near(Dual::<f64>::constant(7.0), 7.0, 0.0);
        near(Dual::new(0.0, 3.0).function(Function::Tanh), 0.0, 3.0);
        near(Dual::new(0.0, 3.0).function(Function::Sigmoid), 0.5, 0.75);
        assert_eq!(Real::value(x), 4.0);
    }

    #[test]
    fn beside_a_number_of_a_program_the_value_is_rounded_as_the_program_does() {
        let program = Dual::new(Majorant::given(1.0, power_of_two(-24)), Majorant::constant(0.0));
        let beside = Dual::<Majorant>::constant(0.1).beside(program);
        assert_eq!(beside.value.error, 0.1 * power_of_two(-24));
    }
}
