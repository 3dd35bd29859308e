//! The evaluation against the truth in every layout, and its bits on every level and number of threads.

use fearless_simd::Level;
use rayon::ThreadPoolBuilder;

use crate::arithmetic::{DataType, DoubleDouble, Truth};
use crate::case::values::Values;
use crate::case::{Step, catalogue};
use crate::evaluate;
use crate::judge::Expected;
use crate::operation::{Dialect, Mode, Operation, Plan};
use crate::tensor::{Tensor, Tensors};

/// Levels that this machine has.
fn levels() -> Vec<Level> {
    let best = Level::new();
    let mut levels = vec![best, Level::baseline()];
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        levels.extend(best.as_sse4_2().map(Level::Sse4_2));
        levels.extend(best.as_avx2().map(Level::Avx2));
    }
    levels
}

/// An operation, a mode, the shape of its input, the number of its parameters.
const CALLS: [(&str, Mode, &[usize], &[usize]); 14] = [
    (r#"{"name": "layer_norm", "normalized_shape": [100], "eps": 1e-5}"#, Mode::Eval, &[131, 100], &[100]),
    (r#"{"name": "layer_norm", "normalized_shape": [3, 7], "eps": 1e-5}"#, Mode::Eval, &[5, 3, 7], &[3, 7]),
    (r#"{"name": "layer_norm", "normalized_shape": [9001], "eps": 1e-5}"#, Mode::Eval, &[2, 9001], &[9001]),
    (r#"{"name": "rms_norm", "normalized_shape": [1027], "eps": 1e-5}"#, Mode::Eval, &[3, 1027], &[1027]),
    (r#"{"name": "rms_norm", "normalized_shape": [5], "eps": 1e-5}"#, Mode::Eval, &[70, 5], &[5]),
    (r#"{"name": "group_norm", "num_groups": 3, "eps": 1e-5}"#, Mode::Eval, &[4, 6, 9, 9], &[6]),
    (r#"{"name": "group_norm", "num_groups": 2, "eps": 1e-5}"#, Mode::Eval, &[3, 8, 5], &[8]),
    (r#"{"name": "group_norm", "num_groups": 2, "eps": 1e-5}"#, Mode::Eval, &[70, 8], &[8]),
    (
        r#"{"name": "instance_norm", "spatial_dims": 2, "eps": 1e-5, "momentum": 0.1}"#,
        Mode::Train,
        &[3, 5, 7, 11],
        &[5],
    ),
    (r#"{"name": "instance_norm", "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}"#, Mode::Eval, &[3, 5, 7], &[5]),
    (r#"{"name": "batch_norm", "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}"#, Mode::Train, &[50, 37], &[37]),
    (r#"{"name": "batch_norm", "spatial_dims": 2, "eps": 1e-5, "momentum": 0.1}"#, Mode::Train, &[9, 3, 9, 9], &[3]),
    (r#"{"name": "batch_norm", "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}"#, Mode::Train, &[9, 3, 21], &[3]),
    (r#"{"name": "batch_norm", "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}"#, Mode::Eval, &[6, 5, 100], &[5]),
];

/// A step with gradients, around a mean of so many deviations.
fn step(call: usize, mean: f64, parameters: bool) -> Step {
    let (operation, mode, shape, parameter_shape) = CALLS[call];
    let operation: Operation = serde_json::from_str(operation).unwrap();
    let mut values = Values::new(call as u64);
    let mut tensor = |shape: &[usize], mean: f64| {
        let count = shape.iter().product();
        Tensor::rounded(DataType::F64, shape, values.normals(count, mean, 1.0))
    };
    let mut tensors = Tensors::from([("input".to_owned(), tensor(shape, mean))]);
    tensors.insert("grad_output.output".into(), tensor(shape, 0.5));
    if parameters {
        tensors.insert("weight".into(), tensor(parameter_shape, 1.0));
        if operation.name() != "rms_norm" {
            tensors.insert("bias".into(), tensor(parameter_shape, 0.0));
        }
    }
    if operation.signature().state.contains(&"running_mean") {
        tensors.insert("running_mean".into(), tensor(parameter_shape, mean));
        tensors.insert("running_var".into(), tensor(parameter_shape, 50.0));
    }
    Step { mode, gradients: true, tensors, ..Step::forward(operation, Tensors::new()) }
}

fn evaluated(level: Level, plan: &Plan, tensors: &Tensors<Vec<f64>>, gradients: bool) -> Tensors<Vec<f64>> {
    let views = tensors.iter().map(|(name, values)| (name.clone(), values.as_slice())).collect();
    let outputs = evaluate::forward::forward(level, plan, &views).tensors;
    let mut all: Tensors<Vec<f64>> = outputs.into_iter().map(|(name, output)| (name, output.values)).collect();
    if gradients {
        all.extend(evaluate::backward::backward(level, plan, &views));
    }
    all
}

/// Half a unit in the last place of the truth and 2⁻⁷² of `size`, what there was before cancellation.
fn assert_near(name: &str, value: f64, truth: &Truth, size: f64) {
    let nearest = truth.value.hi;
    if !nearest.is_finite() || !truth.radius.is_finite() {
        assert!(value == nearest || value.is_nan() && nearest.is_nan() || !truth.radius.is_finite(), "{name}: {value}");
        return;
    }
    let unit = nearest.abs().next_up() - nearest.abs();
    let error = (DoubleDouble::from(value) - truth.value).abs().hi;
    let bound = 0.5 * unit + 2f64.powi(-72) * size + truth.radius + 4.0 * f64::from_bits(1);
    assert!(error <= bound, "{name}: {value:e} for {nearest:e}, error {error:e} > {bound:e}");
}

fn largest(values: Option<&Vec<f64>>) -> f64 {
    values.map_or(1.0, |values| values.iter().fold(1.0, |largest: f64, x| largest.max(x.abs())))
}

/// Compares each element with the truth; ∞ is an extent that no result leaves.
fn compare(step: &Step) {
    let Expected::Tensors { tensors: mut truths, plan, .. } = Expected::of(step) else { return };
    // Second derivatives are the reference's alone.
    truths.retain(|name, _| !name.starts_with("grad2_"));
    let values = step.values(|x| x);
    let outputs = evaluated(Level::new(), &plan, &values, step.gradients);
    let (weight, bias) = (largest(values.get("weight")), largest(values.get("bias")));
    let normalized = largest(outputs.get("output")) * weight + bias;
    let seed = largest(values.get("grad_output.output"));
    assert_eq!(outputs.keys().collect::<Vec<_>>(), truths.keys().collect::<Vec<_>>());
    for (name, output) in &outputs {
        let truth = &truths[name].values;
        assert_eq!(output.len(), truth.len(), "{name} of {:?}", step.operation);
        let sizes = largest(Some(output))
            + match name.as_str() {
                "output" => normalized,
                // Of one value everything cancels: what there was is (|a| + mean|a|)/σ, σ = √eps.
                "grad_input" if plan.partition.group_size() == 1 && plan.centred => {
                    2.0 * seed * weight / plan.eps.sqrt()
                }
                "grad_input" => 0.0,
                "grad_weight" | "grad_bias" => seed * normalized * values["input"].len() as f64,
                _ => 0.0,
            };
        for (value, truth) in output.iter().zip(truth) {
            assert_near(&format!("{name} of {:?}", step.operation), *value, truth, sizes);
        }
    }
}

#[test]
fn every_layout_is_near_the_truth() {
    for call in 0..CALLS.len() {
        for mean in [0.0, 3.0, 1e6, 1e13] {
            compare(&step(call, mean, true));
            compare(&step(call, mean, false));
        }
    }
}

#[test]
fn the_catalogue_is_near_the_truth() {
    let family = ["batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm"];
    let mut compared = 0;
    let casts = |step: &Step| matches!(&step.operation, Operation::RmsNorm(norm) if norm.dialect != Dialect::Pytorch);
    for step in catalogue::cases().iter().flat_map(|case| &case.steps).filter(|step| !casts(step)) {
        if family.contains(&step.operation.name()) && step.tensors["input"].dtype() == DataType::F64 {
            compare(step);
            compared += 1;
        }
    }
    assert!(compared > 500, "{compared}");
}

/// A usual group keeps to the vectors: what it gives is rounded as the truth is, but where that is nearly a tie.
#[test]
fn results_are_correctly_rounded_but_for_a_few() {
    let (mut equal, mut all) = (0, 0);
    for call in 0..CALLS.len() {
        let step = step(call, 3.0, true);
        let Expected::Tensors { tensors: truths, plan, .. } = Expected::of(&step) else { panic!("refused") };
        let outputs = evaluated(Level::new(), &plan, &step.values(|x| x), true);
        for (name, output) in &outputs {
            all += output.len();
            equal += output.iter().zip(&truths[name].rounded).filter(|(value, truth)| value == truth).count();
        }
    }
    assert!(all - equal <= all / 10_000, "{} of {all}", all - equal);
}

#[test]
fn bits_do_not_depend_on_vectors_or_threads() {
    for call in 0..CALLS.len() {
        for mean in [0.25, 1e13] {
            let step = step(call, mean, true);
            let Expected::Tensors { plan, .. } = Expected::of(&step) else { panic!("refused") };
            let values = step.values(|x| x);
            let bits = |level| {
                let outputs = evaluated(level, &plan, &values, true);
                outputs.into_values().flatten().map(f64::to_bits).collect::<Vec<_>>()
            };
            let expected = bits(Level::new());
            for level in levels() {
                for threads in [1, 2, 3] {
                    let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    assert!(pool.install(|| bits(level)) == expected, "{call}, {level:?}, {threads} threads");
                }
            }
        }
    }
}
