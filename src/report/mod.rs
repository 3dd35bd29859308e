//! Reports: what was judged, what came of it, and what to do next. Reports print verdicts, they make none.
//!
//! ```
//! use normative::case::catalogue;
//! use normative::conformance::check;
//! use normative::report::{Asked, Paint, Report, Status, text};
//! use normative::subject::{Builtin, Pool};
//! let cases: Vec<_> = catalogue::cases().iter().filter(|case| case.name.contains("f32-eps")).collect();
//! let mut pool = Pool::of(Box::new(Builtin::new("eps_doubled").unwrap()));
//! let (verdicts, runs) = check(&mut pool, &cases, &|_| ());
//! let mut report = Report::default();
//! report.add_runs(Asked::Builtin("eps_doubled".into()), &pool, &cases, verdicts, runs);
//! assert_eq!(report.status(), Status::NotConformant);
//! assert!(text(&report, "", 20, Paint::default()).contains("it adds eps twice"));
//! ```

#[cfg(feature = "cli")]
mod bug_report;
mod cause;
mod counterexample;
mod failure;
#[cfg(feature = "cli")]
mod github;
#[cfg(feature = "cli")]
mod html;
mod json;
#[cfg(feature = "cli")]
mod junit;
mod known;
mod number;
mod numpy;
pub(crate) mod paint;
mod rows;
mod smallest;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::Serialize;

#[cfg(feature = "cli")]
pub use bug_report::bug_report;
pub use cause::{Cause, Group};
pub use counterexample::{asked_of, write_counterexamples};
pub use failure::call_in_words;
#[cfg(feature = "cli")]
pub use github::{annotations, markdown_cells, step_summary};
#[cfg(feature = "cli")]
pub use html::html;
pub use json::json;
#[cfg(feature = "cli")]
pub use junit::junit;
pub use known::{Draft, Expectations, Stale};
pub use number::{count, decimal, hexadecimal, multiple};
pub use numpy::{Source, snippet};
pub use paint::{Paint, Tone};
pub use rows::{Rows, rows};
#[cfg(feature = "cli")]
use text::{diagnosis, troubles};
pub use text::{summary_line, text};

use crate::case::{Answer, Case, Declared, Hello, Request};
use crate::conformance::{Kind, Shown, Verdict, printable};
use crate::golden::{Provenance, RecordedCase};
use crate::judge::Outcome;
use crate::subject::{CaseRun, Fault, Pool};

/// Everything that one run of a command found.
#[derive(Debug, Default)]
pub struct Report {
    /// The seed that was given; it changes nothing where nothing is random.
    pub seed: u64,
    /// Whether advisory misses count.
    pub strict: bool,
    /// Who was asked, if anyone was.
    pub subject: Option<(Asked, Option<Hello>)>,
    /// The recordings that were judged.
    pub recordings: Vec<Recording>,
    /// A verdict for each case.
    pub verdicts: Vec<Verdict>,
    /// What was asked and answered, by the index of the verdict, where it is no pass.
    pub exhibits: BTreeMap<usize, Exhibit>,
    /// Why the subject could not be run to the end.
    pub gave_up: Option<String>,
    /// Whether it was stopped from outside before everything had been asked once.
    pub stopped: bool,
    /// Cases without a verdict because of either.
    pub not_run: usize,
    /// What was to be judged and is not there.
    pub missing: Option<String>,
    /// Golden files, and lists beside them, that cannot be used: where, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Expected failures that do not happen any more.
    pub stale: Vec<Stale>,
}

/// Who is asked, in the words of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A program behind a pipe.
    Program(String),
    /// A subject that is compiled in.
    Builtin(String),
    /// A layer in Rust, judged from a test.
    Layer(String),
}

/// A folder of golden files.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Its name, which its verdicts have as well.
    pub name: String,
    /// How the answers were obtained.
    pub provenance: Provenance,
    /// Who gave them.
    pub subject: Hello,
}

/// What was asked and answered in one case.
#[derive(Clone, Debug)]
pub struct Exhibit {
    /// The case.
    pub case: Case,
    /// Each step that was asked, and its answer.
    pub steps: Vec<(Request, Result<Answer, Fault>)>,
    /// How the subject says that it sums.
    pub declared: Declared,
    /// The golden file that it comes from.
    pub file: Option<PathBuf>,
    /// The smallest case found that fails in the same way, with its verdict.
    pub smallest: Option<Box<(Verdict, Exhibit)>>,
}

/// The number of verdicts of each kind. A failure that was expected is counted as `known`, and nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Summary {
    pub pass: usize,
    pub fail: usize,
    pub advisory: usize,
    pub unsupported: usize,
    pub crash: usize,
    pub timeout: usize,
    pub known: usize,
}

/// What a report comes to: the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Everything judged passed, or failed as expected.
    Conformant = 0,
    /// A required case failed.
    NotConformant = 1,
    /// Wrong usage, or a glob that matches nothing.
    Usage = 2,
    /// The subject could not be run to the end, or nothing was judged.
    Incomplete = 3,
    /// A golden file is unreadable, contradictory, or has the wrong hash.
    BadGolden = 4,
    /// A list of expected failures is stale.
    Stale = 5,
}

