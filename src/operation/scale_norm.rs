//! ScaleNorm (Nguyen and Salazar 2019, arXiv 1910.05895, section 2.2): a vector of one learned length.
//!
//! ```text
//! input: [*, D]    groups: one for each index of all axes but the last
//! y = w·x/max(‖x‖₂, eps)                  weight: [1], √D at first
//! grad_input = w·(g − u·Σ g·u)/‖x‖₂       u = x/max(‖x‖₂, eps); where ‖x‖₂ < eps, w·g/eps      grad_weight = Σ g·u
//! ```
//! eps is a lower limit, not a summand: a zero vector stays zero.

use serde::{Deserialize, Serialize};

use super::normalization::check_dtypes;
use super::norms::norm;
use super::values::{at, check_shapes, gradients, kept, misshapen};
use super::{
    Call, Definition, Description, Given, NormRule, Output, Outputs, Partition, Plan, Refused, Rule, Signature,
    json_float,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaleNorm {
    /// The lower limit of the length.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for ScaleNorm {
    const NAME: &'static str = "scale_norm";

    fn signature(&self) -> Signature {
        Signature { optional: &["weight"], differentiable: &["input", "weight"], ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        if shape.is_empty() {
            return Err(Refused::uncounted(misshapen("the input", shape, "rank 1 or more")));
        }
        check_dtypes(call.tensors, &["weight"])
            .and_then(|()| check_shapes(call, &["weight"], &[1]))
            .map_err(Refused::uncounted)?;
        Ok(Plan::of_norms(Partition::lines(shape, shape.len() - 1), shape, self.eps))
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let weight = kept(arithmetic, tensors, "weight");
        let mut output = kept(arithmetic, tensors, "input");
        for positions in vectors(plan, output.len()) {
            let length = norm(&at(&output, &positions), 2.0);
            let eps = arithmetic.parameter(self.eps);
            let length = if rule.norm == NormRule::Squared { length * length } else { length };
            let divisor = if rule.norm == NormRule::EpsAdded { length + eps } else { length.max(eps) };
            for position in positions {
                let y = output[position] / divisor;
                output[position] = weight.first().map_or(y, |&weight| y * weight);
            }
        }
        Outputs::of(plan, output)
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, .. }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let weight = kept(arithmetic, tensors, "weight").first().copied().unwrap_or(A::Real::constant(1.0));
        let (input, seed) = (kept(arithmetic, tensors, "input"), kept(arithmetic, tensors, "grad_output.output"));
        let mut gradient = seed.clone();
        let mut terms = Vec::new();
        for positions in vectors(plan, input.len()) {
            let x = at(&input, &positions);
            let (length, eps) = (norm(&x, 2.0), arithmetic.parameter(self.eps));
            let is_short = length.value() < self.eps;
            let divisor = if is_short { eps } else { length };
            let unit: Vec<A::Real> = x.iter().map(|&x| x / divisor).collect();
            let g = at(&seed, &positions);
            terms.extend(g.iter().zip(&unit).map(|(&g, &unit)| g * unit));
            let along = A::Real::sum(g.iter().zip(&unit).map(|(&g, &unit)| g * unit));
            for ((&position, &g), &unit) in positions.iter().zip(&g).zip(&unit) {
                // A vector shorter than eps is divided by a constant.
                let centred = if is_short { g } else { g - unit * along };
                gradient[position] = centred / divisor * weight;
            }
        }
        gradients(shapes, [("input", gradient), ("weight", vec![A::Real::sum(terms.into_iter())])])
    }
}

fn vectors(plan: &Plan, elements: usize) -> impl Iterator<Item = Vec<usize>> {
    let count = if elements == 0 { 0 } else { plan.partition.groups() };
    (0..count).map(|group| plan.partition.positions(group))
}
