//! normative
pub mod arithmetic;
pub mod case;
pub mod conformance;
pub mod fuzzing;
pub mod golden;
pub mod judge;
pub mod operation;
pub mod subject;
pub mod tensor;
pub use tensor::{Tensor, Tensors};
