//! What is used beyond limits and grants: no grant that comes later gives it again.

use serde_json::{Value, json};
use turnpike_domain::port::directory::DirectoryChange;

use crate::grants::balances_of;
use crate::support::{TENANT, World, at};
use crate::texts;

fn month(limit: &str, mode: &str) -> Value {
    let mut limit = json!({"limit": limit, "period": "month", "mode": mode});
    if mode == "soft" {
        limit["grace_percent"] = "10".into();
    }
    json!([limit])
}

async fn a_hundred_and_one_a_day(mode: &str) -> World {
    let world = World::new().await;
    world.metered(month("100", mode));
    world.put_grant("acme", json!({"id": "g", "feature": "tokens", "amount": "1", "recurrence": "day", "effective_at": "2026-01-10T00:00:00Z"}));
    world
}

async fn told(world: &World) -> [String; 4] {
    let (_, list, _) = world.call("GET", "/v1/customers/acme/entitlements", None).await;
    let texts = texts(&list["data"][0], &["limit", "used", "remaining", "overage"]);
    [0, 1, 2, 3].map(|at| texts[at].to_owned())
}

/// Consumes one by one until it is refused; says how much that was.
async fn consume_all(world: &World, name: &str) -> usize {
    let mut granted = 0;
    while world.consume(&format!("{name}{granted}"), "acme", "1").await["allowed"] == true {
        granted += 1;
        assert!(granted < 1_000, "no end");
    }
    granted
}

#[tokio::test]
async fn a_grace_is_given_once_however_often_a_grant_is_given() {
    let mut world = a_hundred_and_one_a_day("soft").await;
    let mut used = consume_all(&world, "d10-").await;
    assert_eq!(used, 111);
    for day in 11..16 {
        world.clock.set(&format!("2026-01-{day}T12:00:00Z"));
        used += consume_all(&world, &format!("d{day}-")).await;
        assert_eq!(used, 111 + day - 10);
        let limit = (91 + day).to_string();
        assert_eq!(told(&world).await, [&limit, &used.to_string(), "0", "10"]);
        world = world.restart().await;
    }
    world.clock.set("2026-02-01T00:00:00Z");
    assert_eq!(consume_all(&world, "february-").await, 111);
}

#[tokio::test]
async fn what_nothing_covers_stays_beyond_the_limit_when_a_grant_is_given_again() {
    for mode in ["overage", "hard"] {
        let world = a_hundred_and_one_a_day(mode).await;
        world.log.tokens("acme", at("2026-01-10T11:00:00Z"), 200);
        assert_eq!(told(&world).await, ["101", "200", "0", "99"], "{mode}");
        world.clock.set("2026-01-11T12:00:00Z");
        assert_eq!(told(&world).await, ["102", "200", "0", "98"], "{mode}");
    }
}

#[tokio::test]
async fn a_grant_that_begins_behind_a_grace_raises_by_what_it_gives() {
    let world = World::new().await;
    world.metered(month("100", "soft"));
    assert_eq!(consume_all(&world, "a").await, 110);
    for (day, limit) in [("11", "101"), ("12", "102")] {
        world.clock.set(&format!("2026-01-{day}T12:00:00Z"));
        let start = format!("2026-01-{day}T12:00:00Z");
        world.put_grant(
            "acme",
            json!({"id": day, "feature": "tokens", "amount": "1", "effective_at": start}),
        );
        assert_eq!(consume_all(&world, day).await, 1);
        assert_eq!(told(&world).await[0], limit);
    }
}

/// A thousand a month and a grant of five, and in this minute ten a month instead.
async fn lowered_to_ten(used: &str) -> World {
    let world = World::new().await;
    world.metered(month("1000", "hard"));
    world.put_grant(
        "acme",
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z"}),
    );
    world.clock.set("2026-01-10T12:00:20Z");
    assert_eq!(world.consume("before", "acme", used).await["allowed"], true);
    world.put_override(
        "acme",
        json!({"feature": "tokens", "limits": month("10", "hard")}),
    );
    world
}

