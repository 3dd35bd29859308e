//! Subjects made for a law: the reference with a mistake that no planted bug makes.

use super::*;
use crate::case::{COUNTER, LayoutFormat};
use crate::operation::{Mode, Operation, Refusal, RefusalKind};

type Edit = fn(&Request, Answer, calls: u64) -> Answer;

/// Each element of the output through `change`.
fn change(answer: Answer, change: impl Fn(f64) -> f64) -> Answer {
    let Answer::Tensors(tensors) = &answer else { return answer };
    let names = ["output", "folded_weight", "running_mean"];
    let name = names.into_iter().find(|name| tensors.contains_key(*name)).expect("an output");
    with(answer, name, |output| moved(output, |_, y| change(y)))
}

fn off(request: &Request, answer: Answer, operation: &str) -> Answer {
    if request.call.operation.name() == operation { change(answer, |y| y * 1.01) } else { answer }
}

/// Whether the call has one value in each channel.
fn is_of_one_value(request: &Request) -> bool {
    let input = &request.call.tensors["input"];
    input.len() == input.shape()[1]
}

fn refusal(kind: RefusalKind) -> Answer {
    Answer::Refused { refusal: Refusal::new(kind, "it does not like it"), state: Tensors::new() }
}

/// Zeros where the reference refuses.
fn zeros(request: &Request, answer: Answer) -> Answer {
    let Answer::Refused { .. } = answer else { return answer };
    let state = request.call.operation.signature().state.iter();
    let state = state.filter_map(|&name| Some((name.to_owned(), request.call.tensors.get(name)?.clone())));
    let input = &request.call.tensors["input"];
    let output = Tensor::rounded(input.dtype(), input.shape(), vec![0.0; input.len()]);
    Answer::Tensors(state.chain([("output".to_owned(), output)]).collect())
}

/// By a thousandth where it is small: less than a law grants whose bound is off by one.
fn slightly_off(_: usize, mean: f64) -> f64 {
    if mean.abs() < 64.0 { 1.001 * mean } else { mean }
}

/// Mistakes of one operation alone, of a mode, a layout, a moment: the law that sees it, what it is.
const EDITS: &[(&str, &str, Edit)] = &[
    ("negation", "it rectifies its output", |_, answer, _| change(answer, |y| y.max(-0.25))),
    ("determinism", "its answers drift", |_, answer, calls| change(answer, |y| y * (1.0 + calls as f64 * 1e-3))),
    ("mode-ignored", "it scales in training", |request, answer, _| match request.call.mode {
        Mode::Train => change(answer, |y| y * 1.01),
        Mode::Eval => answer,
    }),
    ("layout", "it is off in channels-last memory", |request, answer, _| match request.call.layout.format {
        LayoutFormat::Contiguous => answer,
        _ => change(answer, |y| y + 0.5),
    }),
    ("one-group", "its layer norm is another", |request, answer, _| off(request, answer, "layer_norm")),
    ("group-of-a-channel", "its instance norm is another", |request, answer, _| off(request, answer, "instance_norm")),
    ("instances-as-channels", "its instance norm is another", |request, answer, _| {
        off(request, answer, "instance_norm")
    }),
    ("two-windows", "its two windows differ", |request, answer, _| off(request, answer, "cross_map_lrn")),
    ("pixels", "its layer norm is another", |request, answer, _| off(request, answer, "layer_norm")),
    ("rows", "its layer norm is another", |request, answer, _| off(request, answer, "layer_norm")),
    ("length", "its normalize is another", |request, answer, _| off(request, answer, "normalize")),
    ("evolved", "its norm with v is another", |request, answer, _| off(request, answer, "evo_norm_s0")),
    ("one-plus", "its layer norm 1p is another", |request, answer, _| off(request, answer, "layer_norm_1p")),
    ("one-plus", "its adaptive layer norm is another", |request, answer, _| off(request, answer, "ada_layer_norm")),
    ("one-plus", "its adaptive group norm is another", |request, answer, _| off(request, answer, "ada_group_norm")),
    ("one-plus", "with a bias its layer norm 1p is another", |request, answer, _| {
        if request.call.tensors.contains_key("bias") { off(request, answer, "layer_norm_1p") } else { answer }
    }),
    ("branch", "what is negative is too large", |_, answer, _| change(answer, |y| if y < 0.0 { 3.0 * y } else { y })),
    ("running-twice", "with m = 0.75 its mean is another", |request, answer, _| match &request.call.operation {
        Operation::BatchNorm(norm) if norm.momentum == Some(0.75) => {
            with(answer, "running_mean", |mean| moved(mean, slightly_off))
        }
        _ => answer,
    }),
    ("dialect-haiku", "what it keeps is right and what it shows is not", |_, answer, _| {
        with(answer, "running_mean", |mean| moved(mean, slightly_off))
    }),
    ("controllers", "its first controller is another", |request, answer, _| {
        off(request, answer, "online_norm_backward")
    }),
    ("boundary", "it refuses one value in evaluation", |request, answer, _| {
        let evaluates = request.call.mode == Mode::Eval && request.call.tensors.contains_key("running_mean");
        if evaluates && is_of_one_value(request) { refusal(RefusalKind::TooFewValues) } else { answer }
    }),
    ("boundary", "its batch norm evaluates one value without statistics", |request, answer, _| {
        let evaluates = request.call.mode == Mode::Eval && request.call.operation.name() == "batch_norm";
        if evaluates { zeros(request, answer) } else { answer }
    }),
    ("boundary", "it trains on one value", |request, answer, _| match request.call.mode {
        Mode::Train => zeros(request, answer),
        Mode::Eval => answer,
    }),
    ("boundary", "its group norm takes one value", |request, answer, _| match request.call.operation.name() {
        "group_norm" => zeros(request, answer),
        _ => answer,
    }),
    ("boundary", "it refuses one value for its shape", |_, answer, _| match answer {
        Answer::Refused { .. } => refusal(RefusalKind::Shape),
        answer => answer,
    }),
    ("boundary", "it moves its statistics before it refuses", |request, answer, _| match answer {
        Answer::Refused { refusal, mut state } => {
            if let Some(mean) = request.call.tensors.get("running_mean") {
                state.insert("running_mean".to_owned(), moved(mean, |_, mean| mean + 1.0));
            }
            Answer::Refused { refusal, state }
        }
        answer => answer,
    }),
    ("evaluation-keeps", "it counts in evaluation", |request, answer, _| match request.call.mode {
        Mode::Eval => with(answer, COUNTER, |_| Tensor::counter(7)),
        Mode::Train => answer,
    }),
    ("momentum-machine", "it moves its mean in evaluation", |request, answer, _| match request.call.mode {
        Mode::Eval => with(answer, "running_mean", |mean| moved(mean, |_, mean| mean + 1.0)),
        Mode::Train => answer,
    }),
    ("momentum-machine", "it forgets a NaN", |_, answer, _| {
        with(answer, "running_mean", |mean| moved(mean, |_, mean| if mean.is_nan() { 0.0 } else { mean }))
    }),
    ("momentum-machine", "what it refuses is not counted", |request, answer, _| match answer {
        Answer::Refused { refusal, .. } => {
            let counter = request.call.tensors.get(COUNTER).cloned();
            Answer::Refused {
                refusal,
                state: counter.map(|counter| (COUNTER.to_owned(), counter)).into_iter().collect(),
            }
        }
        answer => answer,
    }),
];

