//! Layer normalization (Ba, Kiros and Hinton 2016, arXiv 1607.06450), as `torch.nn.LayerNorm`.
//!
//! ```text
//! input: [*, normalized_shape]    groups: one for each index of the leading axes, the n values of the trailing ones
//! y = (x − μ)/√(v + eps)·w + b        v biased, /n;  weight, bias: normalized_shape
//! ```
//! The same in training and in evaluation. One value a group is fine: it gives b.

use serde::{Deserialize, Serialize};

use super::normalization::check_dtypes;
use super::running::Keeping;
use super::{
    Affine, Call, Definition, Dialect, Grouping, ParameterIndex, Partition, Plan, Refusal, RefusalKind, Refused, Rule,
    Signature, Source, json_float,
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
            optional: &["weight", "bias"],
            differentiable: &["input", "weight", "bias"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        check_dtypes(call.tensors, &["weight", "bias"])
            .and_then(|()| plan_trailing(call, &self.normalized_shape, &["weight", "bias"], self.eps, rule))
            .map(|plan| Plan { centred: true, ..plan })
            .map_err(|refusal| Refused { refusal, num_batches_tracked: None })
    }
}

/// A plan whose groups are the trailing axes `normalized_shape`, with parameters of that shape; nothing is subtracted.
pub(super) fn plan_trailing(
    call: &Call<'_>,
    normalized_shape: &[usize],
    parameters: &[&str],
    eps: f64,
    rule: &Rule,
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
    let last = match (rule.grouping, normalized_shape) {
        (Grouping::LastAxis, &[.., last]) if last > 0 => last,
        _ => length,
    };
    Ok(Plan {
        partition: Partition {
            outer: rows,
            outer_stride: length,
            inner: length.checked_div(last).unwrap_or(1),
            inner_stride: last,
            runs: 1,
            run_stride: last,
            run_length: last,
            parameter: ParameterIndex { inner_step: last, element_step: 1, ..ParameterIndex::default() },
        },
        outputs: vec![("output", shape.to_vec())],
        standardizes: true,
        centred: false,
        eps,
        source: Source::Input,
        keeping: Keeping::default(),
        update: None,
        running: false,
        num_batches_tracked: None,
        iterations: 0,
        bessel_values: None,
        affine: Affine::PLAIN,
    })
}
