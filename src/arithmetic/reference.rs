//! The reference: moments and rescaling in double-double arithmetic, each result with its radius.
//!
//! ```text
//! pass 1   p ≈ mean x, of the first SAMPLE elements
//! pass 2   dᵢ = xᵢ − p exactly, in two parts     S = Σ dᵢ     Q = Σ dᵢ²
//!          δ = S/n     μ = p + δ     v = Q/n − δ²
//! pass 3   yᵢ = (dᵢ − δ)·r,   r = 1/√(v + eps)
//! ```
//! The pivot p is any number near the mean, so its error does not matter: μ is never formed, and the deviations keep
//! their relative accuracy at a mean of 10¹⁵ standard deviations. The mean of k of n elements is near: it is at most
//! √((n − k)/k) standard deviations away, so the subtraction in v costs log₂(n/k) bits and no more. Where it costs more
//! than the truth can spare, where squares over- or underflow, and where all elements may be equal, the group is looked
//! at again with care: with the mean of all elements, or the element that they equal, for a pivot, and scaled by 2⁻ᵏ
//! where max |x| is far from 1.
//!
//! # The lemma of the sums
//! Eight lanes, each a running sum s with a plain sum c of the exact errors (Ogita, Rump, Oishi, "Accurate sum and dot
//! product", SIAM J. Sci. Comput. 26, 2005), emptied into a double-double every [`BLOCK`](super::lanes::BLOCK) terms.
//! Within a block of m terms a lane's errors are at most u·Σ|d| each, |c| is below (m + 1)·u·Σ|d|, and adding to it costs
//! u of that m times, and 2u²·Σ|d| for each term that is put together first: c is off by at most 3m²u²·Σ|d|. For the
//! squares, whose own errors are u·d² and twice that for the lower part of d, |c| is below (m + 3)·u·Q and off by at most
//! (m² + 4m + 10)·u²·Q, which 3m²u²·Q covers, and the d_lo² that is left out. With m = 128 that is 2⁻⁹⁰ of Σ|d|, or of Q.
//! Emptying costs 3u² of the total each time, and the three levels of the sum over lanes 9u²: 32u² for each time
//! covers both.

use super::format::{exponent_of, power_of_two, scale};
use super::lanes::{self, Sums};
use super::{
    Arithmetic, DoubleDouble, EpsPlace, Factor, Group, Parameter, Plain, Real, RunningQuantity, Scale, Truth, bessel,
    double_double::two_sum,
};
use fearless_simd::Level;

/// Elements that the first pivot is a mean of.
const SAMPLE: usize = 256;
/// Runs shorter than this are gathered: they leave lanes empty.
const SHORT: usize = 64;

/// The arithmetic of the truth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

/// The statistics of a group, in units of 2^exponent (and 4^exponent for the variance).
#[derive(Clone, Copy, Debug)]
pub struct ReferenceMoments {
    /// The number of elements; `None` where the statistics are given.
    pub(crate) count: Option<usize>,
    /// All else is in units of two to this power.
    exponent: i32,
    /// Any number near the mean.
    pivot: f64,
    /// The mean is pivot + delta.
    delta: Truth,
    /// The biased variance, or the mean square.
    variance: Truth,
    /// Some element is NaN or infinite: then these moments are what IEEE arithmetic makes of the definition.
    special: bool,
}

/// x ↦ ((x·2⁻ᵏ − p) − δ)·r·2^shift.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceScaling {
    exponent: i32,
    pivot: f64,
    delta: Truth,
    inverse: Truth,
    shift: i32,
    special: bool,
}

/// x ↦ ((x − p) − δ)·r without radii, for values that neither over- nor underflow on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// p.
    pub pivot: f64,
    /// δ.
    pub delta: DoubleDouble,
    /// r = 1/σ.
    pub inverse: DoubleDouble,
    /// What is subtracted.
    pub shift: Shift,
}

/// What a [`Line`] subtracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shift {
    /// Nothing: there is no mean.
    None,
    /// A p that is the mean rounded to binary64, and a δ that is so small that it may go with the errors of x − p: what
    /// it loses there, u²·|p|, is below 2⁻⁸²·σ.
    Once,
    /// Any p and δ: two exact subtractions.
    Twice,
}

