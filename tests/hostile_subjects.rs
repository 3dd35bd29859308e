//! Programs that misbehave: each misdeed costs its case, is named as what it is, and the cases after it go on.
//!
//! The programs are `examples/hostile_subject.rs`, which a plain `cargo test` builds.
#![cfg(unix)]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use normative::arithmetic::DataType;
use normative::case::WrongTensors;
use normative::case::{Answer, Case, Layout, Level, Step};
use normative::operation::Mode;
use normative::subject::{CaseRun, Fault, Hello, Pool, Program, Subject, Timeouts};
use normative::{Tensor, Tensors};
use serde_json::json;

/// Time for an answer that comes.
const LONG: Duration = Duration::from_secs(20);
/// Time for an answer that does not come.
const SHORT: Duration = Duration::from_millis(400);

fn command(behaviour: &str) -> String {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(|folder| folder.parent()).expect("it lies in target/<profile>/deps");
    let program: PathBuf = folder.join("examples").join("hostile_subject");
    assert!(program.exists(), "{program:?} is missing; `cargo build --example hostile_subject` makes it");
    shell_words::join([program.to_str().expect("a path in UTF-8"), behaviour])
}

fn pool(command: &str, case: Duration) -> Pool<'static> {
    let timeouts = Timeouts { hello: LONG, case };
    Pool::start(NonZeroUsize::MIN, &|| Ok(Box::new(Program::start(command, timeouts)?))).unwrap()
}

/// A case on eight numbers.
fn case(operation: &str) -> Case {
    sized_case(operation, 2)
}

