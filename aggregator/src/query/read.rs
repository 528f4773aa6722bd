use std::borrow::Cow;
use std::ops::{ControlFlow, Range};

use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::Rows as StoredRows;
use turnpike_domain::problem::Problem;

use super::accumulate::{Accumulator, damaged};
use super::cut::PickedSeries;
use super::plan::Clip;
use super::{Part, Plan, Projection, Rows, Snapshot, points};
use crate::rows::cell;
use crate::rows::key::{self, Level};

/// Rows outside the wanted buckets that are read over before the scan is begun anew behind them.
const MISSES_MAX: usize = 16;

/// A part of the answer to `plan`, number `at` of the cut that gave `snapshots`, which are settled.
pub(crate) fn add_up(
    plan: &Plan,
    part: Part,
    (at, snapshots): (usize, &[Snapshot]),
    project: &Projection<'_>,
) -> Result<Rows, Problem> {
    let mut sums = Accumulator::new(plan, project, part);
    if plan.meter.aggregation == Aggregation::TimeWeightedSum {
        points::add(plan, at, snapshots, &mut sums)?;
        return sums.finish();
    }
    for snapshot in snapshots {
        add_memory(plan, snapshot.series(at), &mut sums)?;
    }
    for snapshot in snapshots {
        add_rows(plan, snapshot.rows.as_ref(), &mut sums)?;
    }
    sums.finish()
}

fn add_memory(plan: &Plan, all: &[PickedSeries], sums: &mut Accumulator<'_>) -> Result<(), StoreError> {
    let of_all = plan.subjects.is_none().then(|| plan.clips("")).flatten();
    for series in from_subject(all, sums.first_subject()) {
        plan.stop.check()?;
        if sums.is_full_before(&series.subject) {
            return Ok(());
        }
        let clips = match &of_all {
            Some(clips) => Cow::Borrowed(clips),
            None => Cow::Owned(plan.clips(&series.subject).unwrap_or_default()),
        };
        if !clips.iter().any(|clip| !series.range(clip.minutes()).is_empty()) {
            continue;
        }
        let Some(row) = sums.row(&series.subject, &series.group)? else {
            continue;
        };
        for clip in clips.iter() {
            for (minute, cell) in series.range(clip.minutes()) {
                if let Some(window) = clip.window_of(*minute) {
                    sums.add(row, window, cell)?;
                }
            }
        }
    }
    Ok(())
}

/// The series of `first` and of the subjects behind it.
pub(super) fn from_subject<'s>(all: &'s [PickedSeries], first: Option<&str>) -> &'s [PickedSeries] {
    let before = |first: &str| all.partition_point(|series| *series.subject < *first);
    &all[first.map_or(0, before)..]
}

fn add_rows(plan: &Plan, rows: &dyn StoredRows, sums: &mut Accumulator<'_>) -> Result<(), StoreError> {
    match &plan.subjects {
        None => {
            for clip in plan.clips("").unwrap_or_default() {
                add_clip(plan, rows, None, &clip, sums)?;
            }
        }
        Some(subjects) => {
            for subject in subjects.keys() {
                for clip in plan.clips(subject).unwrap_or_default() {
                    add_clip(plan, rows, Some(subject), &clip, sums)?;
                }
            }
        }
    }
    Ok(())
}

fn add_clip(
    plan: &Plan,
    rows: &dyn StoredRows,
    subject: Option<&str>,
    clip: &Clip,
    sums: &mut Accumulator<'_>,
) -> Result<(), StoreError> {
    for (level, buckets) in clip.segments(plan.meter.aggregation) {
        let mut prefix = key::windows(plan.tenant, plan.meter.id, level);
        let mut keys = key::all(prefix.clone());
        if let Some(subject) = subject {
            key::put_text(&mut prefix, subject);
            keys = key::all(prefix);
        } else if let Some(first) = sums.first_subject() {
            key::put_text(&mut prefix, first);
            keys.start = prefix;
        }
        let mut current: Option<(Vec<u8>, Option<usize>)> = None;
        scan(rows, keys, buckets, |series, bucket, value| {
            if current.as_ref().is_none_or(|(known, _)| known != series) {
                plan.stop.check()?;
                let (subject, group) = split_subject(series)?;
                if sums.is_full_before(&subject) {
                    return Ok(ControlFlow::Break(()));
                }
                current = Some((series.to_vec(), sums.row(&subject, group)?));
            }
            let row = current.as_ref().and_then(|(_, row)| *row);
            let window = clip.window_of(bucket * Level::minutes(level));
            if let (Some(row), Some(window)) = (row, window) {
                sums.add(row, window, &cell(value)?)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}

/// The subject of a series, and the bytes of its dimensions.
pub(super) fn split_subject(series: &[u8]) -> Result<(String, &[u8]), StoreError> {
    let end = series
        .windows(2)
        .position(|pair| pair == [0, 1])
        .ok_or_else(damaged)?
        + 2;
    let mut texts = key::texts(&series[..end]).ok_or_else(damaged)?;
    Ok((texts.pop().ok_or_else(damaged)?, &series[end..]))
}

/// Visits the rows with `keys` whose bucket lies in `buckets`, series by series, until `take` breaks off. Long stretches of
/// other buckets are jumped over.
pub(super) fn scan(
    rows: &dyn StoredRows,
    keys: Range<Vec<u8>>,
    buckets: Range<u32>,
    mut take: impl FnMut(&[u8], u32, &[u8]) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let Range { start, end } = keys;
    let mut from = start;
    'anew: loop {
        let mut misses = 0;
        for row in rows.scan(from..end.clone()) {
            let row = row?;
            let (series, bucket) = key::series_and_bucket(&row.key).ok_or_else(damaged)?;
            if buckets.contains(&bucket) {
                misses = 0;
                if take(series, bucket, &row.value)?.is_break() {
                    return Ok(());
                }
                continue;
            }
            misses += 1;
            if misses > MISSES_MAX {
                from = row.key[..key::WINDOW_HEAD + series.len()].to_vec();
                let before = bucket < buckets.start;
                from.extend_from_slice(&if before { buckets.start } else { u32::MAX }.to_be_bytes());
                if !before {
                    from.push(0);
                }
                continue 'anew;
            }
        }
        return Ok(());
    }
}
