//! The documents of `golden/examples`: what they are, and what becomes of them when bytes or words are changed.
//!
//! `NORMATIVE_BLESS=1 cargo test --test golden_documents` writes the examples, and the hex dumps of their README, anew.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use normative::arithmetic::DataType;
use normative::case::{Answer, Case, Flag, Hello, Layout, Level, Request, Step};
use normative::golden::{
    Document, DocumentError, GoldenError, GoldenFile, Message, Provenance, RecordedCase, VERSION, write_hello,
    write_hello_reply, write_reply, write_request,
};
use normative::operation::{Mode, Operation, Refusal, RefusalKind};
use normative::{Tensor, Tensors};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const GOLDEN: &str = "golden.safetensors";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/examples")
}

fn blessing() -> bool {
    std::env::var_os("NORMATIVE_BLESS").is_some_and(|value| value == "1")
}

fn tensors<const N: usize>(named: [(&str, Tensor); N]) -> Tensors {
    named.map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

fn f32s(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::rounded(DataType::F32, shape, values.to_vec())
}

fn step(operation: Value, mode: Mode, gradients: bool, tensors: Tensors) -> Step {
    let operation: Operation = serde_json::from_value(operation).unwrap();
    Step { operation, mode, layout: Layout::default(), gradients, double_backward: false, tensors }
}

/// 1/√(1 + eps): the values 1 and 3 have variance 1, so they are normalized to ∓this.
fn normalized() -> f64 {
    (1.0_f64 + 1e-5).sqrt().recip()
}

fn hello() -> Hello {
    serde_json::from_value(json!({
        "name": "example", "version": "1.0", "device": "cpu",
        "operations": ["batch_norm", "layer_norm"], "dtypes": ["F32", "F64"],
        "dialects": {"batch_norm": ["pytorch"]}, "options": ["gradients"],
        "arithmetic": {"accumulate": "F32", "depth": {"blocks": 512}},
        "details": {"compiler": "cc"},
    }))
    .unwrap()
}

fn layer_norm() -> Step {
    let operation = json!({"name": "layer_norm", "normalized_shape": [2], "eps": 1e-5});
    step(operation, Mode::Eval, false, tensors([("input", f32s(&[1, 2], &[1.0, 3.0]))]))
}

fn refusal() -> Answer {
    let message = "one value per channel has no variance".to_owned();
    let refusal = Refusal { kind: RefusalKind::TooFewValues, message };
    Answer::Refused { refusal, state: tensors([("num_batches_tracked", Tensor::counter(1))]) }
}

/// Two steps of batch norm, the second with the state of the first; a refusal; and a data type that is not supported.
fn golden() -> GoldenFile {
    let batch_norm = json!({"name": "batch_norm", "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1});
    let (w, b, a) = (2.0, 0.5, normalized());
    let parameters = [("weight", f32s(&[1], &[w])), ("bias", f32s(&[1], &[b]))];
    let state = |mean, var, count| {
        tensors([
            ("running_mean", f32s(&[1], &[mean])),
            ("running_var", f32s(&[1], &[var])),
            ("num_batches_tracked", Tensor::counter(count)),
        ])
    };
    let input = ("input", f32s(&[2, 1], &[1.0, 3.0]));
    let affine = || tensors([input.clone(), parameters[0].clone(), parameters[1].clone()]);
    let mut train = affine();
    train.extend(state(0.0, 1.0, 0));
    train.extend(tensors([("grad_output.output", f32s(&[2, 1], &[1.0, 0.0]))]));
    let one_value = {
        let mut sent = state(0.0, 1.0, 0);
        sent.extend(tensors([("input", f32s(&[1, 1], &[1.0]))]));
        sent
    };
    let slope = w * a / 2.0 * (1.0 - a * a);
    let mut trained = state(0.2, 1.1, 1);
    trained.extend(tensors([
        ("output", f32s(&[2, 1], &[b - w * a, b + w * a])),
        ("grad_input", f32s(&[2, 1], &[slope, -slope])),
        ("grad_weight", f32s(&[1], &[-a])),
        ("grad_bias", f32s(&[1], &[1.0])),
    ]));
    let (mean, var) = (trained["running_mean"].get(0), trained["running_var"].get(0));
    let stored = |x: f64| (x - mean) / (var + 1e-5).sqrt() * w + b;
    let mut evaluated = state(0.2, 1.1, 1);
    evaluated.extend(tensors([("output", f32s(&[2, 1], &[stored(1.0), stored(3.0)]))]));
    let half = Tensor::rounded(DataType::BF16, &[1, 2], vec![1.0, 3.0]);
    let case = |name: &str, comment: &str, level, flags, steps| Case {
        name: name.to_owned(),
        comment: comment.to_owned(),
        level,
        flags,
        steps,
    };
    let sequence =
        vec![step(batch_norm.clone(), Mode::Train, true, train), step(batch_norm.clone(), Mode::Eval, false, affine())];
    let cases = vec![
        RecordedCase {
            case: case(
                "example.batch-norm.sequence",
                "Training moves the running statistics, evaluation uses them.",
                Level::Required,
                vec![Flag::Sequence],
                sequence,
            ),
            answers: vec![Answer::Tensors(trained), Answer::Tensors(evaluated)],
        },
        RecordedCase {
            case: case(
                "example.batch-norm.one-value",
                "One value per channel: counted, then refused.",
                Level::Required,
                vec![Flag::Thread, Flag::Refusal],
                vec![step(batch_norm, Mode::Train, false, one_value)],
            ),
            answers: vec![refusal()],
        },
        RecordedCase {
            case: case(
                "example.layer-norm.bf16",
                "A data type that the subject does not claim.",
                Level::Advisory,
                vec![],
                vec![Step { tensors: tensors([("input", half)]), ..layer_norm() }],
            ),
            answers: vec![Answer::Unsupported("no BF16 here".to_owned())],
        },
    ];
    GoldenFile { provenance: Provenance::Cpu, subject: hello(), cases }
}

fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let request = Request { case: "example".to_owned(), step: 0, call: layer_norm() };
    let output = f32s(&[1, 2], &[-normalized(), normalized()]);
    vec![
        ("hello-request.safetensors", write_hello()),
        ("hello-reply.safetensors", write_hello_reply(&hello())),
        ("request.safetensors", write_request(17, &request)),
        ("answer.safetensors", write_reply(17, &Answer::Tensors(tensors([("output", output)])))),
        ("refusal.safetensors", write_reply(18, &refusal())),
        ("unsupported.safetensors", write_reply(19, &Answer::Unsupported("no such operation".to_owned()))),
        (GOLDEN, golden().write().unwrap()),
    ]
}

fn example(name: &str) -> Vec<u8> {
    examples().into_iter().find(|&(other, _)| other == name).unwrap().1
}

#[test]
fn the_examples_are_on_disk() {
    for (name, bytes) in examples() {
        let path = folder().join(name);
        if blessing() {
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).unwrap() == bytes, "{name} differs; NORMATIVE_BLESS=1 writes it anew");
    }
    let on_disk = fs::read_dir(folder())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "safetensors"));
    assert_eq!(on_disk.count(), examples().len());
}

