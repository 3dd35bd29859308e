//! Running statistics: closed forms over several calls.
//!
//! ```text
//! r ← (1 − m)·r + m·s        s: the mean, or the variance times n/(n − 1)
//! after T equal batches      r_T − s = (1 − m)ᵀ·(r₀ − s)
//! m = 0: r_T = r₀            m = 1: r_T = s_T            no m: r_T = mean(s₁, …, s_T), in any order
//! ```
//! The error of a step is what the last step's leaves, |1 − m| of it, plus the step's own bound. Ioffe and Szegedy 2015,
//! algorithm 2; torch.nn.BatchNorm1d.

use super::setting::{Setting, changed};
use super::trial::{Answers, Asked, Finding, Trial, ball, exact, moments, sum};
use super::{Property, Scope};
use crate::arithmetic::{Factor, Real, Truth};
use crate::case::{COUNTER, Flag, Step};
use crate::judge::{Expected, Outcome, judge};
use crate::operation::{BATCH, Mode, Operation, RUNNING};
use crate::tensor::Tensor;

const STATISTICS: [&str; 2] = ["running_mean", "running_var"];

pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "running-equal-batches",
        sentence: "equal batches draw the running statistics towards theirs, by the factor 1 − m each",
        law: "r_T − s = (1 − m)ᵀ·(r₀ − s)",
        source: "Ioffe and Szegedy 2015, algorithm 2",
        flags: &[Flag::MomentumSense, Flag::RunningVarBias, Flag::RunningQuantity, Flag::StateUpdate],
        scope: Scope::Of(RUNNING),
        trial: equal_batches,
    },
    Property {
        name: "running-twice",
        sentence: "two equal batches with m are one with 1 − (1 − m)²",
        law: "r after s, s with m = r after s with 1 − (1 − m)²",
        source: "Busbridge et al. 2023, the EMA scaling rule",
        flags: &[Flag::MomentumSense],
        scope: Scope::Of(RUNNING),
        trial: twice,
    },
    Property {
        name: "running-ends",
        sentence: "m = 0 keeps the running statistics bit by bit, m = 1 replaces them",
        law: "r = r₀ for m = 0, r = s for m = 1",
        source: "torch.nn.BatchNorm1d, momentum",
        flags: &[Flag::MomentumSense, Flag::StateUpdate],
        scope: Scope::Of(RUNNING),
        trial: ends,
    },
    Property {
        name: "running-average",
        sentence: "without a momentum the running statistics are the mean of the batches', in any order",
        law: "r_T = (s₁ + … + s_T)/T",
        source: "torch.nn.BatchNorm1d, momentum=None",
        flags: &[Flag::CumulativeAverage, Flag::Counter],
        scope: Scope::Of(BATCH),
        trial: average,
    },
    Property {
        name: "evaluation-keeps",
        sentence: "evaluation moves no statistic and no counter, and does not see the rest of the batch",
        law: "eval: r = r₀, t = t₀, y(x)ᵢ = y(x′)ᵢ where xᵢ = x′ᵢ",
        source: "Ioffe and Szegedy 2015, algorithm 2",
        flags: &[Flag::StateUpdate, Flag::ModeIgnored, Flag::Counter],
        scope: Scope::Of(RUNNING),
        trial: evaluation_keeps,
    },
    Property {
        name: "evaluation-after-one",
        sentence: "evaluation on the batch that replaced the statistics is training's answer, but for Bessel's correction",
        law: "eval/train = √((v + eps)/(v·n/(n − 1) + eps)) for m = 1",
        source: "torch.nn.BatchNorm1d: the biased variance normalizes, the unbiased is stored",
        flags: &[Flag::RunningVarBias, Flag::RunningQuantity, Flag::ModeIgnored],
        scope: Scope::Of(BATCH),
        trial: evaluation_after_one,
    },
    Property {
        name: "momentum-machine",
        sentence: "training, evaluation, other momenta, refused, NaN and (in odd rounds) empty batches in any order leave the \
                   right state",
        law: "each step as the judge expects it, and all of them as (1 − m)·r + m·s in exact arithmetic",
        source: "torch.nn.BatchNorm1d as a state machine",
        flags: &[Flag::StateUpdate, Flag::Counter, Flag::MomentumSense, Flag::Sequence],
        scope: Scope::Of(RUNNING),
        trial: machine,
    },
];

