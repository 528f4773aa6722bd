//! Tenants that may not: one that is suspended, and one that tries to reach what is another's.

use reqwest::Method;
use serde_json::{Value, json};
use turnpike_tests::app::{App, Caller};

use crate::{BINARY, SECRET, filled, is_problem, operations};

/// What tenant A has: one of each.
async fn furnish(a: &Caller) -> Vec<(&'static str, String)> {
    a.put(
        "/v1/meters/m",
        &json!({"event_type": SECRET, "aggregation": "sum", "value": "$.n"}),
    )
    .await;
    a.put(
        "/v1/features/f",
        &json!({"name": SECRET, "kind": "metered", "meter": "m"}),
    )
    .await;
    let limits = json!([{"limit": "1000", "period": "ever"}]);
    a.put(
        "/v1/plans/p",
        &json!({"name": SECRET, "currency": "USD", "entitlements": [{"feature": "f", "limits": limits}],
        "prices": [{"key": "base", "model": "flat", "amount": "1.00", "timing": "arrears"}]}),
    )
    .await;
    a.put("/v1/add-ons/o", &json!({"name": SECRET, "currency": "USD"}))
        .await;
    a.put("/v1/customers/c", &json!({"name": SECRET, "subjects": ["s"]}))
        .await;
    let subscription = a
        .created(
            "/v1/subscriptions",
            &json!({"customer": "c", "plan": "p", "start": "2026-01-01T00:00:00Z"}),
        )
        .await;
    let grant = a
        .created("/v1/customers/c/grants", &json!({"feature": "f", "amount": "5"}))
        .await;
    a.created(
        "/v1/customers/c/overrides",
        &json!({"feature": "f", "limits": limits}),
    )
    .await;
    a.created(
        "/v1/events",
        &json!({"id": "e", "source": "src", "type": SECRET, "subject": "s", "data": {"n": "7"}}),
    )
    .await;
    let reserved = json!({"id": "r", "customer": "c", "feature": "f", "amount": "2", "ttl_s": 600});
    a.created("/v1/quota/reservations", &reserved).await;
    let key = a
        .created("/v1/keys", &json!({"name": SECRET, "scopes": ["read"]}))
        .await;
    let run = billed(a).await;
    let (_, invoices) = a.get("/v1/invoices").await;
    let text = |value: &Value| {
        value
            .as_str()
            .unwrap_or_else(|| panic!("an id: {value}"))
            .to_owned()
    };
    vec![
        ("/v1/meters/{key}", "m".to_owned()),
        ("/v1/features/{key}", "f".to_owned()),
        ("/v1/plans/{key}", "p".to_owned()),
        ("/v1/add-ons/{key}", "o".to_owned()),
        ("/v1/customers/{key}", "c".to_owned()),
        ("/v1/subscriptions/{id}", text(&subscription["id"])),
        ("grant", text(&grant["id"])),
        ("/v1/keys/{id}", text(&key["id"])),
        ("/v1/quota/reservations/{id}", "r".to_owned()),
        ("/v1/invoices/{id}", text(&invoices["data"][0]["id"])),
        ("/v1/billing/runs/{id}", run),
        ("/v1/tenants/{key}", "default".to_owned()),
        ("/v1/events/{source}/{id}", "e".to_owned()),
        ("/api/v1/meters/{slug}", "m".to_owned()),
    ]
}

