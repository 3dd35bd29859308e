//! Settings: the input of a trial, on a grid so coarse that what a law does to it is exact.
//!
//! ```text
//! x = (k + o)·2^−e      k, o integers with |k|, |o| ≤ K = 2^(p−4), at most 1024 for k
//! ```
//! in a type of p bits: x + c, 3x and −x are again numbers of the type, so that a law compares answers to inputs that are
//! related exactly. eps is a power of two. Even rounds have no offset o; the first rounds are the smallest.

use crate::arithmetic::DataType;
use crate::arithmetic::format::power_of_two;
use crate::case::sketch::{Along, Role, Sketch, sketch};
use crate::case::values::Values;
use crate::case::{Layout, Step};
use crate::operation::{
    BatchNorm, BatchNormDialect, ConvBatchNormFold, CrossMapLrn, Dialect, FrozenBatchNorm, GroupNorm, InstanceNorm,
    LayerNorm, LocalResponseNorm, Mode, Normalize, Operation, Renorm, RmsNorm, SpectralNorm, SyncBatchNorm, WeightNorm,
};
use crate::tensor::{Tensor, Tensors};

/// What a trial is made from.
pub(super) struct Setting {
    pub values: Values,
    pub operation: &'static str,
    pub dtype: DataType,
    pub round: usize,
}

impl Setting {
    /// Round `round` of a property for an operation and a data type.
    pub fn new(property: &str, operation: &'static str, dtype: DataType, seed: u64, round: usize) -> Setting {
        let values = Values::named(&format!("property {property} {operation} {dtype} {seed} {round}"));
        Setting { values, operation, dtype, round }
    }

    /// The same on values of these draws.
    pub fn chosen(draws: &[u64], operation: &'static str, dtype: DataType, round: usize) -> Setting {
        Setting { values: Values::chosen(draws), operation, dtype, round }
    }

    /// K, the largest integer of the grid.
    pub fn limit(&self) -> i64 {
        1 << (self.dtype.format().expect("a floating-point type").precision - 4)
    }

    /// An integer in −most..=most: 0, −1, 1, −2, 2, … for draws of 0, 1, 2, …, so that smaller draws are simpler.
    pub fn integer(&mut self, most: i64) -> i64 {
        let draw = self.values.below(2 * most as usize + 1) as i64;
        if draw % 2 == 0 { draw / 2 } else { -(draw + 1) / 2 }
    }

    /// The sizes N, C and L of a small input, more values in later rounds; `least` of L.
    pub fn sizes(&mut self, least: usize) -> [usize; 3] {
        let grown = 2 * self.round.min(6);
        [2 + self.values.below(2), self.values.pick(&[2, 4, 6]), least + self.values.below(2 + grown)]
    }

    /// `count` numbers of the grid in units of `unit`.
    pub fn grid(&mut self, count: usize, unit: f64) -> Vec<f64> {
        let limit = self.limit();
        let offset = if self.round % 2 == 1 { self.integer(limit) } else { 0 };
        (0..count).map(|_| (self.integer(limit.min(1024)) + offset) as f64 * unit).collect()
    }

    /// The unit of a grid.
    pub fn unit(&mut self) -> f64 {
        power_of_two(-self.values.pick(&[0, 4, 6]))
    }

    /// A power of two for eps, large enough to matter.
    pub fn eps(&mut self) -> f64 {
        power_of_two(-self.values.pick(&[1, 3, 7, 10]))
    }

    /// A tensor of this type.
    pub fn tensor(&self, shape: &[usize], values: Vec<f64>) -> Tensor {
        Tensor::rounded(self.dtype, shape, values)
    }

    /// A call of the operation without affine parameters and running statistics where it can do without, in training
    /// where that differs (but for the power iteration); the input is (N, C, L) or (N, C, L, 1).
    pub fn step(&mut self) -> Step {
        let sizes = self.sizes(2);
        self.step_of(self.operation, sizes)
    }

    /// A call that sketches know, without what it can do without.
    fn sketched(&mut self, name: &str, sizes: [usize; 3]) -> Option<Step> {
        let eps = self.eps();
        let Sketch { operation, mode, parts } = sketch(name, sizes, eps, &mut self.values)?;
        let mut tensors = Tensors::new();
        for mut part in parts.into_iter().filter(|part| !part.optional) {
            // One sample: the output then has the elements of the input, in its order.
            if name == "weight_demodulation" && part.name == "style" {
                part.axes[0] = Along::Of(1);
            }
            let shape = part.shape(sizes);
            let count = shape.iter().product();
            let mut few = |choices: &[f64]| (0..count).map(|_| self.values.pick(choices)).collect::<Vec<f64>>();
            let values = match part.role {
                Role::Weight | Role::Offset => few(&[0.5, 1.5, 2.0, 3.0, -1.0, -0.75]),
                Role::Bias | Role::Logit => vec![0.0; count],
                Role::Mean => few(&[0.0, 1.0, -2.0, 3.0]),
                Role::Variance => few(&[0.5, 1.0, 4.0]),
                Role::Slope => few(&[0.25, 0.5, 1.5]),
                // The last position of a row is left out.
                Role::Mask => {
                    (0..count).map(|k| if sizes[2] > 1 && k % sizes[2] == sizes[2] - 1 { 0.0 } else { 1.0 }).collect()
                }
                Role::Input | Role::Like => {
                    let unit = self.unit();
                    self.grid(count, unit)
                }
            };
            tensors.insert(part.name.to_owned(), self.tensor(&shape, values));
        }
        let layout = Layout::default();
        Some(Step { operation, mode, layout, gradients: false, double_backward: false, tensors })
    }

