//! The statistics of a group in integers.

use std::sync::Arc;

use dashu_int::{IBig, UBig};

use super::Exact;
use super::integer::{Root, align, odd_significand, significand};

/// Mean and variance of one group, exactly: of its values, or as stored.
///
/// ```
/// use normative::arithmetic::{Format, exact::ExactGroup};
/// let group = ExactGroup::new([1e200, -1e200, 1e-200], true);
/// assert_eq!(group.mean().round(Format::F64), 1e-200 / 3.0);
/// assert_eq!(group.variance(1).round(Format::F64), f64::INFINITY); // 10⁴⁰⁰
/// let scale = group.scale(1e-5).unwrap();
/// assert_eq!(group.element(&scale, 1e200, None, None).round(Format::F64), 1.5_f64.sqrt());
/// ```
#[derive(Clone, Debug)]
pub struct ExactGroup {
    /// n, 1 where the statistics were stored.
    pub(super) count: u64,
    /// Whether the mean is subtracted.
    pub(super) centred: bool,
    /// S, with μ = S/n · 2^grid.
    pub(super) sum: (IBig, i32),
    /// V, with v = V/n² · 2^grid.
    spread: (IBig, i32),
}

/// 1/√(v + eps) of a group, made once for all its elements.
#[derive(Clone, Debug)]
pub struct ExactScale {
    /// n.
    count: u64,
    /// 1/√W, with v + eps = W/n² · 2^(−2·exponent).
    pub(super) root: Arc<Root>,
    pub(super) exponent: i32,
}

impl ExactGroup {
    /// The statistics of `values`: S = Σx and n²·v = n·Σx² − S².
    ///
    /// Where `centred` is false, as in an RMS norm, the mean is 0 and the variance the mean square, n²·v = n·Σx².
    ///
    /// # Panics
    /// Panics if there is no value, or if one is infinite or NaN.
    pub fn new(values: impl IntoIterator<Item = f64>, centred: bool) -> ExactGroup {
        let mut sums = Sums::default();
        for value in values {
            sums.add(value);
        }
        assert!(sums.count > 0, "a group has at least one value");
        let (sum, squares, grid) = sums.total();
        let raw = squares * sums.count;
        if centred {
            let spread = raw - sum.sqr();
            ExactGroup { count: sums.count, centred, sum: (sum, grid), spread: (spread, 2 * grid) }
        } else {
            ExactGroup { count: sums.count, centred, sum: (IBig::ZERO, 0), spread: (raw, 2 * grid) }
        }
    }

    /// Statistics as they were stored, for an evaluation; they count as those of one value.
    ///
    /// # Panics
    /// Panics if `mean` or `variance` is infinite or NaN.
    ///
    /// ```
    /// use normative::arithmetic::{Format, exact::ExactGroup};
    /// let group = ExactGroup::stored(1.0, 4.0);
    /// let scale = group.scale(0.0).unwrap();
    /// assert_eq!(group.element(&scale, 2.0, Some(3.0), Some(0.5)).round(Format::F64), 2.0);
    /// assert!(ExactGroup::stored(0.0, -1e-5).scale(1e-5).is_none());
    /// ```
    pub fn stored(mean: f64, variance: f64) -> ExactGroup {
        let integer = |value| {
            let (significand, exponent) = odd_significand(value);
            (IBig::from(significand), exponent)
        };
        ExactGroup { count: 1, centred: true, sum: integer(mean), spread: integer(variance) }
    }

    /// The mean μ = S/n.
    pub fn mean(&self) -> Exact {
        Exact::ratio(self.sum.0.clone(), UBig::from(self.count), self.sum.1)
    }

    /// The variance with divisor n − `degrees_of_freedom`: Σ(x − μ)²/(n − `degrees_of_freedom`), 0 degrees of freedom
    /// for v itself, 1 for Bessel's correction.
    ///
    /// # Panics
    /// Panics if there are no more values than degrees of freedom (stored statistics count as one value).
    ///
    /// ```
    /// use normative::arithmetic::{Format, exact::ExactGroup};
    /// let group = ExactGroup::new([1.0, 2.0, 6.0], true);
    /// assert_eq!(group.variance(1).round(Format::F64), 7.0);
    /// assert_eq!(group.variance(0).round(Format::F64), 14.0 / 3.0);
    /// ```
    pub fn variance(&self, degrees_of_freedom: u8) -> Exact {
        let rest = self.count.saturating_sub(u64::from(degrees_of_freedom));
        assert!(rest > 0, "{} values leave no variance with {degrees_of_freedom} degrees of freedom", self.count);
        Exact::ratio(self.spread.0.clone(), UBig::from(self.count) * rest, self.spread.1)
    }

    /// The factor 1/√(v + `eps`), `None` where v + `eps` is not positive.
    ///
    /// # Panics
    /// Panics if `eps` is infinite or NaN.
    pub fn scale(&self, eps: f64) -> Option<ExactScale> {
        let (eps, exponent) = odd_significand(eps);
        let count = IBig::from(self.count);
        let (spread, eps, grid) = align(self.spread.clone(), (&count * &count * eps, exponent));
        let radicand = UBig::try_from(spread + eps).ok()?;
        // Powers of four leave the root, of odd powers of two one factor stays. There are none in zero.
        let zeros = radicand.trailing_zeros()? as i32;
        let even = (grid + zeros).div_euclid(2) * 2;
        let radicand = (radicand >> zeros as usize) << (grid + zeros - even) as usize;
        Some(ExactScale { count: self.count, root: Arc::new(Root::new(radicand)), exponent: -even / 2 })
    }

