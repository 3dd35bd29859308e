//! Layers beyond `torch.nn`: what each is, said with another, or with the moments of what went in.
//!
//! ```text
//! layer_norm_2d = layer norm of each pixel's channels      pixel_norm = RMS norm of them
//! filter_response_norm = RMS norm of each channel           weight_standardization = layer norm of each filter
//! layer_norm_1p(w) = layer norm(1 + w)                      ada_*(scale, shift) = the norm with (1 + scale, shift)
//! ghost_batch_norm = batch norm of each chunk, one after the other      batch_renorm(1, 0) = batch norm
//! evo_norm_b*  |y|·√(v + eps) ≤ |x|                          masked: Σ ŷ = 0 over what is kept
//! ```
//! Each row of the table is an identity of its paper; a subject that does not claim the second operation is not asked.

use super::setting::{Setting, changed};
use super::symmetry::{output_of, place};
use super::trial::{Asked, Finding, Trial, ball, exact, moments, sum};
use super::{Property, Scope};
use crate::arithmetic::{Function, Real, Truth};
use crate::case::{Flag, Step};
use crate::operation::{
    BatchNorm, BatchNormDialect, Dialect, EvoNormS1, GroupNorm, LayerNorm, Mode, Normalize, Operation, RmsNorm,
    WeightStandardization,
};
use crate::tensor::Tensors;

pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "pixels",
        sentence: "a norm over the channels is the norm of the same values with the channels last",
        law: "layer_norm_2d(x) = layer_norm(x as N·H·W, C), pixel_norm(x) = rms_norm(x as N·H·W, C)",
        source: "Liu et al. 2022, section 2.6; Karras et al. 2018, section 4.2",
        flags: &[Flag::GroupAxis],
        scope: Scope::Of(&["layer_norm_2d", "pixel_norm"]),
        trial: pixels,
    },
    Property {
        name: "rows",
        sentence: "a norm of each channel, or of each filter, is the norm of that row",
        law: "filter_response_norm(x) = rms_norm(x as N·C, L), weight_standardization(w) = layer_norm(w as O, I·K)",
        source: "Singh and Krishnan 2020, section 3.1; Qiao et al. 2019, section 3",
        flags: &[Flag::GroupAxis, Flag::Centring],
        scope: Scope::Of(&["filter_response_norm", "weight_standardization"]),
        trial: rows,
    },
    Property {
        name: "fan-in",
        sentence: "a scaled standardized weight is the standardized one, times gamma, by the root of its fan-in",
        law: "scaled_weight_standardization(w) = weight_standardization(w)·gamma/√n",
        source: "Brock et al. 2021, section 4.3",
        flags: &[Flag::NormKind],
        scope: Scope::Of(&["scaled_weight_standardization"]),
        trial: fan_in,
    },
    Property {
        name: "one-plus",
        sentence: "a weight around zero is one less than a weight around one",
        law: "layer_norm_1p(x; w) = layer_norm(x; 1 + w), ada_*(x; s, t) = norm(x; 1 + s, t) for one sample",
        source: "Peebles and Xie 2023, section 3.2",
        flags: &[Flag::WeightReading],
        scope: Scope::Of(&["layer_norm_1p", "ada_layer_norm", "ada_group_norm", "rms_norm"]),
        trial: one_plus,
    },
    Property {
        name: "unbiased-square",
        sentence: "the unbiased variance of a group's outputs is v/(v + eps)",
        law: "Σ (yᵢ − ȳ)²/(n − 1) = v/(v + eps), v unbiased",
        source: "timm.layers.SimpleNorm",
        flags: &[Flag::VarianceDenominator, Flag::EpsValue],
        scope: Scope::Of(&["simple_norm"]),
        trial: unbiased_square,
    },
    Property {
        name: "length",
        sentence: "scale norm without a weight is normalize",
        law: "scale_norm(x) = normalize(x; p = 2)",
        source: "Nguyen and Salazar 2019, section 2.2",
        flags: &[Flag::NormKind],
        scope: Scope::Of(&["scale_norm"]),
        trial: length,
    },
    Property {
        name: "gate",
        sentence: "a gate after the norm multiplies what the norm alone gives",
        law: "y(x, z) = y(x)·z·sigmoid(z) where the norm comes first",
        source: "Dao and Gu 2024, section 7.2",
        flags: &[Flag::Activation],
        scope: Scope::Of(&["rms_norm_gated"]),
        trial: gate,
    },
    Property {
        name: "threshold",
        sentence: "no output lies below its threshold, and those above it are what they are without one",
        law: "y = max(z, tau)",
        source: "Singh and Krishnan 2020, equation 3",
        flags: &[Flag::Activation],
        scope: Scope::Of(&["filter_response_norm"]),
        trial: threshold,
    },
    Property {
        name: "style",
        sentence: "the mean of an instance is its style's, and its order the content's",
        law: "Σ y/L = μ_s",
        source: "Huang and Belongie 2017, equation 8",
        flags: &[Flag::Conditioning],
        scope: Scope::Of(&["ada_instance_norm"]),
        trial: style,
    },
    Property {
        name: "chunks",
        sentence: "each chunk of a batch is normalized, and moves the running statistics, like a batch of its own",
        law: "ghost_batch_norm(x) = batch_norm(chunk), one after the other; split_batch_norm(x) = batch_norm(part)",
        source: "Hoffer, Hubara and Soudry 2017, algorithm 1",
        flags: &[Flag::Chunks],
        scope: Scope::Of(&["ghost_batch_norm", "split_batch_norm"]),
        trial: chunks,
    },
    Property {
        name: "masked",
        sentence: "over what a mask keeps of a group the outputs add up to 0, and their squares to v/(v + eps)",
        law: "Σ mᵢ·ŷᵢ = 0, Σ mᵢ·ŷᵢ²/k = v/(v + eps), v of the k values that are kept",
        source: "from the definition",
        flags: &[Flag::Mask, Flag::EpsValue],
        scope: Scope::Of(&["masked_layer_norm", "masked_group_norm", "masked_batch_norm"]),
        trial: masked,
    },
    Property {
        name: "response",
        sentence: "the relative norms of a sample's channels have the mean m/(m + eps)",
        law: "Σ N_c/C = m/(m + eps), m = Σ ‖x_c‖₂/C, N_c = y/x − 1",
        source: "Woo et al. 2023, section 3.3",
        flags: &[Flag::NormKind, Flag::EpsValue],
        scope: Scope::Of(&["global_response_norm"]),
        trial: response,
    },
    Property {
        name: "argument",
        sentence: "the factor of an activation belongs to its argument",
        law: "y(x; α) = f(α·x)",
        source: "Zhu et al. 2025, section 4; Chen et al. 2025",
        flags: &[Flag::Activation],
        scope: Scope::Of(&["dynamic_tanh", "dynamic_erf"]),
        trial: argument,
    },
    Property {
        name: "demodulated",
        sentence: "the squares of a demodulated filter add up to s/(s + eps)",
        law: "Σ y² = s/(s + eps), s = Σ (style·w)²",
        source: "Karras et al. 2020, equation 3",
        flags: &[Flag::EpsValue],
        scope: Scope::Of(&["weight_demodulation"]),
        trial: demodulated,
    },
    Property {
        name: "branch",
        sentence: "the batch's deviation is the least that divides",
        law: "|y|·√(v + eps) ≤ |x|, v the batch's variance",
        source: "Liu et al. 2020, table 1",
        flags: &[Flag::Activation],
        scope: Scope::Of(&["evo_norm_b0", "evo_norm_b1", "evo_norm_b2"]),
        trial: branch,
    },
    Property {
        name: "evolved",
        sentence: "without v the first of the sample series is the second",
        law: "evo_norm_s0(x; v = 1) = evo_norm_s1(x)",
        source: "Liu et al. 2020, table 1",
        flags: &[Flag::Activation],
        scope: Scope::Of(&["evo_norm_s0"]),
        trial: evolved,
    },
    Property {
        name: "renorm",
        sentence: "batch renorm with the limits 1 and 0 is batch norm, and averages deviations",
        law: "batch_renorm(x; 1, 0) = batch_norm(x), σ ← σ + m·(√(v + eps) − σ)",
        source: "Ioffe 2017, section 3",
        flags: &[Flag::Limits, Flag::RunningQuantity],
        scope: Scope::Of(&["batch_renorm"]),
        trial: renorm,
    },
    Property {
        name: "pooled",
        sentence: "the statistics of many batches are those of all their values",
        law: "mean = Σ x/n, var = Σ (x − mean)²/n",
        source: "Wu and Johnson 2021, section 3",
        flags: &[Flag::Chunks, Flag::VarianceDenominator],
        scope: Scope::Of(&["precise_batch_norm_statistics"]),
        trial: pooled,
    },
];

