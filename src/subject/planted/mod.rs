//! Planted bugs and correct variants: recipes that the suite must accuse, and recipes that it must never accuse.
//!
//! A planted bug is an edited [`Rule`] (or an unstable [`Program`]); a correct variant is another order of operations
//! under the pristine rule.

mod gradients;
mod layers;
mod operations;
mod others;
mod running;
mod variance;

use crate::arithmetic::{Form, Order, Program, VarianceMethod};
use crate::case::Flag;
use crate::operation::{Operation, Rule, count, join};

/// How a compiled-in subject computes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recipe {
    /// Its formula, for an operation whose dialect has PyTorch's rule.
    pub rule: Rule,
    /// Its order of operations.
    pub program: Program,
    /// Accumulates in f64 whatever the input.
    pub wide: bool,
    /// What it keeps in the input's type if that is a half type, or else in f16.
    pub half: Half,
    made: Made,
}

/// What a program keeps in half precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Half {
    /// Nothing but what comes in and goes out.
    #[default]
    Nothing,
    /// Mean and 1/σ.
    Statistics,
    /// The sums that they are made of, term by term.
    Sums,
}

/// What a recipe makes of the rule of an operation's dialect.
#[derive(Clone, Copy, Debug, Default)]
enum Made {
    /// It follows it.
    #[default]
    Pristine,
    /// It edits it, in the operations that can have the mistake.
    Edited(fn(&mut Recipe), &'static [&'static str]),
    /// It has its own, whatever is asked.
    Fixed,
}

impl Recipe {
    /// A program that follows `rule`, whatever dialect it is asked in.
    pub fn of_rule(rule: Rule) -> Recipe {
        Recipe { rule, made: Made::Fixed, ..Recipe::default() }
    }

    /// This recipe for an operation, whose dialect may have another rule than PyTorch's.
    pub fn on(&self, operation: &Operation) -> Recipe {
        match self.made {
            Made::Fixed => *self,
            Made::Pristine => Recipe { rule: operation.rule(), ..*self },
            Made::Edited(_, operations) if !operations.contains(&operation.name()) => {
                Recipe { rule: operation.rule(), ..Recipe::default() }
            }
            Made::Edited(edit, _) => {
                let mut recipe = Recipe { rule: operation.rule(), ..Recipe::default() };
                edit(&mut recipe);
                recipe
            }
        }
    }
}

/// A mistake that some real layer makes or made.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// The name for `--builtin`.
    pub name: &'static str,
    /// Its class.
    pub flag: Flag,
    /// What the layer does, in a sentence.
    pub sentence: &'static str,
    /// Where it was seen: an issue or a pull request, or the layer that does so; empty where none is public.
    pub source: &'static str,
    /// The operations that can have it.
    pub operations: &'static [&'static str],
    edit: fn(&mut Recipe),
}

impl Bug {
    /// The recipe with this mistake and no other.
    pub fn recipe(&self) -> Recipe {
        let mut recipe = Recipe { made: Made::Edited(self.edit, self.operations), ..Recipe::default() };
        (self.edit)(&mut recipe);
        recipe
    }

    /// The bug called `name`.
    pub fn from_name(name: &str) -> Option<&'static Bug> {
        BUGS.iter().find(|bug| bug.name == name)
    }
}

/// A correct program.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// The name for `--builtin`.
    pub name: &'static str,
    /// How it computes, in a sentence.
    pub sentence: &'static str,
    /// Its order of operations.
    pub recipe: Recipe,
}

/// Every planted bug; those of a class are neighbours. Of two that explain the same failures the first is named.
pub const BUGS: &[Bug] = &join::<Bug, { count(PARTS) }>(PARTS, variance::BUGS[0]);

const PARTS: &[&[Bug]] = &[&variance::BUGS, &running::BUGS, &layers::BUGS, &gradients::BUGS, &others::BUGS];

/// Every correct variant.
pub fn variants() -> Vec<Variant> {
    let plain = Program::default();
    let variant = |name, sentence, program| Variant { name, sentence, recipe: Recipe { program, ..Recipe::default() } };
    vec![
        variant("two_pass", "two passes, from the first value to the last", plain),
        variant(
            "two_pass_reversed",
            "two passes, from the last value to the first",
            Program { order: Order::Reversed, ..plain },
        ),
        variant("two_pass_pairwise", "two passes, summing halves", Program { order: Order::Pairwise, ..plain }),
        variant(
            "two_pass_lanes",
            "two passes, eight running sums side by side",
            Program { order: Order::Lanes(8), ..plain },
        ),
        variant(
            "two_pass_reciprocal",
            "two passes, multiplying by a rounded 1/n",
            Program { reciprocal: true, ..plain },
        ),
        variant("two_pass_division", "two passes, dividing by σ", Program { form: Form::Division, ..plain }),
        variant(
            "two_pass_difference",
            "two passes, running statistics as old + m(new − old)",
            Program { difference: true, ..plain },
        ),
        variant("welford", "mean and squares updated together", Program { variance: VarianceMethod::Welford, ..plain }),
        variant(
            "merged",
            "Welford in chunks of sixteen, merged",
            Program { variance: VarianceMethod::Merged(16), ..plain },
        ),
        variant("folded", "x·r + (−μ·r), then the affine parameters", Program { form: Form::Folded, ..plain }),
        variant(
            "fused_folded",
            "x·(w·r) + (b − μ·w·r) with fused multiply-adds",
            Program { form: Form::FusedFolded, ..plain },
        ),
        variant(
            "welford_folded",
            "Welford, then folded",
            Program { variance: VarianceMethod::Welford, form: Form::FusedFolded, ..plain },
        ),
        Variant {
            name: "wide",
            sentence: "two passes in f64 whatever the input",
            recipe: Recipe { wide: true, ..Recipe::default() },
        },
    ]
}
