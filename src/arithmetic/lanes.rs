//! Vector kernels in eight lanes: rough means and compensated sums.
//!
//! ```text
//! vector i of a run: elements 8i … 8i + 7, one to a lane; the last one padded so that it adds nothing
//! lane:              s ← s + d, with the exact error added to c     total ← total + (s + c) every BLOCK vectors
//! sum:               ((l₀ + l₁) + (l₂ + l₃)) + ((l₄ + l₅) + (l₆ + l₇)) of the lanes' totals, double-doubles
//! ```
//! A lane is a lane whatever the machine: AVX-512 has all eight in one register, AVX2 in two, a machine without vectors
//! in eight variables, and each operation on it is the same IEEE operation. So the bits do not depend on the machine. The
//! product and its error take a fused multiply-add, which machines without one emulate, correctly rounded.

use fearless_simd::{Level, Simd, dispatch, f64x8, prelude::*};

use super::DoubleDouble;

/// Elements of a vector.
pub(crate) const LANES: usize = 8;
/// Vectors after which the lanes are emptied.
pub(crate) const BLOCK: usize = 128;

/// The sums of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    /// Σ (x − p); zero where the pivot is not subtracted.
    pub sum: DoubleDouble,
    /// Σ (x − p)².
    pub squares: DoubleDouble,
    /// How often the lanes were emptied, at most.
    pub blocks: usize,
}

/// The mean of the first `sample` elements, roughly. Where it overflows it is infinite or NaN.
pub(crate) fn rough_mean<'a>(level: Level, slices: impl Iterator<Item = &'a [f64]>, sample: usize) -> f64 {
    dispatch!(level, simd => rough_mean_in(simd, slices, sample))
}

/// S = Σ (x − p) and Q = Σ (x − p)², or Q = Σ x² alone where there is no pivot.
pub(crate) fn sums<'a>(level: Level, slices: impl Iterator<Item = &'a [f64]>, pivot: Option<f64>) -> Sums {
    dispatch!(level, simd => match pivot {
        Some(pivot) => sums_in::<_, true>(simd, slices, pivot),
        None => sums_in::<_, false>(simd, slices, 0.0),
    })
}

#[inline(always)]
fn rough_mean_in<'a, S: Simd>(simd: S, slices: impl Iterator<Item = &'a [f64]>, sample: usize) -> f64 {
    let zero = f64x8::splat(simd, 0.0);
    // Four sums side by side, since each waits for its last addition.
    let mut sums = [zero; 4];
    let mut count = 0;
    for slice in slices {
        let (vectors, tail) = slice[..slice.len().min(sample - count)].as_chunks::<LANES>();
        let (quadruples, rest) = vectors.as_chunks::<4>();
        for quadruple in quadruples {
            for (sum, x) in sums.iter_mut().zip(quadruple) {
                *sum += f64x8::simd_from(simd, *x);
            }
        }
        for x in rest {
            sums[0] += f64x8::simd_from(simd, *x);
        }
        sums[1] += padded(simd, tail, 0.0);
        count += vectors.len() * LANES + tail.len();
        if count == sample {
            break;
        }
    }
    let lanes: [f64; LANES] = ((sums[0] + sums[1]) + (sums[2] + sums[3])).into();
    lanes.iter().sum::<f64>() / count as f64
}

#[inline(always)]
fn sums_in<'a, S: Simd, const CENTRED: bool>(simd: S, slices: impl Iterator<Item = &'a [f64]>, pivot: f64) -> Sums {
    let shift = f64x8::splat(simd, -pivot);
    let mut sum = Sum::new(simd);
    let mut squares = Sum::new(simd);
    let (mut filled, mut blocks) = (0, 1);
    for slice in slices {
        let (vectors, tail) = slice.as_chunks::<LANES>();
        for block in vectors.chunks(BLOCK) {
            if filled + block.len() > BLOCK {
                sum.empty();
                squares.empty();
                (filled, blocks) = (0, blocks + 1);
            }
            for x in block {
                add_deviation::<S, CENTRED>(&mut sum, &mut squares, f64x8::simd_from(simd, *x), shift);
            }
            filled += block.len();
        }
        if !tail.is_empty() {
            // x − p is 0 in the padding.
            add_deviation::<S, CENTRED>(&mut sum, &mut squares, padded(simd, tail, pivot), shift);
            filled += 1;
        }
    }
    Sums { sum: sum.finish(), squares: squares.finish(), blocks }
}

