//! Operations: each norm variant is defined once, over group kernels, and runs in every arithmetic.
//!
//! A definition knows three things: its [`Signature`] (tensors, states, what is differentiable), its plan (which
//! elements share statistics, or why the call is refused) and its forward pass. To add one, write a file beside
//! `layer_norm.rs` and a line in the list `operations!` below.

mod ada_group_norm;
mod ada_instance_norm;
mod ada_layer_norm;
mod adaptive_batch_norm;
mod batch_group_norm;
mod batch_norm;
mod batch_renorm;
mod chunks;
mod conv_batch_norm_fold;
mod decorrelated_batch_norm;
mod dialect;
mod double_backward;
mod dynamic;
mod evo_norm;
mod extended_batch_norm;
mod families;
mod film;
mod filter_response_norm;
mod formula;
mod frozen_batch_norm;
mod ghost_batch_norm;
mod global_response_norm;
mod group_norm;
mod instance_norm;
mod iter_norm;
mod l1_batch_norm;
mod layer_norm;
mod layer_norm_1p;
mod layer_norm_2d;
mod local_response_norm;
mod masked;
mod mean_only_batch_norm;
mod mistakes;
mod mixed_norm;
mod moving_average_batch_norm;
pub(crate) mod normalization;
mod normalize;
mod norms;
mod online_norm;
mod partition;
mod pixel_norm;
mod positional_norm;
mod power_norm;
mod precise_batch_norm_statistics;
mod proxy_norm;
mod qk_norm;
mod renorm;
mod rms_norm;
mod rms_norm_gated;
mod rule;
mod running;
mod scale_norm;
mod simple_norm;
mod spade;
mod spectral_norm;
mod split_batch_norm;
mod switchable_norm;
mod sync_batch_norm;
mod unit_norm_step;
mod values;
mod virtual_batch_norm;
mod weight_demodulation;
mod weight_norm;
mod weight_standardization;
mod whitening;

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

pub use ada_group_norm::AdaGroupNorm;
pub use ada_instance_norm::AdaInstanceNorm;
pub use ada_layer_norm::AdaLayerNorm;
pub use adaptive_batch_norm::AdaptiveBatchNorm;
pub use batch_group_norm::BatchGroupNorm;
pub use batch_norm::BatchNorm;
pub use batch_renorm::BatchRenorm;
pub use conv_batch_norm_fold::ConvBatchNormFold;
pub use decorrelated_batch_norm::DecorrelatedBatchNorm;
pub use dialect::{BatchNormDialect, Conventions};
pub use dynamic::{DynamicErf, DynamicTanh};
pub use evo_norm::{EvoNormB0, EvoNormB1, EvoNormB2, EvoNormS0, EvoNormS1, EvoNormS2};
pub use extended_batch_norm::ExtendedBatchNorm;
pub use families::{AFFINE, BATCH, CENTRED, FAMILY, RUNNING, TORCH_CENTRED, TORCH_FAMILY, WEIGHTED};
pub(crate) use families::{count, join, joined};
pub use film::Film;
pub use filter_response_norm::FilterResponseNorm;
pub use frozen_batch_norm::FrozenBatchNorm;
pub use ghost_batch_norm::GhostBatchNorm;
pub use global_response_norm::GlobalResponseNorm;
pub use group_norm::GroupNorm;
pub use instance_norm::InstanceNorm;
pub use iter_norm::IterNorm;
pub use l1_batch_norm::L1BatchNorm;
pub use layer_norm::LayerNorm;
pub use layer_norm_1p::LayerNorm1p;
pub use layer_norm_2d::LayerNorm2d;
pub use local_response_norm::{CrossMapLrn, LocalResponseNorm};
pub use masked::{MaskedBatchNorm, MaskedGroupNorm, MaskedLayerNorm};
pub use mean_only_batch_norm::MeanOnlyBatchNorm;
pub use mixed_norm::{BatchChannelNorm, BatchInstanceNorm};
pub use moving_average_batch_norm::MovingAverageBatchNorm;
pub use normalization::{Affine, Output, Outputs, Plan, Source};
pub use normalize::Normalize;
pub use online_norm::{OnlineNorm, OnlineNormBackward};
pub use partition::{ParameterIndex, Partition};
pub use pixel_norm::PixelNorm;
pub use positional_norm::PositionalNorm;
pub use power_norm::{PowerNorm, PowerNormBackward};
pub use precise_batch_norm_statistics::PreciseBatchNormStatistics;
pub use proxy_norm::ProxyNorm;
pub use qk_norm::QkNorm;
pub use renorm::Renorm;
pub use rms_norm::RmsNorm;
pub use rms_norm_gated::RmsNormGated;
pub use rule::{
    BesselCount, Centring, Cumulative, Elements, EpsValue, FoldingRule, GradientRule, Grouping, IterationRule,
    MaskRule, MomentumSense, NormRule, OneValue, OnlineRule, Rule, TrainingStatistics, Updates, WeightReading,
    WindowRule,
};
pub(crate) use running::moved;
pub use running::{Average, Keeping};
pub use scale_norm::ScaleNorm;
pub use simple_norm::SimpleNorm;
pub use spade::Spade;
pub use spectral_norm::SpectralNorm;
pub use split_batch_norm::SplitBatchNorm;
pub use switchable_norm::SwitchableNorm;
pub use sync_batch_norm::SyncBatchNorm;
pub use unit_norm_step::UnitNormStep;
pub use virtual_batch_norm::VirtualBatchNorm;
pub use weight_demodulation::WeightDemodulation;
pub use weight_norm::WeightNorm;
pub use weight_standardization::{ScaledWeightStandardization, WeightStandardization};

