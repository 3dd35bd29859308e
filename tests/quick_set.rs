//! The quick set in the crate is what it says: out of the whole corpus, small, and of every operation, type and flag.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use normative::arithmetic::DataType;
use normative::case::{Case, Flag};
use normative::conformance::verify;
use normative::golden::{GoldenFile, QUICK, load, quick};
use normative::judge::Outcome;
use normative::operation::Operation;

/// Set to write the quick set anew.
const BLESS: &str = "NORMATIVE_BLESS";
/// The most that it adds to the crate: half a mebibyte.
const LIMIT: usize = 512 << 10;

/// The whole recording.
fn corpus() -> GoldenFile {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/pytorch-2.15-cpu");
    let mut files = load(&[folder]).into_iter().map(|(_, file)| file.expect("the corpus can be read"));
    let mut whole = files.next().expect("a file");
    files.for_each(|file| whole.cases.extend(file.cases));
    whole
}

fn elements(case: &Case) -> usize {
    case.steps.iter().flat_map(|step| step.tensors.values()).map(|tensor| tensor.len()).sum()
}

/// The smallest passing case of each operation in each data type and with each flag, and the thread's in F32.
fn chosen(mut corpus: GoldenFile) -> GoldenFile {
    let passes: BTreeSet<String> = verify("corpus", &corpus, &|_| None)
        .into_iter()
        .filter(|verdict| verdict.outcome == Outcome::Pass)
        .map(|verdict| verdict.case)
        .collect();
    type Key = (&'static str, Option<DataType>, Option<Flag>);
    let mut smallest: BTreeMap<Key, (usize, String)> = BTreeMap::new();
    for case in corpus.cases.iter().map(|recorded| &recorded.case).filter(|case| passes.contains(&case.name)) {
        let flags = case.flags.iter().filter(|&&flag| flag != Flag::Large).map(|&flag| (None, Some(flag)));
        for (dtype, flag) in flags.chain([(Some(case.dtype()), None)]) {
            let own = (elements(case), case.name.clone());
            let best = smallest.entry((case.operation().name(), dtype, flag)).or_insert_with(|| own.clone());
            *best = own.min(best.clone());
        }
    }
    let names: BTreeSet<String> = smallest.into_values().map(|(_, name)| name).collect();
    let thread = |case: &Case| case.flags.contains(&Flag::Thread) && case.dtype() == DataType::F32;
    let wanted = |case: &Case| thread(case) && passes.contains(&case.name);
    corpus.cases.retain(|recorded| names.contains(&recorded.case.name) || wanted(&recorded.case));
    corpus
}

#[test]
fn the_quick_set_is_out_of_the_corpus() {
    let computed = chosen(corpus()).write().expect("it fits a golden file");
    if std::env::var_os(BLESS).is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden/quick.safetensors");
        std::fs::write(path, &computed).expect("the quick set can be written");
    } else {
        assert!(computed == QUICK, "if the change is meant: {BLESS}=1 cargo test --test quick_set");
    }
    assert!(computed.len() <= LIMIT, "{} bytes", computed.len());
}

#[test]
fn it_has_every_operation_and_data_type() {
    let quick = quick();
    for name in Operation::NAMES {
        // In a half type every answer of some of PyTorch's operations is a deviation.
        for dtype in [DataType::F32, DataType::F64] {
            let of = |case: &Case| case.operation().name() == *name && case.dtype() == dtype;
            assert!(quick.cases.iter().any(|recorded| of(&recorded.case)), "{name} {dtype}");
        }
    }
}
