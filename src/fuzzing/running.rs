//! Target `running`: sequences of momentum updates, against exact rationals.

use dashu_int::ops::Abs;
use dashu_ratio::RBig;

use super::asking::{check_call, each_step};
use super::generator::{STEPS, Wanted};
use crate::arithmetic::Format;
use crate::case::values::Values;
use crate::case::{Answer, Step};
use crate::operation::{Mode, Operation, RUNNING};

const WANTED: Wanted<'static> = Wanted { operations: RUNNING, steps: STEPS, gradients: Some(false), ..Wanted::ANY };

/// Asks the case that the bytes stand for, of up to 32 steps, with another momentum now and then.
///
/// ```text
/// r ← (1 − m)·r + m·s     s: the mean of a channel, or Σ(x − x̄)²/(n − 1); m = 1/k for batch k without a momentum
/// ```
/// Every average that the reference keeps is the rational number of this formula, from the average before, rounded once.
/// So by induction the error of a sequence is that of its roundings, and a step needs no tolerance. The counter counts.
///
/// # Panics
/// If one of these does not hold.
pub fn running(data: &[u8]) {
    let mut case = WANTED.case(data);
    let mut values = Values::of_bytes(data);
    let mut momentum = momentum_of(&case.steps[0].operation);
    for step in &mut case.steps {
        if values.below(4) == 0 {
            momentum =
                values.pick(&[Some(0.1), Some(0.0), Some(1.0), Some(0.5), Some(0.9), Some(1.5), Some(-0.25), None]);
        }
        set_momentum(&mut step.operation, momentum);
    }
    let id = values.below(1 << 16) as u64;
    each_step(&case, |call| {
        let (_, answer) = check_call(id, call);
        if let Answer::Tensors(_) = answer {
            check(call, &answer);
        }
        answer
    });
}

fn momentum_of(operation: &Operation) -> Option<f64> {
    match operation {
        Operation::BatchNorm(norm) => norm.momentum,
        Operation::SyncBatchNorm(norm) => norm.momentum,
        Operation::InstanceNorm(norm) => norm.momentum,
        other => panic!("{} is not wanted", other.name()),
    }
}

fn set_momentum(operation: &mut Operation, momentum: Option<f64>) {
    match operation {
        Operation::BatchNorm(norm) => norm.momentum = momentum,
        Operation::SyncBatchNorm(norm) => norm.momentum = momentum,
        // It has no batches to count.
        Operation::InstanceNorm(norm) => norm.momentum = momentum.or(norm.momentum),
        other => panic!("{} is not wanted", other.name()),
    }
}

fn check(call: &Step, answer: &Answer) {
    let trains = call.mode == Mode::Train;
    let counted = call.num_batches_tracked();
    let counts = trains && !matches!(call.operation, Operation::InstanceNorm(_));
    let after = answer.get("num_batches_tracked").and_then(|counter| counter.as_counter());
    assert_eq!(after, counted.map(|batches| batches + i64::from(counts)), "{:?}", call.operation);
    let momentum = match momentum_of(&call.operation) {
        Some(momentum) => exact(momentum),
        // Without a counter there is nothing to divide by.
        None => match after {
            Some(batches) if counts && batches > 0 => RBig::ONE / RBig::from(batches),
            _ => return,
        },
    };
    let groups = groups(call);
    for (name, statistic) in [("running_mean", mean as fn(&[f64]) -> RBig), ("running_var", variance)] {
        let Some((old, new)) = call.tensors.get(name).zip(answer.get(name)) else { continue };
        let format = new.dtype().format().expect("a statistic is floating-point");
        for (channel, samples) in groups.iter().enumerate() {
            let (old, new) = (old.get(channel), new.get(channel));
            let finite = old.is_finite() && samples.iter().flatten().all(|x| x.is_finite());
            if !trains || !finite || samples.iter().any(Vec::is_empty) || samples.is_empty() {
                continue;
            }
            let sum = samples.iter().fold(RBig::ZERO, |sum, sample| sum + statistic(sample));
            let batch = sum / RBig::from(samples.len() as i64);
            let kept = (RBig::ONE - momentum.clone()) * exact(old) + momentum.clone() * batch;
            assert!(is_rounded(new, &kept, format), "{name}[{channel}] of {:?} is {new:e}", call.operation);
        }
    }
}

/// For each channel the values of its groups: one for batch norm, one for each sample for instance norm.
fn groups(call: &Step) -> Vec<Vec<Vec<f64>>> {
    let input = &call.tensors["input"];
    let (shape, elements) = (input.shape(), input.widened());
    let (samples, channels) = (shape[0], shape[1]);
    let length: usize = shape[2..].iter().product();
    let instance = |n: usize, c: usize| elements[(n * channels + c) * length..][..length].to_vec();
    let alone = matches!(call.operation, Operation::InstanceNorm(_));
    let of_channel = |c: usize| -> Vec<Vec<f64>> {
        let instances = (0..samples).map(|n| instance(n, c));
        if alone { instances.collect() } else { vec![instances.flatten().collect()] }
    };
    (0..channels).map(of_channel).collect()
}

fn mean(x: &[f64]) -> RBig {
    let sum = x.iter().fold(RBig::ZERO, |sum, &x| sum + exact(x));
    sum / RBig::from(x.len() as i64)
}

/// (Σx² − (Σx)²/n)/(n − 1).
fn variance(x: &[f64]) -> RBig {
    let squares = x.iter().fold(RBig::ZERO, |sum, &x| sum + exact(x) * exact(x));
    let (mean, count) = (mean(x), RBig::from(x.len() as i64));
    (squares - mean.clone() * mean * count) / RBig::from(x.len() as i64 - 1)
}

/// Whether `actual` can be `truth` rounded to `format`: |actual − truth| ≤ u·|truth|, or half the smallest subnormal.
fn is_rounded(actual: f64, truth: &RBig, format: Format) -> bool {
    if !actual.is_finite() {
        return truth.clone().abs() >= exact(format.max_finite());
    }
    let error = (exact(actual) - truth.clone()).abs();
    error <= truth.clone().abs() * exact(format.unit_roundoff())
        || error * RBig::from(2) <= exact(2.0 * format.half_subnormal())
}

/// A finite number.
fn exact(value: f64) -> RBig {
    RBig::try_from(value).expect("it is finite")
}
