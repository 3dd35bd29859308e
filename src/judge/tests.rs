//! What the judge says of answers made for it: right ones moved by a multiple of their bound, refusals, counters, NaN.

use super::*;
use crate::arithmetic::{DataType, Format};
use crate::case::catalogue;
use crate::operation::{Mode, Refusal};

/// Three values in each of two channels, in training.
fn step(input: Vec<f64>, more: &[(&str, Vec<f64>)]) -> Step {
    let operation = r#"{"name": "batch_norm", "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}"#;
    let shape = [input.len() / 2, 2];
    let mut tensors = Tensors::from([
        ("input".to_owned(), Tensor::rounded(DataType::F32, &shape, input)),
        ("running_mean".to_owned(), Tensor::rounded(DataType::F32, &[2], vec![0.25, -1.0])),
        ("running_var".to_owned(), Tensor::rounded(DataType::F32, &[2], vec![1.0, 4.0])),
        (COUNTER.to_owned(), Tensor::counter(4)),
    ]);
    for (name, values) in more {
        tensors.insert((*name).to_owned(), Tensor::rounded(DataType::F32, &[values.len()], values.clone()));
    }
    Step { mode: Mode::Train, ..Step::forward(serde_json::from_str(operation).unwrap(), tensors) }
}

fn ordinary() -> Step {
    step(vec![1.0, -2.0, 3.0, 0.5, -0.75, 7.0], &[])
}

/// The correctly rounded answer.
fn right(step: &Step) -> Tensors {
    let Expected::Tensors { tensors, num_batches_tracked, .. } = Expected::of(step) else { panic!("refused") };
    let rounded =
        |(name, tensor): (String, TrueTensor)| (name, Tensor::rounded(tensor.dtype, &tensor.shape, tensor.rounded));
    let mut answer: Tensors = tensors.into_iter().map(rounded).collect();
    answer.insert(COUNTER.to_owned(), Tensor::counter(num_batches_tracked.expect("it counts")));
    answer
}

fn set(answer: &mut Tensors, name: &str, index: usize, value: f64) {
    let tensor = &answer[name];
    let mut values: Vec<f64> = tensor.to_f64().into_iter().collect();
    values[index] = value;
    let changed = Tensor::rounded(tensor.dtype(), tensor.shape(), values);
    answer.insert(name.to_owned(), changed);
}

fn shift(answer: &mut Tensors, index: usize, by: f64) {
    let value = answer["output"].get(index) + by;
    set(answer, "output", index, value);
}

fn judged(step: &Step, answer: Tensors) -> Judgement {
    judge(step, &Expected::of(step), &Answer::Tensors(answer), &Declared::default())
}

fn bounds(step: &Step, law: Law) -> Bounds {
    let Expected::Tensors { plan, .. } = Expected::of(step) else { panic!("refused") };
    Bounds::of(step, &plan, law, &Declared::default())
}

#[test]
fn the_right_answer_is_exact() {
    let judgement = judged(&ordinary(), right(&ordinary()));
    assert_eq!((judgement.outcome, judgement.grade), (Outcome::Pass, Some(Grade::Exact)));
    assert!(judgement.message.is_empty() && judgement.ratio().is_some_and(|ratio| ratio < 1.0));
}

/// Just within the bound of a law, and just outside of it.
#[test]
fn each_law_ends_at_its_bound() {
    let step = ordinary();
    let Expected::Tensors { tensors, .. } = Expected::of(&step) else { panic!("refused") };
    let (name, index) = ("output", 3);
    let truth = tensors[name].value(index).hi;
    let width = |law| {
        let bounds = bounds(&step, law);
        bounds.stored(Format::F32).of(bounds.errors(name)[index], truth)
    };
    // One unit in the last place, by which an answer can miss the end of a bound.
    let unit = f64::from(truth as f32).abs() * f64::from(f32::EPSILON);
    let grade = |distance: f64| {
        let mut answer = right(&step);
        set(&mut answer, name, index, truth + distance);
        let judgement = judged(&step, answer);
        assert_eq!(judgement.outcome == Outcome::Fail, judgement.grade > Some(Grade::Updating));
        assert_eq!(judgement.outcome == Outcome::Fail, judgement.ratio() > Some(1.0), "{judgement:?}");
        judgement.grade
    };
    for (law, within) in [(Law::GOOD[0], Grade::Stable), (Law::GOOD[Law::GOOD.len() - 1], Grade::Updating)] {
        for sign in [1.0, -1.0] {
            assert!(grade(sign * (width(law) - unit)) <= Some(within));
            assert!(grade(sign * (width(law) + unit)) > Some(within));
        }
    }
    assert_eq!(grade(0.5), Some(Grade::Wrong));
}

