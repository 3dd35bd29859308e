//! Norms that mix batch norm with a sample's own: batch-instance norm (Nam and Kim 2018, arXiv 1805.07925) and batch-channel
//! norm (Khaled et al. 2023, arXiv 2312.00596).
//!
//! ```text
//! input: [N, C, *]    x̂_B: batch norm's (x − μ)/√(v + eps) of channel c; in evaluation with the running statistics
//! batch_instance_norm   y = (rho_c·x̂_B + (1 − rho_c)·x̂_I)·w_c + b_c      x̂_I: of each sample and channel, rho: [C]
//! batch_channel_norm    y = (rho·x̂_B + (1 − rho)·x̂_L)·w_c + b_c          x̂_L: of each sample, all C·L values, rho: [1]
//! train  running ← (1 − m)·running + m·(μ, v·n/(n − 1))
//! ```
//! Training keeps rho within 0 and 1; the layer does not. rho = 1 is batch norm, rho = 0 instance norm or layer norm. Of a
//! batch of one sample x̂_B = x̂_I, and rho means nothing. Batch-channel norm of Qiao et al. (2019, arXiv 1903.10520) is
//! another: batch norm, then group norm.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, instance, moved, sigma, sizes};
use super::values::check_shapes;
use super::{Call, Definition, OneValue, Plan, Refusal, RefusalKind, Refused, Rule, Signature, Source, json_float};
use crate::arithmetic::Real;

macro_rules! mixture {
    ($(#[$attribute:meta])* $definition:ident, $name:literal, $whole:literal) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $definition {
            /// Added to the variances.
            #[serde(with = "json_float")]
            pub eps: f64,
            /// The weight of the new value.
            #[serde(with = "json_float")]
            pub momentum: f64,
        }

        impl Definition for $definition {
            const NAME: &'static str = $name;

            fn signature(&self) -> Signature {
                SIGNATURE
            }

            fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
                plan(call, self.eps, self.momentum, $whole, rule).map_err(Refused::uncounted)
            }

            by_formula!();
        }

        impl Formula for $definition {
            fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
                mixed(evaluator, plan, $whole, rule)
            }
        }
    };
}

mixture!(
    /// The hyper-parameters of batch-instance norm.
    BatchInstanceNorm,
    "batch_instance_norm",
    false
);
mixture!(
    /// The hyper-parameters of batch-channel norm.
    BatchChannelNorm,
    "batch_channel_norm",
    true
);

const SIGNATURE: Signature = Signature {
    required: &["input", "rho", "running_mean", "running_var"],
    state: &["running_mean", "running_var"],
    differentiable: &["input", "rho", "weight", "bias"],
    ..Signature::TRAINED
};

/// `whole`: the sample's own statistics are those of all its values.
fn plan(call: &Call<'_>, eps: f64, momentum: f64, whole: bool, rule: &Rule) -> Result<Plan, Refusal> {
    let layer = Layer::of(SIGNATURE, eps).but(&["rho"]).moving("running_mean", momentum);
    let plan = layer.plan(call, rule)?;
    let [batch, channels, length] = sizes(&plan);
    check_shapes(call, &["rho"], &[if whole { 1 } else { channels }])?;
    if plan.source == Source::Input && batch * length == 1 && rule.one_value != OneValue::Accepted {
        let message = "one value per channel has no unbiased variance; expected more than one";
        return Err(Refusal::new(RefusalKind::TooFewValues, message));
    }
    Ok(plan)
}

fn mixed<E: Evaluator>(evaluator: &E, plan: &Plan, whole: bool, rule: &Rule) -> Vec<Named<E::Real>> {
    let x = evaluator.tensor("input");
    let mut y = x.clone();
    let [batch, channels, _] = sizes(plan);
    let moments = |positions: &[usize], degrees| evaluator.moments("input", positions, true, degrees);
    let (means, variances) = (evaluator.tensor("running_mean"), evaluator.tensor("running_var"));
    let (rho, one) = (evaluator.tensor("rho"), E::Real::constant(1.0));
    for channel in 0..channels {
        let positions = plan.partition.positions(channel);
        let (mean, variance) = match plan.source {
            Source::Stored => (means[channel], variances[channel]),
            _ => moments(&positions, rule.degrees_of_freedom),
        };
        let divisor = sigma(evaluator, variance, plan, rule);
        for position in positions {
            y[position] = x[position].deviation(mean) / divisor * rho[channel % rho.len()];
        }
    }
    for sample in 0..batch {
        let instances = (0..channels).map(|channel| instance(plan, sample, channel));
        let groups: Vec<Vec<usize>> = if whole { vec![instances.flatten().collect()] } else { instances.collect() };
        for (channel, positions) in groups.into_iter().enumerate() {
            let (mean, variance) = moments(&positions, rule.degrees_of_freedom);
            let divisor = sigma(evaluator, variance, plan, rule);
            for position in positions {
                let own = x[position].deviation(mean) / divisor;
                y[position] = y[position] + own * (one - rho[channel]);
            }
        }
    }
    let batch_moments = |channel| moments(&plan.partition.positions(channel), u8::from(!rule.running_biased));
    vec![
        affine(evaluator, plan, y),
        moved(evaluator, plan, "running_mean", &|channel| batch_moments(channel).0),
        moved(evaluator, plan, "running_var", &|channel| batch_moments(channel).1),
    ]
}
