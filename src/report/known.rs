//! Expected failures: which verdicts they cover, which entries are stale, and drafts of new lists.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::Report;
use crate::case::Case;
use crate::conformance::Verdict;
use crate::golden::{Entry, Key, KnownError, KnownList, glob_match};
use crate::judge::Outcome;

/// A list of expected failures, and what it speaks of.
#[derive(Debug)]
pub struct Expectations {
    /// The list.
    pub list: KnownList,
    /// Its file.
    pub path: PathBuf,
    /// The recordings that it lies beside; `None`: it speaks of every verdict.
    pub recordings: Option<Vec<String>>,
    /// Every case that it may speak of, judged or not; `None` where that is not known.
    pub universe: Option<Vec<String>>,
}

/// An expected failure that does not happen any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Stale {
    /// The list's file.
    pub path: PathBuf,
    /// What it expected.
    pub entry: Entry,
    /// Whether the entry fits no case at all.
    pub names_nothing: bool,
}

/// The entries of a list that expects the failures of a report.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    entries: Vec<Entry>,
    /// What each entry expects, and its line.
    seen: HashSet<(String, Option<String>, usize)>,
}

impl Report {
    /// Marks the verdicts that `expectations` speak of as known, and keeps the entries that are stale. Gives back a
    /// draft: the entries that were needed, and one for each failure that none of them covers.
    ///
    /// An entry is stale only if every case that it fits was judged: what was left out may still fail.
    pub fn apply(&mut self, expectations: &[Expectations]) -> Draft {
        let mut draft = Draft::default();
        for verdict in &mut self.verdicts {
            if matches!(verdict.outcome, Outcome::Pass | Outcome::Unsupported) {
                continue;
            }
            let entries: Vec<&Entry> = expectations.iter().filter_map(|expected| expected.entry(verdict)).collect();
            verdict.known = entries.first().map(|entry| entry.reason.clone());
            entries.into_iter().for_each(|entry| draft.add(entry.clone()));
            if verdict.counts(self.strict) {
                draft.add(entry(verdict));
            }
        }
        let stale: Vec<Stale> = expectations.iter().flat_map(|expected| expected.stale(self)).collect();
        self.stale.extend(stale);
        draft
    }
}

impl Expectations {
    /// A list in the file `path` that speaks of every verdict over `cases`.
    ///
    /// # Errors
    /// As [`KnownList::load`].
    pub fn load<'a>(path: &Path, cases: impl IntoIterator<Item = &'a Case>) -> Result<Expectations, KnownError> {
        let universe = Some(cases.into_iter().map(|case| case.name.clone()).collect());
        Ok(Expectations { list: KnownList::load(path)?, path: path.to_owned(), recordings: None, universe })
    }

    /// The entry that expects a verdict, if it is no pass.
    pub fn entry(&self, verdict: &Verdict) -> Option<&Entry> {
        if matches!(verdict.outcome, Outcome::Pass | Outcome::Unsupported) || !self.covers(verdict) {
            return None;
        }
        self.list.matches(&verdict.case, verdict.worst.as_ref().map(|worst| worst.tensor.as_str()))
    }

    fn covers(&self, verdict: &Verdict) -> bool {
        let beside = |names: &Vec<String>| verdict.recording.as_ref().is_some_and(|name| names.contains(name));
        self.recordings.as_ref().is_none_or(beside)
    }

    fn stale(&self, report: &Report) -> Vec<Stale> {
        let judged = report.verdicts.iter().filter(|verdict| verdict.outcome != Outcome::Unsupported);
        let judged: HashSet<&str> =
            judged.filter(|verdict| self.covers(verdict)).map(|verdict| verdict.case.as_str()).collect();
        let is_stale = |entry: &&Entry| match &self.universe {
            Some(universe) => {
                universe.iter().filter(|case| glob_match(&entry.case, case)).all(|case| judged.contains(case.as_str()))
            }
            None => judged.contains(entry.case.as_str()),
        };
        let stale = |entry: &Entry| Stale {
            path: self.path.clone(),
            entry: entry.clone(),
            names_nothing: !judged.iter().any(|case| glob_match(&entry.case, case)),
        };
        self.list.stale().into_iter().filter(is_stale).map(stale).collect()
    }
}

impl Draft {
    fn add(&mut self, entry: Entry) {
        if self.seen.insert((entry.case.clone(), entry.tensor.clone(), entry.line)) {
            self.entries.push(entry);
        }
    }

    /// The list's text.
    pub fn write(&self, key: Key) -> String {
        KnownList::write(&self.entries, key)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing fails.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// An entry that expects this failure, with what was measured and found.
fn entry(verdict: &Verdict) -> Entry {
    let reason = match (&verdict.worst, verdict.nearest_bug) {
        (_, Some(bug)) if verdict.matches_bug => bug.sentence.to_owned(),
        (Some(worst), _) if worst.actual.is_nan() => format!("{} is NaN where it must not be", worst.tensor),
        (Some(worst), _) => {
            format!("{} leaves the bound of every good algorithm, as no known bug makes it", worst.tensor)
        }
        (None, _) => verdict.message.lines().next().unwrap_or_default().to_owned(),
    };
    Entry {
        case: verdict.case.clone(),
        tensor: verdict.worst.as_ref().map(|worst| worst.tensor.clone()),
        ratio: verdict.worst.as_ref().map(|worst| worst.ratio()).filter(|ratio| ratio.is_finite()),
        grade: verdict.grade.filter(|_| verdict.worst.is_some()).map(|grade| grade.name().to_owned()),
        reason,
        reference: None,
        line: 0,
    }
}

impl std::fmt::Display for Stale {
    /// One line: which entry, and what to do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stale { path, entry, names_nothing } = self;
        let tensor = entry.tensor.as_ref().map_or(String::new(), |tensor| format!(", tensor {tensor},"));
        let why =
            if *names_nothing { "fits no case that was judged" } else { "expects a failure that does not happen" };
        write!(f, "{}:{}: the entry for {}{tensor} {why}; remove it", path.display(), entry.line, entry.case)
    }
}
