//! `check --level forever`: correct layers are not accused, bugs are found, evidence adds up over rounds and runs, and it
//! may be stopped at any time.
#![cfg(all(feature = "cli", unix))]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use normative::case::{Answer, Hello, Request};
use normative::judge::Outcome;
use normative::property::statistic::{Ledger, accumulate, check};
use normative::subject::{Builtin, Fault, Pool, Subject};
use normative::{Tensor, Tensors};
use serde_json::Value;
use tempfile::TempDir;

/// A few laws that take no time.
const FEW: &str = "--only property-samuelson-* --only statistic-running_mean-batch_norm-*";

fn command(folder: &TempDir, line: &str) -> Command {
    let mut command = Command::new(cargo_bin!("normative"));
    command.current_dir(folder.path()).args(shell_words::split(line).expect("quotes are closed"));
    command
}

/// The exit status, standard output and standard error.
fn run(folder: &TempDir, line: &str) -> (i32, String, String) {
    let output = command(folder, line).output().expect("the command can be run");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it was not killed"), text(output.stdout), text(output.stderr))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

#[test]
fn rounds_go_on_where_the_run_before_ended() {
    let folder = folder();
    let forever = format!("check --builtin reference {FEW} --level forever --evidence kept.json");
    let kept = || -> Value { serde_json::from_slice(&fs::read(folder.path().join("kept.json")).unwrap()).unwrap() };
    let (status, out, err) = run(&folder, &format!("{forever} --rounds 3"));
    assert!(status == 0 && out.contains("CONFORMANT") && err.contains("3 rounds in"), "{out}{err}");
    let name = "statistic-running_mean-batch_norm-f64";
    let first = kept();
    assert_eq!((&first["next_seed"], &first["statistics"][name]["rounds"]), (&3.into(), &3.into()));
    let (status, _, err) = run(&folder, &format!("{forever} --rounds 2"));
    assert!(status == 0 && err.contains("the last of seed 4"), "{err}");
    let second = kept();
    assert_eq!((&second["next_seed"], &second["statistics"][name]["rounds"]), (&5.into(), &5.into()));
    // The same seeds in one run, and the report of it as JSON: a verdict for each law, however many rounds there were.
    let (status, out, _) = run(&folder, &format!("{forever}.once --rounds 5 --format json"));
    let once: Value = serde_json::from_slice(&fs::read(folder.path().join("kept.json.once")).unwrap()).unwrap();
    assert_eq!((status, &once), (0, &second));
    let report: Value = serde_json::from_str(&out).expect("JSON");
    let named = |verdict: &&Value| verdict["case"] == name;
    assert_eq!(report["verdicts"].as_array().unwrap().iter().filter(named).count(), 1);
}

#[test]
fn the_first_failure_ends_it_and_replays() {
    let folder = folder();
    for (bug, law, says) in [
        ("biased_running_var", "statistic-running_var-batch_norm-f64", "where chance alone hardly ever reaches"),
        ("eps_doubled", "property-mean-square-layer_norm-f32", "expected v/(v + eps) ="),
    ] {
        let (status, out, err) = run(&folder, &format!("check --builtin {bug} --only {law} --level forever --seed 40"));
        assert_eq!(status, 1, "{out}{err}");
        assert!(out.contains(says) && err.contains("it fails; check --seed 4"), "{out}{err}");
        let file = folder.path().join(format!("normative-failures/{law}.safetensors"));
        let replay = format!("normative replay {}", file.strip_prefix(folder.path()).unwrap().display());
        assert!(file.exists() && out.contains(&replay), "{out}");
    }
    let (status, out, _) = run(&folder, "replay normative-failures/property-mean-square-layer_norm-f32.safetensors");
    assert!(status == 1 && out.contains("the same answers as in the file"), "{out}");
    // A case that fails ends it before the first round.
    let (status, _, err) =
        run(&folder, "check --builtin eps_doubled --only layer_norm-f32-eps-* --only property-range-* --level forever");
    assert!(status == 1 && err.contains("no round of properties was tried"), "{err}");
}

#[test]
fn what_is_known_to_fail_does_not_end_it() {
    let folder = folder();
    let entry = "[[known]]\ncase = \"property-mean-square-layer_norm-f32\"\nreason = \"eps counts twice here\"\n";
    fs::write(folder.path().join("known.toml"), entry).unwrap();
    let only = "--only property-mean-square-layer_norm-f32 --known known.toml";
    let (status, _, err) = run(&folder, &format!("check --builtin eps_doubled {only} --level forever --rounds 3"));
    assert!(status == 0 && err.contains("3 rounds in"), "{err}");
    let (status, ..) = run(&folder, &format!("check --builtin reference {only} --level forever --rounds 2"));
    assert_eq!(status, 5, "the entry is stale");
}

fn wait(mut child: Child, limit: Duration) -> (i32, String) {
    let started = Instant::now();
    while child.try_wait().expect("it can be waited for").is_none() {
        if started.elapsed() > limit {
            child.kill().expect("it can be killed");
            panic!("it does not stop within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("it has ended");
    (output.status.code().expect("it was not killed"), String::from_utf8(output.stdout).expect("UTF-8"))
}

/// Waits for the first round's evidence.
fn await_evidence(folder: &TempDir) {
    let started = Instant::now();
    while !folder.path().join("kept.json").exists() && started.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(name: &str, child: &Child) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("a signal");
    assert!(sent.success(), "{name}");
}

/// A hangup that is ignored, as under `nohup`, stays ignored; the other signals end the run with its report.
#[test]
fn it_goes_on_when_the_terminal_hangs_up() {
    let folder = folder();
    let program = shell_words::quote(cargo_bin!("normative").to_str().expect("UTF-8")).into_owned();
    let line = format!("check --builtin reference {FEW} --level forever --evidence kept.json");
    let script = format!("set -f; trap '' HUP; exec {program} {line}");
    let mut command = Command::new("sh");
    let child = command.args(["-c", &script]).current_dir(folder.path()).stdout(Stdio::piped()).spawn();
    let child = child.expect("it starts");
    await_evidence(&folder);
    signal("-HUP", &child);
    signal("-TERM", &child);
    let (status, out) = wait(child, Duration::from_secs(30));
    assert!(status == 0 && out.contains("CONFORMANT"), "{out}");
}

#[test]
fn it_stops_when_it_is_told_to_and_reports() {
    let folder = folder();
    let forever = format!("check --builtin reference {FEW} --level forever --evidence kept.json");
    let child = command(&folder, &forever).stdout(Stdio::piped()).spawn().expect("it starts");
    await_evidence(&folder);
    signal("-INT", &child);
    let (status, out) = wait(child, Duration::from_secs(30));
    assert!(status == 0 && out.contains("CONFORMANT"), "{out}");
    Ledger::load(&folder.path().join("kept.json"), Builtin::new("reference").unwrap().hello()).expect("whole");

    // On a busy machine the first round alone may take longer, and that is said.
    let through = (0..7).map(|doubled| 0.5 * f64::from(1 << doubled)).any(|seconds| {
        let (status, out, err) = run(&folder, &format!("{forever} --seconds {seconds}"));
        let whole = status == 0 && out.contains("CONFORMANT") && err.contains(" in ");
        assert!(whole || status == 3 && out.contains("stopped: before everything had been asked once"), "{out}{err}");
        whole
    });
    assert!(through, "no round in half a minute");
    // What a single round asks was not asked.
    let (status, out, _) = run(&folder, "check --builtin reference --level forever --seconds 0.001");
    assert!(status == 3 && out.contains("stopped: before everything had been asked once"), "{out}");
}

#[test]
fn wrong_usage_is_told_from_what_cannot_be_read() {
    let folder = folder();
    let kept = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    kept("torn.json", "{\"normative\": 1, ");
    let whose = r#"{"normative": 1, "subject": {"name": "two_pass", "version": "0", "device": "cpu"},"#;
    kept("other.json", &format!("{whose} \"next_seed\": 0, \"statistics\": {{}}}}"));
    let forever = format!("check --builtin reference {FEW} --level forever --rounds 1");
    for (line, status, says) in [
        ("check --builtin reference --seconds 5".to_owned(), 2, "--seconds is for --level forever"),
        ("check --builtin reference --evidence a".to_owned(), 2, "--evidence is for --level forever"),
        (format!("{forever} --evidence torn.json"), 2, "it holds no evidence"),
        (format!("{forever} --evidence other.json"), 2, "is against two_pass 0 cpu, not reference"),
        (format!("{forever} --evidence no/such/folder.json"), 3, "no/such/folder.json"),
        ("check --builtin reference --only layer_norm-f32-size-4 --level forever".to_owned(), 2, "leave no property"),
        ("record --builtin reference --into x --level forever".to_owned(), 2, "is for check"),
    ] {
        let (is, out, err) = run(&folder, &line);
        assert!(is == status && err.contains(says), "{line}: {is}\n{out}{err}");
    }
}

/// The reference with running variances that are too small by one part in three hundred after each call: no single seed shows it.
struct Slight {
    hello: Hello,
    reference: Builtin,
}

impl Subject for Slight {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        let mut answer = self.reference.answer(request)?;
        if let Answer::Tensors(tensors) = &mut answer {
            shrink(tensors);
        }
        Ok(answer)
    }
}

fn shrink(tensors: &mut Tensors) {
    let variance = &tensors["running_var"];
    let smaller = variance.to_f64().into_iter().map(|value| value * (1.0 - 1.0 / 300.0)).collect();
    let smaller = Tensor::rounded(variance.dtype(), variance.shape(), smaller);
    tensors.insert("running_var".to_owned(), smaller);
}

#[test]
fn a_slight_error_is_found_by_the_evidence_of_many_seeds() {
    let name = "statistic-running_var-batch_norm-f64";
    let reference = Builtin::new("reference").unwrap();
    let hello = reference.hello().clone();
    let mut ledgers = [Ledger::new(&hello), Ledger::new(&hello)];
    let mut slight = Pool::of(Box::new(Slight { hello, reference: reference.clone() }));
    let mut right = Pool::of(Box::new(reference));
    let picked = |other: &str| other == name;
    let found = (0..60).find(|&seed| {
        let alone = check(&mut slight, seed, &picked);
        assert_eq!(alone[0].0.outcome, Outcome::Pass, "seed {seed} shows it by itself");
        let accused = accumulate(&mut right, seed, &mut ledgers[0], &picked);
        assert_eq!(accused[0].0.outcome, Outcome::Pass, "{}", accused[0].0.message);
        accumulate(&mut slight, seed, &mut ledgers[1], &picked)[0].0.outcome == Outcome::Fail
    });
    assert!(found.is_some_and(|seed| seed > 1), "{found:?}: {:?} {:?}", ledgers[0].strongest(), ledgers[1].strongest());
}
