//! The laws of programs, written out once more as the documentation of `tracked.rs` has them, with a unit roundoff so large
//! that what is of second order shows.

use super::super::format::power_of_two;
use super::super::*;
use super::UNIT as SINGLE;
use super::bounds::{assert_bound, assert_near};

const U: f64 = 1.0 / 256.0;
const X: [f64; 6] = [3.0, -1.0, 4.0, 1.5, -9.25, 2.5];
const LAWS: [Law; 5] = [Law::GOOD[0], Law::GOOD[1], Law::GOOD[2], Law::GOOD[3], Law::ONE_PASS];

fn tracker(law: Law) -> Tracker {
    Tracker { law, unit: U, depth: SummationDepth::Any }
}

fn gamma(k: f64) -> f64 {
    k * U / (1.0 - k * U)
}

/// The same far from 0: what the mean loses is more than the variance does.
const FAR: [f64; 6] = [103.0, 99.0, 104.0, 101.5, 90.75, 102.5];

/// μ, v, D, Δ⁻ and Δ⁺ of a row.
fn moments(law: Law, row: [f64; 6]) -> [f64; 5] {
    let (n, h) = (6.0, 5.0);
    let mean = row.iter().sum::<f64>() / n;
    let v = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let d = gamma(h + 2.0) * row.iter().map(|x| x.abs()).sum::<f64>() / n;
    let g = gamma(h + 5.0);
    let (below, above) = (g * v, g * v + d * d * (1.0 + g));
    let shared = 2.2 * d * v.sqrt();
    let raw = v + mean * mean;
    let one_pass = gamma(h + 4.0) * raw + 2.0 * mean.abs() * d + d * d + 2.0 * U * raw;
    let [below, above] = match law.variance {
        VarianceLaw::TwoPass => [below, above],
        VarianceLaw::Updating => [v.min(below + shared), above + shared],
        VarianceLaw::OnePass => [v.min(one_pass), one_pass],
    };
    [mean, v, d, below, above]
}

fn scale(eps_place: EpsPlace, eps: f64, degrees_of_freedom: u8) -> Scale {
    Scale { eps, eps_place, degrees_of_freedom, error: 0.0 }
}

/// ρ, where v and its bounds are multiplied by `factor`.
fn relative([_, v, _, below, above]: [f64; 5], eps_place: EpsPlace, eps: f64, factor: f64) -> (f64, f64) {
    let sigma = |v: f64| match eps_place {
        EpsPlace::InsideRoot => (v.max(0.0) + eps).sqrt(),
        EpsPlace::OutsideRoot => v.max(0.0).sqrt() + eps,
        EpsPlace::LowerLimit => v.max(eps).sqrt(),
    };
    let v = v * factor;
    let (s, q, p) = (sigma(v), sigma(v - below * factor), sigma(v + above * factor));
    // Of numbers that do not cancel 1/q − 1/s needs no other form.
    (s, ((s / q - 1.0).max(1.0 - s / p) + 5.0 * U) * (1.0 + 8.0 * U))
}

/// A bound of what is off by as much as the roots in ρ cancel.
fn assert_bound_about(actual: f64, expected: f64) {
    let over = (actual - expected) / expected;
    assert!(actual == expected || (-1e-13..2e-12).contains(&over), "{actual:e}, expected {expected:e}");
}

/// Differences of roots that cancel a few bits.
fn assert_about(actual: f64, expected: f64) {
    assert!((actual - expected).abs() <= 1e-13 * expected.abs(), "{actual:e}, expected {expected:e}");
}

