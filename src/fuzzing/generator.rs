//! One generator for all: any bytes stand for a case.
//!
//! ```text
//! bytes → seed, choices → a step of `case::random` → edits (see `edits.rs`) → gradients → more steps
//! ```
//! A case is *valid*: every step passes [`Step::check`], so that it can be asked. Whether it must be refused is for the
//! operation to say. The fuzz targets, `normative fuzz` and the strategies of tests all take their cases from here.

use arbitrary::{Arbitrary, Unstructured};

use super::edits;
use crate::arithmetic::DataType;
use crate::case::values::{Values, held};
use crate::case::{Case, Level, Step, preconditions, random};
use crate::operation::{Mode, Operation};
use crate::tensor::Tensor;

/// The most steps of a case.
pub const STEPS: usize = 32;

/// What a target wants its cases to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub operations: &'a [&'static str],
    pub dtypes: &'a [DataType],
    /// The most steps of an operation with a state; others have one.
    pub steps: usize,
    /// Whether gradients are always asked for, or never; `None`: now and then.
    pub gradients: Option<bool>,
    /// Whether calls that no framework would make are among them: other hyper-parameters and shapes, empty tensors.
    pub wild: bool,
}

impl Wanted<'_> {
    /// Any case that a layer may be asked.
    pub const ANY: Wanted<'static> =
        Wanted { operations: Operation::NAMES, dtypes: &DataType::FLOATS, steps: 4, gradients: None, wild: false };
    /// Any case at all.
    pub const WILD: Wanted<'static> = Wanted { wild: true, ..Wanted::ANY };

    /// The case that `bytes` stand for.
    pub fn case(&self, bytes: &[u8]) -> Case {
        self.drawn(&mut Values::of_bytes(bytes))
    }

    /// The case that `values` draw.
    pub fn drawn(&self, values: &mut Values) -> Case {
        let (name, dtype) = (values.pick(self.operations), values.pick(self.dtypes));
        let groups = 1 + values.below(4);
        let gradients = self.gradients.unwrap_or_else(|| values.below(4) == 0);
        let double_backward = gradients && values.below(3) == 0;
        let mut first = without_gradients(random::step(values, name, dtype, groups));
        edits::edit(&mut first, values, self.wild);
        let asked = |step: Step, values: &mut Values| match (gradients, double_backward) {
            (false, _) => step,
            (true, false) => step.with_gradients(values),
            (true, true) => step.with_double_backward(values),
        };
        let stateful = !first.operation.signature().state.is_empty();
        let count = if stateful && values.below(2) == 0 { 1 + values.below(self.steps) } else { 1 };
        let mut steps = vec![asked(first, values)];
        while steps.len() < count {
            let next = without_gradients(later(&steps[steps.len() - 1], values));
            steps.push(asked(next, values));
        }
        let mut case = Case {
            name: "fuzzing".to_owned(),
            comment: "a generated case".to_owned(),
            level: Level::Required,
            flags: Vec::new(),
            steps,
        };
        if preconditions::violated(&case).is_some() {
            case.level = Level::Advisory;
        }
        case
    }
}

/// The case that any bytes stand for.
///
/// ```
/// let case = normative::fuzzing::case_of(b"any bytes at all");
/// assert!(case.steps.iter().all(|step| step.check().is_ok()));
/// ```
pub fn case_of(bytes: &[u8]) -> Case {
    Wanted::WILD.case(bytes)
}

/// A case takes all the bytes that are left, and is [`case_of`] them.
///
/// ```
/// use arbitrary::{Arbitrary, Unstructured};
/// use normative::case::Case;
/// let case = Case::arbitrary(&mut Unstructured::new(b"any bytes at all")).unwrap();
/// assert_eq!(case.name, "fuzzing");
/// ```
impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Case> {
        Ok(case_of(bytes.bytes(bytes.len())?))
    }
}

/// The step without gradients and what they need.
pub(super) fn without_gradients(mut step: Step) -> Step {
    (step.gradients, step.double_backward) = (false, false);
    step.tensors.retain(|name, _| !name.starts_with("grad_"));
    step
}

/// A step after another: a new input of the same shape, now and then in the other mode.
fn later(step: &Step, values: &mut Values) -> Step {
    let mut step = step.clone();
    if step.operation.signature().modes && values.below(4) == 0 {
        step.mode = if step.mode == Mode::Train { Mode::Eval } else { Mode::Train };
    }
    let input = &step.tensors["input"];
    let (dtype, mean) = (input.dtype(), values.pick(&[0.0, 1.0, -3.0, 100.0]));
    let elements = values.normals(input.len(), mean, 1.0).into_iter().map(|x| held(dtype, x));
    let next = Tensor::rounded(dtype, input.shape(), elements.collect());
    step.tensors.insert("input".to_owned(), next);
    step
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::LayoutFormat;
    use crate::judge::Expected;

    fn cases(wanted: Wanted<'static>) -> impl Iterator<Item = Case> {
        (0..3000_u64).map(move |seed| wanted.drawn(&mut Values::new(seed)))
    }

    #[test]
    fn every_case_can_be_asked() {
        for case in cases(Wanted::WILD) {
            for step in &case.steps {
                assert_eq!(step.check(), Ok(()), "{step:?}");
                let channels_last = step.layout.format == LayoutFormat::ChannelsLast;
                assert!(!channels_last || step.tensors["input"].shape().len() > 2, "{step:?}");
            }
            assert!((1..=STEPS).contains(&case.steps.len()));
        }
    }

    /// A generator that makes refusals only, or leaves something out, finds nothing.
    #[test]
    fn cases_are_of_every_kind_and_most_are_answered() {
        let (mut names, mut empty, mut several, mut answered, mut total) = (BTreeSet::new(), 0, 0, 0, 0);
        for case in cases(Wanted::WILD) {
            let step = &case.steps[0];
            names.insert((step.operation.name(), step.tensors["input"].dtype()));
            empty += usize::from(step.tensors["input"].is_empty());
            several += usize::from(case.steps.len() > 1);
            answered += usize::from(matches!(Expected::of(step), Expected::Tensors { .. }));
            total += 1;
        }
        assert_eq!(names.len(), Operation::NAMES.len() * DataType::FLOATS.len());
        assert!(empty > total / 100 && several > total / 20, "{empty} empty, {several} of several steps");
        assert!(answered > total / 2, "{answered} of {total} are answered");
    }

    #[test]
    fn tame_cases_are_within_what_the_error_analysis_takes_for_granted() {
        let required = cases(Wanted::ANY).filter(|case| case.level == Level::Required).count();
        assert!(required > 2000, "{required} of 3000");
    }
}
