//! A second implementation, which shares neither code nor formulas with the oracle: fractions of `num-bigint`
//! integers, the variance as the mean squared deviation, neighbours from bit patterns. It computes no rounding; it
//! tells whether a given number is the correct one.

use std::cmp::Ordering;
use std::fmt::Debug;

use num_bigint::BigInt;

use super::super::super::{Format, format::power_of_two};
use super::super::Exact;

pub(super) const FORMATS: [Format; 4] = [Format::F64, Format::F32, Format::F16, Format::BF16];

/// A fraction with a positive denominator, not reduced.
#[derive(Clone, Debug)]
pub(super) struct Fraction(pub(super) BigInt, pub(super) BigInt);

impl Fraction {
    pub(super) fn integer(value: i64) -> Fraction {
        Fraction(value.into(), 1.into())
    }

    pub(super) fn scaled(integer: impl Into<BigInt>, exponent: i32) -> Fraction {
        let power = BigInt::from(1) << exponent.unsigned_abs();
        if exponent < 0 { Fraction(integer.into(), power) } else { Fraction(integer.into() * power, 1.into()) }
    }

    pub(super) fn of(value: f64) -> Fraction {
        let magnitude = pattern(Format::F64, value.abs().to_bits());
        if value < 0.0 { magnitude.times(&Fraction::integer(-1)) } else { magnitude }
    }

    pub(super) fn plus(&self, other: &Fraction) -> Fraction {
        Fraction(&self.0 * &other.1 + &other.0 * &self.1, &self.1 * &other.1)
    }

    pub(super) fn minus(&self, other: &Fraction) -> Fraction {
        self.plus(&other.times(&Fraction::integer(-1)))
    }

    pub(super) fn times(&self, other: &Fraction) -> Fraction {
        Fraction(&self.0 * &other.0, &self.1 * &other.1)
    }

    pub(super) fn over(&self, divisor: i64) -> Fraction {
        self.times(&Fraction(1.into(), divisor.into()))
    }

    pub(super) fn cmp(&self, other: &Fraction) -> Ordering {
        (&self.0 * &other.1).cmp(&(&other.0 * &self.1))
    }

    pub(super) fn sign(&self) -> Ordering {
        self.0.cmp(&0.into())
    }
}

/// The number rational + factor/√square, square > 0.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    pub(super) rational: Fraction,
    pub(super) factor: Fraction,
    pub(super) square: Fraction,
}

impl Truth {
    pub(super) fn rational(rational: Fraction) -> Truth {
        Truth { rational, factor: Fraction::integer(0), square: Fraction::integer(1) }
    }

    pub(super) fn cmp(&self, other: &Fraction) -> Ordering {
        let rest = self.rational.minus(other);
        let (left, right) = (rest.sign(), self.factor.sign());
        if left == Ordering::Equal || left == right {
            return right;
        }
        if right == Ordering::Equal {
            return left;
        }
        let squares = rest.times(&rest).times(&self.square).cmp(&self.factor.times(&self.factor));
        if left == Ordering::Greater { squares } else { squares.reverse() }
    }
}

/// Mean and variance by their definitions.
pub(super) struct Moments {
    pub(super) mean: Fraction,
    pub(super) variance: Fraction,
}

impl Moments {
    pub(super) fn new(values: &[f64], centred: bool) -> Moments {
        let count = values.len() as i64;
        let total = |values: Vec<Fraction>| {
            // On one grid, so that the denominators do not pile up.
            let grid = values.iter().map(|value| value.1.bits()).max().unwrap();
            let numerators = values.iter().map(|value| &value.0 << (grid - value.1.bits()));
            Fraction(numerators.sum(), BigInt::from(1) << (grid - 1))
        };
        let values: Vec<Fraction> = values.iter().map(|&value| Fraction::of(value)).collect();
        let sum = if centred { total(values.clone()) } else { Fraction::integer(0) };
        let squares = values.iter().map(|value| {
            let deviation = value.times(&Fraction::integer(count)).minus(&sum);
            deviation.times(&deviation)
        });
        Moments { variance: total(squares.collect()).over(count).over(count).over(count), mean: sum.over(count) }
    }

    pub(super) fn output(&self, eps: f64, x: f64, weight: f64, bias: f64) -> Truth {
        let factor = Fraction::of(weight).times(&Fraction::of(x).minus(&self.mean));
        Truth { rational: Fraction::of(bias), factor, square: self.variance.plus(&Fraction::of(eps)) }
    }
}

