//! The arithmetic of a GPU's thread, and how warps and blocks add up what their threads have.
//!
//! ```text
//! thread   binary32: +, −, ·, / and √ as IEEE 754 has them; a·b + c with one rounding where the compiler fuses
//! rsqrt    1/√x from a table in hardware, right to about one unit in the last place; x below 2⁻¹²⁶ is scaled by 2²⁴
//! warp     32 lanes:  tree        v[i] ← v[i] ∘ v[i + k],  k = 16, 8, 4, 2, 1       (SHFL.DOWN, read by lane 0)
//!                     butterfly   v[i] ← v[i] ∘ v[i ⊕ k],  k = 1, 2, 4, 8, 16       (SHFL.BFLY, read by lane 0)
//! block    each warp by itself, then its leaders, filled up to 32, as a warp
//! ```
//! Source: PyTorch's `cuda_utils::WarpReduce` and `BlockReduce` (aten/src/ATen/native/cuda/block_reduce.cuh); the CUDA
//! C++ Programming Guide's table of errors for `rsqrtf`.

/// Lanes of a warp.
pub const WARP: usize = 32;

/// What a thread computes with.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// Whether products and sums are not fused: the control.
    pub unfused: bool,
    /// The reciprocal root.
    pub root: Root,
}

/// The hardware's reciprocal root.
#[derive(Clone, Debug, Default)]
pub enum Root {
    /// As if it were correctly rounded.
    #[default]
    Rounded,
    /// As measured on a device.
    Measured(RootTable),
}

/// How far a device's reciprocal root is from the correctly rounded one, for every significand.
///
/// The root of x·4ᵏ is that of x divided by 2ᵏ, so the binary32 numbers of [1, 4) tell all others.
#[derive(Clone, Debug)]
pub struct RootTable {
    units: Vec<i8>,
}

/// A table that does not have an entry for each binary32 number of [1, 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a table of reciprocal roots has {expected} entries, one for each binary32 number from 1 to below 4, not {actual}"
)]
pub struct WrongTable {
    expected: usize,
    actual: usize,
}

impl RootTable {
    /// Entries of a table: the binary32 numbers of [1, 4).
    pub const ENTRIES: usize = 1 << 24;

    /// A table of the units in the last place by which a device's root of each binary32 number from 1 to below 4, in
    /// ascending order, exceeds the correctly rounded one.
    ///
    /// # Errors
    /// [`WrongTable`] if there is not an entry for each.
    ///
    /// ```
    /// use normative::subject::cuda_order::RootTable;
    /// assert!(RootTable::new(vec![0; RootTable::ENTRIES]).is_ok());
    /// assert!(RootTable::new(vec![0; 3]).is_err());
    /// ```
    pub fn new(units: Vec<i8>) -> Result<RootTable, WrongTable> {
        match units.len() {
            RootTable::ENTRIES => Ok(RootTable { units }),
            actual => Err(WrongTable { expected: RootTable::ENTRIES, actual }),
        }
    }

    /// The units for a positive normal number.
    fn units(&self, x: f32) -> i32 {
        let bits = x.to_bits();
        // Biased exponents of [1, 2) and of all 4ᵏ times it are odd.
        let even = (bits >> 23) & 1 == 0;
        i32::from(self.units[(usize::from(even) << 23) | (bits & 0x7f_ffff) as usize])
    }
}

impl Device {
    /// a·b + c, rounded once; in the control twice.
    pub fn fma(&self, a: f32, b: f32, c: f32) -> f32 {
        if self.unfused { a * b + c } else { a.mul_add(b, c) }
    }

    /// 1/√x by the hardware's instruction.
    pub fn rsqrt(&self, x: f32) -> f32 {
        if x.abs() < f32::MIN_POSITIVE {
            return self.root(x * 16_777_216.0) * 4096.0;
        }
        self.root(x)
    }

    fn root(&self, x: f32) -> f32 {
        let rounded = (1.0 / f64::from(x).sqrt()) as f32;
        match &self.root {
            Root::Measured(table) if x.is_normal() && x > 0.0 => {
                f32::from_bits(rounded.to_bits().wrapping_add_signed(table.units(x)))
            }
            _ => rounded,
        }
    }
}

