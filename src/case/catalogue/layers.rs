//! Layers beyond `torch.nn`, each in the same small families: plain and without affine parameters, variances near eps, large
//! means, constant groups, outliers, one value a group, NaN; evaluation and sequences where there is state.

use super::{Call, Maker, short};
use crate::arithmetic::DataType;
use crate::arithmetic::format::power_of_two;
use crate::case::sketch::{Role, Sketch, sketch};
use crate::case::values::{Values, held};
use crate::case::{Flag, Step};
use crate::operation::{Dialect, Mode, Operation, PreciseBatchNormStatistics, RmsNorm};
use crate::tensor::Tensor;

/// The operations that sketches know, in the order of the list.
pub(super) fn sketched() -> impl Iterator<Item = &'static str> {
    Operation::NAMES.iter().copied().filter(|name| sketch(name, [2, 2, 2], 1.0, &mut Values::new(0)).is_some())
}

/// What distinguishes one member of a family.
struct Member {
    label: &'static str,
    comment: &'static str,
    topics: &'static [Flag],
    sizes: [usize; 3],
    eps: f64,
    kind: Kind,
    /// Whether it has what it could do without.
    affine: bool,
    gradients: bool,
    double_backward: bool,
}

/// The values of an input.
#[derive(Clone, Copy)]
enum Kind {
    /// Near normal, with a mean and a deviation.
    Normal(f64, f64),
    Constant(f64),
    /// 96 at one place of each row of this many, 0 elsewhere.
    Outlier(usize),
    Nan,
}

const PLAIN: Member = Member {
    label: "plain",
    comment: "Values near normal, parameters as after training.",
    topics: &[],
    sizes: [2, 4, 6],
    eps: 1e-5,
    kind: Kind::Normal(0.25, 1.0),
    affine: true,
    gradients: true,
    double_backward: true,
};

fn members(name: &str, dtype: DataType) -> Vec<Member> {
    let precision = dtype.format().map_or(0, |format| format.precision);
    // The largest mean at which the type still holds deviations of a standard one with some digits.
    let mean = match dtype {
        DataType::F64 => 1e8,
        DataType::F32 => 1e4,
        DataType::F16 => 500.0,
        _ => 64.0,
    };
    let pixels = matches!(name, "layer_norm_2d" | "pixel_norm");
    let long = if pixels { [2, 40, 2] } else { [2, 2, 40] };
    let mut members = vec![
        PLAIN,
        Member { label: "bare", comment: "Without what it can do without.", affine: false, ..PLAIN },
        Member { label: "odd", comment: "Odd sizes.", sizes: [3, 3, 5], ..PLAIN },
        Member { label: "small", comment: "Two of everything.", sizes: [2, 2, 2], ..PLAIN },
        Member {
            label: "eps-0.5",
            comment: "A variance near eps.",
            eps: 0.5,
            kind: Kind::Normal(0.0, 0.75),
            double_backward: false,
            ..PLAIN
        },
        Member {
            label: "eps-1e-3",
            comment: "A variance near eps.",
            eps: 1e-3,
            kind: Kind::Normal(0.0, power_of_two(-5)),
            affine: false,
            double_backward: false,
            ..PLAIN
        },
        Member {
            label: "mean-large",
            comment: "A mean of many standard deviations.",
            topics: &[Flag::LargeMean],
            kind: Kind::Normal(mean, 1.0),
            affine: false,
            double_backward: false,
            ..PLAIN
        },
        Member {
            label: "constant",
            comment: "Constant groups.",
            topics: &[Flag::ConstantGroup],
            kind: Kind::Constant(held(dtype, 1.0 / 3.0)),
            double_backward: false,
            ..PLAIN
        },
        Member {
            label: "zero",
            comment: "Zeros.",
            topics: &[Flag::ConstantGroup],
            kind: Kind::Constant(0.0),
            gradients: false,
            double_backward: false,
            ..PLAIN
        },
        Member {
            label: "outlier",
            comment: "One outlier among zeros.",
            topics: &[Flag::Outlier],
            sizes: long,
            kind: Kind::Outlier(40),
            affine: false,
            gradients: false,
            double_backward: false,
            ..PLAIN
        },
        Member {
            label: "nan",
            comment: "A NaN comes out again, and stays in its group.",
            topics: &[Flag::NonFinite],
            kind: Kind::Nan,
            affine: false,
            gradients: false,
            double_backward: false,
            ..PLAIN
        },
        Member {
            label: "one-value",
            comment: "One position and one channel: a group of one value, or of one for each sample.",
            topics: &[Flag::BatchOne],
            sizes: [3, 1, 1],
            gradients: true,
            double_backward: false,
            ..PLAIN
        },
        Member {
            label: "one-sample",
            comment: "A batch of one.",
            topics: &[Flag::BatchOne],
            sizes: [1, 2, 5],
            double_backward: false,
            ..PLAIN
        },
    ];
    if dtype == DataType::F32 {
        let once = Member { gradients: false, double_backward: false, topics: &[Flag::BatchOne], ..PLAIN };
        let comment = "A batch of one without space: a vector of channels.";
        members.push(Member { label: "one-sample-flat", comment, sizes: [1, 4, 1], ..once });
        let comment = "A batch without samples.";
        members.push(Member { label: "empty", comment, topics: &[Flag::Empty], sizes: [0, 4, 6], ..once });
    }
    if precision > 20 {
        let comment = "A large group.";
        let sizes = if pixels { [1, 2048, 1] } else { [1, 2, 1024] };
        let (topics, kind) = (&[Flag::Large], Kind::Normal(3.0, 1.0));
        let large = Member { label: "large", comment, topics, sizes, kind, affine: false, gradients: false, ..PLAIN };
        members.push(Member { double_backward: false, ..large });
    }
    members
}

