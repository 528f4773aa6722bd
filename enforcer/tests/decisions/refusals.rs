//! What cannot be asked, and what a refusal tells.

use serde_json::{Value, json};

use crate::support::{World, at};

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn what_cannot_be_asked_is_refused_with_a_pointer() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day"}]));
    world.put_feature("calls", json!({"kind": "metered", "meter": "calls"}));
    let consume = "/v1/quota/consume";
    for (path, body, status, pointer) in [
        (
            "/v1/quota/check",
            json!({"customer": "nobody", "feature": "tokens"}),
            404,
            Value::Null,
        ),
        (
            "/v1/quota/check",
            json!({"customer": "acme", "feature": "nothing"}),
            404,
            Value::Null,
        ),
        (
            "/v1/quota/check",
            json!({"customer": "acme", "feature": "tokens", "amount": "-1"}),
            422,
            json!("/amount"),
        ),
        (
            "/v1/quota/check",
            json!({"customer": "acme", "feature": "tokens", "amount": "0.0000000000001"}),
            422,
            json!("/amount"),
        ),
        (
            "/v1/quota/check",
            json!({"customer": "acme", "feature": "tokens", "amount": "1e40"}),
            422,
            json!("/amount"),
        ),
        (
            "/v1/quota/check",
            json!({"customer": "acme", "feature": "tokens", "size": "1"}),
            422,
            json!("/size"),
        ),
        (
            "/v1/quota/check?status=odd",
            json!({"customer": "acme", "feature": "tokens"}),
            422,
            json!("/status"),
        ),
        (
            consume,
            json!({"id": "", "customer": "acme", "feature": "tokens"}),
            422,
            json!("/id"),
        ),
        (
            consume,
            json!({"id": "x".repeat(513), "customer": "acme", "feature": "tokens"}),
            422,
            json!("/id"),
        ),
        (
            consume,
            json!({"id": "1", "customer": "acme", "feature": "tokens", "amount": "0"}),
            422,
            json!("/amount"),
        ),
        (
            consume,
            json!({"id": "1", "customer": "acme", "feature": "tokens", "properties": [1]}),
            422,
            json!("/properties"),
        ),
        (
            consume,
            json!({"id": "1", "customer": "acme", "feature": "calls", "amount": "2"}),
            422,
            json!("/amount"),
        ),
        (
            "/v1/quota/reservations",
            json!({"id": "1", "customer": "acme", "feature": "tokens", "ttl_s": 0}),
            422,
            json!("/ttl_s"),
        ),
        (
            "/v1/quota/reservations",
            json!({"id": "1", "customer": "acme", "feature": "tokens", "ttl_s": 86_401}),
            422,
            json!("/ttl_s"),
        ),
        ("/v1/quota/reservations/none/commit", json!({}), 404, Value::Null),
    ] {
        let (answered, problem) = world.post(path, body.clone()).await;
        assert_eq!(
            (answered.as_u16(), &problem["errors"][0]["pointer"]),
            (status, &pointer),
            "{path} {body} {problem}"
        );
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(70), "]".repeat(70));
    let body: Value = serde_json::from_str(&format!(
        r#"{{"id":"1","customer":"acme","feature":"tokens","properties":{deep}}}"#
    ))
    .unwrap();
    let (status, problem) = world.post(consume, body).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("too_deep")));
    assert_eq!(world.log.granted().len(), 0);
}

