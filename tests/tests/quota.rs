//! R10 over HTTP: 64 clients race one limit; exactly the limit is admitted, also through kill -9.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use turnpike_tests::app::{App, Caller};
use turnpike_tests::commerce::standing;
use turnpike_tests::instant::us;
use turnpike_tests::oracle::{Ask, Oracle, OracleLimit, OracleMeter, OracleMode, OracleQuota};
use turnpike_tests::run::times;

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");
const LIMIT: u64 = 500;
/// When subscriptions began.
const START: &str = "2026-01-01T00:00:00Z";

async fn catalog(caller: &Caller) {
    caller
        .put(
            "/v1/meters/calls",
            &json!({"event_type": "call", "aggregation": "sum", "value": "$.n"}),
        )
        .await;
    caller
        .put(
            "/v1/features/calls",
            &json!({"kind": "metered", "meter": "calls"}),
        )
        .await;
    let limits =
        json!([{"limit": LIMIT.to_string(), "period": "ever"}, {"limit": "100000", "period": "hour"}]);
    let plan = json!({"currency": "USD", "entitlements": [{"feature": "calls", "limits": limits}]});
    caller.put("/v1/plans/pro", &plan).await;
}

async fn customer(caller: &Caller, key: &str) {
    caller.put(&format!("/v1/customers/{key}"), &json!({})).await;
    caller
        .created(
            "/v1/subscriptions",
            &json!({"customer": key, "plan": "pro", "start": START}),
        )
        .await;
}

fn consume(id: &str, customer: &str) -> Value {
    json!({"id": id, "customer": customer, "feature": "calls", "amount": "1"})
}

/// What the oracle says once the grants are told to it, one behind the other: it grants each of them too and not one more,
/// and the limit of the server stands where its own does. The limit is that of the first of `customers`; the others are
/// below it.
async fn assert_decided(caller: &Caller, customers: &[&str], granted: u64) {
    let (owner, asking) = (customers[0], customers[customers.len() - 1]);
    let meter = OracleMeter {
        event_type: "call".into(),
        aggregation: "sum".into(),
        value: Some("n".into()),
        ..OracleMeter::default()
    };
    let limit = OracleLimit {
        customer: owner.to_owned(),
        subjects: customers.iter().map(|&one| one.to_owned()).collect(),
        period: "ever".into(),
        limit: LIMIT.to_string(),
        mode: OracleMode::Hard,
        zone: "UTC".into(),
        anchor_us: us(START),
    };
    let (mut oracle, mut quota, limits) = (Oracle::default(), OracleQuota::new(meter), [limit]);
    let mut tell = |id: u64| {
        let ask = Ask {
            id: id.to_string(),
            subject: customers[id as usize % customers.len()].to_owned(),
            amount: "1".into(),
            at_us: us(START),
        };
        quota.consume(&mut oracle, &limits, &ask)
    };
    assert!((0..granted).all(&mut tell) && !tell(granted), "{granted} granted");
    let check = json!({"customer": asking, "feature": "calls", "amount": "1"});
    let (status, answer) = caller.post("/v1/quota/check", &check).await;
    assert_eq!((status, &answer["allowed"]), (200, &json!(false)), "{answer}");
    // The hour's limit, too wide to matter, stands behind it.
    let ever = standing(&answer).into_iter().filter(|one| one.period == "ever");
    assert_eq!(
        ever.collect::<Vec<_>>(),
        quota.standing(&oracle, &limits, us(START)),
        "{answer}"
    );
    // Nobody else uses anything.
    let query = "from=2020-01-01T00:00:00Z&to=2030-01-01T00:00:00Z";
    assert_eq!(caller.total("calls", query).await, Some(granted.to_string()));
}

