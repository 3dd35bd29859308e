//! Times the evaluation of an operation on binary64, one call a line, for `tools/compare_speed.py`.
//!
//! A line of standard input is `OPERATION PASS`, such as `layer_norm forward`; the answer is a line with the seconds that
//! one call with a fresh output took. The number of threads is `RAYON_NUM_THREADS`. The inputs are those of the script.
//!
//! ```text
//! echo 'batch_norm backward' | cargo run --release --example speed
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use normative::arithmetic::DataType;
use normative::case::values::Values;
use normative::operation::{Call, Description, Mode, Operation, Plan, Rule};
use normative::{Tensors, evaluate};

// As the command line allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Name, operation, shape of the input, shape of the parameters.
const OPERATIONS: [(&str, &str, &[usize], &[usize]); 4] = [
    ("layer_norm", r#"{"name": "layer_norm", "normalized_shape": [1024], "eps": 1e-5}"#, &[4096, 1024], &[1024]),
    ("rms_norm", r#"{"name": "rms_norm", "normalized_shape": [1024], "eps": 1e-5}"#, &[4096, 1024], &[1024]),
    (
        "batch_norm",
        r#"{"name": "batch_norm", "spatial_dims": 2, "eps": 1e-5, "momentum": 0.1}"#,
        &[32, 64, 56, 56],
        &[64],
    ),
    ("group_norm", r#"{"name": "group_norm", "num_groups": 32, "eps": 1e-5}"#, &[32, 64, 56, 56], &[64]),
];

fn main() {
    let mut calls = BTreeMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the script writes UTF-8");
        let (name, pass) = line.split_once(' ').expect("an operation and a pass");
        let (plan, tensors) = calls.entry(name.to_owned()).or_insert_with(|| call(name));
        let views: Tensors<&[f64]> = tensors.iter().map(|(name, values)| (name.clone(), values.as_slice())).collect();
        let start = Instant::now();
        match pass {
            "forward" => drop(std::hint::black_box(evaluate::forward(plan, &views))),
            _ => drop(std::hint::black_box(evaluate::backward(plan, &views))),
        }
        println!("{}", start.elapsed().as_secs_f64());
        std::io::stdout().flush().expect("the script reads");
    }
}

/// The plan and the tensors of an operation.
fn call(name: &str) -> (Plan, Tensors<Vec<f64>>) {
    let found = OPERATIONS.iter().find(|(operation, ..)| *operation == name);
    let &(_, operation, shape, parameters) = found.unwrap_or_else(|| panic!("no operation is called {name}"));
    let mut shapes: Vec<(&str, &[usize])> = vec![("input", shape), ("weight", parameters)];
    if name != "rms_norm" {
        shapes.push(("bias", parameters));
    }
    if name == "batch_norm" {
        shapes.extend([("running_mean", parameters), ("running_var", parameters)]);
    }
    let description = |shape: &[usize]| Description { dtype: DataType::F64, shape: shape.to_vec() };
    let descriptions = shapes.iter().map(|(name, shape)| (name.to_string(), description(shape))).collect();
    let call = Call { mode: Mode::Train, tensors: &descriptions, num_batches_tracked: None };
    let operation: Operation = serde_json::from_str(operation).expect("the operations are well-formed");
    let plan = operation.plan(&call, &Rule::default()).expect("the shapes fit");
    shapes.push(("grad_output.output", shape));
    let mut values = Values::named(name);
    let tensor = |(name, shape): (&str, &[usize])| {
        let count = shape.iter().product();
        (name.to_owned(), (0..count).map(|_| values.uniform() + 0.5).collect())
    };
    (plan, shapes.into_iter().map(tensor).collect())
}
