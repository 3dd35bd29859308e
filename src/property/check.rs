//! Trying the laws on a subject: calls go out, answers come back, and each cell gets its verdict.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::setting::Setting;
use super::trial::{Answers, Asked, Finding, Trial, cases};
use super::{Cell, Property, cells};
use crate::arithmetic::DataType;
use crate::case::{Answer, Case, Declared, Flag, Request, preconditions};
use crate::conformance::{Kind, Shown, Verdict, nearest, printable, settle_grades};
use crate::judge::{Expected, Grade, Outcome, judge};
use crate::subject::planted::{BUGS, Bug};
use crate::subject::{Builtin, CaseRun, Fault, Pool};

/// The rounds of a check.
pub const ROUNDS: usize = 6;
/// The rounds of a quick check.
pub const QUICK_ROUNDS: usize = 2;

/// Tries every property whose verdict `select` picks, by its name and flags, on the subjects of a pool: `rounds` times for
/// each operation and data type that they claim. What a subject does not claim gets no verdict.
pub fn check(
    pool: &mut Pool<'_>,
    seed: u64,
    rounds: usize,
    select: &dyn Fn(&str, &[Flag]) -> bool,
) -> Vec<(Verdict, Shown)> {
    let hello = pool.hello().clone();
    let claims =
        |cell: &Cell| hello.operations.iter().any(|name| name == cell.operation) && hello.dtypes.contains(&cell.dtype);
    let cells: Vec<Cell> = cells().filter(claims).filter(|cell| select(&cell.name(), cell.property.flags)).collect();
    let indexed = cells.par_iter().enumerate();
    let setting = move |cell: &Cell, round| Setting::new(cell.property.name, cell.operation, cell.dtype, seed, round);
    let trials = indexed.flat_map_iter(|(index, cell)| {
        (0..rounds).filter_map(move |round| Tried::new(index, cell, setting(cell, round)))
    });
    let trials = trials.collect();
    conclude(pool, &cells, trials)
}

/// Tries the law of one cell once, as round `round` does, but on what `draws` choose and not a seed: each choice takes the
/// next draw, or 0 once they are used up. So who makes the draws smaller or fewer makes a failing case simpler.
///
/// `None` where there is no such trial, or nothing was asked.
///
/// ```
/// use normative::judge::Outcome;
/// use normative::property::{cells, check_drawn};
/// use normative::subject::{Builtin, Pool};
///
/// let cell = cells().find(|cell| cell.name() == "property-mean-square-layer_norm-f32").unwrap();
/// let mut pool = Pool::of(Box::new(Builtin::new("eps_doubled").unwrap()));
/// let (verdict, _) = check_drawn(&mut pool, &cell, 0, &[0, 0, 0, 0, 1, 2, 3]).unwrap();
/// assert_eq!(verdict.outcome, Outcome::Fail);
/// ```
pub fn check_drawn(pool: &mut Pool<'_>, cell: &Cell, round: usize, draws: &[u64]) -> Option<(Verdict, Shown)> {
    let trial = Tried::new(0, cell, Setting::chosen(draws, cell.operation, cell.dtype, round))?;
    conclude(pool, &[*cell], vec![trial]).pop()
}

/// Runs the trials of `cells` and looks at what was answered: a verdict for each cell of which something was asked.
fn conclude(pool: &mut Pool<'_>, cells: &[Cell], mut trials: Vec<Tried>) -> Vec<(Verdict, Shown)> {
    let declared = pool.hello().arithmetic.unwrap_or_default();
    ask(pool, &mut trials);
    trials.par_iter_mut().for_each(|tried| tried.go_on(&cells[tried.cell], declared));
    ask(pool, &mut trials);
    let found: Vec<Option<Finding>> = trials.par_iter().map(|tried| tried.finding(declared)).collect();
    let mut by_cell: Vec<Vec<(&Tried, &Finding)>> = vec![Vec::new(); cells.len()];
    for (tried, finding) in trials.iter().zip(&found) {
        by_cell[tried.cell].extend(finding.as_ref().map(|finding| (tried, finding)));
    }
    let verdicts = cells.par_iter().zip(&by_cell).filter_map(|(cell, found)| verdict(cell, found, declared));
    let (mut verdicts, shown): (Vec<Verdict>, Vec<Shown>) = verdicts.unzip();
    settle_grades(&mut verdicts);
    // A law has no grade of its own; an unstable program is told by the grade of its answer alone.
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.grade != Some(Grade::OnePass)) {
        verdict.grade = None;
    }
    verdicts.into_iter().zip(shown).collect()
}

/// A trial on its way.
struct Tried {
    /// The index of its cell.
    cell: usize,
    trial: Trial,
    cases: Vec<Case>,
    /// The runs of the first cases.
    runs: Vec<CaseRun>,
}

