//! Statistics: laws that one case cannot settle, of the distribution of many answers.
//!
//! That a running variance is unbiased, or how much a running mean scatters, shows only over many batches. So each
//! statistic asks about many independent groups of normal values at once, and compares what the answers come to with the
//! exact distribution that a correct layer gives them. By chance alone a correct layer may deviate: each statistic states
//! how seldom it raises such a false alarm, the error that it must see and how seldom it misses that, and computes from
//! them how many groups it takes ([`false_alarms`] is the table).
//!
//! All tests of the suite together raise a false alarm in at most [`FALSE_ALARM`] of all runs: the p-values are compared
//! with the thresholds of Holm (1979), α/K for the smallest of K, α/(K−1) for the next, and so on. A statistic that is not
//! run counts as one that passes, so that no selection changes a verdict from pass to fail.
//!
//! ```
//! use normative::judge::Outcome;
//! use normative::property::statistic::{SEED, check};
//! use normative::subject::{Builtin, Pool};
//!
//! let mut pool = Pool::of(Box::new(Builtin::new("biased_running_var").unwrap()));
//! let findings = check(&mut pool, SEED, &|name| name == "statistic-running_var-batch_norm-f64");
//! let (verdict, _) = &findings[0];
//! assert_eq!(verdict.outcome, Outcome::Fail);
//! assert!(verdict.message.starts_with("the average of the running variances is 1.8"));
//! ```

mod evidence;
mod experiment;
pub(crate) mod gaussian;
pub mod goodness;
mod laws;
mod ledger;

use std::collections::BTreeMap;

pub use evidence::{Evidence, calibrated};
pub use laws::{STATISTICS, Statistic};
pub use ledger::{Ledger, LedgerError};

use rayon::prelude::*;

use super::check::name_bug;
use crate::arithmetic::DataType;
use crate::case::{Case, Flag};
use crate::conformance::{Kind, Shown, Verdict, printable};
use crate::judge::Outcome;
use crate::subject::planted::Bug;
use crate::subject::{CaseRun, Fault, Hello, Pool};
use experiment::{Experiment, Missing};
use goodness::Rates;

/// The most that the false-alarm rate of all statistics together may be, a run.
pub const FALSE_ALARM: f64 = 1e-6;

/// The most that the rate may be at which a statistic misses the error that it must see.
pub const MISS: f64 = 1e-6;

/// The seed of a run that is given none.
pub const SEED: u64 = 0;

/// Runs the statistics that `select` picks by name on a subject: a verdict for each, and what was asked and answered. Names look like `statistic-running_var-batch_norm-f64`.
///
/// Verdicts are of the widest of F64 and F32 that the subject claims: narrower types round too coarsely for the laws. An
/// operation that it does not claim gets none.
pub fn check(pool: &mut Pool<'_>, seed: u64, select: &dyn Fn(&str) -> bool) -> Vec<(Verdict, Shown)> {
    let declared = pool.hello().arithmetic.unwrap_or_default();
    findings(pool, seed, select, |mut findings| {
        holm(&mut findings);
        // The first statistic of a run that fails names the bug for all: they have the same answers.
        let mut named: BTreeMap<&str, (usize, Option<&Bug>, bool)> = BTreeMap::new();
        let shown = findings.into_iter().map(|found| {
            let (mut verdict, shown) = (found.verdict, (found.case.clone(), found.run.steps.clone()));
            if verdict.outcome == Outcome::Fail {
                let name = named.entry(&found.case.name).or_insert_with(|| {
                    name_bug(&mut verdict, &shown, declared);
                    (verdict.step, verdict.nearest_bug, verdict.matches_bug)
                });
                (verdict.step, verdict.nearest_bug, verdict.matches_bug) = *name;
                verdict.grade = None;
            }
            (verdict, shown)
        });
        shown.collect()
    })
}

/// Adds what one more seed says to the evidence in a ledger, and gives verdicts by all the evidence there is: a failure
/// where it reached [`alarm`] at any time. However many seeds are drawn, a correct layer has a chance of at most
/// [`FALSE_ALARM`] of ever failing one of them.
///
/// The seed must be one that was not added before; `ledger.next_seed` is left as it is.
pub fn accumulate(
    pool: &mut Pool<'_>,
    seed: u64,
    ledger: &mut Ledger,
    select: &dyn Fn(&str) -> bool,
) -> Vec<(Verdict, Shown)> {
    findings(pool, seed, select, |findings| {
        let judged = findings.into_iter().map(|Found { mut verdict, p, case, run }| {
            if let Some(p) = p {
                let evidence = ledger.statistics.entry(verdict.case.clone()).or_default();
                evidence.add(p);
                if evidence.rejects(rates().false_alarm) {
                    let (exponent, rounds) = (evidence.exponent(), evidence.rounds());
                    verdict.outcome = Outcome::Fail;
                    let enough = alarm().log10();
                    let found = format!("e = 10^{exponent:.1} after {rounds} rounds");
                    verdict.message += &format!(": {found}, where chance alone hardly ever reaches 10^{enough:.1}");
                } else {
                    verdict.message.clear();
                }
            }
            (verdict, (case.clone(), run.steps.clone()))
        });
        judged.collect()
    })
}

