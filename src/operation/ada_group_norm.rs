//! Adaptive group normalization (Dhariwal and Nichol 2021, arXiv 2105.05233, section 3), as
//! `diffusers.models.normalization.AdaGroupNorm`.
//!
//! ```text
//! input: [N, C, *]    groups: as group norm's
//! y = (x − μ)/√(v + eps)·(1 + scale_nc) + shift_nc        v biased, /n;  scale, shift: [N, C], a row for each sample
//! ```
//! Scale and shift are what a network makes of the condition. One value a group gives the shift.

use serde::{Deserialize, Serialize};

use super::ada_layer_norm::SCALE_AND_SHIFT;
use super::normalization::check_dtypes;
use super::values::check_shapes;
use super::{
    Call, Definition, Dialect, GroupNorm, OneValue, ParameterIndex, Partition, Plan, Refused, Rule, Signature,
    json_float,
};

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdaGroupNorm {
    /// The number of groups G, a divisor of C.
    pub num_groups: usize,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for AdaGroupNorm {
    const NAME: &'static str = "ada_group_norm";

    fn signature(&self) -> Signature {
        Signature {
            optional: &["scale", "shift"],
            differentiable: &["input", "scale", "shift"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let group = GroupNorm { num_groups: self.num_groups, eps: self.eps, dialect: Dialect::Pytorch };
        let plan = group.plan(call, &Rule { one_value: OneValue::Accepted, ..*rule })?;
        let shape = &call.tensors["input"].shape;
        check_dtypes(call.tensors, &["scale", "shift"])
            .and_then(|()| check_shapes(call, &["scale", "shift"], &shape[..2]))
            .map_err(Refused::uncounted)?;
        let outer_step = if rule.first_condition { 0 } else { shape[1] };
        let parameter = ParameterIndex { outer_step, ..plan.partition.parameter };
        Ok(Plan { affine: SCALE_AND_SHIFT, partition: Partition { parameter, ..plan.partition }, ..plan })
    }
}