use crate::arithmetic::{Arithmetic, DataType};
use crate::tensor::Tensors;

/// Whether a layer trains (batch statistics, running statistics move) or evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Training.
    Train,
    /// Evaluation; operations without modes get this one and ignore it.
    Eval,
}

/// The set of conventions that an operation follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// PyTorch's modules.
    #[default]
    Pytorch,
    /// transformers' `LlamaRMSNorm`: rounded to the input's type before the weight.
    Llama,
    /// transformers' `GemmaRMSNorm`: 1 + weight, rounded last.
    Gemma,
    /// transformers' `T5LayerNorm`: rounded to the weight's type before the weight.
    T5,
    /// transformers' `Olmo2RMSNorm`: the weight first, rounded last.
    Olmo2,
}

impl Dialect {
    fn is_default(&self) -> bool {
        *self == Dialect::default()
    }
}

/// Why an operation does not answer a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused ({}): {message}", kind.name())]
pub struct Refusal {
    /// The first kind that applies, in the order of [`RefusalKind`].
    pub kind: RefusalKind,
    /// What was wrong and what would be right.
    pub message: String,
}

impl Refusal {
    /// A refusal that says what was wrong and what would be right.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into() }
    }
}

/// The kinds of refusal, first that applies first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// A mix of data types that the operation does not take.
    Dtype,
    /// A rank or a size that does not fit.
    Shape,
    /// A hyper-parameter, or a missing statistic.
    Parameter,
    /// No elements where some are needed.
    Empty,
    /// One value where a variance is asked for.
    TooFewValues,
    /// Anything else.
    Other,
}

impl RefusalKind {
    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            RefusalKind::Dtype => "dtype",
            RefusalKind::Shape => "shape",
            RefusalKind::Parameter => "parameter",
            RefusalKind::Empty => "empty",
            RefusalKind::TooFewValues => "too_few_values",
            RefusalKind::Other => "other",
        }
    }
}

/// What a tensor is, without its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Data type of the elements.
    pub dtype: DataType,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
}

/// The tensors of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Tensors that every request has.
    pub required: &'static [&'static str],
    /// Tensors that may be absent.
    pub optional: &'static [&'static str],
    /// Outputs of every answer.
    pub outputs: &'static [&'static str],
    /// Inputs that are outputs too, if they were sent: the next step gets the answer's.
    pub state: &'static [&'static str],
    /// Inputs that `output` is differentiated by, where gradients are asked for.
    pub differentiable: &'static [&'static str],
    /// Whether training and evaluation differ.
    pub modes: bool,
}

impl Signature {
    /// That of a layer without parameters or state: `input` goes in, `output` comes out, in either mode.
    pub const STATELESS: Signature = Signature {
        required: &["input"],
        optional: &[],
        outputs: &["output"],
        state: &[],
        differentiable: &["input"],
        modes: false,
    };

    /// That of a layer with a weight and a bias that may be absent, which differs between training and evaluation.
    pub const TRAINED: Signature = Signature {
        optional: &["weight", "bias"],
        differentiable: &["input", "weight", "bias"],
        modes: true,
        ..Signature::STATELESS
    };
}

