//! Which dialect is this layer? Worked out from its answers alone.
//!
//! Each [`Question`] is a designed case with its possible answers: rules, such as "momentum weighs the new value". What a
//! rule makes of the case is computed by the reference, with the bound of a good program beside it. The subject's answer
//! fits a rule if it lies within that bound; the case is designed so that the rules lie thousands of bounds apart, so one
//! fits, or none does. A dialect's departures are the answers that its own rule would not have given; the dialect with the
//! fewest is named.

mod decision;
mod numerics;
mod prediction;
mod questions;

pub use decision::{Departure, Fit};
pub use questions::{Choice, Question, questions};

use crate::arithmetic::{DataType, Format};
use crate::case::{Answer, Case, Request};
use crate::operation::{BatchNormDialect, Operation, Rule, TORCH_FAMILY};
use crate::subject::{CaseRun, Fault, Hello, Pool};
use prediction::Predicted;

/// Why there is nothing to identify.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unidentifiable {
    /// It claims no operation of the family, or not the one that was asked for.
    #[error("it does not claim {asked}; it claims {}", claimed.join(", "))]
    NotClaimed {
        /// What was asked for.
        asked: String,
        /// What it claims.
        claimed: Vec<String>,
    },
    /// It does not speak the dialect that it was to be asked in.
    #[error("it does not claim the dialect {dialect} of {operation}; it claims {}", claimed.join(", "))]
    NotSpoken {
        /// The dialect.
        dialect: String,
        /// The operation.
        operation: String,
        /// What it claims.
        claimed: Vec<String>,
    },
    /// It claims no floating-point type.
    #[error("it claims no floating-point data type")]
    NoType,
    /// It could not be asked to the end.
    #[error("it could not be asked to the end: {0}")]
    Lost(Fault),
}

/// What a question came to.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The question's name.
    pub question: &'static str,
    /// What was asked.
    pub asks: &'static str,
    /// The answer, in words.
    pub says: String,
    /// The choice that fits; `None` where none does.
    pub choice: Option<Choice>,
    /// How far the subject's answer is from that of the nearest other choice, in bounds: how decisive the case is.
    pub decided_by: f64,
    /// The case that decided, in a line.
    pub case: String,
    /// What of a layer the question is about, if not of every one.
    pub about: About,
}

/// Whom a question can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Every dialect.
    Every,
    /// Dialects that hand on this state.
    With(&'static str),
    /// PyTorch's alone.
    Pytorch,
    /// A layer's arithmetic: every dialect takes any.
    Arithmetic,
}

/// What a layer is.
#[derive(Clone, Debug)]
pub struct Identification {
    /// The operation that was asked about.
    pub operation: String,
    /// The dialect that it was asked in.
    pub asked_in: BatchNormDialect,
    /// The data type of most questions.
    pub dtype: DataType,
    /// What the questions came to, in order.
    pub findings: Vec<Finding>,
    /// The dialects by their departures, the nearest first.
    pub fits: Vec<Fit>,
}

impl Identification {
    /// The nearest dialect, if it departs so little that it may be named.
    pub fn dialect(&self) -> Option<&Fit> {
        self.fits.first().filter(|fit| fit.departures.len() <= decision::FORGIVEN)
    }
}

/// Whom to ask, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The operation; by default batch norm, or the first of the family that is claimed.
    pub operation: Option<String>,
    /// The dialect to ask in; by default PyTorch, or the first that is claimed.
    pub dialect: Option<BatchNormDialect>,
}

/// Identifies the subject of a pool.
///
/// # Errors
/// [`Unidentifiable`] where it does not claim what it is to be asked, or is lost on the way.
pub fn identify(pool: &mut Pool<'_>, options: &Options) -> Result<Identification, Unidentifiable> {
    let hello = pool.hello().clone();
    let operation = operation(&hello, options)?;
    let asked_in = dialect(&hello, &operation, options)?;
    let dtype =
        DataType::FLOATS.into_iter().find(|dtype| hello.dtypes.contains(dtype)).ok_or(Unidentifiable::NoType)?;
    let mut rule = asked_in.rule();
    let mut findings = Vec::new();
    let mut narrow = Vec::new();
    for question in questions(&operation, asked_in, dtype) {
        let run = ask(pool, &question.case)?;
        let mut finding = answered(&question, &run, &rule, None);
        if finding.choice.is_none() && dtype == DataType::F64 {
            let other = answered(&question, &run, &rule, Some(Format::F32));
            if other.choice.is_some() {
                narrow.push(question.name);
                finding = other;
            }
        }
        if let Some(choice) = &finding.choice {
            (choice.edit)(&mut rule);
        }
        findings.push(finding);
    }
    if !narrow.is_empty() {
        findings.push(precision(&narrow));
    }
    for (question, case) in numerics::cases(&operation, asked_in, &hello) {
        let run = ask(pool, &case)?;
        let one_pass = findings.last().is_some_and(|last: &Finding| last.says.contains(numerics::ONE_PASS));
        findings.extend(numerics::answered(question, &case, &run, &rule, one_pass));
    }
    let fits = decision::decide(&findings, asked_in, &operation);
    Ok(Identification { operation, asked_in, dtype, findings, fits })
}

