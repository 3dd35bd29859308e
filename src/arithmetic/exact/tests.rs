//! The oracle against a second implementation, on inputs that floating-point programs get wrong.

mod checker;

use std::cmp::Ordering;

use num_bigint::BigInt;

use super::super::{DoubleDouble, Format, draws, format::power_of_two};
use super::*;
use checker::{FORMATS, Fraction, Moments, Truth, accepts, bits_of, check_all, number};

/// A generator of 64-bit numbers (SplitMix64), the same on every machine.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// Uniform in [−1, 1).
    fn symmetric(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * power_of_two(-52) - 1.0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A number of some format and of an exponent from −`range` to `range`, or somewhat less.
    fn number(&mut self, range: u64) -> f64 {
        let exponent = self.below(2 * range + 1) as i32 - range as i32;
        let format = self.pick(&FORMATS);
        let number = format.round(self.symmetric() * power_of_two(exponent));
        if number.is_finite() { number } else { format.max_finite() }
    }
}

/// Rows on which floating-point programs fail.
fn hard_rows() -> Vec<Vec<f64>> {
    let f32_row = |values: [f32; 4]| values.map(f64::from).to_vec();
    let spread = [power_of_two(120), power_of_two(60), f64::from(1.0_f32 / 3.0), -power_of_two(120), -power_of_two(60)];
    vec![
        f32_row([1e30, -1e30, 3e30, 2e-3]),
        f32_row([3e38, -3e38, 1e-45, 0.0]),
        vec![1e200, -1e200, 3e199, 1.0],
        vec![1e-200, -2e-200, 1e-210],
        vec![5e-324, 0.0, 1e-323, 2e-308],
        vec![f64::MAX, f64::MAX, -f64::MAX],
        vec![f64::MAX, 5e-324],
        [spread.as_slice(), &[0.0]].concat(),
        [&spread[..], &[0.0; 8]].concat(),
        vec![1e15, 1e15 + 1.0, 1e15 - 0.5, 1e15],
        vec![1_234_567.125, 1_234_567.0, 1_234_567.0],
        vec![1.0_f64.next_up(), 1.0, 1.0],
        vec![40_000.0, 40_001.0, 40_002.0, 40_003.0],
        vec![3.25],
        vec![0.0, 0.0],
        vec![0.1, 0.1, 0.1],
        vec![3.0, 0.0, 0.0, 0.0, 0.0],
        vec![-7.0, 9.0],
    ]
}

#[test]
fn hard_rows_are_correctly_rounded_in_every_format() {
    let rows = hard_rows();
    for row in rows.iter().take(draws(rows.len())) {
        for centred in [true, false] {
            let (group, moments) = (ExactGroup::new(row.iter().copied(), centred), Moments::new(row, centred));
            let mean = Truth::rational(moments.mean.clone());
            let variance = Truth::rational(moments.variance.clone());
            check_all(&group.mean(), &mean, &row);
            check_all(&group.variance(0), &variance, &row);
            let count = row.len() as i64;
            if count > 1 {
                let unbiased = moments.variance.times(&Fraction::integer(count)).over(count - 1);
                check_all(&group.variance(1), &Truth::rational(unbiased), &row);
            }
            for eps in [0.0, 1e-5, f64::from(1e-5_f32), 5e-324, 1e300] {
                let Some(scale) = group.scale(eps) else {
                    assert!(eps == 0.0 && moments.variance.sign() == Ordering::Equal);
                    continue;
                };
                let square = moments.variance.plus(&Fraction::of(eps));
                let invstd = Truth { square, factor: Fraction::integer(1), ..Truth::rational(Fraction::integer(0)) };
                check_all(&scale.invstd(), &invstd, &row);
                for (index, &x) in row.iter().enumerate().take(6) {
                    let (weight, bias) = [(None, None), (Some(0.3), Some(-1e-3)), (Some(-1e-310), None)][index % 3];
                    let exact = group.element(&scale, x, weight, bias);
                    let truth = moments.output(eps, x, weight.unwrap_or(1.0), bias.unwrap_or(0.0));
                    check_all(&exact, &truth, &(&row, eps, x));
                }
            }
        }
    }
}

