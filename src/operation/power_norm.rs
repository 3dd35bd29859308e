//! Power normalization (Shen et al. 2020, arXiv 2003.07845, algorithm 1): the running quadratic mean normalizes.
//!
//! ```text
//! input: [N, C, *]    groups: batch norm's      s = mean x² of the n = N·L values of channel c
//! train  warm-up  y = x/√(s + eps)·w_c + b_c
//!        later    y = x/√(running_square_c + eps)·w_c + b_c       running_square before this batch
//!        running_square ← (1 − m)·running_square + m·s            after use; m is 1 − α of the paper, whose α is 0.9
//! eval   y = x/√(running_square_c + eps)·w_c + b_c
//! ```
//! Nothing is subtracted. After the warm-up the statistics are constants of the gradient; the paper's correction of it, an
//! average over batches as Online Norm's, is not part of this operation.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, moved, sigma};
use super::{Call, Definition, Plan, Refused, Rule, Signature, Source, json_float};

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerNorm {
    /// Added to the mean square.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
    /// Whether training normalizes with the batch's own mean square.
    pub warmup: bool,
}

impl Definition for PowerNorm {
    const NAME: &'static str = "power_norm";

    fn signature(&self) -> Signature {
        Signature { required: &["input", "running_square"], state: &["running_square"], ..Signature::TRAINED }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let layer = Layer::of(self.signature(), self.eps).moving("running_square", self.momentum);
        let plan = layer.plan(call, rule).map_err(Refused::uncounted)?;
        let source = if self.warmup { plan.source } else { Source::Stored };
        Ok(Plan { centred: false, source, ..plan })
    }

    by_formula!();
}

impl Formula for PowerNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let stored = evaluator.tensor("running_square");
        let of_batch = |channel| evaluator.moments("input", &plan.partition.positions(channel), false, 0).1;
        for channel in 0..plan.partition.groups() {
            let own = stored.get(channel).filter(|_| plan.source == Source::Stored);
            let square = own.copied().unwrap_or_else(|| of_batch(channel));
            let divisor = sigma(evaluator, square, plan, rule);
            for position in plan.partition.positions(channel) {
                y[position] = y[position] / divisor;
            }
        }
        vec![affine(evaluator, plan, y), moved(evaluator, plan, "running_square", of_batch)]
    }
}
