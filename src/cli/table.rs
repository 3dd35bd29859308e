//! `normative table`: the documentation's tables, computed.

use clap::{Args, ValueEnum};

use super::Stop;
use super::output::{markdown, print};
use crate::arithmetic::DataType;
use crate::case::{FlagKind, catalogue, sketch};
use crate::conformance::power::{self, EXPOSED};
use crate::operation::Operation;
use crate::property::statistic::{FALSE_ALARM, MISS, false_alarms};
use crate::property::{self, Axis, Sign};
use crate::report::{Status, multiple};
use crate::subject::planted::BUGS;

/// Prints a table of the documentation in Markdown, computed from the catalogue and the planted bugs.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which table.
    #[arg(value_enum)]
    table: Which,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// The operations: hyper-parameters, tensors, states, dialects, data types.
    Operations,
    /// What the catalogue can see: the largest effect of each planted bug, as a multiple of the bound.
    Power,
    /// The planted bugs: what each does, what it does to a user, where it was seen.
    Bugs,
    /// The statistics: how seldom each accuses a correct layer, what it must see, and what that takes.
    FalseAlarms,
    /// Which planted bug breaks which law.
    Properties,
    /// What each operation must not notice, and what it must.
    Promises,
}

/// # Errors
/// If standard output cannot be written.
pub(super) fn run(arguments: &Arguments) -> Result<Status, Stop> {
    print(&match arguments.table {
        Which::Operations => operations_table(),
        Which::Power => power_table(),
        Which::Bugs => bugs_table(),
        Which::FalseAlarms => false_alarms_table(),
        Which::Properties => properties_table(),
        Which::Promises => promises_table(),
    })?;
    Ok(Status::Conformant)
}

/// A row for each operation, made from its signature, a call of it, and how it is sketched.
fn operations_table() -> String {
    let names = |names: &[&str]| match names {
        [] => "–".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    let row = |&name: &&'static str| {
        let operation = catalogue::cases().iter().map(|case| case.operation()).find(|own| own.name() == name);
        let operation = operation.expect("every operation has cases");
        let signature = operation.signature();
        let fields = serde_json::to_value(operation).unwrap_or_default();
        let fields: Vec<String> = fields.as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
        let fields: Vec<&str> =
            fields.iter().map(String::as_str).filter(|&key| key != "name" && key != "dialect").collect();
        let shaped = |tensor: &&str| match sketch::axes_of(name, tensor) {
            Some(axes) if *tensor != "input" => format!("`{tensor}` ({axes})"),
            _ => format!("`{tensor}`"),
        };
        let mut tensors: Vec<String> = signature.required.iter().map(shaped).collect();
        if !signature.optional.is_empty() {
            tensors.push(format!("[{}]", signature.optional.iter().map(shaped).collect::<Vec<_>>().join(", ")));
        }
        vec![
            format!("`{name}`"),
            names(&fields),
            tensors.join(", "),
            names(signature.outputs),
            names(signature.state),
            names(signature.differentiable),
            if signature.modes { "train, eval" } else { "–" }.to_owned(),
            names(Operation::dialects(name)),
        ]
    };
    let header = ["operation", "hyper-parameters", "tensors in", "out", "state", "differentiable", "modes", "dialects"];
    markdown(&header, Operation::NAMES.iter().map(row).collect())
}

/// A row for each bug and operation, a column for each data type; an effect below [`EXPOSED`] is no evidence.
fn power_table() -> String {
    let table = power::table(catalogue::cases());
    let mut cells = Vec::new();
    for bug in BUGS {
        for &operation in bug.operations {
            let effects = DataType::FLOATS.map(|dtype| table.get(&(bug.name, operation, dtype)));
            let mut row = vec![format!("`{}`", bug.name), format!("`{operation}`")];
            row.extend(effects.iter().map(|found| found.map_or("–".to_owned(), |(effect, _)| shown(*effect))));
            // Of equals the first, in the widest type.
            let best = effects.into_iter().flatten().rev().max_by(|a, b| a.0.total_cmp(&b.0));
            let best = best.filter(|(effect, _)| *effect >= EXPOSED);
            row.push(best.map_or("–".to_owned(), |(_, case)| format!("`{case}`")));
            cells.push(row);
        }
    }
    let mut header = vec!["bug", "operation"];
    header.extend(DataType::FLOATS.map(DataType::name));
    header.push("seen best in");
    let note = format!(
        "The largest effect over the required cases, as a multiple of the bound; ∞ where no rounding could explain it; in \
         parentheses below {EXPOSED}, where it proves nothing.\n"
    );
    format!("{}\n{note}", markdown(&header, cells))
}

