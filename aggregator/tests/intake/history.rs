//! What is shown of the past: dead letters, events, seconds.

use std::sync::Arc;

use crate::common::{Event, TENANT, World, at, meter, quantity, range, request, runtime};
use turnpike_aggregator::Options;
use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::history::{DeadLetter, EventQuery, EventStatus, History as _};
use turnpike_domain::port::intake::{Correction, Intake as _, Rejection};
use turnpike_domain::port::usage::{NoListener, UsageReader as _};
use turnpike_domain::problem::Code;

use crate::{all_events, event, world};

pub(crate) fn rejection(id: u32) -> Rejection {
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

#[test]
fn a_page_of_events_is_bounded_in_bytes_too() {
    runtime().block_on(async {
        let world = world();
        let noise = format!(r#"{{"v": "{}"}}"#, "x".repeat(1_000_000));
        for id in 0..20 {
            world.submit(&[Event::new(id, "a", 60, &noise)]).await.unwrap();
        }
        let (mut query, mut seen, mut pages) = (all_events(), 0, 0);
        query.limit = 1_000;
        loop {
            let page = world.aggregator.events(TENANT, query.clone()).await.unwrap();
            assert!(
                page.events.len() <= 9,
                "{} events of a megabyte",
                page.events.len()
            );
            (seen, pages) = (seen + page.events.len(), pages + 1);
            match page.next_cursor {
                Some(cursor) => query.cursor = Some(cursor),
                None => break,
            }
        }
        assert_eq!((seen, pages), (20, 3));
    });
}

#[test]
fn pages_are_full_whatever_lies_between_and_cursors_tell_nothing() {
    runtime().block_on(async {
        let world = world();
        let other = TenantId(2);
        let of = |tenant: TenantId, id: u32| Event {
            tenant,
            ..Event::new(id, "c", 60, "{}")
        };
        for id in 0..5 {
            world.submit(&[of(TENANT, id)]).await.unwrap();
            for noise in 0..1_100 {
                world.submit(&[of(other, id * 10_000 + noise)]).await.unwrap();
            }
        }
        for _ in 0..2 {
            let (mut query, mut sizes, mut seen) = (all_events(), Vec::new(), Vec::new());
            query.limit = 2;
            loop {
                let page = world.aggregator.events(TENANT, query.clone()).await.unwrap();
                sizes.push(page.events.len());
                seen.extend(page.events.iter().map(|event| event.position.0));
                let Some(cursor) = page.next_cursor else { break };
                let foreign = EventQuery {
                    cursor: Some(cursor.clone()),
                    ..query.clone()
                };
                let refused = world.aggregator.events(other, foreign).await.unwrap_err();
                assert_eq!(refused.fields[0].pointer, "/cursor", "another tenant's cursor");
                let told = |position: &u64| {
                    cursor.contains(&position.to_string()) || cursor.contains(&format!("{position:x}"))
                };
                assert!(!seen.iter().any(told), "{cursor} tells a position");
                query.cursor = Some(cursor);
            }
            assert_eq!(sizes, [2, 2, 1]);
        }
        let mut query = all_events();
        query.limit = 5;
        let page = world.aggregator.events(TENANT, query.clone()).await.unwrap();
        assert_eq!(
            (page.events.len(), page.next_cursor),
            (5, None),
            "there are no more"
        );
        query.cursor = Some("17".to_owned());
        assert!(world.aggregator.events(TENANT, query).await.is_err());
        let none = world.aggregator.events(TenantId(3), all_events()).await.unwrap();
        assert_eq!((none.events.len(), none.next_cursor), (0, None));
    });
}

/// The pages of a tenant with few events among many of another's.
async fn rare_pages(world: &World) -> (usize, Vec<String>) {
    let (mut query, mut pages, mut seen) = (all_events(), 0, Vec::new());
    query.limit = 2;
    loop {
        let page = world.aggregator.events(TENANT, query.clone()).await.unwrap();
        seen.extend(page.events.into_iter().map(|event| event.id));
        pages += 1;
        match page.next_cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return (pages, seen),
        }
    }
}

#[test]
fn a_page_of_events_looks_so_far_and_says_where_to_go_on() {
    runtime().block_on(async {
        let options = Options {
            events_looked_bytes_max: 20_000,
            ..Options::default()
        };
        let meters = [meter(1, "sum", Aggregation::Sum)];
        let world = World::with(2, &meters, options, Arc::new(NoListener));
        let of = |tenant: TenantId, id: u32| Event {
            tenant,
            ..Event::new(id, "c", 60, "{}")
        };
        for id in 0..5 {
            world.submit(&[of(TENANT, id)]).await.unwrap();
            for noise in 0..1_100 {
                world
                    .submit(&[of(TenantId(2), id * 10_000 + noise)])
                    .await
                    .unwrap();
            }
        }
        let all = ["4", "3", "2", "1", "0"];
        let (pages, seen) = rare_pages(&world).await;
        assert_eq!(seen, all);
        assert!(pages > 5, "{pages} pages through what lies between");
        let (again, seen) = rare_pages(&world).await;
        assert_eq!(seen, all);
        assert!(again <= pages, "{again} pages after {pages}");
    });
}

#[test]
fn pages_of_dead_letters_are_whole_where_most_have_been_dealt_with() {
    runtime().block_on(async {
        let world = world();
        let (mut open, mut events) = (Vec::new(), Vec::new());
        for round in 0..4 {
            for n in 0..30 {
                let id = round * 100 + n;
                open.extend(world.aggregator.reject(vec![rejection(id)]).await.unwrap());
                if n % 6 == 0 {
                    events.push(Event::new(id, "c", 60, r#"{"v": true}"#));
                    world.submit(&events[events.len() - 1..]).await.unwrap();
                }
            }
            if round == 1 {
                world.aggregator.checkpoint().await.unwrap();
            }
        }
        // All of the newest, and most of those that the checkpoint holds.
        let dealt_with: Vec<_> = open.extract_if(60.., |_| true).collect();
        let most: Vec<_> = open.extract_if(3..57, |_| true).collect();
        for position in dealt_with.into_iter().chain(most) {
            world.aggregator.resolve(TENANT, position).await.unwrap();
        }
        for event in &events[2..] {
            let voided = world.aggregator.correct(event.name(), Correction::Void, at(70));
            voided.await.unwrap().unwrap();
        }
        for limit in [1, 3, 100] {
            let (mut positions, mut unreadable, mut cursor) = (Vec::new(), 0, None);
            loop {
                let page = world
                    .aggregator
                    .dead_letters(TENANT, limit, cursor)
                    .await
                    .unwrap();
                for letter in &page.letters {
                    match letter {
                        DeadLetter::Refused { position, .. } => positions.push(*position),
                        DeadLetter::Unreadable { .. } => unreadable += 1,
                    }
                }
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            positions.reverse();
            assert_eq!((positions, unreadable), (open.clone(), 2), "{limit} a page");
        }
    });
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
fn those_of_some_are_found_in_a_batch_of_many() {
    runtime().block_on(async {
        let world = world();
        // Texts that hold those of others: as a part of a subject, as an id, in the data.
        let sent = [
            Event::new("1", "a", 60, "{}"),
            Event::new("2", "ab", 60, "{}"),
            Event::new("3", "b", 60, r#"{"of": "a"}"#),
            Event::new("a", "c", 60, "{}"),
            Event::new("5", "d", 60, "{}"),
        ];
        world.submit(&sent).await.unwrap();
        world.submit(&[Event::new("6", "a", 60, "{}")]).await.unwrap();
        let ids_of = async |query: EventQuery| {
            let page = world.aggregator.events(TENANT, query).await.unwrap();
            let mut ids: Vec<String> = page.events.into_iter().map(|event| event.id).collect();
            ids.sort();
            ids.join(" ")
        };
        for (subjects, ids) in [
            (vec!["a"], "1 6"),
            (vec!["b", "c"], "3 a"),
            (vec!["e"], ""),
            (vec!["a", "b", "e", "f", "g"], "1 3 6"),
        ] {
            let subjects = Some(subjects.into_iter().map(str::to_owned).collect());
            let query = EventQuery {
                subjects,
                ..all_events()
            };
            assert_eq!(ids_of(query.clone()).await, ids, "{query:?}");
        }
        let by_id = |id: &str| EventQuery {
            id: Some(id.to_owned()),
            ..all_events()
        };
        assert_eq!(ids_of(by_id("a")).await, "a");
        assert_eq!(ids_of(by_id("7")).await, "");
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
