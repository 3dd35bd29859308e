//! `normative list`: what there is.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::Stop;
use super::options::SelectionOptions;
use super::output::{print, table};
use crate::case::{Case, Flag, Level, catalogue};
use crate::operation::Operation;
use crate::property::{self, statistic::STATISTICS};
use crate::report::{Rows, Status};
use crate::subject::planted::{BUGS, Bug};
use crate::subject::{Builtin, cuda_order};

/// Lists cases, operations, flags and the subjects that are compiled in.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// What to list.
    #[arg(value_enum, default_value_t = What::All)]
    what: What,
    /// The list's form.
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT")]
    format: ListFormat,
    #[command(flatten)]
    selection: SelectionOptions,
}

const EXAMPLES: &str = "\
Examples:
  normative list flags
  normative list cases --flag momentum_sense --only '*-f32-*'
  normative list subjects --format json";

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ListFormat {
    /// Tables for people.
    Text,
    /// For machines.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// The cases that the options mean, by name.
    Cases,
    /// The operations of those cases, with their tensors.
    Operations,
    /// The flags of those cases: bug classes and topics.
    Flags,
    /// What --builtin takes.
    Subjects,
    /// The planted bugs, and where each was seen.
    Bugs,
    /// The properties: laws that hold without knowing the answer.
    Properties,
    /// The laws of many answers.
    Statistics,
    /// Everything.
    All,
}

/// # Errors
/// Wrong usage, and if standard output cannot be written.
pub(super) fn run(arguments: &Arguments) -> Result<Status, Stop> {
    let cases = arguments.selection.pick(arguments.selection.catalogue())?;
    let wanted = |what| arguments.what == what || arguments.what == What::All;
    let lists: Vec<(&str, List)> = [
        (What::Operations, "operations", operations as fn(&[&Case]) -> List),
        (What::Flags, "flags", flags),
        (What::Subjects, "subjects", subjects),
        (What::Bugs, "bugs", bugs),
        (What::Properties, "properties", properties),
        (What::Statistics, "statistics", statistics),
        (What::Cases, "cases", list_of_cases),
    ]
    .into_iter()
    .filter(|(what, ..)| wanted(*what))
    .map(|(_, name, list)| (name, list(&cases)))
    .collect();
    let text = match arguments.format {
        ListFormat::Json => {
            let mut object = serde_json::Map::from_iter([("catalogue".to_owned(), Value::from(catalogue::VERSION))]);
            object.extend(lists.into_iter().map(|(name, list)| (name.to_owned(), Value::from(list.json))));
            format!("{}\n", serde_json::to_string_pretty(&object).expect("lists are JSON"))
        }
        ListFormat::Text => {
            let tables = lists.into_iter().map(|(_, list)| table(&list.rows) + "\n");
            tables.collect::<Vec<_>>().join("\n")
        }
    };
    print(&text)?;
    Ok(Status::Conformant)
}

/// The same things for people and for machines.
struct List {
    rows: Rows,
    json: Vec<Value>,
}

