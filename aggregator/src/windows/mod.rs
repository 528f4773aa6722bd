//! Windows and notes in memory: what was added since the last checkpoint.

mod minutes;
mod size;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::meter::aggregate::{Cell, CellError, Sample, write_counts};
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::views::Row;
use turnpike_domain::time::Timestamp;

use crate::rows::key::{self, Level};
use crate::rows::{Counts, add_counts};
pub(crate) use minutes::Minutes;
pub(crate) use size::cell_bytes;
use size::{first_place, place, text_bytes, tree_growth, value_growth, values};

type Map<K, V> = HashMap<K, V, RandomState>;
/// Texts of the dimensions → minutes.
type Groups = Map<Vec<u8>, Minutes>;
/// Subject, texts of the dimensions, minutes.
type Series<'m> = (&'m str, &'m [u8], &'m Minutes);

/// Everything that a partition has added since its last checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    meters: Map<MeterId, MeterWindows>,
    notes: BTreeMap<Vec<u8>, Counts>,
    bytes: usize,
}

#[derive(Debug)]
struct MeterWindows {
    tenant: TenantId,
    aggregation: Aggregation,
    subjects: Map<String, Groups>,
}

impl Memory {
    /// Adds what an event gives to a meter, or takes it back.
    pub(crate) fn add(
        &mut self,
        tenant: TenantId,
        meter: &Meter,
        series: (&str, &[u8]),
        sample: &Sample<'_>,
        taken_back: bool,
    ) -> Result<(), CellError> {
        let (subject, group) = series;
        let windows = self.meters.entry(meter.id).or_insert_with(|| MeterWindows {
            tenant,
            aggregation: meter.aggregation,
            subjects: Map::default(),
        });
        let minutes = minutes(&mut windows.subjects, subject, group, &mut self.bytes);
        let minute = Timestamp::from_micros_clamped(sample.time_us).minute();
        let (cell, more) = minutes.cell(minute, meter.aggregation);
        self.bytes += more;
        let before = values(cell);
        cell.add(sample, taken_back)?;
        if values(cell) > before {
            self.bytes += value_growth(cell, before, sample);
        }
        Ok(())
    }

    /// Adds `by` of a note under a key.
    pub(crate) fn note(&mut self, key: Vec<u8>, note: Vec<u8>, by: i64) {
        let places = tree_growth::<Vec<u8>, Counts>(self.notes.len()) + tree_growth::<Vec<u8>, i64>(0);
        self.bytes += places + text_bytes(key.len()) + text_bytes(note.len());
        let counts = self.notes.entry(key.clone()).or_default();
        add_counts(counts, &Counts::from([(note, by)]));
        if counts.is_empty() {
            self.notes.remove(&key);
        }
    }

    /// The notes in a range of keys.
    pub(crate) fn notes(&self, keys: Range<Vec<u8>>) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Counts)> {
        let keys = if keys.start <= keys.end {
            keys
        } else {
            keys.end.clone()..keys.end
        };
        self.notes.range(keys)
    }

    /// Estimated bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.meters.is_empty() && self.notes.is_empty()
    }

    /// Forgets a meter.
    pub(crate) fn drop_meter(&mut self, meter: MeterId) {
        self.meters.remove(&meter);
    }

    /// The series of a subject that have cells of a meter.
    pub(crate) fn series_of(&self, meter: MeterId, subject: &str, mut take: impl FnMut(&[u8], &Minutes)) {
        let windows = self.meters.get(&meter);
        let groups = windows.and_then(|windows| windows.subjects.get(subject));
        for (group, minutes) in groups.into_iter().flatten() {
            take(group, minutes);
        }
    }

    /// The series that have cells of a meter, of all subjects that are `wanted`, in no order.
    pub(crate) fn series_where(
        &self,
        meter: MeterId,
        wanted: impl Fn(&str) -> bool,
        mut take: impl FnMut(&str, &[u8], &Minutes),
    ) {
        let windows = self.meters.get(&meter);
        for (subject, groups) in windows.into_iter().flat_map(|windows| &windows.subjects) {
            if wanted(subject) {
                groups
                    .iter()
                    .for_each(|(group, minutes)| take(subject, group, minutes));
            }
        }
    }

    /// All of it as rows with ascending keys, made one by one: a copy of everything would double the memory.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> {
        let mut meters: Vec<_> = self.meters.iter().collect();
        meters.sort_unstable_by_key(|(meter, windows)| (windows.tenant, **meter));
        let windows = meters
            .into_iter()
            .flat_map(|(meter, windows)| windows.rows(*meter));
        // The kinds of notes are behind windows in the order of keys.
        windows.chain(self.notes.iter().map(|(key, counts)| {
            let mut value = Vec::new();
            write_counts(counts, &mut value);
            Row {
                key: key.clone(),
                value,
            }
        }))
    }
}

