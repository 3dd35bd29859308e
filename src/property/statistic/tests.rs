//! Each statistic, on the reference and on the bugs that it must see.

use rayon::prelude::*;

use super::*;
use crate::subject::Builtin;

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
