//! Symmetries: what may be done to an input without, or with a known, effect on the output.
//!
//! ```text
//! y(x + c) = y(x)        y(a·x; a²·eps) = aᵈ·y(x; eps)        y(−x) = ±y(x)        y(Px) = P·y(x)
//! ```
//! Who promises which says [`super::promise`]; what is not promised must be seen. With a = 2^k and with −1 every rounding
//! is the same, so the answers are equal in bits (Sterbenz 1974; IEEE 754-2019, section 4.3.1).

use super::promise::{Axis, Promises, Sign, of};
use super::setting::{Setting, axes, changed, field, with_eps};
use super::trial::{Answers, Asked, Finding, Trial, exact};
use super::{PERMUTING, Property, SCALABLE, SHIFTABLE, SHIFTED, SIGNED, Scope, UNMIXED};
use crate::arithmetic::Truth;
use crate::arithmetic::format::power_of_two;
use crate::case::sketch::{Along, parts_along};
use crate::case::{Flag, Step};
use crate::judge::unravel;
use crate::operation::Operation;
use crate::tensor::Tensor;

pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "shift",
        sentence: "a constant added to what shares a mean changes nothing",
        law: "y(x + c) = y(x), c one constant, or one for each channel or sample as the operation promises",
        source: "Ioffe and Szegedy 2015, section 3",
        flags: &[Flag::Cancellation, Flag::LargeMean],
        scope: SHIFTED,
        trial: shift,
    },
    Property {
        name: "shift-seen",
        sentence: "a constant that does not belong to one mean changes the output as much as it must",
        law: "|y(x + c) − y(x)| ≥ |z(x + c) − z(x)| − B(x + c) − B(x), z the truth, where it is not promised to vanish",
        source: "Chen, Cheung and Yiu 1998",
        flags: &[Flag::GroupAxis, Flag::ModeIgnored],
        scope: SHIFTABLE,
        trial: shift_seen,
    },
    Property {
        name: "scale",
        sentence: "a factor on the input with its square on eps changes nothing, or multiplies",
        law: "y(a·x; a²·eps) = aᵈ·y(x; eps) for a = 3",
        source: "Ba, Kiros and Hinton 2016, section 5",
        flags: &[Flag::EpsValue, Flag::EpsPlace],
        scope: SCALABLE,
        trial: scale,
    },
    Property {
        name: "scale-bits",
        sentence: "a power of two on the input with its square on eps changes no bit",
        law: "y(2ᵏ·x; 4ᵏ·eps) = 2ᵈᵏ·y(x; eps) in bits",
        source: "IEEE 754-2019, section 4.3.1",
        flags: &[Flag::EpsValue, Flag::EpsPlace, Flag::Range],
        scope: SCALABLE,
        trial: scale_bits,
    },
    Property {
        name: "negation",
        sentence: "the negated input gives the negated output, bit by bit",
        law: "y(−x) = −y(x) without a bias, +y(x) for spectral norm",
        source: "IEEE 754-2019, section 4.3.1",
        flags: &[],
        scope: SIGNED,
        trial: negation,
    },
    Property {
        name: "permutation",
        sentence: "permuted samples, channels or positions give the permuted output",
        law: "y(Px) = P·y(x)",
        source: "Wu and He 2018, section 3",
        flags: &[Flag::GroupAxis, Flag::BatchVariance],
        scope: PERMUTING,
        trial: permutation,
    },
    Property {
        name: "other-samples",
        sentence: "a sample's output does not depend on the values of other samples, not in a bit",
        law: "y(x)ᵢ = y(x′)ᵢ where xᵢ = x′ᵢ, in shapes that are alike",
        source: "vllm-project/vllm#48271",
        flags: &[Flag::BatchVariance],
        scope: UNMIXED,
        trial: other_samples,
    },
    Property {
        name: "batch-size",
        sentence: "a sample alone gives what it gives in a batch",
        law: "y(x)ᵢ = y(xᵢ)",
        source: "vllm-project/vllm#48271",
        flags: &[Flag::BatchVariance],
        scope: UNMIXED,
        trial: batch_size,
    },
    Property {
        name: "other-samples-seen",
        sentence: "where the batch shares its statistics, another sample changes the output as much as it must",
        law: "|y(x′)ᵢ − y(x)ᵢ| ≥ |z(x′)ᵢ − z(x)ᵢ| − B(x′) − B(x), where xᵢ = x′ᵢ",
        source: "Chen, Cheung and Yiu 1998",
        flags: &[Flag::ModeIgnored],
        scope: Scope::Of(&["batch_norm", "sync_batch_norm", "spectral_norm"]),
        trial: other_samples_seen,
    },
];

