//! What the error analysis takes for granted. A case outside it is advisory: careful implementations may differ.

use super::{Case, Step};
use crate::arithmetic::{DataType, Format};
use crate::operation::{Mode, Operation};

/// Why a case cannot be required; `None` where it can.
///
/// Squares do not overflow in the accumulating type, eps is a normal number of it, the inputs are finite and normal (or 0)
/// and their mean is too, momentum lies in [0, 1] and no tensor is empty. NaN and infinities are allowed where the operation
/// must carry them on: which of them appears is advisory element by element. The products of a power iteration do not
/// overflow. Logits lie so near that no weight underflows. No stored variance is negative. No vector that is differentiated is
/// as long as its lower limit.
pub fn violated(case: &Case) -> Option<String> {
    case.steps.iter().enumerate().find_map(|(number, step)| {
        let input = step.tensors["input"].dtype();
        let accumulator = input.accumulator().format().expect("accumulators are floating-point");
        let why = violated_by(step, accumulator)?;
        Some(format!("step {number}: {why}"))
    })
}

fn violated_by(step: &Step, accumulator: Format) -> Option<String> {
    let json = serde_json::to_value(&step.operation).ok()?;
    let number = |key: &str| json.get(key).and_then(serde_json::Value::as_f64);
    if let Some(eps) = number("eps") {
        // In evaluation with stored statistics a variance of its own keeps the root away from 0.
        let stored = step.mode == Mode::Eval && step.tensors.contains_key("running_var");
        if eps < accumulator.min_normal() && !(stored && eps >= 0.0) {
            return Some(format!("eps = {eps:e} is no normal number of the accumulating type"));
        }
    } else if json.get("eps").is_some_and(serde_json::Value::is_string) {
        return Some("eps is not finite".into());
    }
    if json.get("momentum").is_some_and(|m| m.is_string() || m.as_f64().is_some_and(|m| !(0.0..=1.0).contains(&m))) {
        return Some("momentum lies outside [0, 1]".into());
    }
    if step.tensors.get("mask").is_some_and(|mask| mask.to_f64().iter().all(|&kept| kept == 0.0)) {
        return Some("the mask keeps nothing: there is no mean".into());
    }
    if let Some((name, _)) = step.tensors.iter().find(|(_, tensor)| tensor.is_empty()) {
        return Some(format!("{name} is empty"));
    }
    // A weight e^(a − max a), and its product with a gradient as small, is a normal number.
    let furthest = -accumulator.min_normal().ln() / 2.0;
    for (name, tensor) in step.tensors.iter().filter(|(name, _)| name.ends_with("_logits")) {
        let logits = tensor.to_f64();
        let (least, most) = logits.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
        if most - least > furthest {
            return Some(format!("{name} lie {} apart: a weight may be a subnormal", most - least));
        }
    }
    for name in ["running_var", "running_std"] {
        let least = step.tensors.get(name).and_then(|tensor| tensor.to_f64().into_iter().reduce(f64::min));
        if let Some(least) = least.filter(|&least| least < 0.0) {
            return Some(format!("{name} holds {least:e}: no variance is negative"));
        }
    }
    // A difference can be twice as large as the largest value, and n squares are summed.
    let count = step.tensors["input"].len() as f64;
    let largest = (accumulator.max_finite() / (4.0 * count)).sqrt();
    for (name, tensor) in &step.tensors {
        if tensor.dtype() == DataType::I64 {
            continue;
        }
        let format = tensor.dtype().format().expect("not a counter");
        for &x in tensor.to_f64().iter().filter(|x| x.is_finite() && **x != 0.0) {
            if x.abs() > largest {
                return Some(format!("{name} holds {x:e}, whose square overflows"));
            }
            if x.abs() < format.min_normal() {
                return Some(format!("{name} holds {x:e}, a subnormal"));
            }
            // Where nothing cancels, the mean of n values is at least an n-th of the smallest.
            if name == "input" && x.abs() < count * accumulator.min_normal() {
                return Some(format!("{name} holds {x:e}: the mean may be a subnormal"));
            }
        }
    }
    spectral_product(step, largest).or_else(|| tie(step, accumulator))
}

