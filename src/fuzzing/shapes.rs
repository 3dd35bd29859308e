//! Target `shapes`: any operation, hyper-parameters, ranks, sizes, layouts and types.

use super::asking::{check_call, each_step, plan_of};
use super::generator::Wanted;
use crate::case::Step;

/// Asks the case that the bytes stand for, wild ones among them.
///
/// - A call is answered or refused, by the plan and by whoever answers alike; a refusal is one line.
/// - Every answer has the right tensors; the reference passes, and so does a correct program where the error analysis holds.
/// - What is answered is in proportion to what was sent.
///
/// # Panics
/// If one of these does not hold.
pub fn shapes(data: &[u8]) {
    let id = data.iter().fold(0, |id: u64, &byte| id.wrapping_mul(31).wrapping_add(byte.into()));
    each_step(&Wanted::WILD.case(data), |call| {
        check_size(call);
        check_call(id, call).1
    });
}

/// No answer is larger than every pair of what was sent: a demodulated weight has a copy for each sample, and nothing has
/// more.
fn check_size(call: &Step) {
    let sent: usize = call.tensors.values().map(|tensor| tensor.len()).sum();
    let Some(plan) = plan_of(call) else { return };
    for (name, shape) in &plan.outputs {
        let answered: usize = shape.iter().product();
        assert!(answered <= (sent + 1).pow(2), "{name} has {answered} elements of {sent} that were sent");
    }
}
