//! Arithmetics: one definition of an operation runs in each of them.
//!
//! A definition is written over *group kernels*: the moments of a group of elements that share statistics, the rescaling
//! of its elements, the momentum update. An [`Arithmetic`] is an implementation of these kernels:
//!
//! | arithmetic | what it computes | for |
//! | --- | --- | --- |
//! | [`Machine`] | what a program in f32 or f64 computes, in a chosen order of operations | planted bugs, correct variants, the fast path |
//! | [`Reference`] | a double-double value with a radius, [`Truth`] | the truth |
//! | [`Tracker`] | the largest error of a good program, [`Tracked`] | bounds |
//! | [`Plain`] over [`Majorant`] | the largest error, whatever the grouping of terms | bounds of second derivatives |
//! | [`Plain`] | the definition by the book over any [`Real`], such as [`Dual`] numbers | derivatives |
//!
//! The exact integers of [`exact`] are an oracle beside these: they decide a rounding where the radius cannot.

pub mod double_double;
mod dual;
mod eigen;
pub mod exact;
pub mod format;
mod function;
mod group;
pub(crate) mod lanes;
mod machine;
mod majorant;
mod plain;
mod real;
mod reference;
#[cfg(test)]
mod tests;
mod tracked;
mod truth;

pub use double_double::DoubleDouble;
pub use dual::Dual;
pub use eigen::eigenvectors;
pub use format::{DataType, Format};
pub use function::Function;
pub(crate) use function::{SLOPE_OF_ERF, slope_of_erf};
pub use group::{Group, Parameter, Runs};
pub use machine::{Accumulator, Form, Machine, Order, Program, VarianceMethod};
pub use majorant::Majorant;
pub use plain::Plain;
pub use real::Real;
pub(crate) use reference::{Line, Shift};
pub use reference::{Reference, ReferenceMoments, ReferenceScaling};
pub use tracked::{Law, SummationDepth, Terms, Tracked, TrackedMoments, Tracker, VarianceLaw};
pub use truth::Truth;

/// The kernels of a definition.
pub trait Arithmetic: Sync {
    /// What tensors hold.
    type Input: Copy + Send + Sync;
    /// What comes out.
    type Real: Real;
    /// The statistics of a group.
    type Moments: Clone + Send + Sync;
    /// The map of a group's elements, x ↦ (x − μ)/σ.
    type Scaling: Send + Sync;

    /// Mean and variance of a group; without centring the mean is 0 and the variance is the mean square.
    fn moments(&self, group: Group<'_, Self::Input>, centred: bool) -> Self::Moments;

    /// Statistics that are given, as in evaluation.
    fn stored(&self, mean: Self::Input, variance: Self::Input) -> Self::Moments;

    /// Statistics that are averages of others, as [`Arithmetic::stored`] ones from there on.
    fn averaged(&self, mean: Self::Real, variance: Self::Real) -> Self::Moments;

    /// The mean μ.
    fn mean(&self, moments: &Self::Moments) -> Self::Real;

    /// The variance, its sum of squares divided by n − `degrees_of_freedom`.
    fn variance(&self, moments: &Self::Moments, degrees_of_freedom: u8) -> Self::Real;

    /// The map of a group's elements.
    fn scaling(&self, moments: &Self::Moments, scale: &Scale) -> Self::Scaling;

    /// z = w·(x − μ)/σ + b for a run of elements of one group.
    fn rescale(
        &self,
        run: &[Self::Input],
        scaling: &Self::Scaling,
        weight: Option<Parameter<'_, Self::Input>>,
        bias: Option<Parameter<'_, Self::Input>>,
        output: &mut [Self::Real],
    );

    /// The momentum update of a running statistic: (1 − α)·old + α·new.
    fn mix(&self, old: Self::Input, new: Self::Real, factor: Factor) -> Self::Real;

    /// [`Arithmetic::mix`] where the old value was itself computed.
    fn mix_again(&self, old: Self::Real, new: Self::Real, factor: Factor) -> Self::Real;

    /// A value rounded to `format` on the way, as a dialect that casts early does: the truth is not rounded, a good
    /// program's error is larger by that rounding.
    fn cast(&self, value: Self::Real, _format: Format) -> Self::Real {
        value
    }

    /// 1/σ.
    fn inverse(&self, scaling: &Self::Scaling) -> Self::Real;

    /// The gradient by the elements `x` of a group, for the gradients `a` by its standardized elements `y`:
    /// (a − mean a − y·mean(a·y))/σ, without `mean a` where the mean is not subtracted.
    fn input_gradient(
        &self,
        _x: &[Self::Input],
        a: &[Self::Real],
        y: &[Self::Real],
        scaling: &Self::Scaling,
        centred: bool,
    ) -> Vec<Self::Real> {
        gradient_by_outputs(a, y, self.inverse(scaling), centred)
    }

    /// A hyper-parameter: a program rounds it to the type that it computes in.
    fn parameter(&self, value: f64) -> Self::Real {
        Self::Real::constant(value)
    }

    /// A value that goes in.
    fn keep(&self, value: Self::Input) -> Self::Real;

    /// Transforms what is averaged in a running variance; the identity for [`RunningQuantity::Variance`].
    fn running_quantity(&self, variance: Self::Real, quantity: RunningQuantity, eps: f64) -> Self::Real;
}

/// How σ follows from the variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The eps of this operation, after its rule.
    pub eps: f64,
    /// Where eps stands.
    pub eps_place: EpsPlace,
    /// The variance's sum of squares is divided by n − this.
    pub degrees_of_freedom: u8,
    /// 1/σ is multiplied by 1 + this.
    pub error: f64,
}

