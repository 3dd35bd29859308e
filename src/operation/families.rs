//! Operations by what they have in common.

/// One list of several.
macro_rules! joined {
    ($($list:expr),* $(,)?) => {{
        const LISTS: &[&[&str]] = &[$($list),*];
        const ALL: [&str; $crate::operation::count(LISTS)] = $crate::operation::join(LISTS, "");
        &ALL
    }};
}
pub(crate) use joined;

/// The number of elements of all lists.
pub(crate) const fn count<T>(lists: &[&[T]]) -> usize {
    let (mut total, mut list) = (0, 0);
    while list < lists.len() {
        total += lists[list].len();
        list += 1;
    }
    total
}

/// The elements of all lists, one list after the other, in an array that holds them and is filled with `blank` before.
pub(crate) const fn join<T: Copy, const N: usize>(lists: &[&[T]], blank: T) -> [T; N] {
    let mut all = [blank; N];
    let (mut filled, mut list) = (0, 0);
    while list < lists.len() {
        let mut element = 0;
        while element < lists[list].len() {
            all[filled] = lists[list][element];
            (filled, element) = (filled + 1, element + 1);
        }
        list += 1;
    }
    all
}

/// Those that count batches, and pool their samples.
pub const BATCH: &[&str] = &["batch_norm", "sync_batch_norm"];

/// Those of `torch.nn` with running statistics.
pub const RUNNING: &[&str] = joined![BATCH, &["instance_norm"]];

/// Those of `torch.nn` that subtract the mean of their input.
pub const TORCH_CENTRED: &[&str] = joined![RUNNING, &["layer_norm", "group_norm"]];

/// Those of `torch.nn` that take statistics of their input, and standardize it.
pub const TORCH_FAMILY: &[&str] = joined![TORCH_CENTRED, &["rms_norm"]];

const BEYOND_CENTRED: &[&str] =
    &["layer_norm_2d", "layer_norm_1p", "ada_layer_norm", "ada_group_norm", "weight_standardization"];
const BEYOND_UNCENTRED: &[&str] = &["pixel_norm", "filter_response_norm"];

/// Operations that take statistics of their input, and standardize it.
pub const FAMILY: &[&str] = joined![TORCH_FAMILY, BEYOND_CENTRED, BEYOND_UNCENTRED];

/// Those of the family that subtract the mean.
pub const CENTRED: &[&str] = joined![TORCH_CENTRED, BEYOND_CENTRED];

/// Those of the family with a weight that multiplies what is standardized.
pub const AFFINE: &[&str] = joined![TORCH_FAMILY, &["layer_norm_2d", "filter_response_norm"]];

/// Those of the family with a weight, be it 1 more than what was sent.
pub const WEIGHTED: &[&str] = joined![AFFINE, &["layer_norm_1p", "ada_layer_norm", "ada_group_norm"]];
