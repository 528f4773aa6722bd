//! Reading values at their times, for time-weighted sums: the points of the windows, and per series the last one before.

use std::collections::BTreeMap;
use std::ops::Range;

use turnpike_domain::meter::Aggregation;
use turnpike_domain::meter::aggregate::Cell;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::Rows;
use turnpike_domain::problem::Problem;

use super::accumulate::{Accumulator, damaged};
use super::cut::PickedSeries;
use super::plan::Clip;
use super::reach::{keys_of, series_of};
use super::read::split_subject;
use super::{Plan, Snapshot};
use crate::rows::cell;
use crate::rows::key::{self, Level};

/// Minute → points.
type Minutes = BTreeMap<u32, Cell>;
/// Subject and texts of the dimensions.
type Series = (String, Vec<u8>);

/// Adds the points that `plan` needs. All points of a series are taken together, and only one series at a time is held.
pub(super) fn add(
    plan: &Plan,
    at: usize,
    snapshots: &[Snapshot],
    sums: &mut Accumulator<'_>,
) -> Result<(), Problem> {
    let head = key::windows(plan.tenant, plan.meter.id, Level::Minute);
    let sources = |memory: &dyn for<'s> Fn(&'s [PickedSeries]) -> &'s [PickedSeries],
                   keys: &Range<Vec<u8>>| {
        let source = |snapshot| Source::new(snapshot, memory(Snapshot::series(snapshot, at)), keys.clone());
        snapshots.iter().map(source).collect::<Result<Vec<_>, _>>()
    };
    for subject in &plan.reach.first {
        let mut sources = sources(&|all| series_of(all, subject), &keys_of(&head, subject))?;
        while let Some(series) = sources.iter().filter_map(Source::next).min() {
            add_series(plan, &series, &mut sources, sums)?;
        }
    }
    let Some(then) = &plan.reach.then else {
        return Ok(());
    };
    let mut sources = sources(&|all| then.of(all), &then.keys(&head))?;
    while let Some(series) = sources.iter().filter_map(Source::next).min() {
        if plan.reach.in_order_of_groups && sums.is_full_before(&series.0) {
            return Ok(());
        }
        if plan.reach.first.contains(&series.0) {
            sources
                .iter_mut()
                .try_for_each(|source| source.take(&series).map(drop))?;
        } else {
            add_series(plan, &series, &mut sources, sums)?;
        }
    }
    Ok(())
}

/// Adds all points of a series, and goes on behind it.
fn add_series(
    plan: &Plan,
    series: &Series,
    sources: &mut [Source<'_>],
    sums: &mut Accumulator<'_>,
) -> Result<(), Problem> {
    plan.stop.check()?;
    let (subject, group) = series;
    let held = sources
        .iter_mut()
        .map(|source| Ok((source.rows, source.take(series)?)))
        .collect::<Result<Vec<_>, StoreError>>()?;
    let (Some(row), Some(clips)) = (sums.row(subject, group)?, plan.clips(subject)) else {
        return Ok(());
    };
    for (span, clip) in clips.iter().enumerate() {
        let mut all = empty();
        for (rows, minutes) in &held {
            merge(&mut all, &points(plan, *rows, series, clip, minutes)?)?;
        }
        if let Some(span) = plan.span(subject, span).filter(|_| !all.is_empty()) {
            sums.integrate(row, span, &all)?;
        }
    }
    Ok(())
}

/// The series of one partition, in their order.
struct Source<'s> {
    memory: &'s [PickedSeries],
    rows: &'s dyn Rows,
    /// The keys that are still to be looked through for stored series.
    keys: Range<Vec<u8>>,
    stored: Option<Series>,
}

impl<'s> Source<'s> {
    fn new(
        snapshot: &'s Snapshot,
        memory: &'s [PickedSeries],
        keys: Range<Vec<u8>>,
    ) -> Result<Self, StoreError> {
        let mut source = Self {
            memory,
            rows: snapshot.rows.as_ref(),
            keys,
            stored: None,
        };
        source.look_on()?;
        Ok(source)
    }

