//! Identities: two operations that are one and the same where their groups are.
//!
//! ```text
//! group norm, 1 group = layer norm over (C, L)      group norm, C groups = instance norm
//! batch norm of 1 sample = instance norm            batch norm of (1, N·C, L) = instance norm of (N, C, L)
//! RMS norm of x − μ = layer norm of x               √n·x/‖x‖₂ = RMS norm, eps → 0
//! ```
//! Wu and He 2018, section 3.1; Zhang and Sennrich 2019, section 3. A subject that does not claim the second operation is
//! not asked.

use super::setting::{Setting, changed};
use super::symmetry::{output_of, place};
use super::trial::{Finding, Trial, exact, sum};
use super::{Property, Scope};
use crate::arithmetic::format::power_of_two;
use crate::arithmetic::{Real, Truth};
use crate::case::{Flag, Step};
use crate::operation::{
    BatchNorm, BatchNormDialect, Dialect, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm, Mode, Normalize,
    Operation, RmsNorm, WeightNorm,
};
use crate::tensor::{Tensor, Tensors};

pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "one-group",
        sentence: "group norm with one group is layer norm over channels and positions",
        law: "group_norm(x; G = 1) = layer_norm(x; C, L)",
        source: "Wu and He 2018, section 3.1",
        flags: &[Flag::GroupAxis],
        scope: Scope::Of(&["group_norm"]),
        trial: one_group,
    },
    Property {
        name: "group-of-a-channel",
        sentence: "group norm with a group for each channel is instance norm",
        law: "group_norm(x; G = C) = instance_norm(x)",
        source: "Wu and He 2018, section 3.1",
        flags: &[Flag::GroupAxis],
        scope: Scope::Of(&["group_norm"]),
        trial: group_of_a_channel,
    },
    Property {
        name: "one-sample",
        sentence: "batch norm of one sample is instance norm",
        law: "batch_norm(x) = instance_norm(x) for N = 1",
        source: "Ulyanov, Vedaldi and Lempitsky 2016, section 2",
        flags: &[Flag::BatchOne],
        scope: Scope::Of(&["batch_norm", "sync_batch_norm"]),
        trial: one_sample,
    },
    Property {
        name: "instances-as-channels",
        sentence: "instance norm is batch norm of one sample with a channel for each instance",
        law: "instance_norm(x) = batch_norm(x as (1, N·C, L))",
        source: "pytorch/pytorch, aten/src/ATen/native/Normalization.cpp",
        flags: &[Flag::BatchVariance],
        scope: Scope::Of(&["instance_norm"]),
        trial: instances_as_channels,
    },
    Property {
        name: "transpose",
        sentence: "batch norm of a matrix is layer norm of its transpose",
        law: "batch_norm(x) = layer_norm(xᵀ)ᵀ",
        source: "Ba, Kiros and Hinton 2016, section 3",
        flags: &[Flag::GroupAxis],
        scope: Scope::Of(&["batch_norm", "layer_norm"]),
        trial: transpose,
    },
    Property {
        name: "workers",
        sentence: "however a batch is split among workers, the answer is batch norm's",
        law: "sync_batch_norm(x; splits) = batch_norm(x), running statistics included",
        source: "Chan, Golub and LeVeque 1983",
        flags: &[Flag::WorkerCount],
        scope: Scope::Of(&["sync_batch_norm"]),
        trial: workers,
    },
    Property {
        name: "centred-rms",
        sentence: "RMS norm of values whose mean is 0 is layer norm, of them and of what a constant shifts",
        law: "rms_norm(x − μ) = layer_norm(x)",
        source: "Zhang and Sennrich 2019, section 3",
        flags: &[Flag::EpsValue],
        scope: Scope::Of(&["rms_norm", "layer_norm"]),
        trial: centred_rms,
    },
    Property {
        name: "unit-rms",
        sentence: "a vector of unit length times √n is RMS norm, where eps is too small to matter",
        law: "√n·x/‖x‖₂ = rms_norm(x; eps → 0)",
        source: "Zhang and Sennrich 2019, section 3",
        flags: &[Flag::NormKind],
        scope: Scope::Of(&["normalize", "rms_norm"]),
        trial: unit_rms,
    },
    Property {
        name: "unit-weight",
        sentence: "weight norm is the magnitude times the vector of unit length",
        law: "weight_norm(v; g) = g·v/‖v‖₂",
        source: "Salimans and Kingma 2016, equation 2",
        flags: &[Flag::NormKind],
        scope: Scope::Of(&["weight_norm", "normalize"]),
        trial: unit_weight,
    },
    Property {
        name: "one-row",
        sentence: "spectral norm of a matrix with one row divides by the row's length",
        law: "spectral_norm(W) = W/‖W‖₂ for one row, in training",
        source: "Miyato et al. 2018, section 2.1",
        flags: &[Flag::PowerIteration],
        scope: Scope::Of(&["spectral_norm"]),
        trial: one_row,
    },
    Property {
        name: "two-windows",
        sentence: "the two operations of local response norm agree on images",
        law: "cross_map_lrn(x) = local_response_norm(x)",
        source: "Krizhevsky, Sutskever and Hinton 2012, section 3.3",
        flags: &[Flag::Window],
        scope: Scope::Of(&["cross_map_lrn", "local_response_norm"]),
        trial: two_windows,
    },
    Property {
        name: "frozen",
        sentence: "frozen batch norm is batch norm in evaluation",
        law: "frozen_batch_norm(x) = batch_norm(x) in evaluation",
        source: "torchvision.ops.FrozenBatchNorm2d",
        flags: &[Flag::ModeIgnored, Flag::EpsValue],
        scope: Scope::Of(&["frozen_batch_norm", "batch_norm"]),
        trial: frozen,
    },
    Property {
        name: "folding",
        sentence: "a folded convolution gives what batch norm in evaluation gives after the convolution",
        law: "W′·x + b′ = batch_norm(W·x + b)",
        source: "Jacob et al. 2018, section 3.2",
        flags: &[Flag::Folding, Flag::EpsValue],
        scope: Scope::Of(&["conv_batch_norm_fold"]),
        trial: folding,
    },
];

