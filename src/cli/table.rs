//! `normative table`: the documentation's tables, computed.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, ValueEnum};

use super::Stop;
use super::goldens::{Goldens, default_folder};
use super::output::{markdown, print};
use crate::arithmetic::DataType;
use crate::case::{FlagKind, catalogue, sketch};
use crate::conformance::power::{self, EXPOSED};
use crate::operation::{Average, BatchNormDialect, Conventions, MomentumSense, OneValue, Operation};
use crate::property::statistic::{FALSE_ALARM, MISS, false_alarms};
use crate::property::{self, Axis, Sign, matrix};
use crate::report::{Status, multiple};
use crate::simulate::momentum::{FRAMEWORKS, Framework};
use crate::subject::cuda_order::{PIECES, Piece};
use crate::subject::planted::BUGS;

/// The folder that shows the format, by an answer of nobody's.
const EXAMPLES: &str = "examples";

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
    /// The operations: cases forward and backward, the recordings that have answers, dialects.
    Goldens,
    /// What the catalogue can see: the largest effect of each planted bug, as a multiple of the bound.
    Power,
    /// The planted bugs: what each does, what it does to a user, where it was seen.
    Bugs,
    /// The statistics: how seldom each accuses a correct layer, what it must see, and what that takes.
    FalseAlarms,
    /// Which planted bug breaks which law.
    Properties,
    /// Which check finds which planted bug: the page docs/matrix.md.
    Matrix,
    /// What each operation must not notice, and what it must.
    Promises,
    /// The dialects of batch norm: every framework's momentum and running statistics (docs/momentum.md).
    Momentum,
    /// What of CUDA's kernels is emulated, and how certain each piece is (docs/gpu.md).
    CudaOrder,
}

/// # Errors
/// If standard output cannot be written.
pub(super) fn run(arguments: &Arguments) -> Result<Status, Stop> {
    print(&match arguments.table {
        Which::Operations => operations_table(),
        Which::Goldens => goldens_table(),
        Which::Power => power_table(),
        Which::Bugs => bugs_table(),
        Which::FalseAlarms => false_alarms_table(),
        Which::Properties => properties_table(),
        Which::Matrix => matrix_page(),
        Which::Promises => promises_table(),
        Which::Momentum => momentum_table(),
        Which::CudaOrder => cuda_order_table(),
    })?;
    Ok(Status::Conformant)
}

/// A row for each piece of the emulation.
fn cuda_order_table() -> String {
    let row = |piece: &Piece| {
        let Piece { operations, what, certainty, evidence } = piece;
        vec![operations.join(", "), (*what).to_owned(), certainty.name().to_owned(), (*evidence).to_owned()]
    };
    markdown(&["operation", "piece", "certainty", "from"], PIECES.iter().map(row).collect())
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

/// A row for each operation: how many cases ask for its outputs and for its gradients, and who has answered some of them.
fn goldens_table() -> String {
    let goldens = Goldens::below(&default_folder());
    let mut recorded: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (recording, case) in goldens.named_cases().filter(|(recording, _)| *recording != EXAMPLES) {
        *recorded.entry(case.operation().name()).or_default().entry(recording).or_default() += 1;
    }
    let row = |&name: &&'static str| {
        let cases = catalogue::cases().iter().filter(|case| case.operation().name() == name);
        let (backward, forward): (Vec<_>, Vec<_>) =
            cases.partition(|case| case.steps.iter().any(|step| step.gradients));
        let from: Vec<String> = recorded
            .get(name)
            .into_iter()
            .flatten()
            .map(|(recording, cases)| format!("`{recording}` {cases}"))
            .collect();
        let dialects: Vec<String> = Operation::dialects(name).iter().map(|dialect| format!("`{dialect}`")).collect();
        [
            format!("`{name}`"),
            forward.len().to_string(),
            backward.len().to_string(),
            if from.is_empty() { "–".to_owned() } else { from.join(", ") },
            dialects.join(", "),
        ]
    };
    let header = ["operation", "forward", "backward", "goldens from", "dialects"];
    unpadded(header, Operation::NAMES.iter().map(row))
}

/// A row for each bug and operation, a column for each data type; an effect below [`EXPOSED`] is no evidence.
fn power_table() -> String {
    let table = power::table(catalogue::cases(), &power::effects_on(catalogue::cases()));
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
    let cells = property::properties().map(|property| {
        let caught = property::caught_by(property, 0, property::ROUNDS);
        let caught: Vec<String> = caught.iter().map(|bug| format!("`{bug}`")).collect();
        vec![format!("`{}`", property.name), property.law.to_owned(), caught.join(", "), property.source.to_owned()]
    });
    markdown(&["property", "law", "planted bugs that break it", "whose law"], cells.collect())
}

