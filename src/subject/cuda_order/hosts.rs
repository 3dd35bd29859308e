//! What PyTorch's host code does around its kernels: which of them runs, on what, and what goes into the answer.
//!
//! - Layer norm and RMS norm: rows of the normalized axes; what is not contiguous is copied first.
//! - Batch norm: the channels-last kernels for channels-last inputs of rank 4 and 5 and for one position a channel;
//!   the contiguous ones for all else. A strided input has its statistics from a general reduction, whose order is not
//!   followed (the contiguous one's stands in), and an element-wise transform, ((x − μ)·r)·w ⊕ b.
//! - Instance norm: batch norm of one sample of N·C channels. Its running statistics, and the gradients of its weight
//!   and bias, are means and sums over the samples by a general reduction, whose order is not followed: here one after
//!   the other.
//! - Group norm: channels-last inputs have kernels that are not followed; the contiguous ones stand in.
//!
//! Sources: `batch_norm_choose_impl` and `batch_norm_backward_cuda` (Normalization.cu), `instance_norm`
//! (Normalization.cpp), layer_norm_kernel.cu, group_norm_kernel.cu.

use super::batch_norm::{Affine, Channel, Planes, Running, inverted};
use super::call::Planned;
use super::channels_last::Columns;
use super::device::Device;
use super::group_norm::Groups;
use super::row_norm::{Norm, Rows};
use super::row_norm_backward::Gradients;
use crate::arithmetic::Factor;
use crate::operation::{GroupNorm, Mode, Source};
use crate::tensor::Tensors;

/// Layer norm, or RMS norm, over the trailing axes of `normalized_shape`.
pub(super) fn row_norm(device: &Device, call: &Planned<'_>, norm: Norm, normalized_shape: &[usize]) -> Tensors {
    let mut answer = call.answer();
    let (input, weight, bias) = (call.input(), call.values("weight"), call.values("bias"));
    if input.is_empty() {
        return empty(call, answer);
    }
    let rows = Rows {
        device,
        norm,
        input: &input,
        width: normalized_shape.iter().product(),
        weight: weight.as_deref(),
        bias: bias.as_deref(),
        eps: call.eps(),
        aligned: call.aligned(),
    };
    let (output, statistics) = rows.forward();
    call.put(&mut answer, "output", output);
    if let Some(gradient) = call.gradient() {
        call.put_gradients(&mut answer, rows.backward(&gradient, &statistics));
    }
    answer
}

/// Group norm.
pub(super) fn group_norm(device: &Device, call: &Planned<'_>, norm: &GroupNorm) -> Tensors {
    let mut answer = call.answer();
    let (input, weight, bias) = (call.input(), call.values("weight"), call.values("bias"));
    if input.is_empty() {
        return empty(call, answer);
    }
    let groups = Groups {
        device,
        input: &input,
        channels: call.shape()[1],
        length: call.shape()[2..].iter().product(),
        groups: norm.num_groups,
        weight: weight.as_deref(),
        bias: bias.as_deref(),
        eps: call.eps(),
        aligned: call.aligned(),
    };
    let (output, statistics) = groups.forward();
    call.put(&mut answer, "output", output);
    if let Some(gradient) = call.gradient() {
        call.put_gradients(&mut answer, groups.backward(&gradient, &statistics));
    }
    answer
}

/// Batch norm.
pub(super) fn batch_norm(device: &Device, call: &Planned<'_>) -> Tensors {
    let mut answer = call.answer();
    let (input, weight, bias) = (call.input(), call.values("weight"), call.values("bias"));
    if input.is_empty() {
        return empty(call, answer);
    }
    let affine = Affine { weight: weight.as_deref(), bias: bias.as_deref() };
    let (batch, channels) = (call.shape()[0], call.shape()[1]);
    let length = call.shape()[2..].iter().product();
    let last = call.channels_last() || call.contiguous() && length == 1;
    let arranged = if last { transposed(&input, channels, length) } else { input };
    let planes = Planes { device, input: &arranged, batch, channels, length };
    let columns = Columns { device, input: &arranged, channels };

    let running = running(call);
    let training = call.plan.source == Source::Input;
    let statistics = match &running {
        Some(running) if !training => running.channels(),
        _ if last => columns.statistics(),
        _ => planes.statistics(),
    };
    if let (Some(running), Mode::Train) = (&running, call.step.mode) {
        let moved = running.moved(device, &statistics, momentum(call), batch * length);
        call.put(&mut answer, "running_mean", moved.mean);
        call.put(&mut answer, "running_var", moved.variance);
    }
    let rstd = inverted(device, &statistics, call.eps());
    let restored = |values: Vec<f32>| if last { transposed(&values, length, channels) } else { values };
    let output = if last {
        columns.transformed(&statistics, &rstd, affine)
    } else if call.contiguous() {
        planes.transformed(&statistics, &rstd, affine)
    } else {
        planes.transformed_by_elements(&statistics, &rstd, affine)
    };
    call.put(&mut answer, "output", restored(output));
    if let Some(gradient) = call.gradient() {
        let gradient = if last { transposed(&gradient, channels, length) } else { gradient };
        let gradients = if last {
            columns.backward(&gradient, &statistics, &rstd, affine.weight, training)
        } else if !training && affine.weight.is_none() && affine.bias.is_none() {
            // Nothing is added up, so it is an element-wise kernel.
            let input = gradient.iter().enumerate().map(|(i, dy)| dy * rstd[planes.channel(i)]).collect();
            Gradients { input, weight: Vec::new(), bias: Vec::new() }
        } else {
            planes.backward(&gradient, &statistics, training.then_some(&rstd), affine.weight, call.eps())
        };
        call.put_gradients(&mut answer, Gradients { input: restored(gradients.input), ..gradients });
    }
    answer
}

