//! The truth of every step of the catalogue, against the exact oracle: value, radius and rounding.

use normative::arithmetic::DataType;
use normative::arithmetic::format::power_of_two;
use normative::case::values::Values;
use normative::case::{Answer, Step, catalogue};
use normative::judge::exact::ExactAnswers;
use normative::judge::{Expected, TrueTensor};
use normative::operation::{BatchNorm, BatchNormDialect, Dialect, GroupNorm, LayerNorm, Mode, Operation, RmsNorm};
use normative::subject::{Builtin, Subject};
use normative::{Tensor, Tensors};
use rayon::prelude::*;

/// Compares each element that is a finite real number, and returns how many there are.
fn compare(name: &str, tensor: &TrueTensor, oracle: &mut ExactAnswers<'_>) -> usize {
    let format = tensor.dtype.format().expect("outputs are floating-point");
    let mut compared = 0;
    // All of a tensor, or a sample of a large one.
    let step = tensor.values.len() / 50_000 + 1;
    for (index, (truth, &rounded)) in tensor.values.iter().zip(&tensor.rounded).enumerate().step_by(step) {
        let Some(exact) = oracle.element(name, index) else { continue };
        assert_eq!(rounded, exact.round(format), "{name}[{index}]");
        let (value, radius) = exact.double_double();
        if truth.is_finite() && radius.is_finite() {
            let error = (value - truth.value).abs().hi;
            assert!(error <= truth.radius + radius, "{name}[{index}]: {error:e} > {:e}", truth.radius);
        }
        compared += 1;
    }
    compared
}

#[test]
fn the_reference_is_correctly_rounded_over_the_catalogue() {
    let compared: usize = catalogue::cases()
        .par_iter()
        .map(|case| {
            let mut reference = Builtin::new("reference").expect("the reference is compiled in");
            let mut previous = None;
            let mut compared = 0;
            for step in 0..case.steps.len() {
                let request = case.request(step, previous.as_ref().map(|(asked, answer)| (asked, answer)));
                if let Expected::Tensors { tensors, plan, .. } = Expected::of(&request.call) {
                    let values = request.call.values(|x| x);
                    let mut oracle = ExactAnswers::new(&plan, &values);
                    compared += tensors.iter().map(|(name, tensor)| compare(name, tensor, &mut oracle)).sum::<usize>();
                }
                let answer: Answer = reference.answer(&request).expect("the reference answers");
                previous = Some((request, answer));
            }
            compared
        })
        .sum();
    assert!(compared > 100_000, "{compared}");
}

/// A batch that is one chunk is batch norm's to the oracle, its unbiased running variance too.
#[test]
fn a_single_chunk_is_correctly_rounded() {
    let case = catalogue::cases().iter().find(|case| case.name == "ghost_batch_norm-f64-plain").expect("a case");
    let mut step = case.steps[0].clone();
    let samples = step.tensors["input"].shape()[0];
    let Operation::GhostBatchNorm(norm) = &mut step.operation else { panic!("another operation") };
    norm.batch_size = samples;
    let Expected::Tensors { tensors, plan, .. } = Expected::of(&step) else { panic!("it is answered") };
    let values = step.values(|x| x);
    let mut oracle = ExactAnswers::new(&plan, &values);
    let compared = tensors.iter().map(|(name, tensor)| compare(name, tensor, &mut oracle)).sum::<usize>();
    let elements: usize = tensors.values().map(|tensor| tensor.values.len()).sum();
    assert_eq!(compared, elements);
}

/// The rows that break lesser references, each with the data types that hold it.
fn hard_rows() -> Vec<(&'static str, Vec<f64>, &'static [DataType])> {
    use DataType::{BF16, F16, F32, F64};
    let mut values = Values::named("hard rows");
    let mut scaled = |count, scale: f64| values.normals(count, 0.25, 1.0).into_iter().map(|x| x * scale).collect();
    let two = power_of_two;
    let scales = vec![two(120), two(60), 1.0 / 3.0, -two(120), -two(60), 0.0, 0.0];
    let mut rows: Vec<(_, Vec<f64>, &[DataType])> = vec![
        ("one value", scaled(1, 1.0), &DataType::FLOATS),
        ("two values", scaled(2, 1.0), &DataType::FLOATS),
        ("three values", scaled(3, 1.0), &DataType::FLOATS),
        ("1e30", scaled(16, 1e30), &[F64, F32, BF16]),
        ("1e200", scaled(16, 1e200), &[F64]),
        ("1e-200", scaled(16, 1e-200), &[F64]),
        ("1e-38", scaled(16, 1e-38), &[F64, F32, BF16]),
        ("subnormal", scaled(16, 1e-322), &[F64]),
        ("f16's end", scaled(16, 1e4), &[F16]),
        ("three scales", scales, &[F64, F32, BF16]),
        ("mean of 1e15 deviations", (0..37).map(|i| 1e15 + f64::from(i * i % 5)).collect(), &[F64]),
        ("one ulp", vec![16_777_215.0, 16_777_214.0, 16_777_214.0], &[F64, F32]),
        ("constant", vec![1.0 / 3.0; 64], &DataType::FLOATS),
    ];
    rows.push(("a million", scaled(1_000_000, 1.0).into_iter().map(|x: f64| x + 1e3).collect(), &[F64, F32]));
    rows
}

