//! Subjects: implementations under test. A Rust type, a program behind a pipe, a recorded answer, a planted bug.

mod adapter;
mod builtin;
pub mod cuda_order;
mod patience;
pub mod planted;
mod pool;
mod process;
mod program;
mod serve;
mod skipped;

use std::time::Duration;

pub use adapter::{AdapterTest, Check, Finding, test_adapter};
pub(crate) use builtin::rounded;
pub use builtin::{Builtin, answer as answer_by};
pub use pool::{CaseRun, Pool, ask};
pub use program::{Program, Timeouts};
pub use serve::serve;
pub use skipped::Skipped;

use crate::case::{Answer, Request, WrongTensors};
pub use crate::case::{Declared, Hello};

/// An implementation under test.
pub trait Subject: Send {
    /// What it is and what it can do.
    fn hello(&self) -> &Hello;

    /// Its answer to one step.
    ///
    /// # Errors
    /// A [`Fault`] where there is no answer to judge: it exited, hung, or sent what is no answer to this request.
    fn answer(&mut self, request: &Request) -> Result<Answer, Fault>;
}

/// Why there is no answer to judge.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The program could not be started.
    #[error("cannot start {command:?}: {reason}")]
    NotStarted {
        /// The command line.
        command: String,
        /// The system's reason.
        reason: String,
    },
    /// Three hellos in a row failed.
    #[error("three times in a row it did not say hello; the last time: {0}")]
    NoHello(Box<Fault>),
    /// The program ended.
    #[error("it ended ({status}) instead of answering{}", tail(stderr))]
    Exited {
        /// How it ended, such as `exit status: 3`.
        status: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// Nothing came within the limit.
    #[error("no answer within {limit:?}{}", tail(stderr))]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// The end of its standard error.
        stderr: String,
    },
    /// A frame that is no document, or a document that is no reply.
    #[error("it sent no reply: {reason}{}", tail(stderr))]
    Malformed {
        /// What was wrong, and where.
        reason: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// A frame longer than twice the expected answer plus 1 MiB.
    #[error("it declared a frame of {declared} bytes, where at most {limit} can be an answer")]
    TooLong {
        /// The length it declared.
        declared: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// The answer to another request.
    #[error("it answered request {actual} instead of {expected}")]
    WrongId {
        /// The request's id.
        expected: u64,
        /// The answer's.
        actual: u64,
    },
    /// An answer with wrong tensors.
    #[error("its answer has the wrong tensors: {0}")]
    WrongTensors(#[from] WrongTensors),
    /// A subject in Rust panicked.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// It was not asked: it had failed too often.
    #[error("not run: {reason}")]
    NotRun {
        /// How often, on what, and the last fault.
        reason: String,
        /// Whether that was a timeout.
        timeout: bool,
    },
}

impl Fault {
    /// Whether the report calls this a timeout rather than a crash.
    pub fn is_timeout(&self) -> bool {
        match self {
            Fault::TimedOut { .. } => true,
            Fault::NotRun { timeout, .. } => *timeout,
            Fault::NoHello(last) => last.is_timeout(),
            _ => false,
        }
    }
}

fn tail(stderr: &str) -> String {
    let text = stderr.trim_end();
    if text.is_empty() { String::new() } else { format!("; its standard error ends with:\n{text}") }
}