#[test]
fn the_worst_element_is_named() {
    let step = ordinary();
    let mut answer = right(&step);
    let two = answer["output"].get(2);
    shift(&mut answer, 1, 0.001);
    set(&mut answer, "output", 2, two + 0.5);
    shift(&mut answer, 4, -0.002);
    let judgement = judged(&step, answer);
    let worst = judgement.worst.clone().expect("a worst element");
    assert_eq!((worst.tensor.as_str(), worst.index.as_slice()), ("output", &[1, 0][..]));
    assert!((worst.expected - two).abs() < 1e-6 && (worst.error - 0.5).abs() < 1e-6, "{worst:?}");
    assert!(judgement.ratio() == Some(worst.error / worst.bound) && worst.bound < 1e-4);
    assert!(judgement.message.starts_with("output[1, 0] is 1.") && judgement.message.contains("times the bound"));
    assert!(!judgement.message.contains("unstable"));
}

#[test]
fn the_first_of_equals_is_the_worst() {
    let step = ordinary();
    let mut answer = right(&step);
    [1, 4].into_iter().for_each(|index| set(&mut answer, "output", index, f64::NAN));
    let worst = judged(&step, answer).worst.expect("a worst element");
    assert_eq!((worst.tensor.as_str(), worst.index.as_slice()), ("output", &[0, 1][..]));
}

#[test]
fn an_unstable_variance_is_told_from_a_wrong_formula() {
    let far = step(vec![4097.0, 1.0, 4098.0, 2.0, 4099.5, 4.0], &[]);
    let one_pass = bounds(&far, Law::ONE_PASS);
    let updating = bounds(&far, Law::GOOD[Law::GOOD.len() - 1]);
    let mut answer = right(&far);
    // Halfway between the bounds.
    let error = 0.5 * (one_pass.errors("output")[0] + updating.errors("output")[0]);
    shift(&mut answer, 0, error);
    let judgement = judged(&far, answer);
    assert_eq!((judgement.outcome, judgement.grade), (Outcome::Fail, Some(Grade::OnePass)), "{judgement:?}");
    assert!(judgement.message.contains("the variance is computed in an unstable way"));
}

#[test]
fn nan_and_infinity_are_no_numbers() {
    let step = ordinary();
    for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut answer = right(&step);
        set(&mut answer, "running_var", 1, wrong);
        let judgement = judged(&step, answer);
        assert_eq!((judgement.outcome, judgement.ratio()), (Outcome::Fail, Some(f64::INFINITY)));
        let worst = judgement.worst.as_ref().expect("a worst element");
        assert_eq!(judgement.message, format!("running_var[1] is {wrong}, expected {}", worst.expected));
    }
}

/// Where the true value is as near to the largest number as its bound is wide, an infinity is no failure; elsewhere it is.
#[test]
fn a_right_program_may_overflow_within_its_bound() {
    let (name, index, largest) = ("output", 5, Format::F32.max_finite());
    let Expected::Tensors { tensors, .. } = Expected::of(&ordinary()) else { panic!("refused") };
    let normalized = tensors[name].value(index).hi.abs();
    // A weight that takes this element to `reach`, to within a rounding of the weight.
    let outcome = |reach: f64, within: bool| {
        let weight = reach / normalized;
        let step =
            step(vec![1.0, -2.0, 3.0, 0.5, -0.75, 7.0], &[("weight", vec![1.0, weight]), ("bias", vec![0.0, 0.0])]);
        let Expected::Tensors { tensors, .. } = Expected::of(&step) else { panic!("refused") };
        let (truth, bounds) = (tensors[name].value(index).hi, bounds(&step, Law::GOOD[0]));
        let bound = bounds.stored(Format::F32).of(bounds.errors(name)[index], truth);
        assert!(truth.abs() < largest && (largest < truth.abs() + bound) == within, "{truth} ± {bound}");
        let mut answer = right(&step);
        set(&mut answer, name, index, f64::INFINITY.copysign(truth));
        judged(&step, answer).outcome
    };
    let unit = Format::F32.unit_roundoff();
    assert_eq!(outcome(largest * (1.0 - 2.0 * unit), true), Outcome::Pass);
    assert_eq!(outcome(largest * 0.99, false), Outcome::Fail);
}

#[test]
fn an_error_within_the_radius_of_the_truth_is_none() {
    let step = ordinary();
    let mut answer = right(&step);
    shift(&mut answer, 3, 0.5);
    let mut expected = Expected::of(&step);
    let Expected::Tensors { tensors, .. } = &mut expected else { panic!("refused") };
    tensors.values_mut().flat_map(|tensor| &mut tensor.values).for_each(|truth| truth.radius = 1.0);
    let judgement = judge(&step, &expected, &Answer::Tensors(answer), &Declared::default());
    assert_eq!((judgement.outcome, judgement.ratio()), (Outcome::Pass, Some(0.0)), "{judgement:?}");
}