/// The output of the first call must be that of the second, element `to(i)` for i, times `factor`.
fn alike(left: Step, right: Step, factor: Truth, to: impl Fn(usize) -> usize + Send + Sync + 'static) -> Option<Trial> {
    Some(Trial::of(vec![left, right], move |answers, finding| {
        let (left, right) = (answers.call(0), answers.call(1));
        let other = right.balls(output_of(right.step));
        for (index, one) in left.balls(output_of(left.step)).into_iter().enumerate() {
            equal(finding, left, index, one, other[to(index)] * factor, right.step.operation.name());
        }
    }))
}

pub(super) fn equal(finding: &mut Finding, asked: &Asked<'_>, index: usize, one: Truth, other: Truth, name: &str) {
    finding.zero((0, 0), one - other, || {
        format!("{} is {:e}; by {name} it is {:e}", place(asked, index), one.value.hi, other.value.hi)
    });
}

/// The value of a hyper-parameter.
fn number(step: &Step, name: &str) -> f64 {
    let json = serde_json::to_value(&step.operation).unwrap_or_default();
    json.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0)
}

fn shape(step: &Step) -> Vec<usize> {
    step.tensors["input"].shape().to_vec()
}

/// A forward call of another operation with these values.
fn call(setting: &Setting, operation: Operation, shape: &[usize], values: Vec<f64>) -> Step {
    Step::forward(operation, Tensors::from([("input".to_owned(), setting.tensor(shape, values))]))
}

fn input(step: &Step) -> Vec<f64> {
    step.tensors["input"].to_f64().into_iter().collect()
}

fn layer_norm(eps: f64, normalized_shape: Vec<usize>) -> Operation {
    Operation::LayerNorm(LayerNorm { normalized_shape, eps, dialect: Dialect::Pytorch })
}

fn rms_norm(eps: f64, normalized_shape: Vec<usize>, dialect: Dialect) -> Operation {
    Operation::RmsNorm(RmsNorm { normalized_shape, eps: Some(eps), dialect })
}

fn pixels(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let (own, x, eps) = (shape(&step), input(&step), number(&step, "eps"));
    let (channels, positions) = (own[1], own[2]);
    // The place of (n, l, c) for (n, c, l).
    let to = move |index: usize| {
        let (sample, rest) = (index / (channels * positions), index % (channels * positions));
        (sample * positions + rest % positions) * channels + rest / positions
    };
    let mut last = vec![0.0; x.len()];
    x.iter().enumerate().for_each(|(index, &x)| last[to(index)] = x);
    let operation = match setting.operation {
        "layer_norm_2d" => layer_norm(eps, vec![channels]),
        _ => rms_norm(eps, vec![channels], Dialect::Pytorch),
    };
    let other = call(setting, operation, &[own[0] * positions, channels], last);
    alike(step, other, exact(1.0), to)
}

fn rows(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let (own, x, eps) = (shape(&step), input(&step), number(&step, "eps"));
    let (operation, length) = match setting.operation {
        "filter_response_norm" => (rms_norm(eps, vec![own[2]], Dialect::Pytorch), own[2]),
        _ => (layer_norm(eps, vec![own[1] * own[2]]), own[1] * own[2]),
    };
    let other = call(setting, operation, &[x.len() / length, length], x);
    alike(step, other, exact(1.0), |index| index)
}

