//! The map x ↦ ((x − p) − δ)·r and what is made of it, in eight lanes.
//!
//! ```text
//! t = (x − p) − δ      y = t·r      z = w·y + b      dx = a·slope − constant − t·curve,   a = g·w
//! ```
//! Pairs hi + lo are not normalized, |lo| ≤ a few u·|hi|; a pair's product with a number or another pair leaves out that
//! of the low parts, u² of it. Only functions that are always inlined: what is not is not compiled for the level's vectors.

use fearless_simd::{Simd, f64x8, prelude::*};

use crate::arithmetic::lanes::{LANES, Sum, padded, two_product, two_sum};
use crate::arithmetic::{DoubleDouble, Line, Parameter};

/// A pair hi + lo in each lane.
pub(super) type Pair<S> = (f64x8<S>, f64x8<S>);

/// A map x ↦ ((x − p) − δ)·r in every lane, with none, one or two exact subtractions.
#[derive(Clone, Copy)]
pub(super) struct Lines<S: Simd> {
    minus_pivot: f64x8<S>,
    minus_delta: Pair<S>,
    inverse: Pair<S>,
}

impl<S: Simd> Lines<S> {
    #[inline(always)]
    pub fn of(simd: S, line: &Line) -> Lines<S> {
        Lines {
            minus_pivot: f64x8::splat(simd, -line.pivot),
            minus_delta: splat(simd, -line.delta),
            inverse: splat(simd, line.inverse),
        }
    }

    /// t = (x − p) − δ.
    #[inline(always)]
    fn deviation<const SHIFTS: u8>(&self, x: f64x8<S>) -> Pair<S> {
        let (hi, lo) = match SHIFTS {
            0 => return (x, f64x8::splat(x.simd, 0.0)),
            _ => two_sum(x, self.minus_pivot),
        };
        if SHIFTS == 1 {
            return (hi, lo + self.minus_delta.0);
        }
        let (hi, rest) = two_sum(hi, self.minus_delta.0);
        (hi, rest + (lo + self.minus_delta.1))
    }

    /// w·t·r + b.
    #[inline(always)]
    pub fn rescaled<const SHIFTS: u8>(&self, x: f64x8<S>, w: Option<f64x8<S>>, b: Option<f64x8<S>>) -> f64x8<S> {
        let (mut hi, mut lo) = product(self.deviation::<SHIFTS>(x), self.inverse);
        if let Some(w) = w {
            let (scaled, rest) = two_product(hi, w);
            (hi, lo) = (scaled, lo.mul_add_precise(w, rest));
        }
        if let Some(b) = b {
            let (sum, rest) = two_sum(hi, b);
            (hi, lo) = (sum, rest + lo);
        }
        hi + lo
    }

    /// Adds a and a·t.
    #[inline(always)]
    pub fn add_gradient<const SHIFTS: u8>(&self, sum: &mut Sum<S>, along: &mut Sum<S>, x: f64x8<S>, a: Pair<S>) {
        if SHIFTS > 0 {
            sum.add(a.0, a.1);
        }
        let (hi, lo) = product(a, self.deviation::<SHIFTS>(x));
        along.add(hi, lo);
    }

    /// The sums Σ g·y and Σ g, each a sum and its errors, with one more term.
    #[inline(always)]
    pub fn added_to_columns<const SHIFTS: u8>(
        &self,
        x: f64x8<S>,
        g: f64x8<S>,
        weight: Pair<S>,
        bias: Pair<S>,
    ) -> (Pair<S>, Pair<S>) {
        let y = product(self.deviation::<SHIFTS>(x), self.inverse);
        let (hi, rest) = two_product(y.0, g);
        let lo = y.1.mul_add_precise(g, rest);
        let (weight_sum, weight_rest) = two_sum(weight.0, hi);
        let (bias_sum, bias_rest) = two_sum(bias.0, g);
        ((weight_sum, weight.1 + (weight_rest + lo)), (bias_sum, bias.1 + bias_rest))
    }

