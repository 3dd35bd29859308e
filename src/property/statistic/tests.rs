//! Each statistic, on the reference and on the bugs that it must see.

use rayon::prelude::*;

use super::*;
use crate::subject::Builtin;

fn pool(name: &str) -> Pool<'static> {
    Pool::of(Box::new(Builtin::new(name).expect("a builtin")))
}

/// Whether the name is that of `statistic` on `operation` in F64.
fn is(name: &str, statistic: &Statistic, operation: &str) -> bool {
    name == format!("statistic-{}-{operation}-f64", statistic.name)
}

/// Of some forty figures the smallest is seldom below 10⁻³; a law that is not the right one shows in thousands of groups.
#[test]
fn the_reference_follows_every_law() {
    let complaint = STATISTICS.par_iter().find_map_any(|statistic| {
        let own = |name: &str| statistic.operations.iter().any(|operation| is(name, statistic, operation));
        let found = p_values(&mut pool("reference"), SEED, &own);
        assert_eq!(found.len(), statistic.operations.len());
        found.into_iter().find(|(_, p)| !p.is_some_and(|p| p > 1e-3 && p <= 1.0))
    });
    assert_eq!(complaint, None);
}

#[test]
fn each_statistic_sees_a_bug() {
    let complaint = STATISTICS.par_iter().find_map_any(|statistic| {
        let bug = Bug::from_name(statistic.sees[0]).expect("a planted bug");
        let operation = statistic.operations.iter().find(|name| bug.operations.contains(name)).expect("an operation");
        let found = check(&mut pool(bug.name), SEED, &|name| is(name, statistic, operation));
        let [(verdict, shown)] = &found[..] else { return Some(format!("{} is not asked", statistic.name)) };
        let says = verdict.message.contains("p = ") && verdict.flags.contains(&bug.flag) && !shown.1.is_empty();
        (verdict.outcome != Outcome::Fail || !says).then(|| format!("{}: {verdict:?}", statistic.name))
    });
    assert_eq!(complaint, None);
}
