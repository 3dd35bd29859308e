//! The layer: a subject that goes through the transitions, and what its answers must be.
//!
//! A number z that is given in exact rationals, or as the root of one, must lie where the answer ẑ says:
//!
//! ```text
//! of a correctly rounded answer    (ẑ⁻ + ẑ)/2 ≤ z ≤ (ẑ + ẑ⁺)/2      with the numbers beside ẑ in its type
//! of any good program              ẑ − B ≤ z ≤ ẑ + B                 with the bound of the judge
//! ```
//! A step's rounding errors stay: d ← |1 − m|·d + |r̂ − r|, so that |r̂_T − r_T| ≤ d_T against the model's closed forms.

use std::collections::BTreeMap;

use dashu_ratio::RBig;
use normative::arithmetic::{DataType, Law};
use normative::case::{Answer, Declared, Request, Step};
use normative::golden::Message;
use normative::judge::{Bounds, Expected};
use normative::operation::{Mode, RefusalKind};
use normative::subject::{Subject, ask};
use normative::{Tensor, Tensors};

use super::model::{Batch, CHANNELS, EPS, Model, Statistics, Transition, mean_and_squares, moments, rational};

/// How far rounding may have moved each statistic from the model's.
type Drift = BTreeMap<&'static str, Vec<RBig>>;

/// A subject on its way through the transitions.
pub struct Layer {
    subject: Box<dyn Subject>,
    /// Whether its answers must be correctly rounded.
    rounded: bool,
    /// The model before the transition.
    before: Model,
    state: Tensors,
    drift: Drift,
    saved: Option<(Vec<u8>, Drift)>,
}

const STATISTICS: [&str; 2] = ["running_mean", "running_var"];
const COUNTER: &str = "num_batches_tracked";

impl Layer {
    pub fn new(subject: Box<dyn Subject>, rounded: bool, model: &Model) -> Layer {
        let (state, drift) = (fresh(model.dtype), still());
        Layer { subject, rounded, before: model.clone(), state, drift, saved: None }
    }

    /// Goes through a transition, and compares with the model after it.
    ///
    /// # Errors
    /// What differs.
    pub fn apply(&mut self, model: &Model, transition: &Transition) -> Result<(), String> {
        let empty = Batch { samples: 0, length: 3, values: vec![1], cut: 0 };
        match transition {
            Transition::Train(batch, times) => {
                for time in 0..*times {
                    self.train(batch, None).map_err(|why| format!("batch {time}: {why}"))?;
                }
            }
            Transition::Nan(batch, position, true) => self.train(batch, Some(*position))?,
            Transition::Nan(batch, position, false) => self.evaluate(batch, Some(*position)).map(drop)?,
            Transition::Eval(batch) => self.evaluate_in_parts(batch)?,
            Transition::Empty(true) => self.keeps(&empty, Mode::Train, false)?,
            Transition::Empty(false) => self.keeps(&empty, Mode::Eval, false)?,
            Transition::Refused => {
                let lone = Batch { samples: 1, length: 1, values: vec![3, 5], cut: 1 };
                self.keeps(&lone, Mode::Train, true)?;
            }
            Transition::Momentum(_) => {}
            Transition::Reset => (self.state, self.drift) = (fresh(model.dtype), still()),
            Transition::Save => {
                let batch = Batch { samples: 1, length: 2, values: vec![1], cut: 1 };
                let message = Message::Request { id: 1, call: self.step(&batch, Mode::Eval, None) };
                self.saved = Some((message.write(), self.drift.clone()));
            }
            Transition::Load => {
                let (bytes, drift) = self.saved.clone().ok_or("nothing was saved")?;
                let Ok(Message::Request { call, .. }) = Message::read(&bytes) else {
                    return Err("what was saved does not read back".to_owned());
                };
                let state = call.tensors.into_iter().filter(|(name, _)| self.state.contains_key(name));
                (self.state, self.drift) = (state.collect(), drift);
            }
        }
        self.before = model.clone();
        self.agrees(&model.now)
    }

