//! The dialects of batch norm: closed forms of their running statistics, over equal batches of a new layer.
//!
//! ```text
//! s: the batch's mean, or its variance as the dialect averages it      d: the weight of the old value      T batches
//! exponential   r_T = s + dᵀ·(r₀ − s)      debiased       h_T = (1 − dᵀ)·s     r_T = s
//! first         r_T = s                    unnormalized   A_T = s·S_T          S_T = (1 − dᵀ)/(1 − d)
//! evaluation    y = (x − m)/√(v + eps)     m, v: r_T; r_T/(1 − dᵀ) where it is debiased when it is read; A_T/S_T
//! one value     y = 0, or x where it is passed on
//! ```
//! The error of a step is what the step before leaves, d of it, plus the step's own bound. A subject that does not speak the
//! dialect is not asked.

use super::setting::Setting;
use super::trial::{Answers, Asked, Finding, Trial, ball, exact, moments};
use super::{Property, Scope};
use crate::arithmetic::{Real, Truth};
use crate::case::{COUNTER, Flag, Step};
use crate::operation::{Average, BatchNormDialect, Conventions, Mode, MomentumSense, OneValue, Operation};
use crate::tensor::Tensor;

/// Makes a property of each dialect.
macro_rules! laws {
    ($($name:literal $dialect:ident;)*) => {
        pub(super) const PROPERTIES: &[Property] = &[$(
            Property {
                name: concat!("dialect-", $name),
                sentence: "equal batches of a new layer leave the statistics that the dialect's averages have, evaluation \
                           reads them, and one value per channel does what it does there",
                law: "r_T = s + dᵀ·(r₀ − s), debiased, replaced or summed as the dialect has it",
                source: BatchNormDialect::$dialect.conventions().source,
                flags: &[Flag::Dialect, Flag::Debiasing, Flag::MomentumSense, Flag::RunningVarBias, Flag::BatchOne],
                scope: Scope::Of(&["batch_norm"]),
                trial: |setting| trial(setting, BatchNormDialect::$dialect),
            }
        ),*];
    };
}

laws! {
    "keras" Keras;
    "tensorflow" Tensorflow;
    "flax" Flax;
    "haiku" Haiku;
    "equinox-ema" EquinoxEma;
    "equinox-batch" EquinoxBatch;
    "onnx" Onnx;
    "mxnet" Mxnet;
    "paddle" Paddle;
    "caffe" Caffe;
    "cudnn" Cudnn;
    "burn" Burn;
    "candle" Candle;
    "mlx" Mlx;
}

fn trial(setting: &mut Setting, dialect: BatchNormDialect) -> Option<Trial> {
    let conventions = dialect.conventions();
    let decay = setting.values.pick(&[0.25, 0.75]);
    let count = 2 + setting.round % 3;
    let sizes = setting.sizes(2);
    let train = call(setting, dialect, decay, sizes);
    let mut chain = vec![train.clone(); count];
    chain.push(Step { mode: Mode::Eval, ..train });
    let mut chains = vec![chain];
    // What one value does in cuDNN is not documented; candle's NaN and MLX's refusal are the catalogue's.
    if conventions.bessel_guarded || conventions.running_degrees_of_freedom == 0 {
        chains.push(vec![call(setting, dialect, decay, [1, sizes[1], 1])]);
    }
    Some(Trial::chained(chains, move |answers, finding| look(answers, conventions, decay, finding)))
}

/// A training call of a new layer.
fn call(setting: &mut Setting, dialect: BatchNormDialect, decay: f64, sizes: [usize; 3]) -> Step {
    let conventions = dialect.conventions();
    let mut step = setting.step_of("batch_norm", sizes);
    let channels = sizes[1];
    if let Operation::BatchNorm(norm) = &mut step.operation {
        (norm.dialect, norm.spatial_dims) = (dialect, None);
        norm.momentum = Some(if conventions.momentum == MomentumSense::OfOld { decay } else { 1.0 - decay });
    }
    if dialect == BatchNormDialect::Tensorflow {
        let input = &step.tensors["input"];
        let shape = [input.shape(), &[1][..]].concat();
        let input = Tensor::rounded(input.dtype(), &shape, input.to_f64().into_iter().collect());
        step.tensors.insert("input".to_owned(), input);
    }
    let from_zero = matches!(conventions.average, Average::Debiased | Average::Unnormalized);
    for &name in conventions.state {
        let start = if name == "running_var" && !from_zero { 1.0 } else { 0.0 };
        let tensor = match name {
            COUNTER => Tensor::counter(0),
            "scale_factor" => setting.tensor(&[1], vec![0.0]),
            _ => setting.tensor(&[channels], vec![start; channels]),
        };
        step.tensors.insert(name.to_owned(), tensor);
    }
    step
}

