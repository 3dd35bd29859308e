//! The catalogue: every case by name, made by exact arithmetic, the same for ever.
//!
//! A case is made once: its name is never used for another. New cases come with a new [`VERSION`], so that they do not
//! break anyone's continuous integration.

mod batch_norm;
mod degenerate;
mod dialects;
mod families;
mod instance_norm;
mod kernels;
mod layers;
mod member;
mod norms;
mod refusals;
mod thread;
mod weights;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::values::Values;
use super::{Case, Flag, Layout, Level, Step, preconditions};
use crate::arithmetic::DataType;
use crate::operation::{Mode, Operation};
use crate::tensor::{Tensor, Tensors};

/// The version of the catalogue.
pub const VERSION: &str = "2026.11";

/// The classes that each case exposes: a line a case, its name and its classes. Computed by
/// `NORMATIVE_BLESS=1 cargo test --test power`.
pub const EXPOSED: &str = include_str!("exposed.txt");

/// Every case, in a fixed order.
///
/// ```
/// use normative::case::{Level, catalogue};
/// let cases = catalogue::cases();
/// let thread = cases.iter().find(|case| case.name == "thread-batch_norm-f32-1x3x1-train").unwrap();
/// assert_eq!(thread.level, Level::Required);
/// ```
pub fn cases() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
        let mut cases = unflagged();
        let exposed: HashMap<&str, Vec<Flag>> = EXPOSED
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.next()?, words.filter_map(Flag::from_name).collect()))
            })
            .collect();
        for case in &mut cases {
            case.flags.extend(exposed.get(case.name.as_str()).into_iter().flatten());
            case.flags.sort_unstable();
            case.flags.dedup();
        }
        cases
    });
    &CASES
}

/// Every case with its topics alone: what the classes are computed from.
pub fn unflagged() -> Vec<Case> {
    const MAKERS: [fn(&mut Maker); 11] = [
        thread::make,
        families::make,
        batch_norm::make,
        refusals::make,
        instance_norm::make,
        norms::make,
        weights::make,
        dialects::make,
        layers::make,
        degenerate::make,
        kernels::make,
    ];
    // In threads of their own: a pool's could take up work, while it waits, that waits for the catalogue.
    std::thread::scope(|scope| {
        let made = MAKERS.map(|make| scope.spawn(move || Maker::made_by(make)));
        made.into_iter().flat_map(|cases| cases.join().expect("a case that can be made")).collect()
    })
}

/// The cases that are too large to be recorded: they are made, from their seeds, when they are asked.
///
/// ```
/// use normative::case::catalogue;
/// assert!(catalogue::unrecorded().iter().any(|case| case.name == "layer_norm-f32-grid-65537"));
/// ```
pub fn unrecorded() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| Maker::made_by(kernels::make_grids));
    &CASES
}

/// Collects cases.
struct Maker {
    cases: Vec<Case>,
}

impl Maker {
    fn made_by(make: fn(&mut Maker)) -> Vec<Case> {
        let mut maker = Maker { cases: Vec::new() };
        make(&mut maker);
        maker.cases
    }

    /// Adds a case. It is required if the error analysis holds for it, advisory otherwise.
    fn add(&mut self, name: String, comment: &str, topics: &[Flag], steps: Vec<Step>) {
        assert!(Case::is_valid_name(&name), "{name:?} is no case name");
        let mut case =
            Case { name, comment: comment.to_owned(), level: Level::Required, flags: topics.to_vec(), steps };
        if preconditions::violated(&case).is_some() {
            case.level = Level::Advisory;
        }
        self.cases.push(case);
    }

    /// Adds the sibling of a case of one step that asks for gradients: its name has `-grad` at the end.
    fn add_gradients(&mut self, name: &str, comment: &str, topics: &[Flag], step: &Step) {
        let name = format!("{name}-grad");
        let step = step.clone().with_gradients(&mut Values::named(&name));
        let topics = [topics, &[Flag::Gradient]].concat();
        self.add(name, comment, &topics, vec![step]);
    }

    /// Adds the sibling of a case of one step that asks for gradients of gradients: its name has `-grad2` at the end.
    fn add_double_backward(&mut self, name: &str, comment: &str, topics: &[Flag], step: &Step) {
        let name = format!("{name}-grad2");
        let step = step.clone().with_double_backward(&mut Values::named(&name));
        let topics = [topics, &[Flag::SecondGradient]].concat();
        self.add(name, comment, &topics, vec![step]);
    }

