//! Local response normalization (Krizhevsky, Sutskever and Hinton 2012), as `torch.nn.LocalResponseNorm` and
//! `torch.nn.CrossMapLRN2d`.
//!
//! ```text
//! input: [N, C, *]    windows: for each sample and position, the channels c − ⌊size/2⌋ … c + ⌊(size−1)/2⌋
//! y_c = x_c/d_c^β     d_c = k + α·S_c/size     S_c = Σ x² over the window; channels that are not there count as 0
//! grad_input_c = g_c/d_c^β − (2αβ/size)·x_c·Σ g_j·x_j/d_j^(β+1)    over the j whose window holds c
//! ```
//! An even size reaches further to the left. The divisor is `size`, also at the borders.

use serde::{Deserialize, Serialize};

use super::{
    Call, Definition, Description, Given, Output, Outputs, Partition, Plan, Refusal, RefusalKind, Refused, Rule,
    Signature, WindowRule, json_float,
};
use crate::arithmetic::{Arithmetic, Real};
use crate::tensor::Tensors;

/// Local response norm's hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalResponseNorm {
    /// Channels of a window.
    pub size: i64,
    /// The weight of the window's mean square.
    #[serde(with = "json_float")]
    pub alpha: f64,
    /// The exponent.
    #[serde(with = "json_float")]
    pub beta: f64,
    /// Added to the weighted mean square.
    #[serde(with = "json_float")]
    pub k: f64,
}

/// The same formula for images alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossMapLrn {
    /// Channels of a window.
    pub size: i64,
    /// The weight of the window's mean square.
    #[serde(with = "json_float")]
    pub alpha: f64,
    /// The exponent.
    #[serde(with = "json_float")]
    pub beta: f64,
    /// Added to the weighted mean square.
    #[serde(with = "json_float")]
    pub k: f64,
}

const SIGNATURE: Signature = Signature {
    required: &["input"],
    optional: &[],
    outputs: &["output"],
    state: &[],
    differentiable: &["input"],
    modes: false,
};

/// What both operations compute.
#[derive(Clone, Copy)]
struct Window {
    size: i64,
    alpha: f64,
    beta: f64,
    k: f64,
}

macro_rules! local_response {
    ($definition:ident, $name:literal, $ranks:expr, $expected:literal) => {
        impl Definition for $definition {
            const NAME: &'static str = $name;

            fn signature(&self) -> Signature {
                SIGNATURE
            }

            fn plan(&self, call: &Call<'_>, _rule: &Rule) -> Result<Plan, Refused> {
                self.window().plan(call, $ranks, $expected)
            }

            fn forward<A: Arithmetic>(
                &self,
                Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
            ) -> Outputs<A::Real> {
                self.window().forward(arithmetic, plan, tensors, rule)
            }

            fn backward<A: Arithmetic>(
                &self,
                Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
                shapes: &Tensors<Description>,
            ) -> Tensors<Output<A::Real>> {
                let gradient = self.window().backward(arithmetic, plan, tensors, rule);
                Tensors::from([(
                    "grad_input".into(),
                    Output { shape: shapes["input"].shape.clone(), values: gradient },
                )])
            }
        }

        impl $definition {
            fn window(&self) -> Window {
                Window { size: self.size, alpha: self.alpha, beta: self.beta, k: self.k }
            }
        }
    };
}

local_response!(LocalResponseNorm, "local_response_norm", 3..=usize::MAX, "rank 3 or more");
local_response!(CrossMapLrn, "cross_map_lrn", 4..=4, "rank 4");

impl Window {
    fn plan(self, call: &Call<'_>, ranks: std::ops::RangeInclusive<usize>, expected: &str) -> Result<Plan, Refused> {
        let shape = call.tensors["input"].shape.as_slice();
        let refuse = |kind, message| Err(Refused::uncounted(Refusal::new(kind, message)));
        if !ranks.contains(&shape.len()) {
            return refuse(RefusalKind::Shape, format!("the input has shape {shape:?}; expected {expected}"));
        }
        if self.size <= 0 {
            return refuse(RefusalKind::Parameter, format!("size is {}; expected 1 or more", self.size));
        }
        Ok(Plan::of_norms(Partition::lines(shape, 1), shape, 0.0))
    }

