//! The vector kernels of a run of elements: rescaling, sums of a gradient, gradients.
//!
//! ```text
//! x, g, output: a run of one group      w, b: one value, or one for each element      columns: a sample
//! ```
//! What makes a tensor says whether all that it computed is finite: a NaN or an infinity spoils the small parts of a
//! pair, so what has one is for the reference. Each exists for none, one and two [`Shift`]s, and for each level.

use fearless_simd::{Level, Simd, dispatch, f64x8, prelude::*};

use super::lines::{Finite, Lines, Operand, splat, weighted};
use crate::arithmetic::lanes::{BLOCK, LANES, Sum, add_pairs, padded, two_sum};
use crate::arithmetic::{DoubleDouble, Line, Parameter, Shift};

/// z = w·((x − p) − δ)·r + b.
pub(super) fn rescale(
    level: Level,
    x: &[f64],
    line: &Line,
    weight: Option<Parameter<'_, f64>>,
    bias: Option<Parameter<'_, f64>>,
    output: &mut [f64],
) -> bool {
    dispatch!(level, simd => {
        let (weight, bias) = (Operand::of(simd, weight), Operand::of(simd, bias));
        match line.shift {
            Shift::None => rescale_in::<_, 0>(simd, x, line, weight, bias, output),
            Shift::Once => rescale_in::<_, 1>(simd, x, line, weight, bias, output),
            Shift::Twice => rescale_in::<_, 2>(simd, x, line, weight, bias, output),
        }
    })
}

/// The sums of a run that gradients are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradientSums {
    /// Σ a, a = g·w.
    pub gradient: DoubleDouble,
    /// Σ a·t, t = (x − p) − δ.
    pub along: DoubleDouble,
}

/// Running sums over samples, for each element of a sample: sum and its errors.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// Σ g·y.
    pub weight: [Vec<f64>; 2],
    /// Σ g.
    pub bias: [Vec<f64>; 2],
}

impl Columns {
    /// Nothing added to so many elements.
    pub fn new(count: usize) -> Columns {
        let zeros = || [vec![0.0; count], vec![0.0; count]];
        Columns { weight: zeros(), bias: zeros() }
    }
}

/// The sums of a run of inputs x and gradients g; adds to the columns from `first` on.
pub(super) fn gradient_sums(
    level: Level,
    (x, g): (&[f64], &[f64]),
    line: &Line,
    weight: Option<Parameter<'_, f64>>,
    columns: Option<(&mut Columns, usize)>,
) -> GradientSums {
    dispatch!(level, simd => {
        let weight = Operand::of(simd, weight);
        if let Some((columns, first)) = columns {
            match line.shift {
                Shift::None => column_sums_in::<_, 0>(simd, x, g, line, columns, first),
                Shift::Once => column_sums_in::<_, 1>(simd, x, g, line, columns, first),
                Shift::Twice => column_sums_in::<_, 2>(simd, x, g, line, columns, first),
            }
        }
        match line.shift {
            Shift::None => gradient_sums_in::<_, 0>(simd, x, g, line, weight),
            Shift::Once => gradient_sums_in::<_, 1>(simd, x, g, line, weight),
            Shift::Twice => gradient_sums_in::<_, 2>(simd, x, g, line, weight),
        }
    })
}

/// The coefficients of a·slope − constant − t·curve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coefficients {
    /// r.
    pub slope: DoubleDouble,
    /// r·mean a.
    pub constant: DoubleDouble,
    /// r³·mean(a·t).
    pub curve: DoubleDouble,
}

/// The gradients by the inputs x, for the gradients g.
pub(super) fn gradient(
    level: Level,
    (x, g): (&[f64], &[f64]),
    line: &Line,
    weight: Option<Parameter<'_, f64>>,
    coefficients: &Coefficients,
    output: &mut [f64],
) -> bool {
    dispatch!(level, simd => {
        let weight = Operand::of(simd, weight);
        match line.shift {
            Shift::None => gradient_in::<_, 0>(simd, x, g, line, weight, coefficients, output),
            Shift::Once => gradient_in::<_, 1>(simd, x, g, line, weight, coefficients, output),
            Shift::Twice => gradient_in::<_, 2>(simd, x, g, line, weight, coefficients, output),
        }
    })
}

