//! Adaptive instance normalization (Huang and Belongie 2017, arXiv 1703.06868, equation 8).
//!
//! ```text
//! input, style: [N, C, *] with the same N and C    groups: one for each sample and channel
//! y = (x − μ)/√(v + eps)·σ_s + μ_s      σ_s = √(v_s + eps)      v, v_s biased, /L and /L_s
//! grad_style = (Σ g + ŝ·Σ g·ŷ)/L_s      ŝ = (s − μ_s)/σ_s
//! ```
//! The content takes the mean and the deviation of the style. Much code divides both variances by n − 1 instead; the
//! paper's equations do not.

use serde::{Deserialize, Serialize};

use super::normalization::check_dtypes;
use super::values::{at, channels_first, gradients, kept, misshapen};
use super::{
    Call, Definition, Description, Given, Output, Outputs, Partition, Plan, Refusal, RefusalKind, Refused, Rule,
    Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Group, Real};
use crate::tensor::Tensors;

/// Its hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdaInstanceNorm {
    /// Added to both variances.
    #[serde(with = "json_float")]
    pub eps: f64,
}

impl Definition for AdaInstanceNorm {
    const NAME: &'static str = "ada_instance_norm";

    fn signature(&self) -> Signature {
        Signature { required: &["input", "style"], differentiable: &["input", "style"], ..Signature::STATELESS }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        self.plan_instances(call).map_err(Refused::uncounted)
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let mut output = kept(arithmetic, tensors, "input");
        let count = if output.is_empty() { 0 } else { plan.partition.groups() };
        for group in 0..count {
            let positions = plan.partition.positions(group);
            let content = Instance::new(arithmetic, &at(&tensors["input"], &positions), plan, rule);
            let style = Instance::new(arithmetic, style_of(tensors, plan, group, rule), plan, rule);
            for (&position, &hat) in positions.iter().zip(&content.hat) {
                output[position] = hat * style.sigma + style.mean;
            }
        }
        Outputs::of(plan, output)
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let mut gradient = kept(arithmetic, tensors, "grad_output.output");
        let mut grad_style = Vec::new();
        let count = if gradient.is_empty() { 0 } else { plan.partition.groups() };
        for group in 0..count {
            let positions = plan.partition.positions(group);
            let x = at(&tensors["input"], &positions);
            let content = Instance::new(arithmetic, &x, plan, rule);
            let style = Instance::new(arithmetic, style_of(tensors, plan, group, rule), plan, rule);
            let g = at(&gradient, &positions);
            let a: Vec<A::Real> = g.iter().map(|&g| g * style.sigma).collect();
            let scaling = content.scaling;
            let inputs = arithmetic.input_gradient(&x, &a, &content.hat, &scaling, true);
            let along = A::Real::sum(g.iter().zip(&content.hat).map(|(&g, &hat)| g * hat));
            let (total, count) = (A::Real::sum(g.into_iter()), A::Real::constant(style.hat.len() as f64));
            grad_style.extend(style.hat.iter().map(|&hat| (total + hat * along) / count));
            for (&position, input) in positions.iter().zip(inputs) {
                gradient[position] = input;
            }
        }
        // A style without a content to go to.
        let styles = shapes.get("style").map_or(0, |style| style.shape.iter().product());
        grad_style.resize(styles, A::Real::constant(0.0));
        gradients(shapes, [("input", gradient), ("style", grad_style)])
    }
}

impl AdaInstanceNorm {
    fn plan_instances(&self, call: &Call<'_>) -> Result<Plan, Refusal> {
        let [batch, channels, length] = channels_first(call, 3..=usize::MAX, "rank 3 or more")?;
        check_dtypes(call.tensors, &["style"])?;
        let style = call.shape("style").unwrap_or_default();
        if style.len() < 3 || style[..2] != [batch, channels] {
            return Err(misshapen("style", style, &format!("[{batch}, {channels}, …], as the input")));
        }
        if style.contains(&0) && length > 0 {
            return Err(Refusal::new(RefusalKind::Empty, format!("style has shape {style:?}: it has no statistics")));
        }
        let partition = Partition::instances(batch, channels, length);
        let plan = Plan::standardizing(partition, &call.tensors["input"].shape, self.eps, true);
        Ok(Plan { standardizes: false, ..plan })
    }
}

/// The style of group `group`: as many groups as the content has, one after the other.
fn style_of<'a, T>(tensors: &'a Tensors<Vec<T>>, plan: &Plan, group: usize, rule: &Rule) -> &'a [T] {
    let style = &tensors["style"];
    let length = style.len() / plan.partition.groups();
    let group = if rule.first_condition { group % plan.partition.inner } else { group };
    &style[group * length..][..length]
}

/// The statistics of an instance, and its values standardized.
struct Instance<A: Arithmetic> {
    mean: A::Real,
    sigma: A::Real,
    hat: Vec<A::Real>,
    scaling: A::Scaling,
}

impl<A: Arithmetic> Instance<A> {
    fn new(arithmetic: &A, x: &[A::Input], plan: &Plan, rule: &Rule) -> Instance<A> {
        let moments = arithmetic.moments(Group::contiguous(x), true);
        let scaling = arithmetic.scaling(&moments, &rule.scale(plan.eps));
        let mut hat = vec![A::Real::constant(0.0); x.len()];
        arithmetic.rescale(x, &scaling, None, None, &mut hat);
        let sigma = A::Real::constant(1.0) / arithmetic.inverse(&scaling);
        Instance { mean: arithmetic.mean(&moments), sigma, hat, scaling }
    }
}
