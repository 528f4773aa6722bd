use std::sync::{Arc, OnceLock};

use axum::http::header;
use axum::response::IntoResponse;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Buckets of durations: from a quota check in memory to a slow disk.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// Buckets of counts.
const COUNTS: &[f64] = &[1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];
/// Buckets of sizes: from one event to the largest group.
const SIZES: &[f64] = &[
    1_024.0,
    16_384.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// The recorder of all metrics of this process; installed by the first call. None when another one was installed before.
pub(crate) fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER.get_or_init(install).as_ref()
}

fn install() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_group_blocks".to_owned()), COUNTS)
        })
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_group_bytes".to_owned()), SIZES))
        .ok()?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    super::metric_table::describe();
    Some(handle)
}

/// Writes the metrics page. Gauges that cost something to read are set by `refresh` just before.
#[derive(Clone)]
pub(crate) struct PrometheusPage {
    refresh: Arc<dyn Fn() + Send + Sync>,
}

impl PrometheusPage {
    /// A page whose gauges are set by `refresh`.
    pub(crate) fn new(refresh: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { refresh }
    }

    /// The page, in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        (self.refresh)();
        recorder()
            .map(|handle| {
                handle.run_upkeep();
                handle.render()
            })
            .unwrap_or_default()
    }
}

/// `/metrics`.
pub(crate) fn router(page: PrometheusPage) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(metrics_text))
        .with_state(page)
}

/// The metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "Operations", responses((status = 200, description = "The metrics.", content_type = "text/plain", body = String)))]
async fn metrics_text(axum::extract::State(page): axum::extract::State<PrometheusPage>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        page.render(),
    )
}