/// a + b of columns of double-doubles: `total` ← `total` + (`sum` + `error`).
pub(super) fn add_columns(level: Level, total: &mut [Vec<f64>; 2], part: &[Vec<f64>; 2]) {
    dispatch!(level, simd => add_columns_in(simd, total, part))
}

#[inline(always)]
fn rescale_in<S: Simd, const SHIFTS: u8>(
    simd: S,
    x: &[f64],
    line: &Line,
    weight: Option<Operand<'_, S>>,
    bias: Option<Operand<'_, S>>,
    output: &mut [f64],
) -> bool {
    let line = Lines::of(simd, line);
    let (x_vectors, x_tail) = x.as_chunks::<LANES>();
    let (z_vectors, z_tail) = output.as_chunks_mut::<LANES>();
    let mut finite = Finite::new(simd);
    for (index, (x, out)) in x_vectors.iter().zip(z_vectors).enumerate() {
        let (w, b) = (Operand::vector(weight, simd, index), Operand::vector(bias, simd, index));
        let z = line.rescaled::<SHIFTS>(f64x8::simd_from(simd, *x), w, b);
        finite.look_at(z);
        z.store_array(out);
    }
    if !x_tail.is_empty() {
        let (w, b) = (Operand::tail(weight, simd), Operand::tail(bias, simd));
        let z = line.rescaled::<SHIFTS>(padded(simd, x_tail, x_tail[0]), w, b);
        finite.look_at(z);
        z_tail.copy_from_slice(&z.as_array()[..z_tail.len()]);
    }
    finite.all()
}

#[inline(always)]
fn gradient_sums_in<S: Simd, const SHIFTS: u8>(
    simd: S,
    x: &[f64],
    g: &[f64],
    line: &Line,
    weight: Option<Operand<'_, S>>,
) -> GradientSums {
    let line = Lines::of(simd, line);
    let (mut sum, mut along) = (Sum::new(simd), Sum::new(simd));
    let (x_vectors, x_tail) = x.as_chunks::<LANES>();
    let (g_vectors, g_tail) = g.as_chunks::<LANES>();
    for (block, (xs, gs)) in x_vectors.chunks(BLOCK).zip(g_vectors.chunks(BLOCK)).enumerate() {
        for (index, (x, g)) in xs.iter().zip(gs).enumerate() {
            let a = weighted(f64x8::simd_from(simd, *g), Operand::vector(weight, simd, block * BLOCK + index));
            line.add_gradient::<SHIFTS>(&mut sum, &mut along, f64x8::simd_from(simd, *x), a);
        }
        sum.empty();
        along.empty();
    }
    if !x_tail.is_empty() {
        let a = weighted(padded(simd, g_tail, 0.0), Operand::tail(weight, simd));
        line.add_gradient::<SHIFTS>(&mut sum, &mut along, padded(simd, x_tail, x_tail[0]), a);
    }
    GradientSums { gradient: sum.finish(), along: along.finish() }
}

