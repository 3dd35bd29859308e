//! Majorants: a bound for every program that adds up the same terms, however it groups them.
//!
//! A second derivative is a long sum of products, and programs group it in many ways: PyTorch's closed forms, a
//! framework's derivative of its own backward pass, dual numbers. What they share is the terms. So a value z is kept with
//! the sum Z of the magnitudes of its terms, and each operation costs a rounding of *those*:
//!
//! ```text
//! a ± b   Z = A + B        error ≤ e_a + e_b + u·(Z + e_a + e_b)
//! a · b   Z = A·B          error ≤ A·e_b + B·e_a + e_a·e_b + u·(Z + …)
//! a / b   Z = A/|b|        error ≤ (e_a + Z·e_b)/(|b| − e_b) + u·(Z + …)
//! Σ aᵢ    Z = Σ Aᵢ         error ≤ Σ eᵢ + γ_{n−1}·(Z + Σ eᵢ)
//! ```
//! with u twice the unit roundoff: another grouping passes no term through more than twice as many operations, as
//! distributing (a + b)·c repeats one product. Underflow costs each product and quotient of what is not 0 another η, half the
//! smallest subnormal of the accumulating type. A deviation x − μ is a term, not two ([`Real::deviation`]): every good
//! program forms it. This is Wilkinson's running error analysis over magnitudes (Higham, "Accuracy and Stability of
//! Numerical Algorithms", section 3.3).

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::real::step_of;
use super::tracked::{ratio, rounded_exponent, rounded_inverse, spread_of_power, underflow, wider};
use super::{Function, Real};

/// A value, the sum of the magnitudes of its terms, and the largest error that a good program can make in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Majorant {
    /// The value, to binary64.
    pub value: f64,
    /// Z, at least |value|.
    pub size: f64,
    /// The bound, before the result is stored.
    pub error: f64,
    /// Unit roundoff of the operations that made it; 0 for constants.
    pub unit: f64,
}

/// The bound itself is computed in binary64.
const OUTWARD: f64 = 1.0 + 1e-12;

impl Majorant {
    /// A value that goes into a program of unit roundoff `unit`.
    pub fn given(value: f64, unit: f64) -> Majorant {
        Majorant { value, size: value.abs(), error: 0.0, unit }
    }

    fn is_zero(self) -> bool {
        self.size == 0.0 && self.error == 0.0
    }

    fn computed(value: f64, size: f64, carried: f64, unit: f64) -> Majorant {
        let size = size.max(value.abs());
        Majorant { value, size, error: (carried + 2.0 * unit * (size + carried)) * OUTWARD, unit }
    }

    /// A library's power is granted two roundings, which `computed` doubles anyway. `off`: what a rounded exponent does to it.
    fn power(self, exponent: f64, off: f64) -> Majorant {
        let value = self.value.powf(exponent);
        let carried = spread_of_power(self.value, self.error, exponent);
        let lost = if self.is_zero() { 0.0 } else { underflow(self.unit) };
        Majorant::computed(value, value.abs(), carried + lost + off * value.abs(), self.unit)
    }
}

impl Add for Majorant {
    type Output = Majorant;
    fn add(self, other: Majorant) -> Majorant {
        // Nothing is rounded where nothing is added.
        if other.is_zero() {
            return self;
        }
        if self.is_zero() {
            return other;
        }
        let unit = self.unit.max(other.unit);
        Majorant::computed(self.value + other.value, self.size + other.size, self.error + other.error, unit)
    }
}

impl Sub for Majorant {
    type Output = Majorant;
    fn sub(self, other: Majorant) -> Majorant {
        self + -other
    }
}

impl Neg for Majorant {
    type Output = Majorant;
    fn neg(self) -> Majorant {
        Majorant { value: -self.value, ..self }
    }
}

impl Mul for Majorant {
    type Output = Majorant;
    fn mul(self, other: Majorant) -> Majorant {
        let carried = self.size * other.error + self.error * other.size + self.error * other.error;
        let unit = self.unit.max(other.unit);
        let lost = if self.is_zero() || other.is_zero() { 0.0 } else { underflow(unit) };
        Majorant::computed(self.value * other.value, self.size * other.size, carried + lost, unit)
    }
}

impl Div for Majorant {
    type Output = Majorant;
    fn div(self, other: Majorant) -> Majorant {
        let (value, size) = (self.value / other.value, ratio(self.size, other.value.abs()));
        let smallest = (other.value.abs() - other.error).max(0.0);
        let carried = ratio(self.error + size * other.error, smallest);
        let unit = self.unit.max(other.unit);
        let lost = if self.is_zero() { 0.0 } else { underflow(unit) };
        Majorant::computed(value, size, carried + lost, unit)
    }
}

