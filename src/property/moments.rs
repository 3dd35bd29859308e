//! What the numbers of one group obey, whatever they are.
//!
//! ```text
//! mean ŷ = 0        mean ŷ² = v/(v + eps)        |ŷᵢ| ≤ √(n−1)·√(v/(v + eps))        ŷ = (x − μ)/√(v + eps)
//! 2·√(v/(v + eps)) ≤ max ŷ − min ŷ ≤ √(2n)·√(v/(v + eps))
//! ```
//! Samuelson 1968; Nagy 1918 above and Popoviciu 1935 below for the range. Without a mean (RMS norm) v is the mean square
//! and |ŷᵢ| ≤ √n·√(v/(v + eps)).

use super::setting::{Setting, axes, changed, parameter_shape};
use super::symmetry::{output_of, place};
use super::trial::{Asked, Finding, Trial, exact, moments, sum};
use super::{MONOTONE, Property, Scope};
use crate::arithmetic::{Real, Truth};
use crate::case::{Flag, Step};
use crate::operation::{AFFINE, CENTRED, FAMILY, Operation};
use crate::tensor::Tensor;

pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "mean-zero",
        sentence: "the outputs of a group add up to 0",
        law: "Σ ŷᵢ = 0",
        source: "Ioffe and Szegedy 2015, section 3",
        flags: &[Flag::GroupAxis, Flag::LowPrecisionStatistics],
        scope: Scope::Of(CENTRED),
        trial: |setting| of_groups(setting, mean_zero),
    },
    Property {
        name: "mean-square",
        sentence: "the mean square of a group's outputs is v/(v + eps)",
        law: "Σ ŷᵢ²/n = v/(v + eps)",
        source: "Ioffe and Szegedy 2015, section 3",
        flags: &[Flag::VarianceDenominator, Flag::EpsValue, Flag::EpsPlace, Flag::ScaleError],
        scope: Scope::Of(FAMILY),
        trial: |setting| of_groups(setting, mean_square),
    },
    Property {
        name: "samuelson",
        sentence: "an outlier reaches √(n − 1) standard deviations, and nothing more than that",
        law: "|ŷᵢ| ≤ √(n−1)·√(v/(v + eps)), with equality where all others are equal",
        source: "Samuelson 1968",
        flags: &[Flag::VarianceDenominator, Flag::Clipped, Flag::Outlier],
        scope: Scope::Of(FAMILY),
        trial: samuelson,
    },
    Property {
        name: "range",
        sentence: "the range of a group's outputs is between Popoviciu's bound and Nagy's",
        law: "2·√(v/(v + eps)) ≤ max ŷ − min ŷ ≤ √(2n)·√(v/(v + eps))",
        source: "Nagy 1918; Popoviciu 1935",
        flags: &[Flag::VarianceDenominator, Flag::EpsPlace],
        scope: Scope::Of(CENTRED),
        trial: range,
    },
    Property {
        name: "monotone",
        sentence: "the order of a group's values is kept",
        law: "xᵢ ≤ xⱼ ⇒ yᵢ ≤ yⱼ",
        source: "from the definition: y is affine in x with a positive slope",
        flags: &[Flag::BatchVariance, Flag::GroupAxis],
        scope: MONOTONE,
        trial: monotone,
    },
    Property {
        name: "duplicates",
        sentence: "equal values of a group give equal outputs, bit by bit",
        law: "xᵢ = xⱼ ⇒ yᵢ = yⱼ",
        source: "from the definition: y is a function of x and the group",
        flags: &[Flag::BatchVariance],
        scope: MONOTONE,
        trial: duplicates,
    },
    Property {
        name: "repetition",
        sentence: "a group with each of its values twice gives the same outputs",
        law: "y(x, x) = (y(x), y(x))",
        source: "the variance that normalizes is biased: Ioffe and Szegedy 2015, algorithm 1",
        flags: &[Flag::VarianceDenominator],
        scope: Scope::Of(FAMILY),
        trial: repetition,
    },
    Property {
        name: "idempotence",
        sentence: "normalizing twice gives the first answer divided by √(v/(v + eps) + eps)",
        law: "y(y(x)) = y(x)/√(v/(v + eps) + eps)",
        source: "from mean ŷ = 0 and mean ŷ² = v/(v + eps)",
        flags: &[Flag::EpsValue, Flag::EpsPlace, Flag::VarianceDenominator],
        scope: Scope::Of(FAMILY),
        trial: idempotence,
    },
    Property {
        name: "affine",
        sentence: "weight and bias multiply and add, each at its own element",
        law: "y(x; w, b) = w·y(x) + b",
        source: "Ioffe and Szegedy 2015, algorithm 1",
        flags: &[Flag::AffineShape],
        scope: Scope::Of(AFFINE),
        trial: affine,
    },
];