#[test]
fn the_moments_and_the_scale() {
    for (law, row) in LAWS.into_iter().flat_map(|law| [(law, X), (law, FAR)]) {
        let expected = moments(law, row);
        let tracked = tracker(law).moments(Group::contiguous(&row), true);
        for (eps_place, eps) in [
            (EpsPlace::InsideRoot, 1e-3),
            (EpsPlace::InsideRoot, 0.0),
            (EpsPlace::OutsideRoot, 0.5),
            (EpsPlace::LowerLimit, 1.0),
            (EpsPlace::LowerLimit, 30.0),
            (EpsPlace::LowerLimit, 19.0),
        ] {
            for degrees_of_freedom in [0, 1] {
                let terms = tracker(law).terms(&tracked, &scale(eps_place, eps, degrees_of_freedom));
                let (sigma, rho) = relative(expected, eps_place, eps, bessel(6, degrees_of_freedom));
                let actual = [terms.statistics[0], terms.statistics[1], terms.mean_error].into_iter();
                actual
                    .chain(terms.variance_error)
                    .zip(expected)
                    .for_each(|(actual, expected)| assert_near(actual, expected));
                assert_near(terms.statistics[2], sigma);
                if eps == 0.0 && expected[3] == expected[1] {
                    // The variance may be lost, and with it every bound.
                    assert_eq!(terms.relative, f64::INFINITY);
                } else {
                    assert_about(terms.relative, rho);
                }
            }
        }
        let [_, v, _, below, above] = expected;
        let variance = |degrees_of_freedom| tracker(law).variance(&tracked, degrees_of_freedom);
        let wider = below.max(above);
        assert_near(variance(0).error, wider);
        assert_near(variance(1).value, 1.2 * v);
        assert_near(variance(1).error, 1.2 * (wider + U * (v + wider)));
        assert_near(tracker(law).mean(&tracked).error, expected[2]);
        let scaling = tracker(law).scaling(&tracked, &Scale::inside_root(1e-3));
        let (sigma, rho) = relative(expected, EpsPlace::InsideRoot, 1e-3, 1.0);
        let inverse = tracker(law).inverse(&scaling);
        assert_near(inverse.value, 1.0 / sigma);
        assert_about(inverse.error, rho / sigma);
    }
}

#[test]
fn mean_squares() {
    let ms = X.iter().map(|x| x * x).sum::<f64>() / 6.0;
    let raw = tracker(Law::GOOD[3]).moments(Group::contiguous(&X), false);
    let terms = tracker(Law::GOOD[3]).terms(&raw, &Scale::inside_root(0.5));
    let error = gamma(8.0) * ms;
    let t = 0.5 * error / (ms + 0.5);
    assert_near(terms.variance_error[0], error);
    assert_near(terms.variance_error[1], error);
    assert_near(terms.relative, (t * (1.0 + 2.0 * t) + 4.0 * U + 16.0 * U * U) * (1.0 + 6.0 * U));
    assert_eq!([terms.statistics[0], terms.mean_error], [0.0; 2]);
    let zeros = tracker(Law::GOOD[0]).moments(Group::contiguous(&[0.0; 3]), false);
    let terms = tracker(Law::GOOD[0]).terms(&zeros, &Scale::inside_root(0.0));
    assert_near(terms.relative, (4.0 * U + 16.0 * U * U) * (1.0 + 6.0 * U));
}

#[test]
fn statistics_that_are_given() {
    for law in LAWS {
        let tracker = tracker(law);
        let terms = |variance, eps| tracker.terms(&tracker.stored(-3.0, variance), &Scale::inside_root(eps));
        let exact = terms(4.0, 0.25);
        assert_eq!([exact.mean_error, exact.variance_error[0], exact.variance_error[1]], [0.0; 3]);
        assert_near(exact.statistics[2], 4.25_f64.sqrt());
        assert_near(exact.relative, 5.0 * U * (1.0 + 8.0 * U));
        assert_near(terms(-0.25, 0.5).statistics[2], 0.5);
        let outside = scale(EpsPlace::OutsideRoot, 0.25, 0);
        assert_eq!(tracker.terms(&tracker.stored(-3.0, 0.0), &outside).statistics[2], 0.25);
        assert!(terms(-1.0, 0.5).statistics[2].is_nan());

        let mean = Tracked { value: -3.0, error: 0.125, unit: U };
        let averaged = tracker.averaged(mean, Tracked { value: 4.0, error: 0.5, unit: U });
        let terms = tracker.terms(&averaged, &Scale::inside_root(0.25));
        assert_eq!([terms.mean_error, terms.variance_error[0], terms.variance_error[1]], [0.125, 0.5, 0.5]);
        let (_, rho) = relative([-3.0, 4.0, 0.125, 0.5, 0.5], EpsPlace::InsideRoot, 0.25, 1.0);
        assert_about(terms.relative, rho);
        assert_eq!(tracker.mean(&averaged).error, 0.125);
        assert_eq!(tracker.variance(&averaged, 1).error, 0.5);
    }
}

