//! The reference where it takes a short way, and where IEEE arithmetic answers instead of it.

use super::super::format::{exponent_of, power_of_two};
use super::super::reference::{Line, Shift};
use super::super::*;
use super::bounds::assert_near;
use super::{EPS, ROW};

fn scaling(mean: f64, variance: f64) -> ReferenceScaling {
    Reference.scaling(&Reference.stored(mean, variance), &Scale::inside_root(0.0))
}

fn of_row(row: &[f64], eps: f64, centred: bool) -> ReferenceScaling {
    Reference.scaling(&Reference.moments(Group::contiguous(row), centred), &Scale::inside_root(eps))
}

fn element(scaling: &ReferenceScaling, x: f64) -> f64 {
    let mut output = [Truth::exact(0.0)];
    Reference.rescale(&[x], scaling, None, None, &mut output);
    assert_eq!(output[0].radius, 0.0);
    output[0].value.hi
}

#[test]
fn a_line_subtracts_what_it_must() {
    let shift = |scaling: ReferenceScaling, centred| scaling.line(centred).map(|line: Line| line.shift);
    let row = ROW;
    let line = of_row(&row, EPS, true).line(true).expect("an ordinary row");
    assert_eq!((line.shift, line.pivot, line.delta.hi), (Shift::Once, 4.0, 0.0));
    assert_eq!(line.inverse.hi, 0.25);
    let third = of_row(&[0.1, 0.2, 0.4], 1.0, true).line(true).expect("an ordinary row");
    let mean = Reference.mean(&Reference.moments(Group::contiguous(&[0.1, 0.2, 0.4]), true));
    assert_eq!((third.pivot, third.delta.hi, third.delta.lo), (mean.value.hi, mean.value.lo, 0.0));
    assert_eq!(shift(of_row(&row, EPS, false), false), Some(Shift::None));
    // |μ|/σ up to 2²⁴ leaves the lower half of the mean small.
    for (mean, variance, expected) in [
        (power_of_two(24), 1.0, Shift::Once),
        (power_of_two(24) + 2.0, 1.0, Shift::Twice),
        (-power_of_two(25), 4.0, Shift::Once),
        (-power_of_two(25) - 4.0, 4.0, Shift::Twice),
        (9e199, 1.0, Shift::Twice),
    ] {
        assert_eq!(shift(scaling(mean, variance), true), Some(expected), "{mean}");
    }
}

#[test]
fn there_is_no_line_where_radii_or_powers_of_two_matter() {
    let none = |scaling: ReferenceScaling| scaling.line(true).is_none() && scaling.line(false).is_none();
    assert!(none(scaling(f64::NAN, 1.0)) && none(scaling(f64::INFINITY, 1.0)) && none(scaling(1.0, f64::INFINITY)));
    assert!(none(of_row(&[1e200, 2e200, -3e200], 1e-5, true)));
    assert!(none(of_row(&[1.0, 2.0], 1e200, true)));
    assert!(none(scaling(1e200, 1.0)) && none(scaling(-1e200, 1.0)));
    assert!(none(scaling(0.0, 1e-220)) && none(scaling(0.0, 1e220)));
    assert!(!none(scaling(0.0, 1e-180)) && !none(scaling(0.0, 1e180)));
    let averaged = |variance, relative| {
        let variance = Truth { value: DoubleDouble::from(variance), radius: relative * variance };
        Reference.scaling(&Reference.averaged(Truth::exact(1.0), variance), &Scale::inside_root(0.0))
    };
    // The root halves a relative radius.
    for variance in [power_of_two(-80), 4.0, power_of_two(80)] {
        assert!(none(averaged(variance, power_of_two(-72))) && !none(averaged(variance, power_of_two(-75))));
    }
}

