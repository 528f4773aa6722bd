//! The tower layer before an axum service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Extension;
use axum::http::{Request, Response, StatusCode, header};
use axum::routing::get;
use serde_json::Value;
use tower::ServiceExt as _;
use turnpike_client::{Ask, Before, Client, Quantity, QuotaLayer, Standing, WhenAway};

use crate::served;

/// A service that says what it finds of the decision, and how often it was called.
struct Guarded {
    router: Router,
    calls: Arc<AtomicU64>,
}

/// `x-customer`, `x-amount` and `x-id` of a request; without the first nothing is decided.
fn ask(request: &axum::extract::Request) -> Option<Ask> {
    let text = |name: &str| request.headers().get(name)?.to_str().ok();
    let ask = Ask::new(text("x-customer")?, "calls");
    let amount: Quantity = text("x-amount").unwrap_or("1").parse().ok()?;
    let ask = ask.amount(amount);
    Some(text("x-id").map_or(ask.clone(), |id| ask.id(id)))
}

impl Guarded {
    fn new(client: &Client, before: Before, when_away: WhenAway) -> Self {
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let service = move |standing: Option<Extension<Standing>>| {
            counted.fetch_add(1, Ordering::SeqCst);
            let found = match standing {
                None => "none",
                Some(Extension(Standing::Granted(decision))) if decision.allowed => "granted",
                Some(Extension(Standing::Undecided(_))) => "undecided",
                Some(_) => "unknown",
            };
            std::future::ready(found)
        };
        let layer = QuotaLayer::new(client.clone(), ask)
            .before(before)
            .when_away(when_away);
        let router = Router::new().route("/", get(service)).layer(layer);
        Self { router, calls }
    }

    async fn call(&self, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn problem(response: Response<Body>) -> Value {
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/problem+json"
    );
    let status = response.status().as_u16();
    let problem: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(problem["status"], status);
    problem
}

#[tokio::test]
async fn what_is_granted_goes_on_and_what_is_not_does_not() {
    let (app, _directory, client) = served().await;
    let guarded = Guarded::new(&client, Before::Consume, WhenAway::Refuse);
    let granted = guarded.call(&[("x-customer", "acme"), ("x-amount", "9")]).await;
    assert_eq!(granted.status(), StatusCode::OK);
    let standing = granted.headers()["ratelimit"].to_str().unwrap().to_owned();
    assert!(standing.contains("\"ever-hard\";r=1"), "{standing}");
    assert_eq!(text(granted).await, "granted");
    let refused = guarded.call(&[("x-customer", "acme"), ("x-amount", "2")]).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("ratelimit-policy"));
    assert!(
        !refused.headers().contains_key(header::RETRY_AFTER),
        "it never resets"
    );
    let told = problem(refused).await;
    assert_eq!(
        (&told["code"], &told["retryable"]),
        (&"quota_refused".into(), &false.into())
    );
    for customer in ["lone", "nobody"] {
        let refused = guarded.call(&[("x-customer", customer)]).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{customer}");
        assert_eq!(problem(refused).await["code"], "quota_refused");
    }
    assert_eq!(guarded.calls(), 1);
    let free = guarded.call(&[]).await;
    assert_eq!(
        (free.status(), text(free).await.as_str()),
        (StatusCode::OK, "none")
    );
    let range = "from=2020-01-01T00:00:00Z&to=2040-01-01T00:00:00Z";
    assert_eq!(app.admin().total("calls", range).await, Some("9".to_owned()));
}

#[tokio::test]
async fn what_resets_tells_when() {
    let (app, _directory, client) = served().await;
    let limits = serde_json::json!([{"limit": "3", "period": "month"}]);
    let plan =
        serde_json::json!({"currency": "USD", "entitlements": [{"feature": "calls", "limits": limits}]});
    app.admin().put("/v1/plans/small", &plan).await;
    let subscription =
        serde_json::json!({"customer": "lone", "plan": "small", "start": "2026-01-01T00:00:00Z"});
    app.admin().created("/v1/subscriptions", &subscription).await;
    let guarded = Guarded::new(&client, Before::Check, WhenAway::Refuse);
    for _ in 0..5 {
        let granted = guarded.call(&[("x-customer", "lone"), ("x-amount", "3")]).await;
        assert_eq!(granted.status(), StatusCode::OK, "a check consumes nothing");
    }
    client
        .consume(&Ask::new("lone", "calls").amount(3_u64))
        .await
        .unwrap();
    let refused = guarded.call(&[("x-customer", "lone")]).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = refused.headers()[header::RETRY_AFTER]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=31 * 86_400).contains(&seconds), "{seconds}");
    assert_eq!(problem(refused).await["retryable"], true);
}

#[tokio::test]
async fn an_id_counts_once_and_for_one_thing() {
    let (_app, _directory, client) = served().await;
    let guarded = Guarded::new(&client, Before::Consume, WhenAway::Allow);
    let six = [("x-customer", "acme"), ("x-id", "r1"), ("x-amount", "6")];
    for _ in 0..2 {
        assert_eq!(guarded.call(&six).await.status(), StatusCode::OK);
    }
    let other = guarded
        .call(&[("x-customer", "acme"), ("x-id", "r1"), ("x-amount", "5")])
        .await;
    assert_eq!(other.status(), StatusCode::CONFLICT);
    assert_eq!(problem(other).await["code"], "event_conflict");
    assert_eq!(guarded.calls(), 2);
}

#[tokio::test]
async fn an_engine_that_is_away_refuses_or_lets_through_as_configured() {
    let (mut app, _directory, client) = served().await;
    let client = client.with_timeout(Duration::from_secs(2));
    let closed = Guarded::new(&client, Before::Consume, WhenAway::Refuse);
    let open = Guarded::new(&client, Before::Consume, WhenAway::Allow);
    app.kill();
    let refused = closed.call(&[("x-customer", "acme")]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert_eq!(problem(refused).await["code"], "unavailable");
    let let_through = open.call(&[("x-customer", "acme")]).await;
    assert_eq!(let_through.status(), StatusCode::OK);
    assert!(!let_through.headers().contains_key("ratelimit"));
    assert_eq!(text(let_through).await, "undecided");
    assert_eq!((closed.calls(), open.calls()), (0, 1));
}

#[tokio::test]
async fn a_wrong_key_lets_nobody_through() {
    let (app, _directory, _) = served().await;
    let stranger = Client::new(&app.url(""), "no-key-of-this-server").unwrap();
    let open = Guarded::new(&stranger, Before::Consume, WhenAway::Allow);
    let refused = open.call(&[("x-customer", "acme")]).await;
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let told = problem(refused).await;
    assert_eq!(told["code"], "internal");
    assert!(!told.to_string().contains("key"), "{told}");
    assert_eq!(open.calls(), 0);
}
