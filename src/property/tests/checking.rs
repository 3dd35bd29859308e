//! What a check makes of the answers that it gets, whatever law they are about.

use std::time::Duration;

use super::*;
use crate::case::Flag;
use crate::conformance::{Shown, Verdict};
use crate::operation::{Refusal, RefusalKind};

/// A change of answers, for a table.
type Change = fn(&Request, Answer) -> Result<Answer, Fault>;

/// The reference, whose answers are changed, on one operation in F32 and F64.
fn pool(
    operation: &str,
    change: impl FnMut(&Request, Answer) -> Result<Answer, Fault> + Send + 'static,
) -> Pool<'static> {
    let mut subject = Edited::new(change);
    subject.hello.operations.retain(|name| name == operation);
    subject.hello.dtypes.retain(|dtype| matches!(dtype, DataType::F32 | DataType::F64));
    Pool::of(Box::new(subject))
}

/// The verdict of one law on one operation in F32.
fn found(
    law: &str,
    operation: &str,
    change: impl FnMut(&Request, Answer) -> Result<Answer, Fault> + Send + 'static,
) -> (Verdict, Shown) {
    let name = format!("property-{law}-{operation}-f32");
    let mut found = check(&mut pool(operation, change), 0, ROUNDS, &|other, _| other == name);
    assert_eq!(found.len(), 1, "{name}");
    found.remove(0)
}

/// The output with its first element made anew.
fn with_first(answer: Answer, change: impl Fn(f64) -> f64) -> Answer {
    with(answer, "output", |output| moved(output, |index, y| if index == 0 { change(y) } else { y }))
}

/// The running mean, where there is one, moved by one.
fn with_mean_moved(answer: Answer) -> Answer {
    with(answer, "running_mean", |mean| moved(mean, |_, mean| mean + 1.0))
}

#[test]
fn what_is_claimed_and_selected_is_tried() {
    let mut pool = pool("layer_norm", |_, answer| Ok(answer));
    let found = check(&mut pool, 0, 1, &|_, flags| flags.contains(&Flag::BatchVariance));
    let names: BTreeSet<&str> = found.iter().map(|(verdict, _)| verdict.case.as_str()).collect();
    let own = |cell: &Cell| cell.operation == "layer_norm" && matches!(cell.dtype, DataType::F32 | DataType::F64);
    let expected: BTreeSet<String> = cells()
        .filter(own)
        .filter(|cell| cell.property.flags.contains(&Flag::BatchVariance))
        .map(|cell| cell.name())
        .collect();
    assert_eq!(names, expected.iter().map(String::as_str).collect());
    assert!(names.contains("property-batch-size-layer_norm-f64"));
    for (verdict, shown) in found {
        assert_eq!((verdict.outcome, verdict.grade, verdict.message.as_str()), (Outcome::Pass, None, ""));
        assert!(!shown.1.is_empty());
    }
}

#[test]
fn what_keeps_a_law_from_being_looked_at() {
    let cases: [(Change, Outcome, &str); 6] = [
        (|_, _| Ok(Answer::Unsupported("no".into())), Outcome::Fail, "then says that it cannot do it: no"),
        (
            |_, _| {
                let refusal = Refusal::new(RefusalKind::Shape, "odd");
                Ok(Answer::Refused { refusal, state: Tensors::new() })
            },
            Outcome::Fail,
            "it refuses (shape) where it must answer: odd",
        ),
        (|_, _| Ok(Answer::Tensors(Tensors::new())), Outcome::Fail, "the wrong tensors"),
        (|_, _| Err(Fault::Panicked("dear me".into())), Outcome::Crash, "it panicked: dear me"),
        (
            |_, _| Err(Fault::TimedOut { limit: Duration::from_secs(1), stderr: String::new() }),
            Outcome::Timeout,
            "no answer within 1s",
        ),
        (
            |_, answer| Ok(with_first(answer, |_| f64::NAN)),
            Outcome::Fail,
            "element 0 of output is NaN; expected a finite",
        ),
    ];
    for (change, outcome, message) in cases {
        let (verdict, shown) = found("mean-zero", "layer_norm", change);
        assert_eq!(verdict.outcome, outcome, "{}", verdict.message);
        assert!(verdict.message.contains(message), "{}", verdict.message);
        assert_eq!(verdict.ratio, (outcome == Outcome::Fail).then_some(f64::INFINITY));
        assert!(verdict.step < shown.1.len());
    }
}

