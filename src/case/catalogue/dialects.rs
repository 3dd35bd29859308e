//! Batch norm in the dialects of other frameworks: what tells each from its nearest relative, and its degenerate inputs.
//!
//! A case's name has the dialect in the second place: `batch_norm-keras-f32-train`.

use super::{Call, Maker, short, trained};
use crate::arithmetic::DataType;
use crate::case::values::{Values, held};
use crate::case::{Flag, Step};
use crate::operation::{BatchNorm, BatchNormDialect, Conventions, OneValue, Operation};

pub(super) fn make(maker: &mut Maker) {
    for &dialect in &BatchNormDialect::ALL[1..] {
        for dtype in DataType::FLOATS {
            let of = Of { dialect, dtype };
            of.training(maker);
            of.few_values(maker);
            if matches!(dtype, DataType::F64 | DataType::F32) {
                of.evaluation(maker);
                of.degenerate(maker);
                of.momenta(maker);
            }
        }
    }
}

/// The cases of a dialect in a data type.
#[derive(Clone, Copy)]
struct Of {
    dialect: BatchNormDialect,
    dtype: DataType,
}

const CHANNELS: usize = 3;

impl Of {
    fn name(self, label: &str) -> String {
        format!("batch_norm-{}-{}-{label}", self.dialect.name(), short(self.dtype))
    }

