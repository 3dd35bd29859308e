//! Whether an answer has the tensors that were asked for: names, shapes and data types. Values are the judge's.

use std::collections::BTreeMap;

use super::{Answer, Step};
use crate::operation::Description;
use crate::tensor::{Tensor, Tensors};

/// What every answer may carry besides the tensors of its operation.
const SAVED: [&str; 2] = ["save_mean", "save_invstd"];
/// Unknown tensors that a message names.
const NAMED: usize = 4;

/// Checks the names, shapes and data types of an answer, not its values.
///
/// An answer has every output (of the input's data type), every state tensor that was sent and, where gradients were
/// asked for, the gradient of every differentiable tensor that was sent, each like the tensor itself, and with double backward
/// that of every output too; it may have `save_mean` and `save_invstd`, and nothing else. A refusal may have state tensors that were sent.
///
/// # Errors
/// [`WrongTensors`] if a tensor is missing, unknown, or not of the shape and data type it should have; it names
/// each such tensor.
pub fn check_answer(call: &Step, answer: &Answer) -> Result<(), WrongTensors> {
    let wrong = match answer {
        Answer::Tensors(tensors) => {
            let expected = expected(call);
            let mut wrong = missing(&expected, tensors);
            wrong.extend(unlike(&expected, tensors));
            wrong.extend(unknown(tensors, |name| expected.contains_key(name) || SAVED.contains(&name)));
            wrong
        }
        Answer::Refused { state: tensors, .. } => {
            let state = state(call).collect();
            let mut wrong = unlike(&state, tensors);
            wrong.extend(unknown(tensors, |name| state.contains_key(name)));
            wrong
        }
        Answer::Unsupported(_) => Vec::new(),
    };
    if wrong.is_empty() { Ok(()) } else { Err(WrongTensors(wrong.join("; "))) }
}

/// An answer whose tensors are not those that were asked for: which, and what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongTensors(pub String);

type Descriptions = BTreeMap<String, Description>;

/// The tensors that an answer must have.
fn expected(call: &Step) -> Descriptions {
    let outputs = outputs(call);
    let gradients = call
        .tensors
        .iter()
        .filter(|(name, _)| call.gradients && call.operation.signature().differentiable.contains(&name.as_str()))
        .map(|(name, tensor)| (name, describe(tensor)));
    let mut expected: Descriptions = outputs.clone().into_iter().chain(state(call)).collect();
    for (name, description) in gradients {
        if call.double_backward {
            expected.insert(format!("grad2_{name}"), description.clone());
        }
        expected.insert(format!("grad_{name}"), description);
    }
    if call.double_backward {
        expected.extend(outputs.into_iter().map(|(name, description)| (format!("grad2_{name}"), description)));
    }
    expected
}

/// The outputs: of the shapes that the plan says, or that of the input where the call should have been refused.
pub(crate) fn outputs(call: &Step) -> Descriptions {
    let Some(shape) = call.tensors.get("input").map(|input| input.shape().to_vec()) else { return Descriptions::new() };
    let names = call.operation.signature().outputs;
    let outputs = match call.plan(&call.operation.rule()) {
        Ok(plan) => plan.outputs,
        Err(_) => names.iter().map(|&name| (name, shape.clone())).collect(),
    };
    let described =
        |(name, shape): (&str, Vec<usize>)| (name.to_owned(), Description { dtype: call.output_dtype(name), shape });
    outputs.into_iter().map(described).collect()
}

/// The state tensors that were sent.
fn state(call: &Step) -> impl Iterator<Item = (String, Description)> {
    let names = call.operation.signature().state;
    names.iter().filter_map(|&name| Some((name.to_owned(), describe(call.tensors.get(name)?))))
}

fn missing(expected: &Descriptions, tensors: &Tensors) -> Vec<String> {
    let absent = expected.iter().filter(|(name, _)| !tensors.contains_key(*name));
    absent.map(|(name, expected)| format!("`{name}` is missing, it should be {}", text(expected))).collect()
}

fn unlike(expected: &Descriptions, tensors: &Tensors) -> Vec<String> {
    let pairs = expected.iter().filter_map(|(name, expected)| Some((name, expected, describe(tensors.get(name)?))));
    pairs
        .filter(|(_, expected, actual)| *expected != actual)
        .map(|(name, expected, actual)| format!("`{name}` should be {}, it is {}", text(expected), text(&actual)))
        .collect()
}

/// One line for all tensors that are not known: a subject may send any number, with names of any length.
fn unknown(tensors: &Tensors, is_known: impl Fn(&str) -> bool) -> Option<String> {
    let names: Vec<&str> = tensors.keys().map(String::as_str).filter(|name| !is_known(name)).collect();
    let short = |name: &&str| format!("{:?}", name.chars().take(40).collect::<String>());
    let shown: Vec<String> = names.iter().take(NAMED).map(short).collect();
    let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
    (!names.is_empty()).then(|| format!("nothing asked for {}{more}", shown.join(", ")))
}

