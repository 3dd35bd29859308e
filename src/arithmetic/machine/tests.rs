//! Programs on rows that tell one order, method and form from another, worked out by hand.

use super::*;
use crate::arithmetic::{RunningQuantity, Scale};

const LARGE: f32 = 16_777_216.0; // 2²⁴: with 1 added it rounds back to itself.

fn total(values: &[f32], order: Order) -> f32 {
    sum(values, order, |x| *x)
}

fn machine<T>(program: Program) -> Machine<T> {
    Machine::new(program)
}

#[test]
fn each_order_loses_what_it_must() {
    let (far, near) = ([LARGE, 1.0, -LARGE, 1.0], [LARGE, 1.0, 1.0, -LARGE]);
    for (order, of_far, of_near) in [
        (Order::Sequential, 1.0, 0.0),
        (Order::Reversed, 2.0, 2.0),
        (Order::Pairwise, 1.0, 1.0),
        (Order::Lanes(0), 1.0, 0.0),
        (Order::Lanes(1), 1.0, 0.0),
        (Order::Lanes(2), 2.0, 1.0),
        (Order::Lanes(4), 1.0, 0.0),
        (Order::Lanes(9), 1.0, 0.0),
    ] {
        assert_eq!(total(&far, order), of_far, "{order:?}");
        assert_eq!(total(&near, order), of_near, "{order:?}");
    }
    // (1 + L) + (1 − L) in halves, but 1 + (L + 1) − L = 0 from the left.
    assert_eq!(total(&[1.0, LARGE, 1.0, -LARGE], Order::Pairwise), 1.0);
    assert_eq!(total(&[1.0, LARGE, 1.0, -LARGE], Order::Sequential), 0.0);
}

#[test]
fn every_tree_has_every_value_once_and_splits_by_its_seed() {
    for length in 0..40 {
        let values: Vec<f32> = (0..length).map(|i| (1 << (i % 20)) as f32).collect();
        for seed in 0..20 {
            assert_eq!(total(&values, Order::Tree(seed)), total(&values, Order::Sequential));
        }
    }
    // What is left of a sum of 0 is the rounding.
    let values: Vec<f32> = (1..100).flat_map(|i| [1.0 / i as f32, -1.0 / (100 - i) as f32]).collect();
    let mut sums: Vec<u32> = (0..50).map(|seed| total(&values, Order::Tree(seed)).to_bits()).collect();
    sums.sort_unstable();
    sums.dedup();
    assert!(sums.len() >= 4, "{} different sums", sums.len());
}

#[test]
fn the_methods_for_the_variance() {
    // Mean 4; the squares of the deviations are 34, and 66 with two lanes that hold 0 and are counted.
    let row = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0];
    let squares = |variance, row: &[f64]| {
        let moments = machine::<f64>(Program { variance, ..Program::default() }).moments(Group::contiguous(row), true);
        assert_eq!(moments.count, Some(row.len()));
        (moments.mean, moments.squares)
    };
    assert_eq!(squares(VarianceMethod::TwoPass, &row), (4.0, 34.0));
    assert_eq!(squares(VarianceMethod::Padded, &row), (4.0, 66.0));
    assert_eq!(squares(VarianceMethod::Narrow(Format::BF16), &row), (4.0, 34.0));
    assert_eq!(squares(VarianceMethod::CutOff, &row), (4.0, 34.0));
    // v = 10⁻⁸ is cut off, v = 4·10⁻⁶ is not.
    assert_eq!(squares(VarianceMethod::CutOff, &[1.0 - 1e-4, 1.0 + 1e-4]), (1.0, 0.0));
    assert_eq!(squares(VarianceMethod::CutOff, &[-7e-4, 7e-4]), (0.0, 0.0));
    let (_, kept) = squares(VarianceMethod::CutOff, &[-2e-3, 2e-3]);
    assert_eq!(kept, 8e-6);
    // In BF16 256 + 1 is 256.
    let (mean, _) = squares(VarianceMethod::Narrow(Format::BF16), &[1.0; 300]);
    assert_eq!(mean, 256.0 / 300.0);
    // 1 + 2⁻⁸ squared is 1 + 2⁻⁷ + 2⁻¹⁶, in BF16 1 + 2⁻⁷: the squares are rounded before they are added, and after.
    let x = 1.0 + 1.0 / 256.0;
    let raw = machine::<f64>(Program { variance: VarianceMethod::Narrow(Format::BF16), ..Program::default() })
        .moments(Group::contiguous(&[x, x]), false);
    assert_eq!((raw.mean, raw.squares), (0.0, 2.0 * (1.0 + 1.0 / 128.0)));
    for chunk in 0..8 {
        let (mean, squares) = squares(VarianceMethod::Merged(chunk), &row);
        // Six updates, of which the last rounding weighs most.
        let near = |actual: f64, expected: f64| (actual - expected).abs() <= 8.0 * f64::EPSILON * expected;
        assert!(near(mean, 4.0) && near(squares, 34.0), "{mean} and {squares} by {chunk}");
    }
}

