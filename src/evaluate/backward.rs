//! The backward pass, layout by layout.
//!
//! ```text
//! dx = a·r − r·mean a − t·r³·mean(a·t)      a = g·w      t = x − μ      the means over a group's elements
//! dw = Σ g·t·r      db = Σ g                over the elements that a parameter multiplies
//! ```
//! A group's sums first, then its gradients (Ioffe and Szegedy 2015, section 3, rearranged). Where a run has one weight,
//! the gradients of the parameters are made of the runs' sums, Σ g·y = r·Σ g·t. Where each element has its own they are
//! running sums over the samples, in [`PARTS`] parts that are added in their order.

use fearless_simd::Level;
use rayon::prelude::*;

use super::forward::{TASK, gather, nearest, pieces, scatter};
use super::kernels::{self, Coefficients, Columns, GradientSums};
use super::layout::{Affine, Layout, parameter_of_column};
use super::statistics::Statistics;
use crate::arithmetic::{DataType, DoubleDouble, Group, Line, Parameter, Reference};
use crate::operation::{Description, Plan, Rule, normalization};
use crate::tensor::Tensors;

/// Parts of the samples that have running sums of their own, at most.
const PARTS: usize = 64;

/// See [`super::backward`].
pub(super) fn backward(level: Level, plan: &Plan, tensors: &Tensors<&[f64]>) -> Tensors<Vec<f64>> {
    assert!(plan.standardizes, "only standardizing norms are evaluated");
    assert_eq!(
        plan.affine,
        crate::operation::Affine::PLAIN,
        "weight and bias go by these names, and the weight is no 1 + w"
    );
    let (input, seed) = (tensors["input"], tensors["grad_output.output"]);
    assert_eq!(input.len(), plan.outputs[0].1.iter().product::<usize>(), "the input has another length than the plan");
    assert_eq!(input.len(), seed.len(), "the gradient has another length than the output");
    let affine = Affine::of(plan, tensors);
    let pass = Pass { level, plan, input, seed, statistics: Statistics::of(level, plan, tensors), affine };
    let parameters = tensors.get("weight").or(tensors.get("bias")).map_or(0, |values| values.len());
    let mut grad_input = vec![0.0; input.len()];
    let sums = match Layout::of(&plan.partition) {
        _ if input.is_empty() => Some(vec![Parameters::ZERO; parameters]),
        Some(Layout::Contiguous) if pass.affine.has_columns() => pass.columns(parameters, &mut grad_input),
        Some(Layout::Contiguous) => pass.contiguous(parameters, &mut grad_input),
        Some(Layout::Interleaved) => pass.interleaved(&mut grad_input),
        Some(Layout::Bundled(width)) => pass.bundled(width, &mut grad_input),
        None => None,
    };
    let Some(sums) = sums else { return by_reference(plan, tensors) };
    let mut gradients = Tensors::from([("grad_input".to_owned(), grad_input)]);
    if tensors.contains_key("weight") {
        gradients.insert("grad_weight".into(), sums.iter().map(|sums| sums.weight.hi).collect());
    }
    if tensors.contains_key("bias") {
        gradients.insert("grad_bias".into(), sums.iter().map(|sums| sums.bias.hi).collect());
    }
    gradients
}

struct Pass<'a> {
    level: Level,
    plan: &'a Plan,
    input: &'a [f64],
    seed: &'a [f64],
    statistics: Statistics<'a>,
    affine: Affine<'a>,
}

/// The gradients of a weight and a bias.
#[derive(Clone, Copy, Debug)]
struct Parameters {
    weight: DoubleDouble,
    bias: DoubleDouble,
}

impl Parameters {
    const ZERO: Parameters = Parameters { weight: DoubleDouble::ZERO, bias: DoubleDouble::ZERO };

    fn of(sums: &GradientSums, line: &Line) -> Parameters {
        Parameters { weight: sums.along * line.inverse, bias: sums.gradient }
    }

    fn add(&mut self, other: &Parameters) {
        self.weight = self.weight + other.weight;
        self.bias = self.bias + other.bias;
    }
}

