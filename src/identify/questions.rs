//! The questions: designed cases, and the rules that could answer them.
//!
//! ```text
//! momentum     r₀ = 0, mean 8, m = ¼: 2 if it weighs the new value, 6 if the old one, 0 if nothing moves; then mean 4
//! running_var  two values ±2 from their mean, m = ½: v = 4, v·n/(n−1) = 8, their roots 2 and 2.83, with eps 4.5 and 8.5
//! eps          values ±¼, eps = ¼: σ = 0.56 inside the root, 0.5 outside, 0.25 without eps, 0.35 with its square, 0.75 doubled
//! variance     four values, so large that eps does not matter: 1/σ differs by √(3/4)
//! ```
//! Each case is answered in few operations on numbers near 1, so a good program's bound is some 10⁻¹⁵ of them in F64 and
//! 10⁻² in the narrowest type: the choices are at least eight bounds apart in every type (a test holds them to it).

use super::About;
use crate::arithmetic::format::power_of_two;
use crate::arithmetic::{DataType, EpsPlace, RunningQuantity};
use crate::case::shaped::shaped;
use crate::case::{Answer, COUNTER, Case, Layout, Level, Request, Step};
use crate::operation::{
    Average, BATCH, BatchNormDialect, CENTRED, Cumulative, EpsValue, Mode, MomentumSense, OneValue, Operation, RUNNING,
    Rule, TrainingStatistics, Updates,
};
use crate::tensor::{Tensor, Tensors};

/// A designed case and the answers that it can have.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its name.
    pub name: &'static str,
    /// What it asks.
    pub asks: &'static str,
    /// Whom it can tell apart.
    pub about: About,
    /// The case.
    pub case: Case,
    /// The tensors that are compared.
    pub compares: &'static [&'static str],
    /// The possible answers.
    pub choices: Vec<Choice>,
    /// What can be said where none fits.
    pub otherwise: Option<fn(&Request, &Answer) -> Option<String>>,
}

/// A possible answer.
#[derive(Clone, Debug)]
pub struct Choice {
    /// In words.
    pub says: &'static str,
    /// What a layer that answers so chose.
    pub edit: fn(&mut Rule),
}

fn choice(says: &'static str, edit: fn(&mut Rule)) -> Choice {
    Choice { says, edit }
}

/// The running statistics kept in another way; a layer whose first batch replaces them normalizes by them in training.
fn keep(rule: &mut Rule, momentum: MomentumSense, average: Average) {
    let updated = average == Average::FirstReplaces;
    rule.training = if updated { TrainingStatistics::Updated } else { TrainingStatistics::Batch };
    (rule.momentum, rule.average) = (momentum, average);
}

/// The statistics that momentum moves.
const MOVED: &[&str] = &["running_mean", "hidden_mean", "scale_factor"];

/// The questions for an operation of the family, asked in a dialect and a data type: those first whose answers the others
/// need.
pub fn questions(operation: &str, dialect: BatchNormDialect, dtype: DataType) -> Vec<Question> {
    let ask = Ask { operation, dialect, dtype };
    let mut questions = Vec::new();
    if RUNNING.contains(&operation) {
        questions.push(ask.momentum());
    }
    // A layer that normalizes with its running statistics has no other variance than theirs.
    if CENTRED.contains(&operation) && dialect.conventions().average != Average::FirstReplaces {
        questions.push(ask.variance());
    }
    questions.push(ask.eps());
    if RUNNING.contains(&operation) {
        questions.push(ask.evaluation());
        questions.push(ask.running_var());
    }
    if BATCH.contains(&operation) {
        questions.push(ask.one_value());
        questions.push(ask.batch_of_one());
        if dialect.conventions().state.contains(&COUNTER) {
            questions.push(ask.counter());
        }
        if dialect == BatchNormDialect::Pytorch {
            questions.push(ask.cumulative());
        }
    }
    questions
}

/// How the questions are asked.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub operation: &'a str,
    pub dialect: BatchNormDialect,
    pub dtype: DataType,
}

