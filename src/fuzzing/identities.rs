//! Target `identities`: the laws of `property`, on what the bytes draw.

use std::sync::LazyLock;

use crate::judge::Outcome;
use crate::property::{Cell, ROUNDS, cells, check_drawn};
use crate::subject::{Builtin, Pool};

/// Correct programs, the exact one first.
const PROGRAMS: [&str; 4] = ["reference", "two_pass_lanes", "welford_folded", "two_pass_division"];

/// Tries the law that the first bytes choose, in one operation and data type, on the draws that the rest are, two bytes
/// each: how answers to related calls are related.
///
/// - The reference keeps it; so does a correct program, but for what careful implementations may differ in.
///
/// # Panics
/// If it does not.
pub fn identities(data: &[u8]) {
    static CELLS: LazyLock<Vec<Cell>> = LazyLock::new(|| cells().collect());
    let Some((&[low, high, round, who], draws)) = data.split_first_chunk() else { return };
    let cell = &CELLS[usize::from(u16::from_le_bytes([low, high])) % CELLS.len()];
    let draws: Vec<u64> =
        draws.chunks(2).map(|pair| pair.iter().fold(0, |draw, &byte| draw << 8 | u64::from(byte))).collect();
    let name = PROGRAMS[usize::from(who) % PROGRAMS.len()];
    let mut pool = Pool::of(Box::new(Builtin::new(name).expect("it is compiled in")));
    let Some((verdict, _)) = check_drawn(&mut pool, cell, usize::from(round) % ROUNDS, &draws) else { return };
    let worst = if name == "reference" { Outcome::Pass } else { Outcome::Advisory };
    assert!(verdict.outcome <= worst, "{name}, {}: {}", verdict.case, verdict.message);
}
