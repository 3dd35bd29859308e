//! The adapter on burn's CPU backend: what burn is known to do right must pass, or the adapter is wrong.

use normative::case::{Case, Level, catalogue};
use normative::conformance::check;
use normative::golden::glob_match;
use normative::judge::Outcome;
use normative::subject::{Pool, Subject};
use normative_burn::Burn;

#[test]
fn every_layer_passes_its_plain_cases() {
    for glob in [
        "layer_norm-f32-size-*",
        "layer_norm-f32-layout-channels_last*",
        "layer_norm-f64-size-*",
        "batch_norm-burn-f32-*",
        "batch_norm-burn-f64-*",
        "group_norm-f32-size-*",
        "group_norm-f32-layout-channels_last*",
        "instance_norm-f32-rank-*",
        "rms_norm-f32-size-*",
    ] {
        let chosen = |case: &&Case| case.level == Level::Required && glob_match(glob, &case.name);
        let cases: Vec<&Case> = catalogue::cases().iter().filter(chosen).collect();
        let mut pool = Pool::of(Box::new(Burn::flex()));
        let (verdicts, _) = check(&mut pool, &cases, &|_| ());
        let judged = verdicts.iter().filter(|verdict| verdict.outcome != Outcome::Unsupported);
        let failed: Vec<_> = judged.clone().filter(|verdict| verdict.outcome != Outcome::Pass).collect();
        assert!(judged.count() > 0 && failed.is_empty(), "{glob}: {failed:#?}");
    }
}

#[test]
fn the_hello_says_which_burn_and_where() {
    let subject = Burn::flex();
    let hello = subject.hello();
    assert_eq!((hello.name.as_str(), hello.device.as_str()), ("burn-flex", "cpu"));
    assert!(include_str!("../Cargo.toml").contains(&format!("burn = {{ version = \"={}\"", hello.version)));
}
