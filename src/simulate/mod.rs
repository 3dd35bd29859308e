//! What batch norm does at a given batch size, number of values and momentum: every figure by formula, and by simulation.
//!
//! ```
//! use normative::simulate::{Setting, figures};
//! // One sample of ten values: accepted, and blind to what differs between samples.
//! let setting = Setting { batch: 1, values: 10, between: 1.0, ..Setting::default() };
//! assert!(!setting.is_refused());
//! let bias = figures(&setting).into_iter().find(|figure| figure.name == "variance_seen").unwrap();
//! assert_eq!(bias.value, 0.5);
//! // One sample of one value: refused.
//! assert!(Setting { batch: 1, values: 1, ..Setting::default() }.is_refused());
//! ```

mod advice;
pub mod momentum;
mod plot;
mod sample;
mod squares;
mod theory;

use serde::Serialize;

pub use advice::advice;
pub use plot::plot;
pub use sample::simulate;
pub use theory::figures;

/// What is trained: one channel of a batch norm on independent batches of normal values x = mean + a + u, with a shared by
/// the values of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Samples of a batch, N.
    pub batch: usize,
    /// Values of a sample in a channel, L: 1 for a flat input, height times width for an image.
    pub values: usize,
    /// The weight of the new batch, m, from 0 to 1 without 0.
    pub momentum: f64,
    /// Training steps, T.
    pub steps: usize,
    /// The values' mean, μ.
    pub mean: f64,
    /// The variance within a sample, w.
    pub within: f64,
    /// The variance between samples, τ².
    pub between: f64,
    /// The seed of the simulation.
    pub seed: u64,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting { batch: 32, values: 1, momentum: 0.1, steps: 100, mean: 1.0, within: 1.0, between: 0.0, seed: 0 }
    }
}

impl Setting {
    /// Whether training is refused: one value per channel has no variance.
    pub fn is_refused(&self) -> bool {
        self.batch * self.values == 1
    }
}

/// A number with what it means.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a few words.
    pub meaning: &'static str,
    /// How it is computed.
    pub formula: &'static str,
    /// By formula.
    pub value: f64,
    /// By simulation, where there is something to simulate.
    pub simulated: Option<Interval>,
}

/// An estimate with the interval that the truth is in, but for one time in ten thousand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` is in it.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}
