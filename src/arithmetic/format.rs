//! Binary floating-point formats, and rounding to them exactly.
//!
//! A format is a precision p and a range of exponents: its finite values are m · 2^q with |m| < 2^p and
//! q ≥ `quantum`. Rounding is to nearest, ties to even (IEEE 754-2019, section 4.3.1).

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::DoubleDouble;

/// The element type of a tensor, named as in a safetensors header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DataType {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32: 8 bits of precision, the range of `F32`.
    BF16,
    /// Signed 64-bit integers, for counters.
    I64,
}

impl DataType {
    /// The four floating-point types, widest first.
    pub const FLOATS: [DataType; 4] = [DataType::F64, DataType::F32, DataType::F16, DataType::BF16];

    /// The floating-point format, `None` for counters.
    ///
    /// ```
    /// use normative::arithmetic::{DataType, Format};
    /// assert_eq!(DataType::BF16.format(), Some(Format::BF16));
    /// assert_eq!(DataType::I64.format(), None);
    /// ```
    pub fn format(self) -> Option<Format> {
        match self {
            DataType::F64 => Some(Format::F64),
            DataType::F32 => Some(Format::F32),
            DataType::F16 => Some(Format::F16),
            DataType::BF16 => Some(Format::BF16),
            DataType::I64 => None,
        }
    }

    /// The type in which an implementation accumulates an input of this type, unless it says otherwise:
    /// `F64` for `F64`, `F32` for all others.
    pub fn accumulator(self) -> DataType {
        if self == DataType::F64 { DataType::F64 } else { DataType::F32 }
    }

    /// Bytes that one element takes.
    pub fn size(self) -> usize {
        match self {
            DataType::F64 | DataType::I64 => 8,
            DataType::F32 => 4,
            DataType::F16 | DataType::BF16 => 2,
        }
    }

    /// The name in a safetensors header, such as `"BF16"`.
    pub fn name(self) -> &'static str {
        match self {
            DataType::F64 => "F64",
            DataType::F32 => "F32",
            DataType::F16 => "F16",
            DataType::BF16 => "BF16",
            DataType::I64 => "I64",
        }
    }
}

impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A binary floating-point format no wider than binary64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of the significand, the hidden one included.
    pub precision: i32,
    /// Exponent of the smallest subnormal, 2^quantum.
    pub quantum: i32,
    /// Largest exponent e of a finite value 1.f × 2^e.
    pub max_exponent: i32,
}

impl Format {
    /// IEEE binary64.
    pub const F64: Format = Format { precision: 53, quantum: -1074, max_exponent: 1023 };
    /// IEEE binary32.
    pub const F32: Format = Format { precision: 24, quantum: -149, max_exponent: 127 };
    /// IEEE binary16.
    pub const F16: Format = Format { precision: 11, quantum: -24, max_exponent: 15 };
    /// bfloat16.
    pub const BF16: Format = Format { precision: 8, quantum: -133, max_exponent: 127 };

    /// Unit roundoff u = 2^−p: the largest relative error of rounding to nearest in the normal range.
    pub fn unit_roundoff(self) -> f64 {
        power_of_two(-self.precision)
    }

    /// Half the smallest subnormal, the largest absolute error of rounding in the subnormal range. For binary64
    /// it is itself no binary64 number: the smallest subnormal stands for it.
    pub fn half_subnormal(self) -> f64 {
        power_of_two((self.quantum - 1).max(-1074))
    }

    /// The smallest positive normal number.
    pub fn min_normal(self) -> f64 {
        power_of_two(self.quantum + self.precision - 1)
    }

    /// The largest finite number.
    pub fn max_finite(self) -> f64 {
        (2.0 - power_of_two(1 - self.precision)) * power_of_two(self.max_exponent)
    }

    /// Rounds `value` to this format, to nearest, ties to even; beyond the range to an infinity.
    ///
    /// ```
    /// use normative::arithmetic::Format;
    /// assert_eq!(Format::F16.round(1.0 + 2f64.powi(-11)), 1.0); // a tie, to even
    /// assert_eq!(Format::F16.round(65520.0), f64::INFINITY);
    /// assert_eq!(Format::BF16.round(f64::MIN_POSITIVE), 0.0);
    /// ```
    pub fn round(self, value: f64) -> f64 {
        self.round_sum(value, 0.0)
    }

    /// Rounds the unevaluated sum of a [`DoubleDouble`] once.
    pub fn round_double_double(self, value: DoubleDouble) -> f64 {
        self.round_sum(value.hi, value.lo)
    }

