//! The residual step of the normalized transformer (Loshchilov et al. 2024, arXiv 2410.01131, equations 10 and 11): along
//! the sphere, from where a block started towards where it points.
//!
//! ```text
//! input: [*, d]    block: [*, d]    alpha: [d]      unit(z) = z/max(‖z‖₂, eps), over the last axis
//! y = unit(input + alpha·(unit(block) − input))
//! ```
//! The paper has no eps, and rows of length 1; where a row is 0 the limit keeps it 0.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Named, by_formula};
use super::normalization::check_dtypes;
use super::values::{check_shapes, misshapen};
use super::{Call, Definition, Partition, Plan, Refusal, Refused, Rule, Signature, json_float};
use crate::arithmetic::Real;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitNormStep {
    /// The lower limit of a norm.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for UnitNormStep {
    const NAME: &'static str = "unit_norm_step";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "block", "alpha"],
            differentiable: &["input", "block", "alpha"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        self.plan_rows(call).map_err(Refused::uncounted)
    }

    by_formula!();
}

impl UnitNormStep {
    fn plan_rows(&self, call: &Call<'_>) -> Result<Plan, Refusal> {
        let shape = &call.tensors["input"].shape;
        let Some(&length) = shape.last() else { return Err(misshapen("the input", shape, "rank 1 or more")) };
        check_dtypes(call.tensors, &["block", "alpha"])?;
        check_shapes(call, &["block"], shape)?;
        check_shapes(call, &["alpha"], &[length])?;
        Ok(Plan::of_norms(Partition::lines(shape, shape.len() - 1), shape, self.eps))
    }
}

impl Formula for UnitNormStep {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let (input, block, alpha) = (evaluator.tensor("input"), evaluator.tensor("block"), evaluator.tensor("alpha"));
        let eps = evaluator.parameter(rule.scale(plan.eps).eps);
        let unit = |z: &[E::Real]| -> Vec<E::Real> {
            let square = E::Real::sum(z.iter().map(|&z| z * z));
            let least = eps * eps;
            // The root of 0 has no derivative; that of the limit has, and it is taken there.
            let norm = square.where_larger(least, square, least).sqrt();
            z.iter().map(|&z| z / norm).collect()
        };
        let length = alpha.len().max(1);
        let rows = input.chunks(length).zip(block.chunks(length));
        let step = |(input, block): (&[E::Real], &[E::Real])| {
            let towards = unit(block);
            let moved: Vec<E::Real> = (0..length)
                .map(|k| {
                    let way = towards[k] - input[k];
                    input[k] + if rule.alpha_dropped { way } else { alpha[k] * way }
                })
                .collect();
            unit(&moved)
        };
        let (name, shape) = plan.outputs[0].clone();
        vec![(name, shape, rows.flat_map(step).collect())]
    }
}
