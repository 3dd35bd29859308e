//! Batch norm of rows, the channels innermost: PyTorch's `batch_norm_collect_statistics_channels_last_kernel` and
//! those beside it. They run where a channel has one position, (N, C) and (N, C, 1, 1), and for tensors of rank 4 and
//! 5 in that memory format.
//!
//! ```text
//! x: [R, C]      y = ((x − μ)·w)·r ⊕ b      S = Σ dy      T = (x − μ)·dy ⊕ T
//! dx = (r·w)·(−((T·(r·r))·1/R)·(x − μ) ⊕ (−S·1/R ⊕ dy))      dw = T·r      db = S
//! ```
//! - A block is `width` channels wide and `height` rows high (`Launch`). A thread keeps four accumulators, for four
//!   rows at a time, and merges them in their order; threads of a column meet in a tree in shared memory.
//! - From 8·16·height rows on several blocks share a channel and meet in memory. Which of them finishes last adds up,
//!   but always in the same order.
//! - Evaluation's dx is (dy·w)·r, by an element-wise kernel.
//!
//! Certainty: the machine code of 2.15.0 for sm_80, and bit-equal to it; where several blocks meet it was read but not
//! run. The sizes of blocks from PyTorch's source.

use super::batch_norm::{Affine, Channel};
use super::device::{Device, tree};
use super::row_norm_backward::Gradients;

/// Rows that a thread reads at a time, each for an accumulator of its own.
const LOADS: usize = 4;

/// R rows of C values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns<'a> {
    pub device: &'a Device,
    pub input: &'a [f32],
    /// C, at least 1.
    pub channels: usize,
}

/// How many blocks share a column, and how many threads of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Launch {
    blocks: usize,
    height: usize,
}

impl Launch {
    /// PyTorch's `flexible_launch_configs`.
    fn of(rows: usize, channels: usize) -> Launch {
        let below = |n: usize| 1 << n.ilog2();
        let width = below(channels).min(32);
        let height = below(rows.div_ceil(16)).min(512 / width);
        let blocks = rows.div_ceil(height * 16).min(128);
        Launch { blocks: if blocks < 8 { 1 } else { blocks }, height }
    }
}

impl Columns<'_> {
    fn rows(&self) -> usize {
        self.input.len() / self.channels
    }

    /// What all threads make of a column: each accumulator by `add`, those of a thread by `join`, threads and blocks by
    /// `meet`.
    fn reduced<T: Copy + Default>(
        &self,
        channel: usize,
        add: impl Fn(T, usize) -> T,
        join: impl Fn(T, T) -> T,
        meet: impl Fn(T, T) -> T,
    ) -> T {
        let rows = self.rows();
        let Launch { blocks, height } = Launch::of(rows, self.channels);
        let threads = blocks * height;
        let mut accumulators = vec![[T::default(); LOADS]; threads];
        for row in 0..rows {
            let accumulator = &mut accumulators[row % threads][row / threads % LOADS];
            *accumulator = add(*accumulator, row * self.channels + channel);
        }
        let joined = accumulators.iter().map(|[first, rest @ ..]| rest.iter().fold(*first, |a, &b| join(a, b)));
        let mut joined: Vec<T> = joined.collect();
        let met: Vec<T> = joined.chunks_mut(height).map(|block| tree(block, &meet)).collect();
        if blocks == 1 {
            return met[0];
        }
        let mut staged = vec![T::default(); height];
        for (number, block) in met.into_iter().enumerate() {
            let thread = &mut staged[number % height];
            *thread = meet(*thread, block);
        }
        tree(&mut staged, &meet)
    }

    /// The statistics of each channel.
    pub fn statistics(&self) -> Vec<Channel> {
        let device = self.device;
        let of = |channel| {
            let moments = self.reduced(
                channel,
                |to, i| device.add_valid(to, self.input[i]),
                |a, b| device.merge_accumulators(a, b),
                |a, b| device.merge_blocks(a, b),
            );
            Channel { mean: moments.mean, variance: moments.squares / moments.count as f32 }
        };
        (0..self.channels).map(of).collect()
    }

    /// The output.
    pub fn transformed(&self, channels: &[Channel], rstd: &[f32], affine: Affine<'_>) -> Vec<f32> {
        affine.applied(
            self.input,
            channels,
            rstd,
            |i| i % self.channels,
            |deviation, root, weight, bias| self.device.fma(deviation * weight, root, bias),
        )
    }

    /// The gradients of a training call, or of an evaluation.
    pub fn backward(
        &self,
        gradient: &[f32],
        channels: &[Channel],
        rstd: &[f32],
        weight: Option<&[f32]>,
        training: bool,
    ) -> Gradients {
        let add = |a: (f32, f32), b: (f32, f32)| (a.0 + b.0, a.1 + b.1);
        let column = |c: usize| {
            let sums = |(sum, product): (f32, f32), i: usize| {
                (sum + gradient[i], self.device.fma(self.input[i] - channels[c].mean, gradient[i], product))
            };
            self.reduced(c, sums, add, add)
        };
        let sums: Vec<(f32, f32)> = (0..self.channels).map(column).collect();
        let share = (1.0 / self.rows() as f64) as f32;
        let value = |(i, &x): (usize, &f32)| {
            let (c, dy) = (i % self.channels, gradient[i]);
            let (root, (sum, product)) = (rstd[c], sums[c]);
            if !training {
                return weight.map_or(dy, |weight| dy * weight[c]) * root;
            }
            let projection = product * (root * root) * share;
            let scale = weight.map_or(root, |weight| root * weight[c]);
            scale * self.device.fma(-projection, x - channels[c].mean, self.device.fma(-sum, share, dy))
        };
        Gradients {
            input: self.input.iter().enumerate().map(value).collect(),
            weight: sums.iter().zip(rstd).map(|((_, product), root)| product * root).collect(),
            bias: sums.iter().map(|(sum, _)| *sum).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_pytorch_launches_them() {
        for (rows, channels, blocks, height) in
            [(2, 3, 1, 1), (16, 3, 1, 1), (32, 3, 1, 2), (4096, 64, 16, 16), (1000, 64, 1, 16), (1 << 20, 1, 128, 512)]
        {
            assert_eq!(Launch::of(rows, channels), Launch { blocks, height }, "{rows} × {channels}");
        }
    }

    /// However many threads and blocks there are, a column's moments are its moments.
    #[test]
    fn many_blocks_find_the_moments() {
        let (rows, channels) = (3000, 32);
        assert_eq!(Launch::of(rows, channels).blocks, 12);
        let input: Vec<f32> = (0..rows * channels).map(|i| 5.0 + ((i * 37) % 101) as f32 / 16.0).collect();
        let device = Device::default();
        let found = Columns { device: &device, input: &input, channels }.statistics();
        for (c, of) in found.iter().enumerate() {
            let column = || input.iter().skip(c).step_by(channels).map(|&v| f64::from(v));
            let mean = column().sum::<f64>() / rows as f64;
            let variance = column().map(|v| (v - mean).powi(2)).sum::<f64>() / rows as f64;
            // Each thread adds up 16 values at most, and there are as many merges.
            assert!((f64::from(of.mean) / mean - 1.0).abs() < 40.0 * 2f64.powi(-24));
            assert!((f64::from(of.variance) / variance - 1.0).abs() < 400.0 * 2f64.powi(-24));
        }
    }
}
