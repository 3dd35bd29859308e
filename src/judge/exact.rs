//! The exact oracle's view of an answer: any element of any output, in integers, on demand.

use std::collections::HashMap;

use crate::arithmetic::exact::{Exact, ExactGradient, ExactGroup, ExactScale, mix, mix_of_old, sum};
use crate::arithmetic::{Factor, Group};
use crate::operation::{Average, Plan, Source};
use crate::tensor::Tensors;

/// Exact answers to one call; the statistics of a group are summed once, when its first element is asked for.
pub struct ExactAnswers<'a> {
    plan: &'a Plan,
    tensors: &'a Tensors<Vec<f64>>,
    groups: HashMap<usize, Option<ExactGroup>>,
    scales: HashMap<usize, Option<ExactScale>>,
    gradients: HashMap<usize, Option<ExactGradient>>,
    /// The elements that each weight multiplies, by its index.
    multiplied: Option<Vec<Vec<usize>>>,
}

impl<'a> ExactAnswers<'a> {
    /// Answers to the call that `plan` was made for.
    pub fn new(plan: &'a Plan, tensors: &'a Tensors<Vec<f64>>) -> ExactAnswers<'a> {
        ExactAnswers {
            plan,
            tensors,
            groups: HashMap::new(),
            scales: HashMap::new(),
            gradients: HashMap::new(),
            multiplied: None,
        }
    }

    /// Element `index` of output `name`; `None` where it is no finite real number (a NaN or an infinity goes in, or σ is
    /// not positive).
    pub fn element(&mut self, name: &str, index: usize) -> Option<Exact> {
        let affine = &self.plan.affine;
        match name {
            _ if !self.plan.standardizes => None,
            _ if name.strip_prefix("grad_") == Some(affine.weight) => self.weight_gradient(index),
            _ if name.strip_prefix("grad_") == Some(affine.bias) => {
                let seeds = &self.tensors["grad_output.output"];
                let terms = self.multiplied(index).iter().map(|&position| seeds[position]);
                terms.clone().all(f64::is_finite).then(|| sum(terms))
            }
            // The sum 1 + w is no binary64 number: the radius must do.
            "output" | "grad_input" if affine.one_plus && self.tensors.contains_key(affine.weight) => None,
            "output" => self.output(index),
            "running_mean" => self.running(index, "running_mean", |group| Some(group.mean())),
            "running_var" => self.running(index, "running_var", |group| {
                let Plan { partition, keeping, .. } = self.plan;
                let degrees_of_freedom = keeping.degrees_of_freedom;
                (partition.group_size() > usize::from(degrees_of_freedom)).then(|| group.variance(degrees_of_freedom))
            }),
            "grad_input" => self.input_gradient(index),
            _ => None,
        }
    }

    fn output(&mut self, index: usize) -> Option<Exact> {
        let (group, parameter) = place(self.plan, index);
        let parameter = |name: &str| self.tensors.get(name).map(|values| values[parameter]);
        let (weight, bias) = (parameter(self.plan.affine.weight), parameter(self.plan.affine.bias));
        let x = self.tensors["input"][index];
        if ![Some(x), weight, bias].into_iter().flatten().all(f64::is_finite) {
            return None;
        }
        let (group, scale) = self.group(group)?;
        Some(group.element(scale, x, weight, bias))
    }

    /// The statistics that normalize group `group`, and 1/σ.
    fn group(&mut self, group: usize) -> Option<(&ExactGroup, &ExactScale)> {
        let (plan, tensors) = (self.plan, self.tensors);
        let statistics = self.groups.entry(group).or_insert_with(|| statistics(plan, tensors, group)).as_ref()?;
        let scale = || if plan.eps.is_finite() { statistics.scale(plan.eps) } else { None };
        Some((statistics, self.scales.entry(group).or_insert_with(scale).as_ref()?))
    }

    fn input_gradient(&mut self, index: usize) -> Option<Exact> {
        let (plan, tensors) = (self.plan, self.tensors);
        let (number, parameter) = place(plan, index);
        let weights = tensors.get(plan.affine.weight);
        let (input, seeds) = (&tensors["input"], &tensors["grad_output.output"]);
        let (x, g, w) = (input[index], seeds[index], weights.map_or(1.0, |weights| weights[parameter]));
        if ![x, g, w].into_iter().all(f64::is_finite) {
            return None;
        }
        if plan.source == Source::Stored {
            let (group, scale) = self.group(number)?;
            return Some(group.stored_gradient(scale, g, w));
        }
        self.group(number)?;
        let (group, scale) = (self.groups[&number].as_ref()?, self.scales[&number].as_ref()?);
        let gradient = self.gradients.entry(number).or_insert_with(|| {
            let elements = plan.partition.positions(number).into_iter().map(|position| {
                let weight = weights.map_or(1.0, |weights| weights[place(plan, position).1]);
                (input[position], seeds[position], weight)
            });
            let finite = elements.clone().all(|(_, g, w)| g.is_finite() && w.is_finite());
            finite.then(|| group.gradient(elements))
        });
        Some(group.input_gradient(scale, gradient.as_ref()?, x, g, w))
    }

    /// Where all elements that a weight multiplies lie in one group; else the roots differ, and the radius must do.
    fn weight_gradient(&mut self, index: usize) -> Option<Exact> {
        let (plan, tensors) = (self.plan, self.tensors);
        let (input, seeds) = (&tensors["input"], &tensors["grad_output.output"]);
        let positions = self.multiplied(index).to_vec();
        let number = place(plan, *positions.first()?).0;
        let alone = positions.iter().all(|&position| place(plan, position).0 == number);
        let finite = positions.iter().all(|&position| input[position].is_finite() && seeds[position].is_finite());
        if !alone || !finite {
            return None;
        }
        let (group, scale) = self.group(number)?;
        Some(group.weight_gradient(scale, positions.iter().map(|&position| (input[position], seeds[position]))))
    }

    /// The elements that weight and bias `index` belong to.
    fn multiplied(&mut self, index: usize) -> &[usize] {
        let (plan, tensors) = (self.plan, self.tensors);
        let multiplied = self.multiplied.get_or_insert_with(|| {
            let names = [plan.affine.weight, plan.affine.bias];
            let count = names.into_iter().filter_map(|name| tensors.get(name)).map(Vec::len).max();
            let mut multiplied = vec![Vec::new(); count.unwrap_or(0)];
            for position in 0..tensors["input"].len() {
                multiplied[place(plan, position).1].push(position);
            }
            multiplied
        });
        &multiplied[index]
    }

    fn running(&self, channel: usize, name: &str, statistic: impl Fn(&ExactGroup) -> Option<Exact>) -> Option<Exact> {
        let old = self.tensors[name][channel];
        if !old.is_finite() {
            return None;
        }
        let Some(factor) = self.plan.update else { return Some(Exact::from_f64(old)) };
        // An average over samples is left to the radius, and so is one that is no plain average.
        if self.plan.partition.outer > 1 || self.plan.keeping.average != Average::Exponential {
            return None;
        }
        let group = from_input(self.plan, self.tensors, channel)?;
        match factor {
            Factor::OfOld(decay) if decay.is_finite() => Some(mix_of_old(old, &statistic(&group)?, decay)),
            Factor::OfNew(momentum) if momentum.is_finite() => Some(mix(old, &statistic(&group)?, momentum, 1)),
            Factor::Reciprocal(batches) if batches > 0 => Some(mix(old, &statistic(&group)?, 1.0, batches)),
            _ => None,
        }
    }
}

