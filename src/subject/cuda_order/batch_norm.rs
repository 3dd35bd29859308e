//! Batch norm of a contiguous (N, C, L): PyTorch's `batch_norm_collect_statistics_kernel`, the update of the running
//! statistics, `batch_norm_transform_input_kernel` and `batch_norm_backward_kernel`. Instance norm is this with a
//! batch of one and N·C channels.
//!
//! ```text
//! μ, v: a channel's mean and biased variance      r = rsqrt(v + eps)      y = ((x − μ)·w)·r ⊕ b
//! running ← new·m ⊕ (1 − m)·running               new: μ, or v·f32(n/(n − 1))
//! S = Σ dy      T = (x − μ)·dy ⊕ T      dx = (r·w)·((−((T·1/n)·r)·r)·(x − μ) ⊕ dy − S·1/n)      dw = r·T      db = S
//! ```
//! - A channel has a block of 512 threads, as wide as L but at least 32 and a power of two, the rest of them across the
//!   batch; `add_by_division`, then butterflies of the warps and of their leaders, `merge_by_factor`.
//! - Evaluation: r = rsqrt(running_var + eps) forward; backward r = 1/√(running_var + eps), and dx = dy·(r·w).
//!
//! Certainty: the machine code of 2.15.0 for sm_80, and bit-equal to it; the sizes of blocks, and which kernel runs,
//! from PyTorch's source. cuDNN, which takes most batch norms with weight and bias by default, is another program.

use super::device::{Device, block, butterfly, tree};
use super::row_norm_backward::Gradients;
use super::welford::Moments;

/// Threads of a block.
const BLOCK: usize = 512;

/// A channel's mean, and its biased variance or 1/σ.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Channel {
    pub mean: f32,
    pub variance: f32,
}

/// Values of (N, C, L).
#[derive(Clone, Copy, Debug)]
pub(super) struct Planes<'a> {
    pub device: &'a Device,
    pub input: &'a [f32],
    /// N.
    pub batch: usize,
    /// C.
    pub channels: usize,
    /// L.
    pub length: usize,
}

/// The parameters of the channels, where they were sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affine<'a> {
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
}

impl Affine<'_> {
    /// What `value` makes of each element: of x − μ, r, w and b of its channel, w and b 1 and 0 where they are not there.
    pub fn applied(
        &self,
        input: &[f32],
        channels: &[Channel],
        rstd: &[f32],
        channel: impl Fn(usize) -> usize,
        value: impl Fn(f32, f32, f32, f32) -> f32,
    ) -> Vec<f32> {
        let of = |(i, &x): (usize, &f32)| {
            let c = channel(i);
            let weight = self.weight.map_or(1.0, |weight| weight[c]);
            let bias = self.bias.map_or(0.0, |bias| bias[c]);
            value(x - channels[c].mean, rstd[c], weight, bias)
        };
        input.iter().enumerate().map(of).collect()
    }
}

/// The running statistics after a batch.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub mean: Vec<f32>,
    pub variance: Vec<f32>,
}

impl Running {
    /// Moved towards the statistics of a batch of `count` values for each channel.
    pub fn moved(&self, device: &Device, batch: &[Channel], momentum: f32, count: usize) -> Running {
        let bessel = (count as f64 / (count as f64 - 1.0)) as f32;
        let kept = 1.0 - momentum;
        let mean = self.mean.iter().zip(batch).map(|(old, new)| device.fma(new.mean, momentum, kept * old));
        let variance = self.variance.iter().zip(batch);
        let variance = variance.map(|(old, new)| device.fma(new.variance * bessel, momentum, kept * old));
        Running { mean: mean.collect(), variance: variance.collect() }
    }

    /// As the statistics to normalize with.
    pub fn channels(&self) -> Vec<Channel> {
        let pairs = self.mean.iter().zip(&self.variance);
        pairs.map(|(&mean, &variance)| Channel { mean, variance }).collect()
    }
}

/// 1/σ of each channel, by the hardware's instruction.
pub(super) fn inverted(device: &Device, channels: &[Channel], eps: f32) -> Vec<f32> {
    channels.iter().map(|of| device.rsqrt(of.variance + eps)).collect()
}