    /// Rounds hi + lo once, where hi is the nearest binary64 to the sum.
    fn round_sum(self, hi: f64, lo: f64) -> f64 {
        if self == Format::F64 || hi == 0.0 || !hi.is_finite() {
            return hi;
        }
        // The quantum of the result, and hi in units of it: exact, as both are powers of two away from hi's own grid
        // or the result is far below the format's smallest subnormal and rounds to zero in either case.
        let exponent = exponent_of(hi);
        let quantum = (exponent - self.precision + 1).max(self.quantum);
        // Where the result is normal, the bits that go decide, unless they are a tie.
        let gone = Format::F64.precision - self.precision;
        let (bits, half) = (hi.to_bits(), 1 << (gone - 1));
        if quantum > self.quantum && bits & (2 * half - 1) != half {
            // A carry goes into the exponent, as it should.
            let result = f64::from_bits((bits + half) >> gone << gone);
            return if result.abs() > self.max_finite() { f64::INFINITY.copysign(hi) } else { result };
        }
        if exponent < quantum - 1 {
            return 0.0_f64.copysign(hi);
        }
        let units = scale(hi, -quantum);
        let floor = units.floor();
        let above = units - floor;
        let rounded = match above.total_cmp(&0.5) {
            Ordering::Less => floor,
            Ordering::Greater => floor + 1.0,
            Ordering::Equal if lo < 0.0 || (lo == 0.0 && floor % 2.0 == 0.0) => floor,
            Ordering::Equal => floor + 1.0,
        };
        let result = scale(rounded, quantum);
        if result.abs() > self.max_finite() { f64::INFINITY.copysign(hi) } else { result.copysign(hi) }
    }

    /// Whether all that lies within `distance` of `hi` rounds to the same value, as a glance at its bits can tell; `false`
    /// where they leave it open. `distance` is at most 5/8 of the last place of `hi`.
    pub(super) fn rounds_alike(self, hi: f64, distance: f64) -> bool {
        if self == Format::F64 {
            // The nearest midpoint is half a place away, a quarter below a power of two: 2⁻⁵⁴·|hi| at least.
            return distance < hi.abs() * power_of_two(-54);
        }
        let half = 1 << (Format::F64.precision - self.precision - 1);
        hi.abs() > self.min_normal() && hi.to_bits() & (2 * half - 1) != half
    }

    /// The neighbours of a value of this format: the next below and the next above.
    pub fn neighbours(self, value: f64) -> (f64, f64) {
        if self == Format::F64 {
            return (value.next_down(), value.next_up());
        }
        let step = |value: f64| {
            // The next value above: half a quantum over the midpoint rounds up.
            if value == f64::NEG_INFINITY {
                return -self.max_finite();
            }
            let exponent = if value == 0.0 { self.quantum } else { exponent_of(value) };
            // Below a power of two the grid is twice as fine on the side towards zero.
            let towards_zero = value < 0.0 && value.abs() == power_of_two(exponent);
            let quantum = (exponent - self.precision + 1 - i32::from(towards_zero)).max(self.quantum);
            let next = value + power_of_two(quantum);
            if next > self.max_finite() { f64::INFINITY } else { next }
        };
        (-step(-value), step(value))
    }
}

/// 2^exponent, exactly; zero below the subnormals and infinity above the range.
pub fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        ..-1074 => 0.0,
        -1074..-1022 => f64::from_bits(1 << (exponent + 1074)),
        -1022..=1023 => f64::from_bits(((exponent + 1023) as u64) << 52),
        1024.. => f64::INFINITY,
    }
}

/// ⌊log₂ |value|⌋ of a finite value other than zero.
pub fn exponent_of(value: f64) -> i32 {
    let biased = ((value.to_bits() >> 52) & 0x7ff) as i32;
    if biased == 0 {
        // Subnormal: the position of its leading bit.
        63 - (value.abs().to_bits().leading_zeros() as i32) - 1074
    } else {
        biased - 1023
    }
}