#[test]
fn random_rows_are_correctly_rounded_in_every_format() {
    let mut random = Random(1);
    for _ in 0..draws(700) {
        let count = random.pick(&[1, 2, 3, 4, 5, 8, 17]);
        let range = random.pick(&[0, 2, 10, 140]);
        let mean = if random.below(3) == 0 { random.number(50) } else { 0.0 };
        let row: Vec<f64> = (0..count).map(|_| mean + random.number(range)).collect();
        let eps = random.pick(&[0.0, 1e-5, 1e-12, 0.25]);
        let centred = random.below(4) > 0;
        let (group, moments) = (ExactGroup::new(row.iter().copied(), centred), Moments::new(&row, centred));
        let Some(scale) = group.scale(eps) else { continue };
        for &x in row.iter().take(4) {
            let range = random.pick(&[1, 20, 120]);
            let weight = random.number(range);
            let output = group.element(&scale, x, Some(weight), None).round(Format::F64);
            // Among others, biases that cancel the rest to the last bits, and to zero where y is a binary64 number.
            let bias = match random.below(4) {
                0 => 0.0,
                1 => random.number(20),
                _ if output.is_finite() => -random.pick(&FORMATS).round(output).clamp(-1e308, 1e308),
                _ => 1.0,
            };
            let exact = group.element(&scale, x, Some(weight), Some(bias));
            let truth = moments.output(eps, x, weight, bias);
            check_all(&exact, &truth, &(&row, eps, x, weight, bias));
            assert_eq!(exact.signum().cmp(&0), truth.cmp(&Fraction::integer(0)));
        }
    }
}

#[test]
fn ties_go_to_even_and_the_least_excess_breaks_them() {
    // One value apart from n − 1 equal ones: y = √(n − 1), here 1, 2 and 3, through the radicands 9, 9 and 81.
    let mut tried = 0;
    for (count, y) in [(2, 1.0), (5, 2.0), (10, 3.0)] {
        let mut row = vec![0.0; count];
        row[0] = 3.0;
        let (group, moments) = (ExactGroup::new(row.iter().copied(), true), Moments::new(&row, true));
        let scale = group.scale(0.0).unwrap();
        for format in FORMATS {
            let top = bits_of(format, format.max_finite());
            for bits in [0, 1, 2, 7, 8, top / 3, top / 2, top - 1, top] {
                let (low, high) = (number(format, bits), number(format, bits + 1));
                let step = if bits == top { low - number(format, bits - 1) } else { high - low };
                // w·y + b is the middle between both, unless that takes half a subnormal or a third in binary64.
                let (weight, bias) = (low / y, step / 2.0);
                let product = Fraction::of(weight).times(&Fraction::of(y));
                if product.cmp(&Fraction::of(low)) != Ordering::Equal || bias * 2.0 != step {
                    continue;
                }
                tried += 1;
                let even = if bits.is_multiple_of(2) { low } else { high };
                for (bias, expected) in [(bias, even), (bias.next_up(), high), (bias.next_down(), low)] {
                    for sign in [1.0, -1.0] {
                        let (weight, bias) = (sign * weight, sign * bias);
                        let exact = group.element(&scale, 3.0, Some(weight), Some(bias));
                        let truth = moments.output(0.0, 3.0, weight, bias);
                        assert!(accepts(&truth, sign * expected, format));
                        assert_eq!(exact.round(format), sign * expected, "{weight:e}·{y} + {bias:e} in {format:?}");
                    }
                }
            }
        }
    }
    assert!(tried > 60, "{tried} ties");
}

#[test]
fn a_rational_number_next_to_a_tie() {
    // Of four values, a dyadic number; of three, a quotient.
    for (format, count) in FORMATS.into_iter().flat_map(|format| [(format, 4.0), (format, 3.0)]) {
        let half = power_of_two(-format.precision);
        for (rest, expected) in [(0.0, 1.0), (power_of_two(-300), 1.0 + 2.0 * half), (-power_of_two(-300), 1.0)] {
            let row = [count, count * half, rest, 0.0];
            let mean = ExactGroup::new(row.into_iter().take(count as usize), true).mean();
            assert_eq!(mean.round(format), expected, "(1 + half an ulp)·{count} + {rest:e}, in {format:?}");
        }
    }
}