#[test]
fn statistics_that_are_given_are_exact() {
    let stored = Reference.stored(0.1, 0.3);
    assert_eq!((Reference.mean(&stored), Reference.variance(&stored, 1)), (Truth::exact(0.1), Truth::exact(0.3)));
    let mean = Truth { value: DoubleDouble { hi: 1.0, lo: power_of_two(-60) }, radius: 1e-25 };
    let variance = Truth { value: DoubleDouble { hi: 4.0, lo: power_of_two(-60) }, radius: 1e-24 };
    let averaged = Reference.averaged(mean, variance);
    assert_eq!(Reference.variance(&averaged, 1), variance);
    let back = Reference.mean(&averaged);
    assert_eq!(back.value, mean.value);
    // The subtraction of 1 and its addition are two roundings.
    assert!(back.radius >= mean.radius && back.radius <= mean.radius + 4.0 * DoubleDouble::ERROR);
    // A mean that is a number of binary64, but for its radius.
    let near = Reference.averaged(Truth { radius: 1e-20, ..Truth::exact(1.0) }, Truth::exact(4.0));
    let mut output = [Truth::exact(0.0)];
    Reference.rescale(&[2.0], &Reference.scaling(&near, &Scale::inside_root(0.0)), None, None, &mut output);
    assert!((5e-21..6e-21).contains(&output[0].radius), "{:?}", output[0]);
    let row = [0.1, 0.2, 0.4];
    let of_row = Reference.mean(&Reference.moments(Group::contiguous(&row), true));
    let exact = exact::ExactGroup::new(row, true).mean().double_double();
    assert!((of_row.value - exact.0).abs().hi <= of_row.radius + exact.1 && of_row.radius < 1e-25);
    let quarters = Reference.mean(&Reference.moments(Group::contiguous(&[0.25; 5]), true));
    assert_eq!(quarters, Truth::exact(0.25));
}

/// What a NaN or an infinity makes of the definition, no radius about it.
#[test]
fn ieee_arithmetic_answers_what_is_not_finite() {
    assert_eq!(element(&scaling(f64::INFINITY, 4.0), 0.0), f64::NEG_INFINITY);
    assert_eq!(element(&scaling(1.0, f64::INFINITY), 5.0), 0.0);
    assert!(element(&scaling(1.0, f64::NAN), 5.0).is_nan() && element(&scaling(f64::NAN, 1.0), 5.0).is_nan());
    assert_eq!(element(&scaling(1.0, 4.0), f64::INFINITY), f64::INFINITY);
    assert!(element(&of_row(&[1.0, f64::INFINITY], 1.0, true), 1.0).is_nan());
    assert_eq!(element(&of_row(&[1.0, f64::INFINITY], 1.0, false), 1.0), 0.0);
    let scale = |eps| Scale { error: 0.5, ..Scale::inside_root(eps) };
    let inverse = |moments: &ReferenceMoments, scale: &Scale| Reference.inverse(&Reference.scaling(moments, scale));
    assert_eq!(inverse(&Reference.stored(f64::INFINITY, 4.0), &scale(0.0)), Truth::exact(0.75));
    assert_eq!(inverse(&Reference.stored(1.0, 4.0), &scale(f64::INFINITY)), Truth::exact(0.0));
    assert!(inverse(&Reference.stored(1.0, 4.0), &scale(f64::NAN)).value.hi.is_nan());
    let averaged = |mean: f64, variance: f64| Reference.averaged(Truth::exact(mean), Truth::exact(variance));
    let of = |moments: ReferenceMoments| Reference.scaling(&moments, &Scale::inside_root(0.0));
    assert_eq!(element(&of(averaged(f64::INFINITY, 4.0)), 0.0), f64::NEG_INFINITY);
    assert_eq!(element(&of(averaged(1.0, f64::INFINITY)), 5.0), 0.0);
    // A variance of 0 and no eps; one that is negative.
    assert_eq!(inverse(&Reference.stored(1.0, 0.0), &scale(0.0)), Truth::exact(f64::INFINITY));
    assert!(inverse(&Reference.stored(1.0, -4.0), &scale(1.0)).value.hi.is_nan());
    for place in [EpsPlace::OutsideRoot, EpsPlace::LowerLimit] {
        let scale = Scale { eps_place: place, ..scale(1.0) };
        let expected = if place == EpsPlace::OutsideRoot { 0.5 } else { 0.75 };
        assert_eq!(inverse(&Reference.stored(f64::INFINITY, 4.0), &scale), Truth::exact(expected));
    }
}

