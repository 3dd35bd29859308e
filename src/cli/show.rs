//! `normative show`: a case in full.

use std::fmt::Write;

use clap::Args;

use super::Stop;
use super::near::did_you_mean;
use super::output::{Colors, print};
use crate::arithmetic::{Arithmetic, Group, Law, Scale, Terms, VarianceLaw};
use crate::case::{Answer, Case, Declared, FlagKind, Level, Request, Step, catalogue, preconditions};
use crate::conformance::power;
use crate::judge::{Bounds, Expected, TrueTensor, Worst, accumulator, tracker, unravel};
use crate::operation::{Plan, Source as Statistics};
use crate::property::statistic::{FALSE_ALARM, STATISTICS, Statistic, false_alarms};
use crate::property::{self, Property, matrix::Row};
use crate::report::paint::wrapped;
use crate::report::{Paint, Source, Status, Tone, call_in_words, decimal, hexadecimal, multiple, snippet};
use crate::subject::planted::{BUGS, Bug};
use crate::subject::{Builtin, Subject};
use crate::tensor::{Tensor, Tensors};

/// Elements of a tensor that are shown without --all.
const SHOWN: usize = 8;

/// Shows a case in full: what it asks and why, its tensors, the right answer, the bound and what the bound is made of.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The name of a case, a property, a statistic or a planted bug (`normative list`).
    case: String,
    /// Shows every element of every tensor.
    #[arg(long)]
    all: bool,
}

const EXAMPLES: &str = "\
Examples:
  normative show thread-batch_norm-f32-1x3x1-train
  normative show layer_norm-f32-mean-1e3-size-4 --all";

/// # Errors
/// Wrong usage if there is no such case, and if standard output cannot be written.
pub(super) fn run(arguments: &Arguments, colors: Colors) -> Result<Status, Stop> {
    let name = arguments.case.as_str();
    if let Some(property) = Property::from_name(name) {
        print(&show_property(property, colors.paint()))?;
        return Ok(Status::Conformant);
    }
    if let Some(statistic) = Statistic::from_name(name) {
        print(&show_statistic(statistic, colors.paint()))?;
        return Ok(Status::Conformant);
    }
    if let Some(bug) = Bug::from_name(name) {
        print(&show_bug(bug, colors.paint()))?;
        return Ok(Status::Conformant);
    }
    let case =
        catalogue::cases().iter().chain(catalogue::unrecorded()).find(|case| case.name == name).ok_or_else(|| {
            let names = catalogue::cases().iter().chain(catalogue::unrecorded()).map(|case| case.name.as_str());
            let laws = property::properties().map(|property| property.name);
            let laws = laws.chain(STATISTICS.iter().map(|statistic| statistic.name));
            let near = did_you_mean(name, names.chain(laws).chain(BUGS.iter().map(|bug| bug.name)));
            Stop::usage(format!("no case is called {name:?}{near} (normative list cases)"))
        })?;
    let limit = if arguments.all { usize::MAX } else { SHOWN };
    print(&show(case, limit, colors.paint()))?;
    Ok(Status::Conformant)
}

/// The planted bug's text.
fn show_bug(bug: &'static Bug, paint: Paint) -> String {
    let mut text = format!("{}\n{}\n\n", paint.tone(Tone::Strong, bug.name), bug.sentence);
    let _ = writeln!(text, "  class       {}: {}", bug.flag.name(), bug.flag.meaning());
    let _ = writeln!(text, "  effect\n{}", wrapped(bug.flag.effect(), 4));
    let _ = writeln!(text, "  seen in     {}", if bug.source.is_empty() { "no public report" } else { bug.source });
    let _ = writeln!(text, "  operations\n{}", wrapped(&bug.operations.join(", "), 4));
    let row = Row::without_statistics(bug);
    let _ = writeln!(text, "\n{} required cases in F32 show it, and it breaks the properties", row.cases);
    let names: Vec<&str> = row.properties.into_iter().collect();
    let _ = writeln!(text, "{}", wrapped(&if names.is_empty() { "none".to_owned() } else { names.join(", ") }, 2));
    text
}

