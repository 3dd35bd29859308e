//! Gradients: what a backward pass obeys, whatever comes from above.
//!
//! ```text
//! Σ dx = 0        Σ dx·x̂ = Σ g·x̂ · eps/(v + eps)^(3/2)        db = Σ g        dw = Σ g·x̂
//! dx(g; w) = dx(g·w)      dx(g + h) = dx(g) + dx(h)           dx(2ᵏx; 4ᵏ·eps) = 2⁻ᵏ·dx(x; eps)
//! ⟨h, D²·d⟩ = ⟨d, D²·h⟩   D² the second derivative of ⟨g, y⟩, which is symmetric (Schwarz)
//! ```
//! Ioffe and Szegedy 2015, section 3; the closed forms follow from mean x̂ = 0 and mean x̂² = v/(v + eps).

use super::setting::{Setting, axes, changed, parameter_shape, with_eps};
use super::trial::{Asked, Trial, exact, moments, sum};
use super::{EVERY, Property, Scope};
use crate::arithmetic::format::power_of_two;
use crate::arithmetic::{Real, Truth};
use crate::case::check_answer::outputs;
use crate::case::{Flag, Step};
use crate::judge::unravel;
use crate::operation::{AFFINE, CENTRED, FAMILY};
use crate::tensor::Tensor;

pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "gradient-sum",
        sentence: "the input's gradients of a group add up to 0",
        law: "Σ dxᵢ = 0",
        source: "from y(x + c) = y(x)",
        flags: &[Flag::GradientStatistics],
        scope: Scope::Of(CENTRED),
        trial: gradient_sum,
    },
    Property {
        name: "gradient-along",
        sentence: "the input's gradient along the output is what eps leaves of it",
        law: "Σ dxᵢ·x̂ᵢ = Σ gᵢ·x̂ᵢ · eps/(v + eps)^(3/2)",
        source: "from mean x̂ = 0 and mean x̂² = v/(v + eps)",
        flags: &[Flag::GradientStatistics, Flag::EpsValue],
        scope: Scope::Of(FAMILY),
        trial: gradient_along,
    },
    Property {
        name: "gradient-parameters",
        sentence: "the bias's gradient is the sum of what comes from above, the weight's that of its products with x̂",
        law: "db = Σ g, dw = Σ g·x̂",
        source: "Ioffe and Szegedy 2015, section 3",
        flags: &[Flag::ParameterGradient],
        scope: Scope::Of(AFFINE),
        trial: gradient_parameters,
    },
    Property {
        name: "gradient-weight",
        sentence: "a weight multiplies what comes from above",
        law: "dx(g; w) = dx(g·w)",
        source: "Ioffe and Szegedy 2015, section 3",
        flags: &[Flag::ParameterGradient],
        scope: Scope::Of(AFFINE),
        trial: gradient_weight,
    },
    Property {
        name: "gradient-linear",
        sentence: "the input's gradient is linear in what comes from above",
        law: "dx(g + h) = dx(g) + dx(h)",
        source: "the chain rule",
        flags: &[Flag::GradientStatistics],
        scope: EVERY,
        trial: gradient_linear,
    },
    Property {
        name: "gradient-scale",
        sentence: "a power of two on the input with its square on eps divides the gradient by it, bit by bit",
        law: "dx(2ᵏ·x; 4ᵏ·eps) = 2⁻ᵏ·dx(x; eps)",
        source: "IEEE 754-2019, section 4.3.1",
        flags: &[Flag::EpsValue, Flag::EpsPlace],
        scope: Scope::Of(FAMILY),
        trial: gradient_scale,
    },
    Property {
        name: "second-gradient-symmetric",
        sentence: "the second derivative is symmetric: two directions may change places",
        law: "⟨h, D²·d⟩ = ⟨d, D²·h⟩",
        source: "Schwarz 1873",
        flags: &[Flag::DoubleBackward],
        scope: Scope::Of(FAMILY),
        trial: second_gradient_symmetric,
    },
];