impl List {
    fn new(header: &[&'static str]) -> List {
        List { rows: Rows { header: header.to_vec(), cells: Vec::new() }, json: Vec::new() }
    }

    fn add(&mut self, cells: Vec<String>, json: Value) {
        self.rows.cells.push(cells);
        self.json.push(json);
    }
}

fn list_of_cases(cases: &[&Case]) -> List {
    let mut list = List::new(&["case", "level", "what it asks"]);
    for case in cases {
        let level = if case.level == Level::Required { "required" } else { "advisory" };
        let cells = vec![case.name.clone(), level.to_owned(), case.comment.clone()];
        let json = json!({
            "name": case.name,
            "comment": case.comment,
            "operation": case.operation().name(),
            "dtype": case.dtype(),
            "level": case.level,
            "steps": case.steps.len(),
            "flags": case.flags,
        });
        list.add(cells, json);
    }
    list
}

fn operations(cases: &[&Case]) -> List {
    let mut list = List::new(&["operation", "cases", "tensors in (optional in brackets)", "tensors out"]);
    let mut seen: Vec<&str> = Vec::new();
    for case in cases {
        let operation = case.operation();
        if seen.contains(&operation.name()) {
            continue;
        }
        seen.push(operation.name());
        let signature = operation.signature();
        let number = cases.iter().filter(|other| other.operation().name() == operation.name()).count();
        let out: Vec<&str> = signature.outputs.iter().chain(signature.state).copied().collect();
        let optional = match signature.optional {
            [] => String::new(),
            names => format!(" [{}]", names.join(", ")),
        };
        let tensors = format!("{}{optional}", signature.required.join(", "));
        let cells = vec![operation.name().to_owned(), number.to_string(), tensors, out.join(", ")];
        let json = json!({
            "name": operation.name(),
            "cases": number,
            "required": signature.required,
            "optional": signature.optional,
            "outputs": signature.outputs,
            "state": signature.state,
            "modes": signature.modes,
        });
        list.add(cells, json);
    }
    list
}

fn flags(cases: &[&Case]) -> List {
    let mut list = List::new(&["flag", "kind", "cases", "meaning"]);
    for flag in Flag::ALL {
        let number = cases.iter().filter(|case| case.flags.contains(flag)).count();
        if number == 0 && cases.len() < catalogue::cases().len() {
            continue;
        }
        let kind = format!("{:?}", flag.kind()).to_lowercase();
        let cells = vec![flag.name().to_owned(), kind.clone(), number.to_string(), flag.meaning().to_owned()];
        let json = json!({
            "name": flag.name(),
            "kind": kind,
            "cases": number,
            "meaning": flag.meaning(),
            "effect": flag.effect(),
            "references": flag.references(),
        });
        list.add(cells, json);
    }
    list
}

fn statistics(_: &[&Case]) -> List {
    let mut list = List::new(&["statistic", "operations", "what holds"]);
    for statistic in STATISTICS {
        let cells = vec![statistic.name.to_owned(), statistic.operations.join(", "), statistic.sentence.to_owned()];
        let json = json!({
            "name": statistic.name,
            "sentence": statistic.sentence,
            "operations": statistic.operations,
            "null": statistic.null,
            "error": statistic.error,
            "sees": statistic.sees,
        });
        list.add(cells, json);
    }
    list
}

fn properties(_: &[&Case]) -> List {
    let mut list = List::new(&["property", "operations", "law", "what holds"]);
    for property in property::properties() {
        let names: Vec<&str> = property.operations().collect();
        let operations = if names.len() == Operation::NAMES.len() { "all".to_owned() } else { names.join(", ") };
        let cells = vec![property.name.to_owned(), operations, property.law.to_owned(), property.sentence.to_owned()];
        let json = json!({
            "name": property.name,
            "sentence": property.sentence,
            "law": property.law,
            "source": property.source,
            "flags": property.flags,
            "operations": names,
        });
        list.add(cells, json);
    }
    list
}

fn bugs(_: &[&Case]) -> List {
    let mut list = List::new(&["bug", "flag", "what it does", "seen in"]);
    for bug in BUGS {
        let source = if bug.source.is_empty() { "–" } else { bug.source };
        let cells = vec![bug.name.to_owned(), bug.flag.name().to_owned(), bug.sentence.to_owned(), source.to_owned()];
        let json = json!({
            "name": bug.name,
            "sentence": bug.sentence,
            "flag": bug.flag.name(),
            "source": bug.source,
            "operations": bug.operations,
        });
        list.add(cells, json);
    }
    list
}

fn subjects(_: &[&Case]) -> List {
    let mut list = List::new(&["subject", "kind", "what it is or does"]);
    for (name, sentence) in Builtin::all() {
        let bug = Bug::from_name(name);
        let kind = match bug {
            Some(bug) => bug.flag.name(),
            None if [cuda_order::NAME, cuda_order::UNFUSED].contains(&name) => "emulated",
            None => "correct",
        };
        let cells = vec![name.to_owned(), kind.to_owned(), sentence.to_owned()];
        let json = json!({
            "name": name,
            "sentence": sentence,
            "correct": bug.is_none(),
            "flag": bug.map(|bug| bug.flag.name()),
            "operations": bug.map(|bug| bug.operations),
        });
        list.add(cells, json);
    }
    list
}
