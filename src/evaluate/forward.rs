//! The forward pass, layout by layout: the statistics of some groups, then their outputs while they are in a cache.
//!
//! ```text
//! z = w·((x − p) − δ)·r + b      input, output: as the plan's partition says; one task: groups of about TASK elements
//! ```

use fearless_simd::Level;
use rayon::prelude::*;

use super::kernels;
use super::layout::{Affine, Layout};
use super::statistics::Statistics;
use crate::arithmetic::{Arithmetic, Group, Line, Parameter, Reference, ReferenceMoments, ReferenceScaling, Truth};
use crate::operation::{Output, Outputs, Plan, Rule, normalization};
use crate::tensor::Tensors;

/// Elements that are worth a task of their own.
pub(super) const TASK: usize = 8192;

/// See [`super::forward`].
pub(super) fn forward(level: Level, plan: &Plan, tensors: &Tensors<&[f64]>) -> Outputs<f64> {
    assert!(plan.standardizes, "only standardizing norms are evaluated");
    assert_eq!(
        plan.affine,
        crate::operation::Affine::PLAIN,
        "weight and bias go by these names, and the weight is no 1 + w"
    );
    let input = tensors["input"];
    let shape = plan.outputs[0].1.clone();
    assert_eq!(input.len(), shape.iter().product::<usize>(), "the input has another length than the plan");
    let pass = Pass {
        level,
        plan,
        input,
        statistics: Statistics::of(level, plan, tensors),
        affine: Affine::of(plan, tensors),
    };
    let mut values = vec![0.0; input.len()];
    let moments = match Layout::of(&plan.partition) {
        _ if input.is_empty() => Vec::new(),
        Some(Layout::Contiguous) => pass.contiguous(&mut values),
        Some(Layout::Interleaved) => pass.interleaved(&mut values),
        Some(Layout::Bundled(width)) => pass.bundled(width, &mut values),
        None => return by_reference(plan, tensors),
    };
    let mut outputs = Tensors::from([("output".to_owned(), Output { shape, values })]);
    if plan.running {
        let (mean, variance) = (tensors["running_mean"], tensors["running_var"]);
        let moved = normalization::moved(&Reference, plan, &moments, mean, variance, &Rule::default());
        for (name, truths) in [("running_mean", moved.0), ("running_var", moved.1)] {
            outputs.insert(name.to_owned(), Output { shape: vec![truths.len()], values: nearest(&truths) });
        }
    }
    Outputs { tensors: outputs, num_batches_tracked: plan.num_batches_tracked }
}

struct Pass<'a> {
    level: Level,
    plan: &'a Plan,
    input: &'a [f64],
    statistics: Statistics<'a>,
    affine: Affine<'a>,
}

