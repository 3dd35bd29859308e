//! Each law finds a bug that is planted, and none where none is.

mod checking;
mod made;
mod promising;
mod slack;

use std::collections::BTreeSet;

use rayon::prelude::*;

use self::slack::broken_by_slack;
use super::*;
use crate::case::{Answer, Case, Hello, Request};
use crate::judge::Outcome;
use crate::subject::planted::{BUGS, Bug};
use crate::subject::{Builtin, Fault, Pool, Subject};
use crate::tensor::{Tensor, Tensors};

/// For each law but [`matrix::IDLE`] the planted bug that it finds and the fewest others do.
const FOUND: &[(&str, &str)] = &[
    ("affine", "affine_per_group"),
    ("argument", "alpha_dropped"),
    ("batch-size", "whole_norm"),
    ("boundary", "one_value_accepted"),
    ("branch", "smaller_branch"),
    ("centred-rms", "mean_kept"),
    ("chunks", "chunks_averaged"),
    ("demodulated", "eps_doubled"),
    ("determinism", "half_statistics"),
    ("dialect-burn", "unbiased_running_var"),
    ("dialect-caffe", "bessel_unguarded"),
    ("dialect-candle", "biased_running_var"),
    ("dialect-cudnn", "biased_running_var"),
    ("dialect-equinox-batch", "debias_late"),
    ("dialect-equinox-ema", "debias_late"),
    ("dialect-flax", "unbiased_running_var"),
    ("dialect-haiku", "debias_late"),
    ("dialect-keras", "unbiased_running_var"),
    ("dialect-mlx", "biased_running_var"),
    ("dialect-mxnet", "unbiased_running_var"),
    ("dialect-onnx", "unbiased_running_var"),
    ("dialect-paddle", "one_value_accepted"),
    ("dialect-tensorflow", "bessel_unguarded"),
    ("duplicates", "last_axis"),
    ("evaluation-after-one", "local_bessel"),
    ("evaluation-keeps", "updates_in_eval"),
    ("evolved", "unbiased_variance"),
    ("fan-in", "fan_in_dropped"),
    ("folding", "folds_bias_unscaled"),
    ("frozen", "clipped"),
    ("gate", "gate_moved"),
    ("gradient-along", "gradient_without_variance"),
    ("gradient-linear", "control_dropped"),
    ("gradient-parameters", "parameter_gradient_averaged"),
    ("gradient-scale", "eps_outside_root"),
    ("gradient-sum", "gradient_without_mean"),
    ("gradient-weight", "gradient_without_weight"),
    ("group-of-a-channel", "one_group"),
    ("idempotence", "last_axis"),
    ("instances-as-channels", "instances_pooled"),
    ("layout", "unbiased_variance"),
    ("limit", "renorms_all"),
    ("masked", "mask_counted"),
    ("mean-square", "last_axis"),
    ("mean-zero", "first_block"),
    ("mode-ignored", "half_statistics"),
    ("momentum-machine", "nan_replaced"),
    ("monotone", "weight_ignored"),
    ("negation", "unbiased_variance"),
    ("one-by-one", "once_per_batch"),
    ("one-group", "half_sums"),
    ("one-plus", "weight_offset"),
    ("one-row", "no_iteration"),
    ("one-sample", "batch_of_one_refused"),
    ("other-samples", "whole_norm"),
    ("other-samples-seen", "eps_lower_limit"),
    ("own-window", "alpha_undivided"),
    ("permutation", "between_dropped"),
    ("pixels", "leaks"),
    ("pooled", "chunks_averaged"),
    ("power-iteration", "v_first"),
    ("range", "one_group"),
    ("renorm", "running_variance"),
    ("repetition", "first_block"),
    ("response", "norms_summed"),
    ("rows", "half_sums"),
    ("running-average", "cumulative_as_default"),
    ("running-ends", "first_batch_replaces"),
    ("running-equal-batches", "first_batch_replaces"),
    ("running-twice", "momentum_flipped"),
    ("samuelson", "last_axis"),
    ("scale", "smaller_branch"),
    ("scale-bits", "eps_raised"),
    ("second-gradient-symmetric", "second_gradient_constant"),
    ("shift", "mask_counted"),
    ("shift-seen", "errors_forgotten"),
    ("style", "first_condition"),
    ("threshold", "activation_dropped"),
    ("transpose", "first_block"),
    ("unbiased-square", "biased_variance"),
    ("unit-length", "eps_added"),
    ("unit-rms", "norm_squared"),
    ("unit-weight", "whole_norm"),
    ("workers", "local_bessel"),
];

