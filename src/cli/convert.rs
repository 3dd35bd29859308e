//! `normative convert`: hyper-parameters of one framework in another's terms.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::Stop;
use super::output::print;
use crate::operation::MomentumSense;
use crate::report::Status;
use crate::simulate::momentum::{FRAMEWORKS, Framework, convert};

/// Says a hyper-parameter of one framework in another's terms.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Momentum(Momentum),
}

/// A momentum in another framework's terms, and for another batch size, so that the window in samples stays.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Momentum {
    /// The momentum, from 0 to 1.
    #[arg(value_parser = value)]
    value: f64,
    /// The framework that it is of.
    #[arg(long, value_name = "NAME", value_parser = frameworks())]
    from: String,
    /// The framework that it is for [default: the same].
    #[arg(long, value_name = "NAME", value_parser = frameworks())]
    to: Option<String>,
    /// The batch size that it is of.
    #[arg(long, value_name = "N", requires = "to_batch", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// The batch size that it is for.
    #[arg(long, value_name = "N", requires = "batch", value_parser = clap::value_parser!(u32).range(1..))]
    to_batch: Option<u32>,
}

const EXAMPLES: &str = "\
Examples:
  normative convert momentum 0.1 --from pytorch --to keras
  normative convert momentum 0.1 --from pytorch --batch 32 --to-batch 4
  normative convert momentum 0.99 --from flax --to pytorch --batch 256 --to-batch 1
  normative convert momentum 0.999 --from caffe --to haiku";

/// # Errors
/// If the answer cannot be written.
pub(super) fn run(arguments: &Arguments) -> Result<Status, Stop> {
    let What::Momentum(asked) = &arguments.what;
    let framework = |name: &str| Framework::from_name(name).expect("clap lets through no other name");
    let from = framework(&asked.from);
    let to = asked.to.as_deref().map_or(from, framework);
    let (batch, to_batch) = (asked.batch.unwrap_or(1), asked.to_batch.unwrap_or(1));
    let value = convert(asked.value, from, to, f64::from(batch), f64::from(to_batch));
    print(&format!("{}\n{}\n", digits(value), sentence(asked, from, to, value)))?;
    Ok(Status::Conformant)
}

fn sentence(asked: &Momentum, from: &Framework, to: &Framework, value: f64) -> String {
    let m = to.weight_of_new(value);
    let batches = match (asked.batch, asked.to_batch) {
        (Some(batch), Some(to_batch)) => format!(" at batches of {to_batch} instead of {batch}"),
        _ => String::new(),
    };
    let weighed = if to.weight == MomentumSense::OfNew { "new batch" } else { "old value" };
    let (old, new) = (digits(asked.value), digits(value));
    let mut text = format!(
        "{} {old} of {} is {} {new} of {}{batches}: the weight of the {weighed}.",
        from.parameter, from.name, to.parameter, to.name,
    );
    if asked.batch != asked.to_batch {
        text += " The window in samples stays.";
    }
    if m > 0.0 {
        text += &format!(" The running statistics are as noisy as an average of {:.0} batches.", (2.0 - m) / m);
    }
    if from.unbiased != to.unbiased {
        let (biased, unbiased) = if from.unbiased { (to.name, from.name) } else { (from.name, to.name) };
        text +=
            &format!(" What is averaged differs too: {biased} takes the variance over n, {unbiased} that over n − 1.");
    }
    let notes = if from == to { vec![from] } else { vec![from, to] };
    for framework in notes.into_iter().filter(|framework| !framework.note.is_empty()) {
        text += &format!(" {}: {}", framework.name, framework.note);
    }
    text
}

/// Eight significant digits, without the zeros at the end.
fn digits(value: f64) -> String {
    let places = (7 - value.abs().max(1e-12).log10().floor() as i32).clamp(0, 16) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn value(text: &str) -> Result<f64, String> {
    let value: Option<f64> = text.parse().ok();
    value.filter(|m| (0.0..=1.0).contains(m)).ok_or_else(|| format!("{text:?} is no momentum: a number from 0 to 1"))
}

fn frameworks() -> PossibleValuesParser {
    PossibleValuesParser::new(FRAMEWORKS.iter().map(|framework| framework.name))
}
