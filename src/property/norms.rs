//! Norms: what operations that divide by one leave of it.
//!
//! ```text
//! normalize      ‖y‖₂ = 1 where ‖x‖₂ ≥ eps
//! renorm         y = x where ‖x‖ ≤ limit, ‖y‖ ≤ limit everywhere
//! spectral norm  u = W·v₀/‖W·v₀‖, then v = Wᵀ·u/‖Wᵀ·u‖: u first
//! ```
//! torch.nn.functional.normalize, torch.renorm; Krizhevsky, Sutskever and Hinton 2012, section 3.3; Miyato et al. 2018, algorithm 1.

use super::setting::{Setting, changed};
use super::symmetry::place;
use super::trial::{Asked, Trial, exact, sum};
use super::{Property, Scope};
use crate::arithmetic::{Real, Truth};
use crate::case::Flag;
use crate::operation::{LocalResponseNorm, Mode, Operation};

pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "unit-length",
        sentence: "a normalized vector has length 1",
        law: "‖y‖₂ = 1 where ‖x‖₂ ≥ eps, p = 2",
        source: "torch.nn.functional.normalize",
        flags: &[Flag::NormKind],
        scope: Scope::Of(&["normalize"]),
        trial: unit_length,
    },
    Property {
        name: "limit",
        sentence: "what is within the limit stays as it is, bit by bit, and nothing is beyond it",
        law: "y = x where ‖x‖₂ ≤ maxnorm, ‖y‖₂ ≤ maxnorm",
        source: "torch.renorm",
        flags: &[Flag::NormKind],
        scope: Scope::Of(&["renorm"]),
        trial: limit,
    },
    Property {
        name: "power-iteration",
        sentence: "a power iteration takes u from the v that it is given, and then v from that u",
        law: "u = W·v₀/‖W·v₀‖₂, v = Wᵀ·u/‖Wᵀ·u‖₂",
        source: "Miyato et al. 2018, algorithm 1",
        flags: &[Flag::PowerIteration],
        scope: Scope::Of(&["spectral_norm"]),
        trial: power_iteration,
    },
    Property {
        name: "own-window",
        sentence: "where no other channel is in a window, a value is divided by a power of k + α·x²/size",
        law: "y = x/(k + α·x²/size)^β, β = 1 or ½",
        source: "Krizhevsky, Sutskever and Hinton 2012, section 3.3",
        flags: &[Flag::Window],
        scope: Scope::Of(&["local_response_norm", "cross_map_lrn"]),
        trial: own_window,
    },
];

fn length(balls: impl Iterator<Item = Truth>) -> Truth {
    sum(balls.map(|ball| ball * ball)).sqrt()
}

fn unit_length(setting: &mut Setting) -> Option<Trial> {
    let mut step = setting.step();
    let Operation::Normalize(norm) = &mut step.operation else { return None };
    (norm.p, norm.eps) = (2.0, 1.0);
    // No vector is shorter than eps.
    let step = changed(&step, "input", |_, x| if x.abs() < 1.0 { 2.0 } else { x });
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let output = asked.balls("output");
        for positions in asked.groups() {
            let length = length(positions.iter().map(|&position| output[position]));
            finding.zero((0, 0), length - exact(1.0), || {
                format!("the vector of {} has length {:e}; expected 1", place(asked, positions[0]), length.value.hi)
            });
        }
    }))
}

