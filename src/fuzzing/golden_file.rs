//! Target `golden_file`: the bytes are a golden file.

use super::{assert_one_line, assert_same, is_bounded};
use crate::case::{Answer, Case, Request};
use crate::conformance::{Verdict, verify};
use crate::golden::{GoldenError, GoldenFile, RecordedCase};
use crate::judge::Outcome;
use crate::subject::{Builtin, Subject};

/// Reads the bytes as a golden file.
///
/// - Bytes that are none give an error of one line.
/// - A file that reads can be written; what is written reads back as the same, and gives the same bytes.
/// - It is judged: every case gets a verdict, which says what is wrong exactly where something is.
/// - The reference, asked the same cases, can be recorded too, and passes.
///
/// A file whose only fault is its hash is read a second time with the right one: a change of a tensor would lead no
/// further otherwise.
///
/// # Panics
/// If one of these does not hold.
pub fn golden_file(data: &[u8]) {
    match GoldenFile::read(data) {
        Ok(file) => check(&file),
        Err(error) => {
            assert_one_line(&error);
            if let GoldenError::WrongHash { stated, actual } = &error
                && let Some(mended) = replace_in_header(data, stated, actual)
            {
                match GoldenFile::read(&mended) {
                    Ok(file) => check(&file),
                    Err(error) => assert_one_line(&error),
                }
            }
        }
    }
}

fn check(file: &GoldenFile) {
    check_written(file);
    if !file.cases.iter().all(|recorded| recorded.case.steps.iter().all(is_bounded)) {
        return;
    }
    check_verdicts(&file.cases, &verify("fuzzing", file, &|_| None));
    let cases = file.cases.iter().map(|recorded| answered_by_the_reference(&recorded.case)).collect();
    let ours = GoldenFile { cases, ..file.clone() };
    check_written(&ours);
    let verdicts = verify("fuzzing", &ours, &|_| None);
    check_verdicts(&ours.cases, &verdicts);
    for verdict in verdicts {
        assert_eq!(verdict.outcome, Outcome::Pass, "the reference, {}: {}", verdict.case, verdict.message);
    }
}

fn check_written(file: &GoldenFile) {
    let bytes = file.write().expect("a file that was read can be written");
    let again = GoldenFile::read(&bytes).expect("a file that was written can be read");
    assert_same(file, &again);
    assert!(again.write().as_ref() == Ok(&bytes), "written twice, a file differs");
}

fn check_verdicts(cases: &[RecordedCase], verdicts: &[Verdict]) {
    assert_eq!(cases.len(), verdicts.len());
    for (recorded, verdict) in cases.iter().zip(verdicts) {
        assert_eq!(recorded.case.name, verdict.case);
        let judged = [Outcome::Pass, Outcome::Advisory, Outcome::Unsupported, Outcome::Fail];
        assert!(judged.contains(&verdict.outcome), "{:?} of a recorded answer", verdict.outcome);
        assert_eq!(verdict.outcome == Outcome::Pass, verdict.message.is_empty(), "{verdict:?}");
        assert!(verdict.step < recorded.answers.len());
        assert!(verdict.ratio.is_none_or(|ratio| ratio >= 0.0), "a ratio of {:?}", verdict.ratio);
    }
}

/// The case with the reference's own answers, each step fed with the state of the one before.
fn answered_by_the_reference(case: &Case) -> RecordedCase {
    let mut reference = Builtin::new("reference").expect("it is compiled in");
    let mut answers: Vec<Answer> = Vec::new();
    let mut asked: Option<Request> = None;
    for step in 0..case.steps.len() {
        let request = case.request(step, asked.as_ref().zip(answers.last()));
        answers.push(reference.answer(&request).expect("the reference answers every call"));
        asked = Some(request);
    }
    RecordedCase { case: case.clone(), answers }
}

/// The file with every `old` in its header replaced by `new`, of the same length; `None` where there is none.
fn replace_in_header(data: &[u8], old: &str, new: &str) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(*data.first_chunk()?);
    let (header, tensors) = data[8..].split_at_checked(usize::try_from(length).ok()?)?;
    let header = std::str::from_utf8(header).ok()?;
    let mended = header.replace(old, new);
    (mended != header).then(|| [&data[..8], mended.as_bytes(), tensors].concat())
}