#[test]
fn exact_cancellation_is_zero_and_less_is_not() {
    let group = ExactGroup::new([-7.0, 9.0], true);
    let scale = group.scale(0.0).unwrap();
    for weight in [0.1, 1e-300, 5e-324, 1e308] {
        let exact = group.element(&scale, 9.0, Some(weight), Some(-weight));
        assert!(exact.is_zero());
        assert_eq!(exact.double_double(), (DoubleDouble::ZERO, 0.0));
        assert_eq!(exact.round(Format::F32).to_bits(), 0);
        let exact = group.element(&scale, 9.0, Some(weight), Some((-weight).next_down()));
        assert!(!exact.is_zero() && exact.signum() == -1);
        assert_eq!(exact.round(Format::F64), (-weight).next_down() + weight);
    }
    // (5 − μ)/√25 − 1 = −μ/5, through a radicand, and beyond every fixed precision.
    for exponent in [30, 80, 130, 300, 1000, 1074] {
        let group = ExactGroup::stored(5.0 * power_of_two(-exponent), 25.0);
        let scale = group.scale(0.0).unwrap();
        let exact = group.element(&scale, 5.0, None, Some(-1.0));
        assert_eq!(exact.round(Format::F64), -power_of_two(-exponent));
        assert_eq!(exact.compare(-power_of_two(-exponent)), Ordering::Equal);
        assert!(group.element(&scale, 0.0, Some(-1.0), Some(-power_of_two(-exponent))).is_zero());
        // The same with a divisor, the mean from three values and the scale from elsewhere.
        let group = ExactGroup::new([15.0 * power_of_two(-exponent), 0.0, 0.0], true);
        let exact = group.element(&scale, 5.0, None, Some(-1.0));
        assert_eq!(exact.round(Format::F64), -power_of_two(-exponent));
    }
    // √2 less its nearest binary64.
    let group = ExactGroup::stored(0.0, 0.5);
    let scale = group.scale(0.0).unwrap();
    let (root, _) = scale.invstd().double_double();
    assert_eq!(root.hi, 2.0_f64.sqrt());
    assert_eq!(group.element(&scale, 1.0, None, Some(-root.hi)).round(Format::F64), root.lo);
}

#[test]
fn beyond_both_ends_of_a_format() {
    let group = ExactGroup::stored(0.0, 2.0); // y = x·√½
    let moments = Moments { mean: Fraction::integer(0), variance: Fraction::integer(2) };
    let scale = group.scale(0.0).unwrap();
    for format in FORMATS {
        for edge in [format.max_finite(), format.min_normal(), power_of_two(format.quantum)] {
            let factors = [1.414, 0.2, 0.25, 0.5, 0.7, 1.0, std::f64::consts::SQRT_2, 1.5, 1.99];
            for factor in factors.into_iter().take(draws(factors.len())) {
                let x = if edge > 1.0 { edge } else { edge * 3.0 };
                let exact = group.element(&scale, x, Some(-factor), None);
                let truth = moments.output(0.0, x, -factor, 0.0);
                check_all(&exact, &truth, &(edge, factor));
            }
        }
    }
    assert_eq!(group.element(&scale, -1e300, Some(1e-300), None).round(Format::F16), -0.70703125);
    let vanishing = group.element(&scale, -1e-300, Some(1e-300), None);
    assert_eq!(vanishing.round(Format::F64).to_bits(), (-0.0_f64).to_bits());
    assert_eq!(vanishing.double_double().1, power_of_two(-1074));
    assert_eq!(group.element(&scale, -1e300, Some(1e300), None).round(Format::F64), f64::NEG_INFINITY);
}

#[test]
fn running_statistics_are_correctly_rounded() {
    let mut random = Random(2);
    for _ in 0..draws(400) {
        let count = random.pick(&[2, 3, 7]);
        let row: Vec<f64> = (0..count).map(|_| random.number(10)).collect();
        let (group, moments) = (ExactGroup::new(row.iter().copied(), true), Moments::new(&row, true));
        let Some(scale) = group.scale(0.0) else { continue };
        let old = random.number(8);
        let (alpha, divisor) = random.pick(&[(0.1, 1), (1.0, 1), (0.0, 1), (1.0, 3), (1.0, 1_000_000), (-1.5, 7)]);
        let factor = Fraction::of(alpha).over(divisor);
        let kept = Fraction::integer(1).minus(&factor).times(&Fraction::of(old));
        let unbiased = moments.variance.times(&Fraction::integer(count)).over(count - 1);
        for (new, truth) in [(group.mean(), &moments.mean), (group.variance(1), &unbiased)] {
            let exact = mix(old, &new, alpha, divisor);
            let truth = Truth::rational(kept.plus(&factor.times(truth)));
            check_all(&exact, &truth, &(&row, old, alpha));
        }
        // The weight of the old value: −0.25 and 1.5 are exact, 1 − 0.9 is not in binary64 but here.
        let decay = random.pick(&[0.9, 0.0, 1.0, -0.25, 1.5]);
        let rest = Fraction::integer(1).minus(&Fraction::of(decay));
        let truth = Fraction::of(decay).times(&Fraction::of(old)).plus(&rest.times(&moments.mean));
        check_all(&mix_of_old(old, &group.mean(), decay), &Truth::rational(truth), &(&row, old, decay));
        // A rational number and a surd together.
        let element = moments.output(0.0, 2.0, 0.3, 0.7);
        let truth = Truth {
            rational: kept.plus(&factor.times(&element.rational)),
            factor: factor.times(&element.factor),
            ..element
        };
        let exact = mix(old, &group.element(&scale, 2.0, Some(0.3), Some(0.7)), alpha, divisor);
        check_all(&exact, &truth, &(&row, old, alpha));
        // A surd over a divisor, and a mean of one group with the scale of another.
        let truth = Truth { rational: kept, factor, square: moments.variance.clone() };
        let exact = mix(old, &scale.invstd(), alpha, divisor);
        check_all(&exact, &truth, &(&row, old, alpha));
        let mixed = ExactGroup::stored(old, 1.0).element(&scale, 2.0, Some(0.3), Some(old));
        let other = Moments { mean: Fraction::of(old), variance: moments.variance.clone() };
        check_all(&mixed, &other.output(0.0, 2.0, 0.3, old), &row);
        let own = ExactGroup::stored(old, 0.5).scale(0.5).unwrap();
        let other = Moments { mean: moments.mean.clone(), variance: Fraction::integer(1) };
        let mixed = group.element(&own, 2.0, Some(0.3), Some(old));
        check_all(&mixed, &other.output(0.0, 2.0, 0.3, old), &row);
    }
}

