//! Precise batch norm statistics (Wu and Johnson 2021, "Rethinking Batch in BatchNorm", arXiv 2105.07576, section 3), as
//! `fvcore.nn.update_bn_stats`: the population's mean and variance, of many batches with the weights held.
//!
//! ```text
//! input: the batches one after the other [Σ Nᵢ, C, *], splits: the Nᵢ     nᵢ = Nᵢ·L
//! running_mean = Σ nᵢ·μᵢ/Σ nᵢ      running_var = Σ nᵢ·(vᵢ + μᵢ²)/Σ nᵢ − running_mean²      vᵢ biased
//! grad_input = (g_m + 2·(x − running_mean)·g_v)/Σ nᵢ
//! ```
//! Both replace the running statistics. They are the moments of all values together, however these are split; the variance
//! is biased, and the spread of the batches' means belongs to it.

use serde::{Deserialize, Serialize};

use super::values::{added, at, channels_first, gradients, kept, sums};
use super::{
    Call, Definition, Description, Given, Output, Outputs, Partition, Plan, Refusal, RefusalKind, Refused, Rule,
    Signature,
};
use crate::arithmetic::{Arithmetic, Group, Real};
use crate::tensor::Tensors;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreciseBatchNormStatistics {
    /// How many samples each batch holds, along axis 0.
    pub splits: Vec<usize>,
}

impl Definition for PreciseBatchNormStatistics {
    const NAME: &'static str = "precise_batch_norm_statistics";

    fn signature(&self) -> Signature {
        Signature { outputs: &["running_mean", "running_var"], ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let [batch, channels, length] =
            channels_first(call, 2..=usize::MAX, "rank 2 or more").map_err(Refused::uncounted)?;
        let held = self.splits.iter().try_fold(0_usize, |sum, &split| sum.checked_add(split));
        if held != Some(batch) {
            let message = format!("splits {:?} do not add up to the {batch} samples", self.splits);
            return Err(Refused::uncounted(Refusal::new(RefusalKind::Shape, message)));
        }
        if batch * length == 0 {
            let refusal = Refusal::new(RefusalKind::Empty, "no values; expected at least one");
            return Err(Refused::uncounted(refusal));
        }
        let partition = Partition::channels(batch, channels, length);
        let outputs = vec![("running_mean", vec![channels]), ("running_var", vec![channels])];
        let plan = Plan::of_norms(partition, &call.tensors["input"].shape, 0.0);
        Ok(Plan { outputs, centred: true, ..plan })
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let (mut means, mut variances) = (Vec::new(), Vec::new());
        for channel in 0..plan.partition.groups() {
            let positions = plan.partition.positions(channel);
            let moments = arithmetic.moments(Group::contiguous(&at(&tensors["input"], &positions)), true);
            means.push(arithmetic.mean(&moments));
            variances.push(if rule.chunks_averaged {
                self.within(arithmetic, plan, tensors, &positions)
            } else {
                arithmetic.variance(&moments, rule.degrees_of_freedom)
            });
        }
        let mut outputs = Outputs::of(plan, means);
        let (name, shape) = plan.outputs[1].clone();
        outputs.tensors.insert(name.into(), Output { shape, values: variances });
        outputs
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, .. }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let [mut gradient, of_mean, of_variance] = ["input", "grad_output.running_mean", "grad_output.running_var"]
            .map(|name| kept(arithmetic, tensors, name));
        let count = A::Real::constant(plan.partition.group_size() as f64);
        for channel in 0..plan.partition.groups() {
            let positions = plan.partition.positions(channel);
            let moments = arithmetic.moments(Group::contiguous(&at(&tensors["input"], &positions)), true);
            let mean = arithmetic.mean(&moments);
            let twice = A::Real::constant(2.0) * of_variance[channel];
            for position in positions {
                let through = twice * gradient[position].deviation(mean);
                gradient[position] = (of_mean[channel] + through) / count;
            }
        }
        gradients(shapes, [("input", gradient)])
    }
}

impl PreciseBatchNormStatistics {
    /// The mean of the batches' own variances: what the spread of their means is missing from.
    fn within<A: Arithmetic>(
        &self,
        arithmetic: &A,
        plan: &Plan,
        tensors: &Tensors<Vec<A::Input>>,
        positions: &[usize],
    ) -> A::Real {
        let length = plan.partition.run_length;
        let mut rest = positions;
        let mut terms = sums(1);
        for &split in self.splits.iter().filter(|&&split| split > 0) {
            let (batch, others) = rest.split_at(split * length);
            rest = others;
            let moments = arithmetic.moments(Group::contiguous(&at(&tensors["input"], batch)), true);
            terms[0].push(arithmetic.variance(&moments, 0) * A::Real::constant(batch.len() as f64));
        }
        added(terms)[0] / A::Real::constant(positions.len() as f64)
    }
}