    /// a·slope − constant − t·curve.
    #[inline(always)]
    pub fn gradient<const SHIFTS: u8>(
        &self,
        x: f64x8<S>,
        a: Pair<S>,
        slope: Pair<S>,
        minus_constant: Pair<S>,
        minus_curve: Pair<S>,
    ) -> f64x8<S> {
        let first = product(a, slope);
        let second = product(self.deviation::<SHIFTS>(x), minus_curve);
        let (hi, rest) = two_sum(first.0, second.0);
        let lo = rest + (first.1 + second.1);
        if SHIFTS == 0 {
            return hi + lo;
        }
        let (hi, rest) = two_sum(hi, minus_constant.0);
        hi + (rest + (lo + minus_constant.1))
    }
}

/// a = g·w.
#[inline(always)]
pub(super) fn weighted<S: Simd>(g: f64x8<S>, w: Option<f64x8<S>>) -> Pair<S> {
    match w {
        None => (g, f64x8::splat(g.simd, 0.0)),
        Some(w) => two_product(g, w),
    }
}

#[inline(always)]
pub(super) fn splat<S: Simd>(simd: S, pair: DoubleDouble) -> Pair<S> {
    (f64x8::splat(simd, pair.hi), f64x8::splat(simd, pair.lo))
}

/// The product of two pairs, less that of the low parts.
#[inline(always)]
fn product<S: Simd>(a: Pair<S>, b: Pair<S>) -> Pair<S> {
    let (hi, rest) = two_product(a.0, b.0);
    (hi, a.1.mul_add_precise(b.0, a.0.mul_add_precise(b.1, rest)))
}

/// A weight or a bias.
#[derive(Clone, Copy)]
pub(super) enum Operand<'a, S: Simd> {
    One(f64x8<S>),
    Each(&'a [[f64; LANES]], &'a [f64]),
}

impl<'a, S: Simd> Operand<'a, S> {
    #[inline(always)]
    pub fn of(simd: S, parameter: Option<Parameter<'a, f64>>) -> Option<Operand<'a, S>> {
        parameter.map(|parameter| match parameter {
            Parameter::One(value) => Operand::One(f64x8::splat(simd, value)),
            Parameter::Each(values) => {
                let (vectors, tail) = values.as_chunks();
                Operand::Each(vectors, tail)
            }
        })
    }

    /// The values for vector `index` of the run.
    #[inline(always)]
    pub fn vector(operand: Option<Operand<'a, S>>, simd: S, index: usize) -> Option<f64x8<S>> {
        match operand {
            None => None,
            Some(Operand::One(value)) => Some(value),
            Some(Operand::Each(vectors, _)) => Some(f64x8::simd_from(simd, vectors[index])),
        }
    }

    /// The values for the elements after the last whole vector.
    #[inline(always)]
    pub fn tail(operand: Option<Operand<'a, S>>, simd: S) -> Option<f64x8<S>> {
        match operand {
            None => None,
            Some(Operand::One(value)) => Some(value),
            Some(Operand::Each(_, tail)) => Some(padded(simd, tail, 0.0)),
        }
    }
}

/// Whether there was a NaN or an infinity: 0 times it is a NaN, which stays one.
pub(super) struct Finite<S: Simd>(f64x8<S>);

impl<S: Simd> Finite<S> {
    #[inline(always)]
    pub fn new(simd: S) -> Finite<S> {
        Finite(f64x8::splat(simd, 0.0))
    }

    #[inline(always)]
    pub fn look_at(&mut self, values: f64x8<S>) {
        self.0 = values.mul_add(f64x8::splat(values.simd, 0.0), self.0);
    }

    #[inline(always)]
    pub fn all(&self) -> bool {
        self.0.as_array().iter().all(|lane| *lane == 0.0)
    }
}
