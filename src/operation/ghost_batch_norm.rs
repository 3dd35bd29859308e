//! Ghost batch normalization (Hoffer, Hubara and Soudry 2017, arXiv 1705.08741, algorithm 1): batch norm of each chunk of a
//! batch.
//!
//! ```text
//! input: [N, C, *] in N/k chunks of k = batch_size samples    groups: one for each chunk and channel, n = k·L
//! train  y = (x − μ)/√(v + eps)·w_c + b_c        v biased, /n
//!        running ← (1 − m)·running + m·chunk     once for each chunk, in order; the variance unbiased, ·n/(n − 1)
//! eval   y = (x − running_mean_c)/√(running_var_c + eps)·w_c + b_c
//! ```
//! Momentum m is the weight of the new value. A chunk of one sample is instance norm's, the whole batch batch norm's. The
//! chunks must be of one size.

use serde::{Deserialize, Serialize};

use super::normalization::{self, check_dtypes, check_vectors, factor};
use super::values::channels_first;
use super::{
    Call, Definition, Mode, OneValue, Output, Outputs, Partition, Plan, Refusal, RefusalKind, Refused, Rule, Signature,
    Source, Updates, json_float,
};
use crate::arithmetic::{Arithmetic, Group, Real};
use crate::tensor::Tensors;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GhostBatchNorm {
    /// The samples of a chunk k, a divisor of N.
    pub batch_size: usize,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

const VECTORS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

impl Definition for GhostBatchNorm {
    const NAME: &'static str = "ghost_batch_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input"],
            optional: &VECTORS,
            outputs: &["output"],
            state: &["running_mean", "running_var"],
            differentiable: &["input", "weight", "bias"],
            modes: true,
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_chunks(call, rule).map_err(Refused::uncounted)
    }

    fn forward<A: Arithmetic>(
        &self,
        arithmetic: &A,
        plan: &Plan,
        tensors: &Tensors<Vec<A::Input>>,
        rule: &Rule,
    ) -> Outputs<A::Real> {
        let normalized = Plan { running: false, update: None, ..plan.clone() };
        let mut outputs = normalization::forward(arithmetic, &normalized, tensors, rule);
        if !plan.running {
            return outputs;
        }
        let Partition { outer: chunks, inner: channels, .. } = plan.partition;
        let chunks = if tensors["input"].is_empty() || plan.update.is_none() { 0 } else { chunks };
        for name in ["running_mean", "running_var"] {
            let statistic = |group| {
                let moments = arithmetic.moments(Group::new(&tensors["input"], plan.partition.group(group)), true);
                if name == "running_mean" {
                    return arithmetic.mean(&moments);
                }
                let variance = arithmetic.variance(&moments, rule.running_degrees_of_freedom);
                arithmetic.running_quantity(variance, rule.running, plan.eps)
            };
            let moved = tensors[name].iter().enumerate().map(|(channel, &old)| {
                let old = arithmetic.keep(old);
                let Some(factor) = plan.update else { return old };
                let of_chunks = (0..chunks).map(|chunk| statistic(chunk * channels + channel));
                if rule.chunks_averaged && chunks > 0 {
                    let mean = A::Real::sum(of_chunks) / A::Real::constant(chunks as f64);
                    return arithmetic.mix_again(old, mean, factor);
                }
                of_chunks.fold(old, |old, new| arithmetic.mix_again(old, new, factor))
            });
            let values: Vec<A::Real> = moved.collect();
            outputs.tensors.insert(name.into(), Output { shape: vec![values.len()], values });
        }
        outputs
    }
}

impl GhostBatchNorm {
    fn plan_chunks(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        let [batch, channels, length] = channels_first(call, 2..=usize::MAX, "rank 2 or more")?;
        check_dtypes(call.tensors, &VECTORS)?;
        check_vectors(call.tensors, &VECTORS, channels)?;
        let size = self.batch_size;
        if size == 0 || !batch.is_multiple_of(size) {
            let message = format!("a batch of {batch} has no chunks of batch_size = {size}; expected a divisor");
            return Err(Refusal::new(RefusalKind::Shape, message));
        }
        let running = both_running(call)?;
        let train = call.mode == Mode::Train;
        let chunks = Partition {
            outer: batch / size,
            outer_stride: size * channels * length,
            ..Partition::channels(size, channels, length)
        };
        let plan = Plan::standardizing(chunks, &call.tensors["input"].shape, self.eps, true);
        if running && !train && !rule.batch_statistics_in_eval {
            let partition = Partition::channels(batch, channels, length);
            return Ok(Plan { partition, source: Source::Stored, running, ..plan });
        }
        if size * length == 1 && rule.one_value != OneValue::Accepted {
            let message = "one value per channel and chunk; expected more than one";
            return Err(Refusal::new(RefusalKind::TooFewValues, message));
        }
        let moves = running && train && rule.updates != Updates::Never;
        let update = if moves { factor(Some(self.momentum), None, rule) } else { None };
        Ok(Plan { running, update, ..plan })
    }
}

/// Whether both running statistics were sent.
///
/// # Errors
/// If one of them is missing.
pub(super) fn both_running(call: &Call<'_>) -> Result<bool, Refusal> {
    match (call.has("running_mean"), call.has("running_var")) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        _ => {
            let message = "one of running_mean and running_var is missing; send both or neither";
            Err(Refusal::new(RefusalKind::Parameter, message))
        }
    }
}