/// The output that symmetries are about.
pub(super) fn output_of(step: &Step) -> &'static str {
    step.operation.signature().outputs[0]
}

/// Where element `index` of the output is, for a message.
pub(super) fn place(asked: &Asked<'_>, index: usize) -> String {
    let output = output_of(asked.step);
    format!("{output}{:?}", unravel(index, asked.step.tensors["input"].shape()))
}

/// For each element: `right` must be `factor` times `left`.
fn equal(answers: &Answers<'_>, finding: &mut Finding, factor: f64, in_bits: bool, changed: &str) {
    let (left, right) = (answers.call(0), answers.call(1));
    let output = output_of(left.step);
    for (index, (one, other)) in left.balls(output).into_iter().zip(right.balls(output)).enumerate() {
        let expected = one * exact(factor);
        let expected = Truth { radius: one.radius * factor.abs(), ..expected };
        let wrong = || {
            let (was, is) = (one.value.hi, other.value.hi);
            format!("{} is {was:e}, and {is:e} {changed}; expected {:e}", place(left, index), was * factor)
        };
        if in_bits {
            finding.same((1, 0), other, expected, wrong);
        } else {
            finding.zero((1, 0), other - expected, wrong);
        }
    }
}

/// For each element in `among`: the answers must differ as much as the truths do, less the bounds.
fn differ(answers: &Answers<'_>, finding: &mut Finding, among: impl Fn(usize) -> bool, changed: &str) {
    let (left, right) = (answers.call(0), answers.call(1));
    let output = output_of(left.step);
    let (answered, truths) = (left.balls(output).into_iter().zip(right.balls(output)), left.truths(output));
    let truths = truths.into_iter().zip(right.truths(output));
    for (index, ((one, other), (was, is))) in answered.zip(truths).enumerate().filter(|(index, _)| among(*index)) {
        let moves = is - was;
        let falls = moves.value.hi < 0.0;
        let wrong = || {
            let (one, other) = (one.value.hi, other.value.hi);
            let (at, moves) = (place(left, index), moves.value.hi);
            format!("{at} moves from {one:e} to {other:e} {changed}; expected it to move by {moves:e}")
        };
        // Towards where the truth moves, it must move as far.
        let (must, does) = if falls { (-moves, one - other) } else { (moves, other - one) };
        finding.at_most((1, 0), must - does, wrong);
    }
}

