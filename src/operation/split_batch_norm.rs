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

use super::ghost_batch_norm::both_running;
use super::normalization::{self, check_dtypes, factor};
use super::values::{channels_first, check_shapes};
use super::{
    Call, Definition, Mode, OneValue, Output, Outputs, ParameterIndex, Partition, Plan, Refusal, RefusalKind, Refused,
    Rule, Signature, Source, Updates, json_float,
};
use crate::arithmetic::{Arithmetic, Group};
use crate::tensor::Tensors;

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
            required: &["input"],
            optional: &TABLES,
            outputs: &["output"],
            state: &["running_mean", "running_var"],
            differentiable: &["input", "weight", "bias"],
            modes: true,
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_parts(call, rule).map_err(Refused::uncounted)
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
        let shape = vec![self.num_splits, plan.partition.inner];
        for name in ["running_mean", "running_var"] {
            let moved = tensors[name].iter().enumerate().map(|(group, &old)| {
                let Some(factor) = plan.update.filter(|_| !tensors["input"].is_empty()) else {
                    return arithmetic.keep(old);
                };
                // A layer with one set of statistics follows the first part alone.
                let group = if rule.chunks_averaged { group % plan.partition.inner } else { group };
                let moments = arithmetic.moments(Group::new(&tensors["input"], plan.partition.group(group)), true);
                let new = if name == "running_mean" {
                    arithmetic.mean(&moments)
                } else {
                    let variance = arithmetic.variance(&moments, u8::from(!rule.running_biased));
                    arithmetic.running_quantity(variance, rule.running, plan.eps)
                };
                arithmetic.mix(old, new, factor)
            });
            let values = moved.collect();
            outputs.tensors.insert(name.into(), Output { shape: shape.clone(), values });
        }
        outputs
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
        let running = both_running(call)?;
        let train = call.mode == Mode::Train;
        let size = batch / parts;
        let parameter = ParameterIndex { outer_step: channels, inner_step: 1, ..ParameterIndex::default() };
        let partition = Partition {
            outer: parts,
            outer_stride: size * channels * length,
            parameter,
            ..Partition::channels(size, channels, length)
        };
        let plan = Plan::standardizing(partition, &call.tensors["input"].shape, self.eps, true);
        if running && !train && !rule.batch_statistics_in_eval {
            let partition = Partition::channels(batch, channels, length);
            return Ok(Plan { partition, source: Source::Stored, running, ..plan });
        }
        if size * length == 1 && rule.one_value != OneValue::Accepted {
            let message = "one value per channel and part; expected more than one";
            return Err(Refusal::new(RefusalKind::TooFewValues, message));
        }
        let moves = running && train && rule.updates != Updates::Never;
        let update = if moves { factor(Some(self.momentum), None, rule) } else { None };
        Ok(Plan { running, update, ..plan })
    }
}
