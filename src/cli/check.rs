//! `normative check`: the main job.

use std::path::PathBuf;

use clap::Args;

use super::forever::{self, Until};
use super::goldens::{Goldens, default_folder, known};
use super::options::{ForeverOptions, JudgingOptions, ReportOptions, RunOptions, SelectionOptions, SubjectOptions};
use super::output::{Colors, publish, warn, write_file};
use super::{Stop, ask};
use crate::case::{Case, Flag};
use crate::golden::Key;
use crate::property;
use crate::report::{Asked, Expectations, Report, Status, write_counterexamples};
use crate::subject::Pool;

/// Judges a layer on the whole catalogue and by the properties that hold for any layer; without a subject, the suite itself.
///
/// Without a subject it judges every recorded answer below ./golden, with the deviations listed beside them, and the
/// reference on the catalogue. Where there is no such folder it judges the quick set of recorded answers that comes with
/// the program.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    subject: SubjectOptions,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    selection: SelectionOptions,
    #[command(flatten)]
    judging: JudgingOptions,
    #[command(flatten)]
    forever: ForeverOptions,
    #[command(flatten)]
    report: ReportOptions,
    /// The folder for counterexamples, one file for each failing case, the smallest first; as many as --errors says.
    #[arg(long, value_name = "DIR", default_value = "normative-failures")]
    failures: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  normative check --subject 'python3 adapters/python/pytorch.py' --jobs 2
  normative check --subject ./my_layer --only 'layer_norm-f32-*' --level quick
  normative check --subject ./my_layer --write-known known.toml
  normative check --subject ./my_layer --known known.toml
  normative check --subject ./my_layer --level forever --seconds 3600 --evidence my_layer.json
  normative check --builtin unbiased_variance --format json --report report.json";

/// # Errors
/// Wrong usage, and where the report cannot be written.
pub(super) fn run(arguments: &Arguments, colors: Colors) -> Result<Status, Stop> {
    let Arguments { subject, selection, judging, .. } = arguments;
    let mut report = Report { seed: judging.seed, strict: judging.strict, ..Report::default() };
    let properties = property::cells().map(|cell| (cell.name(), cell.property.flags.to_vec()));
    let properties: Vec<(String, Vec<Flag>)> = properties.chain(property::statistic::named()).collect();
    let until = Until::of(&arguments.forever, selection.level)?;
    if until.is_some() && !properties.iter().any(|(name, flags)| selection.picks_property(name, flags)) {
        return Err(Stop::usage(
            "--level forever draws new values for properties, and the other options leave no property",
        ));
    }
    let (expectations, mut pool) = match subject.asked() {
        Some(asked) => {
            let cases = || selection.catalogue();
            selection.check_with(cases(), &properties)?;
            let picked: Vec<&Case> = cases().filter(|case| selection.picks(case)).collect();
            let any_property = properties.iter().any(|(name, flags)| selection.picks_property(name, flags));
            if picked.is_empty() && !any_property && selection.shard.is_none() {
                return Err(Stop::usage(
                    "no case is left, nor a property: --only, --skip, --flag and --level exclude each other",
                ));
            }
            let expectations = expectations(judging, cases())?;
            (expectations, ask::judge(&mut report, &asked, &arguments.run, &picked, until.as_ref()))
        }
        None => check_itself(arguments, &mut report, &properties, until.as_ref())?,
    };
    match &until {
        None => ask::try_properties(&mut report, &mut pool, selection),
        Some(until) => forever::rounds(&mut report, &mut pool, selection, &arguments.forever, &expectations, until)?,
    }
    let draft = report.apply(&expectations);
    if let Some(path) = &judging.write_known {
        write_file(path, &draft.write(Key::Known))?;
    }
    ask::reduce(&mut report, pool, &arguments.report);
    if let Err(error) = write_counterexamples(&mut report, &arguments.failures, arguments.report.errors) {
        warn(&format!("no counterexamples: {error}"));
    }
    publish(&report, &arguments.report, colors)
}

/// The recordings, and the reference on the catalogue.
fn check_itself(
    arguments: &Arguments,
    report: &mut Report,
    properties: &[(String, Vec<Flag>)],
    until: Option<&Until>,
) -> Result<(Vec<Expectations>, Option<Pool<'static>>), Stop> {
    let folder = default_folder();
    let goldens = Goldens::below(&folder).or_quick();
    let all = || goldens.cases().chain(arguments.selection.catalogue());
    arguments.selection.check_with(all(), properties)?;
    let mut expectations = expectations(&arguments.judging, all())?;
    goldens.judge(report, &arguments.selection, &mut expectations);
    let cases = arguments.selection.catalogue();
    let cases: Vec<&Case> = cases.filter(|case| arguments.selection.picks(case)).collect();
    let pool = ask::judge(report, &Asked::Builtin("reference".to_owned()), &arguments.run, &cases, until);
    Ok((expectations, pool))
}

/// The list given to `--known`, if one was; it speaks of `cases`.
///
/// # Errors
/// Wrong usage if it cannot be read or is no list.
pub(super) fn expectations<'a>(
    judging: &JudgingOptions,
    cases: impl Iterator<Item = &'a Case>,
) -> Result<Vec<Expectations>, Stop> {
    match &judging.known {
        Some(path) => Ok(vec![known(path, cases)?]),
        None => Ok(Vec::new()),
    }
}