/// A trial whose first answer must be the second, element by element, times `factor`.
fn alike(left: Step, right: Step, factor: Truth) -> Option<Trial> {
    moved(left, right, factor, |index| index)
}

/// The same where element i of the first is element `to(i)` of the second.
fn moved(left: Step, right: Step, factor: Truth, to: impl Fn(usize) -> usize + Send + Sync + 'static) -> Option<Trial> {
    let name = right.operation.name();
    Some(Trial::of(vec![left, right], move |answers, finding| {
        let (left, right) = (answers.call(0), answers.call(1));
        let other = right.balls(output_of(right.step));
        for (index, one) in left.balls(output_of(left.step)).into_iter().enumerate() {
            equal(finding, one, other[to(index)] * factor, || format!("{} is", place(left, index)), name);
        }
    }))
}

fn equal(finding: &mut Finding, one: Truth, other: Truth, what: impl FnOnce() -> String, name: &str) {
    finding.zero((0, 0), one - other, || {
        format!("{} {:e}; {name} of the same values says {:e}", what(), one.value.hi, other.value.hi)
    });
}

/// The step with another operation and the same input in another shape.
fn as_other(step: &Step, operation: Operation, shape: &[usize]) -> Step {
    let input = &step.tensors["input"];
    let values = input.to_f64().into_iter().collect();
    let tensors = Tensors::from([("input".to_owned(), Tensor::rounded(input.dtype(), shape, values))]);
    let mode = if operation.signature().modes { Mode::Train } else { Mode::Eval };
    Step { operation, mode, tensors, ..step.clone() }
}

