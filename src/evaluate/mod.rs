//! The operations of the normalization family on binary64, nearly correctly rounded, as fast as a framework's kernels.
//!
//! The reference says what is true, with a radius for each element; this is the same arithmetic without the radii, for
//! those who want the numbers: 8 bytes an element instead of 24, each element read two or three times while it is in a
//! cache, each output written once, all cores at work.
//!
//! ```text
//! statistics    p, δ, v as the reference's, r = 1/√(v + eps)                    double-double numbers
//! forward       z = w·(((x − p) − δ)·r) + b                                     rounded once, of about 100 bits
//! backward      a = g·w      t = (x − p) − δ
//!               grad_input  = a·r − r·mean a − t·r³·mean(a·t)                   likewise
//!               grad_weight = Σ g·t·r      grad_bias = Σ g                      compensated sums
//! ```
//!
//! # Errors
//! In units of u² = 2⁻¹⁰⁶ the deviation t, a pair of binary64 numbers, is within 4·(|t| + |δ|) of what its operands say:
//! x − p and the subtraction of δ are exact pairs, the three small parts are added with two roundings. Where |μ| is below
//! 2²⁴·σ, p is the rounded mean and δ its rest; then δ is added to the errors of x − p, and t is within |t| + |p| besides,
//! 2⁻⁸²·σ. Three more for the product with r, three for that with w, two for b: with 16 the pair z is within
//! 16u²·(|w·y| + |b|). Beside that stand the statistics: r is within 2⁻⁷⁵ and δ within 2⁻⁸²·σ (a group with less sharp
//! ones goes another way, see below). So
//!
//! |z computed − z| ≤ ½·ulp(z) + 2⁻⁷⁴·(|w|·(|y| + 1) + |b|),
//!
//! half a unit in the last place and a millionth more where w·y and b do not cancel and x is not within a millionth of σ
//! of the mean: a tie, or nearly one, may go the wrong way. Likewise
//!
//! |grad_input computed − grad_input| ≤ ½·ulp + 2⁻⁷²·(|a| + mean |a| + (|y| + 1)·mean|a·y|)/σ,
//!
//! and the gradients of the parameters are within ½·ulp + 2⁻⁷²·Σ|g|·(|y| + 1) and ½·ulp + 2⁻⁷²·Σ|g| (of up to 2²²
//! samples, where each element has its own parameters). A result below 2⁻⁹⁶⁹, where errors of products underflow, may be
//! off by 2⁻¹⁰⁷¹ besides. Groups with a NaN or an infinity, with squares that over- or underflow, or with statistics that
//! double-double numbers do not hold go through the reference, element by element, and are what it says; its radius is
//! their error then.
//!
//! # Bits
//! They are the same on every machine and with any number of threads: eight lanes whatever the vectors' width, and sums
//! over groups in an order that follows from shapes alone.

mod backward;
mod forward;
mod kernels;
mod layout;
mod lines;
mod statistics;
#[cfg(test)]
mod tests;

use fearless_simd::Level;

use crate::operation::{Outputs, Plan};
use crate::tensor::Tensors;

/// The outputs of a call: `output`, and the running statistics where the plan has some.
///
/// `tensors` are those of the call in C order, [`Signature::required`](crate::operation::Signature::required) ones and any
/// optional ones, of the shapes that `plan` was made from.
///
/// ```
/// use normative::arithmetic::DataType;
/// use normative::operation::{Call, Description, Mode, Operation, Rule};
/// use normative::{Tensors, evaluate};
///
/// let text = r#"{"name": "layer_norm", "normalized_shape": [2], "eps": 0.0}"#;
/// let operation: Operation = serde_json::from_str(text).unwrap();
/// let shapes = Tensors::from([("input".to_owned(), Description { dtype: DataType::F64, shape: vec![2, 2] })]);
/// let call = Call { mode: Mode::Eval, tensors: &shapes, num_batches_tracked: None };
/// let plan = operation.plan(&call, &Rule::default()).unwrap();
///
/// let input = [0.1, 0.3, 1e15, 1e15 + 1.0];
/// let outputs = evaluate::forward(&plan, &Tensors::from([("input".to_owned(), &input[..])]));
/// assert_eq!(outputs.tensors["output"].values, [-1.0, 1.0, -1.0, 1.0]);
/// ```
///
/// # Panics
/// If `plan` is not one of the family of standardizing norms, or a tensor is missing or has another length.
pub fn forward(plan: &Plan, tensors: &Tensors<&[f64]>) -> Outputs<f64> {
    forward::forward(Level::new(), plan, tensors)
}

/// The gradients `grad_input`, and `grad_weight` and `grad_bias` where there is such a parameter, given the gradient
/// `grad_output.output` of the output; each in C order, as long as what it is the gradient of.
///
/// ```
/// # use normative::arithmetic::DataType;
/// # use normative::operation::{Call, Description, Mode, Operation, Rule};
/// # use normative::{Tensors, evaluate};
/// # let text = r#"{"name": "rms_norm", "normalized_shape": [2], "eps": 0.0}"#;
/// # let operation: Operation = serde_json::from_str(text).unwrap();
/// # let shapes = Tensors::from([("input".to_owned(), Description { dtype: DataType::F64, shape: vec![1, 2] })]);
/// # let call = Call { mode: Mode::Eval, tensors: &shapes, num_batches_tracked: None };
/// let plan = operation.plan(&call, &Rule::default()).unwrap(); // RMS norm of one row of two
///
/// let (input, seed) = ([1.0, -1.0], [2.0, 0.0]);
/// let tensors = [("input", &input[..]), ("grad_output.output", &seed[..])];
/// let tensors = tensors.map(|(name, values)| (name.to_owned(), values)).into();
/// assert_eq!(evaluate::backward(&plan, &tensors)["grad_input"], [1.0, 1.0]);
/// ```
///
/// # Panics
/// As [`forward()`].
pub fn backward(plan: &Plan, tensors: &Tensors<&[f64]>) -> Tensors<Vec<f64>> {
    backward::backward(Level::new(), plan, tensors)
}