/// What a law adds to the bound of z for folding: φ.
fn fold(law: Law, rho: f64, stored: bool) -> f64 {
    match (law.folded, stored) {
        (false, _) => 0.0,
        (true, false) => (1.0 + 4.0 * U + rho) * U,
        (true, true) => (1.0 + 12.0 * U) * U,
    }
}

#[test]
fn elements() {
    let (weights, biases) = ([2.0, -1.75, 0.0, 3.0, 1.0, -0.5], [0.5, 0.0, -2.0, 1.0, 4.0, -8.0]);
    let (each_weight, each_bias) = (Some(Parameter::Each(&weights[..])), Some(Parameter::Each(&biases[..])));
    for law in LAWS {
        let tracker = tracker(law);
        let stored = [-3.0, 4.0, 0.0, 0.0, 0.0];
        let cases = [
            (tracker.moments(Group::contiguous(&X), true), moments(law, X), false),
            (tracker.stored(-3.0, 4.0), stored, true),
        ];
        for (tracked, numbers, is_stored) in cases {
            let scaling = tracker.scaling(&tracked, &Scale::inside_root(1e-3));
            let ([mean, _, d, ..], (s, rho)) = (numbers, relative(numbers, EpsPlace::InsideRoot, 1e-3, 1.0));
            let fold = fold(law, rho, is_stored);
            for (weight, bias) in [(None, None), (each_weight, None), (None, each_bias), (each_weight, each_bias)] {
                let mut output = [Tracked::constant(f64::NAN); 6];
                tracker.rescale(&X, &scaling, weight, bias, &mut output);
                for (index, (&x, tracked)) in X.iter().zip(output).enumerate() {
                    let (w, b) = (weight.map_or(1.0, |w| w.at(index)), bias.map_or(0.0, |b| b.at(index)));
                    let y = (x - mean) / s;
                    let plain = d / s * (1.0 + rho) + y.abs() * rho;
                    let reach = (x.abs() + 2.0 * (mean.abs() + d)) / s;
                    let bound = match (weight, bias) {
                        (None, None) => plain + fold * reach,
                        _ => {
                            (w.abs() * (plain + fold * reach) + U * (2.0 * (w * y).abs() + b.abs())) * (1.0 + 2.0 * U)
                                + fold * b.abs()
                        }
                    };
                    assert_near(tracked.value, w * y + b);
                    assert_bound_about(tracked.error, bound);
                }
            }
        }
    }
}