impl ReferenceScaling {
    /// The map without radii, if they are so small that nobody misses them and no power of two is in it.
    pub(crate) fn line(&self, centred: bool) -> Option<Line> {
        let ReferenceScaling { exponent, pivot, delta, inverse, shift, special } = *self;
        let usual = !special && exponent == 0 && shift == 0 && pivot.abs() < 1e200;
        let ranged = matches!(inverse.value.hi, 1e-100..1e100);
        let sharp = inverse.radius <= power_of_two(-74) * inverse.value.hi;
        if !(usual && ranged && sharp) {
            return None;
        }
        let (delta, inverse) = (delta.value, inverse.value);
        if !centred {
            return Some(Line { pivot, delta, inverse, shift: Shift::None });
        }
        let mean = delta + pivot;
        if mean.hi.abs() * inverse.hi > power_of_two(24) {
            return Some(Line { pivot, delta, inverse, shift: Shift::Twice });
        }
        Some(Line { pivot: mean.hi, delta: DoubleDouble::from(mean.lo), inverse, shift: Shift::Once })
    }
}

impl Arithmetic for Reference {
    type Input = f64;
    type Real = Truth;
    type Moments = ReferenceMoments;
    type Scaling = ReferenceScaling;

    fn moments(&self, group: Group<'_, f64>, centred: bool) -> ReferenceMoments {
        self.moments_at(Level::new(), group, centred)
    }

    fn stored(&self, mean: f64, variance: f64) -> ReferenceMoments {
        ReferenceMoments {
            count: None,
            exponent: 0,
            pivot: mean,
            delta: Truth::exact(0.0),
            variance: Truth::exact(variance),
            special: !(mean.is_finite() && variance.is_finite()),
        }
    }

    fn averaged(&self, mean: Truth, variance: Truth) -> ReferenceMoments {
        let pivot = mean.value.hi;
        let delta = if pivot.is_finite() { mean - Truth::exact(pivot) } else { Truth::exact(0.0) };
        let special = !(mean.is_finite() && variance.is_finite());
        ReferenceMoments { delta, variance, special, ..self.stored(pivot, variance.value.hi) }
    }

    fn mean(&self, moments: &ReferenceMoments) -> Truth {
        if moments.special {
            return Truth::exact(moments.pivot);
        }
        let mean = if moments.delta == Truth::exact(0.0) {
            Truth::exact(moments.pivot)
        } else {
            Truth::exact(moments.pivot) + moments.delta
        };
        mean.scale(moments.exponent)
    }

    fn variance(&self, moments: &ReferenceMoments, degrees_of_freedom: u8) -> Truth {
        unbiased(moments, degrees_of_freedom).scale(2 * moments.exponent)
    }

    fn scaling(&self, moments: &ReferenceMoments, rule: &Scale) -> ReferenceScaling {
        let mut scaling = ReferenceScaling {
            exponent: moments.exponent,
            pivot: moments.pivot,
            delta: moments.delta,
            inverse: Truth::exact(f64::NAN),
            shift: 0,
            special: true,
        };
        let variance = unbiased(moments, rule.degrees_of_freedom);
        if moments.special || !rule.eps.is_finite() || !variance.value.hi.is_finite() {
            let given =
                moments.count.map_or(variance.value.hi, |_| self.variance(moments, rule.degrees_of_freedom).value.hi);
            scaling.inverse = Truth::exact((1.0 + rule.error) / plain_sigma(given, rule));
            return scaling;
        }
        // A common unit 2^m for the deviations and eps, so that neither overflows: the smaller may vanish beside the other.
        let eps_exponent = match rule.eps_place {
            _ if rule.eps == 0.0 => i32::MIN,
            EpsPlace::InsideRoot | EpsPlace::LowerLimit => exponent_of(rule.eps).div_euclid(2),
            EpsPlace::OutsideRoot => exponent_of(rule.eps),
        };
        let near = moments.exponent == 0 && (eps_exponent == i32::MIN || eps_exponent.abs() < 300);
        let unit = if near || variance.value.hi == 0.0 && eps_exponent == i32::MIN {
            moments.exponent
        } else if variance.value.hi == 0.0 && variance.radius == 0.0 {
            eps_exponent
        } else {
            moments.exponent.max(eps_exponent)
        };
        let variance = variance.scale(2 * (moments.exponent - unit));
        let sigma = match rule.eps_place {
            EpsPlace::InsideRoot if rule.eps == 0.0 => variance.sqrt(),
            EpsPlace::InsideRoot => (variance + Truth::exact(rule.eps).scale(-2 * unit)).sqrt(),
            EpsPlace::OutsideRoot => variance.sqrt() + Truth::exact(rule.eps).scale(-unit),
            EpsPlace::LowerLimit => variance.max(Truth::exact(rule.eps).scale(-2 * unit)).sqrt(),
        };
        if sigma.value.hi <= 0.0 || sigma.value.hi.is_nan() {
            let undecided = variance.radius > 0.0 && rule.eps >= 0.0;
            if undecided {
                scaling.inverse = Truth { value: DoubleDouble::ONE, radius: f64::INFINITY };
                scaling.special = false;
            } else {
                scaling.inverse = Truth::exact((1.0 + rule.error) / sigma.value.hi);
            }
            return scaling;
        }
        let one = Truth { value: DoubleDouble::sum(1.0, rule.error), radius: 0.0 };
        scaling.inverse = one / sigma;
        scaling.shift = moments.exponent - unit;
        scaling.special = false;
        scaling
    }

