//! JUnit: a suite for each recording and for the subject, a test for each case, as CI systems show them.
//!
//! A failure is a failure, a crash or a timeout an error. A case that is not supported, or fails as a list expects, is
//! skipped with its reason.

use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use super::{Report, Status};
use crate::conformance::{Verdict, title};
use crate::judge::Outcome;

/// The report as JUnit's XML.
pub fn junit(report: &Report) -> String {
    let mut document = Document::new("normative");
    for recording in &report.recordings {
        document.add_test_suite(suite(report, &recording.name, Some(&recording.name)));
    }
    if let Some((asked, hello)) = &report.subject {
        let name = hello.as_ref().map_or_else(|| asked.option(), title);
        document.add_test_suite(suite(report, &name, None));
    }
    if let Some(trouble) = trouble(report) {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(trouble);
        let mut suite = TestSuite::new("normative");
        suite.add_test_case(TestCase::new("the run itself", status));
        document.add_test_suite(suite);
    }
    document.to_string().expect("a report is XML")
}

fn suite(report: &Report, name: &str, recording: Option<&str>) -> TestSuite {
    let mut suite = TestSuite::new(name);
    for verdict in report.verdicts.iter().filter(|verdict| verdict.recording.as_deref() == recording) {
        let mut case = TestCase::new(verdict.case.as_str(), status(report, verdict));
        case.set_classname(format!("{}.{}", verdict.operation, verdict.dtype));
        suite.add_test_case(case);
    }
    suite
}

fn status(report: &Report, verdict: &Verdict) -> TestCaseStatus {
    let skipped = |why: String| {
        let mut status = TestCaseStatus::skipped();
        status.set_message(why);
        status
    };
    if let Some(reason) = &verdict.known {
        return skipped(format!("fails as expected: {reason}"));
    }
    let kind = match verdict.outcome {
        Outcome::Unsupported => return skipped(verdict.message.clone()),
        _ if !verdict.counts(report.strict) => return TestCaseStatus::success(),
        Outcome::Crash | Outcome::Timeout => NonSuccessKind::Error,
        _ => NonSuccessKind::Failure,
    };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(verdict.flag().map_or(verdict.outcome.name(), |flag| flag.name()));
    status.set_message(match verdict.nearest_bug.filter(|_| verdict.matches_bug) {
        Some(bug) => format!("{}: {}", bug.sentence, first_line(&verdict.message)),
        None => first_line(&verdict.message).to_owned(),
    });
    let replay = verdict.replay.as_ref().map_or(String::new(), |path| format!("\nnormative replay {}", path.display()));
    status.set_description(format!("{}\n{}{replay}", verdict.comment, verdict.message));
    status
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What keeps the report from being whole.
fn trouble(report: &Report) -> Option<String> {
    let mut lines: Vec<String> =
        report.unreadable.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
    lines.extend(report.stale.iter().map(ToString::to_string));
    lines.extend(report.missing.clone());
    lines.extend(report.gave_up.as_ref().map(|why| format!("the subject could not be run to the end: {why}")));
    if lines.is_empty() && report.status() == Status::Incomplete {
        lines.push("nothing was judged".to_owned());
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn failures_and_skips_are_what_they_are() {
        let mut report = report("eps_dropped", "layer_norm-f32-");
        let failures = report.failures();
        report.verdicts[failures[0]].known = Some("<it> & \"that\"".to_owned());
        report.verdicts[failures[1]].message = "a\u{1}b".to_owned();
        let xml = junit(&report);
        assert!(xml.contains(&format!("failures=\"{}\"", failures.len() - 1)), "{xml}");
        assert!(xml.contains("fails as expected: &lt;it&gt; &amp; &quot;that&quot;"), "{xml}");
        assert!(xml.contains("type=\"eps_value\"") && !xml.contains('\u{1}'), "{xml}");
    }

    #[test]
    fn what_could_not_be_run_is_an_error() {
        let xml = junit(&Report::default());
        assert!(xml.contains("errors=\"1\"") && xml.contains("nothing was judged"), "{xml}");
    }
}
