//! Positional normalization (Li et al. 2019, arXiv 1907.04312, equation 2): layer norm over the channels of each position,
//! without parameters.
//!
//! ```text
//! input: [N, C, *]    groups: one for each sample and position, the C values of its channels
//! y = (x − μ)/√(v + eps)        v biased, /C, as in the paper; unbiased, /(C − 1), as in its authors' code
//! ```
//! One channel gives 0, or NaN where the variance is unbiased. μ and √(v + eps) are what the paper hands on to a later layer.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Named, by_formula, sigma};
use super::values::{channels_first, misshapen};
use super::{Call, Definition, Partition, Plan, Refused, Rule, Signature, json_float};
use crate::arithmetic::Real;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PositionalNorm {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// Whether the variance is divided by C − 1.
    pub unbiased: bool,
}

impl Definition for PositionalNorm {
    const NAME: &'static str = "positional_norm";

    fn signature(&self) -> Signature {
        Signature::STATELESS
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let shape = &call.tensors["input"].shape;
        channels_first(call, 3..=usize::MAX, "rank 3 or more").map_err(Refused::uncounted)?;
        if shape[1] == 0 {
            return Err(Refused::uncounted(misshapen("the input", shape, "at least one channel")));
        }
        Ok(Plan { centred: true, ..Plan::of_norms(Partition::lines(shape, 1), shape, self.eps) })
    }

    by_formula!();
}

impl Formula for PositionalNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let groups = if y.is_empty() { 0 } else { plan.partition.groups() };
        let degrees_of_freedom = if self.unbiased { 1 } else { rule.degrees_of_freedom };
        for group in 0..groups {
            let positions = plan.partition.positions(group);
            let (mean, variance) = evaluator.moments("input", &positions, true, degrees_of_freedom);
            let divisor = sigma(evaluator, variance, plan, rule);
            for position in positions {
                y[position] = y[position].deviation(mean) / divisor;
            }
        }
        let (name, shape) = plan.outputs[0].clone();
        vec![(name, shape, y)]
    }
}
