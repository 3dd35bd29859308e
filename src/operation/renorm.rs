//! Limiting norms, as `torch.renorm`.
//!
//! ```text
//! input: rank 2 or more    groups: for each index of axis dim all elements that have it
//! y = x·maxnorm/(n + 1e-7) where n = ‖x‖_p > maxnorm, x elsewhere
//! grad_input = f·g − f/(n + 1e-7)·(Σ g·x)·∂n/∂x,   f = maxnorm/(n + 1e-7)
//! ```
//! The 1e-7 is PyTorch's: a row that was limited has a norm slightly below maxnorm.

use serde::{Deserialize, Serialize};

use super::norms::{axis, norm, norm_gradient};
use super::{
    Call, Definition, Description, Given, GradientRule, NormRule, Output, Outputs, Partition, Plan, Refusal,
    RefusalKind, Refused, Rule, Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Renorm {
    /// The exponent of the norm.
    #[serde(with = "json_float")]
    pub p: f64,
    /// The axis whose slices are limited.
    pub dim: i64,
    /// The largest norm that is left alone.
    #[serde(with = "json_float")]
    pub maxnorm: f64,
}

const GUARD: f64 = 1e-7;

impl Definition for Renorm {
    const NAME: &'static str = "renorm";

    fn signature(&self) -> Signature {
        Signature::STATELESS
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        let refuse = |kind, message: String| Err(Refused::uncounted(Refusal::new(kind, message)));
        if shape.len() < 2 {
            return refuse(RefusalKind::Shape, format!("the input has shape {shape:?}; expected rank 2 or more"));
        }
        let axis = axis(self.dim, shape.len()).map_err(Refused::uncounted)?;
        if self.p <= 0.0 {
            return refuse(RefusalKind::Parameter, format!("p is {}; expected a positive exponent", self.p));
        }
        if self.maxnorm < 0.0 {
            return refuse(RefusalKind::Parameter, format!("maxnorm is {}; expected 0 or more", self.maxnorm));
        }
        let partition = match rule.norm {
            NormRule::Along => Partition::lines(shape, axis),
            _ => Partition::slices(shape, axis),
        };
        Ok(Plan::of_norms(partition, shape, 0.0))
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let input: Vec<A::Real> = tensors["input"].iter().map(|&x| arithmetic.keep(x)).collect();
        let mut output = input.clone();
        for group in 0..plan.partition.groups() {
            let positions = plan.partition.positions(group);
            let x: Vec<A::Real> = positions.iter().map(|&position| input[position]).collect();
            let norm = norm(&x, self.p);
            if norm.value() > self.maxnorm || rule.norm == NormRule::WithinLimit {
                let factor = arithmetic.parameter(self.maxnorm) / (norm + arithmetic.parameter(GUARD));
                positions.into_iter().for_each(|position| output[position] = output[position] * factor);
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
        let (input, mut gradient) = (keep("input"), keep("grad_output.output"));
        for group in 0..plan.partition.groups() {
            let positions = plan.partition.positions(group);
            let x: Vec<A::Real> = positions.iter().map(|&position| input[position]).collect();
            let norm = norm(&x, self.p);
            if norm.value() > self.maxnorm {
                let guarded = norm + arithmetic.parameter(GUARD);
                let factor = arithmetic.parameter(self.maxnorm) / guarded;
                let along = A::Real::sum(positions.iter().zip(&x).map(|(&position, &x)| gradient[position] * x));
                let along = factor / guarded * along;
                for (position, slope) in positions.into_iter().zip(norm_gradient(&x, self.p, norm)) {
                    let direct = factor * gradient[position];
                    let constant = rule.gradient == GradientRule::StatisticsConstant;
                    gradient[position] = if constant { direct } else { direct - along * slope };
                }
            }
        }
        Tensors::from([("grad_input".into(), Output { shape: shapes["input"].shape.clone(), values: gradient })])
    }
}