/// A group of one call: its values, its answers as balls, their statistics.
struct Group<'a> {
    asked: &'a Asked<'a>,
    positions: Vec<usize>,
    x: Vec<f64>,
    y: Vec<Truth>,
    /// v/(v + eps)
    square: Truth,
}

/// A trial of one call, whose groups are looked at one by one.
fn of_groups(setting: &mut Setting, law: fn(&Group<'_>, &mut Finding)) -> Option<Trial> {
    let step = setting.step();
    Some(Trial::of(vec![step], move |answers, finding| each_group(answers.call(0), |group| law(group, finding))))
}

fn each_group<'a>(asked: &'a Asked<'a>, mut look: impl FnMut(&Group<'a>)) {
    let (input, output, plan) = (asked.sent("input"), asked.balls("output"), asked.plan());
    for positions in asked.groups() {
        let x: Vec<f64> = positions.iter().map(|&position| input[position]).collect();
        let y = positions.iter().map(|&position| output[position]).collect();
        let (_, variance) = moments(&x, plan.centred);
        let square = variance / (variance + exact(plan.eps));
        look(&Group { asked, positions, x, y, square });
    }
}

fn mean_zero(group: &Group<'_>, finding: &mut Finding) {
    let total = sum(group.y.iter().copied());
    finding.zero((0, 0), total, || {
        let at = place(group.asked, group.positions[0]);
        format!("the outputs of the group of {at} add up to {:e}; expected 0", total.value.hi)
    });
}

fn mean_square(group: &Group<'_>, finding: &mut Finding) {
    let mean = sum(group.y.iter().map(|&y| y * y)) / exact(group.y.len() as f64);
    finding.zero((0, 0), mean - group.square, || {
        let (at, is) = (place(group.asked, group.positions[0]), mean.value.hi);
        let expected = group.square.value.hi;
        format!("the mean square of the group of {at} is {is:e}; expected v/(v + eps) = {expected:e}")
    });
}

/// The most that an output of a group of n can be, in units of √(v/(v + eps)).
fn most(count: usize, centred: bool) -> Truth {
    exact((count - usize::from(centred)) as f64).sqrt()
}

/// One value of each group apart, so that it attains the bound; or any values, which stay below.
fn samuelson(setting: &mut Setting) -> Option<Trial> {
    setting.round += 3; // Large groups attain large values.
    let step = setting.step();
    let attains = setting.round % 2 == 1;
    let step = if attains { outliers(setting, &step) } else { step };
    Some(Trial::of(vec![step], move |answers, finding| {
        each_group(answers.call(0), |group| {
            let limit = most(group.x.len(), group.asked.plan().centred) * group.square.sqrt();
            let sizes = || group.y.iter().map(|&y| if y.value.hi < 0.0 { -y } else { y });
            let text = |is: f64| {
                let (at, n, limit) = (place(group.asked, group.positions[0]), group.x.len(), limit.value.hi);
                format!("the largest output of the group of {at}, n = {n}, is {is:e} in size; Samuelson's is {limit:e}")
            };
            for size in sizes() {
                finding.at_most((0, 0), size - limit, || text(size.value.hi));
            }
            let largest = sizes().max_by(|a, b| a.value.hi.total_cmp(&b.value.hi)).filter(|_| attains);
            if let Some(largest) = largest {
                finding.zero((0, 0), largest - limit, || text(largest.value.hi));
            }
        });
    }))
}

/// The step with all values of a group equal but for one; 0 where there is no mean.
fn outliers(setting: &mut Setting, step: &Step) -> Step {
    let rest = if CENTRED.contains(&setting.operation) { setting.integer(8) as f64 } else { 0.0 };
    let apart = rest + setting.values.sign() * (1 << 5) as f64;
    let partition = plan_partition(step);
    let mut input = vec![rest; step.tensors["input"].len()];
    for group in partition {
        input[group[setting.values.below(group.len())]] = apart;
    }
    changed(step, "input", |index, _| input[index])
}

