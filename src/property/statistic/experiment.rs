//! What the statistics ask: each experiment is one case, with many independent groups of normal values in few large
//! requests.

use super::gaussian::Gaussian;
use crate::arithmetic::DataType;
use crate::case::shaped::{Shaped, shaped};
use crate::case::{Case, Flag, Layout, Level, Request, Step};
use crate::operation::{BATCH, Mode};
use crate::subject::{CaseRun, Fault};
use crate::tensor::{Tensor, Tensors};

/// The values of a group, n.
pub(super) const SIZE: usize = 4;
/// An eps that shows, beside a variance of 1.
pub(super) const EPS: f64 = 0.5;
/// The larger variance of two.
pub(super) const LARGER: f64 = 16.0;
/// The momentum of a run of several steps.
pub(super) const MOMENTUM: f64 = 0.25;
/// Its steps.
pub(super) const STEPS: usize = 8;
/// The steps of a cumulative average.
pub(super) const CUMULATIVE_STEPS: usize = 4;
/// The running mean and variance before the first step.
pub(super) const INITIAL: (f64, f64) = (3.0, 3.0);
/// The values' mean and variance in a run of several steps.
pub(super) const MEAN: f64 = 1.0;
pub(super) const VARIANCE: f64 = 2.25;
/// Where samples differ: the variance within one, w, and between them, τ².
pub(super) const WITHIN: f64 = 1.0;
pub(super) const BETWEEN: f64 = 4.0;

/// Samples of an instance norm: its running statistics average over them.
pub(super) const INSTANCES: usize = 2;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Experiment {
    /// Groups of normal values, eps next to nothing.
    Standardize,
    /// Groups of normal values with variance 1, and an eps that shows.
    ShowEps,
    /// One step with momentum 1; every other channel has the larger variance.
    OneStep,
    /// Several steps.
    Steps,
    /// Several steps of the cumulative average.
    Cumulative,
    /// One step with momentum 1 on two samples that differ, four values each.
    TwoSamples,
    /// The same with one sample of eight values.
    OneSample,
}

impl Experiment {
    /// The experiment's part of a case name.
    fn name(self) -> &'static str {
        match self {
            Experiment::Standardize => "standardize",
            Experiment::ShowEps => "show_eps",
            Experiment::OneStep => "one_step",
            Experiment::Steps => "steps",
            Experiment::Cumulative => "cumulative",
            Experiment::TwoSamples => "two_samples",
            Experiment::OneSample => "one_sample",
        }
    }

    /// Samples and values a sample, where samples differ.
    pub(super) fn samples(self) -> (usize, usize) {
        if self == Experiment::OneSample { (1, 8) } else { (2, 4) }
    }

    /// The experiment as a case for `operation`, with `count` groups (channels, for running statistics).
    pub(super) fn case(self, operation: &str, dtype: DataType, count: usize, seed: u64) -> Case {
        let name = format!("statistic-{}-{operation}-{}", self.name(), dtype.name().to_lowercase());
        let mut source = Gaussian::new(&name, seed);
        let steps = match self {
            Experiment::Standardize | Experiment::ShowEps => {
                // RMS norm does not centre. Other means are mild, so that a one-pass variance is right as well.
                let mean = if operation == "rms_norm" { 0.0 } else { 1.0 };
                let mean = if self == Experiment::ShowEps { 0.0 } else { mean };
                let groups = (0..count).map(|_| source.take(SIZE, mean, 1.0)).collect();
                let eps = if self == Experiment::ShowEps { EPS } else { 1e-12 };
                vec![step(operation, dtype, groups, eps, None, Some(0.1))]
            }
            Experiment::OneStep => {
                let deviation = |group: usize| if group.is_multiple_of(2) { 1.0 } else { LARGER.sqrt() };
                let groups = (0..count * samples_of(operation)).map(|group| source.take(SIZE, 0.0, deviation(group)));
                vec![step(operation, dtype, groups.collect(), EPS, Some(count), Some(1.0))]
            }
            Experiment::Steps | Experiment::Cumulative => {
                let (steps, momentum) =
                    if self == Experiment::Steps { (STEPS, Some(MOMENTUM)) } else { (CUMULATIVE_STEPS, None) };
                let mut next = || {
                    let groups = (0..count * samples_of(operation)).map(|_| source.take(SIZE, MEAN, VARIANCE.sqrt()));
                    step(operation, dtype, groups.collect(), 1e-5, Some(count), momentum)
                };
                (0..steps).map(|_| next()).collect()
            }
            Experiment::TwoSamples | Experiment::OneSample => {
                let (samples, length) = self.samples();
                let mut sample = || {
                    let shift = BETWEEN.sqrt() * source.next();
                    source.take(length, shift, WITHIN.sqrt())
                };
                let groups = (0..count).map(|_| (0..samples).flat_map(|_| sample()).collect()).collect();
                vec![differing(operation, dtype, groups, count, samples)]
            }
        };
        Case { name, comment: String::new(), level: Level::Required, flags: Vec::<Flag>::new(), steps }
    }
}

/// How many groups of an operation share one running statistic.
pub(super) fn samples_of(operation: &str) -> usize {
    if operation == "instance_norm" { INSTANCES } else { 1 }
}