    /// The same of another operation, with these sizes.
    pub fn step_of(&mut self, name: &str, [n, c, l]: [usize; 3]) -> Step {
        if let Some(step) = self.sketched(name, [n, c, l]) {
            return step;
        }
        let unit = self.unit();
        let mut input = self.grid(n * c * l, unit);
        let mut shape = vec![n, c, l];
        let mut tensors = Tensors::new();
        let (mut mode, dialect, eps, momentum) = (Mode::Eval, Dialect::Pytorch, self.eps(), Some(0.5));
        let dtype = self.dtype;
        let mut insert = |name: &str, shape: &[usize], values: Vec<f64>| {
            tensors.insert(name.to_owned(), Tensor::rounded(dtype, shape, values));
        };
        let operation = match name {
            "batch_norm" => {
                mode = Mode::Train;
                let dialect = BatchNormDialect::Pytorch;
                Operation::BatchNorm(BatchNorm { spatial_dims: Some(1), eps, momentum, dialect })
            }
            "sync_batch_norm" => {
                mode = Mode::Train;
                Operation::SyncBatchNorm(SyncBatchNorm { eps, momentum, splits: vec![1, 0, n - 1] })
            }
            "instance_norm" => {
                mode = Mode::Train;
                Operation::InstanceNorm(InstanceNorm { spatial_dims: 1, eps, momentum })
            }
            "layer_norm" => Operation::LayerNorm(LayerNorm { normalized_shape: vec![c, l], eps, dialect }),
            "group_norm" => {
                let num_groups = if c.is_multiple_of(2) { 2 } else { 1 };
                Operation::GroupNorm(GroupNorm { num_groups, eps, dialect })
            }
            "rms_norm" => Operation::RmsNorm(RmsNorm { normalized_shape: vec![c, l], eps: Some(eps), dialect }),
            "local_response_norm" | "cross_map_lrn" => {
                let (size, alpha) = (self.values.below(5) as i64 + 1, self.values.pick(&[0.125, 1.0, 2.0]));
                let (beta, k) = (0.75, self.values.pick(&[1.0, 2.0]));
                if name == "cross_map_lrn" {
                    shape.push(1);
                    Operation::CrossMapLrn(CrossMapLrn { size, alpha, beta, k })
                } else {
                    Operation::LocalResponseNorm(LocalResponseNorm { size, alpha, beta, k })
                }
            }
            "normalize" => {
                let p = self.values.pick(&[2.0, 1.0, 3.0, f64::INFINITY]);
                Operation::Normalize(Normalize { p, dim: 1, eps })
            }
            "renorm" => {
                let p = self.values.pick(&[2.0, 1.0, 3.0, f64::INFINITY]);
                let maxnorm = power_of_two(self.values.below(4) as i32);
                Operation::Renorm(Renorm { p, dim: 0, maxnorm })
            }
            "weight_norm" => {
                insert("weight", &[n, 1, 1], (0..n).map(|_| self.values.pick(&[0.5, 2.0, 3.0, -1.0])).collect());
                Operation::WeightNorm(WeightNorm { dim: Some(0) })
            }
            "spectral_norm" => {
                insert("u", &[n], (0..n).map(|_| self.values.pick(&[0.25, 0.5, 0.75])).collect());
                insert("v", &[c * l], (0..c * l).map(|_| self.values.pick(&[0.25, 0.5, 0.75])).collect());
                // σ is a sum of products that do not cancel.
                input.iter_mut().for_each(|x| *x = x.abs() + unit);
                Operation::SpectralNorm(SpectralNorm { dim: 0, n_power_iterations: 1, eps: 1e-12 })
            }
            "frozen_batch_norm" | "conv_batch_norm_fold" => {
                let folds = name == "conv_batch_norm_fold";
                let channels = if folds { n } else { c };
                let mut few = |choices: &[f64]| (0..channels).map(|_| self.values.pick(choices)).collect::<Vec<f64>>();
                insert("weight", &[channels], few(&[1.0, 2.0, -0.5]));
                insert("bias", &[channels], vec![0.0; channels]);
                insert("running_mean", &[channels], few(&[0.0, 1.0, -2.0, 3.0]));
                insert("running_var", &[channels], few(&[0.5, 1.0, 4.0]));
                if folds {
                    insert("conv_bias", &[channels], few(&[0.0, 1.0, -4.0]));
                    Operation::ConvBatchNormFold(ConvBatchNormFold { eps, transposed: false })
                } else {
                    shape.push(1);
                    Operation::FrozenBatchNorm(FrozenBatchNorm { eps })
                }
            }
            other => panic!("no trial is made for {other}"),
        };
        insert("input", &shape, input);
        Step { operation, mode, layout: Layout::default(), gradients: false, double_backward: false, tensors }
    }

