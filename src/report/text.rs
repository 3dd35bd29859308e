//! The report for people: what was judged, a diagnosis, the table, findings, failures in full, a summary, what to do.

use std::collections::{BTreeMap, BTreeSet};

use super::failure::failure;
use super::paint::wrapped;
use super::{Asked, Cause, Group, Paint, Report, Status, Summary, Tone, count, multiple};
use crate::case::catalogue;
use crate::conformance::{Kind, Verdict, title};
use crate::judge::Outcome;
use crate::subject::Skipped;
use crate::subject::planted::Bug;

/// Diagnoses that are named.
const DIAGNOSES: usize = 3;

/// The report's text. `table` is its table, made from [`super::rows`]; at most `errors` failures are shown in full.
pub fn text(report: &Report, table: &str, errors: usize, paint: Paint) -> String {
    let groups = report.groups();
    let mut blocks = vec![heading(report, paint)];
    blocks.extend(diagnosis(report, &groups, paint));
    blocks.push(table.trim_end().to_owned());
    blocks.push(findings(report, &groups, paint).join("\n"));
    let asked: Vec<&Group> = groups.iter().filter(|group| !group.not_run).collect();
    blocks.extend(asked.iter().take(errors).map(|group| failure(report, group, paint)));
    if asked.len() > errors {
        let more = count(asked.len() - errors, "more kind");
        blocks.push(format!("{more} of failure not shown; --errors {} shows them all", asked.len()));
    }
    blocks.push(troubles(report, paint).join("\n"));
    blocks.push(format!("{}\n{}", summary_line(report, paint), next(report, &groups)));
    blocks.retain(|block| !block.trim().is_empty());
    blocks.join("\n\n").trim_end().to_owned() + "\n"
}

/// Who was judged, by what.
fn heading(report: &Report, paint: Paint) -> String {
    let version = format!("normative {}, catalogue {}", env!("CARGO_PKG_VERSION"), catalogue::VERSION);
    let mut lines = vec![paint.tone(Tone::Faint, version)];
    for recording in &report.recordings {
        let name = paint.tone(Tone::Strong, &recording.name);
        lines.push(format!("{name}: {}, provenance {}", title(&recording.subject), recording.provenance.name()));
    }
    if let Some((asked, hello)) = &report.subject {
        let who = hello.as_ref().map_or_else(|| "a subject that says no hello".to_owned(), title);
        lines.push(format!("{}: {}", paint.tone(Tone::Strong, who), asked.option()));
    }
    lines.join("\n")
}

/// What the failures look like, if anything failed.
pub(super) fn diagnosis(report: &Report, groups: &[Group], paint: Paint) -> Option<String> {
    let total: usize = groups.iter().map(|group| group.members.len()).sum();
    if total == 0 {
        return None;
    }
    let mut lines = Vec::new();
    let bug = |group: &&Group| matches!(group.cause, Cause::Bug(_));
    for group in groups.iter().filter(bug).take(DIAGNOSES) {
        let Cause::Bug(name) = group.cause else { continue };
        let sentence = Bug::from_name(name).map_or(name, |bug| bug.sentence);
        let verb = if group.members.len() == 1 { "looks" } else { "look" };
        let line = format!("{} of {} {verb} as if {sentence}.", group.members.len(), count(total, "failure"));
        lines.push(paint.tone(Tone::Bad, line));
    }
    let unexplained: Vec<&Verdict> = groups
        .iter()
        .filter(|group| !bug(group))
        .flat_map(|group| &group.members)
        .map(|&index| &report.verdicts[index])
        .collect();
    if !unexplained.is_empty() {
        let number = unexplained.len();
        let operations: BTreeSet<&str> = unexplained.iter().map(|verdict| verdict.operation).collect();
        let operations: Vec<&str> = operations.into_iter().collect();
        let verb = if number == 1 { "looks" } else { "look" };
        let total = count(total, "failure");
        let line = format!("{number} of {total} {verb} like no known bug ({}).", operations.join(", "));
        lines.push(paint.tone(Tone::Bad, line));
        if let Some(flag) = report.likely() {
            lines.push(format!("Most failing cases are those that expose {}: {}", flag.name(), flag.meaning()));
        }
    }
    Some(lines.join("\n"))
}