/// The statistic's text.
fn show_statistic(statistic: &Statistic, paint: Paint) -> String {
    let mut text = format!("{}\n{}\n\n", paint.tone(Tone::Strong, statistic.name), statistic.sentence);
    let _ = writeln!(text, "  of a correct layer   {}", statistic.null);
    let _ = writeln!(text, "  error to be seen     {}", statistic.error);
    for row in false_alarms().iter().filter(|row| row.statistic == statistic.name) {
        let (operation, asked, alarm) = (row.operation, row.asked, row.false_alarm);
        let _ = writeln!(text, "  {operation:<18} {asked} groups, false alarms {alarm:.1e}, misses {:.0e}", row.miss);
    }
    let _ = writeln!(text, "\nAll statistics together raise a false alarm in at most {FALSE_ALARM:e} of all runs.");
    let _ = writeln!(text, "\nplanted bugs that it must see");
    for bug in BUGS.iter().filter(|bug| statistic.sees.contains(&bug.name)) {
        let _ = writeln!(text, "  {}: {}", paint.tone(Tone::Strong, bug.name), bug.sentence);
    }
    text
}

/// The property's text.
fn show_property(property: &Property, paint: Paint) -> String {
    let mut text = format!("{}\n{}\n\n", paint.tone(Tone::Strong, property.name), property.sentence);
    let _ = writeln!(text, "  law         {}", property.law);
    let _ = writeln!(text, "  source      {}", property.source);
    let _ = writeln!(text, "  operations\n{}", wrapped(&property.operations().collect::<Vec<_>>().join(", "), 4));
    let flags: Vec<&str> = property.flags.iter().map(|flag| flag.name()).collect();
    if !flags.is_empty() {
        let _ = writeln!(text, "  flags       {}", flags.join(", "));
    }
    let caught = property::caught_by(property, 0, property::ROUNDS);
    let _ = writeln!(text, "\nplanted bugs that break it");
    for bug in BUGS.iter().filter(|bug| caught.contains(bug.name)) {
        let _ = writeln!(text, "  {}: {}", paint.tone(Tone::Strong, bug.name), bug.sentence);
    }
    if caught.is_empty() {
        let _ = writeln!(text, "  none: no planted bug is of this kind");
    }
    text
}

/// The case's text.
fn show(case: &Case, limit: usize, paint: Paint) -> String {
    let mut text = format!("{}\n{}\n\n", paint.tone(Tone::Strong, &case.name), case.comment);
    text += &match (case.level, preconditions::violated(case)) {
        (Level::Required, _) => "required: a conformant implementation passes it.\n".to_owned(),
        (Level::Advisory, why) => {
            let why = why.unwrap_or_else(|| "the error analysis does not hold for it".to_owned());
            format!("advisory: careful implementations may differ here ({why}).\n")
        }
    };
    text += &flags(case, paint);
    let mut previous: Option<(Request, Answer)> = None;
    for step in 0..case.steps.len() {
        let request = case.request(step, previous.as_ref().map(|(asked, answer)| (asked, answer)));
        let answer = right_answer(&request);
        text += &shown_step(case, step, &request.call, limit, paint);
        previous = Some((request, answer));
    }
    text += &effects(case, paint);
    text
}

fn flags(case: &Case, paint: Paint) -> String {
    let mut text = String::new();
    for (kind, head) in [(FlagKind::Class, "bug classes that it exposes"), (FlagKind::Topic, "topics")] {
        let flags: Vec<_> = case.flags.iter().filter(|flag| flag.kind() == kind).collect();
        if flags.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{head}");
        for flag in flags {
            let _ = writeln!(text, "  {}", paint.tone(Tone::Strong, flag.name()));
            let seen = match flag.references() {
                [] => String::new(),
                references => format!(" Seen in {}.", references.join(", ")),
            };
            let meaning = format!("{} {}{seen}", flag.meaning(), flag.effect());
            let _ = writeln!(text, "{}", wrapped(&meaning, 4));
        }
    }
    text
}

/// The reference's answer, which the next step's state comes from.
fn right_answer(request: &Request) -> Answer {
    let mut reference = Builtin::new("reference").expect("the reference is compiled in");
    reference.answer(request).expect("the reference answers")
}

/// One step: the call, its tensors, the right answer, the bound.
fn shown_step(case: &Case, number: usize, step: &Step, limit: usize, paint: Paint) -> String {
    let head = if case.steps.len() > 1 { format!("step {number}") } else { "the call".to_owned() };
    let mut text = format!("\n{}: {}\n", paint.tone(Tone::Strong, head), call_in_words(step));
    for (name, tensor) in &step.tensors {
        let _ = writeln!(text, "  {name} {} {:?}: {}", tensor.dtype(), tensor.shape(), values(tensor, limit));
    }
    let expected = Expected::of(step);
    text += &match &expected {
        Expected::Refused { refusal, state } => refused(refusal, state, limit),
        Expected::Tensors { tensors, num_batches_tracked, plan, .. } => {
            let counter = num_batches_tracked.map(|n| format!("  num_batches_tracked {n}\n")).unwrap_or_default();
            format!(
                "the reference's answer\n{}{counter}{}",
                answers(tensors, limit),
                bounds(case, number, step, &expected, plan, paint)
            )
        }
    };
    text
}

