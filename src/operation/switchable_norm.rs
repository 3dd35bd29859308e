//! Switchable normalization (Luo et al. 2018, arXiv 1806.10779): statistics of instances, samples and the batch, mixed.
//!
//! ```text
//! input: [N, C, *]    μ_I, v_I: of each sample and channel      μ_L, v_L: of each sample      μ_B, v_B: of each channel
//! p = softmax(mean_logits)      q = softmax(var_logits)         logits: [3], of instance, layer and batch
//! μ = p_I·μ_I + p_L·μ_L + p_B·μ_B      v = q_I·v_I + q_L·v_L + q_B·v_B      all variances biased
//! y = (x − μ)/√(v + eps)·w_c + b_c
//! train  running ← (1 − m)·running + m·(μ_B, v_B)      eval  μ_B, v_B: running_mean, running_var
//! ```
//! Infinite logits apart, one-hot weights give instance norm, layer norm over all values of a sample, and batch norm. One
//! position and one sample leave the layer's variance alone above 0.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, instance, moved, sigma, sizes};
use super::values::check_shapes;
use super::{Call, Definition, Plan, Refused, Rule, Signature, Source, json_float};
use crate::arithmetic::{Function, Real};

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwitchableNorm {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

const LOGITS: [&str; 2] = ["mean_logits", "var_logits"];

impl Definition for SwitchableNorm {
    const NAME: &'static str = "switchable_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "mean_logits", "var_logits", "running_mean", "running_var"],
            state: &["running_mean", "running_var"],
            differentiable: &["input", "mean_logits", "var_logits", "weight", "bias"],
            ..Signature::TRAINED
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let layer = Layer::of(self.signature(), self.eps).but(&LOGITS).moving("running_mean", self.momentum);
        let plan = layer.plan(call, rule).and_then(|plan| check_shapes(call, &LOGITS, &[3]).map(|()| plan));
        plan.map_err(Refused::uncounted)
    }

    by_formula!();
}

impl Formula for SwitchableNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let [batch, channels, _] = sizes(plan);
        let moments = |positions: &[usize]| evaluator.moments("input", positions, true, rule.degrees_of_freedom);
        let of_batch: Vec<(E::Real, E::Real)> =
            (0..channels).map(|channel| moments(&plan.partition.positions(channel))).collect();
        let stored = (evaluator.tensor("running_mean"), evaluator.tensor("running_var"));
        let [p, q] = LOGITS.map(|name| softmax(&evaluator.tensor(name)));
        let mix = |weights: &[E::Real], parts: [E::Real; 3]| {
            weights[0] * parts[0] + weights[1] * parts[1] + weights[2] * parts[2]
        };
        for sample in 0..batch {
            let whole: Vec<usize> = (0..channels).flat_map(|channel| instance(plan, sample, channel)).collect();
            let of_layer = moments(&whole);
            for (channel, &of_batch) in of_batch.iter().enumerate() {
                let positions = instance(plan, sample, channel);
                let of_instance = moments(&positions);
                let of_batch = match plan.source {
                    Source::Stored => (stored.0[channel], stored.1[channel]),
                    _ => of_batch,
                };
                let mean = mix(&p, [of_instance.0, of_layer.0, of_batch.0]);
                let variance = mix(&q, [of_instance.1, of_layer.1, of_batch.1]);
                let divisor = sigma(evaluator, variance, plan, rule);
                for position in positions {
                    y[position] = y[position].deviation(mean) / divisor;
                }
            }
        }
        vec![
            affine(evaluator, plan, y),
            moved(evaluator, plan, "running_mean", &|channel| of_batch[channel].0),
            moved(evaluator, plan, "running_var", &|channel| of_batch[channel].1),
        ]
    }
}

/// e^(a_k − max a)/Σ e^(a_j − max a), which does not depend on the maximum: it is held constant.
fn softmax<R: Real>(logits: &[R]) -> Vec<R> {
    let most = logits.iter().copied().reduce(R::max).unwrap_or(R::constant(0.0)).held();
    let powers: Vec<R> = logits.iter().map(|&logit| (logit - most).function(Function::Exp)).collect();
    let sum = R::sum(powers.iter().copied());
    powers.into_iter().map(|power| power / sum).collect()
}