/// Runs the cases that have not been run.
fn ask(pool: &mut Pool<'_>, trials: &mut [Tried]) {
    let open = trials.iter().flat_map(|tried| &tried.cases[tried.runs.len()..]);
    let mut runs = pool.run(&open.collect::<Vec<_>>(), &|_| ()).into_iter();
    for tried in trials {
        let count = tried.cases.len() - tried.runs.len();
        tried.runs.extend(runs.by_ref().take(count));
    }
}

impl Tried {
    fn new(index: usize, cell: &Cell, mut setting: Setting) -> Option<Tried> {
        let property = cell.property;
        let mut trial = (property.trial)(&mut setting)?;
        let chains = std::mem::take(&mut trial.chains);
        let cases = cases(&cell.name(), property.sentence, property.flags, chains);
        Some(Tried { cell: index, trial, cases, runs: Vec::new() })
    }

    /// Adds the cases that depend on what was answered.
    fn go_on(&mut self, cell: &Cell, declared: Declared) {
        if let (Some(then), None) = (&self.trial.then, self.trouble()) {
            let chains = then(&Answers::new(self.runs.iter(), declared));
            self.cases.extend(cases(&cell.name(), cell.property.sentence, cell.property.flags, chains));
        }
    }

    /// What keeps the law from being looked at, if anything does.
    fn trouble(&self) -> Option<Trouble> {
        for (chain, run) in self.runs.iter().enumerate() {
            if run.gave_up || run.skipped.is_some() {
                return Some(Trouble::Unasked);
            }
            for (step, (request, answer)) in run.steps.iter().enumerate() {
                let (outcome, message) = match answer {
                    Err(fault @ Fault::WrongTensors(_)) => (Outcome::Fail, fault.to_string()),
                    Err(fault) if fault.is_timeout() => (Outcome::Timeout, fault.to_string()),
                    Err(fault) => (Outcome::Crash, fault.to_string()),
                    Ok(Answer::Unsupported(why)) => {
                        let message = format!("it claims this call and then says that it cannot do it: {why}");
                        (Outcome::Fail, message)
                    }
                    Ok(Answer::Refused { refusal, .. }) if !self.trial.refusals => {
                        let Expected::Tensors { .. } = Expected::of(&request.call) else { continue };
                        let kind = refusal.kind.name();
                        (Outcome::Fail, format!("it refuses ({kind}) where it must answer: {}", refusal.message))
                    }
                    Ok(_) => continue,
                };
                let ratio = (outcome == Outcome::Fail).then_some(f64::INFINITY);
                return Some(Trouble::Found(Finding { outcome, ratio, message, culprit: (chain, step) }));
            }
        }
        None
    }

    /// What the law finds; `None` if the calls were not made.
    fn finding(&self, declared: Declared) -> Option<Finding> {
        match self.trouble() {
            Some(Trouble::Unasked) => return None,
            Some(Trouble::Found(finding)) => return Some(finding),
            None => {}
        }
        let answers = Answers::new(self.runs.iter(), declared);
        let mut finding = Finding::default();
        for (chain, steps) in answers.chains.iter().enumerate() {
            for (step, asked) in steps.iter().enumerate() {
                if let Some(message) = no_number(asked) {
                    finding.fail((chain, step), message);
                }
            }
        }
        if finding.outcome == Outcome::Pass {
            (self.trial.law)(&answers, &mut finding);
        }
        // Where the error analysis does not hold, careful implementations may differ.
        if finding.outcome == Outcome::Fail && self.cases.iter().any(|case| preconditions::violated(case).is_some()) {
            finding.outcome = Outcome::Advisory;
        }
        Some(finding)
    }

    /// The number of elements that were sent.
    fn elements(&self) -> usize {
        let steps = self.cases.iter().flat_map(|case| &case.steps);
        steps.flat_map(|step| step.tensors.values()).map(|tensor| tensor.len()).sum()
    }

    /// What to show: all calls in one case where none has a state that the next would get, else the chain of the culprit.
    /// Gives back the step to look at too.
    fn shown(&self, (chain, step): (usize, usize)) -> (Shown, usize) {
        let stateless = |case: &Case| {
            let [step] = case.steps.as_slice() else { return false };
            step.operation.signature().state.iter().all(|name| !step.tensors.contains_key(*name))
        };
        if self.cases.iter().all(stateless) && self.runs.iter().all(|run| run.steps.len() == 1) {
            let steps = self.cases.iter().take(self.runs.len()).flat_map(|case| case.steps.clone()).collect();
            let case = Case { steps, ..self.cases[0].clone() };
            let asked = self.runs.iter().flat_map(|run| run.steps.clone()).enumerate();
            let asked = asked.map(|(step, (request, answer))| (Request { step, ..request }, answer));
            return ((case, asked.collect()), chain);
        }
        ((self.cases[chain].clone(), self.runs[chain].steps.clone()), step)
    }
}

