//! Planted bugs: each is found, and named or at least its family; what no planted bug shows stays for a reason.

use std::collections::{BTreeMap, BTreeSet};

use normative::case::{Case, Flag, Level, catalogue};
use normative::conformance::check;
use normative::property::{self, QUICK_ROUNDS, matrix};
use normative::report::{Asked, Cause, Report, Status};
use normative::subject::planted::{BUGS, Bug};
use normative::subject::{Builtin, Pool};
use rayon::prelude::*;

/// The page that `normative table matrix` makes.
const MATRIX: &str = include_str!("../docs/matrix.md");

/// So many of each kind of case are enough for most bugs.
const CASES: usize = 30;

/// The report on a compiled-in subject and these cases.
fn judged(name: &str, cases: &[&Case]) -> Report {
    let mut pool = Pool::of(Box::new(Builtin::new(name).expect("a builtin")));
    let (verdicts, runs) = check(&mut pool, cases, &|_| ());
    let mut report = Report::default();
    report.add_runs(Asked::Builtin(name.to_owned()), &pool, cases, verdicts, runs);
    report
}

/// The classes of the planted bugs that a report names first, the most frequent first.
fn named(report: &Report) -> Vec<Flag> {
    let bug = |cause: Cause| if let Cause::Bug(name) = cause { Bug::from_name(name) } else { None };
    let flags = report.groups().into_iter().filter_map(|group| bug(group.cause)).map(|bug| bug.flag);
    flags.take(3).collect()
}

/// The F32 cases of the operations that can have a bug: at most so many that carry its class, and as many that do not.
fn some_cases(bug: &Bug, most: usize) -> Vec<&'static Case> {
    let own = |case: &&Case| case.name.contains("-f32-") && bug.operations.contains(&case.operation().name());
    let required = catalogue::cases().iter().filter(own).filter(|case| case.level == Level::Required);
    let (with, without): (Vec<&Case>, Vec<&Case>) = required.partition(|case| case.flags.contains(&bug.flag));
    let spread = |cases: Vec<&'static Case>| cases.iter().copied().step_by(cases.len().div_ceil(most).max(1)).collect();
    let (with, without): (Vec<&Case>, Vec<&Case>) = (spread(with), spread(without));
    with.into_iter().chain(without).collect()
}

#[test]
fn the_catalogue_finds_and_names_every_bug() {
    let wrong = BUGS.par_iter().filter_map(|bug| {
        let mut report = judged(bug.name, &some_cases(bug, CASES));
        if report.status() == Status::Conformant {
            // A bug that few cases of its class show.
            report = judged(bug.name, &some_cases(bug, usize::MAX));
        }
        let named = named(&report);
        let right = report.status() == Status::NotConformant && named.first() == Some(&bug.flag);
        (!right).then(|| format!("{} ({}): {:?}, {named:?}", bug.name, bug.flag.name(), report.status()))
    });
    assert_eq!(wrong.collect::<Vec<String>>(), Vec::<String>::new());
}

/// The reference and each correct variant on a third of the cases, each third in turn; `tools/check_planted_bugs.py` has all.
#[test]
fn correct_programs_are_conformant() {
    let correct: Vec<&str> =
        Builtin::all().into_iter().map(|it| it.0).filter(|name| Bug::from_name(name).is_none()).collect();
    correct.par_iter().enumerate().for_each(|(number, name)| {
        let part = catalogue::cases().iter().filter(|case| case.name.contains("-f32-")).skip(number % 3).step_by(3);
        assert_eq!(judged(name, &part.collect::<Vec<_>>()).status(), Status::Conformant, "{name}");
    });
}

/// Where the laws find a bug, their answers tell which.
#[test]
fn properties_alone_name_the_family_of_what_they_find() {
    let found: Vec<(&Bug, Vec<Flag>)> = BUGS
        .par_iter()
        .filter_map(|bug| {
            let own = |name: &str| {
                name.ends_with("-f32")
                    && bug.operations.iter().any(|operation| name.contains(&format!("-{operation}-")))
            };
            let mut pool = Pool::of(Box::new(Builtin::new(bug.name).expect("a builtin")));
            let found = property::check(&mut pool, 3, QUICK_ROUNDS, &|name, _| own(name));
            let mut report = Report::default();
            report.add_properties(&pool, found);
            (report.status() == Status::NotConformant).then(|| (bug, named(&report)))
        })
        .collect();
    assert!(found.len() * 10 > BUGS.len() * 9, "{} of {}", found.len(), BUGS.len());
    let untold = found.iter().filter(|(bug, named)| !named.contains(&bug.flag));
    let untold: BTreeMap<&str, Vec<&str>> =
        untold.map(|(bug, named)| (bug.name, named.iter().map(|flag| flag.name()).collect())).collect();
    // The laws of the other dialects that this one breaks are those of one value per channel.
    assert_eq!(untold, BTreeMap::from([("pytorch_conventions", vec!["batch_one"])]));
}

/// The cells of the rows of a table in the page whose first cell is one of `names`, without back quotes.
fn rows_of<'a>(names: &BTreeSet<&str>, columns: usize) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| line.trim_matches('|').split('|').map(|cell| cell.trim()).collect::<Vec<&str>>();
    let rows = MATRIX.lines().filter(|line| line.starts_with("| `")).map(cells);
    rows.filter(|cells| cells.len() == columns && names.contains(cells[0].trim_matches('`'))).collect()
}

fn listed(cell: &str) -> BTreeSet<&str> {
    cell.split(", ").map(|name| name.trim_matches('`')).filter(|name| *name != "–").collect()
}

#[test]
fn every_bug_is_found_and_every_check_finds_one_or_says_why_it_stays() {
    let bugs: BTreeSet<&str> = BUGS.iter().map(|bug| bug.name).collect();
    let rows = rows_of(&bugs, 4);
    assert_eq!(
        rows.iter().map(|row| row[0].trim_matches('`')).collect::<Vec<_>>(),
        BUGS.iter().map(|bug| bug.name).collect::<Vec<_>>()
    );
    let missed = rows.iter().filter(|row| row[1] == "0" && row[2] == "–" && row[3] == "–");
    assert_eq!(missed.count(), 0);
    let finding: BTreeSet<&str> =
        rows.iter().flat_map(|row| listed(row[2]).into_iter().chain(listed(row[3]))).collect();
    let idle: BTreeSet<&str> = matrix::checks().filter(|check| !finding.contains(check)).collect();
    assert_eq!(idle, matrix::IDLE.iter().map(|(check, _)| *check).collect());
    let checks: BTreeSet<&str> = matrix::checks().collect();
    assert!(finding.is_subset(&checks));
    assert_eq!(rows_of(&checks, 3).len(), checks.len());
}

/// All rows are compared by `.ci/run`; here every tenth, without its statistics.
#[test]
fn the_matrix_is_as_computed() {
    for (number, bug) in BUGS.iter().enumerate().filter(|(number, _)| number % 10 == 7) {
        let computed = matrix::Row::without_statistics(bug);
        let stored = &rows_of(&BTreeSet::from([bug.name]), 4)[0];
        assert_eq!(stored[1], computed.cases.to_string(), "{number}: {}", bug.name);
        assert_eq!(listed(stored[2]), computed.properties, "{number}: {}", bug.name);
    }
}
