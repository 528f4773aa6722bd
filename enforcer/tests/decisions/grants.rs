//! Grants: how they raise limits, and what is left of them.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use turnpike_domain::catalog::{Pause, Subscription};
use turnpike_domain::port::directory::DirectoryChange;

use crate::support::{TENANT, World, at};
use crate::texts;

#[tokio::test]
async fn grants_are_drawn_behind_the_plan_and_last_beyond_its_window() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    world.put_grant(
        "acme",
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z"}),
    );
    let limit = async |world: &World| {
        world.check("acme", "tokens", "0").await["limit"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(limit(&world).await, "15");
    world.consume("a", "acme", "12").await;
    assert_eq!(world.consume("b", "acme", "4").await["allowed"], false);
    world.clock.set("2026-02-10T00:00:00Z");
    assert_eq!(limit(&world).await, "13", "two were drawn in January");
    // A late event of January draws, and its void gives back.
    world.log.tokens("acme", at("2026-01-20T00:00:00Z"), 2);
    assert_eq!(limit(&world).await, "11");
    world.log.tokens("acme", at("2026-01-20T00:00:00Z"), -2);
    assert_eq!(limit(&world).await, "13");
    world.put_customer("prepaid", json!({}));
    world.put_grant("prepaid", json!({"id": "p", "feature": "tokens", "amount": "3", "effective_at": "2026-02-01T00:00:00Z", "expires_at": "2026-02-11T00:00:00Z"}));
    assert_eq!(world.consume("c", "prepaid", "2").await["allowed"], true);
    assert_eq!(
        world.consume("d", "prepaid", "2").await["reason"],
        "limit_reached"
    );
    world.clock.set("2026-02-11T00:00:00Z");
    assert_eq!(
        world.consume("d", "prepaid", "1").await["reason"],
        "no_subscription"
    );
}

#[tokio::test]
async fn the_end_of_a_subscription_draws_nothing_that_it_covered() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    world.put_grant(
        "acme",
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z"}),
    );
    world.log.tokens("acme", at("2025-12-20T00:00:00Z"), 40);
    world.log.tokens("acme", at("2026-01-05T00:00:00Z"), 9);
    world
        .directory
        .edit_subscription("acme", |s| s.ends_at = Some(at("2026-01-11T00:00:00Z")));
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
    world.clock.set("2026-01-12T00:00:00Z");
    assert_eq!(world.figures("acme").await, ["49", "0", "5"]);
    assert_eq!(world.consume("a", "acme", "3").await["allowed"], true);
    assert_eq!(world.figures("acme").await, ["52", "0", "2"]);
    assert_eq!(world.consume("b", "acme", "3").await["reason"], "limit_reached");
    // What the plan did not cover was drawn while it ran.
    world.log.tokens("acme", at("2026-01-06T00:00:00Z"), 2);
    assert_eq!(world.figures("acme").await, ["54", "0", "1"]);
}

#[tokio::test]
async fn a_limit_for_ever_ends_with_its_subscription_and_its_grant_stays() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "ever"}]));
    world.put_grant(
        "acme",
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z"}),
    );
    world.consume("a", "acme", "6").await;
    world
        .directory
        .edit_subscription("acme", |s| s.ends_at = Some(at("2026-01-11T00:00:00Z")));
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
    assert_eq!(world.figures("acme").await, ["6", "0", "9"]);
    world.clock.set("2026-01-11T00:00:00Z");
    assert_eq!(
        world.figures("acme").await,
        ["6", "0", "5"],
        "the plan's rest is gone"
    );
    assert_eq!(world.consume("b", "acme", "5").await["allowed"], true);
    assert_eq!(world.consume("c", "acme", "1").await["reason"], "limit_reached");
}

