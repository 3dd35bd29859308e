//! A norm that divides by the standard deviation and subtracts nothing, as `timm.layers.SimpleNorm`.
//!
//! ```text
//! input: [*, normalized_shape]    groups: as layer norm's    r = 1/√(v + eps), v unbiased, /(n − 1)
//! y = x·r·w                       weight: normalized_shape
//! grad_input = r·(a − ŷ·Σ(a·x·r)/(n − 1))      a = g·w, ŷ = (x − μ)·r
//! ```
//! The mean counts in v alone. One value a group has no unbiased variance: NaN.

use serde::{Deserialize, Serialize};

use super::layer_norm::plan_trailing;
use super::normalization::check_dtypes;
use super::values::{added, at, gradients, kept, sums};
use super::{
    Call, Centring, Definition, Description, Given, Output, Outputs, Plan, Refused, Rule, Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Group, Real, Scale};
use crate::tensor::Tensors;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimpleNorm {
    /// The trailing axes that are normalized together; at least one.
    pub normalized_shape: Vec<usize>,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for SimpleNorm {
    const NAME: &'static str = "simple_norm";

    fn signature(&self) -> Signature {
        Signature { optional: &["weight"], differentiable: &["input", "weight"], ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let plan = check_dtypes(call.tensors, &["weight"])
            .and_then(|()| plan_trailing(call, &self.normalized_shape, &["weight"], self.eps, rule))
            .map_err(Refused::uncounted)?;
        Ok(Plan { standardizes: false, centred: true, ..plan })
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let weights = kept(arithmetic, tensors, "weight");
        let mut output = kept(arithmetic, tensors, "input");
        for positions in groups(plan, output.len()) {
            let group = Standardized::new(arithmetic, &at(&tensors["input"], &positions), plan, rule);
            for (k, &position) in positions.iter().enumerate() {
                // A layer that subtracts the mean is another one.
                let y =
                    if rule.centring == Centring::Subtracted { group.hat[k] } else { output[position] * group.inverse };
                output[position] = weights.get(k).map_or(y, |&weight| y * weight);
            }
        }
        Outputs::of(plan, output)
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let weights = kept(arithmetic, tensors, "weight");
        let (input, seed) = (kept(arithmetic, tensors, "input"), kept(arithmetic, tensors, "grad_output.output"));
        let mut gradient = seed.clone();
        let mut terms = sums(weights.len());
        for positions in groups(plan, input.len()) {
            let group = Standardized::new(arithmetic, &at(&tensors["input"], &positions), plan, rule);
            let (x, g) = (at(&input, &positions), at(&seed, &positions));
            let y: Vec<A::Real> = x.iter().map(|&x| x * group.inverse).collect();
            let a: Vec<A::Real> =
                g.iter().enumerate().map(|(k, &g)| weights.get(k).map_or(g, |&weight| g * weight)).collect();
            let rest = A::Real::constant(x.len() as f64 - 1.0);
            let along = A::Real::sum(a.iter().zip(&y).map(|(&a, &y)| a * y)) / rest;
            for (k, &position) in positions.iter().enumerate() {
                gradient[position] = (a[k] - group.hat[k] * along) * group.inverse;
                if let Some(terms) = terms.get_mut(k) {
                    terms.push(g[k] * y[k]);
                }
            }
        }
        gradients(shapes, [("input", gradient), ("weight", added(terms))])
    }
}

fn groups(plan: &Plan, elements: usize) -> impl Iterator<Item = Vec<usize>> {
    let count = if elements == 0 { 0 } else { plan.partition.groups() };
    (0..count).map(|group| plan.partition.positions(group))
}

/// 1/σ and (x − μ)/σ of a group.
struct Standardized<R> {
    inverse: R,
    hat: Vec<R>,
}

impl<R: Real> Standardized<R> {
    fn new<A: Arithmetic<Real = R>>(arithmetic: &A, x: &[A::Input], plan: &Plan, rule: &Rule) -> Standardized<R> {
        let scale = rule.scale(plan.eps);
        let scale = Scale { degrees_of_freedom: 1 - scale.degrees_of_freedom, ..scale };
        let scaling = arithmetic.scaling(&arithmetic.moments(Group::contiguous(x), true), &scale);
        let mut hat = vec![R::constant(0.0); x.len()];
        arithmetic.rescale(x, &scaling, None, None, &mut hat);
        Standardized { inverse: arithmetic.inverse(&scaling), hat }
    }
}
