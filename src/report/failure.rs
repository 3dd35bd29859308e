//! A failure, as text: the first three lines say what is wrong with the layer to someone who does not know the suite.

use std::path::Path;

use serde_json::Value;

use super::cause::is_of_many;
use super::numpy::{Source, snippet};
use super::paint::wrapped;
use super::smallest::REDUCED;
use super::{Cause, Exhibit, Group, Paint, Report, Tone, count, decimal, hexadecimal, multiple};
use crate::case::{Flag, Step};
use crate::conformance::{Kind, Verdict};
use crate::judge::{Expected, Grade, Outcome, Worst};
use crate::operation::Mode;
use crate::subject::planted::Bug;

/// Other cases of a group that are named.
const NAMED: usize = 6;

/// The smallest failure of a group in full, and how many others are like it.
pub(super) fn failure(report: &Report, group: &Group, paint: Paint) -> String {
    let account = Account::new(report, group);
    let head = format!("{} {}", paint.tone(Tone::Bad, account.what), paint.tone(Tone::Strong, &account.case));
    let mut parts =
        vec![format!("{head}: {}", account.wrong), wrapped(&account.meaning, 2), wrapped(&account.effect, 2)];
    parts.extend(account.reduced.map(|reduced| format!("  reduced  {reduced}:")));
    parts.extend(account.call.map(|call| wrapped(&call, 2)));
    parts.extend(
        account.worst.map_or(account.message.map(|message| wrapped(&message, 2)), |worst| Some(element(worst))),
    );
    parts.extend(
        account
            .nearest
            .map(|bug| format!("  nearest  the planted bug `{}` gives this answer, to within rounding", bug.name)),
    );
    parts.extend(account.replay.map(|replay| format!("  replay   {replay}")));
    parts.extend(account.numpy.map(|snippet| {
        let indented: Vec<String> = snippet.lines().map(|line| format!("    {line}")).collect();
        format!("  numpy\n{}", paint.tone(Tone::Faint, indented.join("\n")))
    }));
    parts.extend(account.others.map(|others| wrapped(&others, 2)));
    parts.join("\n")
}

/// All that there is to say of a kind of failure, by its smallest case.
pub(super) struct Account<'a> {
    /// FAIL, CRASH or TIMEOUT.
    pub what: &'static str,
    /// The case, and the recording that it is of.
    pub case: String,
    /// What is wrong with the layer.
    pub wrong: String,
    /// What this kind of mistake is.
    pub meaning: String,
    /// What it does to a user.
    pub effect: String,
    /// How much the case that is shown was reduced.
    pub reduced: Option<String>,
    /// What was asked.
    pub call: Option<String>,
    /// The worst element of the answer.
    pub worst: Option<&'a Worst>,
    /// What is wrong where no element is.
    pub message: Option<String>,
    /// The planted bug that gives the same answer.
    pub nearest: Option<&'static Bug>,
    /// The command that runs it again.
    pub replay: Option<String>,
    /// A snippet that computes the worst element.
    pub numpy: Option<String>,
    /// The other failures of the kind.
    pub others: Option<String>,
}

