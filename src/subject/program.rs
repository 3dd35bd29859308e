//! A program behind a pipe: a subject in any language.

use std::time::Duration;

use super::process::Process;
use super::{Fault, Hello, Subject};
use crate::case::{Answer, Request, Step, check_answer};
use crate::golden;
use crate::tensor::Tensor;

/// Hellos that may fail in a row.
const HELLOS: usize = 3;
/// What every reply may take besides its tensors: its names, its message.
const SLACK: u64 = 1 << 20;

/// How long a program may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For its hello, which may import a framework.
    pub hello: Duration,
    /// For the answer to one request, sending the request included.
    pub case: Duration,
}

impl Default for Timeouts {
    /// 60 s for the hello, 10 s for an answer.
    fn default() -> Timeouts {
        Timeouts { hello: Duration::from_secs(60), case: Duration::from_secs(10) }
    }
}

/// A subject that reads requests on standard input and writes replies on standard output.
///
/// ```no_run
/// use normative::subject::{Program, Subject, Timeouts};
/// let program = Program::start("python3 adapters/python/pytorch.py", Timeouts::default())?;
/// println!("{} {}", program.hello().name, program.hello().version);
/// # Ok::<(), normative::subject::Fault>(())
/// ```
///
/// After a fault the program and its children are killed; the next request starts it again. Dropping it closes the
/// pipe, gives the program 2 s to end by itself, and then kills what is left of it.
pub struct Program {
    command: String,
    words: Vec<String>,
    timeouts: Timeouts,
    hello: Hello,
    /// `None` after a fault.
    process: Option<Process>,
    last_id: u64,
}

impl Program {
    /// Splits `command` into words as a shell would, but runs it without one, and asks for its hello.
    ///
    /// # Errors
    /// - [`Fault::NotStarted`] if `command` is empty, has an unclosed quote, or names no program that can be run;
    /// - [`Fault::NoHello`] if three hellos in a row failed.
    pub fn start(command: &str, timeouts: Timeouts) -> Result<Program, Fault> {
        let words = words(command)?;
        let (process, hello) = greet(command, &words, timeouts.hello)?;
        Ok(Program { command: command.to_owned(), words, timeouts, hello, process: Some(process), last_id: 0 })
    }
}

impl Subject for Program {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Starts the program again if it is not running, and asks it.
    ///
    /// # Errors
    /// - [`Fault::NotStarted`] and [`Fault::NoHello`] as [`Program::start`], if it had to be started again;
    /// - [`Fault::TimedOut`], [`Fault::Exited`], [`Fault::TooLong`] and [`Fault::Malformed`] if no reply came;
    /// - [`Fault::WrongId`] if the reply is to another request;
    /// - [`Fault::WrongTensors`] as [`check_answer`].
    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => greet(&self.command, &self.words, self.timeouts.hello)?.0,
        };
        self.last_id += 1;
        let expected = self.last_id;
        let document = golden::write_request(expected, request);
        let reply = process.exchange(document, longest_reply(&request.call), self.timeouts.case)?;
        let checked = match golden::read_reply(&reply) {
            Err(error) => Err(process.malformed(error.to_string())),
            Ok((actual, _)) if actual != expected => Err(Fault::WrongId { expected, actual }),
            Ok((_, answer)) => check_answer(&request.call, &answer).map(|()| answer).map_err(Fault::from),
        };
        match checked {
            Ok(_) => self.process = Some(process),
            Err(_) => process.kill(),
        }
        checked
    }
}

/// The words of a command line, at least one.
pub(super) fn words(command: &str) -> Result<Vec<String>, Fault> {
    match shell_words::split(command) {
        Ok(words) if words.is_empty() => Err(not_started(command, "the command is empty")),
        Ok(words) => Ok(words),
        Err(error) => Err(not_started(command, error)),
    }
}

/// Starts a program and asks for its hello, three times at most.
pub(super) fn greet(command: &str, words: &[String], time: Duration) -> Result<(Process, Hello), Fault> {
    let mut last = None;
    for _ in 0..HELLOS {
        let mut process = Process::spawn(words).map_err(|error| not_started(command, error))?;
        let hello = process
            .exchange(golden::write_hello(), SLACK, time)
            .and_then(|reply| golden::read_hello(&reply).map_err(|error| process.malformed(error.to_string())));
        match hello {
            Ok(hello) => return Ok((process, hello)),
            Err(fault) => last = Some(fault),
        }
    }
    Err(Fault::NoHello(Box::new(last.expect("at least one attempt"))))
}

fn not_started(command: &str, reason: impl ToString) -> Fault {
    Fault::NotStarted { command: command.to_owned(), reason: reason.to_string() }
}

/// The most bytes that a reply to `call` may have: twice the expected answer and 1 MiB.
///
/// The expected answer has an output and two saved statistics, none larger than the largest tensor that was sent, and
/// for each tensor that was sent its gradient or its new state, all in the widest data type.
pub(super) fn longest_reply(call: &Step) -> u64 {
    let sent = || call.tensors.values().map(Tensor::len);
    let outputs = call.operation.signature().outputs.len() + 2;
    let elements = outputs * sent().max().unwrap_or(0) + sent().sum::<usize>();
    2 * 8 * elements as u64 + SLACK
}
