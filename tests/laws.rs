//! The constants of the bounds are claims: this searches for violations.
//!
//! Every correct variant answers hundreds of random groups for each data type and operation of `torch.nn`, a third of that
//! for each beyond it, and none may exceed its law; 10⁴ where `.ci/run` asks for the ignored tests. The positive control: every
//! planted bug, on the same groups, does.

use normative::arithmetic::DataType;
use normative::case::values::Values;
use normative::case::{Declared, Step, random};
use normative::judge::{Expected, Grade, Judgement, Outcome, judge};
use normative::operation::{FAMILY, Mode, Operation};
use normative::subject::answer_by;
use normative::subject::planted::{BUGS, Bug, Recipe, variants};
use rayon::prelude::*;

/// Steps of this many groups each: 10⁴ groups in all.
const ALL_STEPS: u64 = 50;
const GROUPS: usize = 200;
/// What takes seconds.
const STEPS: u64 = 3;

/// The random steps of every operation and data type, with their truths.
///
/// `beyond_torch` for each operation that is not in `torch.nn`: those share the kernels of those that are.
fn steps(count: u64, beyond_torch: u64) -> impl ParallelIterator<Item = (Step, Expected)> {
    steps_of(count, beyond_torch, GROUPS)
}

/// The same with about `groups` groups each.
fn steps_of(count: u64, beyond_torch: u64, groups: usize) -> impl ParallelIterator<Item = (Step, Expected)> {
    let cells = Operation::NAMES.iter().flat_map(|&name| DataType::FLOATS.map(|dtype| (name, dtype)));
    let own = move |name: &str| if beyond(name) { beyond_torch } else { count };
    let seeds: Vec<_> = cells.flat_map(|cell| (0..own(cell.0)).map(move |seed| (cell, seed))).collect();
    seeds.into_par_iter().map(move |((name, dtype), seed)| drawn(name, dtype, seed, groups))
}

/// A random step, and its truth.
fn drawn(name: &str, dtype: DataType, seed: u64, groups: usize) -> (Step, Expected) {
    let mut values = Values::named(&format!("laws {name} {dtype} {seed}"));
    let step = random::step(&mut values, name, dtype, groups);
    let expected = Expected::of(&step);
    (step, expected)
}

/// Whether an operation is listed after those of `torch.nn` and its neighbours.
fn beyond(name: &str) -> bool {
    let place = |name| Operation::NAMES.iter().position(|own| *own == name);
    place(name) > place("conv_batch_norm_fold")
}

fn judged(step: &Step, expected: &Expected, recipe: &Recipe, declared: &Declared) -> Judgement {
    judge(step, expected, &answer_by(step, recipe), declared)
}

#[test]
fn correct_variants_never_leave_their_law() {
    assert_no_violation(steps(STEPS, STEPS.div_ceil(4)));
}

/// The same in 10⁴ groups of each operation, and in 10⁴ small cases: minutes of work, which `.ci/run` does.
#[test]
#[ignore = "a minute or two; .ci/run has it"]
fn correct_variants_never_leave_their_law_in_ten_thousand_groups_and_cases() {
    assert_no_violation(steps(ALL_STEPS, ALL_STEPS.div_ceil(4)));
    assert_no_violation(steps_of(2500, 250, 2));
}

fn assert_no_violation(steps: impl ParallelIterator<Item = (Step, Expected)>) {
    let variants = variants();
    let violations: Vec<String> = steps
        .flat_map_iter(|(step, expected)| {
            let judge_variant = |variant: &normative::subject::planted::Variant| {
                let judgement = judged(&step, &expected, &variant.recipe, &Declared::default());
                let allowed = allowed(variant.name, &step);
                let violates = judgement.outcome != Outcome::Pass || judgement.grade > Some(allowed);
                violates.then(|| {
                    let operation = &step.operation;
                    format!("{} {operation:?}: {:?}, {}", variant.name, judgement.grade, judgement.message)
                })
            };
            // The orders of summation and the forms of rescaling are the family's: elsewhere they all compute the same.
            let alike = !FAMILY.contains(&step.operation.name());
            let distinct = |variant: &&normative::subject::planted::Variant| {
                !alike || matches!(variant.name, "two_pass" | "wide" | "fused_folded")
            };
            variants.iter().filter(distinct).filter_map(judge_variant).collect::<Vec<_>>()
        })
        .collect();
    assert!(
        violations.is_empty(),
        "{} violations, such as\n{}",
        violations.len(),
        violations[..violations.len().min(12)].join("\n")
    );
}

