//! The family of norms that share one kernel: *partition* the elements, take the *moments* of each group, *rescale*, apply
//! the affine parameters, and move the running statistics.
//!
//! ```text
//! z = w·(x − μ)/√(v + eps) + b            μ, v: the group's own, or stored
//! ```
//! How the running statistics move is [`running`](super::running)'s.
//! Which elements make a group is the [`Partition`]; all else that an operation may choose is its [`Rule`].

use super::mistakes::{elements_seen, first_half, put_means_back};
use super::running::{self, Keeping};
use super::{
    Centring, Cumulative, Description, GradientRule, MomentumSense, Partition, Refusal, RefusalKind, Rule,
    TrainingStatistics, Updates, WeightReading,
};
use crate::arithmetic::{Arithmetic, DataType, Factor, Group, Parameter, Real, Runs};
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
    /// How the running statistics are kept, and read.
    pub keeping: Keeping,
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
            keeping: Keeping::default(),
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
        self.centred || rule.centring == Centring::Subtracted
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
    /// `running_mean` and `running_var`, as the plan's [`Keeping`] reads them.
    Stored,
    /// The running statistics as they are after this batch.
    Average,
    /// None are needed: y = x.
    Nothing,
}

impl Source {
    /// The source of a call that normalizes with the input's statistics, or with stored ones; `trains` and moves them.
    pub(super) fn of(from_input: bool, trains: bool, rule: &Rule) -> Source {
        match rule.training {
            TrainingStatistics::Updated if trains => Source::Average,
            _ if from_input => Source::Input,
            _ => Source::Stored,
        }
    }
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
        match rule.weight {
            WeightReading::One => A::Real::constant(1.0),
            reading if self.one_plus == (reading == WeightReading::Offset) => weight,
            _ => A::Real::constant(1.0) + weight,
        }
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
    let state = |name: &str| tensors.get(name).map(Vec::as_slice);
    let scale = rule.scale(plan.eps);

    // Without elements there are no statistics: nothing is normalized, nothing moves.
    let groups = if input.is_empty() { 0 } else { partition.groups() };
    let moments = |runs: Runs| arithmetic.moments(Group::new(input, runs), plan.centres(rule));
    let current: Vec<A::Moments> = if matches!(plan.source, Source::Input | Source::Average) || plan.update.is_some() {
        (0..groups).map(|group| moments(elements_seen(plan, group, input.len(), rule.elements))).collect()
    } else {
        Vec::new()
    };
    let of_half: Option<Vec<A::Moments>> = (rule.running_of_first_half && plan.update.is_some())
        .then(|| (0..groups).map(|group| moments(first_half(plan, group))).collect());
    let moved = match plan.running {
        true => running::moved(arithmetic, plan, of_half.as_ref().unwrap_or(&current), &state, rule),
        false => Vec::new(),
    };
    let of_channels = 0..partition.inner;
    let normalizing: Vec<A::Moments> = match plan.source {
        _ if groups == 0 => Vec::new(),
        Source::Nothing => Vec::new(),
        Source::Input => current,
        Source::Stored => of_channels.map(|channel| running::read(arithmetic, plan, &state, channel)).collect(),
        Source::Average => of_channels.map(|channel| running::averaged(arithmetic, &moved, channel)).collect(),
    };
    let scalings: Vec<A::Scaling> = normalizing.iter().map(|moments| arithmetic.scaling(moments, &scale)).collect();