#[test]
fn writing_what_was_read_gives_the_same_bytes() {
    for (name, bytes) in examples() {
        assert!(Document::read(&bytes).unwrap().write() == bytes, "{name}");
        let again = match name {
            GOLDEN => GoldenFile::read(&bytes).unwrap().write().unwrap(),
            _ => Message::read(&bytes).unwrap().write(),
        };
        assert!(again == bytes, "{name}");
        assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok(), "{name}");
    }
}

#[test]
fn state_is_kept_once() {
    let file = GoldenFile::read(&example(GOLDEN)).unwrap();
    let recorded = &file.cases[0];
    assert!(!recorded.case.steps[1].tensors.contains_key("running_mean"));
    let first = recorded.case.request(0, None);
    let second = recorded.case.request(1, Some((&first, &recorded.answers[0])));
    assert_eq!(second.call.tensors["num_batches_tracked"].as_counter(), Some(1));
}

/// Bytes `at..`, as a hex dump of rows of sixteen, the note beside the first.
fn dump(at: usize, bytes: &[u8], note: &str) -> String {
    let mut text = String::new();
    for (row, bytes) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let letters: String =
            bytes.iter().map(|&b| if (b' '..=b'~').contains(&b) { char::from(b) } else { '·' }).collect();
        let note = if row == 0 { note } else { "" };
        let line = format!("{:08x}  {:47}  {letters:16}  {note}", at + 16 * row, hex.join(" "));
        writeln!(text, "{}", line.trim_end()).unwrap();
    }
    text
}

