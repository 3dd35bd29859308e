//! Backward passes, written by hand, against dual numbers through the forward definitions, and against the laws of the
//! sums.

use normative::Tensors;
use normative::arithmetic::{DataType, Dual, Plain, Real, Reference, Truth};
use normative::case::values::Values;
use normative::case::{Step, random};
use normative::judge::{Expected, TrueTensor};
use normative::operation::{Call, GradientRule, Operation, Rule, Source};
use rayon::prelude::*;

/// A random step that asks for gradients, small enough for a derivative along a direction to be cheap.
fn step(name: &str, seed: u64) -> Step {
    step_where(name, seed, |_| true)
}

fn step_where(name: &str, seed: u64, wanted: fn(&Step) -> bool) -> Step {
    let mut values = Values::named(&format!("gradients {name} {seed}"));
    loop {
        let step = random::step(&mut values, name, DataType::F64, 6);
        if step.gradients && wanted(&step) {
            return step;
        }
    }
}

/// Σ over the outputs of ⟨grad_output, d output/d x along a direction⟩, by dual numbers through the forward definition.
fn along(step: &Step, direction: &Tensors<Vec<f64>>) -> f64 {
    let plan = step.plan(&Rule::default()).expect("random steps are answered");
    let values = step.values(|x| x);
    let dual: Tensors<Vec<Dual<Truth>>> = values
        .iter()
        .map(|(name, x)| {
            let zeros = vec![0.0; x.len()];
            let rates = direction.get(name).unwrap_or(&zeros).iter();
            let pairs = x.iter().zip(rates).map(|(&x, &rate)| Dual::new(Truth::exact(x), Truth::exact(rate)));
            (name.clone(), pairs.collect())
        })
        .collect();
    let outputs = step.operation.forward(&Plain::<Dual<Truth>>::new(), &plan, &dual, &Rule::default());
    let mut sum = Truth::exact(0.0);
    for &output in step.operation.signature().outputs {
        let seed = &values[&format!("grad_output.{output}")];
        for (value, &seed) in outputs.tensors[output].values.iter().zip(seed) {
            sum = sum + value.derivative * Truth::exact(seed);
        }
    }
    sum.value.hi
}

fn gradients(step: &Step) -> Tensors<TrueTensor> {
    match Expected::of(step) {
        Expected::Tensors { tensors, .. } => tensors,
        Expected::Refused { refusal, .. } => panic!("{refusal}"),
    }
}

#[test]
fn backward_is_the_transpose_of_the_derivative() {
    assert_backward_is_the_transpose(8);
}

#[test]
#[ignore = "ten seconds; .ci/run has it"]
fn backward_is_the_transpose_of_the_derivative_for_more_steps() {
    assert_backward_is_the_transpose(40);
}

/// For as many random steps of each operation.
fn assert_backward_is_the_transpose(steps: u64) {
    let jobs: Vec<(&str, u64)> =
        Operation::NAMES.iter().flat_map(|&name| (0..steps).map(move |seed| (name, seed))).collect();
    jobs.par_iter().for_each(|&(name, seed)| {
        let step = step(name, seed);
        let truths = gradients(&step);
        let mut values = Values::new(seed);
        // One direction through every differentiable tensor at once.
        let mut direction = Tensors::new();
        let (mut by_hand, mut size) = (0.0, 0.0);
        for &tensor in step.operation.signature().differentiable {
            let Some(gradient) = truths.get(&format!("grad_{tensor}")) else { continue };
            let rates = values.normals(gradient.values.len(), 0.25, 1.0);
            for (truth, rate) in gradient.values.iter().zip(&rates) {
                by_hand += truth.value.hi * rate;
                size += (truth.value.hi * rate).abs();
            }
            direction.insert(tensor.to_owned(), rates);
        }
        let by_dual = along(&step, &direction);
        // Both are double-double; the sum here is not. Large means cancel in the plain forward pass.
        let error = (by_hand - by_dual).abs();
        assert!(error <= 1e-9 * size + 1e-12, "{:?}: {by_hand} {by_dual}, {error:e} of {size:e}", step.operation);
    });
}

#[test]
fn the_sums_of_an_input_gradient_are_known() {
    for name in ["batch_norm", "layer_norm", "group_norm", "instance_norm", "sync_batch_norm"] {
        for seed in 0..40 {
            let step = step(name, seed);
            let plan = step.plan(&Rule::default()).expect("random steps are answered");
            if plan.source == Source::Stored {
                continue;
            }
            // Σ dx = 0 over each group: a shift of a group changes nothing.
            let truths = gradients(&step);
            for group in 0..plan.partition.groups() {
                let terms = plan.partition.positions(group).into_iter().map(|p| truths["grad_input"].values[p]);
                let size: f64 = terms.clone().map(|truth| truth.value.hi.abs()).sum();
                let sum = Truth::sum(terms);
                assert!(sum.value.hi.abs() <= sum.radius + 1e-20 * size, "{:?}: {sum:?} of {size:e}", step.operation);
            }
        }
    }
}

