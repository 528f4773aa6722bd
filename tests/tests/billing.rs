//! From usage to an invoice, over HTTP: equal to the oracle to the last minor unit, verified from the raw log, never
//! changed once final; what comes late is adjusted on the next one. R17: one invoice per period, whoever asks how often,
//! through kills between any two durable steps.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use turnpike_tests::app::{App, Caller};
use turnpike_tests::billing::{assert_invoices, bill, declared, invoices};
use turnpike_tests::compare::must_send;
use turnpike_tests::door::Door as _;
use turnpike_tests::instant::{HOUR_US, time, us};
use turnpike_tests::oracle::{
    Oracle, OracleAccount, OracleCharge, OracleEvent, OracleInvoice, OracleMeter, OraclePlan, OraclePrice,
    OracleTier,
};
use turnpike_tests::run::times;

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");
/// What the tenant's clock shows at first: on the first day of a month in the customer's zone.
const START: &str = "2026-01-01T09:00:00Z";
const ZONE: &str = "Europe/Istanbul";
/// Calls that ask for the same at once.
const CALLERS: usize = 100;

fn plan() -> OraclePlan {
    let tokens = || OracleMeter {
        event_type: "llm".into(),
        aggregation: "sum".into(),
        value: Some("tokens".into()),
        ..OracleMeter::default()
    };
    let charge = |key: &str, price| OracleCharge {
        key: key.into(),
        meter: (key != "base").then(tokens),
        price,
    };
    let tier = |up_to: Option<&str>, unit: &str, flat: &str| OracleTier {
        up_to: up_to.map(str::to_owned),
        unit_amount: unit.into(),
        flat_amount: flat.into(),
    };
    let units = OraclePrice::PerUnit {
        unit_amount: "0.0004".into(),
        included: "1000".into(),
    };
    let tiers = OraclePrice::Graduated {
        tiers: vec![
            tier(Some("1000"), "0.05", "10"),
            tier(Some("5000"), "0.041", "0"),
            tier(None, "0.003", "0"),
        ],
    };
    let packs = OraclePrice::Package {
        size: "1000".into(),
        amount: "1.00".into(),
    };
    OraclePlan {
        charges: vec![
            charge(
                "base",
                OraclePrice::Flat {
                    amount: "29.00".into(),
                },
            ),
            charge("units", units),
            charge("tiers", tiers),
            charge("packs", packs),
        ],
        minimum_commitment: None,
        places: 2,
    }
}

/// A tenant with its own clock and one customer, and what the oracle knows of them.
struct Lab {
    key: String,
    oracle: Oracle,
    account: OracleAccount,
    invoices: Vec<OracleInvoice>,
    next: u64,
    /// What the tenant's clock shows.
    now_us: i64,
}

impl Lab {
    async fn open(app: &App) -> Self {
        let key = app
            .tenant(&json!({"key": "lab", "test": true, "clock": START}))
            .await;
        let caller = app.caller(&key);
        let meter = json!({"event_type": "llm", "aggregation": "sum", "value": "$.tokens"});
        caller.put("/v1/meters/tokens", &meter).await;
        let meters = ["units", "tiers", "packs"].map(|price| (price, "tokens"));
        caller.put("/v1/plans/pro", &declared(&plan(), &meters)).await;
        let subjects = ["acme", "acme-eu"].map(str::to_owned);
        let customer = json!({"name": "Acme", "timezone": ZONE, "subjects": subjects});
        caller.put("/v1/customers/acme", &customer).await;
        let subscription = json!({"customer": "acme", "plan": "pro", "start": START});
        caller.created("/v1/subscriptions", &subscription).await;
        Self {
            key,
            oracle: Oracle::default(),
            account: OracleAccount::new(plan(), subjects.into(), ZONE, us(START)),
            invoices: Vec::new(),
            next: 0,
            now_us: us(START),
        }
    }

    fn caller(&self, app: &App) -> Caller {
        app.caller(&self.key)
    }

    /// Usage of a subject at an instant.
    async fn uses(&mut self, app: &App, subject: &str, tokens: &str, time_us: i64) {
        self.next += 1;
        let event = OracleEvent {
            source: "gateway".into(),
            id: self.next.to_string(),
            kind: "llm".into(),
            subject: subject.into(),
            time_us,
            data: json!({ "tokens": tokens }),
        };
        let sent = must_send(&self.caller(app), &mut self.oracle, &[event]).await;
        assert_eq!(sent.accepted, 1);
    }

    /// When the period that is open ends, and an instant at which it is billed.
    fn close(&self) -> (i64, i64) {
        let end_us = self.account.next_end_us();
        (end_us, end_us + 2 * HOUR_US)
    }

    /// The clock passes the end of the period, and it is billed. None: no answer.
    async fn advance(&self, app: &App) -> Option<()> {
        let to = json!({"to": time(self.close().1)});
        let answer = self
            .caller(app)
            .call("POST", "/v1/test-clock/advance", Some(&to))
            .await;
        let (status, answer) = answer?;
        assert_eq!(status, 200, "{answer}");
        Some(())
    }

