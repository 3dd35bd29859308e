//! Norms outside the family, each written once, as a formula over numbers and the moments of what was sent.
//!
//! A formula is evaluated in the numbers of any arithmetic for its outputs, and on a [tape](tape) for its gradients: there
//! is no backward pass to write, or to get wrong.

mod tape;

use self::tape::{Tape, Taped};
use super::normalization::{check_dtypes, check_vectors, factor};
use super::values::{at, channels_first, kept};
use super::{
    Call, Description, Given, Mode, Output, Outputs, Partition, Plan, Refusal, RefusalKind, Rule, Signature, Source,
    Updates,
};
use crate::arithmetic::{Arithmetic, EpsPlace, Factor, Group, Real};
use crate::tensor::Tensors;

/// A norm as a formula.
pub(super) trait Formula {
    /// The outputs, the first of the plan's first, then the state.
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>>;
}

/// A tensor of an answer: its name, its shape and its elements.
pub(super) type Named<R> = (&'static str, Vec<usize>, Vec<R>);

/// What a formula is evaluated with.
pub(super) trait Evaluator {
    /// The numbers.
    type Real: Real;

    /// The elements of tensor `name`; none if it was not sent.
    fn tensor(&self, name: &str) -> Vec<Self::Real>;

    /// Mean and variance of the elements of tensor `name` at `positions`; if not `centred`, 0 and their mean square.
    fn moments(
        &self,
        name: &str,
        positions: &[usize],
        centred: bool,
        degrees_of_freedom: u8,
    ) -> (Self::Real, Self::Real);

    /// A hyper-parameter.
    fn parameter(&self, value: f64) -> Self::Real;

    /// (1 − α)·old + α·new, constant in every derivative, as the state of a layer is.
    fn mix(&self, old: Self::Real, new: Self::Real, factor: Factor) -> Self::Real;
}

/// The answer of a formula.
pub(super) fn forward<A: Arithmetic>(formula: &impl Formula, given: Given<'_, A>) -> Outputs<A::Real> {
    let Given { arithmetic, plan, tensors, rule } = given;
    answer(formula.outputs(&Direct { arithmetic, tensors }, plan, rule), plan)
}

/// The gradients of a formula's outputs by the tensors `differentiable` that were sent.
pub(super) fn backward<A: Arithmetic>(
    formula: &impl Formula,
    given: Given<'_, A>,
    differentiable: &[&'static str],
    shapes: &Tensors<Description>,
) -> Tensors<Output<A::Real>> {
    let tape = Tape::new();
    let leaves = leaves(&tape, given, differentiable);
    let direct = Direct { arithmetic: given.arithmetic, tensors: given.tensors };
    let outputs = formula.outputs(&Differentiated { direct, tape: &tape, leaves: &leaves }, given.plan, given.rule);
    gradients(&tape, given, &leaves, outputs, shapes)
}

// What does not depend on the formula stands apart, to be compiled once for an arithmetic and not for each formula in it.

fn answer<R>(outputs: Vec<Named<R>>, plan: &Plan) -> Outputs<R> {
    let tensors = outputs.into_iter().map(|(name, shape, values)| (name.to_owned(), Output { shape, values }));
    Outputs { tensors: tensors.collect(), num_batches_tracked: plan.num_batches_tracked }
}

/// Tensors, number by number on a tape.
type Leaves<'t, R> = Vec<(&'static str, Vec<Taped<'t, R>>)>;

fn leaves<'t, A: Arithmetic>(
    tape: &'t Tape<A::Real>,
    Given { arithmetic, tensors, .. }: Given<'_, A>,
    differentiable: &[&'static str],
) -> Leaves<'t, A::Real> {
    let of_tensor = |&name: &&'static str| {
        let leaves = kept(arithmetic, tensors, name).into_iter().map(|value| tape.leaf(value));
        (name, leaves.collect())
    };
    differentiable.iter().filter(|name| tensors.contains_key(**name)).map(of_tensor).collect()
}

fn gradients<'t, A: Arithmetic>(
    tape: &'t Tape<A::Real>,
    Given { arithmetic, tensors, .. }: Given<'_, A>,
    leaves: &[(&'static str, Vec<Taped<'t, A::Real>>)],
    outputs: Vec<Named<Taped<'t, A::Real>>>,
    shapes: &Tensors<Description>,
) -> Tensors<Output<A::Real>> {
    let seeds = outputs.iter().flat_map(|(name, _, values)| {
        let seeds = kept(arithmetic, tensors, &format!("grad_output.{name}"));
        seeds.into_iter().zip(values.iter().copied())
    });
    let all: Vec<Taped<'t, A::Real>> = leaves.iter().flat_map(|(_, leaves)| leaves).copied().collect();
    let mut gradients = tape.gradients(seeds, &all).into_iter();
    let named = leaves.iter().filter_map(|(name, leaves)| {
        let values: Vec<A::Real> = gradients.by_ref().take(leaves.len()).collect();
        Some((format!("grad_{name}"), Output { shape: shapes.get(*name)?.shape.clone(), values }))
    });
    named.collect()
}

