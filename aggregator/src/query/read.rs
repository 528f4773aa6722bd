use std::ops::{ControlFlow, Range};

use foldhash::{HashMap, HashMapExt as _};
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{Next, Rows as StoredRows};
use turnpike_domain::problem::Problem;

use super::accumulate::{Accumulator, damaged};
use super::cut::PickedSeries;
use super::plan::Clip;
use super::reach::{keys_of, series_of};
use super::{Part, Plan, Projection, Reach, Rows, Snapshot, points};
use crate::rows::key::{self, Level};

/// Rows outside the wanted buckets that are read over before the next wanted one is looked for.
const MISSES_MAX: usize = 16;
/// Series whose rows are kept at hand.
const KNOWN_SERIES_MAX: usize = 4_096;

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
    add_rows(plan, snapshots, &mut sums)?;
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

fn add_rows(plan: &Plan, snapshots: &[Snapshot], sums: &mut Accumulator<'_>) -> Result<(), StoreError> {
    for subject in &plan.reach.first {
        for clip in plan.clips(subject).unwrap_or_default() {
            add_clip(plan, snapshots, Some(subject), &clip, sums)?;
        }
    }
    if plan.reach.then.is_some() {
        for clip in plan.clips("").unwrap_or_default() {
            add_clip(plan, snapshots, None, &clip, sums)?;
        }
    }
    Ok(())
}

/// Adds the rows of a subject, or of the stretch of subjects that is read.
fn add_clip(
    plan: &Plan,
    snapshots: &[Snapshot],
    subject: Option<&str>,
    clip: &Clip,
    sums: &mut Accumulator<'_>,
) -> Result<(), StoreError> {
    let mut finder = RowFinder::new(plan, subject.is_some());
    for (level, buckets) in clip.segments(plan.meter.aggregation) {
        let head = key::windows(plan.tenant, plan.meter.id, level);
        let keys = match (subject, &plan.reach.then) {
            (Some(subject), _) => keys_of(&head, subject),
            (None, Some(then)) => then.keys(&head),
            (None, None) => continue,
        };
        for snapshot in snapshots {
            scan(
                snapshot.rows.as_ref(),
                &keys,
                &buckets,
                |series, bucket, value| {
                    let ControlFlow::Continue(row) = finder.row(series, sums)? else {
                        return Ok(ControlFlow::Break(()));
                    };
                    let window = clip.window_of(bucket * Level::minutes(level));
                    if let (Some(row), Some(window)) = (row, window) {
                        sums.add_encoded(row, window, value)?;
                    }
                    Ok(ControlFlow::Continue(()))
                },
            )?;
        }
    }
    Ok(())
}

/// Finds the rows of series. Each is met in every partition and every run, and to learn whose it is costs more than to add a
/// cell.
struct RowFinder<'p> {
    plan: &'p Plan,
    is_of_subject: bool,
    last: Vec<u8>,
    row: Option<usize>,
    known: HashMap<Vec<u8>, Option<usize>>,
}

impl<'p> RowFinder<'p> {
    fn new(plan: &'p Plan, is_of_subject: bool) -> Self {
        Self {
            plan,
            is_of_subject,
            last: Vec::new(),
            row: None,
            known: HashMap::new(),
        }
    }

    /// The row of a series, if anything of it is wanted; breaks off where nothing of those behind it is.
    fn row(
        &mut self,
        series: &[u8],
        sums: &mut Accumulator<'_>,
    ) -> Result<ControlFlow<(), Option<usize>>, StoreError> {
        if *self.last == *series {
            return Ok(ControlFlow::Continue(self.row));
        }
        self.plan.stop.check()?;
        // The next row that is asked for lets go of some and numbers the others anew.
        if sums.is_over() || self.known.len() >= KNOWN_SERIES_MAX {
            self.known.clear();
        }
        self.row = if let Some(row) = self.known.get(series) {
            *row
        } else {
            let (subject, group) = split_subject(series)?;
            let Reach {
                first,
                in_order_of_groups,
                ..
            } = &self.plan.reach;
            if !self.is_of_subject && *in_order_of_groups && sums.is_full_before(&subject) {
                return Ok(ControlFlow::Break(()));
            }
            let is_elsewhere = !self.is_of_subject && first.contains(&subject);
            let row = if is_elsewhere {
                None
            } else {
                sums.row(&subject, group)?
            };
            self.known.insert(series.to_vec(), row);
            row
        };
        self.last.clear();
        self.last.extend_from_slice(series);
        Ok(ControlFlow::Continue(self.row))
    }
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

/// Visits what is to be added up of the rows with `keys` whose bucket lies in `buckets`, series by series and sequence by
/// sequence of the store's, until `take` breaks off a sequence. Long stretches of other buckets are jumped over.
fn scan(
    rows: &dyn StoredRows,
    keys: &Range<Vec<u8>>,
    buckets: &Range<u32>,
    mut take: impl FnMut(&[u8], u32, &[u8]) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let mut misses = 0;
    rows.summands(&keys.start..&keys.end, &mut |key, value| {
        let (series, bucket) = key::series_and_bucket(key).ok_or_else(damaged)?;
        if buckets.contains(&bucket) {
            misses = 0;
            let flow = take(series, bucket, value)?;
            return Ok(if flow.is_break() { Next::End } else { Next::Row });
        }
        misses += 1;
        if misses <= MISSES_MAX {
            return Ok(Next::Row);
        }
        misses = 0;
        let mut next = key[..key.len() - size_of::<u32>()].to_vec();
        let before = bucket < buckets.start;
        next.extend_from_slice(&if before { buckets.start } else { u32::MAX }.to_be_bytes());
        if !before {
            next.push(0);
        }
        Ok(Next::At(next))
    })
}
