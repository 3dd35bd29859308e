//! Golden files: cases with the answers that a named subject gave.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::document::{Document, DocumentError, read_around, read_strict, read_text, split, tensor_data};
use super::message::{self, MessageError, VERSION, elements, field, part};
use super::one_line;
use crate::case::{Answer, Case, Hello, Request, Step, check_answer};
use crate::tensor::{Tensor, Tensors};

/// The content of a golden file.
#[derive(Clone, Debug)]
pub struct GoldenFile {
    /// How the answers were obtained.
    pub provenance: Provenance,
    /// Who gave them.
    pub subject: Hello,
    /// The cases, in the file's order.
    pub cases: Vec<RecordedCase>,
}

/// A case and the subject's answers, one to each step.
#[derive(Clone, Debug)]
pub struct RecordedCase {
    /// The case. As everywhere, a later step does not repeat the state that the step before it returned.
    pub case: Case,
    /// One answer to each step.
    pub answers: Vec<Answer>,
}

/// How a recording's answers were obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// By the code that users run, on the device that it is for.
    Device,
    /// By the code that users run, on a CPU.
    Cpu,
    /// By a device's code on a simulator of the device.
    Simulated,
    /// By other code that repeats a device's arithmetic, order included.
    Emulated,
    /// By a device's code in an interpreter.
    Interpreted,
}

/// Where in a golden file something is wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// The case's name.
    pub case: Option<String>,
    /// The step's number, from 0.
    pub step: Option<usize>,
    /// The tensor, such as `answer/running_mean`.
    pub tensor: Option<String>,
}