fn fan_in(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let (own, eps, gamma) = (shape(&step), number(&step, "eps"), number(&step, "gamma"));
    let other = Operation::WeightStandardization(WeightStandardization { eps });
    let other = Step { operation: other, ..step.clone() };
    alike(step, other, exact(gamma) / exact((own[1] * own[2]) as f64).sqrt(), |index| index)
}

/// Weights and biases of few digits, so that 1 + w is one of the type.
fn few(setting: &mut Setting, count: usize) -> (Vec<f64>, Vec<f64>) {
    let mut pick = |choices: &[f64]| (0..count).map(|_| setting.values.pick(choices)).collect::<Vec<f64>>();
    (pick(&[0.5, 1.5, -0.5, -1.75, 0.25]), pick(&[0.25, 0.5, -2.0]))
}

fn one_plus(setting: &mut Setting) -> Option<Trial> {
    let [_, c, l] = setting.sizes(2);
    let mut step = setting.step_of(setting.operation, [1, c, l]);
    let (own, eps) = (shape(&step), number(&step, "eps"));
    let (names, parameters, operation) = match &step.operation {
        Operation::LayerNorm1p(_) => (["weight", "bias"], vec![c, l], layer_norm(eps, vec![c, l])),
        Operation::AdaLayerNorm(_) => (["scale", "shift"], vec![l], layer_norm(eps, vec![l])),
        Operation::AdaGroupNorm(norm) => {
            let num_groups = norm.num_groups;
            let group = GroupNorm { num_groups, eps, dialect: Dialect::Pytorch };
            (["scale", "shift"], vec![c], Operation::GroupNorm(group))
        }
        _ => {
            step.operation = rms_norm(eps, vec![c, l], Dialect::Gemma);
            (["weight", "bias"], vec![c, l], rms_norm(eps, vec![c, l], Dialect::Pytorch))
        }
    };
    let (weights, biases) = few(setting, parameters.iter().product());
    let mut other = call(setting, operation, &own, input(&step));
    let raised = weights.iter().map(|w| 1.0 + w).collect();
    other.tensors.insert("weight".to_owned(), setting.tensor(&parameters, raised));
    // Of one sample the conditions are a row.
    let conditions = if names[0] == "scale" { [&[1], parameters.as_slice()].concat() } else { parameters.clone() };
    step.tensors.insert(names[0].to_owned(), setting.tensor(&conditions, weights));
    if !matches!(step.operation, Operation::RmsNorm(_)) {
        step.tensors.insert(names[1].to_owned(), setting.tensor(&conditions, biases.clone()));
        other.tensors.insert("bias".to_owned(), setting.tensor(&parameters, biases));
    }
    alike(step, other, exact(1.0), |index| index)
}

fn unbiased_square(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (x, y, eps) = (asked.sent("input"), asked.balls("output"), exact(asked.plan().eps));
        for positions in asked.groups() {
            let (count, rest) = (exact(positions.len() as f64), exact(positions.len() as f64 - 1.0));
            let own: Vec<f64> = positions.iter().map(|&position| x[position]).collect();
            let variance = moments(&own, true).1 * count / rest;
            let mean = sum(positions.iter().map(|&position| y[position])) / count;
            let deviations = positions.iter().map(|&position| y[position] - mean);
            let square = sum(deviations.map(|deviation| deviation * deviation)) / rest;
            let expected = variance / (variance + eps);
            finding.zero((0, 0), square - expected, || {
                let (at, is) = (place(asked, positions[0]), square.value.hi);
                format!("the group of {at} has the variance {is:e}; expected {:e}", expected.value.hi)
            });
        }
    }))
}

fn length(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let (own, eps) = (shape(&step), number(&step, "eps"));
    let normalize = Operation::Normalize(Normalize { p: 2.0, dim: -1, eps });
    let other = call(setting, normalize, &own, input(&step));
    alike(step, other, exact(1.0), |index| index)
}

