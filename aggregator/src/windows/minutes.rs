//! The minutes of a series, densely: most series have few.

use std::collections::{BTreeMap, btree_map};
use std::ops::Range;

use turnpike_domain::meter::Aggregation;
use turnpike_domain::meter::aggregate::Cell;

use super::size::{array_bytes, full_tree_bytes, tree_growth};

/// Minutes that are held side by side at the most: an hour of traffic. What lies behind a new one is moved, so no more of them.
const FEW_MAX: usize = 64;

/// Minute → cell, in the order of time.
#[derive(Debug)]
pub(crate) enum Minutes {
    Few(Vec<(u32, Cell)>),
    Many(BTreeMap<u32, Cell>),
}

impl Minutes {
    pub(super) const fn new() -> Self {
        Self::Few(Vec::new())
    }

    /// The cell of a minute, made where there is none; and the estimated bytes that all take more for it.
    pub(super) fn cell(&mut self, minute: u32, aggregation: Aggregation) -> (&mut Cell, usize) {
        let (mut place, mut more) = (0, 0);
        if let Self::Few(few) = self {
            // Most events are of the newest minute or behind it.
            let found = match few.last() {
                Some((last, _)) if *last > minute => few.binary_search_by_key(&minute, |(known, _)| *known),
                Some((last, _)) if *last == minute => Ok(few.len() - 1),
                _ => Err(few.len()),
            };
            place = found.unwrap_or_else(|place| place);
            if found.is_err() {
                if few.len() < FEW_MAX {
                    more = make_room(few);
                    few.insert(place, (minute, Cell::new(aggregation)));
                } else {
                    let before = array_bytes::<(u32, Cell)>(few.capacity());
                    *self = Self::Many(std::mem::take(few).into_iter().collect());
                    more = full_tree_bytes::<u32, Cell>(FEW_MAX).saturating_sub(before);
                }
            }
        }
        match self {
            Self::Few(few) => (&mut few[place].1, more),
            Self::Many(many) => {
                let known = many.len();
                let cell = many.entry(minute).or_insert_with(|| {
                    more += tree_growth::<u32, Cell>(known);
                    Cell::new(aggregation)
                });
                (cell, more)
            }
        }
    }

    /// The cells of some minutes.
    pub(crate) fn range(&self, minutes: Range<u32>) -> Iter<'_> {
        match self {
            Self::Few(few) => {
                let before = |minute| few.partition_point(|(known, _)| *known < minute);
                let (from, to) = (before(minutes.start), before(minutes.end));
                Iter::Few(few.get(from..to).unwrap_or_default().iter())
            }
            // A range of the standard library must not end before it begins.
            Self::Many(many) => Iter::Many(many.range(minutes.start..minutes.end.max(minutes.start))),
        }
    }

    /// All cells.
    pub(super) fn iter(&self) -> Iter<'_> {
        match self {
            Self::Few(few) => Iter::Few(few.iter()),
            Self::Many(many) => Iter::Many(many.range(..)),
        }
    }
}

/// Room for one more, and the estimated bytes that it takes. A half more each time, where the standard library doubles and
/// begins with four: there may be millions of series with one minute.
fn make_room(few: &mut Vec<(u32, Cell)>) -> usize {
    let before = few.capacity();
    if few.len() < before {
        return 0;
    }
    few.reserve_exact((before / 2).clamp(1, FEW_MAX - before));
    array_bytes::<(u32, Cell)>(few.capacity()) - array_bytes::<(u32, Cell)>(before)
}

/// Minutes with their cells, in the order of time.
pub(crate) enum Iter<'m> {
    Few(std::slice::Iter<'m, (u32, Cell)>),
    Many(btree_map::Range<'m, u32, Cell>),
}

impl<'m> Iterator for Iter<'m> {
    type Item = (u32, &'m Cell);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(minute, cell)| (*minute, cell)),
            Self::Many(many) => many.next().map(|(minute, cell)| (*minute, cell)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use turnpike_domain::meter::aggregate::{Sample, SampleValue};

    use super::*;

    proptest! {
        #[test]
        fn few_or_many_they_are_the_same(
            added in prop::collection::vec(0..150_u32, 0..300), from in 0..160_u32, to in 0..160_u32,
        ) {
            let sample = Sample { value: SampleValue::None, time_us: 0, source: "", id: "" };
            let (mut minutes, mut model) = (Minutes::new(), BTreeMap::<u32, i64>::new());
            for minute in added {
                minutes.cell(minute, Aggregation::Count).0.add(&sample, false).unwrap();
                *model.entry(minute).or_default() += 1;
            }
            let of = |cells: Iter<'_>| cells.map(|(at, cell)| (at, cell.clone())).collect::<Vec<_>>();
            let cell = |(at, count): (&u32, &i64)| (*at, Cell::Count(*count));
            prop_assert_eq!(of(minutes.iter()), model.iter().map(cell).collect::<Vec<_>>());
            let within = model.range(from..to.max(from)).map(cell).collect::<Vec<_>>();
            prop_assert_eq!(of(minutes.range(from..to)), within);
            prop_assert_eq!(matches!(minutes, Minutes::Few(_)), model.len() <= FEW_MAX);
        }
    }
}
