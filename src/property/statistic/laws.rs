//! The statistics: what each claims, how it is measured, and how many groups it takes to see what it must.
//!
//! Of a group of n independent normal values with mean μ and variance σ²; y its standardized values, v its biased variance,
//! s² = v·n/(n−1), eps next to nothing unless it is named:
//!
//! ```text
//! standardized           y·√(n−2)/√(n−1−y²) ~ t_{n−2}            (Thompson 1935); RMS norm: y·√(n−1)/√(n−y²) ~ t_{n−1}
//! variance               q = mean(y²) = v/(v + eps), so v = eps·q/(1 − q), and n·v/σ² ~ χ²_{n−1}; RMS norm: χ²_n
//! one step, m = 1:
//! running_var_fit        (n−1)·running_var/σ² ~ χ²_{n−1}                                  (Cochran 1934)
//! running_var_ratio      (running_var_a/σ_a²)/(running_var_b/σ_b²) ~ F_{n−1, n−1}         (Fisher 1924)
//! T steps of momentum m, from r₀ (mean and variance of a sum with weights m(1−m)^(T−t)):
//! running_mean           E = (1−m)ᵀ·r₀ + (1 − (1−m)ᵀ)·μ
//! running_mean_variance  V = σ²/n · m/(2−m) · (1 − (1−m)²ᵀ): σ²/n over the effective window (2−m)/m as T grows
//! running_var            E = (1−m)ᵀ·r₀ + (1 − (1−m)ᵀ)·σ², unbiased
//! cumulative_mean        with momentum null the mean of all batches, r₀ dropped: E = μ, V = σ²/(n·T)
//! samples that differ, x = a + u with Var a = τ² and Var u = w, L values of each of N samples:
//! between_samples        E s² = w + τ²(N−1)L/(NL−1), as (NL−1)s² = (Lτ² + w)·χ²_{N−1} + w·χ²_{N(L−1)}
//! batch_of_one           N = 1: E s² = w. What differs between samples is never seen, whatever the momentum
//! ```
//! Instance norm averages over its samples what the others pool: n−1 becomes k(n−1), n in V becomes kn.

use statrs::distribution::{ChiSquared, ContinuousCDF, FisherSnedecor, StudentsT};

use super::experiment::{
    BETWEEN, CUMULATIVE_STEPS, EPS, Experiment, INITIAL, LARGER, MEAN, MOMENTUM, Missing, SIZE, STEPS, VARIANCE,
    WITHIN, groups, last, samples_of,
};
use super::goodness::{self, Rates, Squares};
use crate::operation::{BATCH, RUNNING, TORCH_FAMILY};
use crate::subject::CaseRun;

/// A law of many answers.
pub struct Statistic {
    /// Its name.
    pub name: &'static str,
    /// What it claims, in a sentence.
    pub sentence: &'static str,
    /// The operations of which it holds.
    pub operations: &'static [&'static str],
    /// The distribution of what is measured at a correct layer.
    pub null: &'static str,
    /// The error that it must see.
    pub error: &'static str,
    /// The planted bugs that make such an error, or a larger one.
    pub sees: &'static [&'static str],
    pub(super) experiment: Experiment,
    /// How many groups, channels where they have running statistics, it takes.
    pub(super) sample: fn(&str, Rates) -> usize,
    /// What a subject's answers come to.
    pub(super) measure: fn(&str, &CaseRun) -> Result<Finding, Missing>,
}

/// What was measured.
pub(super) struct Finding {
    /// The chance of as large a deviation at a correct layer.
    pub p: f64,
    /// Observed and expected, in words.
    pub text: String,
}