fn gate(setting: &mut Setting) -> Option<Trial> {
    let mut plain = setting.step();
    let Operation::RmsNormGated(norm) = &mut plain.operation else { return None };
    norm.norm_before_gate = true;
    let own = shape(&plain);
    let count = own.iter().product();
    let gates: Vec<f64> = (0..count).map(|_| setting.values.pick(&[-2.0, -0.5, 0.75, 1.5, 3.0])).collect();
    let mut gated = plain.clone();
    gated.tensors.insert("gate".to_owned(), setting.tensor(&own, gates.clone()));
    Some(Trial::of(vec![gated, plain], move |answers, finding| {
        let (gated, plain) = (answers.call(0), answers.call(1));
        let pairs = gated.balls("output").into_iter().zip(plain.balls("output"));
        for (index, (one, other)) in pairs.enumerate() {
            let silu = exact(gates[index]) * exact(gates[index]).function(Function::Sigmoid);
            equal(finding, gated, index, one, other * silu, "the norm alone and the gate");
        }
    }))
}

fn threshold(setting: &mut Setting) -> Option<Trial> {
    let plain = setting.step();
    let channels = shape(&plain)[1];
    let tau: Vec<f64> = (0..channels).map(|_| setting.values.pick(&[-0.5, 0.25, 0.5])).collect();
    let mut with = plain.clone();
    with.tensors.insert("tau".to_owned(), setting.tensor(&[channels], tau.clone()));
    Some(Trial::of(vec![with, plain], move |answers, finding| {
        let (with, plain) = (answers.call(0), answers.call(1));
        let length = shape(with.step)[2];
        let pairs = with.balls("output").into_iter().zip(plain.balls("output"));
        for (index, (one, other)) in pairs.enumerate() {
            let limit = exact(tau[index / length % tau.len()]);
            equal(finding, with, index, one, other.max(limit), "the norm without a threshold");
        }
    }))
}

fn style(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (y, style) = (asked.balls("output"), asked.sent("style"));
        let groups = asked.groups();
        let length = style.len() / groups.len();
        for (positions, style) in groups.iter().zip(style.chunks(length)) {
            let mean = sum(positions.iter().map(|&position| y[position])) / exact(positions.len() as f64);
            let expected = moments(style, true).0;
            finding.zero((0, 0), mean - expected, || {
                let (at, is, of) = (place(asked, positions[0]), mean.value.hi, expected.value.hi);
                format!("the instance of {at} has the mean {is:e}; its style's is {of:e}")
            });
        }
    }))
}

fn chunks(setting: &mut Setting) -> Option<Trial> {
    let mut step = setting.step();
    let (own, x) = (shape(&step), input(&step));
    let (channels, eps, momentum) = (own[1], number(&step, "eps"), number(&step, "momentum"));
    let ghost = setting.operation == "ghost_batch_norm";
    let batch = BatchNorm { spatial_dims: None, eps, momentum: Some(momentum), dialect: BatchNormDialect::Pytorch };
    let half = [own[0] / 2, channels, own[2]];
    let part = |values: &[f64]| {
        let part = call(setting, Operation::BatchNorm(batch.clone()), &half, values.to_vec());
        Step { mode: Mode::Train, ..part }
    };
    let (first, second) = x.split_at(x.len() / 2);
    let mut parts = [part(first), part(second)];
    for (name, value) in [("running_mean", 0.5), ("running_var", 2.0)] {
        let stored = setting.tensor(&[channels], vec![value; channels]);
        parts[0].tensors.insert(name.to_owned(), stored.clone());
        if ghost {
            step.tensors.insert(name.to_owned(), stored);
        } else {
            parts[1].tensors.insert(name.to_owned(), stored);
            let table = setting.tensor(&[2, channels], vec![value; 2 * channels]);
            step.tensors.insert(name.to_owned(), table);
        }
    }
    let [one, other] = parts;
    let chains = if ghost { vec![vec![step], vec![one, other]] } else { vec![vec![step], vec![one], vec![other]] };
    Some(Trial::chained(chains, move |answers, finding| {
        let whole = answers.call(0);
        let parts: Vec<&Asked<'_>> = answers.chains[1..].iter().flatten().collect();
        let outputs = parts.iter().flat_map(|part| part.balls("output"));
        for (index, (one, other)) in whole.balls("output").into_iter().zip(outputs).enumerate() {
            equal(finding, whole, index, one, other, "batch_norm of its chunk");
        }
        for name in ["running_mean", "running_var"] {
            // A chain's last answer has what both chunks moved, and 1 − m of what the first answer is off: ghost batch norm
            // stores nothing between them.
            let of_last = || {
                let erred = parts[0].errors(name).into_iter();
                let with = |(last, erred): (Truth, f64)| last + exact(1.0 - momentum) * ball(0.0, erred);
                parts[1].balls(name).into_iter().zip(erred).map(with).collect()
            };
            let of_parts: Vec<Truth> =
                if ghost { of_last() } else { parts.iter().flat_map(|part| part.balls(name)).collect() };
            for (index, (one, other)) in whole.balls(name).into_iter().zip(of_parts).enumerate() {
                finding.zero((0, 0), one - other, || {
                    let (is, expected) = (one.value.hi, other.value.hi);
                    format!("element {index} of {name} is {is:e}; by batch_norm of each chunk it is {expected:e}")
                });
            }
        }
    }))
}

