//! Live fuzzing: a layer is asked generated cases, and what it shows that is new leads to the next.
//!
//! There is no instrumentation to be had of a program behind a pipe, so *what it answers* is the coverage: for each
//! operation and data type the grades, refusals and faults, and every doubling of the largest error in bounds. The bytes of
//! a case that shows something new are kept, and most cases are kept bytes with a few changes.

use std::collections::{BTreeMap, BTreeSet};

use super::generator::{Wanted, without_gradients};
use super::is_bounded;
use crate::arithmetic::DataType;
use crate::case::values::Values;
use crate::case::{Answer, Case, Hello, Layout};
use crate::conformance::{Kind, Shown, Verdict, verdict_of_run};
use crate::judge::Outcome;
use crate::operation::Operation;
use crate::report::Cause;
use crate::subject::{CaseRun, Pool};

/// The longest input of a case.
const BYTES: usize = 64;

/// What one subject has been asked and has shown.
pub struct Campaign {
    values: Values,
    seed: u64,
    drawn: u64,
    asked: u64,
    operations: Vec<&'static str>,
    dtypes: Vec<DataType>,
    /// The inputs that showed something new.
    corpus: Vec<Vec<u8>>,
    seen: BTreeSet<String>,
    /// For each way to fail the smallest case.
    failures: BTreeMap<(&'static str, Outcome, Cause), (Verdict, Shown)>,
    /// For each operation and data type the case that comes nearest to its bound, or was not supported.
    others: BTreeMap<(&'static str, DataType, bool), (Verdict, Shown)>,
}

impl Campaign {
    /// A campaign on a subject that says `hello`; it asks what that claims, in an order that the seed draws.
    pub fn new(hello: &Hello, seed: u64) -> Campaign {
        let claimed = |name: &&&str| hello.operations.iter().any(|claimed| claimed == **name);
        Campaign {
            values: Values::new(seed),
            seed,
            drawn: 0,
            asked: 0,
            operations: Operation::NAMES.iter().filter(claimed).copied().collect(),
            dtypes: DataType::FLOATS.into_iter().filter(|dtype| hello.dtypes.contains(dtype)).collect(),
            corpus: Vec::new(),
            seen: BTreeSet::new(),
            failures: BTreeMap::new(),
            others: BTreeMap::new(),
        }
    }

    /// Asks `count` cases more; fewer where the pool stops.
    pub fn go_on(&mut self, pool: &mut Pool<'_>, count: usize) {
        if self.operations.is_empty() || self.dtypes.is_empty() {
            return;
        }
        let hello = pool.hello().clone();
        let declared = hello.arithmetic.unwrap_or_default();
        let drawn: Vec<(Vec<u8>, Case)> = (0..count).map(|_| self.next(&hello)).collect();
        let cases: Vec<&Case> = drawn.iter().map(|(_, case)| case).collect();
        let runs = pool.run(&cases, &|_| ());
        for ((bytes, case), run) in drawn.into_iter().zip(runs).filter(|(_, run)| !run.gave_up) {
            let mut verdict = verdict_of_run(&case, &run, &declared);
            verdict.kind = Kind::Generated;
            self.asked += 1;
            if self.seen.insert(feature(&verdict, &run)) {
                self.corpus.push(bytes);
            }
            self.keep(verdict, (case, run.steps));
        }
    }

    /// How many cases were asked.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// How much was seen: different features of answers.
    pub fn seen(&self) -> usize {
        self.seen.len()
    }

    /// How many different failures were found that count; `strict` counts advisory misses too.
    pub fn failures(&self, strict: bool) -> usize {
        self.failures.values().filter(|(verdict, _)| verdict.counts(strict)).count()
    }

    /// What was found: the smallest case of each failure, and of each operation and data type the answer that came nearest
    /// to its bound.
    pub fn into_found(self) -> Vec<(Verdict, Shown)> {
        self.failures.into_values().chain(self.others.into_values()).collect()
    }

    /// The next input and its case.
    fn next(&mut self, hello: &Hello) -> (Vec<u8>, Case) {
        loop {
            let bytes = self.input();
            let wanted = Wanted { operations: &self.operations, dtypes: &self.dtypes, ..Wanted::ANY };
            let mut case = wanted.case(&bytes);
            fit(&mut case, hello);
            if case.steps.iter().all(is_bounded) {
                self.drawn += 1;
                case.name = format!("fuzz-{}-{}", self.seed, self.drawn);
                return (bytes, case);
            }
        }
    }

    /// Bytes of which a case is made: new ones, or kept ones with one to four changes.
    fn input(&mut self) -> Vec<u8> {
        let values = &mut self.values;
        if self.corpus.is_empty() || values.below(4) == 0 {
            let length = 4 + values.below(BYTES - 4);
            return (0..length).map(|_| values.below(256) as u8).collect();
        }
        let mut bytes = self.corpus[values.below(self.corpus.len())].clone();
        for _ in 0..=values.below(4) {
            let at = values.below(bytes.len());
            match values.below(4) {
                0 if bytes.len() > 4 => bytes.truncate(at.max(4)),
                1 if bytes.len() < BYTES => bytes.insert(at, values.below(256) as u8),
                _ => bytes[at] = values.below(256) as u8,
            }
        }
        bytes
    }

    fn keep(&mut self, verdict: Verdict, shown: Shown) {
        let smaller = |kept: &(Verdict, Shown), shown: &Shown| elements(shown) < elements(&kept.1);
        if matches!(verdict.outcome, Outcome::Pass | Outcome::Unsupported) {
            let key = (verdict.operation, verdict.dtype, verdict.outcome == Outcome::Pass);
            let nearer = self.others.get(&key).is_none_or(|(kept, _)| verdict.ratio > kept.ratio);
            if nearer {
                self.others.insert(key, (verdict, shown));
            }
            return;
        }
        let key = (verdict.operation, verdict.outcome, Cause::of(&verdict));
        if self.failures.get(&key).is_none_or(|kept| smaller(kept, &shown)) {
            self.failures.insert(key, (verdict, shown));
        }
    }
}

/// Asks a subject `cases` generated cases, and gives back what was found: the smallest case of each failure with its
/// verdict, and the answer of each operation and data type that came nearest to its bound.
///
/// ```
/// use normative::fuzzing::fuzz;
/// use normative::judge::Outcome;
/// use normative::subject::{Builtin, Pool};
///
/// let mut pool = Pool::of(Box::new(Builtin::new("eps_doubled").unwrap()));
/// let found = fuzz(&mut pool, 0, 200);
/// assert!(found.iter().any(|(verdict, _)| verdict.outcome == Outcome::Fail));
/// ```
pub fn fuzz(pool: &mut Pool<'_>, seed: u64, cases: u64) -> Vec<(Verdict, Shown)> {
    let mut campaign = Campaign::new(pool.hello(), seed);
    while campaign.asked < cases && pool.gave_up().is_none() {
        let before = campaign.asked;
        campaign.go_on(pool, usize::try_from(cases - campaign.asked).map_or(64, |left| left.min(64)));
        if campaign.asked == before {
            break;
        }
    }
    campaign.into_found()
}

/// Leaves out of a case what the subject does not claim, as far as the call is one without it.
fn fit(case: &mut Case, hello: &Hello) {
    if case.steps.iter().any(|step| hello.lacks(step).is_some()) {
        case.steps.iter_mut().for_each(|step| step.layout = Layout::default());
    }
    if case.steps.iter().any(|step| hello.lacks(step).is_some()) {
        case.steps = case.steps.drain(..).map(without_gradients).collect();
    }
}

/// What an answer shows, in a word: two cases that show the same need not both be kept.
fn feature(verdict: &Verdict, run: &CaseRun) -> String {
    let refusals = run.steps.iter().filter_map(|(_, answer)| match answer {
        Ok(Answer::Refused { refusal, .. }) => Some(refusal.kind.name()),
        _ => None,
    });
    let doublings =
        verdict.ratio.filter(|ratio| *ratio > 0.0).map(|ratio| ratio.log2().clamp(-12.0, 12.0).floor() as i32);
    let (gradients, steps) = (run.steps[0].0.call.gradients, run.steps.len().min(3));
    format!(
        "{} {} {:?} {:?} {doublings:?} {:?} {gradients} {steps}",
        verdict.operation,
        verdict.dtype,
        verdict.outcome,
        verdict.grade,
        refusals.collect::<BTreeSet<_>>()
    )
}

fn elements((_, steps): &Shown) -> usize {
    steps.iter().flat_map(|(request, _)| request.call.tensors.values()).map(|tensor| tensor.len()).sum()
}
