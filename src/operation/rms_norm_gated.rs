//! RMS normalization with a gate, as the state-space and linear-attention models of transformers have it (Mamba 2, Zamba 2:
//! the gate before the norm; Qwen 3 Next, Kimi Linear: after it).
//!
//! ```text
//! input, gate: [*, D]    groups: blocks of group_size neighbours of the last axis (null: all of it)    silu z = z·sigmoid z
//! before  u = x·silu(gate)      y = u/√(mean u² + eps)·w
//! after   y = x/√(mean x² + eps)·w·silu(gate)                           weight: [D]; no gate, no gating
//! ```

use serde::{Deserialize, Serialize};

use super::normalization::check_dtypes;
use super::values::{added, check_shapes, gradients, kept, misshapen, sums};
use super::{
    Call, Definition, Description, Given, Output, Outputs, Partition, Plan, Refusal, RefusalKind, Refused, Rule,
    Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Function, Real};
use crate::tensor::Tensors;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RmsNormGated {
    /// Neighbours that are normalized together, a divisor of D; `None`: D.
    pub group_size: Option<usize>,
    /// Added to the mean square.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// Whether the norm comes first and the gate after it.
    pub norm_before_gate: bool,
}

impl Definition for RmsNormGated {
    const NAME: &'static str = "rms_norm_gated";

    fn signature(&self) -> Signature {
        Signature {
            optional: &["gate", "weight"],
            differentiable: &["input", "gate", "weight"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        self.plan_groups(call).map_err(Refused::uncounted)
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let mut output = kept(arithmetic, tensors, "input");
        for positions in groups(plan, output.len()) {
            let group = Gated::new(self, arithmetic, plan, tensors, rule, &positions);
            for (k, &position) in positions.iter().enumerate() {
                let z = group.y[k] * group.weights[k];
                output[position] = if group.after { z * group.silu[k] } else { z };
            }
        }
        Outputs::of(plan, output)
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let seed = kept(arithmetic, tensors, "grad_output.output");
        let features = shapes["input"].shape.last().copied().unwrap_or(1);
        let (mut grad_input, mut grad_gate) = (seed.clone(), seed.clone());
        let mut terms = sums(features);
        for positions in groups(plan, seed.len()) {
            let group = Gated::new(self, arithmetic, plan, tensors, rule, &positions);
            let above = |k: usize| if group.after { seed[positions[k]] * group.silu[k] } else { seed[positions[k]] };
            let a: Vec<A::Real> = (0..positions.len()).map(|k| above(k) * group.weights[k]).collect();
            let products = a.iter().zip(&group.y).map(|(&a, &y)| a * y);
            let along = A::Real::sum(products) / A::Real::constant(a.len() as f64);
            for (k, &position) in positions.iter().enumerate() {
                terms[position % features].push(above(k) * group.y[k]);
                let through = (a[k] - group.y[k] * along) * group.inverse;
                (grad_input[position], grad_gate[position]) = if group.after {
                    (through, seed[position] * group.y[k] * group.weights[k] * group.slope[k])
                } else {
                    (through * group.silu[k], through * group.x[k] * group.slope[k])
                };
            }
        }
        gradients(shapes, [("input", grad_input), ("gate", grad_gate), ("weight", added(terms))])
    }
}

impl RmsNormGated {
    fn plan_groups(&self, call: &Call<'_>) -> Result<Plan, Refusal> {
        let shape = call.tensors["input"].shape.as_slice();
        let Some(&features) = shape.last() else { return Err(misshapen("the input", shape, "rank 1 or more")) };
        check_dtypes(call.tensors, &["gate"])?;
        check_dtypes(call.tensors, &["weight"])?;
        check_shapes(call, &["gate"], shape)?;
        check_shapes(call, &["weight"], &[features])?;
        let size = self.group_size.unwrap_or(features);
        if self.group_size == Some(0) || size > 0 && !features.is_multiple_of(size) {
            let message = format!("{features} features have no groups of {size}; group_size must divide them");
            return Err(Refusal::new(RefusalKind::Shape, message));
        }
        let groups = features.checked_div(size).unwrap_or(0);
        let rows: usize = shape[..shape.len() - 1].iter().product();
        Ok(Plan::of_norms(Partition::instances(rows, groups, size), shape, self.eps))
    }
}

fn groups(plan: &Plan, elements: usize) -> impl Iterator<Item = Vec<usize>> {
    let count = if elements == 0 { 0 } else { plan.partition.groups() };
    (0..count).map(|group| plan.partition.positions(group))
}

/// One group on its way through norm and gate.
struct Gated<R> {
    /// Whether the gate stands after the norm.
    after: bool,
    x: Vec<R>,
    silu: Vec<R>,
    /// silu′
    slope: Vec<R>,
    weights: Vec<R>,
    inverse: R,
    y: Vec<R>,
}

impl<R: Real> Gated<R> {
    fn new<A: Arithmetic<Real = R>>(
        norm: &RmsNormGated,
        arithmetic: &A,
        plan: &Plan,
        tensors: &Tensors<Vec<A::Input>>,
        rule: &Rule,
        positions: &[usize],
    ) -> Gated<R> {
        let one = R::constant(1.0);
        let of = |name: &str, index: usize| tensors.get(name).map(|values| arithmetic.keep(values[index]));
        let x: Vec<R> = positions.iter().map(|&position| arithmetic.keep(tensors["input"][position])).collect();
        let (mut silu, mut slope) = (vec![one; x.len()], vec![R::constant(0.0); x.len()]);
        for (k, &position) in positions.iter().enumerate().filter(|_| !rule.inactive) {
            if let Some(z) = of("gate", position) {
                let sigmoid = z.function(Function::Sigmoid);
                (silu[k], slope[k]) = (z * sigmoid, sigmoid * (one + z * (one - sigmoid)));
            }
        }
        let after = norm.norm_before_gate != rule.gate_moved;
        let u: Vec<R> = if after { x.clone() } else { x.iter().zip(&silu).map(|(&x, &silu)| x * silu).collect() };
        let square = R::sum(u.iter().map(|&u| u * u)) / R::constant(u.len() as f64);
        let inverse = one / (square + arithmetic.parameter(rule.scale(plan.eps).eps)).sqrt();
        let y = u.iter().map(|&u| u * inverse).collect();
        let features = plan.partition.inner * plan.partition.group_size();
        let weights = positions.iter().map(|&position| of("weight", position % features).unwrap_or(one)).collect();
        Gated { after, x, silu, slope, weights, inverse, y }
    }
}
