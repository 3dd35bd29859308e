//! Properties: what is right never breaks a law, and each law catches what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use normative::conformance::Verdict;
use normative::judge::Outcome;
use normative::property::{self, QUICK_ROUNDS, ROUNDS, matrix};
use normative::subject::planted::{BUGS, variants};
use normative::subject::{Builtin, Pool};

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

/// Every law and every planted bug, in four rounds.
#[test]
#[ignore = "half a minute; .ci/run has it"]
fn every_law_catches_a_planted_bug_or_says_why_it_stays() {
    let caught: BTreeMap<&str, BTreeSet<&str>> =
        property::properties().map(|law| (law.name, property::caught_by(law, 0, 4))).collect();
    let idle: BTreeSet<&str> = caught.iter().filter(|(_, bugs)| bugs.is_empty()).map(|(name, _)| *name).collect();
    assert_eq!(idle, matrix::IDLE.iter().map(|(name, _)| *name).collect(), "laws that catch nothing");
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
