//! Trials: the calls that a property makes, and what its law finds in the answers.
//!
//! Each element of an answer is read as a *ball*, the answer ± the bound of a good program (plus the radius of the truth):
//!
//! ```text
//! z ∈ [ẑ − B, ẑ + B]
//! ```
//! Laws are computed in balls, so that what rounding may do to a law follows from the bounds of its elements (Moore 1966).
//! A residual that must be 0 breaks its law where 0 is outside its ball: |value| > radius. No tolerance is chosen.

use std::cell::OnceCell;
use std::rc::Rc;

use crate::arithmetic::{DoubleDouble, Law, Truth};
use crate::case::{Answer, Case, Declared, Flag, Level, Request, Step};
use crate::judge::{Bounds, Expected, Outcome};
use crate::operation::Plan;
use crate::report::multiple;
use crate::subject::{CaseRun, Fault};

/// The calls of one trial, and the law that its answers must obey.
pub(super) struct Trial {
    /// The calls, each a list of steps of which each gets the state that the one before returned.
    pub chains: Vec<Vec<Step>>,
    /// Calls that depend on the answers to these.
    pub then: Option<Then>,
    /// Whether a refusal may be right; else it is a failure without a look at the law.
    pub refusals: bool,
    /// The law.
    pub law: LawOf,
}

