//! Reducing what a report shows: each failure in full gets the smallest case found that fails in the same way.

use std::time::{Duration, Instant};

use super::cause::is_of_many;
use super::{Cause, Exhibit, Report};
use crate::case::{Case, Declared};
use crate::conformance::{Verdict, explains, shrink, verdict_of_run};
use crate::judge::{Expected, Outcome};
use crate::subject::planted::Bug;
use crate::subject::{CaseRun, Pool};

/// The end of a reduced case's name.
pub(super) const REDUCED: &str = "-reduced";
/// The time for all reductions of a report together: a slow subject keeps its larger cases.
const TIME: Duration = Duration::from_secs(10);

impl Report {
    /// Reduces the first failure of each of the first `limit` groups: it asks the pool's subjects again, at most `asks`
    /// times for each. Crashes and timeouts are left as they are, and so are related calls, which cannot be made smaller
    /// one by one.
    pub fn reduce(&mut self, pool: &mut Pool<'_>, limit: usize, asks: usize) {
        let started = Instant::now();
        for group in self.groups().into_iter().take(limit) {
            let index = group.members[0];
            let (verdict, Some(exhibit)) = (&self.verdicts[index], self.exhibits.get(&index)) else { continue };
            if !matches!(verdict.outcome, Outcome::Fail | Outcome::Advisory)
                || exhibit.file.is_some()
                || is_of_many(verdict)
            {
                continue;
            }
            let smallest = reduced(verdict, exhibit, &group.cause, pool, asks, started);
            if let Some(exhibit) = self.exhibits.get_mut(&index) {
                exhibit.smallest = smallest.map(Box::new);
            }
        }
    }
}

/// A smaller case, its verdict and its answers, if there is one.
fn reduced(
    verdict: &Verdict,
    exhibit: &Exhibit,
    cause: &Cause,
    pool: &mut Pool<'_>,
    asks: usize,
    started: Instant,
) -> Option<(Verdict, Exhibit)> {
    let declared = exhibit.declared;
    let mut found: Option<(Verdict, Exhibit)> = None;
    let mut still = |candidate: &Case| {
        if started.elapsed() > TIME || pool.gave_up().is_some() {
            return false;
        }
        let run = pool.run(&[candidate], &|_| ()).remove(0);
        let mut now = verdict_of_run(candidate, &run, &declared);
        if now.outcome != verdict.outcome || !alike(&mut now, &run, cause, &declared) {
            return false;
        }
        let exhibit = Exhibit { case: candidate.clone(), steps: run.steps, declared, file: None, smallest: None };
        found = Some((now, exhibit));
        true
    };
    let mut case = exhibit.case.clone();
    let name: String = case.name.chars().take(100 - REDUCED.len()).collect();
    case.name = name + REDUCED;
    // The step that failed alone, with the state that it was sent, is a case of its own.
    let alone = Case { steps: vec![exhibit.steps[verdict.step].0.call.clone()], ..case.clone() };
    let start = if case.steps.len() > 1 && still(&alone) { alone } else { case };
    shrink(&start, &mut still, asks);
    found
}

/// Whether a verdict has the cause of the failure that is reduced.
fn alike(now: &mut Verdict, run: &CaseRun, cause: &Cause, declared: &Declared) -> bool {
    match cause {
        Cause::Bug(name) => {
            let Some((bug, (request, Ok(answer)))) = Bug::from_name(name).zip(run.steps.get(now.step)) else {
                return false;
            };
            let expected = Expected::of(&request.call);
            let one_pass = now.nearest_bug.is_some_and(|nearest| nearest.name == bug.name);
            let explained = one_pass || explains(bug, &request.call, &expected, answer, declared).is_some();
            (now.nearest_bug, now.matches_bug) = (Some(bug), true);
            explained
        }
        cause => {
            now.matches_bug = false;
            Cause::of(now) == *cause
        }
    }
}
