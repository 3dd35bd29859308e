//! Random steps: many groups of all kinds of values, for searching violations.

use super::shaped::shaped;
use super::values::{Values, held};
use super::{Layout, Step};
use crate::arithmetic::DataType;
use crate::arithmetic::format::power_of_two;
use crate::operation::Mode;
use crate::tensor::{Tensor, Tensors};

/// Group sizes near every edge that programs have.
const SIZES: [usize; 17] = [2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 255, 256, 257];

/// A step of the operation called `name`, with about `groups` groups of one random size, each of a random kind: near
/// normal, constant, one outlier, two values, sorted, over many scales; means up to 10⁶ standard deviations.
///
/// # Panics
/// If no operation is called `name`.
pub fn step(values: &mut Values, name: &str, dtype: DataType, groups: usize) -> Step {
    let size = values.pick(&SIZES);
    let eps = values.pick(&[1e-5, 1e-3, 1e-12, 0.5]);
    let affine = values.below(3) > 0;
    let mut tensors = Tensors::new();
    let data: Vec<Vec<f64>> = (0..groups).map(|_| group(values, size, dtype)).collect();
    let (split, num_groups) = (values.pick(&divisors(size)), values.pick(&divisors(groups)));
    let shaped = shaped(name, &data, split, num_groups);
    let momentum = values.pick(&[Some(0.1), Some(0.01), Some(1.0), Some(0.0), None]);
    let operation = shaped.operation(name, eps, momentum);
    let insert = |tensors: &mut Tensors, name: &str, shape: &[usize], values: Vec<f64>| {
        tensors.insert(name.to_owned(), Tensor::rounded(dtype, shape, values));
    };
    if affine {
        let count = shaped.parameters.iter().product();
        insert(&mut tensors, "weight", &shaped.parameters, values.weights(count));
        if name != "rms_norm" {
            insert(&mut tensors, "bias", &shaped.parameters, values.biases(count));
        }
    }
    let mut mode = Mode::Eval;
    if matches!(name, "batch_norm" | "sync_batch_norm" | "instance_norm") {
        // In evaluation the stored statistics are near those of the data, as after training.
        let channels = shaped.parameters[0];
        let means = data.iter().take(channels);
        let means = means.map(|x| x.iter().sum::<f64>() / size as f64 + values.uniform()).collect();
        insert(&mut tensors, "running_mean", &[channels], means);
        let variance = (0..channels).map(|_| (1.0 + values.uniform()) * power_of_two(values.below(20) as i32 - 10));
        insert(&mut tensors, "running_var", &[channels], variance.collect());
        tensors.insert("num_batches_tracked".to_owned(), Tensor::counter(values.below(50) as i64));
        mode = if values.below(4) == 0 { Mode::Eval } else { Mode::Train };
    }
    insert(&mut tensors, "input", &shaped.shape, shaped.input);
    Step { operation, mode, layout: Layout::default(), gradients: false, tensors }
}

/// One group of a random kind.
fn group(values: &mut Values, size: usize, dtype: DataType) -> Vec<f64> {
    let mean = values.pick(&[0.0, 1.0, 3.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]) * values.sign();
    let scale = values.pick(&[1.0, 1.0, 0.0009765625, 1024.0]) * (1.0 + values.uniform());
    let at = values.below(size);
    let mut group: Vec<f64> = match values.below(8) {
        0 => vec![values.normal(); size],
        1 => {
            let mut group = values.normals(size, 0.0, 1.0);
            group[at] = 1000.0;
            group
        }
        2 => (0..size).map(|_| values.sign()).collect(),
        3 => {
            let mut group = values.normals(size, 0.0, 1.0);
            group.sort_by(f64::total_cmp);
            group
        }
        4 => (0..size)
            .map(|_| values.sign() * (1.0 + values.uniform()) * power_of_two(values.below(13) as i32))
            .collect(),
        5 => (0..size).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 } + power_of_two(-20) * values.normal()).collect(),
        _ => values.normals(size, 0.0, 1.0),
    };
    for x in &mut group {
        *x = held(dtype, (*x + mean) * scale);
    }
    group
}

fn divisors(n: usize) -> Vec<usize> {
    (1..=n).filter(|d| n.is_multiple_of(*d)).collect()
}
