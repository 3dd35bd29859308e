//! Cases: an operation and its steps, made once and never changed; and what a subject makes of them.

pub mod catalogue;
pub(crate) mod check_answer;
pub mod flag;
mod hello;
pub mod preconditions;
pub mod random;
mod seeded;
pub(crate) mod shaped;
pub(crate) mod simpler;
pub(crate) mod sketch;
pub mod values;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use check_answer::{WrongTensors, check_answer};
pub use flag::{Flag, FlagKind};
pub use hello::{Declared, Hello};

use crate::arithmetic::DataType;
use crate::operation::{Call, Description, Mode, Operation, Plan, Refusal, Refused, Rule};
use crate::tensor::{Tensor, Tensors};

/// An operation and its steps, with what it is for.
#[derive(Clone, Debug)]
pub struct Case {
    /// 1 to 100 characters of `a–z 0–9 _ - .`; never reused.
    pub name: String,
    /// One line: what the case asks.
    pub comment: String,
    /// Whether the case decides conformance.
    pub level: Level,
    /// The bug classes that it exposes, and its topics.
    pub flags: Vec<Flag>,
    /// The calls, in order; at least one.
    pub steps: Vec<Step>,
}

/// One call. State that a step before it returned is not repeated here: the subject's own answer goes in.
#[derive(Clone, Debug)]
pub struct Step {
    /// The operation and its hyper-parameters (which may change from step to step).
    pub operation: Operation,
    /// Train or eval.
    pub mode: Mode,
    /// How the subject is to lay out the input.
    pub layout: Layout,
    /// Whether gradients are asked for.
    pub gradients: bool,
    /// Whether gradients of the gradients are asked for too.
    pub double_backward: bool,
    /// The tensors that go in.
    pub tensors: Tensors,
}

/// What a subject is asked: one step, with every tensor.
#[derive(Clone, Debug)]
pub struct Request {
    /// The case's name; not sent on a pipe.
    pub case: String,
    /// The step's number, from 0; not sent on a pipe.
    pub step: usize,
    /// The call.
    pub call: Step,
}

/// What an implementation makes of a step.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The tensors of the operation after the call.
    Tensors(Tensors),
    /// The operation refused the call.
    Refused {
        /// Why.
        refusal: Refusal,
        /// State tensors after the refusal; those present are judged.
        state: Tensors,
    },
    /// No such operation, data type, dialect, layout or option.
    Unsupported(String),
}

/// Whether a case decides conformance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A conformant implementation passes.
    Required,
    /// Careful implementations of the same precision and dialect may differ.
    Advisory,
}

/// How a tensor lies in memory before the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The order of the dimensions.
    pub format: LayoutFormat,
    /// Elements before the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: usize,
}

/// The order of the dimensions in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutFormat {
    /// C order.
    #[default]
    Contiguous,
    /// Channels (dimension 1) innermost.
    ChannelsLast,
    /// Every dimension but the last padded.
    Strided,
}

fn is_zero(offset: &usize) -> bool {
    *offset == 0
}

/// A step that is no call: it lacks a tensor, or has one that its operation does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} cannot be called with {tensor}: {reason}")]
pub struct MalformedStep {
    operation: &'static str,
    tensor: String,
    reason: String,
}

impl Step {
    /// A forward call in evaluation mode, contiguous, without gradients.
    pub fn forward(operation: Operation, tensors: Tensors) -> Step {
        Step {
            operation,
            mode: Mode::Eval,
            layout: Layout::default(),
            gradients: false,
            double_backward: false,
            tensors,
        }
    }

