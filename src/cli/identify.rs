//! `normative identify`: which dialect a layer follows, from its answers alone.

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::options::{RunOptions, SubjectOptions};
use super::output::{Colors, print, table};
use super::{Stop, ask};
use crate::conformance::title;
use crate::identify::{About, Fit, Identification, Options, Unidentifiable, identify};
use crate::operation::{BatchNormDialect, TORCH_FAMILY};
use crate::report::{Paint, Rows, Status, Tone, multiple};

/// Works out which dialect a layer follows, from its answers alone.
///
/// It asks what momentum weighs, how the running statistics are kept and read, what the variance is divided by, where eps
/// stands and how large it is, what one value per channel does, and how the layer computes: in one pass or two, folded or
/// not, in which order it casts. Each question is a case in which the possible answers lie many rounding errors apart.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("asked").required(true).args(["subject", "builtin"]))]
pub(super) struct Arguments {
    #[command(flatten)]
    subject: SubjectOptions,
    /// The operation [default: batch_norm, or the first of the standardizing norms that it claims].
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(TORCH_FAMILY))]
    operation: Option<String>,
    /// The dialect whose hyper-parameters and state the questions have [default: pytorch, or the first that it claims].
    #[arg(long, value_name = "NAME", value_parser = dialects())]
    dialect: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunOptions,
}

const EXAMPLES: &str = "\
Examples:
  normative identify --subject 'python3 adapters/python/pytorch.py'
  normative identify --subject ./my_layer --operation layer_norm
  normative identify --builtin biased_running_var --json

Exit status:
  0  it is a dialect, or one with at most two departures
  1  no dialect fits
  2  wrong usage, or a subject that does not claim what it is to be asked
  3  the subject could not be run to the end";

fn dialects() -> PossibleValuesParser {
    PossibleValuesParser::new(BatchNormDialect::ALL.iter().map(|dialect| dialect.name()))
}

/// # Errors
/// Wrong usage; a subject that does not start or is lost on the way.
pub(super) fn run(arguments: &Arguments, colors: Colors) -> Result<Status, Stop> {
    let Arguments { subject, operation, dialect, .. } = arguments;
    let asked = subject.asked().ok_or_else(|| Stop::usage("give --subject COMMAND or --builtin NAME"))?;
    let mut pool = ask::start(&asked, &arguments.run).map_err(|fault| Stop::incomplete(fault.to_string()))?;
    let dialect = dialect.as_deref().and_then(BatchNormDialect::from_name);
    let options = Options { operation: operation.clone(), dialect };
    let identification = identify(&mut pool, &options).map_err(|error| match error {
        Unidentifiable::Lost(_) => Stop::incomplete(error.to_string()),
        _ => Stop::usage(error.to_string()),
    })?;
    let who = title(pool.hello());
    print(&match arguments.json {
        true => format!("{:#}\n", in_json(&identification, &who)),
        false => text(&identification, &who, colors.paint()),
    })?;
    Ok(if identification.dialect().is_some() { Status::Conformant } else { Status::NotConformant })
}

/// `as PyTorch 2.15, but running_var: the biased variance`.
fn sentence(identification: &Identification) -> String {
    match identification.dialect() {
        Some(fit) => as_dialect(fit),
        None => "no dialect fits".to_owned(),
    }
}

fn as_dialect(fit: &Fit) -> String {
    let departures: Vec<String> = fit.departures.iter().map(|it| format!("{}: {}", it.question, it.says)).collect();
    let but = if departures.is_empty() { String::new() } else { format!(", but {}", departures.join("; ")) };
    format!("as {}{but}", fit.dialect.conventions().title)
}

fn text(identification: &Identification, who: &str, paint: Paint) -> String {
    let Identification { operation, asked_in, dtype, findings, .. } = identification;
    let mut text =
        format!("{}\n", paint.tone(Tone::Strong, format!("{who}: {operation}, {}", sentence(identification))));
    let asked = asked_in.conventions().title;
    text += &format!("asked in {dtype}, with the hyper-parameters and the state of {asked}\n");
    if let Some(fit) = identification.dialect() {
        if !fit.alike.is_empty() {
            let names: Vec<&str> = fit.alike.iter().map(|dialect| dialect.conventions().title).collect();
            text += &format!("no question tells it from {}\n", names.join(", "));
        }
        let own = identification.fits.iter().find(|other| other.dialect == *asked_in || other.alike.contains(asked_in));
        if let Some(own) = own.filter(|own| own.dialect != fit.dialect && !fit.alike.contains(asked_in)) {
            text += &format!("otherwise said: {}\n", as_dialect(own));
        }
    } else if let Some(fit) = identification.fits.first() {
        text += &format!("the nearest departs in {} of them: {}\n", fit.departures.len(), as_dialect(fit));
    }
    let cells = findings.iter().map(|finding| {
        let decided = match finding.decided_by {
            _ if finding.choice.is_none() && finding.about != About::Arithmetic => "–".to_owned(),
            by if by.is_finite() => format!("{} bounds", multiple(by)),
            _ => "–".to_owned(),
        };
        vec![finding.question.to_owned(), finding.says.clone(), finding.case.clone(), decided]
    });
    let rows = Rows { header: vec!["question", "answer", "case", "next answer is off by"], cells: cells.collect() };
    format!("{text}\n{}\n", table(&rows))
}

fn in_json(identification: &Identification, who: &str) -> Value {
    let fit = |fit: &Fit| {
        let departures = fit.departures.iter().map(|it| json!({"question": it.question, "says": it.says}));
        json!({
            "dialect": fit.dialect.name(),
            "title": fit.dialect.conventions().title,
            "departures": departures.collect::<Vec<_>>(),
            "alike": fit.alike.iter().map(|dialect| dialect.name()).collect::<Vec<_>>(),
        })
    };
    let findings = identification.findings.iter().map(|finding| {
        json!({
            "question": finding.question,
            "asks": finding.asks,
            "says": finding.says,
            "case": finding.case,
            "known": finding.choice.is_some() || finding.about == About::Arithmetic,
            "decided_by": Some(finding.decided_by).filter(|by| by.is_finite()),
        })
    });
    json!({
        "subject": who,
        "operation": identification.operation,
        "asked_in": identification.asked_in.name(),
        "dtype": identification.dtype,
        "says": sentence(identification),
        "dialect": identification.dialect().map(fit),
        "fits": identification.fits.iter().map(fit).collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}
