//! Whitening: what layers that decorrelate the channels have in common.
//!
//! ```text
//! input: [N, C, *]    X: [C, n], the n = N·L values of each channel less their mean μ      Σ = eps·I + X·Xᵀ/n
//! train  y = W·X·w_c + b_c, W of Σ     running_mean ← (1 − m)·running_mean + m·μ      running_projection likewise, of W
//! eval   y = running_projection·(x − running_mean)·w_c + b_c        running_projection: [C, C]
//! ```
//! The channels are one group; the papers also whiten groups of them by themselves. One value gives b.

use super::formula::{Evaluator, Layer, Named, affine, moved, sizes};
use super::values::check_shapes;
use super::{Call, Plan, Refusal, Rule, Signature, Source};
use crate::arithmetic::Real;

/// What whitening takes and keeps.
pub(super) const SIGNATURE: Signature = Signature {
    required: &["input", "running_mean", "running_projection"],
    state: &["running_mean", "running_projection"],
    ..Signature::TRAINED
};

/// The plan of a layer that whitens.
///
/// # Errors
/// If the input has a rank below 2 or no values, or a tensor has another type or shape.
pub(super) fn plan(eps: f64, momentum: f64, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
    let layer = Layer::of(SIGNATURE, eps).but(&["running_projection"]);
    let plan = layer.moving("running_mean", momentum).plan(call, rule)?;
    let channels = plan.partition.inner;
    check_shapes(call, &["running_projection"], &[channels, channels])?;
    Ok(plan)
}

/// The outputs, where `projection` is W of Σ, both row by row.
pub(super) fn outputs<E: Evaluator>(
    evaluator: &E,
    plan: &Plan,
    rule: &Rule,
    projection: impl FnOnce(&[E::Real]) -> Vec<E::Real>,
) -> Vec<Named<E::Real>> {
    let mut y = evaluator.tensor("input");
    let [_, channels, _] = sizes(plan);
    let positions: Vec<Vec<usize>> = (0..channels).map(|channel| plan.partition.positions(channel)).collect();
    let of_batch = |channel: usize| evaluator.moments("input", &positions[channel], true, rule.degrees_of_freedom);
    let batch: Vec<(E::Real, E::Real)> = (0..channels).map(of_batch).collect();
    let (stored_means, stored) = (evaluator.tensor("running_mean"), plan.source == Source::Stored);
    let projection = match stored {
        true => evaluator.tensor("running_projection"),
        false => projection(&covariance(evaluator, plan, rule, &batch, &positions)),
    };
    for channel in 0..channels {
        let mean = if stored { stored_means[channel] } else { batch[channel].0 };
        for &position in &positions[channel] {
            y[position] = y[position].deviation(mean);
        }
    }
    for index in 0..positions[0].len() {
        let column: Vec<E::Real> = positions.iter().map(|own| y[own[index]]).collect();
        for (row, own) in projection.chunks(channels).zip(&positions) {
            y[own[index]] = E::Real::sum(row.iter().zip(&column).map(|(&w, &x)| w * x));
        }
    }
    let (name, _, values) = moved(evaluator, plan, "running_projection", &|index| projection[index]);
    vec![
        affine(evaluator, plan, y),
        moved(evaluator, plan, "running_mean", &|channel| batch[channel].0),
        (name, vec![channels, channels], values),
    ]
}

/// The product of two square matrices.
pub(super) fn product<R: Real>(left: &[R], right: &[R], size: usize) -> Vec<R> {
    let element = |index: usize| {
        let (row, column) = (index / size, index % size);
        R::sum((0..size).map(|k| left[row * size + k] * right[k * size + column]))
    };
    (0..size * size).map(element).collect()
}

/// The identity.
pub(super) fn identity<R: Real>(size: usize) -> Vec<R> {
    (0..size * size).map(|index| R::constant(if index.is_multiple_of(size + 1) { 1.0 } else { 0.0 })).collect()
}

/// Σ, row by row.
fn covariance<E: Evaluator>(
    evaluator: &E,
    plan: &Plan,
    rule: &Rule,
    batch: &[(E::Real, E::Real)],
    positions: &[Vec<usize>],
) -> Vec<E::Real> {
    let size = batch.len();
    let x = evaluator.tensor("input");
    let deviations = |channel: usize| -> Vec<E::Real> {
        positions[channel].iter().map(|&position| x[position].deviation(batch[channel].0)).collect()
    };
    let deviations: Vec<Vec<E::Real>> = (0..size).map(deviations).collect();
    let count = E::Real::constant(positions[0].len() as f64 - f64::from(rule.degrees_of_freedom));
    let eps = evaluator.parameter(rule.scale(plan.eps).eps);
    let element = |(i, j): (usize, usize)| {
        if i == j {
            return batch[i].1 + eps;
        }
        E::Real::sum(deviations[i].iter().zip(&deviations[j]).map(|(&a, &b)| a * b)) / count
    };
    (0..size * size).map(|index| element((index / size, index % size))).collect()
}
