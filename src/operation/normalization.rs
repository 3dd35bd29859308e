//! The family of norms that share one kernel: *partition* the elements, take the *moments* of each group, *rescale*, apply
//! the affine parameters, and move the running statistics.
//!
//! ```text
//! z = w·(x − μ)/√(v + eps) + b            μ, v: the group's own, or stored
//! running_mean ← (1 − α)·running_mean + α·μ
//! running_var  ← (1 − α)·running_var  + α·v·n/(n − 1)
//! ```
//! Which elements make a group is the [`Partition`]; all else that an operation may choose is its [`Rule`].

use super::{Description, GradientRule, MomentumSense, Partition, Refusal, RefusalKind, Rule};
use crate::arithmetic::{Arithmetic, DataType, Factor, Group, Parameter, Real, Runs, bessel};
use crate::tensor::Tensors;

/// What a call will do; made from shapes alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Which elements share statistics.
    pub partition: Partition,
    /// Names and shapes of the outputs that are not state.
    pub outputs: Vec<(&'static str, Vec<usize>)>,
    /// Whether this is a call of the family, whose outputs are standardized groups.
    pub standardizes: bool,
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
    /// Power iterations before the answer.
    pub iterations: usize,
    /// The number of values that Bessel's correction counts, if not the group's.
    pub bessel_values: Option<usize>,
    /// The affine parameters: how they are called and applied.
    pub affine: Affine,
}

/// How weight and bias are called and applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// The name of the tensor that multiplies.
    pub weight: &'static str,
    /// The name of the tensor that is added.
    pub bias: &'static str,
    /// Whether 1 + weight multiplies.
    pub one_plus: bool,
    /// The type that a standardized value is rounded to before the weight, where a dialect casts early.
    pub cast: Option<DataType>,
}

impl Affine {
    /// w·y + b.
    pub const PLAIN: Affine = Affine { weight: "weight", bias: "bias", one_plus: false, cast: None };
}

impl Plan {
    /// A plan without statistics: one output of the shape of the input.
    pub(super) fn of_norms(partition: Partition, shape: &[usize], eps: f64) -> Plan {
        Plan {
            partition,
            outputs: vec![("output", shape.to_vec())],
            standardizes: false,
            centred: false,
            eps,
            source: Source::Input,
            update: None,
            running: false,
            num_batches_tracked: None,
            iterations: 0,
            bessel_values: None,
            affine: Affine::PLAIN,
        }
    }

    /// A plan of the family: groups standardized by their own statistics.
    pub(super) fn standardizing(partition: Partition, shape: &[usize], eps: f64, centred: bool) -> Plan {
        Plan { standardizes: true, centred, ..Plan::of_norms(partition, shape, eps) }
    }

    /// Whether the mean is subtracted, after the rule.
    pub(super) fn centres(&self, rule: &Rule) -> bool {
        self.centred != rule.centring_flipped
    }
}

impl<R> Outputs<R> {
    /// The first output of a plan, in the shape that it says.
    pub(super) fn of(plan: &Plan, values: Vec<R>) -> Outputs<R> {
        let (name, shape) = plan.outputs[0].clone();
        let tensors = Tensors::from([(name.to_owned(), Output { shape, values })]);
        Outputs { tensors, num_batches_tracked: plan.num_batches_tracked }
    }
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

impl Affine {
    /// The value as it meets the weight.
    fn rounded<A: Arithmetic>(&self, arithmetic: &A, value: A::Real) -> A::Real {
        match self.cast.and_then(DataType::format) {
            Some(format) => arithmetic.cast(value, format),
            None => value,
        }
    }