/// d²L/dε dδ for the inputs x + δ·grad_grad + ε·direction and the seeds grad_output + ε·direction: the derivative of
/// S along the direction, by second-order dual numbers through the forward definition alone.
fn twice_along(step: &Step, direction: &Tensors<Vec<f64>>) -> f64 {
    type Second = Dual<Dual<Truth>>;
    let plan = step.plan(&Rule::default()).expect("random steps are answered");
    let values = step.values(|x| x);
    let moving = |name: &str, x: &[f64]| -> Vec<Second> {
        let zeros = vec![0.0; x.len()];
        let first = values.get(&format!("grad_grad.{name}")).unwrap_or(&zeros);
        let second = direction.get(name).unwrap_or(&zeros);
        let exact = Truth::exact;
        let number = |((&x, &first), &second): ((&f64, &f64), &f64)| {
            Dual::new(Dual::new(exact(x), exact(first)), Dual::new(exact(second), exact(0.0)))
        };
        x.iter().zip(first).zip(second).map(number).collect()
    };
    let numbers: Tensors<Vec<Second>> = values.iter().map(|(name, x)| (name.clone(), moving(name, x))).collect();
    let outputs = step.operation.forward(&Plain::<Second>::new(), &plan, &numbers, &Rule::default());
    let mut sum = Second::constant(0.0);
    for &output in step.operation.signature().outputs {
        let seed = &numbers[&format!("grad_output.{output}")];
        for (&value, &seed) in outputs.tensors[output].values.iter().zip(seed) {
            sum = sum + value * seed;
        }
    }
    sum.derivative.derivative.value.hi
}

#[test]
fn double_backward_is_the_derivative_of_the_gradient() {
    assert_double_backward_is_the_derivative(4);
}

#[test]
#[ignore = "ten seconds; .ci/run has it"]
fn double_backward_is_the_derivative_of_the_gradient_for_more_steps() {
    assert_double_backward_is_the_derivative(20);
}

/// For as many random steps of each operation.
fn assert_double_backward_is_the_derivative(steps: u64) {
    let jobs: Vec<(&str, u64)> =
        Operation::NAMES.iter().flat_map(|&name| (0..steps).map(move |seed| (name, seed))).collect();
    jobs.par_iter().for_each(|&(name, seed)| {
        let step = step_where(name, seed, |step| step.double_backward);
        let truths = gradients(&step);
        let mut values = Values::new(seed);
        let mut direction = Tensors::new();
        let (mut by_dual, mut size) = (0.0, 0.0);
        let signature = step.operation.signature();
        let seeds = signature.outputs.iter().map(|output| (*output, format!("grad_output.{output}")));
        let moved = signature.differentiable.iter().map(|tensor| (*tensor, (*tensor).to_owned()));
        for (tensor, moving) in moved.chain(seeds) {
            let Some(second) = truths.get(&format!("grad2_{tensor}")) else { continue };
            let rates = values.normals(second.values.len(), 0.25, 1.0);
            for (truth, rate) in second.values.iter().zip(&rates) {
                by_dual += truth.value.hi * rate;
                size += (truth.value.hi * rate).abs();
            }
            direction.insert(moving, rates);
        }
        assert!(direction.len() >= 2, "{name}: an input and an output at least");
        let by_forward = twice_along(&step, &direction);
        let error = (by_dual - by_forward).abs();
        assert!(error <= 1e-9 * size + 1e-12, "{:?}: {by_dual} {by_forward}, {error:e} of {size:e}", step.operation);
    });
}

/// The transposes are compared at all: a gradient without the mean's part is not one.
#[test]
fn a_planted_gradient_is_noticed() {
    let step = step("layer_norm", 1);
    let descriptions = step.descriptions();
    let call = Call { mode: step.mode, tensors: &descriptions, num_batches_tracked: None };
    let plan = step.operation.plan(&call, &Rule::default()).expect("random steps are answered");
    let rule = Rule { gradient: GradientRule::WithoutMean, ..Rule::default() };
    let values = step.values(|x| x);
    let wrong = step.operation.backward(&Reference, &plan, &values, &descriptions, &rule);
    let right = gradients(&step);
    let differs = wrong["grad_input"].values.iter().zip(&right["grad_input"].values);
    assert!(differs.map(|(a, b)| (a.value() - b.value.hi).abs()).fold(0.0, f64::max) > 1e-3);
}
