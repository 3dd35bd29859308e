//! From a law to a bound for each element of each output: how far a good program's answer may lie from the truth.

use crate::arithmetic::{DataType, Format, Law, Majorant, Tracker};
use crate::case::{Declared, Step};
use crate::operation::{Plan, Rule};
use crate::tensor::Tensors;

/// The bounds of a step's outputs under one law.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The largest error before the result is stored, in the accumulating type.
    errors: Tensors<Vec<f64>>,
    accumulator: Format,
}

impl Bounds {
    /// Bounds for a program that `declared` how it sums.
    pub fn of(step: &Step, plan: &Plan, law: Law, declared: &Declared) -> Bounds {
        let accumulator = accumulator(step.tensors["input"].dtype(), declared);
        let tracker = tracker(law, accumulator, declared);
        let (values, rule) = (step.values(|x| x), Rule::default());
        let mut outputs = step.operation.forward(&tracker, plan, &values, &rule).tensors;
        if step.gradients {
            outputs.extend(step.operation.backward(&tracker, plan, &values, &step.descriptions(), &rule));
        }
        let errors = outputs.into_iter();
        let errors = errors.map(|(name, output)| (name, output.values.iter().map(|tracked| tracked.error).collect()));
        let mut errors: Tensors<Vec<f64>> = errors.collect();
        if step.double_backward {
            let given = step.values(|x| Majorant::given(x, accumulator.unit_roundoff()));
            let second = step.operation.double_backward(plan, &given, &step.descriptions(), &rule).into_iter();
            errors.extend(second.map(|(name, output)| (name, output.values.iter().map(|x| x.error).collect())));
        }
        Bounds { errors, accumulator }
    }

    /// The largest errors of output `name` before it is stored, element by element.
    pub fn errors(&self, name: &str) -> &[f64] {
        &self.errors[name]
    }

    /// How errors grow where a result is stored in `format`.
    pub fn stored(&self, format: Format) -> Stored {
        let least = format.half_subnormal();
        if format == self.accumulator {
            Stored { relative: 0.0, least: 4.0 * least }
        } else {
            Stored { relative: format.unit_roundoff(), least }
        }
    }
}

/// What storing a result adds to its error, given the error B before.
///
/// ```text
/// in the accumulating type   B + 4η          in a narrower one   B(1 + u_out) + u_out·|z| + η
/// ```
/// with η half the smallest subnormal of the type it is stored in.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    relative: f64,
    least: f64,
}

impl Stored {
    /// The bound of an element whose true value is `value` and whose error before it is stored is `error`.
    pub fn of(&self, error: f64, value: f64) -> f64 {
        if self.relative == 0.0 {
            return error + self.least; // the value may be infinite
        }
        error * (1.0 + self.relative) + self.relative * value.abs() + self.least
    }
}

/// The bound's arithmetic for a law.
pub fn tracker(law: Law, accumulator: Format, declared: &Declared) -> Tracker {
    Tracker { law, unit: accumulator.unit_roundoff(), depth: declared.depth }
}

/// The type that an input of type `input` is accumulated in: F64 for F64, F32 for all others, unless a wider one was
/// declared.
pub fn accumulator(input: DataType, declared: &Declared) -> Format {
    let own = input.accumulator();
    if declared.accumulate == Some(DataType::F64) || own == DataType::F64 { Format::F64 } else { Format::F32 }
}