/// value · 2^exponent, rounded once (only subnormal results can be inexact).
pub fn scale(value: f64, exponent: i32) -> f64 {
    if (-1022..=1023).contains(&exponent) {
        return value * power_of_two(exponent);
    }
    if exponent > 0 {
        // Multiplying by a power of two rounds nowhere on the way up.
        let third = exponent.min(3066) / 3;
        return value * power_of_two(third) * power_of_two(third) * power_of_two((exponent - 2 * third).min(1023));
    }
    if value == 0.0 || exponent + exponent_of(value) < -1076 {
        return 0.0_f64.copysign(value);
    }
    // The intermediate stays normal, so that only the last product rounds.
    let keep = -1022 - exponent_of(value);
    let first = keep.max(exponent);
    value * power_of_two(first / 2) * power_of_two(first - first / 2) * power_of_two(exponent - first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::draws;

    #[test]
    fn types_have_the_formats_of_ieee_754() {
        use DataType::{BF16, F16, F32, F64, I64};
        let least = f64::from(f32::MIN_POSITIVE);
        for (dtype, name, size, accumulator, min_normal, half_subnormal) in [
            (F64, "F64", 8, F64, f64::MIN_POSITIVE, f64::from_bits(1)),
            (F32, "F32", 4, F32, least, f64::from(f32::from_bits(1)) / 2.0),
            (F16, "F16", 2, F32, 2f64.powi(-14), 2f64.powi(-25)),
            (BF16, "BF16", 2, F32, least, 2f64.powi(-134)),
        ] {
            assert_eq!((dtype.name(), dtype.size(), dtype.accumulator()), (name, size, accumulator));
            assert_eq!(format!("{dtype:>5}"), format!("{name:>5}"));
            let format = dtype.format().expect("a floating-point type");
            assert_eq!((format.min_normal(), format.half_subnormal()), (min_normal, half_subnormal));
            let special = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY];
            special.iter().for_each(|&x| assert_eq!(format.round(x).to_bits(), x.to_bits()));
            let (below, above) = (format.neighbours(f64::INFINITY).0, format.neighbours(f64::NEG_INFINITY).1);
            assert_eq!((below, above), (format.max_finite(), -format.max_finite()));
            // The payload of a NaN may go, it stays one.
            assert!([f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001)].iter().all(|&x| format.round(x).is_nan()));
        }
        assert_eq!((I64.name(), I64.size(), I64.format()), ("I64", 8, None));
    }

    #[test]
    fn agrees_with_the_hardware_for_binary32() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..draws(200_000) {
            bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let value = f64::from_bits(bits);
            if value.is_finite() {
                assert_eq!(Format::F32.round(value), f64::from(value as f32), "{value:e}");
            }
            let near_one = 1.0 + f64::from_bits((bits >> 12) | 0x3ff0_0000_0000_0000);
            assert_eq!(Format::F32.round(near_one), f64::from(near_one as f32));
            let small = scale(near_one, -140 - (bits % 14) as i32);
            assert_eq!(Format::F32.round(small), f64::from(small as f32), "{small:e}");
        }
    }

    #[test]
    fn every_half_is_its_own_rounding_and_midpoints_go_to_even() {
        for bits in (0..0x7c00_u16).take(draws(0x7c00)) {
            let value = half::f16::from_bits(bits).to_f64();
            assert_eq!(Format::F16.round(value), value);
            let (below, above) = Format::F16.neighbours(value);
            assert_eq!(above, half::f16::from_bits(bits + 1).to_f64());
            assert_eq!(below, if bits == 0 { -above } else { half::f16::from_bits(bits - 1).to_f64() });
            if bits < 0x7bff {
                let middle = (value + above) / 2.0;
                let even = if bits % 2 == 0 { value } else { above };
                assert_eq!(Format::F16.round(middle), even);
                assert_eq!(Format::F16.round(middle.next_up()), above);
                assert_eq!(Format::F16.round(middle.next_down()), value);
                let tie = |lo: f64| Format::F16.round_double_double(DoubleDouble { hi: middle, lo });
                assert_eq!((tie(-1e-40), tie(1e-40)), (value, above));
            }
        }
    }

    #[test]
    fn bfloat16_agrees_with_its_crate_from_binary32() {
        for i in (0..200_000_u32).take(draws(200_000)) {
            let value = f32::from_bits(i.wrapping_mul(0x9e37_79b9));
            if value.is_finite() {
                assert_eq!(Format::BF16.round(f64::from(value)), half::bf16::from_f32(value).to_f64(), "{value:e}");
            }
        }
    }

    #[test]
    fn scaling_is_exact_or_rounded_once() {
        assert_eq!(scale(1.5, -1074), 2.0 * power_of_two(-1074));
        assert_eq!(scale(f64::MAX, -2097), scale(f64::MAX, -1000) * power_of_two(-1000) * power_of_two(-97));
        assert_eq!(scale(power_of_two(-1074), 2097), power_of_two(1023));
        assert_eq!(scale(1.0, 3000), f64::INFINITY);
        assert_eq!(exponent_of(power_of_two(-1074)), -1074);
        assert_eq!(exponent_of(0.75), -1);
    }
}
