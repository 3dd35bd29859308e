//! `normative verify`: recorded answers against the reference.

use std::path::PathBuf;

use clap::Args;

use super::Stop;
use super::check::expectations;
use super::goldens::{Goldens, default_folder};
use super::options::{JudgingOptions, ReportOptions, SelectionOptions};
use super::output::{Colors, publish, write_file};
use crate::golden::Key;
use crate::report::{Report, Status};

/// Judges golden files, recorded answers, against the reference.
///
/// The deviations.toml beside a file says where the recorded subject is known to leave its bound; an entry for what does
/// not happen is an error (exit status 5).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Files, or folders with files anywhere below them [default: golden].
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    selection: SelectionOptions,
    #[command(flatten)]
    judging: JudgingOptions,
    #[command(flatten)]
    report: ReportOptions,
}

const EXAMPLES: &str = "\
Examples:
  normative verify
  normative verify golden/pytorch-2.15-cpu --only 'batch_norm-*'
  normative verify recorded --write-known recorded/deviations.toml
      drafts the list of deviations";

/// # Errors
/// Wrong usage, and where the report cannot be written.
pub(super) fn run(arguments: &Arguments, colors: Colors) -> Result<Status, Stop> {
    let Arguments { selection, judging, .. } = arguments;
    let goldens = match arguments.paths.as_slice() {
        [] => Goldens::below(&default_folder()),
        paths => Goldens::read(paths),
    };
    let mut report = Report { seed: judging.seed, strict: judging.strict, ..Report::default() };
    if goldens.is_empty() {
        let paths = if arguments.paths.is_empty() { vec![default_folder()] } else { arguments.paths.clone() };
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        report.missing = Some(format!("there is no golden file below {}", names.join(", ")));
    } else if goldens.cases().next().is_some() {
        selection.check(goldens.cases())?;
    }
    let mut lists = expectations(judging, goldens.cases())?;
    goldens.judge(&mut report, selection, &mut lists);
    let draft = report.apply(&lists);
    if let Some(path) = &judging.write_known {
        write_file(path, &draft.write(Key::Deviation))?;
    }
    publish(&report, &arguments.report, colors)
}
