//! Online normalization (Chiley et al. 2019, arXiv 1905.05894): batch norm for batches of one. Each sample is normalized
//! with the statistics of those before it.
//!
//! ```text
//! input: [N, C, *]    for each sample in order, and each channel; μ_s, v_s: mean and biased variance of its L values
//! y = (x − μ)/√(v + eps)                                            equation 8a
//! v ← (1 − m)·v + m·v_s + m·(1 − m)·(μ_s − μ)²                      equation 8b, in training
//! μ ← (1 − m)·μ + m·μ_s                                             equation 8c, in training
//! z = y·w_c + b_c        output = z, or with layer_scaling z/√(mean z² + eps), the mean over all C·L values of a sample
//! ```
//! m is the weight of the new value, 1 − α_f of the paper, whose α_f is 0.999. How the samples are batched does not matter: a
//! batch of N is N batches of one, to the last bit. Statistics are constants of the gradient; what the paper does about that
//! is [`OnlineNormBackward`], an operation of its own, since its state outlives the call.
//!
//! ```text
//! input: [N, C, *], the gradient g by y      normalized: y      sigma: [N, C], the √(v + eps) of each sample
//! g′ = g − m·error_along·y       error_along ← error_along + mean_L(g′·y)      equation 12
//! d  = g′/σ − m·error_mean       error_mean ← error_mean + mean_L(d)           equation 13
//! ```
//! d is the output, linear in g, and differentiated as such. Its m is 1 − α_b, whose α_b is 0.99. The first controller keeps the gradient orthogonal to y over time,
//! the second its mean at 0, as batch norm's is within each batch.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, instance, sigma, sizes};
use super::values::check_shapes;
use super::{Call, Definition, OnlineRule, Plan, Refused, Rule, Signature, Updates, json_float};
use crate::arithmetic::{Factor, Real};

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnlineNorm {
    /// Added to the variance, and to the mean square of layer scaling.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
    /// Whether each sample is divided by its root mean square in the end.
    pub layer_scaling: bool,
}

/// The hyper-parameter of its backward pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnlineNormBackward {
    /// The weight of the accumulated errors.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

impl Definition for OnlineNorm {
    const NAME: &'static str = "online_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "running_mean", "running_var"],
            state: &["running_mean", "running_var"],
            ..Signature::TRAINED
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let layer = Layer::of(self.signature(), self.eps).moving("running_mean", self.momentum);
        layer.plan(call, rule).map_err(Refused::uncounted)
    }

    by_formula!();
}

impl Formula for OnlineNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let (mut means, mut variances) = (evaluator.tensor("running_mean"), evaluator.tensor("running_var"));
        let [batch, channels, _] = sizes(plan);
        let before = (rule.online == OnlineRule::OncePerBatch).then(|| (means.clone(), variances.clone()));
        for sample in 0..batch {
            for channel in 0..channels {
                let positions = instance(plan, sample, channel);
                let (seen_means, seen_variances) = before.as_ref().map_or((&means, &variances), |(m, v)| (m, v));
                let (seen, divisor) = (seen_means[channel], sigma(evaluator, seen_variances[channel], plan, rule));
                for &position in &positions {
                    y[position] = y[position].deviation(seen) / divisor;
                }
                let Some(factor) = plan.update else { continue };
                let (mean, variance) = evaluator.moments("input", &positions, true, 0);
                let between = mean.deviation(means[channel]);
                let spread = between * between * of_old(evaluator, factor);
                let new = if rule.online == OnlineRule::WithoutSpread { variance } else { variance + spread };
                variances[channel] = evaluator.mix(variances[channel], new, factor).held();
                means[channel] = evaluator.mix(means[channel], mean, factor).held();
            }
        }
        let (name, shape, mut output) = affine(evaluator, plan, y);
        if self.layer_scaling && rule.online != OnlineRule::WithoutControl {
            for sample in output.chunks_mut(plan.partition.run_length * channels) {
                let square = E::Real::sum(sample.iter().map(|&z| z * z)) / E::Real::constant(sample.len() as f64);
                let root = (square + evaluator.parameter(rule.scale(plan.eps).eps)).sqrt();
                sample.iter_mut().for_each(|z| *z = *z / root);
            }
        }
        let state = |name, values: Vec<E::Real>| (name, vec![channels], values);
        vec![(name, shape, output), state("running_mean", means), state("running_var", variances)]
    }
}

/// 1 − α.
fn of_old<E: Evaluator>(evaluator: &E, factor: Factor) -> E::Real {
    match factor {
        Factor::OfOld(decay) => evaluator.parameter(decay),
        Factor::OfNew(momentum) => E::Real::constant(1.0) - evaluator.parameter(momentum),
        Factor::Reciprocal(batches) => E::Real::constant(1.0 - 1.0 / batches as f64),
    }
}

impl Definition for OnlineNormBackward {
    const NAME: &'static str = "online_norm_backward";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "normalized", "sigma", "error_along", "error_mean"],
            state: &["error_along", "error_mean"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let layer = Layer::of(self.signature(), 0.0).but(&["normalized", "sigma"]);
        let plan = layer.plan(call, rule).map_err(Refused::uncounted)?;
        let shape = &call.tensors["input"].shape;
        let fits =
            check_shapes(call, &["normalized"], shape).and_then(|()| check_shapes(call, &["sigma"], &shape[..2]));
        fits.map_err(Refused::uncounted)?;
        Ok(plan)
    }

    by_formula!();
}

impl Formula for OnlineNormBackward {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut d = evaluator.tensor("input");
        let (y, sigma) = (evaluator.tensor("normalized"), evaluator.tensor("sigma"));
        let (mut along, mut mean) = (evaluator.tensor("error_along"), evaluator.tensor("error_mean"));
        let [batch, channels, length] = sizes(plan);
        let (momentum, count) = (evaluator.parameter(self.momentum), E::Real::constant(length as f64));
        let average = |terms: Vec<E::Real>| E::Real::sum(terms.into_iter()) / count;
        let before = (rule.online == OnlineRule::OncePerBatch).then(|| (along.clone(), mean.clone()));
        for sample in 0..batch {
            for channel in 0..channels {
                let positions = instance(plan, sample, channel);
                let (seen_along, seen_mean) = before.as_ref().map_or((&along, &mean), |(a, m)| (a, m));
                let (seen_along, seen_mean) = (seen_along[channel], seen_mean[channel]);
                if rule.online != OnlineRule::WithoutControl {
                    for &position in &positions {
                        d[position] = d[position] - momentum * seen_along * y[position];
                    }
                }
                let error = average(positions.iter().map(|&position| d[position] * y[position]).collect());
                for &position in &positions {
                    let through = d[position] / sigma[sample * channels + channel];
                    d[position] = through - momentum * seen_mean;
                }
                if rule.updates != Updates::Never {
                    along[channel] = along[channel] + error;
                    mean[channel] = mean[channel] + average(positions.iter().map(|&position| d[position]).collect());
                }
            }
        }
        let (name, shape) = plan.outputs[0].clone();
        let state = |name, values: Vec<E::Real>| (name, vec![channels], values);
        vec![(name, shape, d), state("error_along", along), state("error_mean", mean)]
    }
}
