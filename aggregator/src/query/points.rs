//! Reading values at their times, for time-weighted sums: the points of the windows, and per series the last one before.

use std::ops::Range;

use turnpike_domain::meter::Aggregation;
use turnpike_domain::meter::aggregate::Cell;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::Rows;
use turnpike_domain::problem::Problem;

use super::accumulate::{Accumulator, damaged};
use super::cut::PickedSeries;
use super::plan::Clip;
use super::read::{from_subject, split_subject};
use super::{Plan, Snapshot};
use crate::rows::cell;
use crate::rows::key::{self, Level};
use crate::windows::Minutes;

/// Subject and texts of the dimensions.
type Series = (String, Vec<u8>);

/// Adds the points that `plan` needs. All points of a series are taken together, and only one series at a time is held.
pub(super) fn add(
    plan: &Plan,
    at: usize,
    snapshots: &[Snapshot],
    sums: &mut Accumulator<'_>,
) -> Result<(), Problem> {
    let first = sums.first_subject().map(str::to_owned);
    let mut sources = snapshots
        .iter()
        .map(|snapshot| Source::new(plan, first.as_deref(), snapshot, at))
        .collect::<Result<Vec<_>, _>>()?;
    while let Some(series) = sources.iter().filter_map(Source::next).min() {
        plan.stop.check()?;
        let (subject, group) = &series;
        if sums.is_full_before(subject) {
            return Ok(());
        }
        let held = sources
            .iter_mut()
            .map(|source| Ok((source.rows, source.take(&series)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        let (Some(row), Some(clips)) = (sums.row(subject, group)?, plan.clips(subject)) else {
            continue;
        };
        for (span, clip) in clips.iter().enumerate() {
            let mut all = empty();
            for (rows, minutes) in &held {
                merge(&mut all, &points(plan, *rows, &series, clip, minutes)?)?;
            }
            if let Some(span) = plan.span(subject, span).filter(|_| !all.is_empty()) {
                sums.integrate(row, span, &all)?;
            }
        }
    }
    Ok(())
}

/// The series of one partition, in their order.
struct Source<'s> {
    memory: &'s [PickedSeries],
    rows: &'s dyn Rows,
    /// The keys that are still to be looked through for stored series, the first last.
    keys: Vec<Range<Vec<u8>>>,
    stored: Option<Series>,
}

impl<'s> Source<'s> {
    fn new(plan: &Plan, first: Option<&str>, snapshot: &'s Snapshot, at: usize) -> Result<Self, StoreError> {
        let head = key::windows(plan.tenant, plan.meter.id, Level::Minute);
        let of_subject = |subject: &str| {
            let mut prefix = head.clone();
            key::put_text(&mut prefix, subject);
            prefix
        };
        let keys = match &plan.subjects {
            None => {
                let all = key::all(head.clone());
                vec![first.map_or(all.start, of_subject)..all.end]
            }
            Some(subjects) => {
                let ranges = subjects.keys().rev().map(|subject| key::all(of_subject(subject)));
                ranges.collect()
            }
        };
        let mut source = Self {
            memory: from_subject(snapshot.series(at), first),
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
        while let Some(range) = self.keys.last_mut() {
            let Some(row) = self.rows.scan(range.clone()).next() else {
                self.keys.pop();
                continue;
            };
            let key = row?.key;
            let (series, _) = key::series_and_bucket(&key).ok_or_else(damaged)?;
            let (subject, group) = split_subject(series)?;
            self.stored = Some((subject, group.to_vec()));
            range.start = key[..key.len() - 4].to_vec();
            range.start.extend_from_slice(&[0xff; 5]);
            break;
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