/// The smallest width of a block for so many values.
fn width(length: usize) -> usize {
    length.next_power_of_two().clamp(32, BLOCK)
}

impl Planes<'_> {
    /// The statistics of each channel.
    pub fn statistics(&self) -> Vec<Channel> {
        let merge = |lanes: &mut [Moments]| butterfly(lanes, |a, b| self.device.merge_by_factor(a, b));
        let of = |channel| {
            let mut threads = vec![Moments::default(); BLOCK];
            self.visit(channel, |thread, i| {
                threads[thread] = self.device.add_by_division(threads[thread], self.input[i]);
            });
            let moments = block(&mut threads, Moments::default(), merge);
            Channel { mean: moments.mean, variance: moments.squares / (self.batch * self.length) as f32 }
        };
        (0..self.channels).map(of).collect()
    }

    /// The output.
    pub fn transformed(&self, channels: &[Channel], rstd: &[f32], affine: Affine<'_>) -> Vec<f32> {
        affine.applied(
            self.input,
            channels,
            rstd,
            |i| self.channel(i),
            |deviation, root, weight, bias| self.device.fma(deviation * weight, root, bias),
        )
    }

    /// The output by the element-wise kernel that takes strided inputs: ((x − μ)·r)·w ⊕ b.
    pub fn transformed_by_elements(&self, channels: &[Channel], rstd: &[f32], affine: Affine<'_>) -> Vec<f32> {
        affine.applied(
            self.input,
            channels,
            rstd,
            |i| self.channel(i),
            |deviation, root, weight, bias| self.device.fma(deviation * root, weight, bias),
        )
    }

    /// The gradients: of a training call with the batch's means and `rstd`, or, where that is not given, of an
    /// evaluation with the running statistics.
    pub fn backward(
        &self,
        gradient: &[f32],
        channels: &[Channel],
        rstd: Option<&[f32]>,
        weight: Option<&[f32]>,
        eps: f32,
    ) -> Gradients {
        let mut gradients = Gradients { input: vec![0.0; self.input.len()], weight: Vec::new(), bias: Vec::new() };
        for (c, of) in channels.iter().enumerate() {
            let root = rstd.map_or_else(|| 1.0 / (of.variance + eps).sqrt(), |rstd| rstd[c]);
            let mut threads = vec![(0.0, 0.0); BLOCK];
            self.visit(c, |thread, i| {
                let (sum, product) = threads[thread];
                let dy = gradient[i];
                threads[thread] = (sum + dy, self.device.fma(self.input[i] - of.mean, dy, product));
            });
            let sums = |lanes: &mut [(f32, f32)]| tree(lanes, |a, b| (a.0 + b.0, a.1 + b.1));
            let (sum, product) = block(&mut threads, (0.0, 0.0), sums);
            let share = 1.0 / (self.batch * self.length) as f32;
            let (mean, projection) = (sum * share, product * share * root * root);
            let scale = weight.map_or(root, |weight| root * weight[c]);
            self.visit(c, |_, i| {
                gradients.input[i] = if rstd.is_some() {
                    scale * (self.device.fma(-projection, self.input[i] - of.mean, gradient[i]) - mean)
                } else {
                    scale * gradient[i]
                };
            });
            gradients.weight.push(root * product);
            gradients.bias.push(sum);
        }
        gradients
    }

    /// The channel of element `i`.
    pub fn channel(&self, i: usize) -> usize {
        i / self.length % self.channels
    }

    /// Each element of a channel, with the thread that reads it, in the order in which a thread does.
    fn visit(&self, channel: usize, mut visitor: impl FnMut(usize, usize)) {
        let width = width(self.length);
        let height = BLOCK / width;
        for sample in 0..self.batch {
            let first = (sample * self.channels + channel) * self.length;
            for position in 0..self.length {
                visitor(sample % height * width + position % width, first + position);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_wide_as_a_row_within_their_limits() {
        for (length, expected) in [(1, 32), (32, 32), (33, 64), (64, 64), (200, 256), (512, 512), (100_000, 512)] {
            assert_eq!(width(length), expected, "{length}");
        }
    }
}
