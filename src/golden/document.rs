//! Documents: safetensors byte strings whose metadata key `normative` holds JSON text.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

use safetensors::{Dtype, View};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, map};

use super::one_line;
use crate::arithmetic::DataType;
use crate::tensor::{NotATensor, Tensor, Tensors};

/// A complete safetensors byte string: JSON and tensors.
#[derive(Clone, Debug)]
pub struct Document {
    /// The JSON of the metadata key `normative`.
    pub metadata: Value,
    /// The tensors.
    pub tensors: Tensors,
}

/// Bytes that are no document. Positions count from the document's first byte.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DocumentError {
    /// Fewer than the eight bytes of the header's length.
    #[error("{0} bytes are no document: it begins with the 8 bytes of its header's length")]
    TooShort(usize),
    /// The header would end after the last byte.
    #[error("byte 0: the header is said to take {declared} bytes, but only {available} follow")]
    HeaderTooLong {
        /// The header's length, as declared.
        declared: u64,
        /// Bytes that follow.
        available: usize,
    },
    /// The header is not UTF-8.
    #[error("byte {0}: the header is not UTF-8")]
    NotUtf8(usize),
    /// The header is no JSON object, has a key twice, or a tensor's entry is not `{"dtype", "shape", "data_offsets"}`.
    #[error("header (from byte 8): {0}")]
    Header(String),
    /// `__metadata__` does not map `normative` to a string.
    #[error("header (from byte 8): `__metadata__` must hold the key `normative` with JSON text as its value")]
    NoMetadata,
    /// The text under `normative` is no JSON, has a key twice, nests too deeply, or has a number out of range.
    #[error("the JSON of `normative`: {0}")]
    Metadata(String),
    /// A data type other than those of the protocol.
    #[error("tensor `{tensor}`: the data type `{dtype}` is none of F64, F32, F16, BF16, I64")]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// Its data type.
        dtype: String,
    },
    /// A shape of more than 64 dimensions, or that no memory could hold.
    #[error("tensor `{tensor}`: no tensor can have {rank} dimensions of these sizes")]
    ImpossibleShape {
        /// The tensor.
        tensor: String,
        /// Its number of dimensions.
        rank: usize,
    },
    /// A shape with a zero whose other sizes multiply to more than [`EMPTY_LIMIT`].
    #[error("tensor `{tensor}`: it is empty, but its other sizes multiply to more than {EMPTY_LIMIT}")]
    HollowShape {
        /// The tensor.
        tensor: String,
    },
    /// Tensors overlap, leave a gap, or reach beyond the last byte.
    #[error("tensor `{tensor}`: data_offsets [{begin}, {end}] should begin at {due} and end by {available}")]
    Offsets {
        /// The tensor.
        tensor: String,
        /// Its first byte, counted from the end of the header.
        begin: u64,
        /// The byte after its last.
        end: u64,
        /// Where the tensor before it ends.
        due: usize,
        /// Bytes that follow the header.
        available: usize,
    },
    /// A tensor has more or fewer bytes than its shape and data type take.
    #[error("tensor `{tensor}`: {source}")]
    WrongBytes {
        /// The tensor.
        tensor: String,
        /// Both counts.
        source: NotATensor,
    },
    /// Bytes that belong to no tensor follow the last.
    #[error("the tensors take {used} bytes, but {available} follow the header")]
    Trailing {
        /// Bytes that the tensors take.
        used: usize,
        /// Bytes that there are.
        available: usize,
    },
}

/// The largest product of an empty tensor's other sizes. No bytes stand behind it, but work does: empty groups, channels
/// without values.
pub const EMPTY_LIMIT: usize = 1 << 16;

impl Document {
    /// Reads a document. Metadata keys other than `normative` are ignored.
    ///
    /// # Errors
    /// A [`DocumentError`] if `bytes` are anything but a document: each variant says its condition.
    pub fn read(bytes: &[u8]) -> Result<Document, DocumentError> {
        let (metadata, tensors) = read_parts(bytes)?;
        Ok(Document { metadata, tensors: tensors.into_iter().collect() })
    }

    /// The document's bytes, always the same for the same content: tensors by falling alignment, then by name, the
    /// header padded to a multiple of eight bytes.
    ///
    /// ```
    /// use normative::golden::Document;
    /// use normative::{Tensor, Tensors};
    /// let tensors = Tensors::from([("num_batches_tracked".to_owned(), Tensor::counter(3))]);
    /// let document = Document { metadata: serde_json::json!({"type": "answer", "id": 1}), tensors };
    /// let back = Document::read(&document.write()).unwrap();
    /// assert_eq!(back.metadata["id"], 1);
    /// assert_eq!(back.tensors["num_batches_tracked"].as_counter(), Some(3));
    /// ```
    ///
    /// # Panics
    /// If a tensor is called `__metadata__`, or the header takes more than 100 MB.
    pub fn write(&self) -> Vec<u8> {
        serialize(&self.tensors, Some(HashMap::from([("normative".to_owned(), self.metadata.to_string())])))
    }
}

