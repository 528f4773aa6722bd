use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Wide;
use crate::meter::Aggregation;
use crate::quantity::Quantity;

/// What one event gives to a meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The value.
    pub value: SampleValue<'a>,
    /// The time that the event counts for, microseconds since 1970.
    pub time_us: i64,
    /// The event's source.
    pub source: &'a str,
    /// The event's id.
    pub id: &'a str,
}

/// The value of a [`Sample`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampleValue<'a> {
    /// `count` needs none.
    None,
    /// A number.
    Number(Quantity),
    /// A string, for `unique_count`.
    Text(Cow<'a, str>),
    /// The one text of a number, for `unique_count`.
    NumberText(Cow<'a, str>),
}

/// A distinct value of `unique_count`. A string and a number are never equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distinct {
    /// A string.
    Text(String),
    /// A number.
    Number(String),
}

/// A value at its time, in the order that decides which is the last: time, then source, then id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Microseconds since 1970.
    pub time_us: i64,
    /// The event's source.
    pub source: String,
    /// The event's id.
    pub id: String,
    /// The value.
    pub value: Quantity,
}

/// Things with signed counts; none has the count 0.
pub(super) type Counts<K> = BTreeMap<K, i64>;

/// The content of a window: what was added less what was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// `count`.
    Count(i64),
    /// `sum` and `avg`: number of values, and their sum.
    Sum(i64, Wide),
    /// `min`, `max` and `percentile`: the values.
    Values(Box<Counts<Quantity>>),
    /// `unique_count`: the values.
    Distinct(Box<Counts<Distinct>>),
    /// `latest` and `time_weighted_sum`: the values at their times.
    Points(Box<Counts<Point>>),
}

/// Two cells, or a cell and a sample, are of different kinds. Cannot happen for cells of one meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a window's cell is not of its meter's kind")]
pub struct CellError;

impl Cell {
    /// An empty cell.
    pub fn new(aggregation: Aggregation) -> Self {
        match aggregation {
            Aggregation::Count => Self::Count(0),
            Aggregation::Sum | Aggregation::Avg => Self::Sum(0, Wide::default()),
            Aggregation::Min | Aggregation::Max | Aggregation::Percentile => Self::Values(Box::default()),
            Aggregation::UniqueCount => Self::Distinct(Box::default()),
            Aggregation::Latest | Aggregation::TimeWeightedSum => Self::Points(Box::default()),
        }
    }

    /// Adds `sample`, or takes it back.
    pub fn add(&mut self, sample: &Sample<'_>, taken_back: bool) -> Result<(), CellError> {
        let sign = if taken_back { -1 } else { 1 };
        match (self, &sample.value) {
            (Self::Count(count), SampleValue::None) => *count += sign,
            (Self::Sum(count, sum), SampleValue::Number(value)) => {
                *count += sign;
                let one = Wide::of(*value);
                sum.add(if taken_back { one.negated() } else { one });
            }
            (Self::Values(values), SampleValue::Number(value)) => shift(values, *value, sign),
            (Self::Distinct(values), SampleValue::Text(text)) => {
                shift(values, Distinct::Text(text.clone().into_owned()), sign);
            }
            (Self::Distinct(values), SampleValue::NumberText(text)) => {
                shift(values, Distinct::Number(text.clone().into_owned()), sign);
            }
            (Self::Points(points), SampleValue::Number(value)) => {
                let point = Point {
                    time_us: sample.time_us,
                    source: sample.source.to_owned(),
                    id: sample.id.to_owned(),
                    value: *value,
                };
                shift(points, point, sign);
            }
            _ => return Err(CellError),
        }
        Ok(())
    }

    /// Adds what `other` holds.
    pub fn merge(&mut self, other: &Self) -> Result<(), CellError> {
        match (self, other) {
            (Self::Count(count), Self::Count(more)) => *count += more,
            (Self::Sum(count, sum), Self::Sum(more, and)) => {
                *count += more;
                sum.add(*and);
            }
            (Self::Values(all), Self::Values(more)) => shift_all(all, more),
            (Self::Distinct(all), Self::Distinct(more)) => shift_all(all, more),
            (Self::Points(all), Self::Points(more)) => shift_all(all, more),
            _ => return Err(CellError),
        }
        Ok(())
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Count(count) => *count == 0,
            Self::Sum(count, sum) => *count == 0 && sum.is_zero(),
            Self::Values(values) => values.is_empty(),
            Self::Distinct(values) => values.is_empty(),
            Self::Points(points) => points.is_empty(),
        }
    }

    /// Whether any event counts in it.
    pub fn has_events(&self) -> bool {
        fn any<K>(counts: &Counts<K>) -> bool {
            counts.values().any(|count| *count > 0)
        }
        match self {
            Self::Count(count) | Self::Sum(count, _) => *count > 0,
            Self::Values(values) => any(values),
            Self::Distinct(values) => any(values),
            Self::Points(points) => any(points),
        }
    }

    /// About how many bytes of memory it takes, for deciding when to write a checkpoint.
    pub fn weight(&self) -> usize {
        match self {
            Self::Count(_) | Self::Sum(..) => 0,
            Self::Values(values) => values.len() * 48,
            Self::Distinct(values) => values.len() * 96,
            Self::Points(points) => points.len() * 160,
        }
    }
}

