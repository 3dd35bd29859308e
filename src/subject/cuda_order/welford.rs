//! Mean and sum of squared deviations, updated value by value and merged: five ways, one for each family of kernels.
//!
//! ```text
//! one value v     d = v − μ     n ← n + 1     μ ← μ + d/n     m ← m + d·(v − μ)
//! merge a, b      d = μ_b − μ_a     n = n_a + n_b     μ = (n_a·μ_a + n_b·μ_b)/n     m = m_a + m_b + d²·n_a·n_b/n
//! ```
//! The kernels differ in what is divided, what is multiplied by a reciprocal, and which products and sums are fused.
//! All of it was read in the machine code of PyTorch 2.15.0 for sm_80; `⊕` below marks a fused product and sum.
//!
//! Sources: Welford 1962, *Technometrics* 4 (3); Chan, Golub and LeVeque 1983, *The American Statistician* 37 (3). In
//! PyTorch `cuWelfordOnlineSum` and `cuWelfordCombine` (layer_norm_kernel.cu), `WelfordOps` (SharedReduceOps.h),
//! `batch_norm_collect_statistics_kernel` and `welford_merge_element` (Normalization.cuh).

use super::device::Device;

/// Of some values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Their mean.
    pub mean: f32,
    /// The sum of their squared deviations.
    pub squares: f32,
    /// How many they are.
    pub count: u64,
}

impl Device {
    /// One value more, by a reciprocal: μ ← d·(1/n) ⊕ μ, m ← d·(v − μ) ⊕ m. Vectorized layer norm.
    pub fn add_by_reciprocal(&self, to: Moments, value: f32) -> Moments {
        let count = to.count + 1;
        let deviation = value - to.mean;
        let mean = self.fma(deviation, 1.0 / count as f32, to.mean);
        Moments { mean, squares: self.fma(deviation, value - mean, to.squares), count }
    }

    /// One value more, by a division: μ ← μ + d/n, m ← d·(v − μ) ⊕ m. `WelfordOps`, and contiguous batch norm.
    pub fn add_by_division(&self, to: Moments, value: f32) -> Moments {
        let count = to.count + 1;
        let deviation = value - to.mean;
        let mean = to.mean + deviation / count as f32;
        Moments { mean, squares: self.fma(deviation, value - mean, to.squares), count }
    }

    /// One value more: μ ← d·(1/n) ⊕ μ, m ← m + d·(v − μ). Batch norm with the channels last, where the last product is
    /// multiplied by 1 for a value that is there, and that is fused.
    pub fn add_valid(&self, to: Moments, value: f32) -> Moments {
        let count = to.count + 1;
        let deviation = value - to.mean;
        let mean = self.fma(deviation, 1.0 / count as f32, to.mean);
        Moments { mean, squares: deviation * (value - mean) + to.squares, count }
    }

    /// With c = 1/n, α = n_b·c and β = n_a·c: μ = μ_b·α ⊕ β·μ_a, m = β·(n_b·d²) ⊕ (m_b + m_a). Vectorized layer norm;
    /// `a` is the thread's own.
    pub fn merge_by_coefficients(&self, a: Moments, b: Moments) -> Moments {
        let count = a.count + b.count;
        if count == 0 {
            return Moments::default();
        }
        let deviation = a.mean - b.mean;
        let inverse = 1.0 / count as f32;
        let (of_a, of_b) = (a.count as f32 * inverse, b.count as f32 * inverse);
        let mean = self.fma(b.mean, of_b, of_a * a.mean);
        let squares = self.fma(of_a, b.count as f32 * (deviation * deviation), b.squares + a.squares);
        Moments { mean, squares, count }
    }

    /// With q = n_b/n: μ = d·q ⊕ μ_a, m = (d²·n_a)·q ⊕ (m_a + m_b); the other where one is empty. `WelfordOps`.
    pub fn merge_by_quotient(&self, a: Moments, b: Moments) -> Moments {
        if a.count == 0 {
            return b;
        }
        if b.count == 0 {
            return a;
        }
        let deviation = b.mean - a.mean;
        let count = a.count + b.count;
        let quotient = b.count as f32 / (a.count as f32 + b.count as f32);
        let squares = self.fma(deviation * deviation * a.count as f32, quotient, a.squares + b.squares);
        Moments { mean: self.fma(deviation, quotient, a.mean), squares, count }
    }

    /// With f = 1/max(n, 1): μ = (n_a·μ_a ⊕ n_b·μ_b)·f, m = m_a + (((d²·n_a)·n_b)·f ⊕ m_b). Contiguous batch norm.
    pub fn merge_by_factor(&self, a: Moments, b: Moments) -> Moments {
        let [of_a, of_b] = [a, b].map(|part| part.count as f32);
        let deviation = a.mean - b.mean;
        let weighted = deviation * deviation * of_a * of_b;
        self.merged(a, b, weighted, self.fma(of_a, a.mean, of_b * b.mean))
    }

    /// The same with d²·n_b·n_a, and μ as there: batch norm with the channels last, threads that meet in shared memory
    /// or blocks that meet in global memory.
    pub fn merge_blocks(&self, a: Moments, b: Moments) -> Moments {
        let [of_a, of_b] = [a, b].map(|part| part.count as f32);
        self.merged(a, b, weighted(a, b), self.fma(of_a, a.mean, of_b * b.mean))
    }

    /// The same with μ = (n_b·μ_b ⊕ n_a·μ_a)·f: batch norm with the channels last, the four accumulators of a thread.
    pub fn merge_accumulators(&self, a: Moments, b: Moments) -> Moments {
        let [of_a, of_b] = [a, b].map(|part| part.count as f32);
        self.merged(a, b, weighted(a, b), self.fma(of_b, b.mean, of_a * a.mean))
    }

    /// `weighted` is d²·n_a·n_b, `sum` is n_a·μ_a + n_b·μ_b.
    fn merged(&self, a: Moments, b: Moments, weighted: f32, sum: f32) -> Moments {
        let count = a.count + b.count;
        let factor = 1.0 / (count as f32).max(1.0);
        Moments { mean: sum * factor, squares: a.squares + self.fma(weighted, factor, b.squares), count }
    }
}

/// d²·n_b·n_a, in this order.
fn weighted(a: Moments, b: Moments) -> f32 {
    let deviation = a.mean - b.mean;
    b.count as f32 * (deviation * deviation) * a.count as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way agrees with the sums themselves to a few roundings, and with an empty side.
    #[test]
    fn every_way_gives_the_moments() {
        let device = Device::default();
        let values: Vec<f32> = (0..40).map(|i| 3.0 + ((i * i * 7) % 11) as f32 / 8.0).collect();
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / 40.0;
        let squares: f64 = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
        let ways = [Device::add_by_reciprocal, Device::add_by_division, Device::add_valid];
        let merges = [
            Device::merge_by_coefficients,
            Device::merge_by_quotient,
            Device::merge_by_factor,
            Device::merge_blocks,
            Device::merge_accumulators,
        ];
        for add in ways {
            let of = |part: &[f32]| part.iter().fold(Moments::default(), |to, &v| add(&device, to, v));
            for merge in merges {
                for cut in [0, 1, 17, 40] {
                    let found = merge(&device, of(&values[..cut]), of(&values[cut..]));
                    assert_eq!(found.count, 40);
                    // Welford's bound is of the order of n units.
                    assert!((f64::from(found.mean) / mean - 1.0).abs() < 40.0 * 2f64.powi(-24));
                    assert!((f64::from(found.squares) / squares - 1.0).abs() < 400.0 * 2f64.powi(-24));
                }
            }
        }
    }
}
