//! Questions about a layer's arithmetic: one pass or two, folded or not, the order of casts. Every dialect takes any of them.
//!
//! ```text
//! passes   32 values with a mean of 2¹² deviations in F32 (2²⁶ in F64): E(x²) − E(x)² leaves the laws of good programs there
//! folded   two values c ± ¼ with c near 1000: every order of sums finds the mean exactly, so (x − μ)·r is right to a few
//!          units in the last place, and x·r + (−μ·r) off by some thousand
//! casts    a half type, a weight: round(w·y) and round(w·round(y)) differ in many elements
//! ```

use super::prediction::{Element, Predicted};
use super::questions::Ask;
use super::{About, Finding};
use crate::arithmetic::{DataType, Law};
use crate::case::values::Values;
use crate::case::{Answer, Case, Hello, Level, Step};
use crate::operation::{BatchNormDialect, CENTRED, Rule};
use crate::subject::CaseRun;
use crate::tensor::Tensor;

/// What a finding says of an unstable layer.
pub(super) const ONE_PASS: &str = "in one pass";

/// The mean is exact in the case on folding: the difference, its square, the sum of two, the division, eps, the root, the
/// reciprocal and the product round once each, the affine parameters twice.
const DIRECT: f64 = 10.0;

/// The questions and their cases, as far as the subject's data types allow.
pub(super) fn cases(operation: &str, dialect: BatchNormDialect, hello: &Hello) -> Vec<(&'static str, Case)> {
    let claims = |dtype| hello.dtypes.contains(&dtype);
    let wide = [DataType::F32, DataType::F64].into_iter().find(|&dtype| claims(dtype));
    let half = [DataType::BF16, DataType::F16].into_iter().find(|&dtype| claims(dtype));
    let mut cases = Vec::new();
    if let Some(dtype) = wide.filter(|_| CENTRED.contains(&operation)) {
        let ask = Ask { operation, dialect, dtype };
        let mean = if dtype == DataType::F32 { 4096.0 } else { 67_108_864.0 };
        let mut values = Values::named("identify passes");
        let groups: Vec<Vec<f64>> = (0..8).map(|_| values.normals(32, mean, 1.0)).collect();
        cases.push((
            "passes",
            case(ask, "passes", "32 values with a mean of thousands of deviations", &groups, 4, None),
        ));
        let pairs: Vec<Vec<f64>> =
            (0..16).map(|i| 900.0 + 13.0 * f64::from(i)).map(|c| vec![c - 0.25, c + 0.25]).collect();
        cases.push(("folded", case(ask, "folded", "two values ±¼ from a mean of a thousand", &pairs, 1, None)));
    }
    if let Some(dtype) = half.filter(|_| operation != "batch_norm" || dialect.conventions().affine) {
        let ask = Ask { operation, dialect, dtype };
        let mut values = Values::named("identify casts");
        let groups: Vec<Vec<f64>> = (0..4).map(|_| values.normals(32, 0.0, 1.0)).collect();
        cases.push(("casts", case(ask, "casts", "a half type with a weight", &groups, 1, Some(&mut values))));
    }
    cases
}

fn case(
    ask: Ask<'_>,
    name: &str,
    comment: &str,
    groups: &[Vec<f64>],
    split: usize,
    weights: Option<&mut Values>,
) -> Case {
    let mut step = ask.step(groups, split, 1e-5, Some(0.25));
    step = ask.tracked(step);
    if let Some(values) = weights {
        let shape = weight_shape(&step, ask.operation);
        let count = shape.iter().product();
        let weights = (0..count).map(|_| 1.0 + values.uniform()).collect();
        step.tensors.insert("weight".to_owned(), Tensor::rounded(ask.dtype, &shape, weights));
    }
    let name = format!("identify-{}-{name}", ask.operation);
    Case { name, comment: comment.to_owned(), level: Level::Required, flags: Vec::new(), steps: vec![step] }
}

/// The shape of a weight: the normalized one, or the channels'.
fn weight_shape(step: &Step, operation: &str) -> Vec<usize> {
    let shape = step.tensors["input"].shape();
    if matches!(operation, "layer_norm" | "rms_norm") { shape[1..].to_vec() } else { vec![shape[1]] }
}