/// A norm variant, defined once for every arithmetic.
pub trait Definition: 'static {
    /// The name in the protocol, in snake case.
    const NAME: &'static str;

    /// The tensors that go in and come out.
    fn signature(&self) -> Signature;

    /// The choices of the layer that the dialect names.
    fn rule(&self) -> Rule {
        Rule::default()
    }

    /// Which elements share statistics, and what moves; made from shapes alone.
    ///
    /// # Errors
    /// The refusal of the layer that the dialect names, with the counter that the layer has counted before it.
    fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused>;

    /// The outputs, in any arithmetic; by default those of the family of standardizing norms.
    fn forward<A: Arithmetic>(&self, Given { arithmetic, plan, tensors, rule }: Given<'_, A>) -> Outputs<A::Real> {
        normalization::forward(arithmetic, plan, tensors, rule)
    }

    /// The gradient `grad_<tensor>` of each differentiable tensor that was sent, given those of the outputs,
    /// `grad_output.<output>`; by default those of the family.
    fn backward<A: Arithmetic>(
        &self,
        Given { arithmetic, plan, tensors, rule }: Given<'_, A>,
        shapes: &Tensors<Description>,
    ) -> Tensors<Output<A::Real>> {
        let gradients = normalization::backward(arithmetic, plan, tensors, shapes, rule);
        values::only(gradients, self.signature().differentiable)
    }
}

/// What a definition computes from.
pub struct Given<'a, A: Arithmetic> {
    /// The arithmetic.
    pub arithmetic: &'a A,
    /// What [`Definition::plan`] made of the same shapes.
    pub plan: &'a Plan,
    /// The elements of the tensors that were sent, in C order.
    pub tensors: &'a Tensors<Vec<A::Input>>,
    /// The choices.
    pub rule: &'a Rule,
}

impl<A: Arithmetic> Clone for Given<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Arithmetic> Copy for Given<'_, A> {}

/// What a definition plans from.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Train or eval.
    pub mode: Mode,
    /// The tensors that were sent.
    pub tensors: &'a Tensors<Description>,
    /// The value of `num_batches_tracked`, if it was sent.
    pub num_batches_tracked: Option<i64>,
}

impl<'a> Call<'a> {
    pub(crate) fn shape(&self, name: &str) -> Option<&'a [usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}

/// A refusal, and the counter after it: a layer may count a batch before it refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// `num_batches_tracked` after the call, if it was sent.
    pub num_batches_tracked: Option<i64>,
}

impl Refused {
    /// A refusal by an operation that does not count.
    pub(crate) fn uncounted(refusal: Refusal) -> Refused {
        Refused { refusal, num_batches_tracked: None }
    }
}

