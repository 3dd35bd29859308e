//! The judge: from the truth, a bound and an answer to a verdict.
//!
//! An answer is judged by the weakest *good* law that it needs: two passes, two passes folded, updating, updating folded
//! (see [`Law`]). Outside all of them it fails; whether it is unstable or wrong, the grade says.

mod bound;
pub mod exact;
mod expected;
#[cfg(test)]
mod tests;
mod verdict;

pub use bound::{Bounds, Stored, accumulator, tracker};
pub use expected::{BoundCache, Expected, TrueTensor};
pub use verdict::{Grade, Judgement, Outcome, Worst};

use std::borrow::Cow;

use crate::arithmetic::{DoubleDouble, Law};
use crate::case::{Answer, COUNTER, Declared, Step};
use crate::operation::{Plan, RefusalKind};
use crate::tensor::{Tensor, Tensors};
use verdict::ratio;

/// Judges one answer. Its tensors must have the names, shapes and data types that the step asks for
/// (see [`crate::case::check_answer`]).
pub fn judge(step: &Step, expected: &Expected, answer: &Answer, declared: &Declared) -> Judgement {
    match (expected, answer) {
        (_, Answer::Unsupported(why)) => Judgement {
            outcome: Outcome::Unsupported,
            message: format!("it says that it cannot do this: {why}"),
            ..Judgement::pass()
        },
        (Expected::Tensors { tensors, num_batches_tracked, plan, bounds }, Answer::Tensors(answers)) => {
            if let Some(miss) = judge_counter(*num_batches_tracked, answers) {
                return miss;
            }
            let bounds = |law| bounds.get(step, plan, law, declared);
            judge_tensors(plan, tensors, answers, &bounds)
        }
        (Expected::Refused { refusal, state }, Answer::Refused { refusal: said, state: answers }) => {
            if refusal.kind == RefusalKind::TooFewValues && said.kind != RefusalKind::TooFewValues {
                return Judgement::fail(format!(
                    "it refuses for another reason ({}): {}; expected {}",
                    said.kind.name(),
                    said.message,
                    refusal
                ));
            }
            judge_state(state, answers)
        }
        (Expected::Refused { refusal, .. }, Answer::Tensors(_)) => {
            Judgement::fail(format!("it answers where it must refuse ({}): {}", refusal.kind.name(), refusal.message))
        }
        (Expected::Tensors { .. }, Answer::Refused { refusal, .. }) => {
            Judgement::fail(format!("it refuses ({}) where it must answer: {}", refusal.kind.name(), refusal.message))
        }
    }
}

fn judge_counter(expected: Option<i64>, answers: &Tensors) -> Option<Judgement> {
    let actual = answers.get(COUNTER).and_then(Tensor::as_counter)?;
    let expected = expected?;
    let message = format!("{COUNTER} is {actual} after the call, expected {expected}");
    (actual != expected).then(|| Judgement::fail(message))
}

/// State after a refusal: nothing moves but the counter, so the values are those that were sent.
fn judge_state(expected: &Tensors, answers: &Tensors) -> Judgement {
    if let Some(miss) = judge_counter(expected.get(COUNTER).and_then(Tensor::as_counter), answers) {
        return miss;
    }
    for (name, answer) in answers.iter().filter(|(name, _)| *name != COUNTER) {
        match expected.get(name) {
            Some(tensor) if !tensor.same_bits(answer) => {
                return Judgement::fail(format!("{name} has changed in a call that was refused"));
            }
            _ => {}
        }
    }
    Judgement::pass()
}

/// What one walk over an answer's elements finds.
#[derive(Default)]
struct Walk {
    worst: Option<Worst>,
    /// A NaN or an infinity where the truth has another of them: advisory.
    soft: Option<String>,
}

impl Walk {
    /// Whether no element is further from the truth than its bound.
    fn is_within(&self) -> bool {
        self.worst.as_ref().is_none_or(|worst| worst.ratio() <= 1.0)
    }
}

