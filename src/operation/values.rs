//! What definitions have in common that take their tensors apart themselves: elements in an arithmetic, gradients that are
//! asked for, shapes that must fit.

use super::{Call, Description, Output, Refusal, RefusalKind};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// The elements of tensor `name`; none if it was not sent.
pub(super) fn kept<A: Arithmetic>(arithmetic: &A, tensors: &Tensors<Vec<A::Input>>, name: &str) -> Vec<A::Real> {
    tensors.get(name).into_iter().flatten().map(|&x| arithmetic.keep(x)).collect()
}

/// The elements at `positions`.
pub(super) fn at<T: Copy>(values: &[T], positions: &[usize]) -> Vec<T> {
    positions.iter().map(|&position| values[position]).collect()
}

/// `count` sums without terms.
pub(super) fn sums<R: Real>(count: usize) -> Vec<Vec<R>> {
    vec![Vec::new(); count]
}

/// Each sum added up.
pub(super) fn added<R: Real>(terms: Vec<Vec<R>>) -> Vec<R> {
    terms.into_iter().map(|terms| R::sum(terms.into_iter())).collect()
}

/// The gradients of those tensors that were sent, in their shapes.
pub(super) fn gradients<R, const N: usize>(
    shapes: &Tensors<Description>,
    gradients: [(&str, Vec<R>); N],
) -> Tensors<Output<R>> {
    let mut sent = Tensors::new();
    for (name, values) in gradients {
        if let Some(Description { shape, .. }) = shapes.get(name) {
            sent.insert(format!("grad_{name}"), Output { shape: shape.clone(), values });
        }
    }
    sent
}

/// Of some gradients those by the tensors `differentiable`.
pub(super) fn only<R>(mut gradients: Tensors<R>, differentiable: &[&str]) -> Tensors<R> {
    gradients.retain(|name, _| differentiable.iter().any(|tensor| name.strip_prefix("grad_") == Some(tensor)));
    gradients
}

/// A refusal of the shape of tensor `name`.
pub(super) fn misshapen(name: &str, shape: &[usize], expected: &str) -> Refusal {
    Refusal::new(RefusalKind::Shape, format!("{name} has shape {shape:?}; expected {expected}"))
}

/// Each of the tensors that were sent has the shape `expected`.
pub(super) fn check_shapes(call: &Call<'_>, names: &[&str], expected: &[usize]) -> Result<(), Refusal> {
    for name in names {
        match call.shape(name) {
            Some(shape) if shape != expected => return Err(misshapen(name, shape, &format!("{expected:?}"))),
            _ => {}
        }
    }
    Ok(())
}

/// N, C and the number of positions of an input of rank 2 or more, or as `ranks` says.
pub(super) fn channels_first(
    call: &Call<'_>,
    ranks: std::ops::RangeInclusive<usize>,
    expected: &str,
) -> Result<[usize; 3], Refusal> {
    let shape = call.tensors["input"].shape.as_slice();
    if !ranks.contains(&shape.len()) {
        return Err(misshapen("the input", shape, expected));
    }
    Ok([shape[0], shape[1], shape[2..].iter().product()])
}
