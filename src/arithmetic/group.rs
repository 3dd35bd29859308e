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
