//! Layer normalization over the channels of each pixel (Liu et al. 2022, arXiv 2201.03545, section 2.6), as
//! `timm.layers.LayerNorm2d`.
//!
//! ```text
//! input: [N, C, H, W]    groups: one for each sample and pixel, the C values of its channels
//! y = (x − μ)/√(v + eps)·w_c + b_c        v biased, /C;  weight, bias: [C]
//! ```
//! Layer norm of the same values in the order N, H, W, C. One channel gives b.

use serde::{Deserialize, Serialize};

use super::normalization::{check_dtypes, check_vectors};
use super::values::channels_first;
use super::{Call, Definition, ParameterIndex, Partition, Plan, Refused, Rule, Signature, json_float};

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerNorm2d {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for LayerNorm2d {
    const NAME: &'static str = "layer_norm_2d";

    fn signature(&self) -> Signature {
        Signature {
            optional: &["weight", "bias"],
            differentiable: &["input", "weight", "bias"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let fits = channels_first(call, 4..=4, "rank 4").and_then(|[_, channels, _]| {
            check_dtypes(call.tensors, &["weight", "bias"])?;
            check_vectors(call.tensors, &["weight", "bias"], channels)
        });
        fits.map_err(Refused::uncounted)?;
        Ok(Plan::standardizing(pixels(&call.tensors["input"].shape), &call.tensors["input"].shape, self.eps, true))
    }
}

/// One group for each sample and position, with a weight for each channel.
pub(super) fn pixels(shape: &[usize]) -> Partition {
    let parameter = ParameterIndex { run_step: 1, ..ParameterIndex::default() };
    Partition { parameter, ..Partition::lines(shape, 1) }
}
