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

use super::chunks;
use super::normalization::{check_dtypes, check_vectors};
use super::values::channels_first;
use super::{
    Call, Definition, Given, Outputs, Partition, Plan, Refusal, RefusalKind, Refused, Rule, Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Real};

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
            optional: &VECTORS,
            state: chunks::STATE,
            differentiable: &["input", "weight", "bias"],
            modes: true,
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_chunks(call, rule).map_err(Refused::uncounted)
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let Partition { outer: chunks, inner: channels, .. } = plan.partition;
        chunks::forward(arithmetic, plan, tensors, rule, &[channels], |channel, old, factor, statistic| {
            let of_chunks = (0..chunks).map(|chunk| statistic(chunk * channels + channel));
            let old = arithmetic.keep(old);
            if rule.chunks_averaged {
                let mean = A::Real::sum(of_chunks) / A::Real::constant(chunks as f64);
                return arithmetic.mix_again(old, mean, factor);
            }
            of_chunks.fold(old, |old, new| arithmetic.mix_again(old, new, factor))
        })
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
        chunks::plan(call, [batch, channels, length], batch / size, None, (self.eps, self.momentum), rule)
    }
}
