//! The report as one page of HTML that needs nothing else: the matrix of operations and checks, the errors as multiples of
//! their bounds, each kind of failure in full.

mod histogram;
mod matrix;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use self::histogram::{Histogram, histograms};
use self::matrix::{Matrix, matrix};
use super::failure::Account;
use super::{Paint, Report, Rows, decimal, diagnosis, hexadecimal, multiple, rows, summary_line, troubles};
use crate::case::catalogue;
use crate::conformance::title;

const PAGE: &str = include_str!("page.html");

/// What the template shows.
#[derive(Serialize)]
struct Page {
    version: &'static str,
    catalogue: &'static str,
    /// The verdict in a line, and whether it is good.
    summary: String,
    good: bool,
    subjects: Vec<[String; 2]>,
    diagnosis: Vec<String>,
    troubles: Vec<String>,
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    matrix: Matrix,
    histograms: Vec<Histogram>,
    failures: Vec<Failure>,
    /// Kinds of failure that are not shown.
    hidden: usize,
    deviations: Vec<[String; 3]>,
}

/// A kind of failure.
#[derive(Serialize)]
struct Failure {
    what: &'static str,
    case: String,
    wrong: String,
    meaning: String,
    effect: String,
    reduced: Option<String>,
    call: Option<String>,
    element: Option<Element>,
    message: Option<String>,
    nearest: Option<&'static str>,
    replay: Option<String>,
    numpy: Option<String>,
    others: Option<String>,
}

/// The worst element of an answer.
#[derive(Serialize)]
struct Element {
    place: String,
    expected: [String; 2],
    actual: [String; 2],
    error: String,
    bound: String,
    ratio: String,
}

/// The page; at most `limit` kinds of failure are shown in full.
///
/// ```
/// use normative::report::{Report, html};
/// assert!(html(&Report::default(), 20).contains("NOTHING WAS JUDGED"));
/// ```
pub fn html(report: &Report, limit: usize) -> String {
    let plain = Paint::default();
    let groups = report.groups();
    let Rows { header, cells } = rows(report);
    let asked: Vec<_> = groups.iter().filter(|group| !group.not_run).collect();
    let mut subjects: Vec<[String; 2]> = report
        .recordings
        .iter()
        .map(|recording| {
            [recording.name.clone(), format!("{}, {}", title(&recording.subject), recording.provenance.name())]
        })
        .collect();
    subjects.extend(report.subject.as_ref().map(|(asked, hello)| {
        [hello.as_ref().map_or_else(|| "a subject that says no hello".to_owned(), title), asked.option()]
    }));
    let page = Page {
        version: env!("CARGO_PKG_VERSION"),
        catalogue: catalogue::VERSION,
        summary: summary_line(report, plain),
        good: report.status().code() == 0,
        subjects,
        diagnosis: diagnosis(report, &groups, plain)
            .map_or(Vec::new(), |text| text.lines().map(str::to_owned).collect()),
        troubles: troubles(report, plain),
        header,
        rows: cells,
        matrix: matrix(report),
        histograms: histograms(report),
        failures: asked.iter().take(limit).map(|group| Account::new(report, group).into()).collect(),
        hidden: asked.len().saturating_sub(limit),
        deviations: deviations(report),
    };
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect("the usual delimiters");
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_syntax(syntax);
    environment.render_str(PAGE, Serde(page)).expect("the template fits the page")
}

/// Failures that are expected: where, how many, why.
fn deviations(report: &Report) -> Vec<[String; 3]> {
    let mut counted: Vec<([&str; 2], usize)> = Vec::new();
    for verdict in &report.verdicts {
        let Some(reason) = &verdict.known else { continue };
        let key = [verdict.operation, reason.as_str()];
        match counted.iter_mut().find(|(other, _)| *other == key) {
            Some((_, number)) => *number += 1,
            None => counted.push((key, 1)),
        }
    }
    counted
        .into_iter()
        .map(|([operation, reason], number)| [operation.into(), number.to_string(), reason.into()])
        .collect()
}

impl From<Account<'_>> for Failure {
    fn from(account: Account<'_>) -> Failure {
        let both = |value: f64| [decimal(value), hexadecimal(value)];
        let element = account.worst.map(|worst| Element {
            place: format!("{}{:?}", worst.tensor, worst.index),
            expected: both(worst.expected),
            actual: both(worst.actual),
            error: format!("{:.3e}", worst.error),
            bound: format!("{:.3e}", worst.bound),
            ratio: multiple(worst.ratio()),
        });
        Failure {
            what: account.what,
            case: account.case,
            wrong: account.wrong,
            meaning: account.meaning,
            effect: account.effect,
            reduced: account.reduced,
            call: account.call,
            message: account.message.filter(|_| element.is_none()),
            element,
            nearest: account.nearest.map(|bug| bug.name),
            replay: account.replay,
            numpy: account.numpy,
            others: account.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn foreign_text_is_escaped_and_nothing_is_fetched() {
        let mut report = report("eps_doubled", "rms_norm-f32-eps");
        report.gave_up = Some("<script>alert(1)</script> & {{ 7 * 7 }}".to_owned());
        let page = html(&report, 20);
        assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"), "escaped");
        assert!(page.contains("{{ 7 * 7 }}"), "no template in a template");
        for outside in ["src=", "href=\"http", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside} would be fetched");
        }
    }

    #[test]
    fn the_page_says_what_is_wrong() {
        let page = html(&report("eps_doubled", "rms_norm-f32-eps"), 20);
        for part in ["as if it adds eps twice", "eps_value", "<svg", "np.array", "NOT CONFORMANT"] {
            assert!(page.contains(part), "{part} is missing");
        }
    }
}