    let mut outputs = Tensors::new();
    let mut output: Vec<A::Real> = input.iter().map(|&x| arithmetic.keep(x)).collect();
    let length = partition.run_length;
    if !scalings.is_empty() {
        for (index, (run, out)) in input.chunks(length).zip(output.chunks_mut(length)).enumerate() {
            let place = partition.place(index * length);
            let scaling = match plan.source {
                Source::Input => &scalings[place.group],
                _ => &scalings[place.group % partition.inner],
            };
            let parameter = |name: &str| {
                let values = tensors.get(name)?;
                Some(match partition.parameter.element_step {
                    0 => Parameter::One(values[place.parameter]),
                    _ => Parameter::Each(&values[place.parameter..][..length]),
                })
            };
            let (weight, bias) = (parameter(plan.affine.weight), parameter(plan.affine.bias));
            if !plan.affine.one_plus && plan.affine.cast.is_none() && rule.weight == WeightReading::AsGiven {
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
    if rule.centring == Centring::Kept && plan.centred && !scalings.is_empty() {
        put_means_back(arithmetic, plan, tensors, (&normalizing, &scalings), &mut output);
    }

    for (name, values) in moved {
        outputs.insert(name.into(), Output { shape: vec![values.len()], values });
    }
    outputs.insert("output".into(), Output { shape: plan.outputs[0].1.clone(), values: output });
    Outputs { tensors: outputs, num_batches_tracked: plan.num_batches_tracked }
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
    let state = |name: &str| tensors.get(name).map(Vec::as_slice);
    let moved = match plan.source {
        Source::Average => {
            let of_group = |group| arithmetic.moments(Group::new(input, partition.group(group)), plan.centred);
            let current: Vec<A::Moments> = (0..groups).map(of_group).collect();
            running::moved(arithmetic, plan, &current, &state, rule)
        }
        _ => Vec::new(),
    };

    let mut grad_input: Vec<A::Real> = input.iter().map(|&x| arithmetic.keep(x)).collect();
    let count = |name: &str| tensors.get(name).map_or(0, Vec::len);
    let mut weight_terms: Vec<Vec<A::Real>> = vec![Vec::new(); count(affine.weight)];
    let mut bias_terms: Vec<Vec<A::Real>> = vec![Vec::new(); count(affine.bias)];
    for group in 0..groups {
        let positions = partition.positions(group);
        let x: Vec<A::Input> = positions.iter().map(|&position| input[position]).collect();
        let moments = match plan.source {
            Source::Input => arithmetic.moments(Group::contiguous(&x), plan.centres(rule)),
            Source::Stored => running::read(arithmetic, plan, &state, group % partition.inner),
            Source::Average => running::averaged(arithmetic, &moved, group % partition.inner),
            Source::Nothing => {
                positions.into_iter().for_each(|position| grad_input[position] = seed[position]);
                continue;
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
        let gradient = if plan.source == Source::Average && !constant {
            running::average_gradient(arithmetic, plan, &x, &a, &y, &scaling)
        } else if constant {
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
                match rule.gradient {
                    GradientRule::Averaged => sum / count,
                    GradientRule::WithoutParameters => A::Real::constant(0.0),
                    _ => sum,
                }
            };
            let values = terms.into_iter().map(total).collect();
            gradients.insert(format!("grad_{name}"), Output { shape: description.shape.clone(), values });
        }
    }
    gradients
}

/// Whether a call normalizes with the statistics of its own batch.
pub(super) fn normalizes_by_batch(train: bool, running: bool, rule: &Rule) -> bool {
    let in_training = train && rule.training != TrainingStatistics::Running;
    in_training || !running || !train && rule.batch_statistics_in_eval
}

/// Whether the running statistics move.
pub(super) fn moves(train: bool, rule: &Rule) -> bool {
    match rule.updates {
        Updates::InTraining | Updates::Twice => train,
        Updates::Always => true,
        Updates::Never => false,
    }
}

/// The weight of the new value for a momentum, `None` being the cumulative average over `batches`.
pub(super) fn factor(momentum: Option<f64>, batches: Option<i64>, rule: &Rule) -> Option<Factor> {
    match (momentum, batches, rule.cumulative) {
        (Some(momentum), ..) if rule.updates == Updates::Twice => Some(Factor::OfNew(momentum * (2.0 - momentum))),
        (Some(momentum), ..) => Some(match rule.momentum {
            MomentumSense::OfNew => Factor::OfNew(momentum),
            MomentumSense::OfOld => Factor::OfOld(momentum),
        }),
        (None, _, Cumulative::DefaultMomentum) => Some(Factor::OfNew(0.1)),
        (None, Some(batches), _) if rule.updates == Updates::Twice => Some(Factor::OfNew(2.0 / batches as f64)),
        (None, Some(batches), cumulative) => {
            Some(Factor::Reciprocal(batches.wrapping_add(i64::from(cumulative == Cumulative::OneTooMany))))
        }
        (None, None, _) => None,
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
