//! From a cell to the answer.

use num_bigint::{BigInt, Sign};
use num_traits::{Signed as _, ToPrimitive as _, Zero as _};

use super::cell::Counts;
use super::{Cell, Point};
use crate::meter::Aggregation;
use crate::quantity::Quantity;
use crate::time::TimeRange;

/// Why a window has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FinishError {
    /// The result has more than 26 digits before the point.
    #[error("the result has more than 26 digits before the point")]
    Overflow,
    /// The cell is not of the meter's kind.
    #[error("a window's cell is not of its meter's kind")]
    Kind,
}

impl Cell {
    /// The meter's value: `None` for an empty window of a meter that has no zero.
    ///
    /// * `count`, `sum` and `unique_count` of nothing are 0; all others are `None`.
    /// * `avg` is the sum by the count, rounded half up (away from zero) at 12 places.
    /// * `percentile` p of n values is by nearest rank: the value at rank ⌈p ÷ 100 × n⌉ of the ascending values.
    ///   Source: NIST/SEMATECH e-Handbook of Statistical Methods and Hyndman & Fan (1996), "Sample Quantiles in
    ///   Statistical Packages", definition 1.
    /// * `latest` is the value with the greatest (time, source, id).
    /// * `time_weighted_sum` is not answered here but by [`Integral`], for it needs the window's bounds.
    pub fn finish(
        &self,
        aggregation: Aggregation,
        percentile: Quantity,
    ) -> Result<Option<Quantity>, FinishError> {
        match (aggregation, self) {
            (Aggregation::Count, Self::Count(count)) => Ok(Some(Quantity::from_units(*count))),
            (Aggregation::Sum, Self::Sum(_, sum)) => sum.to_quantity().map(Some).ok_or(FinishError::Overflow),
            (Aggregation::Avg, Self::Sum(count, _)) if *count <= 0 => Ok(None),
            (Aggregation::Avg, Self::Sum(count, sum)) => rounded(sum.to_big(), &BigInt::from(*count))
                .map(Some)
                .ok_or(FinishError::Overflow),
            (Aggregation::Min, Self::Values(values)) => Ok(present(values).next().copied()),
            (Aggregation::Max, Self::Values(values)) => Ok(present(values).next_back().copied()),
            (Aggregation::Percentile, Self::Values(values)) => Ok(nearest_rank(values, percentile)),
            (Aggregation::UniqueCount, Self::Distinct(values)) => {
                let count = i64::try_from(present(values).count()).map_err(|_| FinishError::Overflow)?;
                Ok(Some(Quantity::from_units(count)))
            }
            (Aggregation::Latest, Self::Points(points)) => {
                Ok(present(points).next_back().map(|point| point.value))
            }
            _ => Err(FinishError::Kind),
        }
    }
}

/// What counts, ascending. What was taken back before it was added (while a meter fills itself) does not.
fn present<K>(counts: &Counts<K>) -> impl DoubleEndedIterator<Item = &K> {
    counts.iter().filter(|(_, count)| **count > 0).map(|(key, _)| key)
}

fn nearest_rank(values: &Counts<Quantity>, percentile: Quantity) -> Option<Quantity> {
    let counted = || values.iter().filter(|(_, count)| **count > 0);
    let total: i128 = counted().map(|(_, count)| i128::from(*count)).sum();
    // ⌈p ÷ 100 × n⌉ in whole numbers: p is in parts of 10⁻¹², at most 100 × 10¹², and n below 2⁶³.
    let hundred = Quantity::from_units(100).parts();
    let rank = (percentile.parts() * total + hundred - 1) / hundred;
    let mut seen = 0;
    counted()
        .find(|(_, count)| {
            seen += i128::from(**count);
            seen >= rank
        })
        .map(|(value, _)| *value)
}

/// `numerator ÷ denominator` parts, rounded half up (away from zero); `None` beyond a quantity's range.
fn rounded(numerator: BigInt, denominator: &BigInt) -> Option<Quantity> {
    let doubled: BigInt = numerator.abs() * 2u8 + denominator;
    let magnitude = doubled / (denominator * 2u8);
    let parts = if numerator.sign() == Sign::Minus {
        -magnitude
    } else {
        magnitude
    };
    Quantity::from_parts(parts.to_i128()?).ok()
}