    /// The state that this step gets from the one before it: what `answer` returned, or else what `asked` was sent.
    pub(crate) fn passed_on<'a>(&self, asked: &'a Step, answer: &'a Answer) -> Vec<(&'static str, &'a Tensor)> {
        let names = self.operation.signature().state.iter();
        names.filter_map(|&name| Some((name, answer.get(name).or(asked.tensors.get(name))?))).collect()
    }

    /// Checks that the tensors are the operation's: the required ones there, none unknown, counters I64 scalars, all
    /// others floating-point. (What their shapes must be is for the operation to refuse.) With gradients there is one of
    /// each output, like the output; with double backward a direction for each differentiable tensor, like the tensor.
    ///
    /// # Errors
    /// [`MalformedStep`] naming the first tensor that is missing, unknown, of an impossible type, or a gradient or
    /// direction unlike its tensor; or double backward without gradients.
    pub fn check(&self) -> Result<(), MalformedStep> {
        let signature = self.operation.signature();
        let malformed = |tensor: &str, reason: &str| {
            let operation = self.operation.name();
            // The name may be anything that came out of a pipe.
            let tensor = tensor.escape_debug().take(100).collect();
            Err(MalformedStep { operation, tensor, reason: reason.to_owned() })
        };
        if let Some(missing) = signature.required.iter().find(|&&name| !self.tensors.contains_key(name)) {
            return malformed(missing, "it is required and missing");
        }
        for (name, tensor) in &self.tensors {
            let name = name.as_str();
            let seeded = name.strip_prefix("grad_output.");
            let gradient = self.gradients && seeded.is_some_and(|output| signature.outputs.contains(&output));
            let direction = self.double_backward && self.directions().any(|(known, _)| known == name);
            if !gradient && !direction && !signature.required.contains(&name) && !signature.optional.contains(&name) {
                return malformed(name, "it is not one of the operation's tensors");
            }
            if name == COUNTER {
                if tensor.as_counter().is_none() || !tensor.shape().is_empty() {
                    return malformed(name, "a counter is an I64 scalar");
                }
            } else if tensor.dtype() == DataType::I64 {
                return malformed(name, "it is I64; expected a floating-point type");
            }
        }
        let like = |name: &str, expected: &Description, what: &str| {
            let Some(tensor) = self.tensors.get(name) else {
                return malformed(name, "gradients are asked for and it is missing");
            };
            let actual = check_answer::describe(tensor);
            if actual == *expected {
                return Ok(());
            }
            let (actual, expected) = (check_answer::text(&actual), check_answer::text(expected));
            malformed(name, &format!("it is {actual}; the {what} is {expected}"))
        };
        let outputs = if self.gradients { check_answer::outputs(self) } else { BTreeMap::new() };
        for (output, expected) in outputs {
            like(&format!("grad_output.{output}"), &expected, "output")?;
        }
        if self.double_backward && !self.gradients {
            return malformed("grad_output", "double backward is asked for without gradients");
        }
        let directions = self.directions().filter(|_| self.double_backward);
        for (name, tensor) in directions {
            like(&name, &check_answer::describe(tensor), "tensor")?;
        }
        Ok(())
    }

    /// The names of the directions of a double backward, `grad_grad.<tensor>`, each with the tensor that it moves.
    pub fn directions(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let moved = self.operation.signature().differentiable.iter();
        moved.filter_map(|&name| Some((format!("grad_grad.{name}"), self.tensors.get(name)?)))
    }

    /// Data types and shapes of the floating-point tensors.
    pub fn descriptions(&self) -> Tensors<Description> {
        let floats = self.tensors.iter().filter(|(name, _)| *name != COUNTER);
        floats
            .map(|(name, tensor)| (name.clone(), Description { dtype: tensor.dtype(), shape: tensor.shape().to_vec() }))
            .collect()
    }

    /// The value of `num_batches_tracked`, if it was sent.
    pub fn num_batches_tracked(&self) -> Option<i64> {
        self.tensors.get(COUNTER).and_then(Tensor::as_counter)
    }

    /// The elements of the floating-point tensors, each through `convert`.
    pub fn values<T>(&self, convert: impl Fn(f64) -> T) -> Tensors<Vec<T>> {
        let floats = self.tensors.iter().filter(|(name, _)| *name != COUNTER);
        floats.map(|(name, tensor)| (name.clone(), tensor.widened().iter().map(|&x| convert(x)).collect())).collect()
    }

    /// How the call is answered under `rule`.
    ///
    /// # Errors
    /// Where the operation refuses the call: why, and what of the batch was counted.
    pub fn plan(&self, rule: &Rule) -> Result<Plan, Refused> {
        let tensors = self.descriptions();
        let call = Call { mode: self.mode, tensors: &tensors, num_batches_tracked: self.num_batches_tracked() };
        self.operation.plan(&call, rule)
    }

    /// The state as it was sent, with `batches` in its counter where batches were counted.
    pub(crate) fn state(&self, batches: Option<i64>) -> Tensors {
        let names = self.operation.signature().state.iter();
        let sent = names.filter_map(|&name| Some((name.to_owned(), self.tensors.get(name)?.clone())));
        sent.chain(batches.map(|batches| (COUNTER.to_owned(), Tensor::counter(batches)))).collect()
    }

    /// The data type of each output that this step has: the input's, the state tensor's own, or for a gradient, once or
    /// twice, its tensor's. A dialect that multiplies by the weight last answers in the wider type of the two.
    pub fn output_dtype(&self, name: &str) -> DataType {
        let tensor = name.strip_prefix("grad_").or(name.strip_prefix("grad2_")).unwrap_or(name);
        if tensor == "output" && self.operation.promotes() {
            return self.tensors.get("weight").unwrap_or(&self.tensors["input"]).dtype();
        }
        // A gradient with respect to an output, once more differentiated, is the output's; statistics that are outputs and
        // were not sent are the input's.
        self.tensors.get(tensor).map_or_else(|| self.tensors["input"].dtype(), Tensor::dtype)
    }
}

/// The one state tensor that counts.
pub(crate) const COUNTER: &str = "num_batches_tracked";

impl Case {
    /// The operation of the first step.
    pub fn operation(&self) -> &Operation {
        &self.steps[0].operation
    }

    /// The data type of the first input.
    pub fn dtype(&self) -> DataType {
        self.steps[0].tensors["input"].dtype()
    }

    /// The request of step `step`: its tensors, and the state after the step before, `previous`: what the same subject
    /// was asked and what it answered. State that a refusal does not carry stays as it was sent.
    ///
    /// # Panics
    /// If the case has no such step.
    pub fn request(&self, step: usize, previous: Option<(&Request, &Answer)>) -> Request {
        let mut call = self.steps[step].clone();
        let state = previous.map(|(asked, answer)| call.passed_on(&asked.call, answer)).unwrap_or_default();
        for (name, tensor) in state {
            call.tensors.insert(name.to_owned(), tensor.clone());
        }
        Request { case: self.name.clone(), step, call }
    }

    /// Whether `name` can name a case: 1 to 100 characters of `a–z 0–9 _ - .`.
    pub fn is_valid_name(name: &str) -> bool {
        (1..=100).contains(&name.len())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
    }
}

impl Answer {
    /// The tensors of an answer, or the state of a refusal.
    pub fn tensors(&self) -> Option<&Tensors> {
        match self {
            Answer::Tensors(tensors) => Some(tensors),
            Answer::Refused { state, .. } => Some(state),
            Answer::Unsupported(_) => None,
        }
    }

    /// The tensor `name` of an answer.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors()?.get(name)
    }
}
