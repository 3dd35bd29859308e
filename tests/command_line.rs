//! The command line: exit statuses, what reports say, and that counterexamples replay.
//!
//! Each test works in a folder of its own, so that nothing of the checkout is judged or written.
#![cfg(all(feature = "cli", unix))]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use normative::golden::{GoldenFile, KnownList};
use normative::subject::Builtin;
use normative::subject::planted::{BUGS, Bug, variants};
use serde_json::Value;
use tempfile::TempDir;

/// Leaves out the cases of more than 65,535 groups: a build without optimizations takes seconds for each.
const NO_GRIDS: &str = "--skip '*-grid-*'";

/// What a command printed and how it ended.
struct Run {
    status: i32,
    out: String,
    err: String,
}

impl Run {
    #[track_caller]
    fn ends(self, status: i32) -> Run {
        assert_eq!(self.status, status, "{}\n{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Run {
        assert!(self.out.contains(text), "{text:?} is missing in\n{}", self.out);
        self
    }

    #[track_caller]
    fn warns(self, text: &str) -> Run {
        assert!(self.err.contains(text), "{text:?} is missing in\n{}", self.err);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("JSON")
    }
}

fn command(dir: &TempDir) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("normative"));
    command.current_dir(dir.path()).env_remove("NO_COLOR");
    command
}