/// The time-weighted sum over a range: for each series (one subject with one value of each dimension) the integral of
/// a step function, in value × seconds; the series are added, and the total is rounded once (half up, away from zero,
/// at 12 places).
///
/// A series has the value 0 before its first event. From an event on it has that event's value until the next event of
/// the series, or until the end of the range. The value at the start of the range is that of the last event before it
/// ("last observation carried forward"). Among events of one time the greatest (source, id) decides, and the others
/// have no weight. The result does not depend on the clock: the last value is carried to the end of the range even
/// where that lies ahead.
///
/// Source: the time-weighted integral with the locf method of TimescaleDB Toolkit (`interpolated_integral`), and
/// `weighted_sum_agg` of Lago, which agree on this definition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Integral {
    /// Parts of 10⁻¹² × microseconds.
    sum: BigInt,
    /// Whether any series had a value.
    any: bool,
}

impl Integral {
    /// Adds one series over `range`. `points` may reach before the range; what lies behind its end is ignored.
    pub fn add_series(&mut self, points: &Cell, range: TimeRange) -> Result<(), FinishError> {
        let Cell::Points(points) = points else {
            return Err(FinishError::Kind);
        };
        let (start, end) = (range.start.micros(), range.end.micros());
        let mut held: Option<&Point> = None;
        for point in present(points).take_while(|point| point.time_us < end) {
            self.hold(held, start, point.time_us);
            held = Some(point);
        }
        self.hold(held, start, end);
        self.any |= held.is_some();
        Ok(())
    }

    /// Adds the value of `held` from its time, or from `start`, until `until`.
    fn hold(&mut self, held: Option<&Point>, start: i64, until: i64) {
        if let Some(point) = held {
            let from = point.time_us.max(start);
            if until > from {
                self.sum += BigInt::from(point.value.parts()) * (until - from);
            }
        }
    }

    /// Whether any series had a value.
    pub const fn has_value(&self) -> bool {
        self.any
    }

