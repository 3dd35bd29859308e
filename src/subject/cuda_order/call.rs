//! A call's tensors as the kernels take them, binary32, and their answers as they are stored: rounded once.

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use super::row_norm_backward::Gradients;
use crate::arithmetic::DataType;
use crate::case::{LayoutFormat, Step};
use crate::operation::Plan;
use crate::tensor::{Tensor, Tensors};

/// What NVIDIA's arithmetic answers where there is no number.
const NAN: f32 = f32::from_bits(0x7fff_ffff);

/// A call that is not refused, and how it is answered.
pub(super) struct Planned<'a> {
    pub step: &'a Step,
    pub plan: &'a Plan,
}

impl Planned<'_> {
    /// The elements of a tensor, if it was sent.
    pub fn values(&self, name: &str) -> Option<Vec<f32>> {
        Some(self.step.tensors.get(name)?.widened().iter().map(|&value| value as f32).collect())
    }

    /// The elements of the input.
    pub fn input(&self) -> Vec<f32> {
        self.values("input").expect("a step has an input")
    }

    /// The gradient of the output, if gradients are asked for.
    pub fn gradient(&self) -> Option<Vec<f32>> {
        self.values("grad_output.output").filter(|_| self.step.gradients)
    }

    /// The shape of the input.
    pub fn shape(&self) -> &[usize] {
        self.step.tensors["input"].shape()
    }

    /// eps as the kernels take it.
    pub fn eps(&self) -> f32 {
        self.plan.eps as f32
    }

    /// Whether the kernels find the input at a multiple of 4 elements. What is not contiguous is copied first.
    pub fn aligned(&self) -> bool {
        !self.contiguous() || self.step.layout.offset.is_multiple_of(4)
    }

    /// Whether the input lies in C order.
    pub fn contiguous(&self) -> bool {
        self.step.layout.format == LayoutFormat::Contiguous
    }

    /// Whether PyTorch calls the input's memory format channels-last, which has two or three spatial axes.
    pub fn channels_last(&self) -> bool {
        self.step.layout.format == LayoutFormat::ChannelsLast && matches!(self.shape().len(), 4 | 5)
    }

    /// An answer with the counter and the state as they were sent, but for what the plan counted.
    pub fn answer(&self) -> Tensors {
        self.step.state(self.plan.num_batches_tracked)
    }

    /// Puts a tensor into an answer: in the shape of the tensor that it belongs to.
    pub fn put(&self, answer: &mut Tensors, name: &str, values: Vec<f32>) {
        let of = self.step.tensors.get(name.strip_prefix("grad_").unwrap_or(name));
        let shape = of.unwrap_or(&self.step.tensors["input"]).shape();
        answer.insert(name.to_owned(), stored(self.step.output_dtype(name), shape, values));
    }

    /// Puts the gradients of the tensors that were sent into an answer.
    pub fn put_gradients(&self, answer: &mut Tensors, gradients: Gradients) {
        let Gradients { input, weight, bias } = gradients;
        for (name, values) in [("input", input), ("weight", weight), ("bias", bias)] {
            if self.step.tensors.contains_key(name) {
                self.put(answer, &format!("grad_{name}"), values);
            }
        }
    }
}

/// A tensor of `dtype`, each value rounded to nearest.
fn stored(dtype: DataType, shape: &[usize], values: Vec<f32>) -> Tensor {
    let values = values.into_iter().map(|value| if value.is_nan() { NAN } else { value });
    fn array<T>(shape: &[usize], values: impl Iterator<Item = T>) -> ArrayD<T> {
        ArrayD::from_shape_vec(IxDyn(shape), values.collect()).expect("a value for each element")
    }
    match dtype {
        DataType::F16 => Tensor::F16(array(shape, values.map(f16::from_f32))),
        DataType::BF16 => Tensor::BF16(array(shape, values.map(bf16::from_f32))),
        DataType::F32 => Tensor::F32(array(shape, values)),
        // A parameter may be wider than its input.
        DataType::F64 => Tensor::F64(array(shape, values.map(f64::from))),
        DataType::I64 => unreachable!("counters are not computed"),
    }
}