/// A training call with running statistics and a counter.
fn with_statistics(setting: &mut Setting) -> Step {
    let mut step = setting.step();
    let channels = step.tensors["input"].shape()[1];
    let mut few = |choices: &[f64]| (0..channels).map(|_| setting.values.pick(choices)).collect::<Vec<f64>>();
    let (means, variances) = (few(&[0.0, 1.0, -3.0, 8.0]), few(&[1.0, 0.5, 4.0, 32.0]));
    step.tensors.insert("running_mean".to_owned(), setting.tensor(&[channels], means));
    step.tensors.insert("running_var".to_owned(), setting.tensor(&[channels], variances));
    step.tensors.insert(COUNTER.to_owned(), Tensor::counter(0));
    step
}

/// The step with this momentum.
fn with_momentum(step: &Step, value: Option<f64>) -> Step {
    let mut step = step.clone();
    match &mut step.operation {
        Operation::BatchNorm(norm) => norm.momentum = value,
        Operation::SyncBatchNorm(norm) => norm.momentum = value,
        Operation::InstanceNorm(norm) => norm.momentum = value,
        _ => {}
    }
    step
}

/// The step with another input of the same shape.
fn with_batch(setting: &mut Setting, step: &Step) -> Step {
    let fresh = setting.grid(step.tensors["input"].len(), 0.25);
    changed(step, "input", |index, _| fresh[index])
}

/// The statistic of a batch for each channel: its mean, or its variance with Bessel's correction; over samples their mean.
fn statistic(asked: &Asked<'_>, name: &str) -> Vec<Truth> {
    let input = asked.sent("input");
    let groups: Vec<Vec<f64>> = asked.groups().iter().map(|group| group.iter().map(|&p| input[p]).collect()).collect();
    let channels = asked.step.tensors["input"].shape()[1];
    let of_group = |x: &Vec<f64>| {
        let (mean, variance) = moments(x, true);
        let count = x.len() as f64;
        if name == "running_mean" { mean } else { variance * exact(count) / exact(count - 1.0) }
    };
    let samples = groups.len() / channels;
    let of_channel = |channel: usize| {
        let own = (0..samples).map(|sample| of_group(&groups[sample * channels + channel]));
        sum(own) / exact(samples as f64)
    };
    (0..channels).map(of_channel).collect()
}

/// What a running statistic must be after a step: what exact arithmetic says, and what the errors of all steps may come
/// to.
struct Model {
    values: Vec<Truth>,
    errors: Vec<f64>,
}

impl Model {
    /// Of the state that is sent first.
    fn new(asked: &Asked<'_>, name: &str) -> Model {
        let values: Vec<Truth> = asked.sent(name).into_iter().map(exact).collect();
        Model { errors: vec![0.0; values.len()], values }
    }

    /// After a batch whose statistic has the weight `of_new`.
    fn step(&mut self, asked: &Asked<'_>, name: &str, of_new: Truth) {
        let own = asked.errors(name);
        let of_old = exact(1.0) - of_new;
        for (channel, new) in statistic(asked, name).into_iter().enumerate() {
            self.values[channel] = of_old * self.values[channel] + of_new * new;
            self.errors[channel] = (of_old.value.hi.abs() * self.errors[channel] + own[channel]) * (1.0 + 1e-12);
        }
    }

    /// The answer must be that near.
    fn compare(&self, asked: &Asked<'_>, name: &str, culprit: (usize, usize), finding: &mut Finding) {
        for (channel, is) in asked.values(name).into_iter().enumerate() {
            let expected = self.values[channel];
            let residual = ball(is, self.errors[channel]) - expected;
            finding.zero(culprit, residual, || {
                format!("{name}[{channel}] is {is:e} after step {}; expected {:e}", culprit.1, expected.value.hi)
            });
        }
    }
}

fn equal_batches(setting: &mut Setting) -> Option<Trial> {
    let momentum = setting.values.pick(&[0.125, 0.5, 0.25]);
    let step = with_momentum(&with_statistics(setting), Some(momentum));
    let count = 2 + setting.round % 4;
    Some(Trial::chained(vec![vec![step; count]], move |answers, finding| {
        for name in STATISTICS {
            let first = answers.call(0);
            let mut model = Model::new(first, name);
            for asked in &answers.chains[0] {
                model.step(asked, name, exact(momentum));
            }
            // The same by the closed form.
            let left = (0..count).fold(exact(1.0), |left, _| left * exact(1.0 - momentum));
            let targets = statistic(first, name).into_iter().zip(first.sent(name));
            model.values = targets.map(|(s, start)| s + left * (exact(start) - s)).collect();
            model.compare(&answers.chains[0][count - 1], name, (0, count - 1), finding);
        }
    }))
}

