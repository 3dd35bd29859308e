//! The emulation of CUDA's kernels has the bits of their simulated machine code, and the control has not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use normative::conformance::{Compared, Counted, Sameness, compare, counted};
use normative::golden::{Provenance, load};
use normative::subject::cuda_order::{NAME, UNFUSED};
use normative::subject::{Builtin, Pool};

const RECORDINGS: [&str; 2] = ["pytorch-2.15-cuda-sm80-simulated", "pytorch-2.15-cuda-sm90-simulated"];

/// Cases whose bits are not the recorded ones, each with the reason. One that becomes equal has to go.
const DIFFERING: &[(&str, &str)] = &[];

/// What a compiled-in subject gives beside a simulated recording.
fn compared(recording: &str, name: &str) -> Vec<Compared> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(recording);
    let mut cases = Vec::new();
    for (_, file) in load(&[folder]) {
        let file = file.expect("the recording can be read");
        assert_eq!(file.provenance, Provenance::Simulated);
        cases.extend(file.cases);
    }
    let mut pool = Pool::of(Box::new(Builtin::new(name).expect("a compiled-in subject")));
    compare(&mut pool, &cases, &|_| ())
}

/// Cases, those that are equal, and values, by operation: the whole of each recording.
const COUNTS: [(&str, usize); 5] =
    [("batch_norm", 182), ("group_norm", 114), ("instance_norm", 17), ("layer_norm", 116), ("rms_norm", 82)];

#[test]
fn every_recorded_bit_is_the_same() {
    for recording in RECORDINGS {
        let found = compared(recording, NAME);
        let other = found.iter().filter(|compared| compared.outcome != Sameness::Equal);
        let other: BTreeSet<&str> = other.map(|compared| compared.case.as_str()).collect();
        let listed: BTreeSet<&str> = DIFFERING.iter().map(|(case, _)| *case).collect();
        assert_eq!(
            other,
            listed,
            "{recording}: {:?}",
            found.iter().find(|compared| compared.outcome != Sameness::Equal)
        );
        let cases: BTreeMap<&str, usize> = counted(&found).into_iter().map(|(name, of)| (name, of.cases)).collect();
        assert_eq!(cases, BTreeMap::from(COUNTS), "{recording}");
    }
}

#[test]
fn without_fused_products_every_operation_has_other_bits() {
    for recording in RECORDINGS {
        for (operation, of) in counted(&compared(recording, UNFUSED)) {
            let Counted { cases, differing, unanswered, .. } = of;
            // Refusals, and values that need no rounding, stay equal.
            assert!(differing * 3 > cases && unanswered == 0, "{recording}, {operation}: {of:?}");
        }
    }
}
