//! The operations of ball arithmetic, their radii written out once more.

use super::super::format::power_of_two;
use super::super::truth::UNDERFLOW;
use super::super::*;
use super::bounds::{assert_largest, assert_near};

const A: Truth = Truth { value: DoubleDouble { hi: 3.0, lo: 0.0 }, radius: 0.5 };
const B: Truth = Truth { value: DoubleDouble { hi: -2.0, lo: 0.0 }, radius: 0.25 };

fn ball(value: f64, radius: f64) -> Truth {
    Truth { value: DoubleDouble::from(value), radius }
}

/// A radius beside which those of roundings are nothing; `times` a millionth of a millionth is added for its own.
fn assert_is(actual: Truth, value: f64, radius: f64, times: f64) {
    assert_near(actual.value.hi, value);
    let over = (actual.radius - radius) / radius * 1e12;
    assert!((times - 0.5..times + 0.5).contains(&over), "{actual:?}, expected {radius}: {over} over");
}

/// The radius of one rounding of an exact result, besides `lost`.
fn rounding(value: f64, lost: f64) -> f64 {
    (lost + DoubleDouble::ERROR * value.abs() + UNDERFLOW) * (1.0 + 1e-12)
}

#[test]
fn the_four_operations() {
    assert_is(A + B, 1.0, 0.75, 1.0);
    assert_is(A - B, 5.0, 0.75, 1.0);
    assert_is(A * B, -6.0, 3.0 * 0.25 + 2.0 * 0.5 + 0.5 * 0.25, 2.0);
    assert_is(A / B, -1.5, (0.5 + 1.5 * 0.25) / (2.0 - 0.25), 2.0);
    assert_is(A / Truth::exact(2.0), 1.5, 0.25, 2.0);
    assert_is(Truth::exact(3.0) / B, -1.5, 1.5 * 0.25 / 1.75, 2.0);
    assert_is(A * Truth::exact(-2.0), -6.0, 1.0, 2.0);
    assert_eq!((A / ball(2.0, 2.0)).radius, f64::INFINITY);
    // An infinite radius stays, even times 0.
    assert_eq!((Truth::exact(0.0) * ball(1.0, f64::INFINITY)).radius, f64::INFINITY);
    assert_eq!((ball(1.0, f64::INFINITY) * Truth::exact(0.0)).radius, f64::INFINITY);
}

#[test]
fn exact_numbers_are_rounded_once() {
    let exact = Truth::exact;
    assert_near((exact(1.0) + exact(0.5)).radius, rounding(1.5, 0.0));
    assert_near((exact(1.0) / exact(3.0)).radius, rounding(1.0 / 3.0, 0.0));
    assert_near((exact(0.1) * exact(0.3)).radius, rounding(0.03, 0.0));
    assert_near(exact(2.0).sqrt().radius, rounding(2_f64.sqrt(), 0.0));
    assert_eq!(exact(1.0) - exact(1.0), exact(0.0));
    let tiny = exact(power_of_two(-1000)) * exact(power_of_two(-60));
    assert_eq!((tiny.value.hi, tiny.radius), (power_of_two(-1060), UNDERFLOW));
}

/// A NaN or an infinity is the answer itself where what made it is sure.
#[test]
fn what_is_not_finite() {
    let infinite = Truth::exact(f64::INFINITY);
    assert_eq!(infinite + Truth::exact(1.0), infinite);
    assert_eq!([infinite + A, A + infinite, infinite * A], [infinite; 3]);
    assert_eq!(infinite * Truth::exact(-2.0), Truth::exact(f64::NEG_INFINITY));
    assert_eq!(Truth::exact(1.0) / infinite, Truth::exact(0.0));
    for nothing in [infinite * Truth::exact(0.0), infinite - infinite, A + Truth::exact(f64::NAN)] {
        assert!(nothing.value.hi.is_nan() && nothing.radius == 0.0, "{nothing:?}");
    }
    let unsure = ball(f64::INFINITY, f64::INFINITY);
    for open in [
        infinite * ball(0.0, 0.5),
        infinite * ball(0.5, 0.5),
        infinite * ball(1.0, 2.0),
        infinite + unsure,
        ball(f64::INFINITY, 0.5) + Truth::exact(1.0),
        unsure + Truth::exact(1.0),
        A * unsure,
    ] {
        assert_eq!(open.radius, f64::INFINITY, "{open:?}");
    }
    assert_eq!(
        [infinite, unsure, A, ball(1.0, f64::INFINITY)].map(|truth| truth.is_finite()),
        [false, false, true, false]
    );
    assert_eq!(infinite.round(Format::F16), Some(f64::INFINITY));
    assert_eq!(ball(1.0, power_of_two(-60)).round(Format::F16), Some(1.0));
    assert_eq!(ball(1.0, power_of_two(-60).next_up()).round(Format::F16), None);
}

#[test]
fn powers_of_two_are_exact_but_for_underflow() {
    assert_eq!(Truth::exact(1.5).scale(3), Truth::exact(12.0));
    assert_eq!(A.scale(0), A);
    assert_eq!(A.scale(-1), ball(1.5, 0.25_f64.next_up()));
    let lossy = Truth::exact(1.0_f64.next_up()).scale(-1070);
    assert_eq!((lossy.value.hi, lossy.radius), (power_of_two(-1070), f64::from_bits(1) + UNDERFLOW));
}