#[test]
fn a_number_where_nan_must_be_fails_and_an_infinity_is_advisory() {
    let step = step(vec![1.0, f64::NAN, 3.0, 0.5, -0.75, 7.0], &[]);
    let truly = right(&step);
    assert!(truly["output"].get(1).is_nan() && !truly["output"].get(0).is_nan());
    assert_eq!(judged(&step, truly.clone()).outcome, Outcome::Pass);
    for (wrong, outcome, grade) in
        [(0.0, Outcome::Fail, Some(Grade::Wrong)), (f64::INFINITY, Outcome::Advisory, Some(Grade::Stable))]
    {
        let mut answer = truly.clone();
        set(&mut answer, "output", 1, wrong);
        let judgement = judged(&step, answer);
        assert_eq!((judgement.outcome, judgement.grade), (outcome, grade), "{judgement:?}");
        assert!(
            judgement.message.starts_with("output[0, 1] is ") && judgement.message.contains("NaN"),
            "{judgement:?}"
        );
    }
}

#[test]
fn the_counter_is_judged() {
    let step = ordinary();
    let mut answer = right(&step);
    assert_eq!(answer[COUNTER].as_counter(), Some(5));
    answer.insert(COUNTER.to_owned(), Tensor::counter(4));
    let judgement = judged(&step, answer);
    assert_eq!(judgement.outcome, Outcome::Fail);
    assert_eq!(judgement.message, "num_batches_tracked is 4 after the call, expected 5");
}

#[test]
fn what_is_unsupported_is_said_to_be() {
    let step = ordinary();
    let answer = Answer::Unsupported("no batch norm".to_owned());
    let judgement = judge(&step, &Expected::of(&step), &answer, &Declared::default());
    assert_eq!(judgement.outcome, Outcome::Unsupported);
    assert_eq!(judgement.message, "it says that it cannot do this: no batch norm");
}

/// One value for each channel: training refuses, the counter moves, and nothing else.
#[test]
fn a_refusal_is_for_the_right_reason_and_moves_nothing() {
    let lone = step(vec![1.0, 2.0], &[]);
    let expected = Expected::of(&lone);
    let refused = |kind, state| Answer::Refused { refusal: Refusal::new(kind, "no"), state };
    let judged = |answer: &Answer| judge(&lone, &expected, answer, &Declared::default());
    let few = RefusalKind::TooFewValues;

    assert_eq!(judged(&refused(few, Tensors::new())), Judgement::pass());
    let Expected::Refused { state, .. } = &expected else { panic!("it answers") };
    assert_eq!(judged(&refused(few, state.clone())), Judgement::pass());
    let other = judged(&refused(RefusalKind::Shape, Tensors::new()));
    assert!(other.outcome == Outcome::Fail && other.message.contains("for another reason (shape): no"), "{other:?}");

    let mut moved = state.clone();
    set(&mut moved, "running_mean", 0, 0.5);
    let moved = judged(&refused(few, moved));
    assert_eq!(
        (moved.outcome, moved.message.as_str()),
        (Outcome::Fail, "running_mean has changed in a call that was refused")
    );
    let mut uncounted = state.clone();
    uncounted.insert(COUNTER.to_owned(), Tensor::counter(4));
    assert_eq!(judged(&refused(few, uncounted)).message, "num_batches_tracked is 4 after the call, expected 5");

    let answered = judged(&Answer::Tensors(state.clone()));
    assert!(answered.outcome == Outcome::Fail && answered.message.starts_with("it answers where it must refuse"));
    let fine = ordinary();
    let refuses = judge(&fine, &Expected::of(&fine), &refused(few, Tensors::new()), &Declared::default());
    assert!(refuses.outcome == Outcome::Fail && refuses.message.starts_with("it refuses (too_few_values) where"));
}

/// A refusal for any reason will do where it is not a matter of the number of values.
#[test]
fn other_refusals_may_give_other_reasons() {
    let step = step(vec![1.0, -2.0, 3.0, 0.5, -0.75, 7.0], &[("weight", vec![1.0; 3])]);
    let answer = Answer::Refused { refusal: Refusal::new(RefusalKind::Other, "no"), state: Tensors::new() };
    assert_eq!(judge(&step, &Expected::of(&step), &answer, &Declared::default()).outcome, Outcome::Pass);
}

