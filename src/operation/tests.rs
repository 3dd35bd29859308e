//! The family's kernel: its gradients against dual numbers through its forward pass, and its rules one by one.

use super::normalization::{check_dtypes, check_vectors, factor, moves, normalizes_by_batch};
use super::*;
use crate::arithmetic::{DataType, Dual, Factor, Plain, Real, Truth};
use crate::case::values::Values;
use crate::case::{Step, random};
use crate::tensor::Tensor;

/// An operation, its rule, and which of its steps are meant.
type Asked = (&'static str, Rule, fn(&Step) -> bool);

/// Random steps of the family that ask for gradients and fit.
fn steps(name: &str, count: u64, fits: fn(&Step) -> bool) -> impl Iterator<Item = Step> {
    (0..count).map(move |seed| {
        let mut values = Values::named(&format!("{name} {seed}"));
        let mut step = || random::step(&mut values, name, DataType::F64, 6);
        std::iter::repeat_with(&mut step).find(|step| step.gradients && fits(step)).unwrap()
    })
}

/// A batch norm of an input of this shape, with running statistics and three batches counted.
fn batch_norm(mode: Mode, shape: &[usize], momentum: Option<f64>) -> Step {
    let dialect = BatchNormDialect::default();
    let operation = Operation::BatchNorm(BatchNorm { spatial_dims: None, eps: 1e-5, momentum, dialect });
    let channels = shape[1];
    let ramp = |shape: &[usize]| {
        Tensor::rounded(DataType::F64, shape, (0..shape.iter().product()).map(|k| (k * k) as f64 / 8.0).collect())
    };
    let mut step = Step::forward(operation, Tensors::new());
    step.mode = mode;
    for (name, shape) in [("input", shape), ("running_mean", &[channels]), ("running_var", &[channels])] {
        step.tensors.insert(name.to_owned(), ramp(shape));
    }
    step.tensors.insert("num_batches_tracked".to_owned(), Tensor::counter(3));
    step
}

/// ⟨grad_input, u⟩ + ⟨grad_weight, v⟩ + ⟨grad_bias, w⟩ from the backward pass, and from the forward pass in dual numbers.
fn along(step: &Step, rule: &Rule) -> (Truth, Truth) {
    let plan = step.plan(rule).unwrap();
    let tensors = step.values(Truth::exact);
    let gradients = step.operation.backward(&Plain::<Truth>::new(), &plan, &tensors, &step.descriptions(), rule);
    let mut values = Values::named("directions");
    let mut dual = Tensors::new();
    let mut by_hand = Truth::exact(0.0);
    for (name, x) in &tensors {
        let gradient = gradients.get(&format!("grad_{name}"));
        let rates: Vec<Truth> = x.iter().map(|_| Truth::exact(gradient.map_or(0.0, |_| values.normal()))).collect();
        for (&gradient, &rate) in gradient.iter().flat_map(|gradient| &gradient.values).zip(&rates) {
            by_hand = by_hand + gradient * rate;
        }
        dual.insert(name.clone(), x.iter().zip(&rates).map(|(&x, &rate)| Dual::new(x, rate)).collect::<Vec<_>>());
    }
    let output = &step.operation.forward(&Plain::<Dual<Truth>>::new(), &plan, &dual, rule).tensors["output"];
    let terms = output.values.iter().zip(&tensors["grad_output.output"]).map(|(y, &g)| y.derivative * g);
    (by_hand, Truth::sum(terms))
}

#[test]
fn gradients_are_those_of_the_forward_pass() {
    let updated = Rule { training: TrainingStatistics::Updated, ..Rule::default() };
    let trains = |step: &Step| step.mode == Mode::Train && step.plan(&Rule::default()).unwrap().update.is_some();
    let all = |_: &Step| true;
    let evaluates = |step: &Step| step.mode == Mode::Eval;
    let cases: [Asked; 9] = [
        ("batch_norm", Rule::default(), trains),
        ("batch_norm", Rule::default(), evaluates),
        ("batch_norm", updated, trains),
        ("batch_norm", Rule { momentum: MomentumSense::OfOld, ..updated }, trains),
        ("batch_norm", Rule { average: Average::FirstReplaces, ..updated }, trains),
        ("instance_norm", Rule::default(), evaluates),
        ("group_norm", Rule::default(), all),
        ("layer_norm", Rule::default(), all),
        ("rms_norm", Rule::default(), all),
    ];
    for (name, rule, fits) in cases {
        for mut step in steps(name, 6, fits) {
            if rule.average == Average::FirstReplaces {
                step.tensors.insert("num_batches_tracked".to_owned(), Tensor::counter(0));
            }
            let (by_hand, by_dual) = along(&step, &rule);
            let (error, radius) = ((by_hand - by_dual).value.hi.abs(), by_hand.radius + by_dual.radius);
            assert!(error <= radius, "{:?}: {by_hand:?} by hand, {by_dual:?} by dual numbers", step.operation);
            assert!(radius <= 1e-12 * (1.0 + by_dual.value.hi.abs()), "a radius of {radius:e} shows nothing");
        }
    }
}

#[test]
fn what_a_gradient_rule_leaves_out() {
    for mut step in steps("batch_norm", 4, |step| step.mode == Mode::Eval && step.tensors.contains_key("weight")) {
        for mode in [Mode::Eval, Mode::Train] {
            step.mode = mode;
            let gradient = |gradient| {
                let rule = Rule { gradient, ..Rule::default() };
                let plan = step.plan(&rule).unwrap();
                let tensors = step.values(|x| x);
                step.operation.backward(&Plain::<f64>::new(), &plan, &tensors, &step.descriptions(), &rule)
            };
            let complete = gradient(GradientRule::Complete);
            let (averaged, without) = (gradient(GradientRule::Averaged), gradient(GradientRule::WithoutParameters));
            let elements = step.tensors["input"].len() / step.tensors["weight"].len();
            for name in ["grad_weight", "grad_bias"] {
                let averages: Vec<f64> = complete[name].values.iter().map(|sum| sum / elements as f64).collect();
                assert_eq!(averaged[name].values, averages);
                assert!(complete[name].values.iter().any(|&sum| sum != 0.0));
                assert!(without[name].values.iter().all(|&sum| sum == 0.0));
            }
            assert_eq!(averaged["grad_input"], complete["grad_input"]);
            assert_eq!(without["grad_input"], complete["grad_input"]);
        }
    }
}

#[test]
fn an_input_without_elements_is_answered_and_moves_nothing() {
    let plain = Plain::<f64>::new();
    for shape in [[0, 3, 4], [2, 3, 0], [2, 0, 4]] {
        let mut step = batch_norm(Mode::Eval, &shape, Some(0.1));
        for mode in [Mode::Eval, Mode::Train] {
            step.mode = mode;
            // PyTorch refuses an input without channels that has statistics.
            let Ok(plan) = step.plan(&Rule::default()) else {
                assert_eq!(shape[1], 0);
                continue;
            };
            let tensors = step.values(|x| x);
            let outputs = step.operation.forward(&plain, &plan, &tensors, &Rule::default()).tensors;
            assert_eq!(outputs["output"].shape, shape);
            assert!(outputs["output"].values.is_empty());
            assert_eq!(outputs["running_mean"].values, tensors["running_mean"]);
            assert_eq!(outputs["running_var"].values, tensors["running_var"]);
        }
    }
}

#[test]
fn where_the_statistics_come_from() {
    use Source::{Average, Input, Stored};
    let of = |training, from_input, trains| Source::of(from_input, trains, &Rule { training, ..Rule::default() });
    for (training, expected) in [
        (TrainingStatistics::Batch, [Input, Input, Stored, Stored]),
        (TrainingStatistics::Running, [Input, Input, Stored, Stored]),
        (TrainingStatistics::Updated, [Average, Input, Average, Stored]),
    ] {
        let calls = [(true, true), (true, false), (false, true), (false, false)];
        assert_eq!(calls.map(|(from_input, trains)| of(training, from_input, trains)), expected);
    }
}

#[test]
fn when_the_batch_normalizes() {
    let by_batch = |rule: Rule| {
        let calls = [(true, true), (true, false), (false, true), (false, false)];
        calls.map(|(train, running)| normalizes_by_batch(train, running, &rule))
    };
    assert_eq!(by_batch(Rule::default()), [true, true, false, true]);
    let running = Rule { training: TrainingStatistics::Running, ..Rule::default() };
    assert_eq!(by_batch(running), [false, true, false, true]);
    assert_eq!(by_batch(Rule { batch_statistics_in_eval: true, ..Rule::default() }), [true; 4]);
    assert_eq!(by_batch(Rule { batch_statistics_in_eval: true, ..running }), [false, true, true, true]);
}

#[test]
fn when_the_statistics_move() {
    for (updates, expected) in [
        (Updates::InTraining, [true, false]),
        (Updates::Twice, [true, false]),
        (Updates::Always, [true, true]),
        (Updates::Never, [false, false]),
    ] {
        assert_eq!([true, false].map(|train| moves(train, &Rule { updates, ..Rule::default() })), expected);
    }
}

#[test]
fn what_weighs_the_new_value() {
    let rule = Rule::default();
    let twice = Rule { updates: Updates::Twice, ..rule };
    let flipped = Rule { momentum: MomentumSense::OfOld, ..rule };
    let cumulative = |cumulative| Rule { cumulative, ..rule };
    for (momentum, batches, rule, expected) in [
        (Some(0.25), Some(4), rule, Some(Factor::OfNew(0.25))),
        (Some(0.25), None, flipped, Some(Factor::OfOld(0.25))),
        // 1 − (1 − ¼)²
        (Some(0.25), Some(4), twice, Some(Factor::OfNew(0.4375))),
        (None, Some(4), rule, Some(Factor::Reciprocal(4))),
        // Four batches are counted after two calls: the second has half of the weight.
        (None, Some(4), twice, Some(Factor::OfNew(0.5))),
        (None, Some(4), cumulative(Cumulative::OneTooMany), Some(Factor::Reciprocal(5))),
        (None, Some(4), cumulative(Cumulative::DefaultMomentum), Some(Factor::OfNew(0.1))),
        (None, None, rule, None),
    ] {
        assert_eq!(factor(momentum, batches, &rule), expected, "{momentum:?}, {batches:?}");
    }
}

#[test]
fn parameters_have_the_type_of_the_input_or_are_all_single() {
    use DataType::{BF16, F16, F32, F64};
    let check = |dtypes: [DataType; 3]| {
        let names = ["input", "weight", "bias"].into_iter().zip(dtypes);
        let tensors = names.map(|(name, dtype)| (name.to_owned(), Description { dtype, shape: vec![2] })).collect();
        check_dtypes(&tensors, &["weight", "bias", "running_mean"]).map_err(|refusal| refusal.kind)
    };
    let fits = [[F32; 3], [F16; 3], [BF16; 3], [F64; 3], [F16, F32, F32], [BF16, F32, F32]];
    for dtypes in [F16, BF16, F32, F64].iter().flat_map(|&input| {
        [F16, BF16, F32, F64].iter().flat_map(move |&weight| [F16, BF16, F32, F64].map(|bias| [input, weight, bias]))
    }) {
        let expected = if fits.contains(&dtypes) { Ok(()) } else { Err(RefusalKind::Dtype) };
        assert_eq!(check(dtypes), expected, "{dtypes:?}");
    }
    let alone = Tensors::from([("input".to_owned(), Description { dtype: F32, shape: vec![2] })]);
    assert_eq!(check_dtypes(&alone, &["weight"]), Ok(()));
}

#[test]
fn vectors_have_one_element_a_channel() {
    let check = |shape: &[usize]| {
        let description = Description { dtype: DataType::F32, shape: shape.to_vec() };
        let tensors = Tensors::from([("bias".to_owned(), description)]);
        check_vectors(&tensors, &["weight", "bias"], 3).map_err(|refusal| (refusal.kind, refusal.message))
    };
    assert_eq!(check(&[3]), Ok(()));
    for shape in [&[][..], &[1], &[2], &[4], &[3, 1], &[1, 3]] {
        let message = format!("bias has shape {shape:?}; the input has 3 channels: [3]");
        assert_eq!(check(shape), Err((RefusalKind::Shape, message)));
    }
}

#[test]
fn averages_that_evaluation_reads_as_they_are() {
    let reads = |average| Keeping { average, ..Keeping::default() }.reads_as_stored();
    assert!(reads(Average::Exponential) && reads(Average::Debiased) && reads(Average::FirstReplaces));
    assert!(!reads(Average::DebiasedWhenRead) && !reads(Average::Unnormalized));
}

/// Channels of 1, 3, 5, 7 (mean 4, variance 5) and 0, 0, 4, 4 (mean 2, variance 4), after three batches.
fn kept(mode: Mode, average: Average) -> (Step, Rule) {
    let mut step = batch_norm(mode, &[2, 2, 2], Some(0.75));
    let vector = |values: &[f64]| Tensor::rounded(DataType::F64, &[values.len()], values.to_vec());
    for (name, values) in [
        ("running_mean", &[8.0, -2.0][..]),
        ("running_var", &[2.0, 10.0]),
        ("hidden_mean", &[4.0, 1.0]),
        ("hidden_var", &[16.0, 3.0]),
        ("scale_factor", &[1.5]),
    ] {
        step.tensors.insert(name.to_owned(), vector(values));
    }
    step.tensors.insert(
        "input".to_owned(),
        Tensor::rounded(DataType::F64, &[2, 2, 2], vec![1.0, 3.0, 0.0, 0.0, 5.0, 7.0, 4.0, 4.0]),
    );
    let rule = Rule { average, momentum: MomentumSense::OfOld, running_biased: true, ..Rule::default() };
    (step, rule)
}

fn outputs(step: &Step, rule: &Rule) -> Tensors<Vec<f64>> {
    let plan = step.plan(rule).unwrap();
    let outputs = step.operation.forward(&Plain::<f64>::new(), &plan, &step.values(|x| x), rule);
    outputs.tensors.into_iter().map(|(name, output)| (name, output.values)).collect()
}

#[test]
fn how_running_statistics_move() {
    // 1 − ¾⁴, with which t = 4 batches are debiased.
    let gathered = 0.68359375;
    let exponential = [vec![7.0, -1.0], vec![2.75, 8.5]];
    let hidden = [vec![4.0, 1.25], vec![13.25, 3.25]];
    let over =
        |values: &[Vec<f64>; 2]| values.clone().map(|values| values.iter().map(|x| x * (1.0 / gathered)).collect());
    for (average, [mean, variance], [hidden_mean, hidden_var], scale_factor) in [
        (Average::Exponential, exponential.clone(), [vec![4.0, 1.0], vec![16.0, 3.0]], 1.5),
        (Average::DebiasedWhenRead, exponential.clone(), [vec![4.0, 1.0], vec![16.0, 3.0]], 1.5),
        (Average::FirstReplaces, exponential, [vec![4.0, 1.0], vec![16.0, 3.0]], 1.5),
        (Average::Debiased, over(&hidden), hidden, 1.5),
        (Average::Unnormalized, [vec![10.0, 0.5], vec![6.5, 11.5]], [vec![4.0, 1.0], vec![16.0, 3.0]], 2.125),
    ] {
        let (step, rule) = kept(Mode::Train, average);
        let moved = outputs(&step, &rule);
        assert_eq!([&moved["running_mean"], &moved["running_var"]], [&mean, &variance], "{average:?}");
        assert_eq!([&moved["hidden_mean"], &moved["hidden_var"]], [&hidden_mean, &hidden_var], "{average:?}");
        assert_eq!(moved["scale_factor"], [scale_factor], "{average:?}");
    }
    let (mut step, rule) = kept(Mode::Train, Average::FirstReplaces);
    step.tensors.insert("num_batches_tracked".to_owned(), Tensor::counter(0));
    assert_eq!(outputs(&step, &rule)["running_mean"], [4.0, 2.0]);
    assert_eq!(outputs(&step, &rule)["running_var"], [5.0, 4.0]);
    // A debiased average that takes a batch more for gathered: 1 − ¾⁵.
    let (step, rule) = kept(Mode::Train, Average::Debiased);
    let late = outputs(&step, &Rule { debias_offset: 1, ..rule });
    assert_eq!(late["running_mean"], [4.0 * (1.0 / 0.7626953125), 1.25 * (1.0 / 0.7626953125)]);
}

#[test]
fn how_running_statistics_are_read() {
    // y = (x − mean)/√(variance + eps) of the first value of each channel.
    let first = |mut step: Step, rule: Rule, batches: i64| {
        step.tensors.insert("num_batches_tracked".to_owned(), Tensor::counter(batches));
        let output = &outputs(&step, &rule)["output"];
        [output[0], output[2]]
    };
    let y = |x: f64, mean: f64, variance: f64| (x - mean) * (1.0 / (variance + 1e-5).sqrt());
    let stored = [y(1.0, 8.0, 2.0), y(0.0, -2.0, 10.0)];
    for average in [Average::Exponential, Average::Debiased, Average::FirstReplaces] {
        let (step, rule) = kept(Mode::Eval, average);
        assert_eq!(first(step, rule, 3), stored, "{average:?}");
    }
    let (step, rule) = kept(Mode::Eval, Average::DebiasedWhenRead);
    assert_eq!(first(step.clone(), rule, 0), stored);
    let factor = 1.0 / 0.578125; // 1 − ¾³
    let debiased = [y(1.0, 8.0 * factor, 2.0 * factor), y(0.0, -2.0 * factor, 10.0 * factor)];
    assert_eq!(first(step, rule, 3), debiased);
    let (mut step, rule) = kept(Mode::Eval, Average::Unnormalized);
    let factor = 1.0 / 1.5;
    let normalized = [y(1.0, 8.0 * factor, 2.0 * factor), y(0.0, -2.0 * factor, 10.0 * factor)];
    assert_eq!(first(step.clone(), rule, 3), normalized);
    step.tensors.insert("scale_factor".to_owned(), Tensor::rounded(DataType::F64, &[1], vec![0.0]));
    assert_eq!(first(step, rule, 3), [y(1.0, 0.0, 0.0), y(0.0, 0.0, 0.0)]);
}

#[test]
fn what_divides_the_running_variance() {
    let (step, rule) = kept(Mode::Train, Average::Exponential);
    let unbiased = Rule { running_biased: false, ..rule };
    assert_eq!(
        outputs(&step, &unbiased)["running_var"],
        [0.75 * 2.0 + 0.25 * (20.0 / 3.0), 0.75 * 10.0 + 0.25 * (16.0 / 3.0)]
    );
    // Two samples: 2/(2 − 1) instead of 4/(4 − 1), of every variance.
    let samples = Rule { bessel: BesselCount::Samples, ..rule };
    assert_eq!(outputs(&step, &samples)["running_var"], [0.75 * 2.0 + 0.25 * 10.0, 0.75 * 10.0 + 0.25 * 8.0]);
    let deviation = Rule { running: crate::arithmetic::RunningQuantity::StandardDeviation, ..rule };
    assert_eq!(outputs(&step, &deviation)["running_var"], [0.75 * 2.0 + 0.25 * 5_f64.sqrt(), 8.0]);
    // One value has a variance of 0, or 0/0.
    let mut one = step.clone();
    one.tensors.insert("input".to_owned(), Tensor::rounded(DataType::F64, &[1, 2, 1], vec![3.0, 4.0]));
    let accepted = Rule { one_value: OneValue::Accepted, ..unbiased };
    assert!(outputs(&one, &accepted)["running_var"].iter().all(|variance| variance.is_nan()));
    assert_eq!(outputs(&one, &Rule { bessel_guarded: true, ..accepted })["running_var"], [1.5, 7.5]);
    assert_eq!(outputs(&step, &Rule { bessel_guarded: true, ..unbiased }), outputs(&step, &unbiased));
}

/// Instance norm averages over its samples: means 2 and 6, variances 1 and 1 of the first channel, 0 and 4, 0 and 0.
#[test]
fn instances_are_averaged_over_the_samples() {
    let (mut step, rule) = kept(Mode::Train, Average::Exponential);
    step.operation = Operation::InstanceNorm(InstanceNorm { spatial_dims: 1, eps: 1e-5, momentum: Some(0.75) });
    for name in ["hidden_mean", "hidden_var", "scale_factor"] {
        step.tensors.remove(name);
    }
    let moved = outputs(&step, &rule);
    assert_eq!([&moved["running_mean"][..], &moved["running_var"]], [&[7.0, -1.0][..], &[1.75, 7.5]]);
    step.tensors.remove("running_var");
    assert_eq!(step.plan(&rule).unwrap_err().refusal.kind, RefusalKind::Parameter);
    step.tensors.remove("running_mean");
    assert!(step.plan(&rule).is_ok());
}

/// Of 0, 2, 4, 10 with eps = 2: mean 4, σ = 4, so y = −1, −½, 0, 1½; the weights are 1, 2, 4 and −3.
#[test]
fn how_a_weight_is_read() {
    let json = |text: &str| -> Operation { serde_json::from_str(text).unwrap() };
    let layer = json(r#"{"name": "layer_norm", "normalized_shape": [4], "eps": 2.0}"#);
    let one_plus = json(r#"{"name": "layer_norm_1p", "normalized_shape": [4], "eps": 2.0}"#);
    let plain = Rule::default();
    let offset = Rule { weight: WeightReading::Offset, ..plain };
    let one = Rule { weight: WeightReading::One, ..plain };
    let (given, more) = ([-1.0, -1.0, 0.0, -4.5], [-2.0, -1.5, 0.0, -3.0]);
    for (operation, rule, expected) in [
        (&layer, plain, given),
        (&layer, offset, more),
        (&layer, one, [-1.0, -0.5, 0.0, 1.5]),
        (&one_plus, plain, more),
        (&one_plus, offset, given),
        (&one_plus, one, [-1.0, -0.5, 0.0, 1.5]),
    ] {
        let vector = |values: [f64; 4]| Tensor::rounded(DataType::F64, &[4], values.to_vec());
        let bias = [0.5, -1.0, 2.0, 4.0];
        let tensors = [("input", [0.0, 2.0, 4.0, 10.0]), ("weight", [1.0, 2.0, 4.0, -3.0]), ("bias", bias)];
        let tensors = tensors.map(|(name, values)| (name.to_owned(), vector(values))).into();
        let step = Step::forward(operation.clone(), tensors);
        let expected: Vec<f64> = expected.iter().zip(bias).map(|(wy, b)| wy + b).collect();
        assert_eq!(outputs(&step, &rule)["output"], expected, "{operation:?}, {:?}", rule.weight);
    }
}

#[test]
fn what_is_centred() {
    let json = |text: &str| -> Operation { serde_json::from_str(text).unwrap() };
    let row = Tensor::rounded(DataType::F64, &[4], vec![0.0, 2.0, 4.0, 10.0]);
    let of = |operation: Operation| Step::forward(operation, [("input".to_owned(), row.clone())].into());
    // Mean square 30, and 6² − 30.
    let rms = of(json(r#"{"name": "rms_norm", "normalized_shape": [4], "eps": 6.0}"#));
    let layer = of(json(r#"{"name": "layer_norm", "normalized_shape": [4], "eps": 2.0}"#));
    let subtracted = Rule { centring: Centring::Subtracted, ..Rule::default() };
    let kept = Rule { centring: Centring::Kept, ..Rule::default() };
    assert_eq!(outputs(&rms, &Rule::default())["output"], [0.0, 2.0, 4.0, 10.0].map(|x| x * (1.0 / 6.0)));
    let rms_of_two = of(json(r#"{"name": "rms_norm", "normalized_shape": [4], "eps": 2.0}"#));
    assert_eq!(outputs(&rms_of_two, &subtracted)["output"], [-1.0, -0.5, 0.0, 1.5]);
    assert_eq!(outputs(&layer, &subtracted)["output"], [-1.0, -0.5, 0.0, 1.5]);
    // x/σ, though σ is that of the deviations.
    assert_eq!(outputs(&layer, &kept)["output"], [0.0, 0.5, 1.0, 2.5]);
    assert_eq!(outputs(&rms, &kept), outputs(&rms, &Rule::default()));
    let plan = |step: &Step| step.plan(&Rule::default()).unwrap();
    let image = Tensor::rounded(DataType::F64, &[1, 2, 1, 2], vec![0.0, 2.0, 4.0, 10.0]);
    let of_image = |operation| Step::forward(operation, [("input".to_owned(), image.clone())].into());
    let layer_2d = of_image(json(r#"{"name": "layer_norm_2d", "eps": 2.0}"#));
    let pixel = of_image(json(r#"{"name": "pixel_norm", "eps": 2.0}"#));
    let flags = [&layer, &rms, &layer_2d, &pixel].map(|step| (plan(step).standardizes, plan(step).centred));
    assert_eq!(flags, [(true, true), (true, false), (true, true), (true, false)]);
}