/// The positions of each group of a step that is no refusal.
fn plan_partition(step: &Step) -> Vec<Vec<usize>> {
    let descriptions = step.descriptions();
    let call = crate::operation::Call { mode: step.mode, tensors: &descriptions, num_batches_tracked: None };
    let plan = step.operation.plan(&call, &Default::default()).expect("settings are answered");
    (0..plan.partition.groups()).map(|group| plan.partition.positions(group)).collect()
}

/// Half of a group's values high and half low attain the lower bound; one high, one low, the rest between, the upper.
fn range(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let kind = setting.round % 3;
    let step = match kind {
        0 => step,
        _ => {
            let (middle, spread) = (setting.integer(8) as f64, 4.0 * (1.0 + setting.values.below(3) as f64));
            let mut input = vec![middle; step.tensors["input"].len()];
            for group in plan_partition(&step) {
                for (k, &position) in group.iter().enumerate() {
                    let apart = kind == 1 || k < 2;
                    input[position] += if !apart {
                        0.0
                    } else if k % 2 == 0 {
                        spread
                    } else {
                        -spread
                    };
                }
            }
            changed(&step, "input", |index, _| input[index])
        }
    };
    Some(Trial::of(vec![step], |answers, finding| {
        each_group(answers.call(0), |group| {
            let root = group.square.sqrt();
            let by_size = |a: &&Truth, b: &&Truth| a.value.hi.total_cmp(&b.value.hi);
            let (Some(&high), Some(&low)) = (group.y.iter().max_by(by_size), group.y.iter().min_by(by_size)) else {
                return;
            };
            let range = high - low;
            let most = exact(2.0 * group.x.len() as f64).sqrt() * root;
            let least = exact(2.0) * root;
            let wrong = || {
                let (at, is) = (place(group.asked, group.positions[0]), range.value.hi);
                let (least, most) = (least.value.hi, most.value.hi);
                format!("the outputs of the group of {at} have the range {is:e}; expected {least:e} to {most:e}")
            };
            finding.at_most((0, 0), range - most, wrong);
            finding.at_most((0, 0), least - range, wrong);
        });
    }))
}

/// The groups within which an output is a rising function of the input.
fn rising_groups(asked: &Asked<'_>) -> Vec<Vec<usize>> {
    match &asked.step.operation {
        // The windows differ along the channels, and a power of the sum is not monotone.
        Operation::SpectralNorm(_) => vec![(0..asked.sent("input").len()).collect()],
        _ => asked.groups(),
    }
}

fn monotone(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (input, output) = (asked.sent("input"), asked.balls(output_of(asked.step)));
        let slopes = slopes(asked);
        for mut positions in rising_groups(asked) {
            positions.sort_by(|&a, &b| input[a].total_cmp(&input[b]));
            for pair in positions.windows(2) {
                let slope = exact(slopes(pair[0]));
                let (low, high) = (output[pair[0]] * slope, output[pair[1]] * slope);
                finding.at_most((0, 0), low - high, || {
                    let (a, b) = (input[pair[0]], input[pair[1]]);
                    let at = (place(asked, pair[0]), place(asked, pair[1]));
                    format!(
                        "{} is {:e} for x = {a:e}, and {} is {:e} for x = {b:e}; expected the same order",
                        at.0, output[pair[0]].value.hi, at.1, output[pair[1]].value.hi
                    )
                });
            }
        }
    }))
}

/// The sign of the weight of each element.
fn slopes<'a>(asked: &'a Asked<'_>) -> impl Fn(usize) -> f64 + 'a {
    let weights = asked.sent("weight");
    let folds = matches!(asked.step.operation, Operation::ConvBatchNormFold(_) | Operation::WeightNorm(_));
    move |index| {
        let [n, c, _] = axes(asked.step, index);
        weights.get(if folds { n } else { c }).map_or(1.0, |weight| weight.signum())
    }
}

fn duplicates(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    // Three values only, so that every group has some twice.
    let choices = [setting.integer(8) as f64, setting.integer(8) as f64, 9.0];
    let picked: Vec<f64> = (0..step.tensors["input"].len()).map(|_| setting.values.pick(&choices)).collect();
    let positive = setting.operation == "spectral_norm";
    let step = changed(&step, "input", |index, _| if positive { picked[index] + 16.0 } else { picked[index] });
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (input, output) = (asked.sent("input"), asked.balls(output_of(asked.step)));
        for positions in rising_groups(asked) {
            for (k, &one) in positions.iter().enumerate() {
                let Some(&other) = positions[k + 1..].iter().find(|&&other| input[other] == input[one]) else {
                    continue;
                };
                finding.same((0, 0), output[other], output[one], || {
                    let at = (place(asked, one), place(asked, other));
                    let (y, z) = (output[one].value.hi, output[other].value.hi);
                    format!("{} is {y:e} and {} is {z:e}, both for x = {:e}", at.0, at.1, input[one])
                });
            }
        }
    }))
}

