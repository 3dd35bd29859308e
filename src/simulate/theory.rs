//! The figures by formula.
//!
//! ```text
//! x = μ + a + u, Var a = τ² (shared by a sample's L values), Var u = w; n = N·L; normal
//! batch mean           μ̂ ~ N(μ, τ²/N + w/n)
//! batch variance       (n−1)·s² = (Lτ² + w)·χ²_{N−1} + w·χ²_{N(L−1)}        (Cochran 1934; Searle, Casella, McCulloch 1992)
//!                      E s² = w + τ²(N−1)L/(n−1)
//!                      Var s² = 2((Lτ² + w)²(N−1) + w²N(L−1))/(n−1)²
//! 1/σ̂                  σ̂² = s²·(n−1)/n; its quantiles over 1/√(w + τ²)
//! running r ← (1−m)r + m·s over T steps, from r₀
//!                      E r = (1−m)ᵀr₀ + (1 − (1−m)ᵀ)·E s
//!                      Var r = Var s·m/(2−m)·(1 − (1−m)²ᵀ)
//! window               (2−m)/m batches: the number whose plain average is as noisy        (Roberts 1959)
//! same window          m' = 1 − (1−m)^(N'/N)                                              (Busbridge et al. 2023)
//! ```

use super::momentum::rescaled;
use super::squares::Mixture;
use super::{Figure, Setting};

/// The batch size to which the momentum is related.
pub(super) const USUAL_BATCH: usize = 32;

/// PyTorch's first running variance; the first running mean is 0.
const INITIAL_VARIANCE: f64 = 1.0;

/// Every figure by formula; those of the batch's variance are left out where training is refused.
pub fn figures(setting: &Setting) -> Vec<Figure> {
    let theory = Theory::new(setting);
    let figure = |name, meaning, formula, value| Figure { name, meaning, formula, value, simulated: None };
    let momentum = setting.momentum;
    let mut figures = vec![
        figure("values", "values per channel in a batch", "n = N·L", theory.count),
        figure("mean_sd", "spread of the batch's mean", "√(τ²/N + w/n)", theory.mean_variance.sqrt()),
    ];
    if setting.is_refused() {
        return figures;
    }
    let (mean, variance) = theory.after(setting.steps);
    let total = setting.within + setting.between;
    let inverse = |level: f64| {
        // A large variance is a small 1/σ̂.
        (total / (theory.squares.quantile(1.0 - level) * (theory.count - 1.0) / theory.count)).sqrt()
    };
    figures.extend([
        figure("variance_mean", "expected batch variance, n − 1", "w + τ²(N−1)L/(n−1)", theory.squares.mean()),
        figure(
            "variance_sd",
            "spread of the batch's variance",
            "√2·√((Lτ²+w)²(N−1) + w²N(L−1))/(n−1)",
            theory.squares.variance().sqrt(),
        ),
        figure("variance_seen", "its share of the true variance", "E s²/(w + τ²)", theory.squares.mean() / total),
        figure("scale_low", "σ/σ̂, 5 of 100 below", "quantile of (Lτ²+w)χ² + wχ²", inverse(0.05)),
        figure("scale_median", "σ/σ̂, median", "quantile of (Lτ²+w)χ² + wχ²", inverse(0.5)),
        figure("scale_high", "σ/σ̂, 5 of 100 above", "quantile of (Lτ²+w)χ² + wχ²", inverse(0.95)),
        figure("running_mean", "expected running mean", "(1 − (1−m)ᵀ)·μ", mean.expectation),
        figure("running_mean_sd", "its spread", "√(τ²/N + w/n)·√(m/(2−m)·(1 − (1−m)²ᵀ))", mean.deviation),
        figure("running_var", "expected running variance", "(1−m)ᵀ + (1 − (1−m)ᵀ)·E s²", variance.expectation),
        figure("running_var_sd", "its spread", "sd s²·√(m/(2−m)·(1 − (1−m)²ᵀ))", variance.deviation),
        figure("window_batches", "effective window in batches", "(2−m)/m", (2.0 - momentum) / momentum),
        figure(
            "window_samples",
            "effective window in samples",
            "N(2−m)/m",
            setting.batch as f64 * (2.0 - momentum) / momentum,
        ),
        figure(
            "eval_variance",
            "variance of outputs in evaluation, at last",
            "(w + τ²)/E s²",
            total / theory.squares.mean(),
        ),
        figure(
            "same_window_momentum",
            "momentum here for the window in samples that m has at batch 32",
            "1 − (1−m)^(N/32)",
            rescaled(momentum, USUAL_BATCH as f64, setting.batch as f64),
        ),
    ]);
    figures
}

/// A running statistic's expectation and standard deviation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub expectation: f64,
    pub deviation: f64,
}

/// The laws of a setting.
pub(super) struct Theory {
    momentum: f64,
    mean: f64,
    pub count: f64,
    pub mean_variance: f64,
    /// s².
    pub squares: Mixture,
}

impl Theory {
    pub fn new(setting: &Setting) -> Theory {
        let Setting { within, between, .. } = *setting;
        let (samples, length) = (setting.batch as f64, setting.values as f64);
        let count = samples * length;
        // With one value there is no variance; the figures of it are left out.
        let degrees = (count - 1.0).max(1.0);
        let shared = ((length * between + within) / degrees, samples - 1.0);
        let own = (within / degrees, samples * (length - 1.0));
        Theory {
            momentum: setting.momentum,
            mean: setting.mean,
            count,
            mean_variance: between / samples + within / count,
            squares: Mixture::new([shared, own]),
        }
    }

    /// The running mean and variance after `steps` steps.
    pub fn after(&self, steps: usize) -> (Running, Running) {
        let kept = (1.0 - self.momentum).powf(steps as f64);
        let noise = (self.momentum / (2.0 - self.momentum) * (1.0 - kept * kept)).sqrt();
        let running = |initial: f64, expectation: f64, variance: f64| Running {
            expectation: kept * initial + (1.0 - kept) * expectation,
            deviation: variance.sqrt() * noise,
        };
        (
            running(0.0, self.mean, self.mean_variance),
            running(INITIAL_VARIANCE, self.squares.mean(), self.squares.variance()),
        )
    }
}
