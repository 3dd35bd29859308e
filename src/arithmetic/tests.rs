//! Every arithmetic on rows whose statistics, roots and quotients are exact in binary32, worked out by hand.

mod balls;
mod bounds;
mod laws;
mod reference;

use super::*;

const ROW: [f64; 4] = [0.0, 2.0, 4.0, 10.0];
/// ROW has mean 4 and squares of deviations 56; v = 14, and with eps = 2, σ = 4.
const EPS: f64 = 2.0;
/// Of binary32.
const UNIT: f64 = 1.0 / 16_777_216.0;

/// What an arithmetic makes of inputs that it takes by `input`.
fn agrees<A: Arithmetic>(arithmetic: &A, input: impl Fn(f64) -> A::Input) {
    let values = |row: &[f64]| row.iter().map(|&x| input(x)).collect::<Vec<A::Input>>();
    // Fewer than a dozen roundings make each figure; one pass cancels 30 − 16, which weighs two of them three times.
    let near = |actual: A::Real, expected: f64| {
        let actual = actual.value();
        assert!((actual - expected).abs() <= 16.0 * UNIT * expected.abs(), "{actual}, expected {expected}");
    };
    let row = values(&ROW);
    let moments = arithmetic.moments(Group::contiguous(&row), true);
    near(arithmetic.mean(&moments), 4.0);
    near(arithmetic.variance(&moments, 0), 14.0);
    near(arithmetic.variance(&moments, 1), 56.0 / 3.0);
    let raw = arithmetic.moments(Group::contiguous(&row), false);
    near(arithmetic.mean(&raw), 0.0);
    near(arithmetic.variance(&raw, 0), 30.0);

    let inverse = |moments: &A::Moments, eps_place, eps, degrees_of_freedom| {
        let scale = Scale { eps, eps_place, degrees_of_freedom, error: 0.0 };
        arithmetic.inverse(&arithmetic.scaling(moments, &scale))
    };
    near(inverse(&moments, EpsPlace::InsideRoot, 2.0, 0), 0.25);
    near(inverse(&moments, EpsPlace::InsideRoot, 19.0 / 3.0, 1), 0.2);
    let stored = arithmetic.stored(input(4.0), input(16.0));
    near(arithmetic.mean(&stored), 4.0);
    near(arithmetic.variance(&stored, 0), 16.0);
    near(inverse(&stored, EpsPlace::OutsideRoot, 4.0, 0), 0.125);
    near(inverse(&stored, EpsPlace::LowerLimit, 64.0, 0), 0.125);
    near(inverse(&stored, EpsPlace::LowerLimit, 1.0, 0), 0.25);
    let averaged = arithmetic.averaged(arithmetic.keep(input(4.0)), arithmetic.keep(input(16.0)));
    near(arithmetic.mean(&averaged), 4.0);
    near(arithmetic.variance(&averaged, 0), 16.0);

    let scaling = arithmetic.scaling(&moments, &Scale::inside_root(EPS));
    let (weight, bias) = (values(&[1.0, 2.0, 4.0, 8.0]), values(&[1.0, -1.0, 0.5, 0.25]));
    let (each_weight, each_bias) = (Some(Parameter::Each(&weight[..])), Some(Parameter::Each(&bias[..])));
    let one = Some(Parameter::One(input(-2.0)));
    for (weight, bias, expected) in [
        (None, None, [-1.0, -0.5, 0.0, 1.5]),
        (each_weight, None, [-1.0, -1.0, 0.0, 12.0]),
        (None, each_bias, [0.0, -1.5, 0.5, 1.75]),
        (each_weight, each_bias, [0.0, -2.0, 0.5, 12.25]),
        (one, one, [0.0, -1.0, -2.0, -5.0]),
    ] {
        let mut output = [A::Real::constant(f64::NAN); 4];
        arithmetic.rescale(&row, &scaling, weight, bias, &mut output);
        output.iter().zip(expected).for_each(|(&actual, expected)| near(actual, expected));
    }

    // (a − mean a − y·mean(a·y))/σ: mean a = 3, mean(a·y) = 7/4.
    let (a, y) = ([1.0, 2.0, 3.0, 6.0].map(A::Real::constant), [-1.0, -0.5, 0.0, 1.5].map(A::Real::constant));
    let gradient = arithmetic.input_gradient(&row, &a, &y, &scaling, true);
    let expected = [-0.0625, -0.03125, 0.0, 0.09375];
    gradient.iter().zip(expected).for_each(|(&actual, expected)| near(actual, expected));

    let mix = |factor| arithmetic.mix(input(10.0), arithmetic.keep(input(20.0)), factor);
    let mix_again = |factor| arithmetic.mix_again(arithmetic.keep(input(10.0)), arithmetic.keep(input(20.0)), factor);
    for (factor, expected) in [
        (Factor::OfNew(0.25), 12.5),
        (Factor::OfOld(0.25), 17.5),
        (Factor::Reciprocal(4), 12.5),
        (Factor::OfNew(2.0), 30.0),
    ] {
        near(mix(factor), expected);
        near(mix_again(factor), expected);
    }

    let quantity = |quantity| arithmetic.running_quantity(arithmetic.keep(input(16.0)), quantity, 2.0);
    near(quantity(RunningQuantity::Variance), 16.0);
    near(quantity(RunningQuantity::StandardDeviation), 4.0);
    near(quantity(RunningQuantity::VariancePlusEps), 18.0);
}

