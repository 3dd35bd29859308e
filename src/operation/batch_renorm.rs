//! Batch renormalization (Ioffe 2017, arXiv 1702.03275, algorithm 1).
//!
//! ```text
//! input: [N, C, *]    groups: batch norm's      σ_B = √(v + eps), v biased
//! train  r = clip(σ_B/σ, 1/r_max, r_max)      d = clip((μ_B − μ)/σ, −d_max, d_max)      both held constant
//!        y = ((x − μ_B)/σ_B·r + d)·w_c + b_c
//!        running_mean ← μ + m·(μ_B − μ)         running_std ← σ + m·(σ_B − σ)              after use
//! eval   y = (x − μ)/σ·w_c + b_c                μ, σ: running_mean, running_std
//! ```
//! The state is a standard deviation with eps in it, not a variance. Momentum is the weight of the new value, 0.01 in the
//! paper. r_max = 1 and d_max = 0 make batch norm of it; without limits (infinity) training is evaluation, gradients apart.

use serde::{Deserialize, Serialize};

use super::normalization::{check_dtypes, check_vectors, factor};
use super::values::{added, at, channels_first, gradients, kept, sums};
use super::{
    Call, Definition, Description, Given, Mode, Output, Outputs, Partition, Plan, Refusal, RefusalKind, Refused, Rule,
    Signature, Source, Updates, json_float,
};
use crate::arithmetic::{Arithmetic, Group, Real, RunningQuantity};
use crate::tensor::Tensors;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchRenorm {
    /// The upper limit of r, at least 1; 1/r_max is the lower one.
    #[serde(with = "json_float")]
    pub r_max: f64,
    /// The limit of |d|, at least 0.
    #[serde(with = "json_float")]
    pub d_max: f64,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

const VECTORS: [&str; 4] = ["weight", "bias", "running_mean", "running_std"];

impl Definition for BatchRenorm {
    const NAME: &'static str = "batch_renorm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "running_mean", "running_std"],
            state: &["running_mean", "running_std"],
            ..Signature::TRAINED
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_channels(call, rule).map_err(Refused::uncounted)
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let mut output = kept(arithmetic, tensors, "input");
        let (weight, bias) = (kept(arithmetic, tensors, "weight"), kept(arithmetic, tensors, "bias"));
        let [mut mean, mut std] = ["running_mean", "running_std"].map(|name| kept(arithmetic, tensors, name));
        let count = if output.is_empty() { 0 } else { plan.partition.groups() };
        for channel in 0..count {
            let positions = plan.partition.positions(channel);
            let group = Channel::new(self, arithmetic, plan, tensors, rule, channel, &positions);
            for (&position, &y) in positions.iter().zip(&group.y) {
                let y = if weight.is_empty() { y } else { y * weight[channel] };
                output[position] = if bias.is_empty() { y } else { y + bias[channel] };
            }
            if let (Some(factor), Some((new_mean, sigma))) = (plan.update, group.batch) {
                let of_variance = rule.running == RunningQuantity::Variance;
                let new_std = if of_variance { sigma } else { sigma * sigma };
                mean[channel] = arithmetic.mix(tensors["running_mean"][channel], new_mean, factor);
                std[channel] = arithmetic.mix(tensors["running_std"][channel], new_std, factor);
            }
        }
        let mut outputs = Outputs::of(plan, output);
        for (name, values) in [("running_mean", mean), ("running_std", std)] {
            outputs.tensors.insert(name.into(), Output { shape: vec![values.len()], values });
        }
        outputs
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let (weight, seed) = (kept(arithmetic, tensors, "weight"), kept(arithmetic, tensors, "grad_output.output"));
        let mut gradient = seed.clone();
        let (mut grad_weight, mut grad_bias) = (sums(plan.partition.inner), sums(plan.partition.inner));
        let count = if seed.is_empty() { 0 } else { plan.partition.groups() };
        for channel in 0..count {
            let positions = plan.partition.positions(channel);
            let group = Channel::new(self, arithmetic, plan, tensors, rule, channel, &positions);
            let g = at(&seed, &positions);
            grad_weight[channel].extend(g.iter().zip(&group.y).map(|(&g, &y)| g * y));
            grad_bias[channel].extend(g.iter().copied());
            let a = g.iter().map(|&g| if weight.is_empty() { g } else { g * weight[channel] });
            let a: Vec<A::Real> = a.map(|a| a * group.factor).collect();
            let through = match &group.scaling {
                Some((scaling, hat)) => {
                    let x = at(&tensors["input"], &positions);
                    arithmetic.input_gradient(&x, &a, hat, scaling, true)
                }
                None => a,
            };
            for (position, through) in positions.into_iter().zip(through) {
                gradient[position] = through;
            }
        }
        gradients(shapes, [("input", gradient), ("weight", added(grad_weight)), ("bias", added(grad_bias))])
    }
}

