//! Extended batch normalization (Luo et al. 2020, arXiv 2003.05569): a mean for each channel, one deviation for all, so that
//! small batches have enough values for it.
//!
//! ```text
//! input: [N, C, *]    μ_c: the mean of the N·L values of channel c      v: the mean of (x − μ_c)² over all N·C·L values
//! train  y = (x − μ_c)/√(v + eps)·w_c + b_c      running ← (1 − m)·running + m·(μ, v)      v biased
//! eval   y = (x − running_mean_c)/√(running_var + eps)·w_c + b_c        running_var: [1]
//! ```
//! One sample of one position gives b: x is its own mean.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, moved, sigma};
use super::values::check_shapes;
use super::{Call, Definition, Plan, Refused, Rule, Signature, Source, json_float};
use crate::arithmetic::Real;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExtendedBatchNorm {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

impl Definition for ExtendedBatchNorm {
    const NAME: &'static str = "extended_batch_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "running_mean", "running_var"],
            state: &["running_mean", "running_var"],
            ..Signature::TRAINED
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let layer = Layer::of(self.signature(), self.eps).but(&["running_var"]).moving("running_mean", self.momentum);
        let plan = layer.plan(call, rule).and_then(|plan| check_shapes(call, &["running_var"], &[1]).map(|()| plan));
        plan.map_err(Refused::uncounted)
    }

    by_formula!();
}

impl Formula for ExtendedBatchNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let channels = plan.partition.groups();
        let of_channel =
            |channel| evaluator.moments("input", &plan.partition.positions(channel), true, rule.degrees_of_freedom);
        let batch: Vec<(E::Real, E::Real)> = (0..channels).map(of_channel).collect();
        // All channels have the same number of values.
        let variances = batch.iter().map(|&(_, variance)| variance);
        let variance = E::Real::sum(variances) / E::Real::constant(channels as f64);
        let (means, stored) = (evaluator.tensor("running_mean"), plan.source == Source::Stored);
        let divisor = sigma(evaluator, if stored { evaluator.tensor("running_var")[0] } else { variance }, plan, rule);
        for channel in 0..channels {
            let mean = if stored { means[channel] } else { batch[channel].0 };
            for position in plan.partition.positions(channel) {
                y[position] = y[position].deviation(mean) / divisor;
            }
        }
        vec![
            affine(evaluator, plan, y),
            moved(evaluator, plan, "running_mean", &|channel| batch[channel].0),
            moved(evaluator, plan, "running_var", &|_| variance),
        ]
    }
}
