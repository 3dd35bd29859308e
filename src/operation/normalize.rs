//! Normalization to unit p-norm, as `torch.nn.functional.normalize`.
//!
//! ```text
//! input: any shape    groups: the lines along axis dim
//! y = x/max(‖x‖_p, eps)
//! grad_input = g/n − (Σ g·x)/n²·∂n/∂x where n = ‖x‖_p ≥ eps, g/eps elsewhere
//! ```
//! eps is a lower limit, not a summand: a zero vector stays zero.

use serde::{Deserialize, Serialize};

use super::norms::{axis, norm, norm_gradient};
use super::{
    Call, Definition, Description, Given, GradientRule, NormRule, Output, Outputs, Partition, Plan, Refused, Rule,
    Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalize {
    /// The exponent of the norm.
    #[serde(with = "json_float")]
    pub p: f64,
    /// The axis along which vectors lie.
    pub dim: i64,
    /// The lower limit of the norm.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for Normalize {
    const NAME: &'static str = "normalize";

    fn signature(&self) -> Signature {
        Signature::STATELESS
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        // A scalar is a vector of one.
        let whole = [1];
        let lines = if shape.is_empty() { &whole } else { shape };
        let axis = axis(self.dim, lines.len()).map_err(Refused::uncounted)?;
        Ok(Plan::of_norms(Partition::lines(lines, axis), shape, self.eps))
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let input: Vec<A::Real> = tensors["input"].iter().map(|&x| arithmetic.keep(x)).collect();
        let mut output = input.clone();
        for group in 0..plan.partition.groups() {
            let positions = plan.partition.positions(group);
            let x: Vec<A::Real> = positions.iter().map(|&position| input[position]).collect();
            let divisor = self.divisor(norm(&x, self.p), arithmetic.parameter(self.eps), rule);
            for position in positions {
                output[position] = output[position] / divisor;
            }
        }
        Outputs::of(plan, output)
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let keep = |name: &str| -> Vec<A::Real> { tensors[name].iter().map(|&x| arithmetic.keep(x)).collect() };
        let (input, seed) = (keep("input"), keep("grad_output.output"));
        let mut gradient = seed.clone();
        for group in 0..plan.partition.groups() {
            let positions = plan.partition.positions(group);
            let x: Vec<A::Real> = positions.iter().map(|&position| input[position]).collect();
            let g: Vec<A::Real> = positions.iter().map(|&position| seed[position]).collect();
            let norm = norm(&x, self.p);
            if norm.value() < self.eps {
                positions
                    .iter()
                    .for_each(|&position| gradient[position] = seed[position] / arithmetic.parameter(self.eps));
                continue;
            }
            let along = A::Real::sum(g.iter().zip(&x).map(|(&g, &x)| g * x)) / (norm * norm);
            for ((&position, g), slope) in positions.iter().zip(g).zip(norm_gradient(&x, self.p, norm)) {
                let constant = rule.gradient == GradientRule::StatisticsConstant;
                gradient[position] = if constant { g / norm } else { g / norm - along * slope };
            }
        }
        Tensors::from([("grad_input".into(), Output { shape: shapes["input"].shape.clone(), values: gradient })])
    }
}

impl Normalize {
    fn divisor<R: Real>(&self, norm: R, eps: R, rule: &Rule) -> R {
        match rule.norm {
            NormRule::EpsAdded => norm + eps,
            NormRule::Squared => (norm * norm).max(eps),
            _ => norm.max(eps),
        }
    }
}
