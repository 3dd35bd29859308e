//! Causes: which failures look alike, and which planted bug explains them.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::{Exhibit, Report};
use crate::conformance::{Verdict, explains};
use crate::judge::{Expected, Grade, Outcome};
use crate::subject::planted::Bug;

/// What failures have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Their answers are those of the planted bug of this name.
    Bug(&'static str),
    /// No planted bug explains them; they are of one operation and fail in the same way.
    Alike {
        /// The operation.
        operation: &'static str,
        /// In what way they fail, for comparison.
        kind: String,
    },
}

/// Failures with the same cause.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they have in common.
    pub cause: Cause,
    /// The verdicts' indices, the smallest case first.
    pub members: Vec<usize>,
}

impl Report {
    /// The failures by cause, the most frequent first.
    pub fn groups(&self) -> Vec<Group> {
        let mut by_cause: BTreeMap<Cause, Vec<usize>> = BTreeMap::new();
        for index in self.failures() {
            by_cause.entry(Cause::of(&self.verdicts[index])).or_default().push(index);
        }
        let groups = by_cause.into_iter().map(|(cause, mut members)| {
            members.sort_by_key(|index| (self.exhibits.get(index).map_or(usize::MAX, Exhibit::elements), *index));
            Group { cause, members }
        });
        let mut groups: Vec<Group> = groups.collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.members.len()));
        groups
    }

    /// Names for each failure the planted bug that explains it and as many of the others as possible: on a single case
    /// two bugs may look the same.
    pub(super) fn attribute(&mut self) {
        let failures: Vec<usize> =
            (0..self.verdicts.len()).filter(|&index| self.verdicts[index].outcome == Outcome::Fail).collect();
        let candidates: BTreeSet<&str> =
            failures.iter().filter_map(|&index| Some(self.verdicts[index].nearest_bug?.name)).collect();
        let candidates: Vec<&'static Bug> = candidates.into_iter().filter_map(Bug::from_name).collect();
        let mut open: Vec<(usize, Vec<bool>)> = failures
            .into_par_iter()
            .filter_map(|index| {
                let (verdict, exhibit) = (&self.verdicts[index], self.exhibits.get(&index)?);
                let expected = Expected::of(&exhibit.steps[verdict.step].0.call);
                let fits = candidates.iter().map(|bug| is_explained(verdict, exhibit, &expected, bug)).collect();
                Some((index, fits))
            })
            .collect();
        let explained = |open: &[(usize, Vec<bool>)], bug: usize| open.iter().filter(|(_, fits)| fits[bug]).count();
        loop {
            let best = (0..candidates.len()).rev().max_by_key(|&bug| explained(&open, bug));
            let Some(best) = best.filter(|&bug| explained(&open, bug) > 0) else { break };
            open.retain(|(index, fits)| {
                if fits[best] {
                    let verdict = &mut self.verdicts[*index];
                    (verdict.nearest_bug, verdict.matches_bug) = (Some(candidates[best]), true);
                }
                !fits[best]
            });
        }
        for (index, _) in open {
            let verdict = &mut self.verdicts[index];
            verdict.matches_bug = false;
            // An unstable variance is no explanation where the formula is wrong.
            verdict.nearest_bug = verdict.nearest_bug.filter(|bug| !is_unstable(bug));
        }
    }
}

/// Whether the subject's answer is that of `bug`, as far as rounding lets one tell.
fn is_explained(verdict: &Verdict, exhibit: &Exhibit, expected: &Expected, bug: &Bug) -> bool {
    if is_unstable(bug) {
        return verdict.grade == Some(Grade::OnePass);
    }
    let (request, answer) = &exhibit.steps[verdict.step];
    answer.as_ref().is_ok_and(|answer| explains(bug, &request.call, expected, answer, &exhibit.declared))
}

/// Two programs with an unstable variance differ from each other as much as from the truth: their grade tells them.
fn is_unstable(bug: &Bug) -> bool {
    bug.flag == crate::case::Flag::Cancellation
}

impl Cause {
    /// The cause of a failure.
    pub fn of(verdict: &Verdict) -> Cause {
        match verdict.nearest_bug {
            Some(bug) if verdict.matches_bug => Cause::Bug(bug.name),
            _ => Cause::Alike { operation: verdict.operation, kind: kind(verdict) },
        }
    }
}

/// In what way a case fails: the tensor that is wrong, or its message without what differs from case to case.
fn kind(verdict: &Verdict) -> String {
    if let Some(worst) = &verdict.worst {
        let how = if worst.actual.is_nan() { "is NaN" } else { "is off" };
        return format!("{} {how}", worst.tensor);
    }
    let head = verdict.message.split([':', ';', '\n']).next().unwrap_or_default();
    let mut kind = format!("{} ", verdict.outcome.name());
    for c in head.chars() {
        // Each run of digits is one mark.
        match c {
            '0'..='9' if kind.ends_with('#') => {}
            '0'..='9' => kind.push('#'),
            c => kind.push(c),
        }
    }
    kind
}