    fn rescale(
        &self,
        run: &[f64],
        scaling: &ReferenceScaling,
        weight: Option<Parameter<'_, f64>>,
        bias: Option<Parameter<'_, f64>>,
        output: &mut [Truth],
    ) {
        let ReferenceScaling { exponent, pivot, delta, inverse, shift, special } = *scaling;
        for (index, (&x, out)) in run.iter().zip(output).enumerate() {
            let (w, b) = (weight.map(|w| w.at(index)), bias.map(|b| b.at(index)));
            if special || !x.is_finite() {
                *out = special_element(x, scaling, w, b);
                continue;
            }
            let scaled = scale_by(x, -exponent);
            let (hi, lo) = two_sum(scaled, -pivot);
            let deviation = DoubleDouble { hi, lo };
            // Truth's own subtraction would add a rounding where there is none to make.
            let difference = if delta.value == DoubleDouble::ZERO && delta.radius == 0.0 {
                Truth { value: deviation, radius: 0.0 }
            } else {
                Truth { value: deviation, radius: 0.0 } - delta
            };
            let lost = if scale_by(scaled, exponent) == x { 0.0 } else { f64::MIN_POSITIVE };
            let difference = Truth { radius: difference.radius + lost, ..difference };
            let mut z = (difference * inverse).scale(shift);
            if let Some(w) = w {
                z = if w == 1.0 { z } else { z * Truth::exact(w) };
            }
            if let Some(b) = b {
                z = if b == 0.0 { z } else { z + Truth::exact(b) };
            }
            *out = z;
        }
    }

    fn mix(&self, old: f64, new: Truth, factor: Factor) -> Truth {
        self.mix_again(Truth::exact(old), new, factor)
    }

    fn mix_again(&self, old: Truth, new: Truth, factor: Factor) -> Truth {
        let one_minus = |x: f64| Truth { value: DoubleDouble::sum(1.0, -x), radius: 0.0 };
        let (of_old, of_new) = match factor {
            Factor::OfNew(momentum) => (one_minus(momentum), Truth::exact(momentum)),
            Factor::OfOld(decay) => (Truth::exact(decay), one_minus(decay)),
            Factor::Reciprocal(batches) => {
                let of_new = Truth::exact(1.0) / Truth::exact(batches as f64);
                (Truth::exact(1.0) - of_new, of_new)
            }
        };
        of_old * old + of_new * new
    }

    fn inverse(&self, scaling: &ReferenceScaling) -> Truth {
        // 1/σ is in units of 2^(shift − exponent).
        scaling.inverse.scale(scaling.shift - scaling.exponent)
    }

    fn keep(&self, value: f64) -> Truth {
        Truth::exact(value)
    }

    fn running_quantity(&self, variance: Truth, quantity: RunningQuantity, eps: f64) -> Truth {
        Plain::<Truth>::new().running_quantity(variance, quantity, eps)
    }
}

impl Reference {
    /// The moments, by the vectors of `level`; the bits are those of any other level.
    pub(crate) fn moments_at(&self, level: Level, group: Group<'_, f64>, centred: bool) -> ReferenceMoments {
        let mut scratch = Vec::new();
        let short = group.slices().next().is_some_and(|slice| slice.len() < SHORT);
        let group = if short { Group::contiguous(group.gather(&mut scratch)) } else { group };
        ordinary_moments(level, &group, centred).unwrap_or_else(|| careful_moments(level, &group, centred))
    }
}

/// The moments, if nothing is unusual.
fn ordinary_moments(level: Level, group: &Group<'_, f64>, centred: bool) -> Option<ReferenceMoments> {
    let pivot = centred.then(|| lanes::rough_mean(level, group.slices(), SAMPLE));
    // A NaN is not usual either.
    if pivot.is_some_and(|pivot| !matches!(pivot.abs(), 0.0..1e90)) {
        return None;
    }
    let sums = lanes::sums(level, group.slices(), pivot);
    if !matches!(sums.squares.hi / group.len() as f64, 1e-180..1e180) {
        return None;
    }
    let moments = moments_of_sums(group.len(), 0, pivot, sums);
    (moments.variance.radius <= power_of_two(-74) * moments.variance.value.hi).then_some(moments)
}

