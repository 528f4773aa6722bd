use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use turnpike_domain::catalog::Catalog;
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::history::{DeadLetter, DeadLetterPage};
use turnpike_domain::port::log::EventLog;
use turnpike_domain::problem::Problem;
use turnpike_domain::record::{EventRecord, Position, Record, decode};
use turnpike_domain::time::Timestamp;

use super::place::Seal;
use crate::Aggregator;
use crate::query::{Selection, Snapshot, Wanted, on_another_thread, settle};
use crate::rows::{Counts, add_counts, counts, key};

/// What the cursors of this list are sealed with.
const LIST: &str = "dead letters";
/// In a cursor, the meter of an event that was refused: no meter has this number.
const NO_METER: u32 = u32::MAX;

/// Position and meter of a dead letter; of a refused event no meter. Its order is that of the list, reversed.
type Place = (u64, Option<MeterId>);

/// Letters by place, with the reasons that are open.
type Letters = BTreeMap<Place, Counts>;

impl Aggregator {
    pub(super) async fn read_dead_letters(
        &self,
        tenant: TenantId,
        limit: usize,
        cursor: Option<String>,
    ) -> Result<DeadLetterPage, Problem> {
        let seal = Seal {
            key: self.shared.key,
            tenant,
        };
        let mut before = cursor.map(|text| read_place(&seal, &text)).transpose()?;
        let slot = self.slots.enter(tenant).await?;
        let catalog = self.shared.directory.catalog(tenant);
        let (mut letters, mut notes) = (Letters::new(), limit + 1);
        loop {
            let (found, from) = self
                .newest_letters((tenant, &catalog), before, limit, notes)
                .await?;
            letters.extend(found);
            if from.is_none() || letters.len() > limit {
                break;
            }
            // Most of those notes were of letters that have been dealt with, or of the cursor's position at the cursor or behind
            // it: then they reach back to less than the cursor does.
            before = before.into_iter().chain(from).min();
            notes = notes.saturating_mul(4);
        }
        let log = Arc::clone(&self.shared.log);
        on_another_thread(move || {
            let _slot = slot;
            page(log.as_ref(), letters, limit, &names(&catalog), &seal)
        })
        .await
    }

    /// The newest open letters before a place, found with so many of the notes that each partition has in memory; and, where it
    /// has more, the place that they reach back to.
    async fn newest_letters(
        &self,
        (tenant, catalog): (TenantId, &Arc<Catalog>),
        before: Option<Place>,
        limit: usize,
        notes: usize,
    ) -> Result<(Letters, Option<Place>), Problem> {
        // Several letters may share the cursor's position, so that position is read again.
        let until = before.map_or(u64::MAX, |(position, _)| position.saturating_add(1));
        let ranges = [key::unreadables(tenant, until), key::refusals(tenant, until)];
        let selection = |keys| Selection::Notes { keys, last: notes };
        let wanted = Arc::new(Wanted::of(ranges.clone().map(selection).into()));
        let mut snapshots = self.cut(&wanted, None).await?;
        let catalog = Arc::clone(catalog);
        on_another_thread(move || {
            settle(&mut snapshots, &wanted)?;
            let picked = snapshots
                .iter()
                .flat_map(|snapshot| [snapshot.notes(0), snapshot.notes(1)]);
            let from = picked
                .flatten()
                .filter_map(|notes| notes.from.as_deref())
                .map(place)
                .max();
            let names = names(&catalog);
            let mut letters = Letters::new();
            for snapshot in &snapshots {
                for (at, range) in ranges.iter().enumerate() {
                    let listed = |place: Place| {
                        before.is_none_or(|before| place < before)
                            && place.1.is_none_or(|id| names.contains_key(&id))
                    };
                    letters.extend(newest(snapshot, (at, range), listed, from, limit + 1)?);
                }
            }
            Ok((letters, from))
        })
        .await
    }
}

/// The keys of the meters that there are.
fn names(catalog: &Catalog) -> BTreeMap<MeterId, &str> {
    let meters = catalog.meters.values();
    meters.map(|meter| (meter.id, meter.key.as_str())).collect()
}

/// The place of a letter's key.
fn place(key: &[u8]) -> Place {
    let position = key::letter_position(key).unwrap_or_default();
    (position, key::letter_meter(key))
}

