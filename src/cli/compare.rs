//! `normative compare`: a subject's answers and recorded ones, bit by bit.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use serde_json::json;

use super::goldens::Goldens;
use super::options::{RunOptions, SelectionOptions, SubjectOptions};
use super::output::{print, table};
use super::progress::Progress;
use super::{Stop, ask};
use crate::conformance::{Compared, Sameness, compare, counted, printable, title};
use crate::report::{Rows, Status, count};

/// Asks a subject what golden files hold, and compares its answers with the recorded ones bit by bit.
///
/// This says whether they are the same, not whether they are right (`normative check`, `normative verify`): correct
/// programs differ in their last bits. Exit status 1 if any differ, 3 if nothing could be compared.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("asked").required(true).args(["subject", "builtin"]))]
pub(super) struct Arguments {
    /// Files, or folders with files anywhere below them.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    subject: SubjectOptions,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    selection: SelectionOptions,
    /// The form of what is found.
    #[arg(long, value_enum, default_value_t = Form::Text, value_name = "FORMAT")]
    format: Form,
    /// Shows at most this many cases that differ.
    #[arg(long, value_name = "N", default_value_t = 20)]
    errors: usize,
}

const EXAMPLES: &str = "\
Examples:
  normative compare golden/pytorch-2.15-cuda-sm80-simulated --builtin cuda-order
  normative compare golden/pytorch-2.15-cpu --subject 'python3 adapters/python/pytorch.py' --only 'layer_norm-f32-*'";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table for people.
    Text,
    /// For machines.
    Json,
}

/// # Errors
/// Wrong usage; a golden file that cannot be read; a subject that does not start.
pub(super) fn run(arguments: &Arguments) -> Result<Status, Stop> {
    let Arguments { paths, subject, selection, .. } = arguments;
    let asked = subject.asked().ok_or_else(|| Stop::usage("give --subject COMMAND or --builtin NAME"))?;
    let goldens = Goldens::read(paths);
    if let Some((path, reason)) = goldens.unreadable().first() {
        return Err(Stop { status: Status::BadGolden, message: format!("{}: {reason}", path.display()) });
    }
    if goldens.is_empty() {
        return Err(Stop::incomplete("there is no golden file below these paths"));
    }
    selection.check(goldens.cases())?;
    let mut pool = ask::start(&asked, &arguments.run).map_err(|fault| Stop::incomplete(fault.to_string()))?;
    let who = title(pool.hello());
    let progress = Progress::new("cases", goldens.cases().count());
    let mut found: Vec<(String, Vec<Compared>)> = Vec::new();
    for (recording, recorded) in goldens.recorded(selection) {
        let name = format!("{} ({})", recording.name, recording.provenance.name());
        let done: usize = found.iter().map(|(_, compared)| compared.len()).sum();
        found.push((name, compare(&mut pool, &recorded, &|now| progress.tell(done + now))));
    }
    drop(progress);
    print(&match arguments.format {
        Form::Text => text(&who, &found, arguments.errors),
        Form::Json => format!("{:#}\n", as_json(&who, &found)),
    })?;
    let outcomes = || found.iter().flat_map(|(_, compared)| compared.iter().map(|compared| &compared.outcome));
    Ok(if outcomes().any(|outcome| matches!(outcome, Sameness::Differing(_))) {
        Status::NotConformant
    } else if outcomes().any(|outcome| *outcome == Sameness::Equal) {
        Status::Conformant
    } else {
        Status::Incomplete
    })
}

fn text(who: &str, found: &[(String, Vec<Compared>)], errors: usize) -> String {
    let header = vec![
        "recording",
        "operation",
        "cases",
        "equal",
        "differing",
        "unanswered",
        "values",
        "other bits",
        "by one unit",
    ];
    let mut rows = Rows { header, cells: Vec::new() };
    let (mut equal, mut differing) = (0, 0);
    for (name, compared) in found {
        let mut name = Some(name.clone());
        let mut counts = counted(compared);
        // A subject that claims one operation is not shown all others.
        if counts.values().any(|of| of.unanswered < of.cases) {
            counts.retain(|_, of| of.unanswered < of.cases);
        }
        for (operation, of) in counts {
            (equal, differing) = (equal + of.equal, differing + of.differing);
            let counts = [of.cases, of.equal, of.differing, of.unanswered, of.values, of.other_values, of.neighbours];
            let cells = [name.take().unwrap_or_default(), operation.to_owned()].into_iter();
            rows.cells.push(cells.chain(counts.iter().map(usize::to_string)).collect());
        }
    }
    let mut lines = vec![table(&rows)];
    let all = || found.iter().flat_map(|(_, compared)| compared);
    let differences = all().filter_map(|compared| match &compared.outcome {
        Sameness::Differing(difference) => Some((&compared.case, difference)),
        _ => None,
    });
    for (case, difference) in differences.take(errors) {
        lines.push(printable(&format!("{case}: {}", difference.first)));
    }
    if differing > errors {
        lines.push(format!("… and {} more", differing - errors));
    }
    lines.push(format!("{who}: {} with the same bits, {differing} with others", count(equal, "case")));
    lines.join("\n") + "\n"
}

fn as_json(who: &str, found: &[(String, Vec<Compared>)]) -> serde_json::Value {
    let case = |compared: &Compared| {
        let (outcome, why) = match &compared.outcome {
            Sameness::Equal => ("equal", None),
            Sameness::Differing(difference) => ("differing", Some(difference.first.clone())),
            Sameness::Unanswered(why) => ("unanswered", Some(why.clone())),
        };
        let (other, neighbours) = match &compared.outcome {
            Sameness::Differing(difference) => (difference.values, difference.neighbours),
            _ => (0, 0),
        };
        json!({
            "case": compared.case,
            "operation": compared.operation,
            "outcome": outcome,
            "message": why,
            "values": compared.values,
            "other_values": other,
            "neighbours": neighbours,
        })
    };
    let recordings = found
        .iter()
        .map(|(name, compared)| json!({"recording": name, "cases": compared.iter().map(case).collect::<Vec<_>>()}));
    json!({"normative": 1, "subject": who, "recordings": recordings.collect::<Vec<_>>()})
}
