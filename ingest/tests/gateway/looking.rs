//! Listing events, corrections, dead letters and their replay.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use turnpike_domain::identity::Scope;

use crate::rig::{Answer, Gateway, event_with};

fn ids(page: &Value) -> Vec<&str> {
    page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn events_are_found_by_what_they_are() {
    let gateway = Gateway::new();
    for (id, subject, kind, time) in [
        ("a", "acme", "t", "2026-01-01T00:00:00Z"),
        ("b", "acme-two", "t", "2026-01-02T00:00:00Z"),
        ("c", "stray", "u", "2026-01-03T00:00:00Z"),
    ] {
        let mut event = event_with(id);
        event["subject"] = json!(subject);
        event["type"] = json!(kind);
        event["time"] = json!(time);
        gateway.json(event.to_string()).await;
    }
    for (query, found) in [
        ("", &["c", "b", "a"][..]),
        ("?customer=acme", &["b", "a"]),
        ("?customer=acme&subject=acme-two", &["b"]),
        ("?customer=acme&subject=stray", &[]),
        ("?customer=stray", &["c"]),
        ("?customer=nobody", &[]),
        ("?customer=acme-two", &[]),
        ("?subject=acme", &["a"]),
        ("?type=u", &["c"]),
        ("?id=b&source=test", &["b"]),
        ("?id=b&source=other", &[]),
        ("?from=2026-01-02T00:00:00Z", &["c", "b"]),
        ("?to=2026-01-02T00:00:00Z", &["a"]),
        ("?from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z", &[]),
        ("?limit=2", &["c", "b"]),
    ] {
        let answer = gateway.get(&format!("/v1/events{query}")).await;
        assert_eq!(ids(&answer.json), found, "{query}");
    }
    let first = gateway.get("/v1/events?limit=2").await;
    let cursor = first.json["next_cursor"].as_str().unwrap();
    let other = gateway
        .get(&format!("/v1/events/dead-letters?cursor={cursor}"))
        .await;
    assert_eq!((other.status.as_u16(), other.pointer()), (422, "/cursor"));
    for empty in ["customer", "subject", "type", "source", "id"] {
        let answer = gateway.get(&format!("/v1/events?{empty}=")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.pointer()),
            (422, &*format!("/{empty}"))
        );
    }
    let second = gateway.get(&format!("/v1/events?limit=2&cursor={cursor}")).await;
    assert_eq!(
        (ids(&second.json), &second.json["next_cursor"]),
        (vec!["a"], &Value::Null)
    );
    for query in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "from=noon",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
    ] {
        let answer = gateway.get(&format!("/v1/events?{query}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (422, "invalid"),
            "{query}"
        );
    }
    let foreign = Request::get("/v1/events").body(Body::empty()).unwrap();
    assert_eq!(
        ids(&gateway.call_as(2, Scope::Read, foreign).await.json),
        Vec::<&str>::new()
    );
}

#[tokio::test]
async fn a_void_and_an_amendment_show_the_event_as_it_counts() {
    let gateway = Gateway::new();
    let event = event_with("a");
    gateway.json(event.to_string()).await;
    let body = json!({"data": {"tokens": 1}, "time": "2026-02-01T00:00:00Z"});
    let amended = gateway
        .post("/v1/events/test/a/amend", "application/json", body.to_string())
        .await;
    assert_eq!(amended.status.as_u16(), 200, "{amended:?}");
    assert_eq!(
        (&amended.json["status"], &amended.json["data"]),
        (&json!("amended"), &json!({"tokens": 1}))
    );
    assert_eq!(
        (&amended.json["time"], &amended.json["type"]),
        (&json!("2026-02-01T00:00:00Z"), &event["type"])
    );
    assert_eq!(gateway.json(event.to_string()).await.counts(), (0, 1, 0, 0));

    for _ in 0..2 {
        let voided = gateway
            .post("/v1/events/test/a/void", "application/json", "{}")
            .await;
        assert_eq!(
            (voided.status.as_u16(), &voided.json["status"]),
            (200, &json!("voided"))
        );
        assert_eq!(voided.json["data"], json!({"tokens": 1}));
    }
    let again = gateway
        .post("/v1/events/test/a/amend", "application/json", body.to_string())
        .await;
    assert_eq!((again.status.as_u16(), again.code()), (409, "event_voided"));
    assert_eq!(gateway.json(event.to_string()).await.counts(), (0, 1, 0, 0));
}

