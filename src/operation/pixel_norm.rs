//! Pixel normalization (Karras et al. 2018, "Progressive growing of GANs", arXiv 1710.10196, section 4.2).
//!
//! ```text
//! input: [N, C, *]    groups: one for each sample and position, the C values of its channels
//! y = x/√(mean_C x² + eps)
//! ```
//! RMS norm over the channels, without a weight. The paper's eps is 1e-8.

use serde::{Deserialize, Serialize};

use super::layer_norm_2d::pixels;
use super::values::channels_first;
use super::{Call, Definition, Plan, Refused, Rule, Signature, json_float};

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PixelNorm {
    /// Added to the mean square.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for PixelNorm {
    const NAME: &'static str = "pixel_norm";

    fn signature(&self) -> Signature {
        Signature::STATELESS
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        channels_first(call, 2..=usize::MAX, "rank 2 or more").map_err(Refused::uncounted)?;
        let shape = &call.tensors["input"].shape;
        Ok(Plan::standardizing(pixels(shape), shape, self.eps, false))
    }
}
