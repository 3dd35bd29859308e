//! The statistics of groups: the input's own, or the stored ones, `running_mean` and `running_var`, one of each channel.

use fearless_simd::Level;

use crate::arithmetic::{Arithmetic, Group, Reference, ReferenceMoments, ReferenceScaling, Scale};
use crate::operation::{Plan, Rule, Source};
use crate::tensor::Tensors;

/// Where the statistics of groups come from.
pub(super) struct Statistics<'a> {
    level: Level,
    scale: Scale,
    centred: bool,
    inner: usize,
    stored: Option<(&'a [f64], &'a [f64])>,
}

impl<'a> Statistics<'a> {
    /// Those of a call.
    pub fn of(level: Level, plan: &Plan, tensors: &Tensors<&'a [f64]>) -> Statistics<'a> {
        let stored = (plan.source == Source::Stored).then(|| (tensors["running_mean"], tensors["running_var"]));
        let (scale, inner) = (Rule::default().scale(plan.eps), plan.partition.inner);
        Statistics { level, scale, centred: plan.centred, inner, stored }
    }

    /// Whether they depend on the input.
    pub fn are_of_input(&self) -> bool {
        self.stored.is_none()
    }

    /// The moments of a group, if they are the input's, and the map of its elements.
    pub fn of_group(&self, group: Group<'_, f64>, index: usize) -> (Option<ReferenceMoments>, ReferenceScaling) {
        match self.stored {
            None => {
                let moments = Reference.moments_at(self.level, group, self.centred);
                (Some(moments), Reference.scaling(&moments, &self.scale))
            }
            Some((mean, variance)) => {
                let channel = index % self.inner;
                (None, Reference.scaling(&Reference.stored(mean[channel], variance[channel]), &self.scale))
            }
        }
    }
}