fn operation(hello: &Hello, options: &Options) -> Result<String, Unidentifiable> {
    let claimed = |name: &&str| hello.operations.iter().any(|other| other == name);
    let found = match &options.operation {
        Some(name) => TORCH_FAMILY.iter().copied().find(|other| other == name).filter(claimed),
        None => TORCH_FAMILY.iter().copied().find(claimed),
    };
    found.map(str::to_owned).ok_or_else(|| Unidentifiable::NotClaimed {
        asked: options.operation.clone().unwrap_or_else(|| format!("any of {}", TORCH_FAMILY.join(", "))),
        claimed: hello.operations.clone(),
    })
}

fn dialect(hello: &Hello, operation: &str, options: &Options) -> Result<BatchNormDialect, Unidentifiable> {
    let pytorch = BatchNormDialect::Pytorch;
    let default = vec![pytorch.name().to_owned()];
    let claimed = hello.dialects.get(operation).unwrap_or(&default);
    let speaks = |dialect: &BatchNormDialect| claimed.iter().any(|name| name == dialect.name());
    let of_operation = |dialect: &BatchNormDialect| Operation::dialects(operation).contains(&dialect.name());
    let wanted = match options.dialect {
        Some(dialect) => Some(dialect).filter(|dialect| speaks(dialect) && of_operation(dialect)),
        None if speaks(&pytorch) => Some(pytorch),
        None => BatchNormDialect::ALL.iter().copied().find(|dialect| speaks(dialect) && of_operation(dialect)),
    };
    wanted.ok_or_else(|| Unidentifiable::NotSpoken {
        dialect: options.dialect.unwrap_or(pytorch).name().to_owned(),
        operation: operation.to_owned(),
        claimed: claimed.clone(),
    })
}

/// What became of a case.
fn ask(pool: &mut Pool<'_>, case: &Case) -> Result<CaseRun, Unidentifiable> {
    let run = pool.run(&[case], &|_| ()).pop().expect("one case, one run");
    match pool.gave_up() {
        Some(fault) => Err(Unidentifiable::Lost(fault)),
        None => Ok(run),
    }
}

/// That an F64 input is computed in F32.
fn precision(questions: &[&str]) -> Finding {
    Finding {
        question: "precision",
        asks: "in which type an F64 input is computed",
        says: format!("in F32, where an F64 program is asked: {}", questions.join(", ")),
        choice: None,
        decided_by: f64::INFINITY,
        case: "the cases above".to_owned(),
        about: About::Arithmetic,
    }
}

/// The choice that the subject's answers fit, given what is known of its rule; of a program that computes in `own`, if that
/// is not the usual type.
fn answered(question: &Question, run: &CaseRun, rule: &Rule, own: Option<Format>) -> Finding {
    let steps: Option<Vec<(&Request, &Answer)>> =
        run.steps.iter().map(|(request, answer)| Some((request, answer.as_ref().ok()?))).collect();
    let steps = steps.filter(|steps| steps.len() == question.case.steps.len());
    let distance = |choice: &Choice| -> f64 {
        let mut rule = *rule;
        (choice.edit)(&mut rule);
        let Some(steps) = &steps else { return f64::INFINITY };
        let of_step = |(request, answer): &(&Request, &Answer)| {
            let predicted = match own {
                Some(own) => Predicted::narrow(&request.call, &rule, own),
                None => Predicted::of(&request.call, &rule),
            };
            predicted.distance(answer, question.compares)
        };
        steps.iter().map(of_step).fold(0.0, f64::max)
    };
    let mut distances: Vec<(f64, &Choice)> = question.choices.iter().map(|choice| (distance(choice), choice)).collect();
    distances.sort_by(|a, b| a.0.total_cmp(&b.0));
    let fits = |distance: f64| distance <= 1.0;
    // Where the case cannot tell two of them apart, the one that says nothing new.
    let changes = |choice: &Choice| {
        let mut edited = *rule;
        (choice.edit)(&mut edited);
        edited != *rule
    };
    let fitting = distances.iter().filter(|(distance, _)| fits(*distance));
    let choice = fitting.min_by_key(|(_, choice)| changes(choice)).map(|(_, choice)| (*choice).clone());
    let next = distances.iter().find(|(distance, _)| !fits(*distance)).map_or(f64::INFINITY, |next| next.0);
    let says = match (&choice, &steps) {
        (Some(choice), _) => choice.says.to_owned(),
        (None, Some(steps)) => {
            let (request, answer) = steps[0];
            question
                .otherwise
                .and_then(|otherwise| otherwise(request, answer))
                .unwrap_or_else(|| "none of these".into())
        }
        (None, None) => match run.steps.last() {
            Some((_, Err(fault))) => format!("no answer: {fault}"),
            Some((_, Ok(Answer::Unsupported(why)))) => format!("not supported: {why}"),
            _ => "no answer".to_owned(),
        },
    };
    Finding {
        question: question.name,
        asks: question.asks,
        says,
        choice,
        decided_by: next,
        case: question.case.comment.clone(),
        about: question.about,
    }
}
