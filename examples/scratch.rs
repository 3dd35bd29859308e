//! Scratch.
use normative::Tensor;
use normative::case::values::Values;
use normative::case::{Case, catalogue};
use normative::conformance::check;
use normative::judge::Outcome;
use normative::subject::{Builtin, Pool, Program, Subject, Timeouts};
fn main() {
    let arg = std::env::args().nth(1).unwrap();
    let grads = std::env::args().nth(2).is_some();
    let subject: Box<dyn Subject> = match Builtin::new(&arg) {
        Some(b) => Box::new(b),
        None => Box::new(Program::start(&arg, Timeouts::default()).unwrap()),
    };
    let mut pool = Pool::of(subject);
    let mut all = catalogue::cases().to_vec();
    if grads {
        for case in &mut all {
            let mut values = Values::named(&case.name);
            for step in &mut case.steps {
                step.gradients = true;
                let input = &step.tensors["input"];
                let g = Tensor::rounded(input.dtype(), input.shape(), values.normals(input.len(), 0.25, 1.0));
                step.tensors.insert("grad_output.output".into(), g);
            }
        }
    }
    let cases: Vec<&Case> = all.iter().collect();
    let (verdicts, _) = check(&mut pool, &cases, &|_| ());
    let mut n = std::collections::BTreeMap::new();
    for v in &verdicts {
        *n.entry((v.operation, v.outcome, v.grade)).or_insert(0) += 1;
        if v.outcome != Outcome::Pass {
            println!(
                "{:?} {} flag {:?} step {} {:?} {:.3} bug {:?} {} :: {}",
                v.outcome,
                v.case,
                v.flag().map(|f| f.name()),
                v.step,
                v.grade,
                v.ratio.unwrap_or(0.0),
                v.nearest_bug.map(|b| b.name),
                v.matches_bug,
                v.message
            );
        }
    }
    for (k, c) in n {
        println!("{k:?} {c}");
    }
}
