//! Masked norms: statistics of the values that a mask keeps, for batches of sequences of unequal length. As Flax's
//! `LayerNorm`, `GroupNorm` and `BatchNorm` with `mask`.
//!
//! ```text
//! mask: of the input's shape; 0 leaves a value out of the statistics, anything else keeps it, k of a group's n
//! μ = Σ mᵢ·xᵢ/k      v = Σ mᵢ·(xᵢ − μ)²/k        y = (x − μ)/√(v + eps)·w + b      for every value, kept or not
//! grad_input = (aⱼ − mⱼ·(Σ a + ŷⱼ·Σ a·ŷ)/k)/σ     a = g·w; the sums are over the whole group
//! ```
//! A group of which nothing is kept has no mean: NaN. Of one kept value the variance is 0. Masked batch norm's running
//! statistics average the biased variance, as Flax and Keras do; momentum is the weight of the new value.

use serde::{Deserialize, Serialize};

use super::normalization::{check_dtypes, factor};
use super::running::{self, Keeping};
use super::values::{added, at, check_shapes, gradients, kept, sums};
use super::{
    BatchNorm, BatchNormDialect, Call, Definition, Description, Dialect, Given, GroupNorm, LayerNorm, MaskRule, Mode,
    OneValue, Output, Outputs, Plan, Refusal, RefusalKind, Refused, Rule, Signature, Source, Updates, json_float,
};
use crate::arithmetic::{Arithmetic, Group, Parameter, Real};
use crate::tensor::Tensors;

/// Masked layer norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskedLayerNorm {
    /// The trailing axes that are normalized together; at least one.
    pub normalized_shape: Vec<usize>,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

/// Masked group norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskedGroupNorm {
    /// The number of groups G, a divisor of C.
    pub num_groups: usize,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

/// Masked batch norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskedBatchNorm {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

const WITHOUT_STATE: Signature = Signature {
    required: &["input", "mask"],
    optional: &["weight", "bias"],
    outputs: &["output"],
    state: &[],
    differentiable: &["input", "weight", "bias"],
    modes: false,
};

macro_rules! masked {
    ($definition:ident, $name:literal, $signature:expr) => {
        impl Definition for $definition {
            const NAME: &'static str = $name;

            fn signature(&self) -> Signature {
                $signature
            }

            fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
                let plan = self.whole(call, rule)?;
                check_shapes(call, &["mask"], &call.tensors["input"].shape).map_err(Refused::uncounted)?;
                Ok(Plan { standardizes: false, ..plan })
            }

            fn forward<A: Arithmetic>(&self, given: Given<'_, A>) -> Outputs<A::Real> {
                forward(given)
            }

            fn backward<A: Arithmetic>(
                &self,
                given: Given<'_, A>,
                shapes: &Tensors<Description>,
            ) -> Tensors<Output<A::Real>> {
                backward(given, shapes)
            }
        }
    };
}

masked!(MaskedLayerNorm, "masked_layer_norm", WITHOUT_STATE);
masked!(MaskedGroupNorm, "masked_group_norm", WITHOUT_STATE);
masked!(
    MaskedBatchNorm,
    "masked_batch_norm",
    Signature {
        optional: &["weight", "bias", "running_mean", "running_var"],
        state: &["running_mean", "running_var"],
        modes: true,
        ..WITHOUT_STATE
    }
);

/// The plan without a mask.
impl MaskedLayerNorm {
    fn whole(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let (normalized_shape, eps) = (self.normalized_shape.clone(), self.eps);
        LayerNorm { normalized_shape, eps, dialect: Dialect::Pytorch }.plan(call, rule)
    }
}

impl MaskedGroupNorm {
    fn whole(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let group = GroupNorm { num_groups: self.num_groups, eps: self.eps, dialect: Dialect::Pytorch };
        group.plan(call, &Rule { one_value: OneValue::Accepted, ..*rule })
    }
}

impl MaskedBatchNorm {
    fn whole(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let batch = BatchNorm { spatial_dims: None, eps: self.eps, momentum: None, dialect: BatchNormDialect::Pytorch };
        let plan = batch.plan(call, &Rule { one_value: OneValue::Accepted, ..*rule })?;
        check_dtypes(call.tensors, &["weight", "bias", "running_mean", "running_var"]).map_err(Refused::uncounted)?;
        if plan.running && !self.momentum.is_finite() {
            let refusal = Refusal::new(RefusalKind::Parameter, "momentum is not finite");
            return Err(Refused::uncounted(refusal));
        }
        let moves = plan.running && call.mode == Mode::Train && rule.updates != Updates::Never;
        let update = if moves { factor(Some(self.momentum), None, rule) } else { None };
        // The biased variance is averaged.
        let keeping = Keeping { degrees_of_freedom: u8::from(rule.running_biased), ..Keeping::default() };
        Ok(Plan { update, keeping, ..plan })
    }
}