impl MeterWindows {
    fn rows(&self, meter: MeterId) -> impl Iterator<Item = Row> {
        let groups = self.subjects.iter();
        let mut series: Vec<Series<'_>> = groups
            .flat_map(|(subject, groups)| {
                groups
                    .iter()
                    .map(|(group, minutes)| (subject.as_str(), group.as_slice(), minutes))
            })
            .collect();
        // As their keys are: the end of a text in a key is less than any byte of a longer one.
        series.sort_unstable_by_key(|(subject, group, _)| (*subject, *group));
        let (tenant, series): (_, Rc<[Series<'_>]>) = (self.tenant, series.into());
        levels(self.aggregation).iter().flat_map(move |level| {
            let series = Rc::clone(&series);
            (0..series.len()).flat_map(move |at| {
                let (subject, group, minutes) = series[at];
                let mut texts = Vec::with_capacity(subject.len() + group.len() + 2);
                key::put_text(&mut texts, subject);
                texts.extend_from_slice(group);
                buckets(minutes, *level).map(move |(bucket, cell)| {
                    let mut value = Vec::new();
                    cell.encode(&mut value);
                    let key = key::window(tenant, meter, *level, &texts, bucket);
                    Row { key, value }
                })
            })
        })
    }
}

/// The levels that a meter has rows of. Values at their times are read minute by minute, so longer levels would only
/// repeat them.
pub(crate) const fn levels(aggregation: Aggregation) -> &'static [Level] {
    match aggregation {
        Aggregation::Latest | Aggregation::TimeWeightedSum => &[Level::Minute],
        _ => &[Level::Minute, Level::Hour, Level::Day],
    }
}

fn minutes<'m>(
    subjects: &'m mut Map<String, Groups>,
    subject: &str,
    group: &[u8],
    bytes: &mut usize,
) -> &'m mut Minutes {
    use hashbrown::hash_map::EntryRef;
    let groups = match subjects.entry_ref(subject) {
        EntryRef::Occupied(known) => known.into_mut(),
        EntryRef::Vacant(free) => {
            *bytes += place::<String, Groups>() + text_bytes(subject.len());
            free.insert(Groups::default())
        }
    };
    let known = groups.len();
    match groups.entry_ref(group) {
        EntryRef::Occupied(known) => known.into_mut(),
        EntryRef::Vacant(free) => {
            *bytes += text_bytes(group.len())
                + if known == 0 {
                    first_place::<Vec<u8>, Minutes>()
                } else {
                    place::<Vec<u8>, Minutes>()
                };
            free.insert(Minutes::new())
        }
    }
}

/// The buckets of a series that hold anything, in the order of time.
fn buckets(minutes: &Minutes, level: Level) -> impl Iterator<Item = (u32, Cow<'_, Cell>)> {
    let mut minutes = minutes.iter().peekable();
    let mut next = move || {
        let (minute, cell) = minutes.next()?;
        let bucket = minute / level.minutes();
        let mut sum = Cow::Borrowed(cell);
        while let Some((_, cell)) = minutes.next_if(|(minute, _)| *minute / level.minutes() == bucket) {
            // Cannot fail: cells of one series are of one kind.
            let _ = sum.to_mut().merge(cell);
        }
        Some((bucket, sum))
    };
    std::iter::from_fn(move || {
        loop {
            let (bucket, sum) = next()?;
            if !sum.is_empty() {
                return Some((bucket, sum));
            }
        }
    })
}

#[cfg(test)]
mod tests;
