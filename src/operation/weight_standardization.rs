//! Weight standardization (Qiao et al. 2019, arXiv 1903.10520), as `timm.layers.StdConv2d`; and with the weight's size in it,
//! for networks without norms (Brock et al. 2021, arXiv 2101.08692), as `timm.layers.ScaledStdConv2d`.
//!
//! ```text
//! input: a convolution's weight [O, I, *]    groups: one for each output channel, its n = I·K values (the fan-in)
//! ŵ = (w − μ)/√(v + eps)                          v biased, /n
//! scaled      ŵ·gain_o·gamma/√n                   gain: [O]
//! ```
//! A fan-in of 1 is refused, as timm does. The authors' code of the first divides by the unbiased deviation plus eps.

use serde::{Deserialize, Serialize};

use super::normalization::{self, check_dtypes, check_vectors};
use super::values::{kept, misshapen};
use super::{
    Affine, Call, Definition, Description, Given, OneValue, Output, Outputs, ParameterIndex, Partition, Plan, Refusal,
    RefusalKind, Refused, Rule, Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightStandardization {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for WeightStandardization {
    const NAME: &'static str = "weight_standardization";

    fn signature(&self) -> Signature {
        Signature::STATELESS
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        plan(call, self.eps, rule).map_err(Refused::uncounted)
    }
}

fn plan(call: &Call<'_>, eps: f64, rule: &Rule) -> Result<Plan, Refusal> {
    let shape = call.tensors["input"].shape.as_slice();
    let &[outputs, ref rest @ ..] = shape else { return Err(misshapen("the weight", shape, "rank 2 or more")) };
    if rest.is_empty() {
        return Err(misshapen("the weight", shape, "rank 2 or more"));
    }
    let fan_in: usize = rest.iter().product();
    if fan_in == 1 && rule.one_value != OneValue::Accepted {
        let message = format!("a weight {shape:?} has a fan-in of 1; expected more than one value an output channel");
        return Err(Refusal::new(RefusalKind::TooFewValues, message));
    }
    Ok(Plan::standardizing(Partition::channels(1, outputs, fan_in), shape, eps, true))
}

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaledWeightStandardization {
    /// The gain of the nonlinearity that follows.
    #[serde(with = "json_float")]
    pub gamma: f64,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for ScaledWeightStandardization {
    const NAME: &'static str = "scaled_weight_standardization";

    fn signature(&self) -> Signature {
        Signature { optional: &["gain"], differentiable: &["input", "gain"], ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let plan = plan(call, self.eps, rule).map_err(Refused::uncounted)?;
        check_dtypes(call.tensors, &["gain"])
            .and_then(|()| check_vectors(call.tensors, &["gain"], plan.partition.inner))
            .map_err(Refused::uncounted)?;
        let parameter = ParameterIndex { inner_step: 1, ..ParameterIndex::default() };
        Ok(Plan {
            standardizes: false,
            affine: Affine { weight: "gain", bias: "", ..Affine::PLAIN },
            partition: Partition { parameter, ..plan.partition },
            ..plan
        })
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let size = self.size(arithmetic, plan, rule);
        let mut outputs = normalization::forward(arithmetic, plan, tensors, rule);
        for output in outputs.tensors.values_mut() {
            output.values.iter_mut().for_each(|weight| *weight = *weight * size);
        }
        outputs
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let size = self.size(arithmetic, plan, rule);
        let seed: Vec<A::Real> =
            kept(arithmetic, tensors, "grad_output.output").into_iter().map(|g| g * size).collect();
        normalization::backward_of(arithmetic, plan, tensors, shapes, rule, &seed)
    }
}

impl ScaledWeightStandardization {
    /// gamma/√n.
    fn size<A: Arithmetic>(&self, arithmetic: &A, plan: &Plan, rule: &Rule) -> A::Real {
        let gamma = arithmetic.parameter(self.gamma);
        if rule.fan_in_dropped {
            return gamma;
        }
        gamma / arithmetic.parameter(plan.partition.group_size() as f64).sqrt()
    }
}
