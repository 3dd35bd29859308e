//! What an adapter is asked: steps of the catalogue that it claims, and larger ones made of them.

use std::collections::BTreeSet;

use crate::arithmetic::DataType;
use crate::case::{COUNTER, Case, Level, Request, Step, catalogue};
use crate::operation::{Mode, Plan, Refused};
use crate::subject::{Builtin, Hello, Skipped, Subject};
use crate::tensor::Tensor;

/// A large input has this many bytes at least: many times what a pipe holds.
const LARGE: usize = 1 << 20;

/// A step to be asked, and the case that it begins.
#[derive(Clone)]
pub(super) struct Question {
    pub case: &'static str,
    pub call: Step,
}

/// The smallest first step of a required case that `wanted` takes.
pub(super) fn smallest(wanted: impl Fn(&Step) -> bool) -> Option<Question> {
    required(wanted).min_by_key(|case| elements(&case.steps[0])).map(question)
}

fn required(wanted: impl Fn(&Step) -> bool) -> impl Iterator<Item = &'static Case> {
    catalogue::cases().iter().filter(move |case| case.level == Level::Required && wanted(&case.steps[0]))
}

/// The smallest step that must be answered and that `wanted` takes, among those that the hello claims.
pub(super) fn answerable(hello: &Hello, wanted: impl Fn(&Step) -> bool) -> Option<Question> {
    // An input of one element looks the same in every order and layout.
    let several = |step: &Step| step.tensors["input"].len() > 1;
    smallest(|step| several(step) && wanted(step) && hello.lacks(step).is_none() && plan(step).is_ok())
}

/// The smallest step of the operation called `name` in each data type, in each mode and with each set of tensors.
pub(super) fn kinds(hello: &Hello, name: &str) -> Vec<Question> {
    let kind = |step: &Step| {
        let names: Vec<String> = step.tensors.keys().cloned().collect();
        (step.tensors["input"].dtype(), step.mode == Mode::Train, names)
    };
    let steps = catalogue::cases().iter().map(|case| &case.steps[0]);
    let asked = steps.filter(|step| step.operation.name() == name && !step.gradients && hello.lacks(step).is_none());
    let kinds: BTreeSet<_> = asked.map(kind).collect();
    kinds
        .iter()
        .filter_map(|wanted| answerable(hello, |step| step.operation.name() == name && kind(step) == *wanted))
        .collect()
}

/// The smallest step that needs `option` and nothing else that the hello does not claim, but that double backward needs
/// gradients.
pub(super) fn needing(hello: &Hello, option: &str) -> Option<Question> {
    let mut without = hello.clone();
    without.options.retain(|name| name != option);
    if option == "double_backward" {
        without.options.push("gradients".to_owned());
    }
    let mut with = without.clone();
    with.options.push(option.to_owned());
    let needs = |step: &Step| matches!(without.lacks(step), Some(Skipped::Option(name)) if name == option);
    answerable(&with, needs)
}

/// A step on an empty input, of any level: some careful layers refuse it.
pub(super) fn empty(hello: &Hello) -> Option<Question> {
    let wanted = |case: &&Case| case.steps[0].tensors["input"].is_empty() && hello.lacks(&case.steps[0]).is_none();
    catalogue::cases().iter().find(wanted).map(question)
}

/// A step with an input of [`LARGE`] bytes: copies of a long input behind each other, along dimension 0. If no operation
/// that the hello claims can have it, the largest of the catalogue.
pub(super) fn large(hello: &Hello) -> Option<Question> {
    let longest = |name: &str| {
        let plain = |step: &Step| step.operation.name() == name && !step.gradients;
        let steps = required(|step| plain(step) && hello.lacks(step).is_none() && plan(step).is_ok());
        // Few long groups rather than many short ones: it is the bytes that are many, not the calls of a kernel.
        steps.filter(|case| !case.steps[0].tensors["input"].is_empty()).max_by_key(|case| elements(&case.steps[0]))
    };
    let enlarged = hello.operations.iter().filter_map(|name| longest(name)).map(question).find_map(|question| {
        let input = &question.call.tensors["input"];
        let copies = LARGE.div_ceil(input.len() * input.dtype().size());
        let mut shape = input.shape().to_vec();
        *shape.first_mut()? *= copies;
        let input = Tensor::from_bytes(input.dtype(), &shape, &input.to_bytes().repeat(copies)).ok()?;
        let mut call = question.call.clone();
        call.tensors.insert("input".to_owned(), input);
        plan(&call).is_ok_and(|plan| plan.outputs[0].1 == shape).then_some(Question { call, ..question })
    });
    let all = || catalogue::cases().iter().filter(|case| hello.lacks(&case.steps[0]).is_none());
    enlarged.or_else(|| all().max_by_key(|case| elements(&case.steps[0])).map(question))
}

/// A step in evaluation that leaves its state alone, in which the state has a NaN with a payload.
pub(super) fn untouched_state(hello: &Hello) -> Option<Question> {
    let mut question = answerable(hello, |step| {
        let state = || step.operation.signature().state.iter().filter_map(|&name| step.tensors.get(name));
        let wide = |tensor: &Tensor| matches!(tensor.dtype(), DataType::F64 | DataType::F32);
        step.mode == Mode::Eval && state().any(wide) && leaves_state_alone(step)
    })?;
    for &name in question.call.operation.signature().state {
        if let Some(tensor) = question.call.tensors.get_mut(name).filter(|_| name != COUNTER) {
            *tensor = with_nan(tensor);
        }
    }
    Some(question)
}

/// Whether the reference returns the state of `step` as it was sent.
fn leaves_state_alone(step: &Step) -> bool {
    let request = Request { case: String::new(), step: 0, call: step.clone() };
    let mut reference = Builtin::new("reference").expect("it is compiled in");
    let answer = reference.answer(&request).expect("it has no faults");
    step.operation.signature().state.iter().all(|&name| match (step.tensors.get(name), answer.get(name)) {
        (Some(sent), Some(returned)) => sent.same_bits(returned),
        (sent, _) => sent.is_none(),
    })
}

/// The tensor with a quiet NaN that has a payload as its first element, if its type is wide enough for one.
fn with_nan(tensor: &Tensor) -> Tensor {
    let mut bytes = tensor.to_bytes();
    let nan: &[u8] = match tensor.dtype() {
        DataType::F64 => &0x7ff8_0000_0001_2345_u64.to_le_bytes(),
        DataType::F32 => &0x7fc1_2345_u32.to_le_bytes(),
        _ => &[],
    };
    if let Some(first) = bytes.get_mut(..nan.len()) {
        first.copy_from_slice(nan);
    }
    Tensor::from_bytes(tensor.dtype(), tensor.shape(), &bytes).expect("as many bytes as before")
}

/// What the operation makes of the step's shapes.
pub(super) fn plan(step: &Step) -> Result<Plan, Refused> {
    step.plan(&step.operation.rule())
}

fn question(case: &'static Case) -> Question {
    Question { case: &case.name, call: case.steps[0].clone() }
}

fn elements(step: &Step) -> usize {
    step.tensors.values().map(Tensor::len).sum()
}
