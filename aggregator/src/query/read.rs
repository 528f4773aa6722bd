use std::ops::Range;

use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::Rows;
use turnpike_domain::problem::Problem;

use super::accumulate::{Accumulator, damaged};
use super::cut::PickedSeries;
use super::plan::Clip;
use super::{Picked, Plan, Projection, RowSum, Snapshot, points};
use crate::rows::cell;
use crate::rows::key::{self, Level};

/// Rows outside the wanted buckets that are read over before the scan is begun anew behind them.
const MISSES_MAX: usize = 16;

/// The answer to `plan`, number `at` of the cut that gave `snapshots`.
pub(crate) fn add_up(
    plan: &Plan,
    at: usize,
    snapshots: &[Snapshot],
    project: &Projection<'_>,
) -> Result<Vec<RowSum>, Problem> {
    let mut sums = Accumulator::new(plan, project);
    for snapshot in snapshots {
        if plan.meter.aggregation == Aggregation::TimeWeightedSum {
            points::add(plan, at, snapshot, &mut sums)?;
        } else {
            add_memory(plan, at, snapshot, &mut sums)?;
            add_rows(plan, snapshot.rows.as_ref(), &mut sums)?;
        }
    }
    sums.finish()
}

fn add_memory(
    plan: &Plan,
    at: usize,
    snapshot: &Snapshot,
    sums: &mut Accumulator<'_>,
) -> Result<(), StoreError> {
    let selection = plan.selection();
    for picked in snapshot.memory(at, &selection) {
        let Picked::Windows(all) = picked.as_ref() else {
            continue;
        };
        for PickedSeries {
            subject,
            group,
            minutes,
        } in all
        {
            let (Some(row), Some(clips)) = (sums.row(subject, group)?, plan.clips(subject)) else {
                continue;
            };
            for (minute, cell) in minutes {
                for window in clips.iter().filter_map(|clip| clip.window_of(*minute)) {
                    sums.add(row, window, cell)?;
                }
            }
        }
    }
    Ok(())
}

fn add_rows(plan: &Plan, rows: &dyn Rows, sums: &mut Accumulator<'_>) -> Result<(), StoreError> {
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
    rows: &dyn Rows,
    subject: Option<&str>,
    clip: &Clip,
    sums: &mut Accumulator<'_>,
) -> Result<(), StoreError> {
    for (level, buckets) in clip.segments(plan.meter.aggregation) {
        let mut prefix = key::windows(plan.tenant, plan.meter.id, level);
        if let Some(subject) = subject {
            key::put_text(&mut prefix, subject);
        }
        let mut current: Option<(Vec<u8>, Option<usize>)> = None;
        scan(rows, prefix, buckets, |series, bucket, value| {
            if current.as_ref().is_none_or(|(known, _)| known != series) {
                let (subject, group) = split_subject(series)?;
                current = Some((series.to_vec(), sums.row(&subject, group)?));
            }
            let row = current.as_ref().and_then(|(_, row)| *row);
            let window = clip.window_of(bucket * Level::minutes(level));
            match (row, window) {
                (Some(row), Some(window)) => sums.add(row, window, &cell(value)?),
                _ => Ok(()),
            }
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

/// Visits the rows with `prefix` whose bucket lies in `buckets`, series by series. Long stretches of other buckets are
/// jumped over.
pub(super) fn scan(
    rows: &dyn Rows,
    prefix: Vec<u8>,
    buckets: Range<u32>,
    mut take: impl FnMut(&[u8], u32, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let Range { start, end } = key::all(prefix);
    let mut from = start;
    'anew: loop {
        let mut misses = 0;
        for row in rows.scan(from..end.clone()) {
            let row = row?;
            let (series, bucket) = key::series_and_bucket(&row.key).ok_or_else(damaged)?;
            if buckets.contains(&bucket) {
                misses = 0;
                take(series, bucket, &row.value)?;
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
