//! Customers one above the other, end to end: a move takes no past usage along, in quotas and on invoices, also through
//! kill -9. A test tenant's clock says when.

use serde_json::{Value, json};
use turnpike_tests::app::{App, Caller};
use turnpike_tests::instant::us;
use turnpike_tests::oracle::{Oracle, OracleEvent, OracleMeter, Select};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

/// A test tenant at the start of the year, with the meter and the feature `tokens` and a plan with a price and a limit.
async fn lab(app: &App) -> String {
    let tenant = json!({"key": "lab", "name": "Lab", "test": true, "clock": "2026-01-01T00:00:00Z"});
    let key = app.tenant(&tenant).await;
    let caller = app.caller(&key);
    let meter = json!({"event_type": "llm", "aggregation": "sum", "value": "$.n"});
    caller.put("/v1/meters/tokens", &meter).await;
    let feature = json!({"kind": "metered", "meter": "tokens"});
    caller.put("/v1/features/tokens", &feature).await;
    let limits = json!([{"limit": "100", "period": "billing", "mode": "hard"}]);
    let prices = json!([{"key": "tokens", "meter": "tokens", "model": "per_unit", "unit_amount": "1"}]);
    let plan = json!({"currency": "USD", "prices": prices, "entitlements": [{"feature": "tokens", "limits": limits}]});
    caller.put("/v1/plans/pro", &plan).await;
    for org in ["org", "other"] {
        put(&caller, org, None).await;
        caller
            .created("/v1/subscriptions", &json!({"customer": org, "plan": "pro"}))
            .await;
    }
    put(&caller, "team", Some("org")).await;
    put(&caller, "user", Some("team")).await;
    key
}

async fn put(caller: &Caller, key: &str, parent: Option<&str>) {
    caller
        .put(&format!("/v1/customers/{key}"), &json!({ "parent": parent }))
        .await;
}

async fn at(caller: &Caller, now: &str) {
    caller
        .created("/v1/test-clock/advance", &json!({ "to": now }))
        .await;
}

async fn consume(caller: &Caller, id: &str, customer: &str, amount: &str) -> Value {
    let body = json!({"id": id, "customer": customer, "feature": "tokens", "amount": amount});
    caller.created("/v1/quota/consume", &body).await
}

async fn used(caller: &Caller, customer: &str) -> String {
    let body = json!({"customer": customer, "feature": "tokens", "amount": "0"});
    let answer = caller.created("/v1/quota/check", &body).await;
    answer["used"].as_str().expect("a quantity").to_owned()
}

async fn total(caller: &Caller, customer: &str) -> Value {
    let (status, page) = caller.get("/v1/invoices?limit=100").await;
    assert_eq!(status, 200, "{page}");
    let invoices = page["data"].as_array().expect("a page").iter();
    let newest = invoices
        .filter(|invoice| invoice["customer"] == customer)
        .max_by_key(|invoice| invoice["period"]["end"].to_string())
        .unwrap_or_else(|| panic!("no invoice of {customer}: {page}"));
    let id = newest["id"].as_str().expect("an id");
    let verified = caller
        .created(&format!("/v1/invoices/{id}/verify"), &json!({}))
        .await;
    assert_eq!(verified, json!({"verified": true, "differences": []}));
    newest["total"].clone()
}

/// What the oracle was told: usage of those below, and since when they are below whom.
struct Told {
    oracle: Oracle,
    meter: OracleMeter,
    parents: Vec<(i64, Option<&'static str>)>,
}

impl Told {
    fn new() -> Self {
        let meter = OracleMeter {
            event_type: "llm".into(),
            aggregation: "sum".into(),
            value: Some("n".into()),
            ..OracleMeter::default()
        };
        Self {
            oracle: Oracle::default(),
            meter,
            parents: vec![(0, Some("org"))],
        }
    }

