//! Each statistic, on the reference and on the bugs that it must see.

use std::time::Duration;

use rayon::prelude::*;

use super::*;
use crate::case::{Answer, Request};
use crate::operation::{Refusal, RefusalKind};
use crate::property::tests::Edited;
use crate::subject::Builtin;
use crate::tensor::Tensors;

fn pool(name: &str) -> Pool<'static> {
    Pool::of(Box::new(Builtin::new(name).expect("a builtin")))
}

/// Whether the name is that of `statistic` on `operation` in F64.
fn is(name: &str, statistic: &Statistic, operation: &str) -> bool {
    name == format!("statistic-{}-{operation}-f64", statistic.name)
}

/// Of some forty figures the smallest is seldom below 10⁻³; a law that is not the right one shows in thousands of groups.
#[test]
fn the_reference_follows_every_law() {
    let complaint = STATISTICS.par_iter().find_map_any(|statistic| {
        let own = |name: &str| statistic.operations.iter().any(|operation| is(name, statistic, operation));
        let found = p_values(&mut pool("reference"), SEED, &own);
        assert_eq!(found.len(), statistic.operations.len());
        found.into_iter().find(|(_, p)| !p.is_some_and(|p| p > 1e-3 && p <= 1.0))
    });
    assert_eq!(complaint, None);
}

#[test]
fn each_statistic_sees_a_bug() {
    let complaint = STATISTICS.par_iter().find_map_any(|statistic| {
        let bug = Bug::from_name(statistic.sees[0]).expect("a planted bug");
        let operation = statistic.operations.iter().find(|name| bug.operations.contains(name)).expect("an operation");
        // As a check does, but that the bug is not named.
        findings(&mut pool(bug.name), SEED, &|name| is(name, statistic, operation), |mut found| {
            holm(&mut found);
            let [Found { verdict, run, .. }] = &found[..] else {
                return Some(format!("{}: not asked", statistic.name));
            };
            let says = verdict.message.contains("p = ") && verdict.flags.contains(&bug.flag) && !run.steps.is_empty();
            (verdict.outcome != Outcome::Fail || !says).then(|| format!("{}: {verdict:?}", statistic.name))
        })
    });
    assert_eq!(complaint, None);
}

#[test]
fn a_failure_names_the_bug_and_says_by_how_much() {
    let found = check(&mut pool("biased_running_var"), SEED, &|name| name.ends_with("-batch_norm-f64"));
    let failed: Vec<&Verdict> =
        found.iter().map(|(verdict, _)| verdict).filter(|verdict| verdict.outcome == Outcome::Fail).collect();
    let names: Vec<&str> =
        failed.iter().filter_map(|verdict| Statistic::from_name(&verdict.case)).map(|it| it.name).collect();
    assert_eq!(names, ["running_var_fit", "running_var", "between_samples", "batch_of_one"]);
    // What is left of 3 after eight steps, 0.75⁸ of it, and the rest of 2.25.
    assert!(failed[1].message.contains("expected 2.325085"), "{}", failed[1].message);
    for verdict in &failed {
        assert_eq!(verdict.nearest_bug.map(|bug| bug.name), Some("biased_running_var"), "{}", verdict.case);
        assert!(verdict.grade.is_none() && verdict.matches_bug);
        assert!(verdict.message.contains(": p = ") && verdict.message.contains("chance alone"), "{}", verdict.message);
    }
    let passed = found.iter().filter(|(verdict, _)| verdict.outcome == Outcome::Pass);
    assert!(passed.clone().count() > 3 && passed.into_iter().all(|(verdict, _)| verdict.message.is_empty()));
}

