//! Target `orders`: programs whose order of operations the bytes draw.

use super::asking::{each_step, is_required, judged};
use super::generator::Wanted;
use crate::arithmetic::{Form, Order, Program, VarianceMethod};
use crate::case::values::Values;
use crate::case::{Declared, Step};
use crate::judge::{Expected, Grade, Outcome};
use crate::operation::FAMILY;
use crate::subject::answer_by;
use crate::subject::planted::Recipe;

const WANTED: Wanted<'static> = Wanted { operations: FAMILY, ..Wanted::ANY };
/// Bytes that choose the program; those after them choose the case.
const CHOICES: usize = 12;

/// Has a correct program answer in a random order: a summation tree, a number of lanes, chunks of any size, a form.
///
/// - It stays within the law of its method, in every case that is within the error analysis, and is graded so.
/// - The same order over one pass is at worst graded one-pass, never wrong.
///
/// # Panics
/// If one of these does not hold.
pub fn orders(data: &[u8]) {
    let (choices, bytes) = data.split_at(data.len().min(CHOICES));
    let (program, allowed) = program(&mut Values::of_bytes(choices));
    let unstable = Program { variance: VarianceMethod::OnePass, ..program };
    each_step(&WANTED.case(bytes), |call| {
        let answer = answer_by(call, &recipe(program));
        if is_required(call) {
            let expected = Expected::of(call);
            let judgement = judged(call, &expected, &answer, &Declared::default());
            assert!(judgement.outcome != Outcome::Fail, "{program:?}: {}", judgement.message);
            assert!(judgement.grade <= Some(allowed), "{program:?}: {:?} of {:?}", judgement.grade, call.operation);
            check_one_pass(call, &expected, unstable);
        }
        answer
    });
}

fn check_one_pass(call: &Step, expected: &Expected, program: Program) {
    let judgement = judged(call, expected, &answer_by(call, &recipe(program)), &Declared::default());
    assert!(judgement.grade != Some(Grade::Wrong), "{program:?} of {:?}: {}", call.operation, judgement.message);
}

/// A correct program, and the worst grade that it may need.
fn program(values: &mut Values) -> (Program, Grade) {
    let order = match values.below(6) {
        0 => Order::Sequential,
        1 => Order::Reversed,
        2 => Order::Pairwise,
        3 => Order::Lanes(1 + values.below(64)),
        _ => Order::Tree(values.below(1 << 16) as u64),
    };
    let (variance, updating) = match values.below(6) {
        0 => (VarianceMethod::Welford, true),
        1 => (VarianceMethod::Merged(1 + values.below(64)), true),
        _ => (VarianceMethod::TwoPass, false),
    };
    let (form, folded) = match values.below(6) {
        0 => (Form::Folded, true),
        1 => (Form::FusedFolded, true),
        2 => (Form::Division, false),
        _ => (Form::Direct, false),
    };
    let (reciprocal, difference) = (values.below(2) == 0, values.below(2) == 0);
    let allowed = match (updating, folded) {
        (true, _) => Grade::Updating,
        (false, true) => Grade::Folded,
        (false, false) => Grade::Stable,
    };
    (Program { order, variance, form, reciprocal, difference, ..Program::default() }, allowed)
}

fn recipe(program: Program) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.program = program;
    recipe
}
