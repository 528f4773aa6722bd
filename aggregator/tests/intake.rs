//! What the partition owners promise to those who write: admission, failures of the log, quota records, dead letters.

#![cfg(test)]
#![expect(clippy::too_many_lines, reason = "a story is told in one piece")]

mod common;

use std::sync::Arc;

use common::{Event, KEY, TENANT, World, at, meter, quantity, range, request, runtime};
use parking_lot::Mutex;
use turnpike_aggregator::Options;
use turnpike_domain::event::EventBatch;
use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::history::{DeadLetter, EventQuery, EventStatus, History as _};
use turnpike_domain::port::intake::{
    Correction, Expect, Hold, Intake as _, Outcome, QuotaOutcome, QuotaRecord, Rejection,
};
use turnpike_domain::port::log::EventLog as _;
use turnpike_domain::port::usage::{NoListener, UsageChange, UsageListener, UsageReader as _};
use turnpike_domain::problem::Code;
use turnpike_domain::quantity::{Quantity, UNIT};
use turnpike_domain::record::{
    EventRecord, GrantRecord, Position, QUOTA_SOURCE, Record, ReservationRecord, decode, encode,
};
use turnpike_domain::time::TimeRange;

fn world() -> World {
    World::new(
        2,
        &[
            meter(1, "sum", Aggregation::Sum),
            meter(2, "count", Aggregation::Count),
        ],
    )
}

fn event(id: u32, value: i64) -> Event {
    Event::new(id, "c", 60, format!(r#"{{"v": {value}}}"#))
}

fn events(ids: std::ops::Range<u32>) -> Vec<Event> {
    ids.map(|id| event(id, 1)).collect()
}

#[test]
fn duplicates_and_conflicts_in_one_batch_and_after_corrections() {
    runtime().block_on(async {
        let world = world();
        let other = Event {
            data: r#"{"v": 9}"#.to_owned(),
            ..event(1, 1)
        };
        let spelled = Event {
            data: r#"{ "v" : 1.0 }"#.to_owned(),
            ..event(1, 1)
        };
        let batch = [
            event(1, 1),
            event(1, 1),
            other.clone(),
            spelled.clone(),
            event(2, 5),
        ];
        let outcomes = world.submit(&batch).await.unwrap();
        let Outcome::Accepted(first) = outcomes[0] else {
            panic!("{outcomes:?}")
        };
        assert_eq!(
            outcomes[1..4],
            [
                Outcome::Duplicate(first),
                Outcome::Conflict(first),
                Outcome::Duplicate(first)
            ]
        );
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("6")));

        let amend = Correction::Amend {
            data: Some(r#"{"v": 9}"#.to_owned()),
            time: None,
        };
        let amended = world
            .aggregator
            .correct(event(1, 1).name(), amend.clone(), at(61))
            .await
            .unwrap()
            .unwrap();
        let again = world
            .aggregator
            .correct(event(1, 1).name(), amend, at(62))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(amended.position, again.position, "a repeat writes nothing");
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("14")));
        let outcomes = world.submit(&[event(1, 1), other, spelled]).await.unwrap();
        assert!(
            matches!(
                outcomes[..],
                [Outcome::Duplicate(_), Outcome::Conflict(_), Outcome::Duplicate(_)]
            ),
            "{outcomes:?}"
        );

        let void = || {
            world
                .aggregator
                .correct(event(1, 1).name(), Correction::Void, at(63))
        };
        let voided = void().await.unwrap().unwrap();
        assert_eq!(void().await.unwrap().unwrap().position, voided.position);
        assert!(matches!(decode(&voided.record), Ok(Record::Void { .. })));
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("5")));
        assert!(matches!(
            world.submit(&[event(1, 1)]).await.unwrap()[..],
            [Outcome::Duplicate(_)]
        ));
        assert_eq!(
            world
                .aggregator
                .correct(event(99, 1).name(), Correction::Void, at(64))
                .await,
            Ok(None)
        );
    });
}

