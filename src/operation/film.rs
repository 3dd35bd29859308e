//! Feature-wise linear modulation (Perez et al. 2018, arXiv 1709.07871, equation 2).
//!
//! ```text
//! input: [N, C, *]    y = gamma_nc·x + beta_nc        gamma, beta: [N, C], a row for each sample
//! grad_input = g·gamma      grad_gamma = Σ_L g·x      grad_beta = Σ_L g
//! ```
//! The conditional part of conditional norms, alone: it takes no statistics.

use serde::{Deserialize, Serialize};

use super::normalization::check_dtypes;
use super::values::{added, channels_first, check_shapes, gradients, kept, sums};
use super::{
    Call, Definition, Description, Given, Output, Outputs, Partition, Plan, Refused, Rule, Signature, WeightReading,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// It has no hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Film {}

impl Definition for Film {
    const NAME: &'static str = "film";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "gamma", "beta"],
            differentiable: &["input", "gamma", "beta"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let [batch, channels, length] =
            channels_first(call, 2..=usize::MAX, "rank 2 or more").map_err(Refused::uncounted)?;
        check_dtypes(call.tensors, &["gamma", "beta"])
            .and_then(|()| check_shapes(call, &["gamma", "beta"], &[batch, channels]))
            .map_err(Refused::uncounted)?;
        Ok(Plan::of_norms(Partition::instances(batch, channels, length), &call.tensors["input"].shape, 0.0))
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let [mut output, gamma, beta] = ["input", "gamma", "beta"].map(|name| kept(arithmetic, tensors, name));
        for (index, x) in output.iter_mut().enumerate() {
            let condition = condition(plan, index, rule);
            let gamma = gamma[condition];
            let offset = rule.weight == WeightReading::Offset;
            let gamma = if offset { A::Real::constant(1.0) + gamma } else { gamma };
            *x = *x * gamma + beta[condition];
        }
        Outputs::of(plan, output)
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let [input, gamma, seed] = ["input", "gamma", "grad_output.output"].map(|name| kept(arithmetic, tensors, name));
        let (mut grad_input, mut grad_gamma, mut grad_beta) = (seed.clone(), sums(gamma.len()), sums(gamma.len()));
        for (index, &g) in seed.iter().enumerate() {
            let condition = condition(plan, index, rule);
            grad_input[index] = g * gamma[condition];
            grad_gamma[condition].push(g * input[index]);
            grad_beta[condition].push(g);
        }
        gradients(shapes, [("input", grad_input), ("gamma", added(grad_gamma)), ("beta", added(grad_beta))])
    }
}

/// The index of the gamma and beta of element `index`.
fn condition(plan: &Plan, index: usize, rule: &Rule) -> usize {
    let instance = index / plan.partition.run_length;
    if rule.first_condition { instance % plan.partition.inner } else { instance }
}
