//! `normative replay`: a counterexample again.

use std::path::PathBuf;

use clap::Args;

use super::options::{Format, ReportOptions, RunOptions, SubjectOptions};
use super::output::{Colors, print, publish, warn};
use super::{Stop, ask};
use crate::case::{Answer, Case};
use crate::golden::GoldenFile;
use crate::report::{Report, Status, asked_of};

/// Runs the cases of a file again, as a failing check wrote it, and judges the answers.
///
/// The file says which subject it was; another can be named. A file is data, but the command that it names is run:
/// replay files that you trust.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A counterexample, or any golden file.
    file: PathBuf,
    #[command(flatten)]
    subject: SubjectOptions,
    #[command(flatten)]
    run: RunOptions,
    /// Counts misses in advisory cases too.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    report: ReportOptions,
}

const EXAMPLES: &str = "\
Examples:
  normative replay normative-failures/layer_norm-f32-size-4.safetensors
  normative replay normative-failures/layer_norm-f32-size-4.safetensors --builtin two_pass";

/// # Errors
/// A file that is none or names no subject, and where the report cannot be written.
pub(super) fn run(arguments: &Arguments, colors: Colors) -> Result<Status, Stop> {
    let path = &arguments.file;
    let bad = |why: String| Stop { status: Status::BadGolden, message: format!("{}: {why}", path.display()) };
    let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let file = GoldenFile::read(&bytes).map_err(|error| bad(error.to_string()))?;
    let asked = arguments.subject.asked().or_else(|| asked_of(&file.subject)).ok_or_else(|| {
        let place = path.display();
        Stop::usage(format!("{place} does not say who was asked; give --subject COMMAND or --builtin NAME"))
    })?;
    let mut report = Report { strict: arguments.strict, ..Report::default() };
    let cases: Vec<&Case> = file.cases.iter().map(|recorded| &recorded.case).collect();
    if arguments.subject.asked().is_none() {
        warn(&format!("asking {}", asked.option()));
    }
    ask::judge(&mut report, &asked, &arguments.run, &cases, None);
    for index in report.failures() {
        report.verdicts[index].replay = Some(path.clone());
    }
    if arguments.report.format == Format::Text && arguments.report.report.is_none() {
        for recorded in &file.cases {
            print(&format!("{}: {}\n", recorded.case.name, compared(&report, &recorded.case.name, &recorded.answers)))?;
        }
        print("\n")?;
    }
    publish(&report, &arguments.report, colors)
}

/// Whether the answers are those of the file.
fn compared(report: &Report, case: &str, recorded: &[Answer]) -> &'static str {
    let index = report.verdicts.iter().position(|verdict| verdict.case == case);
    let Some(index) = index else { return "not run" };
    let Some(exhibit) = report.exhibits.get(&index) else { return "nothing fails any more" };
    let same = exhibit.steps.len() == recorded.len()
        && exhibit.steps.iter().zip(recorded).all(|((_, now), then)| match (now, then) {
            (Ok(now), then) => same_answer(now, then),
            (Err(_), then) => matches!(then, Answer::Unsupported(_)),
        });
    if same { "the same answers as in the file" } else { "other answers than in the file" }
}

/// Whether two answers have the same tensors bit by bit, or are refusals of one kind.
fn same_answer(left: &Answer, right: &Answer) -> bool {
    let tensors = match (left.tensors(), right.tensors()) {
        (Some(left), Some(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, tensor)| right.get(name).is_some_and(|other| other.same_bits(tensor)))
        }
        (None, None) => true,
        _ => false,
    };
    let kind = |answer: &Answer| match answer {
        Answer::Refused { refusal, .. } => Some(refusal.kind),
        _ => None,
    };
    tensors && kind(left) == kind(right)
}
