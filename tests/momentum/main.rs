//! Momentum as a state machine: training, evaluation, other momenta, reset, save and load, empty and refused batches, NaN,
//! in any order, against a model in exact rationals.
//!
//! Sequences are drawn by proptest from fixed seeds, and made as short and simple as they can be where one fails. What once
//! failed is tried first for ever after: its seed stands in `proptest-regressions`.

mod layer;
mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use normative::arithmetic::DataType;
use normative::case::{Answer, Hello, Request};
use normative::subject::{Builtin, Fault, Subject};
use normative::{Tensor, Tensors};
use proptest::prelude::*;
use proptest::test_runner::{
    FailurePersistence, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner,
};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use layer::Layer;
use model::{Batch, CHANNELS, Model, Norm, Statistics, Transition};

/// Transitions of a sequence, at most.
const LONGEST: usize = 16;

fn config(cases: u32, regressions: Option<&'static str>) -> ProptestConfig {
    let kept = |path| Box::new(FileFailurePersistence::Direct(path)) as Box<dyn FailurePersistence>;
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(6),
        failure_persistence: regressions.map(kept),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

/// The reference: each answer correctly rounded.
struct Reference;

impl StateMachineTest for Reference {
    type SystemUnderTest = Layer;
    type Reference = Model;

    fn init_test(model: &Model) -> Layer {
        Layer::new(builtin("reference"), true, model)
    }

    fn apply(mut layer: Layer, model: &Model, transition: Transition) -> Layer {
        if let Err(why) = layer.apply(model, &transition) {
            panic!("{why}");
        }
        layer
    }
}

prop_state_machine! {
    #![proptest_config(config(96, Some("proptest-regressions/momentum.txt")))]

    /// To the last bit, after however many steps.
    #[test]
    fn the_reference_follows_the_model(sequential 1..LONGEST => Reference);
}

fn builtin(name: &str) -> Box<dyn Subject> {
    Box::new(Builtin::new(name).expect("a compiled-in subject"))
}

/// A sequence that fails, as small as it could be made, and why it fails.
struct Failure {
    why: String,
    start: Model,
    transitions: Vec<Transition>,
}

/// Sends subjects through sequences; none of them has to round correctly.
fn follow(make: &dyn Fn() -> Box<dyn Subject>, config: ProptestConfig) -> Result<(), Box<Failure>> {
    let sequences = Model::sequential_strategy(1..LONGEST);
    let tried = |(start, transitions, seen): (Model, Vec<Transition>, Option<Arc<AtomicUsize>>)| {
        let mut layer = Layer::new(make(), false, &start);
        let mut model = start;
        for transition in transitions {
            if let Some(seen) = &seen {
                seen.fetch_add(1, Ordering::Relaxed);
            }
            model = Model::apply(model, &transition);
            layer.apply(&model, &transition).map_err(TestCaseError::fail)?;
        }
        Ok(())
    };
    match TestRunner::new(config).run(&sequences, tried) {
        Ok(()) => Ok(()),
        Err(TestError::Fail(why, (start, transitions, _))) => {
            Err(Box::new(Failure { why: why.message().to_owned(), start, transitions }))
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn correct_programs_follow_the_model_within_their_bounds() {
    for name in ["two_pass", "two_pass_difference", "welford_folded"] {
        if let Err(failure) = follow(&|| builtin(name), config(24, None)) {
            let Failure { why, start, transitions } = *failure;
            panic!("{name}: {why}, after {transitions:?} from {start:?}");
        }
    }
}

/// Each is found, and shrunk to a call or two on few small numbers.
#[test]
fn planted_bugs_are_found_and_shrunk() {
    for (bug, says) in [
        ("momentum_flipped", "running_"),
        ("biased_running_var", "running_var"),
        ("running_standard_deviation", "running_var"),
        ("eps_in_running_var", "running_var"),
        ("updates_in_eval", "moves where nothing may"),
        ("never_updates", "running_"),
        ("batch_statistics_in_eval", "of output is"),
        ("counter_frozen", "num_batches_tracked"),
        ("cumulative_off_by_one", "running_"),
        ("batch_of_one_refused", "it refuses"),
        ("one_value_accepted", "one value or none"),
        ("nan_replaced", "of output is"),
        ("local_bessel", "running_var"),
    ] {
        let Err(failure) = follow(&|| builtin(bug), config(256, None)) else { panic!("{bug} is not found") };
        let Failure { why, start, transitions } = *failure;
        assert!(why.contains(says), "{bug}: {why}");
        assert!(transitions.len() <= 2, "{bug}: {transitions:?} from {start:?}");
        let Some(transition) = transitions.last() else { panic!("{bug} fails before anything happens") };
        let (Transition::Train(batch, _) | Transition::Eval(batch) | Transition::Nan(batch, ..)) = transition else {
            assert!(matches!(transition, Transition::Refused | Transition::Empty(true)), "{bug}: {transition:?}");
            continue;
        };
        let largest = batch.elements().into_iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        assert!(batch.elements().len() <= 8 && largest <= 16.0, "{bug}: {batch:?}");
    }
}

/// The reference as a module that keeps a state of its own after its first call, whatever it is loaded with.
struct Stubborn {
    reference: Builtin,
    state: Option<Tensors>,
}

impl Subject for Stubborn {
    fn hello(&self) -> &Hello {
        self.reference.hello()
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        let mut request = request.clone();
        let own = |(name, _): &(String, Tensor)| name.starts_with("running_");
        request.call.tensors.extend(self.state.take().into_iter().flatten());
        let answer = self.reference.answer(&request)?;
        self.state = answer.tensors().map(|tensors| tensors.clone().into_iter().filter(own).collect());
        Ok(answer)
    }
}

/// A mistake that no single call shows.
#[test]
fn a_mistake_of_several_calls_is_shrunk_to_few() {
    let stubborn = || {
        let reference = Builtin::new("reference").expect("a compiled-in subject");
        Box::new(Stubborn { reference, state: None }) as Box<dyn Subject>
    };
    let Err(failure) = follow(&stubborn, config(256, None)) else { panic!("it is not found") };
    let transitions = failure.transitions;
    let calls = transitions.iter().filter(|it| !matches!(it, Transition::Momentum(_) | Transition::Save)).count();
    assert!(calls <= 4 && transitions.len() <= 5, "{transitions:?}");
    let restored = |it: &Transition| matches!(it, Transition::Reset | Transition::Load);
    assert!(transitions.iter().any(restored), "{transitions:?}");
}

/// The seed of a failure is written down, and tried before any other.
#[test]
fn a_failure_is_kept_and_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: &'static str = folder.path().join("kept.txt").to_str().expect("UTF-8").to_owned().leak();
    let found = follow(&|| builtin("never_updates"), config(64, Some(path)));
    let kept = std::fs::read_to_string(path).expect("a file of regressions");
    assert!(found.is_err() && kept.contains("cc "), "{kept}");
    // No new case is drawn, so that only what was kept can fail.
    assert!(follow(&|| builtin("never_updates"), config(0, None)).is_ok());
    assert!(follow(&|| builtin("never_updates"), config(0, Some(path))).is_err());
    assert!(follow(&|| builtin("two_pass"), config(0, Some(path))).is_ok());
}

/// Batches of one size, one after the other, or merged into one.
fn parts() -> impl Strategy<Value = (Batch, usize)> {
    let sizes = (1..4usize, 1..3usize, 2..4usize);
    let part = prop::collection::vec(-64..=64i16, 3 * 2 * 3 * CHANNELS);
    (sizes, part).prop_map(|((parts, samples, length), values)| {
        (Batch { samples: parts * samples, length, values, cut: samples }, parts)
    })
}

fn train(model: &mut Model, layer: &mut Layer, batch: Batch) -> Result<(), TestCaseError> {
    let transition = Transition::Train(batch, 1);
    *model = Model::apply(model.clone(), &transition);
    layer.apply(model, &transition).map_err(TestCaseError::fail)
}

proptest! {
    #![proptest_config(config(48, Some("proptest-regressions/parts.txt")))]

    /// Without a momentum the running mean is the mean of all values, however they are cut into batches of one size. The
    /// running variance is not: what differs between the batches it never sees.
    #[test]
    fn equal_parts_average_to_the_whole((whole, parts) in parts()) {
        let fresh = Statistics::new();
        let start = Model { norm: Norm::Batch, dtype: DataType::F64, momentum: None, now: fresh, saved: None };
        let (mut merged, mut split) = (start.clone(), start.clone());
        let mut layer = Layer::new(builtin("reference"), true, &start);
        train(&mut merged, &mut layer, whole.clone())?;
        let mut layer = Layer::new(builtin("reference"), true, &start);
        let each = whole.elements().len() / parts;
        for part in 0..parts {
            let values = whole.elements()[part * each..][..each].iter().map(|x| (x * 4.0) as i16).collect();
            let batch = Batch { samples: whole.samples / parts, values, ..whole.clone() };
            train(&mut split, &mut layer, batch)?;
        }
        prop_assert_eq!(&merged.now.mean, &split.now.mean);
        prop_assert_eq!(parts == 1, merged.now.variance == split.now.variance && split.now.batches == 1);
    }
}
