//! Mean-only batch normalization (Salimans and Kingma 2016, arXiv 1602.07868, section 3), the companion of weight norm.
//!
//! ```text
//! input: [N, C, *]    groups: batch norm's, the n = N·L values of channel c
//! train  y = x − μ + b_c              running_mean ← (1 − m)·running_mean + m·μ
//! eval   y = x − running_mean_c + b_c
//! ```
//! Nothing is divided: a batch of one value gives b.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, moved};
use super::{Call, Definition, Plan, Refused, Rule, Signature, Source, json_float};
use crate::arithmetic::Real;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanOnlyBatchNorm {
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

const VECTORS: [&str; 2] = ["bias", "running_mean"];

impl Definition for MeanOnlyBatchNorm {
    const NAME: &'static str = "mean_only_batch_norm";

    fn signature(&self) -> Signature {
        Signature {
            optional: &VECTORS,
            state: &["running_mean"],
            differentiable: &["input", "bias"],
            modes: true,
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let layer = Layer::of(self.signature(), 0.0).moving("running_mean", self.momentum);
        layer.plan(call, rule).map_err(Refused::uncounted)
    }

    by_formula!();
}

impl Formula for MeanOnlyBatchNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, _rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let stored = evaluator.tensor("running_mean");
        let batch_mean = |channel| evaluator.moments("input", &plan.partition.positions(channel), true, 0).0;
        for channel in 0..plan.partition.groups() {
            let own = stored.get(channel).filter(|_| plan.source == Source::Stored);
            let mean = own.copied().unwrap_or_else(|| batch_mean(channel));
            for position in plan.partition.positions(channel) {
                y[position] = y[position].deviation(mean);
            }
        }
        let mut outputs = vec![affine(evaluator, plan, y)];
        if plan.running {
            outputs.push(moved(evaluator, plan, "running_mean", &batch_mean));
        }
        outputs
    }
}