pub(super) fn make(maker: &mut Maker) {
    for name in sketched() {
        for dtype in DataType::FLOATS {
            for member in members(name, dtype) {
                member.add(maker, name, dtype);
            }
            mixed(maker, name, dtype);
            states(maker, name, dtype);
        }
    }
    for dtype in DataType::FLOATS {
        dialects(maker, dtype);
        masks(maker, dtype);
        norms_at_zero(maker, dtype);
        populations(maker, dtype);
    }
    refusals(maker);
}

impl Member {
    fn input(&self, values: &mut Values, shape: &[usize]) -> Vec<f64> {
        let count = shape.iter().product();
        match self.kind {
            Kind::Normal(mean, deviation) => values.normals(count, mean, deviation),
            Kind::Constant(value) => vec![value; count],
            Kind::Outlier(row) => {
                // Of pixels the channels are the row: along axis 1.
                let stride = if self.sizes[1] == row { self.sizes[2] } else { 1 };
                (0..count).map(|k| if k / stride % row == 7 { 96.0 } else { 0.0 }).collect()
            }
            Kind::Nan => {
                let mut input = values.normals(count, 0.0, 1.0);
                input[count / 2] = f64::NAN;
                input
            }
        }
    }

    fn add(self, maker: &mut Maker, name: &str, dtype: DataType) {
        let name = format!("{name}-{}-{}", short(dtype), self.label);
        let step = step(&self, &name, dtype, dtype);
        let wide = matches!(dtype, DataType::F32 | DataType::F64);
        // In a half type every intermediate result of a framework is rounded: one case shows it.
        if self.double_backward && (wide || self.label == "small") {
            maker.add_double_backward(&name, self.comment, self.topics, &step);
        }
        if self.gradients {
            maker.add_gradients(&name, self.comment, self.topics, &step);
        }
        maker.add_step(name, self.comment, self.topics, step);
    }
}

/// The call of a member, its parameters of another type perhaps.
fn step(member: &Member, case: &str, dtype: DataType, parameters: DataType) -> Step {
    let operation = case.split('-').next().unwrap_or_default();
    let mut values = Values::named(case);
    let Some(Sketch { operation, mode, parts }) = sketch(operation, member.sizes, member.eps, &mut values) else {
        panic!("{case}: no sketch");
    };
    let mut call = Call::new(operation, dtype).parameters_in(parameters);
    call.mode = mode;
    for part in parts.iter().filter(|part| member.affine || !part.optional) {
        let shape = part.shape(member.sizes);
        call = match part.role {
            Role::Input => {
                let input = member.input(&mut values, &shape);
                call.input(&shape, input)
            }
            // Of a channel of one value a mask must keep it: of none there is no mean.
            Role::Mask if member.sizes[0] * member.sizes[2] == 1 => {
                call.tensor(part.name, dtype, &shape, vec![1.0; shape.iter().product()])
            }
            // What is like the input is so in its type too.
            Role::Like | Role::Mask => {
                let filled = filled(part.role, &mut values, shape.iter().product());
                call.tensor(part.name, dtype, &shape, filled)
            }
            role => {
                let filled = filled(role, &mut values, shape.iter().product());
                call.parameter(part.name, &shape, filled)
            }
        };
    }
    call.step()
}