#[tokio::test]
async fn an_upgrade_from_days_to_months_keeps_what_is_left_of_a_grant() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day"}]));
    world.put_plan(
        "big",
        json!([{"feature": "tokens", "limits": [{"limit": "100", "period": "month"}]}]),
    );
    world.put_grant(
        "acme",
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z"}),
    );
    world.log.tokens("acme", at("2026-01-02T00:00:00Z"), 1);
    world.log.tokens("acme", at("2026-01-05T00:00:00Z"), 12);
    world.log.tokens("acme", at("2026-01-06T00:00:00Z"), 9);
    assert_eq!(world.figures("acme").await, ["0", "0", "13"]);
    world.directory.edit_subscription("acme", |s| {
        let mut phase = s.first.clone();
        (phase.plan, phase.from) = ("big".to_owned(), at("2026-01-10T12:00:00Z"));
        s.later.push(phase);
    });
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
    // Two of the grant were drawn on the fifth; the month's limit counts the twenty that it did not cover.
    let answer = world.check("acme", "tokens", "0").await;
    assert_eq!(
        texts(&answer, &["limit", "used", "remaining"]),
        ["105", "22", "83"]
    );
}

#[tokio::test]
async fn entitlements_tell_what_is_left_of_each_grant() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    let grant = |id: &str, expires: Value| json!({"id": id, "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z", "expires_at": expires});
    world.put_grant("acme", grant("open", Value::Null));
    world.put_grant("acme", grant("ending", json!("2026-03-01T00:00:00Z")));
    world.put_grant("acme", grant("over", json!("2026-01-04T00:00:00Z")));
    let grants = async |world: &World| {
        let (_, list, _) = world.call("GET", "/v1/customers/acme/entitlements", None).await;
        let given = list["data"][0]["grants"].as_array().unwrap().clone();
        let told = given
            .iter()
            .map(|one| texts(one, &["id", "customer", "amount", "balance", "expires_at"]).join(" "));
        told.collect::<Vec<_>>()
    };
    assert_eq!(
        grants(&world).await,
        ["ending acme 5 5 2026-03-01T00:00:00Z", "open acme 5 5 null"]
    );
    world.consume("a", "acme", "12").await;
    world.reserve("r", "acme", "4", 60).await;
    assert_eq!(
        grants(&world).await,
        ["ending acme 5 0 2026-03-01T00:00:00Z", "open acme 5 4 null"]
    );
    world.release("r").await;
    world.clock.set("2026-02-02T00:00:00Z");
    assert_eq!(
        grants(&world).await,
        ["ending acme 5 3 2026-03-01T00:00:00Z", "open acme 5 5 null"]
    );
}

#[tokio::test]
async fn what_a_refusal_names_counts_what_is_left_of_grants() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    let plan = |limit: &str| json!([{"feature": "tokens", "limits": [{"limit": limit, "period": "month"}]}]);
    world.put_plan("twelve", plan("12"));
    world.put_plan("twenty", plan("20"));
    world.put_grant(
        "acme",
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z"}),
    );
    let named = async |world: &World, amount: &str| {
        let answer = world.check("acme", "tokens", amount).await;
        assert_eq!(answer["reason"], "limit_reached", "{answer}");
        let options = answer["upgrade_options"].as_array().unwrap().clone();
        let keys = options.iter().map(|one| one["key"].as_str().unwrap().to_owned());
        keys.collect::<Vec<_>>()
    };
    assert_eq!(
        named(&world, "17").await,
        ["twelve", "twenty"],
        "12 and the grant's 5"
    );
    assert_eq!(named(&world, "18").await, ["twenty"]);
    // 14 of 10: four of the grant are gone, and ten count, whatever plan comes next.
    world.consume("a", "acme", "14").await;
    assert_eq!(named(&world, "3").await, ["twelve", "twenty"]);
    assert_eq!(named(&world, "4").await, ["twenty"]);
    assert_eq!(named(&world, "11").await, ["twenty"]);
    assert_eq!(named(&world, "12").await, [""; 0]);
    // And what is named keeps its word.
    world.clock.set("2026-01-10T12:05:00Z");
    world.directory.edit_subscription("acme", |s| {
        let mut phase = s.first.clone();
        (phase.plan, phase.from) = ("twenty".to_owned(), at("2026-01-10T12:05:00Z"));
        s.later.push(phase);
    });
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
    assert_eq!(world.consume("b", "acme", "11").await["allowed"], true);
    assert_eq!(world.consume("c", "acme", "1").await["allowed"], false);
}

