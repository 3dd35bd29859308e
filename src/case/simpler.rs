//! Simpler neighbours of a case: fewer steps, options and tensors, smaller shapes, values nearer to 0, ±1, powers of two.
//!
//! Each is strictly simpler, so that a search among them ends. They need not be calls that the operation takes: whoever
//! searches sees what becomes of them.

use std::ops::Range;

use ndarray::{Axis, Slice};

use super::{Case, Layout, Step};
use crate::arithmetic::DataType;
use crate::arithmetic::format::power_of_two;
use crate::operation::{LayerNorm, LayerNorm1p, MaskedLayerNorm, Operation, RmsNorm, SimpleNorm};
use crate::tensor::Tensor;

/// What is simplified, the most telling first.
pub(crate) const PASSES: [fn(&Case) -> Vec<Case>; 5] = [steps, options, shapes, coarse_values, fine_values];

/// Fewer steps: without the last.
fn steps(case: &Case) -> Vec<Case> {
    let fewer = (1..case.steps.len()).map(|count| Case { steps: case.steps[..count].to_vec(), ..case.clone() });
    fewer.collect()
}

/// Without double backward, gradients, layouts, and each optional tensor.
fn options(case: &Case) -> Vec<Case> {
    let mut simpler = Vec::new();
    if case.steps.iter().any(|step| step.double_backward) {
        simpler.push(each(case, |step| {
            step.double_backward = false;
            step.tensors.retain(|name, _| !name.starts_with("grad_grad."));
        }));
    }
    if case.steps.iter().any(|step| step.gradients) {
        simpler.push(each(case, |step| {
            (step.gradients, step.double_backward) = (false, false);
            step.tensors.retain(|name, _| !name.starts_with("grad_"));
        }));
    }
    if case.steps.iter().any(|step| step.layout != Layout::default()) {
        simpler.push(each(case, |step| step.layout = Layout::default()));
    }
    // Running mean and variance go together.
    for names in [
        &["num_batches_tracked"][..],
        &["running_mean", "running_var", "num_batches_tracked"],
        &["bias"],
        &["weight"],
        &["conv_bias"],
        &["scale", "shift"],
        &["gamma", "beta"],
        &["key_weight"],
        &["gate"],
        &["tau"],
        &["gain"],
        &["v"],
    ] {
        let optional = |name: &&str| case.steps[0].operation.signature().optional.contains(name);
        if names.iter().all(optional) && names.iter().any(|&name| case.steps[0].tensors.contains_key(name)) {
            simpler.push(each(case, |step| {
                for name in names {
                    step.tensors.remove(*name);
                    step.tensors.remove(&format!("grad_grad.{name}"));
                }
            }));
        }
    }
    simpler
}

/// One axis of the input shorter, and whatever goes with it.
fn shapes(case: &Case) -> Vec<Case> {
    let shape = case.steps[0].tensors["input"].shape().to_vec();
    let mut simpler = Vec::new();
    for (axis, &size) in shape.iter().enumerate() {
        let half = size / 2;
        let ranges = [(0, 1), (0, half), (half, size), (0, size.saturating_sub(1)), (1, size)];
        for (start, end) in ranges {
            if end <= start || end - start >= size {
                continue;
            }
            for groups in group_counts(&case.steps[0].operation, end - start) {
                let sliced: Option<Vec<Step>> =
                    case.steps.iter().map(|step| sliced(step, axis, start..end, groups)).collect();
                simpler.extend(sliced.map(|steps| Case { steps, ..case.clone() }));
            }
        }
    }
    simpler
}

/// The numbers of groups to try with that many channels; one that is ignored where there are no groups.
pub(crate) fn group_counts(operation: &Operation, channels: usize) -> Vec<usize> {
    match operation {
        Operation::GroupNorm(norm) => {
            let mut counts = vec![norm.num_groups, norm.num_groups.min(channels).div_ceil(2), 1];
            counts.retain(|&count| count > 0 && channels.is_multiple_of(count) && count <= norm.num_groups);
            counts.dedup();
            counts
        }
        _ => vec![1],
    }
}