    /// The state is the model's but for rounding, and the counter the same.
    fn agrees(&self, now: &Statistics) -> Result<(), String> {
        let count = self.state[COUNTER].as_counter();
        if count != Some(now.batches) {
            return Err(format!("{COUNTER} is {count:?}; expected {}", now.batches));
        }
        for (name, model) in STATISTICS.into_iter().zip([&now.mean, &now.variance]) {
            for (channel, (expected, drift)) in model.iter().zip(&self.drift[name]).enumerate() {
                let is = self.state[name].get(channel);
                let right = match expected {
                    None => is.is_nan(),
                    Some(expected) => is.is_finite() && distance(&rational(is), expected) <= *drift,
                };
                if !right {
                    let expected = expected.as_ref().map_or(f64::NAN, RBig::to_f64_fast);
                    return Err(format!("{name}[{channel}] is {is:e}; the closed form says {expected:e}"));
                }
            }
        }
        Ok(())
    }

    /// A batch in training: output and state, each as exact arithmetic on what was sent says.
    fn train(&mut self, batch: &Batch, nan: Option<usize>) -> Result<(), String> {
        let step = self.step(batch, Mode::Train, nan);
        let answer = self.ask(&step)?;
        let errors = self.errors(&step);
        let x = batch.elements();
        let mut normalized = vec![None; x.len()];
        for group in batch.groups(self.before.norm) {
            if nan.is_some_and(|position| group.contains(&position)) {
                continue;
            }
            let (mean, squares) = mean_and_squares(&x, &group);
            let variance = squares / RBig::from(group.len());
            for position in group {
                normalized[position] = Some(square(&x, position, &mean, &variance));
            }
        }
        self.output(&answer, &normalized, &errors)?;

        let counted = self.state[COUNTER].as_counter().unwrap_or(0) + i64::from(self.before.counts());
        let weight = self.before.weight(counted);
        let (means, variances) = moments(batch, self.before.norm, nan);
        for (name, new) in STATISTICS.into_iter().zip([means, variances]) {
            for (channel, new) in new.into_iter().enumerate() {
                let (was, is) = (self.state[name].get(channel), answer[name].get(channel));
                let Some(new) = new.filter(|_| !was.is_nan()) else {
                    if is.is_nan() {
                        continue;
                    }
                    return Err(format!("{name}[{channel}] is {is:e}; a NaN has come in"));
                };
                let left = RBig::ONE - &weight;
                let exact = &left * rational(was) + &weight * new;
                if !is.is_finite() || !self.within(is, &errors[name][channel], |end| end <= exact, |end| end >= exact) {
                    let expected = exact.to_f64_fast();
                    return Err(format!("{name}[{channel}] goes from {was:e} to {is:e}; expected {expected:e}"));
                }
                let drift = &mut self.drift.get_mut(name).expect("a statistic")[channel];
                *drift = left * &*drift + distance(&rational(is), &exact);
            }
        }
        self.take(answer, counted)
    }

    /// A batch in evaluation, which moves nothing; gives back the output.
    fn evaluate(&mut self, batch: &Batch, nan: Option<usize>) -> Result<Tensor, String> {
        let step = self.step(batch, Mode::Eval, nan);
        let answer = self.ask(&step)?;
        let errors = self.errors(&step);
        let x = batch.elements();
        let channel = |position: usize| position / batch.length % CHANNELS;
        let normalized = (0..x.len()).map(|position| {
            let [mean, variance] = STATISTICS.map(|name| self.state[name].get(channel(position)));
            let known = nan != Some(position) && !mean.is_nan() && !variance.is_nan();
            known.then(|| square(&x, position, &rational(mean), &rational(variance)))
        });
        self.output(&answer, &normalized.collect::<Vec<_>>(), &errors)?;
        self.unmoved(&answer, self.state[COUNTER].as_counter().unwrap_or(0))?;
        Ok(answer["output"].clone())
    }

