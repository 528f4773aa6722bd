//! Windows and notes in memory: what was added since the last checkpoint.

use std::collections::BTreeMap;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::meter::aggregate::{Cell, CellError, Sample, write_counts};
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::views::Row;

use crate::rows::key::{self, Level};
use crate::rows::{Counts, add_counts};

type Map<K, V> = HashMap<K, V, RandomState>;
/// Minute → cell.
pub(crate) type Minutes = BTreeMap<u32, Cell>;
/// Texts of the dimensions → minutes.
type Groups = Map<Vec<u8>, Minutes>;

/// Estimated bytes of one cell with its place in the maps.
const CELL_BYTES: usize = 96;

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
        let minute = (sample.time_us / turnpike_domain::time::MINUTE_US) as u32;
        let cell = minutes.entry(minute).or_insert_with(|| {
            self.bytes += CELL_BYTES;
            Cell::new(meter.aggregation)
        });
        cell.add(sample, taken_back)?;
        self.bytes += match cell {
            Cell::Count(_) | Cell::Sum(..) => 0,
            Cell::Values(_) => 48,
            Cell::Distinct(_) => 96,
            Cell::Points(_) => 160,
        };
        Ok(())
    }

    /// Adds `by` of a note under a key.
    pub(crate) fn note(&mut self, key: Vec<u8>, note: Vec<u8>, by: i64) {
        self.bytes += CELL_BYTES + key.len() + note.len();
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

    /// The series of a meter that have cells; only those of `subjects` where it is given.
    pub(crate) fn series(
        &self,
        meter: MeterId,
        subjects: Option<&[String]>,
        mut take: impl FnMut(&str, &[u8], &Minutes),
    ) {
        let Some(windows) = self.meters.get(&meter) else {
            return;
        };
        let mut groups = |subject: &str, groups: &Groups| {
            for (group, minutes) in groups {
                take(subject, group, minutes);
            }
        };
        match subjects {
            None => windows
                .subjects
                .iter()
                .for_each(|(subject, all)| groups(subject, all)),
            Some(subjects) => {
                for subject in subjects {
                    if let Some(all) = windows.subjects.get(subject.as_str()) {
                        groups(subject, all);
                    }
                }
            }
        }
    }

    /// All of it as rows with ascending keys.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (meter, windows) in &self.meters {
            for (subject, groups) in &windows.subjects {
                for (group, minutes) in groups {
                    let mut series = Vec::with_capacity(subject.len() + group.len() + 2);
                    key::put_text(&mut series, subject);
                    series.extend_from_slice(group);
                    for level in levels(windows.aggregation) {
                        let at = |bucket| key::window(windows.tenant, *meter, *level, &series, bucket);
                        bucket_rows(minutes, *level, at, &mut rows);
                    }
                }
            }
        }
        for (key, counts) in &self.notes {
            let mut value = Vec::new();
            write_counts(counts, &mut value);
            rows.push(Row {
                key: key.clone(),
                value,
            });
        }
        rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        rows
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
            *bytes += CELL_BYTES + subject.len();
            free.insert(Groups::default())
        }
    };
    match groups.entry_ref(group) {
        EntryRef::Occupied(known) => known.into_mut(),
        EntryRef::Vacant(free) => {
            *bytes += CELL_BYTES + group.len();
            free.insert(Minutes::new())
        }
    }
}

fn bucket_rows(minutes: &Minutes, level: Level, key: impl Fn(u32) -> Vec<u8>, rows: &mut Vec<Row>) {
    let mut open: Option<(u32, Cell)> = None;
    for (minute, cell) in minutes {
        let bucket = minute / level.minutes();
        match &mut open {
            // Cells of one series are of one kind.
            Some((at, sum)) if *at == bucket => drop(sum.merge(cell)),
            _ => {
                if let Some((at, sum)) = open.replace((bucket, cell.clone())) {
                    push(rows, key(at), &sum);
                }
            }
        }
    }
    if let Some((at, sum)) = open {
        push(rows, key(at), &sum);
    }
}

fn push(rows: &mut Vec<Row>, key: Vec<u8>, cell: &Cell) {
    if !cell.is_empty() {
        let mut value = Vec::new();
        cell.encode(&mut value);
        rows.push(Row { key, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnpike_domain::meter::aggregate::SampleValue;

    fn meter(id: u32, aggregation: Aggregation) -> Meter {
        Meter {
            id: MeterId(id),
            key: "m".to_owned(),
            event_type: "t".to_owned(),
            aggregation,
            value: None,
            percentile: None,
            group_by: BTreeMap::new(),
            filter: BTreeMap::new(),
        }
    }

    fn add(memory: &mut Memory, meter: &Meter, subject: &str, minute: i64, back: bool) {
        let sample = Sample {
            value: SampleValue::None,
            time_us: minute * 60_000_000,
            source: "s",
            id: "i",
        };
        memory
            .add(TenantId(1), meter, (subject, b""), &sample, back)
            .unwrap();
    }

    #[test]
    fn rows_of_all_levels_ascend_and_add_up() {
        let mut memory = Memory::default();
        let meter = meter(7, Aggregation::Count);
        for (subject, minute) in [("b", 0), ("a", 1), ("a", 59), ("a", 60), ("a", 1440), ("a", 1)] {
            add(&mut memory, &meter, subject, minute, false);
        }
        memory.note(key::refused(TenantId(1), 5), Vec::new(), 1);
        let rows = memory.rows();
        assert!(rows.is_sorted_by(|a, b| a.key < b.key));
        let of = |level, subject, bucket| {
            let mut series = Vec::new();
            key::put_text(&mut series, subject);
            let key = key::window(TenantId(1), MeterId(7), level, &series, bucket);
            rows.iter()
                .find(|row| row.key == key)
                .and_then(|row| Cell::decode(&row.value))
        };
        assert_eq!(of(Level::Minute, "a", 1), Some(Cell::Count(2)));
        assert_eq!(of(Level::Hour, "a", 0), Some(Cell::Count(3)));
        assert_eq!(of(Level::Day, "a", 0), Some(Cell::Count(4)));
        assert_eq!(of(Level::Day, "a", 1), Some(Cell::Count(1)));
        assert_eq!(of(Level::Day, "b", 0), Some(Cell::Count(1)));
        assert_eq!(rows.len(), 5 + 4 + 3 + 1);
    }

    #[test]
    fn what_was_taken_back_leaves_no_row() {
        let mut memory = Memory::default();
        let meter = meter(7, Aggregation::Count);
        add(&mut memory, &meter, "a", 1, false);
        add(&mut memory, &meter, "a", 1, true);
        memory.note(b"k".to_vec(), b"n".to_vec(), 1);
        memory.note(b"k".to_vec(), b"n".to_vec(), -1);
        assert_eq!(memory.rows(), []);
    }
}
