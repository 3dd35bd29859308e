//! Bounds: the largest error that a good program can make, by error analysis. No tolerance is chosen anywhere.
//!
//! u is the unit roundoff of the type that the program accumulates in, γₖ = k·u/(1 − k·u) bounds the product of k
//! roundings (Higham, "Accuracy and Stability of Numerical Algorithms", lemma 3.1), h is the depth of its summation tree:
//! no term passes more than h additions. μ, v, s = √(v + eps), y and z are exact.
//!
//! # Mean
//! Each term passes h additions and a division by n, or a product with a rounded 1/n (two roundings):
//! D = γ_{h+2}·mean|x|.
//!
//! # Variance
//! Two passes ([`Law::TwoPass`]). Since Σ(xᵢ − μ) = 0, mean (xᵢ − m̂)² = v + (m̂ − μ)² exactly: the error of the mean can
//! only add, at most D². Each squared deviation carries two roundings of the difference (it is squared), one of the
//! product, h of the sum, two of the division: g = γ_{h+5}, so that
//! −g·v ≤ v̂ − v ≤ g·v + D²(1 + g).
//!
//! Updating ([`Law::Updating`]: Welford 1962; merged chunks, Chan, Golub, LeVeque 1983). The products (x − m)(x − m′)
//! use two neighbouring means, each off by at most D, so that besides the above |Σ δ(x − m)|/n ≤ 2·D·√v by
//! Cauchy–Schwarz; 2.2 instead of 2 covers the terms of second order, and v̂ ≥ 0 limits the lower side to v.
//!
//! One pass ([`Law::OnePass`]), v̂ = mean x² − m̂²: both terms are of the size v + μ², whatever v is:
//! Δ = γ_{h+4}(v + μ²) + 2|μ|D + D² + 2u(v + μ²). It is no good law: it grades what is unstable.
//!
//! # Rescaling
//! With q = √(max(v − Δ⁻, 0) + eps) and p = √(s² + Δ⁺) the relative error of 1/ŝ is at most
//! max(Δ⁻/(q(q+s)), Δ⁺/(p(p+s))): 1/q − 1/s = (s² − q²)/(q·s·(q + s)), likewise for p. Five roundings come on top: the
//! difference x − m, half of eps rounded and half of v + eps (under the root: 1 together), root, reciprocal, product:
//! ρ = (max(…) + 5u)(1 + 8u), and |ŷ − y| ≤ B = (D/s)(1 + ρ) + |y|·ρ.
//!
//! Folded, x·r + (−μ·r): the two products and the sum round numbers of the size |x|·r and |μ|·r rather than their
//! difference, the second passing one rounding more: adds (1 + 4u + ρ)·u·(|x| + 2(|μ| + D))/s.
//!
//! Affine, w·y + b: one product, one sum: B_z = |w|·B·(1 + 2u) + u(2|w·y| + |b|)(1 + 2u). Fused and folded,
//! x·(w·r) + (b − μ·w·r): adds (1 + 4u + ρ)·u·[(|x| + 2(|μ| + D))·|w|/s + |b|]; a program that folds first and applies
//! the affine parameters after it needs 1 + 2u times the first part.
//!
//! # Mean square (RMS norm)
//! One rounding of the square, h of the sum, two of the division, halved by the root; no difference, hence four roundings
//! of the rest: t = ½γ_{h+3}·ms/s², ρ = (t(1 + 2t) + 4u + 16u²)(1 + 6u), B = |y|·ρ.
//!
//! # Underflow
//! The squares do not underflow by much (`case::preconditions`), but a product may: fl(a·b) = a·b·(1 + δ) + ε with |ε| ≤ η, half
//! the smallest subnormal of the accumulating type (Higham, section 2.2); sums of subnormals are exact. What is stored is
//! granted 4η. Beyond that counts what a large factor brings back: (x − m)·r loses η before it meets w, so B gains η, and a
//! folded one, x·r + (−μ·r), another; w·r loses η before it meets x and μ: fused and folded gains (|x| + 2(|μ| + D))·η. Where
//! a factor is exactly 0 nothing is lost.
//!
//! # Momentum
//! (1 − α)r + α·new rounds α, 1 − α, two products and the sum; r + α(new − r) rounds the difference, the product and the
//! sum. Either way the old value carries at most 3u and the new at most 4αu: α·D_new + u(3|r| + 4α(|new| + D_new)), and
//! (1 + 6u) for the second order. Bessel's factor is one rounding more of the variance.
//!
//! Where the decay d = 1 − α is given, d·r + (1 − d)·new: d̂ = d(1 + δ) makes the new value's weight off by u·d besides its own
//! rounding, which adds u·d(|new| + D_new); the old value still carries at most 3u (r + (1 − d̂)(new − r) rounds d, the
//! difference, the product and the sum: (2d + 3α)u).

use serde::{Deserialize, Serialize};

