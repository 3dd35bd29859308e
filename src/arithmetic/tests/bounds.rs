//! Numbers with bounds, their operations written out once more as the documentation has them, with unit roundoffs so large
//! that what is of second order shows.

use super::super::format::power_of_two;
use super::super::tracked::{rounded_exponent, rounded_inverse, spread_of_power, underflow};
use super::super::*;
use super::UNIT as SINGLE;

/// A bound is computed in binary64 and a millionth of a millionth is added, now and then more than once.
pub(super) fn assert_bound(actual: f64, expected: f64) {
    let over = (actual - expected) / expected;
    assert!(actual == expected || (0.0..8e-12).contains(&over), "{actual:e}, expected {expected:e}: {over:e} over");
}

/// Some thirty roundings of binary64 lie between two ways to compute a figure.
pub(super) fn assert_near(actual: f64, expected: f64) {
    let close = (actual - expected).abs() <= 32.0 * f64::EPSILON * expected.abs();
    assert!(actual == expected || close || actual.is_nan() && expected.is_nan(), "{actual:e}, expected {expected:e}");
}

/// What stands where the larger of two numbers does, made by value and error.
fn assert_chooses<R: Real + PartialEq>(number: impl Fn(f64, f64) -> R) {
    let chosen = |a: R, b: R| a.where_larger(b, number(10.0, 1.0), number(4.0, 3.0));
    assert_eq!(chosen(number(2.0, 0.5), number(1.0, 0.25)), number(10.0, 1.0));
    assert_eq!(chosen(number(1.0, 0.5), number(2.0, 0.25)), number(4.0, 3.0));
    assert_eq!(chosen(number(1.0, 0.0), number(1.0, 0.0)), number(10.0, 1.0));
    assert_eq!(chosen(number(f64::NAN, 0.0), number(2.0, 0.0)).value(), 10.0);
    // Undecided, up to a distance of both errors: what is left may be 6 away, and off by its own error.
    assert_eq!(chosen(number(2.0, 0.5), number(1.0, 0.5)), number(10.0, 9.0));
    assert_eq!(chosen(number(1.0, 0.75), number(2.0, 0.5)), number(4.0, 7.0));
    let apart = number(1.0, 0.0).where_larger(number(1.0, 0.5), number(4.0, 1.0), number(4.0, 3.0));
    assert_eq!(apart, number(4.0, 3.0));
}