fn instance_norm(eps: f64) -> Operation {
    Operation::InstanceNorm(InstanceNorm { spatial_dims: 1, eps, momentum: Some(0.5) })
}

fn batch_norm(eps: f64, spatial_dims: Option<u8>) -> Operation {
    Operation::BatchNorm(BatchNorm { spatial_dims, eps, momentum: Some(0.5), dialect: BatchNormDialect::Pytorch })
}

fn layer_norm(eps: f64, normalized_shape: Vec<usize>) -> Operation {
    Operation::LayerNorm(LayerNorm { normalized_shape, eps, dialect: Dialect::Pytorch })
}

fn rms_norm(eps: f64, normalized_shape: Vec<usize>) -> Operation {
    Operation::RmsNorm(RmsNorm { normalized_shape, eps: Some(eps), dialect: Dialect::Pytorch })
}

/// A call of group norm with as many groups as `groups` makes of the channels, its shape and its eps.
fn group_norm(setting: &mut Setting, groups: impl Fn(usize) -> usize) -> Option<(Step, Vec<usize>, f64)> {
    let mut step = setting.step();
    let shape = step.tensors["input"].shape().to_vec();
    let Operation::GroupNorm(GroupNorm { num_groups, eps, .. }) = &mut step.operation else { return None };
    *num_groups = groups(shape[1]);
    let eps = *eps;
    Some((step, shape, eps))
}

fn one_group(setting: &mut Setting) -> Option<Trial> {
    let (step, shape, eps) = group_norm(setting, |_| 1)?;
    let other = as_other(&step, layer_norm(eps, shape[1..].to_vec()), &shape);
    alike(step, other, exact(1.0))
}

fn group_of_a_channel(setting: &mut Setting) -> Option<Trial> {
    let (step, shape, eps) = group_norm(setting, |channels| channels)?;
    let other = as_other(&step, instance_norm(eps), &shape);
    alike(step, other, exact(1.0))
}

fn one_sample(setting: &mut Setting) -> Option<Trial> {
    let [_, c, l] = setting.sizes(2);
    let mut step = setting.step_of(setting.operation, [1, c, l]);
    let eps = match &mut step.operation {
        Operation::BatchNorm(norm) => norm.eps,
        Operation::SyncBatchNorm(norm) => {
            norm.splits = vec![1, 0];
            norm.eps
        }
        _ => return None,
    };
    let other = as_other(&step, instance_norm(eps), &[1, c, l]);
    alike(step, other, exact(1.0))
}

fn instances_as_channels(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let shape = step.tensors["input"].shape().to_vec();
    let Operation::InstanceNorm(InstanceNorm { eps, .. }) = step.operation else { return None };
    let other = as_other(&step, batch_norm(eps, Some(1)), &[1, shape[0] * shape[1], shape[2]]);
    alike(step, other, exact(1.0))
}

fn transpose(setting: &mut Setting) -> Option<Trial> {
    let [n, c, l] = setting.sizes(2);
    let (rows, columns, eps, unit) = (n * l, c, setting.eps(), setting.unit());
    let values = setting.grid(rows * columns, unit);
    let matrix = |shape: [usize; 2], values| Tensors::from([("input".to_owned(), setting.tensor(&shape, values))]);
    let turned = (0..rows * columns).map(|index| values[index % rows * columns + index / rows]).collect();
    let layer = Step::forward(layer_norm(eps, vec![rows]), matrix([columns, rows], turned));
    let batch = Step::forward(batch_norm(eps, Some(1)), matrix([rows, columns], values));
    let batch = Step { mode: Mode::Train, ..batch };
    if setting.operation == "layer_norm" {
        return moved(layer, batch, exact(1.0), move |index| index % rows * columns + index / rows);
    }
    moved(batch, layer, exact(1.0), move |index| index % columns * rows + index / columns)
}

