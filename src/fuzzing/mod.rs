//! The bodies of the fuzz targets: any bytes go in, and a panic is a finding.
//!
//! A target of `fuzz/` is one line that calls its body here, so that `cargo test` replays the same inputs on stable Rust.
//! A body states what must hold *whatever the bytes are*. Bytes that are no document stand for a case ([`case_of`]), which
//! can always be asked; [`mutation`] changes documents in ways that keep them documents, so that a fuzzer gets past the
//! first check.

mod asking;
#[cfg(feature = "cli")]
mod command_line;
mod edits;
mod generator;
mod golden_file;
mod gradients;
mod identities;
mod known_list;
mod live;
#[cfg(feature = "cli")]
mod markup;
pub mod mutation;
mod oracle;
mod orders;
mod protocol;
#[cfg(feature = "cli")]
mod report;
mod running;
mod shapes;
mod values;

use std::fmt::{Debug, Display};

#[cfg(feature = "cli")]
pub use command_line::command_line;
pub use generator::{STEPS, case_of};
pub use golden_file::golden_file;
pub use gradients::gradients;
pub use identities::identities;
pub use known_list::known_list;
pub use live::{Campaign, fuzz};
pub use oracle::oracle;
pub use orders::orders;
pub use protocol::protocol;
#[cfg(feature = "cli")]
pub use report::report;
pub use running::running;
pub use shapes::shapes;
pub use values::values;

use crate::case::Step;
use crate::operation::Operation;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also that of its folders.
    pub name: &'static str,
    /// Panics if something does not hold for an input.
    pub body: fn(&[u8]),
    /// Changes an input, as a seed says; `None` leaves it to the fuzzer.
    pub mutate: fn(&[u8], u32) -> Option<Vec<u8>>,
}

/// Every target; the last two need the command line.
pub const TARGETS: &[Target] = &[
    Target { name: "shapes", body: shapes, mutate: by_the_fuzzer },
    Target { name: "values", body: values, mutate: by_the_fuzzer },
    Target { name: "oracle", body: oracle, mutate: by_the_fuzzer },
    Target { name: "orders", body: orders, mutate: by_the_fuzzer },
    Target { name: "running", body: running, mutate: by_the_fuzzer },
    Target { name: "gradients", body: gradients, mutate: by_the_fuzzer },
    Target { name: "identities", body: identities, mutate: by_the_fuzzer },
    Target { name: "golden_file", body: golden_file, mutate: mutation::golden_file },
    Target { name: "protocol", body: protocol, mutate: mutation::protocol },
    Target { name: "known_list", body: known_list, mutate: by_the_fuzzer },
    #[cfg(feature = "cli")]
    Target { name: "report", body: report, mutate: by_the_fuzzer },
    #[cfg(feature = "cli")]
    Target { name: "command_line", body: command_line, mutate: command_line::mutated },
];

/// Any bytes are an input: there is no document to keep whole.
fn by_the_fuzzer(_: &[u8], _: u32) -> Option<Vec<u8>> {
    None
}

impl Target {
    /// The target called `name`.
    ///
    /// ```
    /// use normative::fuzzing::Target;
    /// (Target::from_name("shapes").unwrap().body)(b"any bytes");
    /// assert!(Target::from_name("nonesuch").is_none());
    /// ```
    pub fn from_name(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

/// Whether the work that a call asks for is in proportion to its bytes. A loop whose length is a hyper-parameter is not, nor are
/// products of matrices on a tape, a side for each channel; a call of many is read and written, but not judged.
fn is_bounded(call: &Step) -> bool {
    let channels = || call.tensors.get("input").and_then(|input| input.shape().get(1)).copied().unwrap_or(0);
    match &call.operation {
        Operation::SpectralNorm(norm) => norm.n_power_iterations <= 64,
        Operation::IterNorm(_) | Operation::DecorrelatedBatchNorm(_) => channels() <= 12,
        _ => true,
    }
}

/// The text of an error is one line, and not a long one.
fn assert_one_line(error: &impl Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "not one line: {text:?}");
    assert!(text.len() < 8192, "{} bytes of error: {text:?}", text.len());
}

/// Nothing that can be seen is lost between two values.
fn assert_same(left: &impl Debug, right: &impl Debug) {
    let (left, right) = (format!("{left:?}"), format!("{right:?}"));
    assert!(left == right, "{left}\nis not\n{right}");
}
