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
//!
//! That is PyTorch's dialect. The others ([`BatchNormDialect`]) have no cumulative average and no evaluation without running
//! statistics, take any eps, and depart in what `dialect.rs` says of each.

use serde::{Deserialize, Serialize};

use super::normalization::{check_dtypes, check_vectors, factor, moves, normalizes_by_batch};
use super::running::{Keeping, STATE};
use super::{
    Affine, BatchNormDialect, BesselCount, Call, Definition, Mode, OneValue, Partition, Plan, Refusal, RefusalKind,
    Refused, Rule, Signature, Source, Updates, json_float,
};
use crate::arithmetic::Format;

/// Batch norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchNorm {
    /// 1: rank 2 or 3; 2: rank 4; 3: rank 5; `None`: any rank from 2.
    pub spatial_dims: Option<u8>,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value, or of the old one, as the dialect has it; `None`: the cumulative average.
    #[serde(with = "json_float::option")]
    pub momentum: Option<f64>,
    /// The conventions.
    #[serde(default, skip_serializing_if = "BatchNormDialect::is_default")]
    pub dialect: BatchNormDialect,
}

const VECTORS: [&str; 6] = ["weight", "bias", "running_mean", "running_var", "hidden_mean", "hidden_var"];

impl Definition for BatchNorm {
    const NAME: &'static str = "batch_norm";

    fn signature(&self) -> Signature {
        // The optional tensors are weight and bias, where there are some, and the state.
        let state = self.dialect.conventions().state;
        let affine = self.dialect.conventions().affine;
        Signature {
            required: &["input"],
            optional: match state {
                ["running_mean", "running_var", "scale_factor"] => &["running_mean", "running_var", "scale_factor"],
                ["running_mean", "running_var"] => &["weight", "bias", "running_mean", "running_var"],
                ["running_mean", "running_var", "num_batches_tracked"] => {
                    &["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
                }
                _ => &[
                    "weight",
                    "bias",
                    "running_mean",
                    "running_var",
                    "hidden_mean",
                    "hidden_var",
                    "num_batches_tracked",
                ],
            },
            outputs: &["output"],
            state,
            differentiable: if affine { &["input", "weight", "bias"] } else { &["input"] },
            modes: true,
        }
    }

    fn rule(&self) -> Rule {
        self.dialect.rule()
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        self.check_rank(shape).map_err(|refusal| Refused { refusal, num_batches_tracked: call.num_batches_tracked })?;
        let counts = match rule.updates {
            _ if call.mode == Mode::Eval || rule.counter_frozen => 0,
            Updates::Twice => 2,
            _ => 1,
        };
        // A counter at its end wraps round, as PyTorch's does.
        let counted = call.num_batches_tracked.map(|batches| batches.wrapping_add(counts));
        self.plan_counted(call, counted, rule).map_err(|refusal| Refused { refusal, num_batches_tracked: counted })
    }
}

impl BatchNorm {
    /// A hyper-parameter as the dialect holds it.
    fn held(&self, value: f64) -> f64 {
        if self.dialect.conventions().single_parameters { Format::F32.round(value) } else { value }
    }

    fn momentum(&self) -> Option<f64> {
        self.momentum.map(|momentum| self.held(momentum))
    }

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
        check_dtypes(call.tensors, &[&VECTORS[..], &["scale_factor"]].concat())?;
        check_vectors(call.tensors, &VECTORS, channels)?;
        let running = self.check_state(call)?;
        let pytorch = self.dialect == BatchNormDialect::Pytorch;
        let train = call.mode == Mode::Train;
        if !pytorch {
            self.check_other_dialect(train, running)?;
        }
        let from_input = normalizes_by_batch(train, running, rule);
        // PyTorch decides by the mode, not by what the batch turns out to be.
        let training = train || !running;
        if pytorch && (training && self.eps <= 0.0 || self.eps < 0.0) {
            let message = format!("eps is {}; it must be positive in training, not negative in evaluation", self.eps);
            return Err(Refusal::new(RefusalKind::Parameter, message));
        }
        if pytorch && channels == 0 && (call.has("weight") || call.has("running_mean")) {
            return Err(Refusal::new(RefusalKind::Empty, "no channels; expected at least one"));
        }
        let update = if running && moves(train, rule) { factor(self.momentum(), counted, rule) } else { None };
        if train && running && self.momentum.is_none() && counted == Some(0) {
            let message = "the cumulative average over num_batches_tracked = 0 batches divides by zero";
            return Err(Refusal::new(RefusalKind::Parameter, message));
        }
        let one_value = training && batch * length == 1;
        let too_few = match rule.one_value {
            OneValue::Refused | OneValue::RefusedInEvaluation => batch * length == 1,
            OneValue::Accepted | OneValue::PassedOn => false,
            OneValue::EveryBatchOfOneRefused => batch == 1,
        };
        let passed_on = one_value && rule.one_value == OneValue::PassedOn;
        let source = if passed_on { Source::Nothing } else { Source::of(from_input, train && update.is_some(), rule) };
        if too_few && (training || rule.one_value == OneValue::RefusedInEvaluation) {
            let message = format!("one value per channel in training, input {shape:?}; expected more than one");
            return Err(Refusal::new(RefusalKind::TooFewValues, message));
        }
        Ok(Plan {
            partition: Partition::channels(batch, channels, length),
            outputs: vec![("output", shape.to_vec())],
            standardizes: !passed_on,
            centred: true,
            eps: self.held(self.eps),
            source,
            keeping: Keeping::of(rule, self.momentum(), counted),
            update: update.filter(|_| !passed_on),
            running,
            num_batches_tracked: counted,
            iterations: 0,
            bessel_values: (rule.bessel == BesselCount::Samples).then_some(batch),
            affine: Affine::PLAIN,
        })
    }

    /// Whether there are running statistics: all that the dialect has, or none.
    fn check_state(&self, call: &Call<'_>) -> Result<bool, Refusal> {
        let state = self.dialect.conventions().state;
        let has = |name: &&str| call.has(name);
        let vectors: Vec<&str> = state.iter().copied().filter(|name| STATE.contains(name)).collect();
        if let Some(shape) = call.shape("scale_factor").filter(|shape| *shape != [1]) {
            let message = format!("scale_factor has shape {shape:?}; it is one number: [1]");
            return Err(Refusal::new(RefusalKind::Shape, message));
        }
        match vectors.iter().filter(|name| has(name)).count() {
            0 => Ok(false),
            count if count == vectors.len() => Ok(true),
            _ => {
                let message = format!("one of {} is missing; send all or none", vectors.join(", "));
                Err(Refusal::new(RefusalKind::Parameter, message))
            }
        }
    }

    /// What every dialect but PyTorch's refuses.
    fn check_other_dialect(&self, train: bool, running: bool) -> Result<(), Refusal> {
        let refuse = |message: String| Err(Refusal::new(RefusalKind::Parameter, message));
        let title = self.dialect.conventions().title;
        if self.momentum.is_none() {
            return refuse(format!("momentum is null; {title} has no cumulative average"));
        }
        if !train && !running {
            return refuse(format!("there are no running statistics; evaluation in {title} needs them"));
        }
        Ok(())
    }
}
