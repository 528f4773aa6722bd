use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use turnpike_domain::catalog::LimitMode;
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::*;

const NOW: Timestamp = Timestamp::from_micros_clamped(1_768_046_400_000_000);

fn hour() -> TimeRange {
    TimeRange::new(NOW, NOW.plus_micros(3_600_000_000))
}

fn said(generation: u64, limit: Option<i128>) -> Said {
    Said {
        generation,
        minute: 3,
        valid: hour(),
        limit: Figures {
            mode: LimitMode::Hard,
            limit,
            ceiling: limit,
            total: 0,
            reserved: 0,
            resets_us: hour().end.micros(),
        },
    }
}

fn moment(generation: u64) -> Moment {
    Moment {
        generation,
        minute: 3,
        now: NOW,
    }
}

fn slot(total: i128) -> Slot {
    Slot::new(MeterId(1), hour(), total)
}

fn key(tenant: u32, number: usize) -> Key {
    Key::new(TenantId(tenant), &format!("customer-{number}"), "tokens").unwrap()
}

fn same(one: &Key, other: &Key) -> bool {
    one.head() == other.head() && one.pairs().eq(other.pairs())
}

proptest! {
    #[test]
    fn keys_are_the_same_for_the_same_names_only(
        one in (0u32..2, "[ab]{0,20}", "[ab]{0,20}"), other in (0u32..2, "[ab]{0,20}", "[ab]{0,20}"), cut in 0usize..20,
    ) {
        let key = |(tenant, customer, feature): &(u32, String, String)| Key::new(TenantId(*tenant), customer, feature).unwrap();
        prop_assert!(same(&key(&one), &key(&one.clone())));
        prop_assert_eq!(same(&key(&one), &key(&other)), one == other);
        // The same letters, cut elsewhere between customer and feature.
        let letters = format!("{}{}", one.1, one.2);
        let (customer, feature) = letters.split_at(cut.min(letters.len()));
        let moved = (one.0, customer.to_owned(), feature.to_owned());
        prop_assert_eq!(same(&key(&one), &key(&moved)), one == moved);
    }

    #[test]
    fn a_row_says_what_was_written_to_its_key_at_its_time_and_to_nobody_else(
        mode in 0u8..3, limit in prop::option::of(any::<i128>()), ceiling in prop::option::of(any::<i128>()),
        (total, held) in (-1_000i128..1_000, 0i128..1_000), resets_us in prop_oneof![Just(i64::MAX), Just(hour().end.micros())],
        ceiling_is_limit in any::<bool>(),
    ) {
        let mode = [LimitMode::Hard, LimitMode::Soft, LimitMode::Overage][usize::from(mode)];
        let ceiling = if ceiling_is_limit { limit } else { ceiling };
        let figures = Figures { mode, limit, ceiling, total: total + held, reserved: held, resets_us };
        let rows = Rows::default();
        let (slot, key, other) = (slot(total), key(101, 1), key(102, 1));
        slot.hold(held);
        rows.enter(&key, &slot, &Said { limit: figures, ..said(7, None) });
        prop_assert_eq!(rows.figures(&key, moment(7)), Some(figures));
        let last = hour().end.plus_micros(-1);
        prop_assert_eq!(rows.figures(&key, Moment { now: last, ..moment(7) }), Some(figures));
        for wrong in [
            moment(8),
            Moment { minute: 4, ..moment(7) },
            Moment { now: NOW.plus_micros(-1), ..moment(7) },
            Moment { now: hour().end, ..moment(7) },
        ] {
            prop_assert_eq!(rows.figures(&key, wrong), None);
        }
        prop_assert_eq!(rows.figures(&other, moment(7)), None);
        prop_assert_eq!(slot.place().place.figures(&other, moment(7)), None, "also where it is looked for there");
    }
}

#[test]
fn names_that_are_too_long_have_no_key() {
    let long = "c".repeat(73);
    assert!(Key::new(TenantId(1), &long[..72], "f").is_some());
    assert!(Key::new(TenantId(1), &long, "f").is_none());
    assert!(Key::new(TenantId(1), &"c".repeat(300), "").is_none());
}

#[test]
fn rows_are_found_while_the_table_grows_and_not_when_their_slots_are_gone() {
    let rows = Rows::default();
    let number = 5_000;
    let mut slots: Vec<_> = (0..number).map(|n| Some(slot(n as i128))).collect();
    for (n, slot) in slots.iter().enumerate() {
        rows.enter(&key(103, n), slot.as_ref().unwrap(), &said(1, Some(n as i128)));
    }
    assert_eq!(rows.len(), number);
    slots.iter_mut().step_by(2).for_each(|slot| drop(slot.take()));
    assert_eq!(rows.len(), number / 2);
    for n in 0..number {
        let found = rows.figures(&key(103, n), moment(1)).map(|figures| figures.total);
        assert_eq!(found, (n % 2 == 1).then_some(n as i128));
    }
}

/// Many times, for where words stand is random: the place of one that is gone may have a row of the same tag.
#[test]
fn windows_that_follow_each_other_need_no_larger_table() {
    for _ in 0..20 {
        windows_follow_each_other();
    }
}

fn windows_follow_each_other() {
    let rows = Rows::default();
    let mut slots: Vec<Slot> = Vec::new();
    for round in 0..100 {
        // Those of the round before are let go behind, as windows are.
        let next: Vec<_> = (0..100).map(|_| slot(round)).collect();
        for (n, slot) in next.iter().enumerate() {
            rows.enter(
                &key(104, n),
                slot,
                &said(round.unsigned_abs() as u64, Some(round)),
            );
        }
        slots = next;
    }
    assert_eq!(rows.current.load(Ordering::Relaxed), 0);
    assert!((0..100).all(|n| rows.figures(&key(104, n), moment(99)).is_some()));
    assert_eq!(rows.len(), slots.len());
}

/// Two keys whose slots come and go, and so use each other's places. Whatever a reader is told of a key is the key's, and
/// was so at one moment: limits of one are even, of the other odd, and total = limit + reserved.
#[test]
fn what_is_read_while_places_change_hands_belongs_together() {
    let rows = Rows::default();
    let ended = AtomicBool::new(false);
    let keys = [key(105, 0), key(105, 1)];
    std::thread::scope(|scope| {
        let reader = || {
            while !ended.load(Ordering::Relaxed) {
                for (odd, key) in keys.iter().enumerate() {
                    let Some(figures) = rows.figures(key, moment(1)) else {
                        continue;
                    };
                    let limit = figures.limit.unwrap();
                    assert_eq!(limit.rem_euclid(2), odd as i128);
                    assert_eq!(figures.total, limit.wrapping_add(figures.reserved));
                    assert_eq!(figures.ceiling, figures.limit);
                }
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        let write = |odd: usize| {
            for n in 0..20_000i128 {
                // Both halves of the number change.
                let limit = (n << 64 | n << 1 | odd as i128) * if n % 2 == 0 { 1 } else { -1 };
                let slot = slot(limit);
                rows.enter(&keys[odd], &slot, &said(1, Some(limit)));
                slot.hold(n);
                slot.settle(n, 0);
            }
        };
        let writers = [scope.spawn(move || write(0)), scope.spawn(move || write(1))];
        for writer in writers {
            writer.join().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