/// The moments of any group.
fn careful_moments(level: Level, group: &Group<'_, f64>, centred: bool) -> ReferenceMoments {
    let range = Range::of(group);
    if !range.finite || group.is_empty() {
        return special_moments(group, centred);
    }
    let largest = range.min.abs().max(range.max.abs());
    let exponent = match largest {
        0.0 => 0,
        largest if (-300..=300).contains(&exponent_of(largest)) => 0,
        largest => exponent_of(largest),
    };
    if range.min == range.max && centred {
        let (pivot, zero) = (scale(range.min, -exponent), Truth::exact(0.0));
        let count = Some(group.len());
        return ReferenceMoments { count, exponent, pivot, delta: zero, variance: zero, special: false };
    }
    let scaled: Vec<f64> = group.iter().map(|x| scale_by(x, -exponent)).collect();
    let slices = || std::iter::once(scaled.as_slice());
    let pivot = centred.then(|| lanes::rough_mean(level, slices(), usize::MAX));
    moments_of_sums(scaled.len(), exponent, pivot, lanes::sums(level, slices(), pivot))
}

/// Value and radius of mean and variance, by the lemma.
fn moments_of_sums(count: usize, exponent: i32, pivot: Option<f64>, sums: Sums) -> ReferenceMoments {
    let n = count as f64;
    let relative = power_of_two(-90) + 8.0 * sums.blocks as f64 * power_of_two(-104);
    // Squares, and elements that the scaling made subnormal, may lose this much each.
    let lost = if pivot.is_none() && sums.squares == DoubleDouble::ZERO { 0.0 } else { 4.0 * n * f64::MIN_POSITIVE };
    let mean_square =
        Truth { value: sums.squares / DoubleDouble::from(n), radius: (relative * sums.squares.hi + lost) / n * 1.001 };
    let (delta, variance) = match pivot {
        None => (Truth::exact(0.0), mean_square),
        Some(_) => {
            let delta = Truth {
                value: sums.sum / DoubleDouble::from(n),
                // Σ|d| ≤ √(n·Q)
                radius: (relative * mean_square.value.hi.sqrt() + lost / n) * 1.001,
            };
            let variance = mean_square - delta * delta;
            let below_zero = variance.value.hi < 0.0;
            (delta, if below_zero { Truth { value: DoubleDouble::ZERO, ..variance } } else { variance })
        }
    };
    let pivot = pivot.unwrap_or(0.0);
    ReferenceMoments { count: Some(count), exponent, pivot, delta, variance, special: false }
}

/// The variance with its divisor, in units of 4^exponent.
fn unbiased(moments: &ReferenceMoments, degrees_of_freedom: u8) -> Truth {
    match moments.count {
        Some(count) if degrees_of_freedom > 0 => {
            let rest = count as f64 - f64::from(degrees_of_freedom);
            if rest <= 0.0 || moments.special {
                return Truth::exact(moments.variance.value.hi * bessel(count, degrees_of_freedom));
            }
            moments.variance * Truth::exact(count as f64) / Truth::exact(rest)
        }
        _ => moments.variance,
    }
}

/// What is cheap to know of a group before its sums.
struct Range {
    min: f64,
    max: f64,
    finite: bool,
}

impl Range {
    fn of(group: &Group<'_, f64>) -> Range {
        let mut range = Range { min: f64::INFINITY, max: f64::NEG_INFINITY, finite: true };
        for slice in group.slices() {
            for &x in slice {
                range.min = range.min.min(x);
                range.max = range.max.max(x);
                range.finite &= x.is_finite();
            }
        }
        range
    }
}

/// x·2^exponent, free where the exponent is 0.
#[inline]
fn scale_by(x: f64, exponent: i32) -> f64 {
    if exponent == 0 { x } else { scale(x, exponent) }
}

/// The moments of a group with a NaN or an infinity in it: what IEEE arithmetic makes of the definition.
fn special_moments(group: &Group<'_, f64>, centred: bool) -> ReferenceMoments {
    let plain = Plain::<f64>::new();
    let moments = plain.moments(*group, centred);
    ReferenceMoments {
        count: Some(group.len()),
        exponent: 0,
        pivot: plain.mean(&moments),
        delta: Truth::exact(0.0),
        variance: Truth::exact(plain.variance(&moments, 0)),
        special: true,
    }
}

