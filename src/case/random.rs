//! Random steps: many groups of all kinds of values, for searching violations.

use super::shaped::shaped;
use super::sketch::{Role, Sketch, sketch};
use super::values::{Values, held};
use super::{Layout, Step};
use crate::arithmetic::DataType;
use crate::arithmetic::format::power_of_two;
use crate::operation::{
    Call, ConvBatchNormFold, CrossMapLrn, FrozenBatchNorm, LocalResponseNorm, Mode, Normalize, Operation, Renorm, Rule,
    SpectralNorm, WeightNorm,
};
use crate::tensor::{Tensor, Tensors};

/// Group sizes near every edge that programs have.
const SIZES: [usize; 15] = [2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64];
/// The larger of them, taken less often.
const LARGE: [usize; 4] = [100, 255, 256, 257];

/// A step of the operation called `name`, with about `groups` groups of one random size, each of a random kind: near
/// normal, constant, one outlier, two values, sorted, over many scales; means up to 10⁶ standard deviations.
///
/// # Panics
/// If no operation is called `name`.
pub fn step(values: &mut Values, name: &str, dtype: DataType, groups: usize) -> Step {
    let step = match name {
        "batch_norm" | "sync_batch_norm" | "instance_norm" | "layer_norm" | "group_norm" | "rms_norm" => {
            standardizing(values, name, dtype, groups)
        }
        _ => sketched(values, name, dtype, groups).unwrap_or_else(|| other(values, name, dtype, groups)),
    };
    match values.below(16) {
        0..2 => step.with_gradients(values),
        2..5 => step.with_double_backward(values),
        _ => step,
    }
}

/// A step of an operation of the family.
fn standardizing(values: &mut Values, name: &str, dtype: DataType, groups: usize) -> Step {
    let size = if values.below(16) == 0 { values.pick(&LARGE) } else { values.pick(&SIZES) };
    let eps = values.pick(&[1e-5, 1e-3, 1e-12, 0.5]);
    let affine = values.below(3) > 0;
    let mut tensors = Tensors::new();
    let data: Vec<Vec<f64>> = (0..groups).map(|_| group(values, size, dtype)).collect();
    let (split, num_groups) = (values.pick(&divisors(size)), values.pick(&divisors(groups)));
    let shaped = shaped(name, &data, split, num_groups);
    let momentum = values.pick(&[Some(0.1), Some(0.01), Some(1.0), Some(0.0), None]);
    let operation = shaped.operation(name, eps, momentum);
    let insert = |tensors: &mut Tensors, name: &str, shape: &[usize], values: Vec<f64>| {
        tensors.insert(name.to_owned(), Tensor::rounded(dtype, shape, values));
    };
    if affine {
        let count = shaped.parameters.iter().product();
        insert(&mut tensors, "weight", &shaped.parameters, values.weights(count));
        if name != "rms_norm" {
            insert(&mut tensors, "bias", &shaped.parameters, values.biases(count));
        }
    }
    let mut mode = Mode::Eval;
    if matches!(name, "batch_norm" | "sync_batch_norm" | "instance_norm") {
        // In evaluation the stored statistics are near those of the data, as after training.
        let channels = shaped.parameters[0];
        let means = data.iter().take(channels);
        let means = means.map(|x| x.iter().sum::<f64>() / size as f64 + values.uniform()).collect();
        insert(&mut tensors, "running_mean", &[channels], means);
        let variance = (0..channels).map(|_| (1.0 + values.uniform()) * power_of_two(values.below(20) as i32 - 10));
        insert(&mut tensors, "running_var", &[channels], variance.collect());
        tensors.insert("num_batches_tracked".to_owned(), Tensor::counter(values.below(50) as i64));
        mode = if values.below(4) == 0 { Mode::Eval } else { Mode::Train };
    }
    insert(&mut tensors, "input", &shaped.shape, shaped.input);
    Step { operation, mode, layout: Layout::default(), gradients: false, double_backward: false, tensors }
}

