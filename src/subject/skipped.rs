//! What a subject does not claim is not asked of it.

use super::Hello;
use crate::arithmetic::DataType;
use crate::case::{LayoutFormat, Step};
use crate::operation::Operation;

/// The dialect of an operation that names none, and of a hello that names none for an operation.
const DIALECT: &str = "pytorch";

/// What a step asks for that the subject's hello does not claim; the first that applies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// The operation.
    #[error("the subject does not claim the operation {0}")]
    Operation(String),
    /// The input's data type.
    #[error("the subject does not claim the data type {0}")]
    DataType(DataType),
    /// The operation's dialect.
    #[error("the subject does not claim the dialect {dialect} of {operation}")]
    Dialect {
        /// The operation.
        operation: String,
        /// The dialect asked for.
        dialect: String,
    },
    /// An option, such as `gradients`.
    #[error("the subject does not claim the option {0}")]
    Option(&'static str),
}

impl Hello {
    /// What `step` asks for that is not claimed, `None` if it may be sent.
    pub fn lacks(&self, step: &Step) -> Option<Skipped> {
        let operation = step.operation.name();
        if !self.operations.iter().any(|name| name == operation) {
            return Some(Skipped::Operation(operation.to_owned()));
        }
        let dtype = step.tensors.get("input").map(|input| input.dtype());
        if let Some(dtype) = dtype.filter(|dtype| !self.dtypes.contains(dtype)) {
            return Some(Skipped::DataType(dtype));
        }
        let dialect = dialect(&step.operation);
        let spoken = self.dialects.get(operation).map_or(dialect == DIALECT, |names| names.contains(&dialect));
        if !spoken {
            return Some(Skipped::Dialect { operation: operation.to_owned(), dialect });
        }
        options(step).find(|&option| !self.options.iter().any(|name| name == option)).map(Skipped::Option)
    }
}

/// The name of the operation's dialect, as the protocol has it: a field, absent where it is the default.
fn dialect(operation: &Operation) -> String {
    let fields = serde_json::to_value(operation).expect("an operation is JSON");
    fields.get("dialect").and_then(|name| name.as_str()).unwrap_or(DIALECT).to_owned()
}

/// The options that a step needs. An offset is memory that the input does not start at, which is `strided`'s.
fn options(step: &Step) -> impl Iterator<Item = &'static str> {
    let layout = match step.layout.format {
        LayoutFormat::ChannelsLast => Some("channels_last"),
        LayoutFormat::Strided => Some("strided"),
        LayoutFormat::Contiguous => None,
    };
    let offset = (step.layout.offset > 0).then_some("strided");
    let gradients = step.gradients.then_some("gradients");
    let twice = step.double_backward.then_some("double_backward");
    gradients.into_iter().chain(twice).chain(layout).chain(offset)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::case::Layout;
    use crate::operation::Mode;
    use crate::tensor::{Tensor, Tensors};

    fn step(format: LayoutFormat, offset: usize, gradients: bool) -> Step {
        let text = r#"{"name": "layer_norm", "normalized_shape": [2], "eps": 1e-5}"#;
        let input = Tensor::rounded(DataType::F32, &[2], vec![1.0, 2.0]);
        Step {
            operation: serde_json::from_str(text).unwrap(),
            mode: Mode::Eval,
            layout: Layout { format, offset },
            gradients,
            double_backward: false,
            tensors: Tensors::from([("input".to_owned(), input)]),
        }
    }

    #[test]
    fn what_is_not_claimed_is_lacking() {
        let plain = step(LayoutFormat::Contiguous, 0, false);
        let lacks = |hello: serde_json::Value, step: &Step| {
            let hello: Hello = serde_json::from_value(hello).unwrap();
            hello.lacks(step)
        };
        let hello = json!({"name": "x", "operations": ["layer_norm"], "dtypes": ["F32"]});
        assert_eq!(lacks(hello.clone(), &plain), None);
        for (step, option) in [
            (step(LayoutFormat::Contiguous, 0, true), "gradients"),
            (step(LayoutFormat::ChannelsLast, 0, false), "channels_last"),
            (step(LayoutFormat::Strided, 1, false), "strided"),
            (step(LayoutFormat::Contiguous, 1, false), "strided"),
        ] {
            assert_eq!(lacks(hello.clone(), &step), Some(Skipped::Option(option)));
        }
        let other = json!({"name": "x", "operations": ["group_norm"], "dtypes": []});
        assert_eq!(lacks(other, &plain), Some(Skipped::Operation("layer_norm".into())));
        let other = json!({"name": "x", "operations": ["layer_norm"], "dtypes": ["F64"]});
        assert_eq!(lacks(other, &plain), Some(Skipped::DataType(DataType::F32)));
        let other = json!({"name": "x", "operations": ["layer_norm"], "dtypes": ["F32"],
            "dialects": {"layer_norm": ["keras"]}});
        let skipped = lacks(other, &plain).unwrap();
        assert_eq!(skipped.to_string(), "the subject does not claim the dialect pytorch of layer_norm");
    }
}
