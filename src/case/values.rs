//! Values for inputs: the same on every machine and for ever, made by exact dyadic arithmetic from a value-stable
//! generator (ChaCha8, Bernstein 2008). No library function whose last bit might differ is called.

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::arithmetic::format::power_of_two;
use crate::arithmetic::{DataType, Format};

/// A source of values.
#[derive(Clone, Debug)]
pub struct Values {
    generator: ChaCha8Rng,
    given: Given,
}

/// What is drawn instead of the generator's numbers.
#[derive(Clone, Debug)]
enum Given {
    /// Nothing.
    Nothing,
    /// These draws, then 0.
    Draws(VecDeque<u64>),
    /// Choices take these bytes, as few as they need, then the generator; numbers are the generator's.
    Bytes(VecDeque<u8>),
}

impl Values {
    /// The values of a seed.
    pub fn new(seed: u64) -> Values {
        Values { generator: ChaCha8Rng::seed_from_u64(seed), given: Given::Nothing }
    }

    /// The values that belong to a name, such as a case's.
    pub fn named(name: &str) -> Values {
        // FNV-1a (Fowler, Noll, Vo): any fixed hash would do.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Values::new(hash)
    }

    /// The values that come of these draws, and of 0 once they are used up: the first of each choice. Whoever makes the
    /// draws smaller or fewer makes what is drawn simpler.
    pub fn chosen(draws: &[u64]) -> Values {
        Values { given: Given::Draws(draws.iter().copied().collect()), ..Values::new(0) }
    }

    /// The values that any bytes stand for: the first four are a seed, and each choice takes one of the rest, two where it
    /// is among more than 256. Once they are used up, and for numbers that are no choice, the seed draws. So a change of a
    /// byte changes a choice and little else, and few bytes make a large case.
    ///
    /// ```
    /// use normative::case::values::Values;
    /// let mut values = Values::of_bytes(&[1, 0, 0, 0, 7, 9]);
    /// assert_eq!((values.below(5), values.pick(&["a", "b"])), (2, "b"));
    /// ```
    pub fn of_bytes(bytes: &[u8]) -> Values {
        let (seed, choices) = bytes.split_at(bytes.len().min(4));
        let seed = seed.iter().rev().fold(0, |seed, &byte| seed << 8 | u64::from(byte));
        Values { given: Given::Bytes(choices.iter().copied().collect()), ..Values::new(seed) }
    }

    fn next(&mut self) -> u64 {
        match &mut self.given {
            Given::Draws(draws) => draws.pop_front().unwrap_or(0),
            Given::Nothing | Given::Bytes(_) => self.generator.next_u64(),
        }
    }

    /// An integer in 0..bound.
    pub fn below(&mut self, bound: usize) -> usize {
        let draw = match &mut self.given {
            Given::Bytes(bytes) if !bytes.is_empty() => {
                let width = bytes.len().min(if bound > 256 { 2 } else { 1 });
                bytes.drain(..width).fold(0, |draw, byte| draw << 8 | u64::from(byte))
            }
            _ => self.next(),
        };
        // The bias of the remainder, below bound/2⁶⁴, does not matter to a test input.
        (draw % bound.max(1) as u64) as usize
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A multiple of 2⁻²⁰ in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 44) as f64 * power_of_two(-20)
    }

    /// −1 or 1.
    pub fn sign(&mut self) -> f64 {
        if self.next() & 1 == 0 { -1.0 } else { 1.0 }
    }

    /// Nearly normal with mean 0 and variance 1: the sum of twelve uniform values less 6 (Irwin and Hall). A multiple of
    /// 2⁻²⁰ in [−6, 6).
    pub fn normal(&mut self) -> f64 {
        // As integers, so that one number is converted instead of twelve.
        let sum: u64 = (0..12).map(|_| self.next() >> 44).sum();
        sum as f64 * power_of_two(-20) - 6.0
    }

    /// `count` values nearly normal with the given mean and standard deviation.
    pub fn normals(&mut self, count: usize, mean: f64, deviation: f64) -> Vec<f64> {
        (0..count).map(|_| mean + deviation * self.normal()).collect()
    }

    /// `count` weights: positive and negative, 2⁻⁸ to 2⁸, some of them 1.
    pub fn weights(&mut self, count: usize) -> Vec<f64> {
        (0..count)
            .map(|_| match self.below(5) {
                0 => 1.0,
                _ => self.sign() * (1.0 + self.uniform()) * power_of_two(self.below(16) as i32 - 8),
            })
            .collect()
    }

    /// `count` biases: positive and negative, 2⁻⁸ to 2⁸, some of them 0.
    pub fn biases(&mut self, count: usize) -> Vec<f64> {
        self.weights(count).into_iter().map(|b| if b == 1.0 { 0.0 } else { b }).collect()
    }
}

/// The value nearest to `value` that `dtype` holds, kept finite.
pub fn held(dtype: DataType, value: f64) -> f64 {
    let format = dtype.format().unwrap_or(Format::F64);
    format.round(value).clamp(-format.max_finite(), format.max_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_values_are_those_of_the_draws() {
        let mut values = Values::chosen(&[7, 1 << 63, 1]);
        assert_eq!((values.below(5), values.uniform(), values.sign()), (2, 0.5, 1.0));
        assert_eq!((values.below(5), values.pick(&[0.25, 0.5]), values.sign()), (0, 0.25, -1.0));
    }

    /// Changing these values changes every case that is made from them.
    #[test]
    fn the_values_are_stable() {
        let mut values = Values::named("stable");
        let first: Vec<f64> = (0..3).map(|_| values.normal()).collect();
        assert_eq!(first, [0.08375930786132813, 1.420863151550293, 1.2818059921264648]);
    }
}
