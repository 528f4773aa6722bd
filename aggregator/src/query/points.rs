//! Reading values at their times, for time-weighted sums: the points of the windows, and per series the last one before.

use std::collections::{BTreeMap, BTreeSet};

use turnpike_domain::meter::Aggregation;
use turnpike_domain::meter::aggregate::Cell;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::Rows;

use super::accumulate::{Accumulator, damaged};
use super::plan::Clip;
use super::read::split_subject;
use super::{Picked, Plan, Snapshot};
use crate::rows::cell;
use crate::rows::key::{self, Level};
use crate::windows::Minutes;

/// Subject and texts of the dimensions → minutes, from memory.
type InMemory = BTreeMap<(String, Vec<u8>), Minutes>;

/// Adds the points that `plan` needs of one partition.
pub(super) fn add(
    plan: &Plan,
    at: usize,
    snapshot: &Snapshot,
    sums: &mut Accumulator<'_>,
) -> Result<(), StoreError> {
    let memory = in_memory(plan, at, snapshot)?;
    let mut all: BTreeSet<(String, Vec<u8>)> = memory.keys().cloned().collect();
    stored_series(plan, snapshot.rows.as_ref(), &mut all)?;
    let nothing = Minutes::new();
    for series in all {
        let (subject, group) = (&series.0, &series.1);
        let (Some(row), Some(clips)) = (sums.row(subject, group)?, plan.clips(subject)) else {
            continue;
        };
        let minutes = memory.get(&series).unwrap_or(&nothing);
        for (span, clip) in clips.iter().enumerate() {
            let points = points(plan, snapshot.rows.as_ref(), &series, clip, minutes)?;
            if !points.is_empty() {
                sums.add_points(row, (subject, group, span), &points)?;
            }
        }
    }
    Ok(())
}

fn in_memory(plan: &Plan, at: usize, snapshot: &Snapshot) -> Result<InMemory, StoreError> {
    let mut memory = InMemory::new();
    let selection = plan.selection();
    for picked in snapshot.memory(at, &selection) {
        let Picked::Windows(all) = picked.as_ref() else {
            continue;
        };
        for one in all {
            let minutes = memory
                .entry((one.subject.clone(), one.group.clone()))
                .or_default();
            for (minute, cell) in &one.minutes {
                merge(minutes.entry(*minute).or_insert_with(empty), cell)?;
            }
        }
    }
    Ok(memory)
}

/// Finds the series that have rows.
fn stored_series(
    plan: &Plan,
    rows: &dyn Rows,
    all: &mut BTreeSet<(String, Vec<u8>)>,
) -> Result<(), StoreError> {
    let head = key::windows(plan.tenant, plan.meter.id, Level::Minute);
    let prefixes: Vec<Vec<u8>> = match &plan.subjects {
        None => vec![head],
        Some(subjects) => subjects
            .keys()
            .map(|subject| {
                let mut prefix = head.clone();
                key::put_text(&mut prefix, subject);
                prefix
            })
            .collect(),
    };
    for prefix in prefixes {
        let range = key::all(prefix);
        let mut from = range.start;
        // One look per series: behind its first row the scan begins anew behind its last.
        while let Some(row) = rows.scan(from..range.end.clone()).next() {
            let key = row?.key;
            let (series, _) = key::series_and_bucket(&key).ok_or_else(damaged)?;
            let (subject, group) = split_subject(series)?;
            all.insert((subject, group.to_vec()));
            from = key[..key.len() - 4].to_vec();
            from.extend_from_slice(&[0xff; 5]);
        }
    }
    Ok(())
}

/// The points of one series within `clip`, and the minute with the last point before it.
fn points(
    plan: &Plan,
    rows: &dyn Rows,
    (subject, group): &(String, Vec<u8>),
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