fn refused(refusal: &crate::operation::Refusal, state: &Tensors, limit: usize) -> String {
    let mut text = format!("the reference's answer\n  {refusal}\n");
    for (name, tensor) in state {
        let _ = writeln!(text, "  {name} {}", values(tensor, limit));
    }
    text
}

/// The elements in a line, each the shortest decimal of its own type.
fn values(tensor: &Tensor, limit: usize) -> String {
    let text = |index: usize| match (tensor, tensor.get(index)) {
        (Tensor::I64(_), value) => format!("{value}"),
        (Tensor::F64(_), value) => decimal(value),
        (_, value) if value.is_finite() => format!("{:?}", value as f32),
        (_, value) => decimal(value),
    };
    let shown: Vec<String> = (0..tensor.len().min(limit)).map(text).collect();
    let more = tensor.len().saturating_sub(limit);
    let rest = if more > 0 { format!(" … {more} more (--all)") } else { String::new() };
    if tensor.is_empty() { "no elements".to_owned() } else { format!("{}{rest}", shown.join(" ")) }
}

/// The true values, correctly rounded to the type of the answer.
fn answers(tensors: &Tensors<TrueTensor>, limit: usize) -> String {
    let mut text = String::new();
    for (name, tensor) in tensors {
        let _ = writeln!(text, "  {name} {} {:?}", tensor.dtype, tensor.shape);
        for (index, (truth, rounded)) in tensor.values.iter().zip(&tensor.rounded).enumerate().take(limit) {
            let place = format!("{:?}", unravel(index, &tensor.shape));
            let _ = writeln!(
                text,
                "    {place:<14} {:<24} rounded to {} {}",
                decimal(truth.value.hi),
                tensor.dtype,
                hexadecimal(*rounded)
            );
        }
        if tensor.values.len() > limit {
            let _ = writeln!(text, "    … {} more (--all)", tensor.values.len() - limit);
        }
    }
    text
}

/// What the bound of the worst-conditioned element is made of, and a snippet that computes the element.
fn bounds(case: &Case, number: usize, step: &Step, expected: &Expected, plan: &Plan, paint: Paint) -> String {
    let Expected::Tensors { tensors, .. } = expected else { return String::new() };
    let declared = Declared::default();
    let dtype = step.tensors["input"].dtype();
    let format = dtype.format().expect("an input is floating-point");
    if !plan.standardizes {
        return plain_bounds(step, plan, tensors);
    }
    let output = &tensors["output"];
    let laws = if plan.centred { &Law::GOOD[..] } else { &Law::GOOD[..1] };
    let strict = Bounds::of(step, plan, laws[0], &declared);
    let Some((group, index)) = worst_conditioned(step, plan, output, &strict) else { return String::new() };
    let terms = terms(step, plan, laws[0], group);
    let place = unravel(index, &output.shape);
    let value = output.values[index].value.hi;
    let mut text = format!("the bound of output{place:?}, the worst-conditioned element (group {group})\n");
    let Terms { statistics: [mean, variance, sigma], mean_error, variance_error: [below, above], relative } = terms;
    let unit = accumulator(dtype, &declared).unit_roundoff();
    for (symbol, value, meaning) in [
        ("u", unit, "unit roundoff of the accumulating type"),
        ("μ", mean, "mean"),
        ("v", variance, if plan.centred { "variance" } else { "mean square" }),
        ("s", sigma, "√(v + eps)"),
        ("D", mean_error, "error of the mean"),
        ("Δ⁻", below, "error of the variance, downwards"),
        ("Δ⁺", above, "error of the variance, upwards"),
        ("ρ", relative, "relative error of the rescaling"),
    ] {
        let _ = writeln!(text, "    {symbol:<3} {value:>12.4e}  {meaning}");
    }
    for &law in laws.iter().chain(plan.centred.then_some(&Law::ONE_PASS)) {
        let bounds = Bounds::of(step, plan, law, &declared);
        let bound = bounds.stored(format).of(bounds.errors("output")[index], value);
        let _ = writeln!(text, "    {:<36} |error| ≤ {bound:.4e}", law_name(law, plan.centred));
    }
    let worst = Worst { tensor: "output".into(), index: place, expected: value, actual: value, error: 0.0, bound: 0.0 };
    let source = Source { file: None, case: &case.name, step: number };
    if let Some(snippet) = snippet(step, expected, &worst, false, source) {
        let indented: Vec<String> = snippet.lines().map(|line| format!("    {line}")).collect();
        let _ = writeln!(text, "numpy\n{}", paint.tone(Tone::Faint, indented.join("\n")));
    }
    text
}

