//! The client crate against the real server, and against one that fails as told.

mod calls;
mod failing;
mod layer;
mod quantity;

use serde_json::json;
use tempfile::TempDir;
use turnpike_client::Client;
use turnpike_tests::app::{ADMIN_KEY, App};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

/// A server with a customer `acme`, who may have 10 `calls` ever (a sum over `n` of events of type `call`), and one `lone`
/// without a subscription.
async fn served() -> (App, TempDir, Client) {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let admin = app.admin();
    let meter = json!({"event_type": "call", "aggregation": "sum", "value": "$.n"});
    admin.put("/v1/meters/calls", &meter).await;
    let feature = json!({"kind": "metered", "meter": "calls"});
    admin.put("/v1/features/calls", &feature).await;
    let limits = json!([{"limit": "10", "period": "ever"}, {"limit": "1000", "period": "hour"}]);
    let plan = json!({"currency": "USD", "entitlements": [{"feature": "calls", "limits": limits}]});
    admin.put("/v1/plans/pro", &plan).await;
    admin.put("/v1/customers/acme", &json!({})).await;
    admin.put("/v1/customers/lone", &json!({})).await;
    let subscription = json!({"customer": "acme", "plan": "pro", "start": "2026-01-01T00:00:00Z"});
    admin.created("/v1/subscriptions", &subscription).await;
    let client = Client::new(&app.url("/"), ADMIN_KEY).expect("a client");
    (app, directory, client)
}
