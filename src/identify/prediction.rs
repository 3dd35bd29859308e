//! What a rule makes of a call: the exact answer, and how far a good program may be from it.

use crate::arithmetic::{Format, Law, Reference};
use crate::case::{Answer, COUNTER, Declared, Step};
use crate::judge::{accumulator, tracker};
use crate::operation::Rule;
use crate::tensor::{Tensor, Tensors};

/// The answer of a rule.
#[derive(Clone, Debug)]
pub(super) enum Predicted {
    /// It answers: value and bound of each element, and the counter.
    Answers(Tensors<Vec<Element>>, Option<i64>),
    /// It refuses.
    Refuses,
}

/// An element of a predicted answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    /// The exact value.
    pub value: f64,
    /// The largest error of a good program.
    pub bound: f64,
}

impl Predicted {
    /// The answer of a two-pass, updating or folded program that follows `rule`.
    pub fn of(step: &Step, rule: &Rule) -> Predicted {
        Predicted::under(step, rule, Law::GOOD[Law::GOOD.len() - 1])
    }

    /// The answer of a program under `law`.
    pub fn under(step: &Step, rule: &Rule, law: Law) -> Predicted {
        let own = accumulator(step.tensors["input"].dtype(), &Declared::default());
        Predicted::within(step, rule, law, own)
    }

    /// The answer of a good program that computes in `own`, though the input may be wider.
    pub fn narrow(step: &Step, rule: &Rule, own: Format) -> Predicted {
        Predicted::within(step, rule, Law::GOOD[Law::GOOD.len() - 1], own)
    }

    fn within(step: &Step, rule: &Rule, law: Law, own: Format) -> Predicted {
        let Ok(plan) = step.plan(rule) else { return Predicted::Refuses };
        let values = step.values(|x| x);
        let declared = Declared::default();
        let truths = step.operation.forward(&Reference, &plan, &values, rule);
        let bounds = step.operation.forward(&tracker(law, own, &declared), &plan, &values, rule).tensors;
        let tensors = truths.tensors.into_iter().map(|(name, output)| {
            let format = step.output_dtype(&name).format().expect("outputs are floating-point");
            let errors = bounds[&name].values.iter().map(|tracked| tracked.error);
            let elements = output.values.iter().zip(errors).map(|(truth, error)| {
                let value = truth.value.hi;
                Element { value, bound: stored(error, value, format, own) }
            });
            (name, elements.collect())
        });
        Predicted::Answers(tensors.collect(), truths.num_batches_tracked)
    }

    /// How far those elements of an answer that are numbers lie from this one's tensor `name`; infinite if there are none.
    pub fn distance_of_numbers(&self, answer: &Answer, name: &str) -> f64 {
        let (Predicted::Answers(tensors, _), Some(answer)) = (self, answer.get(name)) else { return f64::INFINITY };
        let numbers = tensors[name].iter().enumerate().filter(|(index, _)| !answer.get(*index).is_nan());
        let multiples = numbers.map(|(index, element)| (answer.get(index) - element.value).abs() / element.bound);
        multiples.reduce(f64::max).unwrap_or(f64::INFINITY)
    }

    /// How far an answer lies from this one in the tensors `compared`, in bounds: at most 1 for a good program.
    pub fn distance(&self, answer: &Answer, compared: &[&str]) -> f64 {
        let (tensors, counter, answers) = match (self, answer) {
            (Predicted::Refuses, Answer::Refused { .. }) => return 0.0,
            (Predicted::Answers(tensors, counter), Answer::Tensors(answers)) => (tensors, counter, answers),
            _ => return f64::INFINITY,
        };
        let counted = answers.get(COUNTER).and_then(Tensor::as_counter);
        if compared.contains(&COUNTER) && counted.is_some() && counted != *counter {
            return f64::INFINITY;
        }
        let mut largest: f64 = 0.0;
        for (name, elements) in tensors.iter().filter(|(name, _)| compared.contains(&name.as_str())) {
            let Some(answer) = answers.get(name) else { continue };
            for (index, &Element { value, bound }) in elements.iter().enumerate() {
                let actual = answer.get(index);
                if actual == value || actual.is_nan() && value.is_nan() {
                    continue;
                }
                let multiple = (actual - value).abs() / bound;
                largest = largest.max(if multiple.is_nan() { f64::INFINITY } else { multiple });
            }
        }
        largest
    }
}

/// The bound of a value once it is stored: see [`crate::judge::Bounds::stored`].
fn stored(error: f64, value: f64, format: Format, accumulator: Format) -> f64 {
    // A program that computes in less than it is given rounds the input, the parameters and its result besides.
    if format.precision > accumulator.precision {
        return 4.0 * error + 4.0 * accumulator.unit_roundoff() * value.abs() + accumulator.half_subnormal();
    }
    if format == accumulator {
        return error + 4.0 * format.half_subnormal();
    }
    let u = format.unit_roundoff();
    error * (1.0 + u) + u * value.abs() + format.half_subnormal()
}