    /// The oracle closes the period; all invoices must be its.
    async fn closed(&mut self, app: &App) -> Vec<Value> {
        self.now_us = self.close().1;
        self.invoices.push(self.account.close(&self.oracle));
        let found = assert_invoices(&self.caller(app), "acme", &self.invoices).await;
        let numbers: BTreeSet<_> = found
            .iter()
            .map(|invoice| invoice["number"].to_string())
            .collect();
        let expected: BTreeSet<_> = (1..=found.len()).map(|n| format!("\"INV-{n:06}\"")).collect();
        assert_eq!(numbers, expected, "the numbers of invoices");
        found
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoice_is_what_the_oracle_says_and_stays_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    let mut lab = Lab::open(&app).await;
    let start_us = us(START);
    lab.uses(&app, "acme", "1500.5", start_us).await;
    lab.uses(&app, "acme-eu", "3200.25", start_us).await;
    lab.uses(&app, "somebody-else", "999999", start_us).await;
    let (first_end_us, _) = lab.close();
    lab.advance(&app).await.expect("an answer");
    assert!(
        bill(&lab.caller(&app), first_end_us).await,
        "the period is billed"
    );
    let first = lab.closed(&app).await.remove(0);

    // Late for the first period: the invoice stays, the next one has an adjustment.
    lab.uses(&app, "acme", "5000", start_us + HOUR_US).await;
    let void = lab
        .caller(&app)
        .created("/v1/events/gateway/2/void", &json!({}))
        .await;
    assert!(lab.oracle.void("gateway", "2"), "{void}");
    lab.uses(&app, "acme", "10", lab.now_us - HOUR_US).await;
    app.restart().await;
    let (second_end_us, _) = lab.close();
    lab.advance(&app).await.expect("an answer");
    assert!(
        bill(&lab.caller(&app), second_end_us).await,
        "the period is billed"
    );
    let both = lab.closed(&app).await;
    assert_eq!(both[0], first, "a final invoice changed");
    let adjusted = lab.invoices[1].lines.iter().filter(|line| line.0 == "adjustment");
    assert!(adjusted.count() > 0, "the late event and the void are adjusted");
}

/// Asks for the same run a hundred times at once; how many were answered, and whether each answer was in order.
async fn run_at_once(caller: &Caller, end_us: i64) -> usize {
    let mut calls = JoinSet::new();
    for _ in 0..CALLERS {
        let caller = caller.clone();
        calls.spawn(async move {
            let body = json!({"period_end": time(end_us)});
            caller
                .send(reqwest::Method::POST, "/v1/billing/runs", Some(&body))
                .await
        });
    }
    let answers = calls.join_all().await.into_iter().flatten();
    let answered = answers.inspect(|(status, body)| assert!([202, 409].contains(status), "{status} {body}"));
    answered.count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_a_hundred_runs_at_once_make_one_invoice() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let mut lab = Lab::open(&app).await;
    lab.uses(&app, "acme", "2000", us(START)).await;
    let (end_us, _) = lab.close();
    lab.advance(&app).await.expect("an answer");
    let caller = lab.caller(&app);
    assert_eq!(run_at_once(&caller, end_us).await, CALLERS);
    assert!(bill(&caller, end_us).await, "the period is billed");
    let one = lab.closed(&app).await.remove(0);
    let id = one["id"].as_str().expect("an id");
    let mut calls = JoinSet::new();
    for _ in 0..CALLERS {
        let (caller, path) = (caller.clone(), format!("/v1/invoices/{id}/finalize"));
        calls.spawn(async move { caller.post(&path, &json!({})).await });
    }
    for (status, answer) in calls.join_all().await {
        assert_eq!(
            (status, &answer),
            (200, &one),
            "every caller sees the same invoice"
        );
    }
    println!("injected {} calls at once", 2 * CALLERS);
    assert_eq!(invoices(&caller, "acme").await, [one]);
}

/// A period is used and billed by a hundred runs at once, while the process dies at a fail point. Whether it died of it.
async fn billed_through(app: &mut App, lab: &mut Lab, point: &str) -> bool {
    let (end_us, _) = lab.close();
    lab.uses(app, "acme", "1234.5", lab.now_us).await;
    let mut died = !app.restart_armed(point).await;
    if !died {
        lab.advance(app).await;
        run_at_once(&lab.caller(app), end_us).await;
        died = app.ends_within(Duration::from_millis(300));
    }
    assert_eq!(died, app.died_at(point), "{point}: it ended of something else");
    app.restart().await;
    lab.advance(app).await.expect("the server is back");
    run_at_once(&lab.caller(app), end_us).await;
    assert!(bill(&lab.caller(app), end_us).await, "the period is billed");
    let before = lab.invoices.len();
    let found = lab.closed(app).await;
    assert_eq!(found.len(), before + 1, "{point}");
    died
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_killed_between_any_two_steps_of_a_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    let mut lab = Lab::open(&app).await;
    let mut kills = Vec::new();
    for point in ["sql.before_commit", "sql.after_commit"] {
        for nth in 1..=times(5, 40) {
            let point = format!("{point}:{nth}");
            if billed_through(&mut app, &mut lab, &point).await {
                kills.push(point);
            }
        }
    }
    println!("injected {} kills at {kills:?}", kills.len());
    assert!(kills.len() >= times(6, 12), "vacuous: {kills:?}");
    let missing = ["sql.before_commit", "sql.after_commit"]
        .into_iter()
        .find(|point| !kills.iter().any(|kill| kill.starts_with(point)));
    assert_eq!(missing, None, "never killed there");
}