#[tokio::test]
async fn other_changes_in_the_minute_of_a_lower_limit_raise_nothing() {
    for (used, more) in [("1", 14), ("30", 5)] {
        let world = lowered_to_ten(used).await;
        let mut granted = 0;
        for n in 0..8 {
            granted += consume_all(&world, &format!("c{n}-")).await;
            world.put_customer(&format!("other{n}"), json!({}));
            world.put_grant(
                "acme",
                json!({"id": format!("none{n}"), "feature": "else", "amount": "1"}),
            );
        }
        assert_eq!(granted, more, "{used} used before");
    }
}

#[tokio::test]
async fn what_is_taken_back_in_the_minute_of_a_lower_limit_lowers_it() {
    let world = lowered_to_ten("30").await;
    assert_eq!(told(&world).await, ["35", "30", "5", "0"]);
    world.log.tokens("acme", at("2026-01-10T12:00:20Z"), -30);
    assert_eq!(told(&world).await, ["15", "0", "15", "0"]);
    assert_eq!(balances_of(&world, "acme").await, ["5"]);
}

#[tokio::test]
async fn no_option_is_named_that_does_not_help() {
    let world = World::new().await;
    world.metered(month("10", "soft"));
    for (plan, limit) in [("less", "2"), ("same", "10"), ("more", "11")] {
        world.put_plan(
            plan,
            json!([{"feature": "tokens", "limits": month(limit, "soft")}]),
        );
    }
    let burst = json!([{"feature": "tokens", "limits": [{"limit": "100", "period": "minute"}]}]);
    world.put_add_on("burst", burst);
    for grant in [None, Some("1")] {
        if let Some(amount) = grant {
            world.clock.set("2026-01-10T12:05:00Z");
            world.put_grant("acme", json!({"id": "g", "feature": "tokens", "amount": amount, "effective_at": "2026-01-10T12:05:00Z"}));
        }
        consume_all(&world, grant.unwrap_or("none")).await;
        let answer = world.check("acme", "tokens", "1").await;
        let options = answer["upgrade_options"].as_array().unwrap();
        let keys: Vec<_> = options.iter().map(|one| one["key"].as_str().unwrap()).collect();
        assert_eq!(keys, ["more"], "{grant:?}");
    }
}

#[tokio::test]
async fn what_grants_alone_covered_is_not_held_against_an_option() {
    let world = World::new().await;
    world.metered(month("1", "hard"));
    for (plan, limit) in [("three", "3"), ("four", "4")] {
        world.put_plan(
            plan,
            json!([{"feature": "tokens", "limits": month(limit, "hard")}]),
        );
    }
    world.put_customer("prepaid", json!({}));
    world.put_grant(
        "prepaid",
        json!({"id": "g", "feature": "tokens", "amount": "9", "effective_at": "2025-12-03T00:00:00Z"}),
    );
    // Four of the nine in December, five in January, and one beyond.
    world.log.tokens("prepaid", at("2025-12-20T00:00:00Z"), 4);
    world.log.tokens("prepaid", at("2026-01-05T00:00:00Z"), 6);
    let named = async |amount: &str| {
        let answer = world.check("prepaid", "tokens", amount).await;
        let options = answer["upgrade_options"].as_array().unwrap().clone();
        let keys = options.iter().map(|one| one["key"].as_str().unwrap().to_owned());
        keys.collect::<Vec<_>>()
    };
    assert_eq!(named("2").await, ["four", "three"]);
    assert_eq!(named("3").await, ["four"]);
    assert_eq!(named("4").await, [""; 0]);
    world.clock.set("2026-01-10T12:05:00Z");
    world.subscribe("prepaid", "three", &[]);
    let start = |s: &mut turnpike_domain::catalog::Subscription| s.start = at("2026-01-10T12:05:00Z");
    world.directory.edit_subscription("prepaid", start);
    world.told(DirectoryChange::Customer(TENANT, "prepaid".to_owned()));
    assert_eq!(world.consume("a", "prepaid", "2").await["allowed"], true);
    assert_eq!(world.consume("b", "prepaid", "1").await["allowed"], false);
}
