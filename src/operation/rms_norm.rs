//! Root mean square normalization (Zhang and Sennrich 2019, arXiv 1910.07467), as `torch.nn.RMSNorm`.
//!
//! ```text
//! input: [*, normalized_shape]    groups: as layer norm's
//! y = x/√(mean x² + eps)·w        nothing is subtracted;  weight: normalized_shape
//! ```
//! `eps: null` is machine epsilon: 2⁻⁵² for F64, 2⁻²³ for all others, the narrower ones included. The same in training and
//! in evaluation. PyTorch lets any mix of data types pass; the output has the input's.

use serde::{Deserialize, Serialize};

use super::layer_norm::plan_trailing;
use super::{Call, Centring, Definition, Dialect, Plan, Refused, Rule, Signature, json_float};
use crate::arithmetic::DataType;

/// RMS norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RmsNorm {
    /// The trailing axes that are normalized together; at least one.
    pub normalized_shape: Vec<usize>,
    /// Added to the mean square; `None`: machine epsilon.
    #[serde(with = "json_float::option")]
    pub eps: Option<f64>,
    /// The conventions.
    #[serde(default, skip_serializing_if = "Dialect::is_default")]
    pub dialect: Dialect,
}

impl Definition for RmsNorm {
    const NAME: &'static str = "rms_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input"],
            optional: &["weight"],
            outputs: &["output"],
            state: &[],
            differentiable: &["input", "weight"],
            modes: false,
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let machine_epsilon = match call.tensors["input"].dtype {
            DataType::F64 => f64::EPSILON,
            _ => f64::from(f32::EPSILON),
        };
        plan_trailing(call, &self.normalized_shape, &["weight"], self.eps.unwrap_or(machine_epsilon), rule)
            .map(|plan| Plan { centred: rule.centring == Centring::Subtracted, ..plan })
            .map_err(|refusal| Refused { refusal, num_batches_tracked: None })
    }
}
