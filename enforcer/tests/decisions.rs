//! Every kind of decision through the routes: fields, reasons, windows, levels, grants.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::{Value, json};
use support::{TENANT, World, at};
use turnpike_domain::catalog::Pause;
use turnpike_domain::port::directory::DirectoryChange;

fn texts<'a>(answer: &'a Value, names: &[&str]) -> Vec<&'a str> {
    names
        .iter()
        .map(|name| answer[*name].as_str().unwrap_or("null"))
        .collect()
}

#[tokio::test]
async fn every_field_of_an_answer_is_true() {
    let world = World::new().await;
    world.metered(json!([{"limit": "100", "period": "month"}, {"limit": "30", "period": "day"}]));
    world.log.tokens("acme", at("2026-01-05T00:00:00Z"), 60);
    world.log.tokens("acme", at("2026-01-10T01:00:00Z"), 5);
    let answer = world.check("acme", "tokens", "10").await;
    assert_eq!(answer["allowed"], true);
    let names = [
        "customer",
        "feature",
        "limit",
        "used",
        "reserved",
        "remaining",
        "overage",
        "resets_at",
        "reason",
        "as_of",
        "max_overshoot",
    ];
    assert_eq!(
        texts(&answer, &names),
        [
            "acme",
            "tokens",
            "30",
            "5",
            "0",
            "25",
            "0",
            "2026-01-11T00:00:00Z",
            "within_limit",
            "2026-01-10T12:00:00Z",
            "0"
        ]
    );
    let month = &answer["limits"][0];
    assert_eq!(
        texts(
            month,
            &[
                "customer",
                "period",
                "mode",
                "limit",
                "used",
                "remaining",
                "resets_at"
            ]
        ),
        ["acme", "month", "hard", "100", "65", "35", "2026-02-01T00:00:00Z"]
    );
    // The limit that refuses describes the refusal; where both do, the one that resets last.
    let refused = world.check("acme", "tokens", "26").await;
    assert_eq!(texts(&refused, &["reason", "limit"]), ["limit_reached", "30"]);
    let refused = world.check("acme", "tokens", "36").await;
    assert_eq!(
        texts(&refused, &["reason", "limit", "used"]),
        ["limit_reached", "100", "65"]
    );
    assert_eq!(refused["allowed"], false);
}

#[tokio::test]
async fn consume_records_one_event_and_answers_the_same_again() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    let body = json!({"id": "a", "customer": "acme", "feature": "tokens", "amount": "4", "properties": {"model": "m", "x": 1}});
    let (_, first) = world.post("/v1/quota/consume", body).await;
    assert_eq!(
        texts(&first, &["reason", "used", "reserved", "remaining"]),
        ["within_limit", "4", "0", "6"]
    );
    world.consume("b", "acme", "6").await;
    // Spelling does not matter; the figures are current.
    let body = json!({"id": "a", "customer": "acme", "feature": "tokens", "amount": 4.0, "properties": {"x": 1.0, "model": "m"}});
    let (status, again) = world.post("/v1/quota/consume", body).await;
    assert_eq!((status.as_u16(), &again["allowed"]), (200, &json!(true)));
    assert_eq!(
        texts(&again, &["reason", "used", "remaining"]),
        ["within_limit", "10", "0"]
    );
    let other = json!({"id": "a", "customer": "acme", "feature": "tokens", "amount": "5"});
    let (status, problem) = world.post("/v1/quota/consume", other).await;
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (409, &json!("event_conflict"))
    );
    // A refusal leaves no trace, and is decided anew.
    assert_eq!(world.consume("c", "acme", "1").await["reason"], "limit_reached");
    world.log.tokens("acme", at("2026-01-10T11:00:00Z"), -3);
    assert_eq!(world.consume("c", "acme", "1").await["allowed"], true);
    let granted = world.log.granted();
    assert_eq!(
        granted.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    assert_eq!(granted[0].1, r#"{"model":"m","x":1,"n":"4"}"#);
}

#[tokio::test]
async fn plain_events_count_beyond_a_limit_and_voids_give_back() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day"}]));
    world.consume("a", "acme", "2").await;
    world.log.tokens("acme", at("2026-01-10T11:00:00Z"), 20);
    let answer = world.check("acme", "tokens", "1").await;
    assert_eq!(
        texts(&answer, &["reason", "used", "remaining", "overage"]),
        ["limit_reached", "22", "0", "12"]
    );
    world.log.tokens("acme", at("2026-01-10T11:00:00Z"), -20);
    world.log.tokens("acme", at("2026-01-09T23:59:59Z"), 500);
    assert_eq!(world.figures("acme").await, ["2", "0", "8"]);
}

