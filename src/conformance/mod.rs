//! The walk: cases go to a subject, its answers to the judge, and a verdict comes out for each.

mod bits;
mod nearest;
pub mod power;
mod shrink;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rayon::prelude::*;

pub use bits::{Compared, Counted, Difference, Sameness, compare, counted};
pub use nearest::{Nearest, explains, nearest};
pub use shrink::shrink;

use crate::arithmetic::DataType;
use crate::case::{Answer, Case, Declared, Flag, FlagKind, Hello, Level, Request};
use crate::golden::GoldenFile;
use crate::judge::{Expected, Grade, Outcome, Worst, judge};
use crate::subject::planted::Bug;
use crate::subject::{CaseRun, Fault, Pool};

/// What kind of evidence a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A recorded answer.
    Golden,
    /// A case of the catalogue, answered now.
    Catalogue,
    /// A generated case, answered now.
    Generated,
    /// A law that holds without knowing the answer.
    Property,
    /// A law of many answers, with a stated chance of a false alarm.
    Statistic,
}

impl Kind {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Golden => "golden",
            Kind::Catalogue => "catalogue",
            Kind::Generated => "generated",
            Kind::Property => "property",
            Kind::Statistic => "statistic",
        }
    }

    /// Whether it is a law, tried on values that a seed draws.
    pub fn is_law(self) -> bool {
        matches!(self, Kind::Property | Kind::Statistic)
    }
}

/// What shows a verdict that rests on several calls: a case of them, each step that was asked, and its answer.
pub type Shown = (Case, Vec<(Request, Result<Answer, Fault>)>);

/// What became of a case.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The case's name.
    pub case: String,
    /// What the case asks, in a line.
    pub comment: String,
    /// Its operation.
    pub operation: &'static str,
    /// The data type of its first input.
    pub dtype: DataType,
    /// What kind of evidence this is.
    pub kind: Kind,
    /// The recording that a golden is part of.
    pub recording: Option<String>,
    /// Whether the case decides conformance.
    pub level: Level,
    /// The case's flags.
    pub flags: Vec<Flag>,
    /// The verdict.
    pub outcome: Outcome,
    /// The largest error over all steps as a multiple of its bound.
    pub ratio: Option<f64>,
    /// The worst grade over all steps.
    pub grade: Option<Grade>,
    /// The step that decided, from 0.
    pub step: usize,
    /// The worst element of that step.
    pub worst: Option<Worst>,
    /// The planted bug that explains the failure best.
    pub nearest_bug: Option<&'static Bug>,
    /// Whether the subject's answer is that bug's, as far as rounding lets one tell.
    pub matches_bug: bool,
    /// The bug class that explains the failures of the run best, if one does.
    pub likely: Option<Flag>,
    /// What is wrong, in a sentence; empty for a pass.
    pub message: String,
    /// Why the failure is expected, if it is on a list.
    pub known: Option<String>,
    /// The file that replays it.
    pub replay: Option<PathBuf>,
}

impl Verdict {
    /// A pass on a required case without flags, of which nothing is known yet.
    pub(crate) fn new(kind: Kind, case: String, comment: String, operation: &'static str, dtype: DataType) -> Verdict {
        Verdict {
            case,
            comment,
            operation,
            dtype,
            kind,
            recording: None,
            level: Level::Required,
            flags: Vec::new(),
            outcome: Outcome::Pass,
            ratio: None,
            grade: None,
            step: 0,
            worst: None,
            nearest_bug: None,
            matches_bug: false,
            likely: None,
            message: String::new(),
            known: None,
            replay: None,
        }
    }

    /// Whether it makes a subject not conformant. `strict` counts advisory misses too.
    pub fn counts(&self, strict: bool) -> bool {
        if self.known.is_some() {
            return false;
        }
        match self.outcome {
            Outcome::Fail | Outcome::Crash | Outcome::Timeout => true,
            Outcome::Advisory => strict,
            Outcome::Pass | Outcome::Unsupported => false,
        }
    }

    /// The flag to name in a report: the nearest bug's class, or the one that explains the run, or the case's own first.
    pub fn flag(&self) -> Option<Flag> {
        self.nearest_bug.map(|bug| bug.flag).or(self.likely).or(self.flags.first().copied())
    }
}

/// Runs `cases` on the subjects of a pool and judges what they answer. Cases that were not run because the pool had given
/// its subject up get no verdict.
pub fn check(pool: &mut Pool, cases: &[&Case], progress: &(dyn Fn(usize) + Sync)) -> (Vec<Verdict>, Vec<CaseRun>) {
    let declared = pool.hello().arithmetic.unwrap_or_default();
    let runs = pool.run(cases, progress);
    let verdicts = cases.par_iter().zip(&runs).filter(|(_, run)| !run.gave_up);
    let mut verdicts: Vec<Verdict> = verdicts.map(|(case, run)| verdict_of_run(case, run, &declared)).collect();
    settle(&mut verdicts);
    (verdicts, runs)
}