/// Why a law is not looked at.
enum Trouble {
    /// The calls were not made.
    Unasked,
    /// There is no answer that a law could be about.
    Found(Finding),
}

/// The first element that is no number where it must be one.
fn no_number(asked: &Asked<'_>) -> Option<String> {
    let Expected::Tensors { tensors, .. } = asked.expected() else { return None };
    tensors.keys().find_map(|name| {
        let mut elements = asked.values(name).into_iter().zip(asked.errors(name)).enumerate();
        let (index, (value, _)) = elements.find(|(_, (value, error))| !value.is_finite() && error.is_finite())?;
        Some(format!("element {index} of {name} is {value}; expected a finite number"))
    })
}

/// The worst of what was found, shown on the smallest trial that is as bad; `None` if nothing was asked.
fn verdict(cell: &Cell, found: &[(&Tried, &Finding)], declared: Declared) -> Option<(Verdict, Shown)> {
    let worst = found.iter().map(|(_, finding)| finding.outcome).max()?;
    let as_bad = found.iter().filter(|(_, finding)| finding.outcome == worst);
    let (tried, finding) = as_bad.min_by_key(|(tried, _)| tried.elements())?;
    let ratio = found.iter().filter_map(|(_, finding)| finding.ratio).max_by(f64::total_cmp);
    let (shown, step) = tried.shown(finding.culprit);
    let comment = format!("{}: {}", cell.property.sentence, cell.property.law);
    let mut verdict = Verdict::new(Kind::Property, cell.name(), comment, cell.operation, cell.dtype);
    verdict.flags = cell.property.flags.to_vec();
    (verdict.outcome, verdict.ratio, verdict.step) = (finding.outcome, ratio, step);
    verdict.message = printable(&finding.message);
    if finding.outcome != Outcome::Fail || name_bug(&mut verdict, &shown, declared) {
        return Some((verdict, shown));
    }
    // Another trial that fails may tell what this one cannot.
    let others = found.iter().filter(|(other, finding)| finding.outcome == worst && !std::ptr::eq(*other, *tried));
    for (other, finding) in others {
        let (shown, step) = other.shown(finding.culprit);
        let mut named = Verdict { step, message: printable(&finding.message), ..verdict.clone() };
        if name_bug(&mut named, &shown, declared) {
            return Some((named, shown));
        }
    }
    Some((verdict, shown))
}

/// The most wrong calls of a trial that are compared with the planted bugs' answers.
const COMPARED: usize = 4;

/// Looks for a call among those shown that is wrong by itself, that of the verdict first: the first becomes the verdict's,
/// or the first whose answer is a planted bug's. Says whether such a bug is named.
pub(super) fn name_bug(verdict: &mut Verdict, shown: &Shown, declared: Declared) -> bool {
    let first = verdict.step;
    let others = (0..shown.1.len()).filter(|step| *step != first);
    let mut wrong = Vec::new();
    for step in std::iter::once(first).chain(others) {
        let Some((request, Ok(answer))) = shown.1.get(step) else { continue };
        let expected = Expected::of(&request.call);
        let judgement = judge(&request.call, &expected, answer, &declared);
        if judgement.outcome != Outcome::Fail {
            continue;
        }
        wrong.push(step);
        verdict.grade = verdict.grade.max(judgement.grade);
        if let Some(found) = nearest(&request.call, &expected, answer, &judgement, &declared) {
            (verdict.step, verdict.nearest_bug, verdict.matches_bug) = (step, Some(found.bug), found.matches());
            return true;
        }
        if wrong.len() == COMPARED {
            break;
        }
    }
    verdict.step = wrong.first().copied().unwrap_or(first);
    false
}

/// The planted bugs that break `property` in f32.
pub fn caught_by(property: &Property, seed: u64, rounds: usize) -> BTreeSet<&'static str> {
    let breaks = |bug: &&Bug| {
        let mut pool = Pool::of(Box::new(Builtin::new(bug.name).expect("a planted bug is a builtin")));
        let names: BTreeSet<String> = own_cells(property, bug).map(|cell| cell.name()).collect();
        let found = check(&mut pool, seed, rounds, &|name, _| names.contains(name));
        found.iter().any(|(verdict, _)| verdict.outcome > Outcome::Advisory)
    };
    BUGS.par_iter().filter(breaks).map(|bug| bug.name).collect()
}

/// The cells of a property whose operation can have the bug.
fn own_cells(property: &Property, bug: &Bug) -> impl Iterator<Item = Cell> {
    let own = move |cell: &Cell| cell.property.name == property.name && bug.operations.contains(&cell.operation);
    cells().filter(move |cell| own(cell) && cell.dtype == DataType::F32)
}
