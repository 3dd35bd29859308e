//! Asking a subject: from the options to a report.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use super::forever::Until;
use super::options::{Level, ReportOptions, RunOptions, SelectionOptions};
use super::progress::Progress;
use crate::case::Case;
use crate::conformance::{check, printable};
use crate::property::{self, QUICK_ROUNDS, ROUNDS, statistic};
use crate::report::{Asked, Report};
use crate::subject::{Builtin, Fault, Pool, Program, Skipped, Subject, Timeouts};

/// Starts as many of the subject as the options say.
///
/// # Errors
/// The fault of a program that does not start or says no hello.
pub(super) fn start(asked: &Asked, options: &RunOptions) -> Result<Pool<'static>, Fault> {
    let default = match asked {
        Asked::Program(_) => NonZeroUsize::MIN,
        Asked::Builtin(_) | Asked::Layer(_) => thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let timeouts = Timeouts { case: options.timeout, ..Timeouts::default() };
    Pool::start(options.jobs.unwrap_or(default), &|| {
        Ok(match asked {
            Asked::Program(command) => Box::new(Program::start(command, timeouts)?) as Box<dyn Subject>,
            Asked::Builtin(name) => Box::new(Builtin::new(name).expect("the options take no other name")),
            Asked::Layer(name) => {
                let reason = "it is a layer in Rust, which its own test judges".to_owned();
                return Err(Fault::NotStarted { command: name.clone(), reason });
            }
        })
    })
}

/// The cases in dialects that the subject speaks, of the operations that it claims; all of them if it speaks none of these.
pub(super) fn spoken<'a>(pool: &Pool<'_>, cases: &[&'a Case]) -> Vec<&'a Case> {
    let foreign = |case: &Case| matches!(pool.hello().lacks(&case.steps[0]), Some(Skipped::Dialect { .. }));
    let spoken: Vec<&Case> = cases.iter().copied().filter(|case| !foreign(case)).collect();
    if spoken.is_empty() { cases.to_vec() } else { spoken }
}

/// Has the subject answer `cases`, and adds the verdicts to the report. A subject that does not start is in the report
/// as one that was given up; one that does can be asked more, until `until` is over.
pub(super) fn judge(
    report: &mut Report,
    asked: &Asked,
    options: &RunOptions,
    cases: &[&Case],
    until: Option<&Until>,
) -> Option<Pool<'static>> {
    let mut pool = match start(asked, options) {
        Ok(pool) => pool,
        Err(fault) => {
            report.subject = Some((asked.clone(), None));
            report.gave_up = Some(printable(&fault.to_string()));
            report.not_run = cases.len();
            return None;
        }
    };
    let cases = &spoken(&pool, cases);
    if let Some(until) = until.cloned() {
        pool.stop_when(Arc::new(move || until.is_over()));
    }
    let progress = Progress::new("cases", cases.len());
    let (verdicts, runs) = check(&mut pool, cases, &|done| progress.tell(done));
    report.add_runs(asked.clone(), &pool, cases, verdicts, runs);
    report.stopped = report.not_run > 0 && report.gave_up.is_none();
    Some(pool)
}

/// Tries the properties and statistics that the options mean on the subject that was asked, and adds their verdicts.
pub(super) fn try_properties(report: &mut Report, pool: &mut Option<Pool<'_>>, selection: &SelectionOptions) {
    let Some(pool) = pool.as_mut().filter(|pool| pool.gave_up().is_none()) else { return };
    let rounds = if selection.level == Level::Quick { QUICK_ROUNDS } else { ROUNDS };
    let found = property::check(pool, report.seed, rounds, &|name, flags| selection.picks_property(name, flags));
    report.add_properties(pool, found);
    if selection.level != Level::Quick {
        let picked: BTreeSet<String> = statistic::named()
            .into_iter()
            .filter(|(name, flags)| selection.picks_property(name, flags))
            .map(|it| it.0)
            .collect();
        let found = statistic::check(pool, report.seed, &|name| picked.contains(name));
        report.add_properties(pool, found);
    }
}

/// Makes the failures that the report shows in full smaller.
pub(super) fn reduce(report: &mut Report, pool: Option<Pool<'_>>, options: &ReportOptions) {
    if let Some(mut pool) = pool.filter(|_| options.shrink > 0) {
        report.reduce(&mut pool, options.errors, options.shrink);
    }
}
