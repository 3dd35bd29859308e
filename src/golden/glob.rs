//! Globs on case names.

/// Whether `text` matches `pattern`, in which `*` stands for any characters and `?` for any one.
///
/// It takes at most the product of both lengths in time: only the last `*` is ever tried again.
///
/// ```
/// use normative::golden::glob_match;
/// assert!(glob_match("batch_norm.*.f?", "batch_norm.train.f4"));
/// assert!(!glob_match("batch_norm.*", "layer_norm.f32"));
/// ```
pub fn glob_match(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // What follows the last star, and the text that it has not swallowed.
    let mut star = None;
    loop {
        match (pattern.clone().next(), text.clone().next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                pattern.next();
                star = Some((pattern.clone(), text.clone()));
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                pattern.next();
                text.next();
            }
            _ => {
                let Some((after, rest)) = &mut star else { return false };
                if rest.next().is_none() {
                    return false;
                }
                (pattern, text) = (after.clone(), rest.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, exponential.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|n| by_definition(rest, &text[n..])),
            ([p, rest @ ..], [t, after @ ..]) => (*p == b'?' || p == t) && by_definition(rest, after),
            _ => false,
        }
    }

    #[test]
    fn agrees_with_the_definition_on_every_short_word() {
        let words = |letters: &[u8], longest: u32| {
            let mut all = vec![Vec::new()];
            for _ in 0..longest {
                let longer = all.iter().flat_map(|w: &Vec<u8>| letters.iter().map(|&l| [&w[..], &[l]].concat()));
                all = longer.collect::<Vec<_>>().into_iter().chain(all.clone()).collect();
            }
            all.sort();
            all.dedup();
            all
        };
        let text = |word: &[u8]| String::from_utf8(word.to_vec()).unwrap();
        for pattern in words(b"ab*?", 4) {
            for word in words(b"ab", 5) {
                let (p, w) = (text(&pattern), text(&word));
                assert_eq!(glob_match(&p, &w), by_definition(&pattern, &word), "{p:?} on {w:?}");
            }
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        assert!(!glob_match(&"*a".repeat(1000), &format!("{}b", "a".repeat(1000))));
    }

    #[test]
    fn a_question_mark_is_one_character_not_one_byte() {
        assert!(glob_match("?", "é"));
    }
}
