//! The dialects of batch norm: each against its formula written out, and correct programs within their bounds.

use normative::arithmetic::DataType;
use normative::case::values::Values;
use normative::case::{Case, Declared, Step, catalogue, random};
use normative::judge::{Expected, Outcome, judge};
use normative::operation::{BatchNormDialect, Conventions, Mode, MomentumSense, Operation};
use normative::subject::answer_by;
use normative::subject::planted::variants;
use normative::{Tensor, Tensors};
use rayon::prelude::*;

/// What a dialect makes of a forward call of (N, C, L), by the book in plain loops: a second way, from the sources that the
/// table of dialects names. Channels are answered one by one.
fn by_the_book(step: &Step, conventions: &Conventions) -> Tensors<Vec<f64>> {
    let Operation::BatchNorm(norm) = &step.operation else { panic!("batch norm") };
    let single = matches!(conventions.name, "onnx" | "paddle" | "tensorflow" | "caffe");
    let held = |value: f64| if single { f64::from(value as f32) } else { value };
    let momentum = held(norm.momentum.expect("a dialect has a momentum"));
    let input = &step.tensors["input"];
    let (samples, channels) = (input.shape()[0], input.shape()[1]);
    let length: usize = input.shape()[2..].iter().product();
    let vector = |name: &str| step.tensors.get(name).map(|tensor| tensor.to_f64().into_iter().collect::<Vec<f64>>());
    let batches = step.num_batches_tracked().unwrap_or(0) as i32;
    let decay = if conventions.momentum == MomentumSense::OfOld { momentum } else { 1.0 - momentum };
    let mut answer: Tensors<Vec<f64>> = step
        .tensors
        .keys()
        .filter(|name| conventions.state.contains(&name.as_str()) && *name != "num_batches_tracked")
        .map(|name| (name.clone(), vector(name).unwrap()))
        .collect();
    let mut output = vec![0.0; input.len()];
    let count = (samples * length) as f64;
    let scale_factor = vector("scale_factor").map_or(1.0, |values| values[0]);
    for c in 0..channels {
        let places: Vec<usize> =
            (0..samples).flat_map(|n| (0..length).map(move |l| (n * channels + c) * length + l)).collect();
        let x: Vec<f64> = places.iter().map(|&place| input.get(place)).collect();
        let mean = x.iter().sum::<f64>() / count;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let (mut r_mean, mut r_var) = (answer["running_mean"][c], answer["running_var"][c]);
        let (centre, spread) = if step.mode == Mode::Train {
            let bessel = match conventions.name {
                "pytorch" | "cudnn" | "candle" | "mlx" => count / (count - 1.0),
                "tensorflow" | "caffe" => count / (count - 1.0).max(1.0),
                _ => 1.0,
            };
            let new = [mean, variance * bessel];
            let mix = |old: f64, new: f64| decay * old + (1.0 - decay) * new;
            match conventions.name {
                "haiku" => {
                    for (name, running, new) in
                        [("hidden_mean", &mut r_mean, new[0]), ("hidden_var", &mut r_var, new[1])]
                    {
                        let hidden = mix(answer[name][c], new);
                        answer.get_mut(name).unwrap()[c] = hidden;
                        *running = hidden / (1.0 - decay.powi(batches + 1));
                    }
                }
                "caffe" => (r_mean, r_var) = (decay * r_mean + new[0], decay * r_var + new[1]),
                "equinox_ema" if batches == 0 => (r_mean, r_var) = (new[0], new[1]),
                _ => (r_mean, r_var) = (mix(r_mean, new[0]), mix(r_var, new[1])),
            }
            if conventions.name == "equinox_ema" { (r_mean, r_var) } else { (mean, variance) }
        } else {
            let divisor = match conventions.name {
                "caffe" if scale_factor == 0.0 => f64::INFINITY,
                "caffe" => scale_factor,
                "equinox_batch" if batches > 0 => 1.0 - decay.powi(batches),
                _ => 1.0,
            };
            (r_mean / divisor, r_var / divisor)
        };
        let passed_on = conventions.name == "paddle" && step.mode == Mode::Train && count == 1.0;
        for (&place, x) in places.iter().zip(x) {
            let affine = |name: &str, default: f64| vector(name).map_or(default, |values| values[c]);
            let y = (x - centre) / (spread + held(norm.eps)).sqrt();
            output[place] = if passed_on { x } else { y * affine("weight", 1.0) + affine("bias", 0.0) };
        }
        if !passed_on {
            answer.get_mut("running_mean").unwrap()[c] = r_mean;
            answer.get_mut("running_var").unwrap()[c] = r_var;
        }
    }
    if step.mode == Mode::Train && conventions.name == "caffe" {
        answer.insert("scale_factor".to_owned(), vec![decay * scale_factor + 1.0]);
    }
    answer.insert("output".to_owned(), output);
    answer
}

fn dialect_of(case: &Case) -> BatchNormDialect {
    let Operation::BatchNorm(norm) = case.operation() else { return BatchNormDialect::Pytorch };
    norm.dialect
}

