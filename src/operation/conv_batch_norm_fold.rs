//! Folding an evaluated batch norm into the convolution before it, as `torch.nn.utils.fusion.fuse_conv_bn_weights`.
//!
//! ```text
//! input: the convolution's weight, output channels along axis 0 (1 if transposed)    f_c = weight_c/√(running_var_c + eps)
//! folded_weight = input·f_c      folded_bias = (conv_bias_c − running_mean_c)·f_c + bias_c
//! grad_input = G_w·f   grad_conv_bias = G_b·f   grad_bias = G_b
//! grad_weight = (Σ G_w·input + G_b·(conv_bias − running_mean))/√(running_var + eps)
//! ```

use serde::{Deserialize, Serialize};

use super::normalization::{check_dtypes, check_vectors};
use super::values::gradients;
use super::{
    Call, Definition, Description, FoldingRule, Given, Output, Outputs, Partition, Plan, Refusal, RefusalKind, Refused,
    Rule, Signature, json_float,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvBatchNormFold {
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// Whether the convolution is transposed: its output channels are then axis 1.
    pub transposed: bool,
}

const VECTORS: [&str; 5] = ["conv_bias", "weight", "bias", "running_mean", "running_var"];

impl Definition for ConvBatchNormFold {
    const NAME: &'static str = "conv_batch_norm_fold";

    fn signature(&self) -> Signature {
        Signature {
            required: &["input", "weight", "bias", "running_mean", "running_var"],
            optional: &["conv_bias"],
            outputs: &["folded_weight", "folded_bias"],
            differentiable: &["input", "conv_bias", "weight", "bias"],
            ..Signature::STATELESS
        }
    }

    fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        let axis = usize::from(self.transposed);
        if shape.len() < 2 {
            let message = format!("the weight has shape {shape:?}; expected rank 2 or more");
            return Err(Refused::uncounted(Refusal::new(RefusalKind::Shape, message)));
        }
        check_dtypes(call.tensors, &VECTORS)
            .and_then(|()| check_vectors(call.tensors, &VECTORS, shape[axis]))
            .map_err(Refused::uncounted)?;
        let outputs = vec![("folded_weight", shape.to_vec()), ("folded_bias", vec![shape[axis]])];
        Ok(Plan { outputs, ..Plan::of_norms(Partition::slices(shape, axis), shape, self.eps) })
    }

    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        let fold = Fold::new(arithmetic, plan, tensors, rule);
        let mut folded = fold.input.clone();
        let mut biases = Vec::new();
        for channel in 0..plan.partition.groups() {
            let factor = fold.weight[channel] * fold.inverse[channel];
            for position in plan.partition.positions(channel) {
                folded[position] = folded[position] * factor;
            }
            let folded = match rule.folding {
                FoldingRule::AsDefined => fold.shifted(channel) * factor,
                FoldingRule::WithoutMean => fold.conv_bias[channel] * factor,
                FoldingRule::BiasUnscaled => fold.conv_bias[channel] - fold.mean[channel] * factor,
            };
            biases.push(folded + fold.bias[channel]);
        }
        let mut outputs = Outputs::of(plan, folded);
        let (name, shape) = plan.outputs[1].clone();
        outputs.tensors.insert(name.into(), Output { shape, values: biases });
        outputs
    }

    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let fold = Fold::new(arithmetic, plan, tensors, rule);
        let keep = |name: &str| -> Vec<A::Real> { tensors[name].iter().map(|&x| arithmetic.keep(x)).collect() };
        let (mut grad_input, seed_bias) = (keep("grad_output.folded_weight"), keep("grad_output.folded_bias"));
        let (mut grad_conv_bias, mut grad_weight) = (seed_bias.clone(), seed_bias.clone());
        for (channel, &seed) in seed_bias.iter().enumerate() {
            let factor = fold.weight[channel] * fold.inverse[channel];
            let mut terms = vec![seed * fold.shifted(channel)];
            for position in plan.partition.positions(channel) {
                terms.push(grad_input[position] * fold.input[position]);
                grad_input[position] = grad_input[position] * factor;
            }
            grad_conv_bias[channel] = seed * factor;
            grad_weight[channel] = A::Real::sum(terms.into_iter()) * fold.inverse[channel];
        }
        gradients(
            shapes,
            [("input", grad_input), ("conv_bias", grad_conv_bias), ("weight", grad_weight), ("bias", seed_bias)],
        )
    }
}

/// What goes in, and 1/σ of each channel.
struct Fold<R> {
    input: Vec<R>,
    conv_bias: Vec<R>,
    weight: Vec<R>,
    bias: Vec<R>,
    mean: Vec<R>,
    inverse: Vec<R>,
    biased: bool,
}

impl<R: Real> Fold<R> {
    fn new<A: Arithmetic<Real = R>>(
        arithmetic: &A,
        plan: &Plan,
        tensors: &Tensors<Vec<A::Input>>,
        rule: &Rule,
    ) -> Fold<R> {
        let keep = |name: &str| -> Vec<R> { tensors[name].iter().map(|&x| arithmetic.keep(x)).collect() };
        let mean = keep("running_mean");
        let biased = tensors.contains_key("conv_bias");
        let conv_bias = if biased { keep("conv_bias") } else { vec![R::constant(0.0); mean.len()] };
        let eps = arithmetic.parameter(rule.scale(plan.eps).eps);
        let inverse = keep("running_var").into_iter().map(|v| R::constant(1.0) / (v + eps).sqrt()).collect();
        Fold { input: keep("input"), conv_bias, weight: keep("weight"), bias: keep("bias"), mean, inverse, biased }
    }

    /// conv_bias − running_mean
    fn shifted(&self, channel: usize) -> R {
        if self.biased { self.conv_bias[channel] - self.mean[channel] } else { -self.mean[channel] }
    }
}
