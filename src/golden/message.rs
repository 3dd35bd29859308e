//! Messages: what the documents of a conversation say.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::document::{Document, DocumentError};
use super::one_line;
use crate::case::{Answer, Hello, LayoutFormat, Request, Step};
use crate::operation::{Dialect, Operation, Refusal};
use crate::tensor::Tensors;

/// The version of the protocol and of the golden format.
pub const VERSION: u64 = 1;

/// One message of a conversation.
#[derive(Clone, Debug)]
pub enum Message {
    /// The suite asks who the subject is.
    HelloRequest,
    /// The subject says what it is and what it can do.
    Hello(Hello),
    /// The suite asks one step.
    Request {
        /// The request's number; the reply repeats it.
        id: u64,
        /// The call, with every tensor.
        call: Step,
    },
    /// The subject answers, refuses, or says that it cannot.
    Reply {
        /// The request's number.
        id: u64,
        /// What it makes of the step.
        answer: Answer,
    },
}

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MessageError {
    /// They are no document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The document's JSON is none of a message.
    #[error("`{key}`: {reason}")]
    Invalid {
        /// The key, with dots for nesting.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// A message of another type than the one that was due.
    #[error("the message is of type `{found}`, but `{expected}` was due")]
    WrongType {
        /// The type that it has.
        found: String,
        /// The type that was due.
        expected: &'static str,
    },
    /// A request for what this version does not know; a server replies `unsupported` to it.
    #[error("there is no {kind} `{name}`")]
    Unknown {
        /// The request's number; `None` in a golden file.
        id: Option<u64>,
        /// `operation`, `dialect` or `layout`.
        kind: &'static str,
        /// The name that is not known.
        name: String,
    },
}

impl Message {
    /// Reads a message of any type. Unknown keys are ignored.
    ///
    /// # Errors
    /// [`MessageError::Document`] if `bytes` are no document, [`MessageError::Unknown`] for a request with an unknown
    /// operation, dialect or layout, [`MessageError::Invalid`] if a key is missing or its value is none (an unknown
    /// `type` among them).
    pub fn read(bytes: &[u8]) -> Result<Message, MessageError> {
        let Document { metadata: json, tensors } = Document::read(bytes)?;
        let kind: String = field(&json, "type")?;
        match kind.as_str() {
            "hello" if json.get("name").is_none() => check_version(&json).map(|()| Message::HelloRequest),
            "hello" => hello_from_json(&json).map(Message::Hello),
            "request" => Ok(Message::Request { id: field(&json, "id")?, call: request_from_json(&json, tensors)? }),
            "answer" | "refusal" | "unsupported" => {
                Ok(Message::Reply { id: field(&json, "id")?, answer: reply_from_json(&json, tensors)? })
            }
            _ => Err(invalid("type", format!("`{kind}` is no type of message"))),
        }
    }

    /// The message's bytes.
    ///
    /// ```
    /// use normative::golden::Message;
    /// let bytes = Message::HelloRequest.write();
    /// assert!(matches!(Message::read(&bytes), Ok(Message::HelloRequest)));
    /// ```
    pub fn write(&self) -> Vec<u8> {
        let (metadata, tensors) = match self {
            Message::HelloRequest => (typed("hello", None, json!({"normative": VERSION})), Tensors::new()),
            Message::Hello(hello) => (hello_to_json(hello), Tensors::new()),
            Message::Request { id, call } => (request_to_json(Some(*id), call), call.tensors.clone()),
            Message::Reply { id, answer } => {
                (reply_to_json(Some(*id), answer), answer.tensors().cloned().unwrap_or_default())
            }
        };
        Document { metadata, tensors }.write()
    }

    fn type_name(&self) -> &'static str {
        match self {
            Message::HelloRequest | Message::Hello(_) => "hello",
            Message::Request { .. } => "request",
            Message::Reply { answer, .. } => reply_type(answer),
        }
    }

    fn is_not(&self, expected: &'static str) -> MessageError {
        MessageError::WrongType { found: self.type_name().to_owned(), expected }
    }
}

/// The suite's hello.
pub fn write_hello() -> Vec<u8> {
    Message::HelloRequest.write()
}

/// A subject's hello.
pub fn write_hello_reply(hello: &Hello) -> Vec<u8> {
    Message::Hello(hello.clone()).write()
}