fn twice(setting: &mut Setting) -> Option<Trial> {
    let step = with_statistics(setting);
    let (half, both) = (with_momentum(&step, Some(0.5)), with_momentum(&step, Some(0.75)));
    Some(Trial::chained(vec![vec![half.clone(), half], vec![both]], |answers, finding| {
        let (second, once) = (&answers.chains[0][1], answers.call(1));
        for name in STATISTICS {
            let first = answers.call(0).errors(name);
            for (channel, (one, other)) in second.balls(name).into_iter().zip(once.balls(name)).enumerate() {
                let one = Truth { radius: one.radius + 0.5 * first[channel], ..one };
                finding.zero((0, 1), one - other, || {
                    let (is, other) = (one.value.hi, other.value.hi);
                    format!("{name}[{channel}] is {is:e} after two batches with m = 0.5; after one with 0.75 {other:e}")
                });
            }
        }
    }))
}

fn ends(setting: &mut Setting) -> Option<Trial> {
    let step = with_statistics(setting);
    let (zero, one) = (with_momentum(&step, Some(0.0)), with_momentum(&step, Some(1.0)));
    let other = with_batch(setting, &one);
    Some(Trial::chained(vec![vec![zero], vec![one, other]], |answers, finding| {
        let (zero, last) = (answers.call(0), &answers.chains[1][1]);
        for name in STATISTICS {
            for (channel, (was, is)) in zero.sent(name).into_iter().zip(zero.balls(name)).enumerate() {
                finding.same((0, 0), is, exact(was), || {
                    format!("{name}[{channel}] is {:e} after a batch with m = 0; expected {was:e}", is.value.hi)
                });
            }
            for (channel, (is, new)) in last.balls(name).into_iter().zip(statistic(last, name)).enumerate() {
                finding.zero((1, 1), is - new, || {
                    let (is, new) = (is.value.hi, new.value.hi);
                    format!("{name}[{channel}] is {is:e} after a batch with m = 1; the batch has {new:e}")
                });
            }
        }
    }))
}

fn average(setting: &mut Setting) -> Option<Trial> {
    let first = with_momentum(&with_statistics(setting), None);
    let (second, third) = (with_batch(setting, &first), with_batch(setting, &first));
    let forth = vec![first.clone(), second.clone(), third.clone()];
    let back = vec![third, second, first];
    Some(Trial::chained(vec![forth, back], |answers, finding| {
        for (chain, steps) in answers.chains.iter().enumerate() {
            let count = steps.len();
            for name in STATISTICS {
                let mut model = Model::new(&steps[0], name);
                for (index, asked) in steps.iter().enumerate() {
                    model.step(asked, name, exact(1.0) / exact((index + 1) as f64));
                }
                let each: Vec<Vec<Truth>> = steps.iter().map(|asked| statistic(asked, name)).collect();
                let mean = |channel: usize| sum(each.iter().map(|own| own[channel])) / exact(count as f64);
                model.values = (0..model.values.len()).map(mean).collect();
                model.compare(&steps[count - 1], name, (chain, count - 1), finding);
            }
            counts(&steps[count - 1], count as i64, (chain, count - 1), finding);
        }
    }))
}

fn counts(asked: &Asked<'_>, expected: i64, culprit: (usize, usize), finding: &mut Finding) {
    match asked.answer.get(COUNTER).and_then(Tensor::as_counter) {
        Some(actual) if actual != expected => {
            finding.fail(culprit, format!("{COUNTER} is {actual} after the call; expected {expected}"));
        }
        _ => {}
    }
}

fn evaluation_keeps(setting: &mut Setting) -> Option<Trial> {
    let step = Step { mode: Mode::Eval, ..with_statistics(setting) };
    let first = step.tensors["input"].len() / step.tensors["input"].shape()[0];
    let was: Vec<f64> = step.tensors["input"].to_f64().into_iter().collect();
    let fresh = with_batch(setting, &step);
    let other = changed(&fresh, "input", |index, x| if index < first { was[index] } else { x });
    Some(Trial::chained(vec![vec![step], vec![other]], move |answers, finding| {
        let (one, other) = (answers.call(0), answers.call(1));
        for name in STATISTICS {
            for (channel, (was, is)) in one.sent(name).into_iter().zip(one.balls(name)).enumerate() {
                finding.same((0, 0), is, exact(was), || {
                    format!("{name}[{channel}] moves from {was:e} to {:e} in evaluation", is.value.hi)
                });
            }
        }
        counts(one, 0, (0, 0), finding);
        for (index, (was, is)) in one.balls("output").into_iter().zip(other.balls("output")).take(first).enumerate() {
            finding.same((1, 0), is, was, || {
                let (was, is) = (was.value.hi, is.value.hi);
                format!("element {index} of output is {was:e}, and {is:e} with other samples beside it, in evaluation")
            });
        }
    }))
}