/// Why there is no golden file to read or to write. Each message is one line.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GoldenError {
    /// The system cannot read or write the path.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// The bytes are no golden file.
    #[error("unreadable: {place}{reason}")]
    Unreadable {
        /// Where.
        place: Place,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The parts of the file do not fit together.
    #[error("contradictory: {place}{reason}")]
    Contradictory {
        /// Where.
        place: Place,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The tensor data are not those that were written.
    #[error("wrong hash: `sha256` says {stated}, but that of the tensor data is {actual}")]
    WrongHash {
        /// The hash in the file.
        stated: String,
        /// The hash of the file's tensor data.
        actual: String,
    },
    /// A single case is larger than a golden file may be.
    #[error("case {case} takes {size} bytes, but a golden file holds at most {limit}")]
    TooLarge {
        /// The case.
        case: String,
        /// Bytes that a file of it alone takes.
        size: usize,
        /// The most that a file may take.
        limit: usize,
    },
    /// A recording that is only added to has the case already, with another content.
    #[error("case {case} is in {} already, with another content", path.display())]
    Recorded {
        /// The case.
        case: String,
        /// The file that has it.
        path: PathBuf,
    },
}

impl GoldenFile {
    /// Reads a golden file and checks that its parts fit together.
    ///
    /// # Errors
    /// [`GoldenError::Unreadable`] if `bytes` are no document, or its JSON is not a golden file's (an unknown flag,
    /// operation or version among others); [`GoldenError::WrongHash`] if the tensor data are not those that `sha256`
    /// speaks of; [`GoldenError::Contradictory`] if a case has an invalid name, no steps, or the name of another; if a
    /// tensor is missing or belongs to no step; or if a step's state is not what the step before it returned.
    pub fn read(bytes: &[u8]) -> Result<GoldenFile, GoldenError> {
        let nowhere = Place::default();
        let unreadable = |error: DocumentError| nowhere.unreadable(error.to_string());
        let (text, tensors) = read_text(bytes).map_err(unreadable)?;
        let (json, cases) = read_around(&text, "cases").map_err(unreadable)?;
        let json = &json;
        message::expect_type(json, "golden").and_then(|()| message::check_version(json)).map_err(nowhere.wrap())?;
        check_hash(json, bytes)?;
        let subject = part(json, "subject").and_then(message::hello_from_json);
        let mut file = GoldenFile {
            provenance: field(json, "provenance").map_err(nowhere.wrap())?,
            subject: subject.map_err(|error| nowhere.unreadable(format!("`subject`: {error}")))?,
            cases: Vec::new(),
        };
        let no_array = || elements(json, "cases").map(|_| Vec::new());
        let cases = cases.map_or_else(no_array, Ok).map_err(nowhere.wrap())?;
        let mut names = HashSet::with_capacity(cases.len());
        let mut by_case = group_by_case(tensors, cases.len())?;
        let mut parts: Vec<(&RawValue, Parts)> = Vec::with_capacity(cases.len());
        for json in cases {
            let name = name_of(json)?;
            parts.push((json, by_case.remove(&name).unwrap_or_default()));
            if !names.insert(name.clone()) {
                return Err(Place::case(&name).contradictory("the file has two cases of this name"));
            }
        }
        // The JSON of a case is gone before the next is read: that of all would take more memory than the tensors.
        let read = |(json, mut own): (&RawValue, Parts)| {
            let value = read_strict(json).map_err(|error| match name_of(json) {
                Ok(name) => Place::case(&name).unreadable(error.to_string()),
                Err(error) => error,
            })?;
            Ok((read_case(&value, &mut own)?, own))
        };
        let read: Vec<Result<(RecordedCase, Parts), GoldenError>> = parts.into_par_iter().map(read).collect();
        file.cases.reserve(read.len());
        for recorded in read {
            let (recorded, own) = recorded?;
            by_case.insert(recorded.case.name.clone(), own);
            file.cases.push(recorded);
        }
        let left = by_case.iter().flat_map(|(case, parts)| parts.iter().map(move |(part, own)| (case, part, own)));
        let left = left.flat_map(|(case, part, own)| own.keys().map(move |name| format!("{case}/{part}{name}")));
        match left.min() {
            None => Ok(file),
            Some(name) => Err(no_step(&name)),
        }
    }

    /// The file's bytes, always the same for the same content. [`GoldenFile::read`] takes every file written.
    ///
    /// # Errors
    /// [`GoldenError::Contradictory`] under the conditions of [`GoldenFile::read`], and if a case has not one answer to
    /// each step.
    pub fn write(&self) -> Result<Vec<u8>, GoldenError> {
        let mut tensors = Tensors::new();
        let cases = self.cases.iter().map(|case| case_to_json(case, &mut tensors)).collect::<Result<Vec<_>, _>>()?;
        let metadata = json!({
            "type": "golden",
            "normative": VERSION,
            "provenance": self.provenance,
            "subject": message::hello_to_json(&self.subject),
            "sha256": sha256(&tensor_data(&tensors)),
            "cases": cases,
        });
        let bytes = Document { metadata, tensors }.write();
        GoldenFile::read(&bytes)?;
        Ok(bytes)
    }
}

/// The tensors of a case by what stands between its name and theirs: `<step>/<side>/`.
type Parts = BTreeMap<String, Tensors>;

/// The tensors of each case; there should be `cases` of them.
fn group_by_case(tensors: Vec<(String, Tensor)>, cases: usize) -> Result<HashMap<String, Parts>, GoldenError> {
    let mut by_case: HashMap<String, Parts> = HashMap::with_capacity(cases);
    for (mut name, tensor) in tensors {
        // The tensor's own name comes after the third slash.
        let (Some(case), Some((last, _))) = (name.find('/'), name.match_indices('/').nth(2)) else {
            return Err(no_step(&name));
        };
        let (case, part) = (&name[..case], &name[case + 1..=last]);
        if !by_case.contains_key(case) {
            by_case.insert(case.to_owned(), Parts::new());
        }
        let parts = by_case.get_mut(case).expect("it is there");
        if !parts.contains_key(part) {
            parts.insert(part.to_owned(), Tensors::new());
        }
        let own = parts.get_mut(part).expect("it is there");
        name.drain(..=last);
        own.insert(name, tensor);
    }
    Ok(by_case)
}

fn no_step(name: &str) -> GoldenError {
    Place::default().contradictory(format!(
        "tensor `{}` belongs to no step: a name is <case>/<step>/request/<tensor> or <case>/<step>/answer/<tensor>",
        one_line(name)
    ))
}

fn check_hash(json: &Value, bytes: &[u8]) -> Result<(), GoldenError> {
    let nowhere = Place::default();
    let stated: String = field(json, "sha256").map_err(nowhere.wrap())?;
    if stated.len() != 64 || !stated.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(nowhere.unreadable("`sha256`: a hash is 64 digits of 0–9 a–f"));
    }
    let (_, data) = split(bytes).expect("a document that was read");
    let actual = sha256(data);
    if stated == actual { Ok(()) } else { Err(GoldenError::WrongHash { stated, actual }) }
}

fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name in the JSON of a case, without reading the rest.
fn name_of(json: &RawValue) -> Result<String, GoldenError> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
    }
    if let Ok(Named { name }) = serde_json::from_str(json.get()) {
        return Ok(name.into_owned());
    }
    let nowhere = Place::default();
    let json = read_strict(json).map_err(|error| nowhere.unreadable(error.to_string()))?;
    field(&json, "name").map_err(nowhere.wrap())
}