/// What is worth knowing besides the failures, a sentence each.
fn findings(report: &Report, groups: &[Group], paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    for group in groups.iter().filter(|group| group.not_run) {
        let verdict = &report.verdicts[group.members[0]];
        let why = verdict.message.lines().next().unwrap_or_default();
        let cases = count(group.members.len(), &format!("{} case", verdict.operation));
        lines.push(finding(Tone::Bad, verdict.outcome.name(), &format!("{cases} {why}."), paint));
    }
    let mut known: BTreeMap<(Option<&str>, &str, &str), Vec<&Verdict>> = BTreeMap::new();
    for verdict in &report.verdicts {
        if let Some(reason) = &verdict.known {
            known.entry((verdict.recording.as_deref(), verdict.operation, reason)).or_default().push(verdict);
        }
    }
    for ((recording, operation, reason), verdicts) in known {
        let cases = count(verdicts.len(), &format!("{operation} case"));
        let whose = recording.map_or(String::new(), |name| format!(" of {name}"));
        let verb = if verdicts.len() == 1 { "fails" } else { "fail" };
        let text = format!("{cases}{whose} {verb} as expected: {reason} ({}).", worst_of(&verdicts));
        lines.push(finding(Tone::Warning, "deviation", &text, paint));
    }
    let misses: Vec<&Verdict> = report
        .verdicts
        .iter()
        .filter(|verdict| verdict.outcome == Outcome::Advisory && verdict.known.is_none() && !report.strict)
        .collect();
    if !misses.is_empty() {
        let text = format!(
            "{} outside the bound where careful implementations may differ, not counted ({}); --strict counts them.",
            count(misses.len(), "case"),
            worst_of(&misses)
        );
        lines.push(finding(Tone::Warning, "advisory", &text, paint));
    }
    let mut unsupported: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut unclaimed, mut operations) = (0, BTreeSet::new());
    for verdict in report.verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Unsupported) {
        let why = verdict.message.lines().next().unwrap_or_default();
        if why == Skipped::Operation(verdict.operation.to_owned()).to_string() {
            unclaimed += 1;
            operations.insert(verdict.operation);
        } else {
            *unsupported.entry(why).or_default() += 1;
        }
    }
    if unclaimed > 0 {
        let names: Vec<&str> = operations.into_iter().collect();
        let text =
            format!("{} without a verdict: the subject does not claim {}.", count(unclaimed, "case"), names.join(", "));
        lines.push(finding(Tone::Faint, "unsupported", &text, paint));
    }
    for (why, number) in unsupported {
        let text = format!("{} without a verdict: {why}.", count(number, "case"));
        lines.push(finding(Tone::Faint, "unsupported", &text, paint));
    }
    lines
}

fn finding(tone: Tone, head: &str, text: &str, paint: Paint) -> String {
    let text = wrapped(text, 2);
    format!("{} {}", paint.tone(tone, format!("{head}:")), text.trim_start())
}

/// The worst ratio, and the case to look at.
fn worst_of(verdicts: &[&Verdict]) -> String {
    let mut sorted = verdicts.to_vec();
    let ratio = |verdict: &Verdict| verdict.worst.as_ref().map(|worst| worst.ratio());
    sorted.sort_by(|a, b| ratio(b).partial_cmp(&ratio(a)).unwrap_or(std::cmp::Ordering::Equal));
    let worst = match ratio(sorted[0]) {
        Some(ratio) if ratio.is_finite() => format!("up to {} times the bound; ", multiple(ratio)),
        _ => String::new(),
    };
    format!("{worst}normative show {}", sorted[0].case)
}

