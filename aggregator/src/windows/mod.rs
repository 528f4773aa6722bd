//! Windows and notes in memory: what was added since the last checkpoint.

mod hour;
mod minutes;
mod size;
mod subjects;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::meter::aggregate::{Cell, CellError, Sample, write_counts};
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{RowSource, TakeRow};
use turnpike_domain::time::Timestamp;

use crate::rows::key::{self, Level};
use crate::rows::{Counts, add_counts};
pub(crate) use minutes::Minutes;
pub(crate) use size::cell_bytes;
use size::{place, text_bytes, tree_growth};
use subjects::{Subject, Subjects};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Everything that a partition has added since its last checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    tenants: Map<TenantId, Subjects>,
    meters: Map<MeterId, (TenantId, Aggregation)>,
    notes: BTreeMap<Vec<u8>, Counts>,
    bytes: usize,
}

/// What of an event says which windows it will touch.
pub(crate) type Touched<'e> = (TenantId, &'e str, Timestamp);

/// A subject in a [`Memory`], for as long as that lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SubjectAt {
    tenant: TenantId,
    place: u32,
}

impl Memory {
    /// Finds the subjects of events, where they are known, and reads what adding the events will read: of all together,
    /// step by step, for one by one each step would wait for the memory in turn.
    pub(crate) fn touch(&self, events: &[Option<Touched<'_>>]) -> Vec<Option<SubjectAt>> {
        let likely: Vec<_> = events
            .iter()
            .map(|event| {
                let (tenant, text, _) = event.as_ref()?;
                let subjects = self.tenants.get(tenant)?;
                let hash = subjects.hash(text);
                Some((subjects, hash, subjects.likely(hash)?))
            })
            .collect();
        let each = |touch: fn(&Subjects, u32) -> u64| {
            let all = likely.iter().flatten();
            black_box(all.fold(0, |all, (subjects, _, place)| all ^ touch(subjects, *place)));
        };
        each(Subjects::touch);
        each(Subjects::touch_series);
        let mut cells = 0;
        let found = events
            .iter()
            .zip(&likely)
            .map(|(event, likely)| {
                let ((tenant, text, time), (subjects, hash, _)) = (event.as_ref()?, likely.as_ref()?);
                let place = subjects.find(*hash, text)?;
                cells ^= subjects.touch_cells(place, time.minute());
                Some(SubjectAt {
                    tenant: *tenant,
                    place,
                })
            })
            .collect();
        black_box(cells);
        found
    }

    /// Finds a subject, or makes it.
    pub(crate) fn subject(&mut self, tenant: TenantId, text: &str) -> SubjectAt {
        let bytes = &mut self.bytes;
        let subjects = self.tenants.entry(tenant).or_insert_with(|| {
            *bytes += place::<TenantId, Subjects>();
            Subjects::default()
        });
        SubjectAt {
            tenant,
            place: subjects.place(text, bytes),
        }
    }

    /// Adds what an event of a subject gives to a meter, or takes it back.
    pub(crate) fn add(
        &mut self,
        SubjectAt { tenant, place }: SubjectAt,
        meter: &Meter,
        group: &[u8],
        sample: &Sample<'_>,
        taken_back: bool,
    ) -> Result<(), CellError> {
        let aggregation = meter.aggregation;
        self.meters.entry(meter.id).or_insert((tenant, aggregation));
        let Some(subjects) = self.tenants.get_mut(&tenant) else {
            return Err(CellError);
        };
        let minute = Timestamp::from_micros_clamped(sample.time_us).minute();
        let (subject, hasher) = subjects.at(place);
        let make = || Minutes::new(minute, aggregation);
        let series = subject.series_or(hasher, (meter.id, group), make, &mut self.bytes);
        series
            .minutes
            .add(minute, aggregation, sample, taken_back, &mut self.bytes)
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
        let subjects = self
            .meters
            .remove(&meter)
            .and_then(|(tenant, _)| self.tenants.get_mut(&tenant));
        if let Some(subjects) = subjects {
            subjects.drop_meter(meter);
        }
    }

    /// The series of a subject that have cells of a meter.
    pub(crate) fn series_of(&self, meter: MeterId, subject: &str, mut take: impl FnMut(&[u8], &Minutes)) {
        let subject = self.subjects_of(meter).and_then(|subjects| subjects.get(subject));
        for series in subject.into_iter().flat_map(|subject| subject.series(meter)) {
            take(&series.group, &series.minutes);
        }
    }

    /// The series that have cells of a meter, of all subjects that are `wanted`, in no order.
    pub(crate) fn series_where(
        &self,
        meter: MeterId,
        wanted: impl Fn(&str) -> bool,
        mut take: impl FnMut(&str, &[u8], &Minutes),
    ) {
        let subjects = self.subjects_of(meter).into_iter().flat_map(Subjects::iter);
        for (text, subject) in subjects.filter(|(text, _)| wanted(text)) {
            for series in subject.series(meter) {
                take(text, &series.group, &series.minutes);
            }
        }
    }

    /// The subjects of the tenant that a meter with cells belongs to.
    fn subjects_of(&self, meter: MeterId) -> Option<&Subjects> {
        let (tenant, _) = self.meters.get(&meter)?;
        self.tenants.get(tenant)
    }
}

/// All of it. Rows are made one by one: a copy of everything would double the memory.
impl RowSource for Memory {
    fn each(&self, take: &mut TakeRow<'_>) -> Result<(), StoreError> {
        let mut meters: Vec<_> = self
            .meters
            .iter()
            .map(|(meter, of)| (of.0, *meter, of.1))
            .collect();
        meters.sort_unstable_by_key(|(tenant, meter, _)| (*tenant, *meter));
        for of_tenant in meters.chunk_by(|one, other| one.0 == other.0) {
            let subjects = self
                .tenants
                .get(&of_tenant[0].0)
                .into_iter()
                .flat_map(Subjects::iter);
            let mut subjects: Vec<(&str, &Subject)> = subjects.collect();
            // As their keys are: the end of a text in a key is less than any byte of a longer one.
            subjects.sort_unstable_by_key(|(text, _)| *text);
            for (tenant, meter, aggregation) in of_tenant {
                windows((*tenant, *meter), *aggregation, &subjects, take)?;
            }
        }
        // The kinds of notes are behind windows in the order of keys.
        let mut value = Vec::new();
        self.notes.iter().try_for_each(|(key, counts)| {
            value.clear();
            write_counts(counts, &mut value);
            take(key, &value)
        })
    }
}

/// Gives the rows of a meter, of subjects in the order of their texts.
fn windows(
    (tenant, meter): (TenantId, MeterId),
    aggregation: Aggregation,
    subjects: &[(&str, &Subject)],
    take: &mut TakeRow<'_>,
) -> Result<(), StoreError> {
    let mut all = Vec::new();
    for (text, subject) in subjects {
        let first = all.len();
        all.extend(subject.series(meter).map(|series| (*text, series)));
        all[first..].sort_unstable_by_key(|(_, series)| &series.group);
    }
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for level in levels(aggregation) {
        let head = key::windows(tenant, meter, *level);
        for (subject, series) in &all {
            key.clone_from(&head);
            key::put_text(&mut key, subject);
            key.extend_from_slice(&series.group);
            let len = key.len();
            for (bucket, cell) in buckets(&series.minutes, *level) {
                key.truncate(len);
                key.extend_from_slice(&bucket.to_be_bytes());
                value.clear();
                cell.encode(&mut value);
                take(&key, &value)?;
            }
        }
    }
    Ok(())
}

/// The levels that a meter has rows of. Values at their times are read minute by minute, so longer levels would only
/// repeat them.
pub(crate) const fn levels(aggregation: Aggregation) -> &'static [Level] {
    match aggregation {
        Aggregation::Latest | Aggregation::TimeWeightedSum => &[Level::Minute],
        _ => &[Level::Minute, Level::Hour, Level::Day],
    }
}

/// The buckets of a series that hold anything, in the order of time.
fn buckets(minutes: &Minutes, level: Level) -> impl Iterator<Item = (u32, Cow<'_, Cell>)> {
    let mut minutes = minutes.iter().peekable();
    let mut next = move || {
        let (minute, cell) = minutes.next()?;
        let bucket = minute / level.minutes();
        let mut sum = cell;
        while let Some((_, cell)) = minutes.next_if(|(minute, _)| *minute / level.minutes() == bucket) {
            // Cannot fail: cells of one series are of one kind.
            let _ = sum.to_mut().merge(&cell);
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
