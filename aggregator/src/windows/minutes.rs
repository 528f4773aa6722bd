//! The minutes of a series, hour by hour: most series have one or two of them between checkpoints.

use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::ops::Range;

use turnpike_domain::meter::Aggregation;
use turnpike_domain::meter::aggregate::{Cell, CellError, Sample};

use super::hour::{Hour, MINUTES};
use super::size::{array_bytes, full_tree_bytes, tree_growth};

/// Hours that are held side by side at the most. What lies behind a new one is moved, so no more of them.
const FEW_MAX: usize = 16;

/// The hours that have cells, in the order of time.
#[derive(Debug)]
pub(crate) enum Minutes {
    One(Hour),
    Few(Vec<Hour>),
    Many(BTreeMap<u32, Hour>),
}

impl Minutes {
    /// A series that will have a cell in `minute`.
    pub(super) const fn new(minute: u32, aggregation: Aggregation) -> Self {
        Self::One(Hour::new(minute / MINUTES, aggregation))
    }

    /// Adds a sample to the cell of a minute, or takes it back. Adds to `bytes` what all take more for it (estimated).
    pub(super) fn add(
        &mut self,
        minute: u32,
        aggregation: Aggregation,
        sample: &Sample<'_>,
        taken_back: bool,
        bytes: &mut usize,
    ) -> Result<(), CellError> {
        let hour = self.hour(minute / MINUTES, aggregation, bytes);
        hour.add(minute % MINUTES, aggregation, sample, taken_back, bytes)
    }

    fn hour(&mut self, number: u32, aggregation: Aggregation, bytes: &mut usize) -> &mut Hour {
        if let Self::One(one) = self
            && one.number() != number
        {
            let one = std::mem::replace(one, Hour::new(number, aggregation));
            *self = Self::Few(vec![one]);
            *bytes += array_bytes::<Hour>(1);
        }
        let mut place = 0;
        if let Self::Few(few) = self {
            let found = few.binary_search_by_key(&number, Hour::number);
            place = found.unwrap_or_else(|place| place);
            if found.is_err() {
                if few.len() < FEW_MAX {
                    *bytes += make_room(few, FEW_MAX);
                    few.insert(place, Hour::new(number, aggregation));
                } else {
                    let before = array_bytes::<Hour>(few.capacity());
                    let hours = std::mem::take(few).into_iter();
                    *self = Self::Many(hours.map(|hour| (hour.number(), hour)).collect());
                    *bytes += full_tree_bytes::<u32, Hour>(FEW_MAX).saturating_sub(before);
                }
            }
        }
        match self {
            Self::One(one) => one,
            Self::Few(few) => &mut few[place],
            Self::Many(many) => {
                let known = many.len();
                many.entry(number).or_insert_with(|| {
                    *bytes += tree_growth::<u32, Hour>(known);
                    Hour::new(number, aggregation)
                })
            }
        }
    }

    /// Reads what [`Minutes::add`] will change, so that it is on its way into the cache. Only of series with one hour, as
    /// most are.
    pub(super) fn touch(&self, minute: u32) -> u64 {
        match self {
            Self::One(one) if one.number() == minute / MINUTES => one.touch(minute % MINUTES),
            _ => 0,
        }
    }

    /// The cells of some minutes.
    pub(crate) fn range(&self, minutes: Range<u32>) -> impl Iterator<Item = (u32, Cow<'_, Cell>)> {
        let hours = if minutes.is_empty() {
            0..0
        } else {
            minutes.start / MINUTES..(minutes.end - 1) / MINUTES + 1
        };
        let cells = self.hours(hours).flat_map(Hour::cells);
        cells.filter(move |(minute, _)| minutes.contains(minute))
    }

    /// All cells.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Cow<'_, Cell>)> {
        self.hours(0..u32::MAX).flat_map(Hour::cells)
    }

    /// The hours with numbers in `numbers`, which does not end before it begins.
    fn hours(&self, numbers: Range<u32>) -> Hours<'_> {
        let side_by_side = match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Few(few) => few.as_slice(),
            Self::Many(many) => return Hours::Many(many.range(numbers)),
        };
        let before = |number| side_by_side.partition_point(|hour| hour.number() < number);
        let (from, to) = (before(numbers.start), before(numbers.end));
        Hours::Few(side_by_side.get(from..to).unwrap_or_default().iter())
    }
}

/// Room for one more of at most `most`, and the estimated bytes that it takes. A half more each time, where the standard
/// library doubles and begins with four: there may be millions of series with one minute.
pub(super) fn make_room<T>(few: &mut Vec<T>, most: usize) -> usize {
    let before = few.capacity();
    if few.len() < before {
        return 0;
    }
    few.reserve_exact((before / 2).clamp(1, most.saturating_sub(before).max(1)));
    array_bytes::<T>(few.capacity()) - array_bytes::<T>(before)
}

/// Hours in the order of time.
enum Hours<'m> {
    Few(std::slice::Iter<'m, Hour>),
    Many(btree_map::Range<'m, u32, Hour>),
}

impl<'m> Iterator for Hours<'m> {
    type Item = &'m Hour;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next(),
            Self::Many(many) => many.next().map(|(_, hour)| hour),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use turnpike_domain::meter::aggregate::SampleValue;
    use turnpike_domain::quantity::Quantity;

    use super::*;

    /// The sample of a value, as each aggregation takes it.
    fn sample(aggregation: Aggregation, parts: i128) -> Sample<'static> {
        Sample {
            value: match aggregation {
                Aggregation::Count => SampleValue::None,
                _ => SampleValue::Number(Quantity::from_parts(parts).unwrap()),
            },
            time_us: 0,
            source: "",
            id: "",
        }
    }

    const MAX: i128 = Quantity::MAX.parts();

    proptest! {
        #[test]
        fn they_hold_what_a_map_of_cells_holds(
            added in prop::collection::vec(
                (prop_oneof![0..90_u32, 0..1_800_u32, Just(u32::MAX)],
                 prop_oneof![0..5_i128, Just(MAX), Just(-MAX), -MAX..=MAX], any::<bool>()),
                1..300,
            ),
            from in 0..1_900_u32, to in 0..1_900_u32,
        ) {
            for aggregation in [Aggregation::Count, Aggregation::Sum, Aggregation::Max] {
                let mut minutes = Minutes::new(added[0].0, aggregation);
                let mut model = BTreeMap::<u32, Cell>::new();
                let mut bytes = 0;
                for (minute, parts, back) in &added {
                    let sample = sample(aggregation, *parts);
                    minutes.add(*minute, aggregation, &sample, *back, &mut bytes).unwrap();
                    model.entry(*minute).or_insert_with(|| Cell::new(aggregation)).add(&sample, *back).unwrap();
                }
                let all: Vec<_> = minutes.iter().map(|(at, cell)| (at, cell.into_owned())).collect();
                prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
                for range in [from..to, from..u32::MAX, 0..to] {
                    let within: Vec<_> = minutes.range(range.clone()).map(|(at, cell)| (at, cell.into_owned())).collect();
                    let expected = model.range(range.start..range.end.max(range.start));
                    prop_assert_eq!(within, expected.map(|(at, cell)| (*at, cell.clone())).collect::<Vec<_>>());
                }
            }
        }
    }
}
