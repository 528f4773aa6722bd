use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use turnpike_domain::port::BoxFuture;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How a dependency is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It serves.
    Ready,
    /// It serves, but something needs attention.
    Degraded,
    /// It does not serve.
    Down,
}

/// A dependency and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Check {
    /// What it is.
    pub(crate) name: String,
    /// How it is.
    pub(crate) state: State,
    /// What is the matter; empty when nothing is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct ReadinessBody {
    /// The worst state of all dependencies.
    pub(crate) state: State,
    /// Each dependency.
    pub(crate) dependencies: Vec<Check>,
}

/// The answer of `/healthz`.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct HealthBody {
    /// Always `ok`: the process answers.
    pub(crate) status: String,
    /// The version of the program.
    pub(crate) version: String,
}

/// Tells the state of everything that calls depend on.
pub(crate) trait Readiness: Send + Sync {
    /// Each dependency's state, now.
    fn checks(&self) -> BoxFuture<'_, Vec<Check>>;
}

/// `/healthz` and `/readyz`.
pub(crate) fn router(readiness: Arc<dyn Readiness>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .with_state(readiness)
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "Operations", responses((status = 200, description = "It lives.", body = HealthBody)))]
async fn healthz() -> Json<HealthBody> {
    Json(HealthBody {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Whether calls can be served: each dependency with its state. While `log` is degraded no events are kept, or a part of
/// those kept cannot be read: `detail` says which. While `sql` is no changes of the catalog, of customers and of invoices are kept.
/// All else is served.
#[utoipa::path(get, path = "/readyz", tag = "Operations", responses(
    (status = 200, description = "Calls are served.", body = ReadinessBody),
    (status = 503, description = "A dependency is down: the same shape as 200, so that a probe reads one, with Retry-After.", body = ReadinessBody),
))]
async fn readyz(axum::extract::State(readiness): axum::extract::State<Arc<dyn Readiness>>) -> Response {
    let dependencies = readiness.checks().await;
    let any = |state: State| dependencies.iter().any(|check| check.state == state);
    let state = if any(State::Down) {
        State::Down
    } else if any(State::Degraded) {
        State::Degraded
    } else {
        State::Ready
    };
    let status = if state == State::Down {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let retry = (state == State::Down).then_some([(axum::http::header::RETRY_AFTER, "1")]);
    (
        status,
        retry.map(axum::response::AppendHeaders),
        Json(ReadinessBody { state, dependencies }),
    )
        .into_response()
}