use super::format::{exponent_of, power_of_two};
use super::real::step_of;
use super::{
    Arithmetic, EpsPlace, Factor, Format, Function, Group, Parameter, Real, Reference, ReferenceMoments,
    RunningQuantity, Scale, bessel,
};

/// A form of program and what its error can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Law {
    /// How it computes the variance.
    pub variance: VarianceLaw,
    /// Whether it may fold x·r + (−μ·r).
    pub folded: bool,
}

/// How a program computes the variance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VarianceLaw {
    /// The mean first, then the squared deviations from it.
    TwoPass,
    /// Mean and squares updated together.
    Updating,
    /// E(x²) − E(x)²: unstable.
    OnePass,
}

impl Law {
    /// The good laws, the strictest first.
    pub const GOOD: [Law; 4] = [
        Law { variance: VarianceLaw::TwoPass, folded: false },
        Law { variance: VarianceLaw::TwoPass, folded: true },
        Law { variance: VarianceLaw::Updating, folded: false },
        Law { variance: VarianceLaw::Updating, folded: true },
    ];

    /// The number of laws, [`Law::ONE_PASS`] included.
    pub const COUNT: usize = Law::GOOD.len() + 1;

    /// Its place among the good laws, the unstable one last.
    pub fn index(self) -> usize {
        Law::GOOD.iter().position(|law| *law == self).unwrap_or(Law::GOOD.len())
    }

    /// The law of an unstable program of the right formula.
    pub const ONE_PASS: Law = Law { variance: VarianceLaw::OnePass, folded: true };
}

/// The depth h of a summation tree, as a function of the number of terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SummationDepth {
    /// Nothing is known: n − 1.
    #[default]
    Any,
    /// ⌈log₂ n⌉.
    Pairwise,
    /// b + ⌈n/b⌉.
    Blocks(usize),
}

impl SummationDepth {
    /// h for a sum of `count` terms; never more than n − 1.
    pub fn of(self, count: usize) -> f64 {
        let any = count.saturating_sub(1);
        let depth = match self {
            SummationDepth::Any => any,
            SummationDepth::Pairwise => count.max(1).next_power_of_two().trailing_zeros() as usize,
            SummationDepth::Blocks(block) => block.max(1).saturating_add(count.div_ceil(block.max(1))),
        };
        depth.min(any) as f64
    }
}

/// A value and the largest error that a good program can make in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tracked {
    /// The value, to binary64.
    pub value: f64,
    /// The bound, in the accumulating type, before the result is stored.
    pub error: f64,
    /// Unit roundoff of the operations that made it; 0 for constants.
    pub unit: f64,
}

/// The arithmetic of bounds for one law.
#[derive(Clone, Copy, Debug)]
pub struct Tracker {
    /// The form of program.
    pub law: Law,
    /// The unit roundoff u of the type that it accumulates in.
    pub unit: f64,
    /// The depth of its sums.
    pub depth: SummationDepth,
}

/// Moments with the bounds of their errors.
#[derive(Clone, Copy, Debug)]
pub struct TrackedMoments {
    count: Option<usize>,
    centred: bool,
    mean: f64,
    variance: f64,
    /// D
    mean_error: f64,
    /// Δ⁻
    below: f64,
    /// Δ⁺
    above: f64,
}

/// s, ρ and D of a group.
#[derive(Clone, Copy, Debug)]
pub struct TrackedScaling {
    mean: f64,
    mean_error: f64,
    sigma: f64,
    relative: f64,
    fold: f64,
}

/// The terms of the bound of one element, for the reader.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// μ, v, s.
    pub statistics: [f64; 3],
    /// D: the mean's.
    pub mean_error: f64,
    /// Δ⁻ and Δ⁺: the variance's.
    pub variance_error: [f64; 2],
    /// ρ: the relative error of the rescaling.
    pub relative: f64,
}

impl Tracker {
    fn gamma(&self, roundings: f64) -> f64 {
        let product = roundings * self.unit;
        if product < 1.0 { product / (1.0 - product) } else { f64::INFINITY }
    }

    /// The terms of the bound for a group.
    pub fn terms(&self, moments: &TrackedMoments, scale: &Scale) -> Terms {
        let scaling = self.scaling(moments, scale);
        Terms {
            statistics: [moments.mean, moments.variance, scaling.sigma],
            mean_error: moments.mean_error,
            variance_error: [moments.below, moments.above],
            relative: scaling.relative,
        }
    }