/// One group as each operation's input, with a weight and a bias of which the bias cancels some outputs nearly.
fn steps(row: &[f64], dtype: DataType, eps: f64) -> Vec<Step> {
    let dialect = Dialect::Pytorch;
    let count = row.len();
    let layer = Operation::LayerNorm(LayerNorm { normalized_shape: vec![count], eps, dialect });
    let rms = Operation::RmsNorm(RmsNorm { normalized_shape: vec![count], eps: Some(eps), dialect });
    let group = Operation::GroupNorm(GroupNorm { num_groups: 1, eps, dialect });
    let batch = Operation::BatchNorm(BatchNorm {
        spatial_dims: Some(1),
        eps,
        momentum: Some(0.1),
        dialect: BatchNormDialect::Pytorch,
    });
    let cumulative = Operation::BatchNorm(BatchNorm {
        spatial_dims: Some(1),
        eps,
        momentum: None,
        dialect: BatchNormDialect::Pytorch,
    });
    let cases = [
        (layer, vec![1, count], count),
        (rms, vec![1, count], count),
        (group, vec![1, 1, count], 1),
        (batch, vec![1, 1, count], 1),
        (cumulative, vec![count, 1], 1),
    ];
    let steps = cases.into_iter().map(|(operation, shape, parameters)| {
        let mut values = Values::new(count as u64);
        let tensor = |shape: &[usize], values: Vec<f64>| Tensor::rounded(dtype, shape, values);
        let mut tensors = Tensors::from([("input".to_owned(), tensor(&shape, row.to_vec()))]);
        tensors.insert("weight".into(), tensor(&[parameters], values.weights(parameters)));
        if operation.name() != "rms_norm" {
            tensors.insert("bias".into(), tensor(&[parameters], values.biases(parameters)));
        }
        let mut step = Step::forward(operation, tensors);
        if step.operation.name() == "batch_norm" {
            step.mode = Mode::Train;
            step.tensors.insert("running_mean".into(), tensor(&[1], vec![0.3]));
            step.tensors.insert("running_var".into(), tensor(&[1], vec![0.7]));
            step.tensors.insert("num_batches_tracked".into(), Tensor::counter(6));
        }
        if count <= 1000 { step.with_gradients(&mut values) } else { step }
    });
    steps.collect()
}

/// Two values come out as ±1, whatever they are: with eps = 0 nothing changes with them, to the last bit.
#[test]
fn the_gradient_of_two_values_is_zero() {
    let mut answered = 0;
    for dtype in DataType::FLOATS {
        for step in steps(&[0.3, -1.7], dtype, 0.0) {
            // Batch norm refuses an eps of 0 in training.
            let Expected::Tensors { tensors, .. } = Expected::of(&step) else { continue };
            answered += 1;
            let zero = tensors["grad_input"].rounded.iter().all(|&gradient| gradient == 0.0);
            let centred = step.operation.name() != "rms_norm";
            assert_eq!(zero, centred, "{:?}: {:?}", step.operation, tensors["grad_input"].rounded);
        }
    }
    assert_eq!(answered, 3 * DataType::FLOATS.len());
}

#[test]
fn hard_rows_are_correctly_rounded() {
    let mut jobs = Vec::new();
    for (name, row, dtypes) in hard_rows() {
        for &dtype in dtypes {
            for &eps in if row.len() > 1000 { &[1e-5][..] } else { &[1e-5, 1e-300, 1e10] } {
                jobs.extend(steps(&row, dtype, eps).into_iter().map(|step| (name, step)));
            }
        }
    }
    jobs.par_iter().for_each(|(name, step)| {
        let Expected::Tensors { tensors, plan, .. } = Expected::of(step) else { return assert_eq!(*name, "one value") };
        let values = step.values(|x| x);
        let mut oracle = ExactAnswers::new(&plan, &values);
        for (output, tensor) in &tensors {
            let compared = compare(output, tensor, &mut oracle);
            assert_eq!(
                compared,
                tensor.values.len().div_ceil(tensor.values.len() / 50_000 + 1),
                "{name}: {output} of {:?}",
                step.operation
            );
        }
    });
}
