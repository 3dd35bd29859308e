//! Expected failures: `deviations.toml` beside a recording, and the lists given to `--known`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{glob_match, one_line};

/// Expected failures, each with a reason, and which of them have happened.
///
/// ```
/// use normative::golden::KnownList;
/// let list = KnownList::read(r#"
///     [[known]]
///     case = "batch_norm.*.f16"
///     tensor = "running_var"
///     reason = "accumulates in F16"
/// "#).unwrap();
/// assert!(list.matches("batch_norm.train.f16", "output").is_none());
/// assert_eq!(list.stale().len(), 1);
/// assert_eq!(list.matches("batch_norm.train.f16", "running_var").unwrap().line, 2);
/// assert!(list.stale().is_empty());
/// ```
#[derive(Debug, Default)]
pub struct KnownList {
    entries: Vec<(Entry, AtomicBool)>,
    /// The entries of a case by its name.
    named: HashMap<String, Vec<usize>>,
    /// The entries with a glob.
    globs: Vec<usize>,
}

/// One expected failure, or with a glob several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// A case's name, or a glob with `*` and `?`.
    pub case: String,
    /// The tensor that fails; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
    /// The measured error as a multiple of the bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The measured grade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grade: Option<String>,
    /// Why it fails; never empty.
    pub reason: String,
    /// Where more about it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The line on which the entry begins, from 1; 0 for an entry that was not read.
    #[serde(skip)]
    pub line: usize,
}

/// The name under which a list's entries are written; both are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `[[deviation]]`, in a recording's `deviations.toml`.
    Deviation,
    /// `[[known]]`, in a list for `--known`.
    Known,
}

/// Why a list of expected failures cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KnownError {
    /// The system cannot read it.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// It is no TOML, or has keys or values that a list does not have.
    #[error("line {line}: {reason}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// An entry without a reason.
    #[error("line {line}: the entry for {case} gives no reason; `reason` must say why the failure is expected")]
    NoReason {
        /// The line on which the entry begins, from 1.
        line: usize,
        /// The entry's case.
        case: String,
    },
    /// An entry that no case can match.
    #[error(
        "line {line}: no case can have the name {case}: letters are a–z, and 0–9 _ - . and the globs * ? may be there"
    )]
    ImpossibleCase {
        /// The line on which the entry begins, from 1.
        line: usize,
        /// The entry's case.
        case: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(default)]
    deviation: Vec<Spanned<Entry>>,
    #[serde(default)]
    known: Vec<Spanned<Entry>>,
}

impl KnownList {
    /// Reads a list from its TOML text.
    ///
    /// # Errors
    /// [`KnownError::Syntax`] if it is no TOML, or has an unknown key, or a value of the wrong type;
    /// [`KnownError::NoReason`] if a reason is blank; [`KnownError::ImpossibleCase`] if a case's name or glob has
    /// characters that no case's name has.
    pub fn read(text: &str) -> Result<KnownList, KnownError> {
        let ends: Vec<usize> = text.match_indices('\n').map(|(byte, _)| byte).collect();
        let line_at = |byte: usize| 1 + ends.partition_point(|&end| end < byte);
        let lists: Lists = toml::from_str(text).map_err(|error| KnownError::Syntax {
            line: line_at(error.span().map_or(0, |span| span.start)),
            reason: one_line(error.message()),
        })?;
        let mut entries = Vec::new();
        for spanned in lists.deviation.into_iter().chain(lists.known) {
            let line = line_at(spanned.span().start);
            let entry = Entry { line, ..spanned.into_inner() };
            let case = one_line(&entry.case);
            if entry.reason.trim().is_empty() {
                return Err(KnownError::NoReason { line, case });
            }
            let possible = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*' | b'?');
            if case.is_empty() || !entry.case.bytes().all(possible) {
                return Err(KnownError::ImpossibleCase { line, case });
            }
            entries.push((entry, AtomicBool::new(false)));
        }
        entries.sort_by_key(|(entry, _)| entry.line);
        let mut list = KnownList { entries, ..KnownList::default() };
        for (index, (entry, _)) in list.entries.iter().enumerate() {
            if entry.case.contains(['*', '?']) {
                list.globs.push(index);
            } else {
                list.named.entry(entry.case.clone()).or_default().push(index);
            }
        }
        Ok(list)
    }

    /// Reads a list from a file.
    ///
    /// # Errors
    /// [`KnownError::Io`] if the file cannot be read or is not UTF-8; otherwise those of [`KnownList::read`].
    pub fn load(path: &Path) -> Result<KnownList, KnownError> {
        let io_error = |error: std::io::Error| KnownError::Io { path: path.to_owned(), reason: error.to_string() };
        KnownList::read(&fs::read_to_string(path).map_err(io_error)?)
    }