fn shift<K: Ord>(counts: &mut Counts<K>, key: K, by: i64) {
    match counts.entry(key) {
        std::collections::btree_map::Entry::Vacant(free) => {
            free.insert(by);
        }
        std::collections::btree_map::Entry::Occupied(mut taken) => {
            *taken.get_mut() += by;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

fn shift_all<K: Ord + Clone>(counts: &mut Counts<K>, more: &Counts<K>) {
    for (key, by) in more {
        shift(counts, key.clone(), *by);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const ALL: [Aggregation; 9] = [
        Aggregation::Count,
        Aggregation::Sum,
        Aggregation::Min,
        Aggregation::Max,
        Aggregation::Avg,
        Aggregation::UniqueCount,
        Aggregation::Latest,
        Aggregation::TimeWeightedSum,
        Aggregation::Percentile,
    ];

    /// An event for a property test: id, time, value.
    pub(crate) type Made = (u8, i64, i128);

    pub(crate) fn made() -> impl Strategy<Value = Made> {
        (
            any::<u8>(),
            0..600_000_000i64,
            -5_000_000_000_000i128..5_000_000_000_000,
        )
    }

    pub(crate) fn add(cell: &mut Cell, aggregation: Aggregation, made: &Made, taken_back: bool) {
        let (id, number) = (format!("e{}", made.0), Quantity::from_parts(made.2).unwrap());
        let value = match aggregation {
            Aggregation::Count => SampleValue::None,
            Aggregation::UniqueCount if made.0.is_multiple_of(2) => {
                SampleValue::Text(Cow::Owned(format!("{}", made.0 % 7)))
            }
            Aggregation::UniqueCount => SampleValue::NumberText(Cow::Owned(format!("{}", made.0 % 7))),
            _ => SampleValue::Number(number),
        };
        let sample = Sample {
            value,
            time_us: made.1,
            source: "s",
            id: &id,
        };
        cell.add(&sample, taken_back).unwrap();
    }

    fn cell_of(aggregation: Aggregation, all: &[Made]) -> Cell {
        let mut cell = Cell::new(aggregation);
        for made in all {
            add(&mut cell, aggregation, made, false);
        }
        cell
    }

    proptest! {
        #[test]
        fn neither_order_nor_runs_nor_voided_events_show(
            kept in prop::collection::vec(made(), 0..30),
            voided in prop::collection::vec(made(), 0..10),
            order in prop::collection::vec(any::<u16>(), 80),
            cuts in prop::collection::vec(any::<bool>(), 80),
        ) {
            for aggregation in ALL {
                let expected = cell_of(aggregation, &kept);
                let mut steps: Vec<(&Made, bool)> = kept.iter().map(|made| (made, false)).collect();
                steps.extend(voided.iter().flat_map(|made| [(made, false), (made, true)]));
                let mut keyed: Vec<_> = steps.into_iter().zip(&order).collect();
                keyed.sort_by_key(|(_, order)| **order);
                // A random split into runs, merged from the last to the first.
                let mut runs = vec![Cell::new(aggregation)];
                for ((step, _), cut) in keyed.into_iter().zip(&cuts) {
                    if *cut {
                        runs.push(Cell::new(aggregation));
                    }
                    add(runs.last_mut().unwrap(), aggregation, step.0, step.1);
                }
                let mut whole = Cell::new(aggregation);
                runs.iter().rev().for_each(|run| whole.merge(run).unwrap());
                prop_assert_eq!(&whole, &expected, "{:?}", aggregation);
                let (mut one, mut other) = (Vec::new(), Vec::new());
                whole.encode(&mut one);
                expected.encode(&mut other);
                prop_assert_eq!(one, other, "equal cells have equal bytes");
            }
        }
    }

    #[test]
    fn cells_of_different_kinds_do_not_mix() {
        let mut count = Cell::new(Aggregation::Count);
        assert_eq!(count.merge(&Cell::new(Aggregation::Sum)), Err(CellError));
        let sample = Sample {
            value: SampleValue::Number(Quantity::ONE),
            time_us: 0,
            source: "",
            id: "",
        };
        assert_eq!(count.add(&sample, false), Err(CellError));
    }

    #[test]
    fn a_sum_of_zero_is_not_an_empty_window() {
        let mut cell = Cell::new(Aggregation::Sum);
        add(&mut cell, Aggregation::Sum, &(1, 0, 5), false);
        add(&mut cell, Aggregation::Sum, &(2, 0, -5), false);
        assert!(cell.has_events() && !cell.is_empty());
        add(&mut cell, Aggregation::Sum, &(1, 0, 5), true);
        add(&mut cell, Aggregation::Sum, &(2, 0, -5), true);
        assert!(cell.is_empty());
    }
}