    fn used(&mut self, id: &str, subject: &str, amount: u32, at: &str) {
        self.oracle.send(OracleEvent {
            source: "app".into(),
            id: id.into(),
            kind: "llm".into(),
            subject: subject.into(),
            time_us: us(at),
            data: json!({ "n": amount }),
        });
    }

    /// What a customer's limit counts, by the times in which the team, and the user below it, were below the customer.
    fn total(&self, customer: &str) -> u64 {
        let ends = self
            .parents
            .iter()
            .skip(1)
            .map(|(from, _)| *from)
            .chain([i64::MAX]);
        let times = self
            .parents
            .iter()
            .zip(ends)
            .filter(|((_, parent), _)| *parent == Some(customer));
        let totals = times.map(|((from_us, _), to_us)| {
            let select = Select {
                subjects: vec!["team".into(), "user".into()],
                from_us: *from_us,
                to_us,
                ..Select::default()
            };
            let total = self.oracle.total(&self.meter, &select);
            total.map_or(0, |total| total.parse::<u64>().expect("whole"))
        });
        totals.sum()
    }
}

/// Also one that a move would close further down.
async fn circle_is_refused(caller: &Caller) {
    let circle = json!({"parent": "user"});
    let (status, answer) = caller
        .send(reqwest::Method::PUT, "/v1/customers/org", Some(&circle))
        .await
        .expect("an answer");
    assert_eq!(
        (status, &answer["errors"][0]["pointer"]),
        (422, &json!("/parent"))
    );
}

async fn billed_as_told(caller: &Caller, told: &Told) {
    for org in ["org", "other"] {
        assert_eq!(total(caller, org).await, format!("{}.00", told.total(org)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_takes_no_usage_along_through_kills() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    let key = lab(&app).await;
    let (mut told, mut kills) = (Told::new(), 0);
    at(&app.caller(&key), "2026-01-10T00:00:00Z").await;
    assert_eq!(
        consume(&app.caller(&key), "1", "user", "60").await["allowed"],
        true
    );
    let usage = json!({"id": "e", "source": "app", "type": "llm", "subject": "team", "data": {"n": 40}});
    app.caller(&key).created("/v1/events", &usage).await;
    told.used("1", "user", 60, "2026-01-10T00:00:00Z");
    told.used("e", "team", 40, "2026-01-10T00:00:00Z");
    assert_eq!(
        consume(&app.caller(&key), "2", "user", "1").await["reason"],
        "limit_reached"
    );
    // Away, somewhere else, and back: the limit stays where it was reached.
    for (now, parent) in [
        ("2026-01-11T00:00:30Z", None),
        ("2026-01-12T00:00:30Z", Some("other")),
        ("2026-01-13T00:00:30Z", Some("org")),
    ] {
        at(&app.caller(&key), now).await;
        put(&app.caller(&key), "team", parent).await;
        // Cut to its minute.
        told.parents.push((us(now) - 30_000_000, parent));
        app.restart().await;
        kills += 1;
        let caller = app.caller(&key);
        for org in ["org", "other"] {
            assert_eq!(
                used(&caller, org).await,
                told.total(org).to_string(),
                "under {parent:?}"
            );
        }
        if parent == Some("other") {
            at(&caller, "2026-01-12T12:00:00Z").await;
            assert_eq!(consume(&caller, "3", "user", "7").await["allowed"], true);
            told.used("3", "user", 7, "2026-01-12T12:00:00Z");
        }
    }
    let caller = app.caller(&key);
    assert_eq!(
        consume(&caller, "4", "team", "1").await["reason"],
        "limit_reached"
    );
    circle_is_refused(&caller).await;
    // The month is billed as it was used, and verifies after all moves.
    at(&caller, "2026-02-02T00:00:00Z").await;
    assert_eq!((told.total("org"), told.total("other")), (100, 7));
    billed_as_told(&caller, &told).await;
    put(&caller, "team", Some("other")).await;
    app.restart().await;
    kills += 1;
    let caller = app.caller(&key);
    billed_as_told(&caller, &told).await;
    println!("injected {kills} kills");
}