fn limit(setting: &mut Setting) -> Option<Trial> {
    let mut step = setting.step();
    let first = step.tensors["input"].len() / step.tensors["input"].shape()[0];
    let Operation::Renorm(norm) = &mut step.operation else { return None };
    (norm.p, norm.maxnorm) = (2.0, 4.0);
    // The first slice is short.
    let step = changed(&step, "input", |index, x| {
        let short = x.signum() * (1 + index % 2) as f64 / (8.0 * first as f64);
        if index < first { short } else { x }
    });
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (input, output) = (asked.sent("input"), asked.balls("output"));
        for positions in asked.groups() {
            let own = length(positions.iter().map(|&position| exact(input[position])));
            let most = exact(4.0);
            for &position in positions.iter().filter(|_| own.value.hi < most.value.hi) {
                finding.same((0, 0), output[position], exact(input[position]), || {
                    let (x, y) = (input[position], output[position].value.hi);
                    format!("{} is {y:e}; within the limit expected x = {x:e}", place(asked, position))
                });
            }
            let left = length(positions.iter().map(|&position| output[position]));
            finding.at_most((0, 0), left - most, || {
                format!("the slice of {} has length {:e}; the limit is 4", place(asked, positions[0]), left.value.hi)
            });
        }
    }))
}

/// The matrix's rows, of the weight that was sent.
fn rows<'a>(asked: &Asked<'_>, weight: &'a [f64]) -> Vec<&'a [f64]> {
    weight.chunks(weight.len() / asked.step.tensors["input"].shape()[0]).collect()
}

fn power_iteration(setting: &mut Setting) -> Option<Trial> {
    let mut step = setting.step();
    step.mode = Mode::Train;
    Some(Trial::of(vec![step], |answers, finding| {
        let asked = answers.call(0);
        let (weight, v) = (asked.sent("input"), asked.sent("v"));
        let rows = rows(asked, &weight);
        let unit = |x: Vec<Truth>| {
            let length = length(x.iter().copied());
            x.into_iter().map(|x| x / length).collect::<Vec<Truth>>()
        };
        let times = |row: &&[f64]| sum(row.iter().zip(&v).map(|(&w, &v)| exact(w) * exact(v)));
        let u = unit(rows.iter().map(times).collect());
        let column = |k: usize| sum(rows.iter().zip(&u).map(|(row, &u)| exact(row[k]) * u));
        let v = unit((0..v.len()).map(column).collect());
        for (name, expected) in [("u", u), ("v", v)] {
            for (index, (is, expected)) in asked.balls(name).into_iter().zip(expected).enumerate() {
                finding.zero((0, 0), is - expected, || {
                    format!("{name}[{index}] is {:e} after an iteration; expected {:e}", is.value.hi, expected.value.hi)
                });
            }
        }
    }))
}

/// Windows of one; or of three, with zeros in all channels but the first.
fn own_window(setting: &mut Setting) -> Option<Trial> {
    let mut step = setting.step();
    let own_beta = setting.values.pick(&[0.5, 1.0]);
    let own_size = if setting.round.is_multiple_of(2) { 1 } else { 3 };
    let (alpha, k) = match &mut step.operation {
        Operation::LocalResponseNorm(LocalResponseNorm { size, alpha, beta, k }) => {
            (*size, *beta) = (own_size, own_beta);
            (*alpha, *k)
        }
        Operation::CrossMapLrn(norm) => {
            (norm.size, norm.beta) = (own_size, own_beta);
            (norm.alpha, norm.k)
        }
        _ => return None,
    };
    if own_size > 1 {
        let shape = step.tensors["input"].shape();
        let (rest, channels) = (shape[2..].iter().product::<usize>(), shape[1]);
        step = changed(&step, "input", |index, x| if index / rest % channels == 0 { x } else { 0.0 });
    }
    Some(Trial::of(vec![step], move |answers, finding| {
        let asked = answers.call(0);
        for (index, (&x, y)) in asked.sent("input").iter().zip(asked.balls("output")).enumerate() {
            let divisor = exact(k) + exact(alpha) * (exact(x) * exact(x) / exact(own_size as f64));
            let expected = exact(x) / if own_beta == 0.5 { divisor.sqrt() } else { divisor };
            finding.zero((0, 0), y - expected, || {
                format!("{} is {:e}; expected {:e}", place(asked, index), y.value.hi, expected.value.hi)
            });
        }
    }))
}
