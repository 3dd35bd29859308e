//! The choices of every question lie far apart.

use super::super::prediction::Predicted;
use super::*;
use crate::operation::TORCH_FAMILY;
use crate::subject::answer_by;
use crate::subject::planted::Recipe;

/// How far the answers of one rule are from what is predicted of another.
fn apart(question: &Question, own: &Rule, other: &Rule) -> f64 {
    let mut previous: Option<(Request, Answer)> = None;
    let mut largest: f64 = 0.0;
    for step in 0..question.case.steps.len() {
        let request = question.case.request(step, previous.as_ref().map(|(asked, answer)| (asked, answer)));
        let answer = answer_by(&request.call, &Recipe::of_rule(*own));
        largest = largest.max(Predicted::of(&request.call, other).distance(&answer, question.compares));
        previous = Some((request, answer));
    }
    largest
}

/// No two choices lie near each other, in any type: eight bounds, of which a good program may use one.
#[test]
fn the_choices_lie_far_apart() {
    for &operation in TORCH_FAMILY {
        let spoken = |dialect: &&BatchNormDialect| Operation::dialects(operation).contains(&dialect.name());
        for &dialect in BatchNormDialect::ALL.iter().filter(spoken) {
            for dtype in DataType::FLOATS {
                for question in questions(operation, dialect, dtype) {
                    let rules = question.choices.iter().map(|choice| {
                        let mut rule = dialect.rule();
                        (choice.edit)(&mut rule);
                        rule
                    });
                    let rules: Vec<Rule> = rules.collect();
                    for (a, own) in rules.iter().enumerate() {
                        let what = format!("{operation} {dialect:?} {dtype} {}", question.name);
                        assert!(apart(&question, own, own) <= 1.0, "{what}: {}", question.choices[a].says);
                        for (b, other) in rules.iter().enumerate().filter(|(_, other)| *other != own) {
                            // Without Bessel's correction nothing guards it.
                            let unguarded = Rule { bessel_guarded: other.bessel_guarded, ..*own };
                            if unguarded == *other && own.running_biased {
                                continue;
                            }
                            let distance = apart(&question, own, other);
                            let says = [a, b].map(|index| question.choices[index].says);
                            assert!(distance >= 8.0, "{what}: {says:?} are {distance} bounds apart");
                        }
                    }
                }
            }
        }
    }
}
