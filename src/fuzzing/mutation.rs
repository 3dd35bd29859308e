//! Changes of documents that leave them documents: what a fuzzer's changes of bytes rarely do, since a document states
//! the length of its header, the place of every tensor, and in golden files their hash.
//!
//! Each function is a map of bytes and a seed, the same on every machine. `None` leaves the change to the fuzzer.

use serde_json::{Value, json};

use super::edits::EXTREMES;
use crate::arithmetic::DataType;
use crate::case::values::Values;
use crate::golden::{Document, read_frame, write_frame};
use crate::tensor::{Tensor, Tensors};

/// Sizes of dimensions.
const SIZES: [usize; 8] = [0, 1, 2, 3, 4, 5, 8, 17];
const NAMES: [&str; 6] = ["weight", "bias", "running_mean", "running_var", "save_mean", "line\nbreak"];
const COUNTERS: [i64; 6] = [0, 1, -1, 7, i64::MAX, i64::MIN];

/// A golden file with one to three changes of its JSON or its tensors. Its hash is then wrong: the target mends it.
///
/// ```
/// use normative::fuzzing::mutation;
/// use normative::golden::{Document, write_hello};
/// let hello = write_hello();
/// let changed = (0..20).filter_map(|seed| mutation::golden_file(&hello, seed));
/// assert!(changed.clone().count() > 5 && changed.clone().all(|bytes| Document::read(&bytes).is_ok()));
/// ```
pub fn golden_file(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut values = Values::new(seed.into());
    if values.below(4) == 0 { None } else { document(data, &mut values) }
}

/// A stream of frames with one document changed, one frame more, or one frame less.
pub fn protocol(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut values = Values::new(seed.into());
    if values.below(4) == 0 {
        return None;
    }
    let mut stream = data;
    let mut frames: Vec<Vec<u8>> =
        std::iter::from_fn(|| read_frame(&mut stream, data.len() as u64).ok().flatten()).collect();
    if frames.is_empty() {
        return None;
    }
    let at = values.below(frames.len());
    match values.below(10) {
        0 if frames.len() > 1 => drop(frames.remove(at)),
        1 => frames.insert(at, frames[values.below(frames.len())].clone()),
        _ => frames[at] = document(&frames[at], &mut values)?,
    }
    let mut written = Vec::new();
    frames.iter().for_each(|frame| write_frame(&mut written, frame).expect("memory takes it"));
    Some(written)
}

fn document(data: &[u8], values: &mut Values) -> Option<Vec<u8>> {
    let mut document = Document::read(data).ok()?;
    for _ in 0..=values.below(3) {
        if values.below(2) == 0 {
            change_json(&mut document.metadata, values);
        } else {
            change_tensors(&mut document.tensors, values);
        }
    }
    Some(document.write())
}

/// Puts a word, or a part of the same JSON, in the place of another part; or removes or repeats a member.
fn change_json(json: &mut Value, values: &mut Values) {
    let words = [
        json!(null),
        json!(true),
        json!(false),
        json!(values.below(100)),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(values.uniform()),
        json!(values.pick(&EXTREMES)),
        json!(""),
        json!("nan"),
        json!("inf"),
        json!("-inf"),
        json!("line\nbreak"),
        json!("train"),
        json!("eval"),
        json!("strided"),
        json!("F64"),
        json!("I64"),
        json!("pairwise"),
        json!({"blocks": values.pick(&SIZES)}),
        json!({"blocks": u64::MAX}),
        json!([]),
        json!([values.pick(&SIZES)]),
        json!([values.pick(&SIZES), values.pick(&SIZES)]),
        json!({}),
    ];
    let mut places = Vec::new();
    pointers(json, String::new(), &mut places);
    let (from, to) = (&places[values.below(places.len())], &places[values.below(places.len())]);
    let word = if values.below(3) == 0 { json.pointer(from) } else { Some(&words[values.below(words.len())]) };
    let word = word.cloned();
    match (values.below(4), json.pointer_mut(to)) {
        (0, Some(Value::Object(members))) => {
            if let Some(key) = members.keys().nth(values.below(members.len())).cloned() {
                members.shift_remove(&key);
            }
        }
        (0, Some(Value::Array(items))) if !items.is_empty() => drop(items.remove(values.below(items.len()))),
        (1, Some(Value::Array(items))) => items.extend(word),
        (_, Some(place)) => *place = word.unwrap_or_default(),
        // A key with a slash in it.
        (_, None) => {}
    }
}