/// The e-value that is an alarm: the number of tests over [`FALSE_ALARM`] (Bonferroni over Ville).
pub fn alarm() -> f64 {
    1.0 / rates().false_alarm
}

/// The p-values of the statistics that `select` picks, `None` where nothing could be measured: what [`Evidence`] adds up
/// over many seeds.
pub fn p_values(pool: &mut Pool<'_>, seed: u64, select: &dyn Fn(&str) -> bool) -> Vec<(String, Option<f64>)> {
    findings(pool, seed, select, |findings| findings.into_iter().map(|found| (found.verdict.case, found.p)).collect())
}

/// Runs the experiments, each once for all its statistics, and measures.
fn findings<T>(
    pool: &mut Pool<'_>,
    seed: u64,
    select: &dyn Fn(&str) -> bool,
    finish: impl FnOnce(Vec<Found<'_>>) -> T,
) -> T {
    let (hello, dtype) = (pool.hello(), widest(pool.hello()));
    let claimed = |operation: &str| hello.operations.iter().any(|name| name == operation);
    let picked = |(statistic, operation): &(&Statistic, &str)| {
        claimed(operation) && hello.dtypes.contains(&dtype) && select(&name(statistic, operation, dtype))
    };
    let tests: Vec<_> = tests().into_iter().filter(picked).collect();
    let mut asked: Vec<(Experiment, &str)> =
        tests.iter().map(|(test, operation)| (test.experiment, *operation)).collect();
    asked.sort_unstable();
    asked.dedup();
    let make = |&(experiment, operation): &(Experiment, &str)| {
        experiment.case(operation, dtype, sample(experiment, operation), seed)
    };
    let cases: Vec<Case> = asked.par_iter().map(make).collect();
    let runs = pool.run(&cases.iter().collect::<Vec<_>>(), &|_| ());
    let of: BTreeMap<_, _> = asked.into_iter().zip(cases.iter().zip(&runs)).collect();
    let judged = tests.par_iter().filter(|(statistic, operation)| !of[&(statistic.experiment, *operation)].1.gave_up);
    finish(judged.map(|&(test, operation)| find(test, operation, dtype, of[&(test.experiment, operation)])).collect())
}

impl Statistic {
    /// The statistic called `name`, or that of the verdict called so.
    pub fn from_name(name: &str) -> Option<&'static Statistic> {
        let is_verdict = |(statistic, operation): &(&Statistic, &str)| {
            [DataType::F64, DataType::F32].into_iter().any(|dtype| self::name(statistic, operation, dtype) == name)
        };
        let of_verdict = || tests().into_iter().find(is_verdict).map(|(statistic, _)| statistic);
        STATISTICS.iter().find(|statistic| statistic.name == name).or_else(of_verdict)
    }
}

/// The name of every statistic in every type that it may be run in, with the classes that it must see.
pub fn named() -> Vec<(String, Vec<Flag>)> {
    let of = |(statistic, operation): (&Statistic, &str)| {
        [DataType::F64, DataType::F32].map(|dtype| (name(statistic, operation, dtype), flags(statistic, operation)))
    };
    tests().into_iter().flat_map(of).collect()
}

/// A row for each statistic and operation: what it claims to be rare, and what that takes.
#[derive(Clone, Debug, PartialEq)]
pub struct FalseAlarm {
    /// The statistic.
    pub statistic: &'static str,
    /// The operation.
    pub operation: &'static str,
    /// The distribution that a correct layer gives.
    pub null: &'static str,
    /// The largest p-value that is an alarm by itself.
    pub false_alarm: f64,
    /// The error that it must see.
    pub error: &'static str,
    /// The most that the rate is at which it misses that.
    pub miss: f64,
    /// Groups (channels, of running statistics) that it takes.
    pub needed: usize,
    /// Groups that are asked about: statistics share experiments.
    pub asked: usize,
}

