//! Properties: what is right never breaks a law, and each law catches what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use normative::case::{Answer, Hello, LayoutFormat, Request};
use normative::conformance::Verdict;
use normative::judge::Outcome;
use normative::operation::Mode;
use normative::property::{self, QUICK_ROUNDS, ROUNDS};
use normative::subject::planted::{BUGS, variants};
use normative::subject::{Builtin, Fault, Pool, Subject};
use normative::{Tensor, Tensors};

fn pool(name: &str) -> Pool<'static> {
    let subjects = (0..2).map(|_| Box::new(Builtin::new(name).expect("a builtin")) as Box<_>);
    Pool::sharing(subjects.collect())
}

fn check(name: &str, seed: u64, rounds: usize) -> Vec<Verdict> {
    property::check(&mut pool(name), seed, rounds, &|_, _| true).into_iter().map(|(verdict, _)| verdict).collect()
}

fn assert_kept(name: &str, verdicts: &[Verdict], best: Outcome) {
    let broken: Vec<_> = verdicts.iter().filter(|verdict| verdict.outcome > best).collect();
    let texts: Vec<_> = broken.iter().map(|verdict| (&verdict.case, &verdict.message)).collect();
    assert!(texts.is_empty(), "{name}: {} of {}: {texts:#?}", texts.len(), verdicts.len());
}

#[test]
fn the_reference_keeps_every_law() {
    assert_reference_keeps(0, QUICK_ROUNDS);
}

#[test]
#[ignore = "ten seconds; .ci/run has it"]
fn the_reference_keeps_every_law_in_more_rounds() {
    assert_reference_keeps(0, ROUNDS);
    assert_reference_keeps(1, ROUNDS);
}

fn assert_reference_keeps(seed: u64, rounds: usize) {
    let verdicts = check("reference", seed, rounds);
    assert_eq!(verdicts.len(), property::cells().count(), "every law is tried");
    assert_kept("reference", &verdicts, Outcome::Pass);
}

/// The reference and each variant in 10⁴ trials of other seeds: minutes of work, which `.ci/run` does.
#[test]
#[ignore = "a quarter of a minute; .ci/run has it"]
fn correct_programs_keep_every_law_in_ten_thousand_trials() {
    let trials = property::cells().count() * ROUNDS;
    for (number, (name, _)) in Builtin::all().into_iter().take(1 + variants().len()).enumerate() {
        for seed in 0..10_000_u64.div_ceil(trials as u64) {
            assert_kept(name, &check(name, 100 + 10 * number as u64 + seed, ROUNDS), Outcome::Advisory);
        }
    }
}

/// Two of other summation trees and of another form; all of them are in the ten thousand trials.
#[test]
fn correct_variants_keep_every_law() {
    for variant in variants().iter().filter(|variant| ["two_pass_lanes", "welford_folded"].contains(&variant.name)) {
        assert_kept(variant.name, &check(variant.name, 7, QUICK_ROUNDS), Outcome::Advisory);
    }
}

/// The reference with a mistake that no planted bug makes.
struct Edited {
    hello: Hello,
    reference: Builtin,
    edit: fn(&Request, &mut Tensors, calls: u64),
    calls: u64,
}

impl Subject for Edited {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        self.calls += 1;
        let mut answer = self.reference.answer(request)?;
        if let Answer::Tensors(tensors) = &mut answer {
            (self.edit)(request, tensors, self.calls);
        }
        Ok(answer)
    }
}

/// Each element of the output through `change`.
fn change(tensors: &mut Tensors, change: impl Fn(f64) -> f64) {
    let names = ["output", "folded_weight", "running_mean"];
    let name = names.into_iter().find(|name| tensors.contains_key(*name)).expect("an output");
    let output = &tensors[name];
    let values = output.to_f64().into_iter().map(change).collect();
    let changed = Tensor::rounded(output.dtype(), output.shape(), values);
    tensors.insert(name.to_owned(), changed);
}

type Edit = fn(&Request, &mut Tensors, u64);

/// Mistakes of one operation alone, of a mode, a layout, a moment.
const EDITS: &[(&str, &str, Edit)] = &[
    ("negation", "it rectifies its output", |_, tensors, _| change(tensors, |y| y.max(-0.25))),
    ("determinism", "its answers drift", |_, tensors, calls| change(tensors, |y| y * (1.0 + calls as f64 * 1e-3))),
    ("mode-ignored", "it scales in training", |request, tensors, _| {
        if request.call.mode == Mode::Train {
            change(tensors, |y| y * 1.01);
        }
    }),
    ("layout", "it is off in channels-last memory", |request, tensors, _| {
        if request.call.layout.format != LayoutFormat::Contiguous {
            change(tensors, |y| y + 0.5);
        }
    }),
    ("one-group", "its layer norm is another", layer_norm_off),
    ("group-of-a-channel", "its instance norm is another", instance_norm_off),
    ("instances-as-channels", "its instance norm is another", instance_norm_off),
    ("two-windows", "its two windows differ", cross_map_off),
    ("pixels", "its layer norm is another", layer_norm_off),
    ("rows", "its layer norm is another", layer_norm_off),
    ("length", "its normalize is another", normalize_off),
    ("evolved", "its norm with v is another", evolved_off),
    ("controllers", "its first controller is another", controller_off),
];

