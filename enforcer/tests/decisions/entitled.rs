//! Who has what: subscriptions, add-ons, overrides, kinds of features, levels.

use serde_json::{Value, json};
use turnpike_domain::catalog::Pause;
use turnpike_domain::port::directory::DirectoryChange;

use crate::support::{TENANT, World, at};
use crate::texts;

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
    assert_eq!(reason(&world).await, "suspended");
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
async fn a_pause_suspends_and_moves_no_window() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "billing"}]));
    world.directory.edit_subscription("acme", |s| {
        s.start = at("2026-01-07T09:30:00Z");
        (s.first.anchor, s.first.from) = (s.start, s.start);
        s.pauses.push(Pause {
            from: at("2026-01-10T12:30:00Z"),
            until: None,
        });
    });
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
    world.consume("a", "acme", "4").await;
    world.put_grant(
        "acme",
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-08T00:00:00Z"}),
    );
    world.clock.set("2026-01-10T12:30:00Z");
    let paused = world.check("acme", "tokens", "1").await;
    assert_eq!(texts(&paused, &["reason", "limit"]), ["suspended", "null"]);
    assert_eq!(paused["upgrade_options"], json!([]), "it has to be resumed");
    // One below it, without a subscription of its own, is suspended too.
    world.put_customer("child", json!({"parent": "acme"}));
    assert_eq!(world.check("child", "tokens", "1").await["reason"], "suspended");
    // An override stands by itself, and its billing windows are still the subscription's periods.
    world.put_override(
        "acme",
        json!({"feature": "tokens", "limits": [{"limit": "6", "period": "billing"}]}),
    );
    let given = world.check("acme", "tokens", "1").await;
    assert_eq!(
        texts(&given, &["reason", "limit", "used", "resets_at"]),
        ["within_limit", "11", "4", "2026-02-07T09:30:00Z"]
    );
    world.remove_override("acme", "tokens");
    assert_eq!(world.check("acme", "tokens", "1").await["reason"], "suspended");
    world.directory.edit_subscription("acme", |s| s.pauses.clear());
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
    let resumed = world.check("acme", "tokens", "1").await;
    assert_eq!(texts(&resumed, &["limit", "used"]), ["15", "4"]);
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