/// The JSON and the tensors of a document, by their place in it. Each tensor has a name of its own.
fn read_parts(bytes: &[u8]) -> Result<(Value, Vec<(String, Tensor)>), DocumentError> {
    let (text, tensors) = read_text(bytes)?;
    let Strict(metadata) = read_json(&text).map_err(DocumentError::Metadata)?;
    Ok((metadata, tensors))
}

/// The text of a document's JSON, and its tensors, by their place in it. Each tensor has a name of its own.
pub(super) fn read_text(bytes: &[u8]) -> Result<(String, Vec<(String, Tensor)>), DocumentError> {
    let (header, data) = split(bytes)?;
    let Header { metadata, entries } = read_header(header).map_err(DocumentError::Header)?;
    let text = metadata.and_then(|mut metadata| match metadata.get_mut("normative")?.take() {
        Value::String(text) => Some(text),
        _ => None,
    });
    Ok((text.ok_or(DocumentError::NoMetadata)?, read_tensors(entries, data)?))
}

/// The JSON object in `text`, but for the array under `key`: its elements are left as text, so that each can be read where
/// it is needed. `None` where there is no such array.
pub(super) fn read_around<'a>(text: &'a str, key: &str) -> Result<(Value, Option<Vec<&'a RawValue>>), DocumentError> {
    let Fields(fields) = read_json(text).map_err(DocumentError::Metadata)?;
    let (mut object, mut elements) = (Map::new(), None);
    for (name, value) in fields {
        if name == key && value.get().starts_with('[') {
            elements = Some(read_json(value.get()).map_err(DocumentError::Metadata)?);
        } else {
            object.insert(name, read_strict(value)?);
        }
    }
    Ok((object.into(), elements))
}

/// The JSON that was left as text.
pub(super) fn read_strict(text: &RawValue) -> Result<Value, DocumentError> {
    let Strict(value) = read_json(text.get()).map_err(DocumentError::Metadata)?;
    Ok(value)
}

/// The tensors' bytes in the order in which [`Document::write`] writes them.
pub(super) fn tensor_data(tensors: &Tensors) -> Vec<u8> {
    let bytes = serialize(tensors, None);
    let (_, data) = split(&bytes).expect("a document");
    data.to_vec()
}

/// The header's text and the tensors' bytes.
pub(super) fn split(bytes: &[u8]) -> Result<(&str, &[u8]), DocumentError> {
    let (length, rest) = bytes.split_first_chunk().ok_or(DocumentError::TooShort(bytes.len()))?;
    let declared = u64::from_le_bytes(*length);
    let (header, data) = usize::try_from(declared)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or(DocumentError::HeaderTooLong { declared, available: rest.len() })?;
    let header = std::str::from_utf8(header).map_err(|error| DocumentError::NotUtf8(8 + error.valid_up_to()))?;
    Ok((header, data))
}

/// A header: tensors' names and entries, and the metadata.
struct Header<'a> {
    metadata: Option<Value>,
    entries: Vec<(String, Entry<'a>)>,
}

/// A tensor's entry in the header.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

fn read_tensors(mut entries: Vec<(String, Entry)>, data: &[u8]) -> Result<Vec<(String, Tensor)>, DocumentError> {
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut used = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let (begin, end) = entry.data_offsets;
        let bytes = usize::try_from(end).ok().filter(|_| begin == used as u64).and_then(|end| data.get(used..end));
        let bytes = bytes.ok_or_else(|| DocumentError::Offsets {
            tensor: one_line(&name),
            begin,
            end,
            due: used,
            available: data.len(),
        })?;
        used += bytes.len();
        let tensor = read_tensor(&name, &entry, bytes)?;
        tensors.push((name, tensor));
    }
    if used < data.len() {
        return Err(DocumentError::Trailing { used, available: data.len() });
    }
    Ok(tensors)
}

fn read_tensor(name: &str, entry: &Entry, bytes: &[u8]) -> Result<Tensor, DocumentError> {
    const TYPES: [DataType; 5] = [DataType::F64, DataType::F32, DataType::F16, DataType::BF16, DataType::I64];
    let dtype = TYPES
        .into_iter()
        .find(|t| t.name() == entry.dtype)
        .ok_or_else(|| DocumentError::UnsupportedType { tensor: one_line(name), dtype: one_line(&entry.dtype) })?;
    // A shape with a zero has no bytes, whatever its other sizes are.
    let mut sizes = entry.shape.iter().filter(|&&size| size > 0);
    let volume = sizes.try_fold(dtype.size(), |n, &size| n.checked_mul(size));
    if entry.shape.len() > 64 || volume.is_none_or(|n| n > isize::MAX as usize) {
        return Err(DocumentError::ImpossibleShape { tensor: one_line(name), rank: entry.shape.len() });
    }
    if entry.shape.contains(&0) && volume.is_some_and(|n| n / dtype.size() > EMPTY_LIMIT) {
        return Err(DocumentError::HollowShape { tensor: one_line(name) });
    }
    Tensor::from_bytes(dtype, &entry.shape, bytes)
        .map_err(|source| DocumentError::WrongBytes { tensor: one_line(name), source })
}