/// Where a refusal may be right, the law says which is; where it must be one, no answer is asked for.
#[test]
fn right_refusals_are_no_trouble() {
    let (verdict, shown) = found("boundary", "batch_norm", |_, answer| Ok(answer));
    assert_eq!(verdict.outcome, Outcome::Pass, "{}", verdict.message);
    assert!(shown.1.iter().any(|(_, answer)| matches!(answer, Ok(Answer::Refused { .. }))));
    let refuses = |_: &Request, _| {
        Ok(Answer::Refused { refusal: Refusal::new(RefusalKind::TooFewValues, "few"), state: Tensors::new() })
    };
    let (verdict, _) = found("boundary", "batch_norm", refuses);
    assert_eq!(verdict.outcome, Outcome::Fail);
    assert!(!verdict.message.contains("where it must answer"), "{}", verdict.message);
    assert!(verdict.message.contains("in evaluation is refused, and must be answered: few"), "{}", verdict.message);
}

#[test]
fn what_is_shown_are_the_calls_of_the_law() {
    // Calls without state stand in one case, and the culprit is the call that the law names.
    let (verdict, (case, asked)) = found("batch-size", "layer_norm", |request, answer| {
        let alone = request.call.tensors["input"].shape()[0] == 1;
        Ok(if alone { with_first(answer, |y| y + 1.0) } else { answer })
    });
    assert_eq!(verdict.outcome, Outcome::Fail);
    assert_eq!((case.steps.len(), case.name.as_str()), (asked.len(), verdict.case.as_str()));
    assert!(asked.len() > 1 && asked.iter().enumerate().all(|(step, (request, _))| request.step == step));
    let culprit = &asked[verdict.step].0;
    assert_eq!(culprit.call.tensors["input"].shape()[0], 1, "the call that is wrong");
    // Calls with a state are not, even one each.
    let (verdict, (case, asked)) = found("negation", "l1_batch_norm", |_, answer| Ok(with_first(answer, |y| y + 1.0)));
    assert_eq!(verdict.outcome, Outcome::Fail);
    assert_eq!((case.steps.len(), asked.len(), verdict.step), (1, 1, 0));
    assert!(case.steps[0].tensors.contains_key("running_mean"));
    // A chain with a state is shown alone, as it was asked.
    let (verdict, (case, asked)) = found("evaluation-keeps", "batch_norm", |request, answer| {
        let eval = request.call.mode == crate::operation::Mode::Eval;
        Ok(if eval { with_mean_moved(answer) } else { answer })
    });
    assert_eq!(verdict.outcome, Outcome::Fail);
    assert_eq!(case.steps.len(), asked.len());
    assert!(asked.iter().enumerate().all(|(step, (request, _))| request.step == step));
}