/// Grants that recur each hour, a year each, one behind the other.
fn put_hourly_years(world: &World, customer: &str, years: std::ops::Range<i32>) {
    for year in years {
        let (from, until) = (
            format!("{year}-01-01T00:00:00Z"),
            format!("{}-01-01T00:00:00Z", year + 1),
        );
        world.put_grant(customer, json!({"id": format!("h{year}"), "feature": "tokens", "amount": "1", "recurrence": "hour", "effective_at": from, "expires_at": until}));
    }
}

#[tokio::test]
async fn a_long_history_of_grants_neither_fails_nor_is_read_again() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    put_hourly_years(&world, "acme", 2021..2027);
    let parts = |world: &World| world.log.parts.load(Ordering::SeqCst);
    assert_eq!(world.figures("acme").await, ["0", "0", "11"]);
    assert!(
        parts(&world) < 250,
        "{} stretches were read: more than the hours of the month",
        parts(&world)
    );
    // With one that lasts, all hours since decide: they are read once.
    world.put_grant(
        "acme",
        json!({"id": "old", "feature": "tokens", "amount": "100", "effective_at": "2021-01-01T00:00:00Z"}),
    );
    assert_eq!(world.figures("acme").await, ["0", "0", "111"]);
    let read = parts(&world);
    assert!(read > 40_000, "{read}");
    // There was no plan yet: each hour's own grant takes one, and the one that lasts the rest.
    world.log.tokens("acme", at("2022-05-03T10:30:00Z"), 7);
    world.log.tokens("acme", at("2022-05-03T11:30:00Z"), 7);
    assert_eq!(world.figures("acme").await, ["0", "0", "99"], "12 were drawn");
    world.clock.set("2026-01-10T14:00:30Z");
    assert_eq!(world.figures("acme").await, ["0", "0", "99"]);
    assert!(
        parts(&world) - read < 20,
        "{} stretches were read again",
        parts(&world) - read
    );
    let world = world.restart().await;
    assert_eq!(world.figures("acme").await, ["0", "0", "99"]);
}

#[tokio::test]
async fn the_history_of_those_below_shuts_nobody_out() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    for year in 2021..2027 {
        let child = format!("kid{year}");
        world.put_customer(&child, json!({"parent": "acme"}));
        put_hourly_years(&world, &child, year..year + 1);
    }
    assert_eq!(world.figures("kid2021").await, ["0", "0", "11"]);
    assert_eq!(world.consume("a", "kid2022", "11").await["allowed"], true);
    assert_eq!(
        world.consume("b", "kid2026", "1").await["reason"],
        "limit_reached"
    );
}

/// What is left of each grant that raises the limits of a customer.
pub(crate) async fn balances_of(world: &World, customer: &str) -> Vec<String> {
    let path = format!("/v1/customers/{customer}/entitlements");
    let (_, list, _) = world.call("GET", &path, None).await;
    let given = list["data"][0]["grants"].as_array().unwrap().clone();
    given
        .iter()
        .map(|one| one["balance"].as_str().unwrap().to_owned())
        .collect()
}

async fn balances(world: &World) -> Vec<String> {
    balances_of(world, "acme").await
}

async fn ten_and_a_grant_of_five() -> World {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    let grant =
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z"});
    world.put_grant("acme", grant);
    world.clock.set("2026-01-10T12:00:20Z");
    world
}

fn change(world: &World, edit: impl FnOnce(&mut Subscription)) {
    world.directory.edit_subscription("acme", edit);
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
}

