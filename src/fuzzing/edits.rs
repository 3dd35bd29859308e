//! Edits of a random step that reach what `case::random` does not: few and empty axes, other ranks, layouts and types,
//! single extreme values, and, in a wild case, any hyper-parameter and any shape. Choices take bytes (see `Values`).

use serde_json::{Value, json};

use crate::arithmetic::DataType;
use crate::case::simpler::{group_counts, sliced};
use crate::case::values::Values;
use crate::case::{COUNTER, LayoutFormat, Step};
use crate::operation::Operation;
use crate::tensor::Tensor;

/// Values where programs go wrong; those that a type cannot hold are rounded to it.
pub(super) const EXTREMES: [f64; 18] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    3.0,
    1e-5,
    40000.0,
    16777217.0,
    1e19,
    65504.0,
    5.960464477539063e-8,
    1.1754943508222875e-38,
    f64::MIN_POSITIVE,
    5e-324,
    f64::MAX,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

/// Edits a step without gradients; `wild` also in ways that most layers refuse.
pub(super) fn edit(step: &mut Step, values: &mut Values, wild: bool) {
    cut(step, values, wild);
    if values.below(8) == 0 {
        lengthen(step);
    }
    if values.below(4) == 0 {
        step.layout.format = values.pick(&[LayoutFormat::ChannelsLast, LayoutFormat::Strided]);
        step.layout.offset = values.pick(&[0, 1, 7]);
    }
    if wild && values.below(8) == 0 {
        retype(step, values);
    }
    if values.below(4) == 0 {
        let extremes = if wild { &EXTREMES[..] } else { &EXTREMES[..6] };
        for _ in 0..=values.below(3) {
            replace_element(step, values, extremes);
        }
    }
    if wild && values.below(4) == 0 {
        set_parameter(step, values);
    }
    if wild && values.below(8) == 0 {
        reshape(step, values);
    }
    // Channels last is another order only where something comes after the channels.
    if step.layout.format == LayoutFormat::ChannelsLast && step.tensors["input"].shape().len() < 3 {
        step.layout.format = LayoutFormat::Contiguous;
    }
}

/// Most axes short: a case is small, so that many are tried. Now and then one is empty.
fn cut(step: &mut Step, values: &mut Values, wild: bool) {
    for axis in 0..step.tensors["input"].shape().len() {
        let size = step.tensors["input"].shape()[axis];
        let end = match values.below(32) {
            0 if wild => 0,
            0..8 => size,
            _ => size.min(1 + values.below(6)),
        };
        let groups = group_counts(&step.operation, end).first().copied().unwrap_or(1);
        if let Some(shorter) = sliced(step, axis, 0..end, groups).filter(|shorter| shorter.check().is_ok()) {
            *step = shorter;
        }
    }
}

/// One axis of one more, in whatever is shaped like the input.
fn lengthen(step: &mut Step) {
    let shape = step.tensors["input"].shape().to_vec();
    let longer = [shape.as_slice(), &[1]].concat();
    if let Operation::BatchNorm(norm) = &mut step.operation {
        norm.spatial_dims = None;
    }
    for tensor in step.tensors.values_mut().filter(|tensor| tensor.shape() == shape) {
        *tensor = shaped(tensor, &longer);
    }
}

/// Another type for a tensor beside the input.
fn retype(step: &mut Step, values: &mut Values) {
    let others: Vec<String> = step.tensors.keys().filter(|&name| name != "input" && name != COUNTER).cloned().collect();
    if others.is_empty() {
        return;
    }
    let (name, dtype) = (&others[values.below(others.len())], values.pick(&DataType::FLOATS));
    let tensor = &step.tensors[name];
    let other = Tensor::rounded(dtype, tensor.shape(), tensor.to_f64().into_iter().collect());
    step.tensors.insert(name.clone(), other);
}

fn replace_element(step: &mut Step, values: &mut Values, extremes: &[f64]) {
    let (name, extreme) = (any_tensor(step, values), values.pick(extremes));
    let tensor = &step.tensors[&name];
    let mut elements: Vec<f64> = tensor.to_f64().into_iter().collect();
    let place = values.below(elements.len());
    if let Some(element) = elements.get_mut(place) {
        *element = extreme;
        let changed = Tensor::rounded(tensor.dtype(), tensor.shape(), elements);
        step.tensors.insert(name, changed);
    }
}

/// Any hyper-parameter becomes any value that it can be read from.
fn set_parameter(step: &mut Step, values: &mut Values) {
    let Ok(Value::Object(mut operation)) = serde_json::to_value(&step.operation) else { return };
    let keys: Vec<String> = operation.keys().filter(|&key| key != "name").cloned().collect();
    if keys.is_empty() {
        return;
    }
    let key = &keys[values.below(keys.len())];
    let number = match values.below(3) {
        0 => json!(values.pick(&[0_i64, 1, 2, 3, -1, 7, 1 << 40])),
        1 => json!(values.pick(&[0.0, 0.5, 1.0, -1.0, 2.5, 1e-5, 1e-45, 1e30])),
        _ => values.pick(&["nan", "inf", "-inf"]).into(),
    };
    operation[key] = match &operation[key] {
        Value::Bool(flag) => json!(!flag),
        Value::Array(_) => json!(vec![number; values.below(3)]),
        Value::String(text) if !text.parse::<f64>().is_ok_and(|x| !x.is_finite()) => return,
        _ => number,
    };
    if let Ok(operation) = serde_json::from_value(Value::Object(operation)) {
        step.operation = operation;
    }
}

/// Any tensor gets any small shape.
fn reshape(step: &mut Step, values: &mut Values) {
    let name = any_tensor(step, values);
    let shape: Vec<usize> = (0..values.below(6)).map(|_| values.pick(&[0, 1, 2, 3, 4, 5])).collect();
    let elements = values.normals(shape.iter().product(), 0.5, 1.0);
    let reshaped = Tensor::rounded(step.tensors[&name].dtype(), &shape, elements);
    step.tensors.insert(name, reshaped);
}

/// The name of a floating-point tensor.
fn any_tensor(step: &Step, values: &mut Values) -> String {
    let names: Vec<&String> = step.tensors.keys().filter(|name| *name != COUNTER).collect();
    names[values.below(names.len())].clone()
}

/// The same elements in another shape of as many.
fn shaped(tensor: &Tensor, shape: &[usize]) -> Tensor {
    Tensor::rounded(tensor.dtype(), shape, tensor.to_f64().into_iter().collect())
}
