//! Bits: whether a subject gives the answers of a recording to the last bit.
//!
//! A verdict asks whether an answer is right; this asks whether it is the same. It is for subjects that claim to do
//! what a recorded one does, operation by operation: another build, another machine, an emulation.

use std::collections::BTreeMap;

use crate::case::{Answer, Case};
use crate::golden::RecordedCase;
use crate::subject::{CaseRun, Pool};
use crate::tensor::Tensor;

/// What became of the comparison of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The case's name.
    pub case: String,
    /// Its operation.
    pub operation: &'static str,
    /// Whether the answers are the same.
    pub outcome: Sameness,
    /// Values that were compared, of all steps and tensors.
    pub values: usize,
}

/// Whether two answers are the same.
#[derive(Clone, Debug, PartialEq)]
pub enum Sameness {
    /// In every bit. A NaN is a NaN, whatever its bits.
    Equal,
    /// Some value has other bits, or one of them refuses.
    Differing(Difference),
    /// There is no answer: it was not claimed, or a fault.
    Unanswered(String),
}

/// How two answers differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The first difference, in words.
    pub first: String,
    /// Values that differ.
    pub values: usize,
    /// Those of them that are neighbours: one unit in the last place apart.
    pub neighbours: usize,
}

/// The comparisons of an operation, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Cases.
    pub cases: usize,
    /// Cases with the same bits.
    pub equal: usize,
    /// Cases with other bits.
    pub differing: usize,
    /// Cases without an answer.
    pub unanswered: usize,
    /// Values that were compared.
    pub values: usize,
    /// Values with other bits.
    pub other_values: usize,
    /// Those of them that are neighbours: one unit in the last place apart.
    pub neighbours: usize,
}

/// Asks a pool what was recorded, and compares its answers with the recorded ones. In a sequence each step gets the
/// state that the subject itself returned, so a difference in it goes on.
pub fn compare(pool: &mut Pool<'_>, recorded: &[RecordedCase], progress: &(dyn Fn(usize) + Sync)) -> Vec<Compared> {
    let cases: Vec<&Case> = recorded.iter().map(|recorded| &recorded.case).collect();
    let runs = pool.run(&cases, progress);
    recorded.iter().zip(&runs).map(|(recorded, run)| compared(recorded, run)).collect()
}

/// Counts comparisons by operation.
pub fn counted(compared: &[Compared]) -> BTreeMap<&'static str, Counted> {
    let mut counts: BTreeMap<&'static str, Counted> = BTreeMap::new();
    for Compared { operation, outcome, values, .. } in compared {
        let count = counts.entry(operation).or_default();
        count.cases += 1;
        count.values += values;
        match outcome {
            Sameness::Equal => count.equal += 1,
            Sameness::Unanswered(_) => count.unanswered += 1,
            Sameness::Differing(difference) => {
                count.differing += 1;
                count.other_values += difference.values;
                count.neighbours += difference.neighbours;
            }
        }
    }
    counts
}

