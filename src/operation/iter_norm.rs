//! Iterative normalization (Huang et al. 2019, arXiv 1904.03441, algorithm 1): whitening by Newton's iteration.
//!
//! ```text
//! Σ_N = Σ/tr Σ      P₀ = I      P_k = (3·P_{k−1} − P_{k−1}³·Σ_N)/2      W = P_T/√(tr Σ)
//! y = W·X·w_c + b_c        Σ, X, training and evaluation: see whitening.rs
//! ```
//! W approaches Σ^(−1/2) as T grows, and leaves it again where the iteration is carried too far; T = 5 is the paper's.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Named, by_formula};
use super::whitening::{self, identity, product};
use super::{Call, Definition, Plan, Refusal, RefusalKind, Refused, Rule, Signature, json_float};
use crate::arithmetic::Real;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IterNorm {
    /// The number of Newton's steps T, at most 16.
    pub iterations: usize,
    /// Added to the variances.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

/// More steps than anyone makes: the iteration has long left the root again.
const MOST_ITERATIONS: usize = 16;

impl Definition for IterNorm {
    const NAME: &'static str = "iter_norm";

    fn signature(&self) -> Signature {
        whitening::SIGNATURE
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_channels(call, rule).map_err(Refused::uncounted)
    }

    by_formula!();
}

impl IterNorm {
    fn plan_channels(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        let plan = whitening::plan(self.eps, self.momentum, call, rule)?;
        if self.iterations > MOST_ITERATIONS {
            let message = format!("iterations is {}; expected at most {MOST_ITERATIONS}", self.iterations);
            return Err(Refusal::new(RefusalKind::Parameter, message));
        }
        Ok(Plan { iterations: self.iterations, ..plan })
    }
}

impl Formula for IterNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        whitening::outputs(evaluator, plan, rule, |sigma| projection(sigma, plan.partition.inner, plan.iterations))
    }
}

/// W, row by row.
fn projection<R: Real>(sigma: &[R], size: usize, iterations: usize) -> Vec<R> {
    let trace = R::sum((0..size).map(|k| sigma[k * size + k]));
    let scaled: Vec<R> = sigma.iter().map(|&element| element / trace).collect();
    let (half, three) = (R::constant(0.5), R::constant(3.0));
    let mut p: Vec<R> = identity(size);
    for _ in 0..iterations {
        let cubed = product(&product(&p, &p, size), &p, size);
        let through = product(&cubed, &scaled, size);
        p = p.iter().zip(&through).map(|(&p, &through)| (three * p - through) * half).collect();
    }
    let root = trace.sqrt();
    p.into_iter().map(|element| element / root).collect()
}
