//! `normative fuzz`: generated cases for a layer, for a time or for ever.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::forever::{Told, Until};
use super::options::{ReportOptions, RunOptions, SubjectOptions, seconds};
use super::output::{Colors, publish, warn, write_file};
use super::{Stop, ask};
use crate::conformance::printable;
use crate::fuzzing::Campaign;
use crate::report::{Report, Status, bug_report, count, write_counterexamples};

/// Asks a layer generated cases, guided by what it has shown, and keeps the smallest failing case of each kind.
///
/// Any operation and data type that the subject claims, with any sizes, hyper-parameters, layouts and sequences of steps:
/// a case that shows something new (a grade, a refusal, a larger error in bounds) leads to others like it. Without
/// --seconds and --cases it goes on until Ctrl-C, and the report follows. The same seed and number of cases ask the same of
/// a subject that answers the same.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    subject: SubjectOptions,
    #[command(flatten)]
    run: RunOptions,
    /// Stops after this time.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<std::time::Duration>,
    /// Stops after this many cases.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    cases: Option<u64>,
    /// The seed of the cases.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Counts misses in advisory cases too.
    #[arg(long)]
    strict: bool,
    /// Writes a bug report in Markdown, if there is a bug: what, expected, actual, and how to reproduce it.
    #[arg(long, value_name = "FILE")]
    bug_report: Option<PathBuf>,
    #[command(flatten)]
    report: ReportOptions,
    /// The folder for counterexamples, one file for each kind of failure.
    #[arg(long, value_name = "DIR", default_value = "normative-failures")]
    failures: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  normative fuzz --subject 'python3 adapters/python/pytorch.py' --seconds 600
  normative fuzz --subject ./my_layer --cases 10000 --bug-report bug.md
  normative fuzz --builtin unbiased_variance --cases 1000";

/// Cases that are asked between two looks at the clock, for each subject of the pool.
const ROUND: usize = 32;

/// # Errors
/// Wrong usage, and where signals cannot be caught or the report cannot be written.
pub(super) fn run(arguments: &Arguments, colors: Colors) -> Result<Status, Stop> {
    let Some(asked) = arguments.subject.asked() else {
        return Err(Stop::usage("whom to ask? give --subject COMMAND or --builtin NAME"));
    };
    let until = Until::within(arguments.seconds)?;
    let mut report = Report { seed: arguments.seed, strict: arguments.strict, ..Report::default() };
    let mut pool = match ask::start(&asked, &arguments.run) {
        Ok(pool) => pool,
        Err(fault) => {
            report.subject = Some((asked, None));
            report.gave_up = Some(printable(&fault.to_string()));
            return publish(&report, &arguments.report, colors);
        }
    };
    let stop = until.clone();
    pool.stop_when(Arc::new(move || stop.is_over()));
    let mut campaign = Campaign::new(pool.hello(), arguments.seed);
    let told = Told::new();
    let left = |campaign: &Campaign| arguments.cases.map_or(u64::MAX, |most| most.saturating_sub(campaign.asked()));
    while left(&campaign) > 0 && !until.is_over() && pool.gave_up().is_none() {
        let before = campaign.asked();
        campaign.go_on(&mut pool, usize::try_from(left(&campaign)).map_or(ROUND, |left| left.min(ROUND)));
        if campaign.asked() == before {
            break;
        }
        told.tell(|| progress(&campaign, &until, arguments.strict));
    }
    drop(told);
    warn(&progress(&campaign, &until, arguments.strict));
    report.add_campaign(asked, &pool, campaign.into_found());
    // What makes cases smaller asks on after the time is over.
    pool.stop_when(Arc::new(|| false));
    ask::reduce(&mut report, Some(pool), &arguments.report);
    if let Err(error) = write_counterexamples(&mut report, &arguments.failures, arguments.report.errors) {
        warn(&format!("no counterexamples: {error}"));
    }
    if let Some(path) = &arguments.bug_report
        && let Some(text) = bug_report(&report, arguments.report.errors)
    {
        write_file(path, &text)?;
    }
    publish(&report, &arguments.report, colors)
}

/// How far it is, in a line.
fn progress(campaign: &Campaign, until: &Until, strict: bool) -> String {
    let cases = count(usize::try_from(campaign.asked()).unwrap_or(usize::MAX), "case");
    let (seconds, features) = (until.elapsed().as_secs(), count(campaign.seen(), "feature"));
    let failures = count(campaign.failures(strict), "kind");
    format!("{cases} in {seconds} s, {features} of answers, {failures} of failure")
}
