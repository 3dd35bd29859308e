//! The conformance suite for neural-network normalization layers.
//!
//! It answers one question about any implementation of batch norm, layer norm and their relatives: **is it right, and if
//! not, how is it wrong?** A reference more exact than any framework says what is true, an error analysis says how far a
//! good program may be from it, and a catalogue of cases asks.
//!
//! ```
//! use normative::case::{Case, catalogue};
//! use normative::conformance::check;
//! use normative::judge::Outcome;
//! use normative::subject::{Builtin, Pool};
//!
//! // A layer with a mistake that many have: the variance is divided by n − 1.
//! let mut pool = Pool::of(Box::new(Builtin::new("unbiased_variance").unwrap()));
//! let cases: Vec<&Case> = catalogue::cases().iter().filter(|case| case.name.starts_with("layer_norm-f32-size")).collect();
//! let (verdicts, _) = check(&mut pool, &cases, &|_| ());
//! let failed = verdicts.iter().find(|verdict| verdict.outcome == Outcome::Fail).unwrap();
//! assert_eq!(failed.nearest_bug.unwrap().sentence, "it divides the variance by n − 1 instead of n");
//! ```
//!
//! To judge a layer of your own in a test, implement [`Layer`] and call [`assert_conformant`]. More generally a subject is a
//! type that implements [`subject::Subject`], or a program in any language behind a pipe ([`subject::Program`]). The modules, from the bottom up: [`arithmetic`] (numbers and kernels), [`operation`] (what a norm
//! is), [`case`] (what is asked and answered), [`judge`], [`golden`] (documents), [`subject`], [`conformance`] (the walk from
//! cases to verdicts), [`property`] (laws that hold without knowing the answer), [`identify`] (which dialect a layer follows), [`report`].
//!
//! Features: `cli` (by default) is the command line; the library without it is light.

#![forbid(unsafe_code)]

pub mod arithmetic;
pub mod case;
#[cfg(feature = "cli")]
pub mod cli;
pub mod conformance;
pub mod evaluate;
pub mod fuzzing;
pub mod golden;
pub mod identify;
pub mod judge;
mod layer;
pub mod operation;
pub mod property;
pub mod report;
pub mod simulate;
pub mod subject;
mod tensor;

pub use layer::{Check, Element, Layer, LayerAnswer, LayerCall, assert_conformant};
pub use tensor::{NotATensor, Tensor, Tensors};
