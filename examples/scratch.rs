use normative::case::{Case, catalogue};
use normative::conformance::check;
use normative::judge::Outcome;
use normative::subject::{Builtin, Pool, Program, Subject, Timeouts};
fn main() {
    let arg = std::env::args().nth(1).unwrap();
    let subject: Box<dyn Subject> = match Builtin::new(&arg) {
        Some(b) => Box::new(b),
        None => Box::new(Program::start(&arg, Timeouts::default()).unwrap()),
    };
    let mut pool = Pool::of(subject);
    let cases: Vec<&Case> = catalogue::cases().iter().collect();
    let (verdicts, _) = check(&mut pool, &cases, &|_| ());
    let mut n = std::collections::BTreeMap::new();
    for v in &verdicts {
        *n.entry((v.operation, v.outcome, v.grade)).or_insert(0) += 1;
        if v.outcome != Outcome::Pass {
            println!(
                "{:?} {} step {} {:?} {:.3} bug {:?} {} :: {}",
                v.outcome,
                v.case,
                v.step,
                v.grade,
                v.ratio.unwrap_or(0.0),
                v.nearest_bug.map(|b| b.name),
                v.matches_bug,
                v.message
            );
        }
    }
    for (k, c) in n {
        println!("{k:?} {c}");
    }
}