#[test]
fn a_full_queue_keeps_nothing_of_a_batch() {
    runtime().block_on(async {
        let options = Options {
            queue_records_max: 20,
            ..Options::default()
        };
        let meters = [meter(2, "count", Aggregation::Count)];
        let world = World::with(2, &meters, options, Arc::new(NoListener));
        // A cut that does not end holds both owners, so the queues fill.
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let (stopped, standing) = tokio::sync::oneshot::channel();
        let at_cut = Box::new(move || {
            stopped.send(()).unwrap();
            wait.recv().unwrap();
        });
        let aggregator = Arc::clone(&world.aggregator);
        let held = tokio::spawn(async move { aggregator.totals(TENANT, Vec::new(), Some(at_cut)).await });
        standing.await.unwrap();
        let mut calls = Vec::new();
        for call in 0..20u32 {
            let mut batch = EventBatch::default();
            for event in events(call * 6..call * 6 + 6) {
                batch.push(&KEY, &event.record());
            }
            let aggregator = Arc::clone(&world.aggregator);
            calls.push(tokio::spawn(
                async move { aggregator.submit(Arc::new(batch)).await },
            ));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        go_on.send(()).unwrap();
        held.await.unwrap().unwrap();
        let (mut taken, mut refused) = (0, 0);
        for call in calls {
            match call.await.unwrap() {
                Ok(outcomes) => taken += outcomes.len() as i64,
                Err(problem) => {
                    assert_eq!((problem.code, problem.retry_after_s), (Code::Overloaded, Some(1)));
                    refused += 1;
                }
            }
        }
        assert!(refused > 0 && taken > 0, "{refused} refused, {taken} taken");
        assert_eq!(
            world.sum("count", &["c"]).await,
            Some(Quantity::from_units(taken)),
            "refused batches left nothing"
        );
    });
}

#[test]
fn a_full_log_refuses_and_a_poisoned_one_acknowledges_nothing() {
    runtime().block_on(async {
        let mut world = world();
        world.submit(&events(0..10)).await.unwrap();
        world.log.set_full(true);
        assert_eq!(
            world.submit(&events(5..15)).await.unwrap_err().code,
            Code::StorageFull
        );
        let void = world
            .aggregator
            .correct(event(1, 1).name(), Correction::Void, at(0))
            .await;
        assert_eq!(void.unwrap_err().code, Code::StorageFull);
        assert_eq!(
            world.sum("count", &["c"]).await,
            Some(quantity("10")),
            "nothing half done"
        );
        world.log.set_full(false);
        assert!(
            world.submit(&events(10..15)).await.is_ok(),
            "accepts again by itself"
        );

        world.log.hold(true);
        let aggregator = Arc::clone(&world.aggregator);
        let mut batch = EventBatch::default();
        for event in events(20..25) {
            batch.push(&KEY, &event.record());
        }
        let waiting = tokio::spawn(async move { aggregator.submit(Arc::new(batch)).await });
        while world.log.end() == world.log.durable() {
            tokio::task::yield_now().await;
        }
        world.log.poison();
        assert_eq!(waiting.await.unwrap().unwrap_err().code, Code::StoragePoisoned);
        assert_eq!(
            world.submit(&events(30..31)).await.unwrap_err().code,
            Code::StoragePoisoned
        );
        let total = world.total(request("count", &["c"], TimeRange::ALL)).await;
        assert_eq!(
            total.unwrap_err().code,
            Code::StoragePoisoned,
            "no answer rests on what is not durable"
        );
        world.crash();
        assert_eq!(world.sum("count", &["c"]).await, Some(quantity("15")));
    });
}

#[test]
fn an_answer_waits_for_the_events_group_even_for_duplicates() {
    runtime().block_on(async {
        let world = world();
        world.log.hold(true);
        let submit = |event: Event| {
            let aggregator = Arc::clone(&world.aggregator);
            tokio::spawn(async move {
                let mut batch = EventBatch::default();
                batch.push(&KEY, &event.record());
                aggregator.submit(Arc::new(batch)).await
            })
        };
        let calls = [submit(event(1, 1)), submit(event(1, 1)), submit(event(1, 2))];
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(calls.iter().all(|call| !call.is_finished()));
        world.log.hold(false);
        for call in calls {
            call.await.unwrap().unwrap();
        }
    });
}

#[test]
fn tenants_never_meet() {
    runtime().block_on(async {
        let world = world();
        let other = TenantId(2);
        world.directory.set(other, &[meter(11, "sum", Aggregation::Sum)]);
        use turnpike_domain::port::directory::{DirectoryChange, DirectoryListener as _};
        world.aggregator.changed(&DirectoryChange::Catalog(other));
        let theirs = Event {
            tenant: other,
            ..event(1, 100)
        };
        let outcomes = world.submit(&[event(1, 1), theirs.clone()]).await.unwrap();
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, Outcome::Accepted(_))),
            "the same id is another event"
        );
        world.aggregator.checkpoint().await.unwrap();
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("1")));
        let totals = world
            .aggregator
            .totals(other, vec![request("sum", &["c"], TimeRange::ALL)], None)
            .await
            .unwrap();
        assert_eq!(totals.rows[0][0].value, Some(quantity("100")));
        let missing = world
            .aggregator
            .totals(other, vec![request("count", &["c"], TimeRange::ALL)], None)
            .await;
        assert_eq!(missing.unwrap_err().code, Code::NotFound);
        let page = world.aggregator.events(other, all_events()).await.unwrap();
        assert_eq!(page.events.len(), 1);
    });
}