/// The value of a bit pattern; that of infinity is the power of two that the exponent would stand for.
fn pattern(format: Format, bits: u64) -> Fraction {
    let hidden = 1 << (format.precision - 1);
    let (biased, fraction) = ((bits / hidden) as i32, bits % hidden);
    if biased == 0 {
        Fraction::scaled(fraction, format.quantum)
    } else {
        Fraction::scaled(fraction + hidden, format.quantum + biased - 1)
    }
}

pub(super) fn bits_of(format: Format, magnitude: f64) -> u64 {
    match format {
        Format::F64 => magnitude.to_bits(),
        Format::F32 => (magnitude as f32).to_bits().into(),
        Format::F16 => half::f16::from_f64(magnitude).to_bits().into(),
        _ => half::bf16::from_f64(magnitude).to_bits().into(),
    }
}

pub(super) fn number(format: Format, bits: u64) -> f64 {
    match format {
        Format::F64 => f64::from_bits(bits),
        Format::F32 => f32::from_bits(bits as u32).into(),
        Format::F16 => half::f16::from_bits(bits as u16).to_f64(),
        _ => half::bf16::from_bits(bits as u16).to_f64(),
    }
}

/// Whether `answer` is the correct rounding of the truth.
pub(super) fn accepts(truth: &Truth, answer: f64, format: Format) -> bool {
    let negative = answer.is_sign_negative();
    if negative != (truth.cmp(&Fraction::integer(0)) == Ordering::Less) {
        return false;
    }
    let bits = bits_of(format, answer.abs());
    assert_eq!(number(format, bits), answer.abs(), "a number of the format");
    let compare = |bits: u64| {
        let middle = pattern(format, bits).plus(&pattern(format, bits + 1)).over(2);
        if negative { truth.cmp(&middle.times(&Fraction::integer(-1))).reverse() } else { truth.cmp(&middle) }
    };
    let tie = if bits.is_multiple_of(2) { Ordering::Equal } else { Ordering::Less };
    let below = answer.is_infinite() || [Ordering::Less, tie].contains(&compare(bits));
    let above = bits == 0 || [Ordering::Greater, tie.reverse()].contains(&compare(bits - 1));
    below && above
}

/// Asserts that `exact` rounds to the truth, and that the checker would have seen an error of one unit in the last place.
fn check(exact: &Exact, truth: &Truth, format: Format, context: &dyn Debug) {
    let answer = exact.round(format);
    assert!(accepts(truth, answer, format), "{answer:e} in {format:?} for {context:?}");
    let bits = bits_of(format, answer.abs());
    if bits > 0 {
        assert!(!accepts(truth, number(format, bits - 1).copysign(answer), format));
    }
    if answer.is_finite() {
        assert!(!accepts(truth, number(format, bits + 1).copysign(answer), format));
    }
}

/// Asserts what [`Exact::double_double`] and [`Exact::compare`] promise.
fn check_interval(exact: &Exact, truth: &Truth) {
    let (value, radius) = exact.double_double();
    assert_eq!(value.hi, exact.round(Format::F64));
    if value.hi.is_infinite() {
        assert_eq!((value.lo, radius), (0.0, f64::INFINITY));
        return;
    }
    assert_eq!(value.hi + value.lo, value.hi);
    for bound in [value.hi, value.hi.next_up(), value.hi.next_down()].into_iter().filter(|bound| bound.is_finite()) {
        assert_eq!(exact.compare(bound), truth.cmp(&Fraction::of(bound)));
    }
    let sum = Fraction::of(value.hi).plus(&Fraction::of(value.lo));
    assert_eq!(radius == 0.0, truth.cmp(&sum) == Ordering::Equal);
    if radius > 0.0 {
        assert_ne!(truth.cmp(&sum.minus(&Fraction::of(radius))), Ordering::Less);
        assert_ne!(truth.cmp(&sum.plus(&Fraction::of(radius))), Ordering::Greater);
        assert!(radius <= (value.hi.abs() * power_of_two(-105)).max(power_of_two(-1074)), "{value:?} ± {radius:e}");
    }
}

/// Both checks, in every format.
pub(super) fn check_all(exact: &Exact, truth: &Truth, context: &dyn Debug) {
    for format in FORMATS {
        check(exact, truth, format, context);
    }
    check_interval(exact, truth);
}
