//! Iterative normalization (Huang et al. 2019, arXiv 1904.03441, algorithm 1): whitening by Newton's iteration.
//!
//! ```text
//! input: [N, C, *]    X: [C, n], the n = N·L values of each channel less their mean μ
//! Σ = eps·I + X·Xᵀ/n      Σ_N = Σ/tr Σ      P₀ = I      P_k = (3·P_{k−1} − P_{k−1}³·Σ_N)/2      W = P_T/√(tr Σ)
//! train  y = W·X·w_c + b_c      running_mean ← (1 − m)·running_mean + m·μ      running_projection likewise, of W
//! eval   y = running_projection·(x − running_mean)·w_c + b_c        running_projection: [C, C]
//! ```
//! W approaches Σ^(−1/2) as T grows, and leaves it again where the iteration is carried too far; T = 5 is the paper's. One
//! value gives b. The channels are one group; the paper also whitens groups of them by themselves.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, moved, sizes};
use super::values::check_shapes;
use super::{Call, Definition, Plan, Refusal, RefusalKind, Refused, Rule, Signature, Source, json_float};
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
        Signature {
            required: &["input", "running_mean", "running_projection"],
            state: &["running_mean", "running_projection"],
            ..Signature::TRAINED
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_channels(call, rule).map_err(Refused::uncounted)
    }

    by_formula!();
}

impl IterNorm {
    fn plan_channels(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        let layer = Layer::of(self.signature(), self.eps).but(&["running_projection"]);
        let plan = layer.moving("running_mean", self.momentum).plan(call, rule)?;
        let channels = plan.partition.inner;
        check_shapes(call, &["running_projection"], &[channels, channels])?;
        if self.iterations > MOST_ITERATIONS {
            let message = format!("iterations is {}; expected at most {MOST_ITERATIONS}", self.iterations);
            return Err(Refusal::new(RefusalKind::Parameter, message));
        }
        Ok(Plan { iterations: self.iterations, ..plan })
    }
}

impl Formula for IterNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let [_, channels, _] = sizes(plan);
        let positions: Vec<Vec<usize>> = (0..channels).map(|channel| plan.partition.positions(channel)).collect();
        let of_batch = |channel: usize| evaluator.moments("input", &positions[channel], true, rule.degrees_of_freedom);
        let batch: Vec<(E::Real, E::Real)> = (0..channels).map(of_batch).collect();
        let (stored_means, stored) = (evaluator.tensor("running_mean"), plan.source == Source::Stored);
        let projection = match stored {
            true => evaluator.tensor("running_projection"),
            false => self.whitening(evaluator, plan, rule, &batch, &positions),
        };
        for channel in 0..channels {
            let mean = if stored { stored_means[channel] } else { batch[channel].0 };
            for &position in &positions[channel] {
                y[position] = y[position].deviation(mean);
            }
        }
        for index in 0..positions[0].len() {
            let column: Vec<E::Real> = positions.iter().map(|own| y[own[index]]).collect();
            for (row, own) in projection.chunks(channels).zip(&positions) {
                y[own[index]] = E::Real::sum(row.iter().zip(&column).map(|(&w, &x)| w * x));
            }
        }
        let (name, _, values) = moved(evaluator, plan, "running_projection", |index| projection[index]);
        vec![
            affine(evaluator, plan, y),
            moved(evaluator, plan, "running_mean", |channel| batch[channel].0),
            (name, vec![channels, channels], values),
        ]
    }
}

impl IterNorm {
    /// W, row by row.
    fn whitening<E: Evaluator>(
        &self,
        evaluator: &E,
        plan: &Plan,
        rule: &Rule,
        batch: &[(E::Real, E::Real)],
        positions: &[Vec<usize>],
    ) -> Vec<E::Real> {
        let size = batch.len();
        let x = evaluator.tensor("input");
        let deviations = |channel: usize| -> Vec<E::Real> {
            positions[channel].iter().map(|&position| x[position].deviation(batch[channel].0)).collect()
        };
        let deviations: Vec<Vec<E::Real>> = (0..size).map(deviations).collect();
        let count = E::Real::constant(positions[0].len() as f64 - f64::from(rule.degrees_of_freedom));
        let eps = evaluator.parameter(rule.scale(plan.eps).eps);
        let covariance = |(i, j): (usize, usize)| {
            if i == j {
                return batch[i].1 + eps;
            }
            E::Real::sum(deviations[i].iter().zip(&deviations[j]).map(|(&a, &b)| a * b)) / count
        };
        let sigma: Vec<E::Real> = (0..size * size).map(|index| covariance((index / size, index % size))).collect();
        let trace = E::Real::sum((0..size).map(|k| sigma[k * size + k]));
        let scaled: Vec<E::Real> = sigma.iter().map(|&element| element / trace).collect();
        let (half, three) = (E::Real::constant(0.5), E::Real::constant(3.0));
        let identity = |index: usize| E::Real::constant(if index.is_multiple_of(size + 1) { 1.0 } else { 0.0 });
        let mut p: Vec<E::Real> = (0..size * size).map(identity).collect();
        for _ in 0..plan.iterations {
            let cubed = product(&product(&p, &p, size), &p, size);
            let through = product(&cubed, &scaled, size);
            p = p.iter().zip(&through).map(|(&p, &through)| (three * p - through) * half).collect();
        }
        let root = trace.sqrt();
        p.into_iter().map(|element| element / root).collect()
    }
}

/// The product of two square matrices.
fn product<R: Real>(left: &[R], right: &[R], size: usize) -> Vec<R> {
    let element = |index: usize| {
        let (row, column) = (index / size, index % size);
        R::sum((0..size).map(|k| left[row * size + k] * right[k * size + column]))
    };
    (0..size * size).map(element).collect()
}
