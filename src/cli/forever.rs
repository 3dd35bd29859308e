//! `normative check --level forever`: properties on new values, round after round, until one fails or someone stops it.
//!
//! A round tries each property, and asks each statistic once, on the values of a seed of its own. Properties that fail are
//! wrong; statistics fail by the evidence of all rounds, and of the runs before where they are kept in a file, so that a
//! correct layer is accused in at most one of a million files, however long it is asked (see
//! [`Evidence`](crate::property::statistic::Evidence)).

use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

use super::Stop;
use super::options::{ForeverOptions, Level, SelectionOptions};
use super::output::warn;
use crate::conformance::{Shown, Verdict};
use crate::property::statistic::{self, Ledger, LedgerError, alarm};
use crate::property::{self, ROUNDS};
use crate::report::{Expectations, Report, count};
use crate::subject::Pool;

/// The time between two lines of progress where standard error is no terminal.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

/// When to stop: at a signal, or when the time is over.
#[derive(Clone, Debug)]
pub(super) struct Until {
    started: Instant,
    /// `None`: no time is set.
    deadline: Option<Instant>,
    interrupted: Arc<AtomicBool>,
}

impl Until {
    /// As the options say; `None` where the level has an end of its own.
    ///
    /// # Errors
    /// Wrong usage for options that such a level has no use for, and where signals cannot be caught.
    pub fn of(options: &ForeverOptions, level: Level) -> Result<Option<Until>, Stop> {
        if level != Level::Forever {
            let given = [
                (options.seconds.is_some(), "--seconds"),
                (options.rounds.is_some(), "--rounds"),
                (options.evidence.is_some(), "--evidence"),
            ];
            return match given.into_iter().find(|(given, _)| *given) {
                Some((_, name)) => Err(Stop::usage(format!("{name} is for --level forever"))),
                None => Ok(None),
            };
        }
        Until::within(options.seconds).map(Some)
    }