    /// Weight and bias for a call of the family, of few digits.
    pub fn affine(&mut self, step: &mut Step) {
        let shape = parameter_shape(step);
        let count = shape.iter().product();
        let few = |values: &mut Values, choices: &[f64]| (0..count).map(|_| values.pick(choices)).collect();
        let weights = few(&mut self.values, &[0.5, 1.5, 2.0, 3.0, -1.0, -0.75]);
        let biases = few(&mut self.values, &[0.25, 0.5, 1.0, -2.0]);
        step.tensors.insert("weight".to_owned(), self.tensor(&shape, weights));
        if step.operation.signature().optional.contains(&"bias") {
            step.tensors.insert("bias".to_owned(), self.tensor(&shape, biases));
        }
    }
}

/// The shape of weight and bias in the family.
pub(super) fn parameter_shape(step: &Step) -> Vec<usize> {
    let shape = step.tensors["input"].shape();
    match &step.operation {
        Operation::LayerNorm(norm) => norm.normalized_shape.clone(),
        Operation::RmsNorm(norm) => norm.normalized_shape.clone(),
        _ => vec![shape[1]],
    }
}

/// The same step with other elements in tensor `name`: `change` gets the index and the value. Numbers that the type does
/// not hold are rounded, which a law that is exact must avoid.
pub(super) fn changed(step: &Step, name: &str, change: impl Fn(usize, f64) -> f64) -> Step {
    let mut step = step.clone();
    let tensor = &step.tensors[name];
    let values = tensor.to_f64().into_iter().enumerate().map(|(index, x)| change(index, x)).collect();
    let tensor = Tensor::rounded(tensor.dtype(), tensor.shape(), values);
    step.tensors.insert(name.to_owned(), tensor);
    step
}

/// The numbers of an element along the axes N, C and whatever follows.
pub(super) fn axes(step: &Step, index: usize) -> [usize; 3] {
    let shape = step.tensors["input"].shape();
    let rest: usize = shape[2..].iter().product();
    [index / (shape[1] * rest), index / rest % shape[1], index % rest]
}

/// The hyper-parameter `name` of an operation that has it.
pub(super) fn field(operation: &Operation, name: &str) -> Option<serde_json::Value> {
    serde_json::to_value(operation).ok()?.get_mut(name).map(serde_json::Value::take)
}

/// The operation with a hyper-parameter times `factor`, if it has one of this name.
fn with_field(operation: &Operation, name: &str, factor: f64) -> Option<Operation> {
    let value = field(operation, name)?.as_f64()? * factor;
    let mut json = serde_json::to_value(operation).ok()?;
    json[name] = value.into();
    serde_json::from_value(json).ok()
}

/// The step's eps, times `factor`.
pub(super) fn with_eps(step: &Step, factor: f64) -> Option<Step> {
    let mut step = step.clone();
    match &mut step.operation {
        Operation::BatchNorm(norm) => norm.eps *= factor,
        Operation::SyncBatchNorm(norm) => norm.eps *= factor,
        Operation::InstanceNorm(norm) => norm.eps *= factor,
        Operation::LayerNorm(norm) => norm.eps *= factor,
        Operation::GroupNorm(norm) => norm.eps *= factor,
        Operation::RmsNorm(norm) => norm.eps = norm.eps.map(|eps| eps * factor),
        Operation::Normalize(norm) => norm.eps *= factor.sqrt(),
        Operation::LocalResponseNorm(norm) => norm.alpha /= factor,
        Operation::CrossMapLrn(norm) => norm.alpha /= factor,
        Operation::WeightNorm(_) | Operation::SpectralNorm(_) | Operation::MeanOnlyBatchNorm(_) => {}
        // An eps beside a norm scales as the norm does, one beside a variance as its square.
        Operation::ScaleNorm(norm) => norm.eps *= factor.sqrt(),
        Operation::GlobalResponseNorm(norm) => norm.eps *= factor.sqrt(),
        Operation::L1BatchNorm(norm) => norm.eps *= factor.sqrt(),
        other => *other = with_field(other, "eps", factor)?,
    }
    Some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_all_those_of_the_range_the_small_ones_first() {
        let draws: Vec<u64> = (0..7).collect();
        let mut setting = Setting::chosen(&draws, "layer_norm", DataType::F32, 0);
        let integers: Vec<i64> = (0..8).map(|_| setting.integer(3)).collect();
        assert_eq!(integers, [0, -1, 1, -2, 2, -3, 3, 0]);
    }
}
