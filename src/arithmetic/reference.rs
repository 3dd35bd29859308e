//! The reference: moments and rescaling in double-double arithmetic, each result with its radius.
//!
//! ```text
//! pass 1   p = fl(mean x), or x itself where all are equal          max |x|
//! pass 2   dᵢ = xᵢ − p exactly, in two parts     S = Σ dᵢ     Q = Σ dᵢ²
//!          δ = S/n     μ = p + δ     v = Q/n − δ²
//! pass 3   yᵢ = (dᵢ − δ)·r,   r = 1/√(v + eps)
//! ```
//! The pivot p is any number near the mean, so its error does not matter: μ is never formed, and the deviations keep
//! their relative accuracy at a mean of 10¹⁵ standard deviations. Elements are scaled by 2⁻ᵏ where max |x| or eps is
//! far from 1, so that squares neither overflow nor underflow.
//!
//! # The lemma of the sums
//! Eight lanes, each a running sum s with a plain sum c of the exact errors (Ogita, Rump, Oishi, "Accurate sum and dot
//! product", SIAM J. Sci. Comput. 26, 2005), emptied into a double-double every [`BLOCK`] terms. Within a block of m
//! terms the errors are at most u·Σ|d| each, so c is off by at most 3m²u²·Σ|d|; emptying costs 3u² of the total each
//! time. With m = 128 that is 2⁻⁹⁰ of Σ|d|, or of Q for the squares (whose own rounding, 8u² each, is below it).

use super::format::{exponent_of, power_of_two, scale};
use super::{
    Arithmetic, DoubleDouble, EpsPlace, Factor, Group, Parameter, Plain, Real, RunningQuantity, Scale, Truth, bessel,
    double_double::{two_product, two_sum},
};

const LANES: usize = 8;
const BLOCK: usize = 128;

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

impl Arithmetic for Reference {
    type Input = f64;
    type Real = Truth;
    type Moments = ReferenceMoments;
    type Scaling = ReferenceScaling;