/// A page with a row for each planted bug and one for each check.
fn matrix_page() -> String {
    let rows = matrix::rows();
    let listed = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        if names.is_empty() { "–".to_owned() } else { names.join(", ") }
    };
    let found = |names: &BTreeSet<&'static str>| listed(&names.iter().copied().collect::<Vec<_>>());
    let by_bug = rows
        .iter()
        .map(|row| [format!("`{}`", row.bug), row.cases.to_string(), found(&row.properties), found(&row.statistics)]);
    let by_check = matrix::checks().map(|check| {
        let finds = |row: &&matrix::Row| row.properties.contains(check) || row.statistics.contains(check);
        let count = rows.iter().filter(finds).count();
        let why = matrix::IDLE.iter().find(|(name, _)| *name == check).map_or("", |(_, why)| why);
        [format!("`{check}`"), count.to_string(), why.to_owned()]
    });
    let missed: Vec<&str> = rows.iter().filter(|row| !row.is_found()).map(|row| row.bug).collect();
    let by_bug = unpadded(["planted bug", "cases", "properties", "statistics"], by_bug);
    let by_check = unpadded(["check", "planted bugs", "why it stays"], by_check);
    format!(
        "# Which check finds which planted bug\n\n\
         Made by `normative table matrix`. What each bug does, and where it was seen: `normative list bugs`. *Cases* are the \
         required cases in F32\nthat show it, by at least {EXPOSED} bounds; *properties* those that it breaks in F32, of six \
         rounds with seed 0; *statistics* those that\nreject it in F64 with seed 0; each on the operations that can have the \
         bug.\n\n\
         {} planted bugs; found by no check: {}.\n\n{by_bug}\n\
         ## What each check finds\nThe number of planted bugs, and for a check that finds none the reason why it \
         stays.\n\n{by_check}",
        rows.len(),
        listed(&missed),
    )
}

/// A table in Markdown whose columns are not aligned, so that a row changes without the others.
fn unpadded<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut text = format!("| {} |\n|{}\n", header.join(" | "), " --- |".repeat(N));
    for row in rows {
        text += &format!("| {} |\n", row.join(" | "));
    }
    text
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
            if bug.source.is_empty() { "–".to_owned() } else { bug.source.to_owned() },
        ]
    });
    let header = ["bug", "what the layer does", "operations", "flag", "what it does to a user", "cases", "seen in"];
    markdown(&header, cells.collect())
}

/// A row for each framework.
fn momentum_table() -> String {
    let cells = FRAMEWORKS.iter().map(|framework| {
        let Framework { name, parameter, weight, default, unbiased, dialect, .. } = framework;
        let conventions = dialect.map(BatchNormDialect::conventions);
        let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| value.to_string());
        let guarded = conventions.is_some_and(|conventions| conventions.bessel_guarded);
        vec![
            format!("`{name}`"),
            format!("`{parameter}`"),
            match weight {
                MomentumSense::OfNew => "the new batch".to_owned(),
                MomentumSense::OfOld => "the old value".to_owned(),
            },
            number(*default),
            number(conventions.and_then(|conventions| conventions.default_eps)),
            match (unbiased, guarded) {
                (false, _) => "v".to_owned(),
                (true, false) => "v·n/(n−1)".to_owned(),
                (true, true) => "v·n/max(n−1, 1)".to_owned(),
            },
            conventions.map_or("r", |conventions| kept(conventions.average)).to_owned(),
            conventions.map_or("–".to_owned(), one_value),
            conventions.map_or("–", |conventions| conventions.source).to_owned(),
        ]
    });
    let header = [
        "dialect",
        "hyper-parameter",
        "is the weight of",
        "default",
        "eps",
        "variance averaged",
        "kept",
        "one value per channel",
        "source",
    ];
    let table = markdown(&header, cells.collect());
    let departures = BatchNormDialect::ALL.iter().map(|dialect| {
        let conventions = dialect.conventions();
        format!("- **{}** (`{}`): {}.\n", conventions.title, conventions.name, conventions.departure)
    });
    format!("{table}\n{}", departures.collect::<String>())
}

fn kept(average: Average) -> &'static str {
    match average {
        Average::Exponential => "r",
        Average::Debiased => "h, r = h/(1−dᵗ)",
        Average::DebiasedWhenRead => "r, read as r/(1−dᵗ)",
        Average::FirstReplaces => "r, the first batch replaces it",
        Average::Unnormalized => "sum A and weight S, read as A/S",
    }
}

fn one_value(conventions: &Conventions) -> String {
    match conventions.one_value {
        OneValue::Refused | OneValue::EveryBatchOfOneRefused | OneValue::RefusedInEvaluation => "refused".to_owned(),
        OneValue::PassedOn => "y = x, nothing moves".to_owned(),
        OneValue::Accepted if conventions.name == "cudnn" => "not documented".to_owned(),
        OneValue::Accepted if conventions.running_degrees_of_freedom == 0 || conventions.bessel_guarded => {
            "the bias, v = 0".to_owned()
        }
        OneValue::Accepted => "the bias, `running_var` NaN".to_owned(),
    }
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
