//! Evolved normalization-activation layers (Liu et al. 2020, arXiv 2004.02967, table 1), as `timm.layers.EvoNorm2dB0` and its
//! siblings.
//!
//! ```text
//! input: [N, C, *]    weight, bias, v: [C]      z = y·w_c + b_c
//! B0  y = x/max(√(v_NL + eps), v_c·x + √(v_L + eps))      v_NL: the batch's variance, v_L: the instance's, both biased
//! B1  y = x/max(√(v_NL + eps), (x + 1)·√(mean_L x² + eps))
//! B2  y = x/max(√(v_NL + eps), √(mean_L x² + eps) − x)
//! S0  y = x·sigmoid(v_c·x)/√(v_G + eps)                   v_G: the variance of a group of neighbouring channels
//! S1  y = x·sigmoid(x)/√(v_G + eps)
//! S2  y = x·sigmoid(x)/√(mean_G x² + eps)
//! ```
//! Nothing is centred. The batch series keeps a running variance, unbiased, momentum the weight of the new value, and
//! divides by it in evaluation; one value a channel has none, so training is refused. Without `v` it is 1. Where the
//! branches of a maximum meet each gets half of the gradient, as `torch.maximum` has it.

use serde::{Deserialize, Serialize};

use super::normalization::{check_dtypes, check_vectors, factor};
use super::running::{self, Keeping};
use super::values::{added, at, channels_first, gradients, kept, sums};
use super::{
    Call, Definition, Description, Dialect, Given, GroupNorm, Mode, OneValue, Output, Outputs, Partition, Plan,
    Refusal, RefusalKind, Refused, Rule, Signature, Source, Updates, json_float,
};
use crate::arithmetic::{Arithmetic, Function, Group, Real};
use crate::tensor::Tensors;

const VECTORS: [&str; 4] = ["weight", "bias", "v", "running_var"];

macro_rules! batch_series {
    ($definition:ident, $name:literal, $right:expr, $optional:expr, $differentiable:expr) => {
        /// Its hyper-parameters.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $definition {
            /// Added to every variance and mean square.
            #[serde(with = "json_float")]
            pub eps: f64,
            /// The weight of the new value.
            #[serde(with = "json_float")]
            pub momentum: f64,
        }

        impl Definition for $definition {
            const NAME: &'static str = $name;

            fn signature(&self) -> Signature {
                Signature {
                    optional: $optional,
                    state: &["running_var"],
                    differentiable: $differentiable,
                    modes: true,
                    ..Signature::STATELESS
                }
            }

            fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
                batch_plan(call, self.eps, self.momentum, rule).map_err(Refused::uncounted)
            }

            fn forward<A: Arithmetic>(&self, given: Given<'_, A>) -> Outputs<A::Real> {
                batch_forward(given, $right)
            }

            fn backward<A: Arithmetic>(
                &self,
                given: Given<'_, A>,
                shapes: &Tensors<Description>,
            ) -> Tensors<Output<A::Real>> {
                batch_backward(given, $right, shapes)
            }
        }
    };
}

const BOTH: &[&str] = &["weight", "bias", "running_var"];
const DIFFERENTIABLE: &[&str] = &["input", "weight", "bias"];

batch_series!(
    EvoNormB0,
    "evo_norm_b0",
    Right::Deviation,
    &["weight", "bias", "v", "running_var"],
    &["input", "weight", "bias", "v"]
);
batch_series!(EvoNormB1, "evo_norm_b1", Right::Product, BOTH, DIFFERENTIABLE);
batch_series!(EvoNormB2, "evo_norm_b2", Right::Difference, BOTH, DIFFERENTIABLE);

macro_rules! sample_series {
    ($definition:ident, $name:literal, $centred:literal, $optional:expr, $differentiable:expr) => {
        /// Its hyper-parameters.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $definition {
            /// The number of groups G, a divisor of C.
            pub num_groups: usize,
            /// Added to the variance, or to the mean square.
            #[serde(with = "json_float")]
            pub eps: f64,
        }

        impl Definition for $definition {
            const NAME: &'static str = $name;

            fn signature(&self) -> Signature {
                Signature { optional: $optional, differentiable: $differentiable, ..Signature::STATELESS }
            }

            fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
                let group = GroupNorm { num_groups: self.num_groups, eps: self.eps, dialect: Dialect::Pytorch };
                let plan = group.plan(call, &Rule { one_value: OneValue::Accepted, ..*rule })?;
                check_dtypes(call.tensors, &VECTORS)
                    .and_then(|()| check_vectors(call.tensors, &VECTORS, call.tensors["input"].shape[1]))
                    .map_err(Refused::uncounted)?;
                Ok(Plan { standardizes: false, centred: $centred, ..plan })
            }

            fn forward<A: Arithmetic>(&self, given: Given<'_, A>) -> Outputs<A::Real> {
                sample_forward(given)
            }

            fn backward<A: Arithmetic>(
                &self,
                given: Given<'_, A>,
                shapes: &Tensors<Description>,
            ) -> Tensors<Output<A::Real>> {
                sample_backward(given, shapes)
            }
        }
    };
}

