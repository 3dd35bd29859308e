//! Laws on drawn values: proptest draws what a property is tried on, and makes what fails as simple as it can be.
//!
//! A trial takes its choices (sizes, values, eps, …) from a list of draws, 0 once they are used up, and 0 is the simplest
//! choice. So a shorter list of smaller draws is a simpler case, and shrinking needs to know nothing of norms. Seeds are
//! fixed; those that once failed stand in `proptest-regressions` and come first.

use std::sync::LazyLock;

use normative::arithmetic::DataType;
use normative::judge::Outcome;
use normative::property::{Cell, ROUNDS, cells, check_drawn};
use normative::subject::{Builtin, Pool};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{
    FailurePersistence, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner,
};

static CELLS: LazyLock<Vec<Cell>> = LazyLock::new(|| cells().collect());

/// A draw that fills the grid of a setting, of 2049 numbers; and as many as the smallest inputs take, or more.
const DRAWS: (u64, usize) = (2049, 96);

fn config(cases: u32, regressions: Option<&'static str>) -> ProptestConfig {
    let kept = |path| Box::new(FileFailurePersistence::Direct(path)) as Box<dyn FailurePersistence>;
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: regressions.map(kept),
        max_shrink_iters: 50_000,
        ..ProptestConfig::default()
    }
}

/// A cell, a round, and draws.
fn trials(cells: &[Cell]) -> impl Strategy<Value = (usize, usize, Vec<u64>)> + use<> {
    let places: Vec<usize> = (0..cells.len()).collect();
    (select(places), 0..ROUNDS, prop::collection::vec(0..DRAWS.0, 0..DRAWS.1))
}

/// Tries the laws of `cells` on a subject, and gives back the smallest trial that breaks one.
fn broken(name: &str, cells: &[Cell], worst: Outcome, config: ProptestConfig) -> Option<(String, Vec<u64>, usize)> {
    let tried = |(place, round, draws): (usize, usize, Vec<u64>)| {
        let mut pool = Pool::of(Box::new(Builtin::new(name).expect("a compiled-in subject")));
        match check_drawn(&mut pool, &cells[place], round, &draws) {
            Some((verdict, _)) if verdict.outcome > worst => {
                Err(TestCaseError::fail(format!("{} in round {round}: {}", verdict.case, verdict.message)))
            }
            _ => Ok(()),
        }
    };
    match TestRunner::new(config).run(&trials(cells), tried) {
        Ok(()) => None,
        Err(TestError::Fail(why, (place, round, draws))) => {
            let mut pool = Pool::of(Box::new(Builtin::new(name).expect("a compiled-in subject")));
            let (_, (_, steps)) = check_drawn(&mut pool, &cells[place], round, &draws).expect("it was tried");
            let inputs = steps.iter().map(|(request, _)| request.call.tensors["input"].len());
            Some((why.message().to_owned(), draws, inputs.max().unwrap_or(0)))
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn the_reference_keeps_every_law_on_drawn_values() {
    let found = broken("reference", &CELLS, Outcome::Pass, config(1500, Some("proptest-regressions/drawn.txt")));
    assert_eq!(found, None, "draws that break a law; the seed is in proptest-regressions/drawn.txt");
}

#[test]
fn correct_programs_keep_every_law_on_drawn_values() {
    for name in ["two_pass_lanes", "welford_folded", "two_pass_division"] {
        assert_eq!(broken(name, &CELLS, Outcome::Advisory, config(400, None)), None, "{name}");
    }
}

/// A law of each family finds a bug, and the trial that shows it is shrunk to few values and few choices.
#[test]
fn planted_bugs_are_shrunk_to_small_trials() {
    for (property, operation, bug) in [
        ("mean-square", "layer_norm", "eps_doubled"),
        ("samuelson", "layer_norm", "eps_dropped"),
        ("workers", "sync_batch_norm", "local_bessel"),
        ("gradient-sum", "layer_norm", "gradient_without_mean"),
        ("running-equal-batches", "batch_norm", "biased_running_var"),
        ("momentum-machine", "batch_norm", "counter_frozen"),
    ] {
        let own =
            |cell: &&Cell| cell.property.name == property && cell.operation == operation && cell.dtype == DataType::F32;
        let own: Vec<Cell> = CELLS.iter().filter(own).copied().collect();
        assert_eq!(own.len(), 1, "{property} of {operation}");
        let found = broken(bug, &own, Outcome::Advisory, config(256, None));
        let (why, draws, elements) = found.unwrap_or_else(|| panic!("{property} does not find {bug}"));
        let chosen = draws.iter().filter(|&&draw| draw != 0).count();
        println!("{bug}: {elements} elements, {draws:?}: {why}");
        assert!(chosen <= 6 && elements <= 24, "{bug}: {elements} elements, {draws:?}: {why}");
    }
}
