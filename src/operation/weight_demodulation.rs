//! Weight modulation and demodulation (Karras et al. 2020, StyleGAN2, arXiv 1912.04958, equations 1 and 3).
//!
//! ```text
//! input: a convolution's weight [O, I, *]      style: [N, I]      output: [N, O, I, *], a weight for each sample
//! u = s_ni·w_oik      y = u/√(Σ_ik u² + eps)                      the paper's eps is 1e-8
//! grad_u = (g − y·Σ g·y)/√(…)      grad_input = Σ_n grad_u·s      grad_style = Σ_ok grad_u·w
//! ```
//! A style of zeros gives zeros.

use serde::{Deserialize, Serialize};

use super::normalization::check_dtypes;
use super::values::{added, gradients, kept, misshapen, sums};
use super::{
    Call, Definition, Description, Given, Output, Outputs, Partition, Plan, Refusal, Refused, Rule, Signature,
    json_float,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightDemodulation {
    /// Added to the sum of squares.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for WeightDemodulation {
    const NAME: &'static str = "weight_demodulation";

    fn signature(&self) -> Signature {
        Signature { required: &["input", "style"], differentiable: &["input", "style"], ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        self.plan_filters(call).map_err(Refused::uncounted)
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let mut output = Vec::new();
        each_filter(arithmetic, plan, tensors, rule, |filter| output.extend(filter.y));
        Outputs::of(plan, output)
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let [weight, style, seed] =
            ["input", "style", "grad_output.output"].map(|name| kept(arithmetic, tensors, name));
        let (mut grad_input, mut grad_style) = (sums(weight.len()), sums(style.len()));
        each_filter(arithmetic, plan, tensors, rule, |filter| {
            let g = &seed[filter.number * filter.y.len()..];
            let along = A::Real::sum(filter.y.iter().zip(g).map(|(&y, &g)| y * g));
            for (k, (&y, &g)) in filter.y.iter().zip(g).enumerate() {
                let through = (g - y * along) / filter.length;
                grad_input[filter.first + k].push(through * style[filter.styles[k]]);
                grad_style[filter.styles[k]].push(through * weight[filter.first + k]);
            }
        });
        gradients(shapes, [("input", added(grad_input)), ("style", added(grad_style))])
    }
}

impl WeightDemodulation {
    fn plan_filters(&self, call: &Call<'_>) -> Result<Plan, Refusal> {
        let (shape, style) = (&call.tensors["input"].shape, &call.tensors["style"].shape);
        let &[outputs, inputs, ref kernel @ ..] = shape.as_slice() else {
            return Err(misshapen("the weight", shape, "rank 2 or more"));
        };
        let &[samples, columns] = style.as_slice() else {
            return Err(misshapen("style", style, &format!("[N, {inputs}]")));
        };
        if columns != inputs {
            return Err(misshapen("style", style, &format!("[N, {inputs}]")));
        }
        check_dtypes(call.tensors, &["style"])?;
        let length = kernel.iter().product::<usize>();
        let output = [&[samples], shape.as_slice()].concat();
        let partition = Partition::channels(1, outputs, inputs * length);
        Ok(Plan { outputs: vec![("output", output)], ..Plan::of_norms(partition, shape, self.eps) })
    }
}

/// One filter of one sample.
struct Filter<R> {
    /// Its number among all.
    number: usize,
    /// Where its weights begin.
    first: usize,
    /// The index of each weight's style.
    styles: Vec<usize>,
    y: Vec<R>,
    /// √(Σ u² + eps)
    length: R,
}

fn each_filter<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    tensors: &Tensors<Vec<A::Input>>,
    rule: &Rule,
    mut look: impl FnMut(Filter<A::Real>),
) {
    let (weight, style) = (kept(arithmetic, tensors, "input"), kept(arithmetic, tensors, "style"));
    let [samples, outputs, inputs] = [0, 1, 2].map(|axis| plan.outputs[0].1[axis]);
    let fan_in = plan.partition.group_size();
    let eps = arithmetic.parameter(rule.scale(plan.eps).eps);
    for number in 0..samples * outputs {
        let (sample, first) = (number / outputs, number % outputs * fan_in);
        let sample = if rule.first_condition { 0 } else { sample };
        let styles: Vec<usize> = (0..fan_in).map(|k| sample * inputs + k * inputs / fan_in).collect();
        let u: Vec<A::Real> = styles.iter().enumerate().map(|(k, &of)| weight[first + k] * style[of]).collect();
        let length = (A::Real::sum(u.iter().map(|&u| u * u)) + eps).sqrt();
        let y = u.into_iter().map(|u| u / length).collect();
        look(Filter { number, first, styles, y, length });
    }
}