    /// The first entry that expects a failure of `case` in `tensor` (`None` for a failure of no one tensor, such as a
    /// crash). Every entry that does counts as used from then on.
    pub fn matches<'a>(&self, case: &str, tensor: impl Into<Option<&'a str>>) -> Option<&Entry> {
        let tensor = tensor.into();
        let named = self.named.get(case).into_iter().flatten();
        let globs = self.globs.iter().filter(|&&index| glob_match(&self.entries[index].0.case, case));
        let expects = |index: &&usize| {
            let expected = self.entries[**index].0.tensor.as_deref();
            expected.is_none_or(|expected| Some(expected) == tensor)
        };
        let expecting = named.chain(globs).filter(expects);
        expecting
            .inspect(|&&index| self.entries[index].1.store(true, Ordering::Relaxed))
            .min()
            .map(|&index| &self.entries[index].0)
    }

    /// The entries, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(entry, _)| entry)
    }

    /// The entries that no failure has matched: whatever they expected does not happen any more.
    pub fn stale(&self) -> Vec<&Entry> {
        self.entries.iter().filter(|(_, used)| !used.load(Ordering::Relaxed)).map(|(entry, _)| entry).collect()
    }

    /// The text of a list with these entries, which [`KnownList::read`] takes if they are valid.
    pub fn write(entries: &[Entry], key: Key) -> String {
        let key = match key {
            Key::Deviation => "deviation",
            Key::Known => "known",
        };
        toml::to_string(&BTreeMap::from([(key, entries)])).expect("strings and numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_are_read_in_the_order_of_their_lines() {
        let text =
            "[[known]]\ncase = \"a\"\nreason = \"r\"\n\n[[deviation]]\ncase = \"b*\"\nratio = 3\nreason = \"s\"\n";
        let list = KnownList::read(text).unwrap();
        let lines: Vec<_> = list.entries().map(|entry| (entry.case.as_str(), entry.line, entry.ratio)).collect();
        assert_eq!(lines, [("a", 1, None), ("b*", 5, Some(3.0))]);
    }

    #[test]
    fn what_is_written_is_read() {
        let entry = Entry {
            case: "batch_norm.*".to_owned(),
            tensor: Some("output".to_owned()),
            ratio: Some(1e300),
            grade: Some("unstable".to_owned()),
            reason: "quotes \"\"\", a backslash \\ and\na second line".to_owned(),
            reference: Some("https://example.org/#1".to_owned()),
            line: 0,
        };
        let short = Entry { case: "a".to_owned(), reason: "r".to_owned(), ..Entry::default() };
        for key in [Key::Known, Key::Deviation] {
            let text = KnownList::write(&[entry.clone(), short.clone()], key);
            let back: Vec<Entry> = KnownList::read(&text).unwrap().entries().cloned().collect();
            assert_eq!(back.len(), 2);
            assert_eq!(Entry { line: 0, ..back[0].clone() }, entry);
            assert_eq!(Entry { line: 0, ..back[1].clone() }, short);
        }
        assert_eq!(KnownList::read(&KnownList::write(&[], Key::Known)).unwrap().entries().count(), 0);
    }

    #[test]
    fn every_error_says_its_line() {
        for (text, line, says) in [
            ("\n\n[[known]\n", 3, "unclosed"),
            ("\n[[known]]\ncase = \"a\"\nreasn = \"r\"\nreason = \"r\"", 4, "unknown field `reasn`"),
            ("\n[[known]]\ncase = \"a\"", 2, "missing field `reason`"),
            ("[[knwon]]\ncase = \"a\"\nreason = \"r\"", 1, "unknown field `knwon`"),
            ("[[known]]\ncase = 3\nreason = \"r\"", 2, "invalid type"),
            ("\n[[known]]\ncase = \"a\"\nreason = \" \"", 2, "no reason"),
            ("\n[[known]]\ncase = \"BatchNorm\"\nreason = \"r\"", 2, "no case can have the name BatchNorm"),
            ("[[known]]\ncase = \"\"\nreason = \"r\"", 1, "no case can have the name"),
        ] {
            let message = KnownList::read(text).unwrap_err().to_string();
            assert!(message.starts_with(&format!("line {line}: ")), "{message}");
            assert!(message.contains(says), "{message}");
            assert_eq!(message.lines().count(), 1);
        }
    }

    #[test]
    fn an_entry_for_one_tensor_expects_no_crash() {
        let list = KnownList::read("[[known]]\ncase = \"a\"\ntensor = \"output\"\nreason = \"r\"").unwrap();
        assert!(list.matches("a", None).is_none());
        assert!(list.matches("a", "output").is_some());
    }

    #[test]
    fn overlapping_entries_are_all_used() {
        let list =
            KnownList::read("known = [{case = \"a*\", reason = \"r\"}, {case = \"ab\", reason = \"s\"}]").unwrap();
        assert_eq!(list.matches("ab", None).unwrap().reason, "r");
        assert!(list.stale().is_empty());
    }
}
