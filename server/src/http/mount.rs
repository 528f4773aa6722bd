use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::from_fn_with_state;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use turnpike_http::Rates;
use utoipa_axum::router::OpenApiRouter;

use super::body::BodyPace;
use super::call_limits::CallLimits;
use super::entry::{Gate, entry};
use super::operations::Operations;
use super::repeat::{Repeats, repeats};
use super::scopes::ScopeTable;
use super::{PrometheusPage, Readiness, docs, error_pages, health, metrics_page};
use crate::config::Config;

/// What the gate needs besides configuration.
pub(crate) struct GateParts {
    /// Time.
    pub(crate) clock: Arc<dyn turnpike_domain::time::Clock>,
    /// Ids of requests.
    pub(crate) randomness: Arc<dyn turnpike_domain::time::Randomness>,
    /// The API keys.
    pub(crate) keys: Arc<dyn turnpike_domain::port::control::ApiKeys>,
    /// The tenants.
    pub(crate) directory: Arc<dyn turnpike_domain::port::directory::Directory>,
    /// Where answers are kept for repeats.
    pub(crate) store: Arc<dyn turnpike_domain::port::control::ControlStore>,
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
) -> Router {
    let mut all = OpenApiRouter::with_openapi(docs::preamble())
        .merge(services)
        .merge(health::router(readiness));
    if config.http.metrics_listen.0.is_none() {
        all = all.merge(metrics_page::router(metrics));
    }
    let (router, mut document) = all.split_for_parts();
    docs::complete(&mut document);
    let kept = Arc::new(Repeats {
        store: parts.store,
        clock: Arc::clone(&parts.clock),
        running: Arc::default(),
    });
    let gate = Arc::new(Gate {
        clock: parts.clock,
        randomness: parts.randomness,
        keys: parts.keys,
        directory: parts.directory,
        security: parts.security,
        failed_auth_per_minute: config.limits.failed_auth_per_minute,
        calls: CallLimits::new(config.limits.clone()),
        trusted_proxies: config.http.trusted_proxies.clone(),
        pace: BodyPace {
            idle: Duration::from_secs(u64::from(config.http.body_idle_timeout_s)),
            rate_min: config.http.body_rate_min,
        },
        scopes: ScopeTable::of(&document),
        operations: Operations::of(&document),
        failures: Rates::new(),
    });
    let mut router = router
        .merge(docs::router(&document))
        .merge(error_pages::router())
        .layer(from_fn_with_state(kept, repeats))
        .layer(from_fn_with_state(gate, entry));
    if !config.http.cors_origins.is_empty() {
        router = router.layer(cors(&config.http.cors_origins));
    }
    router
}

/// `/metrics` alone, for a listener of its own.
pub(crate) fn metrics_only(page: PrometheusPage) -> Router {
    metrics_page::router(page).split_for_parts().0
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