    fn conventions(self) -> &'static Conventions {
        self.dialect.conventions()
    }

    fn call(self, momentum: f64) -> Call {
        let eps = self.conventions().default_eps.unwrap_or(1e-5);
        let norm = BatchNorm { spatial_dims: None, eps, momentum: Some(momentum), dialect: self.dialect };
        Call::new(Operation::BatchNorm(norm), self.dtype)
    }

    /// The framework's momentum, or a usual one where it has no default.
    fn momentum(self) -> f64 {
        self.conventions().default_momentum.unwrap_or(0.9)
    }

    /// (N, C, L), in TensorFlow's fused kernel (N, C, L, 1).
    fn shape(self, samples: usize, length: usize) -> Vec<usize> {
        let fused = self.dialect == BatchNormDialect::Tensorflow;
        if fused { vec![samples, CHANNELS, length, 1] } else { vec![samples, CHANNELS, length] }
    }

    fn batch(self, values: &mut Values, shape: &[usize], mean: f64) -> Vec<f64> {
        values.normals(shape.iter().product(), mean, 1.0)
    }

    /// The state of a new layer.
    fn fresh(self, call: Call) -> Call {
        let variance =
            if matches!(self.dialect, BatchNormDialect::Haiku | BatchNormDialect::Caffe) { 0.0 } else { 1.0 };
        self.with_state(call, |name| vec![if name == "running_var" { variance } else { 0.0 }; CHANNELS], 0.0, 0)
    }

    /// The state of a layer that has seen a few batches.
    fn used(self, call: Call, values: &mut Values) -> Call {
        let gathered = 2.5;
        let scale = if self.dialect == BatchNormDialect::Caffe { gathered } else { 1.0 };
        let state = |name: &str| -> Vec<f64> {
            let variance = name.ends_with("var");
            let one = |values: &mut Values| if variance { 0.5 + values.uniform() } else { values.normal() };
            (0..CHANNELS).map(|_| scale * one(values)).collect()
        };
        self.with_state(call, state, gathered, 3)
    }

    fn with_state(
        self,
        mut call: Call,
        mut vector: impl FnMut(&str) -> Vec<f64>,
        scale_factor: f64,
        batches: i64,
    ) -> Call {
        for &name in self.conventions().state {
            call = match name {
                "num_batches_tracked" => call.counter(batches),
                "scale_factor" => call.parameter(name, &[1], vec![scale_factor]),
                _ => call.parameter(name, &[CHANNELS], vector(name)),
            };
        }
        call
    }

    fn affine(self, call: Call, values: &mut Values) -> Call {
        if !self.conventions().affine {
            return call;
        }
        let (weight, bias) = trained(values, CHANNELS);
        call.parameter("weight", &[CHANNELS], weight).parameter("bias", &[CHANNELS], bias)
    }

    /// A training call of a layer that has seen a few batches.
    fn step(self, values: &mut Values, momentum: f64, shape: &[usize], mean: f64) -> Step {
        let call = self.affine(self.used(self.call(momentum).train(), values), values);
        let input = self.batch(values, shape, mean);
        call.input(shape, input).step()
    }

    fn training(self, maker: &mut Maker) {
        let name = self.name("train");
        let step = self.step(&mut Values::named(&name), 0.75, &self.shape(4, 2), 2.0);
        maker.add_both(name, "A training step: momentum far from both of its ends.", &[], step);

        let name = self.name("sequence");
        let mut values = Values::named(&name);
        let shape = self.shape(4, 2);
        let steps = (0..4).map(|index| {
            let call = self.call(self.momentum());
            let call = if index == 0 { self.fresh(call) } else { call };
            let call = if index == 3 { call } else { call.train() };
            call.input(&shape, self.batch(&mut values, &shape, 1.0 + f64::from(index))).step()
        });
        let steps = steps.collect();
        maker.add(name, "A new layer: three batches in training, then evaluation.", &[Flag::Sequence], steps);
    }

    /// Where Bessel's correction is largest, and where it is none.
    fn few_values(self, maker: &mut Maker) {
        let name = self.name("two-values");
        let step = self.step(&mut Values::named(&name), 0.5, &self.shape(2, 1), 3.0);
        maker.add_step(name, "Two values per channel: the unbiased variance is twice the biased one.", &[], step);

        if self.dialect == BatchNormDialect::Cudnn {
            return; // It is not documented what one value does.
        }
        let name = self.name("one-value");
        let mut values = Values::named(&name);
        let first = self.step(&mut values, 0.5, &self.shape(1, 1), 3.0);
        let shape = self.shape(2, 1);
        let input = self.batch(&mut values, &shape, 0.0);
        let second = self.call(0.5).input(&shape, input).step();
        let comment = match self.conventions().one_value {
            OneValue::PassedOn => "One value per channel in training is passed on; then evaluation.",
            OneValue::Refused => "One value per channel in training is refused; then evaluation.",
            _ => "One value per channel in training gives the bias; then evaluation.",
        };
        maker.add(name, comment, &[Flag::BatchOne, Flag::Sequence], vec![first, second]);
    }

    fn evaluation(self, maker: &mut Maker) {
        let name = self.name("eval");
        let mut values = Values::named(&name);
        let shape = self.shape(3, 2);
        let call = self.affine(self.used(self.call(0.75), &mut values), &mut values);
        let input = self.batch(&mut values, &shape, 0.5);
        maker.add_both(
            name,
            "Evaluation reads the statistics as its dialect keeps them.",
            &[],
            call.input(&shape, input).step(),
        );

        let name = self.name("eval-fresh");
        let input = self.batch(&mut Values::named(&name), &shape, 0.5);
        let step = self.fresh(self.call(0.75)).input(&shape, input).step();
        maker.add_step(name, "Evaluation before any training.", &[], step);
    }

    fn degenerate(self, maker: &mut Maker) {
        let name = self.name("batch-one");
        let step = self.step(&mut Values::named(&name), 0.5, &self.shape(1, 5), 1.0);
        maker.add_step(name, "One sample with space: five values per channel.", &[Flag::BatchOne], step);

        if !matches!(self.dialect, BatchNormDialect::Cudnn | BatchNormDialect::Tensorflow) {
            let name = self.name("one-value-flat");
            let step = self.step(&mut Values::named(&name), 0.5, &[1, CHANNELS], 1.0);
            maker.add_step(name, "One sample without space: one value per channel.", &[Flag::BatchOne], step);
        }

        let name = self.name("constant");
        let mut values = Values::named(&name);
        let call = self.affine(self.used(self.call(0.5).train(), &mut values), &mut values);
        let shape = self.shape(3, 3);
        let constants = [1.0 / 3.0, 1234.0, 0.0].map(|c| held(self.dtype, c));
        let input = (0..27).map(|index| constants[index / 3 % 3]).collect();
        let comment = "Constant channels: the exact output is the bias, the variance 0.";
        maker.add_step(name, comment, &[Flag::ConstantGroup], call.input(&shape, input).step());

        let name = self.name("empty");
        let shape = self.shape(0, 2);
        let step = self.used(self.call(0.5).train(), &mut Values::named(&name)).input(&shape, vec![]).step();
        maker.add_step(name, "A batch without samples.", &[Flag::Empty], step);

        let name = self.name("large-mean");
        let step = self.step(&mut Values::named(&name), 0.5, &self.shape(5, 4), 3000.0);
        maker.add_step(name, "A mean of three thousand standard deviations.", &[Flag::LargeMean], step);
    }

    fn momenta(self, maker: &mut Maker) {
        let debiased = matches!(self.dialect, BatchNormDialect::Haiku | BatchNormDialect::EquinoxBatch);
        for (label, momentum) in [("0", 0.0), ("0.01", 0.01), ("1", 1.0)] {
            // 1 − 1ᵗ divides by zero.
            if debiased && momentum == 1.0 {
                continue;
            }
            let name = self.name(&format!("momentum-{label}"));
            let step = self.step(&mut Values::named(&name), momentum, &self.shape(4, 2), 4.0);
            maker.add_step(name, "Momentum at its ends: which of old and new is left?", &[], step);
        }
        let name = self.name("image");
        let shape = [2, CHANNELS, 3, 4];
        let step = self.step(&mut Values::named(&name), self.momentum(), &shape, 1.0);
        if self.dialect == BatchNormDialect::EquinoxEma {
            maker.add_double_backward(&name, "Images.", &[], &step);
        }
        maker.add_both(name, "Images.", &[], step);
    }
}
