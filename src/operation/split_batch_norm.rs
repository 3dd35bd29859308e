//! Batch normalization with statistics and parameters for each part of a batch (Xie et al. 2020, "Adversarial examples
//! improve image recognition", arXiv 1911.09665), as `timm.layers.SplitBatchNorm2d`.
//!
//! ```text
//! input: [N, C, *] in S = num_splits parts of N/S samples    groups: one for each part and channel
//! train  part s: batch norm with row s of every vector, all of them [S, C]
//! eval   the whole batch: batch norm with row 0, the main one
//! ```
//! Momentum is the weight of the new value, the running variance unbiased. Part 0 alone moves the main statistics.

use serde::{Deserialize, Serialize};

use super::chunks;
use super::normalization::check_dtypes;
use super::values::{channels_first, check_shapes};
use super::{
    Call, Definition, Given, Outputs, ParameterIndex, Plan, Refusal, RefusalKind, Refused, Rule, Signature, json_float,
};
use crate::arithmetic::Arithmetic;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitBatchNorm {
    /// The number of parts S, a divisor of N.
    pub num_splits: usize,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

const TABLES: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

impl Definition for SplitBatchNorm {
    const NAME: &'static str = "split_batch_norm";

    fn signature(&self) -> Signature {
        Signature {
            optional: &TABLES,
            state: chunks::STATE,
            differentiable: &["input", "weight", "bias"],
            modes: true,
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_parts(call, rule).map_err(Refused::uncounted)
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let channels = plan.partition.inner;
        let shape = [self.num_splits, channels];
        chunks::forward(arithmetic, plan, tensors, rule, &shape, |group, old, factor, statistic| {
            // A layer with one set of statistics follows the first part alone.
            let group = if rule.chunks_averaged { group % channels } else { group };
            arithmetic.mix(old, statistic(group), factor)
        })
    }
}

impl SplitBatchNorm {
    fn plan_parts(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        let [batch, channels, length] = channels_first(call, 2..=usize::MAX, "rank 2 or more")?;
        let parts = self.num_splits;
        if parts == 0 || !batch.is_multiple_of(parts) {
            let message = format!("a batch of {batch} has no {parts} equal parts; num_splits must divide it");
            return Err(Refusal::new(RefusalKind::Shape, message));
        }
        check_dtypes(call.tensors, &TABLES)?;
        check_shapes(call, &TABLES, &[parts, channels])?;
        let parameter = ParameterIndex { outer_step: channels, inner_step: 1, ..ParameterIndex::default() };
        let hyper_parameters = (self.eps, self.momentum);
        chunks::plan(call, [batch, channels, length], parts, Some(parameter), hyper_parameters, rule)
    }
}
