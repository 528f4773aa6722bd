//! What readings of usage copy of memory: one tenant's readings leave room for others', and an export that has begun waits
//! for room.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use axum::body::to_bytes;
use axum::response::Response;
use common::{Event, TENANT, World, answer, answer_to, at, meter};
use futures_util::StreamExt as _;
use turnpike_aggregator::Options;
use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::directory::{DirectoryChange, DirectoryListener as _};
use turnpike_domain::port::usage::NoListener;

const OTHER: TenantId = TenantId(2);
/// Several parts of a stream, which holds what it has not sent.
const SUBJECTS: usize = 45_000;
const USAGE: &str = "/v1/meters/calls/usage?to=1970-01-02T00:00:00Z&group_by=subject";

/// One tenant with far more in memory than may be copied, another with far less. The first has a second meter `few`, whose one
/// event is in a checkpoint.
async fn world() -> World {
    let options = Options {
        query_memory_bytes_max: 100_000,
        ..Options::default()
    };
    let mut few = meter(2, "a-few", Aggregation::Count);
    "few".clone_into(&mut few.event_type);
    let meters = [meter(1, "calls", Aggregation::Count), few];
    let world = World::with(2, &meters, options, std::sync::Arc::new(NoListener));
    world
        .directory
        .set(OTHER, &[meter(3, "calls", Aggregation::Count)]);
    world.aggregator.changed(&DirectoryChange::Catalog(OTHER));
    let few = Event {
        kind: "few".to_owned(),
        ..Event::new("few", "s", 60, "{}")
    };
    world.submit(&[few]).await.unwrap();
    world.aggregator.checkpoint().await.unwrap();
    let of = |tenant, number| {
        let event = move |n: usize| Event {
            tenant,
            ..Event::new(n, &format!("s{n:06}"), 60, "{}")
        };
        (0..number).map(event).collect::<Vec<_>>()
    };
    world.submit(&of(TENANT, SUBJECTS)).await.unwrap();
    world.submit(&of(OTHER, 20)).await.unwrap();
    world.clock.set(at(86_400));
    world
}

async fn lines(response: Response) -> usize {
    let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap().lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tenants_open_exports_keep_no_other_from_its_usage() {
    let world = world().await;
    let uri = format!("{USAGE}&format=ndjson");
    let slow = answer(&world.aggregator, &uri).await;
    assert_eq!(slow.status(), 200);
    let used = world.aggregator.query_memory();
    assert!(used.used_bytes > used.max_bytes, "{used:?}");
    assert_eq!(
        answer(&world.aggregator, &uri).await.status(),
        503,
        "it has its share"
    );
    let mut open = Vec::new();
    for n in 0..2 {
        let response = answer_to(&world.aggregator, OTHER, &uri).await;
        assert_eq!(response.status(), 200, "reading {n} of the other tenant");
        open.push(response);
    }
    for response in open {
        assert_eq!(lines(response).await, 20);
    }
    assert_eq!(lines(slow).await, SUBJECTS);
    all_given_back(&world).await;
}

/// Waits for it: a partition may still have been at what was refused.
async fn all_given_back(world: &World) {
    let waiting = async {
        while world.aggregator.query_memory().used_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_mins(1), waiting).await;
    assert!(waited.is_ok(), "{:?}", world.aggregator.query_memory());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_has_begun_waits_for_room_for_its_further_meters() {
    let world = world().await;
    let uri = "/v1/export/usage?to=1970-01-02T00:00:00Z&group_by=subject&format=ndjson";
    let export = answer(&world.aggregator, uri).await;
    assert_eq!(export.status(), 200);
    let slow = answer(&world.aggregator, &format!("{USAGE}&format=ndjson")).await;
    assert_eq!(slow.status(), 200);
    let mut rest = export.into_body().into_data_stream();
    let mut got = Vec::new();
    let ended = tokio::time::timeout(Duration::from_millis(1_500), async {
        while let Some(part) = rest.next().await {
            got.extend(part.unwrap());
        }
    });
    assert!(ended.await.is_err(), "there is no room while the other is open");
    drop(slow);
    while let Some(part) = rest.next().await {
        got.extend(part.unwrap());
    }
    assert_eq!(String::from_utf8(got).unwrap().lines().count(), 1 + SUBJECTS);
}

/// Sends events of as many subjects in each of so many minutes.
async fn fill(world: &World, subjects: usize, minutes: usize) {
    for minute in 0..minutes {
        for some in (0..subjects).collect::<Vec<_>>().chunks(5_000) {
            let event = |n: &usize| {
                Event::new(
                    format!("{minute}-{n}"),
                    &format!("s{n:06}"),
                    minute as i64 * 60,
                    "{}",
                )
            };
            world
                .submit(&some.iter().map(event).collect::<Vec<_>>())
                .await
                .unwrap();
        }
    }
    world.clock.set(at(86_400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_gives_room_back_as_it_goes() {
    let options = Options {
        query_memory_bytes_max: 2_000_000,
        ..Options::default()
    };
    let hour = "from=1970-01-01T00:00:00Z&to=1970-01-01T01:00:00Z";
    for (subjects, minutes, by) in [
        (1_200, 40, "subject&window=minute"),
        (45_000, 1, "subject"),
        (45_000, 1, "customer"),
    ] {
        let meters = [meter(1, "calls", Aggregation::Count)];
        let world = World::with(2, &meters, options.clone(), std::sync::Arc::new(NoListener));
        for n in (0..45_000).step_by(9) {
            let (key, subject) = (format!("c{n:06}"), format!("s{n:06}"));
            world.directory.add_customer(&key, &[&subject]);
        }
        fill(&world, subjects, minutes).await;
        let usage = format!("/v1/meters/calls/usage?{hour}");
        let one = format!("{usage}&subject=s000001");
        let stream = answer(&world.aggregator, &format!("{usage}&group_by={by}&format=ndjson")).await;
        assert_eq!(stream.status(), 200);
        assert_eq!(answer(&world.aggregator, &one).await.status(), 503, "by {by}");
        let mut parts = stream.into_body().into_data_stream();
        let (mut lines, mut used) = (0, Vec::new());
        while let Some(part) = parts.next().await {
            lines += String::from_utf8(part.unwrap().to_vec()).unwrap().lines().count();
            used.push(world.aggregator.query_memory().used_bytes);
            if (subjects * minutes * 4 / 5..subjects * minutes).contains(&lines) {
                assert_eq!(
                    answer(&world.aggregator, &one).await.status(),
                    200,
                    "by {by}: {used:?}"
                );
            }
        }
        assert_eq!(lines, subjects * minutes);
        assert!(
            used.len() > 2 && used.is_sorted_by(|a, b| a >= b),
            "by {by}: {used:?}"
        );
        assert_eq!(used.last(), Some(&0), "by {by}");
    }
}
