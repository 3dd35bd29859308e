//! Query-key normalization (Dehghani et al. 2023, arXiv 2302.05442, section 2; Henry et al. 2020): RMS norm of each head of
//! queries and keys, as the attention layers of transformers have it.
//!
//! ```text
//! input: the queries [*, heads, D]      key: [*, heads, D], of another number of heads where they are shared
//! groups: one for each index of all axes but the last    weight, key_weight: [D]
//! output = input/√(mean input² + eps)·weight      key_output = key/√(mean key² + eps)·key_weight
//! ```

use serde::{Deserialize, Serialize};

use super::layer_norm::plan_trailing;
use super::normalization::{self, check_dtypes};
use super::values::{check_shapes, misshapen};
use super::{
    Affine, Call, Definition, Description, Given, Output, Outputs, Partition, Plan, Refusal, Refused, Rule, Signature,
    json_float,
};
use crate::arithmetic::Arithmetic;
use crate::tensor::Tensors;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QkNorm {
    /// Added to the mean square.
    #[serde(with = "json_float")]
    pub eps: f64,
}

/// The queries' tensors, and the keys'.
const SIDES: [[&str; 4]; 2] = [
    ["input", "weight", "output", "grad_output.output"],
    ["key", "key_weight", "key_output", "grad_output.key_output"],
];

impl Definition for QkNorm {
    const NAME: &'static str = "qk_norm";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "key"],
            optional: &["weight", "key_weight"],
            outputs: &["output", "key_output"],
            differentiable: &["input", "key", "weight", "key_weight"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_heads(call, rule).map_err(Refused::uncounted)
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let mut outputs = Tensors::new();
        for (side, (name, shape)) in SIDES.iter().zip(&plan.outputs) {
            let (plan, own) = one_side(plan, side, shape, tensors, rule);
            let output = normalization::forward(arithmetic, &plan, &own, rule).tensors.remove("output");
            outputs.extend(output.map(|output| ((*name).to_owned(), output)));
        }
        Outputs { tensors: outputs, num_batches_tracked: None }
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let mut gradients = Tensors::new();
        for (side, (_, shape)) in SIDES.iter().zip(&plan.outputs) {
            let (plan, own) = one_side(plan, side, shape, tensors, rule);
            let names = [("input", side[0]), ("weight", side[1])];
            let described =
                names.into_iter().filter_map(|(name, own)| Some((name.to_owned(), shapes.get(own)?.clone())));
            let found = normalization::backward(arithmetic, &plan, &own, &described.collect(), rule);
            for (name, own) in names {
                let gradient = found.get(&format!("grad_{name}")).cloned();
                gradients.extend(gradient.map(|gradient| (format!("grad_{own}"), gradient)));
            }
        }
        gradients
    }
}

impl QkNorm {
    fn plan_heads(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        let (queries, keys) = (&call.tensors["input"].shape, &call.tensors["key"].shape);
        let Some(&features) = queries.last().filter(|_| queries.len() >= 2) else {
            return Err(misshapen("the input", queries, "rank 2 or more"));
        };
        if keys.len() < 2 || keys.last() != Some(&features) {
            return Err(misshapen("key", keys, &format!("the head size {features} of the input at its end")));
        }
        check_dtypes(call.tensors, &["key"])?;
        check_dtypes(call.tensors, &["weight", "key_weight"])?;
        check_shapes(call, &["weight", "key_weight"], &[features])?;
        let plan = plan_trailing(call, &[features], &[], self.eps, rule)?;
        let outputs = vec![("output", queries.clone()), ("key_output", keys.clone())];
        Ok(Plan { standardizes: false, outputs, ..plan })
    }
}

/// The plan and the tensors of queries or keys alone, as RMS norm has them.
fn one_side<T: Clone>(
    plan: &Plan,
    [input, weight, _, seed]: &[&str; 4],
    shape: &[usize],
    tensors: &Tensors<Vec<T>>,
    rule: &Rule,
) -> (Plan, Tensors<Vec<T>>) {
    let features = plan.partition.run_length;
    let rows = shape[..shape.len() - 1].iter().product();
    // A layer with one weight for both.
    let weight = if rule.first_condition { "weight" } else { weight };
    let names = [("input", *input), ("weight", weight), ("grad_output.output", *seed)];
    let own = names.into_iter().filter_map(|(name, own)| Some((name.to_owned(), tensors.get(own)?.clone())));
    let partition = Partition { outer: rows, outer_stride: features, ..plan.partition };
    let plan = Plan { partition, outputs: vec![("output", shape.to_vec())], affine: Affine::PLAIN, ..plan.clone() };
    (plan, own.collect())
}