/// The frame of a document of F32 tensors, cut at its fields.
fn dump_frame(document: &[u8]) -> String {
    let frame = [&(document.len() as u64).to_le_bytes(), document].concat();
    let header = u64::from_le_bytes(frame[8..16].try_into().unwrap()) as usize;
    let json = frame[16..16 + header].trim_ascii_end().len();
    let parts = [
        (0, 8, format!("the frame's length: {} bytes follow", document.len())),
        (8, 8, format!("the header's length: {header} bytes")),
        (16, json, "the header: JSON".to_owned()),
        (16 + json, header - json, "spaces, so that the tensors begin at a multiple of 8".to_owned()),
    ];
    let mut text: String = parts.iter().map(|(at, length, note)| dump(*at, &frame[*at..][..*length], note)).collect();
    for (index, word) in frame[16 + header..].chunks(4).enumerate() {
        let value = f32::from_le_bytes(word.try_into().unwrap());
        text += &dump(16 + header + 4 * index, word, &format!("the tensor's element {index}: {value}"));
    }
    text
}

#[test]
fn the_readme_shows_two_frames_byte_by_byte() {
    let path = folder().join("README.md");
    let mut readme = fs::read_to_string(&path).unwrap();
    for name in ["request.safetensors", "answer.safetensors"] {
        let begin = readme.find(&format!("<!-- {name} -->\n```text\n")).unwrap();
        let begin = begin + readme[begin..].find("```text\n").unwrap() + "```text\n".len();
        let end = begin + readme[begin..].find("```").unwrap();
        readme.replace_range(begin..end, &dump_frame(&example(name)));
    }
    if blessing() {
        fs::write(&path, &readme).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == readme, "NORMATIVE_BLESS=1 writes the dumps anew");
}

#[test]
fn the_schema_describes_every_example() {
    let schema: Value = serde_json::from_slice(&fs::read(folder().join("normative.schema.json")).unwrap()).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for (name, bytes) in examples() {
        let metadata = Document::read(&bytes).unwrap().metadata;
        let errors: Vec<String> = validator.iter_errors(&metadata).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    // What the schema refuses, the reader refuses too.
    let words = [
        ("hello-request.safetensors", "/type", json!("goodbye")),
        ("hello-request.safetensors", "/normative", json!(VERSION + 1)),
        ("hello-reply.safetensors", "/operations", json!("batch_norm")),
        ("hello-reply.safetensors", "/dtypes/0", json!("U8")),
        ("hello-reply.safetensors", "/arithmetic/depth", json!("deep")),
        ("hello-reply.safetensors", "/details/compiler", json!(1)),
        ("request.safetensors", "/id", json!(-1)),
        ("request.safetensors", "/mode", json!("test")),
        ("request.safetensors", "/gradients", json!("yes")),
        ("request.safetensors", "/layout/format", json!("blocked")),
        ("request.safetensors", "/operation/eps", json!("tiny")),
        ("request.safetensors", "/operation/name", json!("Layer Norm")),
        ("refusal.safetensors", "/kind", json!("mood")),
        ("unsupported.safetensors", "/message", json!(null)),
        (GOLDEN, "/provenance", json!("hearsay")),
        (GOLDEN, "/subject/type", json!("answer")),
        (GOLDEN, "/sha256", json!("00")),
        (GOLDEN, "/cases/0/name", json!("a/b")),
        (GOLDEN, "/cases/0/level", json!("optional")),
        (GOLDEN, "/cases/0/flags/0", json!("No Flag")),
        (GOLDEN, "/cases/1/steps", json!([])),
        (GOLDEN, "/cases/1/steps/0/reply/kind", json!(3)),
    ];
    for (name, pointer, word) in words {
        let mut document = Document::read(&example(name)).unwrap();
        *document.metadata.pointer_mut(pointer).unwrap() = word;
        assert!(!validator.is_valid(&document.metadata), "{name}: {}", document.metadata);
        let bytes = document.write();
        assert!(Message::read(&bytes).is_err() && GoldenFile::read(&bytes).is_err(), "{name} {pointer}");
    }
}

#[test]
fn a_document_cut_anywhere_is_an_error() {
    for (name, bytes) in examples() {
        for length in 0..bytes.len() {
            let error = Document::read(&bytes[..length]).unwrap_err();
            let cut_in_tensors = matches!(error, DocumentError::Offsets { .. });
            let cut_before = matches!(error, DocumentError::TooShort(_) | DocumentError::HeaderTooLong { .. });
            assert!(cut_in_tensors || cut_before, "{name} cut to {length}: {error}");
            assert!(matches!(GoldenFile::read(&bytes[..length]), Err(GoldenError::Unreadable { .. })));
        }
    }
}

#[test]
fn a_flipped_bit_of_the_tensors_is_a_wrong_hash() {
    let bytes = example(GOLDEN);
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in 8 + header..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(matches!(GoldenFile::read(&flipped), Err(GoldenError::WrongHash { .. })), "byte {at}");
    }
}

