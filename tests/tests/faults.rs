//! R12, R14 and R15: storms of duplicates, poison, and tenants beside each other.

use serde_json::{Value, json};
use turnpike_tests::app::{App, Caller};
use turnpike_tests::workload::times;

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");
const RANGE: &str = "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z";

fn lines(events: impl Iterator<Item = String>) -> Vec<u8> {
    events
        .flat_map(|event| event.into_bytes().into_iter().chain([b'\n']))
        .collect()
}

fn event(id: u64, tokens: u64) -> String {
    json!({
        "id": format!("id-{id}"), "source": "storm", "type": "t", "subject": format!("s{}", id % 10),
        "time": "2026-01-15T12:00:00Z", "data": {"tokens": tokens},
    })
    .to_string()
}

async fn meters(caller: &Caller) {
    caller
        .put(
            "/v1/meters/events",
            &json!({"event_type": "t", "aggregation": "count"}),
        )
        .await;
    caller
        .put(
            "/v1/meters/tokens",
            &json!({"event_type": "t", "aggregation": "sum", "value": "$.tokens"}),
        )
        .await;
    let other = json!({"event_type": "t", "aggregation": "sum", "value": "$.bytes"});
    caller.put("/v1/meters/bytes", &other).await;
}

async fn post(caller: &Caller, body: Vec<u8>) -> Value {
    let (status, answer) = caller.send_lines(body).await.expect("an answer");
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_a_storm_of_duplicates_counts_once() {
    let (events, repeats) = (times(50_000, 1_000_000) as u64, times(20, 100) as u64);
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    app.admin()
        .put(
            "/v1/meters/events",
            &json!({"event_type": "t", "aggregation": "count"}),
        )
        .await;
    let mut accepted = 0;
    for repeat in 0..repeats {
        for from in (0..events).step_by(5_000) {
            let answer = post(&app.admin(), lines((from..from + 5_000).map(|id| event(id, id)))).await;
            accepted += answer["accepted"].as_u64().expect("a count");
            assert_eq!(answer["conflicts"], 0, "{answer}");
        }
        if repeat % 7 == 3 {
            app.restart().await;
        }
    }
    assert_eq!(accepted, events);
    assert_eq!(app.admin().total("events", RANGE).await, Some(events.to_string()));
    // The same ids with other content: every one a conflict, and the first one stands.
    let answer = post(&app.admin(), lines((0..5_000).map(|id| event(id, id + 1)))).await;
    assert_eq!(
        (&answer["conflicts"], &answer["accepted"]),
        (&json!(5_000), &json!(0)),
        "{answer}"
    );
    assert_eq!(app.admin().total("events", RANGE).await, Some(events.to_string()));
    println!(
        "injected {} duplicates and 5000 conflicts",
        events * (repeats - 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_poison_is_kept_with_its_reason_and_stops_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let caller = app.admin();
    caller
        .put(
            "/v1/meters/events",
            &json!({"event_type": "t", "aggregation": "count"}),
        )
        .await;
    caller
        .put(
            "/v1/meters/tokens",
            &json!({"event_type": "t", "aggregation": "sum", "value": "$.tokens"}),
        )
        .await;
    let envelope = |id: u64, data: &str| {
        format!(
            r#"{{"id":"p-{id}","source":"poison","type":"t","subject":"s","time":"2026-01-15T12:00:00Z","data":{data}}}"#
        )
    };
    let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    let refused: Vec<Vec<u8>> = vec![
        b"{\"id\":\"\xff\xfe\",\"source\":\"s\",\"type\":\"t\",\"subject\":\"s\"}".to_vec(),
        envelope(1, r#"{"tokens":NaN}"#).into_bytes(),
        envelope(2, &deep).into_bytes(),
        envelope(3, &format!(r#"{{"x":"{}"}}"#, "y".repeat(10 * 1024 * 1024))).into_bytes(),
        b"{\"id\":".to_vec(),
        b"[1,2]".to_vec(),
        br#"{"id":"p","source":"s","type":"t"}"#.to_vec(),
        br#"{"id":"p","source":"s","type":"t","subject":"s","time":"1969-12-31T23:59:59Z"}"#.to_vec(),
        br#"{"id":"p","source":"s","type":"t","subject":"s","time":"2999-01-01T00:00:00Z"}"#.to_vec(),
        br#"{"id":"p","source":"s","type":"t","subject":"s","data":[]}"#.to_vec(),
        br#"{"id":7,"source":"s","type":"t","subject":"s"}"#.to_vec(),
    ];
    let unreadable = [
        r#"{"tokens":"abc"}"#,
        r#"{"tokens":1e40}"#,
        r#"{"tokens":true}"#,
        "{}",
        r#"{"tokens":"0.0000000000001"}"#,
    ];
    let mut sent_good = 0;
    for (round, poison) in refused.iter().enumerate() {
        let mut body = lines((0..99).map(|n| event(round as u64 * 1_000 + n, 1)));
        body.extend_from_slice(poison);
        body.push(b'\n');
        let answer = post(&caller, body).await;
        assert_eq!(
            (&answer["accepted"], &answer["rejected"]),
            (&json!(99), &json!(1)),
            "{round}: {answer}"
        );
        assert_eq!(answer["errors"][0]["index"], 99, "{answer}");
        assert!(
            answer["errors"][0]["code"].is_string() && answer["errors"][0]["detail"].is_string(),
            "{answer}"
        );
        sent_good += 99;
    }
    for (n, data) in unreadable.iter().enumerate() {
        let answer = post(&caller, lines([envelope(100 + n as u64, data)].into_iter())).await;
        assert_eq!(answer["accepted"], 1, "{data}: {answer}");
    }
    assert_eq!(
        caller.total("events", RANGE).await,
        Some((sent_good + unreadable.len()).to_string())
    );
    assert_eq!(caller.total("tokens", RANGE).await, Some(sent_good.to_string()));
    let (_, letters) = caller.get("/v1/events/dead-letters?limit=1000").await;
    let letters = letters["data"].as_array().expect("rows").clone();
    assert_eq!(letters.len(), refused.len() + unreadable.len(), "{letters:#?}");
    for letter in &letters {
        assert!(
            letter["code"].is_string() && letter["detail"].is_string() && !letter["position"].is_null(),
            "{letter}"
        );
    }
    println!("injected {} poisoned events", letters.len());
    // Mended by amending: the letter goes, the value counts, and a second replay changes nothing.
    let body = json!({"data": {"tokens": 5}});
    let (status, answer) = caller.post("/v1/events/poison/p-100/amend", &body).await;
    assert_eq!(status, 200, "{answer}");
    for _ in 0..2 {
        let (status, answer) = caller.post("/v1/events/dead-letters/replay", &json!({})).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            caller.total("tokens", RANGE).await,
            Some((sent_good + 5).to_string())
        );
    }
    let (_, letters) = caller.get("/v1/events/dead-letters?limit=1000").await;
    assert_eq!(
        letters["data"].as_array().expect("rows").len(),
        refused.len() + unreadable.len() - 1
    );
}

/// What tenant B does, and what it is answered, without what differs by nature (ids, times of now).
async fn what_b_sees(caller: &Caller) -> Vec<String> {
    let mut seen = Vec::new();
    meters(caller).await;
    for round in 0..20u64 {
        let answer = post(
            caller,
            lines((0..50).map(|n| event(round * 25 + n, round * 25 + n))),
        )
        .await;
        seen.push(answer.to_string());
    }
    for path in ["/v1/meters/tokens/usage", "/v1/meters/events/usage"] {
        let (status, mut body) = caller.get(&format!("{path}?{RANGE}&group_by=subject")).await;
        body.as_object_mut().expect("an object").remove("as_of");
        seen.push(format!("{status} {body}"));
    }
    let (status, _) = caller.get("/v1/customers/of-a").await;
    seen.push(status.to_string());
    seen
}

async fn tenant(app: &App, key: &str) -> Caller {
    let admin = app.admin();
    let made = admin
        .created("/v1/tenants", &json!({"key": key, "name": key}))
        .await;
    if let Some(key) = made["api_key"].as_str() {
        return app.caller(key);
    }
    let made = admin
        .created(
            "/v1/keys",
            &json!({"tenant": key, "name": "k", "scopes": ["admin"]}),
        )
        .await;
    app.caller(
        made["api_key"]
            .as_str()
            .or_else(|| made["secret"].as_str())
            .expect("a key"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_a_tenant_sees_the_same_alone_and_beside_another() {
    let alone = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, alone.path()).await;
    let expected = what_b_sees(&tenant(&app, "b").await).await;
    drop(app);

    let beside = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, beside.path()).await;
    let (a, b) = (tenant(&app, "a").await, tenant(&app, "b").await);
    meters(&a).await;
    a.put("/v1/customers/of-a", &json!({})).await;
    let flood = tokio::spawn({
        let a = a.clone();
        async move {
            // The same ids as B's, and adversarial ones: separators, NUL, prefixes.
            let mut sent = 0u64;
            for round in 0..40u64 {
                let adversarial = (0..200u64).map(|n| {
                    let id = ["id-1\u{0}", "id", "id-1/", "", "b:id-1", "id-1\n", "storm"][(n % 7) as usize];
                    let event = json!({
                        "id": format!("{id}{n}x{round}"), "source": format!("storm{}", "\u{0}".repeat((n % 3) as usize)),
                        "type": "t", "subject": "s1", "time": "2026-01-15T12:00:00Z", "data": {"tokens": 1},
                    });
                    event.to_string()
                });
                let body = lines((0..100).map(|n| event(round * 10 + n, 7)).chain(adversarial));
                if a.send_lines(body).await.is_some_and(|(status, _)| status == 200) {
                    sent += 1;
                }
            }
            sent
        }
    });
    let found = what_b_sees(&b).await;
    let sent = flood.await.expect("the flood ends");
    assert!(sent > 0, "vacuous: A sent nothing");
    assert_eq!(found, expected);
    println!("injected {sent} requests of another tenant");
}