impl Report {
    /// Adds what [`crate::conformance::check`] made of `cases`.
    ///
    /// # Panics
    /// If `runs` are not those of `cases`.
    pub fn add_runs(&mut self, asked: Asked, pool: &Pool, cases: &[&Case], verdicts: Vec<Verdict>, runs: Vec<CaseRun>) {
        assert_eq!(cases.len(), runs.len(), "a run for each case");
        let hello = pool.hello();
        let declared = hello.arithmetic.unwrap_or_default();
        self.gave_up = pool.gave_up().map(|fault| printable(&fault.to_string()));
        self.not_run += cases.len() - verdicts.len();
        let judged = cases.iter().zip(runs).filter(|(_, run)| !run.gave_up);
        for (verdict, (case, run)) in verdicts.into_iter().zip(judged) {
            let exhibit = || Exhibit { case: (*case).clone(), steps: run.steps, declared, file: None, smallest: None };
            self.add(verdict, exhibit);
        }
        self.subject = Some((asked, Some(hello.clone())));
        self.attribute();
    }

    /// Adds what [`crate::conformance::verify`] made of the cases of a recording, each of which lies in a file.
    pub fn add_recording(&mut self, recording: Recording, cases: Vec<(RecordedCase, PathBuf)>, verdicts: Vec<Verdict>) {
        let declared = recording.subject.arithmetic.unwrap_or_default();
        let mut passed = Vec::new();
        for (verdict, (recorded, file)) in verdicts.into_iter().zip(cases) {
            if !is_shown(&verdict) {
                self.verdicts.push(verdict);
                passed.push(recorded);
                continue;
            }
            let RecordedCase { case, answers } = recorded;
            let mut steps: Vec<(Request, Result<Answer, Fault>)> = Vec::new();
            for (step, answer) in answers.into_iter().enumerate() {
                let previous = steps.last().and_then(|(asked, answer)| Some((asked, answer.as_ref().ok()?)));
                steps.push((case.request(step, previous), Ok(answer)));
            }
            self.add(verdict, || Exhibit { case, steps, declared, file: Some(file), smallest: None });
        }
        // To free thousands of tensors takes as long as to write the report: another core does it meanwhile.
        rayon::spawn(move || drop(passed));
        self.recordings.push(recording);
        self.attribute();
    }

    /// Adds what the properties, or the statistics, of [`crate::property`] made of the subject whose runs were added before.
    pub fn add_properties(&mut self, pool: &Pool, found: Vec<(Verdict, Shown)>) {
        let declared = pool.hello().arithmetic.unwrap_or_default();
        self.gave_up = pool.gave_up().map(|fault| printable(&fault.to_string()));
        for (verdict, (case, steps)) in found {
            self.add(verdict, || Exhibit { case, steps, declared, file: None, smallest: None });
        }
        self.attribute();
    }

    /// Adds what a campaign of [`crate::fuzzing`] found in the subject that `asked` names.
    pub fn add_campaign(&mut self, asked: Asked, pool: &Pool, found: Vec<(Verdict, Shown)>) {
        self.subject = Some((asked, Some(pool.hello().clone())));
        self.add_properties(pool, found);
    }

    /// Adds what another round of the same laws found. Of the two verdicts on a law the worse stays, the first of equals;
    /// on a statistic the new one, which rests on all rounds.
    pub fn add_round(&mut self, pool: &Pool, found: Vec<(Verdict, Shown)>) {
        let declared = pool.hello().arithmetic.unwrap_or_default();
        self.gave_up = pool.gave_up().map(|fault| printable(&fault.to_string()));
        let laws = self.verdicts.iter().enumerate().filter(|(_, verdict)| verdict.kind.is_law());
        let mut known: HashMap<String, usize> = laws.map(|(index, verdict)| (verdict.case.clone(), index)).collect();
        for (verdict, (case, steps)) in found {
            let index = *known.entry(verdict.case.clone()).or_insert(self.verdicts.len());
            let exhibit = || Exhibit { case, steps, declared, file: None, smallest: None };
            match self.verdicts.get(index) {
                None => self.add(verdict, exhibit),
                Some(was) if verdict.kind == Kind::Statistic || verdict.outcome > was.outcome => {
                    self.exhibits.remove(&index);
                    if !matches!(verdict.outcome, Outcome::Pass | Outcome::Unsupported) {
                        self.exhibits.insert(index, exhibit());
                    }
                    self.verdicts[index] = verdict;
                }
                Some(was) if verdict.ratio > was.ratio => self.verdicts[index].ratio = verdict.ratio,
                Some(_) => {}
            }
        }
        self.attribute();
    }

    fn add(&mut self, verdict: Verdict, exhibit: impl FnOnce() -> Exhibit) {
        if is_shown(&verdict) {
            self.exhibits.insert(self.verdicts.len(), exhibit());
        }
        self.verdicts.push(verdict);
    }