/// Writes a document with the hash that a golden file's tensors should have.
fn with_hash(document: &mut Document) -> Vec<u8> {
    let bytes = document.write();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let hash: String = Sha256::digest(&bytes[8 + header..]).iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(stated) = document.metadata.get_mut("sha256") {
        *stated = hash.into();
    }
    document.write()
}

#[test]
fn a_contradiction_names_its_case_step_and_tensor() {
    type Edit = fn(&mut Document);
    let edits: [(Edit, &str); 15] = [
        (
            |d| drop(d.tensors.insert("example.batch-norm.sequence/1/request/running_mean".into(), Tensor::counter(1))),
            "contradictory: case example.batch-norm.sequence, step 1, tensor request/running_mean: it must be the state that the step before returned",
        ),
        (
            |d| drop(d.tensors.remove("example.batch-norm.sequence/1/request/num_batches_tracked")),
            "contradictory: case example.batch-norm.sequence, step 1, tensor request/num_batches_tracked: it is missing",
        ),
        (
            |d| drop(d.tensors.remove("example.batch-norm.sequence/0/answer/output")),
            "contradictory: case example.batch-norm.sequence, step 0: its answer: `output` is missing, it should be F32 [2, 1]",
        ),
        (
            |d| drop(d.tensors.insert("example.batch-norm.sequence/0/answer/output".into(), Tensor::counter(1))),
            "contradictory: case example.batch-norm.sequence, step 0: its answer: `output` should be F32 [2, 1], it is I64 []",
        ),
        (
            |d| drop(d.tensors.remove("example.layer-norm.bf16/0/request/input")),
            "contradictory: case example.layer-norm.bf16, step 0: layer_norm cannot be called with input",
        ),
        (
            |d| drop(d.tensors.insert("example.layer-norm.bf16/0/answer/output".into(), Tensor::counter(1))),
            "contradictory: case example.layer-norm.bf16, step 0, tensor answer/output: `unsupported` comes without",
        ),
        (
            |d| drop(d.tensors.insert("example.batch-norm.sequence/1/answer/grad_input".into(), Tensor::counter(1))),
            "contradictory: case example.batch-norm.sequence, step 1: its answer: nothing asked for \"grad_input\"",
        ),
        (
            |d| drop(d.tensors.insert("example.batch-norm.sequence/2/answer/output".into(), Tensor::counter(1))),
            "contradictory: tensor `example.batch-norm.sequence/2/answer/output` belongs to no step",
        ),
        (
            |d| drop(d.tensors.insert("line\nbreak".into(), Tensor::counter(1))),
            "contradictory: tensor `line\\nbreak` belongs to no step",
        ),
        (
            |d| d.metadata["cases"][1]["name"] = json!("example.batch-norm.sequence"),
            "contradictory: case example.batch-norm.sequence: the file has two cases of this name",
        ),
        (|d| d.metadata["cases"][1]["name"] = json!("A"), "contradictory: case A: a case's name is 1 to 100"),
        (
            |d| d.metadata["cases"][2]["steps"] = json!([]),
            "contradictory: case example.layer-norm.bf16: a case has at least one step",
        ),
        (
            |d| d.metadata["cases"][0]["flags"] = json!(["no_flag"]),
            "unreadable: case example.batch-norm.sequence: `flags`: unknown variant `no_flag`",
        ),
        (
            |d| d.metadata["cases"][0]["steps"][1]["request"]["operation"]["name"] = json!("no_norm"),
            "unreadable: case example.batch-norm.sequence, step 1: `request`: there is no operation `no_norm`",
        ),
        (|d| d.metadata["normative"] = json!(2), "unreadable: `normative`: version 2 is not known"),
    ];
    for (edit, expected) in edits {
        let mut document = Document::read(&example(GOLDEN)).unwrap();
        edit(&mut document);
        let message = GoldenFile::read(&with_hash(&mut document)).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message:?} should start with {expected:?}");
        assert_eq!(message.lines().count(), 1);
    }
}

