//! Decorrelated batch normalization (Huang et al. 2018, arXiv 1804.08450, algorithm 1): ZCA whitening of the channels.
//!
//! ```text
//! y = W·X·w_c + b_c      W = Σ^(−1/2) = U·Λ^(−1/2)·Uᵀ,  Σ = U·Λ·Uᵀ        Σ, X, training and evaluation: see whitening.rs
//! ```
//! Of all W with W·Σ·Wᵀ = I it is the symmetric one, which turns the channels least. Λ^(−1/2)·Uᵀ (PCA whitening) depends on the
//! order and signs of the eigenvectors, and changes abruptly where two eigenvalues meet. Σ^(−1/2) does not, nor do its
//! derivatives, though those of U have no limit there.
//!
//! # Numerically
//! With any U near the eigenvectors, M = U⁻¹·Σ·U is nearly diagonal, M = D + E with sᵢ = √Mᵢᵢ, and (Daleckii and Krein 1965; Higham,
//! "Functions of Matrices", 2008, theorem 3.11)
//!
//! ```text
//! M^(−1/2) = D^(−1/2) + Eᵢⱼ·f[i,j] + Σₖ Eᵢₖ·Eₖⱼ·f[i,k,j] + O(E³)
//! f[i,j] = −1/(sᵢsⱼ(sᵢ + sⱼ))      f[i,k,j] = (sᵢ + sₖ + sⱼ)/(sᵢsₖsⱼ(sᵢ + sₖ)(sₖ + sⱼ)(sᵢ + sⱼ))
//! ```
//! where nothing is divided by a difference of eigenvalues. U is held constant, and U⁻¹ comes of it: so the first two derivatives
//! of this formula are those of Σ^(−1/2). E is below 2⁻⁹⁵ of Σ, hence E³ too small to tell.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Named, by_formula};
use super::whitening::{self, identity, product};
use super::{Call, Definition, Plan, Refused, Rule, Signature, json_float};
use crate::arithmetic::{DoubleDouble, Real, eigenvectors};

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecorrelatedBatchNorm {
    /// Added to the variances.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

impl Definition for DecorrelatedBatchNorm {
    const NAME: &'static str = "decorrelated_batch_norm";

    fn signature(&self) -> Signature {
        whitening::SIGNATURE
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        whitening::plan(self.eps, self.momentum, call, rule).map_err(Refused::uncounted)
    }

    by_formula!();
}

impl Formula for DecorrelatedBatchNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        whitening::outputs(evaluator, plan, rule, |sigma| {
            inverse_root(sigma, plan.partition.inner, &|x| evaluator.parameter(x))
        })
    }
}

/// Σ^(−1/2), row by row; `held` is a number as a program holds it.
fn inverse_root<R: Real>(sigma: &[R], size: usize, held: &dyn Fn(f64) -> R) -> Vec<R> {
    let [basis, inverse] = eigenbasis(sigma, size, held);
    let m = product(&product(&inverse, sigma, size), &basis, size);
    let s: Vec<R> = (0..size).map(|i| m[i * size + i].sqrt()).collect();
    let pair = |i: usize, j: usize| s[i] * s[j] * (s[i] + s[j]);
    let root = |index: usize| {
        let (i, j) = (index / size, index % size);
        let first = if i == j { R::constant(1.0) / s[i] } else { -(m[index] / pair(i, j)) };
        let others = (0..size).filter(|&k| k != i && k != j);
        let second = others.map(|k| {
            let slope = (s[i] + s[k] + s[j]) / (pair(i, k) * (s[k] + s[j]) * s[j] * (s[i] + s[j]));
            m[i * size + k] * m[k * size + j] * slope
        });
        first + R::sum(second)
    };
    let root: Vec<R> = (0..size * size).map(root).collect();
    product(&product(&basis, &root, size), &inverse, size)
}