/// Values for a tensor of this role, as a trained layer has them.
fn filled(role: Role, values: &mut Values, count: usize) -> Vec<f64> {
    match role {
        Role::Input | Role::Like => values.normals(count, 0.25, 1.0),
        Role::Weight => (0..count).map(|_| values.sign() * (0.5 + values.uniform())).collect(),
        Role::Offset => values.normals(count, 0.0, 0.25),
        Role::Bias | Role::Logit => values.normals(count, 0.0, 0.25),
        Role::Mean => values.normals(count, 0.0, 0.5),
        Role::Variance => (0..count).map(|_| 0.5 + values.uniform()).collect(),
        // Of two neighbours at least one is kept.
        Role::Mask => (0..count).map(|k| if k % 5 == 1 { 0.0 } else { 1.0 }).collect(),
        Role::Slope => (0..count).map(|_| 0.5 + values.uniform()).collect(),
    }
}

/// Parameters in F32 with a half input.
fn mixed(maker: &mut Maker, name: &str, dtype: DataType) {
    if matches!(dtype, DataType::F16 | DataType::BF16) {
        let name = format!("{name}-{}-mixed", short(dtype));
        let step = step(&PLAIN, &name, dtype, DataType::F32);
        let parameters = step.tensors.iter().any(|(_, tensor)| tensor.dtype() == DataType::F32);
        if parameters {
            let comment = "Parameters and statistics in F32, a half-precision input.";
            maker.add_both(name, comment, &[Flag::MixedTypes], step);
        }
    }
}

/// Evaluation, and a sequence of two training steps and one of evaluation.
fn states(maker: &mut Maker, name: &str, dtype: DataType) {
    let label = |end: &str| format!("{name}-{}-{end}", short(dtype));
    let train = step(&PLAIN, &label("sequence"), dtype, dtype);
    if train.mode == Mode::Eval {
        return;
    }
    let eval = Step { mode: Mode::Eval, ..step(&PLAIN, &label("eval"), dtype, dtype) };
    maker.add_all(label("eval"), "Evaluation with stored statistics.", &[], eval);
    let next = step(&PLAIN, &label("sequence-2"), dtype, dtype);
    let mut second = train.clone();
    second.tensors.insert("input".to_owned(), next.tensors["input"].clone());
    // The state that a step before it returned is not repeated.
    second.tensors.retain(|name, _| !train.operation.signature().state.contains(&name.as_str()));
    let last = Step { mode: Mode::Eval, ..second.clone() };
    let comment = "Two training steps and one of evaluation, each with the state before it.";
    maker.add(label("sequence"), comment, &[Flag::Sequence], vec![train, second, last]);
}

/// RMS norm in the dialects of transformers.
fn dialects(maker: &mut Maker, dtype: DataType) {
    for (label, dialect) in
        [("llama", Dialect::Llama), ("gemma", Dialect::Gemma), ("t5", Dialect::T5), ("olmo2", Dialect::Olmo2)]
    {
        for (size, mean, deviation, eps) in
            [(8, 0.25, 1.0, 1e-6), (33, 3.0, 1.0, 1e-6), (12, 0.0, power_of_two(-5), 1e-3), (128, 0.0, 1.0, 1e-6)]
        {
            let end = if eps < 1e-4 { String::new() } else { "-eps".to_owned() };
            let name = format!("rms_norm-{}-{label}-size-{size}{end}", short(dtype));
            let mut values = Values::named(&name);
            let operation = Operation::RmsNorm(RmsNorm { normalized_shape: vec![size], eps: Some(eps), dialect });
            let role = if dialect == Dialect::Gemma { Role::Offset } else { Role::Weight };
            let call = Call::new(operation, dtype).parameter("weight", &[size], filled(role, &mut values, size));
            let step = call.input(&[4, size], values.normals(4 * size, mean, deviation)).step();
            maker.add_both(name, "RMS norm as transformers has it.", &[], step);
        }
        if matches!(dtype, DataType::F16 | DataType::BF16) {
            let name = format!("rms_norm-{}-{label}-mixed", short(dtype));
            let mut values = Values::named(&name);
            let operation = Operation::RmsNorm(RmsNorm { normalized_shape: vec![8], eps: Some(1e-6), dialect });
            let weight = filled(Role::Weight, &mut values, 8);
            let call = Call::new(operation, dtype).parameters_in(DataType::F32).parameter("weight", &[8], weight);
            let step = call.input(&[4, 8], values.normals(32, 0.25, 1.0)).step();
            let comment = "An F32 weight with a half input: which type comes out is the dialect's.";
            maker.add_step(name, comment, &[Flag::MixedTypes], step);
        }
    }
}