/// What the subject's answer says of a layer that follows `rule`; `None` where it did not answer.
pub(super) fn answered(
    question: &'static str,
    case: &Case,
    run: &CaseRun,
    rule: &Rule,
    one_pass: bool,
) -> Option<Finding> {
    let [(request, Ok(answer @ Answer::Tensors(tensors)))] = run.steps.as_slice() else { return None };
    let (step, output) = (&request.call, tensors.get("output")?);
    let (asks, says, decided_by) = match question {
        "passes" => passes(step, rule, answer),
        "folded" if one_pass => return None,
        "folded" => folded(step, rule, output)?,
        _ => casts(step, rule, output)?,
    };
    let about = About::Arithmetic;
    Some(Finding { question, asks, says, choice: None, decided_by, case: case.comment.clone(), about })
}

type Said = (&'static str, String, f64);

/// The first law that the answer needs.
fn passes(step: &Step, rule: &Rule, answer: &Answer) -> Said {
    let distance = |law| Predicted::under(step, rule, law).distance(answer, &["output"]);
    let one_pass = Predicted::under(step, rule, Law::ONE_PASS);
    let asks = "how the variance is computed";
    let good = Law::GOOD.map(distance);
    let says = if good[0] <= 1.0 || good[1] <= 1.0 {
        "in two passes, or as well (updated, merged)"
    } else if good[2] <= 1.0 || good[3] <= 1.0 {
        "updated with the mean (Welford, merged)"
    } else if one_pass.distance(answer, &["output"]) <= 1.0 {
        return (asks, format!("{ONE_PASS}, E(x²) − E(x)²: unstable"), good[3]);
    } else if one_pass.distance_of_numbers(answer, "output") <= 1.0 {
        return (asks, format!("{ONE_PASS}, E(x²) − E(x)²: unstable, and NaN where that is negative"), good[3]);
    } else {
        return (asks, "in no way that the error analysis knows".to_owned(), good[3]);
    };
    (asks, says.to_owned(), f64::INFINITY)
}

/// Whether the answer is as good as a difference that is taken first.
fn folded(step: &Step, rule: &Rule, output: &Tensor) -> Option<Said> {
    let Predicted::Answers(tensors, _) = Predicted::of(step, rule) else { return None };
    let unit = output.dtype().format()?.unit_roundoff();
    let elements = tensors["output"].iter().enumerate();
    let errors =
        elements.map(|(index, &Element { value, .. })| (output.get(index) - value).abs() / (unit * value.abs()));
    let largest =
        errors.fold(0.0, |largest: f64, error| largest.max(if error.is_nan() { f64::INFINITY } else { error }));
    let asks = "whether the rescaling is folded, x·r + (−μ·r)";
    let says = if largest <= DIRECT { "no: (x − μ)·r" } else { "yes: x·r + (−μ·r)" };
    Some((asks, says.to_owned(), if largest <= DIRECT { f64::INFINITY } else { largest / DIRECT }))
}

/// Which of two roundings the elements show that differ between them.
fn casts(step: &Step, rule: &Rule, output: &Tensor) -> Option<Said> {
    let Predicted::Answers(tensors, _) = Predicted::of(step, rule) else { return None };
    let mut bare = step.clone();
    bare.tensors.remove("weight");
    let Predicted::Answers(bare, _) = Predicted::of(&bare, rule) else { return None };
    let format = output.dtype().format()?;
    let (mut last, mut before, mut deciding) = (0, 0, 0);
    for (index, (z, y)) in tensors["output"].iter().zip(&bare["output"]).enumerate() {
        let weight = z.value / y.value;
        let rounded = [format.round(z.value), format.round(format.round(y.value) * weight)];
        if rounded[0] != rounded[1] && weight.is_finite() {
            deciding += 1;
            last += usize::from(output.get(index) == rounded[0]);
            before += usize::from(output.get(index) == rounded[1]);
        }
    }
    let asks = "the order of casts in a half type";
    // One element in a hundred thousand is near enough to a tie for a sum in f32 to turn it.
    let says = if deciding > 0 && last + 1 >= deciding {
        "computed in a wider type, rounded once at the end".to_owned()
    } else if deciding > 0 && before + 1 >= deciding {
        "rounded to the half type before the weight, and again after it".to_owned()
    } else if tensors["output"].iter().enumerate().any(|(index, z)| (output.get(index) - z.value).abs() > z.bound) {
        "mean, 1/σ or other intermediate results are rounded to the half type".to_owned()
    } else {
        format!("neither: of {deciding} telling elements {last} are rounded once, {before} before the weight")
    };
    Some((asks, says, f64::INFINITY))
}