fn serialize(tensors: &Tensors, metadata: Option<HashMap<String, String>>) -> Vec<u8> {
    assert!(!tensors.contains_key("__metadata__"), "`__metadata__` is no name for a tensor");
    safetensors::serialize(tensors.iter().map(|(name, tensor)| (name, Viewed(tensor))), metadata)
        .expect("a header of less than 100 MB")
}

struct Viewed<'a>(&'a Tensor);

impl View for Viewed<'_> {
    fn dtype(&self) -> Dtype {
        match self.0.dtype() {
            DataType::F64 => Dtype::F64,
            DataType::F32 => Dtype::F32,
            DataType::F16 => Dtype::F16,
            DataType::BF16 => Dtype::BF16,
            DataType::I64 => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.to_bytes().into()
    }

    fn data_len(&self) -> usize {
        self.0.len() * self.0.dtype().size()
    }
}

fn read_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| one_line(&error.to_string()))
}

/// Reads the text of a header into memory that is taken once: it has thousands of entries, each of some eighty bytes.
fn read_header(text: &str) -> Result<Header<'_>, String> {
    let header = Header { metadata: None, entries: Vec::with_capacity(text.len() / 80) };
    let mut json = serde_json::Deserializer::from_str(text);
    let header = json.deserialize_map(HeaderVisitor(header)).and_then(|header| json.end().map(|()| header));
    header.map_err(|error| one_line(&error.to_string()))
}

/// Fills the header that it holds.
struct HeaderVisitor<'a>(Header<'a>);

impl<'de: 'a, 'a> Visitor<'de> for HeaderVisitor<'a> {
    type Value = Header<'a>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header<'a>, A::Error> {
        let mut header = self.0;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                let Strict(metadata) = map.next_value()?;
                if header.metadata.replace(metadata).is_some() {
                    return Err(there_twice(&name));
                }
                continue;
            }
            match map.next_value() {
                Ok(entry) => header.entries.push((name, entry)),
                Err(error) => return Err(A::Error::custom(format_args!("tensor `{name}`: {error}"))),
            }
        }
        match twice(header.entries.iter().map(|(name, _)| name)) {
            None => Ok(header),
            Some(name) => Err(there_twice(name)),
        }
    }
}

/// The first name that was there before.
fn twice<'a>(mut names: impl ExactSizeIterator<Item = &'a String>) -> Option<&'a String> {
    let mut seen = HashSet::with_capacity(names.len());
    names.find(|&name| !seen.insert(name))
}

fn there_twice<E: Error>(key: &str) -> E {
    E::custom(format_args!("the key {key:?} is there twice"))
}

/// The entries of an object, none of them twice.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'a>, D::Error> {
        deserializer.deserialize_map(FieldsVisitor(PhantomData))
    }
}

struct FieldsVisitor<'a>(PhantomData<&'a str>);

impl<'de: 'a, 'a> Visitor<'de> for FieldsVisitor<'a> {
    type Value = Fields<'a>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'a>, A::Error> {
        let mut fields: Vec<(String, &'a RawValue)> = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        match twice(fields.iter().map(|(name, _)| name)) {
            None => Ok(Fields(fields)),
            Some(name) => Err(there_twice(name)),
        }
    }
}