    /// When this time is over, or, with none, at a signal alone.
    ///
    /// # Errors
    /// Where signals cannot be caught.
    pub fn within(limit: Option<Duration>) -> Result<Until, Stop> {
        let (started, interrupted) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let deadline = limit.and_then(|limit| started.checked_add(limit));
        // A hangup is left as it is: under `nohup` it is ignored, and the run goes on.
        for signal in [SIGINT, SIGTERM] {
            // Twice is at once; 130 is what a shell says of a program that was interrupted.
            register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))
                .and_then(|_| register(signal, Arc::clone(&interrupted)))
                .map_err(|error| {
                    let limits = "a run with an end needs none";
                    Stop::incomplete(format!("signals cannot be caught: {error}; {limits}"))
                })?;
        }
        Ok(Until { started, deadline, interrupted })
    }

    /// The time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether to stop now.
    pub fn is_over(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Tries the properties that the options mean, round after round, and keeps the worst verdict on each in the report. The first
/// round tries what `--level full` does; a report that is stopped before its end says so.
///
/// # Errors
/// Where the file of evidence cannot be read or written, or is another subject's.
pub(super) fn rounds(
    report: &mut Report,
    pool: &mut Option<Pool<'_>>,
    selection: &SelectionOptions,
    options: &ForeverOptions,
    expectations: &[Expectations],
    until: &Until,
) -> Result<(), Stop> {
    let Some(pool) = pool.as_mut() else { return Ok(()) };
    let path = options.evidence.as_deref();
    let mut ledger = match path {
        Some(path) => Ledger::load(path, pool.hello()).map_err(|error| refused(path, &error))?,
        None => Ledger::new(pool.hello()),
    };
    let first = ledger.next_seed.max(report.seed);
    let told = Told::new();
    let mut done = 0;
    let mut failed = report.verdicts.iter().any(|verdict| is_news(verdict, report.strict, expectations));
    while !failed && !until.is_over() && report.gave_up.is_none() && options.rounds.is_none_or(|most| done < most.get())
    {
        let Some(next) = first.checked_add(done + 1) else { break };
        report.seed = next - 1;
        failed = round(report, pool, selection, &mut ledger, expectations);
        let cut_short = until.is_over();
        ledger.next_seed = next;
        if let Some(path) = path {
            ledger.save(path).map_err(|error| Stop::incomplete(format!("{}: {error}", path.display())))?;
        }
        done += 1;
        // Of a round that was cut short nothing is known but what it found.
        report.stopped |= done == 1 && cut_short && !failed;
        told.tell(|| progress(done, report.seed, until, &ledger));
    }
    report.stopped |= done == 0 && !failed && report.gave_up.is_none();
    drop(told);
    warn(&match (failed, done) {
        (true, 0) => "the catalogue fails: no round of properties was tried".to_owned(),
        (true, _) => format!(
            "{}: it fails; check --seed {} draws the same values",
            progress(done, report.seed, until, &ledger),
            report.seed
        ),
        (false, _) => progress(done, report.seed, until, &ledger),
    });
    Ok(())
}

/// One round, on the values of the report's seed. Whether something failed that was not expected.
fn round(
    report: &mut Report,
    pool: &mut Pool<'_>,
    selection: &SelectionOptions,
    ledger: &mut Ledger,
    expectations: &[Expectations],
) -> bool {
    let strict = report.strict;
    let news = |found: &[(Verdict, Shown)]| found.iter().any(|(verdict, _)| is_news(verdict, strict, expectations));
    let found = property::check(pool, report.seed, ROUNDS, &|name, flags| selection.picks_property(name, flags));
    let failed = news(&found);
    report.add_round(pool, found);
    if failed {
        return true;
    }
    let picked = statistic::named();
    let picks = |name: &str| picked.iter().any(|(other, flags)| other == name && selection.picks_property(name, flags));
    let found = statistic::accumulate(pool, report.seed, ledger, &picks);
    let failed = news(&found);
    report.add_round(pool, found);
    failed
}

/// Whether a verdict makes the subject not conformant, and no list expects it.
fn is_news(verdict: &Verdict, strict: bool, expectations: &[Expectations]) -> bool {
    verdict.counts(strict) && !expectations.iter().any(|expected| expected.entry(verdict).is_some())
}

fn refused(path: &Path, error: &LedgerError) -> Stop {
    let message = format!("--evidence {}: {error}", path.display());
    if matches!(error, LedgerError::Io(_)) { Stop::incomplete(message) } else { Stop::usage(message) }
}

/// How far it is, in a line.
fn progress(done: u64, seed: u64, until: &Until, ledger: &Ledger) -> String {
    let rounds = count(usize::try_from(done).unwrap_or(usize::MAX), "round");
    let seconds = until.elapsed().as_secs();
    let seed = if done == 0 { String::new() } else { format!(", the last of seed {seed}") };
    let strongest = ledger.strongest().map_or(String::new(), |(name, evidence)| {
        let (largest, enough) = (evidence.exponent(), alarm().log10());
        format!("; strongest evidence e = 10^{largest:.1} of 10^{enough:.1} ({name})")
    });
    format!("{rounds} in {seconds} s{seed}{strongest}")
}

/// Progress without an end: a line that is written over on a terminal, a line now and then elsewhere.
pub(super) struct Told {
    bar: Option<ProgressBar>,
    last: std::cell::Cell<Instant>,
}

impl Told {
    pub fn new() -> Told {
        let style =
            ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = stderr().is_terminal().then(|| ProgressBar::new_spinner().with_style(style));
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Told { bar, last: std::cell::Cell::new(Instant::now()) }
    }

    pub fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(line());
        } else if self.last.get().elapsed() >= NOW_AND_THEN {
            self.last.set(Instant::now());
            let _ = writeln!(stderr(), "normative: {}", line());
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
