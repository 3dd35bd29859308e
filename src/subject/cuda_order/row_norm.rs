//! Layer norm and RMS norm of rows: PyTorch's `vectorized_layer_norm_kernel`, and `RowwiseMomentsCUDAKernel` with
//! `LayerNormForwardCUDAKernel` for rows that it does not take.
//!
//! ```text
//! x: [M, N]    layer  y = (x − μ)·r·w + b,  r = 1/√(v + eps)         RMS  y = x·r·w,  r = 1/√(mean x² + eps)
//! ```
//! | kernel | threads of a row | moments | y (`⊕` is fused) |
//! | --- | --- | --- | --- |
//! | vectorized, layer | 4 warps, 4 neighbours | by reciprocals; trees of warps, then leaders | (r·(x − μ))·w ⊕ b |
//! | vectorized, RMS | the same | x·x ⊕ sum; sums in the same trees | (r·x)·w |
//! | row-wise, layer | 16 warps | `WelfordOps` | ((x − μ)·r)·w ⊕ b |
//! | row-wise, RMS | 16 warps | the same, and mean x² = μ·μ ⊕ v | (x·r)·w |
//!
//! Without w the product r·(x − μ) is fused with b, but for the first of four neighbours in the vectorized kernel.
//!
//! Certainty: the machine code of 2.15.0 for sm_80, and bit-equal to it; that a row is vectorized where N is a
//! multiple of 4, at most 2²⁴, and the input begins at 4 elements is PyTorch's source.

use super::device::{Device, WARP, block, tree};
use super::welford::Moments;

/// Threads of a block of the vectorized kernels: 4 warps.
const VECTORIZED_WARPS: usize = 4;
/// Neighbours that a thread reads at once.
pub(super) const VECTOR: usize = 4;
/// Threads of a block of the row-wise kernel.
const ROWWISE: usize = 512;

/// Which of the two norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norm {
    Layer,
    Rms,
}

/// M rows of N values, and how they are normalized.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub device: &'a Device,
    pub norm: Norm,
    /// M·N values.
    pub input: &'a [f32],
    /// N, at least 1.
    pub width: usize,
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub eps: f32,
    /// Whether the input begins at a multiple of 4 elements.
    pub aligned: bool,
}

/// What a row is normalized with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Statistics {
    /// μ; 0 for RMS norm.
    pub mean: f32,
    /// r.
    pub rstd: f32,
}

impl Rows<'_> {
    /// The output, and each row's statistics.
    pub fn forward(&self) -> (Vec<f32>, Vec<Statistics>) {
        let statistics: Vec<Statistics> = self.input.chunks(self.width).map(|row| self.statistics(row)).collect();
        let rows = self.input.chunks(self.width).zip(&statistics);
        (rows.flat_map(|(row, of)| self.normalized(row, *of)).collect(), statistics)
    }

    /// Whether the vectorized kernels take the rows.
    fn vectorized(&self) -> bool {
        self.aligned && self.width.is_multiple_of(VECTOR) && self.width <= 1 << 24
    }

    fn statistics(&self, row: &[f32]) -> Statistics {
        let count = self.width as f32;
        let (mean, variance) = match (self.vectorized(), self.norm) {
            (true, Norm::Layer) => {
                let moments = self.vectorized_moments(row);
                (moments.mean, moments.squares / count)
            }
            (true, Norm::Rms) => (0.0, self.vectorized_squares(row) / count),
            (false, norm) => {
                let moments = rowwise_moments(self.device, row, 1, ROWWISE);
                let variance = moments.squares / moments.count as f32;
                match norm {
                    Norm::Layer => (moments.mean, variance),
                    Norm::Rms => (0.0, self.device.fma(moments.mean, moments.mean, variance)),
                }
            }
        };
        Statistics { mean, rstd: self.device.rsqrt(variance + self.eps) }
    }

    /// The values of each thread of the vectorized kernels, added up by `add` and then `merge`.
    fn vectorized_block<T: Copy + Default>(
        &self,
        row: &[f32],
        add: impl Fn(T, f32) -> T,
        merge: impl Fn(T, T) -> T,
    ) -> T {
        let mut threads = [T::default(); VECTORIZED_WARPS * WARP];
        for (number, vector) in row.chunks(VECTOR).enumerate() {
            let thread = &mut threads[number % (VECTORIZED_WARPS * WARP)];
            *thread = vector.iter().fold(*thread, |to, &value| add(to, value));
        }
        let mut leaders = [T::default(); VECTORIZED_WARPS];
        for (leader, warp) in leaders.iter_mut().zip(threads.chunks_mut(WARP)) {
            *leader = tree(warp, &merge);
        }
        tree(&mut leaders, &merge)
    }

    fn vectorized_moments(&self, row: &[f32]) -> Moments {
        let device = self.device;
        self.vectorized_block(
            row,
            |to, value| device.add_by_reciprocal(to, value),
            |a, b| device.merge_by_coefficients(a, b),
        )
    }

    fn vectorized_squares(&self, row: &[f32]) -> f32 {
        self.vectorized_block(row, |sum, value| self.device.fma(value, value, sum), |a, b| a + b)
    }

    fn normalized(&self, row: &[f32], Statistics { mean, rstd }: Statistics) -> impl Iterator<Item = f32> {
        row.iter().enumerate().map(move |(i, &x)| {
            let (weight, bias) = (self.weight.map(|weight| weight[i]), self.bias.map(|bias| bias[i]));
            match (self.norm, weight, bias) {
                (Norm::Rms, Some(weight), _) => rstd * x * weight,
                (Norm::Rms, None, _) => rstd * x,
                (Norm::Layer, Some(weight), Some(bias)) => self.device.fma(rstd * (x - mean), weight, bias),
                (Norm::Layer, None, Some(bias)) if self.vectorized() && i % VECTOR == 0 => rstd * (x - mean) + bias,
                (Norm::Layer, None, Some(bias)) => self.device.fma(rstd, x - mean, bias),
                // The row-wise kernel adds a bias of 0, fused.
                (Norm::Layer, Some(weight), None) if self.vectorized() => rstd * (x - mean) * weight,
                (Norm::Layer, Some(weight), None) => self.device.fma(rstd * (x - mean), weight, 0.0),
                (Norm::Layer, None, None) if self.vectorized() => rstd * (x - mean),
                (Norm::Layer, None, None) => self.device.fma(rstd, x - mean, 0.0),
            }
        })
    }
}

/// What `RowwiseMomentsCUDAKernel` finds of a row: `threads` threads take `vector` neighbours at a time, by
/// `WelfordOps`. Group norm's kernels are the same, with a single warp for small groups.
pub(super) fn rowwise_moments(device: &Device, row: &[f32], vector: usize, threads: usize) -> Moments {
    let mut lanes = vec![Moments::default(); threads];
    for (number, values) in row.chunks(vector).enumerate() {
        let lane = &mut lanes[number % threads];
        *lane = values.iter().fold(*lane, |to, &value| device.add_by_division(to, value));
    }
    let merge = |lanes: &mut [Moments]| tree(lanes, |a, b| device.merge_by_quotient(a, b));
    if threads <= WARP { merge(&mut lanes) } else { block(&mut lanes, Moments::default(), merge) }
}
