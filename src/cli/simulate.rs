//! `normative simulate`: what batch norm does at a batch size.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Stop;
use super::output::{print, table, write_file};
use crate::report::{Rows, Status};
use crate::simulate::{Figure, Setting, advice, plot, simulate};

/// Says what batch norm does at a batch size, number of values and momentum: noise, bias, window, refusal.
///
/// Each figure is computed by formula and confirmed by simulation; its interval holds but for one time in ten thousand.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Samples of a batch.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Values of a sample in a channel: 1 for a flat input, height times width for an image.
    #[arg(long, value_name = "L", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    values: u32,
    /// The weight of the new batch, as PyTorch has it.
    #[arg(long, value_name = "M", default_value_t = 0.1, value_parser = momentum)]
    momentum: f64,
    /// Training steps.
    #[arg(long, value_name = "T", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    steps: u32,
    /// The values' mean.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, value_parser = finite)]
    mean: f64,
    /// The variance within a sample.
    #[arg(long, value_name = "W", default_value_t = 1.0, value_parser = positive)]
    within: f64,
    /// The variance between samples, of what all values of a sample share.
    #[arg(long, value_name = "TAU2", default_value_t = 0.0, value_parser = not_negative)]
    between: f64,
    /// The seed of the simulation.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The answer's form.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Draws how the running statistics converge.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  normative simulate --batch 4
  normative simulate --batch 1 --values 10 --between 1 --momentum 0.01 --steps 1000 --plot convergence.svg
  normative simulate --batch 2 --values 3136 --format json";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// # Errors
/// If the answer cannot be written.
pub(super) fn run(arguments: &Arguments) -> Result<Status, Stop> {
    let setting = Setting {
        batch: arguments.batch as usize,
        values: arguments.values as usize,
        momentum: arguments.momentum,
        steps: arguments.steps as usize,
        mean: arguments.mean,
        within: arguments.within,
        between: arguments.between,
        seed: arguments.seed,
    };
    if arguments.plot.is_some() && setting.is_refused() {
        return Err(Stop::usage("there is nothing to draw: one value per channel is refused in training"));
    }
    let figures = simulate(&setting);
    if let Some(path) = &arguments.plot {
        write_file(path, &plot(&setting))?;
    }
    print(&match arguments.format {
        Format::Text => text(&setting, &figures),
        Format::Json => {
            let answer = json!({
                "setting": setting,
                "refused": setting.is_refused(),
                "figures": figures,
                "advice": advice(&setting),
            });
            format!("{answer:#}\n")
        }
    })?;
    Ok(Status::Conformant)
}

fn text(setting: &Setting, figures: &[Figure]) -> String {
    let cells = figures.iter().map(|figure| {
        let simulated = figure.simulated.map_or("–".to_owned(), |interval| shown(interval.estimate));
        let interval = figure
            .simulated
            .map_or("–".to_owned(), |interval| format!("[{}, {}]", shown(interval.low), shown(interval.high)));
        vec![figure.meaning.to_owned(), shown(figure.value), simulated, interval, figure.formula.to_owned()]
    });
    let header = vec!["figure", "by formula", "simulated", "99.99 % interval", "formula"];
    let rows = Rows { header, cells: cells.collect() };
    let sentences: Vec<String> = advice(setting).into_iter().map(|sentence| format!("- {sentence}\n")).collect();
    format!("{}\n\n{}", table(&rows), sentences.concat())
}

/// Four significant digits.
fn shown(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn number(text: &str, fits: impl Fn(f64) -> bool, what: &str) -> Result<f64, String> {
    text.parse().ok().filter(|&value| fits(value)).ok_or_else(|| format!("{text:?} is not {what}"))
}

fn momentum(text: &str) -> Result<f64, String> {
    number(text, |m| m > 0.0 && m <= 1.0, "a momentum: above 0, at most 1")
}

fn finite(text: &str) -> Result<f64, String> {
    number(text, f64::is_finite, "a finite number")
}

fn positive(text: &str) -> Result<f64, String> {
    number(text, |x| x > 0.0 && x.is_finite(), "a positive number")
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |x| x >= 0.0 && x.is_finite(), "a number of at least 0")
}