/// One group: what is in it, what the mask keeps, and its values standardized.
struct Masked<A: Arithmetic> {
    positions: Vec<usize>,
    kept: Vec<bool>,
    moments: A::Moments,
    scaling: A::Scaling,
    x: Vec<A::Input>,
}

impl<A: Arithmetic> Masked<A> {
    fn new(Given { arithmetic, plan, tensors, rule }: Given<'_, A>, group: usize) -> Masked<A> {
        let positions = plan.partition.positions(group);
        let x = at(&tensors["input"], &positions);
        let mask = at(&tensors["mask"], &positions);
        let keeps = |&mask: &A::Input| rule.mask == MaskRule::Ignored || arithmetic.keep(mask).value() != 0.0;
        let kept: Vec<bool> = mask.iter().map(keeps).collect();
        let moments = match plan.source {
            Source::Input => {
                // Zeros in the place of what the mask leaves out still count.
                let zero = mask.iter().find(|&&mask| arithmetic.keep(mask).value() == 0.0).copied();
                let counted = zero.filter(|_| rule.mask == MaskRule::Counted);
                let seen = x.iter().zip(&kept).filter_map(|(&x, &kept)| if kept { Some(x) } else { counted });
                arithmetic.moments(Group::contiguous(&seen.collect::<Vec<_>>()), true)
            }
            _ => {
                let channel = group % plan.partition.inner;
                arithmetic.stored(tensors["running_mean"][channel], tensors["running_var"][channel])
            }
        };
        let scaling = arithmetic.scaling(&moments, &rule.scale(plan.eps));
        Masked { positions, kept, moments, scaling, x }
    }

    /// The index of the weight and bias of element `k`.
    fn parameter(&self, plan: &Plan, k: usize) -> usize {
        let length = plan.partition.run_length;
        let start = self.positions[k] / length * length;
        plan.partition.place(start).parameter + (self.positions[k] - start) * plan.partition.parameter.element_step
    }
}

fn groups(plan: &Plan, elements: usize) -> std::ops::Range<usize> {
    0..if elements == 0 { 0 } else { plan.partition.groups() }
}

fn forward<A: Arithmetic>(given: Given<'_, A>) -> Outputs<A::Real> {
    let Given { arithmetic, plan, tensors, rule } = given;
    let mut output = kept(arithmetic, tensors, "input");
    let mut moments = Vec::new();
    for group in groups(plan, output.len()) {
        let masked = Masked::new(given, group);
        let of_elements = |name: &str| {
            let values = tensors.get(name)?;
            Some((0..masked.x.len()).map(|k| values[masked.parameter(plan, k)]).collect::<Vec<_>>())
        };
        let (weight, bias) = (of_elements("weight"), of_elements("bias"));
        let mut z = vec![A::Real::constant(0.0); masked.x.len()];
        let (weight, bias) = (weight.as_deref().map(Parameter::Each), bias.as_deref().map(Parameter::Each));
        arithmetic.rescale(&masked.x, &masked.scaling, weight, bias, &mut z);
        for (&position, z) in masked.positions.iter().zip(z) {
            output[position] = z;
        }
        moments.push(masked.moments);
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

fn backward<A: Arithmetic>(given: Given<'_, A>, shapes: &Tensors<Description>) -> Tensors<Output<A::Real>> {
    let Given { arithmetic, plan, tensors, .. } = given;
    let seed = kept(arithmetic, tensors, "grad_output.output");
    let weight = kept(arithmetic, tensors, "weight");
    let mut gradient = seed.clone();
    let count = |name: &str| tensors.get(name).map_or(0, Vec::len);
    let (mut weight_terms, mut bias_terms) = (sums(weight.len()), sums(count("bias")));
    for group in groups(plan, seed.len()) {
        let masked = Masked::new(given, group);
        let mut hat = vec![A::Real::constant(0.0); masked.x.len()];
        arithmetic.rescale(&masked.x, &masked.scaling, None, None, &mut hat);
        let mut a = at(&seed, &masked.positions);
        for (k, a) in a.iter_mut().enumerate() {
            let parameter = masked.parameter(plan, k);
            if let Some(terms) = bias_terms.get_mut(parameter) {
                terms.push(*a);
            }
            if let Some(terms) = weight_terms.get_mut(parameter) {
                terms.push(*a * hat[k]);
                *a = *a * weight[parameter];
            }
        }
        let inverse = arithmetic.inverse(&masked.scaling);
        let kept = masked.kept.iter().filter(|&&kept| kept).count();
        let count = A::Real::constant(kept as f64);
        let mean = A::Real::sum(a.iter().copied()) / count;
        let along = A::Real::sum(a.iter().zip(&hat).map(|(&a, &hat)| a * hat)) / count;
        for (k, &position) in masked.positions.iter().enumerate() {
            let through = masked.kept[k] && plan.source == Source::Input;
            let centred = if through { a[k] - mean - hat[k] * along } else { a[k] };
            gradient[position] = centred * inverse;
        }
    }
    gradients(shapes, [("input", gradient), ("weight", added(weight_terms)), ("bias", added(bias_terms))])
}