/// Every statistic.
pub const STATISTICS: &[Statistic] = &[
    Statistic {
        name: "standardized",
        sentence: "a standardized normal value, rescaled, follows Student's t",
        operations: TORCH_FAMILY,
        null: "fit: t with n − 2 degrees of freedom (RMS norm: n − 1)",
        error: "outputs off by the factor √((n−1)/n)",
        sees: &["unbiased_variance"],
        experiment: Experiment::Standardize,
        sample: |operation, rates| {
            let edge = edge(operation);
            let grid = (0..2000).map(|i| edge * (f64::from(i) / 1000.0 - 1.0));
            let cdf = |y: f64| student(operation).cdf(rescaled(operation, y));
            goodness::fit_sample(goodness::distance_scaled(&cdf, (1.0 - 1.0 / N).sqrt(), grid), rates)
        },
        measure: |operation, run| {
            let groups = groups(operation, last(run, 1, "output")?);
            // Each place of a group in turn.
            let values = groups.iter().enumerate().map(|(i, group)| rescaled(operation, group[i % SIZE]));
            let values: Vec<f64> = values.collect();
            let law = student(operation);
            Ok(fit(&values, &|t| law.cdf(t), "of the rescaled outputs", "Student's t"))
        },
    },
    Statistic {
        name: "variance",
        sentence: "the variance that its outputs betray, given a large eps, follows χ²",
        operations: TORCH_FAMILY,
        null: "fit: χ² with n − 1 degrees of freedom (RMS norm: n)",
        error: "a variance off by the factor (n−1)/n",
        sees: &["unbiased_variance", "eps_outside_root", "eps_dropped", "eps_squared", "eps_doubled"],
        experiment: Experiment::ShowEps,
        sample: |operation, rates| fit_squares(degrees_of_output(operation), rates),
        measure: |operation, run| {
            let groups = groups(operation, last(run, 1, "output")?);
            let variance = |group: &Vec<f64>| {
                let square = group.iter().map(|y| y * y).sum::<f64>() / N;
                // Without eps the square is 1 but for rounding: a variance without end.
                N * EPS * square / (1.0 - square).max(f64::MIN_POSITIVE)
            };
            let law = chi_squared(degrees_of_output(operation));
            Ok(fit(&groups.iter().map(variance).collect::<Vec<_>>(), &|x| law.cdf(x), "of the variances", "χ²"))
        },
    },
    Statistic {
        name: "running_var_fit",
        sentence: "a running variance with momentum 1 follows χ²",
        operations: RUNNING,
        null: "fit: χ² with n − 1 degrees of freedom (instance norm: k(n−1))",
        error: "a variance off by the factor (n−1)/n",
        sees: &[
            "biased_running_var",
            "running_standard_deviation",
            "eps_in_running_var",
            "momentum_flipped",
            "never_updates",
        ],
        experiment: Experiment::OneStep,
        sample: |operation, rates| fit_squares(degrees_of_running(operation), rates),
        measure: |operation, run| {
            let degrees = degrees_of_running(operation);
            let law = chi_squared(degrees);
            let values: Vec<f64> = scaled_variances(run)?.into_iter().map(|ratio| degrees * ratio).collect();
            Ok(fit(&values, &|x| law.cdf(x), "of the running variances", "χ²"))
        },
    },
    Statistic {
        name: "running_var_ratio",
        sentence: "the ratio of two running variances, each over its values' own, follows Fisher's F",
        operations: RUNNING,
        null: "fit: F with n − 1 and n − 1 degrees of freedom (instance norm: k(n−1))",
        error: "a ratio off by the factor 1.5",
        sees: &["running_standard_deviation", "momentum_flipped", "never_updates"],
        experiment: Experiment::OneStep,
        sample: |operation, rates| {
            let law = fisher(degrees_of_running(operation));
            let grid = (1..4000).map(|i| f64::from(i) / 400.0);
            2 * goodness::fit_sample(goodness::distance_scaled(&|x| law.cdf(x), 1.5, grid), rates)
        },
        measure: |operation, run| {
            let variances = scaled_variances(run)?;
            let law = fisher(degrees_of_running(operation));
            let ratios: Vec<f64> = variances.chunks_exact(2).map(|pair| pair[1] / pair[0]).collect();
            Ok(fit(&ratios, &|x| law.cdf(x), "of the ratios", "Fisher's F"))
        },
    },
    Statistic {
        name: "running_mean",
        sentence: "the running mean moves from its first value to the values' mean",
        operations: RUNNING,
        null: "mean: normal",
        error: "an expectation off by 0.05·σ",
        sees: &["momentum_flipped", "never_updates"],
        experiment: Experiment::Steps,
        sample: |operation, rates| {
            goodness::normal_sample(variance_of_mean(operation).sqrt(), 0.05 * VARIANCE.sqrt(), rates)
        },
        measure: |operation, run| {
            let means = state(run, STEPS, "running_mean")?;
            let (mean, expected) = (average(&means), expected_after(INITIAL.0, MEAN));
            let p = goodness::normal(mean, expected, (variance_of_mean(operation) / means.len() as f64).sqrt());
            Ok(Finding { p, text: compared("the average of the running means", mean, expected) })
        },
    },
    Statistic {
        name: "running_mean_variance",
        sentence: "the running mean scatters as an average over the effective window does",
        operations: RUNNING,
        null: "variance: χ² with one degree of freedom for each channel",
        error: "an effective window off by the factor 1.25",
        sees: &["momentum_flipped", "never_updates"],
        experiment: Experiment::Steps,
        sample: |_, rates| Squares(vec![(1.0, 1.0)]).sample(1.25, rates),
        measure: |operation, run| {
            let (expected, variance) = (expected_after(INITIAL.0, MEAN), variance_of_mean(operation));
            Ok(scatter(&state(run, STEPS, "running_mean")?, expected, variance))
        },
    },
    Statistic {
        name: "running_var",
        sentence: "the running variance is unbiased",
        operations: RUNNING,
        null: "squares: a weighted sum of χ², one for each step",
        error: "an expectation off by a tenth",
        sees: &["biased_running_var", "running_standard_deviation", "momentum_flipped", "never_updates"],
        experiment: Experiment::Steps,
        sample: |operation, rates| batches(operation).sample(0.9, rates),
        measure: |operation, run| {
            let variances = state(run, STEPS, "running_var")?;
            let kept = remaining() * INITIAL.1;
            let (mean, law) = (average(&variances), batches(operation));
            let p = law.p_value(mean - kept, variances.len());
            let text = compared("the average of the running variances", mean, law.expectation() + kept);
            Ok(Finding { p, text })
        },
    },
    Statistic {
        name: "cumulative_mean",
        sentence: "without a momentum the running mean scatters as the mean of all batches does",
        operations: BATCH,
        null: "variance: χ² with one degree of freedom for each channel",
        error: "a variance off by the factor 1.25",
        sees: &["cumulative_off_by_one", "never_updates"],
        experiment: Experiment::Cumulative,
        sample: |_, rates| Squares(vec![(1.0, 1.0)]).sample(1.25, rates),
        measure: |_, run| {
            let means = state(run, CUMULATIVE_STEPS, "running_mean")?;
            Ok(scatter(&means, MEAN, VARIANCE / N / CUMULATIVE_STEPS as f64))
        },
    },
    Statistic {
        name: "between_samples",
        sentence: "two samples that differ show part of what differs: w + τ²(N−1)L/(NL−1)",
        operations: BATCH,
        null: "squares: (Lτ² + w)·χ²_{N−1} + w·χ²_{N(L−1)}",
        error: "an expectation off by a tenth",
        sees: &[
            "biased_running_var",
            "running_standard_deviation",
            "momentum_flipped",
            "never_updates",
            "local_bessel",
        ],
        experiment: Experiment::TwoSamples,
        sample: |_, rates| differing(Experiment::TwoSamples).sample(0.9, rates),
        measure: |_, run| unbiased(run, &differing(Experiment::TwoSamples)),
    },
    Statistic {
        name: "batch_of_one",
        sentence: "a batch of one sample shows nothing of what differs between samples: w",
        operations: BATCH,
        null: "squares: w·χ²_{L−1}",
        error: "an expectation off by a tenth",
        sees: &["biased_running_var", "momentum_flipped", "never_updates", "batch_of_one_refused"],
        experiment: Experiment::OneSample,
        sample: |_, rates| differing(Experiment::OneSample).sample(0.9, rates),
        measure: |_, run| unbiased(run, &differing(Experiment::OneSample)),
    },
];

