//! Properties: what is right never breaks a law, and each law catches what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use normative::conformance::Verdict;
use normative::judge::Outcome;
use normative::property::{self, QUICK_ROUNDS, ROUNDS};
use normative::subject::planted::{BUGS, variants};
use normative::subject::{Builtin, Pool};

fn pool(name: &str) -> Pool<'static> {
    let subjects = (0..2).map(|_| Box::new(Builtin::new(name).expect("a builtin")) as Box<_>);
    Pool::sharing(subjects.collect())
}

fn check(name: &str, seed: u64, rounds: usize) -> Vec<Verdict> {
    property::check(&mut pool(name), seed, rounds, &|_, _| true).into_iter().map(|(verdict, _)| verdict).collect()
}

#[test]
fn the_reference_keeps_every_law() {
    for seed in 0..3 {
        let verdicts = check("reference", seed, ROUNDS);
        let broken: Vec<_> = verdicts.iter().filter(|verdict| verdict.outcome != Outcome::Pass).collect();
        let names: Vec<_> = broken.iter().map(|verdict| (&verdict.case, &verdict.message)).collect();
        assert!(names.is_empty(), "{} of {}: {names:#?}", names.len(), verdicts.len());
    }
}

#[test]
fn correct_variants_keep_every_law() {
    for variant in variants() {
        let verdicts = check(variant.name, 7, QUICK_ROUNDS + 2);
        let broken = verdicts.iter().filter(|verdict| verdict.outcome > Outcome::Advisory);
        let names: Vec<_> = broken.map(|verdict| (&verdict.case, &verdict.message)).collect();
        assert!(names.is_empty(), "{}: {names:#?}", variant.name);
    }
}

#[test]
fn every_law_catches_a_planted_bug() {
    let mut caught: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for bug in BUGS {
        let verdicts = property::check(&mut pool(bug.name), 0, ROUNDS, &|_, _| true);
        for (verdict, _) in verdicts.iter().filter(|(verdict, _)| verdict.outcome > Outcome::Advisory) {
            let property = property::properties().find(|property| {
                verdict.case.starts_with(&format!("property-{}-{}", property.name, verdict.operation))
            });
            caught.entry(property.expect("a property").name).or_default().insert(bug.name);
        }
    }
    for property in property::properties() {
        println!("{}: {:?}", property.name, caught.get(property.name));
    }
    let all: BTreeSet<&str> = caught.values().flatten().copied().collect();
    println!("not caught: {:?}", BUGS.iter().map(|b| b.name).filter(|name| !all.contains(name)).collect::<Vec<_>>());
}
