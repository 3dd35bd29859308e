//! From findings to dialects: the one with the fewest departures.

use super::{About, Finding};
use crate::operation::{BatchNormDialect, Operation};

/// The most departures from a dialect that still is one: with more of them it says nothing.
pub(super) const FORGIVEN: usize = 2;

/// How well a dialect fits.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The dialect.
    pub dialect: BatchNormDialect,
    /// Where the layer departs from it.
    pub departures: Vec<Departure>,
    /// Others that no question tells from it.
    pub alike: Vec<BatchNormDialect>,
}

/// One departure.
#[derive(Clone, Debug, PartialEq)]
pub struct Departure {
    /// The question.
    pub question: &'static str,
    /// The layer's answer.
    pub says: String,
}

/// Every dialect that the operation has, the nearest first. Of equals the one that the layer was asked in comes first, then
/// the order of the table.
pub(super) fn decide(findings: &[Finding], asked_in: BatchNormDialect, operation: &str) -> Vec<Fit> {
    let has = |dialect: &&BatchNormDialect| Operation::dialects(operation).contains(&dialect.name());
    let mut fits: Vec<Fit> = Vec::new();
    for &dialect in BatchNormDialect::ALL.iter().filter(has) {
        let departures: Vec<Departure> = findings.iter().filter_map(|finding| departure(finding, dialect)).collect();
        let indistinct = |fit: &&mut Fit| fit.departures == departures && fit.dialect.rule() == dialect.rule();
        match fits.iter_mut().find(indistinct) {
            Some(fit) if dialect == asked_in => {
                fit.alike.insert(0, fit.dialect);
                fit.dialect = dialect;
            }
            Some(fit) => fit.alike.push(dialect),
            None => fits.push(Fit { dialect, departures, alike: Vec::new() }),
        }
    }
    fits.sort_by_key(|fit| (fit.departures.len(), fit.dialect != asked_in));
    fits
}

/// How a finding departs from a dialect, if it does: no choice fits, or the one that does is not the dialect's.
fn departure(finding: &Finding, dialect: BatchNormDialect) -> Option<Departure> {
    let concerned = match finding.about {
        About::Every => true,
        About::With(state) => dialect.conventions().state.contains(&state),
        About::Pytorch => dialect == BatchNormDialect::Pytorch,
        About::Arithmetic => false,
    };
    let own = dialect.rule();
    let departs = finding.choice.as_ref().is_none_or(|choice| {
        let mut rule = own;
        (choice.edit)(&mut rule);
        rule != own
    });
    (concerned && departs).then(|| Departure { question: finding.question, says: finding.says.clone() })
}