#[tokio::test]
async fn names_in_paths_may_hold_anything() {
    let gateway = Gateway::new();
    for (source, id, path) in [
        (
            "https://x.example/a?b=c#d",
            "1/2",
            "https%3A%2F%2Fx.example%2Fa%3Fb%3Dc%23d/1%2F2",
        ),
        ("..", ".", "%2E%2E/%2E"),
        ("a b+c", "100%", "a%20b+c/100%25"),
        ("ü\u{0}", "void", "%C3%BC%00/void"),
        ("dead-letters", "replay", "dead-letters/replay"),
        ("%2F", "/", "%252F/%2F"),
    ] {
        let mut event = event_with(id);
        event["source"] = json!(source);
        assert_eq!(gateway.json(event.to_string()).await.counts(), (1, 0, 0, 0));
        let voided = gateway
            .post(&format!("/v1/events/{path}/void"), "application/json", "")
            .await;
        assert_eq!(voided.status.as_u16(), 200, "{path}");
        assert_eq!(
            (&voided.json["source"], &voided.json["id"]),
            (&json!(source), &json!(id)),
            "{path}"
        );
    }
    for path in ["nobody/1", "a/b%2Fc", "test/%00"] {
        let missing = gateway
            .post(&format!("/v1/events/{path}/void"), "application/json", "")
            .await;
        assert_eq!(
            (missing.status.as_u16(), missing.code()),
            (404, "not_found"),
            "{path}"
        );
    }
    for path in ["%FF/a", "a/%C3"] {
        let broken = gateway
            .post(&format!("/v1/events/{path}/void"), "application/json", "")
            .await;
        assert_eq!(
            (broken.status.as_u16(), broken.code()),
            (400, "invalid_request"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn another_tenant_corrects_nothing() {
    let gateway = Gateway::new();
    gateway.json(event_with("a").to_string()).await;
    let foreign = Request::post("/v1/events/test/a/void")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        gateway.call_as(2, Scope::Ingest, foreign).await.code(),
        "not_found"
    );
    for path in [
        "/v1/events/test/a/void",
        "/v1/events/test/a/amend",
        "/v1/events/dead-letters/replay",
    ] {
        let request = Request::post(path).header("content-type", "application/json");
        let request = request.body(Body::from(r#"{"data":{}}"#)).unwrap();
        let code = gateway.call_as(1, Scope::Read, request).await.code().to_owned();
        // The body of a replay is looked at before its caller.
        assert!(
            code == "forbidden" || (path.ends_with("replay") && code == "invalid"),
            "{path}: {code}"
        );
    }
    for path in ["/v1/events", "/v1/events/dead-letters"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(
            gateway.call_as(1, Scope::Ingest, request).await.code(),
            "forbidden"
        );
    }
    assert_eq!(
        gateway.get("/v1/events").await.json["data"][0]["status"],
        "accepted"
    );
}

/// A gateway with four dead letters: an event too early, another too early whose id is taken since, a broken line, and
/// one of which only the beginning was kept.
async fn with_letters() -> Gateway {
    let gateway = Gateway::new();
    let early = |id| {
        let mut event = event_with(id);
        event["time"] = json!("2026-03-01T12:30:00Z");
        event
    };
    let large = json!({"id": "large", "x": "y".repeat(5_000)});
    let body = format!("{}\n{}\nbroken\n{large}\n", early("early"), early("taken"));
    assert_eq!(gateway.lines(body).await.counts(), (0, 0, 0, 4));
    gateway.json(event_with("taken").to_string()).await;
    gateway
}

async fn replay(gateway: &Gateway, body: Value) -> Answer {
    let path = "/v1/events/dead-letters/replay";
    gateway.post(path, "application/json", body.to_string()).await
}

#[tokio::test]
async fn dead_letters_show_what_was_sent_and_why_it_was_refused() {
    let gateway = with_letters().await;
    let listed = gateway.get("/v1/events/dead-letters").await;
    let letters = listed.json["data"].as_array().unwrap();
    let shown: Vec<_> = letters
        .iter()
        .map(|letter| (&letter["kind"], &letter["cut"], &letter["code"]))
        .collect();
    let refused = json!("refused");
    assert_eq!(
        shown,
        [
            (&refused, &json!(true), &json!("invalid_source")),
            (&refused, &json!(false), &json!("invalid_json")),
            (&refused, &json!(false), &json!("time_in_future")),
            (&refused, &json!(false), &json!("time_in_future")),
        ]
    );
    assert_eq!(
        (&letters[1]["raw"], &letters[3]["id"]),
        (&json!("broken"), &json!("early"))
    );
    let first = gateway.get("/v1/events/dead-letters?limit=3").await;
    let cursor = first.json["next_cursor"].as_str().unwrap();
    let second = gateway
        .get(&format!("/v1/events/dead-letters?limit=3&cursor={cursor}"))
        .await;
    assert_eq!(
        (&second.json["data"][0], &second.json["next_cursor"]),
        (&letters[3], &Value::Null)
    );

    gateway.lines(&b"\xff\xfe"[..]).await;
    let listed = gateway.get("/v1/events/dead-letters").await;
    let letter = &listed.json["data"][0];
    assert_eq!(
        (&letter["raw"], &letter["raw_base64"]),
        (&json!("\u{fffd}\u{fffd}"), &json!("//4="))
    );
}

#[tokio::test]
async fn a_replay_takes_what_has_become_valid_and_only_once() {
    let gateway = with_letters().await;
    let counts = |accepted, conflicts, rejected| {
        json!({
            "accepted": accepted, "duplicates": 0, "conflicts": conflicts, "rejected": rejected, "cut": 1,
            "unreadable": 0, "next_cursor": null,
        })
    };
    assert_eq!(replay(&gateway, json!({})).await.json, counts(0, 0, 3));
    let bodiless = Request::post("/v1/events/dead-letters/replay")
        .body(Body::empty())
        .unwrap();
    assert_eq!(gateway.call(bodiless).await.json, counts(0, 0, 3));
    assert_eq!(
        gateway.letters().len(),
        4,
        "what is refused again leaves no second letter"
    );

    gateway.clock.pass(3_600_000_000);
    let listed = gateway.get("/v1/events/dead-letters").await;
    let broken = listed.json["data"][1]["position"].clone();
    assert_eq!(
        replay(&gateway, json!({"positions": [broken]})).await.json["rejected"],
        1
    );
    assert_eq!(gateway.letters().len(), 4);
    assert_eq!(replay(&gateway, json!({})).await.json, counts(1, 1, 1));
    assert_eq!((gateway.events(), gateway.letters().len()), (2, 3));
    assert_eq!(replay(&gateway, json!({})).await.json, counts(0, 1, 1));
    assert_eq!((gateway.events(), gateway.letters().len()), (2, 3));
}

#[tokio::test]
async fn a_replay_interrupted_before_its_letters_are_gone_counts_nothing_twice() {
    let gateway = with_letters().await;
    gateway.clock.pass(3_600_000_000);
    let letters = gateway.intake.log.lock().unwrap().letters.clone();
    assert_eq!(replay(&gateway, json!({})).await.json["accepted"], 1);
    gateway.intake.log.lock().unwrap().letters = letters;
    let again = replay(&gateway, json!({})).await.json;
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(1)));
    assert_eq!((gateway.events(), gateway.letters().len()), (2, 3));
}

#[tokio::test]
async fn a_replay_is_asked_for_strictly() {
    let gateway = Gateway::new();
    for body in [
        json!({"position": 1}),
        json!({"positions": ["x"]}),
        json!({"positions": [-1]}),
        json!({"positions": ["+1"]}),
        json!({"positions": [""]}),
        json!({"positions": [9_223_372_036_854_775_808_u64]}),
        json!({"positions": ["9223372036854775808"]}),
        json!({"positions": [1e300]}),
        json!({"positions": vec![1; 1_001]}),
        json!({"positions": (0..1_001).collect::<Vec<_>>()}),
        json!([]),
    ] {
        assert_eq!(
            replay(&gateway, body.clone()).await.status.as_u16(),
            422,
            "{body}"
        );
    }
    for position in [json!(1.5), json!(null), json!([1]), json!("1.5")] {
        let answer = replay(&gateway, json!({"positions": [1, position]})).await;
        assert_eq!(answer.status, 422, "{position}");
        let error = &answer.json["errors"][0];
        assert_eq!(error["pointer"], "/positions/1", "{position}");
        let said = error["detail"].as_str().unwrap();
        assert!(
            said.ends_with(
                "expected a position: a whole number up to 9223372036854775807, or a string of its decimal digits"
            ),
            "{said}"
        );
    }
    assert_eq!(
        replay(
            &gateway,
            json!({"positions": [1, "2", 9_223_372_036_854_775_807_i64, "9223372036854775807"]})
        )
        .await
        .json["rejected"],
        0
    );
}

#[tokio::test]
async fn a_position_is_one_however_it_is_written_and_however_often() {
    let gateway = with_letters().await;
    let listed = gateway.get("/v1/events/dead-letters").await;
    let broken = listed.json["data"][1]["position"].as_str().unwrap().to_owned();
    for sent in [
        broken.clone(),
        format!("\"{broken}\""),
        format!("{broken}.0"),
        format!("{broken}0e-1"),
        format!("{broken}, {broken}, \"{broken}\""),
        ["1e3", &broken].join(","),
    ] {
        let body = format!("{{\"positions\": [{sent}]}}");
        let path = "/v1/events/dead-letters/replay";
        let answer = gateway.post(path, "application/json", body).await;
        assert_eq!(answer.status, 200, "{sent}: {}", answer.json);
        assert_eq!(answer.json["rejected"], 1, "{sent}");
    }
}

#[tokio::test]
async fn a_replayed_event_without_a_time_counts_for_when_it_came() {
    let gateway = Gateway::new();
    let raw = r#"{"id":"a","source":"s","type":"t","subject":"acme"}"#;
    let letter = turnpike_domain::port::intake::Rejection {
        tenant: turnpike_domain::identity::TenantId(1),
        received: turnpike_domain::time::Timestamp::parse("2026-02-01T00:00:00Z").unwrap(),
        code: "invalid".to_owned(),
        detail: "by an older version".to_owned(),
        id: "a".to_owned(),
        raw: raw.as_bytes().to_vec(),
        cut: false,
    };
    gateway.intake.log.lock().unwrap().letters.insert(1, letter);
    let body = r#"{"positions": [1]}"#;
    let answer = gateway
        .post("/v1/events/dead-letters/replay", "application/json", body)
        .await;
    assert_eq!(answer.json["accepted"], 1);
    let event = gateway.get("/v1/events").await.json["data"][0].clone();
    assert_eq!(
        (&event["time"], &event["received"]),
        (&json!("2026-02-01T00:00:00Z"), &json!("2026-02-01T00:00:00Z"))
    );
}