fn evaluation_after_one(setting: &mut Setting) -> Option<Trial> {
    let train = with_momentum(&with_statistics(setting), Some(1.0));
    let eval = Step { mode: Mode::Eval, ..train.clone() };
    Some(Trial::chained(vec![vec![train, eval]], |answers, finding| {
        let (train, eval) = (&answers.chains[0][0], &answers.chains[0][1]);
        let (input, eps) = (train.sent("input"), exact(train.plan().eps));
        let (trained, evaluated) = (train.balls("output"), eval.balls("output"));
        let (mean_errors, errors) = (train.errors("running_mean"), train.errors("running_var"));
        for (channel, positions) in train.groups().iter().enumerate() {
            let x: Vec<f64> = positions.iter().map(|&position| input[position]).collect();
            let (_, variance) = moments(&x, true);
            let unbiased = variance * exact(x.len() as f64) / exact(x.len() as f64 - 1.0);
            // The stored statistics stand off theirs by their own bounds.
            let stored = Truth { radius: unbiased.radius + errors[channel], ..unbiased } + eps;
            let factor = ((variance + eps) / stored).sqrt();
            let shift = ball(0.0, mean_errors[channel]) / stored.sqrt();
            for &position in positions {
                let expected = trained[position] * factor + shift;
                let is = evaluated[position];
                finding.zero((0, 1), is - expected, || {
                    let (was, is, expected) = (trained[position].value.hi, is.value.hi, expected.value.hi);
                    let change = format!("is {was:e} in training and {is:e} in evaluation after it");
                    format!("element {position} of output {change}; expected {expected:e}")
                });
            }
        }
    }))
}

/// A sequence of calls of all kinds.
fn machine(setting: &mut Setting) -> Option<Trial> {
    let start = with_statistics(setting);
    let shape = start.tensors["input"].shape().to_vec();
    let count = 4 + setting.round * 2;
    let mut steps = vec![start.clone()];
    while steps.len() < count {
        let mut step = with_batch(setting, &start);
        let momenta = [Some(0.5), Some(0.125), Some(1.0), Some(0.0), None, Some(0.75)];
        step = with_momentum(&step, setting.values.pick(&momenta));
        match setting.values.below(8) {
            0 | 1 => step.mode = Mode::Eval,
            // Refused: one value. In batch norm it counts.
            2 => resize(&mut step, &[1, shape[1], 1]),
            // Empty: it counts, and nothing moves.
            3 if setting.round % 2 == 1 => resize(&mut step, &[0, shape[1], shape[2]]),
            // NaN, and from then on NaN in its channel: late, so that something is seen before.
            4 if steps.len() + 2 >= count => {
                step = changed(&step, "input", |index, x| if index == 0 { f64::NAN } else { x });
            }
            _ => {}
        }
        steps.push(step);
    }
    Some(Trial::chained(vec![steps], look).with_refusals())
}

fn resize(step: &mut Step, shape: &[usize]) {
    let count = shape.iter().product::<usize>();
    let input = &step.tensors["input"];
    let values = (0..count).map(|index| input.get(index)).collect();
    let input = Tensor::rounded(input.dtype(), shape, values);
    step.tensors.insert("input".to_owned(), input);
    if let Operation::SyncBatchNorm(norm) = &mut step.operation {
        norm.splits = vec![shape[0]];
    }
}

fn look(answers: &Answers<'_>, finding: &mut Finding) {
    let steps = &answers.chains[0];
    let mut models = STATISTICS.map(|name| Model::new(&steps[0], name));
    let mut batches = 0;
    for (index, asked) in steps.iter().enumerate() {
        let culprit = (0, index);
        let judgement = judge(asked.step, asked.expected(), asked.answer, &asked.declared());
        if judgement.outcome == Outcome::Fail {
            finding.fail(culprit, format!("step {index}: {}", judgement.message));
            return;
        }
        let counting = asked.step.operation.name() != "instance_norm";
        batches += i64::from(counting && asked.step.mode == Mode::Train);
        counts(asked, batches, culprit, finding);
        let Expected::Tensors { plan, .. } = asked.expected() else { continue };
        let Some(factor) = plan.update.filter(|_| !asked.sent("input").is_empty()) else { continue };
        let of_new = match factor {
            Factor::OfNew(momentum) => exact(momentum),
            _ => exact(1.0) / exact(batches as f64),
        };
        for (model, name) in models.iter_mut().zip(STATISTICS) {
            model.step(asked, name, of_new);
            // Where a NaN has come in, the judge alone speaks.
            if model.values.iter().all(Truth::is_finite) {
                model.compare(asked, name, culprit, finding);
            }
        }
    }
}
