//! How much work it takes to find each planted bug, on one core.
//!
//! ```text
//! cargo run --release --example time_to_find > docs/time-to-find.md        a hundred seeds
//! cargo run --release --example time_to_find 5                             five
//! ```
//! For each planted bug and seed: the required cases of the operations that can have the bug, shuffled by the seed, are asked
//! and judged one after the other until the first fails, the search for the nearest planted bug included. The table gives
//! the median and the largest number of cases, and the median and the largest time. Only the times differ from machine to
//! machine.

use std::time::{Duration, Instant};

use normative::case::values::Values;
use normative::case::{Case, Level, catalogue};
use normative::conformance::check;
use normative::judge::Outcome;
use normative::subject::planted::{BUGS, Bug};
use normative::subject::{Builtin, Pool};

fn main() {
    let seeds: u64 = std::env::args().nth(1).map_or(100, |count| count.parse().expect("a number of seeds"));
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    println!("# How long it takes to find each planted bug\n");
    println!("Made by `cargo run --release --example time_to_find`: {seeds} seeds, one core.\n");
    println!("| planted bug | of cases | asked, median | asked, most | ms, median | ms, most |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut slowest = Duration::ZERO;
    for bug in BUGS {
        let cases: Vec<&Case> = catalogue::cases()
            .iter()
            .filter(|case| case.level == Level::Required && bug.operations.contains(&case.operation().name()))
            .collect();
        let mut found: Vec<(usize, Duration)> =
            (0..seeds).map(|seed| one.install(|| find(bug, &cases, seed))).collect();
        found.sort_by_key(|(asked, _)| *asked);
        let (asked, most) = (found[found.len() / 2].0, found[found.len() - 1].0);
        found.sort_by_key(|(_, time)| *time);
        let (median, longest) = (found[found.len() / 2].1, found[found.len() - 1].1);
        slowest = slowest.max(median);
        let milliseconds = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        println!(
            "| `{}` | {} | {asked} | {most} | {} | {} |",
            bug.name,
            cases.len(),
            milliseconds(median),
            milliseconds(longest)
        );
    }
    println!("\nThe largest median is {:.3} s.", slowest.as_secs_f64());
}

/// The number of cases that are asked until one fails, and the time that takes.
fn find(bug: &Bug, cases: &[&Case], seed: u64) -> (usize, Duration) {
    let mut order: Vec<&Case> = cases.to_vec();
    let mut values = Values::named(&format!("time to find {} {seed}", bug.name));
    for last in (1..order.len()).rev() {
        order.swap(last, values.below(last + 1));
    }
    let mut pool = Pool::of(Box::new(Builtin::new(bug.name).expect("a planted bug is a builtin")));
    let start = Instant::now();
    for (asked, case) in order.iter().enumerate() {
        let (verdicts, _) = check(&mut pool, &[*case], &|_| ());
        if verdicts.iter().any(|verdict| verdict.outcome == Outcome::Fail) {
            return (asked + 1, start.elapsed());
        }
    }
    panic!("no case finds {}", bug.name);
}
