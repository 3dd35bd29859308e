//! The matrix planted bug × check: which case, which law and which statistic finds which bug.
//!
//! ```text
//! catalogue     the required cases in F32 whose answer the bug moves by at least four bounds
//! properties    those that fail on its operations in F32, six rounds of seed 0
//! statistics    those that reject it on its operations in F64, seed 0
//! ```

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::statistic::{self, STATISTICS};
use super::{ROUNDS, cells, check, properties};
use crate::arithmetic::DataType;
use crate::case::{Level, catalogue};
use crate::conformance::Verdict;
use crate::conformance::power::{EXPOSED, effect};
use crate::judge::Outcome;
use crate::subject::planted::{BUGS, Bug};
use crate::subject::{Builtin, Pool};

/// Why a relation of two operations stays that no planted bug breaks.
const IN_BOTH: &str =
    "a planted bug is in both of its operations, so that they agree; it guards against one of them alone";

/// The checks that find no planted bug, and why each stays.
pub const IDLE: &[(&str, &str)] = &[("two-windows", IN_BOTH), ("length", IN_BOTH), ("controllers", IN_BOTH)];

/// What finds a planted bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The bug.
    pub bug: &'static str,
    /// The number of cases that show it.
    pub cases: usize,
    /// The properties that it breaks.
    pub properties: BTreeSet<&'static str>,
    /// The statistics that reject it.
    pub statistics: BTreeSet<&'static str>,
}

impl Row {
    /// The row of a bug, with what its statistics say if they are asked.
    pub fn of(bug: &'static Bug) -> Row {
        let mut pool = Pool::of(Box::new(Builtin::new(bug.name).expect("a planted bug is a builtin")));
        Row { statistics: statistics(bug, &mut pool), ..Row::without_statistics(bug) }
    }

    /// The row of a bug whose statistics are not asked: they are the larger part of the work.
    pub fn without_statistics(bug: &'static Bug) -> Row {
        let cases = catalogue::cases().par_iter().filter(|case| {
            let own = case.dtype() == DataType::F32 && bug.operations.contains(&case.operation().name());
            own && case.level == Level::Required && effect(case, bug) >= EXPOSED
        });
        let mut pool = Pool::of(Box::new(Builtin::new(bug.name).expect("a planted bug is a builtin")));
        Row { bug: bug.name, cases: cases.count(), properties: broken(bug, &mut pool), statistics: BTreeSet::new() }
    }

    /// Whether anything finds the bug.
    pub fn is_found(&self) -> bool {
        self.cases > 0 || !self.properties.is_empty() || !self.statistics.is_empty()
    }
}

/// The row of every planted bug, in their order.
pub fn rows() -> Vec<Row> {
    BUGS.par_iter().map(Row::of).collect()
}

/// Every check but the catalogue: the name of each property and of each statistic.
pub fn checks() -> impl Iterator<Item = &'static str> {
    properties().map(|property| property.name).chain(STATISTICS.iter().map(|statistic| statistic.name))
}

/// The properties that a bug breaks on its operations in F32.
fn broken(bug: &Bug, pool: &mut Pool<'_>) -> BTreeSet<&'static str> {
    let own = cells().filter(|cell| cell.dtype == DataType::F32 && bug.operations.contains(&cell.operation));
    let own: Vec<(&'static str, String)> = own.map(|cell| (cell.property.name, cell.name())).collect();
    let names: BTreeSet<&str> = own.iter().map(|(_, name)| name.as_str()).collect();
    let found = check(pool, 0, ROUNDS, &|name, _| names.contains(name));
    let failed: BTreeSet<&str> =
        found.iter().filter(|(verdict, _)| fails(verdict)).map(|it| it.0.case.as_str()).collect();
    own.iter().filter(|(_, name)| failed.contains(name.as_str())).map(|(property, _)| *property).collect()
}

/// The statistics that reject a bug on its operations in F64.
fn statistics(bug: &Bug, pool: &mut Pool<'_>) -> BTreeSet<&'static str> {
    let own = |name: &str| bug.operations.iter().any(|operation| name.ends_with(&format!("-{operation}-f64")));
    let found = statistic::check(pool, statistic::SEED, &own);
    let failed = found.iter().filter(|(verdict, _)| fails(verdict));
    failed.filter_map(|(verdict, _)| statistic::Statistic::from_name(&verdict.case)).map(|it| it.name).collect()
}

fn fails(verdict: &Verdict) -> bool {
    verdict.outcome > Outcome::Advisory
}