fn grant(amount: i128, digest: u64) -> GrantRecord<'static> {
    GrantRecord {
        customer: "c",
        feature: "f",
        amount,
        reason: "within_limit",
        body_digest: digest,
    }
}

fn reservation(digest: u64) -> ReservationRecord<'static> {
    ReservationRecord {
        tenant: TENANT.0,
        id: "r1",
        made_us: 5,
        expires_us: 99,
        properties: "{}",
        grant: grant(4 * UNIT, digest),
    }
}

fn quota(record: &Record<'_>, expect: Expect, hold: Option<Hold>) -> QuotaRecord {
    let mut bytes = Vec::new();
    encode(record, &mut bytes);
    QuotaRecord {
        name: KEY.name(TENANT, QUOTA_SOURCE, "r1"),
        digest: 1,
        record: bytes,
        expect,
        hold,
    }
}

fn committed() -> EventRecord<'static> {
    EventRecord {
        tenant: TENANT.0,
        source: QUOTA_SOURCE,
        id: "r1",
        kind: "t",
        subject: "c",
        time_us: 60_000_000,
        time_sent: true,
        received_us: 60_000_000,
        data: r#"{"v": "3"}"#,
        extensions: "",
        grant: Some(grant(3 * UNIT, 7)),
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<(u32, String, bool)>>);

impl UsageListener for Heard {
    fn applied(&self, changes: &[UsageChange<'_>]) {
        let heard = changes
            .iter()
            .map(|c| (c.meter.0, c.amount.to_string(), c.hold.is_some()));
        self.0.lock().extend(heard);
    }
}

#[test]
fn a_quota_name_goes_from_free_to_reserved_to_free_to_committed() {
    runtime().block_on(async {
        let heard = Arc::new(Heard::default());
        let meters = [meter(1, "sum", Aggregation::Sum)];
        let mut world = World::with(2, &meters, Options::default(), Arc::clone(&heard) as _);
        let reserve = Record::Reserved(reservation(7));
        let ask = |record: QuotaRecord| {
            let aggregator = Arc::clone(&world.aggregator);
            async move { aggregator.quota(record).await.unwrap() }
        };
        let QuotaOutcome::Written(first) = ask(quota(&reserve, Expect::Free, None)).await else {
            panic!()
        };
        let QuotaOutcome::Occupied(known) = ask(quota(&reserve, Expect::Free, None)).await else {
            panic!()
        };
        assert_eq!(
            (known.position, known.digest),
            (first, 7),
            "the body's hash of what stands there"
        );
        assert_eq!(world.aggregator.open_reservations().await.unwrap().len(), 1);

        let release = Record::Released {
            at_us: 6,
            expired: false,
            reservation: reservation(7),
        };
        let wrong = ask(quota(&release, Expect::At(Position(first.0 + 1)), None)).await;
        assert!(matches!(wrong, QuotaOutcome::Occupied(_)));
        assert!(matches!(
            ask(quota(&release, Expect::At(first), None)).await,
            QuotaOutcome::Written(_)
        ));
        world.aggregator.checkpoint().await.unwrap();
        assert!(world.aggregator.open_reservations().await.unwrap().is_empty());

        let QuotaOutcome::Written(second) = ask(quota(&reserve, Expect::Free, None)).await else {
            panic!()
        };
        world.crash();
        let open = world.aggregator.open_reservations().await.unwrap();
        assert_eq!(decode(&open[0]), Ok(reserve), "reservations survive a restart");

        let commit = Record::Committed {
            reservation: reservation(7),
            event: committed(),
        };
        let hold: Hold = Arc::new(5u8);
        let done = world
            .aggregator
            .quota(quota(&commit, Expect::At(second), Some(hold)))
            .await
            .unwrap();
        assert!(matches!(done, QuotaOutcome::Written(_)));
        assert!(world.aggregator.open_reservations().await.unwrap().is_empty());
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("3")));
        assert_eq!(
            heard.0.lock().as_slice(),
            [(1, "3".to_owned(), true)],
            "with the hold, once"
        );

        let found = world
            .aggregator
            .lookup(vec![
                KEY.name(TENANT, QUOTA_SOURCE, "r1"),
                KEY.name(TENANT, "x", "y"),
            ])
            .await;
        let found = found.unwrap();
        assert!(matches!(
            decode(&found[0].as_ref().unwrap().record),
            Ok(Record::Committed { .. })
        ));
        assert_eq!(found[1], None);
        let name = KEY.name(TENANT, QUOTA_SOURCE, "r1");
        let voided = world
            .aggregator
            .correct(name, Correction::Void, at(70))
            .await
            .unwrap()
            .unwrap();
        let Ok(Record::Void { before, .. }) = decode(&voided.record) else {
            panic!()
        };
        assert_eq!(before, committed(), "a granted event keeps its grant");
        assert_eq!(heard.0.lock().last(), Some(&(1, "-3".to_owned(), false)));
    });
}

