//! Numbers that a definition can be written over.

use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A number with the field operations and a square root.
pub trait Real:
    Copy
    + Debug
    + Send
    + Sync
    + From<f64>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The square root; NaN of a negative number.
    fn sqrt(self) -> Self;

    /// The nearest binary64.
    fn value(self) -> f64;
}

impl Real for f64 {
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }

    fn value(self) -> f64 {
        self
    }
}