    /// The output w·(x − μ)/√(v + eps) + b of one element: without a `weight`, w = 1, without a `bias`, b = 0.
    ///
    /// The scale may be that of another group, for operations that mix current and stored statistics.
    ///
    /// # Panics
    /// Panics if `x`, `weight` or `bias` is infinite or NaN.
    ///
    /// ```
    /// use normative::arithmetic::{Format, exact::ExactGroup};
    /// let group = ExactGroup::new([3.0, -4.0], false); // RMS norm: √12.5
    /// let scale = group.scale(0.0).unwrap();
    /// assert_eq!(group.element(&scale, 3.0, None, Some(1.0)).round(Format::F32), f64::from(1.8485281_f32));
    /// ```
    pub fn element(&self, scale: &ExactScale, x: f64, weight: Option<f64>, bias: Option<f64>) -> Exact {
        // w·(n·x − S)/√W + b; where the scale has another count m, w·(n·x − S)·m/(n·√W) + b.
        let (x, exponent) = odd_significand(x);
        // At most 2⁶⁴ · 2⁵³.
        let multiple = IBig::from(i128::from(self.count) * i128::from(x));
        let (multiple, sum, grid) = align((multiple, exponent), self.sum.clone());
        let mut deviation = multiple - sum;
        let mut exponent = grid + scale.exponent;
        if let Some(weight) = weight {
            let (weight, weight_exponent) = odd_significand(weight);
            deviation *= weight;
            exponent += weight_exponent;
        }
        let (bias, bias_exponent) = odd_significand(bias.unwrap_or(0.0));
        let mut bias = IBig::from(bias);
        let mut divisor = UBig::ONE;
        if scale.count != self.count {
            deviation *= scale.count;
            bias *= self.count;
            divisor = UBig::from(self.count);
        }
        Exact::surd((bias, bias_exponent), (deviation, exponent), &scale.root, divisor)
    }
}

impl ExactScale {
    /// The factor 1/√(v + eps) itself, which PyTorch returns as `invstd` or `rstd`.
    ///
    /// ```
    /// use normative::arithmetic::{Format, exact::ExactGroup};
    /// let scale = ExactGroup::new([1.0, 2.0, 3.0], true).scale(0.0).unwrap();
    /// assert_eq!(scale.invstd().round(Format::F64), 1.5_f64.sqrt());
    /// ```
    pub fn invstd(&self) -> Exact {
        Exact::surd((IBig::ZERO, 0), (IBig::from(self.count), self.exponent), &self.root, UBig::ONE)
    }
}

/// Σx and Σx², exactly: the significands of each binary exponent are summed by themselves.
#[derive(Default)]
struct Sums {
    count: u64,
    /// The sums for the exponents from `first` on, over the range of exponents that occurred.
    buckets: Vec<Bucket>,
    first: i32,
    /// The largest exponent of which all values are multiples, 0 where all are zero.
    grid: i32,
}

/// Sums of significands below 2⁵³ and of their squares: wide enough for 2⁶⁴ of them.
#[derive(Clone, Copy, Default)]
struct Bucket {
    sum: i128,
    squares: u128,
    /// Carries out of `squares`, each 2¹²⁸.
    carries: u64,
}

impl Sums {
    #[inline]
    fn add(&mut self, value: f64) {
        self.count += 1;
        let (significand, exponent) = significand(value);
        if significand == 0 {
            return;
        }
        if self.buckets.is_empty() {
            (self.first, self.grid) = (exponent, exponent + significand.trailing_zeros() as i32);
        }
        self.grid = self.grid.min(exponent + significand.trailing_zeros() as i32);
        // Below the first, the difference wraps to a number beyond every length.
        let mut index = (exponent - self.first) as usize;
        if index >= self.buckets.len() {
            index = self.widen(exponent);
        }
        let bucket = &mut self.buckets[index];
        bucket.sum += i128::from(significand);
        let magnitude = u128::from(significand.unsigned_abs());
        let (squares, carry) = bucket.squares.overflowing_add(magnitude * magnitude);
        bucket.squares = squares;
        bucket.carries += u64::from(carry);
    }

    /// Makes room for an exponent, and returns its index.
    #[cold]
    fn widen(&mut self, exponent: i32) -> usize {
        if exponent < self.first {
            let missing = (self.first - exponent) as usize;
            self.buckets.splice(0..0, std::iter::repeat_n(Bucket::default(), missing));
            self.first = exponent;
        }
        let index = (exponent - self.first) as usize;
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, Bucket::default());
        }
        index
    }

    /// The integers S and T and the grid with Σx = S · 2^grid, Σx² = T · 2^(2·grid).
    fn total(&self) -> (IBig, IBig, i32) {
        let (mut sum, mut squares) = (IBig::ZERO, UBig::ZERO);
        // Horner's rule from the largest exponent on, passing over those that did not occur.
        let mut pending = 0;
        for bucket in self.buckets.iter().rev() {
            if bucket.squares != 0 || bucket.carries != 0 {
                sum = (sum << pending) + bucket.sum;
                squares = (squares << (2 * pending)) + bucket.squares;
                if bucket.carries != 0 {
                    squares += UBig::from(bucket.carries) << 128;
                }
                pending = 0;
            }
            pending += 1;
        }
        // Now in units of 2^first; the values are multiples of 2^grid, which may be coarser.
        let surplus = (self.grid - self.first).max(0) as usize;
        (sum >> surplus, IBig::from(squares >> (2 * surplus)), self.grid)
    }
}