#[test]
fn a_planted_bug_is_named_by_the_call_that_shows_it() {
    for name in ["eps_doubled", "unbiased_variance"] {
        let bug = Bug::from_name(name).expect("a planted bug");
        let mut pool = Pool::of(Box::new(Builtin::new(name).expect("a builtin")));
        let found = check(&mut pool, 0, ROUNDS, &|name, _| name == "property-mean-square-layer_norm-f32");
        let (verdict, shown) = &found[0];
        assert_eq!(verdict.outcome, Outcome::Fail);
        assert_eq!(verdict.nearest_bug.map(|bug| bug.name), Some(bug.name));
        assert!(verdict.matches_bug && verdict.message.contains("expected v/(v + eps)"), "{}", verdict.message);
        assert!(verdict.message.starts_with("the mean square of the group of output["), "{}", verdict.message);
        assert_eq!(verdict.grade, None);
        assert!(verdict.step < shown.1.len());
        assert_eq!(verdict.flags, Property::from_name("mean-square").expect("a property").flags);
    }
    let mut pool = Pool::of(Box::new(Builtin::new("gradient_without_mean").expect("a builtin")));
    let (verdict, _) = check(&mut pool, 0, ROUNDS, &|name, _| name == "property-gradient-sum-layer_norm-f32").remove(0);
    assert!(verdict.message.starts_with("the gradients of the group of grad_input["), "{}", verdict.message);
    // No planted bug makes one element so large.
    let (verdict, _) = found("mean-zero", "layer_norm", |_, answer| Ok(with_first(answer, |y| y + 1e4)));
    assert_eq!((verdict.outcome, verdict.matches_bug), (Outcome::Fail, false));
}

/// The number of elements that were sent in what is shown.
fn sent(shown: &Shown) -> usize {
    shown.0.steps.iter().map(|step| elements(&step.tensors)).sum()
}

#[test]
fn what_is_shown_is_the_smallest_trial_that_is_as_bad() {
    let name = "property-mean-square-layer_norm-f32";
    let mut wrong = Pool::of(Box::new(Builtin::new("eps_doubled").expect("a builtin")));
    let mut sent_of = |rounds| sent(&check(&mut wrong, 0, rounds, &|other, _| other == name)[0].1);
    let all: Vec<usize> = (1..=ROUNDS).map(&mut sent_of).collect();
    assert!(all.is_sorted_by(|before, after| before >= after) && all[0] > all[ROUNDS - 1], "{all:?}");
    // Where the smallest trial does not tell the bug, another one does, and is shown.
    let (smallest, mut bug) = (all[ROUNDS - 1], Builtin::new("eps_doubled").expect("a builtin"));
    let change = move |request: &Request, _| {
        if elements(&request.call.tensors) <= smallest {
            Ok(Answer::Unsupported("too small".into()))
        } else {
            bug.answer(request)
        }
    };
    let found = check(&mut pool("layer_norm", change), 0, ROUNDS, &|other, _| other == name);
    let (verdict, shown) = &found[0];
    assert_eq!((verdict.outcome, verdict.ratio), (Outcome::Fail, Some(f64::INFINITY)));
    assert_eq!(verdict.nearest_bug.map(|bug| bug.name), Some("eps_doubled"));
    assert!(sent(shown) > smallest && verdict.message.contains("expected v/(v + eps)"), "{}", verdict.message);
    // Where the others keep the law, they are not asked, whatever their answers are.
    let name = "property-mean-zero-layer_norm-f32";
    let mut bug = Builtin::new("eps_doubled").expect("a builtin");
    let (kept, shown) =
        check(&mut pool("layer_norm", |_, answer| Ok(answer)), 0, ROUNDS, &|other, _| other == name).remove(0);
    let smallest = sent(&shown);
    assert_eq!(kept.outcome, Outcome::Pass);
    let change = move |request: &Request, _| {
        if elements(&request.call.tensors) <= smallest {
            Ok(Answer::Unsupported("too small".into()))
        } else {
            bug.answer(request)
        }
    };
    let (verdict, shown) = check(&mut pool("layer_norm", change), 0, ROUNDS, &|other, _| other == name).remove(0);
    assert!(verdict.nearest_bug.is_none() && verdict.message.contains("too small"), "{}", verdict.message);
    assert_eq!(sent(&shown), smallest);
}