    /// The number of verdicts of each kind.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for verdict in &self.verdicts {
            let count = match verdict.outcome {
                _ if verdict.known.is_some() => &mut summary.known,
                Outcome::Pass => &mut summary.pass,
                Outcome::Fail => &mut summary.fail,
                Outcome::Advisory => &mut summary.advisory,
                Outcome::Unsupported => &mut summary.unsupported,
                Outcome::Crash => &mut summary.crash,
                Outcome::Timeout => &mut summary.timeout,
            };
            *count += 1;
        }
        summary
    }

    /// Whether nothing was judged: there is no verdict but `unsupported`.
    pub fn is_empty(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.outcome == Outcome::Unsupported)
    }

    /// Indices of the verdicts that make the subject not conformant.
    pub fn failures(&self) -> Vec<usize> {
        (0..self.verdicts.len()).filter(|&index| self.verdicts[index].counts(self.strict)).collect()
    }

    /// What it all comes to. A golden file that cannot be read outweighs a run that did not end, which outweighs a
    /// failure, which outweighs a stale list: the first says the least about the subject.
    pub fn status(&self) -> Status {
        if !self.unreadable.is_empty() {
            Status::BadGolden
        } else if self.gave_up.is_some() || self.stopped || self.missing.is_some() || self.is_empty() {
            Status::Incomplete
        } else if !self.failures().is_empty() {
            Status::NotConformant
        } else if !self.stale.is_empty() {
            Status::Stale
        } else {
            Status::Conformant
        }
    }
}

/// Whether a report has something to show of a case.
fn is_shown(verdict: &Verdict) -> bool {
    !matches!(verdict.outcome, Outcome::Pass | Outcome::Unsupported)
}

impl Exhibit {
    /// Whether the case was not asked, because too many before it ended in a fault.
    fn is_not_run(&self) -> bool {
        matches!(self.steps.last(), Some((_, Err(Fault::NotRun { .. }))))
    }

    /// The number of elements of all tensors that were sent.
    pub fn elements(&self) -> usize {
        self.steps.iter().flat_map(|(request, _)| request.call.tensors.values()).map(|tensor| tensor.len()).sum()
    }
}

impl Asked {
    /// The option that asks it, quoted for a shell; or what it is where no command asks it. Control characters are escaped:
    /// a file may say which command it is.
    pub fn option(&self) -> String {
        match self {
            Asked::Program(command) => {
                format!("--subject {}", printable(&shell_words::quote(command)).replace('\n', "\\n"))
            }
            Asked::Builtin(name) => format!("--builtin {name}"),
            Asked::Layer(name) => format!("{name}, a layer in Rust"),
        }
    }

    /// Key and value in the free strings of a hello.
    fn detail(&self) -> (String, String) {
        match self {
            Asked::Program(command) => ("command".to_owned(), command.clone()),
            Asked::Builtin(name) => ("builtin".to_owned(), name.clone()),
            Asked::Layer(name) => ("layer".to_owned(), name.clone()),
        }
    }
}

impl Provenance {
    /// The name in golden files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Provenance::Device => "device",
            Provenance::Cpu => "cpu",
            Provenance::Simulated => "simulated",
            Provenance::Emulated => "emulated",
            Provenance::Interpreted => "interpreted",
        }
    }
}

impl Status {
    /// The number that a command ends with.
    pub fn code(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::catalogue;
    use crate::conformance::check;
    use crate::subject::Builtin;

    /// A report on the cases whose names contain `part`.
    pub(super) fn report(builtin: &str, part: &str) -> Report {
        let cases: Vec<&Case> = catalogue::cases().iter().filter(|case| case.name.contains(part)).collect();
        let mut pool = Pool::of(Box::new(Builtin::new(builtin).unwrap()));
        let (verdicts, runs) = check(&mut pool, &cases, &|_| ());
        let mut report = Report::default();
        report.add_runs(Asked::Builtin(builtin.to_owned()), &pool, &cases, verdicts, runs);
        report
    }

    #[test]
    fn the_graver_status_wins() {
        let mut report = report("eps_doubled", "layer_norm-f32-eps");
        assert_eq!(report.status(), Status::NotConformant);
        report.gave_up = Some("it died".to_owned());
        assert_eq!(report.status(), Status::Incomplete);
        report.unreadable.push((PathBuf::from("a"), "wrong hash".to_owned()));
        assert_eq!(report.status(), Status::BadGolden);
        assert_eq!(Report::default().status(), Status::Incomplete);
        assert_eq!(Status::Stale.code(), 5);
    }

    #[test]
    fn advisory_misses_count_where_that_is_asked() {
        let mut report = report("two_pass", "layer_norm-f32-range-1e30-grad");
        assert_eq!((report.status(), report.summary().advisory), (Status::Conformant, 1));
        report.strict = true;
        assert_eq!(report.status(), Status::NotConformant);
    }
}
