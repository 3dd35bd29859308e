//! Adaptive layer normalization (Peebles and Xie 2023, "Scalable diffusion models with transformers", arXiv 2212.09748,
//! section 3.2), as the diffusion transformers of diffusers have it.
//!
//! ```text
//! input: [N, *, C]    groups: one for each index of all axes but the last, its C values
//! y = (x − μ)/√(v + eps)·(1 + scale_n) + shift_n        v biased, /C;  scale, shift: [N, C], a row for each sample
//! ```
//! Scale and shift are what a network makes of the condition (a time step, a class); how, is not the layer's business.

use serde::{Deserialize, Serialize};

use super::normalization::check_dtypes;
use super::values::{check_shapes, misshapen};
use super::{Affine, Call, Definition, ParameterIndex, Partition, Plan, Refused, Rule, Signature, json_float};

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdaLayerNorm {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

/// (1 + scale)·y + shift.
pub(super) const SCALE_AND_SHIFT: Affine = Affine { weight: "scale", bias: "shift", one_plus: true, cast: None };

impl Definition for AdaLayerNorm {
    const NAME: &'static str = "ada_layer_norm";

    fn signature(&self) -> Signature {
        Signature {
            optional: &["scale", "shift"],
            differentiable: &["input", "scale", "shift"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        let &[batch, ref between @ .., features] = shape else {
            return Err(Refused::uncounted(misshapen("the input", shape, "rank 2 or more")));
        };
        check_dtypes(call.tensors, &["scale", "shift"])
            .and_then(|()| check_shapes(call, &["scale", "shift"], &[batch, features]))
            .map_err(Refused::uncounted)?;
        let tokens = between.iter().product();
        let outer_step = if rule.first_condition { 0 } else { features };
        let partition = Partition {
            outer: batch,
            outer_stride: tokens * features,
            inner: tokens,
            inner_stride: features,
            runs: 1,
            run_stride: features,
            run_length: features,
            parameter: ParameterIndex { outer_step, element_step: 1, ..ParameterIndex::default() },
        };
        Ok(Plan { affine: SCALE_AND_SHIFT, ..Plan::standardizing(partition, shape, self.eps, true) })
    }
}