// A function, not a closure: what is not inlined is not compiled for the vectors of the level.
#[inline(always)]
fn add_deviation<S: Simd, const CENTRED: bool>(
    sum: &mut Sum<S>,
    squares: &mut Sum<S>,
    x: f64x8<S>,
    minus_pivot: f64x8<S>,
) {
    if CENTRED {
        let (hi, lo) = two_sum(x, minus_pivot);
        sum.add(hi, lo);
        let (square, rest) = two_product(hi, hi);
        squares.add(square, (hi + hi).mul_add_precise(lo, rest));
    } else {
        let (square, rest) = two_product(x, x);
        squares.add(square, rest);
    }
}

/// Eight compensated sums.
#[derive(Clone, Copy)]
pub(crate) struct Sum<S: Simd> {
    sum: f64x8<S>,
    error: f64x8<S>,
    total: (f64x8<S>, f64x8<S>),
}

impl<S: Simd> Sum<S> {
    /// Nothing added.
    #[inline(always)]
    pub fn new(simd: S) -> Sum<S> {
        let zero = f64x8::splat(simd, 0.0);
        Sum { sum: zero, error: zero, total: (zero, zero) }
    }

    /// Adds hi + lo, a small lo.
    #[inline(always)]
    pub fn add(&mut self, hi: f64x8<S>, lo: f64x8<S>) {
        let (sum, error) = two_sum(self.sum, hi);
        self.sum = sum;
        self.error += error + lo;
    }

    /// Adds the running sums to the totals; due at the latest after [`BLOCK`] additions.
    #[inline(always)]
    pub fn empty(&mut self) {
        let zero = f64x8::splat(self.sum.simd, 0.0);
        self.total = add_pairs(self.total, two_sum(self.sum, self.error));
        (self.sum, self.error) = (zero, zero);
    }

    /// The sum of the lanes.
    #[inline(always)]
    pub fn finish(mut self) -> DoubleDouble {
        self.empty();
        let (hi, lo): ([f64; LANES], [f64; LANES]) = (self.total.0.into(), self.total.1.into());
        let lane = |lane: usize| DoubleDouble { hi: hi[lane], lo: lo[lane] };
        ((lane(0) + lane(1)) + (lane(2) + lane(3))) + ((lane(4) + lane(5)) + (lane(6) + lane(7)))
    }
}

/// a + b as the rounded sum and its exact error.
#[inline(always)]
pub(crate) fn two_sum<S: Simd>(a: f64x8<S>, b: f64x8<S>) -> (f64x8<S>, f64x8<S>) {
    let sum = a + b;
    let virtual_b = sum - a;
    (sum, (a - (sum - virtual_b)) + (b - virtual_b))
}

/// a · b as the rounded product and its error: exact where that does not underflow.
#[inline(always)]
pub(crate) fn two_product<S: Simd>(a: f64x8<S>, b: f64x8<S>) -> (f64x8<S>, f64x8<S>) {
    let product = a * b;
    (product, a.mul_sub_precise(b, product))
}

/// The sum of two double-doubles, as [`DoubleDouble`] adds.
#[inline(always)]
pub(crate) fn add_pairs<S: Simd>(a: (f64x8<S>, f64x8<S>), b: (f64x8<S>, f64x8<S>)) -> (f64x8<S>, f64x8<S>) {
    let (sh, sl) = two_sum(a.0, b.0);
    let (th, tl) = two_sum(a.1, b.1);
    let (vh, vl) = fast_two_sum(sh, sl + th);
    fast_two_sum(vh, tl + vl)
}

/// As [`two_sum`], where |a| ≥ |b| or a = 0.
#[inline(always)]
fn fast_two_sum<S: Simd>(a: f64x8<S>, b: f64x8<S>) -> (f64x8<S>, f64x8<S>) {
    let sum = a + b;
    (sum, b - (sum - a))
}