/// max(‖x‖, eps) has no derivative where both are the same: a program may take either's.
fn tie(step: &Step, accumulator: Format) -> Option<String> {
    let (p, eps) = match &step.operation {
        Operation::Normalize(norm) => (norm.p, norm.eps),
        Operation::ScaleNorm(norm) => (2.0, norm.eps),
        _ => return None,
    };
    let plan = step.plan(&step.operation.rule()).ok().filter(|_| step.gradients || step.double_backward)?;
    let input: Vec<f64> = step.tensors["input"].to_f64().into_iter().map(f64::abs).collect();
    (0..plan.partition.groups()).find_map(|group| {
        let positions = plan.partition.positions(group);
        let x = positions.iter().map(|&position| input[position]);
        let length =
            if p.is_infinite() { x.fold(0.0, f64::max) } else { x.map(|x| x.powf(p)).sum::<f64>().powf(1.0 / p) };
        // Each term is rounded, then their sum and its root.
        let near = (positions.len() as f64 + 4.0) * accumulator.unit_roundoff() * eps;
        ((length - eps).abs() <= near).then(|| format!("a vector of length {length:e} is as long as eps"))
    })
}

/// The power iteration squares products of the weight and of the vectors that are sent, which need not be unit vectors.
fn spectral_product(step: &Step, largest: f64) -> Option<String> {
    if !matches!(step.operation, Operation::SpectralNorm(_)) {
        return None;
    }
    let most = |name: &str| {
        let values = step.tensors.get(name).map(|tensor| tensor.to_f64());
        values.map_or(0.0, |values| values.iter().fold(0.0, |most: f64, x| most.max(x.abs())))
    };
    let (weight, vector) = (most("input"), most("u").max(most("v")));
    let product = weight * vector * step.tensors["input"].len() as f64;
    (product > largest).then(|| format!("the square of input times u, {product:e}, overflows"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Tensor, Tensors};

    /// Each number's square is far from overflowing, that of their product is not.
    #[test]
    fn vectors_that_are_no_unit_vectors_may_overflow_with_the_weight() {
        let violated = |u: f64| {
            let operation =
                serde_json::json!({"name": "spectral_norm", "dim": 0, "n_power_iterations": 1, "eps": 1e-12});
            let tensor =
                |shape: &[usize], x: f64| Tensor::rounded(DataType::BF16, shape, vec![x; shape.iter().product()]);
            let tensors = Tensors::from([
                ("input".to_owned(), tensor(&[1, 3], -3e16)),
                ("u".to_owned(), tensor(&[1], u)),
                ("v".to_owned(), tensor(&[3], 0.5)),
            ]);
            let step = Step::forward(serde_json::from_value(operation).expect("an operation"), tensors);
            violated_by(&step, Format::F32)
        };
        assert_eq!(violated(1.0), None);
        assert!(violated(-3e16).is_some_and(|why| why.contains("overflows")), "{:?}", violated(-3e16));
    }

    /// The root of a negative number is NaN, but the gradient of what it does not reach may be one or 0.
    #[test]
    fn a_stored_variance_is_not_negative() {
        let violated = |running_var: f64| {
            let operation = serde_json::json!({"name": "batch_norm", "eps": 1e-5, "momentum": 0.1});
            let tensor = |shape: &[usize], x: f64| Tensor::rounded(DataType::F32, shape, vec![x]);
            let tensors = [("input", tensor(&[1, 1], 0.5)), ("running_mean", tensor(&[1], 0.0))];
            let mut tensors: Tensors = tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
            tensors.insert("running_var".to_owned(), tensor(&[1], running_var));
            let step = Step::forward(serde_json::from_value(operation).expect("an operation"), tensors);
            violated_by(&Step { mode: Mode::Eval, ..step }, Format::F32)
        };
        assert_eq!(violated(0.5), None);
        assert!(violated(-0.5).is_some_and(|why| why.contains("no variance is negative")));
    }

    #[test]
    fn a_vector_as_long_as_eps_has_no_derivative() {
        let violated = |x: [f64; 2], gradients: bool| {
            let operation = serde_json::json!({"name": "normalize", "p": 2.0, "dim": 1, "eps": 5.0});
            let tensor = |x: [f64; 2]| Tensor::rounded(DataType::F32, &[1, 2], x.to_vec());
            let tensors =
                [("input", x), ("grad_output.output", [1.0, 0.5])].map(|(name, x)| (name.to_owned(), tensor(x)));
            let step = Step::forward(serde_json::from_value(operation).expect("an operation"), Tensors::from(tensors));
            violated_by(&Step { gradients, ..step }, Format::F32)
        };
        assert!(violated([3.0, -4.0], true).is_some_and(|why| why.contains("as long as eps")));
        assert_eq!(violated([3.0, -4.0], false), None);
        assert_eq!(violated([3.0, -4.001], true), None);
    }
}
