//! Batch norm of each part of a batch by itself: what ghost and split batch norm have in common.
//!
//! ```text
//! input: [N, C, *] in `chunks` parts of N/chunks samples    groups: one for each part and channel
//! train  each group by its own statistics      eval  the whole batch by the stored ones of each channel
//! ```

use super::normalization::{self, factor};
use super::running::both_running;
use super::{
    Call, Keeping, Mode, OneValue, Output, Outputs, ParameterIndex, Partition, Plan, Refusal, RefusalKind, Rule,
    Source, Updates,
};
use crate::arithmetic::{Arithmetic, Factor, Group};
use crate::tensor::Tensors;

/// The state of both.
pub(super) const STATE: &[&str] = &["running_mean", "running_var"];

/// The plan for an input of `sizes` samples, channels and positions in `chunks` equal parts. A part has the parameters
/// `parameter`, if not those of every part.
pub(super) fn plan(
    call: &Call<'_>,
    [batch, channels, length]: [usize; 3],
    chunks: usize,
    parameter: Option<ParameterIndex>,
    (eps, momentum): (f64, f64),
    rule: &Rule,
) -> Result<Plan, Refusal> {
    let running = both_running(call)?;
    let (train, size) = (call.mode == Mode::Train, batch / chunks.max(1));
    let of_chunk = Partition::channels(size, channels, length);
    let partition = Partition {
        outer: chunks,
        outer_stride: size * channels * length,
        parameter: parameter.unwrap_or(of_chunk.parameter),
        ..of_chunk
    };
    let plan = Plan::standardizing(partition, &call.tensors["input"].shape, eps, true);
    if running && !train && !rule.batch_statistics_in_eval {
        let partition = Partition::channels(batch, channels, length);
        return Ok(Plan { partition, source: Source::Stored, running, ..plan });
    }
    if size * length == 1 && rule.one_value != OneValue::Accepted {
        let message = "one value per channel and part of the batch; expected more than one";
        return Err(Refusal::new(RefusalKind::TooFewValues, message));
    }
    let moves = running && train && rule.updates != Updates::Never;
    let update = if moves { factor(Some(momentum), None, rule) } else { None };
    Ok(Plan { running, update, keeping: Keeping::of(rule, Some(momentum), None), ..plan })
}

/// The outputs. Where the running statistics move, `moved` makes each new one of its index, its old value, the weight and
/// the statistic of any group.
pub(super) fn forward<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    tensors: &Tensors<Vec<A::Input>>,
    rule: &Rule,
    shape: &[usize],
    moved: impl Fn(usize, A::Input, Factor, &dyn Fn(usize) -> A::Real) -> A::Real,
) -> Outputs<A::Real> {
    let normalized = Plan { running: false, update: None, ..plan.clone() };
    let mut outputs = normalization::forward(arithmetic, &normalized, tensors, rule);
    if !plan.running {
        return outputs;
    }
    let input = &tensors["input"];
    for &name in STATE {
        let statistic = |group| {
            let moments = arithmetic.moments(Group::new(input, plan.partition.group(group)), true);
            if name == "running_mean" {
                return arithmetic.mean(&moments);
            }
            let variance = arithmetic.variance(&moments, plan.keeping.degrees_of_freedom);
            arithmetic.running_quantity(variance, rule.running, plan.eps)
        };
        let values = tensors[name].iter().enumerate().map(|(index, &old)| match plan.update {
            Some(factor) if !input.is_empty() => moved(index, old, factor, &statistic),
            _ => arithmetic.keep(old),
        });
        let values = values.collect();
        outputs.tensors.insert(name.into(), Output { shape: shape.to_vec(), values });
    }
    outputs
}
