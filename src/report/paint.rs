//! Emphasis in a report's text: what is emphasized is decided here, with which colours by the caller.

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A failure.
    Bad,
    /// Something to look at that fails nothing.
    Warning,
    /// A success.
    Good,
    /// A heading or a name.
    Strong,
    /// An aside.
    Faint,
}

/// How text is emphasized; by default not at all.
#[derive(Clone, Copy, Debug)]
pub struct Paint(pub fn(Tone, &str) -> String);

impl Default for Paint {
    fn default() -> Paint {
        Paint(|_, text| text.to_owned())
    }
}

impl Paint {
    /// `text` in the given tone.
    pub fn tone(self, tone: Tone, text: impl AsRef<str>) -> String {
        (self.0)(tone, text.as_ref())
    }
}

/// The widest that running text gets.
const WIDTH: usize = 80;

/// Running text in lines of at most 80 characters, each after `indent` spaces; no newline at the end.
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let taken = line.chars().count();
            if taken > 0 && indent + taken + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.iter().map(|line| format!("{margin}{line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_between_words_and_lines_are_kept() {
        let text = format!("{} {} end\nnext", "a".repeat(60), "b".repeat(60));
        let expected = format!("  {}\n  {} end\n  next", "a".repeat(60), "b".repeat(60));
        assert_eq!(wrapped(&text, 2), expected);
        assert_eq!(wrapped(&"c".repeat(300), 0).len(), 300);
    }
}
