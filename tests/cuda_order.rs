//! The emulation of CUDA's kernels has the bits of their simulated machine code, and the control has not; it is
//! conformant in every data type that it claims; and docs/gpu.md says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use normative::Tensor;
use normative::arithmetic::DataType;
use normative::case::{Answer, Case, Request, catalogue};
use normative::conformance::{Compared, Counted, Sameness, check, compare, counted};
use normative::golden::{Provenance, load};
use normative::property::{self, QUICK_ROUNDS};
use normative::subject::cuda_order::{NAME, PIECES, UNFUSED};
use normative::subject::{Builtin, Pool, Subject};

/// The page that tells users.
const PAGE: &str = include_str!("../docs/gpu.md");

const RECORDINGS: [&str; 2] = ["pytorch-2.15-cuda-sm80-simulated", "pytorch-2.15-cuda-sm90-simulated"];

/// Cases whose bits are not the recorded ones, each with the reason. One that becomes equal has to go.
const DIFFERING: &[(&str, &str)] = &[];

/// The cases of each recording.
const COUNTS: [(&str, usize); 5] =
    [("batch_norm", 206), ("group_norm", 144), ("instance_norm", 22), ("layer_norm", 146), ("rms_norm", 112)];

fn pool(name: &str) -> Pool<'static> {
    Pool::of(Box::new(Builtin::new(name).expect("a compiled-in subject")))
}

/// What a compiled-in subject gives beside a simulated recording.
fn compared(recording: &str, name: &str) -> Vec<Compared> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(recording);
    let mut cases = Vec::new();
    for (_, file) in load(&[folder]) {
        let file = file.expect("the recording can be read");
        assert_eq!(file.provenance, Provenance::Simulated);
        cases.extend(file.cases);
    }
    compare(&mut pool(name), &cases, &|_| ())
}

#[test]
fn every_recorded_bit_is_the_same() {
    for recording in RECORDINGS {
        let found = compared(recording, NAME);
        let other = || found.iter().filter(|compared| compared.outcome != Sameness::Equal);
        let names: BTreeSet<&str> = other().map(|compared| compared.case.as_str()).collect();
        let listed: BTreeSet<&str> = DIFFERING.iter().map(|(case, _)| *case).collect();
        assert_eq!(names, listed, "{recording}: {:#?}", other().collect::<Vec<_>>());
        let cases: BTreeMap<&str, usize> = counted(&found).into_iter().map(|(name, of)| (name, of.cases)).collect();
        assert_eq!(cases, BTreeMap::from(COUNTS), "{recording}");
    }
}

#[test]
fn without_fused_products_every_operation_has_other_bits() {
    for recording in RECORDINGS {
        for (operation, of) in counted(&compared(recording, UNFUSED)) {
            let Counted { cases, differing, unanswered, .. } = of;
            // Refusals stay equal, and so do calls of few values that round alike.
            assert!(differing * 3 > cases && unanswered == 0, "{recording}, {operation}: {of:?}");
        }
    }
}

/// Fused or not, it is a good program: within every bound, and no law accuses it.
#[test]
fn both_are_conformant() {
    for name in [NAME, UNFUSED] {
        let mut pool = pool(name);
        let cases: Vec<&Case> =
            catalogue::cases().iter().filter(|case| pool.hello().lacks(&case.steps[0]).is_none()).collect();
        assert!(cases.len() > 1500, "{}", cases.len());
        let (mut verdicts, _) = check(&mut pool, &cases, &|_| ());
        let found = property::check(&mut pool, 5, QUICK_ROUNDS, &|_, _| true);
        verdicts.extend(found.into_iter().map(|(verdict, _)| verdict));
        let wrong = verdicts.iter().filter(|verdict| verdict.counts(false));
        let wrong: Vec<(&str, &str)> = wrong.map(|verdict| (verdict.case.as_str(), verdict.message.as_str())).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    }
}

/// Tensors in F32, or as they are where they count.
fn widened(tensor: &Tensor) -> Tensor {
    match tensor.dtype() {
        DataType::I64 => tensor.clone(),
        _ => Tensor::rounded(DataType::F32, tensor.shape(), tensor.to_f64().into_iter().collect()),
    }
}

#[test]
fn half_types_are_computed_in_f32_and_rounded_once() {
    let mut subject = Builtin::new(NAME).expect("a compiled-in subject");
    let mut asked = 0;
    for case in catalogue::cases().iter().filter(|case| matches!(case.dtype(), DataType::F16 | DataType::BF16)) {
        let request = case.request(0, None);
        if subject.hello().lacks(&request.call).is_some() {
            continue;
        }
        let mut wide = request.clone();
        wide.call.tensors.values_mut().for_each(|tensor| *tensor = widened(tensor));
        let mut answer = |request: &Request| subject.answer(request).expect("an answer");
        let (Answer::Tensors(half), Answer::Tensors(wide)) = (answer(&request), answer(&wide)) else { continue };
        asked += 1;
        for (name, half) in half.iter().filter(|(_, half)| half.dtype() != DataType::I64) {
            let once = Tensor::rounded(half.dtype(), half.shape(), wide[name].to_f64().into_iter().collect());
            let equal = |(a, b): (&f64, f64)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            let same = half.to_f64().iter().zip(once.to_f64()).all(equal);
            assert!(same, "{}, {name}", case.name);
        }
    }
    assert!(asked > 800, "{asked}");
}

#[test]
fn the_page_has_every_piece_and_the_figures() {
    for piece in PIECES {
        let (operations, certainty) = (piece.operations.join(", "), piece.certainty.name());
        let row = format!("| {operations} | {} | {certainty} | {} |", piece.what, piece.evidence);
        assert!(
            PAGE.lines().any(|line| line == row),
            "docs/gpu.md lacks what `normative table cuda-order` prints: {row}"
        );
    }
    let whole: Counted = counted(&compared(RECORDINGS[0], NAME)).into_values().fold(Counted::default(), |sum, of| {
        Counted { cases: sum.cases + of.cases, equal: sum.equal + of.equal, values: sum.values + of.values, ..sum }
    });
    let control: usize = counted(&compared(RECORDINGS[0], UNFUSED)).values().map(|of| of.differing).sum();
    for figure in [
        format!("{} of {} cases", whole.equal, whole.cases),
        format!("{} values", whole.values),
        format!("{control} cases have other bits"),
    ] {
        assert!(PAGE.contains(&figure), "docs/gpu.md does not say {figure:?}");
    }
}