    /// What multiplies: the weight, or 1 + weight.
    fn factor<A: Arithmetic>(&self, arithmetic: &A, weight: A::Input, rule: &Rule) -> A::Real {
        let weight = arithmetic.keep(weight);
        if self.one_plus == rule.offset_flipped { weight } else { A::Real::constant(1.0) + weight }
    }
}

/// Normalizes, and moves the running statistics where the plan says so.
pub(crate) fn forward<A: Arithmetic>(
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
        let moments = |group| {
            arithmetic.moments(Group::new(input, statistics_of(plan, group, input.len(), rule)), plan.centres(rule))
        };
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
            let scaling = match plan.source {
                Source::Input => &scalings[place.group],
                Source::Stored => &scalings[place.group % partition.inner],
            };
            let parameter = |name: &str| {
                let values = tensors.get(name)?;
                Some(match partition.parameter.element_step {
                    0 => Parameter::One(values[place.parameter]),
                    _ => Parameter::Each(&values[place.parameter..][..length]),
                })
            };
            let (weight, bias) = (parameter(plan.affine.weight), parameter(plan.affine.bias));
            if !plan.affine.one_plus && plan.affine.cast.is_none() && !rule.offset_flipped {
                arithmetic.rescale(run, scaling, weight, bias, out);
                continue;
            }
            arithmetic.rescale(run, scaling, None, None, out);
            for (k, out) in out.iter_mut().enumerate() {
                let y = plan.affine.rounded(arithmetic, *out);
                let y = weight.map_or(y, |weight| y * plan.affine.factor(arithmetic, weight.at(k), rule));
                *out = bias.map_or(y, |bias| y + arithmetic.keep(bias.at(k)));
            }
        }
    }
    outputs.insert("output".into(), Output { shape: plan.outputs[0].1.clone(), values: output });

    if plan.running {
        let (mean, variance) = running();
        let (mean, variance) = moved(arithmetic, plan, &current, mean, variance, rule);
        let shape = vec![mean.len()];
        outputs.insert("running_mean".into(), Output { shape: shape.clone(), values: mean });
        outputs.insert("running_var".into(), Output { shape, values: variance });
    }
    Outputs { tensors: outputs, num_batches_tracked: plan.num_batches_tracked }
}

/// `running_mean` and `running_var` after a call whose groups have the moments `current`.
pub(crate) fn moved<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    current: &[A::Moments],
    mean: &[A::Input],
    variance: &[A::Input],
    rule: &Rule,
) -> (Vec<A::Real>, Vec<A::Real>) {
    let factor = match plan.update {
        Some(factor) if !current.is_empty() => factor,
        _ => {
            let keep = |values: &[A::Input]| values.iter().map(|&x| arithmetic.keep(x)).collect();
            return (keep(mean), keep(variance));
        }
    };
    let means: Vec<_> = current.iter().map(|m| arithmetic.mean(m)).collect();
    let variance_of = |m| match plan.bessel_values {
        None => arithmetic.variance(m, rule.running_degrees_of_freedom),
        Some(values) => arithmetic.variance(m, 0) * A::Real::constant(bessel(values, 1)),
    };
    let quantity = |m| arithmetic.running_quantity(variance_of(m), rule.running, plan.eps);
    let variances: Vec<_> = current.iter().map(quantity).collect();
    let mix = |old: &[A::Input], new: &[A::Real]| {
        let channels = old.iter().enumerate();
        channels.map(|(c, &old)| arithmetic.mix(old, average(new, c, &plan.partition), factor)).collect()
    };
    (mix(mean, &means), mix(variance, &variances))
}

/// The mean over the first axis of groups of what each group of channel `channel` has: one group in batch norm, one for each
/// sample in instance norm.
fn average<R: Real>(values: &[R], channel: usize, partition: &Partition) -> R {
    if partition.outer == 1 {
        return values[channel];
    }
    let samples = (0..partition.outer).map(|outer| values[outer * partition.inner + channel]);
    R::sum(samples) / R::constant(partition.outer as f64)
}

/// The gradients of `output`, given the gradient `grad_output.output` g that comes from above.
///
/// ```text
/// a = g·w      y = (x − μ)/σ
/// grad_input  = (a − mean a − y·mean(a·y))/σ     mean a only where the mean is subtracted; a/σ with stored statistics
/// grad_weight = Σ g·y      grad_bias = Σ g       over the elements that a parameter multiplies
/// ```
/// Ioffe and Szegedy 2015, section 3, rearranged.
pub(crate) fn backward<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    tensors: &Tensors<Vec<A::Input>>,
    shapes: &Tensors<Description>,
    rule: &Rule,
) -> Tensors<Output<A::Real>> {
    let seed: Vec<A::Real> = tensors["grad_output.output"].iter().map(|&g| arithmetic.keep(g)).collect();
    backward_of(arithmetic, plan, tensors, shapes, rule, &seed)
}