/// Judges recorded answers. A failure for which `known` has a reason is expected; what explains it is not looked for.
pub fn verify(recording: &str, file: &GoldenFile, known: &(dyn Fn(&Verdict) -> Option<String> + Sync)) -> Vec<Verdict> {
    let declared = file.subject.arithmetic.unwrap_or_default();
    let mut verdicts: Vec<Verdict> = file
        .cases
        .par_iter()
        .map(|recorded| {
            let mut verdict = blank(&recorded.case, Kind::Golden);
            verdict.recording = Some(recording.to_owned());
            let mut asked: Vec<Request> = Vec::new();
            for (step, answer) in recorded.answers.iter().enumerate() {
                let previous = asked.last().map(|request| (request, &recorded.answers[step - 1]));
                let request = recorded.case.request(step, previous);
                take(&mut verdict, step, &request, answer, &declared);
                asked.push(request);
            }
            verdict.known = known(&verdict);
            if verdict.known.is_none() {
                let step = verdict.step;
                explain(&mut verdict, &asked[step], &recorded.answers[step], &declared);
            }
            verdict
        })
        .collect();
    settle(&mut verdicts);
    verdicts
}

/// The verdict on one case that was run.
pub fn verdict_of_run(case: &Case, run: &CaseRun, declared: &Declared) -> Verdict {
    let mut verdict = blank(case, Kind::Catalogue);
    if let Some(skipped) = &run.skipped {
        verdict.outcome = Outcome::Unsupported;
        verdict.message = printable(&skipped.to_string());
        return verdict;
    }
    for (step, (request, answer)) in run.steps.iter().enumerate() {
        match answer {
            Ok(Answer::Unsupported(why)) => {
                // What a subject does not claim was not sent, so this one is claimed.
                let message = format!("it claims this case and then says that it cannot do it: {why}");
                let outcome = if case.level == Level::Required { Outcome::Fail } else { Outcome::Unsupported };
                worse(&mut verdict, step, outcome, message, None);
            }
            Ok(answer) => take(&mut verdict, step, request, answer, declared),
            Err(fault @ Fault::WrongTensors(_)) => worse(&mut verdict, step, Outcome::Fail, fault.to_string(), None),
            Err(fault) => {
                let outcome = if fault.is_timeout() { Outcome::Timeout } else { Outcome::Crash };
                worse(&mut verdict, step, outcome, fault.to_string(), None);
            }
        }
    }
    if let Some((request, Ok(answer))) = run.steps.get(verdict.step) {
        explain(&mut verdict, request, answer, declared);
    }
    verdict
}

/// Judges one step and keeps the worse of what was and what is.
fn take(verdict: &mut Verdict, step: usize, request: &Request, answer: &Answer, declared: &Declared) {
    let expected = Expected::of(&request.call);
    let judgement = judge(&request.call, &expected, answer, declared);
    verdict.grade = verdict.grade.max(judgement.grade);
    let ratio = judgement.ratio();
    if ratio > verdict.ratio || verdict.ratio.is_none() {
        verdict.ratio = ratio;
        if verdict.outcome == Outcome::Pass {
            verdict.worst = judgement.worst.clone();
        }
    }
    let outcome = match judgement.outcome {
        Outcome::Fail if verdict.level == Level::Advisory => Outcome::Advisory,
        outcome => outcome,
    };
    if outcome > verdict.outcome {
        worse(verdict, step, outcome, judgement.message, judgement.worst);
    }
}

/// Names the planted bug that explains a failure best, given the step that decided and its answer.
fn explain(verdict: &mut Verdict, request: &Request, answer: &Answer, declared: &Declared) {
    if verdict.outcome != Outcome::Fail {
        return;
    }
    let expected = Expected::of(&request.call);
    let judgement = judge(&request.call, &expected, answer, declared);
    if let Some(found) = nearest(&request.call, &expected, answer, &judgement, declared) {
        verdict.nearest_bug = Some(found.bug);
        verdict.matches_bug = found.matches();
    }
}

fn worse(verdict: &mut Verdict, step: usize, outcome: Outcome, message: String, worst: Option<Worst>) {
    if outcome > verdict.outcome {
        verdict.outcome = outcome;
        verdict.step = step;
        verdict.message = printable(&message);
        verdict.worst = worst;
    }
}

fn blank(case: &Case, kind: Kind) -> Verdict {
    let mut verdict =
        Verdict::new(kind, case.name.clone(), case.comment.clone(), case.operation().name(), case.dtype());
    (verdict.level, verdict.flags) = (case.level, case.flags.clone());
    verdict
}