#[tokio::test]
async fn a_strict_refusal_is_429_with_headers() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10.5", "period": "hour"}, {"limit": "100", "period": "ever"}]));
    world.clock.set("2026-01-10T12:59:30.5Z");
    let body = |amount: &str| Some(json!({"customer": "acme", "feature": "tokens", "amount": amount}));
    let (status, _, headers) = world
        .call("POST", "/v1/quota/check?status=strict", body("4"))
        .await;
    assert_eq!((status.as_u16(), headers.get("retry-after")), (200, None));
    assert_eq!(
        headers["ratelimit-policy"],
        r#""hour-hard";q=10;w=3600, "ever-hard";q=100"#
    );
    assert_eq!(
        headers["ratelimit"],
        r#""hour-hard";r=10;t=30, "ever-hard";r=100"#
    );
    // More than the whole limit is refused after its reset as well.
    let (_, answer, headers) = world
        .call("POST", "/v1/quota/check?status=strict", body("11"))
        .await;
    assert_eq!(
        (&answer["retryable"], &headers["retry-after"]),
        (&json!(false), &"3600".parse().unwrap())
    );
    world.consume("a", "acme", "1").await;
    let (status, answer, headers) = world
        .call("POST", "/v1/quota/check?status=strict", body("10"))
        .await;
    assert_eq!(
        (status.as_u16(), &headers["retry-after"]),
        (429, &"30".parse().unwrap())
    );
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(
        (&answer["code"], &answer["retryable"], &answer["request_id"]),
        (&json!("quota_refused"), &json!(true), &json!("request"))
    );
    assert_eq!(
        (&answer["allowed"], &answer["reason"], &answer["limit"]),
        (&json!(false), &json!("limit_reached"), &json!("10.5"))
    );
}

#[tokio::test]
async fn a_refusal_that_no_waiting_heals_is_not_retryable() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "hour"}, {"limit": "100", "period": "ever"}]));
    world.put_customer("nobody", json!({}));
    world.consume("a", "acme", "1").await;
    for (customer, amount, reason, retryable) in [
        ("acme", "10", "limit_reached", true),
        ("acme", "11", "limit_reached", false),
        ("acme", "101", "limit_reached", false),
        ("nobody", "1", "no_subscription", false),
    ] {
        let body = json!({"customer": customer, "feature": "tokens", "amount": amount});
        let path = "/v1/quota/check?status=strict";
        let (status, answer, headers) = world.call("POST", path, Some(body)).await;
        assert_eq!(
            (status.as_u16(), &answer["reason"], &answer["retryable"]),
            (429, &json!(reason), &json!(retryable)),
            "{customer} {amount}"
        );
        assert!(headers.contains_key("retry-after"), "every 429 has one");
    }
}