const N: f64 = SIZE as f64;

/// Degrees of freedom of a group's variance in the output's formula.
fn degrees_of_output(operation: &str) -> f64 {
    if operation == "rms_norm" { N } else { N - 1.0 }
}

/// Degrees of freedom of one step's running variance.
fn degrees_of_running(operation: &str) -> f64 {
    samples_of(operation) as f64 * (N - 1.0)
}

fn student(operation: &str) -> StudentsT {
    StudentsT::new(0.0, 1.0, degrees_of_output(operation) - 1.0).expect("positive degrees of freedom")
}

fn chi_squared(degrees: f64) -> ChiSquared {
    ChiSquared::new(degrees).expect("positive degrees of freedom")
}

fn fisher(degrees: f64) -> FisherSnedecor {
    FisherSnedecor::new(degrees, degrees).expect("positive degrees of freedom")
}

/// The largest |y|: √(n−1), or √n where nothing is subtracted (Samuelson 1968).
fn edge(operation: &str) -> f64 {
    degrees_of_output(operation).sqrt()
}

/// y as a Student's t; at the edge, or beyond it by a rounding, far out on its side.
fn rescaled(operation: &str, y: f64) -> f64 {
    let (degrees, edge) = (degrees_of_output(operation) - 1.0, edge(operation));
    let rest = edge * edge - y * y;
    if rest <= 0.0 { y.signum() * 1e12 } else { y * (degrees / rest).sqrt() }
}

