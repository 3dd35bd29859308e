//! Double backward: the gradients of gradients, by dual numbers through the forward and the backward definition.
//!
//! ```text
//! L = Σ_o ⟨grad_output.o, o⟩            grad_t  = ∂L/∂t
//! S = Σ_t ⟨grad_t, grad_grad.t⟩         grad2_t = ∂S/∂t         grad2_o = ∂S/∂grad_output.o
//! ```
//! S is the derivative of L along grad_grad. Derivatives commute, so grad2_t is the derivative of grad_t along grad_grad
//! and grad2_o that of the output o: one pass of each definition in [`Dual`] numbers gives them all (Pearlmutter, "Fast
//! exact multiplication by the Hessian", Neural Computation 6, 1994).

use super::{Description, Operation, Output, Plan, Rule};
use crate::arithmetic::{Dual, Plain, Real};
use crate::tensor::Tensors;

impl Operation {
    /// `grad2_<tensor>` for each differentiable tensor that was sent and `grad2_<output>` for each output, along the
    /// direction `grad_grad.<tensor>`. `plan` must come from [`Operation::plan`] with the same shapes.
    pub fn double_backward<R: Real>(
        &self,
        plan: &Plan,
        tensors: &Tensors<Vec<R>>,
        shapes: &Tensors<Description>,
        rule: &Rule,
    ) -> Tensors<Output<R>> {
        let signature = self.signature();
        let zero = R::constant(0.0);
        let dual: Tensors<Vec<Dual<R>>> = tensors
            .iter()
            .map(|(name, values)| {
                let along = tensors.get(&format!("grad_grad.{name}"));
                let along = along.filter(|_| signature.differentiable.contains(&name.as_str()));
                let moving = |(index, &value): (usize, &R)| Dual::new(value, along.map_or(zero, |along| along[index]));
                (name.clone(), values.iter().enumerate().map(moving).collect())
            })
            .collect();
        let plain = Plain::<Dual<R>>::new();
        let once = Rule { gradient: rule.second_gradient.unwrap_or(rule.gradient), ..*rule };
        let gradients = self.backward(&plain, plan, &dual, shapes, &once);
        let gradients =
            gradients.into_iter().map(|(name, output)| (name.replacen("grad_", "grad2_", 1), derivative(output)));
        let outputs = self.forward(&plain, plan, &dual, rule).tensors.into_iter();
        let outputs = outputs.filter(|(name, _)| signature.outputs.contains(&name.as_str()));
        let outputs = outputs.map(|(name, output)| (format!("grad2_{name}"), derivative(output)));
        gradients.chain(outputs).collect()
    }
}

fn derivative<R: Real>(output: Output<Dual<R>>) -> Output<R> {
    let Output { shape, values } = output;
    Output { shape, values: values.into_iter().map(|value| value.derivative).collect() }
}
