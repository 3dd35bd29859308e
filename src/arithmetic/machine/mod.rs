//! What a program computes in f32 or f64, in a chosen order of operations: correct variants and planted bugs.

#[cfg(test)]
mod tests;

use super::{
    Arithmetic, EpsPlace, Factor, Format, Group, Parameter, Real, RunningQuantity, Scale, gradient_by_outputs,
};

/// A type that a program accumulates in.
pub trait Accumulator: Real + PartialOrd {
    /// The format of its results.
    const FORMAT: Format;

    /// self·factor + term with one rounding.
    fn mul_add(self, factor: Self, term: Self) -> Self;
}

impl Accumulator for f32 {
    const FORMAT: Format = Format::F32;

    fn mul_add(self, factor: f32, term: f32) -> f32 {
        f32::mul_add(self, factor, term)
    }
}

impl Accumulator for f64 {
    const FORMAT: Format = Format::F64;

    fn mul_add(self, factor: f64, term: f64) -> f64 {
        f64::mul_add(self, factor, term)
    }
}

/// The choices of a program that do not change its formula.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Program {
    /// The order of its sums.
    pub order: Order,
    /// How it computes the variance.
    pub variance: VarianceMethod,
    /// How it rescales.
    pub form: Form,
    /// Multiplies by a rounded 1/n instead of dividing by n.
    pub reciprocal: bool,
    /// Updates running statistics as old + α(new − old).
    pub difference: bool,
    /// Keeps mean and 1/σ in this format.
    pub statistics: Option<Format>,
    /// Computes the input's gradient with 1/σ³, which underflows where 1/σ does not.
    pub cubes: bool,
}

/// The order of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    Sequential,
    /// From the last to the first.
    Reversed,
    /// Halves, halved again.
    Pairwise,
    /// This many running sums side by side, added at the end.
    Lanes(usize),
    /// A binary tree whose splits this seed draws.
    Tree(u64),
}

/// How a program computes the variance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VarianceMethod {
    /// The mean first, then the squared deviations.
    TwoPass,
    /// One pass with updated mean and squares (Welford 1962).
    Welford,
    /// Welford in chunks of this many, merged from left to right (Chan, Golub, LeVeque 1983).
    Merged(usize),
    /// E(x²) − E(x)², clamped at 0: unstable.
    OnePass,
    /// Two passes whose sums and squares are rounded to this format.
    Narrow(Format),
    /// Two passes over a power of two of lanes: those beyond the group hold 0, and count in the squares.
    Padded,
    /// Two passes; a variance below 10⁻⁶ is 0.
    CutOff,
}

/// How a program rescales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// (x − μ)·r
    Direct,
    /// (x − μ)/σ
    Division,
    /// x·r + (−μ·r), the affine parameters after it.
    Folded,
    /// x·(w·r) + (b − μ·w·r), with fused multiply-adds.
    FusedFolded,
}

impl Default for Program {
    fn default() -> Program {
        Program {
            order: Order::Sequential,
            variance: VarianceMethod::TwoPass,
            form: Form::Direct,
            reciprocal: false,
            difference: false,
            statistics: None,
            cubes: false,
        }
    }
}

/// A program that accumulates in `T`.
///
/// ```
/// use normative::arithmetic::{Arithmetic, Group, Machine, Program};
/// let machine = Machine::<f32>::new(Program::default());
/// let moments = machine.moments(Group::contiguous(&[1.0, 2.0, 4.0]), true);
/// assert_eq!(machine.mean(&moments), 7.0 / 3.0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Machine<T> {
    program: Program,
    accumulator: std::marker::PhantomData<T>,
}

impl<T> Machine<T> {
    /// The arithmetic of `program`.
    pub fn new(program: Program) -> Machine<T> {
        Machine { program, accumulator: std::marker::PhantomData }
    }
}

/// Mean, sum of squared deviations and number of elements.
#[derive(Clone, Copy, Debug)]
pub struct MachineMoments<T> {
    mean: T,
    squares: T,
    count: Option<usize>,
}

/// μ, σ and 1/σ.
#[derive(Clone, Copy, Debug)]
pub struct MachineScaling<T> {
    mean: T,
    sigma: T,
    inverse: T,
}

impl<T: Accumulator> Machine<T> {
    fn of(value: usize) -> T {
        T::constant(value as f64)
    }

    fn divide(&self, sum: T, count: usize) -> T {
        if self.program.reciprocal { sum * (T::constant(1.0) / Self::of(count)) } else { sum / Self::of(count) }
    }

    fn round(&self, statistic: T) -> T {
        match self.program.statistics {
            Some(format) => T::constant(format.round(statistic.value())),
            None => statistic,
        }
    }
}

