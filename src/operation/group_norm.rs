//! Group normalization (Wu and He 2018, arXiv 1803.08494), as `torch.nn.GroupNorm`.
//!
//! ```text
//! input: [N, C, *]    groups: one for each sample and each of G blocks of C/G neighbouring channels, n = (C/G)·L
//! y = (x − μ)/√(v + eps)·w_c + b_c        v biased, /n;  weight, bias: [C], a value for each channel
//! ```
//! The same in training and in evaluation. It refuses one value a group only where the batch holds one sample
//! (N·(C/G)·L = 1): PyTorch's check looks at the whole batch although the statistics are a sample's.

use serde::{Deserialize, Serialize};

use super::normalization::{check_dtypes, check_vectors};
use super::running::Keeping;
use super::{
    Affine, Call, Definition, Dialect, Grouping, OneValue, ParameterIndex, Partition, Plan, Refusal, RefusalKind,
    Refused, Rule, Signature, Source, json_float,
};

/// Group norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupNorm {
    /// The number of groups G, a divisor of C.
    pub num_groups: usize,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The conventions.
    #[serde(default, skip_serializing_if = "Dialect::is_default")]
    pub dialect: Dialect,
}

impl Definition for GroupNorm {
    const NAME: &'static str = "group_norm";

    fn signature(&self) -> Signature {
        Signature {
            optional: &["weight", "bias"],
            differentiable: &["input", "weight", "bias"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_groups(call, rule).map_err(|refusal| Refused { refusal, num_batches_tracked: None })
    }
}

impl GroupNorm {
    fn plan_groups(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        check_dtypes(call.tensors, &["weight", "bias"])?;
        let shape = call.tensors["input"].shape.as_slice();
        let refuse = |kind, message: String| Err(Refusal::new(kind, message));
        let &[batch, channels, ref spatial @ ..] = shape else {
            return refuse(RefusalKind::Shape, format!("the input has shape {shape:?}; expected rank 2 or more"));
        };
        let groups = self.num_groups;
        if groups == 0 {
            return refuse(RefusalKind::Parameter, "num_groups is 0; expected a divisor of the channels".into());
        }
        if !channels.is_multiple_of(groups) {
            let message = format!("{channels} channels are not divisible by num_groups = {groups}");
            return refuse(RefusalKind::Shape, message);
        }
        check_vectors(call.tensors, &["weight", "bias"], channels)?;
        let length: usize = spatial.iter().product();
        if channels == 0 || length == 0 {
            let message = format!("the input has shape {shape:?}; expected channels and spatial positions");
            return refuse(RefusalKind::Empty, message);
        }
        if batch * (channels / groups) * length == 1 && rule.one_value != OneValue::Accepted {
            let message = format!("one value per group in a batch of one, input {shape:?}; expected more than one");
            return refuse(RefusalKind::TooFewValues, message);
        }
        let groups = if rule.grouping == Grouping::OneGroup { 1 } else { groups };
        let per_group = channels / groups;
        let strided = rule.grouping == Grouping::Strided;
        let parameter = match (rule.affine_per_group, strided) {
            (true, _) => ParameterIndex { inner_step: 1, ..ParameterIndex::default() },
            (false, true) => ParameterIndex { inner_step: 1, run_step: groups, ..ParameterIndex::default() },
            (false, false) => ParameterIndex { inner_step: per_group, run_step: 1, ..ParameterIndex::default() },
        };
        let (inner_stride, run_stride) = if strided { (length, groups * length) } else { (per_group * length, length) };
        Ok(Plan {
            partition: Partition {
                outer: batch,
                outer_stride: channels * length,
                inner: groups,
                inner_stride,
                runs: per_group,
                run_stride,
                run_length: length,
                parameter,
            },
            outputs: vec![("output", shape.to_vec())],
            standardizes: true,
            centred: true,
            eps: self.eps,
            source: Source::Input,
            keeping: Keeping::default(),
            update: None,
            running: false,
            num_batches_tracked: None,
            iterations: 0,
            bessel_values: None,
            affine: Affine::PLAIN,
        })
    }
}
