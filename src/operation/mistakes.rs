//! What planted bugs of the family do in the forward pass: other elements, other statistics.
//!
//! ```text
//! y = (x − μ')/σ'·w + b      μ', σ': of other elements, of the running statistics after the call, or μ' = 0
//! ```

use super::{Elements, Plan, Source};
use crate::arithmetic::{Arithmetic, Runs};
use crate::tensor::Tensors;

/// The first elements of each run that [`Elements::FirstBlock`] sees.
const BLOCK: usize = 16;

/// The elements, of `count` in the input, that the statistics of group `group` see.
pub(super) fn elements_seen(plan: &Plan, group: usize, count: usize, seen: Elements) -> Runs {
    let runs = plan.partition.group(group);
    match seen {
        Elements::Own => runs,
        Elements::Shifted => {
            let end = runs.start + (runs.count - 1) * runs.stride + runs.length;
            if end < count { Runs { start: runs.start + 1, ..runs } } else { runs }
        }
        Elements::OfGroupBefore => plan.partition.group(group.saturating_sub(1)),
        Elements::FirstBlock => Runs { length: runs.length.min(BLOCK), ..runs },
    }
}

/// The elements of group `group` in the first half of its runs: of a channel, the first half of the samples.
pub(super) fn first_half(plan: &Plan, group: usize) -> Runs {
    let (runs, samples) = (plan.partition.group(group), plan.partition.runs);
    let kept = samples.div_ceil(2);
    if runs.count == samples {
        Runs { count: kept, ..runs }
    } else {
        Runs { length: kept * plan.partition.run_length, ..runs }
    }
}

/// Adds μ·w/σ to each output: the mean was not subtracted.
pub(super) fn put_means_back<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    tensors: &Tensors<Vec<A::Input>>,
    statistics: (&[A::Moments], &[A::Scaling]),
    output: &mut [A::Real],
) {
    let (moments, scalings) = statistics;
    each_element(arithmetic, plan, tensors, output, |group, _, weight, _, out| {
        let shift = arithmetic.mean(&moments[group]) * arithmetic.inverse(&scalings[group]);
        out + weight.map_or(shift, |weight| weight * shift)
    });
}

/// Gives `change` each element's group, input, weight, bias and output, and takes the output that it makes of them.
fn each_element<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    tensors: &Tensors<Vec<A::Input>>,
    output: &mut [A::Real],
    change: impl Fn(usize, A::Real, Option<A::Real>, Option<A::Real>, A::Real) -> A::Real,
) {
    let (input, partition) = (&tensors["input"], &plan.partition);
    for (position, out) in output.iter_mut().enumerate() {
        let (run, k) = (position / partition.run_length, position % partition.run_length);
        let place = partition.place(run * partition.run_length);
        let group = if plan.source == Source::Input { place.group } else { place.group % partition.inner };
        let parameter = |name: &str| {
            let values = tensors.get(name)?;
            Some(arithmetic.keep(values[place.parameter + k * partition.parameter.element_step]))
        };
        *out = change(group, arithmetic.keep(input[position]), parameter("weight"), parameter("bias"), *out);
    }
}
