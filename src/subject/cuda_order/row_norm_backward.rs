//! The gradients of layer norm and RMS norm: PyTorch's `layer_norm_grad_input_kernel`, vectorized or not, and
//! `GammaBetaBackwardCUDAKernelTemplate`.
//!
//! ```text
//! p = dy·w        S = Σ p        T = Σ p·(x − μ)·r        dx = (1/N·r)·(N·w·dy − (x − μ)·r·T − S)
//! dw = Σ dy·(x − μ)·r        db = Σ dy        RMS norm: μ = 0, and S is left out
//! ```
//! - A row has 128 threads, each of which takes 4 neighbours at a time. T: r·(p·(x − μ)) ⊕ T, in RMS norm r·((dy·w)·x)
//!   ⊕ T. S and T go through trees of the warps and of their leaders.
//! - dx = (1/N·r)·((N·w)·dy ⊕ −(T·(r·(x − μ))) − S).
//! - A column of dw and db is added up by 1, 8, 16 or 32 threads, for fewer than 64, 128, 256 rows or more; each takes
//!   8 rows at a time: r·(dy·(x − μ)) ⊕ dw. The threads meet in a tree.
//!
//! Certainty: the machine code of 2.15.0 for sm_80, and bit-equal to it. For more than 65,536 rows of few values
//! PyTorch has another kernel for dw and db, whose order is not followed.

use super::device::{block_sum, tree};
use super::row_norm::{Norm, Rows, Statistics, VECTOR};

/// Threads of a row.
const THREADS: usize = 128;
/// Rows that a thread takes at a time.
const TALL: usize = 8;

/// The gradients of input, weight and bias.
pub(super) struct Gradients {
    pub input: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Rows<'_> {
    /// The gradients, from that of the output and the statistics of the forward pass.
    pub fn backward(&self, gradient: &[f32], statistics: &[Statistics]) -> Gradients {
        let rows = self.input.chunks(self.width).zip(gradient.chunks(self.width)).zip(statistics);
        let input = rows.flat_map(|((row, dy), of)| self.row_gradient(row, dy, *of)).collect();
        let (weight, bias) = self.parameter_gradients(gradient, statistics);
        Gradients { input, weight, bias }
    }

    fn row_gradient(&self, row: &[f32], dy: &[f32], Statistics { mean, rstd }: Statistics) -> Vec<f32> {
        let (mut sums, mut products) = ([0.0; THREADS], [0.0; THREADS]);
        for i in 0..self.width {
            let thread = i / VECTOR % THREADS;
            let scaled = self.weight.map_or(dy[i], |weight| dy[i] * weight[i]);
            sums[thread] += scaled;
            products[thread] = self.device.fma(rstd, scaled * (row[i] - mean), products[thread]);
        }
        let (sum, product) = (block_sum(&mut sums), block_sum(&mut products));
        let count = self.width as f32;
        let factor = 1.0 / count * rstd;
        let value = |i: usize| {
            let scaled = self.weight.map_or(count, |weight| count * weight[i]);
            let whole = self.device.fma(scaled, dy[i], -(product * (rstd * (row[i] - mean))));
            match self.norm {
                Norm::Layer => factor * (whole - sum),
                Norm::Rms => factor * whole,
            }
        };
        (0..self.width).map(value).collect()
    }

    fn parameter_gradients(&self, gradient: &[f32], statistics: &[Statistics]) -> (Vec<f32>, Vec<f32>) {
        let threads = match statistics.len() {
            ..64 => 1,
            64..128 => 8,
            128..256 => 16,
            256.. => 32,
        };
        let column = |j: usize| {
            let (mut weight, mut bias) = (vec![0.0; threads], vec![0.0; threads]);
            for (i, Statistics { mean, rstd }) in statistics.iter().enumerate() {
                let thread = i / TALL % threads;
                let (x, dy) = (self.input[i * self.width + j], gradient[i * self.width + j]);
                weight[thread] = self.device.fma(*rstd, dy * (x - mean), weight[thread]);
                bias[thread] += dy;
            }
            [weight, bias].map(|mut sums| tree(&mut sums, |a, b| a + b))
        };
        (0..self.width).map(column).map(|[weight, bias]| (weight, bias)).unzip()
    }
}
