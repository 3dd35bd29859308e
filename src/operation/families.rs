//! Operations by what they have in common.

/// Those of `torch.nn` that take statistics of their input, and standardize it.
pub const TORCH_FAMILY: &[&str] =
    &["batch_norm", "sync_batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm"];

/// Operations that take statistics of their input, and standardize it.
pub const FAMILY: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "layer_norm",
    "group_norm",
    "rms_norm",
    "layer_norm_2d",
    "pixel_norm",
    "layer_norm_1p",
    "filter_response_norm",
    "ada_layer_norm",
    "ada_group_norm",
    "weight_standardization",
];

/// Those of the family that subtract the mean.
pub const CENTRED: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "layer_norm",
    "group_norm",
    "layer_norm_2d",
    "layer_norm_1p",
    "ada_layer_norm",
    "ada_group_norm",
    "weight_standardization",
];

/// Those of the family with a weight that multiplies what is standardized.
pub const AFFINE: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "layer_norm",
    "group_norm",
    "rms_norm",
    "layer_norm_2d",
    "filter_response_norm",
];

/// Those of the family with a weight, be it 1 more than what was sent.
pub const WEIGHTED: &[&str] = &[
    "batch_norm",
    "sync_batch_norm",
    "instance_norm",
    "layer_norm",
    "group_norm",
    "rms_norm",
    "layer_norm_2d",
    "filter_response_norm",
    "layer_norm_1p",
    "ada_layer_norm",
    "ada_group_norm",
];

/// Those of `torch.nn` with running statistics.
pub const RUNNING: &[&str] = &["batch_norm", "sync_batch_norm", "instance_norm"];

/// Those that count batches, and pool their samples.
pub const BATCH: &[&str] = &["batch_norm", "sync_batch_norm"];