/// What kept the run from saying more.
pub(super) fn troubles(report: &Report, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, why) in &report.unreadable {
        lines.push(format!("{} {}: {why}", paint.tone(Tone::Bad, "golden:"), path.display()));
    }
    for stale in &report.stale {
        lines.push(format!("{} {stale}", paint.tone(Tone::Bad, "stale:")));
    }
    if let Some(missing) = &report.missing {
        lines.push(format!("{} {missing}", paint.tone(Tone::Bad, "missing:")));
    }
    let rest = match report.not_run {
        0 => String::new(),
        number => format!("; {} not run", count(number, "case")),
    };
    if report.stopped {
        let stopped = paint.tone(Tone::Bad, "stopped:");
        lines.push(format!("{stopped} before everything had been asked once{rest}"));
    }
    if let Some(why) = &report.gave_up {
        lines.push(format!(
            "{} the subject could not be run to the end: {why}{rest}",
            paint.tone(Tone::Bad, "gave up:")
        ));
    }
    lines
}

/// The verdict in a line.
pub fn summary_line(report: &Report, paint: Paint) -> String {
    let Summary { pass, fail, advisory, unsupported, crash, timeout, known } = report.summary();
    let parts = [
        (pass, "pass"),
        (fail, "fail"),
        (crash, "crash"),
        (timeout, "timeout"),
        (advisory, "advisory"),
        (known, "as expected"),
        (unsupported, "unsupported"),
    ];
    let parts = parts.iter().filter(|(number, name)| *number > 0 || *name == "pass");
    let parts: Vec<String> = parts.map(|(number, name)| format!("{number} {name}")).collect();
    let (tone, what) = match report.status() {
        Status::Conformant => (Tone::Good, "CONFORMANT"),
        Status::NotConformant | Status::Usage => (Tone::Bad, "NOT CONFORMANT"),
        Status::Incomplete if report.is_empty() => (Tone::Bad, "NOTHING WAS JUDGED"),
        Status::Incomplete => (Tone::Bad, "INCOMPLETE"),
        Status::BadGolden => (Tone::Bad, "BAD GOLDEN FILES"),
        Status::Stale => (Tone::Bad, "STALE"),
    };
    let cases = count(report.verdicts.len(), "case");
    format!("{}: {cases}: {} (exit status {})", paint.tone(tone, what), parts.join(", "), report.status().code())
}

/// What to do now.
fn next(report: &Report, groups: &[Group]) -> String {
    let layer = "normative check --subject 'python3 adapters/python/pytorch.py'    judges a layer";
    match report.status() {
        Status::Conformant if is_self_check(report) => format!("Next: {layer}"),
        Status::Conformant => "Next: normative list flags    says which bugs were looked for".to_owned(),
        Status::NotConformant | Status::Usage => {
            let Some(verdict) = groups.first().map(|group| &report.verdicts[group.members[0]]) else {
                return String::new();
            };
            let replay = verdict.replay.as_ref().map_or(String::new(), |path| {
                let path = path.to_string_lossy();
                format!("\n      normative replay {}    runs it again", shell_words::quote(&path))
            });
            format!("Next: normative show {}    shows the case in full{replay}", verdict.case)
        }
        Status::Incomplete if report.missing.is_some() => {
            format!("Next: run this in a checkout that has golden files; or\n      {layer}")
        }
        Status::Incomplete if report.stopped => {
            "Next: give it more time: what --level full asks must be through once".to_owned()
        }
        Status::Incomplete if report.gave_up.is_some() => {
            "Next: run the subject by itself and see why it does not go on; its last words are above".to_owned()
        }
        Status::Incomplete => "Next: normative list operations    says what a subject can claim".to_owned(),
        Status::BadGolden => "Next: restore the file from version control, or record it again".to_owned(),
        Status::Stale => "Next: remove what is stale from the list, so that it guards against the failure".to_owned(),
    }
}

/// Whether only the suite itself was checked: recordings and its own reference.
fn is_self_check(report: &Report) -> bool {
    let reference = |asked: &Asked| *asked == Asked::Builtin("reference".to_owned());
    report.subject.as_ref().is_some_and(|(asked, _)| reference(asked))
        || report.verdicts.iter().all(|verdict| verdict.kind == Kind::Golden)
}
