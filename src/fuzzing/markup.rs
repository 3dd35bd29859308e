//! Whether a text is well-formed markup: what XML asks of tags, attributes and references, and HTML's void elements.

/// Elements of HTML that have no end, and those whose text is not markup.
const VOID: [&str; 6] = ["meta", "link", "br", "hr", "input", "img"];
const RAW: [&str; 2] = ["script", "style"];

/// Checks that every element ends where it must, attributes are quoted, `&` begins a reference and no character is a
/// control character; in HTML, `html`, with its void elements and raw texts.
///
/// # Errors
/// What is wrong, and the beginning of the text there.
pub(super) fn check(text: &str, html: bool) -> Result<(), String> {
    let wrong = |what: &str, at: &str| Err(format!("{what}: {:?}", at.chars().take(60).collect::<String>()));
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    loop {
        let start = rest.find('<').unwrap_or(rest.len());
        check_text(&rest[..start])?;
        rest = &rest[start..];
        if rest.is_empty() {
            return if open.is_empty() { Ok(()) } else { wrong("no end", &open.join(" ")) };
        }
        if let Some(skipped) = skipped(rest) {
            rest = skipped;
            continue;
        }
        let name_end = rest[1..].find(|c: char| c.is_whitespace() || c == '>' || (c == '/' && !rest.starts_with("</")));
        if let Some(closing) = rest.strip_prefix("</") {
            let Some((name, after)) = closing.split_once('>') else { return wrong("a tag without an end", rest) };
            if open.pop() != Some(name.trim_end()) {
                return wrong("an end of another element", rest);
            }
            rest = after;
            continue;
        }
        let Some(name_end) = name_end.map(|end| end + 1) else { return wrong("a tag without an end", rest) };
        let name = &rest[1..name_end];
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_:".contains(c)) {
            return wrong("no name of an element", rest);
        }
        let (empty, after) = attributes(&rest[name_end..])?;
        rest = after;
        if html && RAW.contains(&name) {
            let end = format!("</{name}>");
            let Some((_, after)) = rest.split_once(&end) else { return wrong("no end", name) };
            rest = after;
        } else if !(empty || html && VOID.contains(&name)) {
            open.push(name);
        }
    }
}

/// What follows a comment, a declaration, a character section.
fn skipped(text: &str) -> Option<&str> {
    let ends = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"), ("<!", ">")];
    let (_, end) = ends.into_iter().find(|(start, _)| text.starts_with(start))?;
    text.split_once(end).map(|(_, after)| after)
}

/// Whether the tag ends its element too, and what follows it.
fn attributes(text: &str) -> Result<(bool, &str), String> {
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix("/>") {
            return Ok((true, after));
        }
        if let Some(after) = rest.strip_prefix('>') {
            return Ok((false, after));
        }
        let end = rest.find(|c: char| c.is_whitespace() || "=/>\"'<".contains(c));
        let end = end.filter(|&end| end > 0).ok_or_else(|| format!("no attribute: {:.40}", rest))?;
        rest = rest[end..].trim_start();
        if let Some(value) = rest.strip_prefix('=') {
            let quote = value.chars().next().filter(|c| "\"'".contains(*c)).ok_or("a value without quotes")?;
            let (value, after) = value[1..].split_once(quote).ok_or("a value without an end")?;
            if value.contains('<') {
                return Err(format!("a tag in a value: {value}"));
            }
            check_text(value)?;
            rest = after.trim_start();
        }
    }
}

/// No control characters, and `&` only where a reference begins.
fn check_text(text: &str) -> Result<(), String> {
    if let Some(control) = text.chars().find(|c| c.is_control() && !"\n\t\r".contains(*c)) {
        return Err(format!("a control character, {control:?}"));
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('&') {
        let reference = after.split_once(';').map_or("", |(name, _)| name);
        if reference.is_empty() || !reference.chars().all(|c| c.is_ascii_alphanumeric() || "#".contains(c)) {
            return Err(format!("no reference: {:?}", after.chars().take(20).collect::<String>()));
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn markup_that_is_none_is_seen() {
        for (text, html) in [
            ("<a b=\"c &amp; d\"><e/>text &#10;</a>", false),
            ("<?xml version=\"1.0\"?><!-- < --><a/>", false),
            ("<!DOCTYPE html><html><meta charset='utf-8'><style>a > b & c</style><p hidden>x</p></html>", true),
        ] {
            assert_eq!(check(text, html), Ok(()), "{text}");
        }
        for text in
            ["<a>", "<a></b>", "<a b=c/>", "<a b=\"<\"/>", "a & b", "<a>\u{1}</a>", "<a", "</a>", "< a/>", "<meta>"]
        {
            assert!(check(text, false).is_err(), "{text}");
        }
    }
}