#[test]
fn elements_that_underflow() {
    // σ = 1; binary32's η, beside products whose roundings are smaller.
    let (least, tiny) = (power_of_two(-150), power_of_two(-130));
    let bound = |law, mean, x: f64, weight: Option<f64>| {
        let tracker = Tracker { law, unit: SINGLE, depth: SummationDepth::Any };
        let scaling = tracker.scaling(&tracker.stored(mean, 1.0), &Scale::inside_root(0.0));
        let mut output = [Tracked::constant(0.0)];
        tracker.rescale(&[x], &scaling, weight.map(Parameter::One), None, &mut output);
        output[0].error
    };
    let (direct, folded) = (Law::GOOD[0], Law::GOOD[1]);
    let rho = 5.0 * SINGLE * (1.0 + 8.0 * SINGLE);
    let fold = (1.0 + 12.0 * SINGLE) * SINGLE;
    assert_bound(bound(direct, 0.0, tiny, None), tiny * rho + least);
    assert_bound(bound(folded, 0.0, tiny, None), tiny * rho + least + fold * tiny + least);
    assert_eq!(bound(direct, tiny, tiny, None), 0.0);
    assert_bound(bound(folded, tiny, tiny, None), fold * 3.0 * tiny);
    let (w, twice) = (power_of_two(40), 1.0 + 2.0 * SINGLE);
    let product = 2.0 * SINGLE * w * tiny;
    assert_bound(bound(direct, 0.0, tiny, Some(-w)), (w * (tiny * rho + least) + product) * twice);
    let reach = w * (fold * tiny + least) * twice;
    assert_bound(
        bound(folded, 0.0, tiny, Some(-w)),
        (w * (tiny * rho + least) + product) * twice + reach + tiny * least,
    );
    assert_eq!(bound(folded, 0.0, tiny, Some(0.0)), 0.0);
    // The weight may lose η before it meets x and twice the mean.
    let (weight, reach) = (power_of_two(-140), 3.0);
    let plain = weight * (2.0 * rho + least) + 4.0 * SINGLE * weight;
    assert_bound(bound(direct, -1.0, 1.0, Some(weight)), plain * twice);
    let expected = (plain + weight * (fold * reach + least)) * twice + reach * least;
    assert_bound(bound(folded, -1.0, 1.0, Some(weight)), expected);
}

#[test]
fn momentum() {
    let tracker = tracker(Law::GOOD[0]);
    let new = Tracked { value: -20.0, error: 0.25, unit: U };
    for (carried, again) in [(0.0, false), (0.0, true), (0.5, true)] {
        let old = Tracked { value: 10.0, error: carried, unit: U };
        let mix = |factor| if again { tracker.mix_again(old, new, factor) } else { tracker.mix(10.0, new, factor) };
        for (factor, alpha, decay) in [
            (Factor::OfNew(0.125), 0.125, 0.0),
            (Factor::OfOld(0.75), 0.25, 0.75),
            (Factor::OfOld(-0.5), 1.5, 0.5),
            (Factor::Reciprocal(4), 0.25, 0.0),
            (Factor::OfNew(3.0), 3.0, 0.0),
            (Factor::OfNew(-2.0), -2.0, 0.0),
        ] {
            // Beyond [0, 1] what remains of the old value is larger than it.
            let (rest, size): (f64, f64) = (1.0 - alpha, f64::abs(alpha));
            let kept = rest.abs().max(1.0);
            let error = size * 0.25
                + U * (30.0 * kept + 4.0 * size * 20.25)
                + U * decay * 20.25
                + carried * (rest.abs() + 3.0 * U * kept);
            let mixed = mix(factor);
            assert_near(mixed.value, rest * 10.0 - alpha * 20.0);
            assert_bound(mixed.error, error * (1.0 + 6.0 * U));
        }
    }
}

/// A group whose gradients are asked for: u, η where it is lost, what is folded, x, a, y, whether the mean is subtracted.
struct Asked<'a> {
    u: f64,
    lost: f64,
    folded: bool,
    x: &'a [f64],
    a: &'a [Tracked],
    y: &'a [Tracked],
    centred: bool,
}