fn masked(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (x, mask, y) = (asked.sent("input"), asked.sent("mask"), asked.balls("output"));
        let eps = exact(asked.plan().eps);
        for positions in asked.groups() {
            let kept: Vec<usize> = positions.into_iter().filter(|&position| mask[position] != 0.0).collect();
            let own: Vec<f64> = kept.iter().map(|&position| x[position]).collect();
            let (variance, count) = (moments(&own, true).1, exact(own.len() as f64));
            let expected = variance / (variance + eps);
            let total = sum(kept.iter().map(|&position| y[position]));
            let square = sum(kept.iter().map(|&position| y[position] * y[position])) / count;
            let at = place(asked, kept[0]);
            finding
                .zero((0, 0), total, || format!("what is kept of the group of {at} adds up to {:e}", total.value.hi));
            finding.zero((0, 0), square - expected, || {
                let (is, expected) = (square.value.hi, expected.value.hi);
                format!("what is kept of the group of {at} has the mean square {is:e}; expected {expected:e}")
            });
        }
    }))
}

fn response(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let step = changed(&step, "weight", |_, _| 1.0);
    let step = changed(&step, "input", |_, x| if x == 0.0 { 1.0 } else { x });
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (x, y, eps) = (asked.sent("input"), asked.balls("output"), exact(asked.plan().eps));
        let channels = shape(asked.step)[1];
        let largest = |positions: &Vec<usize>| {
            positions.iter().copied().max_by(|&a, &b| x[a].abs().total_cmp(&x[b].abs())).unwrap_or_default()
        };
        for sample in asked.groups().chunks(channels) {
            let norm = |positions: &Vec<usize>| sum(positions.iter().map(|&p| exact(x[p]) * exact(x[p]))).sqrt();
            let mean = sum(sample.iter().map(norm)) / exact(channels as f64);
            let relative = |positions: &Vec<usize>| y[largest(positions)] / exact(x[largest(positions)]) - exact(1.0);
            let total = sum(sample.iter().map(relative)) / exact(channels as f64);
            let expected = mean / (mean + eps);
            finding.zero((0, 0), total - expected, || {
                let at = place(asked, sample[0][0]);
                let (is, expected) = (total.value.hi, expected.value.hi);
                format!("the relative norms of the sample of {at} have the mean {is:e}; expected {expected:e}")
            });
        }
    }))
}

fn argument(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let function = if setting.operation == "dynamic_tanh" { Function::Tanh } else { Function::Erf };
    let step = changed(&step, "input", |_, x| x / 64.0);
    Some(Trial::of(vec![step], move |answers, finding| {
        let asked = answers.call(0);
        let alpha = exact(asked.sent("alpha")[0]);
        for (index, (&x, y)) in asked.sent("input").iter().zip(asked.balls("output")).enumerate() {
            equal(finding, asked, index, y, (alpha * exact(x)).function(function), "the function of alpha times x");
        }
    }))
}