/// What only all verdicts together can tell.
fn settle(verdicts: &mut [Verdict]) {
    settle_grades(verdicts);
    let likely = explanation(verdicts);
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.outcome == Outcome::Fail) {
        verdict.likely = likely;
    }
}

/// A program is one-pass only if nothing else is wrong with it: where a required case of the same operation and data type
/// is outside every law, its other failures are `wrong` too.
pub(crate) fn settle_grades(verdicts: &mut [Verdict]) {
    let wrong: Vec<(&str, DataType)> = verdicts
        .iter()
        .filter(|verdict| verdict.outcome == Outcome::Fail && verdict.grade == Some(Grade::Wrong))
        .map(|verdict| (verdict.operation, verdict.dtype))
        .collect();
    for verdict in verdicts {
        if verdict.grade == Some(Grade::OnePass) && wrong.contains(&(verdict.operation, verdict.dtype)) {
            verdict.grade = Some(Grade::Wrong);
            if verdict.nearest_bug.is_some_and(|bug| bug.flag == Flag::Cancellation) {
                verdict.nearest_bug = None;
                verdict.matches_bug = false;
            }
        }
    }
}

/// The class of most of those failures that are a planted bug's answers, if these are not so few that chance makes them;
/// else the one that tells failures and passes apart best.
fn explanation(verdicts: &[Verdict]) -> Option<Flag> {
    let failed = || verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Fail);
    let mut named: BTreeMap<Flag, usize> = BTreeMap::new();
    for bug in failed().filter(|verdict| verdict.matches_bug).filter_map(|verdict| verdict.nearest_bug) {
        *named.entry(bug.flag).or_default() += 1;
    }
    let all: usize = named.values().sum();
    let few = all * 10 < failed().count();
    let most = named.into_iter().find(|&(_, count)| !few && 2 * count > all);
    most.map(|(flag, _)| flag).or_else(|| most_distinct(verdicts))
}

/// The class whose cases fail most distinctly: by the share of its cases that fail, less the share of all others that do
/// (Youden's index, 1950). A mistake of the class need not be as strong as the planted one, so that it may also fail cases
/// that do not carry the class.
fn most_distinct(verdicts: &[Verdict]) -> Option<Flag> {
    let failed = |verdict: &Verdict| verdict.outcome == Outcome::Fail;
    let judged = |verdict: &&Verdict| verdict.level == Level::Required && verdict.outcome != Outcome::Unsupported;
    // Only operations in which something failed can tell.
    let affected: BTreeSet<&str> =
        verdicts.iter().filter(judged).filter(|verdict| failed(verdict)).map(|verdict| verdict.operation).collect();
    let (mut all, mut with) = (Count::default(), BTreeMap::<Flag, Count>::new());
    for verdict in verdicts.iter().filter(judged).filter(|verdict| affected.contains(verdict.operation)) {
        all.add(failed(verdict));
        for &flag in verdict.flags.iter().filter(|flag| flag.kind() == FlagKind::Class) {
            with.entry(flag).or_default().add(failed(verdict));
        }
    }
    let index = |(flag, with): (Flag, Count)| Some((with.share()? - all.without(with).share()?, flag));
    let best = with.into_iter().filter_map(index).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.5).then_some(best.1)
}

/// How many of some cases failed.
#[derive(Clone, Copy, Default)]
struct Count {
    failures: usize,
    cases: usize,
}

impl Count {
    fn add(&mut self, failed: bool) {
        self.failures += usize::from(failed);
        self.cases += 1;
    }

    fn without(self, part: Count) -> Count {
        Count { failures: self.failures - part.failures, cases: self.cases - part.cases }
    }

    /// The share of failures; `None` of too few cases to tell.
    fn share(self) -> Option<f64> {
        (self.cases >= 3).then(|| self.failures as f64 / self.cases as f64)
    }
}

/// The subject's own words, for reports: `pytorch 2.15.0 (cpu)`.
pub fn title(hello: &Hello) -> String {
    let version = if hello.version.is_empty() { String::new() } else { format!(" {}", hello.version) };
    let device = if hello.device.is_empty() { String::new() } else { format!(" ({})", hello.device) };
    printable(&format!("{}{version}{device}", hello.name)).replace('\n', "\\n")
}

/// Foreign text for a terminal or a page: control characters but the end of a line are escaped, so that a subject cannot
/// write over what the suite says.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        // Characters that turn the direction of what follows would hide what is said as well.
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c != '\n' && (c.is_control() || turns) {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_cannot_paint_over_the_report() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc\u{202e}é"), "a\\u{1b}[2Jb\\r\nc\\u{202e}é");
        let text = r#"{"name": "n\u001b[31m\nCONFORMANT", "operations": [], "dtypes": []}"#;
        assert_eq!(title(&serde_json::from_str(text).expect("a hello")), "n\\u{1b}[31m\\nCONFORMANT");
    }
}
