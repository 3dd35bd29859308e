//! Judging a layer from a test.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use super::subject::LayerSubject;
use super::{Element, Layer};
use crate::arithmetic::DataType;
use crate::case::{Case, catalogue};
use crate::conformance::check;
use crate::golden::glob_match;
use crate::property;
use crate::report::{Asked, Expectations, Paint, Report, Status, text};
use crate::subject::{Pool, Subject};
use crate::tensor::Tensor;

/// Kinds of failures that are shown in full.
const SHOWN: usize = 8;

/// How often a layer is asked to make a failing case smaller.
const ASKS: usize = 200;

/// Judges a layer on the whole catalogue, and by the properties that hold for any layer.
///
/// # Panics
/// With the whole report if it is not conformant; its first lines say what is wrong with the layer.
///
/// See [`Layer`](crate::Layer) for an example, and [`Check`] for a choice of cases and known failures.
#[track_caller]
pub fn assert_conformant<L: Layer>(layer: &L) {
    Check::of(layer).assert();
}

/// A check of a layer: which cases, and which failures are expected.
#[derive(Clone, Debug)]
#[must_use = "a check does nothing until it is run"]
pub struct Check<'a, L> {
    layer: &'a L,
    only: Vec<String>,
    skip: Vec<String>,
    known: Option<PathBuf>,
    strict: bool,
    seed: u64,
}

/// Whether a layer of elements `E` can be given the tensor: a counter, `E`s, or the F32 parameters of a half type.
fn is_typed<E: Element>(tensor: &Tensor) -> bool {
    let half = matches!(E::DTYPE, DataType::F16 | DataType::BF16);
    let dtype = tensor.dtype();
    dtype == DataType::I64 || dtype == E::DTYPE || half && dtype == DataType::F32
}

impl<'a, L: Layer> Check<'a, L> {
    /// Of `layer`, on the whole catalogue and by every property.
    pub fn of(layer: &'a L) -> Check<'a, L> {
        Check { layer, only: Vec::new(), skip: Vec::new(), known: None, strict: false, seed: 0 }
    }

    /// Only cases and properties whose name matches the glob (`*` any characters, `?` one); several are alternatives.
    pub fn only(mut self, glob: &str) -> Check<'a, L> {
        self.only.push(glob.to_owned());
        self
    }

    /// No cases or properties whose name matches the glob.
    pub fn skip(mut self, glob: &str) -> Check<'a, L> {
        self.skip.push(glob.to_owned());
        self
    }

    /// Failures that are expected, each with a reason: a list as `normative check --write-known` writes it. A failure on
    /// it that does not happen any more is an error.
    pub fn known(mut self, list: impl AsRef<Path>) -> Check<'a, L> {
        self.known = Some(list.as_ref().to_owned());
        self
    }

    /// Counts advisory cases too, on which careful implementations may differ.
    pub fn strict(mut self) -> Check<'a, L> {
        self.strict = true;
        self
    }

    /// Tries the properties, the statistics among them, on the values of another seed than 0.
    pub fn seed(mut self, seed: u64) -> Check<'a, L> {
        self.seed = seed;
        self
    }

    /// Runs it: the cases, the properties, and the statistics, which hold of F64 and F32 (see
    /// [`property::statistic::check`]).
    ///
    /// # Panics
    /// If the list of known failures cannot be read.
    pub fn run(&self) -> Report {
        let chosen = |name: &str| {
            let any = |globs: &[String]| globs.iter().any(|glob| glob_match(glob, name));
            (self.only.is_empty() || any(&self.only)) && !any(&self.skip)
        };
        // A layer is not asked for layouts, as all arrays are in C order, nor whether it refuses a mix of types that no
        // caller of it can write.
        let lacking = LayerSubject::new(self.layer);
        let hello = lacking.hello();
        let can = |case: &&Case| {
            case.steps
                .iter()
                .all(|step| hello.lacks(step).is_none() && step.tensors.values().all(is_typed::<L::Element>))
        };
        let all: Vec<&Case> = catalogue::cases().iter().filter(can).collect();
        let cases: Vec<&Case> = all.iter().copied().filter(|case| chosen(&case.name)).collect();
        let jobs = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).get();
        let subjects = (0..jobs).map(|_| Box::new(LayerSubject::new(self.layer)) as Box<dyn Subject + '_>);
        let mut pool = Pool::sharing(subjects.collect());
        let (verdicts, runs) = check(&mut pool, &cases, &|_| ());
        let mut report = Report { seed: self.seed, strict: self.strict, ..Report::default() };
        let name = Asked::Layer(self.layer.name());
        report.add_runs(name, &pool, &cases, verdicts, runs);
        let found = property::check(&mut pool, self.seed, property::ROUNDS, &|name, _| chosen(name));
        report.add_properties(&pool, found);
        let found = property::statistic::check(&mut pool, self.seed, &chosen);
        report.add_properties(&pool, found);
        if let Some(path) = &self.known {
            let list = Expectations::load(path, all);
            report.apply(&[list.unwrap_or_else(|error| panic!("{}: {error}", path.display()))]);
        }
        report.reduce(&mut pool, SHOWN, ASKS);
        report
    }

    /// Runs it and panics with the report if the layer is not conformant.
    ///
    /// # Panics
    /// As [`assert_conformant`].
    #[track_caller]
    pub fn assert(&self) {
        let report = self.run();
        assert!(report.status() == Status::Conformant, "\n{}", text(&report, "", SHOWN, Paint::default()));
    }
}
