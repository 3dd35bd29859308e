//! The report for machines: `docs/report.schema.json` describes it.

use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Value, json as value};

use super::{Report, Summary, hexadecimal};
use crate::case::{Flag, catalogue};
use crate::conformance::Verdict;
use crate::judge::Outcome;
use crate::operation::json_float;

/// The version of this form of report.
const VERSION: u64 = 1;

#[derive(Serialize)]
struct Document<'a> {
    normative: u64,
    version: &'static str,
    catalogue: &'static str,
    seed: u64,
    strict: bool,
    status: u8,
    subject: Option<Value>,
    recordings: Vec<Value>,
    gave_up: Option<&'a str>,
    not_run: usize,
    missing: Option<&'a str>,
    unreadable: Vec<Value>,
    stale: Vec<Value>,
    summary: Summary,
    /// Left to be written a line each: it must be the last.
    verdicts: [(); 0],
}

#[derive(Serialize)]
struct Line<'a> {
    case: &'a str,
    operation: &'static str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    recording: Option<&'a str>,
    level: crate::case::Level,
    flags: &'a [Flag],
    verdict: &'static str,
    step: usize,
    #[serde(with = "json_float::option", skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grade: Option<&'static str>,
    #[serde(flatten)]
    element: Option<Element<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<Flag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest_bug: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches_bug: Option<bool>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<String>,
}

/// The worst element of the step that decided.
#[derive(Serialize)]
struct Element<'a> {
    tensor: &'a str,
    index: &'a [usize],
    expected: String,
    actual: String,
    #[serde(with = "json_float")]
    error: f64,
    #[serde(with = "json_float")]
    bound: f64,
}

/// The report as JSON text, a line for each verdict.
pub fn json(report: &Report) -> String {
    let subject = report.subject.as_ref().map(|(asked, hello)| {
        let mut subject = value!(hello);
        if subject.is_null() {
            subject = value!({});
        }
        let (key, text) = asked.detail();
        subject["details"][key] = text.into();
        subject
    });
    let recordings = report.recordings.iter().map(|recording| {
        value!({
            "name": recording.name,
            "provenance": recording.provenance.name(),
            "subject": recording.subject,
        })
    });
    let stale = report.stale.iter().map(|stale| {
        value!({
            "path": stale.path.to_string_lossy(),
            "line": stale.entry.line,
            "case": stale.entry.case,
            "tensor": stale.entry.tensor,
            "message": stale.to_string(),
        })
    });
    let unreadable = report.unreadable.iter();
    let document = Document {
        normative: VERSION,
        version: env!("CARGO_PKG_VERSION"),
        catalogue: catalogue::VERSION,
        seed: report.seed,
        strict: report.strict,
        status: report.status().code(),
        subject,
        recordings: recordings.collect(),
        gave_up: report.gave_up.as_deref(),
        not_run: report.not_run,
        missing: report.missing.as_deref(),
        unreadable: unreadable.map(|(path, why)| value!({"path": path.to_string_lossy(), "message": why})).collect(),
        stale: stale.collect(),
        summary: report.summary(),
        verdicts: [],
    };
    let text = serde_json::to_string_pretty(&document).expect("a report is JSON");
    let head = text.strip_suffix("]\n}").expect("the verdicts are last");
    let lines: Vec<String> = report
        .verdicts
        .par_iter()
        .map(|verdict| serde_json::to_string(&line(verdict)).expect("a verdict is JSON"))
        .collect();
    format!("{head}\n    {}\n  ]\n}}\n", lines.join(",\n    "))
}

fn line(verdict: &Verdict) -> Line<'_> {
    Line {
        case: &verdict.case,
        operation: verdict.operation,
        kind: verdict.kind.name(),
        recording: verdict.recording.as_deref(),
        level: verdict.level,
        flags: &verdict.flags,
        verdict: verdict.outcome.name(),
        step: verdict.step,
        ratio: verdict.ratio,
        grade: verdict.grade.map(|grade| grade.name()),
        element: verdict.worst.as_ref().map(|worst| Element {
            tensor: &worst.tensor,
            index: &worst.index,
            expected: hexadecimal(worst.expected),
            actual: hexadecimal(worst.actual),
            error: worst.error,
            bound: worst.bound,
        }),
        flag: verdict.flag().filter(|_| verdict.outcome == Outcome::Fail),
        nearest_bug: verdict.nearest_bug.map(|bug| bug.name),
        matches_bug: verdict.nearest_bug.map(|_| verdict.matches_bug),
        message: &verdict.message,
        known: verdict.known.as_deref(),
        replay: verdict.replay.as_ref().map(|path| path.to_string_lossy().into_owned()),
    }
}