impl Pass<'_> {
    fn contiguous(&self, output: &mut [f64]) -> Vec<ReferenceMoments> {
        let size = self.plan.partition.group_size();
        let width = TASK.div_ceil(size);
        let tasks = output.par_chunks_mut(width * size).zip(self.input.par_chunks(width * size)).enumerate();
        let task = |(task, (output, x)): (usize, (&mut [f64], &[f64]))| self.chunk(task * width, x, output);
        match self.plan.update {
            // No need to keep them all.
            None => {
                tasks.for_each(|slices| drop(task(slices)));
                Vec::new()
            }
            Some(_) => tasks.flat_map_iter(task).collect(),
        }
    }

    fn interleaved(&self, output: &mut [f64]) -> Vec<ReferenceMoments> {
        let partition = &self.plan.partition;
        let runs = pieces(output, partition.inner * partition.run_length, partition.run_length);
        let group = |(channel, runs): (usize, Vec<&mut [f64]>)| {
            let group = Group::new(self.input, partition.group(channel));
            let (moments, scaling) = self.statistics.of_group(group, channel);
            let line = scaling.line(self.plan.centred);
            let (weight, bias) = (self.affine.weight(channel, 0), self.affine.bias(channel, 0));
            for (x, output) in group.slices().zip(runs) {
                self.run(x, &scaling, line, weight, bias, output);
            }
            moments
        };
        runs.into_par_iter().enumerate().filter_map(group).collect()
    }

    fn bundled(&self, width: usize, output: &mut [f64]) -> Vec<ReferenceMoments> {
        let partition = &self.plan.partition;
        let (length, size) = (partition.run_length, partition.group_size());
        let bundles = pieces(output, partition.inner * length, width * length);
        let bundle = |(bundle, mut pieces): (usize, Vec<&mut [f64]>)| {
            let first = bundle * width;
            let x =
                gather(self.input, first * length, partition.inner * length, length, pieces[0].len() / length, size);
            let mut z = vec![0.0; x.len()];
            let moments = self.chunk(first, &x, &mut z);
            scatter(&z, length, size, &mut pieces);
            moments
        };
        bundles.into_par_iter().enumerate().flat_map_iter(bundle).collect()
    }

    /// Neighbouring groups, of which `first` is the first, each one slice. Their statistics first: a stream of one kind
    /// is what the hardware reads ahead of.
    fn chunk(&self, first: usize, x: &[f64], output: &mut [f64]) -> Vec<ReferenceMoments> {
        let (size, inner) = (self.plan.partition.group_size(), self.plan.partition.inner);
        let of_group = |(group, x)| self.statistics.of_group(Group::contiguous(x), first + group);
        let (moments, scalings): (Vec<_>, Vec<_>) = x.chunks(size).enumerate().map(of_group).unzip();
        let length = self.affine.run_length();
        for (group, (x, output)) in x.chunks(size).zip(output.chunks_mut(size)).enumerate() {
            let (scaling, inner) = (&scalings[group], (first + group) % inner);
            let line = scaling.line(self.plan.centred);
            for (run, (x, output)) in x.chunks(length).zip(output.chunks_mut(length)).enumerate() {
                let (weight, bias) = (self.affine.weight(inner, run), self.affine.bias(inner, run));
                self.run(x, scaling, line, weight, bias, output);
            }
        }
        moments.into_iter().flatten().collect()
    }

    fn run(
        &self,
        x: &[f64],
        scaling: &ReferenceScaling,
        line: Option<Line>,
        weight: Option<Parameter<'_, f64>>,
        bias: Option<Parameter<'_, f64>>,
        output: &mut [f64],
    ) {
        let usual = line.is_some_and(|line| kernels::rescale(self.level, x, &line, weight, bias, output));
        if !usual {
            let mut truths = vec![Truth::exact(0.0); x.len()];
            Reference.rescale(x, scaling, weight, bias, &mut truths);
            output.copy_from_slice(&nearest(&truths));
        }
    }
}

/// The pieces of `width` of each of the samples of `values`: those of the first place, of the second, …
pub(super) fn pieces(values: &mut [f64], sample: usize, width: usize) -> Vec<Vec<&mut [f64]>> {
    let samples = values.len() / sample;
    let mut pieces: Vec<Vec<&mut [f64]>> = Vec::new();
    pieces.resize_with(sample.div_ceil(width), || Vec::with_capacity(samples));
    for sample in values.chunks_mut(sample) {
        for (places, piece) in pieces.iter_mut().zip(sample.chunks_mut(width)) {
            places.push(piece);
        }
    }
    pieces
}

/// `groups` neighbouring groups of `size` elements in runs of `length`, one run a sample, each group made contiguous.
pub(super) fn gather(
    values: &[f64],
    first: usize,
    sample: usize,
    length: usize,
    groups: usize,
    size: usize,
) -> Vec<f64> {
    let mut gathered = vec![0.0; groups * size];
    for (index, sample) in values.chunks(sample).enumerate() {
        for (group, run) in sample[first..][..groups * length].chunks(length).enumerate() {
            for (to, &from) in gathered[group * size + index * length..].iter_mut().zip(run) {
                *to = from;
            }
        }
    }
    gathered
}

/// The other way: one piece for each sample.
pub(super) fn scatter(gathered: &[f64], length: usize, size: usize, pieces: &mut [&mut [f64]]) {
    for (index, piece) in pieces.iter_mut().enumerate() {
        for (group, run) in piece.chunks_mut(length).enumerate() {
            for (to, &from) in run.iter_mut().zip(&gathered[group * size + index * length..]) {
                *to = from;
            }
        }
    }
}

pub(super) fn nearest(truths: &[Truth]) -> Vec<f64> {
    truths.iter().map(|truth| truth.value.hi).collect()
}

fn by_reference(plan: &Plan, tensors: &Tensors<&[f64]>) -> Outputs<f64> {
    let owned = tensors.iter().map(|(name, values)| (name.clone(), values.to_vec())).collect();
    let outputs = normalization::forward(&Reference, plan, &owned, &Rule::default());
    let output = |(name, output): (String, Output<Truth>)| {
        (name, Output { shape: output.shape, values: nearest(&output.values) })
    };
    Outputs {
        tensors: outputs.tensors.into_iter().map(output).collect(),
        num_batches_tracked: outputs.num_batches_tracked,
    }
}
