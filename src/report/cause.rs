//! Causes: which failures look alike, and which planted bug explains them.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::{Exhibit, Report};
use crate::case::Flag;
use crate::conformance::power::EXPOSED;
use crate::conformance::{Kind, Verdict, explains};
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
    /// Whether they were not even asked, because too many before them ended in a fault.
    pub not_run: bool,
}

impl Report {
    /// The failures by cause, the most frequent first.
    pub fn groups(&self) -> Vec<Group> {
        let mut by_cause: BTreeMap<Cause, Vec<usize>> = BTreeMap::new();
        for index in self.failures() {
            by_cause.entry(Cause::of(&self.verdicts[index])).or_default().push(index);
        }
        let groups = by_cause.into_iter().map(|(cause, mut members)| {
            // One call is read more easily than those of a law.
            let elements = |index: &usize| self.exhibits.get(index).map_or(usize::MAX, Exhibit::elements);
            members.sort_by_key(|index| (is_of_many(&self.verdicts[*index]), elements(index), *index));
            let not_run = self.exhibits.get(&members[0]).is_some_and(Exhibit::is_not_run);
            Group { cause, members, not_run }
        });
        let mut groups: Vec<Group> = groups.collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.members.len()));
        groups
    }

    /// The bug class whose cases are most nearly those that failed. Where nothing passes, every class fits and none tells.
    pub(super) fn likely(&self) -> Option<Flag> {
        let likely = self.verdicts.iter().find_map(|verdict| verdict.likely)?;
        let failed = self.failures().into_iter().map(|index| self.verdicts[index].operation);
        let operations: BTreeSet<&str> = failed.collect();
        let passes = |verdict: &Verdict| verdict.outcome == Outcome::Pass && operations.contains(verdict.operation);
        self.verdicts.iter().any(passes).then_some(likely)
    }

    /// Names for each failure the planted bug that explains it and as many of the others as possible: on a single case
    /// two bugs may look the same. A bug must explain at least one failure that it alone would make large enough.
    pub(super) fn attribute(&mut self) {
        let unexpected = |verdict: &Verdict| verdict.outcome == Outcome::Fail && verdict.known.is_none();
        let failures: Vec<usize> =
            (0..self.verdicts.len()).filter(|&index| unexpected(&self.verdicts[index])).collect();
        let candidates: BTreeSet<&str> =
            failures.iter().filter_map(|&index| Some(self.verdicts[index].nearest_bug?.name)).collect();
        let candidates: Vec<&'static Bug> = candidates.into_iter().filter_map(Bug::from_name).collect();
        let mut open: Vec<(usize, Vec<Option<f64>>)> = failures
            .into_par_iter()
            .filter_map(|index| {
                let (verdict, exhibit) = (&self.verdicts[index], self.exhibits.get(&index)?);
                let expected = Expected::of(&exhibit.steps[verdict.step].0.call);
                Some((index, candidates.iter().map(|bug| explanation(verdict, exhibit, &expected, bug)).collect()))
            })
            .collect();
        loop {
            let explained = |bug: usize| {
                let effects: Vec<f64> = open.iter().filter_map(|(_, effects)| effects[bug]).collect();
                let evident = effects.iter().filter(|&&effect| effect >= EXPOSED).count();
                (evident > 0).then_some((effects.len(), evident))
            };
            let best = (0..candidates.len()).rev().filter_map(|bug| Some((explained(bug)?, bug))).max();
            let Some((_, best)) = best else { break };
            open.retain(|(index, effects)| {
                if effects[best].is_some() {
                    let verdict = &mut self.verdicts[*index];
                    (verdict.nearest_bug, verdict.matches_bug) = (Some(candidates[best]), true);
                }
                effects[best].is_none()
            });
        }
        for (index, _) in open {
            self.verdicts[index].matches_bug = false;
        }
    }
}

/// How far `bug` moves the answer, in bounds, if the subject's answer is that of `bug`.
fn explanation(verdict: &Verdict, exhibit: &Exhibit, expected: &Expected, bug: &Bug) -> Option<f64> {
    // Two programs with an unstable variance differ from each other as much as from the truth: their grade tells them.
    if bug.flag == Flag::Cancellation {
        return verdict.ratio.filter(|_| verdict.grade == Some(Grade::OnePass));
    }
    let (request, answer) = &exhibit.steps[verdict.step];
    explains(bug, &request.call, expected, answer.as_ref().ok()?, &exhibit.declared)
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

/// Whether a verdict is about several calls together.
pub(super) fn is_of_many(verdict: &Verdict) -> bool {
    matches!(verdict.kind, Kind::Property | Kind::Statistic)
}

/// In what way a case fails: the tensor that is wrong, or its message without what differs from case to case.
fn kind(verdict: &Verdict) -> String {
    if is_of_many(verdict) {
        return verdict.comment.clone();
    }
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

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn a_bug_that_explains_everything_is_named_everywhere() {
        // On many of these cases the square of eps and no eps at all cannot be told apart.
        let report = report("eps_squared", "-f32-");
        let groups = report.groups();
        assert_eq!(groups.len(), 1, "{groups:?}");
        assert_eq!(groups[0].cause, Cause::Bug("eps_squared"));
        let sizes: Vec<usize> = groups[0].members.iter().map(|index| report.exhibits[index].elements()).collect();
        assert!(sizes.is_sorted() && sizes.len() > 50, "{sizes:?}");
    }

    #[test]
    fn a_small_effect_alone_is_no_evidence() {
        let one = report("eps_doubled", "thread-batch_norm-f32-1x3x10-train");
        let (verdict, effect) = (&one.verdicts[0], one.verdicts[0].ratio.unwrap());
        assert!(effect > 1.0 && effect < EXPOSED, "{effect}");
        assert_eq!(Cause::of(verdict), Cause::Alike { operation: "batch_norm", kind: "output is off".to_owned() });
        // Beside a case that tells, it is.
        let both = report("eps_doubled", "batch_norm-f32-");
        let verdict = both.verdicts.iter().find(|verdict| verdict.case == one.verdicts[0].case).unwrap();
        assert_eq!(Cause::of(verdict), Cause::Bug("eps_doubled"));
    }

    #[test]
    fn refusals_of_one_kind_are_alike_whatever_their_shapes() {
        let mut report = report("batch_of_one_refused", "batch_norm-f32-");
        for verdict in &mut report.verdicts {
            verdict.matches_bug = false;
        }
        let kinds: Vec<Cause> = report.groups().into_iter().map(|group| group.cause).collect();
        // The glob fits synchronized batch norm's cases too.
        let kind = || "fail it refuses (too_few_values) where it must answer".to_owned();
        let alike = |operation| Cause::Alike { operation, kind: kind() };
        assert_eq!(kinds, [alike("batch_norm"), alike("sync_batch_norm")]);
    }
}
