//! Running statistics: every way in which frameworks keep them, and read them in evaluation.
//!
//! ```text
//! s: the batch's mean, or its variance      α: the weight of the new value, d = 1 − α the decay      t: batches, this one included
//! exponential        r ← (1 − α)·r + α·s                                           read r
//! debiased           h ← d·h + (1 − d)·s     r ← h/(1 − dᵗ)                        read r
//! debiased when read r ← d·r + (1 − d)·s                                           read r/(1 − dᵗ), r where t = 0
//! first replaces     r ← s where t = 1, else d·r + (1 − d)·s                       read r, in training too
//! unnormalized       A ← d·A + s             S ← d·S + 1                           read A/S, 0 where S = 0
//! ```
//! The debiased averages are Adam's (Kingma and Ba 2015, algorithm 1): an average that starts at 0 has gathered the weight
//! 1 − dᵗ. The unnormalized one is the same number otherwise written, A = h/(1 − d) and S = (1 − dᵗ)/(1 − d). Each
//! statistic is a vector [C]; h is `hidden_mean` and `hidden_var`, A is in `running_mean` and `running_var`, S is
//! `scale_factor` [1]. Sources: the dialects that keep them so, in `dialect.rs`.

use super::{Call, Partition, Plan, Refusal, RefusalKind, Rule};
use crate::arithmetic::{Arithmetic, Factor, Group, Real, bessel};

/// How running statistics are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Average {
    /// r ← (1 − α)·r + α·s.
    #[default]
    Exponential,
    /// h likewise, from 0, and r ← h/(1 − dᵗ): Haiku.
    Debiased,
    /// Exponential, and evaluation reads r/(1 − dᵗ): Equinox, mode "batch".
    DebiasedWhenRead,
    /// Exponential, but the first batch replaces r: Equinox, mode "ema".
    FirstReplaces,
    /// A ← d·A + s and S ← d·S + 1, and evaluation reads A/S: Caffe.
    Unnormalized,
}

/// How a call keeps running statistics: what of its rule and its hyper-parameters they need.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Keeping {
    /// The kind of average.
    pub average: Average,
    /// d, where the average needs it.
    pub decay: f64,
    /// t.
    pub batches: i64,
    /// The variance is divided by n − this.
    pub degrees_of_freedom: u8,
    /// Of one value it is divided by n.
    pub guarded: bool,
}

impl Keeping {
    /// The running statistics of `rule`, moved with the momentum `momentum` for the `batches`-th time.
    pub(super) fn of(rule: &Rule, momentum: Option<f64>, batches: Option<i64>) -> Keeping {
        Keeping {
            average: rule.average,
            decay: momentum.unwrap_or(0.0),
            batches: batches.unwrap_or(0).wrapping_add(rule.debias_offset),
            degrees_of_freedom: u8::from(!rule.running_biased),
            guarded: rule.bessel_guarded,
        }
    }

    /// Whether evaluation normalizes with `running_mean` and `running_var` as they are.
    pub fn reads_as_stored(&self) -> bool {
        !matches!(self.average, Average::DebiasedWhenRead | Average::Unnormalized)
    }

    /// The divisor of the variance of `count` values is `count` less this.
    fn degrees_of_freedom_of(&self, count: usize) -> u8 {
        if self.guarded && count == 1 { 0 } else { self.degrees_of_freedom }
    }
}

/// The running statistics that there can be, but for the counter.
pub(super) const STATE: [&str; 5] = ["running_mean", "running_var", "hidden_mean", "hidden_var", "scale_factor"];

/// Whether both running statistics were sent.
///
/// # Errors
/// If one of them is missing.
pub(super) fn both_running(call: &Call<'_>) -> Result<bool, Refusal> {
    match (call.has("running_mean"), call.has("running_var")) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        _ => {
            let message = "one of running_mean and running_var is missing; send both or neither";
            Err(Refusal::new(RefusalKind::Parameter, message))
        }
    }
}

/// The tensors of a call by name.
type State<'a, I> = dyn Fn(&str) -> Option<&'a [I]> + 'a;

/// The running statistics by name, after a call whose groups have the moments `current`.
pub(crate) fn moved<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    current: &[A::Moments],
    state: &State<'_, A::Input>,
    rule: &Rule,
) -> Vec<(&'static str, Vec<A::Real>)> {
    let keep = |name: &str| state(name).map(|old| old.iter().map(|&x| arithmetic.keep(x)).collect::<Vec<_>>());
    let mut moved: Vec<_> = STATE.into_iter().filter_map(|name| Some((name, keep(name)?))).collect();
    let Some(factor) = plan.update.filter(|_| !current.is_empty()) else { return moved };

    let Keeping { average, decay, batches, .. } = plan.keeping;
    let count = plan.partition.group_size();
    let variance_of = |m| match plan.bessel_values {
        None => arithmetic.variance(m, plan.keeping.degrees_of_freedom_of(count)),
        Some(values) => arithmetic.variance(m, 0) * A::Real::constant(bessel(values, 1)),
    };
    let quantity = |m| arithmetic.running_quantity(variance_of(m), rule.running, plan.eps);
    let means: Vec<_> = current.iter().map(|m| arithmetic.mean(m)).collect();
    let variances: Vec<_> = current.iter().map(quantity).collect();
    let mut set = |name: &str, values: Vec<A::Real>| {
        if let Some(entry) = moved.iter_mut().find(|entry| entry.0 == name) {
            entry.1 = values;
        }
    };
    let decayed = |old: A::Input| arithmetic.keep(old) * arithmetic.parameter(decay).beside(arithmetic.keep(old));
    for (running, hidden, batch) in [("running_mean", "hidden_mean", &means), ("running_var", "hidden_var", &variances)]
    {
        let Some(kept) = state(if average == Average::Debiased { hidden } else { running }) else { continue };
        let of_batch = |channel| over_samples(batch, channel, &plan.partition);
        let mixed = kept.iter().enumerate().map(|(channel, &old)| match average {
            Average::FirstReplaces if batches == 1 => of_batch(channel),
            Average::Unnormalized => decayed(old) + of_batch(channel),
            _ => arithmetic.mix(old, of_batch(channel), factor),
        });
        let mixed: Vec<A::Real> = mixed.collect();
        if average == Average::Debiased {
            let divisor = gathered(arithmetic, decay, batches, of_batch(0));
            set(running, mixed.iter().map(|&hidden| hidden * divisor).collect());
            set(hidden, mixed);
        } else {
            set(running, mixed);
        }
    }
    if let Some(&[old]) = state("scale_factor").filter(|_| average == Average::Unnormalized) {
        set("scale_factor", vec![decayed(old) + A::Real::constant(1.0)]);
    }
    moved
}