/// A mean of squares of which the truth cannot say whether it is 0.
#[test]
fn what_cannot_be_decided_has_an_infinite_radius() {
    let unknown = Truth { value: DoubleDouble::ZERO, radius: 1e-30 };
    let scaled = |eps| Reference.scaling(&Reference.averaged(Truth::exact(1.0), unknown), &Scale::inside_root(eps));
    assert_eq!(Reference.inverse(&scaled(0.0)).radius, f64::INFINITY);
    assert!(Reference.inverse(&scaled(1.0)).radius < 1e-29);
    assert!(Reference.inverse(&scaled(-1.0)).value.hi.is_nan());
    assert_eq!(Reference.inverse(&scaled(-1.0)).radius, 0.0);
}

/// 1/σ where variance and eps are as far apart as binary64 lets them be, in each place of eps, by the exact oracle.
#[test]
fn variance_and_eps_of_any_size() {
    use exact::ExactGroup;
    // Of a variance that underflows beside eps² the root has no bound.
    let near = |exponent: i32, eps: f64| eps == 0.0 || (exponent - exponent_of(eps)).abs() < 500;
    let inverse = |group: &ExactGroup, eps| group.scale(eps).map(|scale| scale.invstd().double_double());
    for exponent in [-1070, -700, -500, -310, -290, -150, 0, 150, 290, 310, 500, 700, 1000] {
        let unit = power_of_two(exponent);
        // v = 4^exponent, 2/3 of it, and 0.
        for row in [vec![-unit, unit], vec![0.0, unit, -unit], vec![unit; 3]] {
            let moments = Reference.moments(Group::contiguous(&row), true);
            let group = ExactGroup::new(row.iter().copied(), true);
            for eps in [0.0, power_of_two(-1074), 1e-300, 1e-200, 1e-100, 1e-5, 1.0, 1e100, 1e200, 1e300] {
                for eps_place in [EpsPlace::InsideRoot, EpsPlace::OutsideRoot, EpsPlace::LowerLimit] {
                    let own = ExactGroup::new(row.iter().copied(), true).variance(0);
                    let expected = match eps_place {
                        EpsPlace::InsideRoot => inverse(&group, eps),
                        EpsPlace::LowerLimit if own.compare(eps).is_gt() => inverse(&group, 0.0),
                        EpsPlace::LowerLimit => inverse(&ExactGroup::stored(0.0, eps), 0.0),
                        // √v is a number of binary64.
                        EpsPlace::OutsideRoot if row.len() == 2 && near(exponent, eps) => {
                            let value = DoubleDouble::ONE / DoubleDouble::sum(unit, eps);
                            Some((value, 2.0 * DoubleDouble::ERROR * value.hi))
                        }
                        EpsPlace::OutsideRoot => continue,
                    };
                    let scale = Scale { eps_place, ..Scale::inside_root(eps) };
                    let actual = Reference.inverse(&Reference.scaling(&moments, &scale));
                    let text = format!("2^{exponent}, {} values, eps {eps:e} {eps_place:?}: {actual:?}", row.len());
                    let Some((value, radius)) = expected else {
                        assert_eq!(actual, Truth::exact(f64::INFINITY), "{text}");
                        continue;
                    };
                    if !(1e-290..1e290).contains(&value.hi) {
                        continue;
                    }
                    assert!((actual.value - value).abs().hi <= actual.radius + radius, "{text}, expected {value:?}");
                    assert!(actual.radius <= power_of_two(-70) * value.hi, "{text}");
                }
            }
        }
    }
}

