//! The subjects of a tenant with their series: an event's subject is looked up once for all of its meters, and their series
//! stand together.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use turnpike_domain::identity::MeterId;

use super::Minutes;
use super::minutes::make_room;
use super::size::{place, text_bytes};

/// Series of a subject that are looked through one by one at the most; of more, an index is made.
const LISTED_MAX: usize = 16;

/// Bytes that the texts take for each byte of them: their room is doubled when it is used up.
const GROWING_TEXT: usize = 2;

/// Series of a subject that are fetched into the cache together: as many as most subjects have.
const TOUCHED_MAX: usize = 4;

/// The subjects of a tenant.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    all: Vec<Subject>,
    /// The texts of `all`, one behind the other: apart, each would be a line of memory of its own.
    texts: String,
    /// Places in `all` by their texts.
    by_text: HashTable<u32>,
    hasher: RandomState,
}

/// A subject.
#[derive(Debug)]
pub(super) struct Subject {
    /// Where its text stands.
    start: usize,
    len: usize,
    /// The hash of its text.
    hash: u64,
    /// In the order in which they came.
    series: Vec<Series>,
    /// Places in `series`, once there are many.
    by_name: Option<Box<HashTable<u32>>>,
}

/// The cells of a subject for one meter and one value of each dimension.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) meter: MeterId,
    /// Texts of the dimensions.
    pub(super) group: Box<[u8]>,
    pub(super) minutes: Minutes,
}

impl Subjects {
    /// The place of a subject, which is made where there is none. Adds to `bytes` what all take more for it (estimated).
    pub(super) fn place(&mut self, text: &str, bytes: &mut usize) -> u32 {
        let hash = self.hash(text);
        if let Some(place) = self.find(hash, text) {
            return place;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "2^32 subjects do not fit the memory"
        )]
        let new = self.all.len() as u32;
        self.all.push(Subject {
            start: self.texts.len(),
            len: text.len(),
            hash,
            series: Vec::new(),
            by_name: None,
        });
        self.texts.push_str(text);
        let all = &self.all;
        self.by_text
            .insert_unique(hash, new, |place| all[*place as usize].hash);
        *bytes += place::<Subject, u32>() + GROWING_TEXT * text.len();
        new
    }

    /// The hash by which a text is looked for.
    pub(super) fn hash(&self, text: &str) -> u64 {
        self.hasher.hash_one(text)
    }

    /// Where a text of this hash probably is.
    pub(super) fn likely(&self, hash: u64) -> Option<u32> {
        self.by_text.iter_hash(hash).next().copied()
    }

    /// Reads the subject at a place, so that it is on its way into the cache.
    pub(super) fn touch(&self, place: u32) -> u64 {
        let subject = self.all.get(place as usize);
        subject.map_or(0, |subject| subject.hash ^ subject.series.len() as u64)
    }

    /// The same for its text and its first series.
    pub(super) fn touch_series(&self, place: u32) -> u64 {
        let Some(subject) = self.all.get(place as usize) else {
            return 0;
        };
        let text = self.texts.as_bytes().get(subject.start).copied();
        let first = subject.series.iter().take(TOUCHED_MAX);
        first.fold(u64::from(text.unwrap_or(0)), |all, series| {
            all ^ u64::from(series.meter.0)
        })
    }

    /// Reads the cells of a minute in the first series of the subject at a place, so that they are on their way into the cache.
    pub(super) fn touch_cells(&self, place: u32, minute: u32) -> u64 {
        let series = self.all.get(place as usize).map(|subject| &subject.series);
        let first = series.into_iter().flatten().take(TOUCHED_MAX);
        first.fold(0, |all, series| all ^ series.minutes.touch(minute))
    }

    /// The place of a text of which this is the hash.
    pub(super) fn find(&self, hash: u64, text: &str) -> Option<u32> {
        let is_it = |place: &u32| {
            let subject = &self.all[*place as usize];
            subject.hash == hash && *self.text(subject) == *text
        };
        self.by_text.find(hash, is_it).copied()
    }

    /// A subject by its text.
    pub(super) fn get(&self, text: &str) -> Option<&Subject> {
        let place = self.find(self.hash(text), text)?;
        self.all.get(place as usize)
    }

    /// The text of a subject.
    fn text(&self, subject: &Subject) -> &str {
        self.texts
            .get(subject.start..subject.start + subject.len)
            .unwrap_or_default()
    }

    /// The subject at a place.
    pub(super) fn at(&mut self, place: u32) -> (&mut Subject, &RandomState) {
        (&mut self.all[place as usize], &self.hasher)
    }

    /// All of them with their texts, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Subject)> {
        self.all.iter().map(|subject| (self.text(subject), subject))
    }

    /// Forgets the series of a meter.
    pub(super) fn drop_meter(&mut self, meter: MeterId) {
        for subject in &mut self.all {
            let known = subject.series.len();
            subject.series.retain(|series| series.meter != meter);
            if subject.series.len() < known && subject.by_name.take().is_some() {
                subject.index(&self.hasher);
            }
        }
    }
}

