//! Layouts: how the groups of a partition lie in memory, and how their elements find weight and bias.
//!
//! | layout | groups | norms | a task |
//! | --- | --- | --- | --- |
//! | contiguous | each a chunk | layer, RMS, group, instance norm; batch norm of one sample | some chunks |
//! | interleaved | a long run in each sample | batch norm of images | a channel |
//! | bundled | a short run in each sample | batch norm of vectors | the channels of two cache lines, gathered |

use std::borrow::Cow;

use crate::arithmetic::Parameter;
use crate::operation::{ParameterIndex, Partition, Plan};
use crate::tensor::Tensors;

/// Runs shorter than this are not worth a call each.
const SHORT: usize = 64;
/// Elements of a sample that a task with short runs takes: two cache lines.
const BUNDLE: usize = 16;

/// How groups lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Group g is the chunk [g·n, (g + 1)·n).
    Contiguous,
    /// Groups take turns: a run of the first, of the second, …
    Interleaved,
    /// Likewise with short runs: so many neighbouring groups are gathered together.
    Bundled(usize),
}

impl Layout {
    /// The layout of a partition, if it is one of these.
    pub fn of(partition: &Partition) -> Option<Layout> {
        let Partition { outer, outer_stride, inner, inner_stride, runs, run_stride, run_length, parameter } =
            *partition;
        let size = partition.group_size();
        let neighbours = runs == 1 || run_stride == run_length;
        if neighbours && (inner == 1 || inner_stride == size) && (outer == 1 || outer_stride == inner * size) {
            return Some(Layout::Contiguous);
        }
        let take_turns = outer == 1 && inner_stride == run_length && run_stride == inner * run_length;
        let one_parameter = parameter.run_step == 0 && parameter.element_step == 0;
        match run_length {
            _ if !take_turns || !one_parameter => None,
            SHORT.. => Some(Layout::Interleaved),
            _ => Some(Layout::Bundled(BUNDLE.div_ceil(run_length))),
        }
    }
}

/// Weight and bias.
pub(super) struct Affine<'a> {
    size: usize,
    length: usize,
    index: ParameterIndex,
    weight: Option<Cow<'a, [f64]>>,
    bias: Option<Cow<'a, [f64]>>,
}

impl<'a> Affine<'a> {
    /// The parameters that were sent.
    pub fn of(plan: &Plan, tensors: &Tensors<&'a [f64]>) -> Affine<'a> {
        let Partition { inner, runs, run_length, parameter: index, .. } = plan.partition;
        let size = plan.partition.group_size();
        let tensor = |name: &str| tensors.get(name).copied();
        let (weight, bias) = (tensor("weight"), tensor("bias"));
        let of_group = index.element_step == 0 && (index.run_step == 0 || runs == 1);
        let affine = |length, expand: bool| {
            let expanded = |values: &'a [f64]| {
                let columns = (0..inner * size).map(|column| values[parameter_of_column(&plan.partition, column)]);
                if expand { Cow::Owned(columns.collect()) } else { Cow::Borrowed(values) }
            };
            Affine { size, length, index, weight: weight.map(expanded), bias: bias.map(expanded) }
        };
        match index.element_step {
            _ if of_group || weight.is_none() && bias.is_none() => affine(size, false),
            0 if run_length >= SHORT => affine(run_length, false),
            0 => Affine {
                index: ParameterIndex { inner_step: size, element_step: 1, ..ParameterIndex::default() },
                ..affine(size, true)
            },
            _ => affine(size, false),
        }
    }

    /// The elements of a run: all of them have one weight, or each has its own.
    pub fn run_length(&self) -> usize {
        self.length
    }

    /// Whether each element of a group has its own parameters.
    pub fn has_columns(&self) -> bool {
        self.index.element_step == 1 && (self.weight.is_some() || self.bias.is_some())
    }

    /// The weight of a run of a group.
    pub fn weight(&self, inner: usize, run: usize) -> Option<Parameter<'_, f64>> {
        self.weight.as_ref().map(|values| self.parameter(values, inner, run))
    }

    /// The bias of a run of a group.
    pub fn bias(&self, inner: usize, run: usize) -> Option<Parameter<'_, f64>> {
        self.bias.as_ref().map(|values| self.parameter(values, inner, run))
    }

    fn parameter<'b>(&self, values: &'b [f64], inner: usize, run: usize) -> Parameter<'b, f64> {
        let first = inner * self.index.inner_step + run * self.index.run_step;
        match self.index.element_step {
            0 => Parameter::One(values[first]),
            _ => Parameter::Each(&values[first..][..self.size]),
        }
    }
}

/// The index of the weight of a column: of an element of a sample with contiguous groups.
pub(super) fn parameter_of_column(partition: &Partition, column: usize) -> usize {
    let (inner, element) = (column / partition.group_size(), column % partition.group_size());
    let (run, k) = (element / partition.run_length, element % partition.run_length);
    let step = partition.parameter;
    inner * step.inner_step + run * step.run_step + k * step.element_step
}