#[test]
fn evidence_adds_up_over_seeds() {
    let tests = false_alarms().len() as f64;
    assert!((alarm() * FALSE_ALARM / tests - 1.0).abs() < 1e-12, "{}", alarm());
    let only = |name: &str| name == "statistic-running_mean_variance-batch_norm-f64";
    for (name, fails) in [("reference", false), ("momentum_flipped", true)] {
        let mut pool = pool(name);
        let mut ledger = Ledger::new(pool.hello());
        for seed in 0..2 {
            let found = accumulate(&mut pool, seed, &mut ledger, &only);
            let [(verdict, shown)] = &found[..] else { panic!("{} verdicts", found.len()) };
            assert_eq!(verdict.outcome, if fails { Outcome::Fail } else { Outcome::Pass }, "{}", verdict.message);
            assert_eq!(verdict.message.contains(&format!("after {} rounds", seed + 1)), fails, "{}", verdict.message);
            assert_eq!(verdict.message.is_empty(), !fails);
            assert!(!shown.1.is_empty());
        }
        assert_eq!(ledger.statistics.keys().collect::<Vec<_>>(), ["statistic-running_mean_variance-batch_norm-f64"]);
        assert!(ledger.statistics.values().all(|evidence| evidence.rounds() == 2));
    }
}

#[test]
fn what_is_claimed_and_selected_is_asked() {
    for (dtypes, suffix) in [
        (&[DataType::F32, DataType::F64][..], Some("-f64")),
        (&[DataType::F32, DataType::BF16], Some("-f32")),
        (&[DataType::F16], None),
    ] {
        let mut subject = Edited::new(|_: &Request, _| Ok(Answer::Unsupported("it is shy".into())));
        subject.hello.operations.retain(|name| name == "layer_norm" || name == "batch_norm");
        subject.hello.dtypes = dtypes.to_vec();
        let found = check(&mut Pool::of(Box::new(subject)), SEED, &|name| {
            name.contains("-layer_norm-") || name.contains("running_var-")
        });
        let names: Vec<&str> = found.iter().map(|(verdict, _)| verdict.case.as_str()).collect();
        let expected = ["standardized-layer_norm", "variance-layer_norm", "running_var-batch_norm"];
        let expected =
            suffix.map_or(vec![], |suffix| expected.map(|name| format!("statistic-{name}{suffix}")).to_vec());
        assert_eq!(names, expected);
        for (verdict, _) in found {
            assert_eq!((verdict.outcome, verdict.step), (Outcome::Fail, 0));
            assert_eq!(verdict.message, "it says that it cannot do it: it is shy");
        }
    }
}

#[test]
fn what_cannot_be_measured_is_said() {
    type Edit = fn(&Request, Answer) -> Result<Answer, Fault>;
    let cases: [(Edit, Outcome, &str); 5] = [
        (
            |_, _| {
                let refusal = Refusal::new(RefusalKind::Shape, "odd");
                Ok(Answer::Refused { refusal, state: Tensors::new() })
            },
            Outcome::Fail,
            "it refuses: odd",
        ),
        (|_, _| Ok(Answer::Tensors(Tensors::new())), Outcome::Fail, "the wrong tensors"),
        (|_, _| Err(Fault::Panicked("dear me".into())), Outcome::Crash, "it panicked: dear me"),
        (
            |_, _| Err(Fault::TimedOut { limit: Duration::from_secs(1), stderr: String::new() }),
            Outcome::Timeout,
            "no answer",
        ),
        // Of several steps the first is answered.
        (
            |request, answer| match request.step {
                0 => Ok(answer),
                _ => Err(Fault::TimedOut { limit: Duration::from_secs(1), stderr: String::new() }),
            },
            Outcome::Timeout,
            "no answer",
        ),
    ];
    for (edit, outcome, message) in cases {
        let mut pool = Pool::of(Box::new(Edited::new(edit)));
        let found = check(&mut pool, SEED, &|name| name == "statistic-running_var-batch_norm-f64");
        let [(verdict, _)] = &found[..] else { panic!("{} verdicts", found.len()) };
        assert_eq!(verdict.outcome, outcome, "{}", verdict.message);
        assert!(verdict.message.contains(message), "{}", verdict.message);
    }
    // Steps that are missing without a fault.
    let mut run =
        findings(&mut pool("reference"), SEED, &|name| name == "statistic-running_var-batch_norm-f64", |found| {
            found[0].run.clone()
        });
    assert!(experiment::last(&run, run.steps.len(), "running_var").is_ok());
    run.steps.pop();
    let missing = experiment::last(&run, run.steps.len() + 1, "running_var");
    assert!(matches!(missing, Err(Missing::Said(what)) if what == "it did not answer every step"));
    let missing = experiment::last(&run, run.steps.len(), "hidden_var");
    assert!(matches!(missing, Err(Missing::Said(what)) if what == "its answer has no hidden_var"));
}

