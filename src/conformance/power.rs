//! Power: what a case can see. A bound that never fires is worthless, so the effect of every planted bug is measured.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::arithmetic::DataType;
use crate::case::{Answer, Case, Declared, Flag, Level, Request};
use crate::judge::{Expected, Outcome, judge};
use crate::subject::answer_by;
use crate::subject::planted::{BUGS, Bug};

/// A bug counts as exposed where it moves an answer by at least this many bounds: twice what a correct program at one end
/// of its bound and a planted one at the other could hide.
pub const EXPOSED: f64 = 4.0;

/// The effect of every bug on a case as a multiple of the bound, in the order of [`BUGS`]: infinite where no rounding could
/// explain it (a refusal, a counter, a NaN), 0 where the case does not show it.
pub fn effects(case: &Case) -> Vec<f64> {
    let truth = first_truth(case);
    BUGS.iter().map(|bug| effect_beside(case, &truth, bug)).collect()
}

/// The effect of one bug on a case; see [`effects`].
pub fn effect(case: &Case, bug: &Bug) -> f64 {
    effect_beside(case, &first_truth(case), bug)
}

/// What is true of the first step, which does not depend on who answers.
fn first_truth(case: &Case) -> Expected {
    Expected::of(&case.request(0, None).call)
}

fn effect_beside(case: &Case, first: &Expected, bug: &Bug) -> f64 {
    if !bug.operations.contains(&case.operation().name()) {
        return 0.0;
    }
    let recipe = bug.recipe();
    let mut largest: f64 = 0.0;
    let mut previous: Option<(Request, Answer)> = None;
    for step in 0..case.steps.len() {
        let request = case.request(step, previous.as_ref().map(|(asked, answer)| (asked, answer)));
        let answer = answer_by(&request.call, &recipe);
        let later = (step > 0).then(|| Expected::of(&request.call));
        let judgement = judge(&request.call, later.as_ref().unwrap_or(first), &answer, &Declared::default());
        if judgement.outcome == Outcome::Fail {
            largest = largest.max(judgement.ratio().unwrap_or(f64::INFINITY));
        }
        previous = Some((request, answer));
    }
    largest
}

/// The [`effects`] on each of some cases.
pub fn effects_on(cases: &[Case]) -> Vec<Vec<f64>> {
    cases.par_iter().map(effects).collect()
}

/// The bug classes that each case exposes, as `exposed.txt` has them; `effects` are those [on](effects_on) `cases`.
pub fn exposed(cases: &[Case], effects: &[Vec<f64>]) -> String {
    let lines: Vec<String> = cases
        .iter()
        .zip(effects)
        .map(|(case, effects)| {
            let shown = effects.iter().zip(BUGS).filter(|(effect, _)| **effect >= EXPOSED);
            let mut classes: Vec<&str> = shown.map(|(_, bug)| bug.flag.name()).collect();
            classes.dedup();
            if classes.is_empty() { String::new() } else { format!("{} {}\n", case.name, classes.join(" ")) }
        })
        .collect();
    lines.concat()
}

/// The largest effect of a bug by its name, the operation and the data type, and the case that has it.
pub type Table = BTreeMap<(&'static str, &'static str, DataType), (f64, String)>;

/// For each bug, operation and data type the largest effect over the required cases, and the case that has it; `effects` are
/// those [on](effects_on) `cases`.
pub fn table(cases: &[Case], effects: &[Vec<f64>]) -> Table {
    let mut table = BTreeMap::new();
    for (case, effects) in cases.iter().zip(effects).filter(|(case, _)| case.level == Level::Required) {
        let (operation, dtype) = (case.operation().name(), case.dtype());
        for (&effect, bug) in effects.iter().zip(BUGS).filter(|(_, bug)| bug.operations.contains(&operation)) {
            let best = table.entry((bug.name, operation, dtype)).or_insert((-1.0, String::new()));
            if effect > best.0 {
                *best = (effect, case.name.clone());
            }
        }
    }
    table
}

/// The classes that no required case of a data type shows for an operation, of a [`table`].
pub fn blind(table: &Table) -> Vec<(Flag, &'static str, DataType)> {
    let mut best: BTreeMap<(Flag, &'static str, DataType), f64> = BTreeMap::new();
    for (&(bug, operation, dtype), (effect, _)) in table {
        let flag = Bug::from_name(bug).expect("the table is made of bugs").flag;
        let entry = best.entry((flag, operation, dtype)).or_insert(0.0);
        *entry = entry.max(*effect);
    }
    best.into_iter().filter(|(_, effect)| *effect < EXPOSED).map(|(key, _)| key).collect()
}