fn plain_sigma(variance: f64, rule: &Scale) -> f64 {
    match rule.eps_place {
        EpsPlace::InsideRoot => (variance + rule.eps).sqrt(),
        EpsPlace::OutsideRoot => variance.sqrt() + rule.eps,
        EpsPlace::LowerLimit => variance.max(rule.eps).sqrt(),
    }
}

/// An element where something is NaN or infinite, or σ is 0.
fn special_element(x: f64, scaling: &ReferenceScaling, weight: Option<f64>, bias: Option<f64>) -> Truth {
    let mean = scale(scaling.pivot, scaling.exponent);
    let y = (x - mean) * scaling.inverse.value.hi;
    Truth::exact(y * weight.unwrap_or(1.0) + bias.unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::super::exact::ExactGroup;
    use super::super::{Format, draws};
    use super::*;

    /// The rows that break lesser references.
    fn hard_rows() -> Vec<(&'static str, Vec<f64>)> {
        let third = 1.0 / 3.0;
        let two = |e: i32| power_of_two(e);
        vec![
            ("one value", vec![0.3]),
            ("two values", vec![0.3, -1.7]),
            ("three values", vec![0.1, 0.2, 0.4]),
            ("1e30", vec![1e30, 2e30, -3e30, 0.5e30]),
            ("1e200", vec![1e200, 2e200, -3e200, 0.5e200]),
            ("1e308", vec![1.7e308, 1.6e308, -1.7e308, 1.1e308]),
            ("1e-200", vec![1e-200, 2e-200, -3e-200, 0.5e-200]),
            ("subnormal", vec![5e-324, 1e-323, 0.0, -5e-324]),
            ("three scales", vec![two(120), two(60), third, -two(120), -two(60), 0.0, 0.0]),
            ("mean of 1e15 deviations", (0..37).map(|i| 1e15 + f64::from(i % 5)).collect()),
            ("one ulp", vec![1_234_567.125, 1_234_567.0, 1_234_567.0]),
            ("constant", vec![0.1; 100]),
        ]
    }

    fn million() -> Vec<f64> {
        let numbers = (0..draws(1_000_000) as u64).map(|i| ((i * 2_654_435_761) % 65_537) as f64 / 64.0);
        let mut million: Vec<f64> = numbers.collect();
        million[7] = 1e7;
        million
    }

    #[test]
    fn the_radius_holds_the_exact_value() {
        assert_the_radius_holds(hard_rows());
    }

    #[test]
    fn the_radius_holds_for_a_million_values() {
        assert_the_radius_holds(vec![("a million", million())]);
    }

    /// Value and radius hold the exact value, and the radius is small beside what there was before cancellation.
    fn assert_the_radius_holds(rows: Vec<(&str, Vec<f64>)>) {
        for (name, row) in rows {
            for (eps, centred) in [(1e-5, true), (1e-5, false), (0.0, true), (1e-300, true), (1e10, false)] {
                let group = Group::contiguous(&row);
                let exact_group = ExactGroup::new(row.iter().copied(), centred);
                let moments = Reference.moments(group, centred);
                let scaling = Reference.scaling(&moments, &Scale::inside_root(eps));
                let Some(exact_scale) = exact_group.scale(eps) else { continue };
                let sample: Vec<f64> = row.iter().copied().take(64).collect();
                let mut output = vec![Truth::exact(0.0); sample.len()];
                Reference.rescale(&sample, &scaling, None, None, &mut output);
                for (x, truth) in sample.iter().zip(&output) {
                    let exact = exact_group.element(&exact_scale, *x, None, None);
                    let (value, radius) = exact.double_double();
                    let error = (value - truth.value).hi.abs();
                    assert!(error <= truth.radius + radius, "{name}, eps {eps}, x {x}: {error:e} > {:e}", truth.radius);
                    if let Some(rounded) = truth.round(Format::F64) {
                        assert_eq!(rounded, exact.round(Format::F64), "{name}, eps {eps}, x {x}");
                    }
                }
            }
        }
    }

    /// Everywhere but on three scales in one row and in the subnormals the radius alone decides binary32.
    #[test]
    fn the_radius_decides_ordinary_rows() {
        for (name, row) in hard_rows().into_iter().chain([("a million", million())]) {
            if name == "three scales" || name == "subnormal" {
                continue;
            }
            let moments = Reference.moments(Group::contiguous(&row), true);
            let scaling = Reference.scaling(&moments, &Scale::inside_root(1e-5));
            let mut output = vec![Truth::exact(0.0); row.len()];
            Reference.rescale(&row, &scaling, None, None, &mut output);
            assert!(output.iter().all(|truth| truth.round(Format::F32).is_some()), "{name}");
        }
    }
}