    fn bounded(&self, moments: ReferenceMoments, mean_abs: f64, centred: bool) -> TrackedMoments {
        let (mean, variance) = (Reference.mean(&moments).value.hi, Reference.variance(&moments, 0).value.hi);
        let mut tracked =
            TrackedMoments { count: moments.count, centred, mean, variance, mean_error: 0.0, below: 0.0, above: 0.0 };
        let Some(count) = moments.count else { return tracked };
        let h = self.depth.of(count);
        if !centred {
            let error = self.gamma(h + 3.0) * variance;
            return TrackedMoments { below: error, above: error, ..tracked };
        }
        let d = self.gamma(h + 2.0) * mean_abs;
        let g = self.gamma(h + 5.0);
        let two_pass = g * variance + d * d * (1.0 + g);
        (tracked.below, tracked.above) = match self.law.variance {
            VarianceLaw::TwoPass => (g * variance, two_pass),
            VarianceLaw::Updating => {
                let shared = 2.2 * d * variance.sqrt();
                (variance.min(g * variance + shared), two_pass + shared)
            }
            VarianceLaw::OnePass => {
                let size = variance + mean * mean;
                let both = self.gamma(h + 4.0) * size + 2.0 * mean.abs() * d + d * d + 2.0 * self.unit * size;
                (variance.min(both), both)
            }
        };
        tracked.mean_error = d;
        tracked
    }
}

impl Arithmetic for Tracker {
    type Input = f64;
    type Real = Tracked;
    type Moments = TrackedMoments;
    type Scaling = TrackedScaling;

    fn moments(&self, group: Group<'_, f64>, centred: bool) -> TrackedMoments {
        let count = group.len() as f64;
        // Divided first, so that the sum cannot overflow.
        let mean_abs = group.iter().map(|x| x.abs() / count).sum();
        self.bounded(Reference.moments(group, centred), mean_abs, centred)
    }

    fn stored(&self, mean: f64, variance: f64) -> TrackedMoments {
        self.bounded(Reference.stored(mean, variance), 0.0, true)
    }

    fn averaged(&self, mean: Tracked, variance: Tracked) -> TrackedMoments {
        let (below, above) = (variance.error, variance.error);
        TrackedMoments { mean_error: mean.error, below, above, ..self.stored(mean.value, variance.value) }
    }

    fn mean(&self, moments: &TrackedMoments) -> Tracked {
        Tracked { value: moments.mean, error: moments.mean_error, unit: self.unit }
    }

    fn variance(&self, moments: &TrackedMoments, degrees_of_freedom: u8) -> Tracked {
        let error = moments.below.max(moments.above);
        let (factor, rounding) = match moments.count {
            Some(count) if degrees_of_freedom > 0 => (bessel(count, degrees_of_freedom), self.unit),
            _ => (1.0, 0.0),
        };
        Tracked {
            value: factor * moments.variance,
            error: factor * (error + rounding * (moments.variance + error)),
            unit: self.unit,
        }
    }

    fn scaling(&self, moments: &TrackedMoments, scale: &Scale) -> TrackedScaling {
        let u = self.unit;
        let factor = moments.count.map_or(1.0, |n| bessel(n, scale.degrees_of_freedom));
        let sigma = |variance: f64| match scale.eps_place {
            EpsPlace::InsideRoot => (variance.max(0.0) + scale.eps).sqrt(),
            EpsPlace::OutsideRoot => variance.max(0.0).sqrt() + scale.eps,
            EpsPlace::LowerLimit => variance.max(scale.eps).sqrt(),
        };
        // A stored variance may be negative: then σ is NaN, and so is every bound.
        let v = moments.variance * factor;
        let s = if v < 0.0 { (v + scale.eps).sqrt() } else { sigma(v) };
        let relative = if moments.centred {
            let (q, p) = (sigma(v - moments.below * factor), sigma(v + moments.above * factor));
            // The differences of squares are the bounds themselves: subtracting roots would cancel.
            let (low, high) = match scale.eps_place {
                EpsPlace::InsideRoot => {
                    (ratio(moments.below * factor, q * (q + s)), ratio(moments.above * factor, p * (p + s)))
                }
                EpsPlace::OutsideRoot | EpsPlace::LowerLimit => (ratio(s - q, q), ratio(p - s, p)),
            };
            (low.max(high) + 5.0 * u) * (1.0 + 8.0 * u)
        } else {
            let t = 0.5 * ratio(moments.above, s * s);
            (t * (1.0 + 2.0 * t) + 4.0 * u + 16.0 * u * u) * (1.0 + 6.0 * u)
        };
        let fold = if !self.law.folded || !moments.centred {
            0.0
        } else if moments.count.is_some() {
            (1.0 + 4.0 * u + relative) * u
        } else {
            (1.0 + 12.0 * u) * u
        };
        TrackedScaling { mean: moments.mean, mean_error: moments.mean_error, sigma: s, relative, fold }
    }

