//! Adaptive batch normalization: evaluation with statistics between those of training and those of the batch at hand (Li et
//! al. 2017, arXiv 1603.04779; Schneider et al. 2020, arXiv 2006.16971, equation 3; Nado et al. 2020, arXiv 2006.10963).
//!
//! ```text
//! input: [N, C, *]    groups: batch norm's      s: source_count, the samples that the stored statistics count for
//! μ = (s·running_mean_c + N·μ_c)/(s + N)      v = (s·running_var_c + N·v_c)/(s + N)        v_c biased
//! y = (x − μ)/√(v + eps)·w_c + b_c
//! ```
//! s = 0 normalizes with the batch alone, s = ∞ would be evaluation. The stored statistics stay what they are. The formula is
//! the paper's: the spread of the two means is not in v.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, sigma, sizes};
use super::{Call, Definition, Plan, Refusal, RefusalKind, Refused, Rule, Signature, json_float};
use crate::arithmetic::Real;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveBatchNorm {
    /// How many samples the stored statistics count for, at least 0.
    #[serde(with = "json_float")]
    pub source_count: f64,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for AdaptiveBatchNorm {
    const NAME: &'static str = "adaptive_batch_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "running_mean", "running_var"],
            optional: &["weight", "bias"],
            differentiable: &["input", "weight", "bias"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        if !self.source_count.is_finite() || self.source_count < 0.0 {
            let message = format!("source_count is {}; expected a finite number of at least 0", self.source_count);
            return Err(Refused::uncounted(Refusal::new(RefusalKind::Parameter, message)));
        }
        Layer::of(self.signature(), self.eps).plan(call, rule).map_err(Refused::uncounted)
    }

    by_formula!();
}

impl Formula for AdaptiveBatchNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let (means, variances) = (evaluator.tensor("running_mean"), evaluator.tensor("running_var"));
        let [batch, channels, _] = sizes(plan);
        let (source, count) = (evaluator.parameter(self.source_count), E::Real::constant(batch as f64));
        let weigh = |stored: E::Real, own: E::Real| (source * stored + count * own) / (source + count);
        for channel in 0..channels {
            let positions = plan.partition.positions(channel);
            let (mean, variance) = evaluator.moments("input", &positions, true, rule.degrees_of_freedom);
            let mean = weigh(means[channel], mean);
            let divisor = sigma(evaluator, weigh(variances[channel], variance), plan, rule);
            for position in positions {
                y[position] = y[position].deviation(mean) / divisor;
            }
        }
        vec![affine(evaluator, plan, y)]
    }
}