impl Subject {
    /// The series of a meter, in no order.
    pub(super) fn series(&self, meter: MeterId) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(move |series| series.meter == meter)
    }

    /// A series, made by `make` where there is none. Adds to `bytes` what all take more for it (estimated).
    pub(super) fn series_or(
        &mut self,
        hasher: &RandomState,
        (meter, group): (MeterId, &[u8]),
        make: impl FnOnce() -> Minutes,
        bytes: &mut usize,
    ) -> &mut Series {
        let is_it = |series: &Series| series.meter == meter && *series.group == *group;
        let found = match &self.by_name {
            None => self.series.iter().position(is_it),
            Some(index) => index
                .find(hash(hasher, meter, group), |place| {
                    is_it(&self.series[*place as usize])
                })
                .map(|place| *place as usize),
        };
        let place = found.unwrap_or_else(|| {
            *bytes += make_room(&mut self.series, usize::MAX) + text_bytes(group.len());
            self.series.push(Series {
                meter,
                group: group.into(),
                minutes: make(),
            });
            *bytes += self.index(hasher);
            self.series.len() - 1
        });
        &mut self.series[place]
    }

    /// Brings the index up to the last series; the estimated bytes that it takes more.
    fn index(&mut self, hasher: &RandomState) -> usize {
        if self.series.len() <= LISTED_MAX {
            return 0;
        }
        let series = &self.series;
        let index = self.by_name.get_or_insert_default();
        let of = |place: &u32| {
            let Series { meter, group, .. } = &series[*place as usize];
            hash(hasher, *meter, group)
        };
        let known = index.len();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "2^32 series do not fit the memory"
        )]
        for new in known as u32..series.len() as u32 {
            index.insert_unique(of(&new), new, of);
        }
        (series.len() - known) * place::<u32, u32>()
    }
}

fn hash(hasher: &RandomState, meter: MeterId, group: &[u8]) -> u64 {
    hasher.hash_one((meter, group))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use turnpike_domain::meter::Aggregation;

    use super::*;

    #[test]
    fn each_series_is_found_among_few_and_many_until_its_meter_is_gone() {
        let (mut subjects, mut bytes) = (Subjects::default(), 0);
        let mut made = 0;
        for round in 0..2 {
            for n in 0..60_u32 {
                let text = format!("subject-{}", n % 3);
                let place = subjects.place(&text, &mut bytes);
                let (subject, hasher) = subjects.at(place);
                let group = n.to_be_bytes();
                let make = || {
                    made += 1;
                    Minutes::new(n, Aggregation::Count)
                };
                let series = subject.series_or(hasher, (MeterId(n % 2), &group), make, &mut bytes);
                assert_eq!(
                    (series.meter, &*series.group),
                    (MeterId(n % 2), &group[..]),
                    "{round}"
                );
            }
        }
        assert_eq!((made, subjects.iter().count()), (60, 3));
        assert!(subjects.iter().all(|(_, subject)| subject.by_name.is_some()));
        let groups = |subjects: &Subjects, meter| {
            let one = subjects.get("subject-1").unwrap();
            one.series(MeterId(meter))
                .map(|series| series.group.clone())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(groups(&subjects, 0).len(), 10);
        let left = groups(&subjects, 1);
        subjects.drop_meter(MeterId(0));
        assert_eq!(
            (groups(&subjects, 0).len(), groups(&subjects, 1)),
            (0, left.clone())
        );
        for group in left {
            let place = subjects.place("subject-1", &mut bytes);
            let (subject, hasher) = subjects.at(place);
            let none = || panic!("it is known");
            subject.series_or(hasher, (MeterId(1), &group), none, &mut bytes);
        }
        assert!(subjects.get("subject-9").is_none());
    }
}
