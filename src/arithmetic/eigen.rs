//! Eigenvectors of symmetric matrices, by Jacobi's method (Golub and Van Loan, "Matrix Computations", section 8.5).
//!
//! ```text
//! A ← JᵀAJ,  U ← U·J      J turns the plane (p, q) by the angle that makes A_pq zero:
//! θ = (A_qq − A_pp)/(2·A_pq)      t = ±1/(|θ| + √(θ² + 1))      cos = 1/√(t² + 1)      sin = t·cos
//! ```
//! Each sweep over all pairs squares what is left outside the diagonal, in the end.

use super::DoubleDouble;

/// Sweeps of which a symmetric matrix has never needed more than a dozen.
const SWEEPS: usize = 40;

/// The eigenvectors of a symmetric matrix, given row by row, as the columns of a matrix: orthonormal to a few units of 2⁻¹⁰⁰,
/// in no particular order. Where an element is NaN or infinite, the unit vectors.
///
/// ```
/// use normative::arithmetic::{DoubleDouble, eigenvectors};
/// let matrix = [2.0, 1.0, 1.0, 2.0].map(DoubleDouble::from);
/// let vectors = eigenvectors(&matrix, 2);
/// assert!((vectors[0].hi.abs() - 0.5_f64.sqrt()).abs() < 1e-15);
/// ```
///
/// # Panics
/// If `matrix` has not size² elements.
pub fn eigenvectors(matrix: &[DoubleDouble], size: usize) -> Vec<DoubleDouble> {
    assert_eq!(matrix.len(), size * size, "a square matrix");
    let mut a = matrix.to_vec();
    let one_at = |index: usize| if index.is_multiple_of(size + 1) { DoubleDouble::ONE } else { DoubleDouble::ZERO };
    let mut u: Vec<DoubleDouble> = (0..size * size).map(one_at).collect();
    if !a.iter().all(|x| x.hi.is_finite()) {
        return u;
    }
    for _ in 0..SWEEPS {
        let mut turned = false;
        for p in 0..size {
            for q in p + 1..size {
                turned |= turn(&mut a, &mut u, size, [p, q]);
            }
        }
        if !turned {
            break;
        }
    }
    u
}

/// Makes the element (p, q) of `a` zero; whether there was anything to do.
fn turn(a: &mut [DoubleDouble], u: &mut [DoubleDouble], size: usize, [p, q]: [usize; 2]) -> bool {
    let (of_p, of_q, off) = (a[p * size + p], a[q * size + q], a[p * size + q]);
    // What is below the last digit of both neighbours on the diagonal turns nothing.
    let scale = of_p.hi.abs().max(of_q.hi.abs());
    if off.hi.abs() <= scale * DoubleDouble::ERROR {
        return false;
    }
    let theta = (of_q - of_p) / (off * 2.0);
    let root = (theta * theta + DoubleDouble::ONE).sqrt();
    let tangent = DoubleDouble::ONE / (theta.abs() + root);
    let tangent = if theta.hi < 0.0 { -tangent } else { tangent };
    let cosine = DoubleDouble::ONE / (tangent * tangent + DoubleDouble::ONE).sqrt();
    let sine = tangent * cosine;
    // Where the cosine is none, the sine is none either.
    if !sine.hi.is_finite() {
        return false;
    }
    let rotate = |matrix: &mut [DoubleDouble], first: usize, second: usize| {
        let (x, y) = (matrix[first], matrix[second]);
        matrix[first] = cosine * x - sine * y;
        matrix[second] = sine * x + cosine * y;
    };
    for k in 0..size {
        rotate(a, k * size + p, k * size + q);
        rotate(u, k * size + p, k * size + q);
    }
    for k in 0..size {
        rotate(a, p * size + k, q * size + k);
    }
    a[p * size + q] = DoubleDouble::ZERO;
    a[q * size + p] = DoubleDouble::ZERO;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A symmetric matrix with entries that look random, its eigenvalues of any size.
    fn matrix(size: usize, seed: f64) -> Vec<DoubleDouble> {
        let entry = |i: usize, j: usize| libm::sin(seed + (i.min(j) * 31 + i.max(j) * 17) as f64);
        let of = |index: usize| DoubleDouble::from(entry(index / size, index % size));
        (0..size * size).map(of).collect()
    }

    fn product(a: &[DoubleDouble], b: &[DoubleDouble], size: usize) -> Vec<DoubleDouble> {
        let element = |index: usize| {
            let terms = (0..size).map(|k| a[index / size * size + k] * b[k * size + index % size]);
            terms.fold(DoubleDouble::ZERO, |sum, term| sum + term)
        };
        (0..size * size).map(element).collect()
    }

    #[test]
    fn they_are_orthonormal_and_make_the_matrix_diagonal() {
        for size in [1, 2, 3, 7, 12] {
            for seed in [0.1, 2.5, 77.0] {
                let matrix = matrix(size, seed);
                let u = eigenvectors(&matrix, size);
                let transposed: Vec<_> = (0..size * size).map(|index| u[index % size * size + index / size]).collect();
                let unit = product(&transposed, &u, size);
                let diagonal = product(&product(&transposed, &matrix, size), &u, size);
                // Eight sweeps turn each row size − 1 times, with four operations for an element; then a product or two.
                let allowed = (32 * (size - 1) + 4 * size) as f64 * DoubleDouble::ERROR;
                for index in 0..size * size {
                    let on = index.is_multiple_of(size + 1);
                    let expected = if on { DoubleDouble::ONE } else { DoubleDouble::ZERO };
                    assert!((unit[index] - expected).abs().hi <= allowed, "{size}: {:?}", unit[index]);
                    assert!(on || diagonal[index].abs().hi <= allowed, "{size}: {:?}", diagonal[index]);
                }
            }
        }
    }

    #[test]
    fn equal_eigenvalues_and_numbers_that_are_none_end() {
        let diagonal = [3.0, 0.0, 0.0, 3.0].map(DoubleDouble::from);
        assert_eq!(eigenvectors(&diagonal, 2), [1.0, 0.0, 0.0, 1.0].map(DoubleDouble::from));
        for wrong in [f64::NAN, f64::INFINITY] {
            let matrix = [1.0, wrong, wrong, 1.0].map(DoubleDouble::from);
            assert_eq!(eigenvectors(&matrix, 2), [1.0, 0.0, 0.0, 1.0].map(DoubleDouble::from));
        }
        assert_eq!(eigenvectors(&[DoubleDouble::ZERO; 9], 3).len(), 9);
        assert_eq!(eigenvectors(&[1e300, 1e300, 1e300, 1e300].map(DoubleDouble::from), 2).len(), 4);
    }
}