#[tokio::test]
async fn a_pause_draws_no_more_than_its_subscription_would() {
    for (used, paused, left) in [("9", 0, "5"), ("12", 0, "3"), ("4", 5, "5"), ("9", 4, "2")] {
        let world = ten_and_a_grant_of_five().await;
        assert_eq!(world.consume("a", "acme", used).await["allowed"], true);
        let from = at("2026-01-10T12:00:00Z");
        change(&world, |s| s.pauses.push(Pause { from, until: None }));
        assert_eq!(world.check("acme", "tokens", "1").await["reason"], "suspended");
        world.clock.set("2026-01-11T12:00:00Z");
        world.log.tokens("acme", at("2026-01-11T11:00:00Z"), paused);
        change(&world, |s| s.pauses[0].until = Some(at("2026-01-11T12:00:00Z")));
        assert_eq!(
            balances(&world).await,
            [left],
            "used {used}, and {paused} in the pause"
        );
        let remaining = 15 - used.parse::<i64>().unwrap() - paused;
        assert_eq!(world.figures("acme").await[2], remaining.to_string());
        world.clock.set("2026-02-02T00:00:00Z");
        assert_eq!(balances(&world).await, [left]);
    }
}

#[tokio::test]
async fn a_cancellation_in_the_minute_of_a_use_draws_nothing_that_was_covered() {
    for (used, left) in [("9", "5"), ("12", "3"), ("15", "0")] {
        let world = ten_and_a_grant_of_five().await;
        assert_eq!(world.consume("a", "acme", used).await["allowed"], true);
        change(&world, |s| s.ends_at = Some(at("2026-01-10T12:00:00Z")));
        assert_eq!(balances(&world).await, [left], "in the minute of its end");
        world.clock.set("2026-01-10T12:01:00Z");
        assert_eq!(world.figures("acme").await[2], left);
        assert_eq!(balances(&world).await, [left]);
        // Nothing but grants: what comes now draws on them.
        world.log.tokens("acme", at("2026-01-10T12:01:00Z"), 2);
        let after = (left.parse::<i64>().unwrap() - 2).max(0).to_string();
        assert_eq!(balances(&world).await, [after]);
    }
}

#[tokio::test]
async fn a_smaller_plan_in_the_minute_of_a_use_draws_nothing_that_was_covered() {
    let world = ten_and_a_grant_of_five().await;
    world.put_plan(
        "small",
        json!([{"feature": "tokens", "limits": [{"limit": "2", "period": "month"}]}]),
    );
    assert_eq!(world.consume("a", "acme", "9").await["allowed"], true);
    change(&world, |s| {
        let mut phase = s.first.clone();
        (phase.plan, phase.from) = ("small".to_owned(), at("2026-01-10T12:00:00Z"));
        s.later.push(phase);
    });
    world.clock.set("2026-01-10T12:05:00Z");
    assert_eq!(world.figures("acme").await, ["9", "0", "5"]);
}

#[tokio::test]
async fn an_override_draws_from_when_it_was_set_and_until_it_was_taken_away() {
    let world = ten_and_a_grant_of_five().await;
    world.log.tokens("acme", at("2026-01-05T00:00:00Z"), 12);
    assert_eq!(balances(&world).await, ["3"]);
    // 20 a month instead: what was drawn before stays drawn.
    let limits = |limit: &str| json!({"feature": "tokens", "limits": [{"limit": limit, "period": "month"}]});
    world.put_override("acme", limits("20"));
    assert_eq!(balances(&world).await, ["3"]);
    world.clock.set("2026-01-11T00:00:00Z");
    assert_eq!(world.consume("a", "acme", "8").await["allowed"], true);
    assert_eq!(balances(&world).await, ["3"], "20 of 20");
    // 1 a month: what the other override covered stays covered, and so it does when none stands.
    world.put_override("acme", limits("1"));
    assert_eq!(balances(&world).await, ["3"]);
    world.clock.set("2026-01-12T00:00:00Z");
    world.remove_override("acme", "tokens");
    assert_eq!(balances(&world).await, ["3"]);
    world.clock.set("2026-01-13T00:00:00Z");
    assert_eq!(world.figures("acme").await, ["20", "0", "3"]);
    assert_eq!(world.consume("b", "acme", "2").await["allowed"], true);
    // A late event of the time of the second override draws beyond its limit.
    world.log.tokens("acme", at("2026-01-11T12:00:00Z"), 1);
    assert_eq!(balances(&world).await, ["0"]);
    world.log.tokens("acme", at("2026-01-11T12:00:00Z"), -1);
    assert_eq!(balances(&world.restart().await).await, ["1"]);
}

