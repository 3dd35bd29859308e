//! The nearest planted bug: which known mistake explains an answer that failed.

use crate::arithmetic::Law;
use crate::case::{Answer, COUNTER, Declared, Flag, Step};
use crate::judge::{Expected, Grade, Judgement, Outcome, judge};
use crate::subject::answer_by;
use crate::subject::planted::{BUGS, Bug};
use crate::tensor::Tensor;

/// Two answers this many bounds apart, or less, cannot be told apart: each may be one bound off.
const ALIKE: f64 = 2.0;

/// A planted bug that explains an answer.
#[derive(Clone, Copy, Debug)]
pub struct Nearest {
    /// The bug.
    pub bug: &'static Bug,
    /// The largest difference between its answer and the subject's, in bounds: up to 2 they cannot be told apart.
    pub distance: f64,
}

impl Nearest {
    /// Whether the subject's answer is this bug's, as far as rounding lets one tell.
    pub fn matches(&self) -> bool {
        self.distance <= ALIKE
    }
}

/// The planted bug whose answer to `step` is nearest to `answer`, if one is much nearer than the truth.
pub fn nearest(
    step: &Step,
    expected: &Expected,
    answer: &Answer,
    judgement: &Judgement,
    declared: &Declared,
) -> Option<Nearest> {
    let name = step.operation.name();
    // Without a number to compare, only an answer that cannot be told apart is near.
    let near = judgement.ratio().map_or(0.0, |ratio| ratio / 4.0);
    let found = BUGS
        .iter()
        .filter(|bug| bug.operations.contains(&name))
        .filter_map(|bug| {
            let mistaken = answer_by(step, &bug.recipe());
            // A bug that this step does not show explains nothing.
            if judge(step, expected, &mistaken, declared).outcome != Outcome::Fail {
                return None;
            }
            let distance = distance(step, expected, answer, &mistaken, declared);
            (distance <= ALIKE || distance < near && distance.is_finite()).then_some(Nearest { bug, distance })
        })
        .min_by(|a, b| a.distance.total_cmp(&b.distance));
    match found {
        Some(found) if found.matches() => Some(found),
        // Two unstable programs differ from each other as much as from the truth.
        _ if judgement.grade == Some(Grade::OnePass) => {
            let bug = BUGS.iter().find(|bug| bug.flag == Flag::Cancellation)?;
            Some(Nearest { bug, distance: 0.0 })
        }
        found => found,
    }
}

/// Whether the subject's answer is that of `bug`, as far as rounding lets one tell: then how far `bug` moves this step's
/// answer, as a multiple of the bound. Below [`super::power::EXPOSED`] that is no evidence by itself.
pub fn explains(bug: &Bug, step: &Step, expected: &Expected, answer: &Answer, declared: &Declared) -> Option<f64> {
    if !bug.operations.contains(&step.operation.name()) {
        return None;
    }
    let mistaken = answer_by(step, &bug.recipe());
    let judgement = judge(step, expected, &mistaken, declared);
    let alike = || distance(step, expected, answer, &mistaken, declared) <= ALIKE;
    (judgement.outcome == Outcome::Fail && alike()).then(|| judgement.ratio().unwrap_or(f64::INFINITY))
}

/// The largest difference of two answers in bounds; infinite where one answers and the other refuses.
fn distance(step: &Step, expected: &Expected, left: &Answer, right: &Answer, declared: &Declared) -> f64 {
    let counter = |answer: &Answer| answer.get(COUNTER).and_then(Tensor::as_counter);
    if let (Some(left), Some(right)) = (counter(left), counter(right))
        && left != right
    {
        return f64::INFINITY;
    }
    let (left, right) = match (left, right) {
        (Answer::Tensors(left), Answer::Tensors(right)) => (left, right),
        (Answer::Refused { .. }, Answer::Refused { .. }) => return 0.0,
        _ => return f64::INFINITY,
    };
    // Where the truth is a refusal there are no bounds: that both answer is all there is to compare.
    let Expected::Tensors { tensors, plan, bounds, .. } = expected else { return 0.0 };
    let weakest = Law::GOOD[Law::GOOD.len() - 1];
    let bounds = bounds.get(step, plan, weakest, declared);
    let mut largest: f64 = 0.0;
    for (name, tensor) in tensors {
        let (Some(left), Some(right)) = (left.get(name), right.get(name)) else { continue };
        let stored = bounds.stored(tensor.dtype.format().expect("outputs are floating-point"));
        let (left, right) = (left.widened(), right.widened());
        for ((&before, &a), &b) in bounds.errors(name).iter().zip(&*left).zip(&*right) {
            if a == b || a.is_nan() && b.is_nan() {
                continue;
            }
            let bound = stored.of(before, a.abs().max(b.abs()));
            let difference = (a - b).abs() / bound;
            largest = largest.max(if difference.is_nan() { f64::INFINITY } else { difference });
        }
    }
    largest
}
