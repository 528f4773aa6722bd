//! The place of a quota's counts under shuffled schedules: its own source, with atomics that another thread may run behind.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../src/place.rs"]
mod place;
#[path = "../src/row.rs"]
#[expect(dead_code, reason = "a part is needed by the table of rows only")]
mod row;

mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering, fence};
    pub(crate) use shuttle::thread::yield_now;
}

use std::sync::Arc;

use place::{Counts, Place};
use row::{Key, Moment, Said};
use turnpike_domain::catalog::LimitMode;
use turnpike_domain::identity::TenantId;
use turnpike_domain::quota::Figures;
use turnpike_domain::time::{TimeRange, Timestamp};

/// Schedules of each test: on each change, or with `TURNPIKE_TEST_NIGHTLY` set.
fn schedules() -> usize {
    if std::env::var_os("TURNPIKE_TEST_NIGHTLY").is_some() {
        100_000
    } else {
        3_000
    }
}

#[test]
fn never_is_more_taken_than_the_ceiling() {
    let ceiling = 1i128 << 64;
    let amount = ceiling / 4;
    let work = move || {
        let place = Arc::new(Place::default());
        let take = |place: Arc<Place>| {
            shuttle::thread::spawn(move || (0..2).filter(|_| place.take(amount, ceiling).is_ok()).count())
        };
        let takers: Vec<_> = (0..3).map(|_| take(place.clone())).collect();
        let Counts { total, reserved } = place.counts();
        assert_eq!(total, reserved, "both change in one step");
        assert!(total <= ceiling && total % amount == 0);
        let taken: usize = takers.into_iter().map(|taker| taker.join().unwrap()).sum();
        assert_eq!(taken, 4);
        assert_eq!(place.counts().total, ceiling);
    };
    shuttle::check_random(work, schedules());
}

fn key(tenant: u32) -> Key {
    Key::new(
        TenantId(tenant),
        "a-customer-with-a-key-of-more-words",
        "some-feature",
    )
    .unwrap()
}

fn said(limit: i128) -> Said {
    Said {
        generation: 1,
        minute: 0,
        valid: TimeRange::ALL,
        limit: Figures {
            mode: LimitMode::Soft,
            limit: Some(limit),
            ceiling: Some(limit + 5),
            total: 0,
            reserved: 0,
            resets_us: i64::MAX,
        },
    }
}

/// A place goes from one tenant to another, while its counts are changed and both look for their rows there.
#[test]
fn what_is_read_belongs_together_and_to_the_key() {
    let moment = Moment {
        generation: 1,
        minute: 0,
        now: Timestamp::EPOCH,
    };
    let limits = [(1u32, 1i128 << 64 | 1), (2, -2)];
    let work = move || {
        let place = Arc::new(Place::default());
        let writer = {
            let place = place.clone();
            shuttle::thread::spawn(move || {
                for (tenant, limit) in limits {
                    place.set(Counts {
                        total: limit,
                        reserved: 0,
                    });
                    place.write_row(&key(tenant), &said(limit));
                    place.change(7, 7);
                    place.clear_row();
                }
            })
        };
        for (tenant, limit) in limits {
            let Some(figures) = place.figures(&key(tenant), moment) else {
                continue;
            };
            assert_eq!((figures.limit, figures.ceiling), (Some(limit), Some(limit + 5)));
            assert_eq!(figures.total, limit + figures.reserved);
        }
        writer.join().unwrap();
        assert!(
            limits
                .iter()
                .all(|(tenant, _)| place.figures(&key(*tenant), moment).is_none())
        );
    };
    shuttle::check_random(work, schedules());
}
