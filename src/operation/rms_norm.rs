//! Root mean square normalization (Zhang and Sennrich 2019, arXiv 1910.07467), as `torch.nn.RMSNorm`.
//!
//! ```text
//! input: [*, normalized_shape]    groups: as layer norm's
//! y = x/√(mean x² + eps)·w        nothing is subtracted;  weight: normalized_shape
//! ```
//! | dialect | as | |
//! | --- | --- | --- |
//! | `pytorch` | `torch.nn.RMSNorm` | rounded once, last |
//! | `llama` | transformers' `LlamaRMSNorm`, and most others there | rounded to the input's type, then ·w |
//! | `t5` | `T5LayerNorm` | rounded to the weight's type, then ·w: as llama with a half weight |
//! | `olmo2` | `Olmo2RMSNorm` | ·w, rounded last: PyTorch's formula |
//! | `gemma` | `GemmaRMSNorm` | ·(1 + w), rounded last; w is 0 at first |
//!
//! A half type rounds twice where it is rounded early: the bound of those dialects grants that, and the gradients of it.
//! With an F32 weight and a half input the product of `llama` and `t5` is F32, and so is their output.
//!
//! `eps: null` is machine epsilon: 2⁻⁵² for F64, 2⁻²³ for all others, the narrower ones included. The same in training and
//! in evaluation. PyTorch lets any mix of data types pass; the output has the input's.

use serde::{Deserialize, Serialize};

use super::layer_norm::plan_trailing;
use super::normalization::check_dtypes;
use super::{Affine, Call, Definition, Dialect, Plan, Refused, Rule, Signature, json_float};
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
        Signature { optional: &["weight"], differentiable: &["input", "weight"], ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let machine_epsilon = match call.tensors["input"].dtype {
            DataType::F64 => f64::EPSILON,
            _ => f64::from(f32::EPSILON),
        };
        let eps = self.eps.unwrap_or(machine_epsilon);
        let plan = plan_trailing(call, &self.normalized_shape, &["weight"], eps, rule).map_err(Refused::uncounted)?;
        let of = |name: &str| call.tensors.get(name).map(|tensor| tensor.dtype);
        let (one_plus, cast) = match self.dialect {
            Dialect::Pytorch | Dialect::Olmo2 => (false, None),
            Dialect::Gemma => (true, None),
            Dialect::Llama => (false, of("input").filter(|_| call.has("weight"))),
            Dialect::T5 => (false, of("weight")),
        };
        if self.dialect != Dialect::Pytorch {
            check_dtypes(call.tensors, &["weight"]).map_err(Refused::uncounted)?;
        }
        Ok(Plan { centred: false, affine: Affine { one_plus, cast, ..Affine::PLAIN }, ..plan })
    }
}
