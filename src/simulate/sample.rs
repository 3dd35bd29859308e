//! The figures by simulation: many channels, each trained for T steps on batches drawn value by value.
//!
//! A sample of more than [`DRAWN`] values is drawn through its mean and its sum of squares, which are independent, normal
//! and χ² (Cochran 1934); the χ² by Marsaglia and Tsang (2000).

use rayon::prelude::*;

use super::theory::figures;
use super::{Figure, Interval, Setting};
use crate::case::values::Values;
use crate::property::statistic::gaussian::Gaussian;

/// The longest sample that is drawn value by value.
const DRAWN: usize = 64;
/// About how many values are drawn in all.
const BUDGET: usize = 8_000_000;
/// A normal estimate is more than this many standard errors off one time in ten thousand.
const Z: f64 = 3.89;

/// Every figure by formula, and by simulation where there is something to simulate.
pub fn simulate(setting: &Setting) -> Vec<Figure> {
    let mut figures = figures(setting);
    let draws = if setting.values > DRAWN { 4 } else { setting.values };
    let work = setting.steps.max(1) * setting.batch * draws;
    let channels = (BUDGET / work).clamp(100, 20_000);
    let runs: Vec<Run> = (0..channels).into_par_iter().map(|channel| Run::of(setting, channel)).collect();
    let all = |pick: fn(&Batch) -> f64| runs.iter().flat_map(|run| &run.batches).map(pick).collect::<Vec<f64>>();
    let ends = |pick: fn(&Batch) -> f64| runs.iter().map(|run| pick(&run.state)).collect::<Vec<f64>>();
    let total = setting.within + setting.between;
    let (count, one) = ((setting.batch * setting.values) as f64, setting.is_refused());
    let scale = |variance: f64| (total / (variance * (count - 1.0) / count)).sqrt();
    for figure in &mut figures {
        figure.simulated = match figure.name {
            "mean_sd" => Some(spread(&all(|batch| batch.mean))),
            _ if one => None,
            "variance_mean" => Some(average(&all(|batch| batch.variance))),
            "variance_sd" => Some(spread(&all(|batch| batch.variance))),
            "variance_seen" => {
                Some(average(&all(|batch| batch.variance).iter().map(|v| v / total).collect::<Vec<_>>()))
            }
            "scale_low" => Some(quantile(all(|batch| batch.variance), 0.95, scale)),
            "scale_median" => Some(quantile(all(|batch| batch.variance), 0.5, scale)),
            "scale_high" => Some(quantile(all(|batch| batch.variance), 0.05, scale)),
            "running_mean" => Some(average(&ends(|state| state.mean))),
            "running_mean_sd" => Some(spread(&ends(|state| state.mean))),
            "running_var" => Some(average(&ends(|state| state.variance))),
            "running_var_sd" => Some(spread(&ends(|state| state.variance))),
            _ => None,
        };
    }
    figures
}

/// Mean and unbiased variance, of a batch or running.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub mean: f64,
    pub variance: f64,
}

/// One channel's training.
pub(super) struct Run {
    batches: Vec<Batch>,
    state: Batch,
}

impl Run {
    fn of(setting: &Setting, channel: usize) -> Run {
        let mut batches = Vec::with_capacity(setting.steps);
        let state = train(setting, channel, &mut |batch, _| batches.push(batch));
        Run { batches, state }
    }

    /// The running statistics after each step.
    pub fn path(setting: &Setting, channel: usize) -> Vec<Batch> {
        let mut path = Vec::with_capacity(setting.steps);
        train(setting, channel, &mut |_, state| path.push(state));
        path
    }
}

/// Trains one channel, and shows each batch and the state after it.
fn train(setting: &Setting, channel: usize, show: &mut dyn FnMut(Batch, Batch)) -> Batch {
    let mut source = Source::new(setting, channel);
    let mut state = Batch { mean: 0.0, variance: 1.0 };
    let m = setting.momentum;
    for _ in 0..setting.steps {
        let batch = source.batch(setting);
        state.mean = (1.0 - m) * state.mean + m * batch.mean;
        state.variance = (1.0 - m) * state.variance + m * batch.variance;
        show(batch, state);
    }
    state
}