#[tokio::test]
async fn what_comes_while_a_feature_is_taken_away_draws_on_nothing() {
    let world = ten_and_a_grant_of_five().await;
    world.put_override("acme", json!({"feature": "tokens", "revoked": true}));
    world.clock.set("2026-01-11T00:00:00Z");
    world.log.tokens("acme", at("2026-01-10T18:00:00Z"), 13);
    world.remove_override("acme", "tokens");
    assert_eq!(world.figures("acme").await, ["13", "0", "5"]);
    assert_eq!(balances(&world).await, ["5"]);
}

#[tokio::test]
async fn what_was_used_of_another_entitlement_draws_nothing_of_the_own_one() {
    let world = World::new().await;
    world.metered(json!([{"limit": "100", "period": "month"}]));
    world.put_customer("team", json!({"parent": "acme"}));
    world.put_grant(
        "team",
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z"}),
    );
    assert_eq!(world.consume("a", "team", "50").await["allowed"], true);
    // From the eleventh on it has ten a day of its own: the fifty were covered.
    world.clock.set("2026-01-11T00:00:00Z");
    world.put_plan(
        "small",
        json!([{"feature": "tokens", "limits": [{"limit": "10", "period": "day"}]}]),
    );
    world.subscribe("team", "small", &[]);
    world
        .directory
        .edit_subscription("team", |s| s.start = at("2026-01-11T00:00:00Z"));
    world.told(DirectoryChange::Customer(TENANT, "team".to_owned()));
    assert_eq!(world.figures("team").await, ["0", "0", "15"]);
    world.clock.set("2026-01-11T00:01:00Z");
    assert_eq!(world.consume("b", "team", "13").await["allowed"], true);
    assert_eq!(world.figures("team").await, ["13", "0", "2"]);
    world.clock.set("2026-01-12T00:00:00Z");
    assert_eq!(world.figures("team").await, ["0", "0", "12"]);
}

#[tokio::test]
async fn a_deleted_grant_gives_nothing_back_that_others_had_drawn() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    let grant =
        |id: &str, from: &str| json!({"id": id, "feature": "tokens", "amount": "5", "effective_at": from});
    world.put_grant("acme", grant("g1", "2026-01-03T00:00:00Z"));
    world.put_grant("acme", grant("g2", "2026-01-03T01:00:00Z"));
    world.consume("a", "acme", "15").await;
    world.clock.pass_s(3_600);
    world.remove_grant("acme", "g2");
    assert_eq!(world.figures("acme").await, ["15", "0", "0"]);
    // Where several had one id and one start, those that were deleted are drawn on before others.
    world.put_grant("acme", grant("g2", "2026-01-03T01:00:00Z"));
    assert_eq!(world.figures("acme").await, ["15", "0", "5"]);
    world.consume("b", "acme", "3").await;
    for (used, n) in [("18", "c"), ("23", "d"), ("28", "e")] {
        world.clock.pass_s(3_600);
        world.remove_grant("acme", "g2");
        assert_eq!(world.figures("acme").await, [used, "0", "0"]);
        world.put_grant("acme", grant("g2", "2026-01-03T01:00:00Z"));
        assert_eq!(world.figures("acme").await, [used, "0", "5"]);
        assert_eq!(world.consume(n, "acme", "5").await["allowed"], true);
    }
}
