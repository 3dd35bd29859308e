//! The backward pass, layout by layout.
//!
//! A group's sums first, then its gradients. The gradients of the parameters are sums over groups. Where a run has one
//! weight they are made of the runs' sums, Σ g·y = r·Σ g·t. Where each element has its own they are running sums over the
//! samples, in [`PARTS`] parts that are added in their order.

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
        let size = self.plan.partition.group_size();
        let chunks = output.par_chunks_mut(size).zip(self.input.par_chunks(size)).zip(self.seed.par_chunks(size));
        let chunks = chunks.enumerate().with_min_len(TASK.div_ceil(size));
        let group =
            |(group, ((output, x), g)): (usize, ((&mut [f64], &[f64]), &[f64]))| self.chunk(group, x, g, output);
        if parameters == 0 {
            return chunks.all(|chunk| group(chunk).is_some()).then(Vec::new);
        }
        let groups: Vec<Vec<Parameters>> = chunks.map(group).collect::<Option<_>>()?;
        let mut sums = vec![Parameters::ZERO; parameters];
        let step = self.plan.partition.parameter;
        for (group, runs) in groups.iter().enumerate() {
            for (run, gradients) in runs.iter().enumerate() {
                sums[group % self.plan.partition.inner * step.inner_step + run * step.run_step].add(gradients);
            }
        }
        Some(sums)
    }

    fn interleaved(&self, output: &mut [f64]) -> Option<Vec<Parameters>> {
        let partition = &self.plan.partition;
        let runs = pieces(output, partition.inner * partition.run_length, partition.run_length);
        let group = |(channel, mut runs): (usize, Vec<&mut [f64]>)| {
            let [x, g] = [self.input, self.seed].map(|values| Group::new(values, partition.group(channel)));
            let sums = self.group(channel, x, g, partition.run_length, &mut runs)?;
            Some(sums.into_iter().fold(Parameters::ZERO, |mut total, sums| {
                total.add(&sums);
                total
            }))
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
            let chunks = x.chunks(size).zip(g.chunks(size)).zip(z.chunks_mut(size)).enumerate();
            let sums: Option<Vec<_>> =
                chunks.map(|(group, ((x, g), z))| Some(self.chunk(first + group, x, g, z)?[0])).collect();
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
            let groups = output.chunks_mut(size).zip(x.chunks(size)).zip(g.chunks(size));
            for (group, ((output, x), g)) in groups.enumerate() {
                let inner = group % inner;
                let line = self.statistics.of_group(Group::contiguous(x), inner).1.line(self.plan.centred)?;
                let weight = self.affine.weight(inner, 0);
                let columns = Some((&mut columns, inner * size));
                let sums = kernels::gradient_sums(self.level, (x, g), &line, weight, columns);
                let coefficients = self.coefficients(&sums, &line, size);
                kernels::gradient(self.level, (x, g), &line, weight, &coefficients, output).then_some(())?;
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

    /// A group that is one slice.
    fn chunk(&self, group: usize, x: &[f64], g: &[f64], output: &mut [f64]) -> Option<Vec<Parameters>> {
        let length = self.affine.run_length();
        let mut runs: Vec<&mut [f64]> = output.chunks_mut(length).collect();
        self.group(group, Group::contiguous(x), Group::contiguous(g), length, &mut runs)
    }

    /// The gradients of a group and the sums of each of its runs of `length` elements.
    fn group(
        &self,
        index: usize,
        x: Group<'_, f64>,
        g: Group<'_, f64>,
        length: usize,
        output: &mut [&mut [f64]],
    ) -> Option<Vec<Parameters>> {
        let line = self.statistics.of_group(x, index).1.line(self.plan.centred)?;
        let inner = index % self.plan.partition.inner;
        let weight = |run: usize| match self.affine.weight(inner, run) {
            Some(Parameter::One(weight)) => weight,
            _ => 1.0,
        };
        let runs = || x.slices().zip(g.slices()).flat_map(|(x, g)| x.chunks(length).zip(g.chunks(length)));
        let mut total = GradientSums { gradient: DoubleDouble::ZERO, along: DoubleDouble::ZERO };
        let mut parameters = Vec::with_capacity(output.len());
        for (run, (x, g)) in runs().enumerate() {
            let sums = kernels::gradient_sums(self.level, (x, g), &line, None, None);
            total.gradient = total.gradient + sums.gradient * weight(run);
            total.along = total.along + sums.along * weight(run);
            parameters.push(Parameters::of(&sums, &line));
        }
        let coefficients = self.coefficients(&total, &line, x.len());
        for (run, ((x, g), output)) in runs().zip(output).enumerate() {
            let slope = coefficients.slope * weight(run);
            let coefficients = Coefficients { slope, ..coefficients };
            kernels::gradient(self.level, (x, g), &line, None, &coefficients, output).then_some(())?;
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
