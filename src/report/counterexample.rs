//! Counterexamples: a failing case and the subject's answers, in a file that anyone can read and run again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use super::{Asked, Cause, Exhibit, Report};
use crate::case::{Answer, Hello};
use crate::golden::{GoldenError, GoldenFile, Provenance, RecordedCase};

/// Writes failing cases into golden files `<folder>/<case>.safetensors`, at most `limit` of them, and names each file in
/// its verdict; where a smaller case was found that fails in the same way, the file has that one. Gives back how many it
/// wrote.
///
/// First come the cases that the report shows in full, then the smallest of each operation and cause, then the second
/// smallest, and so on. Failures of recordings are left out: they lie in files already. So are cases that were not asked.
///
/// # Errors
/// [`GoldenError::Io`] if the folder cannot be made or written.
pub fn write_counterexamples(report: &mut Report, folder: &Path, limit: usize) -> Result<usize, GoldenError> {
    let chosen: Vec<usize> = in_order(report).into_iter().take(limit).collect();
    if chosen.is_empty() {
        return Ok(0);
    }
    let io_error =
        |path: &Path, error: std::io::Error| GoldenError::Io { path: path.to_owned(), reason: error.to_string() };
    fs::create_dir_all(folder).map_err(|error| io_error(folder, error))?;
    let mut written = 0;
    for index in chosen {
        let exhibit = &report.exhibits[&index];
        let exhibit = exhibit.smallest.as_ref().map_or(exhibit, |smallest| &smallest.1);
        let Some(bytes) = file(report, exhibit).and_then(|file| file.write().ok()) else { continue };
        let path = folder.join(format!("{}.safetensors", report.verdicts[index].case));
        fs::write(&path, bytes).map_err(|error| io_error(&path, error))?;
        report.verdicts[index].replay = Some(path);
        written += 1;
    }
    Ok(written)
}

/// The failures that files are written for, the most telling first.
fn in_order(report: &Report) -> Vec<usize> {
    let groups = report.groups();
    let mut order: Vec<usize> = groups.iter().map(|group| group.members[0]).collect();
    let mut kinds: BTreeMap<(&str, &Cause), Vec<usize>> = BTreeMap::new();
    for group in &groups {
        for &index in &group.members {
            kinds.entry((report.verdicts[index].operation, &group.cause)).or_default().push(index);
        }
    }
    // The members of a group, and so of a kind, are sorted by size.
    let rank: HashMap<usize, usize> =
        kinds.values().flat_map(|kind| kind.iter().enumerate().map(|(rank, &index)| (index, rank))).collect();
    let mut rest: Vec<usize> = kinds.into_values().flatten().collect();
    rest.sort_by_key(|index| (rank[index], report.exhibits.get(index).map_or(0, Exhibit::elements), *index));
    order.extend(rest);
    let mut seen = HashSet::new();
    let asked = |exhibit: &Exhibit| exhibit.file.is_none() && !exhibit.is_not_run();
    order.into_iter().filter(|index| report.exhibits.get(index).is_some_and(asked) && seen.insert(*index)).collect()
}

/// The case up to the step that failed for want of an answer, if any did.
fn file(report: &Report, exhibit: &Exhibit) -> Option<GoldenFile> {
    let (asked, hello) = report.subject.as_ref()?;
    let mut subject = hello.clone()?;
    subject.details.extend([asked.detail()]);
    let answers: Vec<Answer> = exhibit
        .steps
        .iter()
        .map(|(_, answer)| answer.clone().unwrap_or_else(|fault| Answer::Unsupported(fault.to_string())))
        .collect();
    let mut case = exhibit.case.clone();
    case.steps.truncate(answers.len());
    let on_cpu = subject.device.is_empty() || subject.device.to_lowercase().starts_with("cpu");
    let provenance = if on_cpu { Provenance::Cpu } else { Provenance::Device };
    Some(GoldenFile { provenance, subject, cases: vec![RecordedCase { case, answers }] })
}

/// Who was asked for the answers of a counterexample, if its file says so.
pub fn asked_of(hello: &Hello) -> Option<Asked> {
    let detail = |key: &str| hello.details.get(key).cloned();
    detail("command").map(Asked::Program).or_else(|| detail("builtin").map(Asked::Builtin))
}