/// The reference, with something done to its answers.
pub(super) struct Edited<F> {
    pub hello: Hello,
    reference: Builtin,
    edit: F,
}

impl<F> Edited<F> {
    pub fn new(edit: F) -> Edited<F> {
        let reference = Builtin::new("reference").expect("a builtin");
        Edited { hello: reference.hello().clone(), reference, edit }
    }
}

impl<F: FnMut(&Request, Answer) -> Result<Answer, Fault> + Send> Subject for Edited<F> {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        let answer = self.reference.answer(request)?;
        (self.edit)(request, answer)
    }
}

/// The answer with another tensor in the place of `name`, where it has that.
fn with(answer: Answer, name: &str, change: impl Fn(&Tensor) -> Tensor) -> Answer {
    let Answer::Tensors(mut tensors) = answer else { return answer };
    if let Some(tensor) = tensors.get_mut(name) {
        *tensor = change(tensor);
    }
    Answer::Tensors(tensors)
}

/// The tensor with each element, of its index, made anew.
fn moved(tensor: &Tensor, change: impl Fn(usize, f64) -> f64) -> Tensor {
    let values = tensor.to_f64().into_iter().enumerate().map(|(index, x)| change(index, x));
    Tensor::rounded(tensor.dtype(), tensor.shape(), values.collect())
}

/// The number of elements of a call's tensors.
fn elements(tensors: &Tensors) -> usize {
    tensors.values().map(Tensor::len).sum()
}

