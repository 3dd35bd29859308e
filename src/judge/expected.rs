//! What is true of a step: each output as a value with a radius and correctly rounded, or the refusal.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::arithmetic::{DataType, DoubleDouble, Format, Law, Reference, Truth};
use crate::case::{Declared, Step};
use crate::judge::bound::Bounds;
use crate::judge::exact::ExactAnswers;
use crate::operation::{Plan, Refusal};
use crate::tensor::Tensors;

/// A radius above this part of the value cannot judge: the oracle is asked.
const SHARP: f64 = 8.470329472543003e-22; // 2⁻⁷⁰

/// What is true of a step.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "few are kept at a time, and most of them are answers")]
pub enum Expected {
    /// The operation answers.
    Tensors {
        /// The floating-point outputs.
        tensors: Tensors<TrueTensor>,
        /// The counter after the call, if one was sent.
        num_batches_tracked: Option<i64>,
        /// How it answers.
        plan: Plan,
        /// The bounds that were asked for.
        bounds: Box<BoundCache>,
    },
    /// The operation refuses.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The state after the call.
        state: Tensors,
    },
}

/// The bounds of a step, one set for each law, computed when they are first asked for.
#[derive(Clone, Debug, Default)]
pub struct BoundCache(OnceLock<(Declared, [OnceLock<Bounds>; Law::COUNT])>);

impl BoundCache {
    /// The bounds under `law` for a program that `declared` how it sums.
    pub fn get(&self, step: &Step, plan: &Plan, law: Law, declared: &Declared) -> Cow<'_, Bounds> {
        let (kept, bounds) = self.0.get_or_init(|| (*declared, Default::default()));
        if kept != declared {
            return Cow::Owned(Bounds::of(step, plan, law, declared));
        }
        Cow::Borrowed(bounds[law.index()].get_or_init(|| Bounds::of(step, plan, law, declared)))
    }
}

/// One output, as it truly is.
#[derive(Clone, Debug)]
pub struct TrueTensor {
    /// The sizes of the dimensions.
    pub shape: Vec<usize>,
    /// The data type that an implementation answers in.
    pub dtype: DataType,
    /// Value and radius.
    pub values: Vec<Truth>,
    /// The value rounded once to `dtype`.
    pub rounded: Vec<f64>,
}

impl Expected {
    /// The truth of a step.
    ///
    /// ```
    /// use normative::case::Step;
    /// use normative::judge::Expected;
    /// use normative::{Tensor, Tensors};
    /// let operation = serde_json::from_str(r#"{"name": "layer_norm", "normalized_shape": [2], "eps": 0.0}"#).unwrap();
    /// let input = Tensor::from(ndarray::arr1(&[0.1_f32, 0.3]).into_dyn());
    /// let step = Step::forward(operation, Tensors::from([("input".to_owned(), input)]));
    /// let Expected::Tensors { tensors, .. } = Expected::of(&step) else { panic!("refused") };
    /// assert_eq!(tensors["output"].rounded, [-1.0, 1.0]);
    /// ```
    pub fn of(step: &Step) -> Expected {
        let rule = step.operation.rule();
        let descriptions = step.descriptions();
        let plan = match step.plan(&rule) {
            Ok(plan) => plan,
            Err(refused) => {
                let state = step.state(refused.num_batches_tracked);
                return Expected::Refused { refusal: refused.refusal, state };
            }
        };
        let values = step.values(|x| x);
        let mut outputs = step.operation.forward(&Reference, &plan, &values, &rule);
        if step.gradients {
            outputs.tensors.extend(step.operation.backward(&Reference, &plan, &values, &descriptions, &rule));
        }
        if step.double_backward {
            let exact = step.values(Truth::exact);
            outputs.tensors.extend(step.operation.double_backward(&plan, &exact, &descriptions, &rule));
        }
        let mut oracle = ExactAnswers::new(&plan, &values);
        let tensors = outputs.tensors.into_iter().map(|(name, output)| {
            let dtype = step.output_dtype(&name);
            let format = dtype.format().expect("outputs are floating-point");
            let mut truths = output.values;
            let rounded = truths
                .iter_mut()
                .enumerate()
                .map(|(index, truth)| decide(truth, format, || oracle.element(&name, index)))
                .collect();
            (name, TrueTensor { shape: output.shape, dtype, values: truths, rounded })
        });
        Expected::Tensors {
            tensors: tensors.collect(),
            num_batches_tracked: outputs.num_batches_tracked,
            plan,
            bounds: Box::default(),
        }
    }
}

/// The truth rounded to `format`: by its radius, and where that cannot tell by the oracle, which sharpens the truth too.
fn decide(truth: &mut Truth, format: Format, exact: impl FnOnce() -> Option<crate::arithmetic::exact::Exact>) -> f64 {
    let sharp = truth.radius <= SHARP * truth.value.hi.abs();
    if let (true, Some(rounded)) = (sharp, truth.round(format)) {
        return rounded;
    }
    let Some(exact) = exact() else {
        return format.round_double_double(truth.value);
    };
    let (value, radius) = exact.double_double();
    *truth = Truth { value, radius };
    exact.round(format)
}

impl TrueTensor {
    /// The value of element `index`.
    pub fn value(&self, index: usize) -> DoubleDouble {
        self.values[index].value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::exact::Exact;

    #[test]
    fn the_oracle_is_asked_where_the_radius_cannot_tell() {
        let third = DoubleDouble::from(1.0) / DoubleDouble::from(3.0);
        let mut sharp = Truth { value: third, radius: SHARP * 0.25 };
        assert_eq!(decide(&mut sharp, Format::F32, || panic!("it was asked")), f64::from(1.0_f32 / 3.0));
        let mut blunt = Truth { value: DoubleDouble::from(0.25), radius: SHARP * 0.5 };
        assert_eq!(decide(&mut blunt, Format::F32, || Some(Exact::from_f64(0.25))), 0.25);
        assert_eq!(blunt.radius, 0.0, "what the oracle says is sharper");
        let mut unknown = Truth { value: DoubleDouble::from(2.0), radius: f64::INFINITY };
        assert_eq!(decide(&mut unknown, Format::F32, || None), 2.0);
    }
}
