//! Tests an adapter: what lies between the pipe and a layer, before the layer itself is judged.
//!
//! Each [`Check`] states one thing that the protocol asks of a program, and whether this one does it. The requests are
//! the catalogue's, some of them edited. What an answer's numbers are worth is never looked at, but for state that a
//! call leaves alone: it must come back bit by bit.

mod checks;
mod claims;
mod conversation;
mod requests;

use std::fmt;

use super::{Fault, Hello, Timeouts};
use conversation::Conversation;

/// What came of testing an adapter.
#[derive(Clone, Debug)]
pub struct AdapterTest {
    /// What the program said of itself.
    pub hello: Hello,
    /// The checklist, in order.
    pub checks: Vec<Check>,
}

/// One line of the checklist.
#[derive(Clone, Debug)]
pub struct Check {
    /// What a right adapter does.
    pub rule: String,
    /// What this one did.
    pub finding: Finding,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The adapter does it.
    Ok,
    /// It does it, or need not, but there is something to know.
    Note(String),
    /// It does not.
    Failed {
        /// What it did.
        found: String,
        /// What would be right.
        right: String,
    },
    /// It could not be asked, because of what it claims.
    NotAsked(String),
}

impl AdapterTest {
    /// The number of checks that failed.
    pub fn failures(&self) -> usize {
        self.checks.iter().filter(|check| matches!(check.finding, Finding::Failed { .. })).count()
    }
}

impl Finding {
    fn failed(found: impl fmt::Display, right: impl Into<String>) -> Finding {
        Finding::Failed { found: found.to_string(), right: right.into() }
    }
}

/// Runs the program that `command` names through the checklist.
///
/// # Errors
/// As [`Program::start`](super::Program::start): a program that does not start or says no hello has nothing to test.
pub fn test_adapter(command: &str, timeouts: Timeouts) -> Result<AdapterTest, Fault> {
    let (mut conversation, hello) = Conversation::start(command, timeouts)?;
    let checks = checks::run(&mut conversation, &hello);
    Ok(AdapterTest { hello, checks })
}