#[tokio::test]
async fn soft_limits_have_grace_and_overage_has_no_bound() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day", "mode": "soft", "grace_percent": "20"}]));
    world.consume("a", "acme", "9").await;
    let grace = world.consume("b", "acme", "3").await;
    assert_eq!(
        texts(&grace, &["reason", "remaining", "overage"]),
        ["within_grace", "0", "2"]
    );
    assert_eq!(
        world.check("acme", "tokens", "0.000000000001").await["reason"],
        "limit_reached"
    );
    world.put_override(
        "acme",
        json!({"feature": "tokens", "limits": [{"limit": "10", "period": "day", "mode": "overage"}]}),
    );
    let over = world.consume("c", "acme", "100").await;
    assert_eq!(
        texts(&over, &["reason", "used", "overage"]),
        ["overage", "112", "102"]
    );
}

#[tokio::test]
async fn an_unlimited_feature_still_says_what_was_used() {
    let world = World::new().await;
    world.metered(json!([]));
    world.consume("a", "acme", "7").await;
    let answer = world.check("acme", "tokens", "99999999").await;
    assert_eq!(
        texts(&answer, &["reason", "limit", "used", "remaining", "resets_at"]),
        ["unlimited", "null", "7", "null", "2026-02-01T00:00:00Z"]
    );
}

#[tokio::test]
async fn windows_roll_at_their_own_boundaries() {
    let world = World::new().await;
    world.put_feature("tokens", json!({"kind": "metered", "meter": "tokens"}));
    let periods = [
        "second", "minute", "hour", "day", "week", "month", "billing", "ever",
    ];
    let limits: Vec<_> = periods
        .iter()
        .map(|period| json!({"limit": "100", "period": period}))
        .collect();
    world.put_plan("pro", json!([{"feature": "tokens", "limits": limits}]));
    world.put_customer("acme", json!({"timezone": "Europe/Berlin"}));
    world.subscribe("acme", "pro", &[]);
    world.directory.edit_subscription("acme", |s| {
        s.start = at("2026-01-07T09:30:00Z");
        s.first.anchor = s.start;
        s.first.from = s.start;
    });
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
    world.consume("a", "acme", "1").await;
    let answer = world.check("acme", "tokens", "1").await;
    let resets: Vec<_> = answer["limits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["resets_at"].as_str().unwrap_or("null"))
        .collect();
    assert_eq!(
        resets,
        [
            "2026-01-10T12:00:01Z",
            "2026-01-10T12:01:00Z",
            "2026-01-10T13:00:00Z",
            "2026-01-10T23:00:00Z",
            "2026-01-11T23:00:00Z",
            "2026-01-31T23:00:00Z",
            "2026-02-07T09:30:00Z",
            "null"
        ]
    );
    let mut used = Vec::new();
    for now in [
        "2026-01-10T12:00:01Z",
        "2026-01-10T12:01:00Z",
        "2026-01-10T13:00:00Z",
        "2026-01-10T23:00:00Z",
        "2026-01-11T23:00:00Z",
        "2026-01-31T23:00:00Z",
        "2026-02-07T09:30:00Z",
    ] {
        world.clock.set(now);
        let answer = world.check("acme", "tokens", "1").await;
        let limits = answer["limits"].as_array().unwrap().iter();
        used.push(limits.map(|l| l["used"].as_str().unwrap()).collect::<String>());
    }
    assert_eq!(
        used,
        [
            "01111111", "00111111", "00011111", "00001111", "00000111", "00000011", "00000001"
        ]
    );
}

#[tokio::test]
async fn a_day_has_23_hours_when_the_clocks_go_forward() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day"}]));
    world.put_customer("acme", json!({"timezone": "Europe/Berlin"}));
    world.clock.set("2026-03-28T23:30:00Z");
    let answer = world.consume("a", "acme", "10").await;
    assert_eq!(answer["resets_at"], "2026-03-29T22:00:00Z");
    world.clock.set("2026-03-29T21:59:59.999999Z");
    assert_eq!(world.consume("b", "acme", "1").await["allowed"], false);
    world.clock.set("2026-03-29T22:00:00Z");
    assert_eq!(world.consume("b", "acme", "1").await["allowed"], true);
}