impl BatchRenorm {
    fn plan_channels(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        let [batch, channels, length] = channels_first(call, 2..=usize::MAX, "rank 2 or more")?;
        check_dtypes(call.tensors, &VECTORS)?;
        check_vectors(call.tensors, &VECTORS, channels)?;
        let BatchRenorm { r_max, d_max, .. } = *self;
        if r_max.is_nan() || r_max < 1.0 || d_max.is_nan() || d_max < 0.0 {
            let message = format!("r_max is {r_max} and d_max {d_max}; expected at least 1 and at least 0");
            return Err(Refusal::new(RefusalKind::Parameter, message));
        }
        let train = call.mode == Mode::Train;
        let moves = train && rule.updates != Updates::Never;
        Ok(Plan {
            centred: true,
            source: if train { Source::Input } else { Source::Stored },
            update: if moves { factor(Some(self.momentum), None, rule) } else { None },
            ..Plan::of_norms(Partition::channels(batch, channels, length), &call.tensors["input"].shape, self.eps)
        })
    }
}

/// A channel before the affine parameters.
struct Channel<A: Arithmetic> {
    y: Vec<A::Real>,
    /// r in training, 1/σ in evaluation: what multiplies a gradient.
    factor: A::Real,
    /// In training the map of the batch, and its values standardized.
    scaling: Option<(A::Scaling, Vec<A::Real>)>,
    /// In training μ_B and σ_B.
    batch: Option<(A::Real, A::Real)>,
}

impl<A: Arithmetic> Channel<A> {
    fn new(
        norm: &BatchRenorm,
        arithmetic: &A,
        plan: &Plan,
        tensors: &Tensors<Vec<A::Input>>,
        rule: &Rule,
        channel: usize,
        positions: &[usize],
    ) -> Channel<A> {
        let one = A::Real::constant(1.0);
        let x = at(&tensors["input"], positions);
        let [mean, std] = ["running_mean", "running_std"].map(|name| arithmetic.keep(tensors[name][channel]));
        if plan.source == Source::Stored {
            let y = x.iter().map(|&x| arithmetic.keep(x).deviation(mean) / std).collect();
            return Channel { y, factor: one / std, scaling: None, batch: None };
        }
        let moments = arithmetic.moments(Group::contiguous(&x), true);
        let scaling = arithmetic.scaling(&moments, &rule.scale(plan.eps));
        let mut hat = vec![A::Real::constant(0.0); x.len()];
        arithmetic.rescale(&x, &scaling, None, None, &mut hat);
        let (batch_mean, sigma) = (arithmetic.mean(&moments), one / arithmetic.inverse(&scaling));
        let (mut r, mut d) = ((sigma / std).held(), (batch_mean.deviation(mean) / std).held());
        if !rule.unclipped {
            let (most, limit) = (arithmetic.parameter(norm.r_max), arithmetic.parameter(norm.d_max));
            r = clipped(r, one / most, most);
            d = clipped(d, -limit, limit);
        }
        let y = hat.iter().map(|&hat| hat * r + d).collect();
        Channel { y, factor: r, scaling: Some((scaling, hat)), batch: Some((batch_mean, sigma)) }
    }
}

/// The value within its limits.
fn clipped<R: Real>(value: R, least: R, most: R) -> R {
    -((-value.max(least)).max(-most))
}