/// Bills what is due; the run.
async fn billed(a: &Caller) -> String {
    let asked = json!({"period_end": "2026-02-01T00:00:00Z"});
    let run = a.created("/v1/billing/runs", &asked).await;
    let id = run["id"].as_str().expect("an id").to_owned();
    let done = async {
        while a.get(&format!("/v1/billing/runs/{id}")).await.1["status"] != "done" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(std::time::Duration::from_secs(20), done).await;
    done.expect("the run ends");
    id
}

/// What a foreign tenant would send to reach A's things. A path of which A has nothing is a gap in this test.
fn parameter(path: &str, name: &str, ids: &[(&'static str, String)]) -> String {
    let of = |kind: &str| {
        let found = ids.iter().find(|(one, _)| path.starts_with(one) || *one == kind);
        let (_, id) = found.unwrap_or_else(|| panic!("furnish() makes nothing of {path}"));
        id.clone()
    };
    match name {
        "feature" => "f".to_owned(),
        "source" => "src".to_owned(),
        "code" => "invalid_json".to_owned(),
        "id" if path.contains("/grants/") => ids
            .iter()
            .find(|(kind, _)| *kind == "grant")
            .map(|(_, id)| id.clone())
            .expect("a grant"),
        _ => of(path),
    }
}

fn body(path: &str) -> Value {
    match path {
        "/v1/quota/check" => json!({"customer": "c", "feature": "f", "amount": "1"}),
        "/v1/quota/consume" => json!({"id": "b1", "customer": "c", "feature": "f", "amount": "1"}),
        "/v1/quota/reservations" => {
            json!({"id": "b2", "customer": "c", "feature": "f", "amount": "1", "ttl_s": 60})
        }
        "/v1/quota/reservations/{id}/commit" => json!({"amount": "1"}),
        "/v1/quota/batch" => json!({"checks": [{"customer": "c", "feature": "f", "amount": "1"}]}),
        "/v1/events/{source}/{id}/amend" => json!({"data": {"n": "1000"}}),
        "/v1/subscriptions" => json!({"customer": "c", "plan": "p"}),
        "/v1/subscriptions/{id}/change" => json!({"plan": "p"}),
        "/v1/customers/{key}/grants" | "/v1/customers/{key}/grants/{id}" => {
            json!({"feature": "f", "amount": "1000"})
        }
        "/v1/customers/{key}/overrides" => json!({"feature": "f"}),
        "/v1/tenants/{key}" => json!({"name": "taken"}),
        "/v1/keys" => json!({"name": "b", "scopes": ["admin"], "tenant": "default"}),
        "/v1/meters/{key}" => json!({"event_type": "b", "aggregation": "count"}),
        "/v1/features/{key}" => json!({"kind": "boolean"}),
        "/v1/plans/{key}" | "/v1/add-ons/{key}" => json!({"currency": "EUR"}),
        "/v1/billing/runs" => json!({"period_end": "2026-06-01T00:00:00Z"}),
        _ => json!({}),
    }
}

/// Everything that A sees of its own, for comparing before and after.
async fn view(a: &Caller) -> Vec<(String, Value)> {
    let range = "from=2020-01-01T00:00:00Z&to=2030-01-01T00:00:00Z";
    let mut all = Vec::new();
    for path in [
        "/v1/catalog",
        "/v1/customers",
        "/v1/subscriptions",
        "/v1/customers/c/grants",
        "/v1/customers/c/overrides",
        "/v1/customers/c/entitlements",
        "/v1/invoices",
        "/v1/keys",
        &format!("/v1/meters/m/usage?{range}"),
    ] {
        let (status, mut body) = a.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        forget_times(&mut body);
        all.push((path.to_owned(), body));
    }
    all
}

/// Takes out what changes by itself: instants of the answer.
fn forget_times(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("as_of");
            members.values_mut().for_each(forget_times);
        }
        Value::Array(all) => all.iter_mut().for_each(forget_times),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_tenant_reaches_the_public_pages_alone_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let admin = app.admin();
    let tenant = admin.created("/v1/tenants", &json!({"key": "other"})).await;
    let other = app.caller(tenant["api_key"].as_str().expect("a key"));
    furnish(&other).await;
    let before = view(&other).await;
    admin.created("/v1/tenants/other/suspend", &json!({})).await;
    let mut refused = 0;
    for operation in operations(&app).await {
        let path = filled(&operation.path, |_| "x".to_owned());
        let answer = other.send(operation.method.clone(), &path, None).await;
        let (status, body) = answer.expect("an answer");
        let shut_out = is_problem(&body, 403, "tenant_suspended");
        assert_eq!(shut_out, !operation.public, "{operation:?}: {status} {body}");
        refused += usize::from(shut_out);
    }
    assert!(refused > 70, "{refused}");
    let nowhere = other.get("/v1/nowhere").await.1;
    assert!(is_problem(&nowhere, 403, "tenant_suspended"), "{nowhere}");
    assert_eq!(app.caller("tp_a_b").get("/v1/meters").await.0, 401);
    assert_eq!(admin.get("/v1/meters").await.0, 200, "the others go on");
    admin.created("/v1/tenants/other/resume", &json!({})).await;
    assert_eq!(view(&other).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_tenant_reaches_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let a = app.admin();
    let ids = furnish(&a).await;
    let b = app.caller(&app.tenant(&json!({"key": "b"})).await);
    let before = (view(&a).await, a.get("/v1/tenants/default").await);
    let mut all: Vec<_> = operations(&app)
        .await
        .into_iter()
        .filter(|operation| !operation.public)
        .collect();
    // What reads and changes comes before what makes things of B's own under the same names.
    all.sort_by_key(|operation| (operation.method == Method::PUT, operation.path.clone()));
    for operation in &all {
        let path = filled(&operation.path, |name| parameter(&operation.path, name, &ids));
        let sent = (operation.method != Method::GET).then(|| body(&operation.path));
        let (status, answer) = b
            .send(operation.method.clone(), &path, sent.as_ref())
            .await
            .expect("an answer");
        assert!(status < 500, "{operation:?}: {status} {answer}");
        assert!(
            !answer.to_string().contains(SECRET),
            "{operation:?} tells B of A: {answer}"
        );
        let one_of_a = operation.path.contains('{') && operation.method != Method::PUT;
        assert!(
            !one_of_a || (400..500).contains(&status),
            "{operation:?} lets B reach A's: {status} {answer}"
        );
    }
    let after = (view(&a).await, a.get("/v1/tenants/default").await);
    assert_eq!(after, before, "B changed something of A");
    println!("{} operations with a foreign key, nothing reached", all.len());
}
