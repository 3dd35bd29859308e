//! Batch group normalization (Zhou et al. 2020, arXiv 2012.00596): batch norm whose groups join neighbouring channels, so
//! that small batches have enough values.
//!
//! ```text
//! input: [N, C, *]    groups: the n = N·C/G·L values of C/G neighbouring channels in all samples
//! train  y = (x − μ_g)/√(v_g + eps)·w_c + b_c      running ← (1 − m)·running + m·(μ, v)      v biased
//! eval   y = (x − running_mean_g)/√(running_var_g + eps)·w_c + b_c        running_mean, running_var: [G]
//! ```
//! G = C is batch norm, G = 1 of one sample layer norm over all its values. The paper also cuts groups across positions of a
//! channel; here G divides C.

use serde::{Deserialize, Serialize};

use super::formula::{Evaluator, Formula, Layer, Named, affine, by_formula, instance, moved, sigma, sizes};
use super::values::check_shapes;
use super::{Call, Definition, Plan, Refusal, RefusalKind, Refused, Rule, Signature, Source, json_float};
use crate::arithmetic::Real;

/// Its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchGroupNorm {
    /// The number of groups G, a divisor of C.
    pub num_groups: usize,
    /// Added to the variance.
    #[serde(with = "json_float")]
    pub eps: f64,
    /// The weight of the new value.
    #[serde(with = "json_float")]
    pub momentum: f64,
}

const STATE: [&str; 2] = ["running_mean", "running_var"];

impl Definition for BatchGroupNorm {
    const NAME: &'static str = "batch_group_norm";

    fn signature(&self) -> Signature {
        Signature { required: &["input", "running_mean", "running_var"], state: &STATE, ..Signature::TRAINED }
    }

    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
        self.plan_groups(call, rule).map_err(Refused::uncounted)
    }

    by_formula!();
}

impl BatchGroupNorm {
    fn plan_groups(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refusal> {
        let layer = Layer::of(self.signature(), self.eps).but(&STATE).moving("running_mean", self.momentum);
        let plan = layer.plan(call, rule)?;
        let [_, channels, _] = sizes(&plan);
        let num_groups = self.num_groups;
        if num_groups == 0 || !channels.is_multiple_of(num_groups) {
            let message = format!("{channels} channels have no {num_groups} groups; expected a divisor");
            return Err(Refusal::new(RefusalKind::Shape, message));
        }
        check_shapes(call, &STATE, &[num_groups])?;
        Ok(plan)
    }
}

impl Formula for BatchGroupNorm {
    fn outputs<E: Evaluator>(&self, evaluator: &E, plan: &Plan, rule: &Rule) -> Vec<Named<E::Real>> {
        let mut y = evaluator.tensor("input");
        let [batch, channels, _] = sizes(plan);
        let (means, variances) = (evaluator.tensor("running_mean"), evaluator.tensor("running_var"));
        let per_group = channels / self.num_groups;
        let mut moments = Vec::new();
        for group in 0..self.num_groups {
            let own = group * per_group..(group + 1) * per_group;
            let of_sample = |sample| own.clone().flat_map(move |channel| instance(plan, sample, channel));
            let positions: Vec<usize> = (0..batch).flat_map(of_sample).collect();
            let (mean, variance) = evaluator.moments("input", &positions, true, rule.degrees_of_freedom);
            moments.push((mean, variance));
            let stored = plan.source == Source::Stored;
            let (mean, variance) = if stored { (means[group], variances[group]) } else { (mean, variance) };
            let divisor = sigma(evaluator, variance, plan, rule);
            for position in positions {
                y[position] = y[position].deviation(mean) / divisor;
            }
        }
        vec![
            affine(evaluator, plan, y),
            moved(evaluator, plan, "running_mean", &|group| moments[group].0),
            moved(evaluator, plan, "running_var", &|group| moments[group].1),
        ]
    }
}