/// Each law asks about the operation that it is said to be about.
#[test]
fn a_law_is_tried_on_its_own_operation() {
    let mut pool = Pool::of(Box::new(Builtin::new("reference").expect("a builtin")));
    let found = check(&mut pool, 0, 1, &|name, _| name.ends_with("-f32"));
    assert_eq!(found.len(), cells().filter(|cell| cell.dtype == DataType::F32).count());
    for (verdict, (case, _)) in found {
        let asked: Vec<&str> = case.steps.iter().map(|step| step.operation.name()).collect();
        assert!(asked.contains(&verdict.operation), "{} asks about {asked:?}", verdict.case);
    }
}

/// A law that asks for what must be refused would compare nothing.
#[test]
fn only_laws_about_refusals_see_any() {
    let complaint = properties().collect::<Vec<_>>().into_par_iter().find_map_any(|law| {
        let mut refused = false;
        let subject = Edited::new(|_: &Request, answer| {
            refused |= matches!(answer, Answer::Refused { .. });
            Ok(answer)
        });
        let own: BTreeSet<String> = law.operations().map(|operation| law.case_name(operation, DataType::F32)).collect();
        check(&mut Pool::of(Box::new(subject)), 0, ROUNDS, &|name, _| own.contains(name));
        // One value is refused by some dialects, and that is part of their laws.
        let about = ["boundary", "momentum-machine"].contains(&law.name) || law.name.starts_with("dialect-");
        (refused && !about).then_some(law.name)
    });
    assert_eq!(complaint, None);
}

/// The sequences have calls of all kinds, and NaN late in them, so that something is seen before.
#[test]
fn the_momentum_machine_asks_all_it_should() {
    let (mut kinds, mut lengths) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        let cell = cells().find(|cell| cell.name() == "property-momentum-machine-batch_norm-f32").expect("a cell");
        for seed in 0..64 {
            let draws: Vec<u64> = (0..256).map(|draw: u64| (draw * draw + seed) * 2_654_435_761 % 8191).collect();
            let mut pool = Pool::of(Box::new(Builtin::new("reference").expect("a builtin")));
            let (verdict, (case, _)) = check_drawn(&mut pool, &cell, round, &draws).expect("a trial");
            assert!(verdict.outcome <= Outcome::Advisory, "{}", verdict.message);
            lengths.insert(case.steps.len());
            for (index, step) in case.steps.iter().enumerate() {
                let input = &step.tensors["input"];
                let nans = input.to_f64().iter().filter(|x| x.is_nan()).count();
                assert!(nans == 0 || nans == 1 && index + 2 >= case.steps.len(), "{nans} NaN in step {index}");
                kinds.insert(match (input.len() / input.shape()[1], step.mode) {
                    _ if nans > 0 => "NaN",
                    (0, _) => "empty",
                    (1, Mode::Train) => "refused",
                    (_, Mode::Eval) => "evaluation",
                    _ => "training",
                });
            }
        }
    }
    assert_eq!(kinds, BTreeSet::from(["NaN", "empty", "evaluation", "refused", "training"]));
    assert_eq!(lengths, BTreeSet::from([4, 6, 8, 10, 12, 14]));
}

#[test]
fn each_law_catches_the_subject_made_for_it() {
    let complaint = EDITS.par_iter().find_map_any(|&(property, sentence, edit)| {
        let mut calls = 0;
        let edited = Edited::new(move |request: &Request, answer| {
            calls += 1;
            Ok(edit(request, answer, calls))
        });
        let prefix = format!("property-{property}-");
        let own = |name: &str, _: &[_]| name.starts_with(&prefix) && name.ends_with("-f32");
        let found = check(&mut Pool::of(Box::new(edited)), 0, ROUNDS, &own);
        let fails = found.iter().any(|(verdict, _)| verdict.outcome == Outcome::Fail);
        (!fails).then(|| format!("{property} does not see that {sentence}"))
    });
    assert_eq!(complaint, None);
}
