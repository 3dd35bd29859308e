//! Reverse-mode differentiation: numbers that remember what they were computed from (Linnainmaa 1970; Griewank and Walther
//! 2008, chapter 3).
//!
//! ```text
//! ḡ_parent = Σ over its children ḡ_child·∂child/∂parent
//! ```
//! A formula that is evaluated in them has its gradients at the cost of one pass backwards, in whatever arithmetic the
//! numbers are: exact ones give the truth, tracked ones a bound. Dual numbers, which go forwards, check them.

use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::arithmetic::{Function, Real};

/// What was computed, in order.
pub(super) struct Tape<R> {
    nodes: Mutex<Vec<Node<R>>>,
}

/// The numbers that one was computed from, and its derivatives by them.
type Node<R> = Vec<(usize, Partial<R>)>;

/// A derivative; those that multiply nothing are told apart, since a program does not multiply by them.
#[derive(Clone, Copy, Debug)]
enum Partial<R> {
    One,
    MinusOne,
    Of(R),
}

/// A number, and where it stands on the tape; a constant stands nowhere.
#[derive(Clone, Copy)]
pub(super) struct Taped<'t, R> {
    /// Its value.
    pub value: R,
    place: Option<(&'t Tape<R>, usize)>,
}

impl<R: Real> Tape<R> {
    /// An empty one.
    pub fn new() -> Tape<R> {
        Tape { nodes: Mutex::new(Vec::new()) }
    }

    /// A number that others are differentiated by.
    pub fn leaf(&self, value: R) -> Taped<'_, R> {
        self.push(value, Vec::new())
    }

    /// A number computed from `parents`, whose derivatives by them are known.
    pub fn known<'t>(&'t self, value: R, parents: impl Iterator<Item = (Taped<'t, R>, R)>) -> Taped<'t, R> {
        let parents = parents.filter_map(|(parent, partial)| Some((parent.place?.1, Partial::Of(partial))));
        self.push(value, parents.collect())
    }

    /// The derivative of Σ seed·number by each of `leaves`.
    pub fn gradients<'t>(&'t self, seeds: impl Iterator<Item = (R, Taped<'t, R>)>, leaves: &[Taped<'t, R>]) -> Vec<R> {
        let nodes = self.nodes();
        let mut terms: Vec<Vec<R>> = vec![Vec::new(); nodes.len()];
        for (seed, number) in seeds {
            if let Some((_, place)) = number.place {
                terms[place].push(seed);
            }
        }
        let mut gradients = vec![R::constant(0.0); nodes.len()];
        for (place, parents) in nodes.iter().enumerate().rev() {
            let own = std::mem::take(&mut terms[place]);
            if own.is_empty() {
                continue;
            }
            let gradient = if own.len() == 1 { own[0] } else { R::sum(own.into_iter()) };
            for &(parent, partial) in parents {
                terms[parent].push(match partial {
                    Partial::One => gradient,
                    Partial::MinusOne => -gradient,
                    Partial::Of(partial) => gradient * partial,
                });
            }
            gradients[place] = gradient;
        }
        leaves.iter().map(|leaf| leaf.place.map_or(R::constant(0.0), |(_, place)| gradients[place])).collect()
    }

    fn push(&self, value: R, node: Node<R>) -> Taped<'_, R> {
        let mut nodes = self.nodes();
        nodes.push(node);
        Taped { value, place: Some((self, nodes.len() - 1)) }
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Node<R>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'t, R: Real> Taped<'t, R> {
    pub fn fixed(value: R) -> Taped<'t, R> {
        Taped { value, place: None }
    }

    /// The number of this value, computed from `parents`.
    fn from<const N: usize>(value: R, parents: [(Taped<'t, R>, Partial<R>); N]) -> Taped<'t, R> {
        let Some((tape, _)) = parents.iter().find_map(|(parent, _)| parent.place) else { return Taped::fixed(value) };
        let placed = parents.into_iter().filter_map(|(parent, partial)| Some((parent.place?.1, partial)));
        tape.push(value, placed.collect())
    }
}

impl<R: fmt::Debug> fmt::Debug for Taped<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<R: Real> Add for Taped<'_, R> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Taped::from(self.value + other.value, [(self, Partial::One), (other, Partial::One)])
    }
}

impl<R: Real> Sub for Taped<'_, R> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Taped::from(self.value - other.value, [(self, Partial::One), (other, Partial::MinusOne)])
    }
}

impl<R: Real> Neg for Taped<'_, R> {
    type Output = Self;
    fn neg(self) -> Self {
        Taped::from(-self.value, [(self, Partial::MinusOne)])
    }
}

impl<R: Real> Mul for Taped<'_, R> {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Taped::from(self.value * other.value, [(self, Partial::Of(other.value)), (other, Partial::Of(self.value))])
    }
}