#[test]
fn roots_and_powers() {
    assert_is(ball(4.0, 0.5).sqrt(), 2.0, 0.25, 2.0);
    let unsure = ball(f64::INFINITY, f64::INFINITY);
    assert!(Truth::exact(f64::NEG_INFINITY).sqrt().value.hi.is_nan());
    assert_eq!([unsure.sqrt(), unsure.powf(0.3)], [unsure; 2]);
    assert_eq!(Truth::exact(f64::NEG_INFINITY).powf(0.75), Truth::exact(f64::INFINITY));
    let base = ball(8.0, 0.5);
    assert_eq!([base.powf(0.0), base.powf(1.0), base.powf(2.0)], [Truth::exact(1.0), base, base * base]);
    assert_eq!([base.powf(0.5), base.powf(0.75)], [base.sqrt(), base.sqrt() * base.sqrt().sqrt()]);
    // d(xᵝ) = β·xᵝ·dx/x at the near end, and one percent
    let power = 8_f64.powf(0.6);
    assert_is(base.powf(0.6), power, 0.6 * power * 0.5 / 7.5 * 1.01, 1.0);
    assert_is(base.powf(-0.6), 1.0 / power, 0.6 / power * 0.5 / 7.5 * 1.01, 1.0);
    assert_is(ball(27.0, 0.5).root(3.0), 3.0, 0.5 / 26.5 * 1.01, 1.0);
    assert_eq!(ball(8.0, 9.0).powf(0.6).radius, f64::INFINITY);
    let exact = Truth::exact(8.0).powf(0.6);
    assert_near(exact.radius, rounding(exact.value.hi, DoubleDouble::POWER_ERROR * exact.value.hi));
    let large = Truth::exact(1.5).powf(100.25);
    assert_near(large.radius, rounding(large.value.hi, DoubleDouble::POWER_ERROR * (100.25 / 64.0) * large.value.hi));
    assert_eq!(Truth::exact(16.0).root(4.0), Truth::exact(16.0).powf(0.25));
    assert_eq!([Truth::exact(0.0).powf(0.6), Truth::exact(0.0).root(3.0)], [Truth::exact(0.0); 2]);
    assert_eq!(Truth::exact(f64::INFINITY).root(3.0), Truth::exact(f64::INFINITY));
    for negative in [Truth::exact(-8.0).powf(0.6), Truth::exact(-8.0).root(3.0)] {
        assert!(negative.value.hi.is_nan() && negative.radius == 0.0);
    }
    assert_eq!(ball(0.0, 0.5).powf(0.6).radius, f64::INFINITY);
}

#[test]
fn functions() {
    for function in [Function::Exp, Function::Sigmoid, Function::Tanh] {
        let value = function.of_double_double(DoubleDouble::from(0.75)).hi;
        assert_is(ball(0.75, 0.5).function(function), value, function.steepest(0.75, 0.5) * 0.5 * 1.01, 1.0);
        let exact = Truth::exact(0.75).function(function);
        assert_near(exact.radius, rounding(value, DoubleDouble::POWER_ERROR * value));
    }
    assert_eq!(Truth::exact(0.0).function(Function::Tanh), Truth::exact(0.0));
    // e⁻⁸⁰⁰ is too small for binary64, and not 0.
    let tiny = Truth::exact(-800.0).function(Function::Exp);
    assert!(tiny.value.hi == 0.0 && tiny.radius >= f64::MIN_POSITIVE && tiny.radius < 2.0 * f64::MIN_POSITIVE);
    assert_eq!(Truth::exact(f64::NEG_INFINITY).function(Function::Exp), Truth::exact(0.0));
    let unsure = ball(f64::INFINITY, f64::INFINITY);
    assert_eq!(unsure.function(Function::Exp), unsure);
}

#[test]
fn choices() {
    let chosen = |a: Truth, b: Truth| a.where_larger(b, ball(10.0, 1.0), ball(4.0, 3.0));
    assert_eq!(chosen(ball(2.0, 0.5), ball(1.0, 0.25)), ball(10.0, 1.0));
    assert_eq!(chosen(ball(1.0, 0.5), ball(2.0, 0.25)), ball(4.0, 3.0));
    assert_eq!(chosen(ball(1.0, 0.0), ball(1.0, 0.0)), ball(10.0, 1.0));
    assert_eq!(chosen(ball(f64::NAN, 0.0), ball(1.0, 0.0)).value.hi, 10.0);
    // Undecided, up to a distance of both radii: what is left may be 6 away, and off by its own radius.
    assert_is(chosen(ball(2.0, 0.5), ball(1.0, 0.5)), 10.0, 9.0, 2.0 / 3.0);
    assert_is(chosen(ball(1.0, 0.75), ball(2.0, 0.5)), 4.0, 7.0, 6.0 / 7.0);
    let apart = ball(1.0, 0.0).where_larger(ball(1.0, 0.5), ball(4.0, 1.0), ball(4.0, 3.0));
    assert_eq!(apart, ball(4.0, 3.0));
    assert_largest(ball, |truth| truth.radius);
}
