//! Target `report`: whatever a subject says and answers, what is reported is well-formed.

use super::generator::Wanted;
use super::markup;
use crate::case::values::Values;
use crate::case::{Answer, Case, Hello, Request};
use crate::conformance::{check, printable};
use crate::operation::{Refusal, RefusalKind};
use crate::report::{Asked, Paint, Report, annotations, html, json, junit, step_summary, text};
use crate::subject::{Builtin, Fault, Pool, Subject};

/// Bytes that choose answers and cases; those after them are what the subject says.
const CHOICES: usize = 48;

/// Has a hostile subject answer a few cases, and reports it in every form.
///
/// - The JSON reads back, with a verdict for each case and a summary that adds up.
/// - JUnit's XML and the page are well-formed, and hold no control character.
/// - An annotation is one line; the text has no control characters but line ends.
///
/// # Panics
/// If one of these does not hold.
pub fn report(data: &[u8]) {
    let (choices, said) = data.split_at(data.len().min(CHOICES));
    let mut values = Values::of_bytes(choices);
    let said = String::from_utf8_lossy(said).into_owned();
    let names: Vec<&str> = Builtin::all().iter().map(|&(name, _)| name).collect();
    let inner = Builtin::new(values.pick(&names)).expect("it is compiled in");
    let hello = Hello { name: said.clone(), device: said.clone(), version: said.clone(), ..inner.hello().clone() };
    let cases: Vec<Case> = (0..1 + values.below(3))
        .map(|number| Case { name: format!("fuzzing-{number}"), ..Wanted::ANY.drawn(&mut values) })
        .collect();
    let subject = Hostile { hello, inner, values: values.clone(), said: said.clone() };
    let mut pool = Pool::of(Box::new(subject));
    let cases: Vec<&Case> = cases.iter().filter(|case| case.steps.iter().all(super::is_bounded)).collect();
    let (verdicts, runs) = check(&mut pool, &cases, &|_| ());
    let judged = verdicts.len();
    let mut report = Report { strict: values.below(2) == 0, ..Report::default() };
    report.add_runs(Asked::Program(said.clone()), &pool, &cases, verdicts, runs);
    for verdict in report.verdicts.iter_mut().filter(|_| values.below(4) == 0) {
        // The reason stands in a list of the user's own.
        verdict.known = Some(printable(&said));
    }
    check_forms(&report, judged);
}

fn check_forms(report: &Report, judged: usize) {
    let document: serde_json::Value = serde_json::from_str(&json(report)).expect("the report is JSON");
    assert_eq!(document["verdicts"].as_array().map(Vec::len), Some(judged));
    let counts = document["summary"].as_object().expect("a summary").values();
    assert_eq!(counts.filter_map(serde_json::Value::as_u64).sum::<u64>(), judged as u64);
    let xml = junit(report);
    markup::check(&xml, false).unwrap_or_else(|wrong| panic!("{wrong} in\n{xml}"));
    let page = html(report, 20);
    markup::check(&page, true).unwrap_or_else(|wrong| panic!("{wrong} in\n{page}"));
    for line in annotations(report, 20).lines() {
        assert!(line.starts_with("::"), "no annotation: {line:?}");
    }
    for written in [text(report, "", 20, Paint::default()), annotations(report, 20), step_summary(report, "", 20)] {
        let control = written.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "{written:?}");
    }
}

/// A subject that answers, refuses, fails and says whatever it likes.
struct Hostile {
    hello: Hello,
    inner: Builtin,
    values: Values,
    said: String,
}

impl Subject for Hostile {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        let (status, stderr, reason) = (self.said.clone(), self.said.clone(), self.said.clone());
        match self.values.below(10) {
            0 => Err(Fault::Exited { status, stderr }),
            1 => Err(Fault::Malformed { reason, stderr }),
            2 => Err(Fault::Panicked(reason)),
            3 => Ok(Answer::Unsupported(reason)),
            4 => {
                let refusal = Refusal::new(RefusalKind::TooFewValues, reason);
                Ok(Answer::Refused { refusal, state: Default::default() })
            }
            5 => {
                let mut answer = self.inner.answer(request)?;
                if let Answer::Tensors(tensors) = &mut answer
                    && let Some(output) = tensors.remove("output")
                {
                    tensors.insert(reason, output);
                }
                Ok(answer)
            }
            _ => self.inner.answer(request),
        }
    }
}
