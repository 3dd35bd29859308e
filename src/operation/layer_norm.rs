//! Layer normalization (Ba, Kiros and Hinton 2016, arXiv 1607.06450), as `torch.nn.LayerNorm`.
//!
//! ```text
//! input: [*, normalized_shape]    groups: one for each index of the leading axes, the n values of the trailing ones
//! y = (x − μ)/√(v + eps)·w + b        v biased, /n;  weight, bias: normalized_shape
//! ```
//! The same in training and in evaluation. One value a group is fine: it gives b.

use serde::{Deserialize, Serialize};

use super::normalization::check_dtypes;
use super::{
    Affine, Call, Definition, Dialect, ParameterIndex, Partition, Plan, Refusal, RefusalKind, Refused, Rule, Signature,
    Source, json_float,
};

/// Layer norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerNorm {
    /// The trailing axes that are normalized together; at least one.
    pub normalized_shape: Vec<usize>,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The conventions.
    #[serde(default, skip_serializing_if = "Dialect::is_default")]
    pub dialect: Dialect,
}

impl Definition for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input"],
            optional: &["weight", "bias"],
            outputs: &["output"],
            state: &[],
            differentiable: &["input", "weight", "bias"],
            modes: false,
        }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        check_dtypes(call.tensors, &["weight", "bias"])
            .and_then(|()| plan_trailing(call, &self.normalized_shape, &["weight", "bias"], true, self.eps))
            .map_err(|refusal| Refused { refusal, num_batches_tracked: None })
    }
}

/// A plan whose groups are the trailing axes `normalized_shape`, with parameters of that shape.
pub(super) fn plan_trailing(
    call: &Call<'_>,
    normalized_shape: &[usize],
    parameters: &[&str],
    centred: bool,
    eps: f64,
) -> Result<Plan, Refusal> {
    let shape = call.tensors["input"].shape.as_slice();
    let refuse = |message: String| Err(Refusal::new(RefusalKind::Shape, message));
    if normalized_shape.is_empty() {
        return refuse("normalized_shape is empty; expected at least one axis".into());
    }
    if !shape.ends_with(normalized_shape) {
        return refuse(format!("the input has shape {shape:?}; expected it to end with {normalized_shape:?}"));
    }
    for &name in parameters {
        match call.shape(name) {
            Some(other) if other != normalized_shape => {
                return refuse(format!("{name} has shape {other:?}; expected normalized_shape, {normalized_shape:?}"));
            }
            _ => {}
        }
    }
    let length: usize = normalized_shape.iter().product();
    let rows = shape[..shape.len() - normalized_shape.len()].iter().product();
    Ok(Plan {
        partition: Partition {
            outer: rows,
            outer_stride: length,
            inner: 1,
            inner_stride: length,
            runs: 1,
            run_stride: length,
            run_length: length,
            parameter: ParameterIndex { element_step: 1, ..ParameterIndex::default() },
        },
        outputs: vec![("output", shape.to_vec())],
        standardizes: true,
        centred,
        eps,
        source: Source::Input,
        update: None,
        running: false,
        num_batches_tracked: None,
        iterations: 0,
        bessel_values: None,
        affine: Affine::PLAIN,
    })
}