/// α/K for the smallest p-value of K tests, α/(K − 1) for the next, until one is larger (Holm 1979).
#[test]
fn the_smallest_p_values_are_compared_first() {
    let all = tests().len() as f64;
    let chosen = |name: &str| name.starts_with("statistic-running_var_ratio") || name.starts_with("statistic-standard");
    let failed = |p_values: &[f64]| {
        findings(&mut pool("reference"), SEED, &chosen, |mut found| {
            found.truncate(p_values.len());
            assert_eq!(found.len(), p_values.len());
            for (found, &p) in found.iter_mut().zip(p_values) {
                found.p = Some(p);
            }
            holm(&mut found);
            let failed =
                |found: &Found<'_>| found.verdict.outcome == Outcome::Fail && found.verdict.message.contains("p = ");
            found.iter().map(failed).collect::<Vec<_>>()
        })
    };
    let [first, second, third] = [0.0, 1.0, 2.0].map(|rank| FALSE_ALARM / (all - rank));
    assert_eq!(failed(&[0.5, first * 0.999, 0.7]), [false, true, false]);
    assert_eq!(failed(&[0.5, first * 1.001, 0.7]), [false; 3]);
    assert_eq!(failed(&[third * 0.999, second * 0.999, first * 0.999]), [true; 3]);
    assert_eq!(failed(&[second * 1.001, second * 1.0005, first * 0.999]), [false, false, true]);
}

#[test]
fn an_experiment_is_as_large_as_its_statistics_need() {
    let rows = false_alarms();
    assert_eq!(rows.len(), tests().len());
    for ((statistic, operation), row) in tests().into_iter().zip(&rows) {
        assert_eq!((row.statistic, row.operation), (statistic.name, operation));
        let shares =
            |(other, name): &(&Statistic, &str)| other.experiment == statistic.experiment && *name == operation;
        let needed = tests().into_iter().zip(&rows).filter(|(test, _)| shares(test)).map(|(_, row)| row.needed).max();
        assert_eq!(Some(row.asked), needed.map(|needed| needed + needed % 2));
    }
    let named = named();
    assert_eq!(named.len(), 2 * rows.len());
    let (_, flags) = named.iter().find(|(name, _)| name == "statistic-standardized-layer_norm-f32").expect("a name");
    assert_eq!(*flags, [Flag::VarianceDenominator]);
    for (name, _) in named {
        assert!(Statistic::from_name(&name).is_some_and(|statistic| name.contains(statistic.name)), "{name}");
    }
}

/// The smallest sample that keeps both rates, from the same inequalities in 20 digits, with the distances of distribution
/// functions found by search and not on a grid (mpmath 1.3).
#[test]
fn a_statistic_takes_as_many_groups_as_were_computed_otherwise() {
    let needed = |statistic: &str, operation: &str| {
        let is_own = |row: &FalseAlarm| row.statistic == statistic && row.operation == operation;
        false_alarms().into_iter().find(is_own).map(|row| row.needed)
    };
    for (statistic, operation, groups) in [
        ("standardized", "batch_norm", 7061),
        ("standardized", "group_norm", 7061),
        ("standardized", "rms_norm", 15_218),
        ("variance", "layer_norm", 1808),
        ("variance", "rms_norm", 1325),
        ("running_var_fit", "sync_batch_norm", 1808),
        ("running_var_fit", "instance_norm", 866),
        ("running_var_ratio", "batch_norm", 3844),
        ("running_var_ratio", "instance_norm", 1792),
        ("running_mean", "batch_norm", 1499),
        ("running_mean", "instance_norm", 750),
        ("running_mean_variance", "batch_norm", 6959),
        ("running_var", "batch_norm", 1592),
        ("running_var", "instance_norm", 796),
        ("cumulative_mean", "batch_norm", 6959),
        ("between_samples", "batch_norm", 15_061),
        ("batch_of_one", "batch_norm", 3801),
    ] {
        assert_eq!(needed(statistic, operation), Some(groups), "{statistic} of {operation}");
    }
}
