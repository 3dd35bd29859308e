//! Tensors: n-dimensional arrays in one of five data types, always in C order.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use crate::arithmetic::{DataType, Format};

/// Tensors by name, as an operation's [`Signature`](crate::operation::Signature) lists them: `input`, `weight`, …
pub type Tensors<T = Tensor> = BTreeMap<String, T>;

/// An n-dimensional array of one data type, C-contiguous. A scalar has shape `[]`.
///
/// ```
/// use ndarray::arr2;
/// use normative::Tensor;
/// let input = Tensor::from(arr2(&[[1.0_f32, 2.0], [3.0, 4.0]]).into_dyn());
/// assert_eq!(input.shape(), [2, 2]);
/// assert_eq!(input.to_f64().sum(), 10.0);
/// ```
#[derive(Clone, Debug)]
pub enum Tensor {
    /// IEEE binary64.
    F64(ArrayD<f64>),
    /// IEEE binary32.
    F32(ArrayD<f32>),
    /// IEEE binary16.
    F16(ArrayD<f16>),
    /// bfloat16.
    BF16(ArrayD<bf16>),
    /// Counters.
    I64(ArrayD<i64>),
}

/// Runs the same expression on whichever array a tensor holds.
macro_rules! each {
    ($tensor:expr, $array:ident => $body:expr) => {
        match $tensor {
            Tensor::F64($array) => $body,
            Tensor::F32($array) => $body,
            Tensor::F16($array) => $body,
            Tensor::BF16($array) => $body,
            Tensor::I64($array) => $body,
        }
    };
}

/// Bytes that cannot be a tensor of the shape and data type they are said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATensor {
    /// The shape and the data type ask for another number of bytes.
    #[error("{dtype} {shape:?} takes {expected} bytes, not {actual}")]
    WrongByteCount {
        /// The data type asked for.
        dtype: DataType,
        /// The shape asked for.
        shape: Vec<usize>,
        /// Bytes that it takes.
        expected: usize,
        /// Bytes that there were.
        actual: usize,
    },
    /// The product of the sizes, zeros left out, is beyond what memory can address.
    #[error("{dtype} {shape:?} is larger than any memory")]
    TooLarge {
        /// The data type asked for.
        dtype: DataType,
        /// The shape asked for.
        shape: Vec<usize>,
    },
}

impl Tensor {
    /// A tensor of `dtype`, each value rounded to nearest, ties to even.
    ///
    /// # Panics
    /// If `shape` does not hold as many elements as `values`, or `dtype` is `I64`: both are the caller's own constants.
    pub fn rounded(dtype: DataType, shape: &[usize], values: Vec<f64>) -> Tensor {
        let narrow = |format: Format, value: f64| format.round(value) as f32;
        match dtype {
            DataType::F64 => Tensor::F64(array(shape, values)),
            DataType::F32 => Tensor::F32(array(shape, values.iter().map(|&v| v as f32).collect())),
            // Through binary32, which holds every value of the narrower formats exactly: one rounding, not two.
            DataType::F16 => {
                Tensor::F16(array(shape, values.iter().map(|&v| f16::from_f32_const(narrow(Format::F16, v))).collect()))
            }
            DataType::BF16 => Tensor::BF16(array(
                shape,
                values.iter().map(|&v| bf16::from_f32_const(narrow(Format::BF16, v))).collect(),
            )),
            DataType::I64 => panic!("counters are not rounded from reals"),
        }
    }

    /// A counter: an `I64` scalar.
    pub fn counter(value: i64) -> Tensor {
        Tensor::I64(array(&[], vec![value]))
    }

    /// The data type of the elements.
    pub fn dtype(&self) -> DataType {
        match self {
            Tensor::F64(_) => DataType::F64,
            Tensor::F32(_) => DataType::F32,
            Tensor::F16(_) => DataType::F16,
            Tensor::BF16(_) => DataType::BF16,
            Tensor::I64(_) => DataType::I64,
        }
    }

    /// The sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        each!(self, a => a.shape())
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        each!(self, a => a.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in C order, widened exactly (counters are exact up to 2⁵³).
    pub fn to_f64(&self) -> ArrayD<f64> {
        match self {
            Tensor::F64(a) => a.clone(),
            Tensor::F32(a) => a.mapv(f64::from),
            Tensor::F16(a) => a.mapv(f64::from),
            Tensor::BF16(a) => a.mapv(f64::from),
            Tensor::I64(a) => a.mapv(|v| v as f64),
        }
    }

    /// The elements in C order, widened exactly, in memory that may be the tensor's own.
    pub fn widened(&self) -> Cow<'_, [f64]> {
        match self {
            Tensor::F64(a) => Cow::Borrowed(slice(a)),
            Tensor::F32(a) => slice(a).iter().map(|&v| f64::from(v)).collect(),
            Tensor::F16(a) => slice(a).iter().map(|&v| f64::from(v)).collect(),
            Tensor::BF16(a) => slice(a).iter().map(|&v| f64::from(v)).collect(),
            Tensor::I64(a) => slice(a).iter().map(|&v| v as f64).collect(),
        }
    }