/// The larger of two numbers, made by value and error, and the step at 0.
pub(super) fn assert_largest<R: Real + PartialEq>(number: impl Fn(f64, f64) -> R, error: fn(R) -> f64) {
    assert_eq!(number(2.0, 0.5).max(number(1.0, 0.25)), number(2.0, 0.5));
    assert_eq!(number(1.0, 0.5).max(number(2.0, 0.25)), number(2.0, 0.25));
    assert_eq!(number(2.0, 0.25).max(number(1.0, 0.75)), number(2.0, 0.75));
    assert_eq!(number(1.0, 0.25).max(number(1.0, 0.75)), number(1.0, 0.75));
    assert!(number(f64::NAN, 0.0).max(number(1.0, 0.0)).value().is_nan());
    let steps = [(1.0, 0.5), (-1.0, 0.5), (0.25, 0.5), (0.5, 0.5), (0.0, 0.0), (3.0, 0.0)];
    let steps = steps.map(|(value, error)| number(value, error).step());
    assert_eq!(steps.map(|step| step.value()), [1.0, 0.0, 1.0, 1.0, 0.5, 1.0]);
    assert_eq!(steps.map(error), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
}

mod majorant {
    use super::*;

    const A: Majorant = Majorant { value: 3.0, size: 5.0, error: 0.5, unit: 0.0625 };
    const B: Majorant = Majorant { value: -2.0, size: 4.0, error: 0.25, unit: 0.125 };
    const ZERO: Majorant = Majorant { value: 0.0, size: 0.0, error: 0.0, unit: 0.125 };

    fn assert_is(actual: Majorant, value: f64, size: f64, error: f64, unit: f64) {
        assert_near(actual.value, value);
        assert_near(actual.size, size);
        assert_bound(actual.error, error);
        assert_eq!(actual.unit, unit);
    }

    /// What is carried, and a rounding of twice the unit.
    fn rounded(size: f64, carried: f64, unit: f64) -> f64 {
        carried + 2.0 * unit * (size + carried)
    }

    #[test]
    fn sums_and_differences() {
        assert_is(A + B, 1.0, 9.0, rounded(9.0, 0.75, 0.125), 0.125);
        assert_is(A - B, 5.0, 9.0, rounded(9.0, 0.75, 0.125), 0.125);
        assert_is(A.deviation(B), 5.0, 5.0, rounded(5.0, 0.75, 0.125), 0.125);
        assert_eq!([A + ZERO, ZERO + A, A - ZERO], [A; 3]);
        // A zero that cancelled, or that has an error, is a term like others.
        let cancelled = Majorant { size: 1.0, ..ZERO };
        assert_is(A + cancelled, 3.0, 6.0, rounded(6.0, 0.5, 0.125), 0.125);
        let unsure = Majorant { error: 1.0, ..ZERO };
        assert_is(unsure + A, 3.0, 5.0, rounded(5.0, 1.5, 0.125), 0.125);
    }

    #[test]
    fn products_and_quotients() {
        // A·e_b + B·e_a + e_a·e_b
        assert_is(A * B, -6.0, 20.0, rounded(20.0, 5.0 * 0.25 + 4.0 * 0.5 + 0.5 * 0.25, 0.125), 0.125);
        assert_is(A / B, -1.5, 2.5, rounded(2.5, (0.5 + 2.5 * 0.25) / (2.0 - 0.25), 0.125), 0.125);
        assert_is(A * ZERO, 0.0, 0.0, 0.0, 0.125);
        assert_is(ZERO / B, 0.0, 0.0, 0.0, 0.125);
        assert_eq!((A / Majorant { error: 2.0, ..B }).error, f64::INFINITY);
    }

    #[test]
    fn what_underflows() {
        let (small, tiny) = (Majorant::given(power_of_two(-100), SINGLE), Majorant::given(power_of_two(-40), SINGLE));
        let (size, lost) = (power_of_two(-140), power_of_two(-150));
        assert_is(small * tiny, size, size, rounded(size, lost, SINGLE), SINGLE);
        let large = Majorant::given(power_of_two(40), SINGLE);
        assert_is(small / large, size, size, rounded(size, lost, SINGLE), SINGLE);
        assert_is(
            Majorant::given(power_of_two(-280), SINGLE).powf(0.5),
            size,
            size,
            rounded(size, lost, SINGLE),
            SINGLE,
        );
        assert_eq!(Majorant::given(0.0, SINGLE).powf(0.5).error, 0.0);
    }

    #[test]
    fn roots_and_powers() {
        let square = Majorant { value: 4.0, size: 9.0, error: 0.5, unit: 0.0625 };
        assert_is(square.sqrt(), 2.0, 2.0, rounded(2.0, 0.25, 0.0625), 0.0625);
        // From 1 to 31 the power ¾, which every format has, is between 1 and 13.2.
        let power = Majorant { value: 16.0, size: 20.0, error: 15.0, unit: 0.0625 };
        assert_is(power.powf(0.75), 8.0, 8.0, rounded(8.0, 7.0, 0.0625), 0.0625);
        let (base, off) = (Majorant::given(8.0, 0.0625), (0.0625 * 8_f64.ln() / 3.0).exp_m1());
        let cube = rounded(2.0, off * 2.0, 0.0625);
        assert_is(base.root(3.0), 2.0, 2.0, cube, 0.0625);
        assert_is(base.powf(1.0 / 3.0), 2.0, 2.0, cube, 0.0625);
    }

    #[test]
    fn functions() {
        for (function, granted) in [(Function::Exp, 2.0), (Function::Sigmoid, 4.0)] {
            for (x, error) in [(0.75, 0.5), (0.75, 0.0), (0.0, 0.5)] {
                let (value, carried) =
                    (function.of(x), if error == 0.0 { 0.0 } else { function.steepest(x, error) * error });
                let expected = carried + granted * 0.0625 * (value + carried);
                assert_is(Majorant { value: x, error, ..A }.function(function), value, value, expected, 0.0625);
            }
        }
    }

    #[test]
    fn parameters_beside_others() {
        assert_eq!(A.beside(B), Majorant { error: 0.5 + 0.125 * 3.0, unit: 0.125, ..A });
        assert_eq!(B.beside(A), Majorant { error: 0.25 + 0.125 * 2.0, unit: 0.125, ..B });
    }

    #[test]
    fn long_sums() {
        let terms = [
            A,
            ZERO,
            ZERO,
            ZERO,
            B,
            Majorant::given(7.0, 0.0),
            Majorant { error: 1.0, ..ZERO },
            Majorant { size: 2.0, ..ZERO },
        ];
        // Five that are not zero: γ₄ = ½/(1 − ½).
        assert_is(Majorant::sum(terms.into_iter()), 8.0, 18.0, 1.75 + (18.0 + 1.75), 0.125);
        assert_is(Majorant::sum([A].into_iter()), 3.0, 5.0, 0.5, 0.0625);
        assert_is(Majorant::sum([].into_iter()), 0.0, 0.0, 0.0, 0.0);
        assert!(Majorant::sum([A; 16].into_iter()).error.is_finite());
        assert_eq!(Majorant::sum([A; 17].into_iter()).error, f64::INFINITY);
    }

    #[test]
    fn choices() {
        let number = |value, error| Majorant { value, size: 9.0, error, unit: 0.125 };
        assert_chooses(number);
        assert_largest(number, |number| number.error);
        let wide = Majorant { size: 12.0, ..number(1.0, 0.5) };
        assert_eq!(number(1.5, 0.5).max(wide), Majorant { size: 12.0, ..number(1.5, 0.5) });
        assert_eq!(wide.max(number(1.5, 0.5)), Majorant { size: 12.0, ..number(1.5, 0.5) });
    }
}

mod running_error {
    use super::*;

    const A: Tracked = Tracked { value: 3.0, error: 0.5, unit: 0.0625 };
    const B: Tracked = Tracked { value: -2.0, error: 0.25, unit: 0.125 };
    const ZERO: Tracked = Tracked { value: 0.0, error: 0.0, unit: 0.125 };

    fn given(value: f64) -> Tracked {
        Tracked { value, error: 0.0, unit: SINGLE }
    }

    fn assert_is(actual: Tracked, value: f64, error: f64, unit: f64) {
        assert_near(actual.value, value);
        assert_bound(actual.error, error);
        assert_eq!(actual.unit, unit);
    }

    /// What is carried, and a rounding.
    fn rounded(value: f64, carried: f64, unit: f64) -> f64 {
        carried + unit * (value.abs() + carried)
    }

    #[test]
    fn the_four_operations() {
        assert_is(A + B, 1.0, rounded(1.0, 0.75, 0.125), 0.125);
        assert_is(A - B, 5.0, rounded(5.0, 0.75, 0.125), 0.125);
        assert_is(A * B, -6.0, rounded(6.0, 3.0 * 0.25 + 2.0 * 0.5 + 0.5 * 0.25, 0.125), 0.125);
        assert_is(A / B, -1.5, rounded(1.5, (0.5 + 1.5 * 0.25) / (2.0 - 0.25), 0.125), 0.125);
        assert_is(A * ZERO, 0.0, 0.0, 0.125);
        assert_is(ZERO * A, 0.0, 0.0, 0.125);
        assert_is(ZERO / B, 0.0, 0.0, 0.125);
        assert_is(Tracked { error: 1.0, ..ZERO } / B, 0.0, rounded(0.0, 1.0 / 1.75, 0.125), 0.125);
        assert_eq!((A / Tracked { error: 2.0, ..B }).error, f64::INFINITY);
        assert_eq!(Tracked::constant(0.1) + Tracked::constant(0.2), Tracked::constant(0.1 + 0.2));
    }

    #[test]
    fn what_underflows() {
        let (value, lost) = (power_of_two(-140), power_of_two(-150));
        for tiny in
            [given(power_of_two(-100)) * given(power_of_two(-40)), given(power_of_two(-100)) / given(power_of_two(40))]
        {
            assert_is(tiny, value, rounded(value, lost, SINGLE), SINGLE);
        }
        let power = given(power_of_two(-280)).powf(0.5);
        assert_is(power, value, rounded(value, lost, SINGLE) + SINGLE * value, SINGLE);
        assert_eq!(given(0.0).powf(0.5).error, 0.0);
        let exponential = given(-97.0).function(Function::Exp);
        assert_is(exponential, (-97_f64).exp(), 2.0 * (SINGLE * (-97_f64).exp() + lost), SINGLE);
        assert_bound(given(-1000.0).function(Function::Exp).error, 2.0 * lost);
        assert_eq!(given(0.0).function(Function::Tanh).error, 0.0);
        assert_eq!([0.0, SINGLE, 1e-9].map(underflow), [0.0, lost, lost]);
        assert_eq!([1e-10, 1e-16].map(underflow), [lost, power_of_two(-1074)]);
    }

    #[test]
    fn roots_and_powers() {
        let square = Tracked { value: 4.0, error: 0.5, unit: 0.0625 };
        assert_is(square.sqrt(), 2.0, rounded(2.0, 0.25, 0.0625), 0.0625);
        let power = Tracked { value: 16.0, error: 15.0, unit: 0.0625 };
        assert_is(power.powf(0.75), 8.0, rounded(8.0, 7.0, 0.0625) + 0.0625 * 8.0, 0.0625);
        let (base, off) = (Tracked { value: 8.0, error: 0.0, unit: 0.0625 }, (0.0625 * 8_f64.ln() / 3.0).exp_m1());
        let cube = 0.0625 * 2.0 + (0.0625 + off) * 2.0;
        assert_is(base.root(3.0), 2.0, cube, 0.0625);
        assert_is(base.powf(1.0 / 3.0), 2.0, cube, 0.0625);
        // The end at 0 is farther; below it there is none.
        assert_near(spread_of_power(1.0, 1.0, 0.5), 1.0);
        assert_near(spread_of_power(1.0, 3.0, 0.5), 1.0);
        assert_near(spread_of_power(4.0, 5.0, 1.5), 19.0);
        assert_eq!(spread_of_power(f64::INFINITY, 0.0, 0.5), 0.0);
    }

    #[test]
    fn exponents_that_a_type_has() {
        // Units of 2⁻⁴ are those of five bits, which have 15.5 and 31, not 15.75.
        for (exponent, exact) in [(15.5, true), (31.0, true), (15.75, false), (0.5, true), (-0.75, true), (0.6, false)]
        {
            let off = rounded_exponent(3.0, exponent, 0.03125);
            let expected = if exact { 0.0 } else { (0.03125 * (exponent * 3_f64.ln()).abs()).exp_m1() };
            assert_near(off, expected);
        }
        // One bit has 2 and 4, not 3.
        assert_near(rounded_exponent(3.0, 3.0, 0.5), (0.5 * 3.0 * 3_f64.ln()).exp_m1());
        assert_near(rounded_inverse(3.0, 4.0, 0.03125), 0.0);
        assert_near(rounded_inverse(0.25, 3.0, 0.03125), (0.03125 * 4_f64.ln() / 3.0).exp_m1());
        assert_near(rounded_inverse(3.0, 1.25, 0.03125), (0.03125 * 0.8 * 3_f64.ln()).exp_m1());
        assert_eq!([rounded_exponent(0.0, 0.6, 0.03125), rounded_exponent(3.0, 0.6, 0.0)], [0.0; 2]);
    }

    #[test]
    fn functions() {
        for (function, granted) in [(Function::Exp, 2.0), (Function::Sigmoid, 4.0)] {
            for (x, error) in [(0.75, 0.5), (0.75, 0.0), (0.0, 0.5)] {
                let (value, carried) =
                    (function.of(x), if error == 0.0 { 0.0 } else { function.steepest(x, error) * error });
                let expected = carried + granted * 0.0625 * (value + carried);
                assert_is(Tracked { value: x, error, ..A }.function(function), value, expected, 0.0625);
            }
        }
    }

    #[test]
    fn long_sums() {
        let terms = [A, ZERO, B, Tracked { value: 7.0, error: 0.0, unit: 0.0 }, Tracked { error: 1.0, ..ZERO }];
        // γ₄ = ½/(1 − ½), of 3 + 2 + 7 and the errors.
        assert_is(Tracked::sum(terms.into_iter()), 8.0, 1.75 + (12.0 + 1.75), 0.125);
        assert_is(Tracked::sum([A].into_iter()), 3.0, 0.5, 0.0625);
        assert_is(Tracked::sum([].into_iter()), 0.0, 0.0, 0.0);
        assert!(Tracked::sum([A; 16].into_iter()).error.is_finite());
        assert_eq!(Tracked::sum([A; 17].into_iter()).error, f64::INFINITY);
    }

    #[test]
    fn choices() {
        let number = |value, error| Tracked { value, error, unit: 0.125 };
        assert_chooses(number);
        assert_largest(number, |number| number.error);
    }
}