pub(super) fn describe(tensor: &Tensor) -> Description {
    Description { dtype: tensor.dtype(), shape: tensor.shape().to_vec() }
}

pub(super) fn text(description: &Description) -> String {
    let Description { dtype, shape } = description;
    format!("{dtype} {shape:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::DataType;
    use crate::case::Layout;
    use crate::operation::{Mode, Operation, Refusal, RefusalKind};

    fn tensor(dtype: DataType, shape: &[usize]) -> Tensor {
        Tensor::rounded(dtype, shape, vec![0.5; shape.iter().product()])
    }

    fn named<const N: usize>(tensors: [(&str, Tensor); N]) -> Tensors {
        tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into()
    }

    fn call(gradients: bool) -> Step {
        let text = r#"{"name": "batch_norm", "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}"#;
        let tensors = named([
            ("input", tensor(DataType::F16, &[4, 3])),
            ("weight", tensor(DataType::F32, &[3])),
            ("running_mean", tensor(DataType::F32, &[3])),
            ("num_batches_tracked", Tensor::counter(0)),
        ]);
        let operation: Operation = serde_json::from_str(text).unwrap();
        Step { operation, mode: Mode::Train, layout: Layout::default(), gradients, double_backward: false, tensors }
    }

    fn answer() -> Tensors {
        named([
            ("output", tensor(DataType::F16, &[4, 3])),
            ("running_mean", tensor(DataType::F32, &[3])),
            ("num_batches_tracked", Tensor::counter(1)),
        ])
    }

    /// What is wrong with the answer once `name` is replaced, or taken away.
    fn wrong_with(name: &str, replacement: Option<Tensor>) -> String {
        let mut tensors = answer();
        match replacement {
            Some(tensor) => tensors.insert(name.to_owned(), tensor),
            None => tensors.remove(name),
        };
        check_answer(&call(false), &Answer::Tensors(tensors)).unwrap_err().to_string()
    }

    #[test]
    fn an_answer_in_full_is_right() {
        let mut tensors = answer();
        assert_eq!(check_answer(&call(false), &Answer::Tensors(tensors.clone())), Ok(()));
        tensors.insert("save_mean".into(), tensor(DataType::F32, &[3]));
        assert_eq!(check_answer(&call(false), &Answer::Tensors(tensors.clone())), Ok(()));
        tensors.insert("grad_input".into(), tensor(DataType::F16, &[4, 3]));
        tensors.insert("grad_weight".into(), tensor(DataType::F32, &[3]));
        assert_eq!(check_answer(&call(true), &Answer::Tensors(tensors)), Ok(()));
    }

    #[test]
    fn each_wrong_tensor_is_named() {
        let wrong = wrong_with("output", Some(tensor(DataType::F32, &[4, 3])));
        assert!(wrong.ends_with("`output` should be F16 [4, 3], it is F32 [4, 3]"), "{wrong}");
        let wrong = wrong_with("num_batches_tracked", Some(Tensor::rounded(DataType::F64, &[1], vec![1.0])));
        assert!(wrong.ends_with("`num_batches_tracked` should be I64 [], it is F64 [1]"), "{wrong}");
        let wrong = wrong_with("running_mean", None);
        assert!(wrong.ends_with("`running_mean` is missing, it should be F32 [3]"), "{wrong}");
        let wrong = wrong_with("running_var", Some(tensor(DataType::F32, &[3])));
        assert!(wrong.ends_with("nothing asked for \"running_var\""), "{wrong}");
        let wrong = check_answer(&call(true), &Answer::Tensors(answer())).unwrap_err().to_string();
        assert!(wrong.contains("`grad_input` is missing, it should be F16 [4, 3]; `grad_weight`"), "{wrong}");
    }

    #[test]
    fn many_and_long_names_make_a_short_message() {
        let mut tensors = answer();
        tensors.extend((0..1000).map(|i| (format!("x{i:0>9999}"), Tensor::counter(i))));
        let wrong = check_answer(&call(false), &Answer::Tensors(tensors)).unwrap_err().to_string();
        assert!(wrong.ends_with("and 996 more") && wrong.len() < 400, "{wrong}");
    }

    #[test]
    fn a_refusal_may_carry_the_state_that_was_sent() {
        let check = |state| {
            let refusal = Refusal { kind: RefusalKind::TooFewValues, message: String::new() };
            check_answer(&call(false), &Answer::Refused { refusal, state })
        };
        assert_eq!(check(Tensors::new()), Ok(()));
        assert_eq!(check(named([("num_batches_tracked", Tensor::counter(1))])), Ok(()));
        assert!(check(named([("running_mean", tensor(DataType::F16, &[3]))])).is_err());
        assert!(check(named([("output", tensor(DataType::F16, &[4, 3]))])).is_err());
    }
}
