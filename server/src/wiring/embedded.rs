use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::control::ControlStore as _;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{Clock, Randomness};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::TenantClock;
use turnpike_stores::sql::{FirstKey, SqlPlace, SqlStore};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::data_dir::{DataDir, DataDirError};
use super::ticks::Ticks;
use crate::config::Config;
use crate::http::{Check, GateParts, PrometheusPage, Readiness, State, metrics_only, mount, recorder};

const DAY_US: i64 = 86_400_000_000;

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

/// Why the engine did not start. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A service.
    #[error("{}", .0.detail)]
    Service(Problem),
}

impl From<Problem> for StartError {
    fn from(problem: Problem) -> Self {
        Self::Service(problem)
    }
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
    sql: SqlStore,
    ticks: Ticks,
    _data_dir: DataDir,
}

impl Engine {
    /// Opens the data directory, recovers what is in it, and builds everything on top.
    pub async fn open(config: &Config, parts: EngineParts) -> Result<Self, StartError> {
        recorder();
        let data_dir = DataDir::open_or_create(&config.data_dir, config.partitions())?;
        let clock = Arc::new(TenantClock::new(parts.clock));
        let place = SqlPlace::File(data_dir.database());
        let sql = SqlStore::open(
            &place,
            Arc::clone(&clock),
            Arc::clone(&parts.randomness),
            parts.fail_points,
        )
        .await?;
        let made_key = match sql.first_start(parts.bootstrap_key.as_deref()).await? {
            FirstKey::Made(key) => Some(key.text),
            FirstKey::Chosen | FirstKey::Earlier => None,
        };
        let mut ticks = Ticks::default();
        keep_audit(&mut ticks, &sql, &clock, config);
        let metrics = PrometheusPage::new(Arc::new(|| {}));
        let noted = sql.clone();
        let gate = GateParts {
            clock,
            randomness: parts.randomness,
            keys: Arc::new(sql.clone()),
            directory: Arc::new(sql.clone()),
            security: Arc::new(move |event| noted.note_security(event)),
        };
        let readiness = Arc::new(EngineState { sql: sql.clone() });
        let mounted = mount(config, gate, OpenApiRouter::new(), readiness, metrics.clone());
        Ok(Self {
            router: mounted.router,
            metrics_router: metrics_only(metrics),
            document: mounted.document,
            made_key,
            sql,
            ticks,
            _data_dir: data_dir,
        })
    }

    /// Writes what a restart would otherwise have to derive again, and ends all threads. Call once requests have ended.
    pub async fn close(self) -> Result<(), StartError> {
        self.ticks.stop().await;
        self.sql.flush_security().await?;
        self.sql.close().await?;
        Ok(())
    }
}

/// Security events reach the disk within seconds; old entries go.
fn keep_audit(ticks: &mut Ticks, sql: &SqlStore, clock: &Arc<TenantClock>, config: &Config) {
    let store = sql.clone();
    ticks.every("audit.flush", Duration::from_secs(2), move || {
        let store = store.clone();
        async move { store.flush_security().await }
    });
    let days = i64::from(config.audit.retention_days);
    if days == 0 {
        return;
    }
    let (store, clock) = (sql.clone(), Arc::clone(clock));
    ticks.every("audit.prune", Duration::from_hours(1), move || {
        let (store, horizon) = (store.clone(), clock.machine_now().plus_micros(-days * DAY_US));
        async move { store.prune_audit(horizon).await.map(|_| ()) }
    });
}

/// What `/readyz` looks at.
struct EngineState {
    sql: SqlStore,
}

impl Readiness for EngineState {
    fn checks(&self) -> turnpike_domain::port::BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            let readable = self
                .sql
                .audit(
                    turnpike_domain::identity::TenantId::DEFAULT,
                    turnpike_domain::port::control::AuditFilter::default(),
                    turnpike_domain::port::control::PageAfter { after: None, rows: 1 },
                )
                .await;
            let (state, detail) = match readable {
                Ok(_) => (State::Ready, String::new()),
                Err(problem) => (State::Down, problem.detail),
            };
            vec![Check {
                name: "sql".to_owned(),
                state,
                detail,
            }]
        })
    }
}
