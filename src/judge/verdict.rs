//! Verdicts: what the judge found, and how good it is.

use serde::{Deserialize, Serialize};

use crate::arithmetic::{Law, VarianceLaw};

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything judged is within the bounds.
    Pass,
    /// A miss where careful implementations may differ.
    Advisory,
    /// The subject does not claim what the case needs.
    Unsupported,
    /// It ran past the time limit.
    Timeout,
    /// There is no answer: it ended, panicked, or sent what is none.
    Crash,
    /// Outside the bounds.
    Fail,
}

impl Outcome {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Advisory => "advisory",
            Outcome::Unsupported => "unsupported",
            Outcome::Timeout => "timeout",
            Outcome::Crash => "crash",
            Outcome::Fail => "fail",
        }
    }
}

/// How good an answer is, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// Every element is the correctly rounded result.
    Exact,
    /// Within the law of two passes.
    Stable,
    /// Within it only thanks to the folded form's extra terms.
    Folded,
    /// Within the law of Welford and merged chunks.
    Updating,
    /// A failure: right formula, unstable variance.
    OnePass,
    /// Outside every law.
    Wrong,
}

impl Grade {
    /// The grade of an answer that needs `law`.
    pub fn of(law: Law) -> Grade {
        match (law.variance, law.folded) {
            (VarianceLaw::TwoPass, false) => Grade::Stable,
            (VarianceLaw::TwoPass, true) => Grade::Folded,
            (VarianceLaw::Updating, _) => Grade::Updating,
            (VarianceLaw::OnePass, _) => Grade::OnePass,
        }
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Grade::Exact => "exact",
            Grade::Stable => "stable",
            Grade::Folded => "folded",
            Grade::Updating => "updating",
            Grade::OnePass => "one-pass",
            Grade::Wrong => "wrong",
        }
    }
}

/// The element whose error is the largest multiple of its bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Worst {
    /// The output.
    pub tensor: String,
    /// Where in it.
    pub index: Vec<usize>,
    /// The truth, to binary64.
    pub expected: f64,
    /// The answer.
    pub actual: f64,
    /// |actual − truth|, less the truth's radius.
    pub error: f64,
    /// The largest error of a good program.
    pub bound: f64,
}

impl Worst {
    /// The error as a multiple of the bound; 0/0 is 0.
    pub fn ratio(&self) -> f64 {
        ratio(self.error, self.bound)
    }
}

/// error/bound, where 0/0 is 0 and NaN is infinite.
pub(super) fn ratio(error: f64, bound: f64) -> f64 {
    match error / bound {
        _ if error == 0.0 => 0.0,
        ratio if ratio.is_nan() => f64::INFINITY,
        ratio => ratio,
    }
}

/// What the judge says of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Pass, advisory or fail.
    pub outcome: Outcome,
    /// How good the numbers are, where there are any.
    pub grade: Option<Grade>,
    /// The worst element under the law that the answer needs, or under the weakest good law.
    pub worst: Option<Worst>,
    /// What is wrong, in a sentence; empty for a pass.
    pub message: String,
}

impl Judgement {
    pub(super) fn pass() -> Judgement {
        Judgement { outcome: Outcome::Pass, grade: None, worst: None, message: String::new() }
    }

    pub(super) fn fail(message: impl Into<String>) -> Judgement {
        Judgement { outcome: Outcome::Fail, message: message.into(), ..Judgement::pass() }
    }

    /// The error of the worst element as a multiple of its bound.
    pub fn ratio(&self) -> Option<f64> {
        self.worst.as_ref().map(Worst::ratio)
    }
}
