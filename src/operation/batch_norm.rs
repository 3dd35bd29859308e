//! Batch normalization (Ioffe and Szegedy 2015, arXiv 1502.03167), as `torch.nn.BatchNorm1d`, `2d` and `3d`.
//!
//! ```text
//! input: [N, C, *]    groups: one a channel c, the n = N·L values (·, c, ·)
//! train  y = (x − μ_c)/√(v_c + eps)·w_c + b_c              v_c biased, /n
//!        running_mean ← (1 − m)·running_mean + m·μ_c
//!        running_var  ← (1 − m)·running_var  + m·v_c·n/(n−1)      unbiased
//! eval   y = (x − running_mean_c)/√(running_var_c + eps)·w_c + b_c
//! ```
//! Momentum m is the weight of the *new* value; `null` is the cumulative average, m = 1/t with t the number of batches,
//! this one included. Without running statistics evaluation uses the batch's own. A batch is counted before it is
//! refused, and an empty batch counts.

use serde::{Deserialize, Serialize};

use super::normalization::{check_dtypes, check_vectors, factor};
use super::{
    Affine, Call, Definition, Dialect, Mode, OneValue, Partition, Plan, Refusal, RefusalKind, Refused, Rule, Signature,
    Source, Updates, json_float,
};

/// Batch norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchNorm {
    /// 1: rank 2 or 3; 2: rank 4; 3: rank 5; `None`: any rank from 2.
    pub spatial_dims: Option<u8>,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value; `None`: the cumulative average.
    #[serde(with = "json_float::option")]
    pub momentum: Option<f64>,
    /// The conventions.
    #[serde(default, skip_serializing_if = "Dialect::is_default")]
    pub dialect: Dialect,
}

const VECTORS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

impl Definition for BatchNorm {
    const NAME: &'static str = "batch_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input"],
            optional: &["weight", "bias", "running_mean", "running_var", "num_batches_tracked"],
            outputs: &["output"],
            state: &["running_mean", "running_var", "num_batches_tracked"],
            differentiable: &["input", "weight", "bias"],
            modes: true,
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        self.check_rank(shape).map_err(|refusal| Refused { refusal, num_batches_tracked: call.num_batches_tracked })?;
        let counts = call.mode == Mode::Train && !rule.counter_frozen;
        // A counter at its end wraps round, as PyTorch's does.
        let counted = call.num_batches_tracked.map(|batches| batches.wrapping_add(i64::from(counts)));
        self.plan_counted(call, counted, rule).map_err(|refusal| Refused { refusal, num_batches_tracked: counted })
    }
}

impl BatchNorm {
    fn check_rank(&self, shape: &[usize]) -> Result<(), Refusal> {
        let (fits, expected) = match self.spatial_dims {
            Some(1) => (matches!(shape.len(), 2 | 3), "rank 2 or 3"),
            Some(2) => (shape.len() == 4, "rank 4"),
            Some(3) => (shape.len() == 5, "rank 5"),
            None => (shape.len() >= 2, "rank 2 or more"),
            Some(other) => {
                let message = format!("spatial_dims is {other}; it is 1, 2, 3 or null");
                return Err(Refusal::new(RefusalKind::Parameter, message));
            }
        };
        if fits {
            return Ok(());
        }
        Err(Refusal::new(RefusalKind::Shape, format!("the input has shape {shape:?}; expected {expected}")))
    }

    fn plan_counted(&self, call: &Call<'_>, counted: Option<i64>, rule: &Rule) -> Result<Plan, Refusal> {
        let shape = call.tensors["input"].shape.as_slice();
        let (batch, channels) = (shape[0], shape[1]);
        let length: usize = shape[2..].iter().product();
        check_dtypes(call.tensors, &VECTORS)?;
        check_vectors(call.tensors, &VECTORS, channels)?;

        let running = match (call.has("running_mean"), call.has("running_var")) {
            (true, true) => true,
            (false, false) => false,
            _ => {
                let message = "one of running_mean and running_var is missing; send both or neither";
                return Err(Refusal::new(RefusalKind::Parameter, message));
            }
        };
        let train = call.mode == Mode::Train;
        let from_input = train || !running || rule.batch_statistics_in_eval;
        // PyTorch decides by the mode, not by what the batch turns out to be.
        let training = train || !running;
        if training && self.eps <= 0.0 || self.eps < 0.0 {
            let message = format!("eps is {}; it must be positive in training, not negative in evaluation", self.eps);
            return Err(Refusal::new(RefusalKind::Parameter, message));
        }
        if channels == 0 && (call.has("weight") || call.has("running_mean")) {
            return Err(Refusal::new(RefusalKind::Empty, "no channels; expected at least one"));
        }
        let moves = running
            && match rule.updates {
                Updates::InTraining => train,
                Updates::Always => true,
                Updates::Never => false,
            };
        let update = if moves { factor(self.momentum, counted, rule) } else { None };
        if train && running && self.momentum.is_none() && counted == Some(0) {
            let message = "the cumulative average over num_batches_tracked = 0 batches divides by zero";
            return Err(Refusal::new(RefusalKind::Parameter, message));
        }
        let too_few = match rule.one_value {
            OneValue::Refused => batch * length == 1,
            OneValue::Accepted => false,
            OneValue::EveryBatchOfOneRefused => batch == 1,
        };
        if training && too_few {
            let message = format!("one value per channel in training, input {shape:?}; expected more than one");
            return Err(Refusal::new(RefusalKind::TooFewValues, message));
        }
        Ok(Plan {
            partition: Partition::channels(batch, channels, length),
            outputs: vec![("output", shape.to_vec())],
            standardizes: true,
            centred: true,
            eps: self.eps,
            source: if from_input { Source::Input } else { Source::Stored },
            update,
            running,
            num_batches_tracked: counted,
            iterations: 0,
            bessel_values: None,
            affine: Affine::PLAIN,
        })
    }
}
