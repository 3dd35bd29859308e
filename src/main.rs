//! The command `normative`.
fn main() {}