/// The worst grade that a variant may need: its own law's.
fn allowed(variant: &str, step: &Step) -> Grade {
    let evaluates = step.operation.name() == "batch_norm" && step.mode == Mode::Eval;
    match variant {
        "welford" | "merged" | "welford_folded" if !evaluates => Grade::Updating,
        "folded" | "fused_folded" | "welford_folded" => Grade::Folded,
        _ => Grade::Stable,
    }
}

#[test]
fn declared_trees_hold_what_they_declare() {
    assert_declared_trees_hold(STEPS, 1);
}

#[test]
#[ignore = "ten seconds; .ci/run has it"]
fn declared_trees_hold_what_they_declare_in_more_groups() {
    assert_declared_trees_hold(10, 3);
}

/// A summation tree that is declared makes the bound tighter, and a program that sums so stays within it.
fn assert_declared_trees_hold(count: u64, beyond_torch: u64) {
    let declared = |json: &str| -> Declared { serde_json::from_str(json).expect("a declaration") };
    let pairwise = declared(r#"{"depth": "pairwise"}"#);
    let lanes = declared(r#"{"depth": {"blocks": 40}}"#);
    let variants = variants();
    let recipe = |name| variants.iter().find(|variant| variant.name == name).expect("a variant").recipe;
    let cases = [(recipe("two_pass_pairwise"), pairwise), (recipe("two_pass_lanes"), lanes)];
    let violation = steps(count, beyond_torch).find_map_any(|(step, expected)| {
        let mut judgements = cases.iter().map(|(recipe, declared)| judged(&step, &expected, recipe, declared));
        judgements.find(|judgement| judgement.outcome != Outcome::Pass)
    });
    assert_eq!(violation, None);
}

#[test]
fn planted_bugs_do_leave_every_law() {
    assert_planted_bugs_leave(&[DataType::F32]);
}

#[test]
#[ignore = "ten seconds; .ci/run has it"]
fn planted_bugs_do_leave_every_law_of_every_data_type() {
    assert_planted_bugs_leave(&DataType::FLOATS);
}

/// A bug that hides among random groups would hide from a law that is too wide.
fn assert_planted_bugs_leave(dtypes: &[DataType]) {
    let numeric = |bug: &&normative::subject::planted::Bug| {
        // These need what random steps do not have: a NaN, a counter to start from, one value, an outlier, another dialect.
        // No sizes of one, no batch smaller than its channels, no overflow either.
        let of_dialects = matches!(
            bug.name,
            "unbiased_running_var"
                | "bessel_unguarded"
                | "average_plain"
                | "debias_late"
                | "one_value_refused"
                | "pytorch_conventions"
        );
        let rare = matches!(
            bug.name,
            "nan_replaced"
                | "one_value_accepted"
                | "batch_of_one_refused"
                | "evaluation_refused"
                | "first_batch_replaces"
                | "windows_of_batch"
                | "cubed_inverse"
        );
        !of_dialects && !rare
    };
    let bugs: Vec<_> = BUGS.iter().filter(numeric).collect();
    // In turn, so that what is caught is not looked at again.
    let slipped = |(name, dtype): (&'static str, DataType)| {
        let mut open: Vec<&Bug> = bugs.iter().copied().filter(|bug| bug.operations.contains(&name)).collect();
        for seed in 0..30 {
            if open.is_empty() {
                break;
            }
            let (step, expected) = drawn(name, dtype, seed, GROUPS);
            open.retain(|bug| judged(&step, &expected, &bug.recipe(), &Declared::default()).outcome != Outcome::Fail);
        }
        open.into_iter().map(move |bug| (bug.name, name, dtype)).collect::<Vec<_>>()
    };
    let cells: Vec<_> =
        Operation::NAMES.iter().flat_map(|&name| dtypes.iter().map(move |&dtype| (name, dtype))).collect();
    let slipped: Vec<(&str, &str, DataType)> = cells.into_par_iter().flat_map_iter(slipped).collect();
    let half = |dtype| matches!(dtype, DataType::F16 | DataType::BF16);
    // One part in ten thousand, and 1/σ in a half type without a mean, are below half a unit in the last place of a half type, and so is the cancellation in f32
    // of what bfloat16 can hold.
    let of_type = |bug: &str, dtype| half(dtype) && matches!(bug, "scale_off" | "one_pass_variance");
    // What a small eps adds to a covariance is less than fifteen products of its matrix may lose; the catalogue's eps of 0.5
    // shows it.
    let of_products = |bug: &str, operation: &str, dtype| {
        operation == "iter_norm" && dtype != DataType::F64 && bug.starts_with("eps_")
    };
    let unseen =
        |&(bug, operation, dtype): &(&str, &str, DataType)| of_type(bug, dtype) || of_products(bug, operation, dtype);
    let slipped: Vec<_> = slipped.into_iter().filter(|key| !unseen(key)).collect();
    assert!(slipped.is_empty(), "{slipped:?}");
}