/// The gradients by the input and their bounds, for μ, D, s and ρ.
fn gradients(asked: &Asked<'_>, [mean, d, s, rho]: [f64; 4]) -> Vec<(f64, f64)> {
    let Asked { u, lost, folded, x, a, y, centred } = *asked;
    let (n, h) = (x.len() as f64, x.len() as f64 - 1.0);
    let gamma = |k: f64| k * u / (1.0 - k * u);
    let mean_of = |term: &dyn Fn(usize) -> f64| (0..x.len()).map(term).sum::<f64>() / n;
    let (s1, mean_a) = (mean_of(&|i| a[i].value), mean_of(&|i| a[i].value.abs()));
    let s2 = mean_of(&|i| a[i].value * y[i].value);
    let (s1, e1) = if centred { (s1, gamma(h + 3.0) * mean_a + lost) } else { (0.0, 0.0) };
    let g = gamma(h + 5.0);
    let mut e2 = g * mean_of(&|i| (a[i].value * y[i].value).abs())
        + (1.0 + g) * mean_of(&|i| a[i].value.abs() * y[i].error)
        + 2.0 * lost;
    let offset = 2.0 * (mean.abs() + d);
    if folded {
        e2 += (g * (mean_of(&|i| (a[i].value * x[i]).abs()) + offset * mean_a) + 2.0 * lost) / s * (1.0 + rho);
    }
    let e = |i: usize| if a[i].error > 2.0 * u * a[i].value.abs() { a[i].error } else { 0.0 };
    let reach = |i: usize| y[i].value.abs() + y[i].error;
    let mean_e = if centred { mean_of(&e) } else { 0.0 };
    let along_e = mean_of(&|i| e(i) * reach(i));
    let gradient = |i: usize| {
        let size = a[i].value.abs() + s1.abs() + (y[i].value * s2).abs();
        let mut p = (e1 + y[i].value.abs() * e2 + y[i].error * (s2.abs() + e2) + 4.0 * u * size + lost) / s;
        p += (e(i) + mean_e + reach(i) * along_e) / s;
        if folded {
            p += 4.0 * u * (s2.abs() + e2) * (x[i].abs() + offset) / (s * s);
            p += (1.0 + 1.0 / s) * (x[i].abs() + offset) * lost;
        }
        let value = (a[i].value - s1 - y[i].value * s2) / s;
        (value, (p * (1.0 + rho) + value.abs() * rho + lost) * (1.0 + 8.0 * u))
    };
    (0..x.len()).map(gradient).collect()
}

#[test]
fn gradients_by_the_input() {
    let a = [1.5, -2.0, 0.0, 3.0, 0.25, -0.75].map(|value| Tracked { value, error: 0.0, unit: U });
    // More than a product's rounding is carried.
    let rounded = a.map(|a| Tracked { error: if a.value > 1.0 { 0.0625 } else { 2.0 * U * a.value.abs() }, ..a });
    for (law, a, centred) in LAWS
        .iter()
        .flat_map(|&law| [a, rounded].into_iter().flat_map(move |a| [true, false].map(|centred| (law, a, centred))))
    {
        let tracker = tracker(law);
        let numbers = moments(law, X);
        let scaling = tracker.scaling(&tracker.moments(Group::contiguous(&X), true), &Scale::inside_root(1e-3));
        let mut y = [Tracked::constant(0.0); 6];
        tracker.rescale(&X, &scaling, None, None, &mut y);
        let (s, rho) = relative(numbers, EpsPlace::InsideRoot, 1e-3, 1.0);
        let asked = Asked { u: U, lost: 0.0, folded: law.folded, x: &X, a: &a, y: &y, centred };
        let expected = gradients(&asked, [numbers[0], numbers[2], s, rho]);
        let actual = tracker.input_gradient(&X, &a, &y, &scaling, centred);
        assert_eq!(actual.len(), 6);
        for (tracked, (value, bound)) in actual.iter().zip(expected) {
            assert_near(tracked.value, value);
            assert_bound_about(tracked.error, bound);
        }
    }
}