/// What shares a constant: everything, channels, samples.
fn shifts(promises: &Promises) -> [(bool, &'static str); 3] {
    let Promises { shift, shift_of_channels, shift_of_samples, .. } = *promises;
    [
        (shift, "with one constant added"),
        (shift_of_channels, "with a constant for each channel added"),
        (shift_of_samples, "with a constant for each sample added"),
    ]
}

/// The call with a constant added to everything (kind 0), to each channel (1), or to each sample (2).
pub(super) fn shifted(setting: &mut Setting, step: &Step, kind: usize) -> Step {
    let limit = setting.limit();
    // In the units of the grid, and never 0.
    let unit = step.tensors["input"].to_f64().iter().fold(0.0_f64, |unit, &x| unit.max(lowest_bit(x)));
    let constants: Vec<f64> = (0..8).map(|_| (1 + setting.integer(limit - 1).abs()) as f64).collect();
    let constants: Vec<f64> =
        constants.into_iter().map(|c| c * grid_unit(step, unit) * setting.values.sign()).collect();
    changed(step, "input", |index, x| {
        let [n, c, _] = axes(step, index);
        x + constants[[0, c, n][kind] % constants.len()]
    })
}

/// The largest power of two that divides every value of the input.
fn grid_unit(step: &Step, largest: f64) -> f64 {
    let bits = step.tensors["input"].to_f64();
    bits.iter().map(|&x| lowest_bit(x)).filter(|&bit| bit > 0.0).fold(largest, f64::min)
}

/// The power of two of the last digit of a number that is not 0.
fn lowest_bit(x: f64) -> f64 {
    if x == 0.0 {
        return 0.0;
    }
    let exponent = crate::arithmetic::format::exponent_of(x);
    let digits = (x.to_bits() & ((1 << 52) - 1)) | 1 << 52;
    power_of_two(exponent - 52 + digits.trailing_zeros() as i32)
}

fn shift(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let promised: Vec<usize> = (0..3).filter(|&kind| shifts(of(setting.operation))[kind].0).collect();
    let kind = promised[setting.round % promised.len()];
    let (_, changed) = shifts(of(setting.operation))[kind];
    let other = shifted(setting, &step, kind);
    Some(Trial::of(vec![step, other], move |answers, finding| equal(answers, finding, 1.0, false, changed)))
}

fn shift_seen(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let open: Vec<usize> = (0..3).filter(|&kind| !shifts(of(setting.operation))[kind].0).collect();
    let kind = open[setting.round % open.len()];
    let (_, changed) = shifts(of(setting.operation))[kind];
    let other = shifted(setting, &step, kind);
    Some(Trial::of(vec![step, other], move |answers, finding| differ(answers, finding, |_| true, changed)))
}

/// The same call with the input times `factor`, and what goes with it.
pub(super) fn scaled(step: &Step, factor: f64) -> Option<Step> {
    Some(changed(&with_eps(step, factor * factor)?, "input", |_, x| x * factor))
}

fn scale(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let degree = of(setting.operation).degree?;
    // The square of 3 makes no power of two of alpha.
    let factor = if degree == 0 { 3.0 } else { 2.0 };
    let other = scaled(&step, factor)?;
    let times = f64::powi(factor, degree);
    let changed = "with the input times a and eps times a²";
    Some(Trial::of(vec![step, other], move |answers, finding| equal(answers, finding, times, false, changed)))
}

fn scale_bits(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let degree = of(setting.operation).degree?;
    let exponent = setting.values.pick(&[-4, -3, 3, 5]);
    let other = scaled(&step, power_of_two(exponent))?;
    let times = power_of_two(exponent * degree);
    let changed = "with the input times 2ᵏ and eps times 4ᵏ";
    Some(Trial::of(vec![step, other], move |answers, finding| equal(answers, finding, times, true, changed)))
}

fn negation(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let other = negated(&step);
    // A folded weight alone does not see the statistics.
    let sign = if of(setting.operation).sign == Sign::Odd { -1.0 } else { 1.0 };
    Some(Trial::of(vec![step, other], move |answers, finding| {
        equal(answers, finding, sign, true, "with the input negated");
    }))
}

/// The call with the input negated, and what goes with its sign.
pub(super) fn negated(step: &Step) -> Step {
    let mut other = changed(step, "input", |_, x| -x);
    // What is added goes with the sign; a style is content to adaptive instance norm, and a factor elsewhere.
    let content = (step.operation.name() == "ada_instance_norm").then_some("style");
    let added =
        ["running_mean", "conv_bias", "beta", "shift", "bias", "reference", "block", "error_along", "error_mean"]
            .into_iter()
            .chain(content);
    for name in added.filter(|name| step.tensors.contains_key(*name)) {
        other = changed(&other, name, |_, x| -x);
    }
    other
}

fn permutation(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let axis = setting.values.pick(of(setting.operation).permutes);
    let name = ["samples", "channels", "positions"][along(axis)];
    let (other, sources) = reordered(setting, &step, axis);
    let changed = format!("with the {name} in another order");
    Some(Trial::of(vec![step, other], move |answers, finding| {
        let (left, right) = (answers.call(0), answers.call(1));
        let output = output_of(left.step);
        let (balls, moved) = (left.balls(output), right.balls(output));
        for (index, &source) in sources.iter().enumerate() {
            let (one, other) = (balls[source], moved[index]);
            finding.zero((1, 0), other - one, || {
                let (was, is) = (one.value.hi, other.value.hi);
                format!("{} is {was:e}, and where it comes to lie {is:e} {changed}", place(left, source))
            });
        }
    }))
}

/// The number of an axis of (N, C, L…).
fn along(axis: Axis) -> usize {
    match axis {
        Axis::Samples => 0,
        Axis::Channels => 1,
        Axis::Positions => 2,
    }
}

/// The call with an axis in another order, and what belongs to it; for each position after it the one before.
pub(super) fn reordered(setting: &mut Setting, step: &Step, axis: Axis) -> (Step, Vec<usize>) {
    let along = along(axis);
    let shape = step.tensors["input"].shape();
    let order = order(setting, &step.operation, along, shape[along]);
    let mut other = step.clone();
    other.tensors.insert("input".to_owned(), permuted(&step.tensors["input"], along, &order));
    for (tensor, own) in parameters_along(step, along) {
        other.tensors.insert(tensor.to_owned(), permuted(&step.tensors[tensor], own, &order));
    }
    if let (Operation::SpectralNorm(_), true) = (&step.operation, along > 0) {
        let v = &step.tensors["v"];
        let columns = Tensor::rounded(v.dtype(), &[1, shape[1], shape[2]], v.to_f64().into_iter().collect());
        let columns = permuted(&columns, along, &order).to_f64().into_iter().collect();
        other.tensors.insert("v".to_owned(), Tensor::rounded(v.dtype(), v.shape(), columns));
    }
    (other, sources(shape, along, &order))
}

/// A permutation; of channels one that keeps groups together.
fn order(setting: &mut Setting, operation: &Operation, axis: usize, size: usize) -> Vec<usize> {
    let mut shuffled = |count: usize| {
        let mut order: Vec<usize> = (0..count).collect();
        (1..count).rev().for_each(|last| order.swap(last, setting.values.below(last + 1)));
        // The identity proves nothing.
        if order.is_sorted() {
            order.rotate_left(usize::from(count > 1));
        }
        order
    };
    let num_groups = field(operation, "num_groups").and_then(|number| number.as_u64());
    match num_groups {
        Some(num_groups) if axis == 1 => {
            let num_groups = num_groups as usize;
            let each = size / num_groups;
            let groups = shuffled(num_groups);
            groups.into_iter().flat_map(|group| shuffled(each).into_iter().map(move |c| group * each + c)).collect()
        }
        _ => shuffled(size),
    }
}

/// The parameters that belong to an axis of the input, and their own axis.
fn parameters_along(step: &Step, axis: usize) -> Vec<(&'static str, usize)> {
    match (&step.operation, axis) {
        (Operation::FrozenBatchNorm(_), 1) | (Operation::ConvBatchNormFold(_), 0) => {
            let names = ["weight", "bias", "running_mean", "running_var", "conv_bias"];
            names.into_iter().filter(|name| step.tensors.contains_key(*name)).map(|name| (name, 0)).collect()
        }
        (Operation::WeightNorm(_), 0) => vec![("weight", 0)],
        (Operation::SpectralNorm(_), 0) => vec![("u", 0)],
        (other, axis) => {
            let along = [Along::Samples, Along::Channels, Along::Positions][axis];
            let mut parts = parts_along(other.name(), along);
            parts.retain(|(name, _)| step.tensors.contains_key(*name));
            parts
        }
    }
}

/// The tensor whose slice i along `axis` is slice order[i].
fn permuted(tensor: &Tensor, axis: usize, order: &[usize]) -> Tensor {
    let values = sources(tensor.shape(), axis, order).into_iter().map(|source| tensor.get(source)).collect();
    Tensor::rounded(tensor.dtype(), tensor.shape(), values)
}

/// For each position after the permutation the one before.
fn sources(shape: &[usize], axis: usize, order: &[usize]) -> Vec<usize> {
    let inner: usize = shape[axis + 1..].iter().product();
    let (size, count) = (shape[axis], shape.iter().product());
    (0..count)
        .map(|index| {
            let (outer, along, k) = (index / (size * inner), index / inner % size, index % inner);
            (outer * size + order[along]) * inner + k
        })
        .collect()
}

/// The call, and the same with other values in every sample but the first.
pub(super) fn with_other_samples(setting: &mut Setting) -> [Step; 2] {
    let step = setting.step();
    let first = step.tensors["input"].len() / step.tensors["input"].shape()[0];
    let fresh = setting.grid(step.tensors["input"].len(), 1.0);
    let positive = matches!(step.operation, Operation::SpectralNorm(_));
    let other = changed(&step, "input", |index, x| match index < first {
        true => x,
        false if positive => fresh[index].abs() + 1.0,
        false => fresh[index],
    });
    [step, other]
}

fn other_samples(setting: &mut Setting) -> Option<Trial> {
    let [step, other] = with_other_samples(setting);
    Some(Trial::of(vec![step, other], |answers, finding| {
        let (left, right) = (answers.call(0), answers.call(1));
        let output = output_of(left.step);
        let first = left.step.tensors["input"].len() / left.step.tensors["input"].shape()[0];
        let pairs = left.balls(output).into_iter().zip(right.balls(output)).take(first);
        for (index, (one, other)) in pairs.enumerate() {
            finding.same((1, 0), other, one, || {
                let (was, is) = (one.value.hi, other.value.hi);
                format!("{} is {was:e}, and {is:e} with other values in the other samples", place(left, index))
            });
        }
    }))
}

fn batch_size(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    // Parameters that belong to the samples go with them.
    let kept: Vec<&str> = parameters_along(&step, 0).into_iter().map(|(name, _)| name).collect();
    let mut alone = step.clone();
    for name in kept.into_iter().chain(["input"]) {
        let tensor = &step.tensors[name];
        let mut shape = tensor.shape().to_vec();
        let length = tensor.len() / shape[0];
        shape[0] = 1;
        let values = (0..length).map(|index| tensor.get(index)).collect();
        alone.tensors.insert(name.to_owned(), Tensor::rounded(tensor.dtype(), &shape, values));
    }
    Some(Trial::of(vec![step, alone], |answers, finding| {
        let (left, right) = (answers.call(0), answers.call(1));
        let output = output_of(left.step);
        for (index, (one, other)) in left.balls(output).into_iter().zip(right.balls(output)).enumerate() {
            finding.same((1, 0), other, one, || {
                format!("{} is {:e} in a batch and {:e} alone", place(left, index), one.value.hi, other.value.hi)
            });
        }
    }))
}

fn other_samples_seen(setting: &mut Setting) -> Option<Trial> {
    let [step, other] = with_other_samples(setting);
    let first = step.tensors["input"].len() / step.tensors["input"].shape()[0];
    Some(Trial::of(vec![step, other], move |answers, finding| {
        differ(answers, finding, |index| index < first, "with other values in the other samples");
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::arithmetic::DataType;
    use crate::property::ROUNDS;

    #[test]
    fn the_last_digit_of_a_number_is_found() {
        let cases = [(0.0, 0.0), (1.0, 1.0), (-6.0, 2.0), (0.75, 0.25), (1.0 + f64::EPSILON, f64::EPSILON)];
        for (x, bit) in cases {
            assert_eq!(lowest_bit(x), bit, "{x}");
        }
    }

    /// Every type holds what is shifted, so that all elements that share a constant move by it, and by no rounding of it.
    #[test]
    fn a_shift_is_exact_and_never_nothing() {
        for dtype in DataType::FLOATS {
            let rounds = ["layer_norm", "batch_norm", "rms_norm"]
                .map(|operation| (0..ROUNDS).map(move |round| (operation, round)));
            for (operation, round) in rounds.into_iter().flatten() {
                for kind in 0..3 {
                    let mut setting = Setting::new("shift", operation, dtype, kind as u64, round);
                    let step = setting.step();
                    let other = shifted(&mut setting, &step, kind);
                    let (input, moved) = (step.tensors["input"].to_f64(), other.tensors["input"].to_f64());
                    let mut by = BTreeMap::new();
                    for (index, (x, y)) in input.into_iter().zip(moved).enumerate() {
                        let [n, c, _] = axes(&step, index);
                        let shift = by.entry([0, c, n][kind]).or_insert(y - x);
                        assert!(*shift == y - x && *shift != 0.0, "{x} to {y}, others by {shift}");
                    }
                    let differ = by.values().any(|shift| Some(shift) != by.values().next());
                    assert_eq!(differ, by.len() > 1, "{by:?}");
                }
            }
        }
    }
}
