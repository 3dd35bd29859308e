//! The promises, measured: what the truth keeps in every round is promised, and nothing else.

use rayon::prelude::*;

use super::super::promise::{Axis, Promises, Sign, promises};
use super::super::setting::{Setting, axes, changed};
use super::super::symmetry::{negated, output_of, reordered, scaled, shifted, with_other_samples};
use super::*;
use crate::arithmetic::Truth;
use crate::case::Step;
use crate::judge::Expected;

fn truth(step: &Step) -> Vec<Truth> {
    match Expected::of(step) {
        Expected::Tensors { tensors, .. } => tensors[output_of(step)].values.clone(),
        Expected::Refused { refusal, .. } => panic!("{refusal}"),
    }
}

/// Whether `factor`·y is y′, as far as the radii of the truths let one see, element by element of those that `pairs` names.
fn alike(y: &[Truth], other: &[Truth], factor: f64, pairs: impl Iterator<Item = (usize, usize)>) -> bool {
    pairs.into_iter().all(|(index, at)| {
        let residual = y[index] * Truth::exact(factor) - other[at];
        residual.value.hi.abs() <= residual.radius
    })
}

/// Whether what `holds` says of a call is true in every round; of values that F16 has, which are not far apart.
fn in_every_round(operation: &'static str, holds: &dyn Fn(&mut Setting) -> bool) -> bool {
    (0..ROUNDS).all(|round| holds(&mut Setting::new("promised", operation, DataType::F16, 0, round)))
}

/// What an operation keeps.
fn measured(operation: &'static str) -> (Vec<bool>, Sign, Vec<Axis>, bool) {
    let same = |step: &Step, other: &Step, factor| {
        let (y, other) = (truth(step), truth(other));
        alike(&y, &other, factor, (0..y.len()).zip(0..))
    };
    let shifts = (0..3).map(|kind| {
        in_every_round(operation, &|setting| {
            let step = setting.step();
            let other = shifted(setting, &step, kind);
            same(&step, &other, 1.0)
        })
    });
    let turns = |sign| {
        in_every_round(operation, &|setting| {
            let step = setting.step();
            same(&step, &negated(&step), sign)
        })
    };
    let sign = if turns(-1.0) {
        Sign::Odd
    } else if turns(1.0) {
        Sign::Even
    } else {
        Sign::Neither
    };
    let permutes = |axis: &Axis| {
        in_every_round(operation, &|setting| {
            let step = setting.step();
            let (other, sources) = reordered(setting, &step, *axis);
            let (y, other) = (truth(&step), truth(&other));
            // An output of other elements than the input's goes through no permutation.
            y.len() == sources.len() && alike(&y, &other, 1.0, sources.into_iter().zip(0..))
        })
    };
    let axes = [Axis::Samples, Axis::Channels, Axis::Positions].into_iter().filter(permutes);
    let mixes = !in_every_round(operation, &|setting| {
        let [step, other] = with_other_samples(setting);
        let first = step.tensors["input"].len() / step.tensors["input"].shape()[0];
        let (y, last) = (truth(&step), step.tensors["input"].len() - first);
        let turned = truth(&changed(&step, "input", |index, x| if index < first { 2.0 * x + 1.0 } else { x }));
        let other = truth(&other);
        // Neither the first sample sees the others, nor the last the first.
        let own = (0..first.min(y.len())).zip(0..);
        alike(&y, &other, 1.0, own) && alike(&y, &turned, 1.0, (last.min(y.len())..y.len()).zip(last..))
    });
    (shifts.collect(), sign, axes.collect(), mixes)
}

#[test]
fn what_the_truth_keeps_is_promised() {
    let complaints: Vec<String> = promises()
        .par_iter()
        .filter_map(|promised| {
            let Promises {
                operation, shift, shift_of_channels, shift_of_samples, sign, permutes, mixes_samples, ..
            } = *promised;
            let expected = (vec![shift, shift_of_channels, shift_of_samples], sign, permutes.to_vec(), mixes_samples);
            let measured = measured(operation);
            (measured != expected).then(|| format!("{operation}: {measured:?}, promised {expected:?}"))
        })
        .collect();
    assert_eq!(complaints, Vec::<String>::new());
}

/// The degree d of y(a·x) = aᵈ·y(x), for a = 2 and a = 4.
#[test]
fn the_degree_of_the_truth_is_promised() {
    let degree = |operation| {
        (-2..=2).find(|&degree| {
            in_every_round(operation, &|setting| {
                let step = setting.step();
                [2.0_f64, 4.0].iter().all(|&factor| {
                    let Some(other) = scaled(&step, factor) else { return false };
                    let (y, other) = (truth(&step), truth(&other));
                    alike(&y, &other, factor.powi(degree), (0..y.len()).zip(0..))
                })
            })
        })
    };
    let complaints: Vec<String> = promises()
        .par_iter()
        .filter_map(|promised| {
            let (measured, expected) = (degree(promised.operation), promised.degree);
            (measured != expected).then(|| format!("{}: {measured:?}, promised {expected:?}", promised.operation))
        })
        .collect();
    assert_eq!(complaints, Vec::<String>::new());
}

/// Within each group of the plan the output does not fall where the input rises, where its weight is positive.
#[test]
fn what_rises_with_the_input_is_promised() {
    let rises = |setting: &mut Setting| {
        let step = setting.step();
        let (partition, y) = (step.plan(&step.operation.rule()).expect("trials are answered").partition, truth(&step));
        let input = &step.tensors["input"];
        let folds = matches!(step.operation, Operation::ConvBatchNormFold(_) | Operation::WeightNorm(_));
        let slope = |index| {
            let [n, c, _] = axes(&step, index);
            step.tensors.get("weight").map_or(1.0, |weight| weight.get(if folds { n } else { c }).signum())
        };
        let group_rises = |group| {
            let mut positions = partition.positions(group);
            positions.sort_by(|&a, &b| input.get(a).total_cmp(&input.get(b)));
            positions.windows(2).all(|pair| {
                let rise = (y[pair[1]] - y[pair[0]]) * Truth::exact(slope(pair[0]));
                rise.value.hi >= -rise.radius
            })
        };
        y.len() == input.len() && (0..partition.groups()).all(group_rises)
    };
    let complaints: Vec<&str> = promises()
        .par_iter()
        .filter(|promised| promised.monotone != in_every_round(promised.operation, &rises))
        .map(|promised| promised.operation)
        .collect();
    assert_eq!(complaints, Vec::<&str>::new());
}