#[inline(always)]
fn column_sums_in<S: Simd, const SHIFTS: u8>(
    simd: S,
    x: &[f64],
    g: &[f64],
    line: &Line,
    columns: &mut Columns,
    first: usize,
) {
    let line = Lines::of(simd, line);
    let length = x.len();
    let [weight, weight_error] = &mut columns.weight;
    let [bias, bias_error] = &mut columns.bias;
    let columns =
        [weight, weight_error, bias, bias_error].map(|column| column[first..][..length].as_chunks_mut::<LANES>());
    let [(w, w_tail), (we, we_tail), (b, b_tail), (be, be_tail)] = columns;
    let (x_vectors, x_tail) = x.as_chunks::<LANES>();
    let (g_vectors, g_tail) = g.as_chunks::<LANES>();
    for (((((x, g), w), we), b), be) in x_vectors.iter().zip(g_vectors).zip(w).zip(we).zip(b).zip(be) {
        let (x, g) = (f64x8::simd_from(simd, *x), f64x8::simd_from(simd, *g));
        let weight = (f64x8::simd_from(simd, *w), f64x8::simd_from(simd, *we));
        let bias = (f64x8::simd_from(simd, *b), f64x8::simd_from(simd, *be));
        let (weight, bias) = line.added_to_columns::<SHIFTS>(x, g, weight, bias);
        weight.0.store_array(w);
        weight.1.store_array(we);
        bias.0.store_array(b);
        bias.1.store_array(be);
    }
    if !x_tail.is_empty() {
        let [weight, weight_error, bias, bias_error] =
            [&*w_tail, &*we_tail, &*b_tail, &*be_tail].map(|sum| padded(simd, sum, 0.0));
        let (x, g) = (padded(simd, x_tail, x_tail[0]), padded(simd, g_tail, 0.0));
        let (weight, bias) = line.added_to_columns::<SHIFTS>(x, g, (weight, weight_error), (bias, bias_error));
        let sums = [weight.0, weight.1, bias.0, bias.1];
        for (sum, column) in sums.into_iter().zip([w_tail, we_tail, b_tail, be_tail]) {
            column.copy_from_slice(&sum.as_array()[..x_tail.len()]);
        }
    }
}

#[inline(always)]
fn gradient_in<S: Simd, const SHIFTS: u8>(
    simd: S,
    x: &[f64],
    g: &[f64],
    line: &Line,
    weight: Option<Operand<'_, S>>,
    coefficients: &Coefficients,
    output: &mut [f64],
) -> bool {
    let line = Lines::of(simd, line);
    let [slope, minus_constant, minus_curve] =
        [coefficients.slope, -coefficients.constant, -coefficients.curve].map(|pair| splat(simd, pair));
    let (x_vectors, x_tail) = x.as_chunks::<LANES>();
    let (g_vectors, g_tail) = g.as_chunks::<LANES>();
    let (z_vectors, z_tail) = output.as_chunks_mut::<LANES>();
    let mut finite = Finite::new(simd);
    for (index, ((x, g), out)) in x_vectors.iter().zip(g_vectors).zip(z_vectors).enumerate() {
        let a = weighted(f64x8::simd_from(simd, *g), Operand::vector(weight, simd, index));
        let x = f64x8::simd_from(simd, *x);
        let z = line.gradient::<SHIFTS>(x, a, slope, minus_constant, minus_curve);
        finite.look_at(z);
        z.store_array(out);
    }
    if !x_tail.is_empty() {
        let a = weighted(padded(simd, g_tail, 0.0), Operand::tail(weight, simd));
        let x = padded(simd, x_tail, x_tail[0]);
        let z = line.gradient::<SHIFTS>(x, a, slope, minus_constant, minus_curve);
        finite.look_at(z);
        z_tail.copy_from_slice(&z.as_array()[..z_tail.len()]);
    }
    finite.all()
}

#[inline(always)]
fn add_columns_in<S: Simd>(simd: S, total: &mut [Vec<f64>; 2], part: &[Vec<f64>; 2]) {
    let [total_hi, total_lo] = total;
    let (hi, hi_tail) = total_hi.as_chunks_mut::<LANES>();
    let (lo, lo_tail) = total_lo.as_chunks_mut::<LANES>();
    let [(sum, sum_tail), (error, error_tail)] = [&part[0], &part[1]].map(|column| column.as_chunks::<LANES>());
    for (((hi, lo), sum), error) in hi.iter_mut().zip(lo).zip(sum).zip(error) {
        let [a, b, c, d] = [&*hi, &*lo, sum, error].map(|lanes| f64x8::simd_from(simd, *lanes));
        let (a, b) = add_pairs((a, b), two_sum(c, d));
        a.store_array(hi);
        b.store_array(lo);
    }
    if !hi_tail.is_empty() {
        let [a, b, c, d] = [&*hi_tail, &*lo_tail, sum_tail, error_tail].map(|tail| padded(simd, tail, 0.0));
        let (a, b) = add_pairs((a, b), two_sum(c, d));
        hi_tail.copy_from_slice(&a.as_array()[..hi_tail.len()]);
        lo_tail.copy_from_slice(&b.as_array()[..lo_tail.len()]);
    }
}
