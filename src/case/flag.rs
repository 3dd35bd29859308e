//! Flags: bug classes and topics. A flag says what breaks for a user if a case that carries it fails.
//!
//! A *class* is exposed by a case if one of its planted bugs moves the answer by at least four bounds there; which cases
//! expose which classes is computed, kept in `exposed.txt` and checked by a test. A *topic* says what a case is about.

use serde::{Deserialize, Serialize};

/// Makes `enum Flag` and its table from one list.
macro_rules! flags {
    ($($variant:ident $name:literal $kind:ident $meaning:literal, $effect:literal, [$($reference:literal),*];)*) => {
        /// A bug class or a topic.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Flag {
            $(
                #[doc = $meaning]
                #[serde(rename = $name)]
                $variant,
            )*
        }

        impl Flag {
            /// Every flag.
            pub const ALL: &'static [Flag] = &[$(Flag::$variant),*];

            /// The name in documents and on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Flag::$variant => $name),* }
            }

            /// Whether it is a bug class or a topic.
            pub fn kind(self) -> FlagKind {
                match self { $(Flag::$variant => FlagKind::$kind),* }
            }

            /// What is wrong, or what the case is about.
            pub fn meaning(self) -> &'static str {
                match self { $(Flag::$variant => $meaning),* }
            }

            /// What it does to a user.
            pub fn effect(self) -> &'static str {
                match self { $(Flag::$variant => $effect),* }
            }

            /// Public reports of the bug in shipped layers.
            pub fn references(self) -> &'static [&'static str] {
                match self { $(Flag::$variant => &[$($reference),*]),* }
            }
        }
    };
}

/// Whether a flag is a bug class or a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagKind {
    /// A bug class: computed from the planted bugs.
    Class,
    /// A topic: declared by the case.
    Topic,
}