#[test]
fn sums_of_many_values_lose_nothing() {
    let mut random = Random(3);
    let count = 1 << 18;
    let values: Vec<f64> = (0..count).map(|_| random.number(60)).collect();
    let on_grid = |value: f64| {
        let Fraction(numerator, denominator) = Fraction::of(value);
        (numerator << 200) / denominator
    };
    let (mut sum, mut squares) = (BigInt::ZERO, BigInt::ZERO);
    for integer in values.iter().map(|&value| on_grid(value)) {
        squares += &integer * &integer;
        sum += integer;
    }
    let mean = Truth::rational(Fraction(sum.clone(), BigInt::from(count) << 200));
    let variance = Truth::rational(Fraction(squares * count - &sum * &sum, (BigInt::from(count) * count) << 400));
    let group = ExactGroup::new(values.iter().copied(), true);
    check_all(&group.mean(), &mean, &count);
    check_all(&group.variance(0), &variance, &count);
    // In any order, and to the last bit: without its smallest value the sum is another.
    let sum = |values: &mut dyn Iterator<Item = &f64>| ExactGroup::new(values.copied(), true).mean().rational;
    assert_eq!(sum(&mut values.iter()), sum(&mut values.iter().rev()));
    let least = values.iter().copied().filter(|&value| value != 0.0).min_by(|a, b| a.abs().total_cmp(&b.abs()));
    assert_ne!(sum(&mut values.iter()), sum(&mut values.iter().filter(|&&value| Some(value) != least)));
}

#[test]
fn squares_carry_beyond_128_bits() {
    // 2²² squares of nearly 2¹⁰⁶ fill 128 bits, 2²⁴ squares of 2¹⁰⁴ leave zero beside the carry.
    for (value, count) in [(2.0_f64.next_down(), (1 << 22) + 5), (1.0, 1 << 24)] {
        let group = ExactGroup::new(std::iter::repeat_n(value, count), false);
        let square = Fraction::of(value).times(&Fraction::of(value));
        check_all(&group.variance(0), &Truth::rational(square), &count);
    }
    let group = ExactGroup::new(std::iter::repeat_n(0.1, 1 << 20), true);
    assert_eq!(group.mean().compare(0.1), Ordering::Equal);
    assert!(group.variance(0).is_zero() && group.scale(0.0).is_none());
}

#[test]
fn what_has_no_answer_is_refused() {
    assert!(ExactGroup::stored(1.0, -1.0).scale(0.5).is_none());
    assert!(ExactGroup::stored(1.0, -1.0).scale(1.0).is_none());
    assert!(ExactGroup::new([1.0, 3.0], true).scale(-1.0).is_none());
    assert!(ExactGroup::new([1.0, 3.0], true).scale((-1.0_f64).next_up()).is_some());
    let refuses = |call: fn()| assert!(std::panic::catch_unwind(call).is_err());
    refuses(|| drop(ExactGroup::new([], true)));
    refuses(|| drop(ExactGroup::new([1.0, f64::NAN], true)));
    refuses(|| drop(ExactGroup::new([1.0], true).variance(1)));
    refuses(|| drop(ExactGroup::stored(0.0, f64::INFINITY)));
    refuses(|| drop(Exact::from_f64(f64::NEG_INFINITY)));
    refuses(|| drop(mix(0.0, &Exact::from_f64(1.0), 0.1, 0)));
}