/// The same where `seed` comes from above: what follows the standardization has been differentiated already.
pub(crate) fn backward_of<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    tensors: &Tensors<Vec<A::Input>>,
    shapes: &Tensors<Description>,
    rule: &Rule,
    seed: &[A::Real],
) -> Tensors<Output<A::Real>> {
    let (partition, affine) = (&plan.partition, &plan.affine);
    let input = &tensors["input"];
    let scale = rule.scale(plan.eps);
    let length = partition.run_length;
    let weight = tensors.get(affine.weight);
    let groups = if input.is_empty() { 0 } else { partition.groups() };

    let mut grad_input: Vec<A::Real> = input.iter().map(|&x| arithmetic.keep(x)).collect();
    let count = |name: &str| tensors.get(name).map_or(0, Vec::len);
    let mut weight_terms: Vec<Vec<A::Real>> = vec![Vec::new(); count(affine.weight)];
    let mut bias_terms: Vec<Vec<A::Real>> = vec![Vec::new(); count(affine.bias)];
    for group in 0..groups {
        let positions = partition.positions(group);
        let x: Vec<A::Input> = positions.iter().map(|&position| input[position]).collect();
        let moments = match plan.source {
            Source::Input => arithmetic.moments(Group::contiguous(&x), plan.centres(rule)),
            Source::Stored => {
                let channel = group % partition.inner;
                arithmetic.stored(tensors["running_mean"][channel], tensors["running_var"][channel])
            }
        };
        let scaling = arithmetic.scaling(&moments, &scale);
        let mut y = vec![A::Real::constant(0.0); x.len()];
        arithmetic.rescale(&x, &scaling, None, None, &mut y);
        let mut a = Vec::with_capacity(x.len());
        for (&position, &y) in positions.iter().zip(&y) {
            let start = position / length * length;
            let parameter = partition.place(start).parameter + (position - start) * partition.parameter.element_step;
            let g = seed[position];
            let weight = weight.filter(|_| rule.gradient != GradientRule::WithoutWeight);
            let product = weight.map_or(g, |weight| g * affine.factor(arithmetic, weight[parameter], rule));
            a.push(affine.rounded(arithmetic, product));
            if let Some(terms) = weight_terms.get_mut(parameter) {
                let raw = rule.gradient == GradientRule::WeightOfRawInput;
                let y = if raw { arithmetic.keep(input[position]) } else { affine.rounded(arithmetic, y) };
                terms.push(affine.rounded(arithmetic, g * y));
            }
            if let Some(terms) = bias_terms.get_mut(parameter) {
                terms.push(g);
            }
        }
        let constant = plan.source == Source::Stored || rule.gradient == GradientRule::StatisticsConstant;
        let gradient = if constant {
            a.iter().map(|&a| a * arithmetic.inverse(&scaling)).collect()
        } else {
            let centred = plan.centres(rule) && rule.gradient != GradientRule::WithoutMean;
            // Along zeros the variance's part vanishes.
            let zeros = vec![A::Real::constant(0.0); y.len()];
            let y = if rule.gradient == GradientRule::WithoutVariance { &zeros } else { &y };
            arithmetic.input_gradient(&x, &a, y, &scaling, centred)
        };
        for (position, gradient) in positions.into_iter().zip(gradient) {
            grad_input[position] = gradient;
        }
    }
    let mut gradients = Tensors::new();
    gradients.insert("grad_input".into(), Output { shape: shapes["input"].shape.clone(), values: grad_input });
    for (name, terms) in [(affine.weight, weight_terms), (affine.bias, bias_terms)] {
        if let Some(description) = shapes.get(name) {
            let total = |terms: Vec<A::Real>| {
                let count = A::Real::constant(terms.len() as f64);
                let sum = A::Real::sum(terms.into_iter());
                if rule.gradient == GradientRule::Averaged { sum / count } else { sum }
            };
            let values = terms.into_iter().map(total).collect();
            gradients.insert(format!("grad_{name}"), Output { shape: description.shape.clone(), values });
        }
    }
    gradients
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
        (None, Some(batches)) => Some(Factor::Reciprocal(batches.wrapping_add(rule.cumulative_offset))),
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
