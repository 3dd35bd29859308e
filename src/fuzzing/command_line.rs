//! Target `command_line`: any words after the program's name.

use std::sync::LazyLock;

use crate::case::values::Values;
use crate::cli::{parse, vocabulary};

/// Reads the bytes as words, a line each, and the words as a command line.
///
/// - What cannot be meant is an error with a text, and ends with 2; help and the version end with 0.
/// - Words are read the same way twice.
///
/// # Panics
/// If one of these does not hold.
pub fn command_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words: Vec<&str> = text.split('\n').collect();
    let read = parse(&words);
    if let Err((code, message)) = &read {
        assert!([0, 2].contains(code), "it ends with {code}");
        assert!(!message.trim().is_empty(), "an error without a text");
    }
    assert_eq!(read, parse(&words));
}

/// A command line with one word more, one less, or another: words of the program's own vocabulary.
pub(super) fn mutated(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    static WORDS: LazyLock<Vec<String>> = LazyLock::new(vocabulary);
    let mut values = Values::new(seed.into());
    let text = std::str::from_utf8(data).ok()?;
    let mut words: Vec<&str> = text.split('\n').collect();
    let (at, word) = (values.below(words.len()), WORDS[values.below(WORDS.len())].as_str());
    match values.below(4) {
        0 => return None,
        1 if words.len() > 1 => drop(words.remove(at)),
        2 => words[at] = word,
        _ => words.insert(at + 1, word),
    }
    Some(words.join("\n").into_bytes())
}
