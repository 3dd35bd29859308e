//! Proxy normalization (Labatie et al. 2021, arXiv 2106.03743, section 4): after a norm and its activation, standardized
//! by what the activation of a normal variable would have been.
//!
//! ```text
//! input: [N, C, *], the output of a norm after weight and bias      φ(z) = max(z, 0)
//! ỹ ~ Normal(proxy_shift_c, (1 + proxy_scale_c)²)
//! y = (φ(x) − E φ(ỹ))/√(Var φ(ỹ) + eps)
//! E φ(ỹ) = μ·Φ(μ/s) + s·ϕ(μ/s)      E φ(ỹ)² = (μ² + s²)·Φ(μ/s) + μ·s·ϕ(μ/s)      s = |1 + proxy_scale|, μ = proxy_shift
//! ```
//! The paper integrates by quantiles of the normal distribution; for its rectifier the integrals are known (Φ: its
//! distribution function, ϕ: its density). No statistics are taken: a batch of one is like any other. eps is 0.03.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, by_formula, sigma, sizes};
use super::{Call, Definition, Plan, Refused, Rule, Signature, json_float};
use crate::arithmetic::{Function, Real, slope_of_erf};

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyNorm {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

const VECTORS: [&str; 2] = ["proxy_shift", "proxy_scale"];

impl Definition for ProxyNorm {
    const NAME: &'static str = "proxy_norm";

    fn signature(&self) -> Signature {
        Signature {
            optional: &VECTORS,
            differentiable: &["input", "proxy_shift", "proxy_scale"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let plan = Layer::of(self.signature(), self.eps).plan(call, rule).map_err(Refused::uncounted)?;
        Ok(Plan { centred: false, ..plan })
    }

    by_formula!();
}

impl Formula for ProxyNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let [_, channels, length] = sizes(plan);
        let (shifts, scales) = (evaluator.tensor("proxy_shift"), evaluator.tensor("proxy_scale"));
        let (zero, one) = (E::Real::constant(0.0), E::Real::constant(1.0));
        let of_channel = |channel: usize| {
            let mean = if shifts.is_empty() { zero } else { shifts[channel] };
            let deviation = if scales.is_empty() { one } else { one + scales[channel] };
            let (first, second) = rectified(mean, deviation.max(-deviation));
            (first, sigma(evaluator, second - first * first, plan, rule))
        };
        let proxies: Vec<(E::Real, E::Real)> = (0..channels).map(of_channel).collect();
        for (position, y) in y.iter_mut().enumerate() {
            let (mean, divisor) = proxies[position / length % channels];
            let active = if rule.inactive { *y } else { *y * y.step() };
            *y = active.deviation(mean) / divisor;
        }
        let (name, shape) = plan.outputs[0].clone();
        vec![(name, shape, y)]
    }
}

/// The first two moments of max(Z, 0), Z normal.
fn rectified<R: Real>(mean: R, deviation: R) -> (R, R) {
    let (one, half) = (R::constant(1.0), R::constant(0.5));
    let ratio = mean / deviation;
    let below = half * (one + (ratio * half.sqrt()).function(Function::Erf));
    // 1/√(2π) = 2/√π·√(1/8)
    let density = (-(half * ratio * ratio)).function(Function::Exp) * (slope_of_erf::<R>() * R::constant(0.125).sqrt());
    let first = mean * below + deviation * density;
    let second = (mean * mean + deviation * deviation) * below + mean * deviation * density;
    (first, second)
}