flags! {
    VarianceDenominator "variance_denominator" Class
        "The variance that normalizes is divided by n − 1 instead of n.",
        "Outputs are too small by the factor √((n−1)/n): 29 % at n = 2, 13 % at n = 4. A model ported from a framework with \
         the other convention does not reproduce its results.",
        ["pytorch/pytorch#19902", "pytorch/pytorch#19916"];
    EpsPlace "eps_place" Class
        "eps is added to the standard deviation instead of the variance, or is its lower limit.",
        "With eps = 1e-5 beside the deviation the floor of σ is 1e-5 instead of 3.2e-3: near-constant groups are blown up \
         three hundred times more.",
        ["allenai/OLMo#281"];
    EpsValue "eps_value" Class
        "Another eps than the one asked for: none, its square, its double, at least 1e-5; or a small variance counts as 0.",
        "Near-constant groups are scaled by another factor; without eps a constant group gives NaN.",
        ["pytorch/pytorch#189581", "pytorch/pytorch#41527", "microsoft/DeepSpeed#581", "tensorflow/tensorflow#37768",
         "pytorch/pytorch#190491"];
    Cancellation "cancellation" Class
        "The variance is computed as E(x²) − E(x)², which cancels where the mean is large.",
        "Inputs with a mean of a few thousand standard deviations come out with the wrong scale, as zeros or as NaN.",
        ["pytorch/pytorch#51102", "microsoft/onnxruntime#28463", "ml-explore/mlx#2238", "tracel-ai/burn#5607"];
    ScaleError "scale" Class
        "1/σ is a little off: an approximate reciprocal root, or a constant with too few digits.",
        "Every output is off by the same small factor, below the tolerances of most test suites.",
        [];
    LowPrecisionStatistics "low_precision_statistics" Class
        "Mean and 1/σ, or the sums that they are made of, are kept in a half type.",
        "The mean is rounded to 3 digits, so inputs with an offset are shifted: at a mean of 100 by up to a tenth of σ. Squares \
         of more than 256 overflow in float16: the output is 0.",
        ["pytorch/pytorch#147303", "pytorch/pytorch#66707", "microsoft/onnxruntime#29034"];
    Centring "centring" Class
        "The mean is not subtracted, or is subtracted where it must not be.",
        "Layer norm and RMS norm are mixed up: a checkpoint of one gives other outputs in the other, without an error.",
        ["mit-han-lab/omniserve#32", "keras-team/keras#21234"];
    MaskedLanes "masked_lanes" Class
        "Statistics see other elements than the group's: zeros that pad it, or only the first block.",
        "Sizes that are powers of two are right, as most tests are; others have the wrong variance.",
        ["triton-lang/triton#9838", "linkedin/Liger-Kernel#518", "unslothai/unsloth#1867", "facebookresearch/xformers#785"];
    MomentumSense "momentum_sense" Class
        "Momentum weighs the old value instead of the new one.",
        "With momentum 0.1 the running statistics follow the last batch alone: evaluation is as noisy as training at the \
         given batch size.",
        ["pytorch/pytorch#15298"];
    RunningVarBias "running_var_bias" Class
        "running_var averages the biased variance; PyTorch averages the unbiased one.",
        "Evaluation is off by √(n/(n−1)): with two values per channel it is 41 % too large.",
        ["tinygrad/tinygrad#807", "pytorch/pytorch#54858", "keras-team/keras#8982"];
    RunningQuantity "running_quantity" Class
        "Something else than the variance is averaged in running_var: its root, or the variance plus eps.",
        "Evaluation divides by the wrong σ, though training looks right.",
        ["pytorch/pytorch#1410"];
    StateUpdate "state_update" Class
        "The running statistics move when they must not, never, twice, or by another weight at first.",
        "Evaluation changes the model, normalizes with the initial 0 and 1 for ever, or with another window than asked for.",
        ["pytorch/pytorch#20967", "pytorch/pytorch#37823", "pytorch/pytorch#96136"];
    BatchStatistics "batch_statistics" Class
        "Training normalizes with the running statistics instead of the batch's.",
        "Outputs lag behind the inputs: those of the first batches are hardly normalized, and training is unstable.",
        ["patrick-kidger/equinox#659"];
    ModeIgnored "mode" Class
        "Evaluation normalizes with the batch's own statistics.",
        "A prediction depends on what else is in its batch; a batch of one is refused or gives the bias.",
        ["pytorch/pytorch#4348"];
    Debiasing "debiasing" Class
        "A running average that its dialect divides by the weight it has gathered is not divided, or by another weight.",
        "The first evaluations use statistics that are far too small: after one batch at a decay of 0.99, a hundredth.",
        ["patrick-kidger/equinox#659"];
    Dialect "dialect" Class
        "The conventions of another dialect than the one that was asked for.",
        "A model ported from another framework trains and evaluates differently, without an error.",
        ["pytorch/pytorch#15298", "keras-team/keras#8982"];
    Counter "counter" Class
        "num_batches_tracked does not count what PyTorch counts: every training call, empty and refused ones included.",
        "The cumulative average weighs batches wrongly, and a loaded checkpoint goes on from the wrong number.",
        [];
    CumulativeAverage "cumulative_average" Class
        "The cumulative average is off by one batch, or is none.",
        "With momentum = None the initial statistics, 0 and 1, stay in the average.",
        [];
    GroupAxis "group_axis" Class
        "Groups are made of other axes: every G-th channel, all channels, the last axis alone.",
        "A checkpoint trained with the other grouping gives different outputs, without an error.",
        ["brainpy/BrainPy#765", "tensorpack/tensorpack#1482"];
    AffineShape "affine_shape" Class
        "Weight and bias are applied per group instead of per channel.",
        "All channels of a group get the first channel's weight.",
        ["onnx/onnx#5466", "Oneflow-Inc/oneflow#4848"];
    WeightReading "weight_reading" Class
        "Another weight than the one given multiplies: 1 + weight, or 1.",
        "A checkpoint of the other convention gives outputs that are off by a factor in each channel.",
        ["linkedin/Liger-Kernel#74", "apache/mxnet#9624"];
    BatchVariance "batch_variance" Class
        "A group's result depends on its neighbours.",
        "The same sample gives different results in different batches; in language models tokens change.",
        ["vllm-project/vllm#48271", "flagos-ai/FlagGems#4984", "PaddlePaddle/Paddle#56100", "sonos/tract#2863"];
    Clipped "clipped" Class
        "Large outputs are clipped.",
        "A single outlier in a group of n may reach √(n−1); clipping hides it and changes the gradient.",
        [];
    NanPropagation "nan_propagation" Class
        "A NaN in the input comes out as a number.",
        "A diverged model trains on silently.",
        [];
    BatchOne "batch_one" Class
        "The boundary of what can be normalized is wrong: one value per channel is answered in training or refused in \
         evaluation, or a batch of one with several values per channel is refused.",
        "Training with batch size 1 fails where it could work, or trains on zeros; a model cannot be asked for one sample.",
        ["pytorch/pytorch#1381", "pytorch/pytorch#4534", "pytorch/pytorch#45687", "dotnet/TorchSharp#500"];
    GradientStatistics "gradient_statistics" Class
        "The input's gradient leaves out that mean, variance or a norm depend on the input.",
        "Training converges to something else, or not at all: the layer's whole effect on optimization is lost.",
        ["apache/mxnet#1061", "pytorch/pytorch#6929"];
    ParameterGradient "parameter_gradient" Class
        "A parameter's gradient is missing, averaged instead of summed, or taken with the raw input; or the input's lacks the \
         weight.",
        "Weight and bias learn at another rate than everything else, or not at all.",
        ["pytorch/pytorch#175189", "pytorch/pytorch#156513", "PaddlePaddle/Paddle#74149"];
    DoubleBackward "double_backward" Class
        "The gradient of a gradient leaves out that mean, variance or a norm depend on the input.",
        "A gradient penalty or a second-order optimizer steers somewhere else, though every first gradient is right.",
        ["pytorch/pytorch#79705"];
    WorkerCount "worker_count" Class
        "The running statistics of several workers are one worker's, or corrected by its count.",
        "Evaluation depends on how the batch was split among the workers.",
        ["pytorch/pytorch#22192"];
    Window "window" Class
        "The window of a local response norm holds other channels, or its sum has another divisor.",
        "A network ported from another framework gives other results, most of all with an even size or at the borders.",
        ["onnx/onnx#7805"];
    NormKind "norm" Class
        "Another norm than the one asked for: without its root, of the whole tensor, along the wrong axis, with eps added, or \
         applied where it must not be.",
        "Vectors come out with the wrong length.",
        ["pytorch/pytorch#32137", "pytorch/pytorch#1427"];
    PowerIteration "power_iteration" Class
        "The power iteration of spectral norm is left out, forgotten, or starts at the wrong end.",
        "σ is an old estimate, or u and v of a checkpoint do not fit together.",
        ["pytorch/pytorch#51800", "pytorch/pytorch#11476"];
    Folding "folding" Class
        "Folding a batch norm into a convolution forgets the running mean, or the factor of the convolution's bias.",
        "The folded network is off by a constant in each channel.",
        ["ultralytics/yolov3#807", "Tencent/ncnn#1339"];
    Conditioning "conditioning" Class
        "The condition of one sample, or of one tensor, is applied to another.",
        "Every sample of a batch is generated for the first one's class, time step or style; with a batch of one nothing shows.",
        [];
    Mask "mask" Class
        "What a mask leaves out counts in the statistics, in their sums or in their number.",
        "A sequence's result depends on how far it was padded.",
        [];
    Activation "activation" Class
        "The activation, gate or threshold of a norm is left out, or stands in another place.",
        "The network is more linear than the one that was trained.",
        [];
    Chunks "chunks" Class
        "The statistics of the parts of a batch are put together in another way.",
        "Evaluation is done with statistics that no training has seen.",
        [];
    Limits "limits" Class
        "The corrections of batch renormalization are not limited.",
        "Early in training, when the running statistics are far off, the outputs explode.",
        [];
    Gradient "gradient" Topic "Gradients are asked for.", "", [];
    SecondGradient "second_gradient" Topic "Gradients of gradients are asked for.", "", [];
    Thread "thread" Topic
        "A question of the forum thread on small batches: what may have one value, what momentum means, which norm to use.",
        "", [];
    Refusal "refusal" Topic "The call must be refused, or is close to one that must.", "", [];
    Empty "empty" Topic "A tensor without elements.", "", ["pytorch/pytorch#29578"];
    MemoryFormat "memory_format" Topic
        "The same values in another memory layout: channels last, strided, offset.",
        "", ["pytorch/pytorch#62594", "pytorch/pytorch#115940", "pytorch/pytorch#175189", "pytorch/pytorch#174345"];
    ConstantGroup "constant_group" Topic
        "A group whose values are all equal: the exact output is the bias.",
        "", ["microsoft/onnxruntime#21935", "pytorch/pytorch#94288", "pytorch/pytorch#188372", "pytorch/pytorch#98075"];
    LargeMean "large_mean" Topic "A mean of many standard deviations.", "", ["pytorch/pytorch#51102"];
    Outlier "outlier" Topic "One outlier among n values: |y| reaches √(n−1) (Samuelson 1968).", "", [];
    Range "range" Topic
        "Values near the ends of the range: squares overflow or underflow.",
        "", ["pytorch/pytorch#162489", "pytorch/pytorch#133085"];
    MixedTypes "mixed_types" Topic
        "Parameters and statistics in F32 with a half-precision input.",
        "", ["pytorch/pytorch#156513"];
    Sequence "sequence" Topic "Several calls, each with the state that the one before returned.", "", [];
    NonFinite "non_finite" Topic "NaN or infinity in the input.", "", [];
    Large "large" Topic "A large group, for the depth of sums.", "", ["pytorch/pytorch#54293"];
    Kernel "kernel" Topic
        "A size or a start at which a GPU kernel changes course: vectors, warps, blocks.",
        "", ["flashinfer-ai/flashinfer#634", "microsoft/onnxruntime#17943", "tenstorrent/tt-metal#50682"];
    Grid "grid" Topic
        "More groups or samples than a GPU's grid has blocks along its second dimension, 65,535.",
        "", ["pytorch/pytorch#2917", "pytorch/pytorch#16998", "PaddlePaddle/Paddle#31144", "LBANN/lbann#1610"];
}

impl Flag {
    /// The flag called `name`.
    pub fn from_name(name: &str) -> Option<Flag> {
        Flag::ALL.iter().copied().find(|flag| flag.name() == name)
    }
}