/// A request.
pub fn write_request(id: u64, request: &Request) -> Vec<u8> {
    Message::Request { id, call: request.call.clone() }.write()
}

/// A reply: an answer, a refusal or `unsupported`.
pub fn write_reply(id: u64, answer: &Answer) -> Vec<u8> {
    Message::Reply { id, answer: answer.clone() }.write()
}

/// Reads a subject's hello.
///
/// # Errors
/// As [`Message::read`], and [`MessageError::WrongType`] if it is another message.
pub fn read_hello(bytes: &[u8]) -> Result<Hello, MessageError> {
    match Message::read(bytes)? {
        Message::Hello(hello) => Ok(hello),
        Message::HelloRequest => Err(invalid("name", "it is missing: this is the suite's hello, not a subject's")),
        other => Err(other.is_not("hello")),
    }
}

/// Reads a request.
///
/// # Errors
/// As [`Message::read`], and [`MessageError::WrongType`] if it is another message.
pub fn read_request(bytes: &[u8]) -> Result<(u64, Step), MessageError> {
    match Message::read(bytes)? {
        Message::Request { id, call } => Ok((id, call)),
        other => Err(other.is_not("request")),
    }
}

/// Reads a reply.
///
/// # Errors
/// As [`Message::read`], and [`MessageError::WrongType`] if it is another message.
pub fn read_reply(bytes: &[u8]) -> Result<(u64, Answer), MessageError> {
    match Message::read(bytes)? {
        Message::Reply { id, answer } => Ok((id, answer)),
        other => Err(other.is_not("answer")),
    }
}

pub(super) fn hello_to_json(hello: &Hello) -> Value {
    let Value::Object(fields) = to_json(hello) else { unreachable!("a hello is an object") };
    let mut json = typed("hello", None, json!({"normative": VERSION}));
    json.as_object_mut().expect("an object").extend(fields);
    json
}

pub(super) fn hello_from_json(json: &Value) -> Result<Hello, MessageError> {
    expect_type(json, "hello")?;
    check_version(json)?;
    Hello::deserialize(json).map_err(|error| invalid("hello", error.to_string()))
}

pub(super) fn request_to_json(id: Option<u64>, call: &Step) -> Value {
    let mut fields = json!({
        "mode": call.mode,
        "gradients": call.gradients,
        "layout": call.layout,
        "operation": call.operation,
    });
    if call.double_backward {
        fields["double_backward"] = true.into();
    }
    typed("request", id, fields)
}

pub(super) fn request_from_json(json: &Value, tensors: Tensors) -> Result<Step, MessageError> {
    expect_type(json, "request")?;
    Ok(Step {
        operation: operation_from_json(json)?,
        mode: field(json, "mode")?,
        gradients: field_or_default(json, "gradients")?,
        double_backward: field_or_default(json, "double_backward")?,
        layout: match json.get("layout").and_then(|layout| layout.get("format")).and_then(Value::as_str) {
            Some(format) if LayoutFormat::deserialize(&Value::from(format)).is_err() => {
                return Err(unknown(json, "layout", format));
            }
            _ => field_or_default(json, "layout")?,
        },
        tensors,
    })
}

fn operation_from_json(json: &Value) -> Result<Operation, MessageError> {
    let name: String = field(json.get("operation").unwrap_or(&Value::Null), "name")
        .map_err(|_| invalid("operation", "it must be an object with the operation's `name`"))?;
    if !Operation::NAMES.contains(&name.as_str()) {
        return Err(unknown(json, "operation", &name));
    }
    let dialect = json["operation"].get("dialect").map(|dialect| dialect.as_str().unwrap_or_default());
    if let Some(dialect) = dialect.filter(|&dialect| Dialect::deserialize(&Value::from(dialect)).is_err()) {
        return Err(unknown(json, "dialect", dialect));
    }
    let operation = field(json, "operation")?;
    // An operation that has no such field would ignore the dialect, as it ignores every unknown key.
    if let Some(dialect) = dialect {
        let default = to_json(&Dialect::default());
        let understood = to_json(&operation);
        if understood.get("dialect").unwrap_or(&default) != dialect {
            return Err(unknown(json, "dialect", dialect));
        }
    }
    Ok(operation)
}