/// The statistics that evaluation normalizes channel `channel` with.
pub(super) fn read<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    state: &State<'_, A::Input>,
    channel: usize,
) -> A::Moments {
    let stored = |name: &str| state(name).map(|values| values[channel]).expect("the plan has seen the statistics");
    let (mean, variance) = (stored("running_mean"), stored("running_var"));
    let Keeping { average, decay, batches, .. } = plan.keeping;
    let factor = match average {
        Average::DebiasedWhenRead if batches != 0 => gathered(arithmetic, decay, batches, arithmetic.keep(mean)),
        Average::Unnormalized => match state("scale_factor") {
            Some(&[gathered]) if arithmetic.keep(gathered).value() != 0.0 => {
                A::Real::constant(1.0) / arithmetic.keep(gathered)
            }
            _ => A::Real::constant(0.0),
        },
        _ => return arithmetic.stored(mean, variance),
    };
    arithmetic.averaged(arithmetic.keep(mean) * factor, arithmetic.keep(variance) * factor)
}

/// The statistics of channel `channel` that `moved` has.
pub(super) fn averaged<A: Arithmetic>(
    arithmetic: &A,
    moved: &[(&'static str, Vec<A::Real>)],
    channel: usize,
) -> A::Moments {
    let value = |name| moved.iter().find(|entry| entry.0 == name).expect("the plan has statistics").1[channel];
    arithmetic.averaged(value("running_mean"), value("running_var"))
}

/// The gradient by the elements `x` of a group that is normalized with running statistics which this batch has moved:
///
/// ```text
/// grad_input = (a − α·Σa/n − α·(x − μ)/σ·Σ(a·y)/(n − d))/σ      y = (x − r_mean)/σ     σ² = r_var + eps
/// ```
/// with μ the batch's mean, since ∂r/∂s = α, and 1 where the first batch replaces r; r_var averages variances that are
/// divided by n − d.
pub(super) fn average_gradient<A: Arithmetic>(
    arithmetic: &A,
    plan: &Plan,
    x: &[A::Input],
    a: &[A::Real],
    y: &[A::Real],
    scaling: &A::Scaling,
) -> Vec<A::Real> {
    let one = A::Real::constant(1.0);
    let of_new = match plan.update {
        _ if plan.keeping.batches == 1 => one,
        Some(Factor::OfOld(decay)) => one - arithmetic.parameter(decay).beside(a[0]),
        Some(factor) => arithmetic.parameter(factor.of_new()).beside(a[0]),
        None => A::Real::constant(0.0),
    };
    let over = |terms: &mut dyn Iterator<Item = A::Real>, count: usize| {
        A::Real::sum(terms) / A::Real::constant(count as f64) * of_new
    };
    let mean_a = over(&mut a.iter().copied(), x.len());
    let unbiased = usize::from(plan.keeping.degrees_of_freedom_of(x.len()));
    let along = over(&mut a.iter().zip(y).map(|(&a, &y)| a * y), x.len() - unbiased);
    let centre = arithmetic.mean(&arithmetic.moments(Group::contiguous(x), true));
    let inverse = arithmetic.inverse(scaling);
    let gradient = |(&x, &a): (&A::Input, &A::Real)| {
        let deviation = (arithmetic.keep(x) - centre) * inverse;
        (a - mean_a - deviation * along) * inverse
    };
    x.iter().zip(a).map(gradient).collect()
}

/// 1/(1 − dᵗ): one over the weight that an average of t batches has gathered; d is rounded beside `like`.
fn gathered<A: Arithmetic>(arithmetic: &A, decay: f64, batches: i64, like: A::Real) -> A::Real {
    let one = A::Real::constant(1.0);
    one / (one - arithmetic.parameter(decay).beside(like).powf(batches as f64))
}

/// The mean over the first axis of groups of what each group of channel `channel` has: one group in batch norm, one for each
/// sample in instance norm.
fn over_samples<R: Real>(values: &[R], channel: usize, partition: &Partition) -> R {
    if partition.outer == 1 {
        return values[channel];
    }
    let samples = (0..partition.outer).map(|outer| values[outer * partition.inner + channel]);
    R::sum(samples) / R::constant(partition.outer as f64)
}
