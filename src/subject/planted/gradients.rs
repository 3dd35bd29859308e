//! Planted bugs: gradients.

use super::Bug;
use super::operations::NORMS;
use crate::case::Flag;
use crate::operation::{CENTRED, FAMILY, GradientRule, WEIGHTED};

pub(super) const BUGS: [Bug; 11] = [
    Bug {
        name: "cubed_inverse",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient loses the variance's part in the underflow of 1/σ³",
        source: "PyTorch 2.15, torch.nn.RMSNorm (FINDINGS.md, 3)",
        operations: &["rms_norm"],
        edit: |recipe| recipe.program.cubes = true,
    },
    Bug {
        name: "statistics_constant",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient takes mean and variance for constants",
        source: "",
        operations: FAMILY,
        edit: |recipe| recipe.rule.gradient = GradientRule::StatisticsConstant,
    },
    Bug {
        name: "gradient_without_mean",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient leaves out the mean's part",
        source: "apache/mxnet#1061",
        operations: CENTRED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutMean,
    },
    Bug {
        name: "gradient_without_variance",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient leaves out the variance's part",
        source: "",
        operations: FAMILY,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutVariance,
    },
    Bug {
        name: "norm_constant",
        flag: Flag::GradientStatistics,
        sentence: "its input gradient takes the norm for a constant",
        source: "pytorch/pytorch#6929",
        operations: NORMS,
        edit: |recipe| recipe.rule.gradient = GradientRule::StatisticsConstant,
    },
    Bug {
        name: "gradient_without_weight",
        flag: Flag::ParameterGradient,
        sentence: "its input gradient leaves out the weight",
        source: "",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutWeight,
    },
    Bug {
        name: "weight_gradient_raw",
        flag: Flag::ParameterGradient,
        sentence: "its weight gradient multiplies by the raw input",
        source: "",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WeightOfRawInput,
    },
    Bug {
        name: "parameter_gradient_averaged",
        flag: Flag::ParameterGradient,
        sentence: "its weight and bias gradients are averages instead of sums",
        source: "",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::Averaged,
    },
    Bug {
        name: "parameter_gradient_missing",
        flag: Flag::ParameterGradient,
        sentence: "its weight and bias gradients are 0",
        source: "PaddlePaddle/Paddle#74149",
        operations: WEIGHTED,
        edit: |recipe| recipe.rule.gradient = GradientRule::WithoutParameters,
    },
    Bug {
        name: "second_gradient_constant",
        flag: Flag::DoubleBackward,
        sentence: "its double backward differentiates a gradient that takes mean and variance for constants",
        source: "pytorch/pytorch#79705",
        operations: FAMILY,
        edit: |recipe| recipe.rule.second_gradient = Some(GradientRule::StatisticsConstant),
    },
    Bug {
        name: "second_norm_constant",
        flag: Flag::DoubleBackward,
        sentence: "its double backward takes the norm for a constant",
        source: "PyTorch 2.15, torch._weight_norm (FINDINGS.md, 2)",
        operations: &["weight_norm"],
        edit: |recipe| recipe.rule.second_gradient = Some(GradientRule::NormSaved),
    },
];
