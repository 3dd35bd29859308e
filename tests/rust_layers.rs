//! Layers in Rust, judged as a user's own test would: right ones pass, mistakes are named, panics are caught.

use std::panic::catch_unwind;

use half::bf16;
use ndarray::{ArrayD, Axis};
use normative::operation::{BatchNorm, Refusal, RefusalKind, RmsNorm};
use normative::report::Status;
use normative::{Check, Layer, LayerAnswer, LayerCall, assert_conformant};

/// Root mean square normalization of rows, with gradients; `EPS_OUTSIDE` is a mistake.
struct Rms<const EPS_OUTSIDE: bool>;

impl<const EPS_OUTSIDE: bool> Layer for Rms<EPS_OUTSIDE> {
    type Operation = RmsNorm;
    type Element = f64;
    const GRADIENTS: bool = true;

    fn name(&self) -> String {
        "my RMS norm".to_owned()
    }

    fn call(&self, norm: &RmsNorm, call: &LayerCall<'_, f64>) -> Result<LayerAnswer, Refusal> {
        let (input, shape) = (call.input(), norm.normalized_shape.as_slice());
        let weight = call.get("weight");
        let fits = !shape.is_empty() && input.shape().ends_with(shape);
        if !fits || weight.as_ref().is_some_and(|weight| weight.shape() != shape) {
            return Err(Refusal::new(RefusalKind::Shape, "the shapes do not fit"));
        }
        let n: usize = shape.iter().product();
        let rows = |array: &ArrayD<f64>| array.to_shape((array.len() / n.max(1), n)).expect("rows").into_owned();
        let ones = || ArrayD::from_elem(vec![n], 1.0);
        let w = weight.as_ref().map_or_else(ones, |w| w.to_shape(vec![n]).expect("a row").into_owned());
        let (x, eps) = (rows(&input.to_owned()), norm.eps.unwrap_or(f64::EPSILON));
        let scale = x.map_axis(Axis(1), |row| {
            let mean_square = row.iter().map(|x| x * x).sum::<f64>() / n as f64;
            1.0 / if EPS_OUTSIDE { mean_square.sqrt() + eps } else { (mean_square + eps).sqrt() }
        });
        let y = &x * &scale.view().insert_axis(Axis(1));
        let shaped = |rows: ndarray::Array2<f64>| rows.into_shape_with_order(input.shape()).expect("as many");
        let answer = LayerAnswer::from(shaped(&y * &w.view().into_dimensionality::<ndarray::Ix1>().expect("a row")));
        if !call.gradients() {
            return Ok(answer);
        }
        let g = rows(&call.get("grad_output.output").expect("gradients are asked for").to_owned());
        let a = &g * &w.view().into_dimensionality::<ndarray::Ix1>().expect("a row");
        let along = (&a * &y).mean_axis(Axis(1)).expect("rows have elements").insert_axis(Axis(1));
        let answer = answer.with("grad_input", shaped((&a - &y * &along) * scale.insert_axis(Axis(1))));
        Ok(match weight {
            None => answer,
            Some(weight) => {
                let sum = (&g * &y).sum_axis(Axis(0)).into_shape_with_order(weight.shape()).expect("as many");
                answer.with("grad_weight", sum)
            }
        })
    }
}

/// Batch norm of bfloat16 in f32; `MOMENTUM_OF_OLD` is a mistake.
struct Batch<const MOMENTUM_OF_OLD: bool>;

/// Batch norm of doubles that keeps running statistics; `BIASED` is a mistake that only they show.
struct Running<const BIASED: bool>;

impl<const BIASED: bool> Layer for Running<BIASED> {
    type Operation = BatchNorm;
    type Element = f64;

