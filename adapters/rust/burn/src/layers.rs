//! The calls of the five layers: a module of `burn::nn` for each, with the parameters and the state of the call.
//!
//! A module takes a call as a caller in burn would write it:
//! - `LayerNorm` and `RmsNorm` normalize the last axis. Several normalized axes are handed over as one.
//! - `InstanceNorm` wants a batch. An unbatched input is a batch of one.
//! - A weight or a bias that was not sent is ones or zeros, in modules that cannot be without.
//! - `BatchNorm` trains on a device with autodiff; in evaluation with gradients its flag `training` is off.
//!
//! The gradient of an output is seeded by differentiating Σ output·seed.

use burn::module::{Param, RunningState};
use burn::nn::norm::{
    BatchNormConfig, GroupNormConfig, InstanceNormConfig, LayerNormConfig, Normalization, RmsNormConfig,
};
use burn::tensor::{Device, Tensor};
use normative::Tensors;
use normative::case::{Answer, Step};
use normative::operation::{BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Mode, Operation, RefusalKind, RmsNorm};

use crate::refused;
use crate::tensors::{dtype, load, store};

/// What burn makes of a call.
///
/// # Panics
/// As burn's modules do, at what they do not take.
pub fn answer(device: &Device, step: &Step) -> Answer {
    let training = matches!(step.operation, Operation::BatchNorm(_)) && step.mode == Mode::Train;
    let device = if step.gradients || training { device.clone().autodiff() } else { device.clone() };
    let call = Call { step, device };
    let (module, shape) = match call.module() {
        Ok(prepared) => prepared,
        Err(answer) => return answer,
    };
    match shape.len() {
        1 => call.answer::<1>(&module, &shape),
        2 => call.answer::<2>(&module, &shape),
        3 => call.answer::<3>(&module, &shape),
        4 => call.answer::<4>(&module, &shape),
        5 => call.answer::<5>(&module, &shape),
        6 => call.answer::<6>(&module, &shape),
        rank => {
            Answer::Unsupported(format!("an input of rank {rank}: burn's ranks are types, and this adapter has 1 to 6"))
        }
    }
}

/// A module, and the shape in which it takes the input; or the answer, where there is no module for the call.
type Prepared = Result<(Normalization, Vec<usize>), Answer>;

/// A call and where it runs.
struct Call<'a> {
    step: &'a Step,
    device: Device,
}

