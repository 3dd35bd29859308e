//! `normative adapter`: the adapter itself, before its layer.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Stop;
use super::options::seconds;
use super::output::{Colors, print};
use crate::report::{Paint, Status, Tone, count};
use crate::subject::{AdapterTest, Check, Finding, Timeouts, test_adapter};

/// Checks an adapter itself, before its layer.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Test(TestArguments),
}

/// Goes through what the protocol asks of a program, and prints a checklist.
///
/// It judges what lies between the pipe and the layer, not the layer's numbers; for those: `normative check --subject`.
/// A line is `ok`, `FAILED`, `note` (nothing fails, but there is something to know) or `–` (nothing to ask).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct TestArguments {
    /// The program: a command line, split into words as a shell would, run without one.
    #[arg(value_name = "COMMAND")]
    subject: String,
    /// The time that the program has to answer one request.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  normative adapter test 'python3 adapters/python/examples/numpy_layer_norm.py'
  normative adapter test ./my_adapter --timeout 2

Exit status:
  0  the adapter does what the protocol asks
  1  a line FAILED
  2  wrong usage
  3  the program cannot be started, or says no hello";

/// # Errors
/// Wrong usage; a program that does not start or says no hello.
pub(super) fn run(arguments: &Arguments, colors: Colors) -> Result<Status, Stop> {
    let Command::Test(TestArguments { subject, timeout }) = &arguments.command;
    if !shell_words::split(subject).is_ok_and(|words| !words.is_empty()) {
        return Err(Stop::usage(format!("{subject:?} is no command line: it is empty, or a quote is not closed")));
    }
    let timeouts = Timeouts { case: *timeout, ..Timeouts::default() };
    let test = test_adapter(subject, timeouts).map_err(|fault| {
        Stop::incomplete(format!(
            "{fault}\nThe program must read a hello on standard input and reply with its own: see golden/examples"
        ))
    })?;
    print(&text(&test, subject, colors.paint()))?;
    Ok(if test.failures() == 0 { Status::Conformant } else { Status::NotConformant })
}

fn text(test: &AdapterTest, command: &str, paint: Paint) -> String {
    let hello = &test.hello;
    let names = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let mut lines = vec![
        paint.tone(Tone::Strong, [hello.name.as_str(), &hello.version].join(" ").trim()),
        format!("operations {}", names(hello.operations.iter().map(String::as_str).collect())),
        format!(
            "data types {}; options {}",
            names(hello.dtypes.iter().map(|dtype| dtype.name()).collect()),
            names(hello.options.iter().map(String::as_str).collect())
        ),
        String::new(),
    ];
    lines.extend(test.checks.iter().map(|check| line(check, paint)));
    lines.push(String::new());
    lines.push(summary(test, paint));
    lines.push(match test.failures() {
        0 => format!("Next: normative check --subject {}", shell_words::quote(command)),
        _ => "Next: golden/examples/README.md explains the protocol byte by byte".to_owned(),
    });
    lines.join("\n") + "\n"
}

fn line(check: &Check, paint: Paint) -> String {
    let Check { rule, finding } = check;
    // Foreign text may have any number of lines.
    let indented = |text: &str| text.trim_end().replace('\n', "\n          ");
    match finding {
        Finding::Ok => format!("  {}      {rule}", paint.tone(Tone::Good, "ok")),
        Finding::Note(note) => {
            format!("  {}    {rule}\n          {}", paint.tone(Tone::Warning, "note"), indented(note))
        }
        Finding::NotAsked(why) => paint.tone(Tone::Faint, format!("  –       {rule} ({why})")),
        Finding::Failed { found, right } => format!(
            "  {}  {rule}\n          found: {}\n          right: {}",
            paint.tone(Tone::Bad, "FAILED"),
            indented(found),
            indented(right)
        ),
    }
}

fn summary(test: &AdapterTest, paint: Paint) -> String {
    let number = |wanted: fn(&Finding) -> bool| test.checks.iter().filter(|check| wanted(&check.finding)).count();
    let failures = test.failures();
    let verdict = match failures {
        0 => paint.tone(Tone::Good, "THE ADAPTER IS IN ORDER"),
        _ => paint.tone(Tone::Bad, "THE ADAPTER IS NOT IN ORDER"),
    };
    format!(
        "{verdict}: {}: {} ok, {failures} failed, {} with a note, {} not asked (exit status {})",
        count(test.checks.len(), "check"),
        number(|finding| *finding == Finding::Ok),
        number(|finding| matches!(finding, Finding::Note(_))),
        number(|finding| matches!(finding, Finding::NotAsked(_))),
        i32::from(failures > 0),
    )
}