fn sized_case(operation: &str, rows: usize) -> Case {
    let definition = match operation {
        "batch_norm" => json!({"name": operation, "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}),
        "group_norm" => json!({"name": operation, "num_groups": 2, "eps": 1e-5}),
        _ => json!({"name": operation, "normalized_shape": [4], "eps": 1e-5}),
    };
    let input = Tensor::rounded(DataType::F32, &[rows, 4], (0..4 * rows).map(|i| i as f64).collect());
    let step = Step {
        operation: serde_json::from_value(definition).unwrap(),
        mode: Mode::Train,
        layout: Layout::default(),
        gradients: false,
        double_backward: false,
        tensors: Tensors::from([("input".to_owned(), input)]),
    };
    Case {
        name: operation.to_owned(),
        comment: String::new(),
        level: Level::Required,
        flags: Vec::new(),
        steps: vec![step],
    }
}

fn run(pool: &mut Pool, operations: &[&str]) -> Vec<CaseRun> {
    let cases: Vec<Case> = operations.iter().map(|operation| case(operation)).collect();
    pool.run(&cases.iter().collect::<Vec<_>>(), &|_| ())
}

fn answer(run: &CaseRun) -> &Result<Answer, Fault> {
    &run.steps.last().expect("a step").1
}

/// The fault of a group norm between two cases that go well.
fn fault_within(behaviour: &str, time: Duration) -> Fault {
    fault_of(&command(behaviour), time)
}

fn fault_of(command: &str, time: Duration) -> Fault {
    let mut pool = pool(command, time);
    let runs = run(&mut pool, &["layer_norm", "group_norm", "layer_norm"]);
    for good in [&runs[0], &runs[2]] {
        assert!(matches!(answer(good), Ok(Answer::Tensors(_))), "{:?}", answer(good));
    }
    assert_eq!(pool.gave_up(), None);
    answer(&runs[1]).clone().unwrap_err()
}

fn fault(behaviour: &str) -> Fault {
    fault_within(behaviour, LONG)
}

#[track_caller]
fn assert_malformed(fault: &Fault, expected: &str) {
    let Fault::Malformed { reason, .. } = fault else { panic!("{fault:?}") };
    assert!(reason.contains(expected), "{reason:?} should say {expected:?}");
}

#[test]
fn a_well_behaved_program_answers_and_ends() {
    let mut pool = pool(&command("none"), LONG);
    assert_eq!(pool.hello().name, "hostile");
    for run in run(&mut pool, &["batch_norm", "layer_norm", "group_norm", "rms_norm"]) {
        assert!(matches!(answer(&run), Ok(Answer::Tensors(_))));
    }
    let start = Instant::now();
    drop(pool);
    assert!(start.elapsed() < Duration::from_secs(2), "it ends once its input is closed");
}

#[test]
fn an_exit_is_named_with_its_status_and_last_words() {
    let fault = fault("exits");
    let Fault::Exited { status, stderr } = &fault else { panic!("{fault:?}") };
    assert_eq!((status.as_str(), stderr.as_str()), ("exit status: 7", "out of luck\n"));
}

#[test]
fn the_end_of_a_long_standard_error_is_kept() {
    let Fault::Exited { stderr, .. } = fault("floods standard error") else { panic!() };
    assert_eq!(stderr.len(), 64 << 10);
    assert!(stderr.ends_with("xlast words\n"));
}

#[test]
fn an_end_in_the_middle_of_a_reply_is_an_exit() {
    let fault = fault("ends in the middle");
    let Fault::Exited { status, .. } = &fault else { panic!("{fault:?}") };
    assert_eq!(status, "exit status: 0, in the middle of a reply");
}

#[test]
fn a_program_that_ends_but_leaves_a_child_on_the_pipe_is_an_exit() {
    let start = Instant::now();
    let fault = fault("leaves a child");
    assert!(matches!(&fault, Fault::Exited { status, .. } if status == "exit status: 5"), "{fault:?}");
    assert!(start.elapsed() < LONG, "the child's 30 s are not waited for");
}

#[test]
fn hanging_costs_the_time_limit() {
    for behaviour in ["hangs", "hangs in the middle"] {
        let fault = fault_within(behaviour, SHORT);
        assert!(matches!(fault, Fault::TimedOut { limit: SHORT, .. }), "{fault:?}");
        assert!(fault.is_timeout());
    }
}

#[test]
fn a_program_that_never_reads_does_not_block_the_suite() {
    let mut pool = pool(&command("reads no request"), SHORT);
    // More than any pipe takes.
    let case = sized_case("layer_norm", 1 << 18);
    let runs = pool.run(&[&case, &case], &|_| ());
    assert!(runs.iter().all(|run| matches!(answer(run), Err(Fault::TimedOut { .. }))));
}

#[test]
fn a_hanging_program_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("heartbeat");
    let command = format!("{} {}", command("hangs with a child"), shell_words::quote(file.to_str().unwrap()));
    assert!(matches!(fault_of(&command, Duration::from_secs(1)), Fault::TimedOut { .. }));
    let beats = || std::fs::metadata(&file).expect("the child has lived").len();
    let before = beats();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(beats(), before, "the child still lives");
}

#[test]
fn a_child_that_left_the_group_with_the_pipe_does_not_hang_the_suite() {
    let start = Instant::now();
    assert!(matches!(fault_within("hangs with a child that escaped", SHORT), Fault::TimedOut { .. }));
    assert!(start.elapsed() < Duration::from_secs(15), "the child's 20 s are not waited for");
}

#[test]
fn closing_standard_output_is_no_reply() {
    assert_malformed(&fault("closes standard output"), "it closed its standard output but did not end");
}

#[test]
fn printed_text_is_named_as_such() {
    assert_malformed(
        &fault("prints"),
        r#"it seems to print text to standard output, which is for replies alone: "shape (2, 4)\n"#,
    );
    assert_malformed(
        &fault("prints a word"),
        r#"it seems to print text to standard output, which is for replies alone: "ok\n"#,
    );
}

#[test]
fn a_frame_that_is_no_document_is_malformed() {
    assert_malformed(&fault("sends garbage"), "byte 0");
}

#[test]
fn a_declared_length_beyond_the_limit_is_refused() {
    // Twice an output, two saved statistics and a gradient of 8 elements of 8 bytes, and 1 MiB.
    let limit = 2 * 8 * 4 * 8 + (1 << 20);
    assert_eq!(fault("declares too much"), Fault::TooLong { declared: 1 << 63, limit });
}

#[test]
fn the_answer_to_another_request_is_refused() {
    assert_eq!(fault("answers another request"), Fault::WrongId { expected: 2, actual: 3 });
}

#[test]
fn wrong_tensors_are_named() {
    for (behaviour, expected) in [
        ("forgets the output", "`output` is missing, it should be F32 [2, 4]"),
        ("invents a tensor", "nothing asked for \"y\""),
        ("flattens", "`output` should be F32 [2, 4], it is F32 [8]"),
        ("widens", "`output` should be F32 [2, 4], it is F64 [2, 4]"),
    ] {
        assert_eq!(fault(behaviour), Fault::WrongTensors(WrongTensors(expected.into())));
    }
}

#[test]
fn unsupported_by_a_subject_that_claimed_it_is_no_skip() {
    let runs = run(&mut pool(&command("supports nothing"), LONG), &["group_norm"]);
    assert!(matches!(answer(&runs[0]), Ok(Answer::Unsupported(_))));
    assert_eq!(runs[0].skipped, None);
}

#[test]
fn no_hello_is_given_up_after_three() {
    let start =
        |behaviour: &str, hello| Program::start(&command(behaviour), Timeouts { hello, case: LONG }).err().unwrap();
    let Fault::NoHello(last) = start("dies at hello", LONG) else { panic!() };
    assert_eq!(*last, Fault::Exited { status: "exit status: 3".into(), stderr: "no such framework\n".into() });
    let Fault::NoHello(last) = start("prints at hello", LONG) else { panic!() };
    assert_malformed(&last, "Loading weights, please wait");
    let fault = start("says no hello", SHORT);
    assert!(matches!(&fault, Fault::NoHello(_)) && fault.is_timeout());
}

#[test]
fn a_command_that_is_none_is_not_started() {
    for (command, expected) in [("", "empty"), ("python3 'x", "quote"), ("/no/such/program", "No such file")] {
        let fault = Program::start(command, Timeouts::default()).err().unwrap();
        let Fault::NotStarted { reason, .. } = &fault else { panic!("{fault:?}") };
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn a_program_that_does_not_come_back_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("started");
    let command = format!("{} {}", command("starts once"), shell_words::quote(file.to_str().unwrap()));
    let mut pool = pool(&command, LONG);
    let runs = run(&mut pool, &["layer_norm", "group_norm", "layer_norm", "layer_norm"]);
    assert!(answer(&runs[0]).is_ok());
    assert!(matches!(answer(&runs[1]), Err(Fault::Exited { .. })));
    assert!(runs[2].gave_up && matches!(answer(&runs[2]), Err(Fault::NoHello(_))));
    assert!(runs[3].gave_up && matches!(answer(&runs[3]), Err(Fault::NotRun { timeout: false, .. })));
    assert!(pool.gave_up().is_some());
}

#[test]
fn five_crashes_in_an_operation_are_enough() {
    let mut pool = pool(&command("exits"), LONG);
    let mut operations = vec!["group_norm"; 7];
    operations.push("layer_norm");
    let runs = run(&mut pool, &operations);
    assert!(runs[..5].iter().all(|run| matches!(answer(run), Err(Fault::Exited { .. }))));
    assert!(runs[5..7].iter().all(|run| matches!(answer(run), Err(Fault::NotRun { timeout: false, .. }))));
    assert!(answer(&runs[7]).is_ok());
    assert!(runs.iter().all(|run| !run.gave_up));
}

#[test]
fn three_operations_in_a_row_are_enough() {
    let mut pool = pool(&command("exits always"), LONG);
    let runs = run(&mut pool, &["batch_norm", "layer_norm", "group_norm", "rms_norm"]);
    assert!(runs[..3].iter().all(|run| !run.gave_up && matches!(answer(run), Err(Fault::Exited { .. }))));
    assert!(runs[3].gave_up);
    let message = answer(&runs[3]).as_ref().unwrap_err().to_string();
    assert!(message.contains("it died on batch_norm, layer_norm, group_norm in a row"), "{message}");
}

#[test]
fn a_program_that_does_not_end_is_killed() {
    let pool = pool(&command("goes on after the end"), LONG);
    let start = Instant::now();
    drop(pool);
    let elapsed = start.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(12)).contains(&elapsed), "{elapsed:?}");
}

