//! The truth of every step of the catalogue, against the exact oracle: value, radius and rounding.

use normative::case::{Answer, catalogue};
use normative::judge::exact::ExactAnswers;
use normative::judge::{Expected, TrueTensor};
use normative::subject::{Builtin, Subject};
use rayon::prelude::*;

/// Compares each element that is a finite real number, and returns how many there are.
fn compare(name: &str, tensor: &TrueTensor, oracle: &mut ExactAnswers<'_>) -> usize {
    let format = tensor.dtype.format().expect("outputs are floating-point");
    let mut compared = 0;
    for (index, (truth, &rounded)) in tensor.values.iter().zip(&tensor.rounded).enumerate() {
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
