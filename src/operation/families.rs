//! Operations by what they have in common.

/// Operations that take statistics of their input, and standardize it.
pub const FAMILY: &[&str] = &["batch_norm", "sync_batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm"];

/// Those of the family that subtract the mean.
pub const CENTRED: &[&str] = &["batch_norm", "sync_batch_norm", "instance_norm", "layer_norm", "group_norm"];

/// Those with running statistics.
pub const RUNNING: &[&str] = &["batch_norm", "sync_batch_norm", "instance_norm"];

/// Those that count batches, and pool their samples.
pub const BATCH: &[&str] = &["batch_norm", "sync_batch_norm"];