/// A sample that shows χ² off by the factor (n−1)/n.
fn fit_squares(degrees: f64, rates: Rates) -> usize {
    let law = chi_squared(degrees);
    let grid = (1..4000).map(|i| degrees * f64::from(i) / 1000.0);
    goodness::fit_sample(goodness::distance_scaled(&|x| law.cdf(x), 1.0 - 1.0 / N, grid), rates)
}

/// (1−m)ᵀ, the weight of what was there before the first step.
fn remaining() -> f64 {
    (1.0 - MOMENTUM).powi(STEPS as i32)
}

fn expected_after(initial: f64, limit: f64) -> f64 {
    remaining() * initial + (1.0 - remaining()) * limit
}

/// σ²/n · m/(2−m) · (1 − (1−m)²ᵀ).
fn variance_of_mean(operation: &str) -> f64 {
    let values = N * samples_of(operation) as f64;
    VARIANCE / values * MOMENTUM / (2.0 - MOMENTUM) * (1.0 - remaining().powi(2))
}

/// The running variance after all steps, less what is left of its first value: σ²·Σ m(1−m)^(T−t)·χ²/degrees.
fn batches(operation: &str) -> Squares {
    let degrees = degrees_of_running(operation);
    let weight = |age: usize| VARIANCE * MOMENTUM * (1.0 - MOMENTUM).powi(age as i32) / degrees;
    Squares((0..STEPS).map(|age| (weight(age), degrees)).collect())
}

/// s² of samples that differ.
fn differing(experiment: Experiment) -> Squares {
    let (samples, length) = experiment.samples();
    let (samples, length) = (samples as f64, length as f64);
    let degrees = samples * length - 1.0;
    let parts =
        vec![((length * BETWEEN + WITHIN) / degrees, samples - 1.0), (WITHIN / degrees, samples * (length - 1.0))];
    Squares(parts.into_iter().filter(|(_, degrees)| *degrees > 0.0).collect())
}

fn state(run: &CaseRun, steps: usize, tensor: &str) -> Result<Vec<f64>, Missing> {
    Ok(last(run, steps, tensor)?.to_f64().iter().copied().collect())
}

/// The running variances of the one step, each over its values' variance.
fn scaled_variances(run: &CaseRun) -> Result<Vec<f64>, Missing> {
    let scaled = |(channel, variance)| if channel % 2 == 0 { variance } else { variance / LARGER };
    Ok(state(run, 1, "running_var")?.into_iter().enumerate().map(scaled).collect())
}

fn unbiased(run: &CaseRun, law: &Squares) -> Result<Finding, Missing> {
    let variances = state(run, 1, "running_var")?;
    let mean = average(&variances);
    let text = compared("the average of the running variances", mean, law.expectation());
    Ok(Finding { p: law.p_value(mean, variances.len()), text })
}

/// Whether values scatter about a known expectation with a known variance.
fn scatter(values: &[f64], expectation: f64, variance: f64) -> Finding {
    let squares: f64 = values.iter().map(|x| (x - expectation).powi(2)).sum();
    let count = values.len() as f64;
    let text = compared("the mean square deviation of the running means", squares / count, variance);
    Finding { p: goodness::chi_squared(squares / variance, count), text }
}

fn fit(values: &[f64], cdf: &dyn Fn(f64) -> f64, what: &str, law: &str) -> Finding {
    let distance = goodness::distance(values, cdf);
    let text =
        format!("the distribution function {what} is up to {distance:.4} away from {law}, over {}", values.len());
    Finding { p: goodness::fit(values, cdf), text }
}

fn compared(what: &str, observed: f64, expected: f64) -> String {
    format!("{what} is {observed:.6}, expected {expected:.6}")
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_tells_what_was_observed_and_expected() {
        let found = scatter(&[1.0, 3.0], 2.0, 4.0);
        assert_eq!(found.text, "the mean square deviation of the running means is 1.000000, expected 4.000000");
        let found = fit(&[0.5; 4], &|x| x, "of the values", "uniform");
        assert_eq!(found.text, "the distribution function of the values is up to 0.5000 away from uniform, over 4");
    }
}
