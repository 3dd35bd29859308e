//! A search for violations: correct variants on random groups never leave their law.

use normative::arithmetic::DataType;
use normative::case::random;
use normative::case::values::Values;
use normative::case::{Case, Declared, Level};
use normative::judge::{Expected, Grade, Outcome, judge};
use normative::operation::Operation;
use normative::subject::answer_by;
use normative::subject::planted::variants;
use rayon::prelude::*;

#[test]
fn correct_variants_never_leave_their_law() {
    let jobs: Vec<(&str, DataType, u64)> = Operation::NAMES
        .iter()
        .flat_map(|&name| DataType::FLOATS.iter().map(move |&dtype| (name, dtype)))
        .flat_map(|(name, dtype)| (0..50).map(move |seed| (name, dtype, seed)))
        .collect();
    let failures: Vec<String> = jobs
        .par_iter()
        .flat_map_iter(|&(name, dtype, seed)| {
            let mut values = Values::named(&format!("laws {name} {dtype} {seed}"));
            let step = random::step(&mut values, name, dtype, 200);
            let case = Case {
                name: "random".into(),
                comment: String::new(),
                level: Level::Required,
                flags: vec![],
                steps: vec![step.clone()],
            };
            let _ = &case;
            let expected = Expected::of(&step);
            variants()
                .into_iter()
                .filter_map(move |variant| {
                    let answer = answer_by(&step, &variant.recipe);
                    let judgement = judge(&step, &expected, &answer, &Declared::default());
                    (judgement.outcome == Outcome::Fail || judgement.grade > Some(Grade::Updating)).then(|| {
                        format!(
                            "{} {name} {dtype} {seed} {:?} {:?}: {}",
                            variant.name,
                            step.operation,
                            step.tensors["input"].shape(),
                            judgement.message
                        )
                    })
                })
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures[..failures.len().min(40)].join("\n"));
}