/// A step of an operation that sketches know: every group of a random kind.
fn sketched(values: &mut Values, name: &str, dtype: DataType, groups: usize) -> Option<Step> {
    loop {
        let (c, l) = (values.pick(&[2, 3, 4, 6, 8, 32]), values.pick(&[1, 2, 3, 5, 8, 16, 33]));
        let n = (groups * values.pick(&[2, 4, 8]) / (c * l)).max(1 + values.below(3));
        let sizes = [n, c, l];
        let Sketch { operation, mode, parts } = sketch(name, sizes, values.pick(&[1e-5, 1e-3, 0.5]), values)?;
        let mode = if mode == Mode::Train && values.below(4) == 0 { Mode::Eval } else { mode };
        let (affine, tracked) = (values.below(4) > 0, values.below(4) > 0);
        let mut tensors = Tensors::new();
        for part in parts {
            let stored = matches!(part.role, Role::Mean | Role::Variance);
            if part.optional && !(if stored { tracked } else { affine }) {
                continue;
            }
            let shape = part.shape(sizes);
            // What is inside an activation stays where its tail is no subnormal.
            let inside = part.name == "v" || part.name == "shift" && name == "dynamic_erf";
            let role = if inside { &Role::Slope } else { &part.role };
            let tensor = Tensor::rounded(dtype, &shape, filled(values, role, shape.iter().product(), dtype));
            tensors.insert(part.name.to_owned(), tensor);
        }
        let layout = Layout::default();
        let mut step = Step { operation, mode, layout, gradients: false, double_backward: false, tensors };
        let descriptions = step.descriptions();
        let call = Call { mode, tensors: &descriptions, num_batches_tracked: None };
        // Some shapes have too few values.
        let Ok(plan) = step.operation.plan(&call, &Rule::default()) else { continue };
        let mut input = vec![0.0; step.tensors["input"].len()];
        for number in 0..plan.partition.groups() {
            let positions = plan.partition.positions(number);
            let kept = group(values, positions.len(), dtype);
            positions.into_iter().zip(kept).for_each(|(position, x)| input[position] = x);
        }
        if name.starts_with("evo_norm_s") || name.starts_with("dynamic_") {
            // Within the range of an activation's tail.
            let largest = input.iter().fold(4.0_f64, |largest, x| largest.max(x.abs()));
            input.iter_mut().for_each(|x| *x = held(dtype, *x * 4.0 / largest));
        }
        if name.starts_with("evo_norm_b") {
            // At 0 the two branches of a maximum may meet.
            input.iter_mut().filter(|x| **x == 0.0).for_each(|x| *x = 0.5);
        }
        let shape = step.tensors["input"].shape().to_vec();
        step.tensors.insert("input".to_owned(), Tensor::rounded(dtype, &shape, input));
        if let Some(mask) = step.tensors.get("mask") {
            let mut mask: Vec<f64> = mask.to_f64().into_iter().collect();
            let groups = (0..plan.partition.groups()).map(|number| plan.partition.positions(number));
            groups.for_each(|positions| positions.into_iter().take(2).for_each(|position| mask[position] = 1.0));
            step.tensors.insert("mask".to_owned(), Tensor::rounded(dtype, &shape, mask));
        }
        return Some(step);
    }
}

/// Random values for a tensor of this role.
fn filled(values: &mut Values, role: &Role, count: usize, dtype: DataType) -> Vec<f64> {
    match role {
        Role::Input => vec![0.0; count],
        Role::Like => (0..count).map(|_| held(dtype, values.normal())).collect(),
        Role::Weight | Role::Offset => values.weights(count),
        Role::Bias => values.biases(count),
        Role::Mean => values.normals(count, 0.0, 1.0),
        Role::Variance => (0..count).map(|_| 0.25 + values.uniform()).collect(),
        Role::Mask => (0..count).map(|_| if values.below(4) == 0 { 0.0 } else { 1.0 }).collect(),
        Role::Slope => (0..count).map(|_| 0.25 + values.uniform()).collect(),
        // Equal weights, or hardly more than one of them.
        Role::Logit => (0..count).map(|_| values.pick(&[-16.0, -1.0, 0.0, 1.0, 16.0])).collect(),
    }
}

