use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Randomness;
use turnpike_http::{Failure, Rates};
use utoipa_axum::router::OpenApiRouter;

use super::call_limits::CallLimits;
use super::entry::{Gate, request_id};
use super::finish::finish;
use super::front::Front;
use super::pace::Pace;
use super::repeat::Repeats;
use super::routes::Routes;
use super::{PrometheusPage, Readiness, docs, error_pages, health, metrics_page};
use crate::config::Config;

/// What the gate needs besides configuration.
pub(crate) struct GateParts {
    /// Time.
    pub(crate) clock: Arc<dyn turnpike_domain::time::Clock>,
    /// Ids of requests.
    pub(crate) randomness: Arc<dyn Randomness>,
    /// The API keys.
    pub(crate) keys: Arc<dyn turnpike_domain::port::control::ApiKeys>,
    /// The tenants.
    pub(crate) directory: Arc<dyn turnpike_domain::port::directory::Directory>,
    /// Where answers are kept for repeats.
    pub(crate) store: Arc<dyn turnpike_domain::port::control::ControlStore>,
    /// The gateway of events, whose bound on bytes in flight holds for bodies that are kept back too.
    pub(crate) ingest: turnpike_ingest::IngestState,
    /// Where security events are kept.
    pub(crate) security: super::auth::NoteSecurity,
}

/// The routers of the services behind the gate, beside health, metrics and documentation.
pub(crate) fn mount(
    config: &Config,
    parts: GateParts,
    services: OpenApiRouter,
    readiness: Arc<dyn Readiness>,
    metrics: PrometheusPage,
) -> Front {
    let mut all = OpenApiRouter::with_openapi(docs::preamble())
        .merge(services)
        .merge(health::router(readiness));
    if config.http.metrics_listen.0.is_none() {
        all = all.merge(metrics_page::router(metrics));
    }
    let (router, mut document) = all.split_for_parts();
    docs::complete(&mut document);
    let repeats = Arc::new(Repeats {
        store: parts.store,
        clock: Arc::clone(&parts.clock),
        running: Arc::default(),
        ingest: parts.ingest,
    });
    let gate = Gate {
        clock: parts.clock,
        randomness: parts.randomness,
        keys: parts.keys,
        directory: parts.directory,
        security: parts.security,
        failed_auth_per_minute: config.limits.failed_auth_per_minute,
        calls: CallLimits::new(config.limits.clone()),
        trusted_proxies: config.http.trusted_proxies.clone(),
        pace: Pace {
            idle: Duration::from_secs(u64::from(config.http.body_idle_timeout_s)),
            rate_min: config.http.body_rate_min,
        },
        routes: Routes::of(&document),
        repeats,
        failures: Rates::new(),
    };
    let handlers = router.merge(docs::router(&document)).merge(error_pages::router());
    let origins = &config.http.cors_origins;
    Front::new(gate, handlers, (!origins.is_empty()).then(|| cors(origins)))
}

/// `/metrics` alone, for a listener of its own. Whatever else is asked for is a problem with a request id, as on the main one.
pub(crate) fn metrics_only(page: PrometheusPage, randomness: Arc<dyn Randomness>) -> Router {
    let nowhere = async || {
        let detail = "this listener has /metrics only";
        Failure(Problem::new(Code::NotFound, detail)).into_response()
    };
    let refused = async || {
        let detail = "this path is read with GET";
        let problem = Failure(Problem::new(Code::MethodNotAllowed, detail));
        ([(header::ALLOW, "GET, HEAD")], problem).into_response()
    };
    let finished = move |request: Request, next: Next| {
        let (id, method) = (
            request_id(&request, randomness.as_ref()),
            request.method().clone(),
        );
        async move { finish(next.run(request).await, (&id, &method), false).await }
    };
    metrics_page::router(page)
        .split_for_parts()
        .0
        .method_not_allowed_fallback(refused)
        .fallback(nowhere)
        .layer(from_fn(finished))
}

fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("x-request-id"),
        ])
        .expose_headers([
            header::RETRY_AFTER,
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
            HeaderName::from_static("idempotent-replayed"),
        ])
        .max_age(Duration::from_mins(10));
    if origins.iter().any(|origin| origin == "*") {
        return layer.allow_origin(Any);
    }
    layer.allow_origin(AllowOrigin::list(
        origins
            .iter()
            .filter_map(|origin| HeaderValue::from_str(origin).ok()),
    ))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;
    use turnpike_stores::machine::MachineRandomness;

    use super::*;

    #[tokio::test]
    async fn the_listener_of_metrics_says_what_it_has_not() {
        for (method, path, status) in [
            ("GET", "/metrics", 200),
            ("GET", "/healthz", 404),
            ("POST", "/metrics", 405),
        ] {
            let router = metrics_only(PrometheusPage::new(Arc::new(|| {})), Arc::new(MachineRandomness));
            let request = Request::builder().method(method).uri(path).body(Body::empty());
            let answer = router.oneshot(request.unwrap()).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{method} {path}");
            if status != 200 {
                assert_eq!(answer.headers()["content-type"], "application/problem+json");
                let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert!(body["request_id"].is_string(), "{body}");
            }
        }
    }
}