/// A step of which `range` is left along an axis of the input, and of what goes with it; `None` where that cannot be.
pub(crate) fn sliced(step: &Step, axis: usize, range: Range<usize>, groups: usize) -> Option<Step> {
    let mut step = step.clone();
    let shape = step.tensors["input"].shape().to_vec();
    if range.end > *shape.get(axis)? {
        return None;
    }
    // Parameters with a normalized shape belong to the last axes.
    let mut trailing = None;
    match &mut step.operation {
        Operation::LayerNorm(LayerNorm { normalized_shape, .. })
        | Operation::RmsNorm(RmsNorm { normalized_shape, .. })
        | Operation::LayerNorm1p(LayerNorm1p { normalized_shape, .. })
        | Operation::SimpleNorm(SimpleNorm { normalized_shape, .. })
        | Operation::MaskedLayerNorm(MaskedLayerNorm { normalized_shape, .. }) => {
            trailing = Some((axis + normalized_shape.len()).checked_sub(shape.len()));
            if let Some(Some(axis)) = trailing {
                *normalized_shape.get_mut(axis)? = range.len();
            }
        }
        Operation::GroupNorm(norm) if axis == 1 => norm.num_groups = groups,
        Operation::SyncBatchNorm(norm) if axis == 0 => norm.splits = shorter(&norm.splits, &range)?,
        _ => {}
    }
    for tensor in step.tensors.values_mut() {
        if let Some(along) = axis_of(tensor.shape(), &shape, axis, trailing) {
            *tensor = (range.end <= tensor.shape()[along]).then(|| slice(tensor, along, range.clone()))?;
        }
    }
    Some(step)
}

/// The axis of a tensor that corresponds to axis `axis` of an input of shape `input`, if one does. `trailing` is that of a
/// normalized shape, where the operation has one.
fn axis_of(own: &[usize], input: &[usize], axis: usize, trailing: Option<Option<usize>>) -> Option<usize> {
    // A tensor of the input's rank lies along it; one of a single axis, only if it is as long.
    let along_input = own.len() == input.len() && own[axis] == input[axis];
    match trailing {
        _ if along_input && (trailing.is_none() || own == input) => Some(axis),
        Some(trailing) => trailing.filter(|&along| along < own.len()),
        // A vector with a value for each channel or row.
        None => (own == [input[axis]] && axis <= 1).then_some(0),
    }
}

/// What is left to the workers of a batch: whole ones from the last on are dropped, then samples of the last.
fn shorter(splits: &[usize], range: &Range<usize>) -> Option<Vec<usize>> {
    if range.start > 0 {
        return None;
    }
    let mut left = range.end;
    let mut shorter = Vec::new();
    for &split in splits {
        shorter.push(split.min(left));
        left -= split.min(left);
    }
    while shorter.len() > 1 && shorter.last() == Some(&0) {
        shorter.pop();
    }
    Some(shorter)
}

fn slice(tensor: &Tensor, axis: usize, range: Range<usize>) -> Tensor {
    let slice = Slice::from(range);
    match tensor {
        Tensor::F64(array) => Tensor::F64(array.slice_axis(Axis(axis), slice).to_owned()),
        Tensor::F32(array) => Tensor::F32(array.slice_axis(Axis(axis), slice).to_owned()),
        Tensor::F16(array) => Tensor::F16(array.slice_axis(Axis(axis), slice).to_owned()),
        Tensor::BF16(array) => Tensor::BF16(array.slice_axis(Axis(axis), slice).to_owned()),
        Tensor::I64(array) => Tensor::I64(array.slice_axis(Axis(axis), slice).to_owned()),
    }
}

/// How simple a value is, and the values that are simpler: 0, ±1, a power of two, one of few digits.
fn simpler_values(value: f64) -> [f64; 4] {
    let sign = if value < 0.0 { -1.0 } else { 1.0 };
    let exponent = if value == 0.0 { 0 } else { value.abs().log2().floor() as i32 };
    let digits = (value * power_of_two(3 - exponent)).round() * power_of_two(exponent - 3);
    [0.0, sign, sign * power_of_two(exponent), digits]
}