pub(super) fn reply_to_json(id: Option<u64>, answer: &Answer) -> Value {
    let fields = match answer {
        Answer::Tensors(_) => json!({}),
        Answer::Refused { refusal, .. } => json!({"kind": refusal.kind, "message": refusal.message}),
        Answer::Unsupported(message) => json!({"message": message}),
    };
    typed(reply_type(answer), id, fields)
}

/// The answer that `json` and `tensors` make; `unsupported` carries no tensors, and any that came are ignored.
pub(super) fn reply_from_json(json: &Value, tensors: Tensors) -> Result<Answer, MessageError> {
    let kind: String = field(json, "type")?;
    match kind.as_str() {
        "answer" => Ok(Answer::Tensors(tensors)),
        "refusal" => {
            let refusal = Refusal { kind: field(json, "kind")?, message: field_or_default(json, "message")? };
            Ok(Answer::Refused { refusal, state: tensors })
        }
        "unsupported" => Ok(Answer::Unsupported(field_or_default(json, "message")?)),
        _ => Err(MessageError::WrongType { found: one_line(&kind), expected: "answer" }),
    }
}

fn reply_type(answer: &Answer) -> &'static str {
    match answer {
        Answer::Tensors(_) => "answer",
        Answer::Refused { .. } => "refusal",
        Answer::Unsupported(_) => "unsupported",
    }
}

/// The value of `key` as it stands.
pub(super) fn part<'a>(json: &'a Value, key: &str) -> Result<&'a Value, MessageError> {
    json.get(key).ok_or_else(|| invalid(key, "it is missing"))
}

/// The elements of the array `key`.
pub(super) fn elements<'a>(json: &'a Value, key: &str) -> Result<&'a [Value], MessageError> {
    let array = part(json, key)?.as_array().map(Vec::as_slice);
    array.ok_or_else(|| invalid(key, "it must be an array"))
}

/// The value of `key`.
pub(super) fn field<T: DeserializeOwned>(json: &Value, key: &str) -> Result<T, MessageError> {
    T::deserialize(part(json, key)?).map_err(|error| invalid(key, error.to_string()))
}

fn field_or_default<T: DeserializeOwned + Default>(json: &Value, key: &str) -> Result<T, MessageError> {
    if json.get(key).is_none() { Ok(T::default()) } else { field(json, key) }
}

/// Checks that `json` is a message of type `expected`.
pub(super) fn expect_type(json: &Value, expected: &'static str) -> Result<(), MessageError> {
    let found: String = field(json, "type")?;
    if found == expected { Ok(()) } else { Err(MessageError::WrongType { found: one_line(&found), expected }) }
}

/// Checks the version of the protocol.
pub(super) fn check_version(json: &Value) -> Result<(), MessageError> {
    match field::<u64>(json, "normative")? {
        VERSION => Ok(()),
        other => Err(invalid("normative", format!("version {other} is not known, only {VERSION}"))),
    }
}

/// An object: its type, its id, then `fields`.
fn typed(kind: &str, id: Option<u64>, fields: Value) -> Value {
    let mut object = Map::from_iter([("type".to_owned(), kind.into())]);
    object.extend(id.map(|id| ("id".to_owned(), id.into())));
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    object.into()
}

fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("data without maps of other keys than strings")
}

fn invalid(key: &str, reason: impl AsRef<str>) -> MessageError {
    MessageError::Invalid { key: key.to_owned(), reason: one_line(reason.as_ref()) }
}

