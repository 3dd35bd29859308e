//! Target `protocol`: the bytes are what comes out of a pipe.

use super::asking::{check_call, judged};
use super::{assert_one_line, assert_same, is_bounded};
use crate::case::{Declared, Step, check_answer};
use crate::golden::{FrameError, Message, read_frame, read_hello, read_reply, read_request, write_frame};
use crate::judge::Expected;
use crate::tensor::{Tensor, Tensors};

/// The longest frame that is read.
const LIMIT: u64 = 1 << 16;

/// Reads the bytes as a stream of frames, and each frame as any message.
///
/// - A frame is what was written, never more than the limit; one that is cut or too long is an error.
/// - A document that is no message gives an error of one line; a message reads back as the same, and gives the same bytes.
/// - A request that is a call is planned, and answered by the reference and by a compiled-in program that its `id`
///   chooses: with the right tensors; the reference passes, and so does a correct program where the error analysis holds.
/// - A reply with the right tensors for the last request (at first, a fixed one) is judged.
///
/// # Panics
/// If one of these does not hold.
pub fn protocol(data: &[u8]) {
    let mut conversation = Conversation { asked: layer_norm(), declared: Declared::default() };
    let mut stream = data;
    loop {
        let before = stream;
        match read_frame(&mut stream, LIMIT) {
            Ok(Some(document)) => {
                assert!(document.len() as u64 <= LIMIT);
                let mut frame = Vec::new();
                write_frame(&mut frame, &document).expect("memory takes it");
                assert!(before.starts_with(&frame) && before.len() - stream.len() == frame.len());
                conversation.hear(&document);
            }
            Ok(None) => return assert!(before.is_empty(), "{} bytes are no end", before.len()),
            Err(error) => {
                assert_one_line(&error);
                return assert!(!matches!(error, FrameError::Io(_)), "memory can be read");
            }
        }
    }
}

/// What the messages so far have said.
struct Conversation {
    asked: Step,
    declared: Declared,
}

impl Conversation {
    fn hear(&mut self, document: &[u8]) {
        let message = match Message::read(document) {
            Ok(message) => message,
            Err(error) => return assert_one_line(&error),
        };
        check_written(&message);
        let read = [read_hello(document).is_ok(), read_request(document).is_ok(), read_reply(document).is_ok()];
        match message {
            Message::HelloRequest => assert_eq!(read, [false, false, false]),
            Message::Hello(hello) => {
                assert_eq!(read, [true, false, false]);
                // What it lacks may be anything, but saying so is one line.
                hello.lacks(&self.asked).iter().for_each(assert_one_line);
                self.declared = hello.arithmetic.unwrap_or_default();
            }
            Message::Request { id, call } => {
                assert_eq!(read, [false, true, false]);
                match call.check() {
                    Ok(()) if !is_bounded(&call) => {}
                    Ok(()) => {
                        drop(check_call(id, &call));
                        self.asked = call;
                    }
                    Err(error) => assert_one_line(&error),
                }
            }
            Message::Reply { answer, .. } => {
                assert_eq!(read, [false, false, true]);
                match check_answer(&self.asked, &answer) {
                    Ok(()) => drop(judged(&self.asked, &Expected::of(&self.asked), &answer, &self.declared)),
                    Err(error) => assert_one_line(&error),
                }
            }
        }
    }
}

fn check_written(message: &Message) {
    let bytes = message.write();
    let again = Message::read(&bytes).expect("a message that was written can be read");
    assert_same(message, &again);
    assert!(again.write() == bytes, "written twice, a message differs");
}

/// What is asked before the stream asks anything.
fn layer_norm() -> Step {
    let operation = serde_json::from_str(r#"{"name": "layer_norm", "normalized_shape": [2], "eps": 1e-5}"#);
    let input = Tensor::from(ndarray::arr2(&[[1.0_f32, 3.0]]).into_dyn());
    Step::forward(operation.expect("an operation"), Tensors::from([("input".to_owned(), input)]))
}