    /// In evaluation a sample's answer is its own, whatever lies beside it in the batch.
    fn evaluate_in_parts(&mut self, batch: &Batch) -> Result<(), String> {
        let whole = self.evaluate(batch, None)?;
        let each = CHANNELS * batch.length;
        for sample in 0..batch.samples {
            let elements = &batch.elements()[sample * each..][..each];
            let values = elements.iter().map(|x| (x * 4.0) as i16).collect();
            let alone = self.evaluate(&Batch { samples: 1, length: batch.length, values, cut: 0 }, None)?;
            let differs = |index: &usize| whole.get(sample * each + index).to_bits() != alone.get(*index).to_bits();
            if let Some(index) = (0..each).find(differs) {
                return Err(format!("element {index} of sample {sample} is another where it is evaluated alone"));
            }
        }
        Ok(())
    }

    /// A call that moves nothing but the counter: a batch without elements, or one that is refused.
    fn keeps(&mut self, batch: &Batch, mode: Mode, refused: bool) -> Result<(), String> {
        let counts = mode == Mode::Train && self.before.counts();
        let counted = self.state[COUNTER].as_counter().unwrap_or(0) + i64::from(counts);
        let step = self.step(batch, mode, None);
        let request = Request { case: "momentum".to_owned(), step: 0, call: step };
        match ask(self.subject.as_mut(), &request) {
            Ok(Answer::Tensors(answer)) if !refused => {
                self.unmoved(&answer, counted)?;
                self.take(answer, counted)
            }
            Ok(Answer::Refused { refusal, state }) if refused => {
                if refusal.kind != RefusalKind::TooFewValues {
                    return Err(format!("it refuses for another reason: {refusal}"));
                }
                let mut after = self.state.clone();
                after.extend(state);
                self.unmoved(&after, counted)?;
                self.take(after, counted)
            }
            other => Err(format!("one value or none: {other:?}")),
        }
    }

    /// The statistics are as they were, bit by bit.
    fn unmoved(&self, answer: &Tensors, counted: i64) -> Result<(), String> {
        if let Some(name) = STATISTICS.iter().find(|&&name| !same(&self.state[name], &answer[name])) {
            return Err(format!("{name} moves where nothing may"));
        }
        match answer[COUNTER].as_counter() {
            Some(count) if count == counted => Ok(()),
            count => Err(format!("{COUNTER} is {count:?}; expected {counted}")),
        }
    }

    fn take(&mut self, answer: Tensors, counted: i64) -> Result<(), String> {
        let count = answer[COUNTER].as_counter();
        if count != Some(counted) {
            return Err(format!("{COUNTER} is {count:?}; expected {counted}"));
        }
        self.state = answer.into_iter().filter(|(name, _)| self.state.contains_key(name)).collect();
        Ok(())
    }

    /// Each element of the output is the root of its square; `None` is NaN.
    fn output(
        &self,
        answer: &Tensors,
        expected: &[Option<Square>],
        errors: &BTreeMap<String, Vec<f64>>,
    ) -> Result<(), String> {
        for (index, expected) in expected.iter().enumerate() {
            let is = answer["output"].get(index);
            let right = match expected {
                None => is.is_nan(),
                Some(Square { negative, value }) => {
                    // Of −y the mirror image; ends below 0 say nothing of a square.
                    let is = if *negative { -is } else { is };
                    let below = |end: RBig| end <= RBig::ZERO || &end * &end <= *value;
                    let above = |end: RBig| end >= RBig::ZERO && &end * &end >= *value;
                    is.is_finite() && self.within(is, &errors["output"][index], below, above)
                }
            };
            if !right {
                let root =
                    |square: &Square| square.value.to_f64_fast().sqrt() * if square.negative { -1.0 } else { 1.0 };
                let expected = expected.as_ref().map_or(f64::NAN, root);
                return Err(format!("element {index} of output is {is:e}; expected {expected:e}"));
            }
        }
        Ok(())
    }

    /// Whether the lower end of what an answer may stand for satisfies `below`, and the upper end `above`.
    fn within(&self, is: f64, error: &f64, below: impl Fn(RBig) -> bool, above: impl Fn(RBig) -> bool) -> bool {
        let (low, high) = if self.rounded {
            let half = RBig::ONE / RBig::from(2);
            let (down, up) = beside(is, self.before.dtype);
            ((rational(down) + rational(is)) * &half, (rational(is) + rational(up)) * half)
        } else {
            (rational(is) - rational(*error), rational(is) + rational(*error))
        };
        below(low) && above(high)
    }