impl Ask<'_> {
    /// A call whose groups are these, in two parts where `split` is 2.
    pub fn step(self, groups: &[Vec<f64>], split: usize, eps: f64, momentum: Option<f64>) -> Step {
        let shaped = shaped(self.operation, groups, split, groups.len());
        let mut operation = shaped.operation(self.operation, eps, momentum);
        if let Operation::BatchNorm(norm) = &mut operation {
            norm.dialect = self.dialect;
        }
        let fused = self.dialect == BatchNormDialect::Tensorflow && self.operation == "batch_norm";
        let mut shape = shaped.shape.clone();
        if fused {
            shape.push(1);
        }
        if let Operation::BatchNorm(norm) = &mut operation {
            norm.spatial_dims = if fused { Some(2) } else { norm.spatial_dims };
        }
        let mode = if RUNNING.contains(&self.operation) { Mode::Train } else { Mode::Eval };
        let tensors = Tensors::from([("input".to_owned(), Tensor::rounded(self.dtype, &shape, shaped.input))]);
        Step { operation, mode, layout: Layout::default(), gradients: false, double_backward: false, tensors }
    }

    fn with(self, mut step: Step, name: &str, values: Vec<f64>) -> Step {
        step.tensors.insert(name.to_owned(), Tensor::rounded(self.dtype, &[values.len()], values));
        step
    }

    /// The state that a layer of the dialect has: means and variances, and `batches` batches seen.
    pub fn with_state(self, mut step: Step, mean: f64, variance: f64, batches: i64) -> Step {
        let channels = step.tensors["input"].shape()[1];
        for &name in step.operation.signature().state {
            step = match name {
                COUNTER => {
                    step.tensors.insert(name.to_owned(), Tensor::counter(batches));
                    step
                }
                "scale_factor" => self.with(step, name, vec![2.0]),
                _ if name.ends_with("mean") => self.with(step, name, vec![mean; channels]),
                _ => self.with(step, name, vec![variance; channels]),
            };
        }
        step
    }

    fn case(self, name: &str, comment: &str, steps: Vec<Step>) -> Case {
        let name = format!("identify-{}-{name}", self.operation);
        Case { name, comment: comment.to_owned(), level: Level::Required, flags: Vec::new(), steps }
    }

    /// Two channels of four values each with mean `mean` and variance 1, up to their signs.
    fn plain(mean: f64) -> Vec<Vec<f64>> {
        vec![[-1.0, 1.0, 1.0, -1.0].map(|x| mean + x).to_vec(), [1.0, 1.0, -1.0, -1.0].map(|x| mean + x).to_vec()]
    }

    fn momentum(self) -> Question {
        let train = |mean| self.with_state(self.step(&Self::plain(mean), 2, 0.25, Some(0.25)), 0.0, 1.0, 0);
        let own = self.dialect.conventions().average;
        let mut choices = Vec::new();
        let exponential: [Choice; 2] = [
            choice("the weight of the new value", |rule| {
                keep(rule, MomentumSense::OfNew, plain_average(rule.average));
            }),
            choice("the weight of the old value", |rule| {
                keep(rule, MomentumSense::OfOld, plain_average(rule.average));
            }),
        ];
        // Instance norm never counts, so it knows no first batch.
        let has_counter = BATCH.contains(&self.operation)
            && self.dialect.conventions().state == BatchNormDialect::Pytorch.conventions().state;
        if own == Average::Debiased {
            choices.push(choice("the weight of the old value, debiased", |rule| {
                (rule.momentum, rule.average) = (MomentumSense::OfOld, Average::Debiased);
            }));
            choices.push(choice("the weight of the new value, debiased", |rule| {
                (rule.momentum, rule.average) = (MomentumSense::OfNew, Average::Debiased);
            }));
            choices.push(choice("the weight of the old value, debiased with one batch too many", |rule| {
                (rule.momentum, rule.average, rule.debias_offset) = (MomentumSense::OfOld, Average::Debiased, 1);
            }));
        }
        if own == Average::Unnormalized {
            choices.push(choice("the weight of the old sums", |rule| {
                (rule.momentum, rule.average) = (MomentumSense::OfOld, Average::Unnormalized);
            }));
        }
        choices.extend(exponential);
        if has_counter {
            choices.push(choice("the weight of the old value, but the first batch replaces it", |rule| {
                keep(rule, MomentumSense::OfOld, Average::FirstReplaces);
            }));
            choices.push(choice("the weight of the new value, but the first batch replaces the old one", |rule| {
                keep(rule, MomentumSense::OfNew, Average::FirstReplaces);
            }));
        }
        choices.push(choice("nothing: the running statistics never move", |rule| rule.updates = Updates::Never));
        let mut again = train(4.0);
        for name in again.operation.signature().state {
            again.tensors.remove(*name);
        }
        Question {
            name: "momentum",
            asks: "what momentum weighs, and how the averages are kept",
            about: About::Every,
            case: self.case(
                "momentum",
                "batches of mean 8 and 4 after a mean of 0, momentum ¼",
                vec![train(8.0), again],
            ),
            compares: MOVED,
            choices,
            otherwise: Some(weight_of_new),
        }
    }

    fn evaluation(self) -> Question {
        let mut step = self.with_state(self.step(&Self::plain(1.0), 2, 0.25, Some(0.25)), 3.0, 4.0, 2);
        step.mode = Mode::Eval;
        let mut choices = vec![
            choice("by the running statistics, which stay", |rule| {
                if rule.average == Average::DebiasedWhenRead {
                    rule.average = Average::Exponential;
                }
            }),
            choice("by the running statistics, which move", |rule| rule.updates = Updates::Always),
            choice("by the batch's own statistics", |rule| rule.batch_statistics_in_eval = true),
        ];
        match self.dialect.conventions().average {
            Average::Exponential | Average::FirstReplaces | Average::DebiasedWhenRead
                if step.tensors.contains_key(COUNTER) && BATCH.contains(&self.operation) =>
            {
                choices.insert(
                    1,
                    choice("by the running statistics, debiased when they are read", |rule| {
                        rule.average = Average::DebiasedWhenRead;
                    }),
                );
                choices.push(choice("by the running statistics, debiased with one batch too many", |rule| {
                    (rule.average, rule.debias_offset) = (Average::DebiasedWhenRead, 1);
                }));
            }
            _ => {}
        }
        Question {
            name: "evaluation",
            asks: "by which statistics evaluation normalizes, and whether they move",
            about: About::Every,
            case: self.case(
                "evaluation",
                "evaluation with mean 3 and variance 4 stored, on a batch of mean 1",
                vec![step],
            ),
            compares: &["output", "running_mean", "running_var"],
            choices,
            otherwise: None,
        }
    }

    fn variance(self) -> Question {
        // So large that no eps near those in use can be seen beside it.
        let scale = power_of_two(match self.dtype {
            DataType::F64 => 60,
            DataType::F16 => 12,
            _ => 30,
        });
        let groups = [[0.0, 1.0, 2.0, 5.0], [3.0, -1.0, 0.0, 2.0]];
        let groups: Vec<Vec<f64>> = groups.map(|group| group.map(|x| x * scale).to_vec()).into();
        let step = self.step(&groups, 2, 0.0009765625, Some(0.25));
        Question {
            name: "variance",
            asks: "what the variance that normalizes is divided by",
            about: About::Every,
            case: self.case("variance", "groups of four values", vec![self.tracked(step)]),
            compares: &["output"],
            choices: vec![
                choice("n (biased)", |rule| rule.degrees_of_freedom = 0),
                choice("n − 1 (unbiased)", |rule| rule.degrees_of_freedom = 1),
            ],
            otherwise: None,
        }
    }

    fn eps(self) -> Question {
        let groups = vec![vec![0.25, -0.25, -0.25, 0.25], vec![-0.25, -0.25, 0.25, 0.25]];
        let step = self.step(&groups, 2, 0.25, Some(0.25));
        Question {
            name: "eps",
            asks: "where eps stands, and how large it is",
            about: About::Every,
            case: self.case("eps", "values of ±¼, eps = ¼", vec![self.tracked(step)]),
            compares: &["output"],
            choices: vec![
                choice("inside the root, as given", |rule| rule.eps_place = EpsPlace::InsideRoot),
                choice("outside the root, as given", |rule| rule.eps_place = EpsPlace::OutsideRoot),
                choice("nowhere", |rule| rule.eps = EpsValue::Dropped),
                choice("inside the root, squared", |rule| rule.eps = EpsValue::Squared),
                choice("inside the root, doubled", |rule| rule.eps = EpsValue::Doubled),
            ],
            otherwise: Some(eps_instead),
        }
    }

    /// A training call with the state of a new layer, where the operation has some.
    pub fn tracked(self, step: Step) -> Step {
        if RUNNING.contains(&self.operation) { self.with_state(step, 0.0, 1.0, 0) } else { step }
    }

    fn running_var(self) -> Question {
        // For instance norm each sample is a group: two values of an image.
        let groups = vec![vec![1.0, 5.0], vec![-4.0, 0.0]];
        let step = self.with_state(self.step(&groups, 1, 0.5, Some(0.5)), 0.0, 0.0, 5);
        let biased: fn(&mut Rule) = |rule| quantity(rule, 0, RunningQuantity::Variance);
        Question {
            name: "running_var",
            asks: "what running_var averages",
            about: About::Every,
            case: self.case("running-var", "two values per channel, ±2 from their mean", vec![step]),
            compares: &["running_var", "hidden_var"],
            choices: vec![
                choice("the unbiased variance", |rule| quantity(rule, 1, RunningQuantity::Variance)),
                choice("the biased variance", biased),
                choice("the unbiased variance's root", |rule| quantity(rule, 1, RunningQuantity::StandardDeviation)),
                choice("the biased variance's root", |rule| quantity(rule, 0, RunningQuantity::StandardDeviation)),
                choice("the unbiased variance plus eps", |rule| quantity(rule, 1, RunningQuantity::VariancePlusEps)),
                choice("the biased variance plus eps", |rule| quantity(rule, 0, RunningQuantity::VariancePlusEps)),
            ],
            otherwise: None,
        }
    }

    fn one_value(self) -> Question {
        let step = self.tracked(self.step(&[vec![3.0], vec![-2.0]], 1, 0.25, Some(0.5)));
        let step = if self.dialect.conventions().affine { self.with(step, "bias", vec![0.5, -1.5]) } else { step };
        let mut choices = vec![
            choice("refused", |rule| rule.one_value = OneValue::Refused),
            choice("passed on: y = x, and nothing moves", |rule| rule.one_value = OneValue::PassedOn),
            choice("answered with the bias", |rule| {
                (rule.one_value, rule.bessel_guarded) = (OneValue::Accepted, false);
            }),
            choice("answered with the bias, Bessel's correction being 1", |rule| {
                (rule.one_value, rule.bessel_guarded) = (OneValue::Accepted, true);
            }),
        ];
        if self.operation != "batch_norm" {
            choices.truncate(3);
        }
        Question {
            name: "one_value",
            asks: "what one value per channel does in training",
            about: About::Every,
            case: self.case("one-value", "one sample, one value per channel", vec![step]),
            compares: &["output", "running_mean", "running_var", "hidden_mean", "hidden_var"],
            choices,
            otherwise: None,
        }
    }

    fn batch_of_one(self) -> Question {
        let step = self.tracked(self.step(&Self::plain(1.0), 1, 0.25, Some(0.5)));
        Question {
            name: "batch_of_one",
            asks: "whether a batch of one sample with four values per channel is answered",
            about: About::Every,
            case: self.case("batch-of-one", "one sample, four values per channel", vec![step]),
            compares: &["output"],
            choices: vec![
                choice("answered", |_| ()),
                choice("refused", |rule| rule.one_value = OneValue::EveryBatchOfOneRefused),
            ],
            otherwise: None,
        }
    }

    fn counter(self) -> Question {
        let step = self.with_state(self.step(&Self::plain(1.0), 2, 0.25, Some(0.5)), 0.0, 1.0, 5);
        Question {
            name: "counter",
            asks: "whether batches are counted",
            about: About::With(COUNTER),
            case: self.case("counter", "a batch in training after five", vec![step]),
            compares: &[COUNTER],
            choices: vec![
                choice("counted", |rule| rule.counter_frozen = false),
                choice("not counted", |rule| rule.counter_frozen = true),
            ],
            otherwise: None,
        }
    }

    fn cumulative(self) -> Question {
        let step = self.with_state(self.step(&Self::plain(8.0), 2, 0.25, None), 0.0, 1.0, 3);
        Question {
            name: "cumulative",
            asks: "what momentum null does",
            about: About::Pytorch,
            case: self.case("cumulative", "a batch of mean 8 after three of mean 0, no momentum", vec![step]),
            compares: &["running_mean"],
            choices: vec![
                choice("the average of all batches", |rule| rule.cumulative = Cumulative::Average),
                choice("the average of all batches and one more", |rule| rule.cumulative = Cumulative::OneTooMany),
                choice("nothing moves", |rule| rule.updates = Updates::Never),
            ],
            otherwise: None,
        }
    }
}

/// The average without its particulars: debiasing when it is read is another question's.
fn plain_average(average: Average) -> Average {
    if average == Average::DebiasedWhenRead { average } else { Average::Exponential }
}

fn quantity(rule: &mut Rule, degrees_of_freedom: u8, running: RunningQuantity) {
    (rule.running_biased, rule.running) = (degrees_of_freedom == 0, running);
}

/// The weight that the new mean was given, where it is none of those that there should be.
fn weight_of_new(_: &Request, answer: &Answer) -> Option<String> {
    let weight = answer.get("running_mean")?.get(0) / 8.0;
    weight.is_finite().then(|| format!("neither: the new value was given the weight {}", short(weight)))
}

/// The eps that would have made the answer.
fn eps_instead(_: &Request, answer: &Answer) -> Option<String> {
    let y = answer.get("output")?.get(0).abs();
    let eps = (0.25 / y).powi(2) - 0.0625;
    let found = eps.is_finite() && eps >= 0.0;
    found.then(|| format!("inside the root it would be {} instead of 0.25", short(eps)))
}

/// Four significant digits.
fn short(value: f64) -> String {
    let digits = (3 - value.abs().max(1e-300).log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests;
