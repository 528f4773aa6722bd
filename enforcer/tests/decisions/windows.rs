//! Where the windows of limits begin and end.

use serde_json::json;
use turnpike_domain::port::directory::DirectoryChange;

use crate::support::{TENANT, World, at};

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
