//! A tower layer that decides before a service is called.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::json;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Ask, Client, Decision, Error, Reason};

/// How a refused request is told to come again where the engine is away and does not say when.
const AGAIN: Duration = Duration::from_secs(1);

/// What is done before the service is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Before {
    /// The usage is recorded, whatever becomes of the request.
    #[default]
    Consume,
    /// It is only asked for: several requests at once may all be let through by the last unit.
    Check,
}

/// What becomes of requests while the engine is away: not reachable, overloaded, or failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenAway {
    /// Fail closed: they are answered with 503.
    #[default]
    Refuse,
    /// Fail open: they go on, and what they use counts nowhere unless its consume came through late.
    Allow,
}

/// What the service finds in the extensions of a request that a [`QuotaLayer`] let through.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// The engine granted it.
    Granted(Arc<Decision>),
    /// The engine was away, and [`WhenAway::Allow`] is set. With what was wrong.
    Undecided(Arc<str>),
}

/// Asks a function what each request uses, and consumes that before the request goes on. A request for which the function
/// says nothing goes on undecided.
///
/// Refusals are `application/problem+json`: 429 where a limit is reached, 402 where prepaid credit does not cover it, 403
/// where the customer is not entitled, with `Retry-After` where waiting helps and the engine's rate-limit headers, which
/// granted answers get too. A customer or feature that the engine does not know is 403; an id that was used for something
/// else is 409; another error of the configuration, such as a wrong key, is 500. [`WhenAway`] is for none of these.
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, routing::get};
/// use turnpike_client::{Ask, Client, QuotaLayer, WhenAway};
///
/// # fn app() -> Result<Router, turnpike_client::Error> {
/// let client = Client::new("http://127.0.0.1:8080", "choose-a-long-secret")?.with_timeout(Duration::from_millis(500));
/// let quota = QuotaLayer::new(client, |request: &axum::extract::Request| {
///     let customer = request.headers().get("x-customer")?.to_str().ok()?;
///     Some(Ask::new(customer, "requests"))
/// });
/// let app = Router::new()
///     .route("/", get(|| async { "served" }))
///     .layer(quota.when_away(WhenAway::Allow));
/// # Ok(app)
/// # }
/// # assert!(app().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct QuotaLayer<F> {
    client: Client,
    ask: F,
    before: Before,
    when_away: WhenAway,
}

impl<F> QuotaLayer<F> {
    /// A layer that consumes what `ask` says of each request, and fails closed.
    pub fn new<B>(client: Client, ask: F) -> Self
    where
        F: Fn(&Request<B>) -> Option<Ask>,
    {
        Self {
            client,
            ask,
            before: Before::default(),
            when_away: WhenAway::default(),
        }
    }

    /// The same layer, which does `before`.
    #[must_use]
    pub fn before(self, before: Before) -> Self {
        Self { before, ..self }
    }

    /// The same layer, which fails open or closed.
    #[must_use]
    pub fn when_away(self, when_away: WhenAway) -> Self {
        Self { when_away, ..self }
    }
}

impl<S, F: Clone> Layer<S> for QuotaLayer<F> {
    type Service = Quota<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        Quota {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind a [`QuotaLayer`].
#[derive(Debug, Clone)]
pub struct Quota<S, F> {
    inner: S,
    layer: QuotaLayer<F>,
}

impl<S, F, B, R> Service<Request<B>> for Quota<S, F>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    F: Fn(&Request<B>) -> Option<Ask>,
    B: Send + 'static,
    R: From<Bytes>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(ask) = (self.layer.ask)(&request) else {
            return Box::pin(self.inner.call(request));
        };
        // The one that is ready is called; its clone becomes so for the next request.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let (client, before, when_away) =
            (self.layer.client.clone(), self.layer.before, self.layer.when_away);
        Box::pin(async move {
            let decided = match before {
                Before::Consume => client.consume(&ask).await,
                Before::Check => client.check(&ask).await,
            };
            let standing = match decided {
                Ok(decision) if !decision.allowed => return Ok(refusal(&decision)),
                Ok(decision) => Standing::Granted(Arc::new(decision)),
                Err(error) if error.is_away() && when_away == WhenAway::Allow => {
                    Standing::Undecided(error.to_string().into())
                }
                Err(error) => return Ok(failure(&error)),
            };
            request.extensions_mut().insert(standing.clone());
            let mut response = inner.call(request).await?;
            if let Standing::Granted(decision) = standing {
                decision.rate_limit.set(response.headers_mut());
            }
            Ok(response)
        })
    }
}

fn refusal<R: From<Bytes>>(decision: &Decision) -> Response<R> {
    let status = match decision.reason {
        Reason::InsufficientCredit => StatusCode::PAYMENT_REQUIRED,
        Reason::NotEntitled | Reason::NoSubscription | Reason::Suspended => StatusCode::FORBIDDEN,
        _ => StatusCode::TOO_MANY_REQUESTS,
    };
    let reason = decision.reason.as_str();
    let mut response = problem(
        status,
        "quota_refused",
        &format!("refused: {reason}"),
        decision.retry_after,
    );
    decision.rate_limit.set(response.headers_mut());
    response
}

/// The answer to a request about which nothing was decided. What is wrong between this service and the engine is not told
/// to the service's callers.
fn failure<R: From<Bytes>>(error: &Error) -> Response<R> {
    if error.is_away() {
        let detail = "quotas cannot be decided just now";
        let again = error.retry_after().unwrap_or(AGAIN);
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            detail,
            Some(again),
        );
    }
    match error.status() {
        Some(StatusCode::NOT_FOUND) => problem(
            StatusCode::FORBIDDEN,
            "quota_refused",
            "refused: not_entitled",
            None,
        ),
        Some(StatusCode::CONFLICT) => problem(
            StatusCode::CONFLICT,
            error.code().unwrap_or("event_conflict"),
            "the id of the request was used for something else",
            None,
        ),
        _ => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "quotas cannot be decided",
            None,
        ),
    }
}

fn problem<R: From<Bytes>>(
    status: StatusCode,
    code: &str,
    detail: &str,
    retry_after: Option<Duration>,
) -> Response<R> {
    let body = json!({
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
        "retryable": retry_after.is_some(),
    });
    let mut response = Response::new(R::from(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if let Some(retry_after) = retry_after {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(retry_after.as_secs().max(1)),
        );
    }
    response
}