    /// Finds the next series that has rows. One look per series: behind its first row the scan begins anew behind its last.
    fn look_on(&mut self) -> Result<(), StoreError> {
        self.stored = None;
        if let Some(row) = self.rows.scan(self.keys.clone()).next() {
            let key = row?.key;
            let (series, _) = key::series_and_bucket(&key).ok_or_else(damaged)?;
            let (subject, group) = split_subject(series)?;
            self.stored = Some((subject, group.to_vec()));
            self.keys.start = key[..key.len() - 4].to_vec();
            self.keys.start.extend_from_slice(&[0xff; 5]);
        }
        Ok(())
    }

    fn next(&self) -> Option<Series> {
        let held = self.memory.first();
        let held = held.map(|series| (series.subject.clone(), series.group.clone()));
        held.into_iter().chain(self.stored.clone()).min()
    }

    /// Goes on behind `series`, with its minutes in memory.
    fn take(&mut self, series: &Series) -> Result<Minutes, StoreError> {
        let mut minutes = Minutes::new();
        while let Some((first, rest)) = self.memory.split_first()
            && (&first.subject, &first.group) == (&series.0, &series.1)
        {
            for (minute, cell) in &first.cells {
                merge(minutes.entry(*minute).or_insert_with(empty), cell)?;
            }
            self.memory = rest;
        }
        if self.stored.as_ref() == Some(series) {
            self.look_on()?;
        }
        Ok(minutes)
    }
}

/// The points of one series within `clip`, and the minute with the last point before it.
fn points(
    plan: &Plan,
    rows: &dyn Rows,
    (subject, group): &Series,
    clip: &Clip,
    memory: &Minutes,
) -> Result<Cell, StoreError> {
    let mut points = empty();
    let (Some((first, _)), Some((last, _))) = (clip.pieces.first(), clip.pieces.last()) else {
        return Ok(points);
    };
    let mut series = Vec::new();
    key::put_text(&mut series, subject);
    series.extend_from_slice(group);
    let key = |minute| key::window(plan.tenant, plan.meter.id, Level::Minute, &series, minute);
    for row in rows.scan(key(first.start)..key(last.end)) {
        merge(&mut points, &cell(&row?.value)?)?;
    }
    for cell in memory.range(first.start..last.end).map(|(_, cell)| cell) {
        merge(&mut points, cell)?;
    }
    if clip.earliest < first.start {
        let stored = rows.scan_back(key(clip.earliest)..key(first.start)).map(|row| {
            let row = row?;
            let (_, minute) = key::series_and_bucket(&row.key).ok_or_else(damaged)?;
            Ok((minute, cell(&row.value)?))
        });
        let held = memory.range(clip.earliest..first.start).rev();
        merge(&mut points, &last_minute(stored, held)?)?;
    }
    Ok(points)
}

/// The newest minute that has a point which counts, of rows and memory taken together; both descend.
fn last_minute<'m>(
    stored: impl Iterator<Item = Result<(u32, Cell), StoreError>>,
    held: impl Iterator<Item = (&'m u32, &'m Cell)>,
) -> Result<Cell, StoreError> {
    let (mut stored, mut held) = (stored.peekable(), held.peekable());
    loop {
        let next_stored = match stored.peek() {
            Some(Ok((minute, _))) => Some(*minute),
            Some(Err(error)) => return Err(error.clone()),
            None => None,
        };
        let Some(minute) = next_stored.max(held.peek().map(|(minute, _)| **minute)) else {
            return Ok(empty());
        };
        let mut sum = empty();
        while let Some(found) = stored.next_if(|next| next.as_ref().is_ok_and(|(at, _)| *at == minute)) {
            merge(&mut sum, &found?.1)?;
        }
        while let Some((_, cell)) = held.next_if(|(at, _)| **at == minute) {
            merge(&mut sum, cell)?;
        }
        if sum.has_events() {
            return Ok(sum);
        }
    }
}

fn empty() -> Cell {
    Cell::new(Aggregation::TimeWeightedSum)
}

fn merge(sum: &mut Cell, more: &Cell) -> Result<(), StoreError> {
    sum.merge(more).map_err(|_| damaged())
}
