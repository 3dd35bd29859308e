//! Moving average batch normalization (Yan et al. 2020, arXiv 2001.06838, algorithm 1): small batches, normalized with the
//! mean square of the last K of them.
//!
//! ```text
//! input: [N, C, *]    s_c: mean x² of the n = N·L values of channel c      history: [K − 1, C], the s of the batches before
//! train  a = (s + Σ history)/K      r = clip(√((a + eps)/(running_square + eps)), 1/5, 5), a constant of the gradient
//!        y = r·x/√(a + eps)·w_c + b_c
//!        history ← the last K − 1 of history, s      running_square ← (1 − m)·running_square + m·a      after use
//! eval   y = x/√(running_square_c + eps)·w_c + b_c
//! ```
//! Nothing is subtracted: the paper centres the weights of the convolution instead. m is 0.02. The first batches of a
//! training, for which there is no history yet, are not part of this operation; the authors take r = 1 there.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, moved, sigma};
use super::values::misshapen;
use super::{Call, Definition, Plan, Refusal, Refused, Rule, Signature, Source, json_float};
use crate::arithmetic::Real;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MovingAverageBatchNorm {
    /// Added to the mean squares.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

/// The limit of r, and of 1/r.
const LIMIT: f64 = 5.0;

impl Definition for MovingAverageBatchNorm {
    const NAME: &'static str = "moving_average_batch_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "history", "running_square"],
            state: &["history", "running_square"],
            ..Signature::TRAINED
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_channels(call, rule).map_err(Refused::uncounted)
    }

    by_formula!();
}

impl MovingAverageBatchNorm {
    fn plan_channels(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        let layer = Layer::of(self.signature(), self.eps).but(&["history"]);
        let plan = layer.moving("running_square", self.momentum).plan(call, rule)?;
        let (channels, history) = (plan.partition.inner, &call.tensors["history"].shape);
        if history.len() != 2 || history[1] != channels {
            return Err(misshapen("history", history, &format!("[K − 1, {channels}]")));
        }
        Ok(Plan { centred: false, ..plan })
    }
}

impl Formula for MovingAverageBatchNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let (stored, mut history) = (evaluator.tensor("running_square"), evaluator.tensor("history"));
        let channels = plan.partition.inner;
        let batches = history.len() / channels + 1;
        let squares: Vec<E::Real> =
            (0..channels).map(|c| evaluator.moments("input", &plan.partition.positions(c), false, 0).1).collect();
        let average = |channel: usize| {
            let before = history.iter().skip(channel).step_by(channels).copied();
            E::Real::sum(before.chain([squares[channel]])) / E::Real::constant(batches as f64)
        };
        let averages: Vec<E::Real> = (0..channels).map(average).collect();
        let (least, most) = (evaluator.parameter(1.0) / evaluator.parameter(LIMIT), evaluator.parameter(LIMIT));
        for channel in 0..channels {
            let (own, running) =
                (sigma(evaluator, averages[channel], plan, rule), sigma(evaluator, stored[channel], plan, rule));
            let ratio = (own / running).held();
            let limited = if rule.unclipped { ratio } else { -((-ratio.max(least)).max(-most)) };
            for position in plan.partition.positions(channel) {
                y[position] = match plan.source {
                    Source::Stored => y[position] / running,
                    _ => y[position] / own * limited,
                };
            }
        }
        if plan.update.is_some() && batches > 1 {
            history.drain(..channels);
            history.extend(squares.iter().map(|square| square.held()));
        }
        vec![
            affine(evaluator, plan, y),
            ("history", vec![batches - 1, channels], history),
            moved(evaluator, plan, "running_square", &|channel| averages[channel]),
        ]
    }
}