#[test]
fn what_does_not_fit_together_is_not_written() {
    let mut twice = golden();
    twice.cases.push(twice.cases[0].clone());
    let mut unanswered = golden();
    unanswered.cases[0].answers.pop();
    let mut named = golden();
    named.cases[0].case.name = "a/b".to_owned();
    for file in [twice, unanswered, named] {
        assert!(matches!(file.write(), Err(GoldenError::Contradictory { .. })));
    }
}

/// A small deterministic generator (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Reads bytes in every way; what can be read can be written, and is then read as the same. Returns how many could.
fn read_all(bytes: &[u8]) -> usize {
    let document = Document::read(bytes).map(|document| {
        let written = document.write();
        assert!(Document::read(&written).unwrap().write() == written);
    });
    let message = Message::read(bytes).map(|message| {
        let written = message.write();
        assert!(Message::read(&written).unwrap().write() == written);
    });
    let golden = GoldenFile::read(bytes).map(|file| {
        let written = file.write().unwrap();
        assert!(GoldenFile::read(&written).unwrap().write().unwrap() == written);
    });
    let errors = [
        document.as_ref().err().map(ToString::to_string),
        message.as_ref().err().map(ToString::to_string),
        golden.as_ref().err().map(ToString::to_string),
    ];
    for error in errors.iter().flatten() {
        assert!(error.lines().count() == 1 && error.len() < 1000, "{error}");
    }
    errors.iter().filter(|error| error.is_none()).count()
}

#[test]
fn random_bytes_in_a_document_are_an_error_or_another_document() {
    const LETTERS: &[u8] = b"0123456789-+.eE[]{}\",: \n\\/nul\xff\0";
    let mut dice = Dice(1);
    let mut read = 0;
    for (_, bytes) in examples() {
        for _ in 0..2000 {
            let mut bytes = bytes.clone();
            for _ in 0..=dice.below(3) {
                let at = dice.below(bytes.len());
                let end = at + dice.below((bytes.len() - at).min(16));
                match dice.below(5) {
                    0 => bytes[at] ^= 1 << dice.below(8),
                    1 => bytes[at] = LETTERS[dice.below(LETTERS.len())],
                    2 => bytes[dice.below(16)] = dice.below(256) as u8,
                    3 => drop(bytes.drain(at..end)),
                    _ => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
                }
            }
            read += read_all(&bytes);
        }
    }
    assert!(read > 100, "only {read} could be read: the changes are too coarse to get anywhere");
}

/// Every place in a JSON value, as a pointer.
fn pointers(json: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match json {
        Value::Object(map) => map.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), all)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| pointers(value, &format!("{at}/{i}"), all))
        }
        _ => {}
    }
}

#[test]
fn random_words_in_a_document_are_an_error_or_another_document() {
    let words = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(-0.0),
        json!(1e308),
        json!(""),
        json!("nan"),
        json!("-inf"),
        json!("unsupported"),
        json!("pytorch"),
        json!([]),
        json!([0, 0]),
        json!({}),
        json!({"name": "rms_norm"}),
    ];
    let mut dice = Dice(2);
    let mut read = 0;
    for (_, bytes) in examples() {
        let original = Document::read(&bytes).unwrap();
        let mut places = Vec::new();
        pointers(&original.metadata, "", &mut places);
        for _ in 0..2000 {
            let mut document = original.clone();
            for _ in 0..=dice.below(2) {
                let other = original.metadata.pointer(&places[dice.below(places.len())]).unwrap();
                let word = if dice.below(3) == 0 { other } else { &words[dice.below(words.len())] };
                if let Some(place) = document.metadata.pointer_mut(&places[dice.below(places.len())]) {
                    *place = word.clone();
                }
                if !document.tensors.is_empty() && dice.below(4) == 0 {
                    let name = document.tensors.keys().nth(dice.below(document.tensors.len())).unwrap().clone();
                    document.tensors.insert(name, Tensor::rounded(DataType::F16, &[0, 3], vec![]));
                }
            }
            read += read_all(&with_hash(&mut document));
        }
    }
    assert!(read > 1000, "only {read} could be read: the changes are too coarse to get anywhere");
}
