//! L1 batch normalization (Wu et al. 2018, arXiv 1802.09769; Hoffer et al. 2018, arXiv 1803.01814, section 3.3): the mean
//! deviation in place of its root mean square.
//!
//! ```text
//! input: [N, C, *]    groups: batch norm's, the n = N·L values of channel c      s = √(π/2)·mean|x − μ|
//! train  y = (x − μ)/(s + eps)·w_c + b_c      running ← (1 − m)·running + m·(μ, s)
//! eval   y = (x − running_mean_c)/(running_scale_c + eps)·w_c + b_c
//! ```
//! Of normal values s is the standard deviation: E|z| = √(2/π). One value gives b. The derivative of |x| at 0 is 0.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, moved};
use super::{Call, Definition, Plan, Refused, Rule, Signature, Source, json_float};
use crate::arithmetic::{Real, slope_of_erf};

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct L1BatchNorm {
    /// Added to the scale.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

impl Definition for L1BatchNorm {
    const NAME: &'static str = "l1_batch_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "running_mean", "running_scale"],
            state: &["running_mean", "running_scale"],
            ..Signature::TRAINED
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let layer = Layer::of(self.signature(), self.eps).moving("running_mean", self.momentum);
        layer.plan(call, rule).map_err(Refused::uncounted)
    }

    by_formula!();
}

impl Formula for L1BatchNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let (means, scales) = (evaluator.tensor("running_mean"), evaluator.tensor("running_scale"));
        let eps = evaluator.parameter(rule.scale(plan.eps).eps);
        let (one, two) = (E::Real::constant(1.0), E::Real::constant(2.0));
        // √(π/2) = √2/(2/√π)
        let factor = two.sqrt() / slope_of_erf();
        let mut batch = Vec::new();
        for channel in 0..plan.partition.groups() {
            let positions = plan.partition.positions(channel);
            let (mean, _) = evaluator.moments("input", &positions, true, 0);
            let size = |position: &usize| {
                let deviation = y[*position].deviation(mean);
                deviation * (two * deviation.step() - one)
            };
            let sizes: Vec<E::Real> = positions.iter().map(size).collect();
            let scale = E::Real::sum(sizes.into_iter()) / E::Real::constant(positions.len() as f64) * factor;
            batch.push((mean, scale));
            let stored = plan.source == Source::Stored;
            let (mean, scale) = if stored { (means[channel], scales[channel]) } else { (mean, scale) };
            for position in positions {
                y[position] = y[position].deviation(mean) / (scale + eps);
            }
        }
        vec![
            affine(evaluator, plan, y),
            moved(evaluator, plan, "running_mean", &|channel| batch[channel].0),
            moved(evaluator, plan, "running_scale", &|channel| batch[channel].1),
        ]
    }
}