impl<'a> Account<'a> {
    /// Of a group of failures.
    pub fn new(report: &'a Report, group: &Group) -> Account<'a> {
        let verdict = &report.verdicts[group.members[0]];
        let exhibit = report.exhibits.get(&group.members[0]);
        // What is shown in full is the smallest case found, if any was.
        let smallest = exhibit.and_then(|exhibit| exhibit.smallest.as_deref());
        let reduced = exhibit.zip(smallest).map(|(exhibit, (_, smaller))| {
            let (from, to) = (exhibit.elements(), smaller.elements());
            format!("from {} to {to}, and still wrong in the same way", count(from, "number"))
        });
        let shown = smallest.map(|(verdict, exhibit)| (verdict, exhibit)).or(exhibit.map(|exhibit| (verdict, exhibit)));
        let deciding = shown.map_or(verdict, |(shown, _)| shown);
        let bug = |verdict: &Verdict| verdict.nearest_bug.filter(|_| verdict.matches_bug);
        let (meaning, effect) = meaning(report, verdict, &group.cause);
        let recording = verdict.recording.as_ref().map_or(String::new(), |name| format!(" of {name}"));
        Account {
            what: match verdict.outcome {
                Outcome::Crash => "CRASH",
                Outcome::Timeout => "TIMEOUT",
                _ => "FAIL",
            },
            case: format!("{}{recording}", verdict.case),
            wrong: bug(verdict).map_or_else(|| in_short(verdict), |bug| bug.sentence.to_owned()),
            meaning,
            effect,
            reduced,
            call: shown.map(|(shown, exhibit)| asked(shown, exhibit)),
            worst: deciding.worst.as_ref().filter(|_| shown.is_some()),
            message: shown.is_some().then(|| deciding.message.clone()),
            nearest: bug(deciding),
            replay: verdict
                .replay
                .as_ref()
                .map(|path| format!("normative replay {}", shell_words::quote(&path.to_string_lossy()))),
            numpy: shown.and_then(|(shown, exhibit)| numpy(shown, exhibit, verdict.replay.as_deref())),
            others: others(report, group),
        }
    }
}

fn in_short(verdict: &Verdict) -> String {
    match &verdict.worst {
        Some(Worst { tensor, actual, .. }) if actual.is_nan() => format!("its {tensor} is NaN where it must not be"),
        Some(Worst { tensor, .. }) => format!("its {tensor} is further from the truth than rounding explains"),
        None => verdict.message.lines().next().unwrap_or_default().to_owned(),
    }
}

/// What it means and does to a user, in two paragraphs.
fn meaning(report: &Report, verdict: &Verdict, cause: &Cause) -> (String, String) {
    match (cause, verdict.nearest_bug) {
        (Cause::Bug(_), Some(bug)) => of_flag(bug.flag),
        _ => unexplained(report, verdict),
    }
}

/// What a bug class is, and what it does to a user.
fn of_flag(flag: Flag) -> (String, String) {
    let references = flag.references();
    let seen = if references.is_empty() { String::new() } else { format!(" Seen in {}.", references.join(", ")) };
    (format!("{}: {}", flag.name(), flag.meaning()), format!("{}{seen}", flag.effect()))
}

/// What can be said where no planted bug gives the answer.
fn unexplained(report: &Report, verdict: &Verdict) -> (String, String) {
    let likely = verdict.likely.filter(|flag| report.likely() == Some(*flag));
    if let (Some(flag), Some(_)) = (likely, &verdict.worst) {
        let (meaning, effect) = of_flag(flag);
        return (format!("The cases that fail are mostly those that expose {meaning}"), effect);
    }
    let known = match verdict.outcome {
        Outcome::Crash => "There is no answer to judge: whoever calls the layer like this is stopped.",
        Outcome::Timeout => "There is no answer to judge: whoever calls the layer like this waits.",
        _ if verdict.kind == Kind::Property => {
            "The law holds for every right layer, whatever its order of operations and whatever the input."
        }
        _ if verdict.kind == Kind::Statistic => {
            "All statistics together accuse a correct layer in at most one run of a million: this is hardly chance."
        }
        _ if verdict.grade == Some(Grade::Wrong) => {
            "No order of operations explains this: the formula is another one, or it is computed in less precision than \
             the data type has."
        }
        _ => "The case has one right answer, whatever the order of operations.",
    };
    let nearest = verdict
        .nearest_bug
        .map_or(String::new(), |bug| format!(" The nearest planted bug is `{}`: {}.", bug.name, bug.sentence));
    let asks = match verdict.kind {
        Kind::Property => "The law",
        Kind::Statistic => "The statistic",
        Kind::Golden | Kind::Catalogue | Kind::Generated => "The case asks",
    };
    (format!("{asks}: {}", verdict.comment), format!("{known}{nearest}"))
}

/// What was asked.
fn asked(verdict: &Verdict, exhibit: &Exhibit) -> String {
    let call = &exhibit.steps[verdict.step].0.call;
    let steps = exhibit.case.steps.len();
    let step = if steps > 1 { format!(", step {} of 0 to {}", verdict.step, steps - 1) } else { String::new() };
    let seed = match &exhibit.file {
        _ if exhibit.case.name.ends_with(REDUCED) => "values made simple",
        Some(_) => "recorded values",
        None if is_of_many(verdict) => "values made from its name and the seed",
        None if verdict.kind == Kind::Generated => "generated values",
        None => "values made from the case's name",
    };
    format!("{}{step}; {seed}", call_in_words(call))
}

/// The snippet that computes the worst element.
fn numpy(verdict: &Verdict, exhibit: &Exhibit, replay: Option<&Path>) -> Option<String> {
    let call = &exhibit.steps[verdict.step].0.call;
    let file = exhibit.file.as_deref().or(replay);
    let source = Source { file, case: &verdict.case, step: verdict.step };
    snippet(call, &Expected::of(call), verdict.worst.as_ref()?, true, source)
}

/// The worst element: expected, actual, error, bound and their ratio.
fn element(worst: &Worst) -> String {
    let Worst { tensor, index, expected, actual, error, bound } = worst;
    let place = format!("{tensor}{index:?}");
    let value = |value: f64| format!("{:<24} {}", decimal(value), hexadecimal(value));
    format!(
        "  {place}\n    expected {}\n    actual   {}\n    error    {error:.3e}, {} times the bound {bound:.3e}",
        value(*expected),
        value(*actual),
        multiple(worst.ratio()),
    )
}

/// Operation, data type, shape, mode, layout and hyper-parameters of a call.
pub fn call_in_words(step: &Step) -> String {
    let input = &step.tensors["input"];
    let mut parts = vec![step.operation.name().to_owned(), format!("{} {:?}", input.dtype(), input.shape())];
    if step.operation.signature().modes {
        parts.push(if step.mode == Mode::Train { "train" } else { "eval" }.to_owned());
    }
    if step.layout != Default::default() {
        let layout = serde_json::to_value(step.layout).expect("a layout is JSON");
        parts.push(format!("layout {}", layout["format"].as_str().unwrap_or_default()));
        parts.extend((step.layout.offset > 0).then(|| format!("offset {}", step.layout.offset)));
    }
    parts.extend(step.gradients.then(|| if step.double_backward { "double backward" } else { "gradients" }.to_owned()));
    let parameters = serde_json::to_value(&step.operation).expect("an operation is JSON");
    let parameters = parameters.as_object().expect("an operation is an object");
    let text = |value: &Value| match value {
        Value::Number(number) if number.is_f64() => decimal(number.as_f64().expect("a float")),
        value => value.to_string(),
    };
    parts.extend(parameters.iter().filter(|(key, _)| *key != "name").map(|(key, v)| format!("{key} {}", text(v))));
    parts.join(", ")
}

fn others(report: &Report, group: &Group) -> Option<String> {
    let others = &group.members[1..];
    if others.is_empty() {
        return None;
    }
    let names: Vec<&str> = others.iter().take(NAMED).map(|&index| report.verdicts[index].case.as_str()).collect();
    let rest = if others.len() > NAMED { format!(" and {} more", others.len() - NAMED) } else { String::new() };
    Some(format!("{} like it: {}{rest}", count(others.len(), "other failure"), names.join(", ")))
}
