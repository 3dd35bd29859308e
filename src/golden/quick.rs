//! The quick set: recorded answers that come with the crate, for where the whole corpus is not at hand.
//!
//! Out of `golden/pytorch-2.15-cpu`: the smallest passing case of each operation in each data type and with each flag, and
//! the questions of the forum thread.

use super::GoldenFile;

/// The bytes of the quick set, a golden file.
pub const QUICK: &[u8] = include_bytes!("quick.safetensors");

/// The name of the recording that the quick set is of.
pub const QUICK_RECORDING: &str = "pytorch-2.15-cpu, quick set";

/// The quick set.
///
/// ```
/// use normative::conformance::verify;
/// use normative::golden::{QUICK_RECORDING, quick};
/// use normative::judge::Outcome;
/// let verdicts = verify(QUICK_RECORDING, &quick(), &|_| None);
/// assert!(verdicts.iter().all(|verdict| verdict.outcome == Outcome::Pass));
/// ```
pub fn quick() -> GoldenFile {
    GoldenFile::read(QUICK).expect("the quick set is a golden file")
}
