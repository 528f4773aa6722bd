use std::sync::{Arc, Weak};

use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::{TimeRange, Timestamp};

use crate::track::Track;

/// The past of one track, as the tracks follow it whose grants its usage drew on: its own, and those to which grants
/// moved. Each has other segments.
#[derive(Debug)]
pub(crate) struct Histories {
    readers: Vec<(Weak<Track>, History)>,
    /// Behind the last segment of all.
    end: Timestamp,
}

impl Default for Histories {
    fn default() -> Self {
        Self {
            readers: Vec::new(),
            end: Timestamp::EPOCH,
        }
    }
}

impl Histories {
    /// What `reader` follows.
    pub(crate) fn of(&self, reader: &Arc<Track>) -> Option<&History> {
        let found = self.readers.iter().find(|(one, _)| is(one, reader));
        found.map(|(_, history)| history)
    }

    /// `reader` follows `segments` from now on; see [`History::begin`]. Readers that are gone are forgotten.
    pub(crate) fn begin(&mut self, reader: &Arc<Track>, segments: Vec<TimeRange>, reading: &[TimeRange]) {
        self.readers.retain(|(one, _)| one.strong_count() > 0);
        let found = self.readers.iter().position(|(one, _)| is(one, reader));
        let at = found.unwrap_or_else(|| {
            self.readers.push((Arc::downgrade(reader), History::default()));
            self.readers.len() - 1
        });
        self.readers[at].1.begin(segments, reading);
        let ends = self
            .readers
            .iter()
            .filter_map(|(_, history)| history.segments.last());
        self.end = ends.map(|last| last.end).max().unwrap_or(Timestamp::EPOCH);
    }

    /// Takes in what was read for `reader`, unless it changed meanwhile.
    pub(crate) fn finish(&mut self, reader: &Arc<Track>, read: &[(TimeRange, Quantity)]) {
        let found = self.readers.iter_mut().find(|(one, _)| is(one, reader));
        if let Some((_, history)) = found {
            history.finish(read);
        }
    }

    /// What was counted as used at `time` may no longer be. Returns whether anybody follows it.
    pub(crate) fn touch(&mut self, time: Timestamp) -> bool {
        // Most of what comes is newer than any past that is followed.
        let mut hit = false;
        if time < self.end {
            for (_, history) in &mut self.readers {
                hit |= history.touch(time);
            }
        }
        hit
    }
}

fn is(one: &Weak<Track>, reader: &Arc<Track>) -> bool {
    std::ptr::eq(one.as_ptr(), Arc::as_ptr(reader))
}

/// What past segments used, each while nothing in it changes. A late event puts one out of date and not the others, and a
/// segment that has just ended is read alone.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Ascending, without overlaps.
    segments: Vec<TimeRange>,
    used: Vec<Used>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Used {
    /// It has to be read.
    Unknown,
    /// It is being read, as of a moment since which nothing in it changed.
    Reading,
    Known(Quantity),
}

impl History {
    /// What `segments` used; `None` unless all is known.
    pub(crate) fn used(&self, segments: &[TimeRange]) -> Option<Vec<Quantity>> {
        let quantity = |used| match used {
            Used::Known(quantity) => Some(quantity),
            Used::Unknown | Used::Reading => None,
        };
        self.carried(segments).into_iter().map(quantity).collect()
    }

    /// Those of `segments` that have to be read.
    pub(crate) fn missing(&self, segments: &[TimeRange]) -> Vec<TimeRange> {
        let used = self.carried(segments);
        let pairs = segments.iter().zip(used);
        let unknown = pairs.filter(|(_, used)| !matches!(used, Used::Known(_)));
        unknown.map(|(segment, _)| *segment).collect()
    }

    /// Follows `segments` from now on, of which `reading` are being read as of now. What is known of the others stays.
    pub(crate) fn begin(&mut self, segments: Vec<TimeRange>, reading: &[TimeRange]) {
        let mut used = self.carried(&segments);
        for (segment, used) in segments.iter().zip(&mut used) {
            if reading.binary_search(segment).is_ok() {
                *used = Used::Reading;
            }
        }
        *self = Self { segments, used };
    }

    /// Takes in what was read, unless it changed meanwhile.
    pub(crate) fn finish(&mut self, read: &[(TimeRange, Quantity)]) {
        for (segment, quantity) in read {
            if let Ok(at) = self.segments.binary_search(segment)
                && self.used[at] == Used::Reading
            {
                self.used[at] = Used::Known(*quantity);
            }
        }
    }

    /// What was counted as used at `time` may no longer be. Returns whether it lies in a segment.
    pub(crate) fn touch(&mut self, time: Timestamp) -> bool {
        let at = self.segments.partition_point(|segment| segment.end <= time);
        let hit = self
            .segments
            .get(at)
            .is_some_and(|segment| segment.contains(time));
        if hit {
            self.used[at] = Used::Unknown;
        }
        hit
    }

    /// What is known of `segments`.
    fn carried(&self, segments: &[TimeRange]) -> Vec<Used> {
        let known = |segment| match self.segments.binary_search(segment) {
            Ok(at) => self.used[at],
            Err(_) => Used::Unknown,
        };
        segments.iter().map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(from: u32, until: u32) -> TimeRange {
        TimeRange::new(Timestamp::from_minute(from), Timestamp::from_minute(until))
    }

    fn read(history: &mut History, segments: &[TimeRange], amount: i64) {
        let missing = history.missing(segments);
        history.begin(segments.to_vec(), &missing);
        let read: Vec<_> = missing
            .into_iter()
            .map(|one| (one, Quantity::from_units(amount)))
            .collect();
        history.finish(&read);
    }

    fn units(history: &History, segments: &[TimeRange]) -> Option<Vec<String>> {
        let used = history.used(segments)?;
        Some(used.iter().map(Quantity::to_string).collect())
    }

    #[test]
    fn only_what_changed_or_came_is_read_again() {
        let mut history = History::default();
        let segments = [minutes(0, 10), minutes(10, 20), minutes(20, 30)];
        assert_eq!(history.used(&segments[..2]), None);
        read(&mut history, &segments[..2], 1);
        assert_eq!(history.missing(&segments), [segments[2]]);
        read(&mut history, &segments, 2);
        assert_eq!(units(&history, &segments).unwrap(), ["1", "1", "2"]);
        assert!(history.touch(Timestamp::from_minute(10)) && !history.touch(Timestamp::from_minute(30)));
        assert_eq!(history.used(&segments), None);
        assert_eq!(
            units(&history, &segments[..1]).unwrap(),
            ["1"],
            "an older instant asks for fewer"
        );
        read(&mut history, &segments, 3);
        assert_eq!(units(&history, &segments).unwrap(), ["1", "3", "2"]);
        assert_eq!(units(&history, &segments[1..]).unwrap(), ["3", "2"]);
        let others = [minutes(0, 20), minutes(20, 30)];
        assert_eq!(history.missing(&others), [others[0]]);
    }

    #[test]
    fn what_changes_while_it_is_read_stays_unknown() {
        let mut history = History::default();
        let segments = [minutes(0, 10), minutes(10, 20)];
        history.begin(segments.to_vec(), &segments);
        assert_eq!(history.used(&segments[..1]), None);
        history.touch(Timestamp::from_minute(5));
        history.finish(&segments.map(|one| (one, Quantity::ONE)));
        assert_eq!(history.missing(&segments), [segments[0]]);
    }
}