type Then = Box<dyn Fn(&Answers<'_>) -> Vec<Vec<Step>> + Send + Sync>;
type LawOf = Box<dyn Fn(&Answers<'_>, &mut Finding) + Send + Sync>;

impl Trial {
    /// A trial of single calls.
    pub fn of(steps: Vec<Step>, law: impl Fn(&Answers<'_>, &mut Finding) + Send + Sync + 'static) -> Trial {
        Trial::chained(steps.into_iter().map(|step| vec![step]).collect(), law)
    }

    /// A trial of sequences.
    pub fn chained(chains: Vec<Vec<Step>>, law: impl Fn(&Answers<'_>, &mut Finding) + Send + Sync + 'static) -> Trial {
        Trial { chains, then: None, refusals: false, law: Box::new(law) }
    }

    /// With calls that follow from the answers.
    pub fn then(mut self, then: impl Fn(&Answers<'_>) -> Vec<Vec<Step>> + Send + Sync + 'static) -> Trial {
        self.then = Some(Box::new(then));
        self
    }

    /// Where a refusal may be right.
    pub fn with_refusals(mut self) -> Trial {
        self.refusals = true;
        self
    }
}

/// The chains as cases of a pool.
pub(super) fn cases(name: &str, comment: &str, flags: &[Flag], chains: Vec<Vec<Step>>) -> Vec<Case> {
    let case = |steps| Case {
        name: name.to_owned(),
        comment: comment.to_owned(),
        level: Level::Required,
        flags: flags.to_vec(),
        steps,
    };
    chains.into_iter().map(case).collect()
}

/// What was answered: a list of steps for each chain.
pub(super) struct Answers<'a> {
    pub chains: Vec<Vec<Asked<'a>>>,
}

impl<'a> Answers<'a> {
    /// Of runs that all have an answer to every step.
    pub fn new(runs: impl Iterator<Item = &'a CaseRun>, declared: Declared) -> Answers<'a> {
        let asked = |(request, answer): &'a (Request, Result<Answer, Fault>)| {
            let answer = answer.as_ref().expect("only runs with answers are judged");
            Asked { step: &request.call, answer, declared, truth: OnceCell::new() }
        };
        Answers { chains: runs.map(|run| run.steps.iter().map(asked).collect()).collect() }
    }

    /// The first step of chain `chain`.
    pub fn call(&self, chain: usize) -> &Asked<'a> {
        &self.chains[chain][0]
    }
}

/// One call, and its answer.
pub(super) struct Asked<'a> {
    pub step: &'a Step,
    pub answer: &'a Answer,
    declared: Declared,
    truth: OnceCell<Rc<(Expected, Option<Bounds>)>>,
}

impl Asked<'_> {
    /// What is true of the call, with the widest bounds that a good program may need.
    fn truth(&self) -> &(Expected, Option<Bounds>) {
        self.truth.get_or_init(|| {
            let expected = Expected::of(self.step);
            let bounds = match &expected {
                Expected::Tensors { plan, .. } => {
                    let law = if plan.centred { Law::GOOD[Law::GOOD.len() - 1] } else { Law::GOOD[0] };
                    Some(Bounds::of(self.step, plan, law, &self.declared))
                }
                Expected::Refused { .. } => None,
            };
            Rc::new((expected, bounds))
        })
    }

    /// How the subject says that it sums.
    pub fn declared(&self) -> Declared {
        self.declared
    }

    /// What is true of the call.
    pub fn expected(&self) -> &Expected {
        &self.truth().0
    }

    /// What the call does; it is one that must be answered.
    pub fn plan(&self) -> &Plan {
        match self.expected() {
            Expected::Tensors { plan, .. } => plan,
            Expected::Refused { refusal, .. } => panic!("a law asks for what is refused: {refusal}"),
        }
    }

    /// The largest errors that a good program may make in tensor `name`, element by element; infinite where the bound
    /// says nothing, as beyond the range of the type.
    pub fn errors(&self, name: &str) -> Vec<f64> {
        let (Expected::Tensors { tensors, .. }, Some(bounds)) = (&self.truth().0, &self.truth().1) else {
            return Vec::new();
        };
        let tensor = &tensors[name];
        let format = tensor.dtype.format().expect("outputs are floating-point");
        let errors = tensor.values.iter().zip(bounds.errors(name)).map(|(truth, &before)| {
            let error = bounds.stored(format).of(before, truth.value.hi) + truth.radius;
            let beyond = !truth.is_finite() || error.is_nan() || truth.value.hi.abs() + error > format.max_finite();
            if beyond { f64::INFINITY } else { error }
        });
        errors.collect()
    }

    /// The elements of tensor `name` as the subject answered them.
    pub fn values(&self, name: &str) -> Vec<f64> {
        self.answer.get(name).map_or_else(Vec::new, |tensor| tensor.to_f64().into_iter().collect())
    }

    /// The elements of tensor `name` as balls.
    pub fn balls(&self, name: &str) -> Vec<Truth> {
        self.values(name).into_iter().zip(self.errors(name)).map(|(value, error)| ball(value, error)).collect()
    }

    /// The elements of tensor `name` as they truly are.
    pub fn truths(&self, name: &str) -> Vec<Truth> {
        match self.expected() {
            Expected::Tensors { tensors, .. } => tensors[name].values.clone(),
            Expected::Refused { .. } => Vec::new(),
        }
    }

    /// The elements of a tensor that went in.
    pub fn sent(&self, name: &str) -> Vec<f64> {
        self.step.tensors.get(name).map_or_else(Vec::new, |tensor| tensor.to_f64().into_iter().collect())
    }

    /// The positions of each group of the input.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let partition = &self.plan().partition;
        (0..partition.groups()).map(|group| partition.positions(group)).collect()
    }
}

/// value ± error.
pub(super) fn ball(value: f64, error: f64) -> Truth {
    Truth { value: DoubleDouble::from(value), radius: error }
}

/// An exact number.
pub(super) fn exact(value: f64) -> Truth {
    Truth::exact(value)
}

/// The sum of balls.
pub(super) fn sum(balls: impl IntoIterator<Item = Truth>) -> Truth {
    balls.into_iter().fold(exact(0.0), |sum, ball| sum + ball)
}

/// The mean and the variance of numbers; without centring 0 and the mean square.
pub(super) fn moments(x: &[f64], centred: bool) -> (Truth, Truth) {
    let count = exact(x.len() as f64);
    let mean = if centred { sum(x.iter().map(|&x| exact(x))) / count } else { exact(0.0) };
    let square = |&x: &f64| {
        let deviation = exact(x) - mean;
        deviation * deviation
    };
    (mean, sum(x.iter().map(square)) / count)
}

/// What the laws of a property found so far: the worst of it.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub outcome: Outcome,
    /// The worst residual as a multiple of its bound.
    pub ratio: Option<f64>,
    pub message: String,
    /// Chain and step of the call to show.
    pub culprit: (usize, usize),
}