/// Masks that keep everything, one value of a group, or none.
fn masks(maker: &mut Maker, dtype: DataType) {
    for operation in ["masked_layer_norm", "masked_group_norm", "masked_batch_norm"] {
        for (label, keeps, comment) in [
            ("all-kept", (|_| true) as fn(usize) -> bool, "A mask that keeps everything changes nothing."),
            (
                "one-kept",
                |k| k % 24 == 2 || k % 12 == 7 || k % 6 == 3,
                "Few values are kept; of one the variance is 0.",
            ),
            ("first-half", |k| k % 6 < 3, "The second half of each row is left out."),
        ] {
            let name = format!("{operation}-{}-{label}", short(dtype));
            let mut step = step(&PLAIN, &name, dtype, dtype);
            let shape = step.tensors["input"].shape().to_vec();
            let mask = (0..shape.iter().product()).map(|k| if keeps(k) { 1.0 } else { 0.0 }).collect();
            step.tensors.insert("mask".to_owned(), Tensor::rounded(dtype, &shape, mask));
            maker.add_both(name, comment, &[], step);
        }
        let name = format!("{operation}-{}-none-kept", short(dtype));
        let mut step = step(&PLAIN, &name, dtype, dtype);
        let shape = step.tensors["input"].shape().to_vec();
        let mask = vec![0.0; shape.iter().product()];
        step.tensors.insert("mask".to_owned(), Tensor::rounded(dtype, &shape, mask));
        maker.add_step(name, "Nothing is kept: there is no mean.", &[Flag::NonFinite], step);
    }
}

/// Where a norm has its corner: vectors of zeros, and shorter ones than eps.
fn norms_at_zero(maker: &mut Maker, dtype: DataType) {
    for (label, scale) in [("short", power_of_two(-8)), ("some-zero", 1.0)] {
        for operation in ["scale_norm", "global_response_norm", "weight_demodulation", "unit_norm_step"] {
            let name = format!("{operation}-{}-{label}", short(dtype));
            let member = Member { eps: power_of_two(-3), kind: Kind::Normal(0.0, scale), ..PLAIN };
            let mut step = step(&member, &name, dtype, dtype);
            // A block is divided by its norm as well.
            for part in ["input", "block"] {
                let Some(tensor) = step.tensors.get(part) else { continue };
                let row = tensor.shape()[2];
                let element = |(k, x): (usize, f64)| match label {
                    "short" if part == "block" => x * scale,
                    "some-zero" if k / row % 4 == 1 => 0.0,
                    _ => x,
                };
                let values = tensor.to_f64().into_iter().enumerate().map(element).collect();
                let changed = Tensor::rounded(dtype, tensor.shape(), values);
                step.tensors.insert(part.to_owned(), changed);
            }
            maker.add_both(name, "Vectors of zeros, or shorter than eps.", &[], step);
        }
    }
}

/// A population that comes in batches, none of them empty, which an implementation may divide by.
fn populations(maker: &mut Maker, dtype: DataType) {
    for (label, splits, mean, spread) in [
        ("one-batch", vec![4], 0.5, 0.0),
        ("equal", vec![2, 2, 2], 0.5, 0.0),
        ("unequal", vec![1, 4, 2], 0.5, 0.0),
        ("apart", vec![2, 3], 0.0, 4.0),
        ("far", vec![3, 2], 64.0, 0.0),
    ] {
        let name = format!("precise_batch_norm_statistics-{}-population-{label}", short(dtype));
        let mut values = Values::named(&name);
        let mut input = Vec::new();
        for (index, &samples) in splits.iter().enumerate() {
            input.extend(values.normals(samples * 12, mean + spread * index as f64, 1.0));
        }
        let shape = [splits.iter().sum(), 3, 4];
        let operation = Operation::PreciseBatchNormStatistics(PreciseBatchNormStatistics { splits });
        let step = Call::new(operation, dtype).input(&shape, input).step();
        maker.add_both(name, "The statistics of all batches together, however they are split.", &[], step);
    }
}

