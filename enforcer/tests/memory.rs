//! What the engine keeps in memory: bounded by who asks now, whoever asked before.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use support::{TENANT, World, at};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::Clock as _;
use turnpike_enforcer::Held;

/// Long enough without a question for all to be dropped.
const IDLE_S: i64 = 1_000;

const NOTHING: Held = Held {
    entries: 0,
    rows: 0,
    tracks: 0,
    places: 0,
};

async fn world() -> World {
    let world = World::new().await;
    world.metered(json!([{"limit": "100", "period": "month"}]));
    world
}

async fn forget(world: &World) {
    world.clock.pass_s(IDLE_S);
    world.enforcer.tick().await.unwrap();
}

#[tokio::test]
async fn what_nobody_asks_for_is_dropped_and_made_again_from_usage() {
    let world = world().await;
    world.put_customer("child", json!({"parent": "acme"}));
    world.consume("a", "acme", "7").await;
    world.consume("b", "child", "1").await;
    let held = world.enforcer.held();
    assert_eq!(
        (held.entries, held.tracks, held.places),
        (2, 1, 2),
        "the child counts on its parent's track"
    );
    world.clock.pass_s(IDLE_S / 2);
    world.enforcer.tick().await.unwrap();
    assert_eq!(world.enforcer.held(), held, "not idle long enough");
    forget(&world).await;
    assert_eq!(world.enforcer.held(), NOTHING);
    // Told to nobody in between, and there again.
    world.log.tokens("acme", at("2026-01-10T12:05:00Z"), 2);
    assert_eq!(world.figures("acme").await, ["10", "0", "90"]);
    assert_eq!(world.enforcer.held().tracks, 1);
}

#[tokio::test]
async fn rows_go_with_what_nobody_asks_for_and_those_in_use_keep_their_entries() {
    let world = world().await;
    world.check("acme", "tokens", "0").await;
    let ask = || {
        let now = world.clock.machine_now();
        world
            .enforcer
            .decide(TENANT, "acme", "tokens", Quantity::ONE, now)
    };
    for _ in 0..4 {
        assert!(ask().is_some());
        assert_eq!(world.enforcer.held().rows, 1);
        world.clock.pass_s(IDLE_S / 2);
        world.enforcer.tick().await.unwrap();
        assert_eq!(world.enforcer.held().entries, 1);
    }
    forget(&world).await;
    assert_eq!(world.enforcer.held(), NOTHING);
    assert!(ask().is_none());
}

#[tokio::test]
async fn what_holds_something_stays() {
    let world = world().await;
    world.reserve("r", "acme", "40", 7_200).await;
    forget(&world).await;
    forget(&world).await;
    assert_eq!(world.enforcer.held().tracks, 1);
    assert_eq!(world.enforcer.held().places, 1);
    assert_eq!(world.figures("acme").await, ["0", "40", "60"]);
    world.release("r").await;
    forget(&world).await;
    assert_eq!(world.enforcer.held(), NOTHING);
}

#[tokio::test]
async fn moves_are_seen_by_those_that_are_left_after_others_were_dropped() {
    let world = world().await;
    world.put_customer("child", json!({"parent": "acme"}));
    world.put_customer("alone", json!({}));
    world.subscribe("alone", "pro", &[]);
    world.log.tokens("child", at("2026-01-09T00:00:00Z"), 5);
    world.check("alone", "tokens", "1").await;
    assert_eq!(world.figures("acme").await[0], "5");
    for _ in 0..4 {
        world.clock.pass_s(IDLE_S / 2);
        world.figures("acme").await;
        world.enforcer.tick().await.unwrap();
    }
    assert_eq!(
        world.enforcer.held().places,
        2,
        "the child's place is still needed"
    );
    world.put_customer("child", json!({"parent": null}));
    assert_eq!(world.figures("acme").await[0], "0");
}

#[tokio::test]
async fn unknown_customers_and_features_leave_nothing_behind() {
    let world = world().await;
    for number in 0..2_000 {
        let unknown = json!({"customer": format!("nobody-{number}"), "feature": "tokens"});
        assert_eq!(world.post("/v1/quota/check", unknown).await.0, 404);
        let unknown = json!({"customer": "acme", "feature": format!("nothing-{number}")});
        assert_eq!(world.post("/v1/quota/check", unknown).await.0, 404);
    }
    assert_eq!(world.enforcer.held(), NOTHING);
}

/// Asks on of one customer while hundreds of new ones come: nobody waits long, and when the flood is over nothing of it
/// is kept. The bound on a question is far above what one takes, and far below the time of the whole flood.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_new_customers_blocks_nobody_and_is_forgotten() {
    const NEW: usize = 300;
    let world = Arc::new(world().await);
    for number in 0..NEW {
        world.put_customer(&format!("new-{number}"), json!({}));
        world.subscribe(&format!("new-{number}"), "pro", &[]);
    }
    world.check("acme", "tokens", "1").await;
    let flood = {
        let world = world.clone();
        tokio::spawn(async move {
            for number in 0..NEW {
                world.check(&format!("new-{number}"), "tokens", "1").await;
            }
        })
    };
    let mut asked = 0;
    while !flood.is_finished() {
        let question = world.enforcer.handle(TENANT, "acme", "tokens");
        let answered = tokio::time::timeout(Duration::from_secs(1), question).await;
        answered.expect("an answer beside the flood").unwrap();
        asked += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    flood.await.unwrap();
    assert!(asked > 10, "asked only {asked} times beside the flood");
    let held = world.enforcer.held();
    assert_eq!(
        (held.entries, held.tracks, held.places),
        (NEW + 1, NEW + 1, NEW + 1)
    );
    forget(&world).await;
    assert_eq!(world.enforcer.held(), NOTHING);
}
