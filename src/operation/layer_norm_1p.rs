//! Layer normalization with a weight around zero, as `LayerNorm1P` of NVIDIA's NeMo and `NemotronLayerNorm1P` of
//! transformers.
//!
//! ```text
//! input: [*, normalized_shape]    groups: as layer norm's
//! y = (x − μ)/√(v + eps)·(1 + w) + b        v biased, /n;  weight, bias: normalized_shape
//! ```
//! Weight decay draws 1 + w to 1 rather than to 0.

use serde::{Deserialize, Serialize};

use super::layer_norm::plan_trailing;
use super::normalization::check_dtypes;
use super::{Affine, Call, Definition, Plan, Refused, Rule, Signature, json_float};

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerNorm1p {
    /// The trailing axes that are normalized together; at least one.
    pub normalized_shape: Vec<usize>,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for LayerNorm1p {
    const NAME: &'static str = "layer_norm_1p";

    fn signature(&self) -> Signature {
        Signature {
            optional: &["weight", "bias"],
            differentiable: &["input", "weight", "bias"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let plan = check_dtypes(call.tensors, &["weight", "bias"])
            .and_then(|()| plan_trailing(call, &self.normalized_shape, &["weight", "bias"], self.eps, rule))
            .map_err(Refused::uncounted)?;
        Ok(Plan { centred: true, affine: Affine { one_plus: true, ..Affine::PLAIN }, ..plan })
    }
}