/// Reads a case and takes its tensors out of `parts`.
fn read_case(json: &Value, parts: &mut Parts) -> Result<RecordedCase, GoldenError> {
    let name: String = field(json, "name").map_err(Place::default().wrap())?;
    let place = Place::case(&name);
    if !Case::is_valid_name(&name) {
        return Err(place.contradictory("a case's name is 1 to 100 characters of a–z 0–9 _ - ."));
    }
    let mut case = Case {
        name,
        comment: field(json, "comment").map_err(place.wrap())?,
        level: field(json, "level").map_err(place.wrap())?,
        flags: field(json, "flags").map_err(place.wrap())?,
        steps: Vec::new(),
    };
    let mut answers: Vec<Answer> = Vec::new();
    let mut asked: Option<Step> = None;
    let steps = elements(json, "steps").map_err(place.wrap())?;
    for (index, json) in steps.iter().enumerate() {
        let place = Place { step: Some(index), ..place.clone() };
        let mut take = |side: &str| parts.remove(&format!("{index}/{side}/")).unwrap_or_default();
        let (mut call, answer) = read_step(json, &mut take, &place)?;
        let state = asked.as_ref().zip(answers.last()).map(|(asked, answer)| call.passed_on(asked, answer));
        let state = state.unwrap_or_default();
        check_state(&call, &state, &place)?;
        call.check().map_err(|error| place.contradictory(one_line(&error.to_string())))?;
        check_answer(&call, &answer).map_err(|wrong| place.contradictory(format!("its answer: {wrong}")))?;
        let names: Vec<&str> = state.iter().map(|&(name, _)| name).collect();
        asked = (index + 1 < steps.len()).then(|| call.clone());
        call.tensors.retain(|name, _| !names.contains(&name.as_str()));
        case.steps.push(call);
        answers.push(answer);
    }
    if answers.is_empty() {
        return Err(place.contradictory("a case has at least one step"));
    }
    Ok(RecordedCase { case, answers })
}

fn read_step(
    json: &Value,
    take: &mut impl FnMut(&str) -> Tensors,
    place: &Place,
) -> Result<(Step, Answer), GoldenError> {
    let part = |key: &'static str| part(json, key).map_err(place.wrap());
    let within = |key: &'static str| move |error| place.unreadable(format!("`{key}`: {error}"));
    let call = message::request_from_json(part("request")?, take("request")).map_err(within("request"))?;
    let state = take("answer");
    let first = state.keys().next().cloned();
    let answer = message::reply_from_json(part("reply")?, state).map_err(within("reply"))?;
    match first.filter(|_| answer.tensors().is_none()) {
        None => Ok((call, answer)),
        Some(name) => Err(place.tensor("answer", &name).contradictory("`unsupported` comes without tensors")),
    }
}

/// Checks that a step was sent the state that the step before it passes on.
fn check_state(call: &Step, state: &[(&str, &Tensor)], place: &Place) -> Result<(), GoldenError> {
    for &(name, tensor) in state {
        let place = place.tensor("request", name);
        match call.tensors.get(name) {
            Some(sent) if sent.same_bits(tensor) => {}
            Some(_) => return Err(place.contradictory("it must be the state that the step before returned")),
            None => return Err(place.contradictory("it is missing: the state that the step before returned")),
        }
    }
    Ok(())
}

/// The JSON of a case; its tensors go into `tensors`.
fn case_to_json(recorded: &RecordedCase, tensors: &mut Tensors) -> Result<Value, GoldenError> {
    let RecordedCase { case, answers } = recorded;
    if case.steps.len() != answers.len() {
        let reason = format!("it has {} steps and {} answers", case.steps.len(), answers.len());
        return Err(Place::case(&case.name).contradictory(reason));
    }
    let mut steps = Vec::new();
    let mut previous: Option<(Request, &Answer)> = None;
    for (index, answer) in answers.iter().enumerate() {
        let request = case.request(index, previous.as_ref().map(|(request, answer)| (request, *answer)));
        let mut put = |side, (name, tensor): (&String, &Tensor)| {
            tensors.insert(format!("{}/{index}/{side}/{name}", case.name), tensor.clone());
        };
        request.call.tensors.iter().for_each(|entry| put("request", entry));
        answer.tensors().into_iter().flatten().for_each(|entry| put("answer", entry));
        steps.push(json!({
            "request": message::request_to_json(None, &request.call),
            "reply": message::reply_to_json(None, answer),
        }));
        previous = Some((request, answer));
    }
    Ok(json!({
        "name": case.name,
        "comment": case.comment,
        "level": case.level,
        "flags": case.flags,
        "steps": steps,
    }))
}

impl Place {
    pub(super) fn case(name: &str) -> Place {
        Place { case: Some(one_line(name)), ..Place::default() }
    }

    fn tensor(&self, side: &str, name: &str) -> Place {
        Place { tensor: Some(format!("{side}/{}", one_line(name))), ..self.clone() }
    }

    fn unreadable(&self, reason: impl Into<String>) -> GoldenError {
        GoldenError::Unreadable { place: self.clone(), reason: reason.into() }
    }

    pub(super) fn contradictory(&self, reason: impl Into<String>) -> GoldenError {
        GoldenError::Contradictory { place: self.clone(), reason: reason.into() }
    }

    fn wrap(&self) -> impl Fn(MessageError) -> GoldenError {
        |error| self.unreadable(error.to_string())
    }
}

impl fmt::Display for Place {
    /// `case a, step 0, tensor answer/output: `, or nothing for the whole file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = self.case.iter().map(|case| format!("case {case}"));
        let step = self.step.iter().map(|step| format!("step {step}"));
        let tensor = self.tensor.iter().map(|tensor| format!("tensor {tensor}"));
        let parts: Vec<String> = case.chain(step).chain(tensor).collect();
        if parts.is_empty() { Ok(()) } else { write!(f, "{}: ", parts.join(", ")) }
    }
}