fn compared(recorded: &RecordedCase, run: &CaseRun) -> Compared {
    let unanswered = |why: String| Compared {
        case: recorded.case.name.clone(),
        operation: recorded.case.operation().name(),
        outcome: Sameness::Unanswered(why),
        values: 0,
    };
    let mut values = 0;
    let mut difference: Option<Difference> = None;
    let mut differs = |first: String, apart: &[(usize, u64)]| {
        let found = difference.get_or_insert(Difference { first, values: 0, neighbours: 0 });
        found.values += apart.len();
        found.neighbours += apart.iter().filter(|(_, units)| *units == 1).count();
    };
    for (step, expected) in recorded.answers.iter().enumerate() {
        if let Answer::Unsupported(why) = expected {
            return unanswered(format!("when it was recorded: {why}"));
        }
        let actual = match run.steps.get(step) {
            Some((_, Ok(Answer::Unsupported(why)))) => return unanswered(why.clone()),
            Some((_, Ok(answer))) => answer,
            Some((_, Err(fault))) => return unanswered(fault.to_string()),
            None => return unanswered("it was not run".to_owned()),
        };
        match (expected, actual) {
            (Answer::Tensors(_), Answer::Refused { refusal, .. }) => {
                differs(format!("step {step}: answered, and now {refusal}"), &[]);
            }
            (Answer::Refused { refusal, .. }, Answer::Tensors(_)) => {
                differs(format!("step {step}: {refusal}, and now answered"), &[]);
            }
            _ => {}
        }
        // What both have: an answer may have more than is asked for, a refusal less.
        for (name, expected) in expected.tensors().into_iter().flatten() {
            let Some(actual) = actual.get(name).filter(|actual| actual.shape() == expected.shape()) else { continue };
            values += expected.len();
            let apart: Vec<(usize, u64)> = distances(expected, actual).filter(|(_, units)| *units > 0).collect();
            if let Some((index, _)) = apart.first() {
                let (was, is) = (expected.get(*index), actual.get(*index));
                differs(format!("step {step}, {name}[{index}]: {was:e} was recorded, now it is {is:e}"), &apart);
            }
        }
    }
    let outcome = difference.map_or(Sameness::Equal, Sameness::Differing);
    Compared { values, outcome, ..unanswered(String::new()) }
}

/// How many representable values lie between the elements of two tensors of one shape.
fn distances(a: &Tensor, b: &Tensor) -> impl Iterator<Item = (usize, u64)> {
    let places = [a, b].map(places);
    let same_type = a.dtype() == b.dtype();
    let [a, b] = places;
    a.into_iter().zip(b).enumerate().map(move |(index, pair)| {
        let units = match pair {
            _ if !same_type => u64::MAX,
            (Some(a), Some(b)) => a.abs_diff(b),
            (None, None) => 0,
            _ => u64::MAX,
        };
        (index, units)
    })
}

/// The places of a tensor's elements among the values of its type, in order; `None` for NaN. −0 is one below 0.
fn places(tensor: &Tensor) -> Vec<Option<i64>> {
    let signed = |bits: u64, width: u32| {
        let magnitude = (bits & !(1 << (width - 1))) as i64;
        if bits >> (width - 1) & 1 == 1 { -1 - magnitude } else { magnitude }
    };
    match tensor {
        Tensor::F64(a) => a.iter().map(|v| (!v.is_nan()).then(|| signed(v.to_bits(), 64))).collect(),
        Tensor::F32(a) => a.iter().map(|v| (!v.is_nan()).then(|| signed(v.to_bits().into(), 32))).collect(),
        Tensor::F16(a) => a.iter().map(|v| (!v.is_nan()).then(|| signed(v.to_bits().into(), 16))).collect(),
        Tensor::BF16(a) => a.iter().map(|v| (!v.is_nan()).then(|| signed(v.to_bits().into(), 16))).collect(),
        Tensor::I64(a) => a.iter().map(|&v| Some(v)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::DataType;

    #[test]
    fn distances_count_representable_values() {
        let tensor = |dtype, values: &[f64]| Tensor::rounded(dtype, &[values.len()], values.to_vec());
        for dtype in DataType::FLOATS {
            let unit = 2.0 * dtype.format().unwrap().unit_roundoff();
            let a = tensor(dtype, &[1.0, 0.0, f64::NAN, 1.0, f64::NAN, 1.0]);
            let b = tensor(dtype, &[1.0, -0.0, f64::NAN, 1.0 + 3.0 * unit, 1.0, 1.0 - unit]);
            let found: Vec<u64> = distances(&a, &b).map(|(_, units)| units).collect();
            assert_eq!(found, [0, 1, 0, 3, u64::MAX, 2], "{dtype}");
        }
        let counters = [1, -1].map(Tensor::counter);
        assert_eq!(distances(&counters[0], &counters[1]).next(), Some((0, 2)));
        let other = distances(&tensor(DataType::F32, &[1.0]), &tensor(DataType::F64, &[1.0])).next();
        assert_eq!(other, Some((0, u64::MAX)));
    }
}
