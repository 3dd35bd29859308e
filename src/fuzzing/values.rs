//! Target `values`: any bit patterns, in any data type; and a judge that is lied to.

use super::asking::{check_call, each_step, judged};
use super::generator::Wanted;
use crate::arithmetic::{DataType, Law};
use crate::case::{Answer, Declared, Step};
use crate::judge::{Expected, Outcome};
use crate::operation::{Source, TORCH_FAMILY};
use crate::tensor::Tensor;

/// Bytes that choose the case; those after them are bit patterns too.
const CHOICES: usize = 24;

/// Asks the case that the first bytes stand for, with the rest as bit patterns of its floating-point tensors.
///
/// - Everything is answered or refused with the right tensors; the reference passes.
/// - A NaN in a group that is standardized makes all of the group NaN.
/// - The judge passes no lie: a NaN where a number must be, a number where NaN must be, and a value four bounds away.
///
/// # Panics
/// If one of these does not hold.
pub fn values(data: &[u8]) {
    let (choices, bits) = data.split_at(data.len().min(CHOICES));
    let mut case = Wanted::ANY.case(choices);
    for step in &mut case.steps {
        fill(step, bits);
    }
    let at = data.iter().map(|&byte| usize::from(byte)).sum();
    each_step(&case, |call| {
        let (expected, answer) = check_call(at as u64, call);
        check_nan(call, &expected);
        check_lies(call, &expected, &answer, at);
        answer
    });
}

/// The elements of every floating-point tensor become these bits, over and over, from different places.
fn fill(step: &mut Step, bits: &[u8]) {
    if bits.is_empty() {
        return;
    }
    for (start, tensor) in step.tensors.values_mut().filter(|tensor| tensor.dtype() != DataType::I64).enumerate() {
        let bytes: Vec<u8> = bits.iter().copied().cycle().skip(8 * start).take(tensor.to_bytes().len()).collect();
        *tensor = Tensor::from_bytes(tensor.dtype(), tensor.shape(), &bytes).expect("as many bytes as before");
    }
}

fn check_nan(call: &Step, expected: &Expected) {
    let Expected::Tensors { tensors, plan, .. } = expected else { return };
    if plan.source != Source::Input || !TORCH_FAMILY.contains(&call.operation.name()) {
        return;
    }
    let input = call.tensors["input"].widened();
    for group in 0..plan.partition.groups() {
        let positions = plan.partition.positions(group);
        if positions.iter().any(|&position| input[position].is_nan()) {
            let all = positions.iter().all(|&position| tensors["output"].rounded[position].is_nan());
            assert!(all, "a NaN in group {group} of {:?} and a number comes out", call.operation);
        }
    }
}

/// Changes one element of a right answer into what no right answer has.
fn check_lies(call: &Step, expected: &Expected, answer: &Answer, at: usize) {
    let (Expected::Tensors { tensors, plan, bounds, .. }, Answer::Tensors(answers)) = (expected, answer) else {
        return;
    };
    let laws = if plan.centred { &Law::GOOD[..] } else { &Law::GOOD[..1] };
    let declared = Declared::default();
    for (name, truth) in tensors.iter().filter(|(_, truth)| !truth.values.is_empty()) {
        let index = at % truth.values.len();
        let value = truth.values[index];
        let format = truth.dtype.format().expect("outputs are floating-point");
        // The widest of the bounds under which an answer may pass.
        let bound = laws.iter().map(|&law| {
            let bounds = bounds.get(call, plan, law, &declared);
            bounds.stored(format).of(bounds.errors(name)[index], value.value.hi) + value.radius
        });
        let bound =
            bound.fold(0.0, |widest: f64, bound| if bound.is_nan() { f64::INFINITY } else { widest.max(bound) });
        let held = value.value.hi.abs() + 8.0 * bound < format.max_finite();
        let lies = match value.is_finite() {
            true if held => vec![f64::NAN, f64::INFINITY, value.value.hi + 4.0 * bound, value.value.hi - 4.0 * bound],
            // What is beyond double-double arithmetic is not judged.
            false if value.radius == 0.0 => vec![0.0, 1.0, -format.max_finite()],
            _ => continue,
        };
        for lie in lies {
            // Rounded to its type, a lie may come to be true.
            let off = (value.value - format.round(lie).into()).abs().hi;
            if value.is_finite() && off <= 2.0 * bound {
                continue;
            }
            let mut elements: Vec<f64> = answers[name].to_f64().into_iter().collect();
            elements[index] = lie;
            let mut told = answers.clone();
            told.insert(name.clone(), Tensor::rounded(truth.dtype, answers[name].shape(), elements));
            let outcome = judged(call, expected, &Answer::Tensors(told), &declared).outcome;
            assert_eq!(outcome, Outcome::Fail, "{name}[{index}] is {value:?} ± {bound:e}, and {lie:e} passes");
        }
    }
}