/// One call on groups of [`SIZE`] values, with running statistics for `channels` if that is given.
fn step(
    operation: &str,
    dtype: DataType,
    groups: Vec<Vec<f64>>,
    eps: f64,
    channels: Option<usize>,
    momentum: Option<f64>,
) -> Step {
    // A group spans two samples, or two channels of a group norm.
    let split = if operation == "layer_norm" || operation == "rms_norm" { 1 } else { 2 };
    let num_groups = match operation {
        "instance_norm" => channels.unwrap_or(groups.len() / INSTANCES),
        "group_norm" => 2,
        _ => 1,
    };
    call(operation, dtype, shaped(operation, &groups, split, num_groups), eps, channels, momentum)
}

fn differing(operation: &str, dtype: DataType, groups: Vec<Vec<f64>>, channels: usize, samples: usize) -> Step {
    call(operation, dtype, shaped(operation, &groups, samples, 1), 1e-5, Some(channels), Some(1.0))
}

fn call(
    operation: &str,
    dtype: DataType,
    shaped: Shaped,
    eps: f64,
    channels: Option<usize>,
    momentum: Option<f64>,
) -> Step {
    let definition = shaped.operation(operation, eps, momentum);
    let mut tensors = Tensors::new();
    if let Some(channels) = channels {
        let mut insert = |name: &str, value: f64| {
            tensors.insert(name.to_owned(), Tensor::rounded(dtype, &[channels], vec![value; channels]));
        };
        insert("running_mean", INITIAL.0);
        insert("running_var", INITIAL.1);
        tensors.insert("num_batches_tracked".to_owned(), Tensor::counter(0));
    }
    let mode = if definition.signature().modes { Mode::Train } else { Mode::Eval };
    tensors.insert("input".to_owned(), Tensor::rounded(dtype, &shaped.shape, shaped.input));
    Step { operation: definition, mode, layout: Layout::default(), gradients: false, double_backward: false, tensors }
}

/// A tensor of the last answer of a run.
///
/// # Errors
/// What there is instead.
pub(super) fn last<'a>(run: &'a CaseRun, steps: usize, tensor: &str) -> Result<&'a Tensor, Missing> {
    use crate::case::Answer;
    let (_, answer): &(Request, Result<Answer, Fault>) = run.steps.last().expect("a case has a step");
    match answer {
        Err(fault) => Err(Missing::Fault(fault.clone())),
        Ok(Answer::Unsupported(why)) => Err(Missing::Said(format!("it says that it cannot do it: {why}"))),
        Ok(Answer::Refused { refusal, .. }) => Err(Missing::Said(format!("it refuses: {}", refusal.message))),
        Ok(Answer::Tensors(_)) if run.steps.len() < steps => Err(Missing::Said("it did not answer every step".into())),
        Ok(answer) => answer.get(tensor).ok_or_else(|| Missing::Said(format!("its answer has no {tensor}"))),
    }
}

/// Why there is nothing to measure.
pub(super) enum Missing {
    /// There is no answer.
    Fault(Fault),
    /// There is another answer.
    Said(String),
}

/// The groups of an output, each with [`SIZE`] values.
pub(super) fn groups(operation: &str, output: &Tensor) -> Vec<Vec<f64>> {
    let values: Vec<f64> = output.to_f64().iter().copied().collect();
    if !BATCH.contains(&operation) {
        return values.chunks_exact(SIZE).map(<[f64]>::to_vec).collect();
    }
    let &[samples, channels, length] = output.shape() else { return Vec::new() };
    let place = |sample: usize, channel: usize| (sample * channels + channel) * length;
    let group = |channel| (0..samples).flat_map(|n| values[place(n, channel)..][..length].to_vec()).collect();
    (0..channels).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of four values, but where a sample has eight; what shares a running statistic is spread over samples.
    #[test]
    fn the_groups_lie_as_each_operation_has_them() {
        let shape = |experiment: Experiment, operation: &str| {
            let case = experiment.case(operation, DataType::F64, 6, 0);
            case.steps[0].tensors["input"].shape().to_vec()
        };
        for (experiment, operation, expected) in [
            (Experiment::OneSample, "batch_norm", &[1, 6, 8][..]),
            (Experiment::TwoSamples, "batch_norm", &[2, 6, 4]),
            (Experiment::OneStep, "batch_norm", &[2, 6, 2]),
            (Experiment::OneStep, "instance_norm", &[2, 6, 4]),
            (Experiment::Standardize, "layer_norm", &[6, 4]),
            (Experiment::Standardize, "rms_norm", &[6, 4]),
            (Experiment::Standardize, "group_norm", &[3, 4, 2]),
        ] {
            assert_eq!(shape(experiment, operation), expected, "{experiment:?} for {operation}");
        }
    }

    #[test]
    fn what_is_drawn_depends_on_the_experiment_the_operation_and_the_seed() {
        let input = |experiment: Experiment, operation: &str, seed: u64| {
            experiment.case(operation, DataType::F64, 6, seed).steps[0].tensors["input"].get(0)
        };
        let first = input(Experiment::OneStep, "batch_norm", 0);
        assert_eq!(first, input(Experiment::OneStep, "batch_norm", 0));
        assert_ne!(first, input(Experiment::OneStep, "batch_norm", 1));
        assert_ne!(first, input(Experiment::OneStep, "sync_batch_norm", 0));
        // They differ by more than their means, 1 and 0.
        assert_ne!(input(Experiment::Standardize, "layer_norm", 0), 1.0 + input(Experiment::ShowEps, "layer_norm", 0));
    }
}