fn workers(setting: &mut Setting) -> Option<Trial> {
    let mut step = setting.step();
    let shape = step.tensors["input"].shape().to_vec();
    for (name, value) in [("running_mean", 0.5), ("running_var", 2.0)] {
        step.tensors.insert(name.to_owned(), setting.tensor(&shape[1..2], vec![value; shape[1]]));
    }
    step.tensors.insert("num_batches_tracked".to_owned(), Tensor::counter(0));
    let Operation::SyncBatchNorm(norm) = &mut step.operation else { return None };
    if setting.round % 2 == 1 {
        norm.splits = vec![shape[0]];
    }
    let operation = batch_norm(norm.eps, None);
    let other = Step { operation, ..step.clone() };
    Some(Trial::of(vec![step, other], |answers, finding| {
        let (sync, batch) = (answers.call(0), answers.call(1));
        for name in ["output", "running_mean", "running_var"] {
            for (index, (one, other)) in sync.balls(name).into_iter().zip(batch.balls(name)).enumerate() {
                equal(finding, one, other, || format!("element {index} of {name} is"), "batch_norm");
            }
        }
    }))
}

fn centred_rms(setting: &mut Setting) -> Option<Trial> {
    let [n, c, l] = setting.sizes(2);
    let (size, eps, unit) = (2 * c * l, setting.eps(), setting.unit());
    // Each value and its negative: the mean is 0.
    let half = setting.grid(n * size, unit);
    let signed = |index: usize| if index.is_multiple_of(2) { half[index] } else { -half[index - 1] };
    let centred: Vec<f64> = (0..n * size).map(signed).collect();
    let constant = setting.integer(setting.limit()) as f64 * unit;
    let tensors = |values: Vec<f64>| Tensors::from([("input".to_owned(), setting.tensor(&[n, size], values))]);
    let shifted = centred.iter().map(|x| x + constant).collect();
    let layer = Step::forward(layer_norm(eps, vec![size]), tensors(shifted));
    let rms = Step::forward(rms_norm(eps, vec![size]), tensors(centred));
    let (one, other) = if setting.operation == "layer_norm" { (layer, rms) } else { (rms, layer) };
    alike(one, other, exact(1.0))
}

/// Vectors of which none is 0.
fn vectors(setting: &mut Setting) -> (Tensor, usize, usize) {
    let [n, c, l] = setting.sizes(2);
    let (size, unit) = (c * l, setting.unit());
    let mut values = setting.grid(n * size, unit);
    values.iter_mut().step_by(size).for_each(|x| *x = unit);
    (setting.tensor(&[n, size], values), n, size)
}

/// Their calls of normalize.
fn normalized(input: &Tensor) -> Step {
    let normalize = Operation::Normalize(Normalize { p: 2.0, dim: 1, eps: 1e-12 });
    Step::forward(normalize, Tensors::from([("input".to_owned(), input.clone())]))
}

fn unit_rms(setting: &mut Setting) -> Option<Trial> {
    let (input, _, size) = vectors(setting);
    let unit = normalized(&input);
    // A part of 2⁻⁸⁸ of the mean square, or less.
    let rms = Step::forward(rms_norm(power_of_two(-100), vec![size]), Tensors::from([("input".to_owned(), input)]));
    let root = exact(size as f64).sqrt();
    if setting.operation == "rms_norm" {
        return alike(rms, unit, root);
    }
    alike(unit, rms, exact(1.0) / root)
}

fn unit_weight(setting: &mut Setting) -> Option<Trial> {
    let (input, n, _) = vectors(setting);
    let magnitude = 3.0;
    let (unit, weight) = (normalized(&input), setting.tensor(&[n, 1], vec![magnitude; n]));
    let tensors = Tensors::from([("input".to_owned(), input), ("weight".to_owned(), weight)]);
    let weighted = Step::forward(Operation::WeightNorm(WeightNorm { dim: Some(0) }), tensors);
    if setting.operation == "normalize" {
        return alike(unit, weighted, exact(1.0) / exact(magnitude));
    }
    alike(weighted, unit, exact(magnitude))
}