    fn rescale(
        &self,
        run: &[f64],
        scaling: &TrackedScaling,
        weight: Option<Parameter<'_, f64>>,
        bias: Option<Parameter<'_, f64>>,
        output: &mut [Tracked],
    ) {
        let (u, least) = (self.unit, underflow(self.unit));
        let TrackedScaling { mean, mean_error, sigma, relative, fold } = *scaling;
        for (index, (&x, out)) in run.iter().zip(output).enumerate() {
            let y = (x - mean) / sigma;
            let lost = if x == mean && mean_error == 0.0 { 0.0 } else { least };
            let mut error = mean_error / sigma * (1.0 + relative) + y.abs() * relative + lost;
            let reach = x.abs() + 2.0 * (mean.abs() + mean_error);
            let mut folded = fold * reach / sigma;
            if fold > 0.0 {
                folded += lost;
            }
            let mut z = y;
            if weight.is_some() || bias.is_some() {
                let w = weight.map_or(1.0, |w| w.at(index));
                let b = bias.map_or(0.0, |b| b.at(index));
                z = w * y + b;
                error = (w.abs() * error + u * (2.0 * (w * y).abs() + b.abs())) * (1.0 + 2.0 * u)
                    + w.abs() * folded * (1.0 + 2.0 * u)
                    + fold * b.abs();
                if fold > 0.0 && w != 0.0 {
                    error += reach * least;
                }
            } else {
                error += folded;
            }
            // The bound itself is computed in binary64.
            *out = Tracked { value: z, error: error * (1.0 + 1e-12), unit: u };
        }
    }

    fn mix(&self, old: f64, new: Tracked, factor: Factor) -> Tracked {
        self.mix_again(Tracked { value: old, error: 0.0, unit: self.unit }, new, factor)
    }

    fn mix_again(&self, old: Tracked, new: Tracked, factor: Factor) -> Tracked {
        let Tracked { value: old, error: carried, .. } = old;
        let u = self.unit;
        let of_new = factor.of_new();
        let alpha = of_new.abs();
        // Beyond [0, 1] the weight of the old value is larger than 1.
        let old_weight = (1.0 - of_new).abs().max(1.0);
        // 1 − d̂ with a rounded decay d̂ is off by u·d, however small it is.
        let of_decay = if let Factor::OfOld(decay) = factor { decay.abs() } else { 0.0 };
        let new_weight = 4.0 * alpha + of_decay;
        let error = alpha * new.error + u * (3.0 * old.abs() * old_weight + new_weight * (new.value.abs() + new.error));
        let error = error + carried * ((1.0 - of_new).abs() + 3.0 * u * old_weight);
        let value = (1.0 - of_new) * old + of_new * new.value;
        Tracked { value, error: error * (1.0 + 6.0 * u) * (1.0 + 1e-12), unit: u }
    }

    fn inverse(&self, scaling: &TrackedScaling) -> Tracked {
        let value = 1.0 / scaling.sigma;
        Tracked { value, error: value * scaling.relative, unit: self.unit }
    }

    /// ```text
    /// S1 = mean a   S2 = mean(a·y)   E1 = γ_{h+3}·mean|a|   E2 = γ_{h+5}·mean|a·y| + (1 + γ_{h+5})·mean(|a|·B)
    /// P = [E1 + |y|·E2 + B(|S2| + E2) + 4u(|a| + |S1| + |y·S2|)]/s        bound (P(1 + ρ) + |dx|·ρ)(1 + 8u)
    /// folded   E2 + γ_{h+5}(mean(|a||x|) + 2(|μ| + D)·mean|a|)/s·(1 + ρ)   P + 4u(|S2| + E2)(|x| + 2(|μ| + D))/s²
    /// carried  P + [e + mean e + (|y| + B)·mean(e(|y| + B))]/s      e the error of a where it is more than a product's
    /// ```
    /// with B the bound of y: the sums carry the roundings of their terms (a product each for E1, two for E2) and of the
    /// division, the bracket four more; a folded program sums a·x and subtracts μ·Σa. Where a is not 0, each product and each
    /// division may lose η: E1 + η, E2 + 2η, P + η/s, the bound + η; folded E2 + 2η/s, P + (1 + 1/s)(|x| + 2(|μ| + D))·η.
    fn input_gradient(
        &self,
        x: &[f64],
        a: &[Tracked],
        y: &[Tracked],
        scaling: &TrackedScaling,
        centred: bool,
    ) -> Vec<Tracked> {
        let u = self.unit;
        let n = a.len() as f64;
        let h = self.depth.of(a.len());
        let TrackedScaling { mean, mean_error, sigma, relative, fold } = *scaling;
        let mean_of = |term: &dyn Fn(usize) -> f64| (0..a.len()).map(term).sum::<f64>() / n;
        let s1 = if centred { mean_of(&|i| a[i].value) } else { 0.0 };
        let s2 = mean_of(&|i| a[i].value * y[i].value);
        let mean_a = mean_of(&|i| a[i].value.abs());
        let lost = if a.iter().all(|a| a.is_zero()) { 0.0 } else { underflow(u) };
        let e1 = if centred { self.gamma(h + 3.0) * mean_a + lost } else { 0.0 };
        let g = self.gamma(h + 5.0);
        let mut e2 = g * mean_of(&|i| (a[i].value * y[i].value).abs())
            + (1.0 + g) * mean_of(&|i| a[i].value.abs() * y[i].error)
            + 2.0 * lost;
        // The product of a weight is counted below; what was rounded on the way, or computed, comes on top.
        let carried = |a: &Tracked| if a.error > 2.0 * u * a.value.abs() { a.error } else { 0.0 };
        let reach = |y: &Tracked| y.value.abs() + y.error;
        let carried_mean = if centred { mean_of(&|i| carried(&a[i])) } else { 0.0 };
        let carried_along = mean_of(&|i| carried(&a[i]) * reach(&y[i]));
        let offset = 2.0 * (mean.abs() + mean_error);
        let folded = fold > 0.0;
        if folded {
            let raw = mean_of(&|i| (a[i].value * x[i]).abs()) + offset * mean_a;
            e2 += (g * raw + 2.0 * lost) / sigma * (1.0 + relative);
        }
        let gradient = |((x, a), y): ((&f64, &Tracked), &Tracked)| {
            let value = (a.value - s1 - y.value * s2) / sigma;
            let size = a.value.abs() + s1.abs() + (y.value * s2).abs();
            let mut p = (e1 + y.value.abs() * e2 + y.error * (s2.abs() + e2) + 4.0 * u * size + lost) / sigma;
            p += (carried(a) + carried_mean + reach(y) * carried_along) / sigma;
            if folded {
                p += 4.0 * u * (s2.abs() + e2) * (x.abs() + offset) / (sigma * sigma);
                p += lost * (1.0 + 1.0 / sigma) * (x.abs() + offset);
            }
            let error = (p * (1.0 + relative) + value.abs() * relative + lost) * (1.0 + 8.0 * u) * (1.0 + 1e-12);
            Tracked { value, error, unit: u }
        };
        x.iter().zip(a).zip(y).map(gradient).collect()
    }

