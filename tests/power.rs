//! Power: the catalogue exposes every planted bug, and says truly which case exposes which class.

use normative::case::catalogue;
use normative::conformance::power;

#[test]
fn the_exposed_classes_are_as_computed() {
    let computed = power::exposed(&catalogue::unflagged());
    if std::env::var_os("NORMATIVE_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/case/catalogue/exposed.txt"), &computed).unwrap();
        return;
    }
    for (computed, stored) in computed.lines().zip(catalogue::EXPOSED.lines()) {
        assert_eq!(computed, stored, "run NORMATIVE_BLESS=1 cargo test --test power if this change is meant");
    }
    assert_eq!(computed, catalogue::EXPOSED);
}

#[test]
fn every_planted_bug_shows() {
    let table = power::table(catalogue::cases());
    for (key, (effect, case)) in table {
        println!("{key:?} {effect:.3} {case}");
    }
}