    /// The bounds of the judge for each element of each output.
    fn errors(&self, step: &Step) -> BTreeMap<String, Vec<f64>> {
        if self.rounded {
            let none = |(name, tensor): (&String, &Tensor)| (name.clone(), vec![0.0; tensor.len()]);
            let mut errors: BTreeMap<String, Vec<f64>> = step.tensors.iter().map(none).collect();
            let output = errors.remove("input").unwrap_or_default();
            errors.insert("output".to_owned(), output);
            return errors;
        }
        let Expected::Tensors { tensors, plan, .. } = Expected::of(step) else { return BTreeMap::new() };
        let bounds = Bounds::of(step, &plan, Law::GOOD[Law::GOOD.len() - 1], &Declared::default());
        let format = self.before.dtype.format().expect("a floating-point type");
        let of = |(name, tensor): (&String, &normative::judge::TrueTensor)| {
            let values = tensor.values.iter().zip(bounds.errors(name));
            let error = values.map(|(truth, &before)| bounds.stored(format).of(before, truth.value.hi));
            // Where a NaN is, no bound is asked for.
            (name.clone(), error.map(|error| if error.is_finite() { error } else { 0.0 }).collect())
        };
        tensors.iter().map(of).collect()
    }

    fn step(&self, batch: &Batch, mode: Mode, nan: Option<usize>) -> Step {
        let mut x = batch.elements();
        if let Some(position) = nan {
            x[position] = f64::NAN;
        }
        let mut tensors = self.state.clone();
        tensors.insert("input".to_owned(), Tensor::rounded(self.before.dtype, &batch.shape(), x));
        Step { mode, ..Step::forward(self.before.operation(batch.samples, batch.cut), tensors) }
    }

    fn ask(&mut self, step: &Step) -> Result<Tensors, String> {
        let request = Request { case: "momentum".to_owned(), step: 0, call: step.clone() };
        match ask(self.subject.as_mut(), &request) {
            Ok(Answer::Tensors(tensors)) => Ok(tensors),
            Ok(Answer::Refused { refusal, .. }) => Err(format!("it refuses: {refusal}")),
            Ok(Answer::Unsupported(why)) => Err(format!("it cannot do it: {why}")),
            Err(fault) => Err(fault.to_string()),
        }
    }
}

/// A normalized value by its square, (x − μ)²/(v + eps), and its sign.
#[derive(Clone)]
struct Square {
    negative: bool,
    value: RBig,
}

fn square(x: &[f64], position: usize, mean: &RBig, variance: &RBig) -> Square {
    let deviation = rational(x[position]) - mean;
    let value = &deviation * &deviation / (variance + rational(EPS));
    Square { negative: deviation < RBig::ZERO, value }
}

fn distance(left: &RBig, right: &RBig) -> RBig {
    if left < right { right - left } else { left - right }
}

/// The numbers beside `value` in its type.
fn beside(value: f64, dtype: DataType) -> (f64, f64) {
    if dtype == DataType::F32 {
        let value = value as f32;
        return (f64::from(value.next_down()), f64::from(value.next_up()));
    }
    (value.next_down(), value.next_up())
}

fn same(left: &Tensor, right: &Tensor) -> bool {
    let equal = |index: usize| {
        let (left, right) = (left.get(index), right.get(index));
        left == right || left.is_nan() && right.is_nan()
    };
    left.shape() == right.shape() && (0..left.len()).all(equal)
}

/// The state of a layer that has seen nothing.
fn fresh(dtype: DataType) -> Tensors {
    Tensors::from([
        ("running_mean".to_owned(), Tensor::rounded(dtype, &[CHANNELS], vec![0.0; CHANNELS])),
        ("running_var".to_owned(), Tensor::rounded(dtype, &[CHANNELS], vec![1.0; CHANNELS])),
        (COUNTER.to_owned(), Tensor::counter(0)),
    ])
}

fn still() -> Drift {
    STATISTICS.into_iter().map(|name| (name, vec![RBig::ZERO; CHANNELS])).collect()
}
