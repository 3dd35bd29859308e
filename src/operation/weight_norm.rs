//! Weight normalization (Salimans and Kingma 2016, arXiv 1602.07868), as `torch.nn.utils.parametrizations.weight_norm`.
//!
//! ```text
//! input: the direction v    weight: the magnitude g, of v's rank with size 1 but along dim; a scalar for the whole tensor
//! groups: for each index of axis dim all elements that have it
//! y = v·g/‖v‖₂
//! grad_weight = Σ G·v/‖v‖     grad_input = (g/‖v‖)·(G − v·(Σ G·v)/‖v‖²)
//! ```
//! `dim: null` and `dim: −1` both mean the whole tensor. There is no eps: a zero direction gives NaN.

use serde::{Deserialize, Serialize};

use super::norms::{axis, norm};
use super::{
    Call, Definition, Description, Given, GradientRule, NormRule, Output, Outputs, Partition, Plan, Refusal,
    RefusalKind, Refused, Rule, Signature,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightNorm {
    /// The axis that keeps its own magnitudes; `None` and −1: the whole tensor has one.
    pub dim: Option<i64>,
}

impl Definition for WeightNorm {
    const NAME: &'static str = "weight_norm";

    fn signature(&self) -> Signature {
        Signature { required: &["input", "weight"], differentiable: &["input", "weight"], ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        let whole = Partition::whole(shape.iter().product());
        let (partition, magnitudes) = match self.dim {
            None | Some(-1) => (whole, Vec::new()),
            Some(dim) => {
                let axis = axis(dim, shape.len()).map_err(Refused::uncounted)?;
                let sizes = (0..shape.len()).map(|other| if other == axis { shape[axis] } else { 1 }).collect();
                (Partition::slices(shape, axis), sizes)
            }
        };
        if call.shape("weight") != Some(&magnitudes) {
            let message =
                format!("weight has shape {:?}; expected {magnitudes:?}", call.shape("weight").unwrap_or(&[]));
            return Err(Refused::uncounted(Refusal::new(RefusalKind::Shape, message)));
        }
        Ok(Plan::of_norms(partition, shape, 0.0))
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let input: Vec<A::Real> = tensors["input"].iter().map(|&x| arithmetic.keep(x)).collect();
        let mut output = input.clone();
        for (group, &magnitude) in tensors["weight"].iter().enumerate() {
            let positions = plan.partition.positions(group);
            let v: Vec<A::Real> = positions.iter().map(|&position| input[position]).collect();
            let length = if rule.norm == NormRule::Whole { norm(&input, 2.0) } else { norm(&v, 2.0) };
            let factor = arithmetic.keep(magnitude) / length;
            positions.into_iter().for_each(|position| output[position] = output[position] * factor);
        }
        Outputs::of(plan, output)
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let keep = |name: &str| -> Vec<A::Real> { tensors[name].iter().map(|&x| arithmetic.keep(x)).collect() };
        let (input, weight, seed) = (keep("input"), keep("weight"), keep("grad_output.output"));
        let (mut grad_input, mut grad_weight) = (seed.clone(), weight.clone());
        for group in 0..plan.partition.groups() {
            let positions = plan.partition.positions(group);
            let v: Vec<A::Real> = positions.iter().map(|&position| input[position]).collect();
            let norm = norm(&v, 2.0);
            let norm = if rule.gradient == GradientRule::NormSaved { norm.held() } else { norm };
            let along = A::Real::sum(positions.iter().zip(&v).map(|(&position, &v)| seed[position] * v));
            grad_weight[group] = along / norm;
            let factor = weight[group] / norm;
            let along = along / (norm * norm);
            for (position, v) in positions.into_iter().zip(v) {
                let constant = rule.gradient == GradientRule::StatisticsConstant;
                let direct = seed[position];
                grad_input[position] = factor * if constant { direct } else { direct - v * along };
            }
        }
        let shape = |name: &str| shapes[name].shape.clone();
        Tensors::from([
            ("grad_input".into(), Output { shape: shape("input"), values: grad_input }),
            ("grad_weight".into(), Output { shape: shape("weight"), values: grad_weight }),
        ])
    }
}
