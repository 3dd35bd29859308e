//! p-norms, and the operations' common ways with axes.
//!
//! ```text
//! ‖x‖_p = (Σ |xᵢ|^p)^(1/p)      p = ∞: max |xᵢ|   p = −∞: min |xᵢ|   p = 0: the number of xᵢ that are not 0
//! ∂‖x‖_p/∂xᵢ = sign(xᵢ)·(|xᵢ|/‖x‖_p)^(p−1)       p = ±∞: sign(xᵢ) shared by the elements that attain it
//! ```

use super::{Refusal, RefusalKind};
use crate::arithmetic::Real;
use crate::arithmetic::format::exponent_of;

/// ‖x‖_p. Values far from 1 are scaled by a power of two, so that their powers neither overflow nor underflow.
pub(super) fn norm<R: Real>(x: &[R], p: f64) -> R {
    // Of zeros alone: not a root, which has no derivative there, but the constant that frameworks make of it.
    if p == 2.0 && x.iter().all(|x| x.value() == 0.0) {
        return R::constant(0.0);
    }
    let largest = x.iter().map(|x| x.value().abs()).fold(0.0, f64::max);
    let exponent = if largest > 0.0 && largest.is_finite() { exponent_of(largest) } else { 0 };
    if exponent.abs() <= 250 || p == 0.0 {
        return norm_unscaled(x, p);
    }
    // In two steps, as 2^−1074 has no reciprocal.
    let half = |exponent: i32| R::constant(crate::arithmetic::format::power_of_two(exponent));
    let (first, second) = (exponent / 2, exponent - exponent / 2);
    let scaled: Vec<R> = x.iter().map(|&x| x * half(-first) * half(-second)).collect();
    norm_unscaled(&scaled, p) * half(first) * half(second)
}

fn norm_unscaled<R: Real>(x: &[R], p: f64) -> R {
    let sizes = || x.iter().map(|x| x.abs());
    if x.iter().any(|x| x.value().is_nan()) {
        return R::constant(f64::NAN);
    }
    match p {
        0.0 => R::constant(x.iter().filter(|x| x.value() != 0.0).count() as f64),
        1.0 => R::sum(sizes()),
        2.0 => R::sum(x.iter().map(|&x| x * x)).sqrt(),
        f64::INFINITY => sizes().fold(R::constant(0.0), R::max),
        f64::NEG_INFINITY => -sizes().map(|x| -x).fold(R::constant(f64::NEG_INFINITY), R::max),
        _ => R::sum(sizes().map(|x| x.powf(p))).root(p),
    }
}

/// ∂‖x‖_p/∂xᵢ for each i; 0 where the norm is 0.
pub(super) fn norm_gradient<R: Real>(x: &[R], p: f64, norm: R) -> Vec<R> {
    let zero = R::constant(0.0);
    if norm.value() == 0.0 || p == 0.0 {
        return vec![zero; x.len()];
    }
    let sign = |x: R| {
        R::constant(if x.value() > 0.0 {
            1.0
        } else if x.value() < 0.0 {
            -1.0
        } else {
            0.0
        })
    };
    if p.is_infinite() {
        let attains = |x: &R| x.value().abs() == norm.value();
        let count = R::constant(x.iter().filter(|x| attains(x)).count() as f64);
        return x.iter().map(|x| if attains(x) { sign(*x) / count } else { zero }).collect();
    }
    let one = |&x: &R| match p {
        1.0 => sign(x),
        2.0 => x / norm,
        _ if x.value() == 0.0 => zero,
        _ => sign(x) * (x.abs() / norm).powf(p - 1.0),
    };
    x.iter().map(one).collect()
}

/// The axis that `dim` means in a tensor of rank `rank`; −1 is the last.
pub(super) fn axis(dim: i64, rank: usize) -> Result<usize, Refusal> {
    let axis = if dim < 0 { dim + rank as i64 } else { dim };
    if (0..rank as i64).contains(&axis) {
        return Ok(axis as usize);
    }
    let message = format!("dim is {dim}; the input has rank {rank}: expected −{rank} to {}", rank as i64 - 1);
    Err(Refusal::new(RefusalKind::Shape, message))
}