fn shown(effect: f64) -> String {
    if effect >= EXPOSED { multiple(effect) } else { format!("({})", multiple(effect)) }
}

/// A row for each property, a column for what it catches.
fn properties_table() -> String {
    let matrix = property::matrix(0, property::ROUNDS);
    let cells = property::properties().map(|property| {
        let caught = matrix.get(property.name).into_iter().flatten().map(|bug| format!("`{bug}`"));
        let caught: Vec<String> = caught.collect();
        vec![format!("`{}`", property.name), property.law.to_owned(), caught.join(", "), property.source.to_owned()]
    });
    markdown(&["property", "law", "planted bugs that break it", "whose law"], cells.collect())
}

/// A row for each operation.
fn promises_table() -> String {
    let seen = |promised: bool| if promised { "same" } else { "seen" }.to_owned();
    let cells = property::promises().iter().map(|promises| {
        let moves = |axis| if promises.permutes.contains(&axis) { "moves" } else { "–" }.to_owned();
        vec![
            format!("`{}`", promises.operation),
            seen(promises.shift),
            seen(promises.shift_of_channels),
            seen(promises.shift_of_samples),
            match promises.sign {
                Sign::Odd => "−y",
                Sign::Even => "y",
                Sign::Neither => "–",
            }
            .to_owned(),
            promises.degree.map_or("–".to_owned(), |degree| if degree == 0 { "same" } else { "a·y" }.to_owned()),
            moves(Axis::Samples),
            moves(Axis::Channels),
            moves(Axis::Positions),
            seen(!promises.mixes_samples),
        ]
    });
    let header = [
        "operation",
        "x + c",
        "x + c of each channel",
        "x + c of each sample",
        "−x",
        "a·x, a²·eps",
        "order of samples",
        "order of channels",
        "order of positions",
        "other samples",
    ];
    markdown(&header, cells.collect())
}

fn bugs_table() -> String {
    let exposing = |flag| catalogue::cases().iter().filter(|case| case.flags.contains(&flag)).count();
    let cells = BUGS.iter().map(|bug| {
        debug_assert_eq!(bug.flag.kind(), FlagKind::Class);
        let operations: Vec<String> = bug.operations.iter().map(|name| format!("`{name}`")).collect();
        vec![
            format!("`{}`", bug.name),
            bug.sentence.to_owned(),
            operations.join(", "),
            format!("`{}`", bug.flag.name()),
            bug.flag.effect().to_owned(),
            exposing(bug.flag).to_string(),
            bug.flag.references().join(", "),
        ]
    });
    let header = ["bug", "what the layer does", "operations", "flag", "what it does to a user", "cases", "seen in"];
    markdown(&header, cells.collect())
}

fn false_alarms_table() -> String {
    let rows = false_alarms();
    let cells = rows.iter().map(|row| {
        vec![
            format!("`{}`", row.statistic),
            format!("`{}`", row.operation),
            row.null.to_owned(),
            format!("{:.2e}", row.false_alarm),
            row.error.to_owned(),
            format!("{:.0e}", row.miss),
            row.needed.to_string(),
            row.asked.to_string(),
        ]
    });
    let header = [
        "statistic",
        "operation",
        "of a correct layer",
        "false alarms",
        "must see",
        "misses",
        "groups needed",
        "asked",
    ];
    let note = format!(
        "All {} tests together accuse a correct layer in at most {FALSE_ALARM:.0e} of all runs (Holm); each misses the \
         error that it must see in at most {MISS:.0e}.\n",
        rows.len()
    );
    format!("{}\n{note}", markdown(&header, cells.collect()))
}
