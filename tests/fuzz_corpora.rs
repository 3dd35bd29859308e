//! Replays on stable Rust the inputs that the fuzz targets start from, and those that once were findings.
//!
//! `NORMATIVE_BLESS=1 cargo test --test fuzz_corpora` makes the seeds in `fuzz/corpus` anew: documents from `golden/examples`
//! and the smallest cases of the catalogue, bytes that stand for a case of each operation, and the command lines of the help.
#![cfg(feature = "cli")]

mod hostile;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use normative::case::values::Values;
use normative::case::{Answer, Case, Request, catalogue};
use normative::fuzzing::{TARGETS, Target, case_of};
use normative::golden::{
    GoldenFile, KnownList, Message, Provenance, RecordedCase, read_frame, write_frame, write_hello_reply, write_reply,
    write_request,
};
use normative::operation::{FAMILY, Mode, Operation, RUNNING};
use normative::property::{cells, properties};
use normative::subject::{Builtin, Subject};

/// How the names of seeds begin that a reader must refuse.
const HOSTILE: &str = "hostile-";

/// The most bytes of all seeds together.
const LIMIT: usize = 3 << 19;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder, in the order of their names, with the ending `extension` where one is given.
fn files(folder: &Path, extension: Option<&str>) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| extension.is_none_or(|extension| path.extension().is_some_and(|other| other == extension)));
    paths.sort();
    paths
}

/// The seeds of a target, made anew first where that is asked for.
fn seeds(target: &str) -> Vec<PathBuf> {
    static BLESS: Once = Once::new();
    BLESS.call_once(|| {
        if std::env::var_os("NORMATIVE_BLESS").is_some_and(|value| value == "1") {
            bless();
        }
    });
    on_disk(target)
}

/// What a run found beside the seeds has no extension.
fn on_disk(target: &str) -> Vec<PathBuf> {
    files(&root().join("fuzz/corpus").join(target), Some(extension(target)))
}

fn extension(target: &str) -> &'static str {
    match target {
        "golden_file" => "safetensors",
        "protocol" => "frames",
        "known_list" => "toml",
        _ => "bytes",
    }
}

#[test]
fn no_seed_is_a_finding() {
    for &Target { name, body, .. } in TARGETS {
        for path in seeds(name) {
            println!("{}", path.display());
            body(&fs::read(path).unwrap());
        }
    }
}

#[test]
fn no_finding_comes_back() {
    for &Target { name, body, .. } in TARGETS {
        let folder = root().join("fuzz/regressions").join(name);
        // A target without findings has no folder.
        for path in if folder.exists() { files(&folder, None) } else { Vec::new() } {
            println!("{}", path.display());
            body(&fs::read(path).unwrap());
        }
    }
}

#[test]
fn mutations_of_seeds_are_no_findings() {
    for &Target { name, body, mutate } in TARGETS {
        for (index, path) in (0..).zip(seeds(name)) {
            let seed = fs::read(&path).unwrap();
            for round in 0..8 {
                println!("{}, round {round}", path.display());
                if let Some(mutated) = mutate(&seed, 8 * index + round) {
                    body(&mutated);
                }
            }
        }
    }
}

#[test]
fn every_operation_has_seeds() {
    let stale = |path: &Path| format!("{} is no seed; NORMATIVE_BLESS=1 makes the seeds anew", path.display());
    let mut size = 0;
    for &Target { name: target, .. } in TARGETS {
        let mut operations = BTreeSet::new();
        for path in seeds(target) {
            let bytes = fs::read(&path).unwrap();
            size += bytes.len();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(HOSTILE)) {
                let refused = match target {
                    "golden_file" => recorded(&bytes).is_none(),
                    "protocol" => requested(&bytes).is_none(),
                    _ => KnownList::read(&String::from_utf8_lossy(&bytes)).is_err(),
                };
                assert!(refused, "{} is read", path.display());
                continue;
            }
            let asked = match target {
                "known_list" => KnownList::read(&String::from_utf8_lossy(&bytes)).ok().map(|_| Vec::new()),
                "golden_file" => recorded(&bytes),
                "protocol" => requested(&bytes),
                _ => Some(vec![case_of(&bytes).operation().name()]),
            };
            operations.extend(asked.unwrap_or_else(|| panic!("{}", stale(&path))));
        }
        // The others choose among some operations, or are no cases.
        if !matches!(target, "golden_file" | "protocol" | "shapes") {
            assert!(!seeds(target).is_empty(), "{target}: no seeds; NORMATIVE_BLESS=1 makes them");
            continue;
        }
        for name in Operation::NAMES {
            assert!(operations.contains(name), "{target}: no seed for {name}; NORMATIVE_BLESS=1 makes the seeds anew");
        }
    }
    assert!(size <= LIMIT, "the seeds take {size} bytes, more than {LIMIT}");
}

