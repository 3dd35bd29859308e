//! Group norm of a contiguous (N, C, L): PyTorch's `RowwiseMomentsContiguousCUDAKernel`,
//! `ComputeFusedParamsCUDAKernel` and the element-wise kernels after it.
//!
//! ```text
//! groups of (C/G)·L values      μ, v by WelfordOps      r = rsqrt(v + eps)
//! L > 1      a = r·w      b′ = b − a·μ      y = a·x ⊕ b′                    without w and b: y = (x − μ)·r
//! L = 1      y = ((x − μ)·r)·w ⊕ b
//! ```
//! A group has a warp, or 512 threads from 512 values on, each of which takes 4 neighbours at a time where the group's
//! size is a multiple of 4 and the input begins at 4 elements, else one. The product a·μ is not fused.
//!
//! Certainty: the machine code of 2.15.0 for sm_80, and bit-equal to it. Channels-last inputs have kernels of their
//! own, which are not followed. In half types PyTorch rounds eps, and for the backward pass μ and r, to the input's
//! type; here they stay binary32.

use super::device::{Device, WARP};
use super::row_norm::{Statistics, VECTOR, rowwise_moments};

/// Threads of a large group, and the size from which a group is large.
pub(super) const LARGE: usize = 512;

/// Values of (N, C, L), in G groups of channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups<'a> {
    pub device: &'a Device,
    pub input: &'a [f32],
    /// C, a multiple of G.
    pub channels: usize,
    /// L.
    pub length: usize,
    /// G.
    pub groups: usize,
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub eps: f32,
    /// Whether the input begins at a multiple of 4 elements.
    pub aligned: bool,
}

impl Groups<'_> {
    /// The output, and each group's statistics.
    pub fn forward(&self) -> (Vec<f32>, Vec<Statistics>) {
        let statistics: Vec<Statistics> = self.input.chunks(self.size()).map(|group| self.statistics(group)).collect();
        let value = |(i, &x): (usize, &f32)| {
            let Statistics { mean, rstd } = statistics[i / self.size()];
            let c = self.channel(i);
            let (weight, bias) = (self.weight.map(|weight| weight[c]), self.bias.map(|bias| bias[c]));
            match (weight, bias) {
                (None, None) => (x - mean) * rstd,
                (Some(weight), None) if self.length == 1 => (x - mean) * rstd * weight,
                (None, Some(bias)) if self.length == 1 => self.device.fma(x - mean, rstd, bias),
                (Some(weight), Some(bias)) if self.length == 1 => self.device.fma((x - mean) * rstd, weight, bias),
                _ => {
                    let scale = weight.map_or(rstd, |weight| rstd * weight);
                    self.device.fma(scale, x, bias.unwrap_or(0.0) - scale * mean)
                }
            }
        };
        (self.input.iter().enumerate().map(value).collect(), statistics)
    }

    /// Values of a group.
    pub fn size(&self) -> usize {
        self.channels / self.groups * self.length
    }

    /// The channel of element `i`.
    pub fn channel(&self, i: usize) -> usize {
        i / self.length % self.channels
    }

    /// How many neighbours a thread takes at a time, of rows of so many values.
    pub fn vector(&self, size: usize) -> usize {
        if self.aligned && size.is_multiple_of(VECTOR) { VECTOR } else { 1 }
    }

    fn statistics(&self, group: &[f32]) -> Statistics {
        let moments = rowwise_moments(self.device, group, self.vector(group.len()), threads(group.len()));
        let variance = moments.squares / moments.count as f32;
        Statistics { mean: moments.mean, rstd: self.device.rsqrt(variance + self.eps) }
    }
}

/// Threads for so many values.
pub(super) fn threads(size: usize) -> usize {
    if size < LARGE { WARP } else { LARGE }
}