fn page(
    log: &dyn EventLog,
    letters: Letters,
    limit: usize,
    meters: &BTreeMap<MeterId, &str>,
    seal: &Seal,
) -> Result<DeadLetterPage, Problem> {
    let mut page = DeadLetterPage::default();
    let mut last = None;
    for ((position, meter), reasons) in letters.into_iter().rev() {
        if page.letters.len() >= limit {
            let place = last.map(|(position, meter): Place| {
                let meter = meter.map_or(NO_METER, |meter| meter.0);
                [&position.to_be_bytes()[..], &meter.to_be_bytes()].concat()
            });
            page.next_cursor = place.map(|place| seal.close(LIST, &place));
            break;
        }
        let bytes = match log.fetch(Position(position)) {
            // Past its retention.
            Err(StoreError::Gone(_)) => continue,
            bytes => bytes?,
        };
        let record = decode(&bytes)?;
        let key = meter.and_then(|id| meters.get(&id)).copied();
        page.letters
            .extend(letter(&record, Position(position), key, &reasons));
        last = Some((position, meter));
    }
    Ok(page)
}

/// The newest open letters of one partition that are `listed`, back to the place `from`.
fn newest(
    snapshot: &Snapshot,
    (at, range): (usize, &Range<Vec<u8>>),
    listed: impl Fn(Place) -> bool,
    from: Option<Place>,
    limit: usize,
) -> Result<Vec<(Place, Counts)>, Problem> {
    let mut memory: BTreeMap<Vec<u8>, Counts> = BTreeMap::new();
    for (key, more) in snapshot.notes(at).into_iter().flat_map(|notes| &notes.all) {
        add_counts(memory.entry(key.clone()).or_default(), more);
    }
    let mut open = Vec::new();
    let mut take = |key: &[u8], sum: &Counts| {
        let place = place(key);
        if from > Some(place) {
            return true;
        }
        if listed(place) && sum.values().any(|count| *count > 0) {
            open.push((place, sum.clone()));
        }
        open.len() >= limit
    };
    for row in snapshot.rows.scan_back(range.clone()) {
        let row = row?;
        // What memory holds behind this row comes first.
        while let Some((key, sum)) = memory.last_key_value().filter(|(key, _)| **key > row.key) {
            if take(key, sum) {
                return Ok(open);
            }
            memory.pop_last();
        }
        let mut sum = counts(&row.value)?;
        if let Some(more) = memory.remove(&row.key) {
            add_counts(&mut sum, &more);
        }
        if take(&row.key, &sum) {
            return Ok(open);
        }
    }
    for (key, sum) in memory.iter().rev() {
        if take(key, sum) {
            break;
        }
    }
    Ok(open)
}

fn read_place(seal: &Seal, text: &str) -> Result<Place, Problem> {
    let place = seal.open(LIST, text)?;
    let numbers = place.split_first_chunk().and_then(|(position, meter)| {
        Some((
            u64::from_be_bytes(*position),
            u32::from_be_bytes(meter.try_into().ok()?),
        ))
    });
    let (position, meter) = numbers.unwrap_or_default();
    Ok((position, (meter != NO_METER).then_some(MeterId(meter))))
}

fn letter(
    record: &Record<'_>,
    position: Position,
    meter: Option<&str>,
    reasons: &Counts,
) -> Option<DeadLetter> {
    match (record, meter) {
        (Record::Rejected(rejected), None) => Some(DeadLetter::Refused {
            position,
            received: Timestamp::from_micros_clamped(rejected.received_us),
            code: rejected.code.to_owned(),
            detail: rejected.detail.to_owned(),
            id: rejected.id.to_owned(),
            raw: rejected.raw.to_vec(),
            cut: rejected.cut,
        }),
        (Record::Event(event) | Record::Committed { event, .. }, Some(meter)) => {
            Some(unreadable(event, position, meter, reasons))
        }
        _ => None,
    }
}

fn unreadable(event: &EventRecord<'_>, position: Position, meter: &str, reasons: &Counts) -> DeadLetter {
    let reason = reasons
        .iter()
        .find(|(_, count)| **count > 0)
        .map(|(reason, _)| reason.as_slice());
    DeadLetter::Unreadable {
        position,
        meter: meter.to_owned(),
        source: event.source.to_owned(),
        id: event.id.to_owned(),
        detail: String::from_utf8_lossy(reason.unwrap_or_default()).into_owned(),
    }
}
