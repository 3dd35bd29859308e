//! GitHub: annotations for a workflow's log, and a summary of the step in Markdown.
//!
//! An annotation is a line `::error title=…::…`; in a message `%`, carriage returns and newlines are escaped, in a title
//! `:` and `,` as well (GitHub's workflow commands).

use super::failure::Account;
use super::{Paint, Report, Rows, count, diagnosis, multiple, summary_line, troubles};

/// The annotations: one for each of the first `limit` kinds of failure, one for each trouble of the run, and a notice of
/// the result.
pub fn annotations(report: &Report, limit: usize) -> String {
    let mut lines = Vec::new();
    let groups = report.groups();
    for group in groups.iter().filter(|group| !group.not_run).take(limit) {
        let account = Account::new(report, group);
        let mut text = format!("{}\n{}", account.meaning, account.effect);
        if let Some(worst) = account.worst {
            let times = multiple(worst.ratio());
            text += &format!("\n{}{:?} is {} times the bound off", worst.tensor, worst.index, times);
        }
        text.extend(account.others.map(|others| format!("\n{others}")));
        text.extend(account.replay.map(|replay| format!("\n{replay}")));
        lines.push(command("error", &format!("{}: {}", account.case, account.wrong), &text));
    }
    let plain = Paint::default();
    lines.extend(troubles(report, plain).iter().map(|trouble| command("error", "normative", trouble)));
    let level = if report.status().code() == 0 { "notice" } else { "error" };
    lines.push(command(level, "normative", &summary_line(report, plain)));
    lines.join("\n") + "\n"
}

fn command(level: &str, title: &str, message: &str) -> String {
    let escaped = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let title = escaped(title).replace(':', "%3A").replace(',', "%2C");
    format!("::{level} title={title}::{}", escaped(message))
}

/// The summary of a step, in Markdown: the result, what the failures look like, the table, and each kind of failure.
/// `table` is the report's table in Markdown.
pub fn step_summary(report: &Report, table: &str, limit: usize) -> String {
    let groups = report.groups();
    let mut blocks = vec![format!("## {}", inline(&summary_line(report, Paint::default())))];
    blocks.extend(diagnosis(report, &groups, Paint::default()).map(|text| inline(&text)));
    blocks.push(table.to_owned());
    for group in groups.iter().filter(|group| !group.not_run).take(limit) {
        let account = Account::new(report, group);
        let mut lines =
            vec![format!("<summary><b>{}</b>: {}</summary>\n", inline(&account.case), inline(&account.wrong))];
        lines.push(format!("{}\n\n{}", inline(&account.meaning), inline(&account.effect)));
        lines.extend(account.call.map(|call| format!("\n`{}`", call.replace('`', "'"))));
        lines.extend(account.numpy.map(|snippet| format!("\n```python\n{snippet}\n```")));
        lines.extend(account.replay.map(|replay| format!("\n```\n{replay}\n```")));
        lines.extend(account.others.map(|others| format!("\n{}", inline(&others))));
        blocks.push(format!("<details>{}\n</details>", lines.join("\n")));
    }
    let hidden = groups.len().saturating_sub(limit);
    blocks.extend((hidden > 0).then(|| format!("{} of failure not shown.", count(hidden, "more kind"))));
    let troubles = troubles(report, Paint::default());
    blocks.extend(troubles.iter().map(|trouble| inline(trouble)));
    blocks.retain(|block| !block.trim().is_empty());
    blocks.join("\n\n") + "\n"
}

/// Foreign text for Markdown: nothing in it is markup.
pub(super) fn inline(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The rows of a report as cells for a table in Markdown.
pub fn markdown_cells(rows: &Rows) -> Vec<Vec<String>> {
    rows.cells.iter().map(|row| row.iter().map(|cell| inline(cell)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn an_annotation_is_one_line_and_says_what_is_wrong() {
        let text = annotations(&report("eps_doubled", "rms_norm-f32-eps"), 20);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("::error title=") && lines[0].contains("%3A it adds eps twice::"), "{text}");
        assert!(lines.iter().all(|line| line.starts_with("::")), "{text}");
        assert!(lines.last().unwrap().contains("NOT CONFORMANT"));
    }

    #[test]
    fn foreign_text_is_no_command_and_no_markup() {
        assert_eq!(command("error", "a:b,c", "x\n::warning::y%"), "::error title=a%3Ab%2Cc::x%0A::warning::y%25");
        assert_eq!(inline("<b>*[x](y)"), "&lt;b&gt;\\*\\[x\\](y)");
    }

    #[test]
    fn a_summary_has_a_snippet_for_each_kind() {
        let summary = step_summary(&report("eps_doubled", "rms_norm-f32-eps"), "| a |", 20);
        assert!(summary.contains("as if it adds eps twice") && summary.contains("```python"), "{summary}");
    }
}