impl Real for Majorant {
    fn constant(value: f64) -> Majorant {
        Majorant::given(value, 0.0)
    }

    fn beside(self, other: Majorant) -> Majorant {
        let unit = self.unit.max(other.unit);
        Majorant { error: self.error + unit * self.value.abs(), unit, ..self }
    }

    fn powf(self, exponent: f64) -> Majorant {
        self.power(exponent, rounded_exponent(self.value, exponent, self.unit))
    }

    fn root(self, degree: f64) -> Majorant {
        self.power(1.0 / degree, rounded_inverse(self.value, degree, self.unit))
    }

    fn sqrt(self) -> Majorant {
        let root = self.value.sqrt();
        // |√a − √b| = |a − b|/(√a + √b) ≤ |a − b|/√a
        Majorant::computed(root, root, ratio(self.error, root), self.unit)
    }

    fn function(self, function: Function) -> Majorant {
        let value = function.of(self.value);
        let carried = if self.error == 0.0 { 0.0 } else { function.steepest(self.value, self.error) * self.error };
        // `computed` doubles the roundings that are granted.
        let granted = function.granted() / 2.0 - 1.0;
        let majorant = Majorant::computed(value, value.abs(), carried, self.unit);
        Majorant { error: majorant.error + granted * 2.0 * self.unit * (value.abs() + carried), ..majorant }
    }

    fn step(self) -> Majorant {
        let decided = self.error == 0.0 || self.value.abs() > self.error;
        Majorant { error: if decided { 0.0 } else { 1.0 }, ..Majorant::constant(step_of(self.value)) }
    }

    fn where_larger(self, other: Majorant, own: Majorant, others: Majorant) -> Majorant {
        let is_own = self.value >= other.value || self.value.is_nan();
        let (chosen, left) = if is_own { (own, others) } else { (others, own) };
        let decided = (self.value - other.value).abs() > self.error + other.error || self.error + other.error == 0.0;
        let apart = (chosen.value - left.value).abs() + left.error;
        if decided { chosen } else { Majorant { error: wider(chosen.error, apart), ..chosen } }
    }

    fn max(self, other: Majorant) -> Majorant {
        let larger = if self.value >= other.value || self.value.is_nan() { self } else { other };
        let decided = (self.value - other.value).abs() > self.error + other.error;
        let size = larger.size.max(other.size).max(self.size);
        if decided { larger } else { Majorant { error: wider(self.error, other.error), size, ..larger } }
    }

    fn value(self) -> f64 {
        self.value
    }

    fn deviation(self, mean: Majorant) -> Majorant {
        let value = self.value - mean.value;
        Majorant::computed(value, value.abs(), self.error + mean.error, self.unit.max(mean.unit))
    }

    /// In any order: no term passes more than n − 1 additions.
    fn sum(terms: impl Iterator<Item = Majorant>) -> Majorant {
        let (mut sum, mut size, mut error, mut unit, mut count) = (0.0, 0.0, 0.0, 0.0_f64, 0.0);
        for term in terms {
            sum += term.value;
            size += term.size;
            error += term.error;
            unit = unit.max(term.unit);
            count += f64::from(u8::from(term.size != 0.0 || term.error != 0.0));
        }
        let product = (count - 1.0_f64).max(0.0) * unit;
        let gamma = if product < 1.0 { product / (1.0 - product) } else { f64::INFINITY };
        Majorant { value: sum, size, error: (error + gamma * (size + error)) * OUTWARD, unit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::draws;

    const U: f64 = 5.960464477539063e-8; // 2⁻²⁴

    /// Two groupings of the same sum of products stay within one bound, and cancellation does not make it small.
    #[test]
    fn every_grouping_of_the_terms_is_covered() {
        let mut values = crate::case::values::Values::new(11);
        for _ in 0..draws(10_000) {
            let [a, b, c] = [(); 3].map(|()| (values.normal() * 8.0) as f32);
            let near = -a * (1.0 + values.normal() as f32 * 1e-5);
            let give = |x: f32| Majorant::given(f64::from(x), U);
            let majorant = (give(a) + give(near)) * give(b) / (give(c) * give(c)).sqrt();
            let size = (c * c).sqrt();
            for computed in [(a + near) * b / size, a * b / size + near * b / size, (a * b + near * b) * (1.0 / size)] {
                assert!((f64::from(computed) - majorant.value).abs() <= majorant.error, "{a} {near} {b} {c}");
            }
        }
    }

    #[test]
    fn what_is_constant_costs_nothing() {
        let sum = Majorant::constant(0.1) + Majorant::constant(0.2);
        assert_eq!(sum.error, 0.0);
        let kept = Majorant::given(0.3, U) + Majorant::constant(0.0);
        assert_eq!(kept.error, 0.0);
    }
}