#[test]
fn one_pass_loses_the_variance_at_a_large_mean_and_is_never_negative() {
    let row: Vec<f32> = (0..64).map(|i| 3e3 + (i % 7) as f32 * 1e-3).collect();
    let program = Program { variance: VarianceMethod::OnePass, ..Program::default() };
    let [one_pass, two_pass] = [program, Program::default()].map(|program| {
        let machine = machine::<f32>(program);
        machine.variance(&machine.moments(Group::contiguous(&row), true), 0)
    });
    assert!(two_pass > 0.0 && (one_pass >= 2.0 * two_pass || one_pass == 0.0), "{one_pass}, in two passes {two_pass}");
    for offset in 0..200 {
        let machine = machine::<f32>(program);
        let moments = machine.moments(Group::contiguous(&[1e3 + offset as f32 * 0.37; 7]), true);
        assert!(machine.variance(&moments, 0) >= 0.0, "{offset}");
    }
    let machine = machine::<f32>(program);
    assert!(machine.variance(&machine.moments(Group::contiguous(&[f32::NAN, 1.0]), true), 0).is_nan());
}

#[test]
fn choices_that_leave_the_formula_show_in_the_last_bit() {
    // 41·(1/41) is the first such product that is not 1 in binary32.
    let row = [1.0_f32; 41];
    let mean = |reciprocal| {
        let machine = machine::<f32>(Program { reciprocal, ..Program::default() });
        machine.mean(&machine.moments(Group::contiguous(&row), true))
    };
    assert_eq!(mean(false), 1.0);
    assert_eq!(mean(true), 1.0 - f32::EPSILON / 2.0);

    let raw = machine::<f32>(Program { reciprocal: true, ..Program::default() });
    assert_eq!(raw.variance(&raw.moments(Group::contiguous(&row), false), 0), 1.0 - f32::EPSILON / 2.0);

    // A decay that is given is no rounded 1 − (1 − decay).
    let kept = machine::<f32>(Program::default()).mix(1e9, 0.0, Factor::OfOld(1e-9));
    assert_eq!(kept, 1e-9_f32 * 1e9);

    // The old value is lost in the difference: 1 − 10⁸ rounds to −10⁸.
    let mix =
        |difference| machine::<f32>(Program { difference, ..Program::default() }).mix(1e8, 1.0, Factor::OfNew(1.0));
    assert_eq!((mix(false), mix(true)), (1.0, 0.0));

    // Mean and 1/σ, kept in BF16: 1 + 2⁻⁹ becomes 1, 1/3 becomes 171/512.
    let program = Program { statistics: Some(Format::BF16), ..Program::default() };
    let machine_of_bf16 = machine::<f32>(program);
    let mean = 1.0 + 1.0 / 512.0;
    let moments = machine_of_bf16.moments(Group::contiguous(&[mean - 3.0, mean + 3.0]), true);
    let scaling = machine_of_bf16.scaling(&moments, &Scale::inside_root(0.0));
    assert_eq!((moments.mean, scaling.inverse), (1.0, 171.0 / 512.0));
    assert_eq!(machine_of_bf16.cast(mean, Format::BF16), 1.0);
    assert_eq!(machine_of_bf16.running_quantity(mean, RunningQuantity::Variance, 1.0), mean);
}

#[test]
fn forms_round_where_they_say() {
    // With μ = 2²⁴ and 1/σ = 3, folded: 3x = 3·2²⁴ + 3 takes 26 bits and is rounded to 3·2²⁴ + 4, fused it is not.
    let rescaled = |form, weight: Option<f32>| {
        let machine = machine::<f32>(Program { form, ..Program::default() });
        let scaling = MachineScaling { mean: LARGE - 2.0, sigma: 1.0 / 3.0, inverse: 3.0 };
        let mut output = [f32::NAN];
        machine.rescale(&[LARGE - 1.0], &scaling, weight.map(Parameter::One), None, &mut output);
        output[0]
    };
    assert_eq!(rescaled(Form::Direct, None), 3.0);
    assert_eq!(rescaled(Form::Division, None), 1.0 / (1.0_f32 / 3.0));
    let (x, mean) = ((LARGE - 1.0) * 3.0, (LARGE - 2.0) * 3.0);
    assert_eq!(rescaled(Form::Folded, None), x - mean);
    assert_ne!(x - mean, 3.0);
    assert_eq!(rescaled(Form::FusedFolded, None), ((f64::from(LARGE) - 1.0) * 3.0 - f64::from(mean)) as f32);
    assert_eq!(rescaled(Form::Direct, Some(2.0)), 6.0);

    // A scale that is off by half of itself is so in a quotient too.
    let machine = machine::<f64>(Program { form: Form::Division, ..Program::default() });
    let moments = machine.moments(Group::contiguous(&[-4.0, 4.0]), true);
    let mut output = [f64::NAN];
    let scaling = machine.scaling(&moments, &Scale { error: 0.5, ..Scale::inside_root(0.0) });
    machine.rescale(&[4.0], &scaling, None, None, &mut output);
    // Two quotients.
    assert!((output[0] - 1.5).abs() <= f64::EPSILON * 1.5, "{output:?}");
}

#[test]
fn the_cube_of_the_inverse_underflows() {
    let scaling = MachineScaling { mean: 0.0_f32, sigma: 1e16, inverse: 1e-16 };
    let (x, a) = ([-1e16, 1e16], [-1.0, 3.0]);
    let gradient = |cubes, centred| {
        machine::<f32>(Program { cubes, ..Program::default() }).input_gradient(&x, &a, &[-1.0, 1.0], &scaling, centred)
    };
    // a − 1 − 2y = 0; without the last term ∓2, without the mean −1 and 3.
    assert_eq!(gradient(false, true), [0.0, 0.0]);
    assert_eq!(gradient(true, true), [-2e-16, 2e-16]);
    assert_eq!(gradient(true, false), [-1e-16, 3.0 * 1e-16]);
}