#[tokio::test]
async fn subscriptions_entitle_while_they_run() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day"}]));
    let reason = async |world: &World| {
        world.check("acme", "tokens", "1").await["reason"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(reason(&world).await, "within_limit");
    let edit = |edit: &dyn Fn(&mut turnpike_domain::catalog::Subscription)| {
        world.directory.edit_subscription("acme", edit);
        world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
    };
    edit(&|s| s.trial_end = Some(at("2026-01-20T00:00:00Z")));
    assert_eq!(reason(&world).await, "within_limit");
    edit(&|s| {
        s.pauses.push(Pause {
            from: at("2026-01-10T12:30:00Z"),
            until: Some(at("2026-01-10T13:00:00Z")),
        });
    });
    assert_eq!(reason(&world).await, "within_limit");
    // Time alone changes it: nothing tells of it.
    world.clock.set("2026-01-10T12:30:00Z");
    assert_eq!(reason(&world).await, "no_subscription");
    world.clock.set("2026-01-10T13:00:00Z");
    assert_eq!(reason(&world).await, "within_limit");
    edit(&|s| s.ends_at = Some(at("2026-01-10T14:00:00Z")));
    world.clock.set("2026-01-10T14:00:00Z");
    assert_eq!(reason(&world).await, "no_subscription");
    edit(&|s| s.ends_at = None);
    world.put_customer("acme", json!({"suspended": true}));
    assert_eq!(reason(&world).await, "suspended");
}

#[tokio::test]
async fn add_ons_add_up_and_overrides_replace() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    world.put_add_on("more", json!([{"feature": "tokens", "limits": [{"limit": "5", "period": "month"}, {"limit": "4", "period": "day"}]}]));
    world.subscribe("acme", "pro", &["more"]);
    let limits = async |world: &World| {
        let answer = world.check("acme", "tokens", "0").await;
        answer["limits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["limit"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(limits(&world).await, ["15", "4"]);
    world.put_override(
        "acme",
        json!({"feature": "tokens", "limits": [{"limit": "3", "period": "day"}]}),
    );
    assert_eq!(limits(&world).await, ["3"]);
    world.put_customer("other", json!({}));
    world.subscribe("other", "pro", &[]);
    world.put_override("other", json!({"feature": "tokens", "revoked": true}));
    assert_eq!(
        world.check("other", "tokens", "1").await["reason"],
        "not_entitled"
    );
}

#[tokio::test]
async fn boolean_and_static_features_answer_too() {
    let world = World::new().await;
    world.put_feature("sso", json!({"kind": "boolean"}));
    world.put_feature("seats", json!({"kind": "static"}));
    world.put_feature("audit", json!({"kind": "boolean"}));
    world.put_plan(
        "pro",
        json!([{"feature": "sso"}, {"feature": "seats", "value": "5"}]),
    );
    world.put_plan("max", json!([{"feature": "audit"}]));
    world.put_customer("acme", json!({}));
    world.subscribe("acme", "pro", &[]);
    let sso = world.check("acme", "sso", "1").await;
    assert_eq!(
        (&sso["allowed"], &sso["reason"], &sso["limit"]),
        (&json!(true), &json!("entitled"), &Value::Null)
    );
    assert_eq!(world.check("acme", "seats", "1").await["value"], "5");
    let audit = world.check("acme", "audit", "1").await;
    assert_eq!(audit["reason"], "not_entitled");
    assert_eq!(
        audit["upgrade_options"],
        json!([{"kind": "plan", "key": "max", "version": 1, "customer": "acme"}])
    );
    let (status, _) = world
        .post(
            "/v1/quota/consume",
            json!({"id": "1", "customer": "acme", "feature": "sso"}),
        )
        .await;
    assert_eq!(status, 422);
    let (_, list, _) = world.call("GET", "/v1/customers/acme/entitlements", None).await;
    let keys: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["feature"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["seats", "sso"]);
}

#[tokio::test]
async fn every_level_must_agree_and_a_parent_counts_all_below_it() {
    let world = World::new().await;
    world.put_feature("tokens", json!({"kind": "metered", "meter": "tokens"}));
    world.put_plan(
        "org",
        json!([{"feature": "tokens", "limits": [{"limit": "10", "period": "month"}]}]),
    );
    world.put_plan(
        "user",
        json!([{"feature": "tokens", "limits": [{"limit": "6", "period": "day"}]}]),
    );
    world.put_customer("org", json!({}));
    world.subscribe("org", "org", &[]);
    for key in ["a", "b"] {
        world.put_customer(
            key,
            json!({"parent": "org", "parent_since": "2026-01-02T00:00:00Z"}),
        );
        world.subscribe(key, "user", &[]);
    }
    world.put_customer("c", json!({"parent": "org"}));
    // Before the move, it does not count for the parent; after it, it does.
    world.log.tokens("a", at("2026-01-01T12:00:00Z"), 100);
    world.log.tokens("a", at("2026-01-03T12:00:00Z"), 1);
    assert_eq!(world.figures("org").await, ["1", "0", "9"]);
    assert_eq!(world.consume("1", "a", "6").await["allowed"], true);
    let own = world.consume("2", "a", "1").await;
    assert_eq!(
        (&own["allowed"], &own["limits"][0]["customer"], &own["limit"]),
        (&json!(false), &json!("a"), &json!("6"))
    );
    let parents = world.consume("3", "b", "4").await;
    assert_eq!(
        (&parents["allowed"], &parents["limit"], &parents["used"]),
        (&json!(false), &json!("10"), &json!("7"))
    );
    assert_eq!(world.consume("3", "b", "3").await["allowed"], true);
    // One without a subscription uses its parent's.
    let shared = world.check("c", "tokens", "1").await;
    assert_eq!(
        (&shared["allowed"], &shared["remaining"]),
        (&json!(false), &json!("0"))
    );
    assert_eq!(world.figures("b").await[0], "10");
    world.put_customer("org", json!({"suspended": true}));
    assert_eq!(world.check("b", "tokens", "1").await["reason"], "suspended");
}

#[tokio::test]
async fn a_moved_customer_or_subject_is_counted_anew() {
    let world = World::new().await;
    world.metered(json!([{"limit": "100", "period": "month"}]));
    world.log.tokens("device", at("2026-01-09T00:00:00Z"), 7);
    assert_eq!(world.figures("acme").await[0], "0");
    world.put_customer("acme", json!({"subjects": ["acme", "device"]}));
    assert_eq!(world.figures("acme").await[0], "7");
    world.put_customer("child", json!({"parent": "acme"}));
    world.log.tokens("child", at("2026-01-09T00:00:00Z"), 5);
    assert_eq!(world.figures("acme").await[0], "12");
    world.put_customer("child", json!({"parent": null}));
    assert_eq!(world.figures("acme").await[0], "7");
    world.log.tokens("child", at("2026-01-09T00:00:00Z"), 5);
    world.put_customer(
        "child",
        json!({"parent": "acme", "parent_since": "2026-01-10T00:00:00Z"}),
    );
    world.log.tokens("child", at("2026-01-10T01:00:00Z"), 2);
    assert_eq!(world.figures("acme").await[0], "9");
}

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
    let (status, answer, headers) = world
        .call("POST", "/v1/quota/check?status=strict", body("11"))
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

#[tokio::test]
async fn a_batch_answers_in_order() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    let checks = json!([
        {"customer": "acme", "feature": "tokens", "amount": "11"},
        {"customer": "nobody", "feature": "tokens"},
        {"customer": "acme", "feature": "tokens", "amount": "10"},
    ]);
    let (status, answer) = world.post("/v1/quota/batch", json!({"checks": checks})).await;
    assert_eq!(status, 200);
    assert_eq!(
        (
            &answer["results"][0]["allowed"],
            &answer["results"][1]["error"]["code"],
            &answer["results"][2]["allowed"]
        ),
        (&json!(false), &json!("not_found"), &json!(true))
    );
    let many: Vec<_> = (0..1_001)
        .map(|_| json!({"customer": "acme", "feature": "tokens"}))
        .collect();
    let (status, _) = world.post("/v1/quota/batch", json!({"checks": many})).await;
    assert_eq!(status, 422);
}

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
