//! The gradients of a normalization in integers.
//!
//! With a = g·w, X = n·x − S, A = Σa, T = Σ a·X and 1/σ = n/√R (each on its own power of two):
//! ```text
//! grad_input  = (a − mean a − y·mean(a·y))/σ = ((n·a − A)·R − X·T)/(R·√R)      A = 0 where the mean is not subtracted
//! grad_weight = Σ g·y = Σ g·X/√R              grad_bias = Σ g
//! ```
//! of degree two like the outputs, so that cancellation, such as at two values a group, is decided exactly.

use dashu_int::{IBig, UBig};

use super::integer::{align, odd_significand};
use super::{Exact, ExactGroup, ExactScale};

/// An integer and its power of two.
type Dyadic = (IBig, i32);

/// A and T of a group.
#[derive(Clone, Debug)]
pub struct ExactGradient {
    sum: Dyadic,
    along: Dyadic,
}

/// Σ values.
///
/// # Panics
/// Panics if a value is infinite or NaN.
///
/// ```
/// use normative::arithmetic::{Format, exact::sum};
/// assert_eq!(sum([1e200, 1.0, -1e200]).round(Format::F64), 1.0);
/// ```
pub fn sum(values: impl IntoIterator<Item = f64>) -> Exact {
    let (sum, exponent) = values.into_iter().map(|value| product(&[value])).fold((IBig::ZERO, 0), plus);
    Exact::ratio(sum, UBig::ONE, exponent)
}

impl ExactGroup {
    /// The sums over a group of what comes from above: for each element its value x, its gradient g and its weight w.
    ///
    /// # Panics
    /// Panics if a number is infinite or NaN.
    pub fn gradient(&self, elements: impl IntoIterator<Item = (f64, f64, f64)>) -> ExactGradient {
        let zero = || (IBig::ZERO, 0);
        let (sum, along) = elements.into_iter().fold((zero(), zero()), |(sum, along), (x, g, w)| {
            let a = product(&[g, w]);
            let along = plus(along, times(a.clone(), self.deviation(x)));
            (plus(sum, a), along)
        });
        // An uncentred group has S = 0 by definition, and its mean's part is none.
        ExactGradient { sum: if self.centred { sum } else { zero() }, along }
    }

    /// The gradient by the value `x` of one element whose output has the gradient `g` and the weight `w`.
    ///
    /// # Panics
    /// Panics if a number is infinite or NaN.
    ///
    /// ```
    /// use normative::arithmetic::exact::ExactGroup;
    /// // Two values are ±1 whatever they are: nothing changes with them.
    /// let group = ExactGroup::new([0.1, 0.7], true);
    /// let scale = group.scale(0.0).unwrap();
    /// let gradient = group.gradient([(0.1, 0.3, 1.0), (0.7, -2.0, 1.0)]);
    /// assert!(group.input_gradient(&scale, &gradient, 0.1, 0.3, 1.0).is_zero());
    /// ```
    pub fn input_gradient(&self, scale: &ExactScale, gradient: &ExactGradient, x: f64, g: f64, w: f64) -> Exact {
        let radicand = &scale.root.radicand;
        let (a, exponent) = product(&[g, w]);
        let direct = plus((a * self.count, exponent), negative(gradient.sum.clone()));
        let direct = (direct.0 * IBig::from(radicand.clone()), direct.1);
        let (through, exponent) = times(self.deviation(x), gradient.along.clone());
        let (numerator, exponent) = plus(direct, negative((through, exponent + 2 * scale.exponent)));
        Exact::surd((IBig::ZERO, 0), (numerator, exponent + scale.exponent), &scale.root, radicand.clone())
    }

    /// The gradient g·w/σ by a value whose statistics are stored, and so count as those of one value.
    ///
    /// # Panics
    /// Panics if a number is infinite or NaN.
    pub fn stored_gradient(&self, scale: &ExactScale, g: f64, w: f64) -> Exact {
        let (a, exponent) = product(&[g, w]);
        Exact::surd((IBig::ZERO, 0), (a, exponent + scale.exponent), &scale.root, UBig::ONE)
    }

    /// Σ g·y over pairs of a value x and a gradient g: the gradient by the weight of this group.
    ///
    /// # Panics
    /// Panics if a number is infinite or NaN.
    pub fn weight_gradient(&self, scale: &ExactScale, elements: impl IntoIterator<Item = (f64, f64)>) -> Exact {
        let terms = elements.into_iter().map(|(x, g)| times(product(&[g]), self.deviation(x)));
        let (sum, exponent) = terms.fold((IBig::ZERO, 0), plus);
        Exact::surd((IBig::ZERO, 0), (sum, exponent + scale.exponent), &scale.root, UBig::ONE)
    }

    /// n·x − S.
    fn deviation(&self, x: f64) -> Dyadic {
        let (x, exponent) = odd_significand(x);
        plus((IBig::from(x) * self.count, exponent), negative(self.sum.clone()))
    }
}

fn product(factors: &[f64]) -> Dyadic {
    let factor = |&value: &f64| {
        let (significand, exponent) = odd_significand(value);
        (IBig::from(significand), exponent)
    };
    factors.iter().map(factor).reduce(times).unwrap_or((IBig::ONE, 0))
}

fn times((a, i): Dyadic, (b, j): Dyadic) -> Dyadic {
    (a * b, i + j)
}

fn plus(a: Dyadic, b: Dyadic) -> Dyadic {
    let (a, b, exponent) = align(a, b);
    (a + b, exponent)
}

fn negative((a, exponent): Dyadic) -> Dyadic {
    (-a, exponent)
}

#[cfg(test)]
mod tests {
    use super::super::super::{Arithmetic, Format, Group, Plain, Scale};
    use super::*;

    /// Against the definition in plain binary64, on values that are kind to it.
    #[test]
    fn the_integers_are_those_of_the_definition() {
        let (x, g, w) = ([0.5, -1.25, 2.0, 3.5], [1.0, -2.0, 0.5, 0.25], [2.0, 1.0, -0.5, 3.0]);
        for centred in [true, false] {
            let group = ExactGroup::new(x, centred);
            let scale = group.scale(0.25).expect("positive");
            let gradient = group.gradient((0..4).map(|i| (x[i], g[i], w[i])));
            let plain = Plain::<f64>::new();
            let scaling = plain.scaling(&plain.moments(Group::contiguous(&x), centred), &Scale::inside_root(0.25));
            let mut y = [0.0; 4];
            plain.rescale(&x, &scaling, None, None, &mut y);
            let a: Vec<f64> = (0..4).map(|i| g[i] * w[i]).collect();
            let by_hand = plain.input_gradient(&x, &a, &y, &scaling, centred);
            for i in 0..4 {
                let exact = group.input_gradient(&scale, &gradient, x[i], g[i], w[i]).round(Format::F64);
                approx::assert_relative_eq!(exact, by_hand[i], max_relative = 32.0 * f64::EPSILON);
            }
            let weight = group.weight_gradient(&scale, (0..4).map(|i| (x[i], g[i]))).round(Format::F64);
            let by_hand: f64 = (0..4).map(|i| g[i] * y[i]).sum();
            approx::assert_relative_eq!(weight, by_hand, max_relative = 32.0 * f64::EPSILON);
        }
        let stored = ExactGroup::stored(1.0, 3.75);
        let scale = stored.scale(0.25).expect("positive");
        assert_eq!(stored.stored_gradient(&scale, 3.0, -2.0).round(Format::F64), -3.0);
        assert_eq!(stored.weight_gradient(&scale, [(2.0, 3.0), (0.0, 1.0)]).round(Format::F64), 1.0);
    }
}