/// Every place in a JSON value, as a pointer.
fn pointers(json: &Value, at: String, places: &mut Vec<String>) {
    match json {
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| pointers(value, format!("{at}/{key}"), places));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| pointers(value, format!("{at}/{i}"), places));
        }
        _ => {}
    }
    places.push(at);
}

/// Changes one tensor, and with it those that must stay like it: of the same elements (a state that is handed on), of the
/// same shape (an input and its output), or of the same data type.
fn change_tensors(tensors: &mut Tensors, values: &mut Values) {
    let names: Vec<String> = tensors.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let name = &names[values.below(names.len())];
    let chosen = tensors[name].clone();
    let mut change = |is_like: &dyn Fn(&Tensor) -> bool, change: &dyn Fn(&Tensor) -> Tensor| {
        tensors.values_mut().filter(|tensor| is_like(tensor)).for_each(|tensor| *tensor = change(tensor));
    };
    match values.below(10) {
        0 => drop(tensors.remove(name)),
        1 => {
            let other = match values.below(4) {
                0 => values.pick(&NAMES),
                _ => &names[values.below(names.len())],
            };
            tensors.insert(other.to_owned(), chosen);
        }
        2 => {
            let mut shape = chosen.shape().to_vec();
            match values.below(4) {
                0 => drop(shape.pop()),
                1 => shape.insert(values.below(shape.len() + 1), values.pick(&SIZES)),
                _ if shape.is_empty() => {}
                _ => {
                    let at = values.below(shape.len());
                    shape[at] = values.pick(&SIZES);
                }
            }
            let elements_of = shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
            if elements_of.is_some_and(|n| n <= 1 << 10) {
                change(&|tensor| tensor.shape() == chosen.shape(), &|tensor| {
                    made(tensor.dtype(), &shape, elements(tensor))
                });
            }
        }
        3 => {
            let dtype = values.pick(&DataType::FLOATS);
            change(&|tensor| tensor.dtype() == chosen.dtype(), &|tensor| made(dtype, tensor.shape(), elements(tensor)));
        }
        4 => {
            let (mean, deviation) = (values.pick(&EXTREMES), values.pick(&[0.0, 1e-3, 1.0, 1e3]));
            let new = values.normals(chosen.len(), mean, deviation);
            change(&|tensor| tensor.same_bits(&chosen), &|tensor| made(tensor.dtype(), tensor.shape(), new.clone()));
        }
        _ if chosen.dtype() == DataType::I64 => {
            let counter = Tensor::counter(values.pick(&COUNTERS));
            change(&|tensor| tensor.same_bits(&chosen), &|_| counter.clone());
        }
        _ if chosen.is_empty() => {}
        choice => {
            let mut new = elements(&chosen);
            let at = values.below(new.len());
            new[at] = match choice {
                5 => values.pick(&EXTREMES),
                6 => new[values.below(new.len())],
                7 => new[at].next_up(),
                8 => new[at] * values.pick(&[-1.0, 0.5, 2.0, 1.001, 1e-9, 1e9]),
                _ => values.normal(),
            };
            change(&|tensor| tensor.same_bits(&chosen), &|tensor| made(tensor.dtype(), tensor.shape(), new.clone()));
        }
    }
}

fn elements(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f64().iter().copied().collect()
}

/// A tensor of these elements, over and over; a counter for `I64`.
fn made(dtype: DataType, shape: &[usize], elements: Vec<f64>) -> Tensor {
    if dtype == DataType::I64 {
        return Tensor::counter(elements.first().map_or(0, |&x| x as i64));
    }
    let count = shape.iter().product();
    let elements = if elements.is_empty() { vec![0.0] } else { elements };
    Tensor::rounded(dtype, shape, elements.into_iter().cycle().take(count).collect())
}
