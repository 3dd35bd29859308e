//! Sizes at which GPU kernels change course: a warp of 32 lanes, vectors of 16 bytes, blocks of 512 and 1024 threads, starts that
//! are not aligned to a vector, and grids, of which CUDA takes 65,535 blocks along the second and third dimension.

use super::Maker;
use super::member::Member;
use crate::arithmetic::DataType;
use crate::case::values::Values;
use crate::case::{Flag, Layout, LayoutFormat};

const OPERATIONS: [&str; 5] = ["batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm"];

/// Around warps and blocks, with vectors of four or eight and without; the families have 17, 32, 33, 128 and 1024.
const SIZES: [usize; 13] = [31, 63, 65, 96, 127, 129, 255, 257, 511, 513, 1000, 1023, 1025];

/// The most blocks along a grid's second dimension.
const GRID: usize = 65_535;

pub(super) fn make(maker: &mut Maker) {
    for name in OPERATIONS {
        for dtype in [DataType::F32, DataType::F16] {
            sizes(maker, name, dtype);
            starts(maker, name, dtype);
        }
    }
}

fn sizes(maker: &mut Maker, name: &str, dtype: DataType) {
    for size in SIZES {
        // A lane that is left out, or summed twice, moves such a mean, and with it the variance.
        let member = Member::new(format!("kernel-{size}"), name, dtype, |values| {
            (0..2).map(|_| values.normals(size, 4.0, 1.0)).collect()
        });
        let comment = "A size near the edges of a GPU's vectors, warps and blocks.";
        let member = member.comment(comment).topics(&[Flag::Kernel]);
        let member = if size < 256 { member } else { member.forward_only() };
        member.add(maker, name, dtype);
    }
}

/// Rows that could be read as vectors, but do not start where a vector may.
fn starts(maker: &mut Maker, name: &str, dtype: DataType) {
    for offset in [1, 2] {
        let member = Member::new(format!("kernel-start-{offset}"), name, dtype, |values| {
            (0..2).map(|_| values.normals(256, 1.0, 1.0)).collect()
        });
        let comment = "The length of whole vectors, from a start that is aligned to none.";
        let member = member.comment(comment).topics(&[Flag::Kernel, Flag::MemoryFormat]);
        member.layout(Layout { format: LayoutFormat::Contiguous, offset }).add(maker, name, dtype);
    }
}

/// The cases that are too large to be recorded.
pub(super) fn make_grids(maker: &mut Maker) {
    for name in OPERATIONS {
        // Two groups a sample, or all of one kind.
        let (groups, num_groups) =
            if matches!(name, "group_norm" | "instance_norm") { (GRID + 3, 2) } else { (GRID + 2, 1) };
        let member = Member::new(format!("grid-{groups}"), name, DataType::F32, |values| rows(values, groups, 4));
        let comment = "More groups than a GPU's grid has blocks along its second dimension.";
        let member = member.comment(comment).topics(&[Flag::Grid]);
        let member = member.split(if name == "batch_norm" { 2 } else { 1 }, num_groups);
        let member = if name == "layer_norm" { member } else { member.forward_only() };
        member.add(maker, name, DataType::F32);
    }
    let samples = 2 * GRID + 3;
    let member = Member::new(format!("grid-{samples}-samples"), "batch_norm", DataType::F32, |values| {
        vec![rows(values, samples, 1).concat()]
    });
    let comment = "More samples than twice the blocks that a GPU's grid has along its second dimension.";
    let member = member.comment(comment).topics(&[Flag::Grid]).split(samples, 1).forward_only();
    member.add(maker, "batch_norm", DataType::F32);
}

/// So many rows, of which no two in a hundred neighbours are alike; drawing each number would take its time.
fn rows(values: &mut Values, count: usize, length: usize) -> Vec<Vec<f64>> {
    let drawn: Vec<Vec<f64>> = (0..61).map(|_| values.normals(length, 1.0, 1.0)).collect();
    let scaled = |row: usize| drawn[row % 61].iter().map(|x| x * (1.0 + (row / 61 % 8) as f64 / 8.0)).collect();
    (0..count).map(scaled).collect()
}