    /// Adds a case of one step, its sibling that asks for gradients, and the one that asks for gradients of gradients.
    fn add_all(&mut self, name: String, comment: &str, topics: &[Flag], step: Step) {
        self.add_double_backward(&name, comment, topics, &step);
        self.add_both(name, comment, topics, step);
    }

    /// Adds a case of one step, and its sibling that asks for gradients.
    fn add_both(&mut self, name: String, comment: &str, topics: &[Flag], step: Step) {
        self.add_gradients(&name, comment, topics, &step);
        self.add_step(name, comment, topics, step);
    }

    /// Adds a case of one step.
    fn add_step(&mut self, name: String, comment: &str, topics: &[Flag], step: Step) {
        self.add(name, comment, topics, vec![step]);
    }
}

/// A step under construction.
struct Call {
    operation: Operation,
    mode: Mode,
    layout: Layout,
    dtype: DataType,
    parameters: DataType,
    tensors: Tensors,
}

impl Call {
    /// A call of `operation` in evaluation mode whose tensors are all of type `dtype`.
    fn new(operation: Operation, dtype: DataType) -> Call {
        let (mode, layout, tensors) = (Mode::Eval, Layout::default(), Tensors::new());
        Call { operation, mode, layout, dtype, parameters: dtype, tensors }
    }

    fn train(mut self) -> Call {
        self.mode = Mode::Train;
        self
    }

    fn layout(mut self, layout: Layout) -> Call {
        self.layout = layout;
        self
    }

    /// Parameters and statistics added from here on are of type `dtype`.
    fn parameters_in(mut self, dtype: DataType) -> Call {
        self.parameters = dtype;
        self
    }

    fn input(self, shape: &[usize], values: Vec<f64>) -> Call {
        let dtype = self.dtype;
        self.tensor("input", dtype, shape, values)
    }

    fn parameter(self, name: &str, shape: &[usize], values: Vec<f64>) -> Call {
        let dtype = self.parameters;
        self.tensor(name, dtype, shape, values)
    }

    /// Running statistics 0 and 1, as a new module has them, and a counter at 0.
    fn fresh(self, channels: usize) -> Call {
        self.parameter("running_mean", &[channels], vec![0.0; channels])
            .parameter("running_var", &[channels], vec![1.0; channels])
            .counter(0)
    }

    fn counter(mut self, batches: i64) -> Call {
        self.tensors.insert("num_batches_tracked".into(), Tensor::counter(batches));
        self
    }

    fn tensor(mut self, name: &str, dtype: DataType, shape: &[usize], values: Vec<f64>) -> Call {
        self.tensors.insert(name.into(), Tensor::rounded(dtype, shape, values));
        self
    }

    fn step(self) -> Step {
        let Call { operation, mode, layout, tensors, .. } = self;
        Step { operation, mode, layout, gradients: false, double_backward: false, tensors }
    }
}

/// A data type's name in a case's name.
fn short(dtype: DataType) -> String {
    dtype.name().to_lowercase()
}

/// A weight and a bias of `count` values near 1 and 0, as a trained layer has them, none of them alike.
fn trained(values: &mut Values, count: usize) -> (Vec<f64>, Vec<f64>) {
    let weight = (0..count).map(|_| values.sign() * (0.5 + values.uniform())).collect();
    let bias = (0..count).map(|_| values.normal() / 4.0).collect();
    (weight, bias)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_steps_are_calls() {
        let mut names = HashSet::new();
        for case in cases() {
            assert!(names.insert(&case.name), "{} twice", case.name);
            assert!(!case.comment.is_empty(), "{}", case.name);
            assert_eq!(case.steps[0].check(), Ok(()), "{}", case.name);
        }
        assert!(cases().len() >= 300, "{}", cases().len());
    }

    #[test]
    fn the_exposed_classes_name_cases_and_flags() {
        let names: HashSet<&str> = cases().iter().map(|case| case.name.as_str()).collect();
        for line in EXPOSED.lines() {
            let mut words = line.split(' ');
            assert!(words.next().is_some_and(|name| names.contains(name)), "{line:?} names no case");
            assert!(words.all(|flag| Flag::from_name(flag).is_some()), "{line:?} names an unknown flag");
        }
    }
}
