//! Properties: laws that hold without knowing the answer, for any layer.
//!
//! ```text
//! a property × an operation × a data type: seeded rounds of related calls, one verdict
//! ```
//! A law relates answers to each other, or to what is simple to compute of the input. It holds to within what the bounds
//! of the answers leave open (see `trial.rs`), so it finds what recorded answers cannot: a formula that both sides have
//! wrong, and inputs that nobody wrote down.

mod check;
mod dialect;
mod gradient;
mod identity;
mod layer;
pub mod matrix;
mod moments;
mod norms;
mod online;
mod promise;
mod refusal;
mod repeat;
mod running;
mod setting;
pub mod statistic;
mod symmetry;
#[cfg(test)]
mod tests;
mod trial;

pub use check::{QUICK_ROUNDS, ROUNDS, caught_by, check, check_drawn};
pub use promise::{Axis, Promises, Sign, promises};

use crate::arithmetic::DataType;
use crate::case::Flag;
use crate::operation::Operation;
use setting::Setting;
use trial::Trial;

/// A law, and how it is tried.
#[derive(Clone, Copy)]
pub struct Property {
    /// The name, of `a–z` and `-`.
    pub name: &'static str,
    /// What holds, in a sentence.
    pub sentence: &'static str,
    /// The law as a formula.
    pub law: &'static str,
    /// Whose law it is.
    pub source: &'static str,
    /// The bug classes that it is made for, and its topics.
    pub flags: &'static [Flag],
    scope: Scope,
    trial: fn(&mut Setting) -> Option<Trial>,
}

/// Which operations a property holds for.
#[derive(Clone, Copy)]
enum Scope {
    /// These.
    Of(&'static [&'static str]),
    /// Those whose promises say so.
    Promising(fn(&Promises) -> bool),
}

/// Every operation.
const EVERY: Scope = Scope::Of(Operation::NAMES);
/// Those that see some shift: all but instance norm.
const SHIFTABLE: Scope = Scope::Promising(|it| !(it.shift && it.shift_of_channels && it.shift_of_samples));
/// Those with a degree.
const SCALABLE: Scope = Scope::Promising(|it| it.degree.is_some());
/// Those whose samples do not see each other.
const UNMIXED: Scope = Scope::Promising(|it| !it.mixes_samples);
/// Those whose output is a monotone function of the element within a group.
const MONOTONE: Scope = Scope::Promising(|it| it.monotone);
/// Those that some shift does not change.
const SHIFTED: Scope = Scope::Promising(|it| it.shift || it.shift_of_channels || it.shift_of_samples);
/// Those whose output's sign follows from the input's.
const SIGNED: Scope = Scope::Promising(|it| it.sign != Sign::Neither);
/// Those along whose axes a permutation goes through.
const PERMUTING: Scope = Scope::Promising(|it| !it.permutes.is_empty());

/// Every property.
pub fn properties() -> impl Iterator<Item = &'static Property> {
    let families: [&[Property]; 11] = [
        symmetry::PROPERTIES,
        moments::PROPERTIES,
        norms::PROPERTIES,
        identity::PROPERTIES,
        layer::PROPERTIES,
        online::PROPERTIES,
        refusal::PROPERTIES,
        gradient::PROPERTIES,
        repeat::PROPERTIES,
        running::PROPERTIES,
        dialect::PROPERTIES,
    ];
    families.into_iter().flatten()
}

impl Property {
    /// The operations for which it holds, in the order of the list.
    pub fn operations(&self) -> impl Iterator<Item = &'static str> {
        let scope = self.scope;
        let holds = move |it: &&Promises| match scope {
            Scope::Of(names) => names.contains(&it.operation),
            Scope::Promising(holds) => holds(it),
        };
        promises().iter().filter(holds).map(|it| it.operation)
    }

    /// The property called `name`, or that of the verdict called so.
    pub fn from_name(name: &str) -> Option<&'static Property> {
        let of_verdict = || cells().find(|cell| cell.name() == name).map(|cell| cell.property);
        properties().find(|property| property.name == name).or_else(of_verdict)
    }

    /// The name of its verdict on an operation in a data type.
    pub fn case_name(&self, operation: &str, dtype: DataType) -> String {
        format!("property-{}-{operation}-{}", self.name, dtype.name().to_lowercase())
    }
}

/// One property of one operation in one data type: what a verdict is about.
#[derive(Clone, Copy)]
pub struct Cell {
    /// The property.
    pub property: &'static Property,
    /// The operation.
    pub operation: &'static str,
    /// The data type of the input.
    pub dtype: DataType,
}

impl Cell {
    /// The name of the verdict.
    pub fn name(&self) -> String {
        self.property.case_name(self.operation, self.dtype)
    }
}

/// Every cell.
pub fn cells() -> impl Iterator<Item = Cell> {
    properties().flat_map(|property| {
        property.operations().flat_map(move |operation| {
            DataType::FLOATS.into_iter().map(move |dtype| Cell { property, operation, dtype })
        })
    })
}