/// Makes `enum Operation` and its dispatch from one list.
macro_rules! operations {
    ($($(#[$attribute:meta])* $variant:ident),* $(,)?) => {
        /// One norm variant with its hyper-parameters.
        ///
        /// ```
        /// use normative::operation::Operation;
        /// let text = r#"{"name": "layer_norm", "normalized_shape": [8], "eps": 1e-5}"#;
        /// let operation: Operation = serde_json::from_str(text).unwrap();
        /// assert_eq!(operation.name(), "layer_norm");
        /// ```
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name", rename_all = "snake_case")]
        pub enum Operation {
            $(
                #[allow(missing_docs)]
                $(#[$attribute])*
                $variant($variant),
            )*
        }

        impl Operation {
            /// Every name, in the order of the list.
            pub const NAMES: &'static [&'static str] = &[$(<$variant as Definition>::NAME),*];

            /// The name in the protocol, in snake case.
            pub fn name(&self) -> &'static str {
                match self { $(Operation::$variant(_) => <$variant as Definition>::NAME,)* }
            }

            /// The definition, whichever it is.
            pub fn definition(&self) -> &dyn std::any::Any {
                match self { $(Operation::$variant(definition) => definition,)* }
            }

            /// The tensors that go in and come out.
            pub fn signature(&self) -> Signature {
                match self { $(Operation::$variant(definition) => definition.signature(),)* }
            }

            /// See [`Definition::rule`].
            pub fn rule(&self) -> Rule {
                match self { $(Operation::$variant(definition) => definition.rule(),)* }
            }

            /// See [`Definition::plan`].
            ///
            /// # Errors
            /// The refusal of the layer that the dialect names.
            pub fn plan(&self, call: &Call<'_>, rule: &Rule) -> Result<Plan, Refused> {
                match self { $(Operation::$variant(definition) => definition.plan(call, rule),)* }
            }

            /// See [`Definition::forward`].
            pub fn forward<A: Arithmetic>(
                &self,
                arithmetic: &A,
                plan: &Plan,
                tensors: &Tensors<Vec<A::Input>>,
                rule: &Rule,
            ) -> Outputs<A::Real> {
                match self {
                    $(Operation::$variant(definition) => definition.forward(Given { arithmetic, plan, tensors, rule }),)*
                }
            }

            /// See [`Definition::backward`].
            pub fn backward<A: Arithmetic>(
                &self,
                arithmetic: &A,
                plan: &Plan,
                tensors: &Tensors<Vec<A::Input>>,
                shapes: &Tensors<Description>,
                rule: &Rule,
            ) -> Tensors<Output<A::Real>> {
                match self {
                    $(Operation::$variant(definition) => {
                        definition.backward(Given { arithmetic, plan, tensors, rule }, shapes)
                    })*
                }
            }
        }
    };
}

operations![
    BatchNorm,
    SyncBatchNorm,
    InstanceNorm,
    LayerNorm,
    GroupNorm,
    RmsNorm,
    LocalResponseNorm,
    CrossMapLrn,
    Normalize,
    Renorm,
    WeightNorm,
    SpectralNorm,
    FrozenBatchNorm,
    ConvBatchNormFold,
    #[serde(rename = "layer_norm_2d")]
    LayerNorm2d,
    PixelNorm,
    #[serde(rename = "layer_norm_1p")]
    LayerNorm1p,
    SimpleNorm,
    QkNorm,
    RmsNormGated,
    FilterResponseNorm,
    AdaLayerNorm,
    AdaGroupNorm,
    AdaInstanceNorm,
    Film,
    Spade,
    WeightStandardization,
    ScaledWeightStandardization,
    GhostBatchNorm,
    SplitBatchNorm,
    MaskedLayerNorm,
    MaskedGroupNorm,
    MaskedBatchNorm,
    ScaleNorm,
    GlobalResponseNorm,
    DynamicTanh,
    DynamicErf,
    WeightDemodulation,
    EvoNormB0,
    EvoNormB1,
    EvoNormB2,
    EvoNormS0,
    EvoNormS1,
    EvoNormS2,
    BatchRenorm,
    PreciseBatchNormStatistics,
    OnlineNorm,
    OnlineNormBackward,
    MovingAverageBatchNorm,
    PowerNorm,
    PowerNormBackward,
    SwitchableNorm,
    BatchInstanceNorm,
    IterNorm,
    PositionalNorm,
    MeanOnlyBatchNorm,
    #[serde(rename = "l1_batch_norm")]
    L1BatchNorm,
    VirtualBatchNorm,
    ExtendedBatchNorm,
    ProxyNorm,
    BatchGroupNorm,
    BatchChannelNorm,
    AdaptiveBatchNorm,
    UnitNormStep,
    DecorrelatedBatchNorm,
];

impl Operation {
    /// The names of the dialects that the operation called `name` has, the default first.
    pub fn dialects(name: &str) -> &'static [&'static str] {
        static OF_BATCH_NORM: LazyLock<Vec<&'static str>> =
            LazyLock::new(|| BatchNormDialect::ALL.iter().map(|dialect| dialect.name()).collect());
        match name {
            BatchNorm::NAME => &OF_BATCH_NORM,
            RmsNorm::NAME => &["pytorch", "llama", "gemma", "t5", "olmo2"],
            _ => &["pytorch"],
        }
    }

    /// Whether the output has the weight's type, where that is wider than the input's: what transformers' dialects that
    /// round early promote to.
    pub(crate) fn promotes(&self) -> bool {
        matches!(self, Operation::RmsNorm(norm) if matches!(norm.dialect, Dialect::Llama | Dialect::T5))
    }
}

/// Floats in JSON: a number, or one of the strings `"nan"`, `"inf"`, `"-inf"`.
pub(crate) mod json_float {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Number {
        Finite(f64),
        Named(String),
    }

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        wrap(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        unwrap(Number::deserialize(deserializer)?)
    }

    /// The same where `null` means that the hyper-parameter is not given.
    pub mod option {
        use super::*;

        pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
            value.map(wrap).serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
            Option::<Number>::deserialize(deserializer)?.map(unwrap).transpose()
        }
    }

    fn wrap(value: f64) -> Number {
        if value.is_finite() {
            Number::Finite(value)
        } else if value.is_nan() {
            Number::Named("nan".into())
        } else {
            Number::Named(if value > 0.0 { "inf" } else { "-inf" }.into())
        }
    }

    fn unwrap<E: Error>(number: Number) -> Result<f64, E> {
        match number {
            Number::Finite(value) => Ok(value),
            Number::Named(name) => match name.as_str() {
                "nan" => Ok(f64::NAN),
                "inf" => Ok(f64::INFINITY),
                "-inf" => Ok(f64::NEG_INFINITY),
                other => Err(E::custom(format!("{other:?} is no float: a number, \"nan\", \"inf\" or \"-inf\""))),
            },
        }
    }
}

#[cfg(test)]
mod tests;