/// A step of an operation that takes norms, windows or stored statistics.
fn other(values: &mut Values, name: &str, dtype: DataType, groups: usize) -> Step {
    let size = values.pick(&[2, 3, 4, 7, 8, 16, 33]);
    let eps = values.pick(&[1e-5, 1e-3, 0.5]);
    // Without a mean that would make the vectors nearly parallel.
    let data: Vec<f64> = (0..groups * size).map(|_| held(dtype, values.normal())).collect();
    let mut tensors = Tensors::new();
    let mut insert = |name: &str, shape: &[usize], values: Vec<f64>| {
        tensors.insert(name.to_owned(), Tensor::rounded(dtype, shape, values));
    };
    let positive = |values: &mut Values, count| (0..count).map(|_| 0.25 + values.uniform()).collect::<Vec<f64>>();
    let mut mode = Mode::Eval;
    let mut shape = vec![groups, size];
    let operation = match name {
        "normalize" => {
            let p = values.pick(&[2.0, 2.0, 1.0, f64::INFINITY, 3.0]);
            Operation::Normalize(Normalize { p, dim: 1, eps: values.pick(&[1e-12, 1.0, 2.0]) })
        }
        "renorm" => {
            let p = values.pick(&[2.0, 2.0, 1.0, f64::INFINITY, 3.0]);
            Operation::Renorm(Renorm { p, dim: 0, maxnorm: values.pick(&[0.5, 1.0, 2.0]) })
        }
        "weight_norm" => {
            insert("weight", &[groups, 1], values.weights(groups));
            Operation::WeightNorm(WeightNorm { dim: Some(0) })
        }
        "spectral_norm" => {
            mode = Mode::Train;
            insert("u", &[groups], values.normals(groups, 0.5, 0.25));
            insert("v", &[size], values.normals(size, 0.5, 0.25));
            Operation::SpectralNorm(SpectralNorm { dim: 0, n_power_iterations: 1, eps: 1e-12 })
        }
        "local_response_norm" | "cross_map_lrn" => {
            shape = if name == "cross_map_lrn" { vec![groups, size, 1, 1] } else { vec![groups, size, 1] };
            let (window, alpha) = (values.below(6) as i64 + 1, values.pick(&[1e-4, 1.0, 2.0]));
            let (beta, k) = (values.pick(&[0.75, 0.5, 1.0, 0.6]), values.pick(&[1.0, 2.0]));
            if name == "cross_map_lrn" {
                Operation::CrossMapLrn(CrossMapLrn { size: window, alpha, beta, k })
            } else {
                Operation::LocalResponseNorm(LocalResponseNorm { size: window, alpha, beta, k })
            }
        }
        "frozen_batch_norm" | "conv_batch_norm_fold" => {
            let frozen = name == "frozen_batch_norm";
            shape = if frozen { vec![1, groups, size, 1] } else { vec![groups, size] };
            insert("weight", &[groups], values.weights(groups));
            insert("bias", &[groups], values.biases(groups));
            insert("running_mean", &[groups], values.normals(groups, 0.0, 1.0));
            insert("running_var", &[groups], positive(values, groups));
            if frozen {
                Operation::FrozenBatchNorm(FrozenBatchNorm { eps })
            } else {
                insert("conv_bias", &[groups], values.normals(groups, 0.0, 1.0));
                Operation::ConvBatchNormFold(ConvBatchNormFold { eps, transposed: false })
            }
        }
        other => panic!("no random steps for {other}"),
    };
    insert("input", &shape, data);
    Step { operation, mode, layout: Layout::default(), gradients: false, double_backward: false, tensors }
}

/// One group of a random kind.
fn group(values: &mut Values, size: usize, dtype: DataType) -> Vec<f64> {
    let mean = values.pick(&[0.0, 1.0, 3.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]) * values.sign();
    let scale = values.pick(&[1.0, 1.0, 0.0009765625, 1024.0]) * (1.0 + values.uniform());
    let at = values.below(size);
    let mut group: Vec<f64> = match values.below(8) {
        0 => vec![values.normal(); size],
        1 => {
            let mut group = values.normals(size, 0.0, 1.0);
            group[at] = 1000.0;
            group
        }
        2 => (0..size).map(|_| values.sign()).collect(),
        3 => {
            let mut group = values.normals(size, 0.0, 1.0);
            group.sort_by(f64::total_cmp);
            group
        }
        4 => (0..size)
            .map(|_| values.sign() * (1.0 + values.uniform()) * power_of_two(values.below(13) as i32))
            .collect(),
        5 => (0..size).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 } + power_of_two(-20) * values.normal()).collect(),
        _ => values.normals(size, 0.0, 1.0),
    };
    for x in &mut group {
        *x = held(dtype, (*x + mean) * scale);
    }
    group
}

fn divisors(n: usize) -> Vec<usize> {
    (1..=n).filter(|d| n.is_multiple_of(*d)).collect()
}
