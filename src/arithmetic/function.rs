//! Elementary functions: the activations that norms come with.
//!
//! ```text
//! eˣ      tanh x = (e²ˣ − 1)/(e²ˣ + 1)      erf x = 2/√π·∫₀ˣ e^(−t²)dt      sigmoid x = 1/(1 + e⁻ˣ)
//! ```
//! The series of erf is the one whose terms are all positive (Abramowitz and Stegun 1964, 7.1.6), so that nothing cancels:
//! erf x = 2x/√π·e^(−x²)·Σ (2x²)ᵏ/(1·3·5⋯(2k + 1)).

use super::{DoubleDouble, Real};

/// An elementary function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// eˣ
    Exp,
    /// The hyperbolic tangent.
    Tanh,
    /// The error function.
    Erf,
    /// 1/(1 + e⁻ˣ)
    Sigmoid,
}

/// 2/√π to 107 bits.
pub(crate) const SLOPE_OF_ERF: DoubleDouble =
    DoubleDouble { hi: std::f64::consts::FRAC_2_SQRT_PI, lo: 1.533545961316588e-17 };

/// 2/√π, from which the roots of other multiples of π follow.
pub(crate) fn slope_of_erf<R: Real>() -> R {
    R::constant(SLOPE_OF_ERF.hi) + R::constant(SLOPE_OF_ERF.lo)
}

impl Function {
    /// The value in binary64, within two units in the last place (four for the sigmoid).
    pub fn of(self, x: f64) -> f64 {
        match self {
            Function::Exp => libm::exp(x),
            Function::Tanh => libm::tanh(x),
            Function::Erf => libm::erf(x),
            Function::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
        }
    }

    /// The value as a double-double, within [`DoubleDouble::POWER_ERROR`] of itself where it is normal.
    pub fn of_double_double(self, x: DoubleDouble) -> DoubleDouble {
        let one = DoubleDouble::ONE;
        match self {
            Function::Exp => x.exp(),
            // Beyond this the rest is below 2⁻¹⁰⁵.
            Function::Tanh if x.hi.abs() > 37.0 => DoubleDouble::from(x.hi.signum()),
            Function::Tanh => {
                let twice = (x * 2.0).exp_m1();
                twice / (twice + DoubleDouble::from(2.0))
            }
            Function::Erf if x.hi.abs() > 9.0 => DoubleDouble::from(x.hi.signum()),
            Function::Erf => {
                let square = x * x;
                let (mut term, mut sum, mut odd) = (one, one, 1.0);
                while term.hi > 1e-34 * sum.hi {
                    odd += 2.0;
                    term = term * square * 2.0 / DoubleDouble::from(odd);
                    sum = sum + term;
                }
                x * SLOPE_OF_ERF * (-square).exp() * sum
            }
            // Below this 1 is nothing beside e⁻ˣ, whose digits would leave the range.
            Function::Sigmoid if x.hi < -600.0 => x.exp(),
            Function::Sigmoid => one / (one + (-x).exp()),
        }
    }

    /// f′(x), where y = f(x).
    pub fn slope<R: Real>(self, x: R, y: R) -> R {
        let one = R::constant(1.0);
        match self {
            Function::Exp => y,
            Function::Tanh => one - y * y,
            Function::Erf => slope_of_erf::<R>() * (-(x * x)).function(Function::Exp),
            Function::Sigmoid => y * (one - y),
        }
    }

    /// The largest |f′| within `error` of x.
    pub(super) fn steepest(self, x: f64, error: f64) -> f64 {
        // The last three are steepest at 0 and flatten on both sides.
        let nearest = (x.abs() - error).max(0.0);
        let slope = match self {
            Function::Exp => (x + error).exp(),
            Function::Tanh => nearest.cosh().powi(-2),
            Function::Erf => std::f64::consts::FRAC_2_SQRT_PI * (-nearest * nearest).exp(),
            Function::Sigmoid => 0.25 * (nearest / 2.0).cosh().powi(-2),
        };
        slope * (1.0 + 1e-12)
    }