/// Twice as many positions, so that batch, channels and groups stay what they are.
fn repetition(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let shape = step.tensors["input"].shape().to_vec();
    let length: usize = shape[2];
    let mut twice = step.clone();
    let input = &step.tensors["input"];
    let mut doubled = shape.clone();
    doubled[2] *= 2;
    let values = (0..2 * input.len()).map(|index| input.get(index / (2 * length) * length + index % length)).collect();
    twice.tensors.insert("input".to_owned(), Tensor::rounded(input.dtype(), &doubled, values));
    match &mut twice.operation {
        Operation::LayerNorm(norm) => norm.normalized_shape[1] *= 2,
        Operation::RmsNorm(norm) => norm.normalized_shape[1] *= 2,
        Operation::LayerNorm1p(norm) => norm.normalized_shape[1] *= 2,
        _ => {}
    }
    Some(Trial::of(vec![step, twice], move |answers, finding| {
        let (once, twice) = (answers.call(0), answers.call(1));
        let output = once.balls("output");
        for (index, other) in twice.balls("output").into_iter().enumerate() {
            let source = index / (2 * length) * length + index % length;
            let one = output[source];
            finding.zero((1, 0), other - one, || {
                let (at, was, is) = (place(once, source), one.value.hi, other.value.hi);
                format!("{at} is {was:e}, and {is:e} where every position is there twice")
            });
        }
    }))
}

fn idempotence(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let again = step.clone();
    let trial = Trial::of(vec![step], |answers, finding| {
        let (once, twice) = (answers.call(0), answers.call(1));
        let (eps, centred) = (exact(once.plan().eps), once.plan().centred);
        let (y, z) = (once.values("output"), twice.balls("output"));
        each_group(once, |group| {
            // ŷ stands δ from the truth, and y is Lipschitz with 1/√(s² + eps), s the least deviation on the way:
            // |y(ŷ) − y(z)|ᵢ ≤ ‖δ‖₂/√(s² + eps).
            let errors = group.y.iter().map(|y| exact(y.radius) * exact(y.radius));
            let distance = sum(errors).sqrt().value.hi * (1.0 + 1e-12);
            let own: Vec<f64> = group.positions.iter().map(|&position| y[position]).collect();
            let (_, square) = moments(&own, centred);
            let least = (square.sqrt().value.hi - distance).max(0.0);
            let spread = distance / (least * least + eps.value.hi).sqrt() * (1.0 + 1e-12);
            let sigma = (group.square + eps).sqrt();
            for (&position, &first) in group.positions.iter().zip(&group.y) {
                let expected = first / sigma;
                let residual = z[position] - expected;
                let residual = Truth { radius: residual.radius + spread, ..residual };
                finding.zero((1, 0), residual, || {
                    let (at, is, was) = (place(once, position), z[position].value.hi, first.value.hi);
                    format!("{at} is {was:e}, normalized again {is:e}; expected {:e}", expected.value.hi)
                });
            }
        });
    });
    Some(trial.then(move |answers| {
        let mut again = again.clone();
        if let Some(output) = answers.call(0).answer.get("output") {
            again.tensors.insert("input".to_owned(), output.clone());
        }
        vec![vec![again]]
    }))
}

fn affine(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let mut with = step.clone();
    setting.affine(&mut with);
    Some(Trial::of(vec![step, with], |answers, finding| {
        let (plain, with) = (answers.call(0), answers.call(1));
        let (weights, biases) = (with.sent("weight"), with.sent("bias"));
        let by_channel = parameter_shape(with.step).len() == 1;
        let outputs = plain.balls("output").into_iter().zip(with.balls("output"));
        for (index, (one, other)) in outputs.enumerate() {
            let parameter = if by_channel { axes(with.step, index)[1] } else { index % weights.len() };
            let (w, b) = (weights[parameter], biases.get(parameter).copied().unwrap_or(0.0));
            let expected = one * exact(w) + exact(b);
            finding.zero((1, 0), other - expected, || {
                let (at, was, is) = (place(plain, index), one.value.hi, other.value.hi);
                let expected = expected.value.hi;
                format!("{at} is {was:e} without weight and bias, {is:e} with {w} and {b}; expected {expected:e}")
            });
        }
    }))
}
