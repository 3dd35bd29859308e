//! Target `gradients`: backward passes, written by hand, against dual numbers through the forward definition.

use super::asking::each_step;
use super::generator::Wanted;
use crate::arithmetic::{DataType, Dual, Plain, Truth};
use crate::case::Step;
use crate::case::values::Values;
use crate::judge::{Expected, TrueTensor};
use crate::operation::Plan;
use crate::subject::rounded;
use crate::tensor::Tensors;

const WANTED: Wanted<'static> = Wanted { dtypes: &[DataType::F64], steps: 2, gradients: Some(true), ..Wanted::ANY };

/// Asks for the gradients of the case that the bytes stand for.
///
/// ```text
/// ⟨gradient, direction⟩ = ⟨grad_output, d output along the direction⟩
/// ```
/// Both sides are values with radii: they agree where their balls meet, and no tolerance is chosen. Where a function has a
/// kink there is no derivative, and each side may choose a slope.
///
/// # Panics
/// If they do not.
pub fn gradients(data: &[u8]) {
    each_step(&WANTED.case(data), |call| {
        let expected = Expected::of(call);
        if let Expected::Tensors { plan, tensors, .. } = &expected
            && !may_have_kink(call)
        {
            check(call, plan, tensors, &mut Values::of_bytes(data));
        }
        rounded(&expected)
    });
}

/// Whether two branches of a maximum or a magnitude may meet: an input of zeros or equal magnitudes, in an operation that
/// has branches.
fn may_have_kink(call: &Step) -> bool {
    let name = call.operation.name();
    let branches = matches!(name, "normalize" | "renorm" | "filter_response_norm") || name.starts_with("evo_norm_b");
    let mut magnitudes: Vec<f64> = call.tensors["input"].widened().iter().map(|x| x.abs()).collect();
    magnitudes.sort_by(f64::total_cmp);
    branches && (magnitudes.first() == Some(&0.0) || magnitudes.windows(2).any(|pair| pair[0] == pair[1]))
}

fn check(call: &Step, plan: &Plan, truths: &Tensors<TrueTensor>, values: &mut Values) {
    let mut directions = Tensors::new();
    let mut by_hand = Truth::exact(0.0);
    for &name in call.operation.signature().differentiable {
        let Some(gradient) = truths.get(&format!("grad_{name}")) else { continue };
        let direction = values.normals(gradient.values.len(), 0.25, 1.0);
        by_hand = gradient.values.iter().zip(&direction).fold(by_hand, |sum, (&g, &d)| sum + g * Truth::exact(d));
        directions.insert(name.to_owned(), direction);
    }
    let difference = by_hand - along(call, plan, &directions);
    let known = difference.is_finite() && difference.radius.is_finite();
    assert!(
        !known || difference.value.hi.abs() <= difference.radius,
        "{:?}: {by_hand:?}, off by {difference:?}",
        call.operation
    );
}

/// ⟨grad_output, d output/d x along the directions⟩, by dual numbers.
fn along(call: &Step, plan: &Plan, directions: &Tensors<Vec<f64>>) -> Truth {
    let sent = call.values(|x| x);
    let moving = |(name, x): (&String, &Vec<f64>)| {
        let rate = |index: usize| directions.get(name).map_or(0.0, |direction| direction[index]);
        let duals = x.iter().enumerate().map(|(index, &x)| Dual::new(Truth::exact(x), Truth::exact(rate(index))));
        (name.clone(), duals.collect())
    };
    let dual: Tensors<Vec<Dual<Truth>>> = sent.iter().map(moving).collect();
    let rule = call.operation.rule();
    let outputs = call.operation.forward(&Plain::<Dual<Truth>>::new(), plan, &dual, &rule);
    let seeds = call.operation.signature().outputs.iter().flat_map(|&output| {
        let seed = &sent[&format!("grad_output.{output}")];
        outputs.tensors[output].values.iter().zip(seed)
    });
    seeds.fold(Truth::exact(0.0), |sum, (value, &seed)| sum + value.derivative * Truth::exact(seed))
}