fn rejection(id: u32) -> Rejection {
    Rejection {
        tenant: TENANT,
        received: at(5),
        code: "invalid_time".to_owned(),
        detail: "time is not RFC 3339".to_owned(),
        id: id.to_string(),
        raw: b"{".to_vec(),
        cut: false,
    }
}

#[test]
fn dead_letters_are_listed_newest_first_and_dealt_with() {
    runtime().block_on(async {
        let mut world = world();
        let refused = world
            .aggregator
            .reject(vec![rejection(1), rejection(2)])
            .await
            .unwrap();
        world
            .submit(&[Event::new(10, "c", 60, r#"{"v": true}"#), event(11, 1)])
            .await
            .unwrap();
        world.aggregator.checkpoint().await.unwrap();
        let late = world.aggregator.reject(vec![rejection(3)]).await.unwrap();
        assert_eq!(
            world.sum("count", &["c"]).await,
            Some(quantity("2")),
            "the other meter counts"
        );
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("1")));
        let listed = |limit, cursor| {
            let aggregator = Arc::clone(&world.aggregator);
            async move { aggregator.dead_letters(TENANT, limit, cursor).await.unwrap() }
        };
        let all = listed(10, None).await.letters;
        assert_eq!(all[0].position(), late[0]);
        let DeadLetter::Unreadable {
            meter, id, detail, ..
        } = &all[1]
        else {
            panic!("{all:?}")
        };
        assert_eq!(
            (meter.as_str(), id.as_str(), detail.as_str()),
            ("sum", "10", "the value is not a decimal number")
        );
        assert_eq!(
            all[2..].iter().map(DeadLetter::position).collect::<Vec<_>>(),
            [refused[1], refused[0]]
        );
        let (mut paged, mut cursor) = (Vec::new(), None);
        loop {
            let page = listed(1, cursor).await;
            paged.extend(page.letters);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(paged, all);

        world.aggregator.resolve(TENANT, refused[0]).await.unwrap();
        let again = world.aggregator.resolve(TENANT, refused[0]).await;
        assert_eq!(
            again.unwrap_err().code,
            Code::NotFound,
            "it can be dealt with once"
        );
        let fixed = Correction::Amend {
            data: Some(r#"{"v": 4}"#.to_owned()),
            time: None,
        };
        world
            .aggregator
            .correct(event(10, 0).name(), fixed, at(70))
            .await
            .unwrap()
            .unwrap();
        let left = listed(10, None).await.letters;
        assert_eq!(
            left.iter().map(DeadLetter::position).collect::<Vec<_>>(),
            [late[0], refused[1]]
        );
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("5")));
        world.crash();
        assert_eq!(
            world
                .aggregator
                .dead_letters(TENANT, 10, None)
                .await
                .unwrap()
                .letters
                .len(),
            2
        );
    });
}

fn all_events() -> EventQuery {
    EventQuery {
        subjects: None,
        kind: None,
        range: TimeRange::ALL,
        source: None,
        id: None,
        limit: 100,
        cursor: None,
    }
}

#[test]
fn events_are_shown_once_as_they_count_now() {
    runtime().block_on(async {
        let world = world();
        for id in 0..6 {
            world
                .submit(&[Event::new(
                    id,
                    if id % 2 == 0 { "even" } else { "odd" },
                    i64::from(id) * 60,
                    "{}",
                )])
                .await
                .unwrap();
        }
        let name = |id: u32| event(id, 0).name();
        world
            .aggregator
            .correct(name(1), Correction::Void, at(400))
            .await
            .unwrap();
        let amend = Correction::Amend {
            data: Some(r#"{"v": 2}"#.to_owned()),
            time: Some(at(9_000)),
        };
        world.aggregator.correct(name(2), amend, at(401)).await.unwrap();
        let listed = |query: EventQuery| {
            let aggregator = Arc::clone(&world.aggregator);
            async move {
                let page = aggregator.events(TENANT, query).await.unwrap();
                let ids: Vec<String> = page.events.iter().map(|event| event.id.clone()).collect();
                (ids.join(""), page)
            }
        };
        let (ids, page) = listed(all_events()).await;
        assert_eq!(ids, "543210", "a correction leaves an event at its place");
        assert_eq!(page.events[3].status, EventStatus::Amended);
        assert_eq!(
            (page.events[3].data.as_str(), page.events[3].time),
            (r#"{"v": 2}"#, at(9_000))
        );
        assert_eq!(page.events[4].status, EventStatus::Voided);
        let some = |subjects: &[&str]| Some(subjects.iter().map(|s| (*s).to_owned()).collect());
        assert_eq!(
            listed(EventQuery {
                subjects: some(&["odd"]),
                ..all_events()
            })
            .await
            .0,
            "531"
        );
        assert_eq!(
            listed(EventQuery {
                range: range(8_000, 10_000),
                ..all_events()
            })
            .await
            .0,
            "2"
        );
        assert_eq!(
            listed(EventQuery {
                range: range(120, 180),
                ..all_events()
            })
            .await
            .0,
            "",
            "it counts elsewhere now"
        );
        assert_eq!(
            listed(EventQuery {
                kind: Some("other".to_owned()),
                ..all_events()
            })
            .await
            .0,
            ""
        );
        let direct = EventQuery {
            source: Some("s".to_owned()),
            id: Some("2".to_owned()),
            ..all_events()
        };
        assert_eq!(listed(direct).await.0, "2");
        let (mut ids, mut query) = (
            String::new(),
            EventQuery {
                limit: 2,
                ..all_events()
            },
        );
        loop {
            let (some, page) = listed(query.clone()).await;
            ids.push_str(&some);
            match page.next_cursor {
                Some(cursor) => query.cursor = Some(cursor),
                None => break,
            }
            // Between two pages one of those to come is corrected, and one of those that were shown.
            for (id, change) in [(0, Correction::Void), (5, Correction::Void)] {
                let (name, now) = (name(id), at(500));
                world.aggregator.correct(name, change, now).await.unwrap();
            }
        }
        assert_eq!(ids, "543210");
    });
}

#[test]
fn seconds_are_read_from_the_tail_of_the_log() {
    runtime().block_on(async {
        let mut world = world();
        let now = 1_000_000_000;
        let batch: Vec<Event> = (0..30)
            .map(|id| Event::new(id, "c", now - 10 + i64::from(id) / 3, r#"{"v": 2}"#))
            .collect();
        world.submit(&batch).await.unwrap();
        let second = |world: &World, from: i64| {
            let aggregator = Arc::clone(&world.aggregator);
            async move {
                let request = request("sum", &["c"], range(from, from + 1));
                aggregator
                    .totals(TENANT, vec![request], None)
                    .await
                    .map(|totals| totals.rows[0][0].value)
            }
        };
        assert_eq!(second(&world, now - 5).await, Ok(Some(quantity("6"))));
        world
            .aggregator
            .correct(batch[15].name(), Correction::Void, at(now))
            .await
            .unwrap();
        assert_eq!(second(&world, now - 5).await, Ok(Some(quantity("4"))));
        world.aggregator.checkpoint().await.unwrap();
        world.crash();
        assert_eq!(
            second(&world, now - 5).await,
            Ok(Some(quantity("4"))),
            "also after a restart"
        );
        assert_eq!(second(&world, now + 1).await, Ok(Some(quantity("0"))));
        assert_eq!(second(&world, now - 601).await.unwrap_err().code, Code::Invalid);
    });
}