    fn parameter(&self, value: f64) -> Tracked {
        Tracked { value, error: self.unit * value.abs(), unit: self.unit }
    }

    fn cast(&self, value: Tracked, format: Format) -> Tracked {
        let u = format.unit_roundoff();
        // A type as wide as the accumulator's holds every value that there is.
        if u <= self.unit {
            return value;
        }
        let error = value.error * (1.0 + u) + u * value.value.abs() + format.half_subnormal();
        Tracked { error: error * (1.0 + 1e-12), ..value }
    }

    fn keep(&self, value: f64) -> Tracked {
        Tracked { value, error: 0.0, unit: self.unit }
    }

    fn running_quantity(&self, variance: Tracked, quantity: RunningQuantity, eps: f64) -> Tracked {
        match quantity {
            RunningQuantity::Variance => variance,
            RunningQuantity::StandardDeviation => variance.sqrt(),
            RunningQuantity::VariancePlusEps => variance + Tracked::constant(eps),
        }
    }
}

/// a/b, where 0/0 is 0.
pub(super) fn ratio(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a / b }
}

/// The larger of two bounds; NaN, which bounds nothing, where one of them is: `f64::max` would drop it.
pub(super) fn wider(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// What it does to vᵝ that β is rounded to unit u: |v^(β(1+δ))/vᵝ − 1| ≤ e^(u·|β·ln v|) − 1 for |δ| ≤ u. Nothing where β is
/// a number of that precision.
pub(super) fn rounded_exponent(value: f64, exponent: f64, unit: f64) -> f64 {
    let spacing = 2.0 * unit * power_of_two(exponent_of(exponent));
    if (exponent / spacing).fract() == 0.0 { 0.0 } else { off_exponent(value, exponent, unit) }
}

/// The same for the exponent 1/degree of a root: that of a cube root is no number of any precision.
pub(super) fn rounded_inverse(value: f64, degree: f64, unit: f64) -> f64 {
    let exponent = 1.0 / degree;
    let is_exact = exponent.mul_add(degree, -1.0) == 0.0;
    if is_exact { rounded_exponent(value, exponent, unit) } else { off_exponent(value, exponent, unit) }
}

fn off_exponent(value: f64, exponent: f64, unit: f64) -> f64 {
    if unit == 0.0 || value == 0.0 { 0.0 } else { (unit * (exponent * value.abs().ln()).abs()).exp_m1() }
}

/// How far x^exponent may be from value^exponent where x is within `error` of `value`.
pub(super) fn spread_of_power(value: f64, error: f64, exponent: f64) -> f64 {
    if error == 0.0 {
        return 0.0;
    }
    let power = value.powf(exponent);
    let ends = [(value - error).max(0.0), value + error].map(|end| (end.powf(exponent) - power).abs());
    wider(ends[0], ends[1])
}

/// η, the most that a product loses to underflow in the accumulating type of unit roundoff `unit`: binary32 or binary64.
/// Nothing where nothing is rounded.
pub(super) fn underflow(unit: f64) -> f64 {
    match unit {
        0.0 => 0.0,
        _ if unit < 1e-10 => Format::F64.half_subnormal(),
        _ => Format::F32.half_subnormal(),
    }
}

/// Running error analysis (Wilkinson): each operation adds its own rounding to what its operands carry.
impl Tracked {
    fn is_zero(self) -> bool {
        self.value == 0.0 && self.error == 0.0
    }

    fn computed(value: f64, carried: f64, a: Tracked, b: Tracked) -> Tracked {
        let unit = a.unit.max(b.unit);
        Tracked { value, error: (carried + unit * (value.abs() + carried)) * (1.0 + 1e-12), unit }
    }

    /// A library's power, which is granted two roundings. `off`: what a rounded exponent does to it.
    fn power(self, exponent: f64, off: f64) -> Tracked {
        let value = self.value.powf(exponent);
        let carried = spread_of_power(self.value, self.error, exponent);
        let lost = if self.is_zero() { 0.0 } else { underflow(self.unit) };
        let granted = Tracked::computed(value, carried + lost, self, self);
        Tracked { error: granted.error + (self.unit + off) * value.abs(), ..granted }
    }
}

impl std::ops::Add for Tracked {
    type Output = Tracked;
    fn add(self, other: Tracked) -> Tracked {
        Tracked::computed(self.value + other.value, self.error + other.error, self, other)
    }
}

impl std::ops::Sub for Tracked {
    type Output = Tracked;
    fn sub(self, other: Tracked) -> Tracked {
        self + -other
    }
}

impl std::ops::Neg for Tracked {
    type Output = Tracked;
    fn neg(self) -> Tracked {
        Tracked { value: -self.value, ..self }
    }
}

impl std::ops::Mul for Tracked {
    type Output = Tracked;
    fn mul(self, other: Tracked) -> Tracked {
        let carried = self.value.abs() * other.error + self.error * other.value.abs() + self.error * other.error;
        let exact = self.is_zero() || other.is_zero();
        let lost = if exact { 0.0 } else { underflow(self.unit.max(other.unit)) };
        Tracked::computed(self.value * other.value, carried + lost, self, other)
    }
}

impl std::ops::Div for Tracked {
    type Output = Tracked;
    fn div(self, other: Tracked) -> Tracked {
        let value = self.value / other.value;
        let smallest = (other.value.abs() - other.error).max(0.0);
        let carried = ratio(self.error + value.abs() * other.error, smallest);
        let lost = if self.is_zero() { 0.0 } else { underflow(self.unit.max(other.unit)) };
        Tracked::computed(value, carried + lost, self, other)
    }
}

impl Real for Tracked {
    fn constant(value: f64) -> Tracked {
        Tracked { value, error: 0.0, unit: 0.0 }
    }

    fn powf(self, exponent: f64) -> Tracked {
        self.power(exponent, rounded_exponent(self.value, exponent, self.unit))
    }

    fn root(self, degree: f64) -> Tracked {
        self.power(1.0 / degree, rounded_inverse(self.value, degree, self.unit))
    }

    /// In any order: no term passes more than n − 1 additions.
    fn sum(terms: impl Iterator<Item = Tracked>) -> Tracked {
        let (mut sum, mut size, mut error, mut unit, mut count) = (0.0, 0.0, 0.0, 0.0_f64, 0.0);
        for term in terms {
            sum += term.value;
            size += term.value.abs();
            error += term.error;
            unit = unit.max(term.unit);
            count += 1.0;
        }
        let product = (count - 1.0_f64).max(0.0) * unit;
        let gamma = if product < 1.0 { product / (1.0 - product) } else { f64::INFINITY };
        Tracked { value: sum, error: (error + gamma * (size + error)) * (1.0 + 1e-12), unit }
    }

    fn sqrt(self) -> Tracked {
        let root = self.value.sqrt();
        // |√a − √b| = |a − b|/(√a + √b) ≤ |a − b|/√a
        Tracked::computed(root, ratio(self.error, root), self, self)
    }

    fn function(self, function: Function) -> Tracked {
        let value = function.of(self.value);
        let carried = if self.error == 0.0 { 0.0 } else { function.steepest(self.value, self.error) * self.error };
        let lost = if value == 0.0 && self.is_zero() { 0.0 } else { underflow(self.unit) };
        let error = carried + function.granted() * (self.unit * (value.abs() + carried) + lost);
        Tracked { value, error: error * (1.0 + 1e-12), ..self }
    }

    fn step(self) -> Tracked {
        let decided = self.error == 0.0 || self.value.abs() > self.error;
        Tracked { error: if decided { 0.0 } else { 1.0 }, ..Tracked::constant(step_of(self.value)) }
    }

    fn where_larger(self, other: Tracked, own: Tracked, others: Tracked) -> Tracked {
        let is_own = self.value >= other.value || self.value.is_nan();
        let (chosen, left) = if is_own { (own, others) } else { (others, own) };
        let decided = (self.value - other.value).abs() > self.error + other.error || self.error + other.error == 0.0;
        let apart = (chosen.value - left.value).abs() + left.error;
        if decided { chosen } else { Tracked { error: wider(chosen.error, apart), ..chosen } }
    }

    fn max(self, other: Tracked) -> Tracked {
        let larger = if self.value >= other.value || self.value.is_nan() { self } else { other };
        let decided = (self.value - other.value).abs() > self.error + other.error;
        Tracked { error: if decided { larger.error } else { wider(self.error, other.error) }, ..larger }
    }

    fn value(self) -> f64 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;
    use crate::arithmetic::draws;

    /// Where one branch has no bound, the larger of both has none.
    #[test]
    fn no_choice_makes_a_bound_of_none() {
        let (known, unknown) = (Tracked::constant(1.0), Tracked { value: f64::INFINITY, error: f64::NAN, unit: 0.0 });
        assert!(known.max(unknown).error.is_nan() && unknown.max(known).error.is_nan());
        assert!(known.where_larger(unknown, known, unknown).error.is_nan());
        assert!(wider(1.0, f64::NAN).is_nan() && wider(f64::NAN, 1.0).is_nan());
    }

    const U: f64 = 5.960464477539063e-8; // 2⁻²⁴

    /// A program in binary32 has 0.6 as 0.6000000238…, which a large base makes worse.
    #[test]
    fn a_rounded_exponent_is_within_its_bound() {
        for base in [1.5e-8_f64, 0.3, 2.0, 77.0, 1e6, 3e30] {
            let base = f64::from(base as f32);
            let (power, rounded) = (libm::pow(base, 0.6), libm::pow(base, f64::from(0.6_f32)));
            let off = (rounded / power - 1.0).abs();
            let bound = rounded_exponent(base, 0.6, U);
            assert!(off <= bound * (1.0 + 1e-9) && bound <= 3.0 * off, "{base:e}: {off:e} and {bound:e}");
            assert_eq!(rounded_exponent(base, 0.75, U), 0.0);
            let tracked = Tracked { value: base, error: 0.0, unit: U }.powf(0.6);
            let single = f64::from(libm::powf(base as f32, 0.6));
            assert!((single - power).abs() <= tracked.error, "{base:e}");
        }
        assert_eq!(rounded_exponent(0.0, 0.6, U), 0.0);
        assert_eq!(rounded_exponent(2.0, 0.6, 0.0), 0.0);
    }

    /// 1/3 is no number of binary64 either: a cube root by it is off more than a library's power is granted.
    #[test]
    fn the_exponent_of_a_root_is_rounded_in_any_type() {
        let u = Format::F64.unit_roundoff();
        let mut brought_out = false;
        for exponent in [-900, -90, 0, 90, 900] {
            let cube = Tracked { value: 2f64.powi(exponent), error: 0.0, unit: u };
            let off = (libm::pow(cube.value, 1.0 / 3.0) - 2f64.powi(exponent / 3)).abs();
            assert!(off <= cube.root(3.0).error, "2^{exponent}: {off:e}");
            brought_out |= off > cube.powf(1.0 / 3.0).error;
        }
        assert!(brought_out);
        assert_eq!(rounded_inverse(77.0, 4.0, u), 0.0);
    }

    fn gamma(k: f64) -> f64 {
        k * U / (1.0 - k * U)
    }

    fn bounds(law: Law, x: &[f64], eps: f64, w: f64, b: f64) -> Vec<Tracked> {
        let tracker = Tracker { law, unit: U, depth: SummationDepth::Any };
        let scaling = tracker.scaling(&tracker.moments(Group::contiguous(x), true), &Scale::inside_root(eps));
        let mut output = vec![Tracked::constant(0.0); x.len()];
        tracker.rescale(x, &scaling, Some(Parameter::One(w)), Some(Parameter::One(b)), &mut output);
        output
    }

    /// The bounds written out once more, as the module's documentation has them.
    #[test]
    fn the_bounds_are_those_of_the_documentation() {
        let x = [3.0, 1.0, 4.0, 1.5, 9.25, 2.5];
        let (eps, w, b) = (1e-3, -1.75, 0.5);
        let (n, h) = (6.0, 5.0);
        let mean = x.iter().sum::<f64>() / n;
        let v = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let s = (v + eps).sqrt();
        let d = gamma(h + 2.0) * x.iter().map(|x| x.abs()).sum::<f64>() / n;
        let g = gamma(h + 5.0);
        let (s_below, s_above) = (g * v, g * v + d * d * (1.0 + g));
        let w_shared = 2.2 * d * v.sqrt();
        let laws = [(s_below, s_above), (v.min(s_below + w_shared), s_above + w_shared)];
        for (index, law) in Law::GOOD.into_iter().enumerate() {
            let (below, above) = laws[index / 2];
            let (q, p) = (((v - below).max(0.0) + eps).sqrt(), (s * s + above).sqrt());
            let rho = ((below / (q * (q + s))).max(above / (p * (p + s))) + 5.0 * U) * (1.0 + 8.0 * U);
            for (x, tracked) in x.iter().zip(bounds(law, &x, eps, w, b)) {
                let y = (x - mean) / s;
                let plain = d / s * (1.0 + rho) + y.abs() * rho;
                let mut bound =
                    w.abs() * plain * (1.0 + 2.0 * U) + U * (2.0 * (w * y).abs() + b.abs()) * (1.0 + 2.0 * U);
                if law.folded {
                    let size = (x.abs() + 2.0 * (mean.abs() + d)) * w.abs() / s;
                    bound += (1.0 + 4.0 * U + rho) * U * (size + b.abs());
                }
                // The value is the same formula in binary64; the bound grants a program that folds first 2u more.
                assert_relative_eq!(tracked.value, w * y + b, max_relative = 64.0 * f64::EPSILON);
                assert_relative_eq!(tracked.error, bound, max_relative = 4.0 * U);
            }
        }
    }

    /// Programs in binary32 over all of its range, evaluating with stored statistics: what underflows comes back with a large
    /// weight. Without the terms in η the bound would be left.
    #[test]
    fn what_underflows_and_comes_back_is_within_the_bound() {
        let mut values = crate::case::values::Values::new(11);
        let mut of_size = |exponents: std::ops::Range<i32>| {
            let exponent = exponents.start + values.below((exponents.end - exponents.start) as usize) as i32;
            (values.normal() * 2f64.powi(exponent)) as f32
        };
        let mut brought_back = [0; 3];
        for _ in 0..20_000 {
            let (x, m) = (of_size(-120..60), of_size(-120..60));
            let m = if x.to_bits() % 3 == 0 { 0.0 } else { m };
            let (v, w, b) = (of_size(-120..120).abs(), of_size(-120..60), of_size(-120..-60));
            let r = 1.0 / (v + 1e-30).sqrt();
            let programs = [(x - m) * r * w + b, (x * r + (-m * r)) * w + b, x * (w * r) + (b - m * (w * r))];
            let exact = |x: f32| f64::from(x);
            let truth = (exact(x) - exact(m)) / (exact(v) + 1e-30).sqrt() * exact(w) + exact(b);
            for (index, z) in programs.into_iter().enumerate().filter(|(_, z)| z.is_finite()) {
                let law = Law::GOOD[usize::from(index > 0)];
                let tracker = Tracker { law, unit: U, depth: SummationDepth::Any };
                let scaling = tracker.scaling(&tracker.stored(exact(m), exact(v)), &Scale::inside_root(1e-30));
                let mut output = [Tracked::constant(0.0)];
                let (weight, bias) = (Some(Parameter::One(exact(w))), Some(Parameter::One(exact(b))));
                tracker.rescale(&[exact(x)], &scaling, weight, bias, &mut output);
                let (off, stored) = ((exact(z) - truth).abs(), 4.0 * underflow(U));
                assert!(off <= output[0].error + stored, "{index}: x {x:e}, m {m:e}, v {v:e}, w {w:e}, b {b:e}");
                let reach = exact(x).abs() + 2.0 * exact(m).abs();
                let lost = underflow(U) * [exact(w).abs(), 2.0 * exact(w).abs(), reach][index];
                brought_back[index] += usize::from(off > output[0].error - lost + stored);
            }
        }
        assert!(brought_back.iter().all(|&count| count > 10), "{brought_back:?}");
    }

    #[test]
    fn a_deeper_tree_and_a_wider_law_never_make_a_bound_smaller() {
        let x: Vec<f64> = (0..100).map(|i| f64::from(i * i % 17) + 100.0).collect();
        let bound = |law, depth| {
            let tracker = Tracker { law, unit: U, depth };
            let moments = tracker.moments(Group::contiguous(&x), true);
            tracker.scaling(&moments, &Scale::inside_root(1e-5)).relative
        };
        let depths = [SummationDepth::Pairwise, SummationDepth::Blocks(16), SummationDepth::Any];
        for law in Law::GOOD {
            let bounds = depths.map(|depth| bound(law, depth));
            assert!(bounds.is_sorted(), "{bounds:?}");
        }
        let of_law = Law::GOOD.map(|law| bound(law, SummationDepth::Any));
        assert!(of_law.is_sorted(), "{of_law:?}");
        assert!(of_law[3] < bound(Law::ONE_PASS, SummationDepth::Any));
    }

    #[test]
    fn running_error_analysis_covers_f32() {
        let mut values = crate::case::values::Values::new(7);
        for _ in 0..draws(10_000) {
            let [a, b, c] = [(); 3].map(|()| (values.normal() * 64.0) as f32);
            let track = |x: f32| Tracked { unit: U, ..Tracked::constant(f64::from(x)) };
            let tracked = (track(a) * track(b) + track(c)) / (track(b) * track(b) + Tracked::constant(1.0)).sqrt();
            let computed = (a * b + c) / (b * b + 1.0).sqrt();
            assert!((f64::from(computed) - tracked.value).abs() <= tracked.error, "{a} {b} {c}");
        }
    }
}