/// The largest bound of each output of an operation that is not made of moments and rescaling: it follows from running
/// error analysis, operation by operation.
fn plain_bounds(step: &Step, plan: &Plan, tensors: &Tensors<TrueTensor>) -> String {
    let bounds = Bounds::of(step, plan, Law::GOOD[0], &Declared::default());
    let mut text = "the largest bounds, by running error analysis\n".to_owned();
    for (name, tensor) in tensors {
        let format = tensor.dtype.format().expect("floating-point");
        let stored = bounds.errors(name).iter().zip(&tensor.values);
        let stored = stored.map(|(&error, truth)| bounds.stored(format).of(error, truth.value.hi)).enumerate();
        if let Some((index, bound)) = stored.filter(|(_, bound)| bound.is_finite()).max_by(|a, b| a.1.total_cmp(&b.1)) {
            let place = unravel(index, &tensor.shape);
            let value = decimal(tensor.values[index].value.hi);
            let _ = writeln!(text, "    {name}{place:?} = {value}: |error| ≤ {bound:.4e}");
        }
    }
    text
}

fn law_name(law: Law, centred: bool) -> String {
    let variance = match law.variance {
        _ if !centred => "mean of squares",
        VarianceLaw::TwoPass => "two passes",
        VarianceLaw::Updating => "updating (Welford, merged)",
        VarianceLaw::OnePass => return "one pass, which is no good".to_owned(),
    };
    if law.folded { format!("{variance}, folded") } else { variance.to_owned() }
}

/// The group with the largest relative error of its rescaling, and in it the output with the largest bound.
fn worst_conditioned(step: &Step, plan: &Plan, output: &TrueTensor, bounds: &Bounds) -> Option<(usize, usize)> {
    let length = plan.partition.run_length;
    let group_of = |index: usize| plan.partition.place(index / length * length).group;
    let relative: Vec<f64> =
        (0..plan.partition.groups()).map(|group| terms(step, plan, Law::GOOD[0], group).relative).collect();
    let bound = |index: usize| {
        let format = output.dtype.format().expect("floating-point");
        bounds.stored(format).of(bounds.errors("output")[index], output.values[index].value.hi)
    };
    let finite = (0..output.values.len()).filter(|&index| output.values[index].is_finite() && !bound(index).is_nan());
    finite
        .max_by(|&a, &b| {
            let by_group = relative[group_of(a)].total_cmp(&relative[group_of(b)]);
            by_group.then_with(|| bound(a).total_cmp(&bound(b)))
        })
        .map(|index| (group_of(index), index))
}

/// The terms of the bound for one group.
fn terms(step: &Step, plan: &Plan, law: Law, group: usize) -> Terms {
    let declared = Declared::default();
    let tracker = tracker(law, accumulator(step.tensors["input"].dtype(), &declared), &declared);
    let moments = match plan.source {
        Statistics::Input => {
            let input: Vec<f64> = step.tensors["input"].to_f64().iter().copied().collect();
            tracker.moments(Group::new(&input, plan.partition.group(group)), plan.centred)
        }
        // The statistics that evaluation reads, or a batch has just moved, are in the reference's answer; their own errors
        // are not taken apart.
        Statistics::Stored | Statistics::Average | Statistics::Nothing => {
            let stored = |name: &str| step.tensors[name].get(group);
            tracker.stored(stored("running_mean"), stored("running_var"))
        }
    };
    tracker.terms(&moments, &Scale::inside_root(plan.eps))
}

/// What each planted bug does to the case.
fn effects(case: &Case, paint: Paint) -> String {
    let mut effects: Vec<(f64, &str, &str)> = BUGS
        .iter()
        .map(|bug| (power::effect(case, bug), bug.name, bug.sentence))
        .filter(|(effect, ..)| *effect > 0.0)
        .collect();
    effects.sort_by(|a, b| b.0.total_cmp(&a.0));
    if effects.is_empty() {
        return "\nno planted bug shows on this case\n".to_owned();
    }
    let mut text =
        "\nplanted bugs that show: their effect as a multiple of the bound (∞: no rounding could explain it)\n"
            .to_owned();
    for (effect, name, sentence) in effects {
        let _ = writeln!(text, "  {:>8}  {}: {sentence}", multiple(effect), paint.tone(Tone::Strong, name));
    }
    text
}
