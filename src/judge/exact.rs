//! The exact oracle's view of an answer: any element of any output, in integers, on demand.

use std::collections::HashMap;

use crate::arithmetic::exact::{Exact, ExactGroup, ExactScale, mix};
use crate::arithmetic::{Factor, Group};
use crate::operation::{Plan, Source};
use crate::tensor::Tensors;

/// Exact answers to one call; the statistics of a group are summed once, when its first element is asked for.
pub struct ExactAnswers<'a> {
    plan: &'a Plan,
    tensors: &'a Tensors<Vec<f64>>,
    groups: HashMap<usize, Option<ExactGroup>>,
    scales: HashMap<usize, Option<ExactScale>>,
}

impl<'a> ExactAnswers<'a> {
    /// Answers to the call that `plan` was made for.
    pub fn new(plan: &'a Plan, tensors: &'a Tensors<Vec<f64>>) -> ExactAnswers<'a> {
        ExactAnswers { plan, tensors, groups: HashMap::new(), scales: HashMap::new() }
    }

    /// Element `index` of output `name`; `None` where it is no finite real number (a NaN or an infinity goes in, or σ is
    /// not positive).
    pub fn element(&mut self, name: &str, index: usize) -> Option<Exact> {
        match name {
            _ if !self.plan.standardizes => None,
            "output" => self.output(index),
            "running_mean" => self.running(index, "running_mean", |group| Some(group.mean())),
            "running_var" => self.running(index, "running_var", |group| {
                let Plan { partition, .. } = self.plan;
                (partition.group_size() > 1).then(|| group.variance(1))
            }),
            _ => None,
        }
    }

    fn output(&mut self, index: usize) -> Option<Exact> {
        let partition = &self.plan.partition;
        let length = partition.run_length;
        let place = partition.place(index / length * length);
        let parameter = |name: &str| {
            let index = place.parameter + index % length * partition.parameter.element_step;
            self.tensors.get(name).map(|values| values[index])
        };
        let (weight, bias) = (parameter("weight"), parameter("bias"));
        let x = self.tensors["input"][index];
        let finite = [Some(x), weight, bias, Some(self.plan.eps)].into_iter().flatten().all(f64::is_finite);
        if !finite {
            return None;
        }
        let (plan, tensors) = (self.plan, self.tensors);
        let group =
            self.groups.entry(place.group).or_insert_with(|| statistics(plan, tensors, place.group)).as_ref()?;
        let scale = self.scales.entry(place.group).or_insert_with(|| group.scale(plan.eps));
        Some(group.element(scale.as_ref()?, x, weight, bias))
    }

    fn running(&self, channel: usize, name: &str, statistic: impl Fn(&ExactGroup) -> Option<Exact>) -> Option<Exact> {
        let old = self.tensors[name][channel];
        if !old.is_finite() {
            return None;
        }
        let Some(factor) = self.plan.update else { return Some(Exact::from_f64(old)) };
        // An average over samples is left to the radius.
        if self.plan.partition.outer > 1 {
            return None;
        }
        let group = from_input(self.plan, self.tensors, channel)?;
        match factor {
            Factor::OfNew(momentum) if momentum.is_finite() => Some(mix(old, &statistic(&group)?, momentum, 1)),
            Factor::Reciprocal(batches) if batches > 0 => Some(mix(old, &statistic(&group)?, 1.0, batches)),
            _ => None,
        }
    }
}

/// The statistics that normalize group `group`.
fn statistics(plan: &Plan, tensors: &Tensors<Vec<f64>>, group: usize) -> Option<ExactGroup> {
    match plan.source {
        Source::Input => from_input(plan, tensors, group),
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