/// The call that is wrong is the verdict's, whichever the law compares with which; the bug is told by any of them.
#[test]
fn the_call_that_is_wrong_by_itself_is_looked_for() {
    let alone = |request: &Request| request.call.tensors["input"].shape()[0] == 1;
    for wrong_alone in [true, false] {
        let (verdict, (_, asked)) = found("batch-size", "layer_norm", move |request, answer| {
            Ok(if alone(request) == wrong_alone { with_first(answer, |y| y + 1e4) } else { answer })
        });
        assert_eq!((verdict.outcome, verdict.nearest_bug.is_some()), (Outcome::Fail, false));
        assert_eq!(alone(&asked[verdict.step].0), wrong_alone);
    }
    for bug_alone in [true, false] {
        let mut bug = Builtin::new("eps_doubled").expect("a builtin");
        let (verdict, (_, asked)) = found("batch-size", "layer_norm", move |request, answer| {
            if alone(request) == bug_alone { bug.answer(request) } else { Ok(with_first(answer, |y| y + 1e4)) }
        });
        assert_eq!(verdict.nearest_bug.map(|bug| bug.name), Some("eps_doubled"));
        assert_eq!(alone(&asked[verdict.step].0), bug_alone);
    }
}

#[test]
fn what_is_not_claimed_has_no_verdict() {
    let mut subject = Edited::new(|_: &Request, answer| Ok(answer));
    subject.hello.options.retain(|option| option != "gradients");
    let mut pool = Pool::of(Box::new(subject));
    let tried = |pool: &mut Pool<'_>, name| check(pool, 0, 1, &|other, _| other == name).len();
    assert_eq!(tried(&mut pool, "property-gradient-sum-layer_norm-f32"), 0);
    assert_eq!(tried(&mut pool, "property-mean-zero-layer_norm-f32"), 1);
    // Nor has what is not run any more.
    pool.stop_when(std::sync::Arc::new(|| true));
    assert_eq!(tried(&mut pool, "property-mean-zero-layer_norm-f32"), 0);
}

#[test]
fn what_draws_choose_is_tried_once() {
    let cell = cells().find(|cell| cell.name() == "property-mean-square-layer_norm-f32").expect("a cell");
    let mut wrong = Pool::of(Box::new(Builtin::new("eps_doubled").expect("a builtin")));
    let (verdict, shown) = check_drawn(&mut wrong, &cell, 0, &[0, 0, 0, 0, 1, 2, 3]).expect("a trial");
    assert_eq!((verdict.outcome, shown.1.len()), (Outcome::Fail, 1));
    let (verdict, _) = check_drawn(&mut pool("layer_norm", |_, answer| Ok(answer)), &cell, 0, &[0, 0, 0, 0, 1, 2, 3])
        .expect("a trial");
    assert_eq!(verdict.outcome, Outcome::Pass);
}

#[test]
fn properties_are_found_by_their_names_and_those_of_their_verdicts() {
    let property = |name: &str| Property::from_name(name).map(|property| property.name);
    assert_eq!(property("samuelson"), Some("samuelson"));
    assert_eq!(property("property-shift-seen-layer_norm-bf16"), Some("shift-seen"));
    assert_eq!(property("property-shift-seen-instance_norm-bf16"), None);
    assert_eq!(property("nonesuch"), None);
    let shift = Property::from_name("shift").expect("a property");
    assert_eq!(shift.case_name("layer_norm", DataType::F64), "property-shift-layer_norm-f64");
}

#[test]
fn laws_are_of_the_operations_that_promise_them() {
    let has = |law: &str, operation: &str| {
        Property::from_name(law).expect("a property").operations().any(|name| name == operation)
    };
    for (law, of, not) in [
        ("shift", &["layer_norm", "batch_norm", "instance_norm", "group_norm"][..], &["rms_norm", "weight_norm"][..]),
        ("shift-seen", &["layer_norm", "batch_norm", "rms_norm"], &["instance_norm"]),
        ("other-samples", &["layer_norm", "instance_norm"], &["batch_norm", "spectral_norm"]),
        ("batch-size", &["layer_norm", "rms_norm"], &["batch_norm"]),
        ("negation", &["layer_norm", "batch_norm"], &[]),
        ("boundary", &["layer_norm", "spectral_norm"], &[]),
    ] {
        assert!(of.iter().all(|operation| has(law, operation)), "{law}");
        assert!(!not.iter().any(|operation| has(law, operation)), "{law}");
    }
}
