//! A bug report in Markdown, ready for the project whose layer it is: what, expected, actual, how to reproduce it.

use std::path::Path;

use super::failure::Account;
use super::github::inline;
use super::{Group, Report, count, decimal, hexadecimal, multiple};
use crate::conformance::title;

/// The report on the first `limit` kinds of failure, the most frequent first; `None` where nothing failed.
///
/// ```
/// use normative::report::{Report, bug_report};
/// assert_eq!(bug_report(&Report::default(), 20), None);
/// ```
pub fn bug_report(report: &Report, limit: usize) -> Option<String> {
    let groups = report.groups();
    let asked: Vec<_> = groups.iter().filter(|group| !group.not_run).collect();
    let first = Account::new(report, asked.first()?);
    let subject = report.subject.as_ref().map(|(asked, hello)| hello.as_ref().map_or_else(|| asked.option(), title));
    let name = subject.unwrap_or_default();
    let mut blocks = vec![
        format!("# {}: {}", inline(&name), inline(&first.wrong)),
        format!(
            "{} of failure, found by `normative` {}. A bound is the largest error that a good program of the same precision \
             can make; it is derived, not chosen.",
            count(asked.len(), "kind"),
            env!("CARGO_PKG_VERSION")
        ),
    ];
    blocks.extend(asked.iter().take(limit).map(|group| section(report, group)));
    let hidden = asked.len().saturating_sub(limit);
    blocks.extend((hidden > 0).then(|| format!("{} of failure not shown.", count(hidden, "more kind"))));
    Some(blocks.join("\n\n") + "\n")
}

fn section(report: &Report, group: &Group) -> String {
    let account = Account::new(report, group);
    let file = report.verdicts[group.members[0]].replay.as_deref();
    let mut parts = vec![format!("## {}", inline(&account.wrong))];
    parts.push(format!("{}\n\n{}", inline(&account.meaning), inline(&account.effect)));
    parts.extend(account.call.as_ref().map(|call| format!("**Call**: {}", inline(call))));
    parts.extend(account.worst.map(|worst| {
        let value = |value: f64| format!("`{}` (`{}`)", decimal(value), hexadecimal(value));
        format!(
            "| element | expected | actual | error | bound |\n| --- | --- | --- | --- | --- |\n\
             | {}{:?} | {} | {} | {:.3e}, {} times the bound | {:.3e} |",
            inline(&worst.tensor),
            worst.index,
            value(worst.expected),
            value(worst.actual),
            worst.error,
            multiple(worst.ratio()),
            worst.bound
        )
    }));
    parts.extend(account.message.as_ref().filter(|_| account.worst.is_none()).map(|message| inline(message)));
    parts.extend(
        account.nearest.map(|bug| format!("It gives the answers of a layer of which this is true: {}.", bug.sentence)),
    );
    parts.push("### Reproduction".to_owned());
    parts
        .extend(account.numpy.as_ref().map(|snippet| format!("What is true, in Python:\n\n```python\n{snippet}\n```")));
    parts.extend(account.replay.as_ref().map(|replay| format!("The layer again:\n\n```sh\n{replay}\n```")));
    parts.extend(file.map(|path| format!("What to ask and what is true, in Rust:\n\n```rust\n{}\n```", rust(path))));
    parts.join("\n\n")
}

fn rust(path: &Path) -> String {
    format!(
        "let file = normative::golden::GoldenFile::read(&std::fs::read({:?})?)?;\n\
         for step in &file.cases[0].case.steps {{\n    \
         println!(\"{{:?}} {{:?}}\", step.operation, step.tensors);\n    \
         println!(\"{{:?}}\", normative::judge::Expected::of(step));\n}}",
        path.display().to_string()
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn a_report_says_what_is_expected_and_how_to_reproduce_it() {
        let mut report = report("eps_doubled", "rms_norm-f32-eps");
        for verdict in &mut report.verdicts {
            verdict.replay = Some("failures/a.safetensors".into());
        }
        let text = bug_report(&report, 20).expect("it has a bug");
        for part in
            ["# eps\\_doubled", "| expected | actual |", "```python", "GoldenFile::read", "normative replay failures/"]
        {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert_eq!(bug_report(&super::super::tests::report("reference", "rms_norm-f32-eps"), 20), None);
    }
}
