//! Groups: the elements of a tensor that share statistics, as runs of neighbours in memory.

/// Positions in a flat tensor: `count` runs of `length` neighbours, `stride` apart, the first at `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Position of the first element.
    pub start: usize,
    /// Number of runs.
    pub count: usize,
    /// Distance between the starts of two runs.
    pub stride: usize,
    /// Elements of a run.
    pub length: usize,
}

impl Runs {
    /// The elements, n.
    pub fn len(&self) -> usize {
        self.count * self.length
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The elements of a group.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a, T> {
    data: &'a [T],
    runs: Runs,
}

impl<'a, T: Copy> Group<'a, T> {
    /// The elements of `data` at `runs`.
    ///
    /// # Panics
    /// If a run leaves `data`.
    pub fn new(data: &'a [T], runs: Runs) -> Group<'a, T> {
        if !runs.is_empty() {
            let end = runs.start + (runs.count - 1) * runs.stride + runs.length;
            assert!(end <= data.len(), "runs end at {end}, the tensor at {}", data.len());
        }
        Group { data, runs }
    }

    /// A group that is one slice.
    pub fn contiguous(data: &'a [T]) -> Group<'a, T> {
        Group { data, runs: Runs { start: 0, count: 1, stride: 0, length: data.len() } }
    }

    /// The number of elements n.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs, in order.
    pub fn slices(&self) -> impl Iterator<Item = &'a [T]> + Clone + use<'a, T> {
        let Group { data, runs } = *self;
        (0..runs.count).map(move |run| &data[runs.start + run * runs.stride..][..runs.length])
    }

    /// The elements, in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + Clone + use<'a, T> {
        self.slices().flat_map(|slice| slice.iter().copied())
    }

    /// The elements as one slice: borrowed where they are neighbours, gathered into `scratch` otherwise.
    pub fn gather<'b>(&self, scratch: &'b mut Vec<T>) -> &'b [T]
    where
        'a: 'b,
    {
        if self.runs.count == 1 {
            return &self.data[self.runs.start..][..self.runs.length];
        }
        scratch.clear();
        scratch.reserve(self.len());
        for slice in self.slices() {
            scratch.extend_from_slice(slice);
        }
        scratch
    }
}

/// A weight or a bias over one run of elements.
#[derive(Clone, Copy, Debug)]
pub enum Parameter<'a, T> {
    /// One value for the whole run: a channel's.
    One(T),
    /// A value for each element.
    Each(&'a [T]),
}

impl<T: Copy> Parameter<'_, T> {
    /// The value for element `index` of the run.
    #[inline]
    pub fn at(&self, index: usize) -> T {
        match self {
            Parameter::One(value) => *value,
            Parameter::Each(values) => values[index],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_in_order() {
        let data: Vec<i32> = (0..12).collect();
        let runs = Runs { start: 2, count: 3, stride: 4, length: 2 };
        let group = Group::new(&data, runs);
        assert_eq!((runs.len(), group.len(), group.is_empty()), (6, 6, false));
        assert_eq!(group.iter().collect::<Vec<_>>(), [2, 3, 6, 7, 10, 11]);
        assert_eq!(group.slices().collect::<Vec<_>>(), [[2, 3], [6, 7], [10, 11]]);
        let mut scratch = vec![99];
        assert_eq!(group.gather(&mut scratch), [2, 3, 6, 7, 10, 11]);
        let one = Group::new(&data, Runs { start: 5, count: 1, stride: 0, length: 3 });
        assert_eq!(one.gather(&mut Vec::new()), [5, 6, 7]);
        assert_eq!(Group::contiguous(&data).iter().collect::<Vec<_>>(), data);
    }

    #[test]
    fn an_empty_group_may_stand_anywhere() {
        for (count, length) in [(0, 3), (3, 0)] {
            let group = Group::new(&[0.0; 2], Runs { start: 50, count, stride: 9, length });
            assert!(group.is_empty());
            assert_eq!(group.len(), 0);
        }
        let none = Group::new(&[0.0; 2], Runs { start: 50, count: 0, stride: 9, length: 3 });
        assert_eq!(none.gather(&mut vec![1.0]), [0.0; 0]);
    }

    #[test]
    #[should_panic(expected = "runs end at 13, the tensor at 12")]
    fn a_run_stays_within_the_tensor() {
        Group::new(&[0; 12], Runs { start: 3, count: 3, stride: 4, length: 2 });
    }

    #[test]
    fn a_parameter_is_one_or_each() {
        assert_eq!(Parameter::One(3).at(7), 3);
        assert_eq!(Parameter::Each(&[4, 5, 6]).at(1), 5);
    }
}
