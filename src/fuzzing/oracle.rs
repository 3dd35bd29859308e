//! Target `oracle`: the reference and a program in f64, against exact integers.

use super::asking::{each_step, is_required};
use super::generator::Wanted;
use crate::arithmetic::Law;
use crate::case::{Answer, Declared, Step};
use crate::judge::exact::ExactAnswers;
use crate::judge::{Bounds, Expected, TrueTensor};
use crate::operation::{FAMILY, Plan, joined};
use crate::subject::planted::Recipe;
use crate::subject::{answer_by, rounded};
use crate::tensor::Tensors;

/// Those whose groups are standardized, with whatever else they do.
const STANDARDIZING: &[&str] = joined![FAMILY, &["spade", "ghost_batch_norm", "split_batch_norm"]];
const WANTED: Wanted<'static> = Wanted { operations: STANDARDIZING, ..Wanted::ANY };

/// Asks the case that the bytes stand for, and the exact oracle for every element that is a finite real number.
///
/// - The reference is its correct rounding, and its radius covers the rest.
/// - A program of two passes is within the law of two passes, where the error analysis holds.
///
/// # Panics
/// If one of these does not hold.
pub fn oracle(data: &[u8]) {
    each_step(&WANTED.case(data), |call| {
        let expected = Expected::of(call);
        if let Expected::Tensors { plan, tensors, .. } = &expected {
            check(call, plan, tensors);
        }
        rounded(&expected)
    });
}

fn check(call: &Step, plan: &Plan, tensors: &Tensors<TrueTensor>) {
    let Answer::Tensors(answers) = answer_by(call, &Recipe::default()) else {
        panic!("{:?} is planned", call.operation)
    };
    let law = is_required(call).then(|| Bounds::of(call, plan, Law::GOOD[0], &Declared::default()));
    let values: Tensors<Vec<f64>> = call.values(|x| x);
    let mut oracle = ExactAnswers::new(plan, &values);
    for (name, tensor) in tensors {
        let format = tensor.dtype.format().expect("outputs are floating-point");
        let answer = answers[name].widened();
        for (index, (truth, &rounded)) in tensor.values.iter().zip(&tensor.rounded).enumerate() {
            let Some(exact) = oracle.element(name, index) else { continue };
            assert_eq!(rounded, exact.round(format), "{name}[{index}] of {:?}", call.operation);
            let (value, radius) = exact.double_double();
            if truth.is_finite() && radius.is_finite() {
                let error = (value - truth.value).abs().hi;
                assert!(error <= truth.radius + radius, "{name}[{index}]: {error:e} > {:e}", truth.radius);
            }
            let Some(law) = &law else { continue };
            let bound = law.stored(format).of(law.errors(name)[index], value.hi) + radius;
            if answer[index].is_finite() && bound.is_finite() && value.hi.abs() + bound <= format.max_finite() {
                let error = (value - answer[index].into()).abs().hi;
                assert!(error <= bound, "{name}[{index}] of {:?}: {error:e} > {bound:e}", call.operation);
            }
        }
    }
}