#[test]
fn bounds_of_narrower_types_count_their_own_rounding() {
    let bounds = bounds(&ordinary(), Law::GOOD[0]);
    // In the accumulating type B + 4η; else B(1 + u) + u·|z| + η.
    assert_eq!(bounds.stored(Format::F32).of(0.0, 3.0), 4.0 * 0.5_f64.powi(150));
    assert_eq!(bounds.stored(Format::F32).of(0.25, 3.0), 0.25);
    let (u, smallest) = (0.5_f64.powi(11), 0.5_f64.powi(25));
    assert_eq!(bounds.stored(Format::F16).of(0.25, -3.0), 0.25 * (1.0 + u) + u * 3.0 + smallest);
    assert_eq!(bounds.stored(Format::F16).of(0.0, 0.0), smallest);
}

#[test]
fn sums_are_kept_in_the_type_that_was_declared() {
    let wide = Declared { accumulate: Some(DataType::F64), ..Declared::default() };
    let narrow = Declared { accumulate: Some(DataType::F32), ..Declared::default() };
    for (input, declared, kept) in [
        (DataType::F16, Declared::default(), Format::F32),
        (DataType::F32, Declared::default(), Format::F32),
        (DataType::F64, Declared::default(), Format::F64),
        (DataType::F32, wide, Format::F64),
        (DataType::F32, narrow, Format::F32),
        (DataType::F64, narrow, Format::F64),
    ] {
        assert_eq!(accumulator(input, &declared), kept, "{input}");
    }
}

#[test]
fn bounds_are_those_of_who_asks() {
    let step = ordinary();
    let Expected::Tensors { plan, bounds, .. } = Expected::of(&step) else { panic!("refused") };
    let law = Law::GOOD[0];
    let error = |declared: &Declared| bounds.get(&step, &plan, law, declared).errors("output")[0];
    let wide = Declared { accumulate: Some(DataType::F64), ..Declared::default() };
    let own = error(&Declared::default());
    assert!(error(&wide) < own * 1e-6, "what is declared later is not what was kept");
    assert_eq!(error(&Declared::default()), own);
    let is_kept = |declared: &Declared| matches!(bounds.get(&step, &plan, law, declared), Cow::Borrowed(_));
    assert!(is_kept(&Declared::default()) && !is_kept(&wide));
}

#[test]
fn positions_unravel_in_c_order() {
    assert_eq!(unravel(0, &[2, 3, 4]), [0, 0, 0]);
    assert_eq!(unravel(23, &[2, 3, 4]), [1, 2, 3]);
    assert_eq!(unravel(17, &[2, 3, 4]), [1, 1, 1]);
    assert!(unravel(0, &[]).is_empty());
}

#[test]
fn ratios_have_no_holes() {
    assert_eq!([ratio(0.0, 0.0), ratio(1.0, 0.0), ratio(3.0, 2.0)], [0.0, f64::INFINITY, 1.5]);
    assert_eq!(ratio(f64::NAN, 1.0), f64::INFINITY);
    assert_eq!(ratio(f64::INFINITY, f64::INFINITY), f64::INFINITY);
}

/// Names go into reports and files.
#[test]
fn outcomes_and_grades_have_the_names_of_their_json() {
    let json = |value: serde_json::Value| value.as_str().expect("a name").to_owned();
    for outcome in
        [Outcome::Pass, Outcome::Advisory, Outcome::Unsupported, Outcome::Timeout, Outcome::Crash, Outcome::Fail]
    {
        assert_eq!(outcome.name(), json(serde_json::to_value(outcome).unwrap()));
    }
    for grade in [Grade::Exact, Grade::Stable, Grade::Folded, Grade::Updating, Grade::OnePass, Grade::Wrong] {
        assert_eq!(grade.name(), json(serde_json::to_value(grade).unwrap()));
    }
}

/// What lets the judge pass over the laws between the strictest and the weakest.
#[test]
fn the_weakest_law_grants_what_the_others_grant() {
    let mut granted_more = 0;
    for case in catalogue::cases().iter().step_by(23) {
        let step = &case.steps[0];
        let Expected::Tensors { plan, tensors, .. } = Expected::of(step) else { continue };
        let [laws @ .., weakest] = Law::GOOD;
        let weakest = Bounds::of(step, &plan, weakest, &Declared::default());
        for law in laws {
            let bounds = Bounds::of(step, &plan, law, &Declared::default());
            for name in tensors.keys() {
                for (&strict, &weak) in bounds.errors(name).iter().zip(weakest.errors(name)) {
                    assert!(
                        strict.is_nan() || strict <= weak,
                        "{}: {name}: {strict:e} by {law:?}, {weak:e}",
                        case.name
                    );
                    granted_more += usize::from(weak > strict);
                }
            }
        }
    }
    assert!(granted_more > 1000, "the laws grant the same");
}