impl<T: Accumulator> Arithmetic for Machine<T> {
    type Input = T;
    type Real = T;
    type Moments = MachineMoments<T>;
    type Scaling = MachineScaling<T>;

    fn moments(&self, group: Group<'_, T>, centred: bool) -> MachineMoments<T> {
        let mut scratch = Vec::new();
        let values = group.gather(&mut scratch);
        let count = values.len();
        let order = self.program.order;
        let square = |x: &T| *x * *x;
        let (mean, squares) = match self.program.variance {
            VarianceMethod::Narrow(format) => {
                let mean =
                    if centred { narrow_sum(values, format, |x| *x) / Self::of(count) } else { T::constant(0.0) };
                (mean, narrow_sum(values, format, |x| square(&(*x - mean))))
            }
            _ if !centred => (T::constant(0.0), sum(values, order, square)),
            VarianceMethod::TwoPass => {
                let mean = self.divide(sum(values, order, |x| *x), count);
                (mean, sum(values, order, |x| square(&(*x - mean))))
            }
            method @ (VarianceMethod::Padded | VarianceMethod::CutOff) => {
                let mean = self.divide(sum(values, order, |x| *x), count);
                let squares = sum(values, order, |x| square(&(*x - mean)));
                let padding = count.next_power_of_two() - count;
                match method {
                    VarianceMethod::Padded => (mean, squares + square(&mean) * Self::of(padding)),
                    _ if squares < T::constant(1e-6) * Self::of(count) => (mean, T::constant(0.0)),
                    _ => (mean, squares),
                }
            }
            VarianceMethod::Welford => welford(values, count),
            VarianceMethod::Merged(chunk) => welford(values, chunk),
            VarianceMethod::OnePass => {
                let mean = self.divide(sum(values, order, |x| *x), count);
                let mean_square = self.divide(sum(values, order, square), count);
                let variance = mean_square - mean * mean;
                // A comparison, so that NaN stays NaN.
                (mean, if variance < T::constant(0.0) { T::constant(0.0) } else { variance * Self::of(count) })
            }
        };
        MachineMoments { mean: self.round(mean), squares, count: Some(count) }
    }

    fn stored(&self, mean: T, variance: T) -> MachineMoments<T> {
        MachineMoments { mean, squares: variance, count: None }
    }

    fn averaged(&self, mean: T, variance: T) -> MachineMoments<T> {
        self.stored(mean, variance)
    }

    fn mean(&self, moments: &MachineMoments<T>) -> T {
        moments.mean
    }

    fn variance(&self, moments: &MachineMoments<T>, degrees_of_freedom: u8) -> T {
        match moments.count {
            Some(count) if degrees_of_freedom == 0 => self.divide(moments.squares, count),
            Some(count) => moments.squares / T::constant(count as f64 - f64::from(degrees_of_freedom)),
            None => moments.squares,
        }
    }

    fn scaling(&self, moments: &MachineMoments<T>, scale: &Scale) -> MachineScaling<T> {
        let variance = self.variance(moments, scale.degrees_of_freedom);
        let eps = T::constant(scale.eps);
        let sigma = match scale.eps_place {
            EpsPlace::InsideRoot => (variance + eps).sqrt(),
            EpsPlace::OutsideRoot => variance.sqrt() + eps,
            EpsPlace::LowerLimit => variance.max(eps).sqrt(),
        };
        let factor = T::constant(1.0 + scale.error);
        MachineScaling {
            mean: moments.mean,
            sigma: sigma / factor,
            inverse: self.round(T::constant(1.0) / sigma * factor),
        }
    }

    fn rescale(
        &self,
        run: &[T],
        &MachineScaling { mean, sigma, inverse }: &MachineScaling<T>,
        weight: Option<Parameter<'_, T>>,
        bias: Option<Parameter<'_, T>>,
        output: &mut [T],
    ) {
        let shift = -mean * inverse;
        for (index, (&x, out)) in run.iter().zip(output).enumerate() {
            let (w, b) = (weight.map(|w| w.at(index)), bias.map(|b| b.at(index)));
            let mut z = match self.program.form {
                Form::Direct => (x - mean) * inverse,
                Form::Division => (x - mean) / sigma,
                Form::Folded => x * inverse + shift,
                Form::FusedFolded => {
                    let slope = w.map_or(inverse, |w| w * inverse);
                    *out = x.mul_add(slope, (-mean).mul_add(slope, b.unwrap_or(T::constant(0.0))));
                    continue;
                }
            };
            if let Some(w) = w {
                z = z * w;
            }
            if let Some(b) = b {
                z = z + b;
            }
            *out = z;
        }
    }

