//! The gradients of group norm: PyTorch's `ComputeInternalGradientsContiguousCUDAKernel`,
//! `ComputeBackwardFusedParamsCUDAKernel`, `GammaBetaBackwardCUDAKernel1` and `2`, the element-wise kernels, and their
//! forms for L = 1.
//!
//! ```text
//! a channel of a sample   D = dy·x ⊕ D      B = Σ dy
//! a group                 S = D·w ⊕ S      T = B·w ⊕ T      s = 1/(C/G·L)
//!                         c₂ = ((((T·μ ⊕ −S)·r)·r)·r)·s      c₃ = c₂·(−μ) ⊕ −((r·T)·s)
//! dx = ((r·w)·dy ⊕ c₂·x) + c₃      dw = (B·(−μ) ⊕ D)·r ⊕ dw      db = Σ B
//! L = 1                   S = (dy·x)·w ⊕ S      T = dy·w ⊕ T      dw = (x·dy ⊕ −(dy·μ))·r ⊕ dw
//! ```
//! Threads and their trees are those of the forward pass: for D and B a warp, or 512 threads from L = 512 on; for S
//! and T from C/G = 512 on. Up to 128 samples dw and db are added up one by one; from 129 on by 32 threads that meet
//! in a tree.
//!
//! Certainty: the machine code of 2.15.0 for sm_80, and bit-equal to it; the sums over more than 128 samples from
//! PyTorch's source.

use super::device::{WARP, block_sum, tree};
use super::group_norm::{Groups, threads};
use super::row_norm::Statistics;
use super::row_norm_backward::Gradients;

/// Samples up to which one thread adds up a channel's gradients.
const FEW: usize = 128;

/// D and B of a channel of a sample.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    products: f32,
    gradients: f32,
}

impl Groups<'_> {
    /// The gradients, from that of the output and the statistics of the forward pass.
    pub fn backward(&self, gradient: &[f32], statistics: &[Statistics]) -> Gradients {
        let sums: Vec<Sums> = if self.length == 1 { Vec::new() } else { self.channel_sums(gradient) };
        let factors: Vec<(f32, f32)> =
            statistics.iter().enumerate().map(|(group, of)| self.factors(group, *of, gradient, &sums)).collect();
        let value = |(i, &x): (usize, &f32)| {
            let group = i / self.size();
            let (second, third) = factors[group];
            let rstd = statistics[group].rstd;
            let first = self.weight.map_or(rstd, |weight| rstd * weight[self.channel(i)]);
            self.device.fma(first, gradient[i], second * x) + third
        };
        let input = self.input.iter().enumerate().map(value).collect();
        let parameters = (0..self.channels).map(|c| self.parameter_gradients(c, gradient, statistics, &sums));
        let (weight, bias) = parameters.unzip();
        Gradients { input, weight, bias }
    }

    fn channel_sums(&self, gradient: &[f32]) -> Vec<Sums> {
        let (vector, threads) = (self.vector(self.length), threads(self.length));
        let pairs = self.input.chunks(self.length).zip(gradient.chunks(self.length));
        let of = |(values, dy): (&[f32], &[f32])| {
            let (mut products, mut gradients) = (vec![0.0; threads], vec![0.0; threads]);
            for (i, (x, dy)) in values.iter().zip(dy).enumerate() {
                let thread = i / vector % threads;
                products[thread] = self.device.fma(*dy, *x, products[thread]);
                gradients[thread] += dy;
            }
            Sums { products: block_sum(&mut products), gradients: block_sum(&mut gradients) }
        };
        pairs.map(of).collect()
    }

    /// c₂ and c₃.
    fn factors(
        &self,
        group: usize,
        Statistics { mean, rstd }: Statistics,
        gradient: &[f32],
        sums: &[Sums],
    ) -> (f32, f32) {
        let channels = self.channels / self.groups;
        let threads = threads(channels);
        let (mut products, mut gradients) = (vec![0.0; threads], vec![0.0; threads]);
        for channel in 0..channels {
            let at = group * channels + channel;
            let weight = self.weight.map(|weight| weight[at % self.channels]);
            let (product, total) = (&mut products[channel % threads], &mut gradients[channel % threads]);
            if self.length == 1 {
                let (x, dy) = (self.input[at], gradient[at]);
                *product = match weight {
                    Some(weight) => self.device.fma(dy * x, weight, *product),
                    None => self.device.fma(dy, x, *product),
                };
                *total = weight.map_or(*total + dy, |weight| self.device.fma(dy, weight, *total));
            } else {
                let of = sums[at];
                *product =
                    weight.map_or(*product + of.products, |weight| self.device.fma(of.products, weight, *product));
                *total = weight.map_or(*total + of.gradients, |weight| self.device.fma(of.gradients, weight, *total));
            }
        }
        let (product, total) = (block_sum(&mut products), block_sum(&mut gradients));
        let share = 1.0 / self.size() as f32;
        let second = self.device.fma(total, mean, -product) * rstd * rstd * rstd * share;
        (second, self.device.fma(second, -mean, -(rstd * total * share)))
    }

    /// dw and db of channel `c`.
    fn parameter_gradients(&self, c: usize, gradient: &[f32], statistics: &[Statistics], sums: &[Sums]) -> (f32, f32) {
        let samples = self.input.len() / (self.channels * self.length);
        let threads = if samples <= FEW { 1 } else { WARP };
        let (mut weight, mut bias) = (vec![0.0; threads], vec![0.0; threads]);
        for sample in 0..samples {
            let at = sample * self.channels + c;
            let Statistics { mean, rstd } = statistics[at * self.length / self.size()];
            let (deviation, dy) = if self.length == 1 {
                let dy = gradient[at];
                (self.device.fma(self.input[at], dy, -(dy * mean)), dy)
            } else {
                let Sums { products, gradients } = sums[at];
                (self.device.fma(gradients, -mean, products), gradients)
            };
            let thread = sample % threads;
            weight[thread] = self.device.fma(deviation, rstd, weight[thread]);
            bias[thread] += dy;
        }
        let sum = |mut lanes: Vec<f32>| tree(&mut lanes, |a, b| a + b);
        (sum(weight), sum(bias))
    }
}
