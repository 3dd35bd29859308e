//! The one table of a report: what came of each operation.

use std::collections::BTreeMap;

use super::{Report, multiple};
use crate::conformance::{Verdict, printable};
use crate::judge::{Grade, Outcome};

/// A table of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The heads of the columns.
    pub header: Vec<&'static str>,
    /// The rows, as many cells as the header has.
    pub cells: Vec<Vec<String>>,
}

/// What a row counts.
#[derive(Default)]
struct Counts {
    cases: usize,
    outcomes: BTreeMap<Outcome, usize>,
    deviations: usize,
    /// The largest ratio of a case that passes.
    worst: Option<f64>,
    grades: BTreeMap<Grade, usize>,
}

/// The table of `report`: for each recording, and for the subject that was asked, a row for each operation. Columns of
/// outcomes that did not happen are left out, and so are operations of which nothing was judged, if others were.
///
/// `worst ratio` is the largest error of a case that passes, as a multiple of its bound.
pub fn rows(report: &Report) -> Rows {
    let mut sources: Vec<(Option<&str>, String)> = Vec::new();
    for recording in &report.recordings {
        let title = format!("{} ({})", recording.name, recording.provenance.name());
        sources.push((Some(&recording.name), title));
    }
    if let Some((_, Some(hello))) = &report.subject {
        let how = hello.details.get("provenance").map_or(String::new(), |how| format!(" ({how})"));
        sources.push((None, printable(&format!("{}{how}", hello.name)).replace('\n', "\\n")));
    }
    let mut counted: Vec<(String, Vec<(&str, Counts)>)> = Vec::new();
    for (recording, title) in sources {
        let mut by_operation: Vec<(&str, Counts)> = Vec::new();
        for verdict in report.verdicts.iter().filter(|verdict| verdict.recording.as_deref() == recording) {
            let at = by_operation.iter().position(|(operation, _)| *operation == verdict.operation);
            let at = at.unwrap_or_else(|| {
                by_operation.push((verdict.operation, Counts::default()));
                by_operation.len() - 1
            });
            by_operation[at].1.add(verdict);
        }
        // A layer that claims one operation is not shown what became of all others.
        if by_operation.iter().any(|(_, counts)| counts.is_judged()) {
            by_operation.retain(|(_, counts)| counts.is_judged());
        }
        counted.push((title, by_operation));
    }
    let counts = || counted.iter().flat_map(|(_, rows)| rows.iter().map(|(_, counts)| counts));
    let happened = |outcome: &Outcome| counts().any(|counts| counts.outcomes.contains_key(outcome));
    let deviate = counts().any(|counts| counts.deviations > 0);
    let always = [Outcome::Pass, Outcome::Fail];
    let shown: Vec<Outcome> =
        [Outcome::Pass, Outcome::Fail, Outcome::Crash, Outcome::Timeout, Outcome::Advisory, Outcome::Unsupported]
            .into_iter()
            .filter(|outcome| always.contains(outcome) || happened(outcome))
            .collect();

    let mut header = vec!["subject", "operation", "cases"];
    header.extend(shown.iter().map(|outcome| outcome.name()));
    header.extend(deviate.then_some("deviations"));
    header.extend(["worst ratio", "grades"]);
    let mut cells = Vec::new();
    for (title, rows) in counted {
        let mut title = Some(title);
        for (operation, counts) in rows {
            let mut row = vec![title.take().unwrap_or_default(), operation.to_owned(), counts.cases.to_string()];
            row.extend(shown.iter().map(|outcome| counts.outcomes.get(outcome).copied().unwrap_or(0).to_string()));
            row.extend(deviate.then(|| counts.deviations.to_string()));
            row.push(counts.worst.map_or("–".to_owned(), multiple));
            let grades = counts.grades.iter().map(|(grade, count)| format!("{} {count}", grade.name()));
            row.push(grades.collect::<Vec<_>>().join(", "));
            cells.push(row);
        }
    }
    Rows { header, cells }
}

impl Counts {
    /// Whether anything but `unsupported` came of its cases.
    fn is_judged(&self) -> bool {
        self.outcomes.get(&Outcome::Unsupported).copied().unwrap_or(0) < self.cases
    }

    fn add(&mut self, verdict: &Verdict) {
        self.cases += 1;
        if verdict.known.is_some() {
            self.deviations += 1;
        } else {
            *self.outcomes.entry(verdict.outcome).or_default() += 1;
        }
        if verdict.outcome == Outcome::Pass {
            self.worst = [self.worst, verdict.ratio].into_iter().flatten().reduce(f64::max);
        }
        if let Some(grade) = verdict.grade {
            *self.grades.entry(grade).or_default() += 1;
        }
    }
}