/// Implements the passes of a [`Definition`](super::Definition) by its formula.
macro_rules! by_formula {
    () => {
        fn forward<A: $crate::arithmetic::Arithmetic>(
            &self,
            given: $crate::operation::Given<'_, A>,
        ) -> $crate::operation::Outputs<A::Real> {
            $crate::operation::formula::forward(self, given)
        }

        fn backward<A: $crate::arithmetic::Arithmetic>(
            &self,
            given: $crate::operation::Given<'_, A>,
            shapes: &$crate::tensor::Tensors<$crate::operation::Description>,
        ) -> $crate::tensor::Tensors<$crate::operation::Output<A::Real>> {
            $crate::operation::formula::backward(self, given, self.signature().differentiable, shapes)
        }
    };
}
pub(super) use by_formula;

/// The plan of a formula's layer: what goes in, and what moves.
pub(super) struct Layer {
    signature: Signature,
    others: &'static [&'static str],
    eps: f64,
    running: Option<(&'static str, f64)>,
}

impl Layer {
    /// A layer that adds `eps` to a variance. Each of its tensors but the input has an element for each channel.
    pub fn of(signature: Signature, eps: f64) -> Layer {
        Layer { signature, others: &[], eps, running: None }
    }

    /// The same, but for the shapes of `others`, which the layer checks itself.
    pub fn but(self, others: &'static [&'static str]) -> Layer {
        Layer { others, ..self }
    }

    /// With the running statistic `name`: where it is sent, training moves it by `momentum`, the weight of the new value,
    /// and evaluation normalizes with it.
    pub fn moving(self, name: &'static str, momentum: f64) -> Layer {
        Layer { running: Some((name, momentum)), ..self }
    }

    /// The plan for an input [N, C, *] of at least one value.
    ///
    /// # Errors
    /// If the input has a rank below 2 or no values, or a tensor has another type or shape than the layer takes.
    pub fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        let [batch, channels, length] = channels_first(call, 2..=usize::MAX, "rank 2 or more")?;
        let Signature { required, optional, .. } = self.signature;
        let tensors: Vec<&str> = required.iter().chain(optional).copied().filter(|&name| name != "input").collect();
        check_dtypes(call.tensors, &tensors)?;
        let vectors: Vec<&str> = tensors.into_iter().filter(|name| !self.others.contains(name)).collect();
        check_vectors(call.tensors, &vectors, channels)?;
        if batch * channels * length == 0 {
            return Err(Refusal::new(RefusalKind::Empty, "no values; expected at least one"));
        }
        let momentum = self.running.filter(|(name, _)| call.has(name)).map(|(_, momentum)| momentum);
        let (train, running) = (call.mode == Mode::Train, momentum.is_some());
        let stored = running && !train && !rule.batch_statistics_in_eval;
        let moves = running && train && rule.updates != Updates::Never;
        Ok(Plan {
            centred: true,
            source: if stored { Source::Stored } else { Source::Input },
            update: if moves { factor(momentum, None, rule) } else { None },
            running,
            ..Plan::of_norms(Partition::channels(batch, channels, length), &call.tensors["input"].shape, self.eps)
        })
    }
}

/// N, C and L of a plan that [`Layer`] made.
pub(super) fn sizes(plan: &Plan) -> [usize; 3] {
    [plan.partition.runs, plan.partition.inner, plan.partition.run_length]
}

/// The positions of channel `channel` of sample `sample`.
pub(super) fn instance(plan: &Plan, sample: usize, channel: usize) -> Vec<usize> {
    let [_, channels, length] = sizes(plan);
    let start = (sample * channels + channel) * length;
    (start..start + length).collect()
}

/// σ of a variance.
pub(super) fn sigma<E: Evaluator>(evaluator: &E, variance: E::Real, plan: &Plan, rule: &Rule) -> E::Real {
    let scale = rule.scale(plan.eps);
    let eps = evaluator.parameter(scale.eps);
    match scale.eps_place {
        EpsPlace::InsideRoot => (variance + eps).sqrt(),
        EpsPlace::OutsideRoot => variance.sqrt() + eps,
        EpsPlace::LowerLimit => variance.max(eps).sqrt(),
    }
}

