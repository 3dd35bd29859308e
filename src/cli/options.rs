//! Options that several commands share.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use crate::case::Flag;
use crate::operation::Operation;
use crate::report::Asked;
use crate::subject::Builtin;

/// Who is asked.
#[derive(Debug, Args)]
pub(super) struct SubjectOptions {
    /// Asks a program behind a pipe: a command line, split into words as a shell would, run without one.
    #[arg(long, value_name = "COMMAND", conflicts_with = "builtin")]
    pub subject: Option<String>,
    /// Asks a subject that is compiled in (`normative list subjects`).
    #[arg(long, value_name = "NAME", hide_possible_values = true, value_parser = builtins())]
    pub builtin: Option<String>,
}

impl SubjectOptions {
    /// The subject that was named, if one was.
    pub fn asked(&self) -> Option<Asked> {
        self.subject.clone().map(Asked::Program).or_else(|| self.builtin.clone().map(Asked::Builtin))
    }
}

fn builtins() -> PossibleValuesParser {
    PossibleValuesParser::new(Builtin::all().into_iter().map(|(name, _)| name))
}

/// How a subject is run.
#[derive(Debug, Args)]
pub(super) struct RunOptions {
    /// Runs this many of the subject side by side [default: 1 for a program, one for each core for what is compiled in].
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// The time that a program has to answer one request.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("a time limit is a positive number of seconds".to_owned()),
    }
}

/// Which cases.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which cases")]
pub(super) struct SelectionOptions {
    /// Only cases whose name matches the glob: `*` is any characters, `?` any one. Several are alternatives.
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// No cases whose name matches the glob.
    #[arg(long, value_name = "GLOB")]
    pub skip: Vec<String>,
    /// Only cases that carry the flag (`normative list flags`). Several are alternatives.
    #[arg(long, value_name = "FLAG", hide_possible_values = true, value_parser = flags())]
    pub flag: Vec<String>,
    /// The K-th of N parts, K from 1. A case belongs to a part by a hash of its name, so it stays there when others come.
    #[arg(long, value_name = "K/N", value_parser = shard)]
    pub shard: Option<Shard>,
    /// How much: `quick` is the required cases of at most 512 elements, all steps and tensors together; `forever` goes on
    /// with new values for the properties (check alone).
    #[arg(long, value_enum, default_value_t = Level::Full, value_name = "LEVEL")]
    pub level: Level,
    /// Only cases of this dialect, a set of conventions [default: those that the subject speaks].
    #[arg(long, value_name = "NAME", value_parser = dialects())]
    pub dialect: Option<String>,
}

/// The dialects that there are, of any operation.
fn dialects() -> PossibleValuesParser {
    let mut names: Vec<&'static str> =
        Operation::NAMES.iter().flat_map(|name| Operation::dialects(name)).copied().collect();
    names.sort_unstable();
    names.dedup();
    PossibleValuesParser::new(names)
}

fn flags() -> PossibleValuesParser {
    PossibleValuesParser::new(Flag::ALL.iter().map(|flag| flag.name()))
}

/// Part `index`, from 0, of `parts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    pub index: u64,
    pub parts: u64,
}

fn shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(k, n)| Some((k.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
    match parts {
        Some((k, n)) if (1..=n).contains(&k) => Ok(Shard { index: k - 1, parts: n }),
        _ => Err("a shard is K/N with K from 1 to N, such as 1/4".to_owned()),
    }
}

/// How much is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// Required cases of at most 512 elements.
    Quick,
    /// Every case.
    #[default]
    Full,
    /// Every case, and then properties on new values, round after round, until one fails or it is stopped (check alone).
    Forever,
}

/// What counts.
#[derive(Debug, Args)]
#[command(next_help_heading = "What counts")]
pub(super) struct JudgingOptions {
    /// Counts misses in advisory cases too.
    #[arg(long)]
    pub strict: bool,
    /// A list of expected failures in TOML, each `[[known]]` with `case` (a glob) and `reason`; one that passes is an error.
    #[arg(long, value_name = "FILE")]
    pub known: Option<PathBuf>,
    /// Writes a list that expects exactly the failures found: the entries that were needed, and one for each other failure.
    #[arg(long, value_name = "FILE")]
    pub write_known: Option<PathBuf>,
    /// The seed of the values that properties are tried on (`normative list properties`); it changes no case.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// When what has no end is to end, and what it starts from.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "With --level forever")]
pub(super) struct ForeverOptions {
    /// Stops after this time; Ctrl-C stops it too, and the report follows.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// Stops after this many rounds.
    #[arg(long, value_name = "N")]
    pub rounds: Option<NonZeroU64>,
    /// Adds to the evidence of the runs before, kept in this file; made where it is not there.
    #[arg(long, value_name = "FILE")]
    pub evidence: Option<PathBuf>,
}

/// Where the report goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "The report")]
pub(super) struct ReportOptions {
    /// The report's form.
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub format: Format,
    /// Writes the report into a file, and a line of summary to standard output.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Shows at most this many kinds of failures in full, and writes as many counterexamples.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub errors: usize,
    /// Asks the subject at most this often to make a failing case smaller; 0 leaves it as it is.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub shrink: usize,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For machines: docs/report.schema.json describes it.
    Json,
    /// For continuous integration: a test for each case.
    Junit,
    /// For GitHub: annotations, and a summary of the step where GITHUB_STEP_SUMMARY names its file.
    Github,
    /// A page for a browser, in one file.
    Html,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_from_one() {
        assert_eq!(shard("1/4"), Ok(Shard { index: 0, parts: 4 }));
        assert_eq!(shard("4/4"), Ok(Shard { index: 3, parts: 4 }));
        for wrong in ["0/4", "5/4", "4", "a/b", "1/0", "-1/2", ""] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_limit_is_positive_and_finite() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "inf", "1e300", "x"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
