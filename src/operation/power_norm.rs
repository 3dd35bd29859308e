//! Power normalization (Shen et al. 2020, arXiv 2003.07845, algorithm 1): the running quadratic mean normalizes.
//!
//! ```text
//! input: [N, C, *]    groups: batch norm's      s = mean x² of the n = N·L values of channel c
//! train  warm-up  y = x/√(s + eps)·w_c + b_c
//!        later    y = x/√(running_square_c + eps)·w_c + b_c       running_square before this batch
//!        running_square ← (1 − m)·running_square + m·s            after use; m is 1 − α of the paper, whose α is 0.9
//! eval   y = x/√(running_square_c + eps)·w_c + b_c
//! ```
//! Nothing is subtracted. After the warm-up the statistics are constants of the gradient; what the paper does about that is
//! [`PowerNormBackward`], an operation of its own, since its state outlives the call.
//!
//! ```text
//! input: [N, C, *], the gradient g by x/σ      normalized: z = x/σ      sigma: [C], the √(running_square + eps) of each channel
//! g′ = g − m·error_along_c·z      output = g′/σ_c      error_along_c ← error_along_c + mean g′·z, over N and L, after use
//! ```
//! The ν of the paper is m·error_along: ν ← ν·(1 − m·mean z²) + m·mean g·z. The output is linear in g, and differentiated as
//! such. The authors' code (sIncerass/powernorm, mask_powernorm.py) divides by the σ of the batch even after the warm-up.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, moved, sigma, sizes};
use super::values::check_shapes;
use super::{Call, Definition, OnlineRule, Plan, Refused, Rule, Signature, Source, Updates, json_float};
use crate::arithmetic::Real;

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

/// The hyper-parameter of its backward pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerNormBackward {
    /// The weight of the accumulated error.
    #[serde(with = "json_float")]
    pub momentum: f64,
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
        vec![affine(evaluator, plan, y), moved(evaluator, plan, "running_square", &of_batch)]
    }
}

impl Definition for PowerNormBackward {
    const NAME: &'static str = "power_norm_backward";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "normalized", "sigma", "error_along"],
            state: &["error_along"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let layer = Layer::of(self.signature(), 0.0).but(&["normalized"]);
        let plan = layer.plan(call, rule).map_err(Refused::uncounted)?;
        check_shapes(call, &["normalized"], &call.tensors["input"].shape).map_err(Refused::uncounted)?;
        Ok(plan)
    }

    by_formula!();
}

impl Formula for PowerNormBackward {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut d = evaluator.tensor("input");
        let (z, sigma) = (evaluator.tensor("normalized"), evaluator.tensor("sigma"));
        let mut along = evaluator.tensor("error_along");
        let [batch, channels, length] = sizes(plan);
        let (momentum, count) = (evaluator.parameter(self.momentum), E::Real::constant((batch * length) as f64));
        for channel in 0..channels {
            let positions = plan.partition.positions(channel);
            if rule.online != OnlineRule::WithoutControl {
                for &position in &positions {
                    d[position] = d[position] - momentum * along[channel] * z[position];
                }
            }
            if rule.updates != Updates::Never {
                let error = E::Real::sum(positions.iter().map(|&position| d[position] * z[position])) / count;
                along[channel] = along[channel] + error;
            }
            for &position in &positions {
                d[position] = d[position] / sigma[channel];
            }
        }
        let (name, shape) = plan.outputs[0].clone();
        vec![(name, shape, d), ("error_along", vec![channels], along)]
    }
}
