//! The family of norms that share one kernel: *partition* the elements, take the *moments* of each group, *rescale*, apply
//! the affine parameters, and move the running statistics.
//!
//! ```text
//! z = w·(x − μ)/√(v + eps) + b            μ, v: the group's own, or stored
//! running_mean ← (1 − α)·running_mean + α·μ
//! running_var  ← (1 − α)·running_var  + α·v·n/(n − 1)
//! ```
//! Which elements make a group is the [`Partition`]; all else that an operation may choose is its [`Rule`].

use super::{Description, MomentumSense, Partition, Refusal, RefusalKind, Rule};
use crate::arithmetic::{Arithmetic, DataType, Factor, Group, Parameter, Runs};
use crate::tensor::Tensors;

/// What a call will do; made from shapes alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Which elements share statistics.
    pub partition: Partition,
    /// Shape of the output.
    pub output_shape: Vec<usize>,
    /// Whether the mean is subtracted.
    pub centred: bool,
    /// The eps of this call.
    pub eps: f64,
    /// Where the statistics come from.
    pub source: Source,
    /// The weight of the new value in the running statistics; `None`: they do not move.
    pub update: Option<Factor>,
    /// Whether there are running statistics to answer with.
    pub running: bool,
    /// The counter after the call, if there is one.
    pub num_batches_tracked: Option<i64>,
}

/// Where the statistics that normalize come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The input itself.
    Input,
    /// `running_mean` and `running_var`.
    Stored,
}

/// One tensor of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Output<R> {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements in C order.
    pub values: Vec<R>,
}

/// The answer of a definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs<R> {
    /// The floating-point tensors.
    pub tensors: Tensors<Output<R>>,
    /// The counter after the call, if there is one.
    pub num_batches_tracked: Option<i64>,
}

/// Normalizes, and moves the running statistics where the plan says so.
pub(super) fn forward<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    tensors: &Tensors<Vec<A::Input>>,
    rule: &Rule,
) -> Outputs<A::Real> {
    let partition = &plan.partition;
    let input = &tensors["input"];
    let running = || (&tensors["running_mean"], &tensors["running_var"]);
    let scale = rule.scale(plan.eps);

    // Without elements there are no statistics: nothing is normalized, nothing moves.
    let groups = if input.is_empty() { 0 } else { partition.groups() };
    let current: Vec<A::Moments> = if plan.source == Source::Input || plan.update.is_some() {
        let moments =
            |group| arithmetic.moments(Group::new(input, statistics_of(plan, group, input.len(), rule)), plan.centred);
        (0..groups).map(moments).collect()
    } else {
        Vec::new()
    };
    let scalings: Vec<A::Scaling> = match plan.source {
        Source::Input => current.iter().map(|moments| arithmetic.scaling(moments, &scale)).collect(),
        Source::Stored => {
            let (mean, variance) = running();
            let stored = mean.iter().zip(variance).map(|(&mean, &variance)| arithmetic.stored(mean, variance));
            stored.map(|moments| arithmetic.scaling(&moments, &scale)).collect()
        }
    };

    let mut outputs = Tensors::new();
    let mut output: Vec<A::Real> = input.iter().map(|&x| arithmetic.keep(x)).collect();
    let length = partition.run_length;
    if !input.is_empty() {
        for (index, (run, out)) in input.chunks(length).zip(output.chunks_mut(length)).enumerate() {
            let place = partition.place(index * length);
            let parameter = |name: &str| {
                let values = tensors.get(name)?;
                Some(match partition.parameter.element_step {
                    0 => Parameter::One(values[place.parameter]),
                    _ => Parameter::Each(&values[place.parameter..][..length]),
                })
            };
            arithmetic.rescale(run, &scalings[place.group], parameter("weight"), parameter("bias"), out);
        }
    }
    outputs.insert("output".into(), Output { shape: plan.output_shape.clone(), values: output });

    if plan.running {
        let (mean, variance) = running();
        let (mean, variance): (Vec<A::Real>, Vec<A::Real>) = match plan.update {
            Some(factor) if !current.is_empty() => {
                let means = current.iter().zip(mean).map(|(m, &old)| arithmetic.mix(old, arithmetic.mean(m), factor));
                let variances = current.iter().zip(variance).map(|(m, &old)| {
                    let new = arithmetic.variance(m, rule.running_degrees_of_freedom);
                    arithmetic.mix(old, arithmetic.running_quantity(new, rule.running, plan.eps), factor)
                });
                (means.collect(), variances.collect())
            }
            _ => {
                let keep = |values: &Vec<A::Input>| values.iter().map(|&x| arithmetic.keep(x)).collect();
                (keep(mean), keep(variance))
            }
        };
        let shape = vec![mean.len()];
        outputs.insert("running_mean".into(), Output { shape: shape.clone(), values: mean });
        outputs.insert("running_var".into(), Output { shape, values: variance });
    }
    Outputs { tensors: outputs, num_batches_tracked: plan.num_batches_tracked }
}

/// The elements whose statistics group `group` sees: its own, unless the rule leaks.
fn statistics_of(plan: &Plan, group: usize, elements: usize, rule: &Rule) -> Runs {
    let runs = plan.partition.group(group);
    let end = runs.start + (runs.count - 1) * runs.stride + runs.length;
    if rule.leaks && end < elements { Runs { start: runs.start + 1, ..runs } } else { runs }
}

/// The weight of the new value for a momentum, `None` being the cumulative average over `batches`.
pub(super) fn factor(momentum: Option<f64>, batches: Option<i64>, rule: &Rule) -> Option<Factor> {
    match (momentum, batches) {
        (Some(momentum), _) => Some(match rule.momentum {
            MomentumSense::OfNew => Factor::OfNew(momentum),
            MomentumSense::OfOld => Factor::OfOld(momentum),
        }),
        (None, Some(batches)) => Some(Factor::Reciprocal(batches + rule.cumulative_offset)),
        (None, None) => None,
    }
}

/// Parameters and statistics have the input's type, or with an f16 or bf16 input are all f32.
pub(super) fn check_dtypes(tensors: &Tensors<Description>, names: &[&str]) -> Result<(), Refusal> {
    let input = tensors["input"].dtype;
    let mut others = names.iter().filter_map(|name| tensors.get(*name).map(|t| (name, t.dtype))).peekable();
    let Some(&(_, first)) = others.peek() else { return Ok(()) };
    let half = matches!(input, DataType::F16 | DataType::BF16);
    let fits = |dtype: DataType| dtype == first && (dtype == input || half && dtype == DataType::F32);
    match others.find(|&(_, dtype)| !fits(dtype)) {
        None => Ok(()),
        Some((name, dtype)) => Err(Refusal::new(
            RefusalKind::Dtype,
            format!(
                "{name} is {dtype} with a {input} input; parameters and statistics have the input's type{}",
                if half { ", or are all F32" } else { "" }
            ),
        )),
    }
}

/// Each of the tensors that are there has the shape `[channels]`.
pub(super) fn check_vectors(tensors: &Tensors<Description>, names: &[&str], channels: usize) -> Result<(), Refusal> {
    for name in names {
        match tensors.get(*name) {
            Some(tensor) if tensor.shape != [channels] => {
                return Err(Refusal::new(
                    RefusalKind::Shape,
                    format!("{name} has shape {:?}; the input has {channels} channels: [{channels}]", tensor.shape),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