    /// Element `index` in C order, widened exactly.
    ///
    /// # Panics
    /// If `index` is not below [`Tensor::len`].
    pub fn get(&self, index: usize) -> f64 {
        match self {
            Tensor::F64(a) => slice(a)[index],
            Tensor::F32(a) => f64::from(slice(a)[index]),
            Tensor::F16(a) => f64::from(slice(a)[index]),
            Tensor::BF16(a) => f64::from(slice(a)[index]),
            Tensor::I64(a) => slice(a)[index] as f64,
        }
    }

    /// The value of a counter: an `I64` tensor of one element.
    pub fn as_counter(&self) -> Option<i64> {
        match self {
            Tensor::I64(a) if a.len() == 1 => Some(slice(a)[0]),
            _ => None,
        }
    }

    /// The elements as little-endian bytes in C order.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Tensor::F64(a) => slice(a).iter().flat_map(|v| v.to_le_bytes()).collect(),
            Tensor::F32(a) => slice(a).iter().flat_map(|v| v.to_le_bytes()).collect(),
            Tensor::F16(a) => slice(a).iter().flat_map(|v| v.to_le_bytes()).collect(),
            Tensor::BF16(a) => slice(a).iter().flat_map(|v| v.to_le_bytes()).collect(),
            Tensor::I64(a) => slice(a).iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// The tensor that [`Tensor::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`NotATensor::WrongByteCount`] if `bytes` is not as long as `shape` and `dtype` ask; [`NotATensor::TooLarge`] if
    /// the sizes that are not 0 multiply beyond `isize::MAX` bytes.
    pub fn from_bytes(dtype: DataType, shape: &[usize], bytes: &[u8]) -> Result<Tensor, NotATensor> {
        let addressable = shape.iter().filter(|&&d| d > 0).try_fold(dtype.size(), |n, &d| n.checked_mul(d));
        if addressable.is_none_or(|n| n > isize::MAX as usize) {
            return Err(NotATensor::TooLarge { dtype, shape: shape.to_vec() });
        }
        let expected = shape.iter().product::<usize>() * dtype.size();
        if expected != bytes.len() {
            let actual = bytes.len();
            return Err(NotATensor::WrongByteCount { dtype, shape: shape.to_vec(), expected, actual });
        }
        Ok(match dtype {
            DataType::F64 => Tensor::F64(array(shape, words(bytes, f64::from_le_bytes))),
            DataType::F32 => Tensor::F32(array(shape, words(bytes, f32::from_le_bytes))),
            DataType::F16 => Tensor::F16(array(shape, words(bytes, f16::from_le_bytes))),
            DataType::BF16 => Tensor::BF16(array(shape, words(bytes, bf16::from_le_bytes))),
            DataType::I64 => Tensor::I64(array(shape, words(bytes, i64::from_le_bytes))),
        })
    }

    /// Whether both have the same data type, shape and bits (a NaN equals itself, −0 is not 0).
    pub fn same_bits(&self, other: &Tensor) -> bool {
        self.dtype() == other.dtype() && self.shape() == other.shape() && self.to_bytes() == other.to_bytes()
    }
}

macro_rules! from_array {
    ($($variant:ident $element:ty),*) => {
        $(impl From<ArrayD<$element>> for Tensor {
            fn from(array: ArrayD<$element>) -> Tensor {
                let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
                Tensor::$variant(array)
            }
        })*
    };
}
from_array!(F64 f64, F32 f32, F16 f16, BF16 bf16, I64 i64);

fn array<T>(shape: &[usize], values: Vec<T>) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(shape), values).expect("as many values as the shape holds")
}

fn slice<T>(array: &ArrayD<T>) -> &[T] {
    array.as_slice().expect("tensors are C-contiguous")
}

fn words<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
    bytes.chunks_exact(N).map(|word| read(word.try_into().expect("chunks of N bytes"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_in_every_data_type() {
        for dtype in DataType::FLOATS {
            let tensor = Tensor::rounded(dtype, &[2, 2], vec![1.0, -0.0, f64::NAN, f64::INFINITY]);
            let back = Tensor::from_bytes(dtype, &[2, 2], &tensor.to_bytes()).unwrap();
            assert!(back.same_bits(&tensor));
        }
        let counter = Tensor::counter(-1);
        assert_eq!(Tensor::from_bytes(DataType::I64, &[], &counter.to_bytes()).unwrap().as_counter(), Some(-1));
    }

    #[test]
    fn a_shape_that_overflows_is_refused() {
        for shape in [[usize::MAX, 16], [usize::MAX, 0]] {
            let error = Tensor::from_bytes(DataType::F64, &shape, &[0; 8]).unwrap_err();
            assert!(matches!(error, NotATensor::TooLarge { .. }));
        }
    }

    #[test]
    fn a_transposed_array_becomes_contiguous() {
        let array = ndarray::arr2(&[[1.0, 2.0], [3.0, 4.0]]).reversed_axes().into_dyn();
        assert_eq!(Tensor::from(array).get(1), 3.0);
    }
}