sample_series!(EvoNormS0, "evo_norm_s0", true, &["weight", "bias", "v"], &["input", "weight", "bias", "v"]);
sample_series!(EvoNormS1, "evo_norm_s1", true, &["weight", "bias"], DIFFERENTIABLE);
sample_series!(EvoNormS2, "evo_norm_s2", false, &["weight", "bias"], DIFFERENTIABLE);

/// The right branch of a maximum.
#[derive(Clone, Copy, PartialEq)]
enum Right {
    /// v·x + the instance's deviation
    Deviation,
    /// (x + 1)·the instance's root mean square
    Product,
    /// the instance's root mean square − x
    Difference,
}

fn batch_plan(call: &Call<'_>, eps: f64, momentum: f64, rule: &Rule) -> Result<Plan, Refusal> {
    let [batch, channels, length] = channels_first(call, 3..=usize::MAX, "rank 3 or more")?;
    check_dtypes(call.tensors, &VECTORS)?;
    check_vectors(call.tensors, &VECTORS, channels)?;
    let (train, running) = (call.mode == Mode::Train, call.has("running_var"));
    let from_input = train || !running || rule.batch_statistics_in_eval;
    if from_input && batch * length == 1 && rule.one_value != OneValue::Accepted {
        let message = "one value per channel has no unbiased variance; expected more than one";
        return Err(Refusal::new(RefusalKind::TooFewValues, message));
    }
    let moves = running && train && rule.updates != Updates::Never;
    let shape = &call.tensors["input"].shape;
    Ok(Plan {
        centred: true,
        source: if from_input { Source::Input } else { Source::Stored },
        update: if moves { factor(Some(momentum), None, rule) } else { None },
        keeping: Keeping::of(rule, Some(momentum), None),
        running,
        ..Plan::of_norms(Partition::channels(batch, channels, length), shape, eps)
    })
}

/// The statistics of a group, and its values standardized by them.
struct Statistics<A: Arithmetic> {
    moments: A::Moments,
    sigma: A::Real,
    hat: Vec<A::Real>,
}

impl<A: Arithmetic> Statistics<A> {
    fn new(arithmetic: &A, x: &[A::Input], centred: bool, plan: &Plan, rule: &Rule) -> Statistics<A> {
        let moments = arithmetic.moments(Group::contiguous(x), centred);
        let scaling = arithmetic.scaling(&moments, &rule.scale(plan.eps));
        let mut hat = vec![A::Real::constant(0.0); x.len()];
        arithmetic.rescale(x, &scaling, None, None, &mut hat);
        Statistics { moments, sigma: A::Real::constant(1.0) / arithmetic.inverse(&scaling), hat }
    }
}

/// A channel of the batch series: its statistics, and those of its instances.
struct Channel<A: Arithmetic> {
    positions: Vec<usize>,
    x: Vec<A::Real>,
    left: A::Real,
    batch: Option<Statistics<A>>,
    instances: Vec<Statistics<A>>,
    v: A::Real,
    right: Vec<A::Real>,
    /// The larger branch.
    divisor: Vec<A::Real>,
    y: Vec<A::Real>,
}

impl<A: Arithmetic> Channel<A> {
    fn new(Given { arithmetic, plan, tensors, rule }: Given<'_, A>, kind: Right, channel: usize) -> Channel<A> {
        let positions = plan.partition.positions(channel);
        let raw = at(&tensors["input"], &positions);
        let x: Vec<A::Real> = raw.iter().map(|&x| arithmetic.keep(x)).collect();
        let from_input = plan.source == Source::Input;
        let batch = from_input.then(|| Statistics::new(arithmetic, &raw, true, plan, rule));
        let stored = || {
            let variance = arithmetic.keep(tensors["running_var"][channel]);
            (variance + arithmetic.parameter(rule.scale(plan.eps).eps)).sqrt()
        };
        let left = batch.as_ref().map_or_else(stored, |batch| batch.sigma);
        let (length, centred) = (plan.partition.run_length, kind == Right::Deviation);
        let instance = |x: &[A::Input]| Statistics::new(arithmetic, x, centred, plan, rule);
        let instances: Vec<Statistics<A>> = raw.chunks(length).map(instance).collect();
        let v = tensors.get("v").map_or(A::Real::constant(1.0), |v| arithmetic.keep(v[channel]));
        let right: Vec<A::Real> = x
            .iter()
            .enumerate()
            .map(|(k, &x)| {
                let sigma = instances[k / length].sigma;
                match kind {
                    Right::Deviation => v * x + sigma,
                    Right::Product => (x + A::Real::constant(1.0)) * sigma,
                    Right::Difference => sigma - x,
                }
            })
            .collect();
        let larger = |right: A::Real| if rule.smaller_branch { -((-left).max(-right)) } else { left.max(right) };
        let divisor: Vec<A::Real> = right.iter().map(|&right| larger(right)).collect();
        let y = x.iter().zip(&divisor).map(|(&x, &divisor)| x / divisor).collect();
        Channel { positions, x, left, batch, instances, v, right, divisor, y }
    }
}

