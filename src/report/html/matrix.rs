//! The matrix: what became of each check, a flag, in each operation.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::Report;
use crate::case::{Flag, FlagKind};
use crate::judge::Outcome;

/// A row for each flag, a column for each operation.
#[derive(Serialize)]
pub(super) struct Matrix {
    operations: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    flag: &'static str,
    meaning: &'static str,
    is_class: bool,
    cells: Vec<Option<Cell>>,
}

/// What became of the cases of an operation that carry a flag.
#[derive(Clone, Default, Serialize)]
struct Cell {
    cases: usize,
    failed: usize,
    /// Failures that are expected, and advisory misses.
    excused: usize,
    unsupported: usize,
    /// For the colour: `pass`, `fail`, `excused` or `unsupported`.
    tone: &'static str,
    /// The same without colour.
    sign: &'static str,
}

pub(super) fn matrix(report: &Report) -> Matrix {
    let mut operations: Vec<&'static str> = Vec::new();
    let mut cells: BTreeMap<(Flag, &'static str), Cell> = BTreeMap::new();
    for verdict in &report.verdicts {
        if !operations.contains(&verdict.operation) {
            operations.push(verdict.operation);
        }
        for &flag in &verdict.flags {
            let cell = cells.entry((flag, verdict.operation)).or_default();
            cell.cases += 1;
            cell.failed += usize::from(verdict.counts(report.strict));
            cell.unsupported += usize::from(verdict.outcome == Outcome::Unsupported);
            let miss = verdict.outcome != Outcome::Pass && verdict.outcome != Outcome::Unsupported;
            cell.excused += usize::from(miss && !verdict.counts(report.strict));
        }
    }
    for cell in cells.values_mut() {
        (cell.tone, cell.sign) = match cell {
            Cell { failed: 1.., .. } => ("fail", "×"),
            Cell { cases, unsupported, .. } if cases == unsupported => ("unsupported", "·"),
            Cell { excused: 1.., .. } => ("excused", "!"),
            _ => ("pass", "✓"),
        };
    }
    let row = |&flag: &Flag| Row {
        flag: flag.name(),
        meaning: flag.meaning(),
        is_class: flag.kind() == FlagKind::Class,
        cells: operations.iter().map(|&operation| cells.get(&(flag, operation)).cloned()).collect(),
    };
    let seen = |flag: &&Flag| operations.iter().any(|&operation| cells.contains_key(&(**flag, operation)));
    let rows = Flag::ALL.iter().filter(seen).map(row).collect();
    Matrix { operations, rows }
}