#[test]
fn gradients_that_underflow() {
    let least = power_of_two(-150);
    for (law, mean, centred) in LAWS.iter().flat_map(|&law| {
        [0.0, -1.5].into_iter().flat_map(move |mean| [true, false].map(|centred| (law, mean, centred)))
    }) {
        let tracker = Tracker { law, unit: SINGLE, depth: SummationDepth::Any };
        let scaling = tracker.scaling(&tracker.stored(mean, 4.0), &Scale::inside_root(0.0));
        let x = [1.0, -2.0];
        let mut y = [Tracked::constant(0.0); 2];
        tracker.rescale(&x, &scaling, None, None, &mut y);
        let a = [3.0 * power_of_two(-130), 0.0].map(|value| Tracked { value, error: 0.0, unit: SINGLE });
        let asked = Asked { u: SINGLE, lost: least, folded: law.folded, x: &x, a: &a, y: &y, centred };
        let rho = 5.0 * SINGLE * (1.0 + 8.0 * SINGLE);
        let expected = gradients(&asked, [mean, 0.0, 2.0, rho]);
        let actual = tracker.input_gradient(&x, &a, &y, &scaling, centred);
        assert_eq!(actual.len(), 2);
        for (tracked, (value, bound)) in actual.iter().zip(expected) {
            assert_near(tracked.value, value);
            assert_bound(tracked.error, bound);
        }
        let zeros = [Tracked { value: 0.0, error: 0.0, unit: SINGLE }; 2];
        let actual = tracker.input_gradient(&x, &zeros, &y, &scaling, centred);
        assert!(actual.iter().all(|tracked| tracked.value == 0.0 && tracked.error == 0.0));
    }
}

#[test]
fn what_goes_in_and_what_is_cast() {
    let tracker = tracker(Law::GOOD[0]);
    assert_eq!(tracker.keep(-3.0), Tracked { value: -3.0, error: 0.0, unit: U });
    assert_eq!(tracker.parameter(-3.0), Tracked { value: -3.0, error: 3.0 * U, unit: U });
    let number = Tracked { value: -3.0, error: 0.125, unit: SINGLE };
    let single = Tracker { unit: SINGLE, ..tracker };
    assert_eq!([single.cast(number, Format::F32), single.cast(number, Format::F64)], [number; 2]);
    for (format, u, subnormal) in [(Format::F16, power_of_two(-11), -25), (Format::BF16, power_of_two(-8), -134)] {
        let cast = single.cast(number, format);
        assert_bound(cast.error, 0.125 * (1.0 + u) + 3.0 * u + power_of_two(subnormal));
        assert_eq!((cast.value, cast.unit), (-3.0, SINGLE));
        assert_bound(single.cast(Tracked { value: 0.0, error: 0.0, ..number }, format).error, power_of_two(subnormal));
    }
    let variance = Tracked { value: 4.0, error: 0.5, unit: U };
    assert_eq!(tracker.running_quantity(variance, RunningQuantity::Variance, 0.5), variance);
    assert_bound(tracker.running_quantity(variance, RunningQuantity::StandardDeviation, 0.5).error, 0.25 + U * 2.25);
    assert_bound(tracker.running_quantity(variance, RunningQuantity::VariancePlusEps, 0.5).error, 0.5 + U * 5.0);
}

#[test]
fn depths_of_sums() {
    let depths = |depth: SummationDepth| [0, 1, 2, 3, 4, 5, 8, 9, 10, 100].map(|count| depth.of(count));
    assert_eq!(depths(SummationDepth::Any), [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 7.0, 8.0, 9.0, 99.0]);
    assert_eq!(depths(SummationDepth::Pairwise), [0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 7.0]);
    assert_eq!(depths(SummationDepth::Blocks(4)), [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 7.0, 29.0]);
    assert_eq!(depths(SummationDepth::Blocks(0)), depths(SummationDepth::Any));
    assert_eq!(SummationDepth::Blocks(usize::MAX).of(100), 99.0);
    // Sums that may pass their terms through as many additions as there are units of roundoff have no bound.
    let bound = |count: usize| {
        let tracker = tracker(Law::GOOD[0]);
        tracker.terms(&tracker.moments(Group::contiguous(&vec![1.0; count]), true), &Scale::inside_root(1.0)).mean_error
    };
    // h + 2 roundings of 1/256
    assert_near(bound(254), gamma(255.0));
    assert_eq!(bound(255), f64::INFINITY);
}

#[test]
fn places_of_the_laws() {
    assert_eq!(LAWS.map(Law::index), [0, 1, 2, 3, 4]);
    assert_eq!(Law::COUNT, LAWS.len());
}