fn batch_forward<A: Arithmetic>(given: Given<'_, A>, kind: Right) -> Outputs<A::Real> {
    let Given { arithmetic, plan, tensors, rule } = given;
    let mut output = kept(arithmetic, tensors, "input");
    let (weight, bias) = (kept(arithmetic, tensors, "weight"), kept(arithmetic, tensors, "bias"));
    let mut moments = Vec::new();
    let count = if output.is_empty() { 0 } else { plan.partition.groups() };
    for channel in 0..count {
        let group = Channel::new(given, kind, channel);
        for (&position, &y) in group.positions.iter().zip(&group.y) {
            let y = if weight.is_empty() { y } else { y * weight[channel] };
            output[position] = if bias.is_empty() { y } else { y + bias[channel] };
        }
        moments.extend(group.batch.map(|batch| batch.moments));
    }
    let mut outputs = Outputs::of(plan, output);
    if plan.running {
        let state = |name: &str| tensors.get(name).map(Vec::as_slice);
        for (name, values) in running::moved(arithmetic, plan, &moments, &state, rule) {
            outputs.tensors.insert(name.into(), Output { shape: vec![values.len()], values });
        }
    }
    outputs
}

fn batch_backward<A: Arithmetic>(
    given: Given<'_, A>,
    kind: Right,
    shapes: &Tensors<Description>,
) -> Tensors<Output<A::Real>> {
    let Given { arithmetic, plan, tensors, .. } = given;
    let (weight, seed) = (kept(arithmetic, tensors, "weight"), kept(arithmetic, tensors, "grad_output.output"));
    let (one, channels) = (A::Real::constant(1.0), plan.partition.inner);
    let (mut gradient, mut grad_v) = (seed.clone(), sums(channels));
    let (mut grad_weight, mut grad_bias) = (sums(channels), sums(channels));
    let count = if seed.is_empty() { 0 } else { plan.partition.groups() };
    for channel in 0..count {
        let group = Channel::new(given, kind, channel);
        let (length, size) = (plan.partition.run_length, group.x.len());
        // What falls to the left branch, and to the right one of each instance.
        let (mut to_left, mut to_right) = (Vec::new(), sums(group.instances.len()));
        let mut direct = Vec::with_capacity(size);
        for (k, &position) in group.positions.iter().enumerate() {
            let g = seed[position];
            grad_weight[channel].push(g * group.y[k]);
            grad_bias[channel].push(g);
            let a = if weight.is_empty() { g } else { g * weight[channel] } / group.divisor[k];
            let through = -(a * group.y[k]);
            let left = (group.left - group.right[k]).step();
            let right = through * (one - left);
            to_left.push(through * left);
            let sigma = group.instances[k / length].sigma;
            let (of_x, of_sigma) = match kind {
                Right::Deviation => {
                    grad_v[channel].push(right * group.x[k]);
                    (right * group.v, right)
                }
                Right::Product => (right * sigma, right * (group.x[k] + one)),
                Right::Difference => (-right, right),
            };
            to_right[k / length].push(of_sigma);
            direct.push(a + of_x);
        }
        let left = A::Real::sum(to_left.into_iter()) / A::Real::constant(size as f64);
        let per_instance = A::Real::constant(length as f64);
        let right: Vec<A::Real> = added(to_right).into_iter().map(|sum| sum / per_instance).collect();
        for (k, &position) in group.positions.iter().enumerate() {
            let instance = &group.instances[k / length];
            let through = direct[k] + instance.hat[k % length] * right[k / length];
            gradient[position] = group.batch.as_ref().map_or(through, |batch| through + batch.hat[k] * left);
        }
    }
    let parameters = [("weight", added(grad_weight)), ("bias", added(grad_bias)), ("v", added(grad_v))];
    let [weight, bias, v] = parameters;
    gradients(shapes, [("input", gradient), weight, bias, v])
}

