//! Instance normalization (Ulyanov, Vedaldi and Lempitsky 2016, arXiv 1607.08022), as `torch.nn.InstanceNorm1d`, `2d` and
//! `3d`.
//!
//! ```text
//! input: [N, C, *], or [C, *] unbatched    groups: one for each sample and channel, the n = L values of an image
//! y = (x − μ)/√(v + eps)·w_c + b_c        v biased, /n
//! running statistics, where tracked: as batch norm's, of the mean over the samples of μ and of v·n/(n−1)
//! eval with running statistics: as batch norm
//! ```
//! A momentum of `null` is 0, the counter never counts, and one value per instance is refused, whatever N.

use serde::{Deserialize, Serialize};

use super::normalization::check_vectors;
use super::running::Keeping;
use super::running::both_running;
use super::{
    Call, Definition, Grouping, Mode, OneValue, Partition, Plan, Refusal, RefusalKind, Refused, Rule, Signature,
    Source, json_float, normalization,
};

/// Instance norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceNorm {
    /// 1, 2 or 3: the number of spatial axes.
    pub spatial_dims: u8,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value; `None`: 0.
    #[serde(with = "json_float::option")]
    pub momentum: Option<f64>,
}

const VECTORS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

impl Definition for InstanceNorm {
    const NAME: &'static str = "instance_norm";

    fn signature(&self) -> Signature {
        Signature {
            optional: &["weight", "bias", "running_mean", "running_var", "num_batches_tracked"],
            state: &["running_mean", "running_var", "num_batches_tracked"],
            differentiable: &["input", "weight", "bias"],
            modes: true,
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let counted = call.num_batches_tracked;
        self.plan_instances(call, rule).map_err(|refusal| Refused { refusal, num_batches_tracked: counted })
    }
}

impl InstanceNorm {
    fn plan_instances(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        let shape = call.tensors["input"].shape.as_slice();
        let spatial = usize::from(self.spatial_dims);
        let refuse = |kind, message| Err(Refusal::new(kind, message));
        if !(1..=3).contains(&spatial) {
            return refuse(RefusalKind::Parameter, format!("spatial_dims is {spatial}; it is 1, 2 or 3"));
        }
        let batched = match shape.len() {
            rank if rank == spatial + 2 => true,
            rank if rank == spatial + 1 => false,
            _ => {
                let expected = format!("rank {} or, unbatched, {}", spatial + 2, spatial + 1);
                return refuse(RefusalKind::Shape, format!("the input has shape {shape:?}; expected {expected}"));
            }
        };
        let (batch, rest) = if batched { (shape[0], &shape[1..]) } else { (1, shape) };
        let (channels, length) = (rest[0], rest[1..].iter().product::<usize>());
        check_vectors(call.tensors, &VECTORS, channels)?;
        let running = both_running(call)?;
        let train = call.mode == Mode::Train;
        let from_input = normalization::normalizes_by_batch(train, running, rule);
        if from_input && length == 1 && rule.one_value != OneValue::Accepted {
            let message = format!("one value per instance, input {shape:?}; expected more than one");
            return refuse(RefusalKind::TooFewValues, message);
        }
        let momentum = Some(self.momentum.unwrap_or(0.0));
        let moves = running && normalization::moves(train, rule);
        let update = if moves { normalization::factor(momentum, None, rule) } else { None };
        let partition = match rule.grouping {
            Grouping::Pooled => Partition::channels(batch, channels, length),
            _ => Partition::instances(batch, channels, length),
        };
        Ok(Plan {
            standardizes: true,
            centred: true,
            source: Source::of(from_input, train && update.is_some(), rule),
            keeping: Keeping::of(rule, momentum, None),
            update,
            running,
            num_batches_tracked: call.num_batches_tracked,
            ..Plan::of_norms(partition, shape, self.eps)
        })
    }
}