impl<R: Real> Div for Taped<'_, R> {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        let (of_self, of_other) = (R::constant(1.0) / other.value, -(value / other.value));
        Taped::from(value, [(self, Partial::Of(of_self)), (other, Partial::Of(of_other))])
    }
}

impl<R: Real> Real for Taped<'_, R> {
    fn constant(value: f64) -> Self {
        Taped::fixed(R::constant(value))
    }

    fn beside(self, other: Self) -> Self {
        Taped { value: self.value.beside(other.value), ..self }
    }

    fn sqrt(self) -> Self {
        let root = self.value.sqrt();
        Taped::from(root, [(self, Partial::Of(R::constant(0.5) / root))])
    }

    fn powf(self, exponent: f64) -> Self {
        let slope = R::constant(exponent) * self.value.powf(exponent - 1.0);
        Taped::from(self.value.powf(exponent), [(self, Partial::Of(slope))])
    }

    fn root(self, degree: f64) -> Self {
        let root = self.value.root(degree);
        Taped::from(root, [(self, Partial::Of(root / (R::constant(degree) * self.value)))])
    }

    fn function(self, function: Function) -> Self {
        let value = self.value.function(function);
        Taped::from(value, [(self, Partial::Of(function.slope(self.value, value)))])
    }

    fn step(self) -> Self {
        Taped::fixed(self.value.step())
    }

    fn value(self) -> f64 {
        self.value.value()
    }

    fn max(self, other: Self) -> Self {
        self.where_larger(other, self, other)
    }

    fn where_larger(self, other: Self, own: Self, others: Self) -> Self {
        let (one, zero) = (R::constant(1.0), R::constant(0.0));
        let chosen = |own: R, others: R| self.value.where_larger(other.value, own, others);
        let partials = [(own, Partial::Of(chosen(one, zero))), (others, Partial::Of(chosen(zero, one)))];
        Taped::from(chosen(own.value, others.value), partials)
    }

    fn deviation(self, mean: Self) -> Self {
        Taped::from(self.value.deviation(mean.value), [(self, Partial::One), (mean, Partial::MinusOne)])
    }

    fn held(self) -> Self {
        Taped::fixed(self.value.held())
    }

    fn sum(terms: impl Iterator<Item = Self>) -> Self {
        let terms: Vec<Self> = terms.collect();
        let value = R::sum(terms.iter().map(|term| term.value));
        let Some((tape, _)) = terms.iter().find_map(|term| term.place) else { return Taped::fixed(value) };
        let placed = terms.iter().filter_map(|term| Some((term.place?.1, Partial::One)));
        tape.push(value, placed.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::{Dual, Truth};

    /// Every operation at once, and its derivative by two numbers, forwards and backwards.
    fn formula<R: Real>(x: R, y: R) -> R {
        let constant = R::constant(0.75);
        let sum = R::sum([x * y, -x, y / constant, x.deviation(y)].into_iter());
        let roots = (x * x + constant).sqrt() + y.powf(1.5) + (x * x).root(3.0);
        let chosen = x.max(y) + (x - y).where_larger(constant, x, y * y) + x.held() * y;
        sum * roots / (chosen + (x / y).function(Function::Tanh)) + (x - y).step() * x
    }

    /// In numbers with a radius nothing is left to a tolerance: both must be the same number.
    #[test]
    fn backwards_and_forwards_agree() {
        for (x, y) in [(0.5, 2.0), (3.0, 0.25), (1.25, 1.0)] {
            let tape = Tape::new();
            let leaves = [x, y].map(|value| tape.leaf(Truth::exact(value)));
            let value = formula(leaves[0], leaves[1]);
            let gradients = tape.gradients([(Truth::exact(1.0), value)].into_iter(), &leaves);
            for (index, gradient) in gradients.into_iter().enumerate() {
                let moving = |k: usize, value: f64| {
                    Dual::new(Truth::exact(value), Truth::exact(if k == index { 1.0 } else { 0.0 }))
                };
                let dual = formula(moving(0, x), moving(1, y));
                for difference in [dual.value - value.value, dual.derivative - gradient] {
                    assert!(difference.value.hi.abs() <= difference.radius, "{difference:?}");
                    // What is known is known to more digits than binary64 has.
                    assert!(difference.radius < f64::EPSILON * dual.derivative.value.hi.abs(), "{difference:?}");
                }
            }
        }
    }

    #[test]
    fn constants_stand_nowhere() {
        let tape: Tape<f64> = Tape::new();
        let constant = Taped::constant(2.0) * Taped::constant(3.0) + Taped::constant(1.0).sqrt();
        assert_eq!((constant.value, constant.place.is_none()), (7.0, true));
        assert_eq!(tape.gradients([(1.0, constant)].into_iter(), &[tape.leaf(1.0)]), [0.0]);
    }
}
