//! The smallest failing case: a failure is made simpler while it stays the same in kind.

use crate::case::preconditions;
use crate::case::simpler::PASSES;
use crate::case::{Case, Level};

/// Looks for the simplest case among the neighbours of `case`, of their neighbours, and so on, for which `still` holds;
/// it asks at most `limit` times. A required case stays within the preconditions of the error analysis.
///
/// ```
/// use normative::case::catalogue;
/// use normative::conformance::shrink;
/// let case = catalogue::cases().iter().find(|case| case.name == "layer_norm-f32-size-64").unwrap();
/// // Any two values in a row will do for this failure.
/// let two = |case: &normative::case::Case| case.steps[0].tensors["input"].shape().last() >= Some(&2);
/// let smallest = shrink(case, &mut |case| two(case), 500);
/// assert_eq!(smallest.steps[0].tensors["input"].shape().last(), Some(&2));
/// ```
pub fn shrink(case: &Case, still: &mut dyn FnMut(&Case) -> bool, limit: usize) -> Case {
    let mut best = case.clone();
    let mut left = limit;
    loop {
        let mut progress = false;
        for pass in PASSES {
            // The neighbours of what was found go on where those of its predecessor were.
            let mut tried = 0;
            loop {
                let neighbours = pass(&best);
                let found = neighbours.into_iter().enumerate().skip(tried).find(|(number, candidate)| {
                    tried = *number;
                    if left == 0 || !is_call(candidate) {
                        return false;
                    }
                    left -= 1;
                    still(candidate)
                });
                let Some((_, simpler)) = found else { break };
                best = simpler;
                progress = true;
            }
        }
        if !progress || left == 0 {
            return best;
        }
    }
}

/// Whether the first step is one that can be asked, within what the case's level takes for granted.
fn is_call(case: &Case) -> bool {
    let allowed = case.level == Level::Advisory || preconditions::violated(case).is_none();
    case.steps[0].check().is_ok() && allowed
}
