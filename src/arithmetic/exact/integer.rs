//! Integers with a power of two beside them, and the reciprocal square roots of integers.

use dashu_int::{IBig, UBig, ops::BitTest, ops::SquareRoot};

/// The integer m and the exponent e of m · 2^e = `value`, |m| < 2⁵³ and −1074 ≤ e ≤ 971.
///
/// # Panics
/// Panics if `value` is infinite or NaN.
#[inline]
pub(super) fn significand(value: f64) -> (i64, i32) {
    assert!(value.is_finite(), "the exact oracle takes finite numbers, not {value}");
    let bits = value.to_bits();
    let biased = ((bits >> 52) & 0x7ff) as i32;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    // A subnormal number has the exponent of the smallest normal ones and no hidden bit.
    let magnitude = if biased == 0 { fraction } else { fraction | (1 << 52) };
    (if value < 0.0 { -magnitude } else { magnitude }, biased.max(1) - 1075)
}

/// As [`significand`], m odd (or 0, with exponent 0), so that products stay short.
#[inline]
pub(super) fn odd_significand(value: f64) -> (i64, i32) {
    let (significand, exponent) = significand(value);
    if significand == 0 {
        return (0, 0);
    }
    let zeros = significand.trailing_zeros();
    (significand >> zeros, exponent + zeros as i32)
}

/// a · 2^i and b · 2^j on the finer of both grids: the two integers and their common exponent.
#[inline]
pub(super) fn align((a, i): (IBig, i32), (b, j): (IBig, i32)) -> (IBig, IBig, i32) {
    // A zero has no grid of its own, and must not refine that of the other.
    if b.is_zero() || i == j {
        (a, b, i)
    } else if a.is_zero() {
        (a, b, j)
    } else if i > j {
        (a << (i - j) as usize, b, j)
    } else {
        (a, b << (j - i) as usize, i)
    }
}

/// The number 1/√R of an integer R > 0, with an approximation that all values built on it share.
#[derive(Debug)]
pub(super) struct Root {
    /// R.
    pub(super) radicand: UBig,
    /// ⌊2^k/√R⌋ and k, at [`Root::PRECISION`].
    cached: (UBig, usize),
}

impl Root {
    /// Bits of the shared approximation: two machine words, 2⁻⁷⁰ or so for the chance that rounding to 53 bits
    /// needs more.
    pub(super) const PRECISION: usize = 127;

    pub(super) fn new(radicand: UBig) -> Root {
        debug_assert!(!radicand.is_zero());
        let cached = reciprocal_root(&radicand, Root::PRECISION);
        Root { radicand, cached }
    }

    /// The integer r of at least `precision` − 1 bits, and k, with r ≤ 2^k/√R < r + 1.
    #[inline]
    pub(super) fn reciprocal(&self, precision: usize) -> (std::borrow::Cow<'_, UBig>, usize) {
        if precision <= Root::PRECISION {
            (std::borrow::Cow::Borrowed(&self.cached.0), self.cached.1)
        } else {
            let (reciprocal, shift) = reciprocal_root(&self.radicand, precision);
            (std::borrow::Cow::Owned(reciprocal), shift)
        }
    }
}

/// ⌊2^k/√R⌋ and k. With L the length of R in bits, 2^(L−1) ≤ R < 2^L, the choice k = precision + ⌊(L − 1)/2⌋ puts
/// 2^k/√R into (2^(precision−1), 2^precision].
fn reciprocal_root(radicand: &UBig, precision: usize) -> (UBig, usize) {
    let shift = precision + (radicand.bit_len() - 1) / 2;
    // ⌊√(4^k/R)⌋ = ⌊√⌊4^k/R⌋⌋, since the square of an integer passes no integer between.
    (((UBig::ONE << (2 * shift)) / radicand).sqrt(), shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reciprocal_root_has_as_many_bits_as_asked_for() {
        let large = [10, 11, 127, 128, 300, 2001].map(|power| UBig::ONE << power);
        let radicands = (1..130_u32).map(UBig::from).chain(large.iter().flat_map(|r| [r - 1_u8, r.clone(), r + 1_u8]));
        for radicand in radicands {
            for precision in [1, 2, 10, 127, 300] {
                let (root, shift) = reciprocal_root(&radicand, precision);
                let power = UBig::ONE << (2 * shift);
                assert!(root.sqr() * &radicand <= power && power < (&root + 1_u8).sqr() * &radicand, "{radicand}");
                let least = UBig::ONE << (precision - 1);
                assert!(least <= root && root <= least << 1, "{radicand} at {precision} bits: {root}");
            }
        }
    }
}
