//! Partitions: which elements share statistics, and which weight and bias they get.
//!
//! An element's position in a flat tensor is outer·outer_stride + inner·inner_stride + run·run_stride + k. The pair
//! (outer, inner) is its group, (run, k) its place in the group:
//!
//! | operation | input | outer | inner | run | k |
//! | --- | --- | --- | --- | --- | --- |
//! | batch norm | (N, C, L) | | C | N | L |
//! | instance norm | (N, C, L) | N | C | | L |
//! | group norm | (N, G, C/G, L) | N | G | C/G | L |
//! | layer norm | (M, n) | M | | | n |

use crate::arithmetic::Runs;

/// A regular partition of a tensor's elements into groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Groups along the first axis, that share weight and bias.
    pub outer: usize,
    /// Distance of two of them.
    pub outer_stride: usize,
    /// Groups along the second axis, each with its own weight and bias.
    pub inner: usize,
    /// Distance of two of them.
    pub inner_stride: usize,
    /// Runs of a group.
    pub runs: usize,
    /// Distance of two of them.
    pub run_stride: usize,
    /// Elements of a run, neighbours in memory.
    pub run_length: usize,
    /// Which weight and bias an element gets.
    pub parameter: ParameterIndex,
}

/// An element's weight has the index outer·`outer_step` + inner·`inner_step` + run·`run_step` + k·`element_step`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParameterIndex {
    /// For each step along the first axis of groups: 0 where groups along it share their weights.
    pub outer_step: usize,
    /// For each step along the second axis of groups.
    pub inner_step: usize,
    /// For each run.
    pub run_step: usize,
    /// For each element of a run: 0 or 1.
    pub element_step: usize,
}

/// Where a run of elements belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The group's number, outer·inner + inner.
    pub group: usize,
    /// The index of its first element's weight.
    pub parameter: usize,
}

impl Partition {
    /// One group for each index of the second of three axes (N, C, L), with its own weight.
    pub fn channels(batch: usize, channels: usize, length: usize) -> Partition {
        Partition {
            outer: 1,
            outer_stride: 0,
            inner: channels,
            inner_stride: length,
            runs: batch,
            run_stride: channels * length,
            run_length: length,
            parameter: ParameterIndex { inner_step: 1, ..ParameterIndex::default() },
        }
    }

    /// One group for each pair of indices of the first two of three axes (N, C, L), with channel c's weight.
    pub fn instances(batch: usize, channels: usize, length: usize) -> Partition {
        Partition {
            outer: batch,
            outer_stride: channels * length,
            runs: 1,
            run_stride: length,
            ..Partition::channels(batch, channels, length)
        }
    }

    /// One group for each index of axis `dim`: all elements that have it.
    pub fn slices(shape: &[usize], dim: usize) -> Partition {
        let product = |sizes: &[usize]| sizes.iter().product();
        Partition::channels(product(&shape[..dim]), shape[dim], product(&shape[dim + 1..]))
    }

    /// One group for each line along axis `dim`.
    pub fn lines(shape: &[usize], dim: usize) -> Partition {
        let inner: usize = shape[dim + 1..].iter().product();
        Partition {
            outer: shape[..dim].iter().product(),
            outer_stride: shape[dim] * inner,
            inner,
            inner_stride: 1,
            runs: shape[dim],
            run_stride: inner,
            run_length: 1,
            parameter: ParameterIndex::default(),
        }
    }

    /// One group of everything.
    pub fn whole(elements: usize) -> Partition {
        Partition::channels(1, 1, elements)
    }

    /// The flat positions of the elements of group `group`, in order.
    pub fn positions(&self, group: usize) -> Vec<usize> {
        let runs = self.group(group);
        (0..runs.count).flat_map(|run| (0..runs.length).map(move |k| runs.start + run * runs.stride + k)).collect()
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.outer * self.inner
    }

    /// The number of elements of each group.
    pub fn group_size(&self) -> usize {
        self.runs * self.run_length
    }

    /// The elements of group `group`, neighbouring runs joined.
    pub fn group(&self, group: usize) -> Runs {
        let start = group / self.inner * self.outer_stride + group % self.inner * self.inner_stride;
        if self.run_stride == self.run_length || self.runs == 1 {
            return Runs { start, count: 1, stride: 0, length: self.group_size() };
        }
        Runs { start, count: self.runs, stride: self.run_stride, length: self.run_length }
    }

    /// Where the run that starts at flat position `start` belongs.
    pub fn place(&self, start: usize) -> Place {
        let (outer, rest) = divide(start, self.outer_stride, self.outer);
        // The larger stride is the slower digit.
        let (inner, run) = if self.run_stride >= self.inner_stride {
            let (run, rest) = divide(rest, self.run_stride, self.runs);
            (divide(rest, self.inner_stride, self.inner).0, run)
        } else {
            let (inner, rest) = divide(rest, self.inner_stride, self.inner);
            (inner, divide(rest, self.run_stride, self.runs).0)
        };
        Place {
            group: outer * self.inner + inner,
            parameter: outer * self.parameter.outer_step
                + inner * self.parameter.inner_step
                + run * self.parameter.run_step,
        }
    }
}

/// One digit of a position in mixed radix, and the rest; an axis of length 1 has no stride.
fn divide(position: usize, stride: usize, length: usize) -> (usize, usize) {
    if length <= 1 { (0, position) } else { (position / stride, position % stride) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_covers(partition: Partition, elements: usize) {
        let mut owner = vec![usize::MAX; elements];
        for group in 0..partition.groups() {
            let runs = partition.group(group);
            for run in 0..runs.count {
                for k in 0..runs.length {
                    let position = runs.start + run * runs.stride + k;
                    assert_eq!(owner[position], usize::MAX, "{position} is in two groups");
                    owner[position] = group;
                }
            }
        }
        for start in (0..elements).step_by(partition.run_length) {
            assert_eq!(partition.place(start).group, owner[start], "{start}");
        }
    }

    #[test]
    fn every_element_is_in_one_group_and_finds_it() {
        for (n, c, l, g) in [(1, 1, 1, 1), (2, 6, 5, 3), (3, 4, 1, 2), (1, 6, 7, 6), (5, 4, 2, 1)] {
            assert_covers(Partition::channels(n, c, l), n * c * l);
            assert_covers(Partition::instances(n, c, l), n * c * l);
            assert_covers(Partition::lines(&[n, c, l], 1), n * c * l);
            assert_covers(Partition::whole(n * c * l), n * c * l);
            let per_group = c / g;
            let group = Partition {
                outer: n,
                outer_stride: c * l,
                inner: g,
                inner_stride: per_group * l,
                runs: per_group,
                run_stride: l,
                run_length: l,
                parameter: ParameterIndex { inner_step: per_group, run_step: 1, ..ParameterIndex::default() },
            };
            assert_covers(group, n * c * l);
            let strided = Partition { inner_stride: l, run_stride: g * l, ..group };
            assert_covers(strided, n * c * l);
            for channel in 0..c {
                assert_eq!(group.place(channel * l).parameter, channel);
            }
        }
    }
}