impl Call<'_> {
    fn module(&self) -> Prepared {
        match &self.step.operation {
            Operation::LayerNorm(norm) => self.layer_norm(norm),
            Operation::BatchNorm(norm) => self.batch_norm(norm),
            Operation::GroupNorm(norm) => self.group_norm(norm),
            Operation::InstanceNorm(norm) => self.instance_norm(norm),
            Operation::RmsNorm(norm) => self.rms_norm(norm),
            other => Err(Answer::Unsupported(format!("no {} in burn", other.name()))),
        }
    }

    fn layer_norm(&self, norm: &LayerNorm) -> Prepared {
        let (shape, features) = self.normalized(&norm.normalized_shape)?;
        let config = LayerNormConfig::new(features).with_epsilon(norm.eps).with_bias(self.sent("bias").is_some());
        let mut module = config.init(&self.device);
        module.gamma = self.parameter("weight", &norm.normalized_shape, 1.0);
        module.beta = self.sent("bias").map(|_| self.parameter("bias", &norm.normalized_shape, 0.0));
        Ok((Normalization::Layer(module), shape))
    }

    fn rms_norm(&self, norm: &RmsNorm) -> Prepared {
        let eps = norm.eps.ok_or_else(|| Answer::Unsupported("burn's RmsNorm has no eps of null".into()))?;
        let (shape, features) = self.normalized(&norm.normalized_shape)?;
        let mut module = RmsNormConfig::new(features).with_epsilon(eps).init(&self.device);
        module.gamma = self.parameter("weight", &norm.normalized_shape, 1.0);
        Ok((Normalization::Rms(module), shape))
    }

    fn batch_norm(&self, norm: &BatchNorm) -> Prepared {
        let missing = || Answer::Unsupported("burn's BatchNorm has no cumulative average".into());
        let momentum = norm.momentum.ok_or_else(missing)?;
        let channels = self.channels();
        let config = BatchNormConfig::new(channels).with_epsilon(norm.eps).with_momentum(momentum);
        let mut module = config.init(&self.device);
        module.gamma = self.parameter("weight", &[channels], 1.0);
        module.beta = self.parameter("bias", &[channels], 0.0);
        module.training = Param::from_bool(self.step.mode == Mode::Train);
        module.running_mean = RunningState::new(self.vector("running_mean", &[channels], 0.0));
        module.running_var = RunningState::new(self.vector("running_var", &[channels], 1.0));
        Ok((Normalization::Batch(module), self.input().shape().to_vec()))
    }

    fn group_norm(&self, norm: &GroupNorm) -> Prepared {
        let channels = self.channels();
        let config = GroupNormConfig::new(norm.num_groups, channels).with_epsilon(norm.eps);
        let mut module = config.with_affine(self.is_affine()).init(&self.device);
        module.gamma = self.is_affine().then(|| self.parameter("weight", &[channels], 1.0));
        module.beta = self.is_affine().then(|| self.parameter("bias", &[channels], 0.0));
        Ok((Normalization::Group(module), self.input().shape().to_vec()))
    }

    fn instance_norm(&self, norm: &InstanceNorm) -> Prepared {
        if self.sent("running_mean").or(self.sent("running_var")).is_some() {
            return Err(Answer::Unsupported("burn's InstanceNorm keeps no running statistics".into()));
        }
        let (shape, spatial) = (self.input().shape(), usize::from(norm.spatial_dims));
        let batched = if shape.len() == spatial + 1 { [&[1], shape].concat() } else { shape.to_vec() };
        if batched.len() != spatial + 2 {
            let message = format!("an input of shape {shape:?} has not {spatial} dimensions beside its channels");
            return Err(refused(RefusalKind::Shape, message));
        }
        let channels = batched[1];
        let config = InstanceNormConfig::new(channels).with_epsilon(norm.eps);
        let mut module = config.with_affine(self.is_affine()).init(&self.device);
        module.gamma = self.is_affine().then(|| self.parameter("weight", &[channels], 1.0));
        module.beta = self.is_affine().then(|| self.parameter("bias", &[channels], 0.0));
        Ok((Normalization::Instance(module), batched))
    }

    /// The answer of `module`, which takes the input in `shape`.
    fn answer<const D: usize>(&self, module: &Normalization, shape: &[usize]) -> Answer {
        let layout = self.step.layout.format;
        let leaf = load::<D>(self.input(), shape, layout, &self.device);
        let input = if self.step.gradients { leaf.require_grad() } else { leaf };
        let output = module.forward(input.clone());

        let mut tensors = Tensors::new();
        let mut put = |name: String, tensor| tensors.insert(name, tensor);
        put("output".into(), store(output.clone(), self.input().shape()));
        if let Normalization::Batch(norm) = module {
            for (name, state) in [("running_mean", &norm.running_mean), ("running_var", &norm.running_var)] {
                if let Some(sent) = self.sent(name) {
                    put(name.into(), store(state.value_sync(), sent.shape()));
                }
            }
        }
        if self.step.gradients {
            let seed = load::<D>(&self.step.tensors["grad_output.output"], shape, layout, &self.device);
            let gradients = (output * seed).sum().backward();
            if let Some(gradient) = input.grad(&gradients) {
                put("grad_input".into(), store(gradient, self.input().shape()));
            }
            for (name, parameter) in parameters(module) {
                let gradient = parameter.and_then(|parameter| parameter.val().grad(&gradients));
                if let (Some(sent), Some(gradient)) = (self.sent(name), gradient) {
                    put(format!("grad_{name}"), store(gradient, sent.shape()));
                }
            }
        }
        Answer::Tensors(tensors)
    }

    fn input(&self) -> &normative::Tensor {
        &self.step.tensors["input"]
    }

    fn sent(&self, name: &str) -> Option<&normative::Tensor> {
        self.step.tensors.get(name)
    }

    fn is_affine(&self) -> bool {
        self.sent("weight").or(self.sent("bias")).is_some()
    }

    /// The size of axis 1; an input without one is the module's to refuse.
    fn channels(&self) -> usize {
        self.input().shape().get(1).copied().unwrap_or_default()
    }

    /// The input's shape with the normalized axes as one, and the size of that.
    fn normalized(&self, axes: &[usize]) -> Result<(Vec<usize>, usize), Answer> {
        let shape = self.input().shape();
        // Of one axis the module sees for itself whether it fits.
        if let [features] = axes {
            return Ok((shape.to_vec(), *features));
        }
        let mut parameters = ["weight", "bias"].into_iter().filter_map(|name| self.sent(name));
        if axes.is_empty() || !shape.ends_with(axes) || parameters.any(|parameter| parameter.shape() != axes) {
            let message = format!("the input, of shape {shape:?}, or a parameter does not end in {axes:?}");
            return Err(refused(RefusalKind::Shape, message));
        }
        let features = axes.iter().product();
        Ok(([&shape[..shape.len() - axes.len()], &[features]].concat(), features))
    }

    fn parameter(&self, name: &str, axes: &[usize], otherwise: f32) -> Param<Tensor<1>> {
        Param::from_tensor(self.vector(name, axes, otherwise))
    }

    /// The tensor `name`, which should have these axes, with its axes as one; where none was sent, values `otherwise` of the
    /// input's type.
    fn vector(&self, name: &str, axes: &[usize], otherwise: f32) -> Tensor<1> {
        let length = axes.iter().product();
        match self.sent(name) {
            Some(sent) if sent.shape() == axes => load(sent, &[length], Default::default(), &self.device),
            // One that does not fit is burn's to refuse.
            Some(sent) => load(sent, sent.shape(), Default::default(), &self.device),
            None => Tensor::full([length], otherwise, (&self.device, dtype(self.input().dtype()))),
        }
    }
}

/// The weight and the bias of a module.
fn parameters(module: &Normalization) -> [(&'static str, Option<&Param<Tensor<1>>>); 2] {
    let (weight, bias) = match module {
        Normalization::Layer(norm) => (Some(&norm.gamma), norm.beta.as_ref()),
        Normalization::Batch(norm) => (Some(&norm.gamma), Some(&norm.beta)),
        Normalization::Group(norm) => (norm.gamma.as_ref(), norm.beta.as_ref()),
        Normalization::Instance(norm) => (norm.gamma.as_ref(), norm.beta.as_ref()),
        Normalization::Rms(norm) => (Some(&norm.gamma), None),
        _ => (None, None),
    };
    [("weight", weight), ("bias", bias)]
}
