//! The definition by the book, over any [`Real`]: two passes, from left to right, nothing clever.
//!
//! ```text
//! μ = (1/n) Σ xᵢ      v = (1/n) Σ (xᵢ − μ)²      zᵢ = w·(xᵢ − μ)/√(v + eps) + b
//! ```

use std::marker::PhantomData;

use super::{Arithmetic, EpsPlace, Factor, Group, Parameter, Real, RunningQuantity, Scale};

/// The kernels written out over `R`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain<R>(PhantomData<R>);

impl<R> Plain<R> {
    /// The arithmetic over `R`.
    pub fn new() -> Plain<R> {
        Plain(PhantomData)
    }
}

/// Mean, mean square deviation and number of the elements of a group.
#[derive(Clone, Copy, Debug)]
pub struct PlainMoments<R> {
    mean: R,
    variance: R,
    count: Option<usize>,
}

impl<R: Real> Arithmetic for Plain<R> {
    type Input = R;
    type Real = R;
    type Moments = PlainMoments<R>;
    type Scaling = (R, R);

    fn moments(&self, group: Group<'_, R>, centred: bool) -> PlainMoments<R> {
        let count = R::constant(group.len() as f64);
        let mean = if centred { R::sum(group.iter()) / count } else { R::constant(0.0) };
        let variance = R::sum(group.iter().map(|x| x.deviation(mean)).map(|deviation| deviation * deviation)) / count;
        PlainMoments { mean, variance, count: Some(group.len()) }
    }

    fn stored(&self, mean: R, variance: R) -> PlainMoments<R> {
        PlainMoments { mean, variance, count: None }
    }

    fn mean(&self, moments: &PlainMoments<R>) -> R {
        moments.mean
    }

    fn variance(&self, moments: &PlainMoments<R>, degrees_of_freedom: u8) -> R {
        match moments.count {
            Some(count) if degrees_of_freedom > 0 => {
                let rest = count as f64 - f64::from(degrees_of_freedom);
                moments.variance * R::constant(count as f64) / R::constant(rest)
            }
            _ => moments.variance,
        }
    }

    fn scaling(&self, moments: &PlainMoments<R>, scale: &Scale) -> (R, R) {
        let variance = self.variance(moments, scale.degrees_of_freedom);
        let eps = R::constant(scale.eps);
        let sigma = match scale.eps_place {
            EpsPlace::InsideRoot => (variance + eps).sqrt(),
            EpsPlace::OutsideRoot => variance.sqrt() + eps,
            EpsPlace::LowerLimit => variance.max(eps).sqrt(),
        };
        (moments.mean, R::constant(1.0 + scale.error) / sigma)
    }

    fn rescale(
        &self,
        run: &[R],
        &(mean, inverse): &(R, R),
        weight: Option<Parameter<'_, R>>,
        bias: Option<Parameter<'_, R>>,
        output: &mut [R],
    ) {
        for (index, (&x, out)) in run.iter().zip(output).enumerate() {
            let mut z = x.deviation(mean) * inverse;
            if let Some(weight) = weight {
                z = z * weight.at(index);
            }
            if let Some(bias) = bias {
                z = z + bias.at(index);
            }
            *out = z;
        }
    }

    fn mix(&self, old: R, new: R, factor: Factor) -> R {
        let one = R::constant(1.0);
        let (of_old, of_new) = match factor {
            Factor::OfNew(momentum) => (one - R::constant(momentum), R::constant(momentum)),
            Factor::OfOld(decay) => (R::constant(decay), one - R::constant(decay)),
            Factor::Reciprocal(batches) => {
                let of_new = one / R::constant(batches as f64);
                (one - of_new, of_new)
            }
        };
        of_old * old + of_new * new
    }

    fn inverse(&self, scaling: &(R, R)) -> R {
        scaling.1
    }

    fn keep(&self, value: R) -> R {
        value
    }

    fn running_quantity(&self, variance: R, quantity: RunningQuantity, eps: f64) -> R {
        match quantity {
            RunningQuantity::Variance => variance,
            RunningQuantity::StandardDeviation => variance.sqrt(),
            RunningQuantity::VariancePlusEps => variance + R::constant(eps),
        }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::super::Dual;
    use super::*;

    /// dz/dx along a direction g, by hand: r·(g − mean g − y·mean(g·y)), y normalized (Ioffe and Szegedy 2015).
    #[test]
    fn dual_numbers_differentiate_the_normalization() {
        let input = [0.5, -1.25, 2.0, 3.5, -0.75];
        let direction = [1.0, -2.0, 0.5, 0.25, 4.0];
        let eps = 0.1;
        let dual: Vec<Dual<f64>> = input.iter().zip(direction).map(|(&x, g)| Dual::new(x, g)).collect();
        let plain = Plain::new();
        let moments = plain.moments(Group::contiguous(&dual), true);
        let scaling = plain.scaling(&moments, &Scale::inside_root(eps));
        let mut output = vec![Dual::constant(0.0); input.len()];
        plain.rescale(&dual, &scaling, None, None, &mut output);

        let n = input.len() as f64;
        let mean = input.iter().sum::<f64>() / n;
        let variance = input.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let r = 1.0 / (variance + eps).sqrt();
        let y: Vec<f64> = input.iter().map(|x| (x - mean) * r).collect();
        let mean_g = direction.iter().sum::<f64>() / n;
        let mean_gy = direction.iter().zip(&y).map(|(g, y)| g * y).sum::<f64>() / n;
        for ((out, g), y) in output.iter().zip(direction).zip(&y) {
            assert_relative_eq!(out.value, *y, max_relative = 16.0 * f64::EPSILON);
            let by_hand = r * (g - mean_g - y * mean_gy);
            assert_relative_eq!(out.derivative, by_hand, max_relative = 64.0 * f64::EPSILON);
        }
    }
}
