//! Batch norm whose parameters and statistics never change, as `torchvision.ops.FrozenBatchNorm2d`.
//!
//! ```text
//! input: [N, C, H, W]    y = (x − running_mean_c)/√(running_var_c + eps)·weight_c + bias_c
//! grad_input = g·weight_c/√(running_var_c + eps)
//! ```
//! All four vectors are given, in either mode.

use serde::{Deserialize, Serialize};

use super::normalization::{check_dtypes, check_vectors};
use super::{Call, Definition, Partition, Plan, Refusal, RefusalKind, Refused, Rule, Signature, Source, json_float};

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrozenBatchNorm {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

const VECTORS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

impl Definition for FrozenBatchNorm {
    const NAME: &'static str = "frozen_batch_norm";

    fn signature(&self) -> Signature {
        Signature { required: &["input", "weight", "bias", "running_mean", "running_var"], ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        let &[batch, channels, height, width] = shape else {
            let message = format!("the input has shape {shape:?}; expected rank 4");
            return Err(Refused::uncounted(Refusal::new(RefusalKind::Shape, message)));
        };
        check_dtypes(call.tensors, &VECTORS)
            .and_then(|()| check_vectors(call.tensors, &VECTORS, channels))
            .map_err(Refused::uncounted)?;
        Ok(Plan {
            standardizes: true,
            centred: true,
            source: Source::Stored,
            ..Plan::of_norms(Partition::channels(batch, channels, height * width), shape, self.eps)
        })
    }
}
