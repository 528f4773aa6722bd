//! What an answer says, and what a consume leaves behind.

use serde_json::json;

use crate::support::{World, at};
use crate::texts;

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