impl Default for Finding {
    fn default() -> Finding {
        Finding { outcome: Outcome::Pass, ratio: None, message: String::new(), culprit: (0, 0) }
    }
}

impl Finding {
    /// `residual` must be 0.
    pub fn zero(&mut self, culprit: (usize, usize), residual: Truth, wrong: impl FnOnce() -> String) {
        let size = if residual.value.hi < 0.0 { -residual } else { residual };
        self.at_most(culprit, size, wrong);
    }

    /// `excess` must be 0 or less.
    pub fn at_most(&mut self, culprit: (usize, usize), excess: Truth, wrong: impl FnOnce() -> String) {
        let Truth { value, radius } = excess;
        if radius.is_nan() || radius == f64::INFINITY {
            return;
        }
        let ratio = match value.hi / radius {
            _ if value.hi <= 0.0 => 0.0,
            ratio if ratio.is_nan() => f64::INFINITY,
            ratio => ratio,
        };
        self.ratio = Some(self.ratio.map_or(ratio, |worst| worst.max(ratio)));
        if ratio > 1.0 && self.ratio == Some(ratio) {
            let by = format!("off by {:.3e}, {} times the bound {radius:.3e}", value.hi, multiple(ratio));
            self.note(Outcome::Fail, culprit, format!("{}: {by}", wrong()));
        }
    }

    /// `left` and `right` must be the same number, and are so for a program of fixed order: where they only agree to
    /// within the bounds, careful implementations differ.
    pub fn same(&mut self, culprit: (usize, usize), left: Truth, right: Truth, wrong: impl Fn() -> String) {
        let (one, other) = (left.value.hi, right.value.hi);
        if one == other || one.is_nan() && other.is_nan() {
            self.ratio = self.ratio.or(Some(0.0));
            return;
        }
        self.zero(culprit, left - right, &wrong);
        if self.outcome < Outcome::Advisory {
            let message = format!("{}: they differ by {:.3e}, within the bounds", wrong(), (one - other).abs());
            self.note(Outcome::Advisory, culprit, message);
        }
    }

    /// A failure that is no matter of bounds.
    pub fn fail(&mut self, culprit: (usize, usize), message: String) {
        if self.outcome < Outcome::Fail {
            self.note(Outcome::Fail, culprit, message);
            self.ratio = Some(f64::INFINITY);
        }
    }

