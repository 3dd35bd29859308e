//! A layer in Rust, judged within the process: `cargo run --release --example my_layers`.
//!
//! As a test of your own crate, put what `main` does into a function with `#[test]`.

use std::process::ExitCode;

use normative::Tensor;
use normative::arithmetic::DataType;
use normative::case::{Answer, Case, Hello, Request, catalogue};
use normative::conformance::check;
use normative::judge::Outcome;
use normative::operation::{Operation, Refusal, RefusalKind};
use normative::subject::{Fault, Pool, Subject};

/// The layer to be judged: root mean square normalization of rows of `n` values.
fn rms_norm(rows: &mut [f32], n: usize, weight: Option<&[f32]>, eps: f32) {
    for row in rows.chunks_mut(n.max(1)) {
        let mean_square = row.iter().map(|x| x * x).sum::<f32>() / n as f32;
        let scale = 1.0 / (mean_square + eps).sqrt();
        for (i, x) in row.iter_mut().enumerate() {
            *x *= scale * weight.map_or(1.0, |weight| weight[i]);
        }
    }
}

struct MyLayers(Hello);

impl Subject for MyLayers {
    fn hello(&self) -> &Hello {
        &self.0
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        let tensors = &request.call.tensors;
        let (Operation::RmsNorm(layer), Tensor::F32(input)) = (&request.call.operation, &tensors["input"]) else {
            return Ok(Answer::Unsupported("only rms_norm in F32 is here".into()));
        };
        let shape = layer.normalized_shape.as_slice();
        if shape.is_empty() || !input.shape().ends_with(shape) {
            return Ok(refused("the input's shape does not end in normalized_shape"));
        }
        let weight = match tensors.get("weight") {
            None => None,
            Some(Tensor::F32(weight)) if weight.shape() == shape => weight.as_slice(),
            Some(_) => return Ok(refused("the weight is not F32 of normalized_shape")),
        };
        let mut output = input.clone();
        let eps = layer.eps.map_or(f32::EPSILON, |eps| eps as f32);
        rms_norm(output.as_slice_mut().expect("tensors are contiguous"), shape.iter().product(), weight, eps);
        Ok(Answer::Tensors([("output".to_owned(), Tensor::F32(output))].into()))
    }
}

fn refused(message: &str) -> Answer {
    let refusal = Refusal { kind: RefusalKind::Shape, message: message.to_owned() };
    Answer::Refused { refusal, state: Default::default() }
}

fn main() -> ExitCode {
    let hello = Hello {
        name: "my layers".into(),
        version: "1".into(),
        device: "cpu".into(),
        operations: vec!["rms_norm".into()],
        dtypes: vec![DataType::F32],
        dialects: Default::default(),
        options: Vec::new(),
        arithmetic: None,
        details: Default::default(),
    };
    let cases: Vec<&Case> = catalogue::cases().iter().collect();
    let (verdicts, _) = check(&mut Pool::of(Box::new(MyLayers(hello))), &cases, &|_| ());
    let failed: Vec<_> = verdicts.iter().filter(|verdict| verdict.counts(false)).collect();
    for verdict in &failed {
        println!("{}: {}", verdict.case, verdict.message);
    }
    let passed = verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Pass).count();
    println!("{passed} cases pass, {} fail", failed.len());
    if failed.is_empty() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
