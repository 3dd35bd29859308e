//! Live fuzzing: planted bugs are found in a fixed number of cases, and nothing is found in what is right.
#![cfg(all(feature = "cli", unix))]

use std::fs;

use assert_cmd::Command;
use normative::fuzzing::{Campaign, fuzz};
use normative::golden::GoldenFile;
use normative::judge::Outcome;
use normative::subject::{Builtin, Pool};
use tempfile::TempDir;

fn pool(name: &str) -> Pool<'static> {
    Pool::of(Box::new(Builtin::new(name).expect("a compiled-in subject")))
}

/// One of each family of planted bugs, and the most cases that each may take.
#[test]
fn planted_bugs_are_found() {
    for bug in [
        "unbiased_variance",
        "eps_doubled",
        "eps_outside_root",
        "one_pass_variance",
        "momentum_flipped",
        "biased_running_var",
    ] {
        let Some(subject) = Builtin::new(bug) else { panic!("{bug} is no planted bug") };
        let mut pool = Pool::of(Box::new(subject));
        let found = fuzz(&mut pool, 1, 1500);
        let failed = found.iter().filter(|(verdict, _)| verdict.outcome == Outcome::Fail);
        let named =
            failed.clone().filter(|(verdict, _)| verdict.nearest_bug.is_some_and(|nearest| nearest.name == bug));
        assert!(named.count() > 0, "{bug}: {} failures, none of them named", failed.count());
    }
}

#[test]
fn nothing_is_found_in_what_is_right() {
    for name in ["reference", "two_pass", "welford_folded"] {
        let found = fuzz(&mut pool(name), 2, 1500);
        assert!(found.len() > 100, "{name}: {} cells", found.len());
        let failed = found.iter().find(|(verdict, _)| verdict.outcome > Outcome::Unsupported);
        let told = failed.map(|(verdict, (_, steps))| {
            let asked =
                steps.iter().map(|(request, _)| format!("{:?} {:?}", request.call.operation, request.call.mode));
            (&verdict.case, &verdict.message, asked.collect::<Vec<_>>())
        });
        assert!(told.is_none(), "{name}: {told:?}");
    }
}

/// What answers show is followed: a campaign sees more than as many cases that are all drawn anew.
#[test]
fn a_campaign_goes_on_from_what_it_has_seen() {
    let mut pool = pool("two_pass");
    let mut campaign = Campaign::new(pool.hello(), 3);
    campaign.go_on(&mut pool, 300);
    let first = campaign.seen();
    campaign.go_on(&mut pool, 300);
    assert_eq!(campaign.asked(), 600);
    assert!(first > 100 && campaign.seen() > first + 50, "{first}, then {}", campaign.seen());
}

fn run(dir: &TempDir, line: &str, status: i32) -> String {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("normative"));
    let output = command.current_dir(dir.path()).args(line.split(' ')).output().expect("it runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{line}: {text}");
    text
}

#[test]
fn a_bug_is_reported_and_its_smallest_case_replays() {
    let dir = tempfile::tempdir().unwrap();
    let line = "fuzz --builtin unbiased_variance --cases 200 --jobs 1 --bug-report bug.md";
    let text = run(&dir, line, 1);
    assert!(text.contains("200 cases in") && text.contains("it divides the variance by n − 1 instead of n"), "{text}");
    let report = fs::read_to_string(dir.path().join("bug.md")).unwrap();
    for part in ["# unbiased", "| element | expected | actual |", "### Reproduction", "```rust", "normative replay"] {
        assert!(report.contains(part), "{part:?} is missing in\n{report}");
    }
    let files: Vec<_> =
        fs::read_dir(dir.path().join("normative-failures")).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for path in files {
        let file = GoldenFile::read(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(file.cases.len(), 1);
        run(&dir, &format!("replay {}", path.display()), 1);
    }
}

#[test]
fn the_reference_has_no_bug_to_report() {
    let dir = tempfile::tempdir().unwrap();
    let text = run(&dir, "fuzz --builtin reference --cases 300 --seed 5 --bug-report bug.md --format json", 0);
    assert!(text.contains("0 kinds of failure") && text.contains("\"kind\":\"generated\""), "{text}");
    assert!(!dir.path().join("bug.md").exists());
}

#[test]
fn a_campaign_ends_when_it_should() {
    let dir = tempfile::tempdir().unwrap();
    run(&dir, "fuzz --builtin two_pass --seconds 0.2", 0);
    run(&dir, "fuzz --subject ./nonesuch --cases 1", 3);
    let usage = run(&dir, "fuzz --cases 1", 2);
    assert!(usage.contains("--subject COMMAND"), "{usage}");
    run(&dir, "fuzz --builtin reference --cases 0", 2);
}
