//! Steps that ask for gradients: what comes from above, and the directions in which a gradient is differentiated again.

use super::Step;
use super::check_answer::outputs;
use super::values::Values;
use crate::arithmetic::DataType;
use crate::operation::Description;
use crate::tensor::Tensor;

impl Step {
    /// The same step asking for gradients, with a `grad_output.<output>` for each output.
    pub fn with_gradients(mut self, values: &mut Values) -> Step {
        self.gradients = true;
        let outputs = outputs(&self);
        for &output in self.operation.signature().outputs {
            let Description { dtype, shape } = &outputs[output];
            self.tensors.insert(format!("grad_output.{output}"), normals(values, *dtype, shape));
        }
        self
    }

    /// The same step asking for gradients and their gradients, with a `grad_grad.<tensor>` for each differentiable tensor
    /// besides.
    pub fn with_double_backward(self, values: &mut Values) -> Step {
        let mut step = self.with_gradients(values);
        step.double_backward = true;
        let directions: Vec<(String, Tensor)> =
            step.directions().map(|(name, tensor)| (name, normals(values, tensor.dtype(), tensor.shape()))).collect();
        step.tensors.extend(directions);
        step
    }
}

fn normals(values: &mut Values, dtype: DataType, shape: &[usize]) -> Tensor {
    Tensor::rounded(dtype, shape, values.normals(shape.iter().product(), 0.25, 1.0))
}
