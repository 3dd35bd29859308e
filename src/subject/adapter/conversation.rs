//! A program and what it is sent: documents that may be edited, and that may be none at all.

use serde_json::Value;

use super::super::process::{Ending, Process};
use super::super::program::{greet, longest_reply, words};
use super::super::{Fault, Hello, Timeouts};
use crate::case::{Answer, Step, check_answer};
use crate::golden::{self, Document};

/// After this many silences it is not asked any more: each costs the whole time limit.
const SILENCES: usize = 3;
/// What a reply to no request may take.
const SLACK: u64 = 1 << 20;

/// A running program; after a fault it is started again.
pub(super) struct Conversation {
    command: String,
    words: Vec<String>,
    timeouts: Timeouts,
    process: Option<Process>,
    last_id: u64,
    silences: usize,
}

impl Conversation {
    /// Starts the program and has it say hello.
    ///
    /// # Errors
    /// As [`Program::start`](super::super::Program::start).
    pub fn start(command: &str, timeouts: Timeouts) -> Result<(Conversation, Hello), Fault> {
        let words = words(command)?;
        let (process, hello) = greet(command, &words, timeouts.hello)?;
        let command = command.to_owned();
        Ok((Conversation { command, words, timeouts, process: Some(process), last_id: 0, silences: 0 }, hello))
    }

    /// The reply to `call`, checked as that of any subject.
    ///
    /// # Errors
    /// As [`Program::answer`](super::super::Subject::answer).
    pub fn ask(&mut self, call: &Step) -> Result<Answer, Fault> {
        self.last_id += 1;
        self.ask_edited(self.last_id, call, |_| ())
    }

    /// The same with another id, and the JSON of the request edited.
    ///
    /// # Errors
    /// As [`Conversation::ask`].
    pub fn ask_edited(&mut self, id: u64, call: &Step, edit: impl FnOnce(&mut Value)) -> Result<Answer, Fault> {
        let mut document = request_document(id, call);
        edit(&mut document.metadata);
        self.ask_document(id, call, document.write())
    }

    /// The reply to `call`, which `document` asks with `id`.
    ///
    /// # Errors
    /// As [`Conversation::ask`].
    pub fn ask_document(&mut self, id: u64, call: &Step, document: Vec<u8>) -> Result<Answer, Fault> {
        let reply = self.exchange(document, longest_reply(call))?;
        let (actual, answer) = golden::read_reply(&reply).map_err(|error| self.malformed(error))?;
        if actual != id {
            self.process = None;
            return Err(Fault::WrongId { expected: id, actual });
        }
        check_answer(call, &answer).map(|()| answer).map_err(Fault::from)
    }

    /// The hello of the program, started anew, to a document that asks for it.
    ///
    /// # Errors
    /// A [`Fault`] where there is none.
    pub fn hello(&mut self, document: Vec<u8>) -> Result<Hello, Fault> {
        self.process = Some(
            Process::spawn(&self.words)
                .map_err(|error| Fault::NotStarted { command: self.command.clone(), reason: error.to_string() })?,
        );
        let time = self.timeouts.hello;
        let reply = self.process.as_mut().map(|process| process.exchange(document, SLACK, time));
        let hello = reply
            .expect("it was just started")
            .and_then(|reply| golden::read_hello(&reply).map_err(|error| self.malformed(error)));
        hello.inspect_err(|_| self.process = None)
    }

    /// The bytes that come back for `document`, whatever it is.
    ///
    /// # Errors
    /// A [`Fault`] where nothing comes.
    pub fn exchange(&mut self, document: Vec<u8>, limit: u64) -> Result<Vec<u8>, Fault> {
        if self.silences >= SILENCES {
            let reason = format!("it did not answer {SILENCES} times, within {:?} each", self.timeouts.case);
            return Err(Fault::NotRun { reason, timeout: true });
        }
        let mut process = self.running()?;
        let reply = process.exchange(document, limit, self.timeouts.case);
        match &reply {
            Ok(_) => self.process = Some(process),
            Err(fault) => self.silences += usize::from(fault.is_timeout()),
        }
        reply
    }

    /// Closes the pipe of the running program.
    ///
    /// # Errors
    /// As [`Conversation::start`], if it had to be started again.
    pub fn close(&mut self) -> Result<Ending, Fault> {
        Ok(self.running()?.finish(self.timeouts.case))
    }

    fn running(&mut self) -> Result<Process, Fault> {
        match self.process.take() {
            Some(process) => Ok(process),
            None => Ok(greet(&self.command, &self.words, self.timeouts.hello)?.0),
        }
    }

    fn malformed(&mut self, error: impl ToString) -> Fault {
        let fault = self.process.take().map(|mut process| process.malformed(error.to_string()));
        fault.unwrap_or_else(|| Fault::Malformed { reason: error.to_string(), stderr: String::new() })
    }
}

/// A request, to be edited.
pub(super) fn request_document(id: u64, call: &Step) -> Document {
    let request = crate::case::Request { case: String::new(), step: 0, call: call.clone() };
    Document::read(&golden::write_request(id, &request)).expect("a request is a document")
}