fn unknown(json: &Value, kind: &'static str, name: &str) -> MessageError {
    MessageError::Unknown { id: json.get("id").and_then(Value::as_u64), kind, name: one_line(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::DataType;
    use crate::case::Layout;
    use crate::operation::{Mode, RefusalKind};
    use crate::tensor::Tensor;

    fn document(metadata: Value) -> Vec<u8> {
        Document { metadata, tensors: Tensors::new() }.write()
    }

    fn request(eps: f64) -> Request {
        let text = r#"{"name": "layer_norm", "normalized_shape": [2], "eps": 0}"#;
        let mut operation: Value = serde_json::from_str(text).unwrap();
        operation["eps"] = if eps.is_finite() { eps.into() } else { eps.to_string().to_lowercase().into() };
        let tensors =
            Tensors::from([("input".to_owned(), Tensor::rounded(DataType::F32, &[1, 2], vec![1.0, f64::INFINITY]))]);
        let layout = Layout { format: LayoutFormat::Strided, offset: 3 };
        let operation = serde_json::from_value(operation).unwrap();
        let call = Step { operation, mode: Mode::Train, layout, gradients: true, double_backward: false, tensors };
        Request { case: "a".to_owned(), step: 0, call }
    }

    #[test]
    fn a_request_comes_back_whole() {
        for eps in [1e-5, f64::MIN_POSITIVE, 0.1 + 0.2, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let request = request(eps);
            let bytes = write_request(u64::MAX, &request);
            let (id, call) = read_request(&bytes).unwrap();
            assert_eq!(id, u64::MAX);
            assert_eq!(call.layout, request.call.layout);
            assert_eq!((call.mode, call.gradients), (Mode::Train, true));
            assert!(call.tensors["input"].same_bits(&request.call.tensors["input"]));
            assert_eq!(write_request(u64::MAX, &Request { call, ..request }), bytes);
        }
    }

    #[test]
    fn every_reply_comes_back_whole() {
        let state = Tensors::from([("num_batches_tracked".to_owned(), Tensor::counter(1))]);
        let refusal = Refusal { kind: RefusalKind::TooFewValues, message: "one value\nper channel".to_owned() };
        for answer in [
            Answer::Tensors(state.clone()),
            Answer::Refused { refusal, state },
            Answer::Unsupported("no F16 on this device".to_owned()),
        ] {
            let bytes = write_reply(7, &answer);
            let (id, back) = read_reply(&bytes).unwrap();
            assert_eq!(id, 7);
            assert_eq!(format!("{back:?}"), format!("{answer:?}"));
            assert_eq!(write_reply(7, &back), bytes);
        }
    }

    #[test]
    fn what_a_server_does_not_know_is_told_from_what_is_wrong() {
        let ask = |operation: Value, layout: Value| {
            let json = json!({"type": "request", "id": 5, "mode": "eval", "layout": layout, "operation": operation});
            read_request(&document(json)).unwrap_err()
        };
        let plain = json!({"format": "contiguous"});
        let layer_norm = json!({"name": "layer_norm", "normalized_shape": [2], "eps": 1e-5});
        let with_dialect = |dialect: &str| {
            let mut operation = layer_norm.clone();
            operation["dialect"] = dialect.into();
            operation
        };
        for (error, expected) in [
            (ask(json!({"name": "no_norm"}), plain.clone()), "operation"),
            (ask(with_dialect("martian"), plain.clone()), "dialect"),
            (ask(layer_norm.clone(), json!({"format": "blocked"})), "layout"),
        ] {
            assert!(matches!(error, MessageError::Unknown { id: Some(5), kind, .. } if kind == expected), "{error}");
        }
        for error in [
            ask(json!({}), plain.clone()),
            ask(json!("layer_norm"), plain.clone()),
            ask(json!({"name": "layer_norm"}), plain),
            ask(layer_norm, json!(3)),
            read_request(&document(json!({"type": "request", "operation": {"name": "no_norm"}}))).unwrap_err(),
        ] {
            assert!(matches!(error, MessageError::Invalid { .. }), "{error}");
        }
    }

    #[test]
    fn unknown_keys_are_ignored_and_unknown_types_are_not() {
        let hello =
            json!({"type": "hello", "normative": 1, "future": [1], "name": "a", "operations": [], "dtypes": []});
        assert_eq!(read_hello(&document(hello.clone())).unwrap().name, "a");
        let mut other = hello.clone();
        other["normative"] = 2.into();
        assert!(read_hello(&document(other)).unwrap_err().to_string().contains("version 2"));
        let error = Message::read(&document(json!({"type": "goodbye"}))).unwrap_err();
        assert_eq!(error.to_string(), "`type`: `goodbye` is no type of message");
        let error = read_reply(&document(hello)).unwrap_err();
        assert_eq!(error, MessageError::WrongType { found: "hello".to_owned(), expected: "answer" });
        assert!(read_hello(&write_hello()).unwrap_err().to_string().contains("the suite's hello"));
        assert!(Message::read(&document(json!([1]))).unwrap_err().to_string().contains("`type`: it is missing"));
    }
}