fn one_row(setting: &mut Setting) -> Option<Trial> {
    let [_, c, l] = setting.sizes(2);
    let mut step = setting.step_of("spectral_norm", [1, c, l]);
    step.mode = Mode::Train;
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let input = asked.sent("input");
        let length = sum(input.iter().map(|&x| exact(x) * exact(x))).sqrt();
        for (index, (&x, y)) in input.iter().zip(asked.balls("output")).enumerate() {
            let expected = exact(x) / length;
            finding.zero((0, 0), y - expected, || {
                format!("{} is {:e}; expected W/‖W‖ = {:e}", place(asked, index), y.value.hi, expected.value.hi)
            });
        }
    }))
}

fn two_windows(setting: &mut Setting) -> Option<Trial> {
    let sizes = setting.sizes(1);
    let images = setting.step_of("cross_map_lrn", sizes);
    let Operation::CrossMapLrn(norm) = &images.operation else { return None };
    let (size, alpha, beta, k) = (norm.size, norm.alpha, norm.beta, norm.k);
    let operation = Operation::LocalResponseNorm(LocalResponseNorm { size, alpha, beta, k });
    let local = Step { operation, ..images.clone() };
    let (one, other) = if setting.operation == "cross_map_lrn" { (images, local) } else { (local, images) };
    alike(one, other, exact(1.0))
}

fn frozen(setting: &mut Setting) -> Option<Trial> {
    let sizes = setting.sizes(1);
    let frozen = setting.step_of("frozen_batch_norm", sizes);
    let Operation::FrozenBatchNorm(norm) = &frozen.operation else { return None };
    let batch = Step { operation: batch_norm(norm.eps, Some(2)), ..frozen.clone() };
    let (one, other) = if setting.operation == "batch_norm" { (batch, frozen) } else { (frozen, batch) };
    alike(one, other, exact(1.0))
}

/// A convolution of size 1 over small integers, which is exact, and then batch norm; or the folded one.
fn folding(setting: &mut Setting) -> Option<Trial> {
    let [channels, inputs, positions] = setting.sizes(1);
    let mut fold = setting.step_of("conv_batch_norm_fold", [channels, inputs, 1]);
    let kernel: Vec<f64> = (0..channels * inputs).map(|_| setting.integer(2) as f64).collect();
    fold = changed(&fold, "input", |index, _| kernel[index]);
    let biases = fold.tensors["conv_bias"].to_f64();
    let x: Vec<f64> = (0..inputs * positions).map(|_| setting.integer(2) as f64).collect();
    let convolved = (0..channels * positions).map(|index| {
        let (channel, position) = (index / positions, index % positions);
        let terms = (0..inputs).map(|input| kernel[channel * inputs + input] * x[input * positions + position]);
        terms.sum::<f64>() + biases[channel]
    });
    let convolved = convolved.collect();
    let Operation::ConvBatchNormFold(norm) = &fold.operation else { return None };
    let mut batch = Step { operation: batch_norm(norm.eps, Some(1)), ..fold.clone() };
    batch.tensors.remove("conv_bias");
    batch.tensors.insert("input".to_owned(), setting.tensor(&[1, channels, positions], convolved));
    Some(Trial::of(vec![fold, batch], move |answers, finding| {
        let (fold, batch) = (answers.call(0), answers.call(1));
        let (weights, biases) = (fold.balls("folded_weight"), fold.balls("folded_bias"));
        for (index, expected) in batch.balls("output").into_iter().enumerate() {
            let (channel, position) = (index / positions, index % positions);
            let term = |input: usize| weights[channel * inputs + input] * exact(x[input * positions + position]);
            let folded = sum((0..inputs).map(term)) + biases[channel];
            let what = || format!("channel {channel} of the folded convolution gives");
            equal(finding, folded, expected, what, "batch_norm after the convolution");
        }
    }))
}
