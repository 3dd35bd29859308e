//! Documents that are none: a seed for each way in which a reader refuses what others wrote.

use std::fs;
use std::path::Path;

/// Edits of `golden/examples/golden.safetensors`: a name, what the header says, and what it says instead. JSON stands in a string
/// there, so its quotes are escaped.
const OF_A_FILE: &[(&str, &str, &str)] = &[
    ("key-twice", r#"\"type\":\"golden\""#, r#"\"type\":\"golden\",\"type\":\"golden\""#),
    ("key-twice-in-a-case", r#"\"level\":\"required\""#, r#"\"level\":\"required\",\"level\":\"required\""#),
    (
        "tensor-twice",
        r#""example.batch-norm.sequence/0/answer/output":"#,
        r#""example.batch-norm.sequence/0/request/input":"#,
    ),
    ("version-2", r#"\"normative\":1,\"provenance\""#, r#"\"normative\":2,\"provenance\""#),
    ("version-minus-1", r#"\"normative\":1,\"provenance\""#, r#"\"normative\":-1,\"provenance\""#),
    ("no-hash", r#"\"sha256\":\""#, r#"\"sha256\":\"no"#),
    ("no-cases", r#"\"cases\":["#, r#"\"cases\":3,\"others\":["#),
    ("number-for-a-name", r#"\"name\":\"example.batch-norm.sequence\""#, r#"\"name\":3"#),
    ("capital-letter", r#"\"name\":\"example.batch-norm.sequence\""#, r#"\"name\":\"Example\""#),
    ("case-twice", r#"\"name\":\"example.batch-norm.one-value\""#, r#"\"name\":\"example.batch-norm.sequence\""#),
    ("no-steps", r#"\"steps\":[{"#, r#"\"steps\":[],\"others\":[{"#),
    ("tensor-of-no-case", r#""example.batch-norm.sequence/0/request/input":"#, r#""stranger":"#),
    (
        "tensor-of-no-step",
        r#""example.batch-norm.sequence/0/answer/output":"#,
        r#""example.batch-norm.sequence/7/answer/output":"#,
    ),
    (
        "state-of-no-step",
        r#""example.batch-norm.sequence/1/request/running_mean":"#,
        r#""example.batch-norm.sequence/1/request/bias":"#,
    ),
    ("unsupported-with-tensors", r#"\"reply\":{\"type\":\"answer\"}"#, r#"\"reply\":{\"type\":\"unsupported\"}"#),
    ("reply-of-no-type", r#"\"reply\":{\"type\":\"answer\"}"#, r#"\"reply\":{\"type\":\"goodbye\"}"#),
    ("unknown-operation", r#"\"operation\":{\"name\":\"batch_norm\""#, r#"\"operation\":{\"name\":\"no_norm\""#),
];

/// Edits of `golden/examples/request.safetensors`.
const OF_A_REQUEST: &[(&str, &str, &str)] = &[
    ("unknown-type", r#"\"type\":\"request\""#, r#"\"type\":\"goodbye\""#),
    ("unknown-layout", r#"\"format\":\"contiguous\""#, r#"\"format\":\"blocked\""#),
    ("unknown-operation", r#"\"name\":\"layer_norm\""#, r#"\"name\":\"no_norm\""#),
    ("unknown-dialect", r#"\"name\":\"layer_norm\""#, r#"\"name\":\"layer_norm\",\"dialect\":\"martian\""#),
    ("dialect-of-a-neighbour", r#"\"name\":\"layer_norm\""#, r#"\"name\":\"layer_norm\",\"dialect\":\"mlx\""#),
];

/// Whole headers, and the bytes after them.
const HEADERS: &[(&str, &str, &[u8])] = &[
    ("header-no-object", "[]", b""),
    ("metadata-no-text", r#"{"__metadata__":{"normative":{}}}"#, b""),
    ("metadata-twice", r#"{"__metadata__":{"normative":"{}"},"__metadata__":{"normative":"{}"}}"#, b""),
    ("json-no-object", r#"{"__metadata__":{"normative":"[]"}}"#, b""),
    ("json-cut", r#"{"__metadata__":{"normative":"{"}}"#, b""),
    ("trailing-bytes", r#"{"__metadata__":{"normative":"{}"}}"#, b"left"),
    (
        "tensor-cut",
        r#"{"__metadata__":{"normative":"{}"},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        b"cut",
    ),
    ("tensor-without-offsets", r#"{"__metadata__":{"normative":"{}"},"x":{"dtype":"F32","shape":[1]}}"#, b"four"),
    (
        "shape-beyond-memory",
        r#"{"__metadata__":{"normative":"{}"},"x":{"dtype":"F32","shape":[18446744073709551615,16],"data_offsets":[0,4]}}"#,
        b"four",
    ),
];

/// Streams that end early, or say that they go on for too long.
const STREAMS: &[(&str, &[u8])] = &[
    ("length-cut", &[3, 0, 0]),
    ("frame-cut", &[9, 0, 0, 0, 0, 0, 0, 0, b'c', b'u', b't']),
    ("frame-beyond-the-limit", &[0xff; 8]),
];

/// Golden files that are none, by name.
pub fn golden_files(examples: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let example = fs::read(examples.join("golden.safetensors")).expect("the example");
    let edited = OF_A_FILE.iter().map(|&(name, old, new)| (name, edited(&example, old, new)));
    edited.chain(HEADERS.iter().map(|&(name, header, data)| (name, document(header, data)))).collect()
}

/// What comes out of a pipe and is no conversation, by name.
pub fn streams(examples: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let example = fs::read(examples.join("request.safetensors")).expect("the example");
    let framed = |document: Vec<u8>| [&(document.len() as u64).to_le_bytes()[..], &document].concat();
    let edited = OF_A_REQUEST.iter().map(|&(name, old, new)| (name, framed(edited(&example, old, new))));
    edited.chain(STREAMS.iter().map(|&(name, bytes)| (name, bytes.to_vec()))).collect()
}

/// The document with the first `old` in its header replaced by `new`.
fn edited(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let (length, rest) = bytes.split_first_chunk().expect("a document");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = std::str::from_utf8(header).expect("a header");
    assert!(header.contains(old), "the example does not say {old}");
    document(&header.replacen(old, new, 1), data)
}

fn document(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}