/// The operations of a golden file.
fn recorded(bytes: &[u8]) -> Option<Vec<&'static str>> {
    let file = GoldenFile::read(bytes).ok()?;
    Some(file.cases.iter().map(|recorded| recorded.case.operation().name()).collect())
}

/// The operations of the requests in a stream of messages.
fn requested(mut stream: &[u8]) -> Option<Vec<&'static str>> {
    let mut names = Vec::new();
    while let Some(document) = read_frame(&mut stream, u64::MAX).ok()? {
        if let Message::Request { call, .. } = Message::read(&document).ok()? {
            names.push(call.operation.name());
        }
    }
    Some(names)
}

fn bless() {
    for &Target { name: target, .. } in TARGETS {
        let folder = root().join("fuzz/corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        on_disk(target).iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = root().join("fuzz/corpus").join(target);
        fs::write(folder.join(format!("{name}.{}", extension(target))), bytes).unwrap();
    };
    for path in files(&root().join("golden/examples"), Some("safetensors")) {
        let (name, bytes) = (path.file_stem().unwrap().to_string_lossy(), fs::read(&path).unwrap());
        match &*name {
            "golden" => write("golden_file", "example", &bytes),
            _ => write("protocol", &format!("example-{name}"), &framed(&[bytes])),
        }
    }
    for (name, bytes) in hostile::golden_files(&root().join("golden/examples")) {
        write("golden_file", &format!("{HOSTILE}{name}"), &bytes);
    }
    for (name, bytes) in hostile::streams(&root().join("golden/examples")) {
        write("protocol", &format!("{HOSTILE}{name}"), &bytes);
    }
    for (name, text) in KNOWN_LISTS {
        write("known_list", name, text.as_bytes());
    }
    for (id, case) in chosen().into_iter().enumerate() {
        let (recorded, requests) = answered(case);
        write("protocol", &case.name, &conversation(id as u64, &recorded, &requests));
        let file =
            GoldenFile { provenance: Provenance::Cpu, subject: reference().hello().clone(), cases: vec![recorded] };
        write("golden_file", &case.name, &file.write().unwrap());
    }
    for (target, operations) in [
        ("shapes", Operation::NAMES),
        ("values", Operation::NAMES),
        ("gradients", Operation::NAMES),
        ("oracle", FAMILY),
        ("orders", FAMILY),
        ("running", RUNNING),
        ("report", &RUNNING[..2]),
    ] {
        for (index, operation) in operations.iter().enumerate() {
            write(target, operation, &drawn(target, index));
        }
    }
    for (number, property) in properties().enumerate() {
        let place = cells().position(|cell| cell.property.name == property.name).expect("a cell of each property");
        let draws = drawn("identities", number);
        write("identities", property.name, &[&(place as u16).to_le_bytes()[..], &draws].concat());
    }
    for (number, line) in COMMAND_LINES.iter().enumerate() {
        write("command_line", &number.to_string(), line.replace(' ', "\n").as_bytes());
    }
}

/// Lists of expected failures, and what is none.
const KNOWN_LISTS: [(&str, &str); 6] = [
    (
        "both-keys",
        "[[known]]\ncase = \"a\"\nreason = \"r\"\n\n[[deviation]]\ncase = \"b*?\"\nratio = 3\nreason = \"s\"\n",
    ),
    (
        "all-fields",
        "deviation = [{case = \"a*b\", tensor = \"output\", ratio = 1e300, grade = \"wrong\", reason = \"\\n\\\"\", reference = \"u\"}]",
    ),
    ("hostile-unclosed", "\n\n[[known]\n"),
    ("hostile-no-reason", "[[known]]\ncase = \"a\"\nreason = \" \""),
    ("hostile-capital-letter", "[[known]]\ncase = \"BatchNorm\"\nreason = \"r\""),
    ("hostile-other-key", "[[knwon]]\ncase = \"a\"\nreason = \"r\""),
];

/// Command lines of every kind.
const COMMAND_LINES: [&str; 9] = [
    "check --builtin two_pass --only layer_norm-* --flag eps_value --shard 1/4 --format json",
    "check --subject ./layer --level forever --seconds 1.5 --known known.toml --timeout 3",
    "convert momentum 0.1 --from pytorch --to keras --batch 8 --to-batch 32",
    "fuzz --builtin reference --cases 10 --seed 3 --bug-report bug.md",
    "identify --builtin reference",
    "list operations --format json",
    "replay a.safetensors --strict --jobs 2",
    "simulate --batch 1 --values 16 --momentum 0.1",
    "--help",
];

/// Bytes that stand for a case of the operation at `index` of the target's list: a seed, its place, a data type, and a few
/// choices; before them what else the target chooses, after them bit patterns.
fn drawn(target: &str, index: usize) -> Vec<u8> {
    let mut values = Values::named(&format!("seed {target} {index}"));
    let mut bytes = |count: usize| (0..count).map(|_| values.below(256) as u8).collect::<Vec<u8>>();
    let program = if target == "orders" { bytes(12) } else { Vec::new() };
    let case = [bytes(4), vec![index as u8, index as u8 / 3], bytes(18)].concat();
    [program, case, if target == "values" { bytes(48) } else { Vec::new() }].concat()
}

/// The smallest case of each operation and dialect, with gradients and without, of each flag and data type; of several channels
/// and in training where there is one: a matrix of one number asks little, and so does a layer that keeps nothing.
fn chosen() -> Vec<&'static Case> {
    let elements = |case: &Case| {
        let counts = case.steps.iter().flat_map(|step| step.tensors.values().map(|tensor| tensor.len()));
        counts.sum::<usize>()
    };
    let several = |case: &Case| case.steps[0].tensors["input"].shape().get(1).is_some_and(|&channels| channels > 1);
    let evaluates = |case: &Case| case.steps[0].mode == Mode::Eval;
    let size = |case: &Case| (!several(case), evaluates(case), elements(case));
    let mut smallest: BTreeMap<String, &Case> = BTreeMap::new();
    for case in catalogue::cases().iter().filter(|case| elements(case) <= 512) {
        let name = case.operation().name();
        let gradients = case.steps.iter().any(|step| step.gradients);
        let dialect = serde_json::to_value(case.operation()).unwrap()["dialect"].clone();
        let traits = case.flags.iter().map(|flag| flag.name().to_owned());
        let own = [format!("{name} {dialect} {gradients}"), case.dtype().name().to_owned()];
        for which in traits.chain(own) {
            let held = smallest.entry(which).or_insert(case);
            if size(case) < size(held) {
                *held = case;
            }
        }
    }
    let names: BTreeSet<&str> = smallest.values().map(|case| case.name.as_str()).collect();
    catalogue::cases().iter().filter(|case| names.contains(case.name.as_str())).collect()
}

fn reference() -> Builtin {
    Builtin::new("reference").unwrap()
}

/// The reference's answers to a case, and what it was asked.
fn answered(case: &Case) -> (RecordedCase, Vec<Request>) {
    let mut requests: Vec<Request> = Vec::new();
    let mut answers: Vec<Answer> = Vec::new();
    for step in 0..case.steps.len() {
        let request = case.request(step, requests.last().zip(answers.last()));
        answers.push(reference().answer(&request).unwrap());
        requests.push(request);
    }
    (RecordedCase { case: case.clone(), answers }, requests)
}

/// Both ends of a pipe in one: a hello, and each request, which `id` gives its number, before its reply.
fn conversation(id: u64, recorded: &RecordedCase, requests: &[Request]) -> Vec<u8> {
    let mut documents = vec![write_hello_reply(reference().hello())];
    for (request, answer) in requests.iter().zip(&recorded.answers) {
        documents.push(write_request(id, request));
        documents.push(write_reply(id, answer));
    }
    framed(&documents)
}

fn framed(documents: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    documents.iter().for_each(|document| write_frame(&mut stream, document).unwrap());
    stream
}
