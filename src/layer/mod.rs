//! Layers in Rust: arrays in, arrays out, judged by one line in a test.
//!
//! ```
//! use ndarray::Axis;
//! use normative::operation::{LayerNorm, Refusal, RefusalKind};
//! use normative::{Layer, LayerAnswer, LayerCall};
//!
//! struct MyLayerNorm;
//!
//! impl Layer for MyLayerNorm {
//!     type Operation = LayerNorm;
//!     type Element = f32;
//!
//!     fn call(&self, norm: &LayerNorm, call: &LayerCall<'_, f32>) -> Result<LayerAnswer, Refusal> {
//!         let input = call.input();
//!         let (shape, fits) = (&norm.normalized_shape, input.shape().ends_with(&norm.normalized_shape));
//!         let (weight, bias) = (call.get("weight"), call.get("bias"));
//!         let alike = [&weight, &bias].into_iter().flatten().all(|parameter| parameter.shape() == shape.as_slice());
//!         if shape.is_empty() || !fits || !alike {
//!             return Err(Refusal::new(RefusalKind::Shape, "the shapes do not fit"));
//!         }
//!         let n: usize = shape.iter().product();
//!         let mut rows = input.to_shape((input.len() / n.max(1), n)).expect("it ends in the shape").into_owned();
//!         for mut row in rows.axis_iter_mut(Axis(0)) {
//!             let mean = row.sum() / n as f32;
//!             row.mapv_inplace(|x| x - mean);
//!             let variance = row.iter().map(|x| x * x).sum::<f32>() / n as f32;
//!             row.mapv_inplace(|x| x / (variance + norm.eps as f32).sqrt());
//!         }
//!         let mut output = rows.into_shape_with_order(input.shape()).expect("the same elements");
//!         if let Some(weight) = weight {
//!             output = output * weight;
//!         }
//!         if let Some(bias) = bias {
//!             output = output + bias;
//!         }
//!         Ok(output.into())
//!     }
//! }
//!
//! normative::assert_conformant(&MyLayerNorm);
//! ```

mod check;
mod subject;

use half::{bf16, f16};
use ndarray::{ArrayD, ArrayViewD, CowArray, IxDyn};

pub use check::{Check, assert_conformant};

use crate::arithmetic::DataType;
use crate::case::{COUNTER, Request, Step};
use crate::operation::{Definition, Mode, Operation, Refusal};
use crate::tensor::{Tensor, Tensors};

/// A layer in Rust: one operation, inputs of one type. A type may implement it for itself, or once for each operation
/// through a wrapper.
pub trait Layer: Sync {
    /// The operation that it implements, such as [`crate::operation::LayerNorm`]: its hyper-parameters come with each call.
    type Operation: Definition;
    /// What the input holds.
    type Element: Element;

    /// Whether it answers with gradients, `grad_<tensor>` for each differentiable tensor, where
    /// [`LayerCall::gradients`] asks for them.
    const GRADIENTS: bool = false;

    /// The name in reports.
    fn name(&self) -> String {
        let name = std::any::type_name::<Self>();
        name.rsplit("::").next().unwrap_or(name).to_owned()
    }

    /// The answer to one call.
    ///
    /// # Errors
    /// The layer's refusal, where it does not take the call: shapes that do not fit, too few values, and the like.
    fn call(&self, operation: &Self::Operation, call: &LayerCall<'_, Self::Element>) -> Result<LayerAnswer, Refusal>;
}

/// What a layer is asked: a mode and tensors.
#[derive(Clone, Copy, Debug)]
pub struct LayerCall<'a, E> {
    step: &'a Step,
    element: std::marker::PhantomData<E>,
}

impl<'a, E: Element> LayerCall<'a, E> {
    fn new(request: &'a Request) -> LayerCall<'a, E> {
        LayerCall { step: &request.call, element: std::marker::PhantomData }
    }

    /// The input: `[N, C, *]` or as the operation has it.
    pub fn input(&self) -> CowArray<'a, E, IxDyn> {
        self.get("input").expect("every call has an input")
    }

