//! The bodies of the fuzz targets: any bytes go in, and a panic is a finding.
//!
//! A target of `fuzz/` is one line that calls its body here, so that `cargo test` replays the same inputs on stable Rust.
//! A body states what must hold *whatever the bytes are*; [`mutation`] changes documents in ways that keep them
//! documents, so that a fuzzer gets past the first check.

mod asking;
mod edits;
mod generator;
mod golden_file;
mod gradients;
mod identities;
pub mod mutation;
mod oracle;
mod orders;
mod protocol;
mod shapes;
mod values;

use std::fmt::{Debug, Display};

pub use generator::{STEPS, case_of};
pub use golden_file::golden_file;
pub use gradients::gradients;
pub use identities::identities;
pub use oracle::oracle;
pub use orders::orders;
pub use protocol::protocol;
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

/// Every target.
pub const TARGETS: [Target; 2] = [
    Target { name: "golden_file", body: golden_file, mutate: mutation::golden_file },
    Target { name: "protocol", body: protocol, mutate: mutation::protocol },
];

/// Whether the work that a call asks for is in proportion to its bytes. Only a loop whose length is a hyper-parameter is
/// not; a call with a long one is read and written, but not judged.
fn is_bounded(call: &Step) -> bool {
    !matches!(&call.operation, Operation::SpectralNorm(norm) if norm.n_power_iterations > 64)
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
