//! Spatially adaptive normalization (Park et al. 2019, arXiv 1903.07291, equation 1), with 1 + gamma as the authors' code
//! has it.
//!
//! ```text
//! input: [N, C, *]    groups and running statistics: as batch norm's
//! y = (x − μ_c)/√(v_c + eps)·(1 + gamma) + beta        gamma, beta: a value for each element, of the input's shape
//! ```
//! Gamma and beta are what a small network makes of a segmentation map. The paper multiplies by gamma; the code, and every
//! checkpoint, by 1 + gamma.

use serde::{Deserialize, Serialize};

use super::normalization::check_dtypes;
use super::values::check_shapes;
use super::{
    Affine, BatchNorm, BatchNormDialect, Call, Definition, ParameterIndex, Partition, Plan, Refused, Rule, Signature,
    json_float,
};

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spade {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value; `None`: the cumulative average.
    #[serde(with = "json_float::option")]
    pub momentum: Option<f64>,
}

impl Definition for Spade {
    const NAME: &'static str = "spade";

    fn signature(&self) -> Signature {
        Signature {
            optional: &["gamma", "beta", "running_mean", "running_var", "num_batches_tracked"],
            state: &["running_mean", "running_var", "num_batches_tracked"],
            differentiable: &["input", "gamma", "beta"],
            modes: true,
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let (eps, momentum) = (self.eps, self.momentum);
        let batch = BatchNorm { spatial_dims: None, eps, momentum, dialect: BatchNormDialect::Pytorch };
        let plan = batch.plan(call, rule)?;
        check_dtypes(call.tensors, &["gamma", "beta", "running_mean", "running_var"])
            .and_then(|()| check_shapes(call, &["gamma", "beta"], &call.tensors["input"].shape))
            .map_err(|refusal| Refused { refusal, num_batches_tracked: plan.num_batches_tracked })?;
        let Partition { inner_stride, run_stride, .. } = plan.partition;
        let run_step = if rule.first_condition { 0 } else { run_stride };
        let parameter = ParameterIndex { outer_step: 0, inner_step: inner_stride, run_step, element_step: 1 };
        Ok(Plan {
            affine: Affine { weight: "gamma", bias: "beta", one_plus: true, cast: None },
            partition: Partition { parameter, ..plan.partition },
            ..plan
        })
    }
}
