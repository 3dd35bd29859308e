//! A picture of how running statistics converge: some channels, the expectation and the band of two standard deviations.

use std::fmt::Write;

use super::Setting;
use super::sample::{Batch, Run};
use super::theory::{Running, Theory};

const WIDTH: f64 = 640.0;
const PANEL: f64 = 200.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 34.0;
const GAP: f64 = 42.0;
const CHANNELS: usize = 4;

/// The picture as SVG: the running mean above, the running variance below.
pub fn plot(setting: &Setting) -> String {
    let theory = Theory::new(setting);
    let expected: Vec<(Running, Running)> = (0..=setting.steps).map(|step| theory.after(step)).collect();
    let paths: Vec<Vec<Batch>> = (0..CHANNELS).map(|channel| Run::path(setting, channel)).collect();
    let height = TOP + 2.0 * PANEL + 2.0 * GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" \
         y=\"18\" font-size=\"13\">Batch {} × {} values, momentum {}: {CHANNELS} channels, expectation, ± 2 standard \
         deviations</text>\n",
        setting.batch, setting.values, setting.momentum
    );
    let pick = |mean: bool| {
        let band = expected.iter().map(|(m, v)| if mean { *m } else { *v }).collect::<Vec<_>>();
        let first = if mean { 0.0 } else { 1.0 };
        let of = |batch: &Batch| if mean { batch.mean } else { batch.variance };
        let lines = paths.iter().map(|path| std::iter::once(first).chain(path.iter().map(of)).collect());
        (band, lines.collect::<Vec<Vec<f64>>>())
    };
    let panels = [("running_mean", true, setting.mean), ("running_var", false, setting.within + setting.between)];
    for (row, (title, mean, truth)) in panels.into_iter().enumerate() {
        let (band, lines) = pick(mean);
        panel(&mut svg, TOP + row as f64 * (PANEL + GAP), title, &band, &lines, truth);
    }
    svg += "</svg>\n";
    svg
}

fn panel(svg: &mut String, top: f64, title: &str, band: &[Running], lines: &[Vec<f64>], truth: f64) {
    let edges = band.iter().flat_map(|r| [r.expectation - 2.0 * r.deviation, r.expectation + 2.0 * r.deviation]);
    let all = || edges.clone().chain(lines.iter().flatten().copied()).chain([truth]);
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max));
    let (low, high) = if high > low { (low, high) } else { (low - 1.0, high + 1.0) };
    let steps = (band.len() - 1).max(1) as f64;
    let x = |step: usize| LEFT + step as f64 / steps * (WIDTH - LEFT - 16.0);
    let y = |value: f64| top + PANEL * (high - value) / (high - low);
    // A picture shows no more than some two hundred points.
    let every = band.len().div_ceil(200);
    let shown = || (0..band.len()).filter(move |step| step % every == 0 || step + 1 == band.len());
    let point = |step: usize, value: f64| format!("{:.1},{:.1}", x(step), y(value));
    let path = |points: Vec<String>| points.join(" ");

    let upper = shown().map(|step| point(step, band[step].expectation + 2.0 * band[step].deviation));
    let lower = shown().map(|step| point(step, band[step].expectation - 2.0 * band[step].deviation));
    let lower: Vec<String> = lower.collect();
    let outline = path(upper.chain(lower.into_iter().rev()).collect());
    let _ = writeln!(svg, "<polygon points=\"{outline}\" fill=\"#cfe3f7\"/>");
    let (left, right) = (x(0), x(band.len() - 1));
    let level = y(truth);
    let _ = writeln!(
        svg,
        "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{level:.1}\" y2=\"{level:.1}\" stroke=\"#b00\" \
         stroke-dasharray=\"5 4\"/><text x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#b00\">truth</text>",
        level - 4.0
    );
    for line in lines {
        let points = path(shown().map(|step| point(step, line[step])).collect());
        let _ = writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"#999\"/>");
    }
    let points = path(shown().map(|step| point(step, band[step].expectation)).collect());
    let _ = writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"#1b5e9c\" stroke-width=\"2\"/>");
    let bottom = top + PANEL;
    let _ = writeln!(
        svg,
        "<path d=\"M{left:.1},{top} V{bottom} H{right:.1}\" fill=\"none\" stroke=\"#222\"/>\n<text x=\"{left:.1}\" \
         y=\"{:.1}\">0</text><text x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">step {steps}</text>",
        bottom + 15.0,
        bottom + 15.0
    );
    for value in [low, high] {
        let at = y(value) + 4.0;
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{at:.1}\" text-anchor=\"end\">{value:.2}</text>", left - 5.0);
    }
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{title}</text>", left + 6.0, top + 12.0);
}
