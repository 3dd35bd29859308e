//! Degenerate inputs: every operation has a case of each kind, and at least two planted bugs; and what comes of them is what
//! each framework says, written here from their sources and answers.

use std::collections::{BTreeMap, BTreeSet};

use normative::case::{Case, Step, catalogue};
use normative::judge::Expected;
use normative::operation::{Mode, Operation, RefusalKind};
use normative::subject::planted::BUGS;

/// The kinds of degenerate input.
const KINDS: [&str; 6] = ["one value", "empty", "constant", "zero", "one sample with space", "one sample without"];

/// What an operation has no case of, and why: (kind, operations, reason).
const EXCEPTIONS: [(&str, &[&str], &str); 3] = [
    ("empty", &["weight_norm", "spectral_norm", "conv_batch_norm_fold"], "a weight has values"),
    (
        "one sample with space",
        &["weight_norm", "spectral_norm", "ghost_batch_norm", "split_batch_norm"],
        "a weight has no samples; a batch that is split has two",
    ),
    (
        "one sample without",
        &["conv_batch_norm_fold", "ghost_batch_norm", "split_batch_norm"],
        "a weight has no samples; a batch that is split has two",
    ),
];

/// Operations with fewer than two planted bugs, and why.
const FEW_BUGS: [(&str, &str); 0] = [];

fn kinds(step: &Step) -> BTreeSet<&'static str> {
    let input = &step.tensors["input"];
    let shape = input.shape();
    let space: usize = shape.iter().skip(2).product();
    let values: Vec<f64> = input.to_f64().into_iter().collect();
    let same = values.windows(2).all(|pair| pair[0] == pair[1]);
    let mut kinds = BTreeSet::new();
    let mut add = |kind, is: bool| {
        if is {
            kinds.insert(kind);
        }
    };
    add("empty", values.is_empty());
    add("constant", values.len() > 1 && same && values[0] != 0.0);
    add("zero", values.len() > 1 && same && values[0] == 0.0);
    add("one sample with space", shape.len() > 2 && shape[0] == 1 && space > 1);
    add("one sample without", shape.len() > 1 && shape[0] == 1 && space == 1);
    let per_channel = shape.first().copied().unwrap_or(1) * space;
    let per_sample: usize = shape.iter().skip(1).product();
    add("one value", values.len() == 1 || shape.len() > 1 && (per_channel == 1 || per_sample == 1));
    kinds
}

