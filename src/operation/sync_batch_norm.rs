//! Batch normalization over the batches of several workers, as `torch.nn.SyncBatchNorm`.
//!
//! ```text
//! input: the whole batch [N, C, *], of which worker k holds splits_k samples, Σ splits = N
//! statistics of the union; workers merge theirs pairwise (Chan, Golub and LeVeque 1983)
//!   n = n_a + n_b     δ = μ_b − μ_a     μ = μ_a + δ·n_b/n     M = M_a + M_b + δ²·n_a·n_b/n
//! running_var: Bessel's correction with the total n
//! ```
//! All else is batch norm's, at any rank from 2. A worker may hold no samples.

use serde::{Deserialize, Serialize};

use super::{
    BatchNorm, BatchNormDialect, Call, Definition, Plan, Refusal, RefusalKind, Refused, Rule, Signature, json_float,
};

/// Synchronized batch norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncBatchNorm {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value; `None`: the cumulative average.
    #[serde(with = "json_float::option")]
    pub momentum: Option<f64>,
    /// How many samples each worker holds, along axis 0.
    pub splits: Vec<usize>,
}

impl Definition for SyncBatchNorm {
    const NAME: &'static str = "sync_batch_norm";

    fn signature(&self) -> Signature {
        self.whole().signature()
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let samples = call.tensors["input"].shape.first().copied();
        let held = self.splits.iter().try_fold(0_usize, |sum, &split| sum.checked_add(split));
        if held != samples {
            let message = format!("splits {:?} do not add up to the batch of {samples:?}", self.splits);
            let refusal = Refusal::new(RefusalKind::Shape, message);
            return Err(Refused { refusal, num_batches_tracked: call.num_batches_tracked });
        }
        let mut plan = self.whole().plan(call, rule)?;
        if rule.local_bessel {
            let largest = self.splits.iter().copied().max().unwrap_or(0);
            plan.bessel_values = Some(largest * plan.partition.run_length);
        }
        Ok(plan)
    }
}

impl SyncBatchNorm {
    fn whole(&self) -> BatchNorm {
        let dialect = BatchNormDialect::Pytorch;
        BatchNorm { spatial_dims: None, eps: self.eps, momentum: self.momentum, dialect }
    }
}