fn look(answers: &Answers<'_>, conventions: &Conventions, decay: f64, finding: &mut Finding) {
    let chain = &answers.chains[0];
    let (trained, evaluated) = (&chain[..chain.len() - 1], &chain[chain.len() - 1]);
    let count = trained.len();
    let (first, last) = (&trained[0], &trained[count - 1]);
    let left = (0..count).fold(exact(1.0), |left, _| left * exact(decay));
    let gathered = exact(1.0) - left;
    for (running, hidden, is_variance) in [("running_mean", "hidden_mean", false), ("running_var", "hidden_var", true)]
    {
        let debiased = conventions.average == Average::Debiased;
        let kept = if debiased { hidden } else { running };
        let mut errors = vec![0.0; first.sent(kept).len()];
        for asked in trained {
            for (error, own) in errors.iter_mut().zip(asked.errors(kept)) {
                *error = (decay * *error + own) * (1.0 + 1e-12);
            }
        }
        let start = first.sent(kept);
        for (channel, s) in statistic(first, conventions, is_variance).into_iter().enumerate() {
            let expected = match conventions.average {
                Average::Exponential | Average::DebiasedWhenRead => s + left * (exact(start[channel]) - s),
                Average::Debiased => gathered * s,
                Average::FirstReplaces => s,
                Average::Unnormalized => s * gathered / exact(1.0 - decay),
            };
            compare(last, kept, channel, expected, errors[channel], (0, count - 1), finding);
            if debiased {
                let own = last.errors(running)[channel];
                let passed = errors[channel] / gathered.value.hi * (1.0 + 1e-12);
                compare(last, running, channel, s, own + passed, (0, count - 1), finding);
            }
        }
    }
    evaluation(evaluated, conventions, gathered, (0, count), finding);
    if let Some([asked]) = answers.chains.get(1).map(Vec::as_slice) {
        let input = asked.sent("input");
        for (index, is) in asked.balls("output").into_iter().enumerate() {
            let expected = if conventions.one_value == OneValue::PassedOn { input[index] } else { 0.0 };
            finding.zero((1, 0), is - exact(expected), || {
                format!("of one value, output[{index}] is {:e}; expected {expected:e}", is.value.hi)
            });
        }
    }
}

/// Tensor `name` must have that value in a channel, within `error`.
fn compare(
    asked: &Asked<'_>,
    name: &str,
    channel: usize,
    expected: Truth,
    error: f64,
    culprit: (usize, usize),
    finding: &mut Finding,
) {
    let Some(&is) = asked.values(name).get(channel) else { return };
    finding.zero(culprit, ball(is, error) - expected, || {
        format!("{name}[{channel}] is {is:e} after {} batches; expected {:e}", culprit.1 + 1, expected.value.hi)
    });
}

/// The statistic of the batch for each channel, as the dialect averages it.
fn statistic(asked: &Asked<'_>, conventions: &Conventions, is_variance: bool) -> Vec<Truth> {
    let input = asked.sent("input");
    let of_group = |positions: &Vec<usize>| {
        let x: Vec<f64> = positions.iter().map(|&position| input[position]).collect();
        let (mean, variance) = moments(&x, true);
        let count = x.len() as f64;
        let rest = count - f64::from(conventions.running_degrees_of_freedom);
        if is_variance { variance * exact(count) / exact(rest) } else { mean }
    };
    asked.groups().iter().map(of_group).collect()
}

/// Evaluation normalizes with the statistics that it was sent, as the dialect reads them.
fn evaluation(
    asked: &Asked<'_>,
    conventions: &Conventions,
    gathered: Truth,
    culprit: (usize, usize),
    finding: &mut Finding,
) {
    let weight = match conventions.average {
        Average::DebiasedWhenRead => gathered,
        Average::Unnormalized => exact(asked.sent("scale_factor").first().copied().unwrap_or(1.0)),
        _ => exact(1.0),
    };
    let (input, eps) = (asked.sent("input"), exact(asked.plan().eps));
    let (means, variances) = (asked.sent("running_mean"), asked.sent("running_var"));
    let outputs = asked.balls("output");
    for (channel, positions) in asked.groups().iter().enumerate() {
        let mean = exact(means[channel]) / weight;
        let sigma = (exact(variances[channel]) / weight + eps).sqrt();
        for &position in positions {
            let (is, expected) = (outputs[position], (exact(input[position]) - mean) / sigma);
            finding.zero(culprit, is - expected, || {
                let (is, expected) = (is.value.hi, expected.value.hi);
                format!("output[{position}] is {is:e} in evaluation after training; expected {expected:e}")
            });
        }
    }
}