    fn moments(&self, group: Group<'_, f64>, centred: bool) -> ReferenceMoments {
        let count = group.len();
        let range = Range::of(&group);
        if !range.finite || count == 0 {
            return special_moments(&group, centred);
        }
        let largest = range.min.abs().max(range.max.abs());
        let exponent = match largest {
            0.0 => 0,
            largest if (-300..=300).contains(&exponent_of(largest)) => 0,
            largest => exponent_of(largest),
        };
        let pivot = match centred {
            false => 0.0,
            true if range.min == range.max => scale(range.min, -exponent),
            true => rough_mean(&group, exponent),
        };
        let (sum, squares) = sums(&group, exponent, pivot);

        let n = count as f64;
        let blocks = (count / (LANES * BLOCK) + 1) as f64;
        let relative = power_of_two(-90) + 8.0 * blocks * power_of_two(-104);
        // Squares, and elements that the scaling made subnormal, may lose this much each.
        let lost = 4.0 * n * f64::MIN_POSITIVE;
        let exact = squares == DoubleDouble::ZERO && largest == 0.0 || range.min == range.max && centred;
        let mean_square = Truth {
            value: squares / DoubleDouble::from(n),
            radius: if exact { 0.0 } else { (relative * squares.hi + lost) / n * 1.001 },
        };
        let mean_deviation = Truth {
            value: sum / DoubleDouble::from(n),
            // Σ|d| ≤ √(n·Q)
            radius: if exact { 0.0 } else { (relative * (mean_square.value.hi).sqrt() + lost / n) * 1.001 },
        };
        let (delta, variance) = if exact && centred {
            (Truth::exact(0.0), Truth::exact(0.0))
        } else if centred {
            let variance = mean_square - mean_deviation * mean_deviation;
            let below_zero = variance.value.hi < 0.0;
            (mean_deviation, if below_zero { Truth { value: DoubleDouble::ZERO, ..variance } } else { variance })
        } else {
            (Truth::exact(0.0), mean_square)
        };
        ReferenceMoments { count: Some(count), exponent, pivot, delta, variance, special: false }
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
            EpsPlace::InsideRoot => exponent_of(rule.eps).div_euclid(2),
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
        let one_minus = |x: f64| Truth { value: DoubleDouble::sum(1.0, -x), radius: 0.0 };
        let (of_old, of_new) = match factor {
            Factor::OfNew(momentum) => (one_minus(momentum), Truth::exact(momentum)),
            Factor::OfOld(decay) => (Truth::exact(decay), one_minus(decay)),
            Factor::Reciprocal(batches) => {
                let of_new = Truth::exact(1.0) / Truth::exact(batches as f64);
                (Truth::exact(1.0) - of_new, of_new)
            }
        };
        of_old * Truth::exact(old) + of_new * new
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

/// A number near the mean, in units of 2^exponent. Each term is divided by n first, so the sum cannot overflow.
fn rough_mean(group: &Group<'_, f64>, exponent: i32) -> f64 {
    let mut lanes = [0.0; LANES];
    let mut lane = 0;
    for x in group.iter() {
        lanes[lane] += scale_by(x, -exponent);
        lane = (lane + 1) % LANES;
    }
    lanes.iter().sum::<f64>() / group.len() as f64
}

/// S = Σ (x − p) and Q = Σ (x − p)² as double-doubles.
fn sums(group: &Group<'_, f64>, exponent: i32, pivot: f64) -> (DoubleDouble, DoubleDouble) {
    let (mut sum, mut squares) = (DoubleDouble::ZERO, DoubleDouble::ZERO);
    let mut lanes = [Lane::default(); LANES];
    let mut taken = 0;
    for x in group.iter() {
        lanes[taken % LANES].add(scale_by(x, -exponent), pivot);
        taken += 1;
        if taken == LANES * BLOCK {
            empty(&mut lanes, &mut sum, &mut squares);
            taken = 0;
        }
    }
    empty(&mut lanes, &mut sum, &mut squares);
    (sum, squares)
}

/// Running sums of d and d², each with the sum of its exact errors.
#[derive(Clone, Copy, Default)]
struct Lane {
    sum: f64,
    sum_error: f64,
    squares: f64,
    squares_error: f64,
}

impl Lane {
    #[inline]
    fn add(&mut self, x: f64, pivot: f64) {
        let (hi, lo) = two_sum(x, -pivot);
        let (sum, error) = two_sum(self.sum, hi);
        self.sum = sum;
        self.sum_error += error + lo;
        let (square, rest) = two_product(hi, hi);
        let (squares, error) = two_sum(self.squares, square);
        self.squares = squares;
        self.squares_error += error + (rest + 2.0 * hi * lo);
    }
}

fn empty(lanes: &mut [Lane; LANES], sum: &mut DoubleDouble, squares: &mut DoubleDouble) {
    for lane in lanes {
        *sum = *sum + DoubleDouble::sum(lane.sum, lane.sum_error);
        *squares = *squares + DoubleDouble::sum(lane.squares, lane.squares_error);
        *lane = Lane::default();
    }
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
    use super::super::Format;
    use super::super::exact::ExactGroup;
    use super::*;

    /// The rows that break lesser references.
    fn hard_rows() -> Vec<(&'static str, Vec<f64>)> {
        let mut million: Vec<f64> = (0..1_000_000_u64).map(|i| ((i * 2_654_435_761) % 65_537) as f64 / 64.0).collect();
        million[7] = 1e7;
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
            ("a million", million),
            ("constant", vec![0.1; 100]),
        ]
    }

    /// Value and radius hold the exact value, and the radius is small beside what there was before cancellation.
    #[test]
    fn the_radius_holds_the_exact_value() {
        for (name, row) in hard_rows() {
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
        for (name, row) in hard_rows() {
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
