//! What `simulate` and `convert` say: figures by formula against their simulation, and against one that is written anew.

use assert_cmd::Command;
use normative::case::values::Values;
use normative::simulate::{Figure, Setting, advice, figures, plot, simulate};
use serde_json::Value;

fn value(figures: &[Figure], name: &str) -> f64 {
    figures.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("no {name}")).value
}

#[test]
fn every_figure_is_in_the_interval_of_its_simulation() {
    let settings = [
        Setting { batch: 4, ..Setting::default() },
        Setting { batch: 2, steps: 30, momentum: 0.3, seed: 5, ..Setting::default() },
        Setting { batch: 1, values: 10, between: 1.0, steps: 50, ..Setting::default() },
        Setting { batch: 3, values: 7, within: 2.0, between: 4.0, mean: -1.0, steps: 20, ..Setting::default() },
        Setting { batch: 8, values: 3136, between: 0.5, ..Setting::default() },
        Setting { batch: 1, values: 65, steps: 40, ..Setting::default() },
        Setting { batch: 1, values: 1, ..Setting::default() },
    ];
    for setting in settings {
        let figures = simulate(&setting);
        for figure in &figures {
            if let Some(interval) = figure.simulated {
                assert!(interval.contains(figure.value), "{setting:?}: {figure:?}");
            }
        }
        assert_eq!(figures.len(), if setting.is_refused() { 2 } else { 16 });
    }
}

/// By values of another source, written out plainly: two samples of two values that share a part.
#[test]
fn the_variance_of_samples_that_differ_is_what_a_plain_program_finds() {
    let mut values = Values::new(3);
    let count = 200_000;
    let (mut sum, mut squares) = (0.0, 0.0);
    for _ in 0..count {
        let x: Vec<f64> = (0..2)
            .flat_map(|_| {
                let shared = 2.0 * values.normal();
                [shared + values.normal(), shared + values.normal()]
            })
            .collect();
        let mean = x.iter().sum::<f64>() / 4.0;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 3.0;
        sum += variance;
        squares += variance * variance;
    }
    let mean = sum / f64::from(count);
    let spread = (squares / f64::from(count) - mean * mean).sqrt();
    let setting = Setting { batch: 2, values: 2, between: 4.0, ..Setting::default() };
    let figures = figures(&setting);
    // Five standard errors of the average.
    let error = 5.0 * spread / f64::from(count).sqrt();
    approx::assert_abs_diff_eq!(mean, value(&figures, "variance_mean"), epsilon = error);
    // The values are nearly normal only: their fourth moment is a thirtieth too small, which takes as much of the spread,
    // beside an error a little above its average's.
    let nearly = spread / 30.0 + 2.0 * error;
    approx::assert_abs_diff_eq!(spread, value(&figures, "variance_sd"), epsilon = nearly);
}

#[test]
fn known_figures() {
    let four = figures(&Setting { batch: 4, ..Setting::default() });
    approx::assert_relative_eq!(value(&four, "mean_sd"), 0.5);
    // Formulas of a few operations: a rounding each, and 1 − 0.9^⅛ cancels to a seventy-sixth.
    let roundings = |count: f64| count * f64::EPSILON / 2.0;
    approx::assert_relative_eq!(value(&four, "variance_sd"), (2.0_f64 / 3.0).sqrt(), max_relative = roundings(8.0));
    approx::assert_relative_eq!(value(&four, "window_samples"), 76.0, max_relative = roundings(8.0));
    let expected = 1.0 - 0.9_f64.powf(0.125);
    approx::assert_relative_eq!(
        value(&four, "same_window_momentum"),
        expected,
        max_relative = roundings(8.0 + 2.0 * 76.0)
    );
    // Two values: σ̂ = |x₁ − x₂|/2, whose median is 0.6745·σ/√2.
    let two = figures(&Setting { batch: 2, ..Setting::default() });
    let expected = 2_f64.sqrt() / 0.674_489_750_196_081_7;
    approx::assert_relative_eq!(value(&two, "scale_median"), expected, max_relative = roundings(32.0));
    let one = figures(&Setting { batch: 1, values: 8, between: 4.0, ..Setting::default() });
    approx::assert_relative_eq!(value(&one, "variance_mean"), 1.0);
    approx::assert_relative_eq!(value(&one, "eval_variance"), 5.0);
}

#[test]
fn the_advice_names_what_happens() {
    let refused = advice(&Setting { batch: 1, ..Setting::default() });
    assert!(refused[0].starts_with("Refused in training"), "{refused:?}");
    let blind = advice(&Setting { batch: 1, values: 10, between: 1.0, ..Setting::default() }).concat();
    assert!(blind.contains("settles at 1.000 of the true 2.000, for any momentum"), "{blind}");
    assert!(blind.contains("take it down to 0.0033"), "{blind}");
}

#[test]
fn the_picture_is_small_and_well_formed() {
    let svg = plot(&Setting { batch: 1, values: 10, between: 1.0, steps: 2000, ..Setting::default() });
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.len() < 40_000, "{}", svg.len());
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::cargo_bin("normative").unwrap().args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_commands_answer() {
    let (status, text) = run(&["simulate", "--batch", "4", "--steps", "20"]);
    assert!(status == 0 && text.contains("expected batch variance"), "{text}");
    let (status, text) = run(&["simulate", "--batch", "2", "--values", "3", "--steps", "9", "--format", "json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &json["refused"]), (0, &Value::Bool(false)));
    assert_eq!(json["figures"].as_array().unwrap().len(), 16);
    assert_eq!(run(&["simulate", "--batch", "4", "--momentum", "1.5"]).0, 2);
    assert_eq!(run(&["simulate", "--batch", "1", "--plot", "never.svg"]).0, 2);

    let (status, text) = run(&["convert", "momentum", "0.1", "--from", "pytorch", "--to", "keras"]);
    assert!(status == 0 && text.starts_with("0.9\n"), "{text}");
    let (status, text) = run(&["convert", "momentum", "0.99", "--from", "keras", "--to", "pytorch"]);
    assert!(status == 0 && text.starts_with("0.01\n") && text.contains("the weight of the new batch"), "{text}");
    let (status, text) = run(&["convert", "momentum", "0.999", "--from", "caffe", "--to", "equinox_batch"]);
    assert!(status == 0 && text.starts_with("0.999\n") && text.contains("What is averaged differs too"), "{text}");
    let rescaled = ["convert", "momentum", "0.1", "--from", "pytorch", "--batch", "32", "--to-batch", "1"];
    let (status, text) = run(&rescaled);
    assert!(status == 0 && text.starts_with("0.0032871017\n") && text.contains("window in samples stays"), "{text}");
    assert_eq!(run(&["convert", "momentum", "0.1", "--from", "nonesuch"]).0, 2);

    let (status, text) = run(&["table", "false-alarms"]);
    assert!(status == 0 && text.contains("`running_mean_variance`"), "{text}");
}