    fn mix(&self, old: T, new: T, factor: Factor) -> T {
        let of_new = T::constant(factor.of_new());
        if self.program.difference {
            return old + of_new * (new - old);
        }
        let of_old = match factor {
            Factor::OfOld(decay) => T::constant(decay),
            _ => T::constant(1.0) - of_new,
        };
        of_new * new + of_old * old
    }

    fn mix_again(&self, old: T, new: T, factor: Factor) -> T {
        self.mix(old, new, factor)
    }

    fn cast(&self, value: T, format: Format) -> T {
        T::constant(format.round(value.value()))
    }

    fn inverse(&self, scaling: &MachineScaling<T>) -> T {
        scaling.inverse
    }

    fn input_gradient(
        &self,
        x: &[T],
        a: &[T],
        y: &[T],
        &MachineScaling { mean, inverse, .. }: &MachineScaling<T>,
        centred: bool,
    ) -> Vec<T> {
        if !self.program.cubes {
            return gradient_by_outputs(a, y, inverse, centred);
        }
        let count = Self::of(a.len());
        let mean_a = if centred { T::sum(a.iter().copied()) / count } else { T::constant(0.0) };
        let along = T::sum(a.iter().zip(x).map(|(&a, &x)| a * (x - mean))) / count;
        let cube = inverse * inverse * inverse;
        a.iter().zip(x).map(|(&a, &x)| (a - mean_a) * inverse - (x - mean) * along * cube).collect()
    }

    fn keep(&self, value: T) -> T {
        value
    }

    fn running_quantity(&self, variance: T, quantity: RunningQuantity, eps: f64) -> T {
        match quantity {
            RunningQuantity::Variance => variance,
            RunningQuantity::StandardDeviation => variance.sqrt(),
            RunningQuantity::VariancePlusEps => variance + T::constant(eps),
        }
    }
}

fn sum<T: Accumulator>(values: &[T], order: Order, term: impl Fn(&T) -> T + Copy) -> T {
    let add = |sum: T, x: &T| sum + term(x);
    match order {
        Order::Sequential => values.iter().fold(T::constant(0.0), add),
        Order::Reversed => values.iter().rev().fold(T::constant(0.0), add),
        Order::Pairwise if values.len() <= 2 => values.iter().fold(T::constant(0.0), add),
        Order::Pairwise => {
            let (left, right) = values.split_at(values.len() / 2);
            sum(left, order, term) + sum(right, order, term)
        }
        Order::Lanes(count) => {
            let lane = |lane| values.iter().skip(lane).step_by(count.max(1)).fold(T::constant(0.0), add);
            (0..count.max(1)).map(lane).fold(T::constant(0.0), |sum, x| sum + x)
        }
        Order::Tree(_) if values.len() <= 1 => values.iter().fold(T::constant(0.0), add),
        Order::Tree(seed) => {
            // The two halves of a multiplicative hash (Knuth, volume 3, 6.4) are the split and the next seed.
            let drawn = (seed ^ values.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (left, right) = values.split_at(1 + (drawn >> 32) as usize % (values.len() - 1));
            let order = |side| Order::Tree(drawn.rotate_left(29) ^ side);
            sum(left, order(0), term) + sum(right, order(1), term)
        }
    }
}

/// A sum whose terms and partial sums are rounded to `format`.
fn narrow_sum<T: Accumulator>(values: &[T], format: Format, term: impl Fn(&T) -> T) -> T {
    let round = |value: T| T::constant(format.round(value.value()));
    values.iter().fold(T::constant(0.0), |sum, x| round(sum + round(term(x))))
}

/// Mean and sum of squared deviations, updated within chunks, the chunks merged.
fn welford<T: Accumulator>(values: &[T], chunk: usize) -> (T, T) {
    let (mut mean, mut squares, mut count) = (T::constant(0.0), T::constant(0.0), 0_usize);
    for values in values.chunks(chunk.max(1)) {
        let (mut chunk_mean, mut chunk_squares) = (T::constant(0.0), T::constant(0.0));
        for (index, &x) in values.iter().enumerate() {
            let before = x - chunk_mean;
            chunk_mean = chunk_mean + before / T::constant((index + 1) as f64);
            chunk_squares = chunk_squares + before * (x - chunk_mean);
        }
        if count == 0 {
            (mean, squares, count) = (chunk_mean, chunk_squares, values.len());
            continue;
        }
        let (old, new) = (T::constant(count as f64), T::constant(values.len() as f64));
        let (between, total) = (chunk_mean - mean, old + new);
        mean = mean + between * (new / total);
        squares = squares + chunk_squares + between * between * (old * (new / total));
        count += values.len();
    }
    (mean, squares)
}
