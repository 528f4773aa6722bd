//! Grants: how they raise limits, and what is left of them.

use serde_json::{Value, json};
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
    // Two of the grant were drawn on the fifth; the month counts all that it used.
    let answer = world.check("acme", "tokens", "0").await;
    assert_eq!(
        texts(&answer, &["limit", "used", "remaining"]),
        ["103", "22", "81"]
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
    // 14 of 10: four of the grant are gone, whatever plan comes next.
    world.consume("a", "acme", "14").await;
    assert_eq!(named(&world, "2").await, ["twenty"]);
    assert_eq!(named(&world, "7").await, ["twenty"]);
    assert_eq!(named(&world, "8").await, [""; 0]);
    // And what is named keeps its word.
    world.clock.set("2026-01-10T12:05:00Z");
    world.directory.edit_subscription("acme", |s| {
        let mut phase = s.first.clone();
        (phase.plan, phase.from) = ("twenty".to_owned(), at("2026-01-10T12:05:00Z"));
        s.later.push(phase);
    });
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
    assert_eq!(world.consume("b", "acme", "7").await["allowed"], true);
    assert_eq!(world.consume("c", "acme", "1").await["allowed"], false);
}
