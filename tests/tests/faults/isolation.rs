//! R15: a tenant beside another that floods.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use turnpike_tests::app::{App, Caller};
use turnpike_tests::compare::{self, Verdicts, ndjson};
use turnpike_tests::oracle::{Oracle, OracleEvent};
use turnpike_tests::run::{seed, times};
use turnpike_tests::waits::Waits;

use super::{BINARY, declare, event, verify};

/// Rounds of what B does.
const ROUNDS: u64 = 40;
/// Calls per second that A may make; it tries ten times as many.
const LIMIT_PER_S: u64 = 20;

/// What tenant B does, and what it is answered, without what differs by nature (instants of the answer).
async fn what_b_sees(caller: &Caller, waits: &mut Waits) -> Vec<String> {
    let (mut seen, mut oracle) = (Vec::new(), Oracle::default());
    declare(caller).await;
    for round in 0..ROUNDS {
        // Half of each batch was sent before, and some of that with other content.
        let batch: Vec<_> = (0..50)
            .map(|n| event("storm", round * 25 + n, round * 25 + n + u64::from(n == 3)))
            .collect();
        let answer = waits.time(caller.send_lines(ndjson(&batch))).await;
        let (status, answer) = answer.expect("an answer");
        assert_eq!(status, 200, "B is refused: {answer}");
        Verdicts::of(&mut oracle, &batch).assert_said(&answer, false);
        seen.push(answer.to_string());
    }
    verify(caller, &oracle).await;
    for path in ["/v1/meters/tokens/usage", "/v1/meters/events/usage"] {
        let range = "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z";
        let (status, mut body) = caller.get(&format!("{path}?{range}&group_by=subject")).await;
        body.as_object_mut().expect("an object").remove("as_of");
        seen.push(format!("{status} {body}"));
    }
    seen.push(caller.get("/v1/customers/of-a").await.0.to_string());
    let (status, body) = caller.post("/v1/events/storm/id-0%00/void", &json!({})).await;
    seen.push(format!("{status} {}", body["code"]));
    seen
}

/// An event of A: one of B's ids, or one that looks like it, with separators, NUL, prefixes.
fn adversarial(random: &mut StdRng) -> OracleEvent {
    const MARKS: [&str; 8] = ["", "\u{0}", "/", "\n", ":", "\u{1f}", "%00", "\u{0}storm"];
    let mark = |random: &mut StdRng| MARKS[random.random_range(0..MARKS.len())];
    let id = random.random_range(0..ROUNDS * 30);
    let mut event = event("storm", id, 1_000_000);
    event.id = format!("{}{}{}", mark(random), event.id, mark(random));
    event.source = format!("{}{}", event.source, mark(random));
    event
}

/// A sends as fast as ten times its limit, until so many of its events are in; how many requests were let in and
/// refused.
async fn flood(a: &Caller, oracle: &mut Oracle, random: &mut StdRng, events: usize) -> (u64, u64) {
    let (mut let_in, mut refused) = (0, 0);
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(1_000 / LIMIT_PER_S / 10));
    let mut left = events;
    while left > 0 {
        let batch: Vec<_> = (0..left.min(200)).map(|_| adversarial(random)).collect();
        loop {
            pause.tick().await;
            if compare::send(a, oracle, &batch, false).await.is_some() {
                let_in += 1;
                break;
            }
            refused += 1;
        }
        left -= batch.len();
        if (left / batch.len()).is_multiple_of(10) {
            // At once, so that it is more than the limit on a machine of any speed.
            let mut calls = tokio::task::JoinSet::new();
            for _ in 0..2 * LIMIT_PER_S {
                let a = a.clone();
                calls.spawn(async move { a.get("/v1/meters").await.0 });
            }
            let answers = calls.join_all().await;
            refused += answers.iter().filter(|status| **status == 429).count() as u64;
        }
    }
    (let_in, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_a_tenant_sees_the_same_alone_and_beside_another() {
    let events = times(10_000, 1_000_000);
    let mut random = StdRng::seed_from_u64(seed("--test faults r15", 15));
    let alone = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, alone.path()).await;
    let mut normal = Waits::default();
    let b = app.caller(&app.tenant(&json!({"key": "b"})).await);
    let expected = what_b_sees(&b, &mut normal).await;
    drop(app);

    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let limited = json!({"key": "a", "calls_per_second": LIMIT_PER_S});
    let a = app.caller(&app.tenant(&limited).await);
    let b = app.caller(&app.tenant(&json!({"key": "b"})).await);
    declare(&a).await;
    a.put("/v1/customers/of-a", &json!({})).await;
    let (flooding, caller) = (a.clone(), b.clone());
    let flood = tokio::spawn(async move {
        let mut oracle = Oracle::default();
        let sent = flood(&flooding, &mut oracle, &mut random, events).await;
        (oracle, sent)
    });
    let mut beside = Waits::default();
    let found = what_b_sees(&caller, &mut beside).await;
    let (oracle, (let_in, refused)) = flood.await.expect("the flood ends");
    assert_eq!(found, expected);
    // A's ids are its own, each one.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    verify(&a, &oracle).await;
    println!(
        "injected {let_in} requests of another tenant with {} ids, and {refused} refused ones",
        oracle.len()
    );
    assert!(let_in > 10 && refused > 10, "vacuous: A did not flood");
    beside.assert_at_most(2, &normal);
}
