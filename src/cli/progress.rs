//! Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long work takes before a bar shows it.
const LONG: Duration = Duration::from_millis(500);
/// How long work takes before lines tell of it, and between them.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

/// The progress of one piece of work.
pub(super) struct Progress {
    what: &'static str,
    total: usize,
    bar: Option<ProgressBar>,
    started: Instant,
    told: Mutex<Instant>,
}

impl Progress {
    /// Of `total` things, called `what` in the plural.
    pub fn new(what: &'static str, total: usize) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}/{duration}");
            let hidden = ProgressDrawTarget::hidden();
            let bar = ProgressBar::with_draw_target(Some(total as u64), hidden).with_message(what);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let now = Instant::now();
        Progress { what, total, bar, started: now, told: Mutex::new(now) }
    }

    /// `done` of them are done.
    pub fn tell(&self, done: usize) {
        if let Some(bar) = &self.bar {
            if bar.is_hidden() && self.started.elapsed() >= LONG {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            bar.set_position(done as u64);
            return;
        }
        let Ok(mut told) = self.told.lock() else { return };
        if told.elapsed() >= NOW_AND_THEN {
            *told = Instant::now();
            let _ = writeln!(stderr(), "normative: {done} of {} {}", self.total, self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
