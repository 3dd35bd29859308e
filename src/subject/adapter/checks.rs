//! The checklist.

use serde_json::{Map, Value, json};

use super::claims::{self, OPTIONS, claims};
use super::conversation::{Conversation, request_document};
use super::requests::{Question, answerable, empty, kinds, large, needing, plan, smallest, untouched_state};
use super::{Check, Finding};
use crate::arithmetic::DataType;
use crate::case::{Answer, Step};
use crate::golden::{self, Document};
use crate::operation::RefusalKind;
use crate::subject::{Fault, Hello};
use crate::tensor::Tensors;

/// The kinds of refusal that the catalogue has cases of.
const KINDS: [RefusalKind; 5] =
    [RefusalKind::Dtype, RefusalKind::Shape, RefusalKind::Parameter, RefusalKind::Empty, RefusalKind::TooFewValues];

/// Every check, in order. A fault in one does not keep the next from being asked.
pub(super) fn run(conversation: &mut Conversation, hello: &Hello) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut add = |rule: &str, finding: Finding| checks.push(Check { rule: rule.to_owned(), finding });

    for (rule, finding) in claims::run(hello) {
        add(rule, finding);
    }
    add("it ignores keys of a hello that it does not know", hello_with_more(conversation, hello));

    for name in &hello.operations {
        let rule = format!("{name}: each reply has the request's id, and the tensors that it should have");
        add(&rule, answers(conversation, hello, name));
    }
    for option in OPTIONS.into_iter().filter(|&option| claims(hello, option)) {
        add(
            &format!("with {option}: each reply has the tensors that it should have"),
            option_of(conversation, hello, option),
        );
    }
    add("it echoes any id up to 2^53 − 1, in any order", ids(conversation, hello));
    add("it answers each request by itself: asked again, it sends the same bits", again(conversation, hello));
    add("it ignores keys of a request that it does not know", request_with_more(conversation, hello));
    add("it reads JSON with spaces, in any order, with escapes", request_in_other_words(conversation, hello));
    add("it reads and writes large tensors", tensors(conversation, large(hello)));
    add("it reads empty tensors", tensors(conversation, empty(hello)));
    add("it returns state that a call leaves alone bit by bit, NaN included", state(conversation, hello));

    add("it replies `unsupported` to an operation that it does not have", no_operation(conversation, hello));
    add("it replies `unsupported` to a dialect that it does not have", no_dialect(conversation, hello));
    add("it replies `unsupported` to a layout that it does not have", no_layout(conversation, hello));
    add("it replies `unsupported` to a data type that it does not claim", no_dtype(conversation, hello));
    for option in OPTIONS.into_iter().filter(|&option| !claims(hello, option)) {
        let rule = format!("it replies `unsupported` to a request that needs {option}");
        add(&rule, no_option(conversation, hello, option));
    }
    for kind in KINDS {
        let rule = format!("it refuses what must be refused: kind `{}`", kind.name());
        add(&rule, refusal(conversation, hello, kind));
    }

    add(
        "it ends, not with status 0, on a frame that is no document",
        unreadable(conversation, b"no document".to_vec()),
    );
    let surprise = Document { metadata: json!({"type": "surprise", "id": 1}), tensors: Tensors::new() };
    add("it ends, not with status 0, on a message of an unknown type", unreadable(conversation, surprise.write()));
    let (ends, silent) = closed(conversation, hello);
    add("it ends by itself with status 0 when the pipe is closed", ends);
    add("it writes nothing to standard output besides its replies", silent);
    checks
}

fn hello_with_more(conversation: &mut Conversation, hello: &Hello) -> Finding {
    let metadata = json!({"surprise": [1, {"a": null}], "type": "hello", "normative": golden::VERSION});
    match conversation.hello(Document { metadata, tensors: Tensors::new() }.write()) {
        Ok(other) if other == *hello => Finding::Ok,
        Ok(_) => Finding::failed("it says another hello than before", "the same hello in every process"),
        Err(fault) => Finding::failed(fault, "the same hello as without them"),
    }
}