    /// The channels of the window around `channel` that are there.
    fn channels(self, channel: usize, channels: usize, samples: usize, rule: &Rule) -> std::ops::Range<usize> {
        let size = self.size as usize;
        let (left, right) = match rule.window {
            WindowRule::OfBatch if channel >= samples => return 0..0,
            WindowRule::Right => ((size - 1) / 2, size / 2),
            _ => (size / 2, (size - 1) / 2),
        };
        channel.saturating_sub(left)..channel.saturating_add(right).saturating_add(1).min(channels)
    }

    /// Channel 0, where it stays in a window that has left it.
    fn kept(window: &std::ops::Range<usize>, rule: &Rule) -> Option<usize> {
        (rule.window == WindowRule::FirstChannelStays && window.start > 0).then_some(0)
    }

    /// d_c for each channel of a line.
    fn divisors<A: Arithmetic>(self, arithmetic: &A, x: &[A::Real], samples: usize, rule: &Rule) -> Vec<A::Real> {
        let squares: Vec<A::Real> = x.iter().map(|&x| x * x).collect();
        let (alpha, k) = (arithmetic.parameter(self.alpha), arithmetic.parameter(self.k));
        let divisor = |channel| {
            let window = self.channels(channel, x.len(), samples, rule);
            let kept = Window::kept(&window, rule);
            let count = if rule.window == WindowRule::Present { window.len() as f64 } else { self.size as f64 };
            let sum = A::Real::sum(squares[window].iter().copied());
            let sum = kept.map_or(sum, |kept| sum + squares[kept]);
            let mean = if rule.window == WindowRule::Undivided { sum } else { sum / A::Real::constant(count) };
            k + alpha * mean
        };
        (0..x.len()).map(divisor).collect()
    }

    fn forward<A: Arithmetic>(
        self,
        arithmetic: &A,
        plan: &Plan,
        tensors: &Tensors<Vec<A::Input>>,
        rule: &Rule,
    ) -> Outputs<A::Real> {
        let input: Vec<A::Real> = tensors["input"].iter().map(|&x| arithmetic.keep(x)).collect();
        let mut output = input.clone();
        for group in 0..groups(plan, &input) {
            let positions = plan.partition.positions(group);
            let x: Vec<A::Real> = positions.iter().map(|&position| input[position]).collect();
            for ((position, &x), divisor) in
                positions.into_iter().zip(&x).zip(self.divisors(arithmetic, &x, plan.partition.outer, rule))
            {
                output[position] = x / divisor.powf(self.beta);
            }
        }
        Outputs::of(plan, output)
    }

    fn backward<A: Arithmetic>(
        self,
        arithmetic: &A,
        plan: &Plan,
        tensors: &Tensors<Vec<A::Input>>,
        rule: &Rule,
    ) -> Vec<A::Real> {
        let keep = |name: &str| -> Vec<A::Real> { tensors[name].iter().map(|&x| arithmetic.keep(x)).collect() };
        let (input, mut gradient) = (keep("input"), keep("grad_output.output"));
        // A product that is rounded in f64 would be no truth.
        let factor = arithmetic.parameter(2.0 * self.alpha) * arithmetic.parameter(self.beta);
        let size = A::Real::constant(self.size as f64);
        for group in 0..groups(plan, &input) {
            let positions = plan.partition.positions(group);
            let x: Vec<A::Real> = positions.iter().map(|&position| input[position]).collect();
            let divisors = self.divisors(arithmetic, &x, plan.partition.outer, rule);
            let direct: Vec<A::Real> =
                positions.iter().zip(&divisors).map(|(&p, d)| gradient[p] / d.powf(self.beta)).collect();
            let through: Vec<A::Real> = direct.iter().zip(&x).zip(&divisors).map(|((&g, &x), &d)| g * x / d).collect();
            let mut terms = vec![Vec::new(); x.len()];
            for (channel, &term) in through.iter().enumerate() {
                let window = self.channels(channel, x.len(), plan.partition.outer, rule);
                let kept = Window::kept(&window, rule);
                for other in window.chain(kept) {
                    terms[other].push(term);
                }
            }
            for (((position, direct), &x), terms) in positions.into_iter().zip(direct).zip(&x).zip(terms) {
                gradient[position] = direct - factor * x * A::Real::sum(terms.into_iter()) / size;
            }
        }
        gradient
    }
}

fn groups<R>(plan: &Plan, input: &[R]) -> usize {
    if input.is_empty() { 0 } else { plan.partition.groups() }
}