/// The fewer than eight elements at the end of a run, and `filler`.
#[inline(always)]
pub(crate) fn padded<S: Simd>(simd: S, tail: &[f64], filler: f64) -> f64x8<S> {
    let mut lanes = [filler; LANES];
    lanes[..tail.len()].copy_from_slice(tail);
    f64x8::simd_from(simd, lanes)
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;

    use super::super::draws;
    use super::super::format::{exponent_of, power_of_two, scale};
    use super::*;
    use crate::case::values::Values;

    /// A row in one run, or cut in three at odd places.
    fn cuts(row: &[f64]) -> [Vec<&[f64]>; 2] {
        let (a, rest) = row.split_at(row.len() / 3);
        let (b, c) = rest.split_at(rest.len() / 2);
        [vec![row], vec![a, b, c]]
    }

    #[test]
    fn the_rough_mean_is_that_of_the_sample() {
        let row: Vec<f64> = (0..200).map(|i| f64::from(i * i % 31)).collect();
        for length in 1..row.len() {
            for sample in [1, 7, 8, 33, 64, 300] {
                let first = &row[..length.min(sample)];
                let mean = first.iter().sum::<f64>() / first.len() as f64;
                for cut in cuts(&row[..length]) {
                    assert_eq!(rough_mean(Level::new(), cut.into_iter(), sample), mean, "{length}, {sample}");
                }
            }
        }
    }

    /// value·2⁴⁰⁰
    fn big(value: f64) -> BigInt {
        if value == 0.0 {
            return BigInt::from(0);
        }
        let place = exponent_of(value) - 52;
        BigInt::from(scale(value, -place) as i64) << (place + 400)
    }

    /// Against the sums of integers: a hundred bits of the sum of the terms without their signs.
    #[test]
    fn sums_have_twice_the_digits() {
        let near = |actual: DoubleDouble, exact: &BigInt, size: &BigInt| {
            let off = big(actual.hi) + big(actual.lo) - exact;
            let off = if off < BigInt::from(0) { -off } else { off };
            assert!(off << 100 <= *size, "{actual:?}");
        };
        let mut values = Values::new(3);
        for length in (0..draws(70)).chain([8 * BLOCK, 8 * BLOCK + 1, 17 * BLOCK]) {
            let row: Vec<f64> = (0..length)
                .map(|_| (values.normal() * power_of_two(20 + values.below(9) as i32)).floor() * power_of_two(-20))
                .collect();
            // A pivot of 53 bits, so that a deviation is rounded.
            let pivot = values.normal();
            for pivot in [None, Some(pivot)] {
                let deviations: Vec<BigInt> = row.iter().map(|&x| big(x) - big(pivot.unwrap_or(0.0))).collect();
                let exact: BigInt = deviations.iter().sum();
                let size: BigInt = deviations.iter().map(|d| if *d < BigInt::from(0) { -d } else { d.clone() }).sum();
                let squares = deviations.iter().map(|d| d * d).sum::<BigInt>() >> 400;
                for cut in cuts(&row) {
                    let sums = sums(Level::new(), cut.into_iter(), pivot);
                    if pivot.is_some() {
                        near(sums.sum, &exact, &size);
                    }
                    near(sums.squares, &squares, &squares);
                }
            }
        }
    }

    #[test]
    fn blocks_are_counted() {
        let row = [1.0; 8 * BLOCK + 9];
        let blocks = |slices: &[&[f64]]| sums(Level::new(), slices.iter().copied(), Some(0.0)).blocks;
        assert_eq!(blocks(&[]), 1);
        assert_eq!(blocks(&[&row[..8 * BLOCK]]), 1);
        assert_eq!(blocks(&[&row[..8 * BLOCK + 8]]), 2);
        assert_eq!(blocks(&[&row[..8 * BLOCK - 8], &row[..8]]), 1);
        assert_eq!(blocks(&[&row[..8 * BLOCK - 8], &row[..16]]), 2);
        assert_eq!(blocks(&[&row[..8 * BLOCK - 9], &row[..8]]), 1);
        assert_eq!(blocks(&[&row[..8 * BLOCK - 1], &row[..8]]), 2);
    }
}