    /// The tensor `name` (`weight`, `running_mean`, `grad_output.output`, …), `None` where there is none. Parameters of
    /// a half-precision input may be F32: take them by [`LayerCall::get_as`], or they are rounded.
    pub fn get(&self, name: &str) -> Option<CowArray<'a, E, IxDyn>> {
        self.get_as::<E>(name)
    }

    /// The tensor `name` with elements of another type: widened exactly, or rounded to the nearest.
    pub fn get_as<T: Element>(&self, name: &str) -> Option<CowArray<'a, T, IxDyn>> {
        let tensor = self.step.tensors.get(name).filter(|_| name != COUNTER)?;
        Some(T::view(tensor).map_or_else(|| tensor.to_f64().mapv(T::rounded).into(), CowArray::from))
    }

    /// `num_batches_tracked`, where it was sent.
    pub fn num_batches_tracked(&self) -> Option<i64> {
        self.step.num_batches_tracked()
    }

    /// Whether it is training.
    pub fn is_training(&self) -> bool {
        self.step.mode == Mode::Train
    }

    /// Whether gradients are asked for.
    pub fn gradients(&self) -> bool {
        self.step.gradients
    }
}

/// What a layer answers: its output, and state or gradients beside it.
#[derive(Clone, Debug)]
pub struct LayerAnswer(Tensors);

impl LayerAnswer {
    /// An answer with one output.
    pub fn new<E: Element>(output: ArrayD<E>) -> LayerAnswer {
        LayerAnswer(Tensors::new()).with("output", output)
    }

    /// And the tensor `name`: `running_mean`, `grad_input`, …
    #[must_use]
    pub fn with<E: Element>(mut self, name: &str, tensor: ArrayD<E>) -> LayerAnswer {
        self.0.insert(name.to_owned(), E::tensor(tensor));
        self
    }

    /// And `num_batches_tracked` after the call.
    #[must_use]
    pub fn with_num_batches_tracked(mut self, batches: i64) -> LayerAnswer {
        self.0.insert(COUNTER.to_owned(), Tensor::counter(batches));
        self
    }
}

impl<E: Element> From<ArrayD<E>> for LayerAnswer {
    fn from(output: ArrayD<E>) -> LayerAnswer {
        LayerAnswer::new(output)
    }
}

/// What tensors hold: `f64`, `f32`, `half::f16`, `half::bf16`.
pub trait Element: Copy + Send + Sync + sealed::Sealed + 'static {
    /// The data type's name.
    const DTYPE: DataType;

    /// The array of a tensor of this type.
    fn view(tensor: &Tensor) -> Option<ArrayViewD<'_, Self>>;

    /// The element nearest to `value`, ties to even.
    fn rounded(value: f64) -> Self;

    /// The tensor of an array.
    fn tensor(array: ArrayD<Self>) -> Tensor;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($element:ty, $variant:ident, $rounded:expr;)*) => {$(
        impl sealed::Sealed for $element {}

        impl Element for $element {
            const DTYPE: DataType = DataType::$variant;

            fn view(tensor: &Tensor) -> Option<ArrayViewD<'_, $element>> {
                match tensor {
                    Tensor::$variant(array) => Some(array.view()),
                    _ => None,
                }
            }

            fn rounded(value: f64) -> $element {
                let rounded: fn(f64) -> $element = $rounded;
                rounded(value)
            }

            fn tensor(array: ArrayD<$element>) -> Tensor {
                Tensor::from(array)
            }
        }
    )*};
}
elements! {
    f64, F64, |value| value;
    f32, F32, |value| value as f32;
    f16, F16, f16::from_f64;
    bf16, BF16, bf16::from_f64;
}

/// The operation of a step, if it is a `D`.
fn operation_of<D: Definition>(operation: &Operation) -> Option<&D> {
    operation.definition().downcast_ref()
}