/// JSON in which no object has a key twice; it nests at most 127 deep.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = sequence.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<String, Strict>()? {
            match object.entry(key) {
                map::Entry::Vacant(entry) => entry.insert(value),
                map::Entry::Occupied(entry) => {
                    return Err(there_twice(entry.key()));
                }
            };
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    /// A document whose header holds `entries` besides the metadata.
    fn with_entries(entries: &str, data: &[u8]) -> Vec<u8> {
        bytes(&format!(r#"{{"__metadata__":{{"normative":"{{}}"}},{entries}}}"#), data)
    }

    #[test]
    fn the_bytes_are_those_of_the_safetensors_crate_and_do_not_depend_on_order() {
        let tensors = Tensors::from([
            ("b".to_owned(), Tensor::rounded(DataType::F16, &[3], vec![1.0, 2.0, 3.0])),
            ("a".to_owned(), Tensor::counter(-1)),
            ("c".to_owned(), Tensor::rounded(DataType::F64, &[1, 1], vec![f64::NAN])),
        ]);
        let document = Document { metadata: json!({"z": 1e-5, "a": [null, true, -1, "é\n"]}), tensors };
        let written = document.write();
        let theirs = safetensors::SafeTensors::deserialize(&written).unwrap();
        assert_eq!(theirs.names().len(), 3);
        assert_eq!(theirs.tensor("b").unwrap().data(), document.tensors["b"].to_bytes());
        let back = Document::read(&written).unwrap();
        assert_eq!(back.metadata, document.metadata);
        assert!(back.tensors["c"].same_bits(&document.tensors["c"]));
        assert_eq!(back.write(), written);
    }

    #[test]
    fn hostile_headers_are_typed_errors() {
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (vec![1, 2, 3], "3 bytes are no document"),
            ((1_u64 << 63).to_le_bytes().to_vec(), "said to take 9223372036854775808 bytes, but only 0 follow"),
            (bytes("{\u{e9}", b"")[..9].to_vec(), "said to take 3 bytes, but only 1"),
            ([&2_u64.to_le_bytes()[..], b"{\xff"].concat(), "byte 9: the header is not UTF-8"),
            (bytes("{", b""), "header (from byte 8): EOF"),
            (bytes("[]", b""), "expected a JSON object"),
            (bytes(&format!(r#"{{"__metadata__":{}"#, "[".repeat(1_000_000)), b""), "recursion limit"),
            (bytes("{}", b""), "must hold the key `normative`"),
            (bytes(r#"{"__metadata__":{"other":"{}"}}"#, b""), "must hold the key `normative`"),
            (bytes(r#"{"__metadata__":{"normative":{}}}"#, b""), "must hold the key `normative`"),
            (bytes(r#"{"__metadata__":{"normative":"{"}}"#, b""), "the JSON of `normative`: EOF"),
            (bytes(r#"{"__metadata__":{"normative":"1e999"}}"#, b""), "number out of range"),
            (bytes(r#"{"__metadata__":{"normative":"{}"},"__metadata__":{"normative":"{}"}}"#, b""), "twice"),
            (
                bytes(r#"{"__metadata__":{"normative":"{\"a\":1,\"\\u0061\":2}"}}"#, b""),
                r#"the key "a" is there twice"#,
            ),
            (with_entries(r#""x":{"dtype":"F32","shape":[1]}"#, &[0; 4]), "tensor `x`: missing field `data_offsets`"),
            (with_entries(r#""x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#, &[0; 4]), "tensor `x`: invalid"),
            (with_entries(r#""x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#, &[0; 4]), "data type `U8` is none"),
            (with_entries(r#""x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#, &[0; 4]), "takes 8 bytes, not 4"),
            (with_entries(r#""x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#, &[0; 5]), "take 4 bytes, but 5"),
            (with_entries(r#""x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#, &[0; 3]), "end by 3"),
            (with_entries(r#""x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#, &[0; 8]), "should begin at 0"),
            (
                with_entries(r#""x":{"dtype":"F32","shape":[0],"data_offsets":[0,-1]}"#, b""),
                "tensor `x`: invalid value",
            ),
            (
                with_entries(
                    r#""x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#,
                    &[0; 4],
                ),
                "tensor `y`: data_offsets [0, 4] should begin at 4",
            ),
            (
                with_entries(r#""x":{"dtype":"F32","shape":[18446744073709551615,16],"data_offsets":[0,8]}"#, &[0; 8]),
                "no tensor can have 2 dimensions",
            ),
            (
                with_entries(r#""x":{"dtype":"F32","shape":[0,9223372036854775807,9],"data_offsets":[0,0]}"#, b""),
                "no tensor can have 3 dimensions",
            ),
            (
                with_entries(r#""x":{"dtype":"F32","shape":[65537,0],"data_offsets":[0,0]}"#, b""),
                "tensor `x`: it is empty, but its other sizes multiply to more than 65536",
            ),
            (
                with_entries(
                    &format!(r#""x":{{"dtype":"F32","shape":[{}1],"data_offsets":[0,4]}}"#, "1,".repeat(64)),
                    &[0; 4],
                ),
                "no tensor can have 65 dimensions",
            ),
        ];
        for (document, expected) in cases {
            let message = Document::read(&document).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} should say {expected:?}");
            assert_eq!(message.lines().count(), 1);
            assert!(message.len() < 500);
        }
    }

    #[test]
    fn empty_tensors_and_scalars_are_tensors() {
        let header = r#""b":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}"#;
        let document = Document::read(&with_entries(header, &1.5_f32.to_le_bytes())).unwrap();
        assert_eq!(document.tensors["b"].shape(), [0, 3]);
        assert_eq!(document.tensors["a"].get(0), 1.5);
    }
}
