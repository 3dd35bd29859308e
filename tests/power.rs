//! Power: the catalogue alone exposes every planted bug, and says truly which case exposes which class.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use normative::arithmetic::DataType;
use normative::case::{Case, Flag, FlagKind, Level, catalogue};
use normative::conformance::power;
use normative::operation::CENTRED;
use normative::subject::planted::{BUGS, Bug};

/// Set to write `exposed.txt` anew.
const BLESS: &str = "NORMATIVE_BLESS";

/// The catalogue without its classes, which are computed from the effects.
static EFFECTS: LazyLock<(Vec<Case>, Vec<Vec<f64>>)> = LazyLock::new(|| {
    let cases = catalogue::unflagged();
    let effects = power::effects_on(&cases);
    (cases, effects)
});

#[test]
fn the_exposed_classes_are_as_computed() {
    let (cases, effects) = &*EFFECTS;
    let computed = power::exposed(cases, effects);
    if std::env::var_os(BLESS).is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/case/catalogue/exposed.txt");
        std::fs::write(path, &computed).expect("exposed.txt can be written");
        return;
    }
    let lines = computed.lines().zip(catalogue::EXPOSED.lines());
    for (computed, stored) in lines {
        assert_eq!(computed, stored, "if the change is meant: {BLESS}=1 cargo test --test power");
    }
    assert_eq!(computed.len(), catalogue::EXPOSED.len());
}

type Table = BTreeMap<(&'static str, &'static str, DataType), (f64, String)>;

fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| power::table(&EFFECTS.0, &EFFECTS.1));
    &TABLE
}

#[test]
fn the_catalogue_exposes_every_planted_bug() {
    let table = table();
    let shown = |bug: &Bug, operation, dtype| {
        table.get(&(bug.name, operation, dtype)).is_some_and(|(effect, _)| *effect >= power::EXPOSED)
    };
    let hidden = BUGS.iter().flat_map(|bug| {
        let operations = bug.operations.iter().copied();
        let hidden = operations.filter(|name| !DataType::FLOATS.into_iter().any(|dtype| shown(bug, name, dtype)));
        hidden.map(|operation| format!("{} of {operation}", bug.name))
    });
    assert_eq!(hidden.collect::<Vec<_>>(), Vec::<String>::new());
}

/// Each class shows in each data type in at least one required case, but for those that a narrow type cannot hold.
#[test]
fn what_a_data_type_cannot_show_is_known() {
    use DataType::BF16;
    let blind: BTreeSet<_> = power::blind(table()).into_iter().collect();
    // Eight bits hold a mean of at most some hundred deviations: in f32 the squares of such values hardly cancel.
    let cancelling = CENTRED.iter().map(|&operation| (Flag::Cancellation, operation, BF16));
    // 1 + 10⁻⁴ is less than a quarter of the spacing of this type, unless a bias or a gradient cancels the output.
    let small = [(Flag::ScaleError, "frozen_batch_norm", BF16)];
    let known = cancelling.chain(small).collect();
    assert_eq!(blind, known);
}

#[test]
fn every_class_is_exposed_by_a_required_case() {
    let exposed: BTreeSet<Flag> = catalogue::cases()
        .iter()
        .filter(|case| case.level == Level::Required)
        .flat_map(|case| case.flags.iter().copied())
        .collect();
    for flag in Flag::ALL.iter().filter(|flag| flag.kind() == FlagKind::Class) {
        assert!(exposed.contains(flag), "{}", flag.name());
    }
}