/// Each method returns `None` where the reference has to be asked.
impl Pass<'_> {
    fn contiguous(&self, parameters: usize, output: &mut [f64]) -> Option<Vec<Parameters>> {
        let partition = &self.plan.partition;
        let width = TASK.div_ceil(partition.group_size());
        let task = width * partition.group_size();
        let tasks = output.par_chunks_mut(task).zip(self.input.par_chunks(task)).zip(self.seed.par_chunks(task));
        let tasks = tasks.enumerate().map(|(task, ((output, x), g))| self.chunk(task * width, x, g, output));
        let tasks: Vec<Vec<Parameters>> = tasks.collect::<Option<_>>()?;
        let mut sums = vec![Parameters::ZERO; parameters];
        if parameters > 0 {
            let (runs, step) = (partition.group_size() / self.affine.run_length(), partition.parameter);
            for (index, run) in tasks.iter().flatten().enumerate() {
                let inner = index / runs % partition.inner;
                sums[inner * step.inner_step + index % runs * step.run_step].add(run);
            }
        }
        Some(sums)
    }

    fn interleaved(&self, output: &mut [f64]) -> Option<Vec<Parameters>> {
        let partition = &self.plan.partition;
        let runs = pieces(output, partition.inner * partition.run_length, partition.run_length);
        let group = |(channel, mut runs): (usize, Vec<&mut [f64]>)| {
            let [x, g] = [self.input, self.seed].map(|values| Group::new(values, partition.group(channel)));
            let line = self.line(x, channel)?;
            let sums = self.group(channel, &line, x, g, partition.run_length, &mut runs)?;
            let mut total = Parameters::ZERO;
            sums.iter().for_each(|sums| total.add(sums));
            Some(total)
        };
        runs.into_par_iter().enumerate().map(group).collect()
    }

    fn bundled(&self, width: usize, output: &mut [f64]) -> Option<Vec<Parameters>> {
        let partition = &self.plan.partition;
        let (length, size, sample) =
            (partition.run_length, partition.group_size(), partition.inner * partition.run_length);
        let bundles = pieces(output, sample, width * length);
        let bundle = |(bundle, mut pieces): (usize, Vec<&mut [f64]>)| {
            let (first, groups) = (bundle * width, pieces[0].len() / length);
            let [x, g] =
                [self.input, self.seed].map(|values| gather(values, first * length, sample, length, groups, size));
            let mut z = vec![0.0; x.len()];
            let sums = self.chunk(first, &x, &g, &mut z);
            scatter(&z, length, size, &mut pieces);
            sums
        };
        let bundles: Vec<Vec<Parameters>> = bundles.into_par_iter().enumerate().map(bundle).collect::<Option<_>>()?;
        Some(bundles.concat())
    }

    /// Each element of a sample has its own parameters.
    fn columns(&self, parameters: usize, output: &mut [f64]) -> Option<Vec<Parameters>> {
        let partition = &self.plan.partition;
        let (size, inner) = (partition.group_size(), partition.inner);
        let sample = inner * size;
        let part = partition.outer.div_ceil(PARTS) * sample;
        let parts = output.par_chunks_mut(part).zip(self.input.par_chunks(part)).zip(self.seed.par_chunks(part));
        let columns = parts.map(|((output, x), g)| {
            let mut columns = Columns::new(sample);
            let width = TASK.div_ceil(size) * size;
            let mut group = 0;
            for ((output, x), g) in output.chunks_mut(width).zip(x.chunks(width)).zip(g.chunks(width)) {
                let lines = self.lines(x, group)?;
                let groups = output.chunks_mut(size).zip(x.chunks(size)).zip(g.chunks(size)).zip(lines);
                for (((output, x), g), line) in groups {
                    let inner = group % inner;
                    let weight = self.affine.weight(inner, 0);
                    let columns = Some((&mut columns, inner * size));
                    let sums = kernels::gradient_sums(self.level, (x, g), &line, weight, columns);
                    let coefficients = self.coefficients(&sums, &line, size);
                    kernels::gradient(self.level, (x, g), &line, weight, &coefficients, output).then_some(())?;
                    group += 1;
                }
            }
            Some(columns)
        });
        let parts: Vec<Columns> = columns.collect::<Option<_>>()?;
        let mut total = Columns::new(sample);
        for part in &parts {
            kernels::add_columns(self.level, &mut total.weight, &part.weight);
            kernels::add_columns(self.level, &mut total.bias, &part.bias);
        }
        let mut sums = vec![Parameters::ZERO; parameters];
        let pair = |[hi, lo]: &[Vec<f64>; 2], column: usize| DoubleDouble { hi: hi[column], lo: lo[column] };
        for column in 0..sample {
            let gradients = Parameters { weight: pair(&total.weight, column), bias: pair(&total.bias, column) };
            sums[parameter_of_column(partition, column)].add(&gradients);
        }
        sums.iter().all(|sums| sums.weight.hi.is_finite() && sums.bias.hi.is_finite()).then_some(sums)
    }

    /// Neighbouring groups, of which `first` is the first, each one slice: the sums of each of their runs.
    fn chunk(&self, first: usize, x: &[f64], g: &[f64], output: &mut [f64]) -> Option<Vec<Parameters>> {
        let (size, length) = (self.plan.partition.group_size(), self.affine.run_length());
        let mut sums = Vec::with_capacity(x.len() / length);
        let groups = x.chunks(size).zip(g.chunks(size)).zip(output.chunks_mut(size)).zip(self.lines(x, first)?);
        for (group, (((x, g), output), line)) in groups.enumerate() {
            let (x, g) = (Group::contiguous(x), Group::contiguous(g));
            let mut runs: Vec<&mut [f64]> = output.chunks_mut(length).collect();
            sums.extend(self.group(first + group, &line, x, g, length, &mut runs)?);
        }
        Some(sums)
    }

    /// The maps of neighbouring groups, of which `first` is the first, each one slice.
    fn lines(&self, x: &[f64], first: usize) -> Option<Vec<Line>> {
        let groups = x.chunks(self.plan.partition.group_size()).enumerate();
        groups.map(|(group, x)| self.line(Group::contiguous(x), first + group)).collect()
    }

    fn line(&self, x: Group<'_, f64>, index: usize) -> Option<Line> {
        self.statistics.of_group(x, index).1.line(self.plan.centred)
    }

    /// The gradients of a group and the sums of each of its runs of `length` elements.
    fn group(
        &self,
        index: usize,
        line: &Line,
        x: Group<'_, f64>,
        g: Group<'_, f64>,
        length: usize,
        output: &mut [&mut [f64]],
    ) -> Option<Vec<Parameters>> {
        let inner = index % self.plan.partition.inner;
        let weight = |run: usize| match self.affine.weight(inner, run) {
            Some(Parameter::One(weight)) => weight,
            _ => 1.0,
        };
        let runs = || x.slices().zip(g.slices()).flat_map(|(x, g)| x.chunks(length).zip(g.chunks(length)));
        let mut total = GradientSums { gradient: DoubleDouble::ZERO, along: DoubleDouble::ZERO };
        let mut parameters = Vec::with_capacity(output.len());
        for (run, (x, g)) in runs().enumerate() {
            let sums = kernels::gradient_sums(self.level, (x, g), line, None, None);
            total.gradient = total.gradient + sums.gradient * weight(run);
            total.along = total.along + sums.along * weight(run);
            parameters.push(Parameters::of(&sums, line));
        }
        let coefficients = self.coefficients(&total, line, x.len());
        for (run, ((x, g), output)) in runs().zip(output).enumerate() {
            let slope = coefficients.slope * weight(run);
            let coefficients = Coefficients { slope, ..coefficients };
            kernels::gradient(self.level, (x, g), line, None, &coefficients, output).then_some(())?;
        }
        let finite = |sums: &Parameters| sums.weight.hi.is_finite() && sums.bias.hi.is_finite();
        parameters.iter().all(finite).then_some(parameters)
    }

    fn coefficients(&self, sums: &GradientSums, line: &Line, count: usize) -> Coefficients {
        let slope = line.inverse;
        if !self.statistics.are_of_input() {
            return Coefficients { slope, constant: DoubleDouble::ZERO, curve: DoubleDouble::ZERO };
        }
        let count = DoubleDouble::from(count as f64);
        let constant = if self.plan.centred { sums.gradient / count * slope } else { DoubleDouble::ZERO };
        Coefficients { slope, constant, curve: sums.along / count * (slope * slope * slope) }
    }
}

fn by_reference(plan: &Plan, tensors: &Tensors<&[f64]>) -> Tensors<Vec<f64>> {
    let owned = tensors.iter().map(|(name, values)| (name.clone(), values.to_vec())).collect();
    let shape = |values: &&[f64]| Description { dtype: DataType::F64, shape: vec![values.len()] };
    let shapes = tensors.iter().map(|(name, values)| (name.clone(), shape(values))).collect();
    let gradients = normalization::backward(&Reference, plan, &owned, &shapes, &Rule::default());
    gradients.into_iter().map(|(name, output)| (name, nearest(&output.values))).collect()
}
