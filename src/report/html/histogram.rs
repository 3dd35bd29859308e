//! The errors of an operation as multiples of their bounds, as a histogram in SVG.

use serde::Serialize;

use super::super::Report;
use crate::conformance::Verdict;

/// One operation's cases by their ratio.
#[derive(Serialize)]
pub(super) struct Histogram {
    operation: &'static str,
    cases: usize,
    bars: Vec<Bar>,
    /// Where the bound is.
    bound: f64,
    /// Marks of the axis: position and power of ten.
    marks: Vec<(f64, i32)>,
}

/// The cases of one bin and tone.
#[derive(Serialize)]
struct Bar {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    tone: &'static str,
    title: String,
}

/// Bins of half a decade from 10⁻⁴ to 10⁴; the first and the last hold what is beyond.
const BINS: usize = 16;
const LOWEST: f64 = -4.0;
/// The plot's size, in the units of its view box.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 84.0;
/// What a bin may hold: the colours, from the bottom up.
const TONES: [&str; 3] = ["pass", "excused", "fail"];

pub(super) fn histograms(report: &Report) -> Vec<Histogram> {
    let mut operations: Vec<(&'static str, Vec<&Verdict>)> = Vec::new();
    for verdict in report.verdicts.iter().filter(|verdict| verdict.ratio.is_some()) {
        match operations.iter_mut().find(|(operation, _)| *operation == verdict.operation) {
            Some((_, verdicts)) => verdicts.push(verdict),
            None => operations.push((verdict.operation, vec![verdict])),
        }
    }
    operations.into_iter().map(|(operation, verdicts)| histogram(operation, &verdicts, report.strict)).collect()
}

fn histogram(operation: &'static str, verdicts: &[&Verdict], strict: bool) -> Histogram {
    let mut counts = [[0_usize; TONES.len()]; BINS];
    for verdict in verdicts {
        let tone = match verdict {
            verdict if verdict.counts(strict) => 2,
            verdict if verdict.ratio > Some(1.0) || verdict.known.is_some() => 1,
            _ => 0,
        };
        counts[bin(verdict.ratio.unwrap_or(0.0))][tone] += 1;
    }
    // Roots, so that one failure among thousands of passes is still a bar.
    let scale = |count: usize| (count as f64).sqrt();
    let tallest = counts.iter().map(|bin| scale(bin.iter().sum())).fold(1.0, f64::max);
    let width = WIDTH / BINS as f64;
    let mut bars = Vec::new();
    for (index, bin) in counts.iter().enumerate() {
        let mut below = 0;
        for (tone, &count) in TONES.iter().zip(bin).filter(|(_, count)| **count > 0) {
            let (from, to) = (scale(below) / tallest * HEIGHT, scale(below + count) / tallest * HEIGHT);
            bars.push(Bar {
                x: round(index as f64 * width + 0.5),
                y: round(HEIGHT - to),
                width: round(width - 1.0),
                height: round(to - from),
                tone,
                title: format!("{count} {tone}, {}", range(index)),
            });
            below += count;
        }
    }
    let position = |exponent: f64| round((exponent - LOWEST) * 2.0 * width);
    let marks = (-4..=4).step_by(2).map(|exponent| (position(f64::from(exponent)), exponent)).collect();
    Histogram { operation, cases: verdicts.len(), bars, bound: position(0.0), marks }
}

/// The bin of a ratio: below 10^(−4) the first, from 10⁴ on the last; a ratio of exactly 1 passes and lies below it.
fn bin(ratio: f64) -> usize {
    let place = ((ratio.log10() - LOWEST) * 2.0).ceil() - 1.0;
    if place.is_nan() { BINS - 1 } else { place.clamp(0.0, BINS as f64 - 1.0) as usize }
}

fn range(bin: usize) -> String {
    let end = |bin: usize| format!("{:.1e}", 10f64.powf(LOWEST + bin as f64 / 2.0));
    match bin {
        0 => format!("at most {} bounds", end(1)),
        bin if bin == BINS - 1 => format!("above {} bounds", end(bin)),
        bin => format!("{} to {} bounds", end(bin), end(bin + 1)),
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ratio_has_a_bin_and_the_bound_parts_them() {
        for (ratio, expected) in
            [(0.0, 0), (1e-300, 0), (1.0, 7), (1.0001, 8), (1e300, 15), (f64::INFINITY, 15), (f64::NAN, 15)]
        {
            assert_eq!(bin(ratio), expected, "{ratio}");
        }
    }
}