/// Every forward step of every case of every dialect.
#[test]
fn each_dialect_is_its_formula() {
    let mut compared = 0;
    for case in catalogue::cases().iter().filter(|case| dialect_of(case) != BatchNormDialect::Pytorch) {
        let conventions = dialect_of(case).conventions();
        // A mean of thousands costs the loops in binary64 what a double-double sum keeps.
        let exempt = case.dtype() != DataType::F64 || case.name.ends_with("empty") || case.steps[0].gradients;
        if exempt {
            continue;
        }
        let mut previous = None;
        for number in 0..case.steps.len() {
            let request = case.request(number, previous.as_ref().map(|(asked, answer)| (asked, answer)));
            let step = &request.call;
            let answer = answer_by(step, &variants()[0].recipe);
            let count = step.tensors["input"].len() / step.tensors["input"].shape()[1];
            let refused = step.mode == Mode::Train && count == 1 && conventions.name == "mlx";
            let Expected::Tensors { tensors, .. } = Expected::of(step) else {
                assert!(refused, "{} is refused", case.name);
                previous = Some((request, answer));
                continue;
            };
            assert!(!refused, "{} is not refused", case.name);
            let book = by_the_book(step, conventions);
            assert_eq!(tensors.keys().collect::<Vec<_>>(), book.keys().collect::<Vec<_>>(), "{}", case.name);
            for (name, truth) in &tensors {
                for (index, (truth, book)) in truth.values.iter().zip(&book[name]).enumerate() {
                    let truth = truth.value.hi;
                    // 28 roundings at most on the way, of numbers of this size; a mean of 3000 makes them larger.
                    let size = book.abs().max(1.0) * if case.name.ends_with("large-mean") { 3000.0 } else { 1.0 };
                    let alike = (truth - book).abs() <= 28.0 * f64::EPSILON * size || truth.is_nan() && book.is_nan();
                    assert!(alike, "{} step {number}: {name}[{index}] is {truth:e}, by the book {book:e}", case.name);
                    compared += 1;
                }
            }
            previous = Some((request, answer));
        }
    }
    assert!(compared > 3000, "{compared}");
}

/// A random step of batch norm in another dialect: what the dialect does not have is left out, what it has besides is made.
fn random_step(values: &mut Values, dialect: BatchNormDialect, dtype: DataType) -> Step {
    let conventions = dialect.conventions();
    let mut step = random::step(values, "batch_norm", dtype, 6);
    let Operation::BatchNorm(norm) = &mut step.operation else { panic!("batch norm") };
    let debiased = matches!(dialect, BatchNormDialect::Haiku | BatchNormDialect::EquinoxBatch);
    norm.dialect = dialect;
    norm.momentum = Some(values.pick(&if debiased { [0.9, 0.99, 0.5] } else { [0.9, 0.999, 1.0] }));
    let channels = step.tensors["input"].shape()[1];
    let batches = values.below(30) as i64;
    for &name in conventions.state {
        let tensor = match name {
            "num_batches_tracked" => Tensor::counter(batches),
            "scale_factor" => Tensor::rounded(dtype, &[1], vec![1.0 + values.uniform() * 100.0]),
            _ if step.tensors.contains_key(name) => continue,
            _ => Tensor::rounded(dtype, &[channels], (0..channels).map(|_| values.uniform()).collect()),
        };
        step.tensors.insert(name.to_owned(), tensor);
    }
    let signature = step.operation.signature();
    step.tensors.retain(|name, _| {
        let own = name.trim_start_matches("grad_grad.");
        signature.required.contains(&own) || signature.optional.contains(&own) || name.starts_with("grad_output.")
    });
    step
}

#[test]
fn correct_programs_stay_within_the_bounds_of_every_dialect() {
    let cells = BatchNormDialect::ALL.iter().flat_map(|&dialect| DataType::FLOATS.map(|dtype| (dialect, dtype)));
    let cells: Vec<_> = cells.flat_map(|cell| (0..30).map(move |seed| (cell, seed))).collect();
    let violations: Vec<String> = cells
        .into_par_iter()
        .flat_map_iter(|((dialect, dtype), seed)| {
            let mut values = Values::named(&format!("dialects {} {dtype} {seed}", dialect.name()));
            let step = random_step(&mut values, dialect, dtype);
            let expected = Expected::of(&step);
            let judged = |variant: &normative::subject::planted::Variant| {
                let judgement = judge(&step, &expected, &answer_by(&step, &variant.recipe), &Declared::default());
                let text = format!("{} {:?} {:?}: {}", variant.name, step.operation, step.mode, judgement.message);
                (judgement.outcome != Outcome::Pass).then_some(text)
            };
            variants().iter().filter_map(judged).collect::<Vec<_>>()
        })
        .collect();
    assert!(violations.is_empty(), "{} violations, such as\n{}", violations.len(), violations[0]);
}

/// The table of docs/momentum.md is what the command prints.
#[test]
fn the_documented_table_is_the_computed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/momentum.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let output = assert_cmd::Command::cargo_bin("normative").unwrap().args(["table", "momentum"]).output().unwrap();
    let table = String::from_utf8(output.stdout).expect("text");
    let (before, rest) = page.split_once("<!-- normative table momentum -->\n").expect("where the table begins");
    let (written, after) = rest.split_once("<!-- end -->").expect("where it ends");
    if std::env::var_os("NORMATIVE_BLESS").is_some() {
        std::fs::write(path, format!("{before}<!-- normative table momentum -->\n{table}<!-- end -->{after}")).unwrap();
        return;
    }
    assert!(written == table, "NORMATIVE_BLESS=1 cargo test --test dialects writes it; computed:\n{table}");
}
