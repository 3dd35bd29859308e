//! A Rust subject as a program of its own: the other end of the pipe.

use std::io::{self, Read, Write};

use super::Subject;
use crate::case::{Answer, Request, Step};
use crate::golden::{Message, MessageError, read_frame, write_frame, write_hello_reply, write_reply};

/// Answers one message after the other until the pipe closes. What the subject does not claim, and what a later suite may ask, is
/// answered `unsupported`.
///
/// ```
/// use normative::golden::{Message, read_frame, write_frame, write_hello};
/// use normative::subject::{Builtin, serve};
/// let (mut asked, mut answered) = (Vec::new(), Vec::new());
/// write_frame(&mut asked, &write_hello()).unwrap();
/// serve(&mut Builtin::new("reference").unwrap(), &mut asked.as_slice(), &mut answered).unwrap();
/// let reply = read_frame(&mut answered.as_slice(), 1 << 20).unwrap().unwrap();
/// assert!(matches!(Message::read(&reply), Ok(Message::Hello(hello)) if hello.name == "reference"));
/// ```
///
/// # Errors
/// Those of the pipe; a frame that is no document, a document that is neither a hello nor a call, and a subject's
/// [`Fault`](super::Fault).
pub fn serve(subject: &mut impl Subject, input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    while let Some(document) = read_frame(input, u64::MAX).map_err(io::Error::other)? {
        let reply = match Message::read(&document) {
            Ok(Message::HelloRequest) => write_hello_reply(subject.hello()),
            Ok(Message::Request { id, call }) => write_reply(id, &answer(subject, call)?),
            Err(error @ MessageError::Unknown { id: Some(id), .. }) => {
                write_reply(id, &Answer::Unsupported(error.to_string()))
            }
            Ok(Message::Hello(_) | Message::Reply { .. }) => {
                return Err(io::Error::other("a reply came where a hello or a request was due"));
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        write_frame(output, &reply)?;
    }
    Ok(())
}

fn answer(subject: &mut impl Subject, call: Step) -> io::Result<Answer> {
    call.check().map_err(io::Error::other)?;
    match subject.hello().lacks(&call) {
        Some(lacking) => Ok(Answer::Unsupported(lacking.to_string())),
        None => subject.answer(&Request { case: String::new(), step: 0, call }).map_err(io::Error::other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Builtin;
    use super::*;
    use crate::case::catalogue;
    use crate::golden::{read_reply, write_request};

    fn served(documents: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        for document in documents {
            write_frame(&mut asked, document)?;
        }
        serve(&mut Builtin::new("reference").expect("it is compiled in"), &mut asked.as_slice(), &mut answered)?;
        let mut pipe = answered.as_slice();
        Ok(std::iter::from_fn(|| read_frame(&mut pipe, 1 << 20).expect("frames")).collect())
    }

    #[test]
    fn a_request_is_answered_and_one_that_is_not_known_is_unsupported() {
        let case = catalogue::cases().iter().find(|case| case.name == "layer_norm-f32-size-4").expect("a case");
        let request = write_request(7, &case.request(0, None));
        let mut unknown = request.clone();
        let at = request.windows(10).position(|bytes| bytes == b"layer_norm").expect("it names its operation");
        unknown[at..at + 10].copy_from_slice(b"later_norm");
        let replies = served(&[request, unknown]).expect("both are requests");
        let [answered, unsupported] = [0, 1].map(|index| read_reply(&replies[index]).expect("a reply"));
        assert!(matches!(answered, (7, Answer::Tensors(_))));
        assert!(matches!(unsupported, (7, Answer::Unsupported(why)) if why.contains("later_norm")));
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        let hello = write_hello_reply(Builtin::new("reference").expect("it is compiled in").hello());
        assert!(served(&[hello]).unwrap_err().to_string().contains("was due"));
        assert!(served(&[b"garbage".to_vec()]).is_err());
    }
}
