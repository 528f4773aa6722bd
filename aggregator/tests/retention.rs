//! Retention: raw events go, what was counted stays, and nobody takes what is left for all there was.

#![cfg(test)]

mod common;

use common::{Event, TENANT, World, at, meter, quantity, range, request};
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::history::History as _;
use turnpike_domain::port::intake::{Correction, Intake as _, Outcome};
use turnpike_domain::port::log::EventLog as _;
use turnpike_domain::port::usage::{Derivation, TotalRequest, Underivable, UsageReader as _};
use turnpike_domain::port::views::Views as _;
use turnpike_domain::problem::Code;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::record::Position;
use turnpike_domain::time::Timestamp;

const DAY: i64 = 86_400;

/// Ten days with an event each, in ten blocks of the log, all in checkpoints.
async fn ten_days() -> (World, Vec<Event>) {
    let meters = [
        meter(1, "sum", Aggregation::Sum),
        meter(2, "weighted", Aggregation::TimeWeightedSum),
    ];
    let world = World::new(2, &meters);
    let events: Vec<Event> = (0..10)
        .map(|day| Event::new(day, "a", day * DAY + 60, r#"{"v":1}"#))
        .collect();
    for event in &events {
        world.submit(std::slice::from_ref(event)).await.unwrap();
        world.aggregator.checkpoint().await.unwrap();
    }
    (world, events)
}

#[tokio::test]
async fn an_idle_partition_does_not_hold_retention_back() {
    const PARTITIONS: usize = 4;
    let world = World::new(PARTITIONS, &[meter(1, "sum", Aggregation::Sum)]);
    let event = |id: i64| Event::new(id, "a", id * 60, r#"{"v":1}"#);
    let of_one = (0..)
        .map(event)
        .filter(|event| event.name().partition(PARTITIONS) == 2);
    for event in of_one.take(10) {
        world.submit(&[event]).await.unwrap();
    }
    let end = world.log.end();
    // The owners look five times a second whether their interval is over.
    for _ in 0..500 {
        world.clock.pass(world.options.checkpoint_interval_us + 1);
        if world.views.iter().all(|views| views.position() == end) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let positions: Vec<_> = world.views.iter().map(|views| views.position()).collect();
    assert_eq!(positions, vec![end; PARTITIONS]);
    let first = world.log.first();
    assert!(world.aggregator.delete_before(Timestamp::MAX).await.unwrap() > first);
    assert_eq!(world.sum("sum", &["a"]).await, Some(quantity("10")));
}

async fn from_log(world: &World, request: TotalRequest) -> Result<Option<Quantity>, Underivable> {
    let watermark = world
        .aggregator
        .totals(TENANT, Vec::new(), None)
        .await
        .unwrap()
        .watermark;
    let derivation = Derivation {
        tenant: TENANT,
        requests: vec![request],
        watermark,
    };
    let mut derived = world.aggregator.totals_from_log(vec![derivation]).await.unwrap();
    derived
        .remove(0)
        .map(|mut totals| totals.rows.remove(0).remove(0).value)
}

#[tokio::test]
async fn what_was_counted_stays_and_sums_from_the_log_are_told_where_they_would_be_short() {
    let (world, _) = ten_days().await;
    let before = world.sum("sum", &["a"]).await;
    let first = world.aggregator.delete_before(at(5 * DAY)).await.unwrap();
    assert!(first > Position::new(64, 0));
    assert_eq!(world.log.horizon(), Some(at(5 * DAY)));
    assert_eq!(world.sum("sum", &["a"]).await, before);
    let young = request("sum", &["a"], range(5 * DAY, 10 * DAY));
    assert_eq!(from_log(&world, young).await, Ok(Some(quantity("5"))));
    let old = request("sum", &["a"], range(4 * DAY, 10 * DAY));
    assert!(matches!(
        from_log(&world, old).await,
        Err(Underivable::Deleted(_))
    ));
    let carried = request("weighted", &["a"], range(5 * DAY, 10 * DAY));
    assert!(matches!(
        from_log(&world, carried).await,
        Err(Underivable::Deleted(_))
    ));
}

#[tokio::test]
async fn nothing_goes_that_is_young_or_stands_in_the_log_alone() {
    let (world, _) = ten_days().await;
    let first = world.log.first();
    assert_eq!(world.aggregator.delete_before(at(60)).await.unwrap(), first);
    assert_eq!(world.log.horizon(), None);
    // Without another checkpoint what is new stays, whatever its time.
    let late = Event::new("late", "a", 0, r#"{"v":1}"#);
    world.submit(std::slice::from_ref(&late)).await.unwrap();
    let position = world.aggregator.lookup(vec![late.name()]).await.unwrap();
    let position = position[0].as_ref().unwrap().position;
    let kept = world.aggregator.delete_before(Timestamp::MAX).await.unwrap();
    assert!(kept > first && kept <= position, "{kept:?} {position:?}");
    assert_eq!(world.sum("sum", &["a"]).await, Some(quantity("11")));
}

#[tokio::test]
async fn ids_outlive_their_records() {
    let (world, events) = ten_days().await;
    world.aggregator.delete_before(at(5 * DAY)).await.unwrap();
    let outcomes = world.submit(&events[..1]).await.unwrap();
    assert!(matches!(outcomes[0], Outcome::Duplicate(_)));
    let mut other = events[0].clone();
    other.data = r#"{"v":2}"#.to_owned();
    let outcomes = world.submit(&[other]).await.unwrap();
    assert!(matches!(outcomes[0], Outcome::Conflict(_)));
    let void = |event: &Event| {
        world
            .aggregator
            .correct(event.name(), Correction::Void, at(10 * DAY))
    };
    assert_eq!(void(&events[0]).await.unwrap_err().code, Code::TooOld);
    assert!(void(&events[9]).await.unwrap().is_some());
    let found = world.aggregator.lookup(vec![events[0].name()]).await;
    assert_eq!(found.unwrap_err().code, Code::TooOld);
}

#[tokio::test]
async fn a_meter_made_later_says_what_it_lacks_also_after_a_crash() {
    let (mut world, _) = ten_days().await;
    world.aggregator.delete_before(at(5 * DAY)).await.unwrap();
    let meters = [
        meter(1, "sum", Aggregation::Sum),
        meter(2, "weighted", Aggregation::TimeWeightedSum),
        meter(3, "late", Aggregation::Sum),
    ];
    world.declare(&meters);
    assert_eq!(world.sum("late", &["a"]).await, Some(quantity("5")));
    let lacks = |world: &World, meter: &str| world.aggregator.backfill(TENANT, meter).unwrap().lacks_before;
    assert_eq!(lacks(&world, "late"), Some(at(5 * DAY)));
    assert_eq!(lacks(&world, "sum"), None);
    for crash in 0..2 {
        let event = Event::new(format!("then-{crash}"), "a", 9 * DAY, r#"{"v":1}"#);
        world.submit(&[event]).await.unwrap();
        world.aggregator.shutdown().await.unwrap();
        world.crash();
        assert_eq!(lacks(&world, "late"), Some(at(5 * DAY)), "crash {crash}");
        assert_eq!(lacks(&world, "sum"), None);
    }
    assert_eq!(world.sum("late", &["a"]).await, Some(quantity("7")));
}

#[tokio::test]
async fn a_start_refuses_views_and_a_log_that_do_not_meet() {
    let (mut world, _) = ten_days().await;
    world.aggregator.shutdown().await.unwrap();
    let start = |world: &World| {
        let started = turnpike_aggregator::Aggregator::start(world.parts(world.shared_views()));
        started.err().map(|problem| problem.detail)
    };
    assert_eq!(start(&world), None);
    let whole = world.log.clone();
    world.log = std::sync::Arc::new(turnpike_stores::memory::MemoryLog::new());
    let told = start(&world).unwrap();
    let newest = world.views.iter().map(|views| views.position().offset());
    assert!(
        told.contains("the log ends at offset 64") && newest.clone().any(|at| told.contains(&at.to_string())),
        "{told}"
    );
    whole.retain(world.views[0].position(), at(DAY)).unwrap();
    world.log = whole;
    for views in &mut world.views {
        *views = std::sync::Arc::new(turnpike_stores::memory::MemoryViews::new(
            turnpike_aggregator::rows::merge(),
        ));
    }
    let told = start(&world).unwrap();
    assert!(told.contains("deleted by retention"), "{told}");
}

/// One pass serves many sums, each at its own watermark; one that lies behind the log's end is told, not waited for.
#[tokio::test]
async fn one_pass_over_the_log_serves_sums_at_many_watermarks() {
    let (world, _) = ten_days().await;
    let all = || vec![request("sum", &["a", "b"], range(0, 20 * DAY))];
    let mut derivations = Vec::new();
    for day in 10..14 {
        let totals = world.aggregator.totals(TENANT, all(), None).await.unwrap();
        derivations.push((
            totals.clone(),
            Derivation {
                tenant: TENANT,
                requests: all(),
                watermark: totals.watermark,
            },
        ));
        let event = Event::new(day, "a", day * DAY, r#"{"v":1}"#);
        world.submit(&[event]).await.unwrap();
    }
    let (expected, mut asked): (Vec<_>, Vec<_>) = derivations.into_iter().unzip();
    let mut beyond = asked[0].clone();
    beyond.watermark.0[0] = Position(u64::MAX);
    asked.insert(2, beyond);
    let mut unknown = asked[0].clone();
    unknown.requests[0].meter = "none".to_owned();
    asked.push(unknown);
    let mut found = world.aggregator.totals_from_log(asked).await.unwrap();
    let refused = (found.pop().unwrap(), found.remove(2));
    assert!(matches!(refused.0, Err(Underivable::Invalid(_))), "{refused:?}");
    assert_eq!(refused.1, Err(Underivable::BehindTheEnd(world.log.end())));
    assert_eq!(found, expected.into_iter().map(Ok).collect::<Vec<_>>());
    let sums: Vec<_> = found
        .into_iter()
        .map(|totals| totals.unwrap().rows[0][0].value)
        .collect();
    assert_eq!(sums, ["10", "11", "12", "13"].map(|sum| Some(quantity(sum))));
}
