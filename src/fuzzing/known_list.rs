//! Target `known_list`: the bytes are a list of expected failures, a recording's deviations or the file given to `--known`.

use super::assert_one_line;
use crate::golden::{Entry, Key, KnownList, glob_match};

/// The longest text that is read: each entry is tried on every glob.
const LIMIT: usize = 1 << 12;

/// Reads the bytes as a list.
///
/// - A text that is none gives an error of one line.
/// - Nothing is used before it has matched; an entry expects the failure that it speaks of, and is used from then on.
/// - What is written reads back as the same entries.
///
/// # Panics
/// If one of these does not hold.
pub fn known_list(data: &[u8]) {
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.len() <= LIMIT) else { return };
    let list = match KnownList::read(text) {
        Ok(list) => list,
        Err(error) => return assert_one_line(&error),
    };
    let entries: Vec<Entry> = list.entries().cloned().collect();
    assert!(entries.is_sorted_by_key(|entry| entry.line) && entries.iter().all(|entry| entry.line > 0));
    assert_eq!(list.stale().len(), entries.len());
    for entry in &entries {
        let case = entry.case.replace('*', "").replace('?', "a");
        assert!(glob_match(&entry.case, &case), "{:?} does not match {case:?}", entry.case);
        let first = list.matches(&case, entry.tensor.as_deref()).expect("it expects this failure");
        assert!(first.line <= entry.line && glob_match(&first.case, &case), "{first:?} for {entry:?}");
    }
    assert!(list.stale().is_empty());
    for key in [Key::Known, Key::Deviation] {
        let written = KnownList::write(&entries, key);
        let again = KnownList::read(&written).expect("a list that was written can be read");
        let unplaced = |entry: &Entry| format!("{:?}", Entry { line: 0, ..entry.clone() });
        assert!(again.entries().map(unplaced).eq(entries.iter().map(unplaced)), "{written}");
    }
}
