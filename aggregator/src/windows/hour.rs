//! The cells of a series within one hour, side by side: a bit for each minute that has one.

use std::borrow::Cow;

use turnpike_domain::meter::Aggregation;
use turnpike_domain::meter::aggregate::{Cell, CellError, Sample, SampleValue, Wide};

use super::minutes::make_room;
use super::size::{array_bytes, value_growth, values};

/// Minutes of an hour.
pub(super) const MINUTES: u32 = 60;

/// The cells of an hour.
#[derive(Debug)]
pub(crate) struct Hour {
    /// Hours since 1970.
    number: u32,
    /// Bit n: minute n has a cell.
    taken: u64,
    cells: Cells,
}

/// Cells in the order of their minutes. Those of most meters are numbers, which are held without anything around them.
#[derive(Debug)]
enum Cells {
    Counts(Vec<i64>),
    Sums(Vec<Sum>),
    /// All others; also sums, once one of them is beyond 128 bits.
    Whole(Vec<Cell>),
}

/// A [`Cell::Sum`] of which 128 bits are enough.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: i64,
    /// Parts of 10⁻¹² in two halves, so that it takes 24 bytes.
    low: u64,
    high: i64,
}

impl Sum {
    fn parts(self) -> i128 {
        i128::from(self.high) << 64 | i128::from(self.low)
    }

    /// Adds `parts`; `false`, and nothing is added, where that is beyond 128 bits.
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a number")]
    fn add(&mut self, parts: i128, sign: i64) -> bool {
        let Some(sum) = self.parts().checked_add(parts) else {
            return false;
        };
        self.count += sign;
        (self.low, self.high) = (sum.cast_unsigned() as u64, (sum >> 64) as i64);
        true
    }

    fn cell(self) -> Cell {
        Cell::Sum(self.count, Wide::of_parts(self.parts()))
    }
}

impl Hour {
    pub(super) const fn new(number: u32, aggregation: Aggregation) -> Self {
        let cells = match aggregation {
            Aggregation::Count => Cells::Counts(Vec::new()),
            Aggregation::Sum | Aggregation::Avg => Cells::Sums(Vec::new()),
            Aggregation::Min
            | Aggregation::Max
            | Aggregation::UniqueCount
            | Aggregation::Latest
            | Aggregation::TimeWeightedSum
            | Aggregation::Percentile => Cells::Whole(Vec::new()),
        };
        Self {
            number,
            taken: 0,
            cells,
        }
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Adds a sample to a minute of the hour, or takes it back. Adds to `bytes` what the cells take more for it (estimated).
    pub(super) fn add(
        &mut self,
        minute: u32,
        aggregation: Aggregation,
        sample: &Sample<'_>,
        taken_back: bool,
        bytes: &mut usize,
    ) -> Result<(), CellError> {
        let bit = 1 << minute;
        let at = (self.taken & (bit - 1)).count_ones() as usize;
        if self.taken & bit == 0 {
            *bytes += self.cells.insert(at, aggregation);
            self.taken |= bit;
        }
        let sign = if taken_back { -1 } else { 1 };
        match (&mut self.cells, &sample.value) {
            (Cells::Counts(counts), SampleValue::None) => counts[at] += sign,
            (Cells::Sums(sums), SampleValue::Number(value)) => {
                let parts = if taken_back { -value.parts() } else { value.parts() };
                if !sums[at].add(parts, sign) {
                    *bytes += self.cells.widen();
                    return self.cells.add_whole(at, sample, taken_back, bytes);
                }
            }
            (Cells::Whole(_), _) => return self.cells.add_whole(at, sample, taken_back, bytes),
            _ => return Err(CellError),
        }
        Ok(())
    }

    /// Reads what [`Hour::add`] will change, so that it is on its way into the cache.
    pub(super) fn touch(&self, minute: u32) -> u64 {
        fn near<T: Copy>(cells: &[T], at: usize) -> Option<T> {
            cells.get(at).or(cells.last()).copied()
        }
        let at = (self.taken & ((1 << minute) - 1)).count_ones() as usize;
        match &self.cells {
            Cells::Counts(counts) => near(counts, at).map_or(0, i64::cast_unsigned),
            Cells::Sums(sums) => near(sums, at).map_or(0, |sum| sum.low),
            Cells::Whole(_) => 0,
        }
    }

    /// The cells with their minutes since 1970.
    pub(super) fn cells(&self) -> impl Iterator<Item = (u32, Cow<'_, Cell>)> {
        let mut left = self.taken;
        (0..left.count_ones() as usize).map(move |at| {
            let minute = left.trailing_zeros();
            left &= left - 1;
            (self.number * MINUTES + minute, self.cells.get(at))
        })
    }
}

impl Cells {
    /// Puts an empty cell at a place; the estimated bytes that it takes.
    fn insert(&mut self, at: usize, aggregation: Aggregation) -> usize {
        fn put<T>(cells: &mut Vec<T>, at: usize, cell: T) -> usize {
            let more = make_room(cells, MINUTES as usize);
            cells.insert(at, cell);
            more
        }
        match self {
            Self::Counts(counts) => put(counts, at, 0),
            Self::Sums(sums) => put(sums, at, Sum::default()),
            Self::Whole(cells) => put(cells, at, Cell::new(aggregation)),
        }
    }

    /// Makes sums whole cells; the estimated bytes that they take more.
    fn widen(&mut self) -> usize {
        let Self::Sums(sums) = self else {
            return 0;
        };
        let before = array_bytes::<Sum>(sums.capacity());
        let cells: Vec<Cell> = sums.iter().map(|sum| sum.cell()).collect();
        let more = array_bytes::<Cell>(cells.capacity()).saturating_sub(before);
        *self = Self::Whole(cells);
        more
    }

    fn add_whole(
        &mut self,
        at: usize,
        sample: &Sample<'_>,
        taken_back: bool,
        bytes: &mut usize,
    ) -> Result<(), CellError> {
        let Self::Whole(cells) = self else {
            return Err(CellError);
        };
        let cell = &mut cells[at];
        let before = values(cell);
        cell.add(sample, taken_back)?;
        if values(cell) > before {
            *bytes += value_growth(cell, before, sample);
        }
        Ok(())
    }

    fn get(&self, at: usize) -> Cow<'_, Cell> {
        match self {
            Self::Counts(counts) => Cow::Owned(Cell::Count(counts[at])),
            Self::Sums(sums) => Cow::Owned(sums[at].cell()),
            Self::Whole(cells) => Cow::Borrowed(&cells[at]),
        }
    }
}