    fn call(&self, norm: &BatchNorm, call: &LayerCall<'_, f64>) -> Result<LayerAnswer, Refusal> {
        let (input, train) = (call.input().into_owned(), call.is_training());
        let (Some(mean), Some(variance)) = (call.get("running_mean"), call.get("running_var")) else {
            return Err(Refusal::new(RefusalKind::Other, "it keeps running statistics"));
        };
        let (mut mean, mut variance, mut output) = (mean.into_owned(), variance.into_owned(), input.clone());
        let batches = call.num_batches_tracked().unwrap_or(0) + i64::from(train);
        let m = norm.momentum.unwrap_or(1.0 / batches as f64);
        for c in 0..input.shape()[1] {
            let x = input.index_axis(Axis(1), c);
            let n = x.len() as f64;
            let (mut center, mut spread) = (mean[[c]], variance[[c]]);
            if train {
                center = x.sum() / n;
                spread = x.mapv(|x| (x - center).powi(2)).sum() / n;
                let kept = if BIASED { spread } else { spread * n / (n - 1.0) };
                mean[[c]] += m * (center - mean[[c]]);
                variance[[c]] += m * (kept - variance[[c]]);
            }
            let scale = 1.0 / (spread + norm.eps).sqrt();
            output.index_axis_mut(Axis(1), c).mapv_inplace(|x| (x - center) * scale);
        }
        let answer = LayerAnswer::new(output).with("running_mean", mean).with("running_var", variance);
        Ok(answer.with_num_batches_tracked(batches))
    }
}

impl<const MOMENTUM_OF_OLD: bool> Layer for Batch<MOMENTUM_OF_OLD> {
    type Operation = BatchNorm;
    type Element = bf16;

    fn call(&self, norm: &BatchNorm, call: &LayerCall<'_, bf16>) -> Result<LayerAnswer, Refusal> {
        let input = call.get_as::<f32>("input").expect("an input").into_owned();
        let wide = |name: &str| call.get_as::<f32>(name).map(|array| array.into_owned());
        let channels = input.shape()[1];
        let mut output = input.clone();
        let (mut running_mean, mut running_var) = (wide("running_mean"), wide("running_var"));
        let (weight, bias) = (wide("weight"), wide("bias"));
        let batch = call.is_training() || running_mean.is_none();
        let n = input.len() / channels;
        if call.is_training() && n == 1 {
            return Err(Refusal::new(RefusalKind::TooFewValues, "one value per channel"));
        }
        let batches = call.num_batches_tracked().map(|count| count + i64::from(call.is_training()));
        let m = norm.momentum.map_or_else(|| 1.0 / batches.unwrap_or(1) as f32, |m| m as f32);
        let m = if MOMENTUM_OF_OLD { 1.0 - m } else { m };
        for c in 0..channels {
            let mut x = output.index_axis_mut(Axis(1), c);
            let (mut mean, mut variance) = (0.0, 0.0);
            if batch {
                mean = x.iter().sum::<f32>() / n as f32;
                variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n as f32;
            }
            if let (Some(running_mean), Some(running_var)) = (&mut running_mean, &mut running_var) {
                if call.is_training() {
                    running_mean[[c]] = (1.0 - m) * running_mean[[c]] + m * mean;
                    let unbiased = variance * n as f32 / (n as f32 - 1.0);
                    running_var[[c]] = (1.0 - m) * running_var[[c]] + m * unbiased;
                } else {
                    (mean, variance) = (running_mean[[c]], running_var[[c]]);
                }
            }
            let scale = 1.0 / (variance + norm.eps as f32).sqrt();
            let (w, b) = (weight.as_ref().map_or(1.0, |w| w[[c]]), bias.as_ref().map_or(0.0, |b| b[[c]]));
            x.mapv_inplace(|x| (x - mean) * scale * w + b);
        }
        let mut answer = LayerAnswer::new(output.mapv(bf16::from_f32));
        for (name, tensor) in [("running_mean", running_mean), ("running_var", running_var)] {
            if let Some(tensor) = tensor {
                answer = match call.get_as::<f32>(name) {
                    // Statistics have the type in which they came.
                    Some(sent) if sent.iter().all(|x| bf16::from_f32(*x).to_f32() == *x) => {
                        answer.with(name, tensor.mapv(bf16::from_f32))
                    }
                    _ => answer.with(name, tensor),
                };
            }
        }
        Ok(batches.map_or(answer.clone(), |batches| answer.with_num_batches_tracked(batches)))
    }
}