/// Instance norm of `spatial_dims` axes.
pub(super) fn instance_norm(device: &Device, call: &Planned<'_>, spatial_dims: usize) -> Tensors {
    let mut answer = call.answer();
    let (input, weight, bias) = (call.input(), call.values("weight"), call.values("bias"));
    if input.is_empty() {
        return empty(call, answer);
    }
    let shape = call.shape();
    let (samples, channels) = if shape.len() == spatial_dims + 2 { (shape[0], shape[1]) } else { (1, shape[0]) };
    let length = shape[shape.len() - spatial_dims..].iter().product();
    let repeat = |vector: &[f32]| vector.repeat(samples);
    let (weight, bias) = (weight.map(|weight| repeat(&weight)), bias.map(|bias| repeat(&bias)));
    let affine = Affine { weight: weight.as_deref(), bias: bias.as_deref() };
    let planes = Planes { device, input: &input, batch: 1, channels: samples * channels, length };

    let running = running(call).map(|old| Running { mean: repeat(&old.mean), variance: repeat(&old.variance) });
    let own = call.plan.source == Source::Input;
    let statistics: Vec<Channel> = match &running {
        Some(running) if !own => running.channels(),
        _ => planes.statistics(),
    };
    if let (Some(running), Mode::Train) = (&running, call.step.mode) {
        let moved = running.moved(device, &statistics, momentum(call), length);
        let share = 1.0 / samples as f32;
        let mean = |of: Vec<f32>| over_samples(&of, channels).into_iter().map(|sum| sum * share).collect();
        call.put(&mut answer, "running_mean", mean(moved.mean));
        call.put(&mut answer, "running_var", mean(moved.variance));
    }
    let rstd = inverted(device, &statistics, call.eps());
    call.put(&mut answer, "output", planes.transformed(&statistics, &rstd, affine));
    if let Some(gradient) = call.gradient() {
        let of_batch = planes.backward(&gradient, &statistics, own.then_some(&rstd), affine.weight, call.eps());
        let [weight, bias] = [of_batch.weight, of_batch.bias].map(|of| over_samples(&of, channels));
        call.put_gradients(&mut answer, Gradients { weight, bias, ..of_batch });
    }
    answer
}

/// The running statistics that were sent.
fn running(call: &Planned<'_>) -> Option<Running> {
    call.values("running_mean").zip(call.values("running_var")).map(|(mean, variance)| Running { mean, variance })
}

/// The weight of the batch in the running statistics; 0 where nothing was given.
fn momentum(call: &Planned<'_>) -> f32 {
    match call.plan.update {
        Some(Factor::OfNew(momentum)) => momentum as f32,
        Some(Factor::OfOld(momentum)) => (1.0 - momentum) as f32,
        Some(Factor::Reciprocal(batches)) => (1.0 / batches as f64) as f32,
        None => 0.0,
    }
}

/// Sums over the samples of what there is for each sample and channel.
fn over_samples(values: &[f32], channels: usize) -> Vec<f32> {
    let (first, rest) = values.split_at(channels);
    rest.chunks(channels).fold(first.to_vec(), |sums, sample| sums.iter().zip(sample).map(|(a, b)| a + b).collect())
}

/// (N, A, B) as (N, B, A).
fn transposed(values: &[f32], a: usize, b: usize) -> Vec<f32> {
    let samples = values.chunks(a * b);
    samples.flat_map(|sample| (0..b).flat_map(move |j| (0..a).map(move |i| sample[i * b + j]))).collect()
}

/// The answer to a call without values: nothing is launched, and gradients of parameters are zeros.
fn empty(call: &Planned<'_>, mut answer: Tensors) -> Tensors {
    call.put(&mut answer, "output", Vec::new());
    if call.step.gradients {
        for &name in call.step.operation.signature().differentiable {
            if let Some(tensor) = call.step.tensors.get(name) {
                call.put(&mut answer, &format!("grad_{name}"), vec![0.0; tensor.len()]);
            }
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_changes_nothing() {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let last = transposed(&values, 3, 4);
        assert_eq!(last[..6], [0.0, 4.0, 8.0, 1.0, 5.0, 9.0]);
        assert_eq!(transposed(&last, 4, 3), values);
    }

    #[test]
    fn samples_are_added_up_channel_by_channel() {
        assert_eq!(over_samples(&[1.0, 2.0, 10.0, 20.0, 100.0, 200.0], 2), [111.0, 222.0]);
    }
}