#[test]
fn every_operation_has_cases_for_its_degenerate_inputs() {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for step in catalogue::cases().iter().flat_map(|case| &case.steps) {
        found.entry(step.operation.name()).or_default().extend(kinds(step));
    }
    let excepted =
        |kind: &str, name: &str| EXCEPTIONS.iter().any(|(of, names, _)| *of == kind && names.contains(&name));
    let wrong: Vec<String> = Operation::NAMES
        .iter()
        .flat_map(|&name| KINDS.map(|kind| (name, kind)))
        .filter_map(|(name, kind)| match (found[name].contains(kind), excepted(kind, name)) {
            (false, false) => Some(format!("{name} has no case of {kind}")),
            (true, true) => Some(format!("{name} is excepted from {kind}, and has it")),
            _ => None,
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_operation_has_two_planted_bugs() {
    let few: BTreeSet<&str> = Operation::NAMES
        .iter()
        .copied()
        .filter(|name| BUGS.iter().filter(|bug| bug.operations.contains(name)).count() < 2)
        .collect();
    assert_eq!(few, FEW_BUGS.iter().map(|(name, _)| *name).collect());
}

fn case(name: &str) -> &'static Case {
    catalogue::cases().iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
}

fn kind_of_refusal(step: &Step) -> Option<RefusalKind> {
    match Expected::of(step) {
        Expected::Refused { refusal, .. } => Some(refusal.kind),
        Expected::Tensors { .. } => None,
    }
}

fn truth(step: &Step, tensor: &str) -> Vec<f64> {
    match Expected::of(step) {
        Expected::Tensors { tensors, .. } => tensors[tensor].rounded.clone(),
        Expected::Refused { refusal, .. } => panic!("refused: {refusal:?}"),
    }
}

fn sent(step: &Step, tensor: &str) -> Vec<f64> {
    step.tensors[tensor].to_f64().into_iter().collect()
}

/// Each the value of a formula, rounded once to F32; the formulas are of a few operations in F64, 2⁻²⁰ of that rounding.
fn assert_rounded(actual: &[f64], expected: &[f64], of: &str) {
    assert_eq!(actual.len(), expected.len(), "{of}");
    for (a, e) in actual.iter().zip(expected) {
        assert!((a - e).abs() <= (2f64.powi(-24) + 2f64.powi(-44)) * e.abs(), "{of}: {actual:?}, not {expected:?}");
    }
}

/// PyTorch: `torch/nn/functional.py`, `_verify_batch_size` and `_verify_spatial_size`.
#[test]
fn one_value_in_pytorch() {
    let refused = Some(RefusalKind::TooFewValues);
    for shape in ["1x3", "1x3x1", "1x2x1x1"] {
        for tracked in ["tracked", "untracked"] {
            let step = &case(&format!("batch_norm-f32-values-{shape}-{tracked}")).steps[0];
            assert_eq!(kind_of_refusal(step), refused, "{shape} {tracked}");
            // Evaluation answers with stored statistics, and refuses the batch's own as training does.
            let eval = Step { mode: Mode::Eval, ..step.clone() };
            assert_eq!(kind_of_refusal(&eval), if tracked == "tracked" { None } else { refused }, "{shape} {tracked}");
        }
    }
    // Two values per channel: ±1/√(1 + 4·eps/d²), and Bessel's factor is 2.
    let step = &case("batch_norm-f32-values-1x3x2-tracked").steps[0];
    let x = sent(step, "input");
    let (mut y, mut var) = (Vec::new(), Vec::new());
    for pair in x.chunks(2) {
        let d = pair[0] - pair[1];
        let size = 1.0 / (1.0 + 4.0 * 1e-5 / (d * d)).sqrt();
        y.extend([size.copysign(d), size.copysign(-d)]);
        var.push(0.9 + 0.1 * 2.0 * (d * d / 4.0));
    }
    assert_rounded(&truth(step, "output"), &y, "two values");
    assert_rounded(&truth(step, "running_var"), &var, "two values");

    // Instance norm refuses one position for any number of samples, but for stored statistics in evaluation.
    for (name, kind) in [
        ("2x3x1-untracked-train", refused),
        ("2x3x1-tracked-train", refused),
        ("2x3x1-untracked-eval", refused),
        ("2x3x1-tracked-eval", None),
    ] {
        assert_eq!(kind_of_refusal(&case(&format!("instance_norm-f32-values-{name}")).steps[0]), kind, "{name}");
    }
    // Group norm counts the values of the whole batch, so that two samples of one value each pass.
    assert_eq!(kind_of_refusal(&case("group_norm-f32-values-1x4-groups-4").steps[0]), refused);
    assert_eq!(truth(&case("group_norm-f32-values-2x4-groups-4").steps[0], "output"), [0.0; 8]);
    // Layer norm answers the bias, RMS norm the sign.
    assert_eq!(truth(&case("layer_norm-f32-values-1").steps[0], "output"), [0.0; 3]);
    let step = &case("rms_norm-f32-values-1").steps[0];
    let signs: Vec<f64> = sent(step, "input").iter().map(|x| x / (x * x + 1e-5).sqrt()).collect();
    assert_rounded(&truth(step, "output"), &signs, "rms_norm");
}

/// What the dialects of batch norm make of one value per channel in training: momentum is ½.
#[test]
fn one_value_in_the_dialects() {
    for dialect in ["keras", "tensorflow", "flax", "haiku", "equinox_batch", "onnx", "mxnet", "burn", "candle"] {
        let step = &case(&format!("batch_norm-{dialect}-f32-one-value")).steps[0];
        let bias = sent(step, "bias");
        assert_eq!(truth(step, "output"), bias, "{dialect}: the bias");
        let moved = truth(step, "running_var");
        match dialect {
            // 0·∞
            "candle" => assert!(moved.iter().all(|v| v.is_nan()), "{dialect}: {moved:?}"),
            // Half of the variance, which is 0; the average is divided by what it has gathered.
            "haiku" => {
                let half: Vec<f64> = sent(step, "hidden_var").iter().map(|v| v / 2.0).collect();
                assert_rounded(&truth(step, "hidden_var"), &half, dialect);
            }
            _ => {
                let half: Vec<f64> = sent(step, "running_var").iter().map(|v| v / 2.0).collect();
                assert_rounded(&moved, &half, dialect);
            }
        }
    }
    let step = &case("batch_norm-paddle-f32-one-value").steps[0];
    assert_eq!(truth(step, "output"), sent(step, "input"), "paddle passes it on");
    assert_eq!(truth(step, "running_var"), sent(step, "running_var"), "paddle keeps its statistics");

    for label in ["one-value", "one-value-flat"] {
        let step = &case(&format!("batch_norm-mlx-f32-{label}")).steps[0];
        assert_eq!(kind_of_refusal(step), Some(RefusalKind::TooFewValues), "mlx {label}");
    }

    // Equinox's "ema" normalizes with what it has just moved: to half of old and new, since the layer has seen batches.
    let step = &case("batch_norm-equinox_ema-f32-one-value").steps[0];
    let [x, weight, bias, mean, var] =
        ["input", "weight", "bias", "running_mean", "running_var"].map(|name| sent(step, name));
    assert!(sent(step, "num_batches_tracked")[0] > 0.0);
    let moved: Vec<(f64, f64)> = (0..x.len()).map(|c| ((mean[c] + x[c]) / 2.0, var[c] / 2.0)).collect();
    let (means, variances) = moved.iter().copied().unzip::<_, _, Vec<_>, Vec<_>>();
    assert_rounded(&truth(step, "running_mean"), &means, "equinox_ema");
    assert_rounded(&truth(step, "running_var"), &variances, "equinox_ema");
    let y: Vec<f64> =
        (0..x.len()).map(|c| (x[c] - moved[c].0) / (moved[c].1 + 1e-5).sqrt() * weight[c] + bias[c]).collect();
    assert_rounded(&truth(step, "output"), &y, "equinox_ema");

    // Caffe's sums lose half, and gain the value, no variance (Bessel's correction of it is 1) and a weight of 1.
    let step = &case("batch_norm-caffe-f32-one-value").steps[0];
    let [x, mean, var, gathered] =
        ["input", "running_mean", "running_var", "scale_factor"].map(|name| sent(step, name));
    assert_eq!(truth(step, "output"), vec![0.0; x.len()], "caffe has no bias");
    let means: Vec<f64> = mean.iter().zip(&x).map(|(mean, x)| mean / 2.0 + x).collect();
    assert_rounded(&truth(step, "running_mean"), &means, "caffe");
    let variances: Vec<f64> = var.iter().map(|var| var / 2.0).collect();
    assert_rounded(&truth(step, "running_var"), &variances, "caffe");
    assert_rounded(&truth(step, "scale_factor"), &[gathered[0] / 2.0 + 1.0], "caffe");
}

/// timm's layers on one value.
#[test]
fn one_value_in_timm() {
    for name in ["evo_norm_b0", "evo_norm_b1", "evo_norm_b2", "weight_standardization"] {
        let refused = kind_of_refusal(&case(&format!("{name}-f32-refuses-one-value")).steps[0]);
        assert_eq!(refused, Some(RefusalKind::TooFewValues), "{name}");
    }
    let nan = truth(&case("simple_norm-f32-one-value").steps[0], "output");
    assert!(nan.iter().all(|y| y.is_nan()), "an unbiased variance of one value: {nan:?}");
    // A variance of 0 leaves √eps, 316 times too little.
    let step = &case("evo_norm_s0-f32-one-value").steps[0];
    let [x, v, weight, bias] = ["input", "v", "weight", "bias"].map(|name| sent(step, name));
    let y: Vec<f64> = x.iter().map(|x| x / (1.0 + (-v[0] * x).exp()) / 1e-5_f64.sqrt() * weight[0] + bias[0]).collect();
    assert_rounded(&truth(step, "output"), &y, "evo_norm_s0");
}

/// No samples give no values; constants give the bias exactly; eps none is that of F32 in the half types.
#[test]
fn empty_constant_and_eps_of_none() {
    for name in ["batch_norm", "layer_norm", "rms_norm", "group_norm"] {
        assert!(truth(&case(&format!("{name}-f32-empty-batch")).steps[0], "output").is_empty(), "{name}");
    }
    for name in ["batch_norm", "layer_norm", "group_norm", "instance_norm", "sync_batch_norm"] {
        let step = &case(&format!("{name}-f32-constant-1234")).steps[0];
        let bias: BTreeSet<u64> = sent(step, "bias").iter().map(|b| b.to_bits()).collect();
        assert!(truth(step, "output").iter().all(|y| bias.contains(&y.to_bits())), "{name}");
    }
    let step = &case("rms_norm-bf16-eps-null").steps[0];
    let x = sent(step, "input");
    let row = &x[..6];
    let scale = (row.iter().map(|x| x * x).sum::<f64>() / 6.0 + f64::from(f32::EPSILON)).sqrt();
    for (y, x) in truth(step, "output").iter().zip(row) {
        // BF16 has eight bits.
        assert!((y - x / scale).abs() <= 2f64.powi(-8) * (x / scale).abs(), "{y}, not {}", x / scale);
    }
}

/// The window of an even size is longer to the left: that of size 2 holds a channel and the one before it.
#[test]
fn an_even_window_leans_left() {
    let step = &case("local_response_norm-f32-size-2-3d").steps[0];
    let (x, y) = (sent(step, "input"), truth(step, "output"));
    let at = |c: usize| x[c * 5];
    for c in 0..6 {
        let sum = at(c).powi(2) + if c > 0 { at(c - 1).powi(2) } else { 0.0 };
        let expected = at(c) / (1.0 + sum / 2.0).powf(0.75);
        assert_rounded(&[y[c * 5]], &[expected], "local_response_norm");
    }
}