/// A layer that dies on every other call.
struct Fragile;

impl Layer for Fragile {
    type Operation = RmsNorm;
    type Element = f32;

    fn call(&self, _: &RmsNorm, call: &LayerCall<'_, f32>) -> Result<LayerAnswer, Refusal> {
        assert!(call.input().len() > 1_000_000, "an index out of bounds");
        Ok(call.input().into_owned().into())
    }
}

#[test]
fn a_right_layer_is_conformant() {
    assert_conformant(&Rms::<false>);
    let report = Check::of(&Rms::<false>).only("rms_norm-f64-*-grad").run();
    assert!(report.summary().pass > 20, "{:?}", report.summary());
}

#[test]
fn a_mistake_is_named_in_the_first_lines() {
    let payload = catch_unwind(|| assert_conformant(&Rms::<true>)).expect_err("it is not conformant");
    let text = payload.downcast_ref::<String>().expect("the report");
    let said = text.lines().take(8).any(|line| line.contains("as if it adds eps to the standard deviation"));
    assert!(said && text.contains("my RMS norm"), "{text}");
}

#[test]
fn running_statistics_are_judged_in_sequences() {
    let check = |report: normative::report::Report| (report.status(), report.summary().pass);
    let (status, passed) = check(Check::of(&Batch::<false>).only("batch_norm-bf16-size-*").skip("*-grad*").run());
    assert!(status == Status::Conformant && passed >= 14, "{status:?} {passed}");
    let flipped = Check::of(&Batch::<true>).only("batch_norm-bf16-*momentum-0.1").run();
    assert_eq!(flipped.verdicts[0].nearest_bug.expect("a known mistake").name, "momentum_flipped");
}

#[test]
fn statistics_are_asked_for_too() {
    let check =
        |seed| Check::of(&Running::<false>).only("statistic-*-batch_norm-f64").skip("*-standardized-*").seed(seed);
    let skipped = check(1).skip("*-variance-*").run();
    assert_eq!((skipped.status(), skipped.summary().pass), (Status::Conformant, 8));
    let biased = Check::of(&Running::<true>).only("statistic-*-batch_norm-f64").run();
    assert_eq!(biased.status(), Status::NotConformant);
    let failed = |name: &str| {
        let verdict = biased.verdicts.iter().find(|verdict| verdict.case == format!("statistic-{name}-batch_norm-f64"));
        verdict.unwrap_or_else(|| panic!("{name} was not asked")).counts(false)
    };
    assert!(
        failed("running_var") && failed("running_var_fit") && !failed("running_mean") && !failed("cumulative_mean")
    );
}

#[test]
fn a_panic_is_a_crash_and_no_more() {
    let report = Check::of(&Fragile).run();
    assert_eq!(report.status(), Status::NotConformant);
    assert!(report.summary().crash > 10, "{:?}", report.summary());
    assert!(report.verdicts[0].message.contains("panicked: an index out of bounds"), "{}", report.verdicts[0].message);
}

#[test]
fn expected_failures_are_expected() {
    let list = tempfile::NamedTempFile::new().expect("a file");
    let entry = "[[known]]\ncase = \"rms_norm-f64-*\"\nreason = \"eps stands outside the root here\"\n";
    std::fs::write(list.path(), entry).expect("written");
    Check::of(&Rms::<true>).only("rms_norm-f64-eps-0.5").known(list.path()).assert();
    let stale = Check::of(&Rms::<false>).known(list.path()).run();
    assert_eq!(stale.status(), Status::Stale);
}