/// The table of false alarms, computed.
pub fn false_alarms() -> Vec<FalseAlarm> {
    let row = |(statistic, operation): (&'static Statistic, &'static str)| FalseAlarm {
        statistic: statistic.name,
        operation,
        null: statistic.null,
        false_alarm: rates().false_alarm,
        error: statistic.error,
        miss: rates().miss,
        needed: (statistic.sample)(operation, rates()),
        asked: sample(statistic.experiment, operation),
    };
    tests().into_iter().map(row).collect()
}

/// Every statistic with each of its operations.
fn tests() -> Vec<(&'static Statistic, &'static str)> {
    STATISTICS.iter().flat_map(|statistic| statistic.operations.iter().map(move |&name| (statistic, name))).collect()
}

/// Each test is planned for the smallest of Holm's thresholds.
fn rates() -> Rates {
    Rates { false_alarm: FALSE_ALARM / tests().len() as f64, miss: MISS }
}

/// How many groups an experiment needs for all its statistics; even, as some come in pairs.
fn sample(experiment: Experiment, operation: &str) -> usize {
    let statistics = STATISTICS.iter().filter(|statistic| statistic.experiment == experiment);
    let needed = statistics.filter(|statistic| statistic.operations.contains(&operation));
    needed.map(|statistic| (statistic.sample)(operation, rates())).max().unwrap_or(0).next_multiple_of(2)
}

fn widest(hello: &Hello) -> DataType {
    let narrow = !hello.dtypes.contains(&DataType::F64) && hello.dtypes.contains(&DataType::F32);
    if narrow { DataType::F32 } else { DataType::F64 }
}

fn name(statistic: &Statistic, operation: &str, dtype: DataType) -> String {
    format!("statistic-{}-{operation}-{}", statistic.name, dtype.name().to_lowercase())
}

/// A verdict in the making.
struct Found<'a> {
    verdict: Verdict,
    /// The p-value, where something was measured.
    p: Option<f64>,
    case: &'a Case,
    run: &'a CaseRun,
}

fn find<'a>(
    statistic: &Statistic,
    operation: &'static str,
    dtype: DataType,
    asked: (&'a Case, &'a CaseRun),
) -> Found<'a> {
    let (case, run) = asked;
    let (name, comment) = (name(statistic, operation, dtype), statistic.sentence.to_owned());
    let mut verdict = Verdict::new(Kind::Statistic, name, comment, operation, dtype);
    verdict.flags = flags(statistic, operation);
    verdict.step = run.steps.len().saturating_sub(1);
    let mut p = None;
    (verdict.outcome, verdict.message) = match (&run.skipped, (statistic.measure)(operation, run)) {
        (Some(skipped), _) => (Outcome::Unsupported, skipped.to_string()),
        (None, Ok(finding)) => {
            p = Some(finding.p);
            (Outcome::Pass, finding.text)
        }
        (None, Err(Missing::Said(what))) => (Outcome::Fail, what),
        (None, Err(Missing::Fault(fault @ Fault::WrongTensors(_)))) => (Outcome::Fail, fault.to_string()),
        (None, Err(Missing::Fault(fault))) if fault.is_timeout() => (Outcome::Timeout, fault.to_string()),
        (None, Err(Missing::Fault(fault))) => (Outcome::Crash, fault.to_string()),
    };
    verdict.message = printable(&verdict.message);
    Found { verdict, p, case, run }
}

/// The classes of the planted bugs that the statistic must see.
fn flags(statistic: &Statistic, operation: &str) -> Vec<Flag> {
    let bugs = statistic.sees.iter().filter_map(|name| Bug::from_name(name));
    let mut flags: Vec<Flag> = bugs.filter(|bug| bug.operations.contains(&operation)).map(|bug| bug.flag).collect();
    flags.sort_unstable();
    flags.dedup();
    flags
}

/// Holm's step-down procedure over all tests of the suite: turns passes into failures, and says why.
fn holm(findings: &mut [Found<'_>]) {
    let all = tests().len();
    let mut order: Vec<(f64, usize)> =
        findings.iter().enumerate().filter_map(|(i, found)| Some((found.p?, i))).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut rejecting = true;
    for (rank, (p, index)) in order.into_iter().enumerate() {
        let threshold = FALSE_ALARM / (all - rank) as f64;
        rejecting &= p <= threshold;
        let verdict = &mut findings[index].verdict;
        if rejecting {
            verdict.outcome = Outcome::Fail;
            verdict.message += &format!(": p = {p:.1e}, where chance alone hardly goes below {threshold:.1e}");
        } else {
            verdict.message.clear();
        }
    }
}

#[cfg(test)]
mod tests;
