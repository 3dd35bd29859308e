//! `normative adapter test`: a program in order passes, and each misdeed fails the line that it belongs to.
//!
//! The programs are `examples/hostile_subject.rs`, which a plain `cargo test` builds.
#![cfg(all(feature = "cli", unix))]

use std::path::Path;

use assert_cmd::Command;

/// The exit status, and what was printed.
fn test(command: &str, seconds: &str) -> (i32, String) {
    let mut binary = Command::new(assert_cmd::cargo::cargo_bin!("normative"));
    let output = binary.args(["adapter", "test", command, "--timeout", seconds]).output().expect("it can be run");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
    (output.status.code().expect("it was not killed"), text)
}

fn hostile(behaviour: &str) -> String {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.parent().and_then(Path::parent).expect("it lies in target/<profile>/deps");
    let program = built.join("examples").join("hostile_subject");
    assert!(program.exists(), "{program:?} is missing; `cargo build --example hostile_subject` makes it");
    shell_words::join([program.to_str().expect("UTF-8"), behaviour])
}

/// The lines with this mark.
fn marked<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix("  ")?.strip_prefix(mark)).map(str::trim).collect()
}

/// Exactly these lines fail, each as far as it is given.
#[track_caller]
fn fails(behaviour: &str, rules: &[&str]) {
    let (status, text) = test(&hostile(behaviour), "20");
    let failed = marked(&text, "FAILED");
    let expected = failed.len() == rules.len() && rules.iter().zip(&failed).all(|(rule, line)| line.starts_with(rule));
    assert!(expected && status == 1, "{behaviour}: status {status}\n{text}");
    assert_eq!(
        text.matches("          right: ").count(),
        failed.len(),
        "each failure says what would be right\n{text}"
    );
}

#[test]
fn a_program_in_order_passes() {
    let (status, text) = test(&hostile("none"), "20");
    assert_eq!((status, marked(&text, "FAILED")), (0, Vec::new()), "{text}");
    assert!(marked(&text, "ok").len() > 20 && text.contains("Next: normative check --subject"), "{text}");
    // It never refuses: the layer's matter.
    assert!(marked(&text, "note").iter().all(|line| line.starts_with("it refuses what must be refused")), "{text}");
}

#[test]
fn a_wrong_reply_fails_its_operation() {
    let refusal = "it refuses what must be refused: kind `shape`";
    for behaviour in [
        "exits",
        "sends garbage",
        "declares too much",
        "ends in the middle",
        "answers another request",
        "supports nothing",
    ] {
        fails(behaviour, &["group_norm: each reply has", refusal]);
    }
    // An answer where a refusal is due is the layer's matter, even a wrong one.
    for behaviour in ["forgets the output", "invents a tensor", "flattens", "widens"] {
        fails(behaviour, &["group_norm: each reply has"]);
    }
}

#[test]
fn a_wrong_hello_fails() {
    fails("has no name", &["it says who it is"]);
    fails(
        "claims what there is not",
        &["it claims operations that the suite knows", "it claims options that there are"],
    );
}

#[test]
fn state_and_ids_come_back() {
    fails(
        "forgets the state",
        &[
            "batch_norm: each reply has",
            "it reads and writes large tensors",
            "it reads empty tensors",
            "it returns state",
        ],
    );
    fails("tidies NaN", &["it returns state"]);
    fails("cuts ids", &["it echoes any id"]);
}

#[test]
fn what_it_cannot_do_is_unsupported() {
    fails(
        "reads what it knows",
        &["an operation", "a dialect", "a layout"]
            .map(|what| format!("it replies `unsupported` to {what}"))
            .each_ref()
            .map(String::as_str),
    );
    let (status, text) = test(&hostile("answers what it does not claim"), "20");
    let failed = marked(&text, "FAILED");
    assert_eq!((status, failed.len()), (1, 5), "{text}");
    assert!(failed.iter().all(|line| line.starts_with("it replies `unsupported` to ")), "{text}");
}

#[test]
fn the_ends_are_checked() {
    fails(
        "ends well on garbage",
        &["it ends, not with status 0, on a frame", "it ends, not with status 0, on a message"],
    );
    fails("fails at the end", &["it ends by itself with status 0"]);
    fails("prints at the end", &["it writes nothing to standard output"]);
    let (status, text) = test(&hostile("goes on after the end"), "1");
    assert_eq!(
        (status, marked(&text, "FAILED")),
        (1, vec!["it ends by itself with status 0 when the pipe is closed"]),
        "{text}"
    );
}

#[test]
fn silence_ends_the_asking() {
    let (status, text) = test(&hostile("hangs"), "0.4");
    assert!(status == 1 && text.contains("no answer within 400ms"), "{text}");
}

#[test]
fn refusing_everything_is_no_answer() {
    let (status, text) = test(&hostile("refuses everything"), "20");
    assert!(status == 1 && text.contains("it refuses what it claims"), "{text}");
    assert!(text.contains("FAILED  it refuses what must be refused: kind `too_few_values`"), "{text}");
    assert!(text.contains("note    it refuses what must be refused: kind `shape`"), "{text}");
}

#[test]
fn memory_between_requests_is_noted() {
    let (status, text) = test(&hostile("remembers"), "20");
    assert_eq!(status, 0, "{text}");
    assert!(marked(&text, "note").iter().any(|line| line.starts_with("it answers each request by itself")), "{text}");
}

#[test]
fn a_program_that_cannot_be_tested_has_a_status_of_its_own() {
    let (status, text) = test(&hostile("dies at hello"), "20");
    assert!(status == 3 && text.contains("no such framework"), "{text}");
    let (status, text) = test("/no/such/program", "20");
    assert!(status == 3 && text.contains("cannot start"), "{text}");
    assert_eq!(test("'unclosed", "20").0, 2);
    assert_eq!(test("", "20").0, 2);
    assert_eq!(test("x", "0").0, 2);
}