// --- Answers

/// A request of the operation in each data type that is claimed and with each set of tensors.
fn answers(conversation: &mut Conversation, hello: &Hello, name: &str) -> Finding {
    let questions = kinds(hello, name);
    if questions.is_empty() {
        return nothing_to_ask();
    }
    questions.iter().map(|question| tensors_of(conversation, question)).find(failed).unwrap_or(Finding::Ok)
}

fn option_of(conversation: &mut Conversation, hello: &Hello, option: &str) -> Finding {
    tensors(conversation, needing(hello, option))
}

fn tensors(conversation: &mut Conversation, question: Option<Question>) -> Finding {
    question.map_or_else(nothing_to_ask, |question| tensors_of(conversation, &question))
}

/// The tensors of an answer, or a refusal where the operation has one.
fn tensors_of(conversation: &mut Conversation, question: &Question) -> Finding {
    let right =
        "an answer with every tensor that the protocol lists, each with the shape and data type that it should have";
    judge(question, conversation.ask(&question.call), right)
}

/// A reply to a request that the adapter claims.
fn judge(question: &Question, reply: Result<Answer, Fault>, right: &str) -> Finding {
    let case = question.case;
    match reply {
        Ok(Answer::Tensors(_)) => Finding::Ok,
        Ok(Answer::Refused { refusal, .. })
            if plan(&question.call).is_ok() && !question.call.tensors["input"].is_empty() =>
        {
            Finding::failed(format!("{case}: it refuses what it claims: {}", refusal.message), right)
        }
        Ok(Answer::Refused { .. }) => Finding::Ok,
        Ok(Answer::Unsupported(why)) => {
            Finding::failed(format!("{case}: `unsupported`, though it claims it: {why}"), "claim what is answered")
        }
        Err(fault) => Finding::failed(format!("{case}: {fault}"), right),
    }
}