/// Whole tensors of simpler values.
fn coarse_values(case: &Case) -> Vec<Case> {
    changed(case, |count| vec![(0, count)])
}

/// Halves, quarters, and so on down to single elements of simpler values.
fn fine_values(case: &Case) -> Vec<Case> {
    changed(case, |count| {
        let mut chunks = Vec::new();
        let mut length = count.div_ceil(2);
        while length >= 1 && count > 1 {
            chunks.extend((0..count).step_by(length).map(|start| (start, (start + length).min(count))));
            if length == 1 {
                break;
            }
            length = length.div_ceil(2);
        }
        chunks
    })
}

/// For each tensor of each step and each of its `chunks`: the elements there made as simple as each kind of value.
fn changed(case: &Case, chunks: impl Fn(usize) -> Vec<(usize, usize)>) -> Vec<Case> {
    let mut simpler = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        for (name, tensor) in step.tensors.iter().filter(|(_, tensor)| tensor.dtype() != DataType::I64) {
            let values: Vec<f64> = tensor.to_f64().into_iter().collect();
            for (start, end) in chunks(values.len()) {
                for kind in 0..4 {
                    let mut changed = values.clone();
                    for value in &mut changed[start..end] {
                        let choices = simpler_values(*value);
                        let is_simple = choices[..kind].contains(value) || !value.is_finite();
                        *value = if is_simple { *value } else { choices[kind] };
                    }
                    if changed != values {
                        let mut case = case.clone();
                        let tensor = Tensor::rounded(tensor.dtype(), tensor.shape(), changed);
                        case.steps[number].tensors.insert(name.clone(), tensor);
                        simpler.push(case);
                    }
                }
            }
        }
    }
    simpler
}

fn each(case: &Case, change: impl Fn(&mut Step)) -> Case {
    let mut case = case.clone();
    case.steps.iter_mut().for_each(change);
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::catalogue;

    fn case(name: &str) -> &'static Case {
        catalogue::cases().iter().find(|case| case.name == name).expect("a case")
    }

    #[test]
    fn parameters_shrink_with_the_axis_they_belong_to() {
        for (name, axis, tensor, shape) in [
            ("layer_norm-f32-size-8-grad", 1, "weight", &[2, 2][..]),
            ("batch_norm-f32-size-8", 1, "running_mean", &[1]),
            ("group_norm-f32-size-8-grad2", 1, "grad_grad.bias", &[1]),
            ("weight_norm-f32-conv", 0, "weight", &[1, 1, 1, 1]),
            ("spectral_norm-f32-linear", 0, "u", &[1]),
        ] {
            let step = &case(name).steps[0];
            let size = step.tensors["input"].shape()[axis];
            let end = if name.starts_with("layer") { size / 2 } else { 1 };
            let sliced = sliced(step, axis, 0..end, 1).expect("the axes correspond");
            assert_eq!(sliced.tensors[tensor].shape(), shape, "{name}");
            assert_eq!(sliced.check(), Ok(()), "{name}");
        }
    }

    #[test]
    fn values_go_to_zero_one_and_powers_of_two() {
        assert_eq!(simpler_values(-5.3), [0.0, -1.0, -4.0, -5.5]);
        assert_eq!(simpler_values(0.3), [0.0, 1.0, 0.25, 0.3125]);
        let case = case("layer_norm-f32-size-2");
        assert!(coarse_values(case).len() >= 3 && fine_values(case).len() > 20);
    }

    #[test]
    fn a_chain_of_simpler_cases_ends() {
        for pass in PASSES {
            let mut case = case("batch_norm-f32-size-5-grad2").clone();
            for links in 0.. {
                assert!(links < 1000, "no end");
                match pass(&case).pop() {
                    Some(simpler) => case = simpler,
                    None => break,
                }
            }
        }
    }
}
