//! Members of families: cases that differ in one thing, each with its siblings that ask for gradients.

use super::{Call, Maker, short, trained};
use crate::arithmetic::DataType;
use crate::case::shaped::{Shaped, shaped};
use crate::case::values::Values;
use crate::case::{Flag, Layout};

/// What distinguishes one member of a family.
pub(super) struct Member<'a> {
    /// The end of the case's name.
    name: String,
    comment: &'a str,
    topics: &'a [Flag],
    /// The values that share statistics, group by group.
    groups: Vec<Vec<f64>>,
    split: usize,
    num_groups: usize,
    eps: f64,
    affine: Affine,
    layout: Layout,
    /// Whether the case has a sibling that asks for gradients.
    gradients: bool,
    /// Whether it has one that asks for gradients of gradients.
    double_backward: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Affine {
    None,
    Weight,
    Bias,
    Both,
}

impl<'a> Member<'a> {
    pub(super) fn new(
        label: String,
        name: &str,
        dtype: DataType,
        make: impl FnOnce(&mut Values) -> Vec<Vec<f64>>,
    ) -> Member<'a> {
        let name = format!("{name}-{}-{label}", short(dtype));
        let groups = make(&mut Values::named(&name));
        Member {
            name,
            comment: "",
            topics: &[],
            groups,
            split: 1,
            num_groups: 1,
            eps: 1e-5,
            affine: Affine::Both,
            layout: Layout::default(),
            gradients: true,
            double_backward: false,
        }
    }

    pub(super) fn comment(self, comment: &'a str) -> Member<'a> {
        Member { comment, ..self }
    }

    pub(super) fn topics(self, topics: &'a [Flag]) -> Member<'a> {
        Member { topics, ..self }
    }

    pub(super) fn split(self, split: usize, num_groups: usize) -> Member<'a> {
        Member { split, num_groups, ..self }
    }

    pub(super) fn eps(self, eps: f64) -> Member<'a> {
        Member { eps, ..self }
    }

    pub(super) fn affine(self, affine: Affine) -> Member<'a> {
        Member { affine, ..self }
    }

    pub(super) fn forward_only(self) -> Member<'a> {
        Member { gradients: false, ..self }
    }

    pub(super) fn twice(self, double_backward: bool) -> Member<'a> {
        Member { double_backward, ..self }
    }

    pub(super) fn layout(self, layout: Layout) -> Member<'a> {
        Member { layout, ..self }
    }

    fn shaped(&self, name: &str) -> Shaped {
        let split = if self.groups[0].len().is_multiple_of(self.split) { self.split } else { 1 };
        shaped(name, &self.groups, split, self.num_groups)
    }

    pub(super) fn add(self, maker: &mut Maker, name: &str, dtype: DataType) {
        let shaped = self.shaped(name);
        self.call(maker, name, dtype, dtype, shaped);
    }

    /// With parameters and statistics in F32.
    pub(super) fn mixed(self, maker: &mut Maker, name: &str, dtype: DataType) {
        let shaped = self.shaped(name);
        self.call(maker, name, dtype, DataType::F32, shaped);
    }

    /// With the spatial positions as an image, so that channels can be last.
    pub(super) fn images(self, maker: &mut Maker, name: &str, dtype: DataType) {
        let mut shaped = self.shaped(name);
        let &[first, second, length] = shaped.shape.as_slice() else { return };
        shaped.shape = vec![first, second, 2, length / 2];
        if !shaped.normalized_shape.is_empty() {
            shaped.normalized_shape = vec![second, 2, length / 2];
            shaped.parameters = shaped.normalized_shape.clone();
        }
        self.call(maker, name, dtype, dtype, shaped);
    }

    fn call(self, maker: &mut Maker, name: &str, dtype: DataType, parameters: DataType, shaped: Shaped) {
        let operation = shaped.operation(name, self.eps, Some(0.1));
        let mut values = Values::named(&format!("{} parameters", self.name));
        let mut call = Call::new(operation, dtype).parameters_in(parameters).layout(self.layout);
        let (weight, bias) = trained(&mut values, shaped.parameters.iter().product());
        if matches!(self.affine, Affine::Both | Affine::Weight) {
            call = call.parameter("weight", &shaped.parameters, weight);
        }
        if matches!(self.affine, Affine::Both | Affine::Bias) && name != "rms_norm" {
            call = call.parameter("bias", &shaped.parameters, bias);
        }
        if matches!(name, "batch_norm" | "sync_batch_norm" | "instance_norm") {
            call = call.fresh(shaped.parameters[0]).train();
        }
        let step = call.input(&shaped.shape, shaped.input).step();
        if self.gradients {
            maker.add_gradients(&self.name, self.comment, self.topics, &step);
        }
        if self.double_backward {
            maker.add_double_backward(&self.name, self.comment, self.topics, &step);
        }
        maker.add_step(self.name, self.comment, self.topics, step);
    }
}