#[tokio::test]
async fn a_refusal_beyond_used_up_grants_is_retryable_where_they_are_given_again() {
    for (recurrence, expires, retryable) in [
        (json!(null), json!(null), [true, true, false]),
        (json!(null), json!("2026-02-01T00:00:00Z"), [true, false, false]),
        (json!("month"), json!(null), [true, true, true]),
    ] {
        let world = World::new().await;
        world.metered(json!([{"limit": "10", "period": "month"}]));
        world.put_grant("acme", json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z", "recurrence": recurrence, "expires_at": expires}));
        // Two of the grant are drawn: a later month has ten, and the other three where the grant lasts.
        world.consume("a", "acme", "12").await;
        for (amount, retryable) in ["10", "13", "15"].into_iter().zip(retryable) {
            let body = json!({"customer": "acme", "feature": "tokens", "amount": amount});
            let path = "/v1/quota/check?status=strict";
            let (_, answer, _) = world.call("POST", path, Some(body)).await;
            assert_eq!(answer["retryable"], retryable, "{amount} {recurrence} {expires}");
        }
    }
}

/// `retryable` and the seconds of `Retry-After` that a refusal of `amount` tells, with when its limit resets.
async fn waiting(world: &World, amount: &str) -> (bool, String, Value) {
    let body = json!({"customer": "acme", "feature": "tokens", "amount": amount});
    let path = "/v1/quota/check?status=strict";
    let (status, answer, headers) = world.call("POST", path, Some(body)).await;
    assert_eq!(status.as_u16(), 429, "{answer}");
    let seconds = headers["retry-after"].to_str().unwrap().to_owned();
    (answer["retryable"] == true, seconds, answer["resets_at"].clone())
}

fn daily(rollover: &Value, expires: &Value) -> Value {
    json!({"id": "g", "feature": "tokens", "amount": "10", "effective_at": "2026-01-03T00:00:00Z", "recurrence": "day", "rollover_max": rollover, "expires_at": expires})
}

/// A day has 86,400 seconds; it is noon.
#[tokio::test]
async fn a_refusal_waits_for_the_grant_that_is_given_again_where_that_is_earlier() {
    let (none, noon) = (json!(null), 43_200);
    for (rollover, expires, amount, wait) in [
        (&none, &none, "1", Some(noon)),
        (&none, &none, "10", Some(noon)),
        (&none, &none, "11", None),
        (&json!("15"), &none, "11", Some(noon + 86_400)),
        (&json!("15"), &none, "25", Some(noon + 2 * 86_400)),
        (&json!("15"), &none, "26", None),
        (&json!("15"), &json!("2026-01-12T00:00:00Z"), "10", Some(noon)),
        (&json!("15"), &json!("2026-01-12T00:00:00Z"), "11", None),
    ] {
        let world = World::new().await;
        world.metered(json!([{"limit": "10", "period": "month"}]));
        world
            .directory
            .edit_subscription("acme", |s| s.start = at("2026-03-01T00:00:00Z"));
        world.put_grant("acme", daily(rollover, expires));
        world.clock.set("2026-01-10T12:00:00Z");
        // All that there is, and two beyond it: with nothing but grants these are held against no later one.
        let there = if rollover.is_null() { "10" } else { "25" };
        assert_eq!(
            world.consume("a", "acme", there).await["allowed"],
            true,
            "{amount}"
        );
        world.log.tokens("acme", at("2026-01-10T12:00:00Z"), 2);
        let told = waiting(&world, amount).await;
        let seconds = wait.unwrap_or(3_600);
        assert_eq!(
            told,
            (wait.is_some(), seconds.to_string(), json!(null)),
            "{amount} {rollover} {expires}"
        );
        if wait.is_some() {
            world.clock.pass_s(seconds - 1);
            assert_eq!(
                world.check("acme", "tokens", amount).await["allowed"],
                false,
                "{amount}"
            );
            world.clock.pass_s(1);
            assert_eq!(
                world.check("acme", "tokens", amount).await["allowed"],
                true,
                "{amount}"
            );
        }
    }
}

#[tokio::test]
async fn a_refusal_names_the_earlier_of_the_reset_and_the_grant_that_is_given_again() {
    let world = World::new().await;
    world.metered(json!([{"limit": "20", "period": "month"}]));
    world.put_grant("acme", daily(&json!(null), &json!(null)));
    world.clock.set("2026-01-10T12:00:00Z");
    assert_eq!(world.consume("a", "acme", "30").await["allowed"], true);
    let reset = json!("2026-02-01T00:00:00Z");
    // Two events beyond everything stand against the month till it ends.
    world.log.tokens("acme", at("2026-01-10T12:00:00Z"), 2);
    let month_s = (21 * 86_400 + 43_200).to_string();
    assert_eq!(
        waiting(&world, "8").await,
        (true, "43200".to_owned(), reset.clone())
    );
    assert_eq!(waiting(&world, "9").await, (true, month_s.clone(), reset.clone()));
    assert_eq!(waiting(&world, "30").await, (true, month_s, reset.clone()));
    assert_eq!(waiting(&world, "31").await, (false, "3600".to_owned(), reset));
    world.clock.set("2026-01-11T00:00:00Z");
    assert_eq!(world.check("acme", "tokens", "9").await["allowed"], false);
    assert_eq!(world.check("acme", "tokens", "8").await["allowed"], true);
}

#[tokio::test]
async fn a_refusal_names_what_would_allow_it() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    let entitlement =
        |limit: &str| json!([{"feature": "tokens", "limits": [{"limit": limit, "period": "month"}]}]);
    world.put_plan("big", entitlement("100"));
    world.put_plan("small", entitlement("11"));
    world.put_plan("other", json!([{"feature": "else"}]));
    world.put_add_on("more", entitlement("5"));
    world.put_add_on("less", entitlement("1"));
    world.consume("a", "acme", "9").await;
    let named = async |world: &World, amount: &str| {
        let answer = world.check("acme", "tokens", amount).await;
        let options = answer["upgrade_options"].as_array().cloned().unwrap_or_default();
        options
            .iter()
            .map(|o| o["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(named(&world, "2").await, ["big", "small", "less", "more"]);
    assert_eq!(named(&world, "4").await, ["big", "more"]);
    assert_eq!(named(&world, "200").await, [""; 0]);
    assert_eq!(
        named(&world, "1").await,
        [""; 0],
        "nothing is named where it is granted"
    );
    world.log.tokens("acme", at("2026-01-10T11:00:00Z"), 90);
    assert_eq!(named(&world, "1").await, ["big"]);
    world.put_customer("new", json!({}));
    let answer = world.check("new", "tokens", "20").await;
    assert_eq!(
        (&answer["reason"], &answer["upgrade_options"][0]["key"]),
        (&json!("no_subscription"), &json!("big"))
    );
}

/// What a refusal of `amount` names: keys, and for whom.
async fn named(world: &World, customer: &str, amount: &str) -> Vec<(String, String)> {
    let answer = world.check(customer, "tokens", amount).await;
    assert_eq!(answer["allowed"], false, "{answer}");
    let text = |option: &Value, member: &str| option[member].as_str().unwrap().to_owned();
    let options = answer["upgrade_options"].as_array().unwrap().iter();
    options
        .map(|option| (text(option, "key"), text(option, "customer")))
        .collect()
}

fn for_customer(customer: &str, keys: &[&str]) -> Vec<(String, String)> {
    let named = keys.iter().map(|key| ((*key).to_owned(), customer.to_owned()));
    named.collect()
}

fn day(limit: &str) -> Value {
    json!([{"feature": "tokens", "limits": [{"limit": limit, "period": "day"}]}])
}

#[tokio::test]
async fn what_would_help_is_found_anew_when_its_windows_end() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    for period in ["minute", "second"] {
        let limits = json!([{"limit": "20", "period": period}]);
        world.put_plan(period, json!([{"feature": "tokens", "limits": limits}]));
    }
    world.consume("a", "acme", "10").await;
    assert_eq!(named(&world, "acme", "11").await, []);
    world.clock.pass_s(1);
    assert_eq!(
        named(&world, "acme", "11").await,
        for_customer("acme", &["second"])
    );
    world.clock.pass_s(59);
    let both = for_customer("acme", &["minute", "second"]);
    assert_eq!(named(&world, "acme", "11").await, both);
    // What comes meanwhile counts in the new windows.
    world.log.tokens("acme", at("2026-01-10T12:01:00Z"), 10);
    assert_eq!(named(&world, "acme", "11").await, []);
    world.clock.pass_s(61);
    assert_eq!(named(&world, "acme", "11").await, both);
}

/// `acme` above `kid`, and plans of ten and of a hundred a day.
async fn above() -> World {
    let world = World::new().await;
    world.put_feature("tokens", json!({"kind": "metered", "meter": "tokens"}));
    world.put_plan("p", day("10"));
    world.put_plan("q", day("100"));
    world.put_plan("without", json!([]));
    world.put_customer("acme", json!({}));
    world.put_customer("kid", json!({"parent": "acme"}));
    world
}

#[tokio::test]
async fn nothing_is_named_where_an_override_takes_the_feature_away() {
    let revoked = json!({"feature": "tokens", "revoked": true});
    let world = above().await;
    world.put_override("acme", revoked.clone());
    assert_eq!(named(&world, "kid", "1").await, [], "above");
    world.subscribe("kid", "q", &[]);
    assert_eq!(named(&world, "kid", "1").await, []);
    let world = above().await;
    world.subscribe("acme", "p", &[]);
    world.put_override("kid", revoked);
    assert_eq!(named(&world, "kid", "1").await, [], "its own");
}

#[tokio::test]
async fn nothing_is_named_that_another_customer_would_refuse() {
    let world = above().await;
    world.subscribe("acme", "p", &[]);
    world.subscribe("kid", "without", &[]);
    assert_eq!(named(&world, "kid", "1").await, for_customer("kid", &["p", "q"]));
    assert_eq!(named(&world, "kid", "11").await, [], "ten are left above");
    world.put_grant("acme", json!({"id": "g", "feature": "tokens", "amount": "5"}));
    assert_eq!(named(&world, "kid", "11").await, for_customer("kid", &["q"]));
    world.consume("a", "acme", "15").await;
    assert_eq!(named(&world, "kid", "1").await, []);
    world.subscribe("kid", "q", &[]);
    assert_eq!(named(&world, "kid", "1").await, for_customer("acme", &["q"]));
    assert_eq!(named(&world, "kid", "101").await, [], "its own refuses too");
    world.put_override("acme", day("1")[0].clone());
    assert_eq!(named(&world, "kid", "1").await, [], "an override decides above");
}
