//! From groups to tensors: puts values that share statistics where an operation finds them.

use crate::operation::{
    BatchNorm, BatchNormDialect, Dialect, GroupNorm, InstanceNorm, LayerNorm, Operation, RmsNorm, SyncBatchNorm,
};

/// An input whose groups are known, with the sizes that fit it.
pub(crate) struct Shaped {
    /// Sizes of the input's dimensions.
    pub shape: Vec<usize>,
    /// Its elements in C order.
    pub input: Vec<f64>,
    /// Shape of weight and bias.
    pub parameters: Vec<usize>,
    /// Layer and RMS norm's normalized_shape.
    pub normalized_shape: Vec<usize>,
    /// Group norm's groups.
    pub num_groups: usize,
}

/// Lays out `groups` of equal size n for the operation called `name`.
///
/// | operation | input | `split` | `num_groups` |
/// | --- | --- | --- | --- |
/// | batch norm, synchronized or not | (split, groups, n/split) | the batch size | |
/// | instance norm | (groups/G, G, n) | | the channels G |
/// | group norm | (groups/G, G·split, n/split) | channels of a group | G |
/// | layer and RMS norm | (groups, split, n/split), the last two normalized; 1: (groups, n) | | |
///
/// # Panics
/// If `split` does not divide n or `num_groups` the number of groups.
pub(crate) fn shaped(name: &str, groups: &[Vec<f64>], split: usize, num_groups: usize) -> Shaped {
    let size = groups[0].len();
    assert!(
        size.is_multiple_of(split) && groups.len().is_multiple_of(num_groups),
        "{name}: {size} {split} {num_groups}"
    );
    let length = size / split;
    let none = Vec::new();
    match name {
        "batch_norm" | "sync_batch_norm" => {
            let rows = (0..split).flat_map(|n| groups.iter().map(move |channel| &channel[n * length..][..length]));
            let input = rows.flatten().copied().collect();
            let shape = vec![split, groups.len(), length];
            Shaped { shape, input, parameters: vec![groups.len()], normalized_shape: none, num_groups }
        }
        "instance_norm" => {
            let shape = vec![groups.len() / num_groups, num_groups, size];
            Shaped { shape, input: groups.concat(), parameters: vec![num_groups], normalized_shape: none, num_groups }
        }
        "group_norm" => {
            let channels = num_groups * split;
            let shape = vec![groups.len() / num_groups, channels, length];
            Shaped { shape, input: groups.concat(), parameters: vec![channels], normalized_shape: none, num_groups }
        }
        _ => {
            let normalized_shape = if split == 1 { vec![size] } else { vec![split, length] };
            let shape = [&[groups.len()], normalized_shape.as_slice()].concat();
            Shaped { shape, input: groups.concat(), parameters: normalized_shape.clone(), normalized_shape, num_groups }
        }
    }
}

impl Shaped {
    /// The operation called `name` that fits.
    pub fn operation(&self, name: &str, eps: f64, momentum: Option<f64>) -> Operation {
        let dialect = Dialect::Pytorch;
        let normalized_shape = self.normalized_shape.clone();
        match name {
            "batch_norm" => {
                let spatial_dims = match self.shape.len() {
                    2 | 3 => Some(1),
                    4 => Some(2),
                    5 => Some(3),
                    _ => None,
                };
                let dialect = BatchNormDialect::Pytorch;
                Operation::BatchNorm(BatchNorm { spatial_dims, eps, momentum, dialect })
            }
            "sync_batch_norm" => {
                // Unequal workers, one of them idle.
                let batch = self.shape[0];
                let splits = if batch > 1 { vec![1, 0, batch - 1] } else { vec![0, batch] };
                Operation::SyncBatchNorm(SyncBatchNorm { eps, momentum, splits })
            }
            "instance_norm" => {
                let spatial_dims = self.shape.len() as u8 - 2;
                Operation::InstanceNorm(InstanceNorm { spatial_dims, eps, momentum })
            }
            "group_norm" => Operation::GroupNorm(GroupNorm { num_groups: self.num_groups, eps, dialect }),
            "layer_norm" => Operation::LayerNorm(LayerNorm { normalized_shape, eps, dialect }),
            "rms_norm" => Operation::RmsNorm(RmsNorm { normalized_shape, eps: Some(eps), dialect }),
            other => panic!("no operation is called {other}"),
        }
    }
}