#[test]
fn names_are_those_of_cases_and_differ() {
    let names: Vec<String> = cells().map(|cell| cell.name()).collect();
    assert!(names.iter().all(|name| Case::is_valid_name(name)));
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

#[test]
fn each_law_finds_its_bug_and_is_kept_without_it() {
    let laws: BTreeSet<&str> =
        FOUND.iter().map(|(law, _)| *law).chain(matrix::IDLE.iter().map(|(law, _)| *law)).collect();
    assert_eq!(laws, properties().map(|property| property.name).collect());
    // What is found first ends the search.
    let complaint = FOUND.par_iter().find_map_any(|&(law, bug)| {
        let bug = Bug::from_name(bug).expect("a planted bug");
        let own = |cell: &Cell| {
            cell.property.name == law && cell.dtype == DataType::F32 && bug.operations.contains(&cell.operation)
        };
        let own: BTreeSet<String> = cells().filter(own).map(|cell| cell.name()).collect();
        let worst = |subject: &str| {
            let mut pool = Pool::of(Box::new(Builtin::new(subject).expect("a builtin")));
            let found = check(&mut pool, 0, ROUNDS, &|name, _| own.contains(name));
            found.into_iter().map(|(verdict, _)| verdict.outcome).max()
        };
        match (worst(bug.name), worst("reference")) {
            (Some(found), Some(Outcome::Pass)) if found > Outcome::Advisory => None,
            (Some(_), Some(Outcome::Pass)) => Some(format!("{law} does not find {}", bug.name)),
            (Some(_), Some(_)) => Some(format!("{law} is broken by the reference")),
            _ => Some(format!("{law} is not asked")),
        }
    });
    assert_eq!(complaint, None);
}

/// Each law of a family is tried on all its cells, kept by the reference, also where it errs as its bounds allow, and broken
/// by those planted bugs that the page of the matrix names.
fn assert_family(laws: &'static [Property]) {
    let complaint = laws.par_iter().find_map_any(|law| {
        let own: BTreeSet<String> =
            cells().filter(|cell| cell.property.name == law.name).map(|cell| cell.name()).collect();
        let mut pool = Pool::of(Box::new(Builtin::new("reference").expect("a builtin")));
        let kept = check(&mut pool, 0, ROUNDS, &|name, _| own.contains(name));
        let complaint =
            (kept.len() != own.len()).then(|| format!("{}: {} of {} cells", law.name, kept.len(), own.len()));
        let broken = || kept.iter().find(|(verdict, _)| verdict.outcome != Outcome::Pass);
        let complaint =
            complaint.or_else(|| broken().map(|(verdict, _)| format!("{}: {}", verdict.case, verdict.message)));
        let complaint =
            complaint.or_else(|| broken_by_slack(ROUNDS, |_, name| name.ends_with("-f32") && own.contains(name)).pop());
        complaint.or_else(|| {
            let (caught, expected) = (caught_by(law, 0, ROUNDS), bugs_of(law));
            let differ: Vec<_> = caught.symmetric_difference(&expected).collect();
            (!differ.is_empty()).then(|| format!("{}: {differ:?}", law.name))
        })
    });
    assert_eq!(complaint, None);
}

/// The rows of planted bugs in docs/matrix.md: bug, number of cases, properties, statistics.
fn page() -> impl Iterator<Item = [&'static str; 4]> {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let rows = include_str!("../../docs/matrix.md").lines().filter(|line| line.starts_with("| `")).map(cells);
    rows.filter_map(|row| row.try_into().ok())
}

/// The names in a cell of the page.
fn listed(cell: &'static str) -> BTreeSet<&'static str> {
    cell.split(", ").map(|name| name.trim_matches('`')).filter(|name| *name != "–").collect()
}

/// The planted bugs that break a law.
fn bugs_of(law: &Property) -> BTreeSet<&'static str> {
    page().filter(|row| listed(row[2]).contains(law.name)).map(|row| row[0].trim_matches('`')).collect()
}

#[test]
fn a_row_of_the_matrix_is_that_of_the_page() {
    for name in ["v_first", "cumulative_off_by_one", "batch_of_one_refused"] {
        let row = matrix::Row::of(Bug::from_name(name).expect("a planted bug"));
        let [_, cases, properties, statistics] =
            page().find(|row| row[0].trim_matches('`') == name).expect("a row of the page");
        assert_eq!((row.bug, row.cases.to_string().as_str()), (name, cases));
        assert_eq!((&row.properties, &row.statistics), (&listed(properties), &listed(statistics)), "{name}");
        assert!(row.is_found());
        let nothing = matrix::Row { cases: 0, properties: BTreeSet::new(), statistics: BTreeSet::new(), ..row.clone() };
        assert!(!nothing.is_found());
        assert!(matrix::Row { cases: 1, ..nothing.clone() }.is_found());
        assert!(matrix::Row { properties: BTreeSet::from(["shift"]), ..nothing.clone() }.is_found());
        assert!(matrix::Row { statistics: BTreeSet::from(["variance"]), ..nothing }.is_found());
    }
    let checks: BTreeSet<&str> = matrix::checks().collect();
    assert!(checks.contains("samuelson") && checks.contains("running_mean"));
    assert_eq!(page().count(), BUGS.len());
}

mod family {
    use super::*;

    macro_rules! families {
        ($($family:ident),*) => {
            $(#[test]
            #[ignore = "minutes for all; tools/mutants.sh has these, .ci/run compares the page and has the slack"]
            fn $family() {
                assert_family(super::super::$family::PROPERTIES);
            })*
        };
    }
    families!(symmetry, moments, norms, identity, layer, online, refusal, gradient, repeat, running, dialect);
}
