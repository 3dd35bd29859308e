//! The model: running statistics in exact rationals, and the transitions that a layer can go through.
//!
//! ```text
//! r ← (1 − m)·r + m·s                   s: the mean of a channel, or Σ(x − x̄)²/(n − 1); m = 1/k for batch k without a momentum
//! T equal batches:   r ← s + (1 − m)ᵀ·(r − s);    without a momentum   r ← (k·r + T·s)/(k + T)
//! ```
//! Ioffe and Szegedy 2015, algorithm 2; torch.nn.BatchNorm1d. Inputs are (N, C, L); instance norm averages s over samples.

use dashu_ratio::RBig;
use normative::arithmetic::DataType;
use normative::operation::{BatchNorm, BatchNormDialect, InstanceNorm, Operation, SyncBatchNorm};
use proptest::prelude::*;
use proptest::sample::select;
use proptest_state_machine::ReferenceStateMachine;

pub const CHANNELS: usize = 2;

/// A power of two: exact in every type.
pub const EPS: f64 = 0.0078125;

/// The norms with running statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    Batch,
    Sync,
    Instance,
}

/// An input of quarters: `values` are counted in them, in C order; what is left over of them does not matter.
#[derive(Clone, Debug)]
pub struct Batch {
    pub samples: usize,
    pub length: usize,
    pub values: Vec<i16>,
    /// The samples of the first of two workers, where there are any.
    pub cut: usize,
}

impl Batch {
    /// The shape N, C, L.
    pub fn shape(&self) -> [usize; 3] {
        [self.samples, CHANNELS, self.length]
    }

    /// The elements.
    pub fn elements(&self) -> Vec<f64> {
        let count = self.samples * CHANNELS * self.length;
        self.values.iter().cycle().take(count).map(|&quarters| f64::from(quarters) / 4.0).collect()
    }

    /// The positions of the elements that share statistics, group after group: those of a channel, or those of an instance.
    pub fn groups(&self, norm: Norm) -> Vec<Vec<usize>> {
        let [samples, channels, length] = self.shape();
        let instance = |n: usize, c: usize| (0..length).map(move |l| (n * channels + c) * length + l);
        if norm == Norm::Instance {
            return (0..samples).flat_map(|n| (0..channels).map(move |c| instance(n, c).collect())).collect();
        }
        (0..channels).map(|c| (0..samples).flat_map(|n| instance(n, c)).collect()).collect()
    }
}

/// What can happen to a layer.
#[derive(Clone, Debug)]
pub enum Transition {
    /// Training, this often with the same batch.
    Train(Batch, u32),
    /// Evaluation: of the batch, and of each of its samples alone.
    Eval(Batch),
    /// Another momentum from now on; `None`: the average of all batches.
    Momentum(Option<f64>),
    /// `reset_running_stats`.
    Reset,
    /// The state is written down.
    Save,
    /// What was written last is read back.
    Load,
    /// No samples, in training or in evaluation.
    Empty(bool),
    /// One value for each channel, which training refuses.
    Refused,
    /// Training or evaluation with a NaN at this element.
    Nan(Batch, usize, bool),
}

/// Running statistics and their counter; a statistic is `None` once a NaN has come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    pub mean: Vec<Option<RBig>>,
    pub variance: Vec<Option<RBig>>,
    pub batches: i64,
}

impl Statistics {
    /// Of a layer that has seen nothing.
    pub fn new() -> Statistics {
        Statistics { mean: vec![Some(RBig::ZERO); CHANNELS], variance: vec![Some(RBig::ONE); CHANNELS], batches: 0 }
    }
}

/// The model of a layer.
#[derive(Clone, Debug)]
pub struct Model {
    pub norm: Norm,
    pub dtype: DataType,
    pub momentum: Option<f64>,
    pub now: Statistics,
    pub saved: Option<Statistics>,
}

impl Model {
    /// Whether training counts batches.
    pub fn counts(&self) -> bool {
        self.norm != Norm::Instance
    }

    /// The operation, for a batch of so many samples of which the first `cut` are one worker's.
    pub fn operation(&self, samples: usize, cut: usize) -> Operation {
        let (eps, momentum) = (EPS, self.momentum);
        match self.norm {
            Norm::Batch => Operation::BatchNorm(BatchNorm {
                spatial_dims: Some(1),
                eps,
                momentum,
                dialect: BatchNormDialect::Pytorch,
            }),
            Norm::Sync => {
                let splits = vec![cut.min(samples), samples - cut.min(samples)];
                Operation::SyncBatchNorm(SyncBatchNorm { eps, momentum, splits })
            }
            Norm::Instance => Operation::InstanceNorm(InstanceNorm { spatial_dims: 1, eps, momentum }),
        }
    }

    /// The weight of the new value in the next of the batches, the `count`-th.
    pub fn weight(&self, count: i64) -> RBig {
        match (self.momentum, self.norm) {
            (Some(momentum), _) => rational(momentum),
            // torch.nn.InstanceNorm1d takes no momentum for 0.
            (None, Norm::Instance) => RBig::ZERO,
            (None, _) => RBig::ONE / RBig::from(count),
        }
    }

