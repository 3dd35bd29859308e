//! Tensors on their way to burn's device and back, byte by byte.

use burn::tensor::{DType, Device, Tensor, TensorData};
use normative::arithmetic::DataType;
use normative::case::LayoutFormat;

/// burn's name of a data type.
pub fn dtype(dtype: DataType) -> DType {
    match dtype {
        DataType::F64 => DType::F64,
        DataType::F32 => DType::F32,
        DataType::F16 => DType::F16,
        DataType::BF16 => DType::BF16,
        DataType::I64 => DType::I64,
    }
}

/// `tensor` on the device, in `shape`.
///
/// # Panics
/// If `shape` is not of rank `D`.
pub fn load<const D: usize>(
    tensor: &normative::Tensor,
    shape: &[usize],
    layout: LayoutFormat,
    device: &Device,
) -> Tensor<D> {
    let (bytes, dtype) = (tensor.to_bytes(), dtype(tensor.dtype()));
    let upload =
        |bytes, shape: &[usize]| Tensor::from_data(TensorData::from_bytes_vec(bytes, shape, dtype), (device, dtype));
    // A shape other than the tensor's own is a copy anyway, and a copy is contiguous.
    if layout != LayoutFormat::ChannelsLast || D < 3 || shape != tensor.shape() {
        return upload(bytes, shape);
    }
    let stored = [&shape[..1], &shape[2..], &shape[1..2]].concat();
    let axes: [isize; D] = std::array::from_fn(|axis| match axis {
        0 => 0,
        1 => D as isize - 1,
        _ => axis as isize - 1,
    });
    upload(channels_last(&bytes, shape, tensor.dtype().size()), &stored).permute(axes)
}

/// `[N, C, L]` as `[N, L, C]`, of elements of `size` bytes.
fn channels_last(bytes: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let (channels, length) = (shape[1], shape[2..].iter().product::<usize>());
    let element = |sample: usize, position: usize, channel: usize| {
        let start = ((sample * channels + channel) * length + position) * size;
        &bytes[start..start + size]
    };
    let positions = (0..shape[0]).flat_map(|sample| (0..length).map(move |position| (sample, position)));
    positions
        .flat_map(|(sample, position)| (0..channels).flat_map(move |channel| element(sample, position, channel)))
        .copied()
        .collect()
}

/// `tensor` from the device, in `shape`.
///
/// # Panics
/// If the device failed, or `tensor` does not have as many elements as `shape`.
pub fn store<const D: usize>(tensor: Tensor<D>, shape: &[usize]) -> normative::Tensor {
    let data = tensor.into_data();
    let dtype =
        DataType::FLOATS.into_iter().find(|&known| dtype(known) == data.dtype()).expect("a floating-point type");
    normative::Tensor::from_bytes(dtype, shape, data.as_bytes()).expect("a layer keeps the number of elements")
}
