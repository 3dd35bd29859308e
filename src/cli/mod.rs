//! The command line, thin: it reads arguments, has the library do the work, and prints.

mod adapter;
mod ask;
mod check;
mod compare;
mod convert;
mod forever;
mod fuzz;
mod goldens;
mod identify;
mod list;
mod near;
mod options;
mod output;
mod progress;
mod record;
mod replay;
mod selection;
mod show;
mod simulate;
mod table;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::report::Status;
use output::{ColorChoice, Colors};

/// The conformance suite for neural-network normalization layers: is a layer right, and if not, how is it wrong?
#[derive(Debug, Parser)]
#[command(name = "normative", version, max_term_width = 110, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Whether to use colours; NO_COLOR in the environment means never where this is not given.
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    color: ColorChoice,
}

const EXAMPLES: &str = "\
Examples:
  normative check
      the suite itself: recorded answers, and the reference on the catalogue
  normative check --subject 'python3 adapters/python/pytorch.py'
      a layer behind a pipe
  normative check --builtin eps_dropped
      what a failing report looks like
  normative show thread-batch_norm-f32-1x3x1-train
      a case in full

Exit status:
  0  conformant: everything judged passed, or failed as --known says
  1  not conformant: a required case failed
  2  wrong usage, or a glob that matches nothing
  3  the subject could not be run to the end, or nothing was judged (what was judged is reported)
  4  a golden file is unreadable, contradictory, or has the wrong hash
  5  a --known list or a deviations file is stale";

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Arguments),
    Fuzz(fuzz::Arguments),
    Verify(verify::Arguments),
    Compare(compare::Arguments),
    Record(record::Arguments),
    List(list::Arguments),
    Show(show::Arguments),
    Replay(replay::Arguments),
    Table(table::Arguments),
    Simulate(simulate::Arguments),
    Convert(convert::Arguments),
    Identify(identify::Arguments),
    Adapter(adapter::Arguments),
}

/// Why a command ends without a report.
#[derive(Debug)]
struct Stop {
    status: Status,
    message: String,
}

impl Stop {
    /// Wrong usage.
    fn usage(message: impl Into<String>) -> Stop {
        Stop { status: Status::Usage, message: message.into() }
    }

    /// It could not be run to the end.
    fn incomplete(message: impl Into<String>) -> Stop {
        Stop { status: Status::Incomplete, message: message.into() }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A reader that has gone away need not be told.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Status::Usage.code()));
        }
    };
    let colors = Colors::new(arguments.color);
    let done = match arguments.command {
        Command::Check(arguments) => check::run(&arguments, colors),
        Command::Fuzz(arguments) => fuzz::run(&arguments, colors),
        Command::Verify(arguments) => verify::run(&arguments, colors),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Record(arguments) => record::run(&arguments),
        Command::List(arguments) => list::run(&arguments),
        Command::Show(arguments) => show::run(&arguments, colors),
        Command::Replay(arguments) => replay::run(&arguments, colors),
        Command::Table(arguments) => table::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Identify(arguments) => identify::run(&arguments, colors),
        Command::Adapter(arguments) => adapter::run(&arguments, colors),
    };
    let status = done.unwrap_or_else(|stop| {
        let _ = writeln!(std::io::stderr(), "normative: {}", stop.message);
        stop.status
    });
    ExitCode::from(status.code())
}

/// Reads the words after the program's name, and does nothing else. What they do not mean is the exit status and a text.
pub(crate) fn parse(words: &[&str]) -> Result<(), (i32, String)> {
    let words = std::iter::once("normative").chain(words.iter().copied());
    Arguments::try_parse_from(words).map(drop).map_err(|error| (error.exit_code(), error.to_string()))
}

/// The names of commands, options and the values that an option takes, with a few numbers and globs.
pub(crate) fn vocabulary() -> Vec<String> {
    let mut words: Vec<String> =
        ["0", "-1", "0.1", "1e9", "nan", "1/2", "*", "layer_norm-*", "--", ""].map(str::to_owned).into();
    let mut commands = vec![Arguments::command()];
    while let Some(command) = commands.pop() {
        for argument in command.get_arguments() {
            words.extend(argument.get_long().map(|name| format!("--{name}")));
            words.extend(argument.get_possible_values().iter().take(4).map(|value| value.get_name().to_owned()));
        }
        words.extend(command.get_subcommands().map(|inner| inner.get_name().to_owned()));
        commands.extend(command.get_subcommands().cloned());
    }
    words.sort_unstable();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_has_commands_options_and_values() {
        let words = vocabulary();
        for word in ["check", "--subject", "json", "momentum"] {
            assert!(words.iter().any(|known| known == word), "{word}");
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