fn demodulated(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (weight, style, y) = (asked.sent("input"), asked.sent("style"), asked.balls("output"));
        let (length, eps) = (shape(asked.step)[2], exact(asked.plan().eps));
        for positions in asked.groups() {
            let modulated = |position: usize| exact(weight[position]) * exact(style[position / length % style.len()]);
            let own = sum(positions.iter().map(|&position| modulated(position) * modulated(position)));
            let total = sum(positions.iter().map(|&position| y[position] * y[position]));
            let expected = own / (own + eps);
            finding.zero((0, 0), total - expected, || {
                let (at, is) = (place(asked, positions[0]), total.value.hi);
                format!("the squares of the filter of {at} add up to {is:e}; expected {:e}", expected.value.hi)
            });
        }
    }))
}

fn branch(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (x, y, eps) = (asked.sent("input"), asked.balls("output"), exact(asked.plan().eps));
        let size = |y: Truth| if y.value.hi < 0.0 { -y } else { y };
        for positions in asked.groups() {
            let own: Vec<f64> = positions.iter().map(|&position| x[position]).collect();
            let deviation = (moments(&own, true).1 + eps).sqrt();
            for &position in &positions {
                finding.at_most((0, 0), size(y[position]) * deviation - exact(x[position].abs()), || {
                    let (at, is, x) = (place(asked, position), y[position].value.hi, x[position]);
                    format!("{at} is {is:e} for x = {x:e}: more than x by the batch's deviation")
                });
            }
        }
    }))
}

fn evolved(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let Operation::EvoNormS0(norm) = &step.operation else { return None };
    let other = Operation::EvoNormS1(EvoNormS1 { num_groups: norm.num_groups, eps: norm.eps });
    let other = Step { operation: other, ..step.clone() };
    alike(step, other, exact(1.0), |index| index)
}

fn renorm(setting: &mut Setting) -> Option<Trial> {
    let mut step = setting.step();
    let (eps, momentum) = (number(&step, "eps"), number(&step, "momentum"));
    let Operation::BatchRenorm(norm) = &mut step.operation else { return None };
    (norm.r_max, norm.d_max) = (1.0, 0.0);
    let batch = BatchNorm { spatial_dims: None, eps, momentum: Some(momentum), dialect: BatchNormDialect::Pytorch };
    let other = call(setting, Operation::BatchNorm(batch), &shape(&step), input(&step));
    let other = Step { mode: Mode::Train, ..other };
    Some(Trial::of(vec![step, other], move |answers, finding| {
        let (renorm, batch) = (answers.call(0), answers.call(1));
        let outputs = renorm.balls("output").into_iter().zip(batch.balls("output"));
        for (index, (one, other)) in outputs.enumerate() {
            equal(finding, renorm, index, one, other, "batch_norm");
        }
        let (x, old, new) = (renorm.sent("input"), renorm.sent("running_std"), renorm.balls("running_std"));
        for (channel, positions) in renorm.groups().into_iter().enumerate() {
            let own: Vec<f64> = positions.iter().map(|&position| x[position]).collect();
            let deviation = (moments(&own, true).1 + exact(eps)).sqrt();
            let expected = exact(old[channel]) + exact(momentum) * (deviation - exact(old[channel]));
            finding.zero((0, 0), new[channel] - expected, || {
                let (is, expected) = (new[channel].value.hi, expected.value.hi);
                format!("running_std[{channel}] is {is:e}; expected {expected:e}")
            });
        }
    }))
}

fn pooled(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let x = asked.sent("input");
        let (means, variances) = (asked.balls("running_mean"), asked.balls("running_var"));
        for (channel, positions) in asked.groups().into_iter().enumerate() {
            let own: Vec<f64> = positions.iter().map(|&position| x[position]).collect();
            let (mean, variance) = moments(&own, true);
            for (name, is, expected) in
                [("running_mean", means[channel], mean), ("running_var", variances[channel], variance)]
            {
                finding.zero((0, 0), is - expected, || {
                    format!("{name}[{channel}] is {:e}; of all values it is {:e}", is.value.hi, expected.value.hi)
                });
            }
        }
    }))
}