    /// `times` equal batches, by the closed forms.
    fn train(&mut self, batch: &Batch, times: u32, nan: Option<usize>) {
        let before = self.now.batches;
        let left = match (self.momentum, self.counts()) {
            // The product of (k − 1)/k over the batches' numbers k.
            (None, true) => RBig::from(before) / RBig::from(before + i64::from(times)),
            _ => (0..times).fold(RBig::ONE, |left, _| left * (RBig::ONE - self.weight(0))),
        };
        self.now.batches += if self.counts() { i64::from(times) } else { 0 };
        let (means, variances) = moments(batch, self.norm, nan);
        for (now, new) in [(&mut self.now.mean, means), (&mut self.now.variance, variances)] {
            for (r, s) in now.iter_mut().zip(new) {
                *r = r.take().zip(s).map(|(r, s)| &s + &left * (r - &s));
            }
        }
    }
}

/// The mean and the unbiased variance of a batch for each channel; `None` where the NaN is.
pub fn moments(batch: &Batch, norm: Norm, nan: Option<usize>) -> (Vec<Option<RBig>>, Vec<Option<RBig>>) {
    let x = batch.elements();
    let groups = batch.groups(norm);
    let samples = groups.len() / CHANNELS;
    let of_channel = |channel: usize| {
        let own = (0..samples).map(|sample| &groups[sample * CHANNELS + channel]);
        let sums = own.map(|group| {
            if nan.is_some_and(|position| group.contains(&position)) {
                return None;
            }
            let (mean, squares) = mean_and_squares(&x, group);
            Some((mean, squares / RBig::from(group.len() - 1)))
        });
        let sums: Option<Vec<(RBig, RBig)>> = sums.collect();
        let mean = |part: fn(&(RBig, RBig)) -> &RBig| {
            let sums = sums.as_ref()?;
            Some(sums.iter().map(part).fold(RBig::ZERO, |sum, part| sum + part) / RBig::from(samples))
        };
        (mean(|sums| &sums.0), mean(|sums| &sums.1))
    };
    (0..CHANNELS).map(of_channel).unzip()
}

/// x̄ and Σ(x − x̄)² of the elements at `positions`.
pub fn mean_and_squares(x: &[f64], positions: &[usize]) -> (RBig, RBig) {
    let count = RBig::from(positions.len());
    let mean = positions.iter().fold(RBig::ZERO, |sum, &position| sum + rational(x[position])) / count;
    let squares = positions.iter().fold(RBig::ZERO, |sum, &position| {
        let deviation = rational(x[position]) - &mean;
        sum + &deviation * &deviation
    });
    (mean, squares)
}

/// The number itself.
pub fn rational(value: f64) -> RBig {
    RBig::try_from(value).expect("a finite number")
}

fn batches() -> impl Strategy<Value = Batch> {
    let most = 4 * CHANNELS * 4;
    // A lone value would be refused, and is a transition of its own.
    let sizes = (1..4usize, 2..5usize);
    (sizes, prop::collection::vec(-64..=64i16, most), 0..4usize).prop_map(|((samples, length), values, cut)| Batch {
        samples,
        length,
        values,
        cut,
    })
}

fn momenta() -> impl Strategy<Value = Option<f64>> {
    select(vec![Some(0.1), None, Some(0.5), Some(0.75), Some(1.0), Some(0.0)])
}

impl ReferenceStateMachine for Model {
    type State = Model;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Model> {
        let norms = select(vec![Norm::Batch, Norm::Sync, Norm::Instance]);
        let dtypes = select(vec![DataType::F64, DataType::F32]);
        let model = |(norm, dtype, momentum)| Model { norm, dtype, momentum, now: Statistics::new(), saved: None };
        (norms, dtypes, momenta()).prop_map(model).boxed()
    }

    fn transitions(_: &Model) -> BoxedStrategy<Transition> {
        let nan = (batches(), any::<prop::sample::Index>(), any::<bool>());
        prop_oneof![
            6 => (batches(), 1..5u32).prop_map(|(batch, times)| Transition::Train(batch, times)),
            3 => batches().prop_map(Transition::Eval),
            2 => momenta().prop_map(Transition::Momentum),
            1 => Just(Transition::Reset),
            2 => Just(Transition::Save),
            2 => Just(Transition::Load),
            1 => any::<bool>().prop_map(Transition::Empty),
            1 => Just(Transition::Refused),
            1 => nan.prop_map(|(batch, index, training)| {
                let position = index.index(batch.elements().len());
                Transition::Nan(batch, position, training)
            }),
        ]
        .boxed()
    }

    fn preconditions(model: &Model, transition: &Transition) -> bool {
        match transition {
            Transition::Load => model.saved.is_some(),
            // Shrinking makes the batch smaller.
            Transition::Nan(batch, position, _) => *position < batch.elements().len(),
            _ => true,
        }
    }

    fn apply(mut model: Model, transition: &Transition) -> Model {
        match transition {
            Transition::Train(batch, times) => model.train(batch, *times, None),
            Transition::Nan(batch, position, true) => model.train(batch, 1, Some(*position)),
            Transition::Eval(_) | Transition::Nan(..) | Transition::Empty(false) => {}
            Transition::Momentum(momentum) => model.momentum = *momentum,
            Transition::Reset => model.now = Statistics::new(),
            Transition::Save => model.saved = Some(model.now.clone()),
            Transition::Load => model.now = model.saved.clone().expect("a precondition"),
            // PyTorch counts a batch before it looks at it.
            Transition::Empty(true) | Transition::Refused => model.now.batches += i64::from(model.counts()),
        }
        model
    }
}