fn run(dir: &TempDir, line: &str) -> Run {
    let words = shell_words::split(line).expect("quotes are closed");
    let output = command(dir).args(words).output().expect("the command can be run");
    Run {
        status: output.status.code().expect("it was not killed"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

/// The program of `examples/hostile_subject.rs`, misbehaving where it is asked for a group norm. It answers every
/// request with its input, and claims F32 alone.
fn hostile(behaviour: &str) -> String {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.parent().and_then(Path::parent).expect("it lies in target/<profile>/deps");
    let program = built.join("examples").join("hostile_subject");
    assert!(program.exists(), "{program:?} is missing; `cargo build --example hostile_subject` makes it");
    let command = shell_words::join([program.to_str().expect("UTF-8"), behaviour]);
    shell_words::quote(&command).into_owned()
}

/// Records a few layer norms of a correct program, as `recorded/x/layer_norm.00.safetensors`.
fn record(dir: &TempDir, builtin: &str) -> PathBuf {
    run(dir, &format!("record --builtin {builtin} --into recorded/x --only 'layer_norm-f32-size-?'")).ends(0);
    dir.path().join("recorded/x/layer_norm.00.safetensors")
}

/// Changes a golden file and writes it again, hash and all.
fn tamper(path: &Path, change: impl FnOnce(&mut GoldenFile)) {
    let mut file = GoldenFile::read(&fs::read(path).unwrap()).unwrap();
    change(&mut file);
    fs::write(path, file.write().unwrap()).unwrap();
}

/// Moves the first output of `case` by `bounds` times its bound, or a little more.
fn move_output(file: &mut GoldenFile, case: &str, bounds: f64) {
    use normative::Tensor;
    use normative::arithmetic::{Format, Law};
    use normative::case::{Answer, Declared};
    use normative::judge::{Bounds, Expected};
    let recorded = file.cases.iter_mut().find(|recorded| recorded.case.name == case).expect("the case");
    let step = &recorded.case.steps[0];
    let Expected::Tensors { tensors, plan, .. } = Expected::of(step) else { panic!("refused") };
    let weakest = Law::GOOD[Law::GOOD.len() - 1];
    let value = tensors["output"].value(0).hi;
    let derived = Bounds::of(step, &plan, weakest, &Declared::default());
    let bound = derived.stored(Format::F32).of(derived.errors("output")[0], value);
    let Answer::Tensors(answer) = &mut recorded.answers[0] else { panic!("refused") };
    let Some(Tensor::F32(output)) = answer.get_mut("output") else { panic!("no output") };
    output.as_slice_mut().unwrap()[0] = (value + bounds * bound) as f32;
}

/// All of them are judged by `tests/planted_bugs.rs`; here a few tell how the command says it.
#[test]
fn planted_bugs_fail_and_are_named_and_correct_programs_pass() {
    assert_builtins_are_told(20);
}

#[test]
#[ignore = "a quarter of a minute; .ci/run has it"]
fn more_planted_bugs_fail_and_are_named_and_correct_programs_pass() {
    assert_builtins_are_told(7);
}

/// Each so many-th of the compiled-in subjects has the verdict that it must.
fn assert_builtins_are_told(step: usize) {
    let dir = folder();
    let names: Vec<&str> = Builtin::all().into_iter().map(|(name, _)| name).collect();
    // The reference, and two emulations.
    assert_eq!(names.len(), 3 + variants().len() + BUGS.len());
    for name in names.into_iter().step_by(step) {
        let check = format!("check --builtin {name} --failures failures/{name} {NO_GRIDS}");
        let Some(bug) = Bug::from_name(name) else {
            let run = run(&dir, &format!("{check} --only '*-f32-*'")).ends(0).says("CONFORMANT: ");
            assert!(!run.out.contains("FAIL") && !dir.path().join("failures").join(name).exists());
            continue;
        };
        // Its own operations are enough: that it fails nowhere else, the power of the cases says.
        let only: Vec<String> = bug.operations.iter().map(|name| format!("--only '{name}-*f32-*'")).collect();
        let run = run(&dir, &format!("{check} {}", only.join(" ")))
            .ends(1)
            .says(&format!("failures look as if {}.", bug.sentence))
            .says("NOT CONFORMANT");
        // The first three lines of the first failure tell it to someone who does not know the suite.
        let first = run.out.split("\nFAIL ").nth(1).expect("a failure");
        let told = first.split("\n  numpy").next().unwrap_or(first).replace("\n  ", " ");
        let (bug, flag) = (bug.sentence, bug.flag);
        assert!(told.lines().next().is_some_and(|line| line.contains(bug)), "{told}");
        let (meaning, effect) = (format!("{}: {}", flag.name(), flag.meaning()), flag.effect());
        assert!(told.find(&meaning) < told.find(effect) && told.contains(&meaning), "{told}");
    }
}

#[test]
fn answers_are_compared_bit_by_bit() {
    let dir = folder();
    record(&dir, "cuda-order");
    run(&dir, "verify recorded/x").ends(0).says(" x (emulated) ");
    let equal = run(&dir, "compare recorded/x --builtin cuda-order").ends(0);
    equal.says("cuda-order 0.1.0 (emulated): 6 cases with the same bits, 0 with others");
    let other = run(&dir, "compare recorded/x --builtin cuda-order-unfused").ends(1);
    other.says(" was recorded, now it is ");
    let json = run(&dir, "compare recorded/x --builtin two_pass --format json").ends(1).json();
    let cases = json["recordings"][0]["cases"].as_array().expect("a list of cases");
    assert_eq!(cases.len(), 6);
    assert!(cases.iter().any(|case| case["outcome"] == "differing" && case["other_values"].as_u64() > Some(0)));

    run(&dir, "record --builtin two_pass --into recorded/y --only weight_norm-f32-linear").ends(0);
    run(&dir, "compare recorded/y --builtin cuda-order").ends(3).says("0 cases with the same bits");
    run(&dir, "compare nowhere --builtin cuda-order").ends(4).warns("nowhere");
    run(&dir, "compare recorded/x").ends(2).warns("--builtin");
    fs::write(dir.path().join("recorded/x/broken.safetensors"), "no golden file").unwrap();
    run(&dir, "compare recorded/x --builtin cuda-order").ends(4).warns("broken.safetensors");
}

#[test]
fn a_counterexample_replays() {
    let dir = folder();
    let options = "check --builtin eps_doubled --only 'layer_norm-f32-eps-1e-?' --errors 3";
    let report = run(&dir, options).ends(1).says("normative replay normative-failures/");
    let mut files: Vec<_> = fs::read_dir(dir.path().join("normative-failures")).unwrap().collect();
    assert!(!files.is_empty());
    let path = files.pop().unwrap().unwrap().path();
    let file = path.strip_prefix(dir.path()).unwrap().to_str().unwrap();
    run(&dir, &format!("replay {file}"))
        .ends(1)
        .warns("asking --builtin eps_doubled")
        .says("the same answers as in the file")
        .says("it adds eps twice");
    run(&dir, &format!("replay {file} --builtin two_pass")).ends(0).says("nothing fails any more");
    run(&dir, &format!("replay {file} --builtin eps_dropped")).ends(1).says("other answers than in the file");
    let line = report.out.lines().find(|line| line.contains("runs it again")).unwrap();
    run(&dir, line.trim().strip_prefix("normative ").unwrap().split("    ").next().unwrap()).ends(1);

    let recorded = record(&dir, "two_pass");
    let recorded = recorded.to_str().unwrap();
    run(&dir, &format!("replay {recorded}")).ends(2).warns("does not say who was asked");
    run(&dir, &format!("replay {recorded} --builtin leaks")).ends(1).says("other answers than in the file");
    run(&dir, "replay nonesuch.safetensors").ends(4);
}

#[test]
fn counterexamples_are_spread_over_operations_and_small() {
    let dir = folder();
    let only = ["batch_norm", "layer_norm", "group_norm", "rms_norm"].map(|name| format!("--only '{name}-*'"));
    run(&dir, &format!("check --builtin unbiased_variance --errors 4 {NO_GRIDS} {}", only.join(" "))).ends(1);
    let names: Vec<String> = fs::read_dir(dir.path().join("normative-failures"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for operation in ["batch_norm", "layer_norm", "group_norm", "rms_norm"] {
        assert!(names.iter().any(|name| name.contains(operation)), "{names:?}");
    }
    assert_eq!(names.len(), 4);
}

#[test]
fn what_was_recorded_is_verified() {
    let dir = folder();
    let path = record(&dir, "welford");
    run(&dir, "verify recorded").ends(0).says("x: welford").says("provenance cpu").says("CONFORMANT: 6 cases: 6 pass");
    run(&dir, "verify recorded/x --only '*-size-2'").ends(0).says("CONFORMANT: 1 case");
    run(&dir, "verify recorded --only '*-size-17'").ends(2).warns("matches no case");
    run(&dir, "verify nonesuch").ends(4).says("nonesuch: No such file");

    let original = fs::read(&path).unwrap();
    tamper(&path, |file| move_output(file, "layer_norm-f32-size-4", 3.0));
    run(&dir, "verify recorded").ends(1).says("layer_norm-f32-size-4 of x").says("times the bound");

    // One byte of the last tensor, which is the end of the file.
    let mut bytes = original.clone();
    *bytes.last_mut().unwrap() ^= 1;
    for (bytes, says) in [
        (bytes, "wrong hash"),
        (original[..original.len() - 8].to_vec(), "unreadable"),
        (b"no document".to_vec(), "unreadable"),
    ] {
        fs::write(&path, bytes).unwrap();
        let run = run(&dir, "verify recorded").ends(4).says("BAD GOLDEN FILES");
        let lines: Vec<&str> = run.out.lines().filter(|line| line.starts_with("golden: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains("layer_norm.00.safetensors: ") && lines[0].contains(says));
    }
    fs::write(&path, &original).unwrap();
    fs::copy(&path, path.with_file_name("again.safetensors")).unwrap();
    run(&dir, "verify recorded")
        .ends(4)
        .says("contradictory: case layer_norm-f32-size-2: the recording has this case in");
}

#[test]
fn deviations_cover_failures_until_they_are_stale() {
    let dir = folder();
    let path = record(&dir, "two_pass");
    let list = "recorded/x/deviations.toml";
    tamper(&path, |file| move_output(file, "layer_norm-f32-size-4", 3.0));
    run(&dir, &format!("verify recorded --write-known {list}")).ends(1);
    let drafted = KnownList::load(&dir.path().join(list)).unwrap();
    let entries: Vec<_> = drafted.entries().collect();
    assert_eq!((entries.len(), entries[0].case.as_str()), (1, "layer_norm-f32-size-4"));
    assert!(entries[0].ratio.is_some_and(|ratio| (2.9..3.1).contains(&ratio)), "{:?}", entries[0]);
    run(&dir, "verify recorded")
        .ends(0)
        .says("deviation: 1 layer_norm case of x fails as expected")
        .says("1 as expected");
    let json = run(&dir, "verify recorded --format json").ends(0).json();
    assert_eq!(json["summary"]["known"], 1);

    let stale = "\n[[deviation]]\ncase = \"layer_norm-f32-size-2\"\nreason = \"mended\"\n";
    let text = fs::read_to_string(dir.path().join(list)).unwrap();
    fs::write(dir.path().join(list), format!("{text}{stale}")).unwrap();
    run(&dir, "verify recorded").ends(5).says(list).says("expects a failure that does not happen");
    // What was not judged may still fail.
    run(&dir, "verify recorded --only '*-size-4'").ends(0);
    run(&dir, &format!("verify recorded/x/{}", path.file_name().unwrap().to_str().unwrap())).ends(5);
    // Drafted anew, the list keeps what is needed alone.
    run(&dir, &format!("verify recorded --write-known {list}")).ends(5);
    assert_eq!(KnownList::load(&dir.path().join(list)).unwrap().entries().cloned().collect::<Vec<_>>().len(), 1);
    run(&dir, "verify recorded").ends(0);
    fs::write(dir.path().join(list), "[[deviation]]\ncase = 3\n").unwrap();
    run(&dir, "verify recorded").ends(4).says(list).says("line 2");
}

#[test]
fn a_known_list_speaks_of_a_check() {
    let dir = folder();
    let check = "check --builtin clipped --only '*_norm-f32-outlier-*'";
    run(&dir, &format!("{check} --write-known known.toml")).ends(1);
    let known = fs::read_to_string(dir.path().join("known.toml")).unwrap();
    assert!(known.contains("[[known]]") && known.contains("it clips its output to ±5"), "{known}");
    run(&dir, &format!("{check} --known known.toml")).ends(0).says("as expected: it clips its output to ±5");
    // A case that the list speaks of and that is left out is not stale; one that passes is.
    run(&dir, "check --builtin clipped --only 'layer_norm-f32-outlier-*' --known known.toml").ends(0);
    let mended = "check --builtin two_pass --only '*_norm-f32-outlier-*' --known known.toml";
    run(&dir, mended).ends(5).says("known.toml:1: the entry for batch_norm-f32-outlier-");
    fs::write(dir.path().join("other.toml"), "[[known]]\ncase = \"nonesuch\"\nreason = \"r\"\n").unwrap();
    run(&dir, &format!("{check} --known other.toml")).ends(1);
    let unknown = "check --builtin two_pass --only '*-outlier-*' --known other.toml";
    run(&dir, unknown).ends(5).says("fits no case that was judged");
    run(&dir, &format!("{check} --known nonesuch.toml")).ends(2).warns("nonesuch.toml");
    fs::write(dir.path().join("other.toml"), "[[known]]\ncase = \"a\"\n").unwrap();
    run(&dir, &format!("{check} --known other.toml")).ends(2).warns("other.toml: line 1");
}

#[test]
fn recordings_are_added_to_and_replaced_whole() {
    let dir = folder();
    let path = record(&dir, "two_pass");
    run(&dir, "record --builtin two_pass --into recorded/x --only 'layer_norm-f32-size-?'").ends(0).says("already");
    run(&dir, "record --builtin two_pass --into recorded/x --only 'layer_norm-f32-size-17'").ends(0).says("1 file");
    run(&dir, "record --builtin welford --into recorded/x").ends(4).warns("was recorded from two_pass");
    tamper(&path, |file| move_output(file, "layer_norm-f32-size-4", 3.0));
    run(&dir, "record --builtin two_pass --into recorded/x").ends(4).warns("with another content").warns("--replace");
    for option in ["--only 'layer*'", "--skip 'layer*'", "--flag mode", "--shard 1/2", "--level quick"] {
        let line = format!("record --builtin two_pass --into recorded/x --replace {option}");
        run(&dir, &line).ends(2).warns("removes the cases");
    }
    run(&dir, "record --builtin two_pass --into recorded/x --replace --provenance emulated")
        .ends(0)
        .says("cases of two_pass");
    run(&dir, "verify recorded").ends(0).says("provenance emulated");
    run(&dir, "record --into recorded/x").ends(2);
}

#[test]
fn subjects_that_do_not_answer_say_so_in_the_status() {
    let dir = folder();
    let only = "--only '*_norm-f32-size-?' --timeout 0.3";
    let crash = run(&dir, &format!("check --subject {} {only}", hostile("exits"))).ends(1);
    let crash = crash.says("CRASH group_norm-f32-size-2: it ended (exit status: 7)").says("out of luck");
    // The file of a crash has the request, and the fault in place of an answer.
    let line = crash.out.split("CRASH").nth(1).unwrap().lines().find(|line| line.contains("normative replay")).unwrap();
    let line = line.trim().strip_prefix("replay   normative ").unwrap();
    run(&dir, line).ends(1).warns("asking --subject").says("the same answers as in the file").says("CRASH");

    run(&dir, &format!("check --subject {} {only}", hostile("hangs"))).ends(1).says("TIMEOUT group_norm-f32-size-2");
    run(&dir, &format!("check --subject {} {only}", hostile("supports nothing")))
        .ends(1)
        .says("it claims this case and then says that it cannot do it: no");
    run(&dir, &format!("check --subject {} {only}", hostile("flattens")))
        .ends(1)
        .says("should be F32 [3, 2, 2], it is F32 [8]");
    run(&dir, &format!("check --subject {} --only '*-f32-size-?'", hostile("exits always")))
        .ends(3)
        .says("gave up: the subject could not be run to the end")
        .says("CRASH batch_norm-f32-size-2")
        .says("cases not run");
    run(&dir, "check --subject /nonexistent/program").ends(3).says("cannot start").says("NOTHING WAS JUDGED");
    run(&dir, &format!("check --subject {}", hostile("dies at hello"))).ends(3).says("no such framework");
    run(&dir, &format!("check --subject {} --only '*-f64-size-?'", hostile("none")))
        .ends(3)
        .says("24 cases without a verdict: the subject does not claim the data type F64")
        .says("NOTHING WAS JUDGED");
    run(&dir, &format!("record --subject {} {only} --into r", hostile("exits")))
        .ends(1)
        .says("not recorded: group_norm-f32");
    run(&dir, "verify r").ends(1);
    run(&dir, "record --subject /nonexistent/program --into r").ends(3);
}

#[test]
fn a_check_of_the_suite_judges_recordings_and_the_reference() {
    let dir = folder();
    let only = "--only 'layer_norm-f32-size-?'";
    record(&dir, "welford");
    fs::rename(dir.path().join("recorded"), dir.path().join("golden")).unwrap();
    let run_ =
        run(&dir, &format!("check {only}")).ends(0).says("x: welford").says("reference").says("12 cases: 12 pass");
    assert!(run_.out.contains("x (cpu)"), "{}", run_.out);
    fs::remove_dir_all(dir.path().join("golden/x")).unwrap();
    run(&dir, &format!("check {only}")).ends(0).says("pytorch-2.15-cpu, quick set");
    run(&dir, "verify").ends(3).says("there is no golden file").says("NOTHING WAS JUDGED");
}

#[test]
fn wrong_usage_is_status_two_and_says_what_would_be_right() {
    let dir = folder();
    for (line, says) in [
        ("check --only 'nonesuch*'", "--only \"nonesuch*\" matches no case"),
        ("check --builtin reference --skip nonesuch", "--skip \"nonesuch\" matches no case"),
        ("check --flag eps_plase", "a similar value exists: 'eps_place'"),
        ("check --builtin eps_droped", "a similar value exists: 'eps_dropped'"),
        ("check --builtin reference --only 'layer_norm-*' --flag counter", "no case is left"),
        ("record --builtin reference --into x --level forever", "use quick or full"),
        ("check --builtin reference --dialect nonesuch", "[possible values: "),
        ("check --builtin reference --subject true", "cannot be used with"),
        ("check --builtin reference --shard 5/4", "K from 1 to N"),
        ("check --builtin reference --timeout 0", "positive number of seconds"),
        ("check --builtin reference --jobs 0", "invalid value"),
        ("check --format yaml", "[possible values: text, json, junit, github, html]"),
        ("show layer_norm-f32-siz-4", "did you mean layer_norm-f32-size-4"),
        ("nonesuch", "unrecognized subcommand"),
        ("", "Usage"),
    ] {
        run(&dir, line).ends(2).warns(says);
    }
}

#[test]
fn selections_narrow_a_check() {
    let dir = folder();
    let cases = |options: &str| {
        let json = run(&dir, &format!("check --builtin reference --format json --seed 7 {options}")).ends(0).json();
        assert_eq!(json["seed"], 7);
        let verdicts = json["verdicts"].as_array().unwrap();
        verdicts.iter().map(|verdict| verdict["case"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = cases("--only 'rms_norm-*'");
    assert_eq!(
        cases("--only 'rms_norm-*' --shard 1/2").len() + cases("--only 'rms_norm-*' --shard 2/2").len(),
        all.len()
    );
    let quick = cases("--only 'rms_norm-*' --level quick --jobs 1");
    assert!(quick.len() < all.len() && quick.iter().all(|case| !case.contains("large")));
    let names = [
        "batch_norm",
        "instance_norm",
        "spade",
        "evo_norm_b",
        "batch_renorm",
        "online_norm",
        "power_norm",
        "switchable_norm",
        "iter_norm",
        "decorrelated_batch_norm",
        "batch_group_norm",
        "batch_channel_norm",
    ];
    let running = |case: &String| names.iter().any(|name| case.contains(name));
    assert!(cases("--flag momentum_sense").iter().all(running));
    run(&dir, "check --builtin two_pass --only '*-range-*'").ends(0).says("advisory:");
    run(&dir, "check --builtin two_pass --only '*-range-*' --strict").ends(1);
}

#[test]
fn reports_in_json_are_as_their_schema_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/report.schema.json");
    let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let dir = folder();
    record(&dir, "two_pass");
    fs::write(dir.path().join("recorded/x/deviations.toml"), "[[deviation]]\ncase = \"*\"\nreason = \"r\"\n").unwrap();
    fs::create_dir(dir.path().join("recorded/y")).unwrap();
    fs::write(dir.path().join("recorded/y/bad.safetensors"), "").unwrap();
    let crash = format!("check --subject {} --only '*-f32-size-?'", hostile("exits"));
    for (line, status) in [
        ("check --builtin nan_replaced --only '*-f32-*' --skip '*-grid-*'", 1),
        ("check --builtin one_value_accepted --only 'batch_norm-*' --skip '*-grid-*'", 1),
        ("check --builtin half_statistics --only 'layer_norm-*' --strict --skip '*-grid-*'", 1),
        ("verify recorded/x", 5),
        ("verify recorded", 4),
        ("verify golden", 4),
        ("check --subject /nonexistent", 3),
        (crash.as_str(), 1),
    ] {
        let json = run(&dir, &format!("{line} --format json")).ends(status).json();
        let errors: Vec<String> = validator.iter_errors(&json).map(|e| format!("{} {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{line}: {errors:?}");
        assert_eq!(json["status"], status);
        let sum: u64 = json["summary"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!(sum, json["verdicts"].as_array().unwrap().len() as u64);
    }
    let json = run(&dir, "check --builtin nan_replaced --only layer_norm-f32-nan --format json").ends(1).json();
    let verdict = &json["verdicts"][0];
    assert_eq!(
        (&verdict["ratio"], &verdict["expected"], &verdict["actual"]),
        (&"inf".into(), &"nan".into(), &"0x0p+0".into())
    );
    assert_eq!((&verdict["nearest_bug"], &verdict["verdict"]), (&"nan_replaced".into(), &"fail".into()));
    assert_eq!(verdict["replay"], "normative-failures/layer_norm-f32-nan.safetensors");
    assert_eq!(json["subject"]["details"]["builtin"], "nan_replaced");
}

#[test]
fn a_report_goes_to_a_file_and_its_summary_to_standard_output() {
    let dir = folder();
    let run_ = run(&dir, "check --builtin leaks --only '*-size-2' --report report.txt --color always").ends(1);
    assert_eq!(run_.out.lines().count(), 1);
    let run_ = run_.says("the report is in report.txt").says("\u{1b}[");
    let text = fs::read_to_string(dir.path().join("report.txt")).unwrap();
    assert!(text.contains("failures look as if") && !text.contains('\u{1b}'), "{text}");
    assert!(run_.err.is_empty());
    let cannot = "check --builtin reference --only '*-size-2' --report nonesuch/report.txt";
    run(&dir, cannot).ends(3).warns("nonesuch/report.txt");
}

#[test]
fn colours_are_for_who_wants_them() {
    let dir = folder();
    let line = ["check", "--builtin", "leaks", "--only", "layer_norm-f32-size-2"];
    let colored = |command: &mut Command| {
        let out = command.output().unwrap().stdout;
        String::from_utf8(out).unwrap().contains('\u{1b}')
    };
    assert!(!colored(command(&dir).args(line)), "standard output is no terminal");
    assert!(colored(command(&dir).args(line).args(["--color", "always"])));
    assert!(colored(command(&dir).args(line).args(["--color", "always"]).env("NO_COLOR", "1")));
    assert!(!colored(command(&dir).args(line).args(["--color", "never"])));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::Stdio;
    let dir = folder();
    let program = assert_cmd::cargo::cargo_bin!("normative");
    for line in [
        &["check", "--builtin", "clipped", "--level", "quick"][..],
        &["list"],
        &["show", "layer_norm-f32-size-4"],
        &["--help"],
    ] {
        let mut child = std::process::Command::new(program);
        let mut child =
            child.args(line).current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(i32::from(line[0] == "check")), "{line:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    }
}

#[test]
fn lists_and_cases_are_shown() {
    let dir = folder();
    run(&dir, "list bugs").ends(0).says("padding_counted").says("triton-lang/triton#9838");
    run(&dir, "show padding_counted")
        .ends(0)
        .says("masked_lanes: ")
        .says("linkedin/Liger-Kernel#518")
        .says("mean-square");
    run(&dir, "list flags").ends(0).says("momentum_sense").says("Momentum weighs the old value");
    run(&dir, "list operations").ends(0).says("num_batches_tracked");
    let json = run(&dir, "list --format json --only 'thread-*'").ends(0).json();
    let cases = json["cases"].as_array().unwrap();
    assert!(cases.iter().all(|case| case["name"].as_str().unwrap().starts_with("thread-")) && cases.len() > 40);
    assert!(json["subjects"].as_array().unwrap().iter().any(|subject| subject["name"] == "welford"));
    run(&dir, "list cases --only nonesuch").ends(2);

    run(&dir, "show layer_norm-f32-mean-1e3-size-4")
        .ends(0)
        .says("cancellation")
        .says("[0, 0, 0]")
        .says("rounded to F32 0x1.")
        .says("Δ⁺")
        .says("two passes, folded")
        .says("result = (input - mean) / np.sqrt(var + 1e-5) * weight + bias")
        .says("unbiased_variance: it divides the variance by n − 1");
    run(&dir, "show thread-batch_norm-f32-1x3x1-train")
        .ends(0)
        .says("refused (too_few_values)")
        .says("one_value_accepted");
    run(&dir, "show batch_norm-f32-sequence-0.1 --all").ends(0).says("step 3: batch_norm, F32 [4, 3, 2], eval");
    run(&dir, "show layer_norm-f32-range-1e30").ends(0).says("advisory: ").says("square overflows");
    run(&dir, "show rms_norm-bf16-empty-batch").ends(2);
    run(&dir, "show rms_norm-f32-empty-batch").ends(0).says("no elements");
    run(&dir, "show batch_norm-f32-eval-large-mean").ends(0).says("mean, var = running_mean, running_var");
}

#[test]
fn the_table_of_bugs_says_where_they_were_seen() {
    run(&folder(), "table bugs").ends(0).says("`batch_of_one_refused`").says("pytorch/pytorch#1381");
}

#[test]
#[ignore = "the power of every case takes ten seconds; .ci/run has it"]
fn the_table_of_power_is_computed() {
    let dir = folder();
    let power = run(&dir, "table power").ends(0).says("| bug").says("`one_pass_variance`");
    let rows: usize = BUGS.iter().map(|bug| bug.operations.len()).sum();
    assert_eq!(power.out.lines().filter(|line| line.starts_with("| `")).count(), rows);
}