const SEED: &str = "grad_output.output";
const DIRECTION: &str = "grad_grad.input";

/// The step asking for gradients, with integers from above.
fn seeded(setting: &mut Setting, mut step: Step) -> Step {
    step.gradients = true;
    let outputs = outputs(&step);
    for &output in step.operation.signature().outputs {
        let tensor = integers(setting, &outputs[output].shape);
        step.tensors.insert(format!("grad_output.{output}"), tensor);
    }
    step
}

fn integers(setting: &mut Setting, shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|_| setting.integer(6) as f64).collect();
    setting.tensor(shape, values)
}

fn at(asked: &Asked<'_>, index: usize) -> String {
    format!("grad_input{:?}", unravel(index, asked.step.tensors["input"].shape()))
}

fn gradient_sum(setting: &mut Setting) -> Option<Trial> {
    let mut step = setting.step();
    if setting.round % 2 == 1 && AFFINE.contains(&setting.operation) {
        setting.affine(&mut step);
    }
    let step = seeded(setting, step);
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let gradient = asked.balls("grad_input");
        for positions in asked.groups() {
            let total = sum(positions.iter().map(|&position| gradient[position]));
            finding.zero((0, 0), total, || {
                let group = at(asked, positions[0]);
                format!("the gradients of the group of {group} add up to {:e}; expected 0", total.value.hi)
            });
        }
    }))
}

fn gradient_along(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let step = seeded(setting, step);
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (input, seed, plan) = (asked.sent("input"), asked.sent(SEED), asked.plan());
        let gradient = asked.balls("grad_input");
        for positions in asked.groups() {
            let x: Vec<f64> = positions.iter().map(|&position| input[position]).collect();
            let (mean, variance) = moments(&x, plan.centred);
            let square = variance + exact(plan.eps);
            let sigma = square.sqrt();
            let hat = |k: usize| (exact(x[k]) - mean) / sigma;
            let along = sum((0..x.len()).map(|k| gradient[positions[k]] * hat(k)));
            let above = sum((0..x.len()).map(|k| exact(seed[positions[k]]) * hat(k)));
            let expected = above * exact(plan.eps) / (square * sigma);
            finding.zero((0, 0), along - expected, || {
                let (group, along, expected) = (at(asked, positions[0]), along.value.hi, expected.value.hi);
                format!("along the output the group of {group} has the gradient {along:e}; expected {expected:e}")
            });
        }
    }))
}

/// The index of the weight of element `index`.
fn parameter(step: &Step, index: usize) -> usize {
    let shape = parameter_shape(step);
    if shape.len() == 1 { axes(step, index)[1] } else { index % shape.iter().product::<usize>() }
}

fn gradient_parameters(setting: &mut Setting) -> Option<Trial> {
    let plain = setting.step();
    let mut step = plain.clone();
    setting.affine(&mut step);
    let step = seeded(setting, step);
    Some(Trial::of(vec![step, plain], |answers, finding| {
        let (asked, plain) = (answers.call(0), answers.call(1));
        let (seed, hat) = (asked.sent(SEED), plain.balls("output"));
        for name in ["weight", "bias"].into_iter().filter(|name| asked.step.tensors.contains_key(*name)) {
            let tensor = format!("grad_{name}");
            let mut expected = vec![exact(0.0); asked.step.tensors[name].len()];
            for (index, &g) in seed.iter().enumerate() {
                let term = if name == "weight" { exact(g) * hat[index] } else { exact(g) };
                let place = &mut expected[parameter(asked.step, index)];
                *place = *place + term;
            }
            for (index, (is, expected)) in asked.balls(&tensor).into_iter().zip(expected).enumerate() {
                finding.zero((0, 0), is - expected, || {
                    format!("element {index} of {tensor} is {:e}; expected {:e}", is.value.hi, expected.value.hi)
                });
            }
        }
    }))
}