struct Source {
    normal: Gaussian,
    uniform: Values,
}

impl Source {
    fn new(setting: &Setting, channel: usize) -> Source {
        let name = format!("simulate-{}-{}-{channel}", setting.batch, setting.values);
        Source {
            normal: Gaussian::new(&name, setting.seed),
            uniform: Values::named(&format!("{name}-{}-u", setting.seed)),
        }
    }

    /// The statistics of one batch, updated sample by sample (Chan, Golub and LeVeque 1983).
    fn batch(&mut self, setting: &Setting) -> Batch {
        let length = setting.values as f64;
        let (mut mean, mut squares, mut seen) = (0.0, 0.0, 0.0);
        for _ in 0..setting.batch {
            let (own_mean, own_squares) = self.sample(setting);
            let (difference, all) = (own_mean - mean, seen + length);
            mean += difference * length / all;
            squares += own_squares + difference * difference * seen * length / all;
            seen = all;
        }
        Batch { mean, variance: squares / (seen - 1.0) }
    }

    /// Mean and sum of squared deviations of one sample.
    fn sample(&mut self, setting: &Setting) -> (f64, f64) {
        let shared = if setting.between > 0.0 { setting.between.sqrt() * self.normal.next() } else { 0.0 };
        let (level, deviation, length) = (setting.mean + shared, setting.within.sqrt(), setting.values as f64);
        if setting.values > DRAWN {
            let mean = level + deviation / length.sqrt() * self.normal.next();
            return (mean, setting.within * self.chi_squared(length - 1.0));
        }
        let (mut mean, mut squares) = (0.0, 0.0);
        for i in 1..=setting.values {
            let difference = level + deviation * self.normal.next() - mean;
            mean += difference / i as f64;
            squares += difference * difference * (i as f64 - 1.0) / i as f64;
        }
        (mean, squares)
    }

    /// Marsaglia and Tsang's gamma variable of shape degrees/2, doubled; for degrees of at least 2.
    fn chi_squared(&mut self, degrees: f64) -> f64 {
        let d = degrees / 2.0 - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal.next();
            let v = (1.0 + c * x).powi(3);
            let u = self.uniform.uniform() + f64::EPSILON;
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return 2.0 * d * v;
            }
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A mean, with its standard error.
fn average(values: &[f64]) -> Interval {
    let center = mean(values);
    let variance = values.iter().map(|x| (x - center).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0);
    around(center, (variance / values.len() as f64).sqrt())
}

/// A standard deviation; the error of a variance is √((m₄ − m₂²)/R), and half of it relative to the root's.
fn spread(values: &[f64]) -> Interval {
    let center = mean(values);
    let moment = |power| values.iter().map(|x| (x - center).powi(power)).sum::<f64>() / values.len() as f64;
    let (second, fourth) = (moment(2), moment(4));
    let deviation = second.sqrt();
    around(deviation, ((fourth - second * second) / values.len() as f64).sqrt() / (2.0 * deviation))
}

/// `through` of a quantile, between the order statistics that hold it (binomial, by its normal approximation).
fn quantile(mut values: Vec<f64>, level: f64, through: impl Fn(f64) -> f64) -> Interval {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let at = |place: f64| through(values[(place.max(0.0) as usize).min(values.len() - 1)]);
    let (place, error) = (level * count, Z * (level * (1.0 - level) * count).sqrt() + 1.0);
    let (first, second) = (at(place - error), at(place + error));
    Interval { estimate: at(place), low: first.min(second), high: first.max(second) }
}

fn around(estimate: f64, error: f64) -> Interval {
    Interval { estimate, low: estimate - Z * error, high: estimate + Z * error }
}