fn judge_tensors<'a>(
    plan: &Plan,
    expected: &Tensors<TrueTensor>,
    answers: &Tensors,
    bounds: &dyn Fn(Law) -> Cow<'a, Bounds>,
) -> Judgement {
    let walk = |law| walk_elements(expected, answers, &bounds(law));
    let pass = |walk, law| {
        let grade = if is_exact(expected, answers) { Grade::Exact } else { Grade::of(law) };
        passed(walk, grade)
    };
    let laws = if plan.centred { &Law::GOOD[..] } else { &Law::GOOD[..1] };
    let (&strictest, laws) = laws.split_first().expect("four laws, or one");
    let mut last = walk(strictest);
    if last.is_within() {
        return pass(last, strictest);
    }
    // The weakest law grants whatever the others grant: what is outside it need not be held against them.
    if let Some((&weakest, between)) = laws.split_last() {
        last = walk(weakest);
        if last.is_within() {
            let stricter = between.iter().map(|&law| (walk(law), law)).find(|(walk, _)| walk.is_within());
            let (walk, law) = stricter.unwrap_or((last, weakest));
            return pass(walk, law);
        }
    }
    let unstable = plan.centred && walk(Law::ONE_PASS).is_within();
    let worst = last.worst.expect("a walk without a worst element passes");
    let message = describe(&worst, unstable);
    let grade = Some(if unstable { Grade::OnePass } else { Grade::Wrong });
    Judgement { outcome: Outcome::Fail, grade, worst: Some(worst), message }
}

fn passed(walk: Walk, grade: Grade) -> Judgement {
    let (outcome, message) = match walk.soft {
        Some(message) => (Outcome::Advisory, message),
        None => (Outcome::Pass, String::new()),
    };
    let grade = walk.worst.is_some().then_some(grade);
    Judgement { outcome, grade, worst: walk.worst, message }
}

fn describe(worst: &Worst, unstable: bool) -> String {
    let Worst { tensor, index, expected, actual, error, bound } = worst;
    if !error.is_finite() {
        return format!("{tensor}{index:?} is {actual}, expected {expected}");
    }
    let why = if unstable { "; the variance is computed in an unstable way" } else { "" };
    format!(
        "{tensor}{index:?} is {actual:e}, expected {expected:e}: off by {error:.3e}, {:.3} times the bound {bound:.3e}{why}",
        worst.ratio()
    )
}

fn walk_elements(expected: &Tensors<TrueTensor>, answers: &Tensors, bounds: &Bounds) -> Walk {
    let mut walk = Walk::default();
    let mut largest = -1.0;
    for (name, tensor) in expected {
        let Some(answer) = answers.get(name) else { continue };
        let format = tensor.dtype.format().expect("outputs are floating-point");
        let (largest_finite, stored) = (format.max_finite(), bounds.stored(format));
        // The element of this tensor that is worse than all before it: index, error and bound.
        let mut worst: Option<(usize, f64, f64)> = None;
        let answer = answer.widened();
        for (index, ((truth, &before), &actual)) in
            tensor.values.iter().zip(bounds.errors(name)).zip(&*answer).enumerate()
        {
            let value = truth.value.hi;
            let (error, bound) = if truth.is_finite() {
                let bound = stored.of(before, value);
                // So near to the end of the type a right program may overflow, and then anything may follow.
                let reach = value.abs() + bound;
                if reach.is_nan() || reach > largest_finite {
                    continue;
                }
                let error = (DoubleDouble::from(actual) - truth.value).abs().hi;
                let error = if actual.is_finite() { (error - truth.radius).max(0.0) } else { f64::INFINITY };
                (error, bound)
            } else if truth.radius != 0.0 {
                // Beyond what double-double arithmetic holds, hence beyond the type.
                continue;
            } else if actual.is_finite() {
                (f64::INFINITY, 0.0)
            } else {
                let same = actual.is_nan() && value.is_nan() || actual == value;
                if !same && walk.soft.is_none() {
                    let index = unravel(index, &tensor.shape);
                    walk.soft = Some(format!("{name}{index:?} is {actual}, expected {value}"));
                }
                continue;
            };
            let multiple = ratio(error, bound);
            if multiple > largest {
                largest = multiple;
                worst = Some((index, error, bound));
            }
        }
        if let Some((index, error, bound)) = worst {
            let (expected, actual) = (tensor.values[index].value.hi, answer[index]);
            let index = unravel(index, &tensor.shape);
            walk.worst = Some(Worst { tensor: name.clone(), index, expected, actual, error, bound });
        }
    }
    walk
}

/// Whether every element is the correctly rounded truth.
fn is_exact(expected: &Tensors<TrueTensor>, answers: &Tensors) -> bool {
    expected.iter().all(|(name, tensor)| {
        let Some(answer) = answers.get(name) else { return true };
        let answer = answer.widened();
        let mut pairs = tensor.rounded.iter().zip(&*answer);
        pairs.all(|(value, actual)| actual == value || value.is_nan() && actual.is_nan())
    })
}

/// The index of flat position `position` in an array of shape `shape`.
pub(crate) fn unravel(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (place, &size) in index.iter_mut().zip(shape).rev() {
        *place = position % size.max(1);
        position /= size.max(1);
    }
    index
}