fn ids(conversation: &mut Conversation, hello: &Hello) -> Finding {
    let Some(question) = first(hello) else { return nothing_to_ask() };
    for id in [(1 << 53) - 1, 0, 1 << 32, 7] {
        let finding = judge(&question, conversation.ask_edited(id, &question.call, |_| ()), &format!(r#""id": {id}"#));
        if failed(&finding) {
            return finding;
        }
    }
    Finding::Ok
}

/// Asks one thing, another, and the first again.
fn again(conversation: &mut Conversation, hello: &Hello) -> Finding {
    let Some(question) = first(hello) else { return nothing_to_ask() };
    let other = answerable(hello, |step| !step.tensors["input"].same_bits(&question.call.tensors["input"]));
    let mut ask = |question: &Question| conversation.ask(&question.call);
    let replies = (ask(&question), other.map(|other| ask(&other)), ask(&question));
    let right = "keep nothing between requests: what a layer remembers comes with each request";
    match replies {
        (Ok(before), None | Some(Ok(_)), Ok(after)) => match changed(&before, &after) {
            None => Finding::Ok,
            // The protocol does not ask for it: some kernels sum in no fixed order.
            Some(name) => Finding::Note(format!(
                "{}: the bits of {name:?} differ. If the kernel has a fixed order, the adapter remembers something: {right}",
                question.case
            )),
        },
        (Err(fault), _, _) | (_, Some(Err(fault)), _) | (_, _, Err(fault)) => Finding::failed(fault, right),
    }
}

/// The first tensor that two answers do not have alike.
fn changed(before: &Answer, after: &Answer) -> Option<String> {
    let tensors = before.tensors()?;
    let unlike = |name: &&String| !after.get(name).is_some_and(|other| other.same_bits(&tensors[*name]));
    tensors.keys().find(unlike).cloned()
}

fn request_with_more(conversation: &mut Conversation, hello: &Hello) -> Finding {
    let Some(question) = first(hello) else { return nothing_to_ask() };
    let reply = conversation.ask_edited(11, &question.call, |json| {
        json["surprise"] = json!({"type": "answer", "list": [1, null, "a\"b"]});
        json["operation"]["surprise"] = json!(true);
        json["layout"]["surprise"] = json!(-1.5e-3);
    });
    judge(&question, reply, "the same answer as without them")
}

/// The same request as another writer of JSON may write it.
fn request_in_other_words(conversation: &mut Conversation, hello: &Hello) -> Finding {
    let Some(question) = first(hello) else { return nothing_to_ask() };
    let id = 12;
    let bytes = request_document(id, &question.call).write();
    let document = rewritten(&bytes);
    judge(&question, conversation.ask_document(id, &question.call, document), "any JSON reader's reading of it")
}

/// A document with the keys of its JSON in reverse, spaces between them, and a letter escaped.
fn rewritten(document: &[u8]) -> Vec<u8> {
    let read = Document::read(document).expect("a document");
    let length = u64::from_le_bytes(document[..8].try_into().expect("8 bytes")) as usize;
    let (header, data) = document[8..].split_at(length);
    let mut header: Value = serde_json::from_slice(header).expect("JSON");
    let spaced = |value: &Value| serde_json::to_string_pretty(value).expect("JSON has a text");
    let message = spaced(&reversed(read.metadata)).replace("\"type\"", "\"t\\u0079pe\"");
    header["__metadata__"] = json!({"normative": message, "format": "pt"});
    let header = spaced(&reversed(header));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn reversed(json: Value) -> Value {
    match json {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().rev().map(|(key, value)| (key, reversed(value))).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn state(conversation: &mut Conversation, hello: &Hello) -> Finding {
    let Some(question) = untouched_state(hello) else {
        return Finding::NotAsked("no operation that it claims has state in F32 or F64".into());
    };
    let right = "each state tensor that was sent, as it is after the call";
    let sent = &question.call.tensors;
    let names = question.call.operation.signature().state.iter();
    match conversation.ask(&question.call) {
        Ok(answer @ Answer::Tensors(_)) => {
            let kept = |name: &&&str| match (sent.get(**name), answer.get(name)) {
                (Some(sent), Some(returned)) => sent.same_bits(returned),
                _ => true,
            };
            match names.into_iter().find(|name| !kept(name)) {
                None => Finding::Ok,
                Some(name) => Finding::failed(format!("{}: {name} comes back with other bits", question.case), right),
            }
        }
        reply => judge(&question, reply, right),
    }
}

// --- What it cannot do

fn no_operation(conversation: &mut Conversation, hello: &Hello) -> Finding {
    let edit = |json: &mut Value| json["operation"]["name"] = "no_such_norm".into();
    unsupported(conversation, first(hello), edit)
}

fn no_dialect(conversation: &mut Conversation, hello: &Hello) -> Finding {
    let edit = |json: &mut Value| json["operation"]["dialect"] = "no_such_dialect".into();
    unsupported(conversation, first(hello), edit)
}

fn no_layout(conversation: &mut Conversation, hello: &Hello) -> Finding {
    let edit = |json: &mut Value| json["layout"]["format"] = "no_such_layout".into();
    unsupported(conversation, first(hello), edit)
}

fn no_dtype(conversation: &mut Conversation, hello: &Hello) -> Finding {
    let Some(&dtype) = DataType::FLOATS.iter().find(|dtype| !hello.dtypes.contains(dtype)) else {
        return Finding::NotAsked("it claims all of them".into());
    };
    let mut with = hello.clone();
    with.dtypes = vec![dtype];
    unsupported(conversation, answerable(&with, |_| true), |_| ())
}

fn no_option(conversation: &mut Conversation, hello: &Hello, option: &str) -> Finding {
    unsupported(conversation, needing(hello, option), |_| ())
}

fn unsupported(conversation: &mut Conversation, question: Option<Question>, edit: impl FnOnce(&mut Value)) -> Finding {
    let Some(Question { call, .. }) = question else { return nothing_to_ask() };
    let id = 13;
    let right = format!(r#"{{"type": "unsupported", "id": {id}, "message": "…"}}, and on with the next request"#);
    match conversation.ask_edited(id, &call, edit) {
        Ok(Answer::Unsupported(_)) => Finding::Ok,
        Ok(Answer::Tensors(_)) => Finding::failed("it answers", right),
        Ok(Answer::Refused { .. }) => Finding::failed("it refuses, as if the layer had looked at the request", right),
        Err(fault) => Finding::failed(fault, right),
    }
}

fn refusal(conversation: &mut Conversation, hello: &Hello, kind: RefusalKind) -> Finding {
    let refused = |step: &Step| plan(step).is_err_and(|refused| refused.refusal.kind == kind);
    let Some(question) = smallest(|step| hello.lacks(step).is_none() && refused(step)) else { return nothing_to_ask() };
    let name = kind.name();
    let right = format!(r#"{{"type": "refusal", "id": …, "kind": "{name}", "message": "…"}}"#);
    match conversation.ask(&question.call) {
        Ok(Answer::Refused { refusal, .. }) if refusal.kind == kind => Finding::Ok,
        Ok(Answer::Refused { refusal, .. }) => {
            let found = format!("{}: it refuses, with kind `{}`", question.case, refusal.kind.name());
            // Of the kinds this one alone is judged.
            if kind == RefusalKind::TooFewValues { Finding::failed(found, right) } else { Finding::Note(found) }
        }
        Ok(Answer::Unsupported(_)) => {
            Finding::failed(format!("{}: `unsupported`, though it claims it", question.case), right)
        }
        Ok(Answer::Tensors(_)) | Err(Fault::WrongTensors(_)) => {
            Finding::Note(format!("{}: it answers. The layer's matter, which `check` judges", question.case))
        }
        Err(fault) => Finding::failed(format!("{}: {fault}", question.case), right),
    }
}

// --- The ends

fn unreadable(conversation: &mut Conversation, document: Vec<u8>) -> Finding {
    let right = "say why on standard error and end with a status other than 0: there is no id to reply to";
    match conversation.exchange(document, 1 << 20) {
        Err(Fault::Exited { status, .. }) if status.contains("signal") => {
            Finding::failed(format!("it crashes: {status}"), right)
        }
        Err(Fault::Exited { status, .. }) if status.ends_with(": 0") => {
            Finding::failed("it ends with status 0, as if all were well", right)
        }
        Err(Fault::Exited { stderr, .. }) if stderr.trim().is_empty() => {
            Finding::Note("it ends without a word on standard error".into())
        }
        Err(Fault::Exited { .. }) => Finding::Ok,
        Err(fault) => Finding::failed(fault, right),
        Ok(_) => Finding::failed("it replies", right),
    }
}

/// Closes the pipe after a last answer: how the program ends, and what else it wrote.
fn closed(conversation: &mut Conversation, hello: &Hello) -> (Finding, Finding) {
    if let Some(question) = first(hello) {
        // Its reply was judged before.
        let _ = conversation.ask(&question.call);
    }
    let right = "at the end of the file, where a frame could begin, end with status 0";
    let ending = match conversation.close() {
        Ok(ending) => ending,
        Err(fault) => return (Finding::failed(&fault, right), Finding::NotAsked("it does not run".into())),
    };
    let ends = match ending.status {
        Some(status) if status.success() => Finding::Ok,
        Some(status) => Finding::failed(format!("it ends with {status}; {}", ending.stderr.trim_end()), right),
        None => Finding::failed("it goes on; it was killed", right),
    };
    let silent = match ending.stray.as_slice() {
        [] => Finding::Ok,
        stray => Finding::failed(
            format!("after the last reply came {:?}", String::from_utf8_lossy(stray)),
            "print to standard error: on standard output it would be taken for a frame",
        ),
    };
    (ends, silent)
}

fn first(hello: &Hello) -> Option<Question> {
    answerable(hello, |step| !step.gradients)
}

fn nothing_to_ask() -> Finding {
    Finding::NotAsked("the catalogue has no case of it in what is claimed".into())
}

fn failed(finding: &Finding) -> bool {
    matches!(finding, Finding::Failed { .. })
}
