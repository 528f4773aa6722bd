use std::ops::{ControlFlow, Range};

use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::Rows as StoredRows;
use turnpike_domain::problem::Problem;

use super::accumulate::{Accumulator, damaged};
use super::cut::PickedSeries;
use super::plan::Clip;
use super::reach::{keys_of, series_of};
use super::{Part, Plan, Projection, Reach, Rows, Snapshot, points};
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
    let Reach {
        first,
        then,
        in_order_of_groups,
    } = &plan.reach;
    for series in first.iter().flat_map(|subject| series_of(all, subject)) {
        let clips = plan.clips(&series.subject).unwrap_or_default();
        add_series(plan, series, &clips, sums)?;
    }
    let clips = plan.clips("").unwrap_or_default();
    for series in then.iter().flat_map(|then| then.of(all)) {
        if *in_order_of_groups && sums.is_full_before(&series.subject) {
            return Ok(());
        }
        if !first.contains(&series.subject) {
            add_series(plan, series, &clips, sums)?;
        }
    }
    Ok(())
}

fn add_series(
    plan: &Plan,
    series: &PickedSeries,
    clips: &[Clip],
    sums: &mut Accumulator<'_>,
) -> Result<(), StoreError> {
    plan.stop.check()?;
    if !clips.iter().any(|clip| !series.range(clip.minutes()).is_empty()) {
        return Ok(());
    }
    let Some(row) = sums.row(&series.subject, &series.group)? else {
        return Ok(());
    };
    for clip in clips {
        for (minute, cell) in series.range(clip.minutes()) {
            if let Some(window) = clip.window_of(*minute) {
                sums.add(row, window, cell)?;
            }
        }
    }
    Ok(())
}

fn add_rows(plan: &Plan, rows: &dyn StoredRows, sums: &mut Accumulator<'_>) -> Result<(), StoreError> {
    for subject in &plan.reach.first {
        for clip in plan.clips(subject).unwrap_or_default() {
            add_clip(plan, rows, Some(subject), &clip, sums)?;
        }
    }
    if plan.reach.then.is_some() {
        for clip in plan.clips("").unwrap_or_default() {
            add_clip(plan, rows, None, &clip, sums)?;
        }
    }
    Ok(())
}

/// Adds the rows of a subject, or of the stretch of subjects that is read.
fn add_clip(
    plan: &Plan,
    rows: &dyn StoredRows,
    subject: Option<&str>,
    clip: &Clip,
    sums: &mut Accumulator<'_>,
) -> Result<(), StoreError> {
    for (level, buckets) in clip.segments(plan.meter.aggregation) {
        let head = key::windows(plan.tenant, plan.meter.id, level);
        let keys = match (subject, &plan.reach.then) {
            (Some(subject), _) => keys_of(&head, subject),
            (None, Some(then)) => then.keys(&head),
            (None, None) => continue,
        };
        let mut current: Option<(Vec<u8>, Option<usize>)> = None;
        scan(rows, keys, buckets, |series, bucket, value| {
            if current.as_ref().is_none_or(|(known, _)| known != series) {
                plan.stop.check()?;
                let (found, group) = split_subject(series)?;
                let row = match subject {
                    Some(_) => sums.row(&found, group)?,
                    None if plan.reach.in_order_of_groups && sums.is_full_before(&found) => {
                        return Ok(ControlFlow::Break(()));
                    }
                    None if plan.reach.first.contains(&found) => None,
                    None => sums.row(&found, group)?,
                };
                current = Some((series.to_vec(), row));
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