impl Scale {
    /// σ = √(v + eps).
    pub fn inside_root(eps: f64) -> Scale {
        Scale { eps, eps_place: EpsPlace::InsideRoot, degrees_of_freedom: 0, error: 0.0 }
    }
}

/// Where eps stands in 1/σ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EpsPlace {
    /// 1/√(v + eps).
    #[default]
    InsideRoot,
    /// 1/(√v + eps).
    OutsideRoot,
    /// 1/√max(v, eps).
    LowerLimit,
}

/// What is averaged in `running_var`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunningQuantity {
    /// The variance.
    #[default]
    Variance,
    /// Its root.
    StandardDeviation,
    /// The variance plus eps.
    VariancePlusEps,
}

/// The weight α of the new value in a momentum update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Factor {
    /// α is given: PyTorch's momentum.
    OfNew(f64),
    /// 1 − α is given: the decay of Keras, Flax and ONNX.
    OfOld(f64),
    /// α = 1/t, the cumulative average over t batches.
    Reciprocal(i64),
}

impl Factor {
    /// α rounded to binary64.
    pub fn of_new(self) -> f64 {
        match self {
            Factor::OfNew(momentum) => momentum,
            Factor::OfOld(decay) => 1.0 - decay,
            Factor::Reciprocal(batches) => 1.0 / batches as f64,
        }
    }
}

/// (a − mean a − y·mean(a·y))/σ for each element of a group; see [`Arithmetic::input_gradient`].
pub(crate) fn gradient_by_outputs<R: Real>(a: &[R], y: &[R], inverse: R, centred: bool) -> Vec<R> {
    let count = R::constant(a.len() as f64);
    let mean = if centred { R::sum(a.iter().copied()) / count } else { R::constant(0.0) };
    let along = R::sum(a.iter().zip(y).map(|(&a, &y)| a * y)) / count;
    let gradient = |(&a, &y): (&R, &R)| {
        let centred_a = if centred { a - mean } else { a };
        (centred_a - y * along) * inverse
    };
    a.iter().zip(y).map(gradient).collect()
}

/// n / (n − degrees of freedom), in the arithmetic of binary64: infinite for n equal to them.
pub(crate) fn bessel(count: usize, degrees_of_freedom: u8) -> f64 {
    count as f64 / (count as f64 - f64::from(degrees_of_freedom))
}

/// How many of a test's draws, or cases, are taken: one in a hundred in Miri, which is a thousand times slower.
#[cfg(test)]
fn draws(many: usize) -> usize {
    if cfg!(miri) { many.div_ceil(100) } else { many }
}
