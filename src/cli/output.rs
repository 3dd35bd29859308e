//! What goes to standard output: text, tables, colours; and reports into files.

use std::io::{ErrorKind, IsTerminal, Write, stdout};
use std::path::Path;

use anstyle::{AnsiColor, Effects, Style};
use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle, presets};

use super::Stop;
use super::options::{Format, ReportOptions};
use crate::report::{
    Paint, Report, Rows, Status, Tone, annotations, html, json, junit, markdown_cells, rows, step_summary,
    summary_line, text,
};

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    /// Where standard output is a terminal that shows them, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// Whether standard output gets colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colors(bool);

impl Colors {
    /// As was asked for, or as the environment says.
    pub fn new(choice: ColorChoice) -> Colors {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Colors(match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => !set("NO_COLOR") && !dumb && stdout().is_terminal(),
        })
    }

    /// The emphasis for standard output.
    pub fn paint(self) -> Paint {
        if self.0 { Paint(colored) } else { Paint::default() }
    }
}

fn colored(tone: Tone, text: &str) -> String {
    let style = match tone {
        Tone::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())).effects(Effects::BOLD),
        Tone::Warning => AnsiColor::Yellow.on_default(),
        Tone::Good => Style::new().fg_color(Some(AnsiColor::Green.into())).effects(Effects::BOLD),
        Tone::Strong => Style::new().effects(Effects::BOLD),
        Tone::Faint => Style::new().effects(Effects::DIMMED),
    };
    format!("{style}{text}{style:#}")
}

/// Prints `text`. A reader that has gone away is no error.
///
/// # Errors
/// If it cannot be written for another reason.
pub(super) fn print(text: &str) -> Result<(), Stop> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Stop::incomplete(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says on standard error what does not keep the command from going on.
pub(super) fn warn(message: &str) {
    let _ = writeln!(std::io::stderr(), "normative: {message}");
}

/// Writes a file.
///
/// # Errors
/// If the system refuses.
pub(super) fn write_file(path: &Path, text: &str) -> Result<(), Stop> {
    std::fs::write(path, text).map_err(|error| Stop::incomplete(format!("{}: {error}", path.display())))
}

/// Prints or writes the report, and gives back what it comes to.
///
/// # Errors
/// If it cannot be printed or written.
pub(super) fn publish(report: &Report, options: &ReportOptions, colors: Colors) -> Result<Status, Stop> {
    let paint = if options.report.is_some() { Paint::default() } else { colors.paint() };
    let content = match options.format {
        Format::Text => text(report, &table(&rows(report)), options.errors, paint),
        Format::Json => json(report),
        Format::Junit => junit(report),
        Format::Github => {
            summarize_step(report, options.errors)?;
            annotations(report, options.errors)
        }
        Format::Html => html(report, options.errors),
    };
    match &options.report {
        None => print(&content)?,
        Some(path) => {
            write_file(path, &content)?;
            print(&format!("{}; the report is in {}\n", summary_line(report, colors.paint()), path.display()))?;
        }
    }
    Ok(report.status())
}

/// Adds the report's summary to the file that GITHUB_STEP_SUMMARY names, if it names one.
fn summarize_step(report: &Report, errors: usize) -> Result<(), Stop> {
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else { return Ok(()) };
    let rows = rows(report);
    let table = if rows.cells.is_empty() { String::new() } else { markdown(&rows.header, markdown_cells(&rows)) };
    let summary = step_summary(report, &table, errors);
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(summary.as_bytes()))
        .map_err(|error| Stop::incomplete(format!("{}: {error}", Path::new(&path).display())))
}

/// A line under the header, and no others.
const PLAIN: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// The narrowest terminal that a table is fitted to.
const NARROW: u16 = 72;

/// A table for a terminal, numbers to the right; empty for a table without rows.
pub(super) fn table(rows: &Rows) -> String {
    if rows.cells.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(PLAIN);
    // A terminal that says nothing of its width, or is a sliver, gets lines as they are.
    let wide = table.width().is_some_and(|width| width >= NARROW);
    let arrangement = if wide { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    table.set_header(rows.header.clone());
    table.add_rows(rows.cells.clone());
    for (index, column) in table.column_iter_mut().enumerate() {
        let numeric = |cell: &String| cell.parse::<f64>().is_ok() || cell == "–" || cell == "∞";
        if rows.cells.iter().all(|row| numeric(&row[index])) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A table in Markdown, for documentation.
pub(super) fn markdown(header: &[&str], cells: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    table.add_rows(
        cells.into_iter().map(|row| row.into_iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>()),
    );
    format!("{}\n", table.trim_fmt())
}