#[test]
fn every_arithmetic_agrees_with_the_definitions() {
    agrees(&Reference, |x| x);
    agrees(&Plain::<f64>::new(), |x| x);
    agrees(&Plain::<Truth>::new(), Truth::from);
    agrees(&Plain::<Dual<f64>>::new(), Dual::constant);
    agrees(&Plain::<Majorant>::new(), |x| Majorant::given(x, UNIT));
    agrees(&Plain::<Tracked>::new(), Tracked::constant);
    for law in [&Law::GOOD[..], &[Law::ONE_PASS]].concat() {
        for depth in [SummationDepth::Any, SummationDepth::Pairwise, SummationDepth::Blocks(2)] {
            agrees(&Tracker { law, unit: UNIT, depth }, |x| x);
        }
    }
    for order in [Order::Sequential, Order::Reversed, Order::Pairwise, Order::Lanes(3), Order::Tree(7)] {
        for variance in
            [VarianceMethod::TwoPass, VarianceMethod::Welford, VarianceMethod::Merged(3), VarianceMethod::OnePass]
        {
            for form in [Form::Direct, Form::Division, Form::Folded, Form::FusedFolded] {
                for choice in [false, true] {
                    let (reciprocal, difference, cubes) = (choice, choice, choice);
                    let statistics = choice.then_some(Format::F32);
                    let program = Program { order, variance, form, reciprocal, difference, statistics, cubes };
                    agrees(&Machine::<f32>::new(program), |x| x as f32);
                    agrees(&Machine::<f64>::new(program), |x| x);
                }
            }
        }
    }
}

#[test]
fn the_factor_of_a_wrong_scale_is_applied_once() {
    fn inverse<A: Arithmetic>(arithmetic: &A, row: &[A::Input]) -> f64 {
        let moments = arithmetic.moments(Group::contiguous(row), true);
        let scale = Scale { error: 0.5, ..Scale::inside_root(EPS) };
        arithmetic.inverse(&arithmetic.scaling(&moments, &scale)).value()
    }
    assert_eq!(inverse(&Reference, &ROW), 0.375);
    assert_eq!(inverse(&Plain::new(), &ROW), 0.375);
    assert_eq!(inverse(&Machine::<f64>::new(Program::default()), &ROW), 0.375);
    assert!(inverse(&Reference, &[1.0, f64::NAN]).is_nan());
}

#[test]
fn a_factor_is_the_weight_of_the_new_value() {
    assert_eq!(Factor::OfNew(0.125).of_new(), 0.125);
    assert_eq!(Factor::OfOld(0.125).of_new(), 0.875);
    assert_eq!(Factor::Reciprocal(4).of_new(), 0.25);
}

#[test]
fn bessel_divides_by_the_degrees_of_freedom() {
    assert_eq!(bessel(4, 0), 1.0);
    assert_eq!(bessel(4, 1), 4.0 / 3.0);
    assert_eq!(bessel(4, 2), 2.0);
    assert_eq!(bessel(1, 1), f64::INFINITY);
}
