//! Layers beyond `torch.nn`, a second time: explicit loops over the axes in binary64, written from the papers and not from
//! the definitions, against the truth of every tame case of the catalogue.

mod papers;
mod shipped;

use std::collections::{BTreeMap, BTreeSet};

use normative::arithmetic::DataType;
use normative::case::{Case, Flag, Step, catalogue};
use normative::judge::Expected;
use normative::operation::Mode;
use serde_json::Value;

/// A call taken apart.
struct Loops {
    operation: Value,
    train: bool,
    tensors: BTreeMap<String, Vec<f64>>,
    /// N, C, L.
    sizes: [usize; 3],
}

impl Loops {
    fn new(step: &Step) -> Loops {
        let shape = step.tensors["input"].shape();
        let rest = if shape.len() > 2 { shape[2..].iter().product() } else { 1 };
        Loops {
            operation: serde_json::to_value(&step.operation).expect("an operation is JSON"),
            train: step.mode == Mode::Train,
            tensors: step.values(|x| x).into_iter().collect(),
            sizes: [shape.first().copied().unwrap_or(1), shape.get(1).copied().unwrap_or(1), rest],
        }
    }

    fn x(&self) -> &[f64] {
        &self.tensors["input"]
    }

    fn number(&self, name: &str) -> f64 {
        match &self.operation[name] {
            Value::String(text) if text == "inf" => f64::INFINITY,
            value => value.as_f64().unwrap_or_else(|| panic!("{name} of {}", self.operation)),
        }
    }

    fn count(&self, name: &str) -> usize {
        self.number(name) as usize
    }

    /// Element `index` of a tensor, or what stands for it where it was not sent.
    fn of(&self, name: &str, index: usize, absent: f64) -> f64 {
        self.tensors.get(name).map_or(absent, |values| values[index])
    }

    /// The axes of every element.
    fn places(&self) -> Vec<[usize; 3]> {
        let [n, c, l] = self.sizes;
        let mut places = Vec::new();
        for i in 0..n {
            for j in 0..c {
                places.extend((0..l).map(|k| [i, j, k]));
            }
        }
        places
    }

    /// Mean and biased variance (or mean square) of each group of elements, by a key made of their axes.
    fn moments(
        &self,
        values: &[f64],
        centred: bool,
        kept: impl Fn(usize) -> bool,
        key: impl Fn([usize; 3]) -> usize,
    ) -> BTreeMap<usize, (f64, f64, f64)> {
        let mut groups: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for (index, place) in self.places().into_iter().enumerate().filter(|(index, _)| kept(*index)) {
            groups.entry(key(place)).or_default().push(values[index]);
        }
        let moments = |group: Vec<f64>| {
            let count = group.len() as f64;
            let mean = if centred { group.iter().sum::<f64>() / count } else { 0.0 };
            (mean, group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count, count)
        };
        groups.into_iter().map(|(key, group)| (key, moments(group))).collect()
    }

    /// w·(x − μ)/√(v + eps) + b, weight and bias by the axes too.
    fn norm(
        &self,
        centred: bool,
        key: impl Fn([usize; 3]) -> usize,
        affine: impl Fn([usize; 3]) -> (f64, f64),
    ) -> Vec<f64> {
        let moments = self.moments(self.x(), centred, |_| true, &key);
        let eps = self.number("eps");
        let places = self.places().into_iter().zip(self.x());
        let element = |(place, x): ([usize; 3], &f64)| {
            let (mean, variance, _) = moments[&key(place)];
            let (weight, bias) = affine(place);
            weight * (x - mean) / (variance + eps).sqrt() + bias
        };
        places.map(element).collect()
    }

    /// The block of neighbouring channels that a channel is in.
    fn block(&self, channel: usize) -> usize {
        channel / (self.sizes[1] / self.count("num_groups"))
    }

    fn by_channel(&self, [_, c, _]: [usize; 3]) -> (f64, f64) {
        (self.of("weight", c, 1.0), self.of("bias", c, 0.0))
    }

    /// old + m·(new − old)
    fn moved(&self, name: &str, index: usize, new: f64) -> f64 {
        let (old, momentum) = (self.tensors[name][index], self.number("momentum"));
        old + momentum * (new - old)
    }
}

type Answer = Vec<(&'static str, Vec<f64>)>;

/// Cases on which binary64 loses nothing that matters: small means, no constant groups, no NaN.
fn tame(case: &Case) -> bool {
    let wild = [Flag::LargeMean, Flag::NonFinite, Flag::ConstantGroup, Flag::BatchOne, Flag::Refusal];
    // Beside an outlier the covariance of the other channels is 1e8 times as small: so many roundings its inverse root loses.
    let lost = case.name == "decorrelated_batch_norm-f64-outlier";
    case.dtype() == DataType::F64
        && case.steps.len() == 1
        && !lost
        && !case.flags.iter().any(|flag| wild.contains(flag))
}

#[test]
fn explicit_loops_agree_with_the_truth() {
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    for case in catalogue::cases().iter().filter(|case| tame(case)) {
        let step = &case.steps[0];
        let it = Loops::new(step);
        let Some(answer) = shipped::by_loops(&it).or_else(|| papers::by_loops(&it)) else { continue };
        let Expected::Tensors { tensors, .. } = Expected::of(step) else { panic!("{} is refused", case.name) };
        let names: BTreeSet<&str> = answer.iter().map(|(name, _)| *name).collect();
        let known = tensors.keys().filter(|name| !name.starts_with("grad")).map(String::as_str).collect();
        assert_eq!(names, known, "{}", case.name);
        for (name, values) in answer {
            let truth = &tensors[name];
            assert_eq!(values.len(), truth.rounded.len(), "{} {name}", case.name);
            for (index, (computed, rounded)) in values.iter().zip(&truth.rounded).enumerate() {
                // Sums of at most two thousand terms of size 1, in binary64.
                let error = (computed - rounded).abs();
                assert!(error <= 1e-11 * (1.0 + rounded.abs()), "{} {name}[{index}]: {computed} {rounded}", case.name);
            }
        }
        *compared.entry(step.operation.name()).or_insert(0) += 1;
    }
    assert_eq!(compared.len(), 51, "{compared:?}");
    assert!(compared.values().all(|&count| count >= 5), "{compared:?}");
}

/// The comparison compares: loops over another axis are noticed.
#[test]
fn loops_over_another_axis_disagree() {
    let case = catalogue::cases().iter().find(|case| case.name == "layer_norm_2d-f64-plain").expect("a case");
    let Expected::Tensors { tensors, .. } = Expected::of(&case.steps[0]) else { panic!("refused") };
    let it = Loops::new(&case.steps[0]);
    let other = it.norm(true, |[i, _, _]| i, |place| it.by_channel(place));
    let differs = other.iter().zip(&tensors["output"].rounded).filter(|(a, b)| (*a - *b).abs() > 1e-3);
    assert!(differs.count() > 10);
}

/// The tables of docs/operations.md are those that the command makes of the code and of the recordings.
#[test]
fn the_tables_of_operations_are_those_of_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = std::fs::read_to_string(path).expect("the documentation can be read");
    for name in ["operations", "goldens"] {
        let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("normative"));
        let command = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["table", name]);
        let table = String::from_utf8(command.output().expect("it runs").stdout).expect("text");
        assert!(
            table.lines().count() > 40 && text.contains(table.trim()),
            "docs/operations.md: normative table {name}"
        );
    }
}
