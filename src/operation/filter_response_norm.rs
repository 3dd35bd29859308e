//! Filter response normalization with its thresholded linear unit (Singh and Krishnan 2020, arXiv 1911.09737), as
//! `timm.layers.FilterResponseNormTlu2d`.
//!
//! ```text
//! input: [N, C, *]    groups: one for each sample and channel, its L values; nothing is subtracted
//! z = x/√(mean_L x² + |eps|)·w_c + b_c      y = max(z, tau_c)      weight, bias, tau: [C]; no tau, no threshold
//! ```
//! Where z = tau each of the two gets half of the gradient, as `torch.maximum` has it. One value a group keeps its sign
//! alone: z = x/√(x² + eps).

use serde::{Deserialize, Serialize};

use super::normalization::{self, check_dtypes, check_vectors};
use super::values::{added, channels_first, kept, sums};
use super::{
    Call, Definition, Description, Given, Output, Outputs, Partition, Plan, Refused, Rule, Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterResponseNorm {
    /// Its size is added to the mean square.
    #[serde(with = "json_float")]
    pub eps: f64,
}

const VECTORS: [&str; 3] = ["weight", "bias", "tau"];

impl Definition for FilterResponseNorm {
    const NAME: &'static str = "filter_response_norm";

    fn signature(&self) -> Signature {
        Signature { optional: &VECTORS, differentiable: &["input", "weight", "bias", "tau"], ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let [batch, channels, length] =
            channels_first(call, 3..=usize::MAX, "rank 3 or more").map_err(Refused::uncounted)?;
        check_dtypes(call.tensors, &VECTORS)
            .and_then(|()| check_vectors(call.tensors, &VECTORS, channels))
            .map_err(Refused::uncounted)?;
        let partition = Partition::instances(batch, channels, length);
        let plan = Plan::standardizing(partition, &call.tensors["input"].shape, self.eps.abs(), false);
        Ok(Plan { standardizes: !call.has("tau"), ..plan })
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let mut outputs = normalization::forward(arithmetic, plan, tensors, rule);
        let tau = kept(arithmetic, tensors, "tau");
        if let (false, Some(output)) = (tau.is_empty() || rule.inactive, outputs.tensors.get_mut("output")) {
            for (index, z) in output.values.iter_mut().enumerate() {
                *z = z.max(tau[index / plan.partition.run_length % tau.len()]);
            }
        }
        outputs
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let tau = kept(arithmetic, tensors, "tau");
        let mut seed = kept(arithmetic, tensors, "grad_output.output");
        let mut terms = sums(tau.len());
        if !tau.is_empty() && !seed.is_empty() && !rule.inactive {
            let z = normalization::forward(arithmetic, plan, tensors, rule).tensors.remove("output");
            let z = z.map_or_else(Vec::new, |output| output.values);
            for (index, (g, &z)) in seed.iter_mut().zip(&z).enumerate() {
                let channel = index / plan.partition.run_length % tau.len();
                let above = (z - tau[channel]).step();
                terms[channel].push(*g * (A::Real::constant(1.0) - above));
                *g = *g * above;
            }
        }
        let mut gradients = normalization::backward_of(arithmetic, plan, tensors, shapes, rule, &seed);
        if let Some(description) = shapes.get("tau") {
            let output = Output { shape: description.shape.clone(), values: added(terms) };
            gradients.insert("grad_tau".to_owned(), output);
        }
        gradients
    }
}
