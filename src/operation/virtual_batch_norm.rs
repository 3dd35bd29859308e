//! Virtual batch normalization (Salimans et al. 2016, arXiv 1606.03498, section 3.4): each sample with a batch of R others
//! that is fixed once and for all.
//!
//! ```text
//! input: [N, C, *]    reference: [R, C, *]    groups: the values of channel c of one sample and of all R references
//! μ = (μ_x + R·μ_r)/(R + 1)      v = (v_x + (μ_x − μ)² + R·(v_r + (μ_r − μ)²))/(R + 1)        both biased
//! y = (x − μ)/√(v + eps)·w_c + b_c
//! ```
//! v is the mean square less the squared mean, written so that nothing cancels. A batch of one is like any other: no sample
//! sees another.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, instance, sigma, sizes};
use super::values::misshapen;
use super::{Call, Definition, Plan, Refused, Rule, Signature, json_float};
use crate::arithmetic::Real;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtualBatchNorm {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for VirtualBatchNorm {
    const NAME: &'static str = "virtual_batch_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "reference"],
            optional: &["weight", "bias"],
            differentiable: &["input", "reference", "weight", "bias"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let plan =
            Layer::of(self.signature(), self.eps).but(&["reference"]).plan(call, rule).map_err(Refused::uncounted)?;
        let (input, reference) = (&call.tensors["input"].shape, &call.tensors["reference"].shape);
        if reference.len() != input.len() || reference[1..] != input[1..] || reference[0] == 0 {
            let expected = format!("[R, ..] with R ≥ 1 and the input's sizes {:?} after it", &input[1..]);
            return Err(Refused::uncounted(misshapen("reference", reference, &expected)));
        }
        Ok(plan)
    }

    by_formula!();
}

impl Formula for VirtualBatchNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let [batch, channels, length] = sizes(plan);
        let references = evaluator.tensor("reference").len() / (channels * length);
        let weigh = |own: E::Real, reference: E::Real| {
            let count = E::Real::constant(references as f64);
            (own + count * reference) / E::Real::constant(references as f64 + 1.0)
        };
        for channel in 0..channels {
            let positions: Vec<usize> = (0..references).flat_map(|sample| instance(plan, sample, channel)).collect();
            let reference = evaluator.moments("reference", &positions, true, 0);
            for sample in 0..batch {
                let positions = instance(plan, sample, channel);
                let own = evaluator.moments("input", &positions, true, 0);
                let mean = weigh(own.0, reference.0);
                let spread = |(other, variance): (E::Real, E::Real)| {
                    let between = other.deviation(mean);
                    variance + between * between
                };
                let divisor = sigma(evaluator, weigh(spread(own), spread(reference)), plan, rule);
                for position in positions {
                    y[position] = y[position].deviation(mean) / divisor;
                }
            }
        }
        vec![affine(evaluator, plan, y)]
    }
}