/// Calls that must be refused: a tensor of another shape, a rank, a number that does not divide.
fn refusals(maker: &mut Maker) {
    let dtype = DataType::F32;
    let wrong_shapes: [(&str, &str, &[usize]); 41] = [
        ("layer_norm_2d", "weight", &[6]),
        ("layer_norm_2d", "input", &[2, 4, 6]),
        ("pixel_norm", "input", &[4]),
        ("layer_norm_1p", "weight", &[6]),
        ("simple_norm", "weight", &[4]),
        ("qk_norm", "key", &[2, 1, 5]),
        ("rms_norm_gated", "gate", &[2, 4, 1]),
        ("filter_response_norm", "tau", &[1]),
        ("ada_layer_norm", "scale", &[2, 4]),
        ("ada_group_norm", "shift", &[4]),
        ("ada_instance_norm", "style", &[2, 3, 3]),
        ("film", "gamma", &[4]),
        ("spade", "beta", &[2, 4]),
        ("scaled_weight_standardization", "gain", &[4]),
        ("weight_standardization", "input", &[2]),
        ("split_batch_norm", "weight", &[4]),
        ("masked_layer_norm", "mask", &[4, 6]),
        ("scale_norm", "weight", &[6]),
        ("global_response_norm", "weight", &[6]),
        ("dynamic_tanh", "alpha", &[6]),
        ("weight_demodulation", "style", &[2, 6]),
        ("batch_renorm", "running_std", &[1]),
        ("online_norm", "running_var", &[1]),
        ("online_norm_backward", "sigma", &[4]),
        ("moving_average_batch_norm", "history", &[4]),
        ("power_norm", "running_square", &[1]),
        ("power_norm_backward", "normalized", &[2, 4]),
        ("switchable_norm", "mean_logits", &[2]),
        ("batch_instance_norm", "rho", &[1]),
        ("batch_channel_norm", "rho", &[4]),
        ("iter_norm", "running_projection", &[4]),
        ("decorrelated_batch_norm", "running_projection", &[4]),
        ("positional_norm", "input", &[4]),
        ("mean_only_batch_norm", "running_mean", &[6]),
        ("l1_batch_norm", "running_scale", &[6]),
        ("virtual_batch_norm", "reference", &[3, 4, 5]),
        ("extended_batch_norm", "running_var", &[4]),
        ("proxy_norm", "proxy_scale", &[1]),
        ("batch_group_norm", "running_mean", &[4]),
        ("adaptive_batch_norm", "running_mean", &[6]),
        ("unit_norm_step", "alpha", &[4]),
    ];
    for (operation, tensor, shape) in wrong_shapes {
        let name = format!("{operation}-f32-refuses-{}", tensor.replace('_', "-"));
        let mut step = step(&PLAIN, &name, dtype, dtype);
        let values = vec![1.0; shape.iter().product()];
        step.tensors.insert(tensor.to_owned(), Tensor::rounded(dtype, shape, values));
        maker.add_step(name, "A tensor of another shape than the others ask for.", &[Flag::Refusal], step);
    }
    for (operation, field, value) in [
        ("ghost_batch_norm", "batch_size", serde_json::json!(3)),
        ("split_batch_norm", "num_splits", serde_json::json!(3)),
        ("ada_group_norm", "num_groups", serde_json::json!(3)),
        ("evo_norm_s0", "num_groups", serde_json::json!(0)),
        ("rms_norm_gated", "group_size", serde_json::json!(4)),
        ("batch_renorm", "r_max", serde_json::json!(0.5)),
        ("precise_batch_norm_statistics", "splits", serde_json::json!([1, 2])),
        ("batch_group_norm", "num_groups", serde_json::json!(3)),
        ("adaptive_batch_norm", "source_count", serde_json::json!(-1.0)),
        ("iter_norm", "iterations", serde_json::json!(17)),
    ] {
        let name = format!("{operation}-f32-refuses-{}", field.replace('_', "-"));
        let mut step = step(&PLAIN, &name, dtype, dtype);
        let mut json = serde_json::to_value(&step.operation).expect("an operation is JSON");
        json[field] = value;
        step.operation = serde_json::from_value(json).expect("the field has this type");
        maker.add_step(name, "A hyper-parameter that does not fit.", &[Flag::Refusal], step);
    }
    for (operation, sizes) in [
        ("spade", [1, 2, 1]),
        ("ghost_batch_norm", [1, 2, 1]),
        ("split_batch_norm", [1, 2, 1]),
        ("evo_norm_b0", [1, 2, 1]),
        ("evo_norm_b1", [1, 2, 1]),
        ("evo_norm_b2", [1, 2, 1]),
        ("batch_instance_norm", [1, 2, 1]),
        ("batch_channel_norm", [1, 2, 1]),
        ("weight_standardization", [3, 1, 1]),
        ("scaled_weight_standardization", [3, 1, 1]),
    ] {
        let name = format!("{operation}-f32-refuses-one-value");
        let step = step(&Member { sizes, ..PLAIN }, &name, dtype, dtype);
        let topics = &[Flag::Refusal, Flag::BatchOne];
        maker.add_step(name, "One value has no unbiased variance, or none that is not 0.", topics, step);
    }
}