    /// The roundings that a library's function is granted.
    pub(super) fn granted(self) -> f64 {
        if self == Function::Sigmoid { 4.0 } else { 2.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::{Dual, Truth, draws};

    const EVERY: [Function; 4] = [Function::Exp, Function::Tanh, Function::Erf, Function::Sigmoid];

    /// To thirty digits, by mpmath 1.3.
    #[test]
    fn known_values() {
        for (function, x, hi, lo) in KNOWN {
            let value = function.of_double_double(DoubleDouble::from(x));
            let error = (value - DoubleDouble::sum(hi, lo)).abs().hi;
            assert!(error <= 2f64.powi(-85) * hi.abs(), "{function:?}({x}) = {value:?}: {error:e}");
        }
    }

    #[test]
    fn binary64_and_double_double_agree() {
        for function in EVERY {
            for step in (-400..400).step_by(800 / draws(800)) {
                let x = f64::from(step) / 37.0;
                let truth = function.of_double_double(DoubleDouble::from(x)).hi;
                let error = (function.of(x) - truth).abs();
                assert!(error <= function.granted() * f64::EPSILON / 2.0 * truth.abs(), "{function:?}({x}): {error:e}");
            }
        }
    }

    /// The slope is the derivative: a difference quotient in double-double arithmetic, of step 2⁻³⁰, is within 2⁻²⁸ of it.
    #[test]
    fn slopes_are_derivatives() {
        for function in EVERY {
            for x in [-3.5, -0.75, 0.0, 0.3, 2.0] {
                let step = DoubleDouble::from(2f64.powi(-30));
                let at = |x: DoubleDouble| function.of_double_double(x);
                let quotient = (at(DoubleDouble::from(x) + step) - at(DoubleDouble::from(x) - step)) / (step * 2.0);
                let dual = Dual::new(Truth::exact(x), Truth::exact(1.0)).function(function);
                assert!((quotient.hi - dual.derivative.value.hi).abs() < 2f64.powi(-28) * 34.0, "{function:?}({x})");
                assert!(dual.derivative.value.hi <= function.steepest(x, 0.0), "{function:?}({x})");
            }
        }
    }

    #[test]
    fn far_out_functions_are_at_their_limits() {
        let at = |function: Function, x: f64| function.of_double_double(DoubleDouble::from(x));
        for x in [38.0, 400.0, 1e5, f64::INFINITY] {
            for function in [Function::Tanh, Function::Erf] {
                assert_eq!(at(function, x), DoubleDouble::ONE, "{function:?}({x})");
                assert_eq!(at(function, -x), -DoubleDouble::ONE, "{function:?}(-{x})");
            }
            assert_eq!(at(Function::Sigmoid, x).hi, 1.0);
        }
        for x in [-601.0, -650.0, -700.0, -705.0] {
            let error = (at(Function::Sigmoid, x) - DoubleDouble::from(x).exp()).hi.abs();
            assert!(error <= 2f64.powi(-85) * x.exp(), "{x}: {error:e}");
        }
    }

    /// The largest slope over an interval is at its end nearest to 0, or at 0, or of the exponential at its right end.
    #[test]
    fn the_steepest_slope_is_that_of_an_end_or_of_the_middle() {
        for function in EVERY {
            for x in [-2.0, -0.5, 0.0, 0.25, 1.5] {
                for error in [0.0, 0.125, 1.0] {
                    let points = [x - error, x + error, 0.0].into_iter().filter(|p| (p - x).abs() <= error);
                    let largest = points.map(|p| function.slope(p, function.of(p))).fold(0.0, f64::max);
                    let steepest = function.steepest(x, error);
                    assert!(steepest >= largest && steepest <= largest * (1.0 + 1e-11), "{function:?}({x} ± {error})");
                }
            }
        }
    }

    /// (2/√π)²·π = 4, in twice the digits of binary64.
    #[test]
    fn the_slope_of_erf_has_both_its_parts() {
        let slope: Truth = slope_of_erf();
        let pi = DoubleDouble { hi: std::f64::consts::PI, lo: 1.224_646_799_147_353_2e-16 };
        let off = slope.value * slope.value * pi - DoubleDouble::from(4.0);
        assert!(off.hi.abs() < 1e-30, "{off:?}");
    }

    #[test]
    fn a_sigmoid_is_granted_two_roundings_more() {
        assert_eq!(EVERY.map(Function::granted), [2.0, 2.0, 2.0, 4.0]);
    }

    const KNOWN: [(Function, f64, f64, f64); 24] = [
        (Function::Exp, -20.25, 1.6052280551856116e-09, -3.657643988865463e-26),
        (Function::Exp, -1.5, 0.22313016014842982, 1.0887723699042263e-17),
        (Function::Exp, -0.0078125, 0.9922179382602435, -2.8192701381719798e-18),
        (Function::Exp, 0.625, 1.8682459574322223, 8.036849362605154e-17),
        (Function::Exp, 3.0, 20.085536923187668, -1.8275625525512858e-16),
        (Function::Exp, 8.5, 4914.768840299134, 2.17317454126359e-14),
        (Function::Tanh, -20.25, -1.0, 5.153514218309962e-18),
        (Function::Tanh, -1.5, -0.9051482536448664, -4.1992024501810215e-17),
        (Function::Tanh, -0.0078125, -0.007812341058161014, -6.570221056747088e-20),
        (Function::Tanh, 0.625, 0.5545997223493823, 3.145617845100655e-17),
        (Function::Tanh, 3.0, 0.9950547536867305, -1.2991892863562624e-17),
        (Function::Tanh, 8.5, 0.999999917201249, 1.8730650729132408e-17),
        (Function::Erf, -20.25, -1.0, 0.0),
        (Function::Erf, -1.5, -0.9661051464753108, 3.3867031441680696e-17),
        (Function::Erf, -0.0078125, -0.008815282895179188, -3.189832538685032e-19),
        (Function::Erf, 0.625, 0.623240882188418, -2.7016816836135297e-17),
        (Function::Erf, 3.0, 0.9999779095030014, 5.363397058636269e-17),
        (Function::Erf, 8.5, 1.0, -2.7623240713337716e-33),
        (Function::Sigmoid, -20.25, 1.6052280526088545e-09, 8.808852032066078e-27),
        (Function::Sigmoid, -1.5, 0.18242552380635635, -8.506488503282418e-18),
        (Function::Sigmoid, -0.0078125, 0.4980468849340468, 2.257893816546012e-17),
        (Function::Sigmoid, 0.625, 0.6513548646660542, 5.3973161940776026e-17),
        (Function::Sigmoid, 3.0, 0.9525741268224333, -3.451513898035272e-17),
        (Function::Sigmoid, 8.5, 0.9997965730219448, -7.580338152732208e-18),
    ];
}