/// The radii of the lemma: 2⁻⁹⁰ and 8·2⁻¹⁰⁴ of Q for one block, and 0.1 percent for what the radius itself loses.
#[test]
fn radii_are_those_of_the_lemma() {
    let relative = (power_of_two(-90) + 8.0 * power_of_two(-104)) * 1.001;
    // Q = 120 of four values.
    let raw = Reference.moments(Group::contiguous(&ROW), false);
    assert_near(Reference.variance(&raw, 0).radius, relative * 30.0);
    let centred = Reference.moments(Group::contiguous(&ROW), true);
    let (mean, variance) = (Reference.mean(&centred), Reference.variance(&centred, 0));
    // √(Q/n) with the pivot 4, and the rounding of the sum of pivot and δ.
    assert!((relative * 14_f64.sqrt()..1.001 * relative * 14_f64.sqrt()).contains(&mean.radius), "{mean:?}");
    assert!((relative * 14.0..1.001 * relative * 14.0).contains(&variance.radius), "{variance:?}");
    assert_eq!(Reference.variance(&Reference.moments(Group::contiguous(&[0.0; 3]), false), 0), Truth::exact(0.0));
    let unbiased = Reference.variance(&centred, 1);
    let (value, radius) = exact::ExactGroup::new(ROW, true).variance(1).double_double();
    assert!((unbiased.value - value).abs().hi <= unbiased.radius + radius && unbiased.radius > variance.radius);
    // Three times 1024 values are emptied three times.
    let long = Reference.variance(&Reference.moments(Group::contiguous(&[1.0; 3072]), false), 0);
    assert_near(long.radius, (power_of_two(-90) + 24.0 * power_of_two(-104)) * 1.001);
    // 0·∞
    assert!(Reference.variance(&Reference.moments(Group::contiguous(&[3.0]), true), 1).value.hi.is_nan());
    let special = Reference.moments(Group::contiguous(&[1.0, f64::INFINITY, 2.0]), false);
    assert_eq!(Reference.variance(&special, 1), Truth::exact(f64::INFINITY));
}

#[test]
fn what_needs_no_rounding_has_none() {
    let scaling = scaling(0.1, 4.0);
    let inverse = Truth::exact(1.0) / Truth::exact(4.0).sqrt();
    assert_eq!(Reference.inverse(&scaling), inverse);
    let mut output = [Truth::exact(0.0)];
    Reference.rescale(&[0.3], &scaling, None, None, &mut output);
    let difference = Truth { value: DoubleDouble::sum(0.3, -0.1), radius: 0.0 };
    assert_eq!(output[0], difference * inverse);
    Reference.rescale(&[0.3], &scaling, Some(Parameter::One(1.0)), Some(Parameter::One(0.0)), &mut output);
    assert_eq!(output[0], difference * inverse);
    // A group of equal values has them for its mean, and no variance, whatever the sum of them is.
    for value in [0.1, 0.3, 1.0 / 3.0, 1e-5, -123_456.7, 1e200, -1e-200, f64::MAX, 5e-324] {
        for count in 1..40 {
            let moments = Reference.moments(Group::contiguous(&vec![value; count]), true);
            assert_eq!(Reference.mean(&moments), Truth::exact(value));
            assert_eq!(Reference.variance(&moments, 0), Truth::exact(0.0));
        }
    }
    assert!(of_row(&[0.1; 7], 1.0, true).line(true).is_some());
}

/// (x − μ)·(1/σ)·w + b where 1/σ is infinite.
#[test]
fn a_sigma_of_zero_is_divided_by_as_ieee_arithmetic_does() {
    let scaling = scaling(1.0, 0.0);
    let z = |x, weight: Option<f64>, bias: Option<f64>| {
        let mut output = [Truth::exact(0.0)];
        Reference.rescale(&[x], &scaling, weight.map(Parameter::One), bias.map(Parameter::One), &mut output);
        output[0].value.hi
    };
    assert!(z(1.0, None, None).is_nan());
    assert_eq!([z(5.0, None, None), z(-5.0, None, None)], [f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!([z(5.0, Some(-1.0), None), z(5.0, None, Some(3.0))], [f64::NEG_INFINITY, f64::INFINITY]);
    assert!(z(5.0, Some(0.0), None).is_nan() && z(5.0, None, Some(f64::NEG_INFINITY)).is_nan());
}