fn gradient_weight(setting: &mut Setting) -> Option<Trial> {
    let plain = setting.step();
    let mut with = plain.clone();
    setting.affine(&mut with);
    let with = seeded(setting, with);
    let weights = with.tensors["weight"].to_f64().into_iter().collect::<Vec<f64>>();
    let mut plain = Step { gradients: true, ..plain };
    plain.tensors.insert(SEED.to_owned(), with.tensors[SEED].clone());
    let plain = changed(&plain, SEED, |index, g| g * weights[parameter(&with, index)]);
    Some(Trial::of(vec![with, plain], |answers, finding| {
        let (with, plain) = (answers.call(0), answers.call(1));
        let pairs = with.balls("grad_input").into_iter().zip(plain.balls("grad_input"));
        for (index, (one, other)) in pairs.enumerate() {
            finding.zero((0, 0), one - other, || {
                let (is, expected) = (one.value.hi, other.value.hi);
                format!("{} is {is:e}; with the weight in the gradient from above it is {expected:e}", at(with, index))
            });
        }
    }))
}

fn gradient_linear(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let (one, other) = (seeded(setting, step.clone()), seeded(setting, step));
    let mut both = one.clone();
    for name in one.tensors.keys().filter(|name| name.starts_with("grad_output.")) {
        let more = other.tensors[name].to_f64().into_iter().collect::<Vec<f64>>();
        both = changed(&both, name, |index, g| g + more[index]);
    }
    Some(Trial::of(vec![both, one, other], |answers, finding| {
        let [both, one, other] = [0, 1, 2].map(|call| answers.call(call).balls("grad_input"));
        for (index, &sum) in both.iter().enumerate() {
            let expected = one[index] + other[index];
            finding.zero((0, 0), sum - expected, || {
                let (is, expected) = (sum.value.hi, expected.value.hi);
                format!("{} is {is:e} for g + h, and {expected:e} for g and h together", at(answers.call(0), index))
            });
        }
    }))
}

fn gradient_scale(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let step = seeded(setting, step);
    let exponent = setting.values.pick(&[-4, -3, 3, 5]);
    let factor = power_of_two(exponent);
    let smallest = setting.dtype.format().map_or(0.0, |format| format.min_normal());
    let other = changed(&with_eps(&step, factor * factor)?, "input", |_, x| x * factor);
    Some(Trial::of(vec![step, other], move |answers, finding| {
        let (one, other) = (answers.call(0), answers.call(1));
        let pairs = one.balls("grad_input").into_iter().zip(other.balls("grad_input"));
        for (index, (was, is)) in pairs.enumerate() {
            let back = Truth { value: (is * exact(factor)).value, radius: is.radius * factor };
            let wrong = || {
                let (was, is) = (was.value.hi, is.value.hi);
                format!("{} is {was:e}, and {is:e} with the input times 2^{exponent}", at(one, index))
            };
            // Subnormal numbers have fewer digits.
            if is.value.hi.abs().min(was.value.hi.abs()) < smallest {
                finding.zero((1, 0), back - was, wrong);
            } else {
                finding.same((1, 0), back, was, wrong);
            }
        }
    }))
}

fn second_gradient_symmetric(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let mut step = seeded(setting, step);
    step.double_backward = true;
    let shape = step.tensors["input"].shape().to_vec();
    let mut other = step.clone();
    step.tensors.insert(DIRECTION.to_owned(), integers(setting, &shape));
    other.tensors.insert(DIRECTION.to_owned(), integers(setting, &shape));
    Some(Trial::of(vec![step, other], |answers, finding| {
        let (one, other) = (answers.call(0), answers.call(1));
        let along = |direction: &Asked<'_>, second: &Asked<'_>| {
            let directions = direction.sent(DIRECTION).into_iter();
            sum(directions.zip(second.balls("grad2_input")).map(|(d, second)| exact(d) * second))
        };
        let (left, right) = (along(other, one), along(one, other));
        finding.zero((0, 0), left - right, || {
            let (left, right) = (left.value.hi, right.value.hi);
            format!("the second derivative in two directions is {left:e} one way round and {right:e} the other")
        });
    }))
}
