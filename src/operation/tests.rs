//! The family's kernel: its gradients against dual numbers through its forward pass, and its rules one by one.

use super::normalization::{check_dtypes, check_vectors, factor, normalizes_by_batch};
use super::*;
use crate::arithmetic::{DataType, Dual, Factor, Plain, Real, Truth};
use crate::case::Step;
use crate::case::random;
use crate::case::values::Values;
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
    let cases: [Asked; 7] = [
        ("batch_norm", Rule::default(), trains),
        ("batch_norm", Rule::default(), evaluates),
        ("batch_norm", updated, trains),
        ("instance_norm", Rule::default(), evaluates),
        ("group_norm", Rule::default(), all),
        ("layer_norm", Rule::default(), all),
        ("rms_norm", Rule::default(), all),
    ];
    for (name, rule, fits) in cases {
        for step in steps(name, 6, fits) {
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
