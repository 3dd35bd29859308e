//! Gradients that are corrected over time. In online normalization it does not matter how the samples are batched, since each
//! meets the state that the one before left; and where a batch is one sample, power normalization corrects as it does.
//!
//! ```text
//! online_norm(x₁ … x_N; s₀) = online_norm(x_k; s_{k−1}) for k = 1 … N, and the state is s_N      (Chiley et al. 2019, section 3)
//! power_norm_backward(g; z, σ, e) = online_norm_backward(g; z, σ, e, 0) for N = 1                (Shen et al. 2020, algorithm 1)
//! ```

use super::layer::equal;
use super::setting::Setting;
use super::symmetry::output_of;
use super::trial::Trial;
use super::{Property, Scope};
use crate::arithmetic::DataType;
use crate::case::{Flag, Step};
use crate::operation::{OnlineNormBackward, Operation, PowerNormBackward};

pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "one-by-one",
        sentence: "a batch of N samples is N batches of one",
        law: "f(x₁ … x_N; s₀) = f(x_k; s_{k−1}) for k = 1 … N, and the state is s_N",
        source: "Chiley et al. 2019, section 3",
        flags: &[Flag::StateUpdate],
        scope: Scope::Of(&["online_norm", "online_norm_backward"]),
        trial: one_by_one,
    },
    Property {
        name: "controllers",
        sentence: "for one sample, power norm corrects a gradient as online norm's first controller does",
        law: "power_norm_backward(g; z, σ, e) = online_norm_backward(g; z, σ, e, 0) for N = 1, e included",
        source: "Shen et al. 2020, algorithm 1",
        flags: &[Flag::Limits, Flag::StateUpdate],
        scope: Scope::Of(&["power_norm_backward", "online_norm_backward"]),
        trial: controllers,
    },
];

/// The values are few and small integers, L is a power of two, momentum ½: so every type holds the state exactly, and nothing
/// is lost where it is stored between two calls.
fn one_by_one(setting: &mut Setting) -> Option<Trial> {
    let narrow = matches!(setting.dtype, DataType::F16 | DataType::BF16);
    let (samples, lengths, most): (usize, &[usize], i64) = if narrow { (2, &[2], 1) } else { (3, &[2, 4], 4) };
    let sizes = [samples, 1 + setting.values.below(3), setting.values.pick(lengths)];
    let mut whole = setting.step_of(setting.operation, sizes);
    match &mut whole.operation {
        Operation::OnlineNorm(norm) => norm.momentum = 0.5,
        Operation::OnlineNormBackward(norm) => norm.momentum = 0.5,
        _ => return None,
    }
    for name in ["input", "normalized"] {
        if whole.tensors.contains_key(name) {
            let values = (0..sizes.iter().product()).map(|_| setting.integer(most) as f64).collect();
            whole.tensors.insert(name.to_owned(), setting.tensor(&sizes, values));
        }
    }
    let samples = (0..sizes[0]).map(|sample| alone(setting, &whole, sample)).collect();
    Some(Trial::chained(vec![vec![whole], samples], |answers, finding| {
        let (whole, samples) = (answers.call(0), &answers.chains[1]);
        let outputs = samples.iter().flat_map(|sample| sample.balls(output_of(sample.step)));
        for (index, (one, other)) in whole.balls(output_of(whole.step)).into_iter().zip(outputs).enumerate() {
            equal(finding, whole, index, one, other, "one sample at a time");
        }
        let Some(last) = samples.last() else { return };
        for name in whole.step.operation.signature().state {
            for (channel, (one, other)) in whole.balls(name).into_iter().zip(last.balls(name)).enumerate() {
                finding.zero((0, 0), one - other, || {
                    let (is, expected) = (one.value.hi, other.value.hi);
                    format!("{name}[{channel}] is {is:e}; by one sample at a time it is {expected:e}")
                });
            }
        }
    }))
}

fn controllers(setting: &mut Setting) -> Option<Trial> {
    let [_, channels, length] = setting.sizes(1);
    let mut power = setting.step_of("power_norm_backward", [1, channels, length]);
    let Operation::PowerNormBackward(PowerNormBackward { momentum }) = power.operation else { return None };
    power.tensors.retain(|name, _| power.operation.signature().required.contains(&name.as_str()));
    let mut online = power.clone();
    online.operation = Operation::OnlineNormBackward(OnlineNormBackward { momentum });
    let sigma = power.tensors["sigma"].to_f64().into_iter().collect();
    online.tensors.insert("sigma".to_owned(), setting.tensor(&[1, channels], sigma));
    online.tensors.insert("error_mean".to_owned(), setting.tensor(&[channels], vec![0.0; channels]));
    let steps = if setting.operation == "online_norm_backward" { [online, power] } else { [power, online] };
    Some(Trial::of(steps.to_vec(), |answers, finding| {
        let (one, other) = (answers.call(0), answers.call(1));
        for name in ["output", "error_along"] {
            for (index, (left, right)) in one.balls(name).into_iter().zip(other.balls(name)).enumerate() {
                finding.zero((0, 0), left - right, || {
                    let (is, expected, by) = (left.value.hi, right.value.hi, other.step.operation.name());
                    format!("element {index} of {name} is {is:e}; {by} says {expected:e}")
                });
            }
        }
    }))
}

/// The call with one of its samples.
fn alone(setting: &Setting, whole: &Step, sample: usize) -> Step {
    let mut step = whole.clone();
    for name in ["input", "normalized", "sigma"] {
        let Some(tensor) = whole.tensors.get(name) else { continue };
        let mut shape = tensor.shape().to_vec();
        let length = tensor.len() / shape[0];
        shape[0] = 1;
        let values = tensor.widened()[sample * length..][..length].to_vec();
        step.tensors.insert(name.to_owned(), setting.tensor(&shape, values));
    }
    step
}
