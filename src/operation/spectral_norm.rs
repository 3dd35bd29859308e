//! Spectral normalization (Miyato et al. 2018, arXiv 1802.05957), as
//! `torch.nn.utils.parametrizations.spectral_norm` without its fifteen warm-up iterations.
//!
//! ```text
//! input: the weight, as a matrix W: axis dim first, all others flattened        u: [rows]   v: [columns]
//! train  n_power_iterations times  u ← W·v/max(‖W·v‖₂, eps),  v ← Wᵀ·u/max(‖Wᵀ·u‖₂, eps)
//! σ = u·(W·v)     y = W/σ
//! grad_input = G/σ − (Σ G·W)/σ²·u·vᵀ        u and v are constants to it
//! ```
//! Evaluation takes u and v as they are. There is no eps beside σ: a zero weight gives NaN. A weight of rank 1 is
//! normalized to length 1, without u and v.

use serde::{Deserialize, Serialize};

use super::norms::{axis, norm};
use super::{
    Call, Definition, Description, Given, GradientRule, IterationRule, Mode, Output, Outputs, Partition, Plan, Refusal,
    RefusalKind, Refused, Rule, Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpectralNorm {
    /// The axis of the matrix's rows.
    pub dim: i64,
    /// Power iterations of a call in training.
    pub n_power_iterations: i64,
    /// The lower limit of the norms of u and v.
    #[serde(with = "json_float")]
    pub eps: f64,
}

/// More iterations are refused: a few bytes of a document must not ask for work without end.
const MOST_ITERATIONS: i64 = 1000;

impl Definition for SpectralNorm {
    const NAME: &'static str = "spectral_norm";

    fn signature(&self) -> Signature {
        Signature { optional: &["u", "v"], state: &["u", "v"], modes: true, ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        let refuse = |kind, message| Err(Refused::uncounted(Refusal::new(kind, message)));
        if !(1..=MOST_ITERATIONS).contains(&self.n_power_iterations) {
            let message = format!("n_power_iterations is {}; expected 1 to {MOST_ITERATIONS}", self.n_power_iterations);
            return refuse(RefusalKind::Parameter, message);
        }
        let axis = axis(self.dim, shape.len()).map_err(Refused::uncounted)?;
        let partition = Partition::slices(shape, axis);
        if shape.len() > 1 {
            let sizes = [("u", partition.groups()), ("v", partition.group_size())];
            for (name, size) in sizes {
                if call.shape(name) != Some(&[size]) {
                    let message = format!("{name} has shape {:?}; expected [{size}]", call.shape(name).unwrap_or(&[]));
                    return refuse(RefusalKind::Shape, message);
                }
            }
        } else if let Some(name) = ["u", "v"].into_iter().find(|name| call.shape(name).is_some_and(|u| u.len() != 1)) {
            return refuse(RefusalKind::Shape, format!("{name} is no vector"));
        }
        let mut plan = Plan::of_norms(partition, shape, self.eps);
        plan.iterations = match call.mode {
            Mode::Train if rule.iteration != IterationRule::Missing && shape.len() > 1 => {
                self.n_power_iterations as usize
            }
            _ => 0,
        };
        Ok(plan)
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let keep = |name: &str| -> Vec<A::Real> { tensors[name].iter().map(|&x| arithmetic.keep(x)).collect() };
        let input = keep("input");
        if plan.outputs[0].1.len() == 1 {
            let length = norm(&input, 2.0).max(arithmetic.parameter(self.eps));
            let mut outputs = Outputs::of(plan, input.into_iter().map(|x| x / length).collect());
            // Vectors that belong to no matrix come out as they went in.
            for name in ["u", "v"].into_iter().filter(|name| tensors.contains_key(*name)) {
                let values = keep(name);
                outputs.tensors.insert(name.into(), Output { shape: vec![values.len()], values });
            }
            return outputs;
        }
        let matrix = Matrix::new(plan, &input);
        let (u, v) = matrix.iterate(keep("u"), keep("v"), plan, rule);
        let sigma = matrix.sigma(&u, &v);
        let mut outputs = Outputs::of(plan, input.iter().map(|&x| x / sigma).collect());
        let forgotten = rule.iteration == IterationRule::Forgotten;
        let (u, v) = if forgotten { (keep("u"), keep("v")) } else { (u, v) };
        for (name, values) in [("u", u), ("v", v)] {
            outputs.tensors.insert(name.into(), Output { shape: vec![values.len()], values });
        }
        outputs
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let keep = |name: &str| -> Vec<A::Real> { tensors[name].iter().map(|&x| arithmetic.keep(x)).collect() };
        let (input, seed) = (keep("input"), keep("grad_output.output"));
        let along = A::Real::sum(seed.iter().zip(&input).map(|(&g, &w)| g * w));
        let constant = rule.gradient == GradientRule::StatisticsConstant;
        let mut gradient = seed.clone();
        if plan.outputs[0].1.len() == 1 {
            let length = norm(&input, 2.0);
            let below = length.value() < self.eps;
            let divisor = length.max(arithmetic.parameter(self.eps));
            for (gradient, &w) in gradient.iter_mut().zip(&input) {
                let direct = *gradient / divisor;
                *gradient = if below || constant { direct } else { direct - along / (length * length) * (w / length) };
            }
        } else {
            let matrix = Matrix::new(plan, &input);
            let (u, v) = matrix.iterate(keep("u"), keep("v"), plan, rule);
            let sigma = matrix.sigma(&u, &v);
            let along = along / (sigma * sigma);
            for (row, positions) in matrix.rows.iter().enumerate() {
                for (column, &position) in positions.iter().enumerate() {
                    let direct = seed[position] / sigma;
                    gradient[position] = if constant { direct } else { direct - along * (u[row] * v[column]) };
                }
            }
        }
        Tensors::from([("grad_input".into(), Output { shape: shapes["input"].shape.clone(), values: gradient })])
    }
}

/// The weight as a matrix.
struct Matrix<'a, R> {
    input: &'a [R],
    /// The flat positions of each row.
    rows: Vec<Vec<usize>>,
    columns: usize,
}

impl<'a, R: Real> Matrix<'a, R> {
    fn new(plan: &Plan, input: &'a [R]) -> Matrix<'a, R> {
        let rows = (0..plan.partition.groups()).map(|row| plan.partition.positions(row)).collect();
        Matrix { input, rows, columns: plan.partition.group_size() }
    }

    /// W·v
    fn times(&self, v: &[R]) -> Vec<R> {
        let row = |positions: &Vec<usize>| R::sum(positions.iter().zip(v).map(|(&p, &v)| self.input[p] * v));
        self.rows.iter().map(row).collect()
    }

    /// Wᵀ·u
    fn transposed_times(&self, u: &[R]) -> Vec<R> {
        let column = |column: usize| R::sum(self.rows.iter().zip(u).map(|(row, &u)| self.input[row[column]] * u));
        (0..self.columns).map(column).collect()
    }

    fn iterate(&self, mut u: Vec<R>, mut v: Vec<R>, plan: &Plan, rule: &Rule) -> (Vec<R>, Vec<R>) {
        let unit = |x: Vec<R>| {
            let length = norm(&x, 2.0).max(R::constant(plan.eps));
            x.into_iter().map(|x| x / length).collect::<Vec<R>>()
        };
        for _ in 0..plan.iterations {
            if rule.iteration == IterationRule::VFirst {
                v = unit(self.transposed_times(&u));
                u = unit(self.times(&v));
            } else {
                u = unit(self.times(&v));
                v = unit(self.transposed_times(&u));
            }
        }
        // The iterations count as constants: PyTorch makes them without a gradient.
        let held = |x: Vec<R>| x.into_iter().map(R::held).collect();
        (held(u), held(v))
    }

    fn sigma(&self, u: &[R], v: &[R]) -> R {
        R::sum(self.times(v).into_iter().zip(u).map(|(w, &u)| w * u))
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::arithmetic::DataType;
    use crate::case::Step;
    use crate::judge::Expected;
    use crate::operation::Mode;
    use crate::tensor::Tensors;

    /// As PyTorch 2.15 does.
    #[test]
    fn a_weight_without_rows_has_a_vector_of_zeros_for_its_columns() {
        let operation =
            serde_json::from_str(r#"{"name": "spectral_norm", "dim": 0, "n_power_iterations": 1, "eps": 1e-12}"#);
        let tensor = |shape: &[usize], values| Tensor::rounded(DataType::F64, shape, values);
        let tensors =
            [("input", tensor(&[0, 3], vec![])), ("u", tensor(&[0], vec![])), ("v", tensor(&[3], vec![1.0; 3]))];
        let tensors: Tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into();
        let step = Step { mode: Mode::Train, ..Step::forward(operation.expect("an operation"), tensors) };
        let Expected::Tensors { tensors, .. } = Expected::of(&step) else { panic!("refused") };
        assert_eq!(tensors["v"].rounded, [0.0; 3]);
        assert!(tensors["u"].rounded.is_empty());
    }
}