/// What lane 0 of a warp has after a tree; any power of two of lanes, or of threads that meet in shared memory.
pub fn tree<T: Copy>(lanes: &mut [T], combine: impl Fn(T, T) -> T) -> T {
    let mut distance = lanes.len() / 2;
    while distance > 0 {
        for lane in 0..distance {
            lanes[lane] = combine(lanes[lane], lanes[lane + distance]);
        }
        distance /= 2;
    }
    lanes[0]
}

/// What lane 0 of a warp has after a butterfly. Lanes that it does not hear of are left as they were.
pub fn butterfly<T: Copy>(lanes: &mut [T], combine: impl Fn(T, T) -> T) -> T {
    let mut distance = 1;
    while distance < lanes.len() {
        for lane in (0..lanes.len()).step_by(2 * distance) {
            lanes[lane] = combine(lanes[lane], lanes[lane + distance]);
        }
        distance *= 2;
    }
    lanes[0]
}

/// What the first thread of a block has: `reduce` of each warp, and then of the leaders and as many of `none` as make
/// 32.
pub fn block<T: Copy>(threads: &mut [T], none: T, reduce: impl Fn(&mut [T]) -> T) -> T {
    let mut leaders = [none; WARP];
    for (leader, warp) in leaders.iter_mut().zip(threads.chunks_mut(WARP)) {
        *leader = reduce(warp);
    }
    reduce(&mut leaders)
}

/// The sum of the threads of a block, or of a single warp.
pub fn block_sum(threads: &mut [f32]) -> f32 {
    let sum = |lanes: &mut [f32]| tree(lanes, |a, b| a + b);
    if threads.len() <= WARP { sum(threads) } else { block(threads, 0.0, sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_correctly_rounded_or_the_table_s() {
        let device = Device::default();
        for x in [1.0_f32, 2.0, 3.0, 0.1, 1e-40, 1e30, 1.5e-45] {
            let exact = 1.0 / f64::from(x).sqrt();
            assert!((f64::from(device.rsqrt(x)) / exact - 1.0).abs() <= 2f64.powi(-24), "{x}");
        }
        assert_eq!(device.rsqrt(0.0), f32::INFINITY);
        assert_eq!(device.rsqrt(f32::INFINITY), 0.0);
        assert!(device.rsqrt(-1.0).is_nan());
        // 3 = 1.5·2 is in the second binade, and so are 12 and 3/4.
        let mut units = vec![0; RootTable::ENTRIES];
        units[(1 << 23) | (1 << 22)] = -1;
        let measured = Device { root: Root::Measured(RootTable::new(units).unwrap()), ..Device::default() };
        for x in [3.0_f32, 12.0, 0.75] {
            assert_eq!(measured.rsqrt(x), device.rsqrt(x).next_down(), "{x}");
        }
        for x in [1.5_f32, 6.0, 1.0, 0.0, f32::INFINITY] {
            assert_eq!(measured.rsqrt(x), device.rsqrt(x), "{x}");
        }
    }

    #[test]
    fn reductions_pair_as_the_hardware_does() {
        let mut symbols: Vec<usize> = (0..8).collect();
        // A number in base 9 tells the order in which it was made.
        let join = |a: usize, b: usize| if b < 8 { a * 9 + b } else { a * 1000 + b };
        assert_eq!(tree(&mut symbols[..4].to_vec(), join), join(join(0, 2), join(1, 3)));
        assert_eq!(butterfly(&mut symbols[..4], join), join(join(0, 1), join(2, 3)));
        let mut threads = vec![1.0; 512];
        assert_eq!(block_sum(&mut threads), 512.0);
        assert_eq!(block_sum(&mut [1.0; 32]), 32.0);
    }

    #[test]
    fn the_control_rounds_twice() {
        // The last term of (1 + e)² = 1 + 2e + e² is below the rounding of the product.
        let (x, rest) = (1.0 + f32::EPSILON, -1.0 - 2.0 * f32::EPSILON);
        assert_eq!(Device::default().fma(x, x, rest), f32::EPSILON * f32::EPSILON);
        assert_eq!(Device { unfused: true, ..Device::default() }.fma(x, x, rest), 0.0);
    }
}
