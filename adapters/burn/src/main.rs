//! `normative-burn [--device wgpu|flex]`: serves burn's normalization layers to *normative* on standard input and output.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use normative::case::{Answer, Request};
use normative::golden::{Message, MessageError, read_frame, write_frame, write_hello_reply, write_reply};
use normative::subject::Subject;
use normative_burn::Burn;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut subject = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["--device", "wgpu"] => Burn::wgpu(),
        ["--device", "flex"] => Burn::flex(),
        _ => {
            eprintln!("usage: normative-burn [--device wgpu|flex]");
            return ExitCode::from(2);
        }
    };
    match serve(&mut subject, &mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("normative-burn: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers one message after the other until the pipe closes.
fn serve(subject: &mut impl Subject, input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    while let Some(bytes) = read_frame(input, u64::MAX).map_err(io::Error::other)? {
        let reply = match Message::read(&bytes) {
            Ok(Message::HelloRequest) => write_hello_reply(subject.hello()),
            Ok(Message::Request { id, call }) => {
                call.check().map_err(io::Error::other)?;
                let request = Request { case: String::new(), step: 0, call };
                write_reply(id, &subject.answer(&request).map_err(io::Error::other)?)
            }
            // What a later suite may ask is no error.
            Err(error @ MessageError::Unknown { id: Some(id), .. }) => {
                write_reply(id, &Answer::Unsupported(error.to_string()))
            }
            Ok(Message::Hello(_) | Message::Reply { .. }) => {
                return Err(io::Error::other("a reply came in place of a request"));
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        write_frame(output, &reply)?;
    }
    Ok(())
}
