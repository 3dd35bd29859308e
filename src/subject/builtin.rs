//! Subjects that are compiled in: the reference, correct variants, planted bugs.

use std::collections::BTreeMap;

use super::cuda_order::{self, Device};
use super::planted::{BUGS, Bug, Half, Recipe, variants};
use super::{Fault, Hello, Subject};
use crate::arithmetic::{Accumulator, DataType, Format, Machine, Program, VarianceMethod};
use crate::case::{Answer, COUNTER, Request, Step};
use crate::judge::Expected;
use crate::operation::{Operation, Rule};
use crate::tensor::{Tensor, Tensors};

/// The emulations: name, whether nothing is fused, sentence.
const EMULATIONS: [(&str, bool, &str); 2] = [
    (cuda_order::NAME, false, "PyTorch 2.15's CUDA kernels, emulated: their order of operations, their fused products"),
    (cuda_order::UNFUSED, true, "the same with every product rounded: the control that must not have their bits"),
];

/// A subject that is compiled in.
#[derive(Clone, Debug)]
pub struct Builtin {
    hello: Hello,
    program: Compiled,
}

/// How a compiled-in subject answers.
#[derive(Clone, Debug)]
enum Compiled {
    Reference,
    Recipe(Recipe),
    CudaOrder(Device),
}

impl Builtin {
    /// The subject called `name`: `reference`, a correct variant, an emulation of CUDA's kernels, or a planted bug.
    ///
    /// ```
    /// use normative::subject::Builtin;
    /// assert!(Builtin::new("welford").is_some());
    /// assert!(Builtin::new("eps_dropped").is_some());
    /// assert!(Builtin::new("nonesuch").is_none());
    /// ```
    pub fn new(name: &str) -> Option<Builtin> {
        let program = if name == "reference" {
            Compiled::Reference
        } else if let Some((_, unfused, _)) = EMULATIONS.into_iter().find(|(emulation, ..)| *emulation == name) {
            let device = Device { unfused, ..Device::default() };
            return Some(Builtin { hello: cuda_order::hello(&device), program: Compiled::CudaOrder(device) });
        } else if let Some(bug) = Bug::from_name(name) {
            Compiled::Recipe(bug.recipe())
        } else {
            Compiled::Recipe(variants().into_iter().find(|variant| variant.name == name)?.recipe)
        };
        Some(Builtin { hello: hello(name), program })
    }

    /// Name and sentence of every compiled-in subject.
    pub fn all() -> Vec<(&'static str, &'static str)> {
        let mut all = vec![("reference", "the reference, correctly rounded")];
        all.extend(variants().iter().map(|variant| (variant.name, variant.sentence)));
        all.extend(EMULATIONS.map(|(name, _, sentence)| (name, sentence)));
        all.extend(BUGS.iter().map(|bug| (bug.name, bug.sentence)));
        all
    }
}

impl Subject for Builtin {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        Ok(match &self.program {
            Compiled::Reference => rounded(&Expected::of(&request.call)),
            Compiled::Recipe(recipe) => answer(&request.call, recipe),
            Compiled::CudaOrder(device) => cuda_order::answer(&self.hello, device, &request.call),
        })
    }
}

/// What a program that follows `recipe` answers.
pub fn answer(step: &Step, recipe: &Recipe) -> Answer {
    let recipe = &recipe.on(&step.operation);
    let wide = recipe.wide || step.tensors["input"].dtype() == DataType::F64;
    if wide { computed::<f64>(step, recipe) } else { computed::<f32>(step, recipe) }
}

fn computed<T: Accumulator>(step: &Step, recipe: &Recipe) -> Answer {
    let descriptions = step.descriptions();
    let plan = match step.plan(&recipe.rule) {
        Ok(plan) => plan,
        Err(refused) => {
            let state = step.state(refused.num_batches_tracked);
            return Answer::Refused { refusal: refused.refusal, state };
        }
    };
    let half = if step.tensors["input"].dtype() == DataType::BF16 { Format::BF16 } else { Format::F16 };
    let machine = Machine::<T>::new(match recipe.half {
        Half::Nothing => recipe.program,
        Half::Statistics => Program { statistics: Some(half), ..recipe.program },
        Half::Sums => Program { variance: VarianceMethod::Narrow(half), ..recipe.program },
    });
    let values = step.values(T::constant);
    let mut outputs = step.operation.forward(&machine, &plan, &values, &recipe.rule);
    if step.gradients {
        outputs.tensors.extend(step.operation.backward(&machine, &plan, &values, &descriptions, &recipe.rule));
    }
    if step.double_backward {
        outputs.tensors.extend(step.operation.double_backward(&plan, &values, &descriptions, &recipe.rule));
    }
    let mut tensors = Tensors::new();
    for (name, output) in outputs.tensors {
        let edit = |value: T| if name == "output" { edited(value.value(), &recipe.rule) } else { value.value() };
        let values = output.values.into_iter().map(edit).collect();
        let tensor = Tensor::rounded(step.output_dtype(&name), &output.shape, values);
        tensors.insert(name, tensor);
    }
    tensors.extend(outputs.num_batches_tracked.map(|n| (COUNTER.to_owned(), Tensor::counter(n))));
    Answer::Tensors(tensors)
}

/// What a rule does to an output before it is stored.
fn edited(value: f64, rule: &Rule) -> f64 {
    match rule.clip {
        _ if value.is_nan() && rule.replaces_nan => 0.0,
        Some(limit) if !value.is_nan() => value.clamp(-limit, limit),
        _ => value,
    }
}

/// The truth, rounded: what the reference answers.
pub(crate) fn rounded(expected: &Expected) -> Answer {
    match expected {
        Expected::Refused { refusal, state } => Answer::Refused { refusal: refusal.clone(), state: state.clone() },
        Expected::Tensors { tensors, num_batches_tracked, .. } => {
            let mut answers: Tensors = tensors
                .iter()
                .map(|(name, tensor)| {
                    (name.clone(), Tensor::rounded(tensor.dtype, &tensor.shape, tensor.rounded.clone()))
                })
                .collect();
            answers.extend(num_batches_tracked.map(|n| (COUNTER.to_owned(), Tensor::counter(n))));
            Answer::Tensors(answers)
        }
    }
}

/// Every dialect of every operation that has more than PyTorch's.
fn with_dialects() -> impl Iterator<Item = (String, Vec<String>)> {
    let all = Operation::NAMES.iter().map(|&name| (name, Operation::dialects(name)));
    let more = all.filter(|(_, dialects)| dialects.len() > 1);
    more.map(|(name, dialects)| (name.to_owned(), dialects.iter().map(|&dialect| dialect.to_owned()).collect()))
}

fn hello(name: &str) -> Hello {
    Hello {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: "cpu".to_owned(),
        operations: Operation::NAMES.iter().map(|&name| name.to_owned()).collect(),
        dtypes: DataType::FLOATS.to_vec(),
        dialects: with_dialects().collect(),
        options: ["gradients", "double_backward", "channels_last", "strided"].map(str::to_owned).to_vec(),
        arithmetic: None,
        details: BTreeMap::new(),
    }
}