#[test]
fn four_processes_share_the_cases_and_keep_their_order() {
    let command = command("exits");
    let jobs = NonZeroUsize::new(4).unwrap();
    let mut pool = Pool::start(jobs, &|| Ok(Box::new(Program::start(&command, Timeouts::default())?))).unwrap();
    let mut operations = vec!["layer_norm"; 40];
    operations[20] = "group_norm";
    let runs = run(&mut pool, &operations);
    let faults: Vec<usize> = (0..40).filter(|&i| answer(&runs[i]).is_err()).collect();
    assert_eq!(faults, [20]);
}

/// A subject in Rust that panics on a group norm.
struct Panics(Hello);

impl Subject for Panics {
    fn hello(&self) -> &Hello {
        &self.0
    }

    fn answer(&mut self, request: &normative::case::Request) -> Result<Answer, Fault> {
        assert_ne!(request.call.operation.name(), "group_norm", "not done yet");
        Ok(Answer::Tensors(Tensors::from([("output".to_owned(), request.call.tensors["input"].clone())])))
    }
}

#[test]
fn a_panic_costs_its_case() {
    let hello = json!({"name": "panics", "operations": ["layer_norm", "group_norm"], "dtypes": ["F32"]});
    let mut pool = Pool::of(Box::new(Panics(serde_json::from_value(hello).unwrap())));
    let runs = run(&mut pool, &["layer_norm", "group_norm", "rms_norm", "layer_norm"]);
    assert!(matches!(answer(&runs[1]), Err(Fault::Panicked(message)) if message.contains("not done yet")));
    assert!(runs[2].skipped.is_some() && matches!(answer(&runs[2]), Ok(Answer::Unsupported(_))));
    assert!([0, 3].iter().all(|&i| answer(&runs[i]).is_ok() && runs[i].skipped.is_none()));
}