/// The output w_c·y + b_c, in the plan's shape; either may be absent.
pub(super) fn affine<E: Evaluator>(evaluator: &E, plan: &Plan, y: Vec<E::Real>) -> Named<E::Real> {
    let [_, channels, length] = sizes(plan);
    let (weight, bias) = (evaluator.tensor("weight"), evaluator.tensor("bias"));
    let element = |(position, y): (usize, E::Real)| {
        let channel = position / length % channels;
        let y = if weight.is_empty() { y } else { y * weight[channel] };
        if bias.is_empty() { y } else { y + bias[channel] }
    };
    let (name, shape) = plan.outputs[0].clone();
    (name, shape, y.into_iter().enumerate().map(element).collect())
}

/// The state `name` after the call, where the plan moves it to `new`.
pub(super) fn moved<E: Evaluator>(
    evaluator: &E,
    plan: &Plan,
    name: &'static str,
    new: &dyn Fn(usize) -> E::Real,
) -> Named<E::Real> {
    let mut values = evaluator.tensor(name);
    if let Some(factor) = plan.update {
        for (index, value) in values.iter_mut().enumerate() {
            *value = evaluator.mix(*value, new(index), factor);
        }
    }
    (name, vec![values.len()], values)
}

/// Numbers of an arithmetic.
struct Direct<'a, A: Arithmetic> {
    arithmetic: &'a A,
    tensors: &'a Tensors<Vec<A::Input>>,
}

impl<A: Arithmetic> Evaluator for Direct<'_, A> {
    type Real = A::Real;

    fn tensor(&self, name: &str) -> Vec<A::Real> {
        kept(self.arithmetic, self.tensors, name)
    }

    fn moments(&self, name: &str, positions: &[usize], centred: bool, degrees_of_freedom: u8) -> (A::Real, A::Real) {
        let moments = self.arithmetic.moments(Group::contiguous(&at(&self.tensors[name], positions)), centred);
        (self.arithmetic.mean(&moments), self.arithmetic.variance(&moments, degrees_of_freedom))
    }

    fn parameter(&self, value: f64) -> A::Real {
        self.arithmetic.parameter(value)
    }

    fn mix(&self, old: A::Real, new: A::Real, factor: Factor) -> A::Real {
        self.arithmetic.mix_again(old, new, factor)
    }
}

/// Numbers on a tape.
struct Differentiated<'t, 'a, A: Arithmetic> {
    direct: Direct<'a, A>,
    tape: &'t Tape<A::Real>,
    leaves: &'t [(&'static str, Vec<Taped<'t, A::Real>>)],
}

impl<'t, A: Arithmetic> Differentiated<'t, '_, A> {
    fn leaves(&self, name: &str) -> Option<&'t [Taped<'t, A::Real>]> {
        self.leaves.iter().find(|(own, _)| *own == name).map(|(_, leaves)| leaves.as_slice())
    }
}

impl<'t, A: Arithmetic> Evaluator for Differentiated<'t, '_, A> {
    type Real = Taped<'t, A::Real>;

    fn tensor(&self, name: &str) -> Vec<Taped<'t, A::Real>> {
        match self.leaves(name) {
            Some(leaves) => leaves.to_vec(),
            None => self.direct.tensor(name).into_iter().map(Taped::fixed).collect(),
        }
    }

    fn moments(
        &self,
        name: &str,
        positions: &[usize],
        centred: bool,
        degrees_of_freedom: u8,
    ) -> (Taped<'t, A::Real>, Taped<'t, A::Real>) {
        let (mean, variance) = self.direct.moments(name, positions, centred, degrees_of_freedom);
        let Some(leaves) = self.leaves(name) else { return (Taped::fixed(mean), Taped::fixed(variance)) };
        let own = || positions.iter().map(|&position| leaves[position]);
        let count = positions.len() as f64;
        // ∂μ/∂x = 1/n, ∂v/∂x = 2·(x − μ)/(n − degrees of freedom)
        let share = A::Real::constant(1.0) / A::Real::constant(count);
        let slope = A::Real::constant(2.0) / A::Real::constant(count - f64::from(degrees_of_freedom));
        let of_variance = |x: Taped<'t, A::Real>| {
            let deviation = if centred { x.value.deviation(mean) } else { x.value };
            (x, deviation * slope)
        };
        let mean = match centred {
            true => self.tape.known(mean, own().map(|x| (x, share))),
            false => Taped::fixed(mean),
        };
        (mean, self.tape.known(variance, own().map(of_variance)))
    }

    fn parameter(&self, value: f64) -> Taped<'t, A::Real> {
        Taped::fixed(self.direct.parameter(value))
    }

    fn mix(&self, old: Taped<'t, A::Real>, new: Taped<'t, A::Real>, factor: Factor) -> Taped<'t, A::Real> {
        Taped::fixed(self.direct.mix(old.value, new.value, factor))
    }
}
