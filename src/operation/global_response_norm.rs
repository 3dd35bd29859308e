//! Global response normalization (Woo et al. 2023, ConvNeXt V2, arXiv 2301.00808, section 3.3), as
//! `timm.layers.GlobalResponseNorm`.
//!
//! ```text
//! input: [N, C, *]    G_c = ‖x_c‖₂ over the positions    N_c = G_c/(mean_C G + eps)
//! y = x + (w_c·(x·N_c) + b_c)           weight, bias: [C], both 0 at first
//! grad_input = g·(1 + w·N) + x/G·γ      γ_c = h_c/M − Σ_k h_k·G_k/(C·M²)      h_c = Σ g·w·x      M = mean_C G + eps
//! ```
//! A channel of zeros has no direction: the gradient of its norm is 0.

use serde::{Deserialize, Serialize};

use super::normalization::{check_dtypes, check_vectors};
use super::norms::norm;
use super::values::{added, channels_first, gradients, kept, sums};
use super::{
    Call, Definition, Description, Given, Output, Outputs, Partition, Plan, Refused, Rule, Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlobalResponseNorm {
    /// Added to the mean of the norms.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for GlobalResponseNorm {
    const NAME: &'static str = "global_response_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "weight", "bias"],
            differentiable: &["input", "weight", "bias"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let [batch, channels, length] =
            channels_first(call, 3..=usize::MAX, "rank 3 or more").map_err(Refused::uncounted)?;
        check_dtypes(call.tensors, &["weight", "bias"])
            .and_then(|()| check_vectors(call.tensors, &["weight", "bias"], channels))
            .map_err(Refused::uncounted)?;
        let partition = Partition::instances(batch, channels, length);
        Ok(Plan::of_norms(partition, &call.tensors["input"].shape, self.eps))
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let [input, weight, bias] = ["input", "weight", "bias"].map(|name| kept(arithmetic, tensors, name));
        let (channels, length) = (plan.partition.inner, plan.partition.run_length);
        let mut output = Vec::with_capacity(input.len());
        for sample in input.chunks((channels * length).max(1)) {
            let norms = Norms::new(arithmetic, sample, plan, rule);
            for (index, &x) in sample.iter().enumerate() {
                let c = index / length;
                output.push(x + (weight[c] * (x * norms.relative(c)) + bias[c]));
            }
        }
        Outputs::of(plan, output)
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let [input, weight, seed] =
            ["input", "weight", "grad_output.output"].map(|name| kept(arithmetic, tensors, name));
        let (channels, length) = (plan.partition.inner, plan.partition.run_length);
        let (mut grad_input, mut grad_weight, mut grad_bias) = (Vec::new(), sums(channels), sums(channels));
        let size = (channels * length).max(1);
        let (zero, one, count) = (A::Real::constant(0.0), A::Real::constant(1.0), A::Real::constant(channels as f64));
        for (sample, seed) in input.chunks(size).zip(seed.chunks(size)) {
            let norms = Norms::new(arithmetic, sample, plan, rule);
            let mut through = sums(channels);
            for (index, (&x, &g)) in sample.iter().zip(seed).enumerate() {
                let c = index / length;
                grad_weight[c].push(g * (x * norms.relative(c)));
                grad_bias[c].push(g);
                through[c].push(g * (weight[c] * x));
            }
            let through = added(through);
            let share = through.iter().zip(&norms.each).map(|(&h, &norm)| h * norm);
            let share = A::Real::sum(share) / (count * (norms.mean * norms.mean));
            for (index, (&x, &g)) in sample.iter().zip(seed).enumerate() {
                let c = index / length;
                let direct = g * (one + weight[c] * norms.relative(c));
                let norm = norms.each[c];
                let direction = if norm.value() == 0.0 { zero } else { x / norm };
                grad_input.push(direct + direction * (through[c] / norms.mean - share));
            }
        }
        gradients(shapes, [("input", grad_input), ("weight", added(grad_weight)), ("bias", added(grad_bias))])
    }
}

/// The norms of a sample's channels, and their mean plus eps.
struct Norms<R> {
    each: Vec<R>,
    mean: R,
}

impl<R: Real> Norms<R> {
    fn new<A: Arithmetic<Real = R>>(arithmetic: &A, sample: &[R], plan: &Plan, rule: &Rule) -> Norms<R> {
        let channels = sample.chunks(plan.partition.run_length.max(1));
        let each: Vec<R> = channels.map(|channel| norm(channel, 2.0)).collect();
        let sum = R::sum(each.iter().copied());
        let mean = if rule.norms_summed { sum } else { sum / R::constant(each.len() as f64) };
        Norms { each, mean: mean + arithmetic.parameter(rule.scale(plan.eps).eps) }
    }

    fn relative(&self, channel: usize) -> R {
        self.each[channel] / self.mean
    }
}