/// Each client tries `tries` different ids; how many were granted.
async fn race(caller: &Caller, customer: &'static str, tries: u64) -> u64 {
    let granted = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..64u64 {
        let (caller, granted) = (caller.clone(), Arc::clone(&granted));
        clients.spawn(async move {
            for number in 0..tries {
                let body = consume(&format!("{client}-{number}"), customer);
                let (status, answer) = caller.post("/v1/quota/consume", &body).await;
                assert_eq!(status, 200, "{answer}");
                granted.fetch_add(u64::from(answer["allowed"] == true), Ordering::SeqCst);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("a client");
    }
    granted.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_exactly_the_limit_is_admitted() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    catalog(&app.admin()).await;
    customer(&app.admin(), "racer").await;
    // 640 tries for 500: each try counts, for a refusal that should have been a grant would show.
    let tries = times(10, 15_625) as u64;
    let granted = race(&app.admin(), "racer", tries).await;
    println!("injected {} tries of 64 clients at once for {LIMIT}", 64 * tries);
    assert_eq!(granted, LIMIT);
    assert_decided(&app.admin(), &["racer"], granted).await;
    app.restart().await;
    let (_, answer) = app
        .admin()
        .post("/v1/quota/consume", &consume("after", "racer"))
        .await;
    assert_eq!(
        (&answer["allowed"], &answer["reason"]),
        (&json!(false), &json!("limit_reached")),
        "{answer}"
    );
    assert_eq!(answer["used"], LIMIT.to_string());
    // What was granted answers as it did first; what was refused is decided anew.
    let granted = race(&app.admin(), "racer", tries).await;
    assert_decided(&app.admin(), &["racer"], granted).await;
}

/// In each of five rounds 64 clients consume, each for one of `customers`, until the server is killed; then every id of every
/// round is asked for again. How many were granted.
async fn kill_in_the_middle(app: &mut App, customers: &'static [&'static str]) -> u64 {
    let ask = |round: u64, client: u64, number: u64| {
        let customer = customers[client as usize % customers.len()];
        consume(&format!("{round}-{client}-{number}"), customer)
    };
    let mut kills = 0;
    for round in 0..5u64 {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..64u64 {
            let caller = app.admin();
            clients.spawn(async move {
                for number in 0..4 {
                    let body = ask(round, client, number);
                    // No answer: the kill. Whether it was granted shows in the totals, and in the answer to a repeat.
                    let path = "/v1/quota/consume";
                    if caller
                        .send(reqwest::Method::POST, path, Some(&body))
                        .await
                        .is_none()
                    {
                        return true;
                    }
                }
                false
            });
        }
        tokio::time::sleep(std::time::Duration::from_millis(20 + 15 * round)).await;
        app.kill();
        let cut_off = clients.join_all().await.into_iter().filter(|cut_off| *cut_off);
        kills += u32::from(cut_off.count() > 0);
        app.restart().await;
    }
    println!("injected {kills} kills that cut clients off");
    assert!(kills > 2, "vacuous: {kills} kills cut a client off");
    // Those granted before answer so, the others take what is left.
    let mut granted = 0;
    for (round, client, number) in (0..5 * 64 * 4).map(|n| (n / 256, n / 4 % 64, n % 4)) {
        let body = ask(round, client, number);
        let (_, answer) = app.admin().post("/v1/quota/consume", &body).await;
        granted += u64::from(answer["allowed"] == true);
    }
    granted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_through_kills() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    catalog(&app.admin()).await;
    customer(&app.admin(), "killed").await;
    let granted = kill_in_the_middle(&mut app, &["killed"]).await;
    assert_eq!(granted, LIMIT);
    assert_decided(&app.admin(), &["killed"], granted).await;
}

/// The same where the limit is of one and those below it, of two levels, use it up together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_through_kills_of_a_tree() {
    const TREE: [&str; 4] = ["org", "team", "other", "user"];
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    let admin = app.admin();
    catalog(&admin).await;
    customer(&admin, "org").await;
    for (key, parent) in [("team", "org"), ("other", "org"), ("user", "team")] {
        admin
            .put(&format!("/v1/customers/{key}"), &json!({ "parent": parent }))
            .await;
    }
    let granted = kill_in_the_middle(&mut app, &TREE).await;
    assert_eq!(granted, LIMIT);
    assert_decided(&app.admin(), &TREE, granted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reservations_survive_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    catalog(&app.admin()).await;
    customer(&app.admin(), "holder").await;
    let reserve = |id: &str, amount: &str, ttl_s: u64| json!({"id": id, "customer": "holder", "feature": "calls", "amount": amount, "ttl_s": ttl_s});
    for (id, amount, ttl_s) in [("kept", "200", 600), ("short", "100", 2), ("dropped", "50", 600)] {
        let answer = app
            .admin()
            .created("/v1/quota/reservations", &reserve(id, amount, ttl_s))
            .await;
        assert_eq!(answer["allowed"], true, "{answer}");
    }
    app.restart().await;
    let check = json!({"customer": "holder", "feature": "calls", "amount": "1"});
    let figures = async |app: &App| {
        let (status, answer) = app.admin().post("/v1/quota/check", &check).await;
        assert_eq!(status, 200, "{answer}");
        let text = |name: &str| answer[name].as_str().expect("a quantity").to_owned();
        (text("used"), text("reserved"), text("remaining"))
    };
    let (_, held, _) = figures(&app).await;
    assert!(held == "350" || held == "250", "reserved {held}");
    app.admin()
        .created("/v1/quota/reservations/kept/commit", &json!({"amount": "150"}))
        .await;
    app.admin()
        .created("/v1/quota/reservations/dropped/release", &json!({}))
        .await;
    let after = ("150".to_owned(), "0".to_owned(), (LIMIT - 150).to_string());
    // The short one ends by itself about two seconds after it was made.
    let begin = std::time::Instant::now();
    while figures(&app).await != after {
        assert!(begin.elapsed().as_secs() < 15, "{:?}", figures(&app).await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    app.restart().await;
    assert_eq!(figures(&app).await, after);
}