    fn note(&mut self, outcome: Outcome, culprit: (usize, usize), message: String) {
        (self.outcome, self.culprit, self.message) = (outcome, culprit, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::{DataType, SummationDepth};
    use crate::operation::{LayerNorm, Operation};
    use crate::tensor::{Tensor, Tensors};

    fn found(residuals: &[(f64, f64)]) -> Finding {
        let mut finding = Finding::default();
        for (step, &(value, radius)) in residuals.iter().enumerate() {
            finding.at_most((0, step), ball(value, radius), || format!("residual {step}"));
        }
        finding
    }

    #[test]
    fn a_residual_is_measured_by_its_bound() {
        for (residuals, ratio, step) in [
            (&[(0.5, 1.0)][..], 0.5, None),
            (&[(1.0, 1.0)], 1.0, None),
            (&[(-3.0, 1.0), (-1.0, 0.0), (0.0, 0.0)], 0.0, None),
            (&[(0.5, 1.0), (2.0, 1.0), (1.5, 1.0), (0.25, 1.0)], 2.0, Some(1)),
            (&[(2.0, 1.0), (3.0, 1.0)], 3.0, Some(1)),
            (&[(f64::NAN, 1.0)], f64::INFINITY, Some(0)),
            (&[(1e-300, 0.0)], f64::INFINITY, Some(0)),
        ] {
            let finding = found(residuals);
            assert_eq!(finding.ratio, Some(ratio), "{residuals:?}");
            assert_eq!(finding.outcome, if step.is_some() { Outcome::Fail } else { Outcome::Pass }, "{residuals:?}");
            if let Some(step) = step {
                assert_eq!(finding.culprit, (0, step));
                assert!(finding.message.starts_with(&format!("residual {step}: off by ")), "{}", finding.message);
            }
        }
        // Where the bound says nothing, nothing is found.
        assert_eq!(found(&[(5.0, f64::INFINITY), (5.0, f64::NAN)]).ratio, None);
        let mut finding = Finding::default();
        finding.zero((0, 0), ball(-2.0, 1.0), || "residual".to_owned());
        assert_eq!((finding.outcome, finding.ratio), (Outcome::Fail, Some(2.0)));
        assert_eq!(finding.message, "residual: off by 2.000e0, 2.00 times the bound 1.000e0");
    }

    #[test]
    fn what_must_be_the_same_and_is_only_near_is_advisory() {
        let same = |pairs: &[(f64, f64)]| {
            let mut finding = Finding::default();
            for (step, &(one, other)) in pairs.iter().enumerate() {
                let [left, right] = [one, other].map(|x| ball(x, if x.is_nan() { 0.0 } else { 0.125 }));
                finding.same((0, step), left, right, || format!("pair {step}"));
            }
            finding
        };
        let equal = same(&[(1.0, 1.0), (f64::NAN, f64::NAN)]);
        assert_eq!((equal.outcome, equal.ratio), (Outcome::Pass, Some(0.0)));
        let near = same(&[(1.0, 1.0), (2.0, 2.125), (2.0, 2.1875)]);
        assert_eq!((near.outcome, near.culprit), (Outcome::Advisory, (0, 1)));
        assert_eq!(near.message, "pair 1: they differ by 1.250e-1, within the bounds");
        assert!(near.ratio.is_some_and(|ratio| (0.74..0.76).contains(&ratio)), "{:?}", near.ratio);
        for pairs in [[(2.0, 2.0625), (1.0, 2.0)], [(1.0, 1.0), (f64::NAN, 2.0)], [(1.0, 1.0), (2.0, f64::NAN)]] {
            let far = same(&pairs);
            assert_eq!((far.outcome, far.culprit), (Outcome::Fail, (0, 1)), "{pairs:?}");
        }
        let far_first = same(&[(1.0, 2.0), (2.0, 2.0625)]);
        assert_eq!((far_first.outcome, far_first.culprit), (Outcome::Fail, (0, 0)));
    }

    #[test]
    fn a_plain_failure_stays_the_first() {
        let mut finding = found(&[(0.5, 1.0)]);
        finding.fail((0, 3), "no number".to_owned());
        finding.fail((0, 4), "no number either".to_owned());
        assert_eq!(
            (finding.culprit, finding.ratio, finding.message.as_str()),
            ((0, 3), Some(f64::INFINITY), "no number")
        );
    }

    /// y = ±1 but for eps; the bound ends where a program may overflow.
    #[test]
    fn there_are_no_bounds_beyond_the_range() {
        let errors = |weight: f64| {
            let eps = 1e-6;
            let operation =
                Operation::LayerNorm(LayerNorm { normalized_shape: vec![2], eps, dialect: Default::default() });
            let tensor = |values: [f64; 2]| Tensor::rounded(DataType::F16, &[2], values.to_vec());
            let tensors = Tensors::from([
                ("input".to_owned(), tensor([-1.0, 1.0])),
                ("weight".to_owned(), tensor([weight, 1.0])),
            ]);
            let call = Step::forward(operation, tensors);
            let answer = Answer::Tensors(Tensors::from([("output".to_owned(), tensor([-weight, 1.0]))]));
            let declared = Declared { depth: SummationDepth::Pairwise, ..Declared::default() };
            let request = Request { case: String::new(), step: 0, call };
            let run = CaseRun { steps: vec![(request, Ok(answer))], gave_up: false, skipped: None };
            let answers = Answers::new([&run].into_iter(), declared);
            assert_eq!(answers.call(0).declared(), declared);
            answers.call(0).errors("output")
        };
        // Half a unit of F16 is 8 at 32 000.
        let ordinary = errors(32_000.0);
        assert!((8.0..16.0).contains(&ordinary[0]) && (2e-4..1e-3).contains(&ordinary[1]), "{ordinary:?}");
        assert_eq!(errors(65_504.0)[0], f64::INFINITY);
    }
}
