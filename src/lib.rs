//! normative
pub mod arithmetic;
pub mod case;
#[cfg(feature = "cli")]
pub mod cli;
pub mod conformance;
pub mod golden;
pub mod judge;
pub mod operation;
pub mod report;
pub mod subject;
pub mod tensor;
pub use tensor::{Tensor, Tensors};
