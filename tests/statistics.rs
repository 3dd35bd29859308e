//! Statistics: correct layers pass for every seed, and each statistic sees the planted bugs that it must see.

use std::collections::BTreeMap;

use normative::judge::Outcome;
use normative::property::statistic::{FALSE_ALARM, MISS, SEED, STATISTICS, check, false_alarms, p_values};
use normative::subject::planted::Bug;
use normative::subject::{Builtin, Pool, Subject};
use rayon::prelude::*;

fn pool(name: &str) -> Pool<'static> {
    let subject = || Box::new(Builtin::new(name).expect("a compiled-in subject")) as Box<dyn Subject>;
    Pool::sharing(vec![subject(), subject()])
}

#[test]
fn correct_layers_pass() {
    assert_correct_layers_pass([0..2, 2..3, 5..6, 7..8]);
}

#[test]
#[ignore = "half a minute; .ci/run has it"]
fn correct_layers_pass_for_more_seeds() {
    assert_correct_layers_pass([0..2, 2..5, 5..7, 7..9]);
}

/// With these seeds each correct layer passes every statistic.
fn assert_correct_layers_pass(seeds: [std::ops::Range<u64>; 4]) {
    let programs = ["reference", "two_pass", "welford_folded", "two_pass_pairwise"];
    for (name, seeds) in programs.into_iter().zip(seeds) {
        for seed in seeds {
            let findings = check(&mut pool(name), seed, &|_| true);
            assert_eq!(findings.len(), false_alarms().len());
            for (verdict, _) in findings {
                assert_eq!(verdict.outcome, Outcome::Pass, "{name}, seed {seed}: {} {}", verdict.case, verdict.message);
                assert!(verdict.message.is_empty());
            }
        }
    }
}

#[test]
fn each_statistic_sees_its_planted_bugs() {
    assert_bugs_are_seen(SEED);
}

#[test]
#[ignore = "ten seconds; .ci/run has it"]
fn each_statistic_sees_its_planted_bugs_for_another_seed() {
    assert_bugs_are_seen(1);
}

/// The planned miss rate is 10⁻⁶, so every seed shows every bug.
fn assert_bugs_are_seen(seed: u64) {
    let mut bugs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for statistic in STATISTICS {
        for &bug in statistic.sees {
            let operations = Bug::from_name(bug).expect("a planted bug").operations;
            let operations = statistic.operations.iter().filter(|name| operations.contains(name));
            let names = operations.map(|operation| format!("statistic-{}-{operation}-f64", statistic.name));
            bugs.entry(bug).or_default().extend(names);
        }
    }
    bugs.par_iter().for_each(|(&bug, names)| {
        let seen = check(&mut pool(bug), seed, &|name| names.iter().any(|other| other == name));
        assert_eq!(seen.len(), names.len());
        for (verdict, exhibit) in seen {
            assert_eq!(verdict.outcome, Outcome::Fail, "{bug}, seed {seed}: {} {}", verdict.case, verdict.message);
            assert!(!verdict.message.is_empty() && !exhibit.1.is_empty() && !verdict.flags.is_empty());
        }
    });
}

#[test]
fn small_p_values_are_as_rare_as_stated() {
    assert_small_p_values_are_rare(100..101);
}

#[test]
#[ignore = "half a minute; .ci/run has it"]
fn small_p_values_are_as_rare_as_stated_for_more_seeds() {
    assert_small_p_values_are_rare(100..110);
}

/// p-values of a correct program: at a level of 0.05, no more than chance explains. They are from exact distributions or
/// bounds above them, so that fewer is no mistake.
fn assert_small_p_values_are_rare(seeds: std::ops::Range<u64>) {
    let mut pool = pool("two_pass");
    let trials: Vec<f64> = seeds
        .flat_map(|seed| p_values(&mut pool, seed, &|_| true))
        .map(|(name, p)| p.unwrap_or_else(|| panic!("{name}: nothing was measured")))
        .collect();
    let below = trials.iter().filter(|&&p| p <= 0.05).count() as f64;
    let expected = 0.05 * trials.len() as f64;
    assert!(below <= expected + 4.0 * expected.sqrt(), "{below} of {}", trials.len());
    assert!(trials.iter().any(|&p| p <= 0.2), "the p-values are no bounds far from use");
}

#[test]
fn the_table_keeps_its_promises() {
    let rows = false_alarms();
    let total: f64 = rows.iter().map(|row| row.false_alarm).sum();
    assert!(total <= FALSE_ALARM * (1.0 + 1e-12), "{total}");
    for row in rows {
        assert!(row.asked >= row.needed && row.miss <= MISS, "{row:?}");
        assert!(row.asked < 50_000, "{row:?} is not cheap");
    }
}

/// `check` runs them, says what was found, and names a command that tells more.
#[cfg(feature = "cli")]
#[test]
fn a_statistic_is_judged_and_shown_on_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let normative = |arguments: &[&str]| {
        let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("normative"));
        let output = command.current_dir(folder.path()).args(arguments).output().expect("it runs");
        (output.status.code().expect("an exit status"), String::from_utf8(output.stdout).expect("text"))
    };
    let name = "statistic-running_var-batch_norm-f64";
    let (status, text) = normative(&["check", "--builtin", "biased_running_var", "--only", name]);
    assert!(
        status == 1
            && text.contains("the planted bug `biased_running_var`")
            && text.contains(&format!("normative show {name}")),
        "{text}"
    );
    let (status, text) = normative(&["show", name]);
    assert!(status == 0 && text.contains("biased_running_var"), "{text}");
    assert_eq!(normative(&["check", "--builtin", "reference", "--only", "statistic-*"]).0, 0);
}
