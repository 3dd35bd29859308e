//! Activations in the place of a norm: dynamic tanh (Zhu et al. 2025, arXiv 2503.10622) and dynamic erf (Chen et al. 2025,
//! arXiv 2512.10938), as `x_transformers.DynamicTanh` and `Derf`.
//!
//! ```text
//! input: [*, D]    f = tanh, or erf with a shift s
//! y = w·f(α·x + s) + b                    alpha, shift: [1], α = ½ at first;  weight, bias: [D]
//! grad_input = a·α      grad_alpha = Σ a·x      grad_shift = Σ a      a = g·w·f′(α·x + s)
//! ```
//! They take no statistics: |y − b| ≤ |w|, and nothing else that a norm promises.

use serde::{Deserialize, Serialize};

use super::normalization::check_dtypes;
use super::values::{added, check_shapes, gradients, kept, misshapen, sums};
use super::{
    Call, Definition, Description, Given, Output, Outputs, Partition, Plan, Refusal, Refused, Rule, Signature,
};
use crate::arithmetic::{Arithmetic, Function, Real, SLOPE_OF_ERF};
use crate::tensor::Tensors;

/// Dynamic tanh has no hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicTanh {}

/// Dynamic erf has no hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicErf {}

macro_rules! dynamic {
    ($definition:ident, $name:literal, $function:expr, $optional:expr, $differentiable:expr) => {
        impl Definition for $definition {
            const NAME: &'static str = $name;

            fn signature(&self) -> Signature {
                Signature {
                    required: &["input", "alpha"],
                    optional: $optional,
                    differentiable: $differentiable,
                    ..Signature::STATELESS
                }
            }

            fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
                plan(call).map_err(Refused::uncounted)
            }

            fn forward<A: Arithmetic>(
                &self,
                Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
            ) -> Outputs<A::Real> {
                forward(arithmetic, $function, plan, tensors, rule)
            }

            fn backward<A: Arithmetic>(
                &self,
                Given { arithmetic, tensors, rule, .. }: Given<'_, A>,
                shapes: &Tensors<Description>,
            ) -> Tensors<Output<A::Real>> {
                backward(arithmetic, $function, tensors, shapes, rule)
            }
        }
    };
}

dynamic!(DynamicTanh, "dynamic_tanh", Function::Tanh, &["weight", "bias"], &["input", "alpha", "weight", "bias"]);
dynamic!(
    DynamicErf,
    "dynamic_erf",
    Function::Erf,
    &["shift", "weight", "bias"],
    &["input", "alpha", "shift", "weight", "bias"]
);

fn plan(call: &Call<'_>) -> Result<Plan, Refusal> {
    let shape = call.tensors["input"].shape.as_slice();
    let Some(&features) = shape.last() else { return Err(misshapen("the input", shape, "rank 1 or more")) };
    check_dtypes(call.tensors, &["alpha", "shift", "weight", "bias"])?;
    check_shapes(call, &["alpha", "shift"], &[1])?;
    check_shapes(call, &["weight", "bias"], &[features])?;
    Ok(Plan::of_norms(Partition::whole(shape.iter().product()), shape, 0.0))
}

/// α·x + s for each element, and f of it.
fn inner<A: Arithmetic>(
    arithmetic: &A,
    function: Function,
    tensors: &Tensors<Vec<A::Input>>,
    rule: &Rule,
) -> Vec<(A::Real, A::Real)> {
    let [input, alpha, shift] = ["input", "alpha", "shift"].map(|name| kept(arithmetic, tensors, name));
    let pair = |x: A::Real| {
        let scaled = if rule.alpha_dropped { x } else { alpha[0] * x };
        let argument = shift.first().map_or(scaled, |&shift| scaled + shift);
        (argument, if rule.inactive { argument } else { argument.function(function) })
    };
    input.into_iter().map(pair).collect()
}

fn forward<A: Arithmetic>(
    arithmetic: &A,
    function: Function,
    plan: &Plan,
    tensors: &Tensors<Vec<A::Input>>,
    rule: &Rule,
) -> Outputs<A::Real> {
    let (weight, bias) = (kept(arithmetic, tensors, "weight"), kept(arithmetic, tensors, "bias"));
    let values = inner(arithmetic, function, tensors, rule).into_iter().enumerate().map(|(index, (_, f))| {
        let z = if weight.is_empty() { f } else { f * weight[index % weight.len()] };
        if bias.is_empty() { z } else { z + bias[index % bias.len()] }
    });
    Outputs::of(plan, values.collect())
}

fn backward<A: Arithmetic>(
    arithmetic: &A,
    function: Function,
    tensors: &Tensors<Vec<A::Input>>,
    shapes: &Tensors<Description>,
    rule: &Rule,
) -> Tensors<Output<A::Real>> {
    let [input, alpha, weight, seed] =
        ["input", "alpha", "weight", "grad_output.output"].map(|name| kept(arithmetic, tensors, name));
    let features = shapes["input"].shape.last().copied().unwrap_or(1);
    let (mut grad_weight, mut grad_bias) = (sums(features), sums(features));
    let (mut grad_input, mut grad_alpha, mut grad_shift) = (Vec::new(), Vec::new(), Vec::new());
    // The constant as a program has it, rounded once.
    let steepest = arithmetic.parameter(SLOPE_OF_ERF.hi) + A::Real::constant(SLOPE_OF_ERF.lo);
    for (index, (argument, f)) in inner(arithmetic, function, tensors, rule).into_iter().enumerate() {
        let g = seed[index];
        grad_weight[index % features].push(g * f);
        grad_bias[index % features].push(g);
        let slope = match function {
            _ if rule.inactive => A::Real::constant(1.0),
            Function::Erf => steepest * (-(argument * argument)).function(Function::Exp),
            _ => function.slope(argument, f),
        };
        let a = if weight.is_empty() { g } else { g * weight[index % features] } * slope;
        grad_input.push(a * alpha[0]);
        grad_alpha.push(a * input[index]);
        grad_shift.push(a);
    }
    let total = |terms: Vec<A::Real>| vec![A::Real::sum(terms.into_iter())];
    gradients(
        shapes,
        [
            ("input", grad_input),
            ("alpha", total(grad_alpha)),
            ("shift", total(grad_shift)),
            ("weight", added(grad_weight)),
            ("bias", added(grad_bias)),
        ],
    )
}