/// The group of element `index`, and the index of its weight and bias.
fn place(plan: &Plan, index: usize) -> (usize, usize) {
    let partition = &plan.partition;
    let length = partition.run_length;
    let place = partition.place(index / length * length);
    (place.group, place.parameter + index % length * partition.parameter.element_step)
}

/// The statistics that normalize group `group`.
fn statistics(plan: &Plan, tensors: &Tensors<Vec<f64>>, group: usize) -> Option<ExactGroup> {
    match plan.source {
        Source::Input => from_input(plan, tensors, group),
        Source::Average | Source::Nothing => None,
        Source::Stored if !plan.keeping.reads_as_stored() => None,
        Source::Stored => {
            let channel = group % plan.partition.inner;
            let (mean, variance) = (tensors["running_mean"][channel], tensors["running_var"][channel]);
            (mean.is_finite() && variance.is_finite()).then(|| ExactGroup::stored(mean, variance))
        }
    }
}

fn from_input(plan: &Plan, tensors: &Tensors<Vec<f64>>, group: usize) -> Option<ExactGroup> {
    let runs = plan.partition.group(group);
    let elements = Group::new(&tensors["input"], runs);
    let usable = !elements.is_empty() && elements.iter().all(f64::is_finite);
    usable.then(|| ExactGroup::new(elements.iter(), plan.centred))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::arithmetic::{DataType, Reference};
    use crate::case::{Step, catalogue};
    use crate::operation::Mode;
    use crate::tensor::Tensor;

    /// Whether the weight (or bias) `index` multiplies elements of one group alone.
    fn is_alone(plan: &Plan, index: usize) -> bool {
        let multiplies = |group: usize| {
            let positions = plan.partition.positions(group);
            positions.into_iter().any(|position| place(plan, position).1 == index)
        };
        (0..plan.partition.groups()).filter(|&group| multiplies(group)).count() == 1
    }

    /// Whether the oracle owes an answer whose value is a finite number.
    fn is_owed(plan: &Plan, tensors: &Tensors<Vec<f64>>, name: &str, index: usize) -> bool {
        let affine = &plan.affine;
        let weighted = affine.one_plus && tensors.contains_key(affine.weight);
        let reads = match plan.source {
            Source::Input => true,
            Source::Stored => plan.keeping.reads_as_stored(),
            Source::Average | Source::Nothing => false,
        };
        let lost = if name == "running_var" { plan.keeping.degrees_of_freedom } else { 0 };
        let enough = plan.partition.group_size() > usize::from(lost);
        let averages = enough && plan.partition.outer == 1 && plan.keeping.average == Average::Exponential;
        match name {
            "output" | "grad_input" => reads && !weighted,
            "running_mean" | "running_var" => averages || plan.update.is_none(),
            _ if name.strip_prefix("grad_") == Some(affine.weight) => reads && is_alone(plan, index),
            _ => name.strip_prefix("grad_") == Some(affine.bias),
        }
    }

    /// In integers and in double-double arithmetic: within the radii, on small cases of the whole catalogue.
    #[test]
    fn the_oracle_answers_as_the_reference_does() {
        let mut answered: BTreeMap<String, usize> = BTreeMap::new();
        let small = |case: &&crate::case::Case| case.steps[0].tensors.values().all(|tensor| tensor.len() <= 24);
        for case in catalogue::cases().iter().filter(small) {
            let (step, rule) = (&case.steps[0], case.steps[0].operation.rule());
            let Ok(plan) = step.plan(&rule) else { continue };
            let values = step.values(|x| x);
            let finite = plan.eps.is_finite() && values.values().flatten().all(|x| x.is_finite());
            let mut outputs = step.operation.forward(&Reference, &plan, &values, &rule).tensors;
            if step.gradients {
                outputs.extend(step.operation.backward(&Reference, &plan, &values, &step.descriptions(), &rule));
            }
            let mut oracle = ExactAnswers::new(&plan, &values);
            for (name, output) in outputs {
                for (index, truth) in output.values.into_iter().enumerate() {
                    let at = || format!("{}: {name}, element {index}", case.name);
                    let Some(exact) = oracle.element(&name, index) else {
                        let owed = finite && plan.standardizes && is_owed(&plan, &values, &name, index);
                        assert!(!owed || !truth.is_finite(), "{}: no answer", at());
                        continue;
                    };
                    assert!(plan.standardizes, "{}: answered, though no group is standardized", at());
                    let (value, radius) = exact.double_double();
                    let distance = (value - truth.value).abs().hi;
                    let allowed = (radius + truth.radius).next_up();
                    assert!(!truth.is_finite() || distance <= allowed, "{}: {value:?}, not {truth:?}", at());
                    *answered.entry(name.clone()).or_default() += 1;
                }
            }
        }
        let names = ["output", "running_mean", "running_var", "grad_input", "grad_weight", "grad_bias"];
        assert!(names.iter().all(|&name| answered.contains_key(name)), "{answered:?}");
    }

    /// The plan of a call in training, and its values.
    fn planned(operation: &str, shape: &[usize], vectors: &[&str]) -> (Plan, Tensors<Vec<f64>>) {
        let tensor = |shape: &[usize]| {
            let count = shape.iter().product::<usize>();
            Tensor::rounded(DataType::F64, shape, (0..count).map(|i| (i * i) as f64 - 1.5).collect())
        };
        let mut tensors = Tensors::from(["input", "grad_output.output"].map(|name| (name.to_owned(), tensor(shape))));
        tensors.extend(vectors.iter().map(|&name| (name.to_owned(), tensor(&[3]))));
        let step = Step::forward(serde_json::from_str(operation).unwrap(), tensors);
        let step = Step { gradients: true, mode: Mode::Train, ..step };
        let plan = step.plan(&step.operation.rule()).unwrap_or_else(|refused| panic!("{:?}", refused.refusal));
        (plan, step.values(|x| x))
    }

    #[test]
    fn what_is_not_finite_has_no_exact_gradient() {
        let (plan, values) =
            planned(r#"{"name": "layer_norm", "normalized_shape": [3], "eps": 1e-5}"#, &[1, 3], &["weight"]);
        let answered = |values: &Tensors<Vec<f64>>, name: &str, index: usize| {
            ExactAnswers::new(&plan, values).element(name, index).is_some()
        };
        assert!(
            ["grad_input", "grad_weight"].iter().all(|name| answered(&values, name, 0) && answered(&values, name, 1))
        );
        for (name, which) in [("input", f64::NAN), ("grad_output.output", f64::INFINITY), ("weight", f64::NEG_INFINITY)]
        {
            let mut values = values.clone();
            values.get_mut(name).expect("it is there")[1] = which;
            assert!(!answered(&values, "grad_input", 0) && !answered(&values, "grad_input", 1), "{name}");
            assert_eq!(answered(&values, "grad_weight", 1), name == "weight");
        }
    }

    #[test]
    fn stored_statistics_that_are_not_finite_have_no_exact_answer() {
        let batch_norm = r#"{"name": "batch_norm", "spatial_dims": null, "eps": 1e-5, "momentum": 0.1}"#;
        let (mut plan, values) = planned(batch_norm, &[2, 3], &["running_mean", "running_var"]);
        plan.source = Source::Stored;
        let answered = |values: &Tensors<Vec<f64>>| ExactAnswers::new(&plan, values).element("output", 2).is_some();
        assert!(answered(&values));
        for (name, which) in [("running_mean", f64::NAN), ("running_var", f64::INFINITY)] {
            let mut values = values.clone();
            values.get_mut(name).expect("it is there")[2] = which;
            assert!(!answered(&values), "{name}");
        }
    }

    #[test]
    fn a_running_mean_needs_a_weight_that_is_a_number() {
        let batch_norm = r#"{"name": "batch_norm", "spatial_dims": null, "eps": 1e-5, "momentum": 0.1}"#;
        let (mut plan, values) = planned(batch_norm, &[2, 3], &["running_mean", "running_var"]);
        let mut answered = |factor: Factor| {
            plan.update = Some(factor);
            ExactAnswers::new(&plan, &values).element("running_mean", 0).is_some()
        };
        assert!([Factor::OfNew(2.0), Factor::OfOld(-1.0), Factor::Reciprocal(1)].into_iter().all(&mut answered));
        for lost in
            [Factor::OfNew(f64::NAN), Factor::OfOld(f64::INFINITY), Factor::Reciprocal(0), Factor::Reciprocal(-3)]
        {
            assert!(!answered(lost), "{lost:?}");
        }
    }
}