/// U, a column for each eigenvector, as a program holds it; and U⁻¹, from Uᵀ by a step of Newton's method.
fn eigenbasis<R: Real>(sigma: &[R], size: usize, held: &dyn Fn(f64) -> R) -> [Vec<R>; 2] {
    let wide = |x: &R| {
        let hi = x.value();
        DoubleDouble { hi, lo: (*x - R::constant(hi)).value() }
    };
    let vectors = eigenvectors(&sigma.iter().map(wide).collect::<Vec<_>>(), size);
    // Zero, but that an error analysis grants C roundings of 1: where eigenvalues are equal a program may hold any other basis, whose
    // elements are not small where ours are, and which is orthogonal to within as much.
    let turned = (held(1.0) - held(1.0)) * R::constant(size as f64);
    let basis: Vec<R> = vectors.iter().map(|x| held(x.hi) + R::constant(x.lo) + turned).collect();
    let transposed: Vec<R> = (0..size * size).map(|index| basis[index % size * size + index / size]).collect();
    let twice = identity::<R>(size).into_iter().map(|x| x + x);
    let rest: Vec<R> = twice.zip(product(&basis, &transposed, size)).map(|(two, x)| two - x).collect();
    let inverse = product(&transposed, &rest, size);
    [basis, inverse]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::{Dual, Tracked};

    /// With two directions, and a bound on the rounding errors of each part.
    type Twice = Dual<Dual<Tracked>>;

    const U: f64 = f64::EPSILON / 2.0;

    fn number(value: f64) -> Tracked {
        Tracked { value, error: U * value.abs(), unit: U }
    }

    /// Matrices that move along two directions at once, the second with two equal eigenvalues.
    fn moving() -> [Vec<Twice>; 2] {
        let along = |[sigma, first, second]: [[f64; 9]; 3]| {
            let of = |k: usize| Dual {
                value: Dual { value: number(sigma[k]), derivative: number(first[k]) },
                derivative: Dual { value: number(second[k]), derivative: number(0.0) },
            };
            (0..9).map(of).collect()
        };
        let first = [0.5, 0.25, -0.75, 0.25, -1.0, 0.5, -0.75, 0.5, 0.125];
        let second = [-0.25, 1.0, 0.5, 1.0, 0.75, -0.5, 0.5, -0.5, 1.0];
        let apart = [2.0, 0.5, -0.25, 0.5, 1.0, 0.25, -0.25, 0.25, 3.0];
        let equal = [2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.5];
        [along([apart, first, second]), along([equal, first, second])]
    }

    /// W·Σ·W = I along both directions: of all symmetric matrices that are positive definite W alone has it, and since dW·(ΣW) +
    /// (WΣ)·dW is 0 for dW = 0 alone, its derivatives are the only ones too. Third-order terms are of the size of U's own errors,
    /// which are within the bounds that the products carry.
    #[test]
    fn the_root_and_its_first_two_derivatives_solve_its_equation() {
        let held =
            |x: f64| Twice::constant(x) + Dual { value: Dual { value: rounding(x), ..zero() }, derivative: zero() };
        for sigma in moving() {
            let w = inverse_root(&sigma, 3, &held);
            let unit = product(&product(&w, &sigma, 3), &w, 3);
            for index in 0..9 {
                let (row, column) = (index / 3, index % 3);
                let expected = f64::from(u8::from(row == column));
                let Dual { value, derivative } = unit[index];
                let parts = [value.value, value.derivative, derivative.value, derivative.derivative];
                for (part, expected) in parts.into_iter().zip([expected, 0.0, 0.0, 0.0]) {
                    assert!(
                        (part.value - expected).abs() <= part.error && part.error < 1e-10,
                        "{row} {column}: {part:?}"
                    );
                }
                let other = w[column * 3 + row].value.value;
                assert!((w[index].value.value.value - other.value).abs() <= 2.0 * other.error);
            }
            assert!((0..3).all(|k| w[4 * k].value.value.value > 0.0));
        }
    }

    fn zero() -> Dual<Tracked> {
        Dual { value: Tracked::constant(0.0), derivative: Tracked::constant(0.0) }
    }

    /// What holding `x` in binary64 may cost.
    fn rounding(x: f64) -> Tracked {
        Tracked { value: 0.0, ..number(x) }
    }
}