    /// Value × seconds; `None` when no series had a value.
    pub fn finish(&self) -> Result<Option<Quantity>, FinishError> {
        if !self.any {
            return Ok(None);
        }
        if self.sum.is_zero() {
            return Ok(Some(Quantity::ZERO));
        }
        rounded(self.sum.clone(), &BigInt::from(1_000_000))
            .map(Some)
            .ok_or(FinishError::Overflow)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::tests::{add, made};
    use super::super::{Sample, SampleValue};
    use super::*;
    use crate::time::Timestamp;
    use proptest::prelude::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    fn of(aggregation: Aggregation, values: &[&str]) -> Cell {
        let mut cell = Cell::new(aggregation);
        for (at, value) in values.iter().enumerate() {
            let sample = Sample {
                value: SampleValue::Number(q(value)),
                time_us: at as i64,
                source: "s",
                id: "i",
            };
            cell.add(&sample, false).unwrap();
        }
        cell
    }

    fn finish(aggregation: Aggregation, values: &[&str]) -> Option<String> {
        of(aggregation, values)
            .finish(aggregation, q("50"))
            .unwrap()
            .map(|v| v.to_string())
    }

    #[test]
    fn answers_of_small_windows() {
        use Aggregation::{Avg, Latest, Max, Min, Percentile, Sum};
        for (aggregation, values, answer) in [
            (Sum, &["1", "2.5", "-4"][..], Some("-0.5")),
            (Sum, &[], Some("0")),
            (Min, &["3", "-1", "2"], Some("-1")),
            (Max, &["3", "-1", "2"], Some("3")),
            (Avg, &["1", "2"], Some("1.5")),
            (Avg, &["1", "1", "0"], Some("0.666666666667")),
            (Avg, &["-1", "-1", "0"], Some("-0.666666666667")),
            (Avg, &["0.000000000001", "0"], Some("0.000000000001")),
            (Latest, &["5", "9", "7"], Some("7")),
            (Percentile, &["10", "20", "30", "40"], Some("20")),
            (Percentile, &["10", "20", "30"], Some("20")),
            (Percentile, &["10"], Some("10")),
            (Min, &[], None),
            (Max, &[], None),
            (Avg, &[], None),
            (Latest, &[], None),
            (Percentile, &[], None),
        ] {
            assert_eq!(
                finish(aggregation, values).as_deref(),
                answer,
                "{aggregation:?} {values:?}"
            );
        }
        assert_eq!(
            Cell::new(Aggregation::Count).finish(Aggregation::Count, q("0")),
            Ok(Some(q("0")))
        );
        assert_eq!(
            Cell::new(Aggregation::UniqueCount).finish(Aggregation::UniqueCount, q("0")),
            Ok(Some(q("0")))
        );
    }

    #[test]
    fn nearest_ranks() {
        let values: Vec<String> = (1..=100).map(|n| n.to_string()).collect();
        let cell = of(
            Aggregation::Percentile,
            &values.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        for (p, answer) in [
            ("0.000000000001", "1"),
            ("1", "1"),
            ("1.000000000001", "2"),
            ("95", "95"),
            ("99.5", "100"),
            ("100", "100"),
        ] {
            assert_eq!(
                cell.finish(Aggregation::Percentile, q(p)),
                Ok(Some(q(answer))),
                "{p}"
            );
        }
    }

    #[test]
    fn among_equal_times_the_greatest_source_and_id_is_the_latest() {
        let mut cell = Cell::new(Aggregation::Latest);
        for (source, id, value) in [("a", "z", "1"), ("b", "a", "2"), ("b", "B", "3")] {
            let sample = Sample {
                value: SampleValue::Number(q(value)),
                time_us: 7,
                source,
                id,
            };
            cell.add(&sample, false).unwrap();
        }
        assert_eq!(cell.finish(Aggregation::Latest, q("0")), Ok(Some(q("2"))));
    }

    #[test]
    fn a_sum_beyond_the_range_is_told_and_comes_back_with_a_correction() {
        let max = Quantity::MAX.to_string();
        let mut cell = of(Aggregation::Sum, &[&max, &max]);
        assert_eq!(cell.finish(Aggregation::Sum, q("0")), Err(FinishError::Overflow));
        let sample = Sample {
            value: SampleValue::Number(Quantity::MAX),
            time_us: 0,
            source: "",
            id: "",
        };
        cell.add(&sample, true).unwrap();
        assert_eq!(cell.finish(Aggregation::Sum, q("0")), Ok(Some(Quantity::MAX)));
    }

    fn range(start: i64, end: i64) -> TimeRange {
        let at = |s: i64| Timestamp::from_micros(s * 1_000_000).unwrap();
        TimeRange::new(at(start), at(end))
    }

    fn integral(points: &[(i64, &str)], within: TimeRange) -> Option<String> {
        let mut cell = Cell::new(Aggregation::TimeWeightedSum);
        for (second, value) in points {
            let sample = Sample {
                value: SampleValue::Number(q(value)),
                time_us: second * 1_000_000,
                source: "s",
                id: "i",
            };
            cell.add(&sample, false).unwrap();
        }
        let mut integral = Integral::default();
        integral.add_series(&cell, within).unwrap();
        integral.finish().unwrap().map(|v| v.to_string())
    }

    #[test]
    fn integrals_carry_the_last_value_into_the_range_and_to_its_end() {
        assert_eq!(
            integral(&[(10, "2"), (20, "5")], range(0, 60)).as_deref(),
            Some("220")
        );
        assert_eq!(
            integral(&[(10, "2"), (20, "5")], range(15, 30)).as_deref(),
            Some("60")
        );
        assert_eq!(integral(&[(10, "2")], range(60, 120)).as_deref(), Some("120"));
        assert_eq!(integral(&[(70, "2")], range(0, 60)), None);
        assert_eq!(
            integral(&[(0, "1"), (30, "0")], range(60, 120)).as_deref(),
            Some("0")
        );
        assert_eq!(
            integral(&[(60, "3")], range(0, 60)),
            None,
            "the end is not in the range"
        );
        assert_eq!(
            integral(&[(0, "0.000000000001")], range(0, 1)).as_deref(),
            Some("0.000000000001")
        );
    }

    proptest! {
        #[test]
        fn integrals_of_parts_add_up_to_the_whole(all in prop::collection::vec(made(), 1..20), cut in 0..600i64) {
            let mut cell = Cell::new(Aggregation::TimeWeightedSum);
            // Whole seconds, so that no part is rounded.
            for m in &all {
                let whole = (m.0, m.1 / 1_000_000 * 1_000_000, m.2);
                add(&mut cell, Aggregation::TimeWeightedSum, &whole, false);
            }
            let over = |within| {
                let mut integral = Integral::default();
                integral.add_series(&cell, within).unwrap();
                integral.finish().unwrap().unwrap_or_default()
            };
            let parts = over(range(0, cut)).checked_add(over(range(cut, 600))).unwrap();
            prop_assert_eq!(parts, over(range(0, 600)));
        }
    }
}
