//! What bodies that make calls have in common: who is asked, and what must hold of any answer.

use std::sync::LazyLock;

use super::is_bounded;
use crate::case::{Answer, Case, Declared, Level, Request, Step, check_answer, preconditions};
use crate::judge::{Expected, Judgement, Outcome, judge};
use crate::operation::Plan;
use crate::report::call_in_words;
use crate::subject::planted::{BUGS, Recipe, variants};
use crate::subject::{answer_by, rounded};

/// A call is planned, and answered with the right tensors by the reference and by the compiled-in program that `id`
/// chooses. The reference passes, and so does a correct program where the error analysis holds. Gives back what is true and
/// the reference's answer.
pub(super) fn check_call(id: u64, call: &Step) -> (Expected, Answer) {
    let expected = Expected::of(call);
    assert_eq!(matches!(expected, Expected::Refused { .. }), plan_of(call).is_none());
    let answer = check_answered("reference", call, &expected, rounded(&expected), true);

    static PROGRAMS: LazyLock<Vec<(&str, Recipe, bool)>> = LazyLock::new(|| {
        let correct = variants().into_iter().map(|variant| (variant.name, variant.recipe, true));
        correct.chain(BUGS.iter().map(|bug| (bug.name, bug.recipe(), false))).collect()
    });
    let (name, recipe, correct) = &PROGRAMS[(id % PROGRAMS.len() as u64) as usize];
    check_answered(name, call, &expected, answer_by(call, recipe), *correct && is_required(call));
    (expected, answer)
}

/// How a call is answered, where it is not refused.
pub(super) fn plan_of(call: &Step) -> Option<Plan> {
    call.plan(&call.operation.rule()).ok()
}

/// Whether the error analysis holds for a call.
pub(super) fn is_required(call: &Step) -> bool {
    let case = Case {
        name: "fuzzing".to_owned(),
        comment: String::new(),
        level: Level::Required,
        flags: Vec::new(),
        steps: vec![call.clone()],
    };
    preconditions::violated(&case).is_none()
}

/// Calls `body` for each step of a case, with the state that `name` returned after the one before, as far as the work
/// is bounded. `body` gives back the answer.
pub(super) fn each_step(case: &Case, mut body: impl FnMut(&Step) -> Answer) {
    let mut previous: Option<(Request, Answer)> = None;
    for step in 0..case.steps.len() {
        let request = case.request(step, previous.as_ref().map(|(asked, answer)| (asked, answer)));
        if !is_bounded(&request.call) {
            return;
        }
        let answer = body(&request.call);
        previous = Some((request, answer));
    }
}

pub(super) fn judged(call: &Step, expected: &Expected, answer: &Answer, declared: &Declared) -> Judgement {
    let judgement = judge(call, expected, answer, declared);
    assert!(judgement.ratio().is_none_or(|ratio| ratio >= 0.0), "{judgement:?}");
    judgement
}

/// What the compiled-in program called `name` answers has the right tensors, and passes if it must.
fn check_answered(name: &str, call: &Step, expected: &Expected, answer: Answer, passes: bool) -> Answer {
    check_answer(call, &answer).unwrap_or_else(|error| panic!("{name}: {error}"));
    let Judgement { outcome, message, .. } = judged(call, expected, &answer, &Declared::default());
    let passed = matches!(outcome, Outcome::Pass | Outcome::Advisory);
    assert!(!passes || passed, "{name}, {}: {message}", call_in_words(call));
    answer
}
