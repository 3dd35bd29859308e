//! Generated cases on stable Rust: proptest draws the bytes that the fuzz targets take, and makes what fails shorter.
//!
//! The strategy and the targets share one generator, so an input that a fuzzer found becomes a named case here by its bytes.

use normative::case::Case;
use normative::fuzzing::{TARGETS, Target, case_of};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

/// Inputs of a target: a seed and a few choices, or many.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 40..400)]
}

/// Cases, as the targets make them.
fn cases() -> impl Strategy<Value = Case> {
    bytes().prop_map(|bytes| case_of(&bytes))
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(8),
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

#[test]
fn every_strategy_makes_cases_that_can_be_asked() {
    let asked = |case: Case| {
        prop_assert!(Case::is_valid_name(&case.name));
        for step in &case.steps {
            prop_assert_eq!(step.check(), Ok(()));
        }
        Ok(())
    };
    runner(500).run(&cases(), asked).unwrap();
}

#[test]
fn no_target_has_a_finding_on_drawn_bytes() {
    for &Target { name, body, .. } in TARGETS {
        println!("{name}");
        let kept = |bytes: Vec<u8>| {
            body(&bytes);
            Ok(())
        };
        runner(if name == "identities" { 60 } else { 300 })
            .run(&bytes(), kept)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