/// A group of the sample series: x·sigmoid(v·x) by a deviation.
struct Sample<A: Arithmetic> {
    positions: Vec<usize>,
    statistics: Statistics<A>,
    x: Vec<A::Real>,
    v: Vec<A::Real>,
    sigmoid: Vec<A::Real>,
    y: Vec<A::Real>,
}

impl<A: Arithmetic> Sample<A> {
    fn new(Given { arithmetic, plan, tensors, rule }: Given<'_, A>, group: usize) -> Sample<A> {
        let positions = plan.partition.positions(group);
        let raw = at(&tensors["input"], &positions);
        let statistics = Statistics::new(arithmetic, &raw, plan.centred, plan, rule);
        let x: Vec<A::Real> = raw.iter().map(|&x| arithmetic.keep(x)).collect();
        let one = A::Real::constant(1.0);
        let v_of = |&position: &usize| tensors.get("v").map_or(one, |v| arithmetic.keep(v[channel_of(plan, position)]));
        let v: Vec<A::Real> = positions.iter().map(v_of).collect();
        let sigmoid = |(&x, &v): (&A::Real, &A::Real)| match rule.inactive {
            true => one,
            false => (v * x).function(Function::Sigmoid),
        };
        let sigmoid: Vec<A::Real> = x.iter().zip(&v).map(sigmoid).collect();
        let y = x.iter().zip(&sigmoid).map(|(&x, &sigmoid)| x * sigmoid / statistics.sigma).collect();
        Sample { positions, statistics, x, v, sigmoid, y }
    }
}

/// The channel of an element: as [`GroupNorm`] partitions.
fn channel_of(plan: &Plan, position: usize) -> usize {
    let Partition { inner, runs, run_length, .. } = plan.partition;
    position / run_length % (inner * runs)
}

fn sample_forward<A: Arithmetic>(given: Given<'_, A>) -> Outputs<A::Real> {
    let Given { arithmetic, plan, tensors, .. } = given;
    let mut output = kept(arithmetic, tensors, "input");
    let (weight, bias) = (kept(arithmetic, tensors, "weight"), kept(arithmetic, tensors, "bias"));
    let count = if output.is_empty() { 0 } else { plan.partition.groups() };
    for group in 0..count {
        let group = Sample::new(given, group);
        for (&position, &y) in group.positions.iter().zip(&group.y) {
            let channel = channel_of(plan, position);
            let y = if weight.is_empty() { y } else { y * weight[channel] };
            output[position] = if bias.is_empty() { y } else { y + bias[channel] };
        }
    }
    Outputs::of(plan, output)
}

fn sample_backward<A: Arithmetic>(given: Given<'_, A>, shapes: &Tensors<Description>) -> Tensors<Output<A::Real>> {
    let Given { arithmetic, plan, tensors, rule } = given;
    let (weight, seed) = (kept(arithmetic, tensors, "weight"), kept(arithmetic, tensors, "grad_output.output"));
    let channels = plan.partition.inner * plan.partition.runs;
    let (one, mut gradient) = (A::Real::constant(1.0), seed.clone());
    let (mut grad_weight, mut grad_bias, mut grad_v) = (sums(channels), sums(channels), sums(channels));
    let count = if seed.is_empty() { 0 } else { plan.partition.groups() };
    for group in 0..count {
        let group = Sample::new(given, group);
        let sigma = group.statistics.sigma;
        let (mut along, mut direct) = (Vec::new(), Vec::new());
        for (k, &position) in group.positions.iter().enumerate() {
            let (channel, g, x) = (channel_of(plan, position), seed[position], group.x[k]);
            grad_weight[channel].push(g * group.y[k]);
            grad_bias[channel].push(g);
            let a = if weight.is_empty() { g } else { g * weight[channel] } / sigma;
            along.push(a * group.y[k]);
            let sigmoid = group.sigmoid[k];
            let slope = if rule.inactive { A::Real::constant(0.0) } else { x * (sigmoid * (one - sigmoid)) };
            grad_v[channel].push(a * (x * slope));
            direct.push(a * (sigmoid + group.v[k] * slope));
        }
        let along = A::Real::sum(along.into_iter()) / A::Real::constant(group.x.len() as f64);
        for (k, &position) in group.positions.iter().enumerate() {
            gradient[position] = direct[k] - group.statistics.hat[k] * along;
        }
    }
    let [weight, bias, v] = [grad_weight, grad_bias, grad_v].map(added);
    gradients(shapes, [("input", gradient), ("weight", weight), ("bias", bias), ("v", v)])
}