fn off(request: &Request, tensors: &mut Tensors, operation: &str) {
    if request.call.operation.name() == operation {
        change(tensors, |y| y * 1.01);
    }
}

fn layer_norm_off(request: &Request, tensors: &mut Tensors, _: u64) {
    off(request, tensors, "layer_norm");
}

fn normalize_off(request: &Request, tensors: &mut Tensors, _: u64) {
    off(request, tensors, "normalize");
}

fn evolved_off(request: &Request, tensors: &mut Tensors, _: u64) {
    off(request, tensors, "evo_norm_s0");
}

fn controller_off(request: &Request, tensors: &mut Tensors, _: u64) {
    off(request, tensors, "online_norm_backward");
}

fn instance_norm_off(request: &Request, tensors: &mut Tensors, _: u64) {
    off(request, tensors, "instance_norm");
}

fn cross_map_off(request: &Request, tensors: &mut Tensors, _: u64) {
    off(request, tensors, "cross_map_lrn");
}

/// What the reference with a mistake of [`EDITS`] breaks.
#[test]
fn each_law_catches_the_subject_made_for_it() {
    for &(property, sentence, edit) in EDITS {
        let reference = Builtin::new("reference").expect("a builtin");
        let edited = Edited { hello: reference.hello().clone(), reference, edit, calls: 0 };
        let prefix = format!("property-{property}-");
        let own = |name: &str, _: &[_]| name.starts_with(&prefix) && name.ends_with("-f32");
        let found = property::check(&mut Pool::of(Box::new(edited)), 0, QUICK_ROUNDS, &own);
        let fails = found.iter().any(|(verdict, _)| verdict.outcome == Outcome::Fail);
        assert!(fails, "{property} does not see that {sentence}");
    }
}

/// Every law and every planted bug, in four rounds.
#[test]
#[ignore = "half a minute; .ci/run has it"]
fn every_law_catches_a_planted_bug_or_a_subject_made_for_it() {
    let caught: BTreeMap<&str, BTreeSet<&str>> =
        property::properties().map(|law| (law.name, property::caught_by(law, 0, 4))).collect();
    let made_for_it = |name: &str| EDITS.iter().any(|(property, ..)| *property == name);
    let idle: Vec<&str> =
        caught.iter().filter(|(name, bugs)| bugs.is_empty() && !made_for_it(name)).map(|(name, _)| *name).collect();
    assert!(idle.is_empty(), "laws that catch nothing: {idle:?}");
    let seen: BTreeSet<&str> = caught.values().flatten().copied().collect();
    let missed: BTreeSet<&str> = BUGS.iter().map(|bug| bug.name).filter(|name| !seen.contains(name)).collect();
    // Laws are tried on small integers with an eps that is a larger power of two, and gradients of the family alone.
    let beyond =
        ["eps_in_half", "eps_raised", "variance_cut_off", "cubed_inverse", "norm_constant", "second_norm_constant"];
    assert_eq!(missed, BTreeSet::from(beyond));
}

#[cfg(feature = "cli")]
fn normative(arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("normative"));
    let output = command.current_dir(folder.path()).args(arguments).output().expect("it runs");
    (output.status.code().expect("an exit status"), String::from_utf8(output.stdout).expect("text"))
}

#[cfg(feature = "cli")]
#[test]
fn a_broken_law_is_reported_with_its_numbers() {
    let only = "property-mean-square-layer_norm-f32";
    let (status, text) = normative(&["check", "--builtin", "eps_doubled", "--only", only]);
    assert_eq!(status, 1, "{text}");
    for part in [only, "expected v/(v + eps) =", "normative replay"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // What the report says to do next can be done.
    let (status, text) = normative(&["show", only]);
    assert!(status == 0 && text.contains("Σ ŷᵢ²/n = v/(v + eps)"), "{text}");
    let (status, text) = normative(&["check", "--builtin", "reference", "--only", only, "--seed", "9"]);
    assert_eq!(status, 0, "{text}");
    let (status, _) = normative(&["check", "--builtin", "reference", "--only", "property-nonesuch-*"]);
    assert_eq!(status, 2);
}

#[cfg(feature = "cli")]
#[test]
fn laws_can_be_listed_and_shown() {
    let (status, text) = normative(&["list", "properties"]);
    assert_eq!(status, 0);
    assert!(property::properties().all(|law| text.contains(law.name)), "{text}");
    let (status, text) = normative(&["show", "samuelson"]);
    assert_eq!(status, 0);
    assert!(text.contains("clipped: it clips its output to ±5"), "{text}");
    let (status, text) = normative(&["table", "promises"]);
    assert!(status == 0 && text.contains("`spectral_norm`"), "{text}");
}
