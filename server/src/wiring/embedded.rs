use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;
use turnpike_domain::limits::IDEMPOTENT_ANSWER_DAYS;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::control::ControlStore as _;
use turnpike_domain::port::log::EventLog as _;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{Clock, Randomness, Timestamp};
use turnpike_ingest::IngestState;
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::TenantClock;
use turnpike_stores::sql::SqlStore;

use super::data_dir::{DataDir, DataDirError};
use super::gauges;
use super::services::Services;
use super::state::EngineState;
use super::stores::Stores;
use super::ticks::Ticks;
use crate::config::Config;
use crate::http::{Front, GateParts, PrometheusPage, metrics_only, mount, recorder};

pub(super) const DAY_US: i64 = 86_400_000_000;

/// Shows a key; an error when nobody can have seen it.
pub(crate) type ShowKey = Box<dyn Fn(&str) -> Result<(), Problem> + Send + Sync>;

/// What is injected into an engine.
pub(crate) struct EngineParts {
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// Randomness and identifiers.
    pub(crate) randomness: Arc<dyn Randomness>,
    /// Fail points; none armed in production.
    pub(crate) fail_points: Arc<FailPoints>,
    /// The admin key of a first start; made when there is none.
    pub(crate) bootstrap_key: Option<String>,
    /// Shows the admin key that was made, the one time that it can be seen.
    pub(crate) show_key: ShowKey,
}

/// Why the engine did not start. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The views cannot be opened.
    #[error("{0}; `turnpike rebuild` derives the views anew from the log")]
    UnreadableViews(StoreError),
    /// The directory of views.
    #[error("cannot move or remove {0}: {1}")]
    Views(String, String),
    /// The views hold what the log no longer does.
    #[error(
        "the views cannot be derived anew: raw events before {0} were deleted by retention, and what was counted of them stands in the views alone; they were left as they are (if they are damaged, restore views/ from a backup)"
    )]
    NotDerivable(Timestamp),
    /// A thread ended by a defect.
    #[error("a part of the engine did not start: {0}")]
    Thread(String),
    /// A service.
    #[error("{}", .0.for_operator())]
    Service(Problem),
}

impl From<Problem> for StartError {
    fn from(problem: Problem) -> Self {
        Self::Service(problem)
    }
}

/// The whole embedded engine in one process.
pub(crate) struct Engine {
    /// The API as it is served.
    pub(crate) front: Front,
    /// `/metrics` alone, for its own listener.
    pub(crate) metrics_router: Router,
    stores: Stores,
    services: Services,
    state: Arc<EngineState>,
    ticks: Ticks,
    /// Last, so that the directory is let go of when everything else has ended.
    _data_dir: DataDir,
}

impl Engine {
    /// Opens the data directory, recovers what is in it, and builds everything on top.
    pub(crate) async fn open(config: &Config, parts: EngineParts) -> Result<Self, StartError> {
        recorder();
        let data_dir = DataDir::open_or_create(&config.data_dir, config.partitions(), &parts.fail_points)?;
        let clock = Arc::new(TenantClock::new(Arc::clone(&parts.clock)));
        let stores = Stores::open(config, &data_dir, &clock, &parts).await?;
        let first = stores
            .sql
            .first_start(parts.bootstrap_key.as_deref(), &*parts.show_key);
        first.await?;
        let services = Services::start(config, &stores, &clock, &parts.randomness).await?;
        let mut ticks = Ticks::default();
        let enforcer = Arc::clone(&services.enforcer);
        // So often that a reservation holds for about a tenth of a second after its end at the most.
        ticks.every("quota.tick", Duration::from_millis(100), move || {
            let enforcer = Arc::clone(&enforcer);
            async move { enforcer.tick().await }
        });
        keep_control(&mut ticks, &stores.sql, &clock, config);
        keep_log_end(&mut ticks, &stores);
        super::retention::keep_events(&mut ticks, &services.aggregator, &stores.sql, &clock, config);
        let state = Arc::new(EngineState {
            sql: stores.sql.clone(),
            log: stores.log.clone(),
            clock: Arc::clone(&parts.clock),
            closing: AtomicBool::new(false),
            probed: tokio::sync::Mutex::default(),
        });
        let (log, views) = (Arc::clone(&stores.log), stores.views());
        let aggregator = Arc::clone(&services.aggregator);
        let metrics = PrometheusPage::new(Arc::new(move || {
            gauges::refresh(log.as_ref(), &views, &aggregator);
        }));
        let metrics_router = metrics_only(metrics.clone(), Arc::clone(&parts.randomness));
        let ingest = services.ingest(config, &stores, &clock, &parts.randomness);
        let router = services.router(ingest.clone(), &stores, &clock, &parts.randomness);
        let gate = gate(&stores.sql, clock, parts.randomness, ingest);
        Ok(Self {
            front: mount(config, gate, router, state.clone(), metrics),
            metrics_router,
            stores,
            services,
            state,
            ticks,
            _data_dir: data_dir,
        })
    }

    /// Once `stop` is cancelled, `/readyz` says that calls should go elsewhere.
    pub(crate) fn unready_on(&self, stop: CancellationToken) {
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            stop.cancelled().await;
            state.closing.store(true, Ordering::Relaxed);
        });
    }

    /// Writes what a restart would otherwise have to derive again, and ends all threads. Call once requests have ended.
    pub(crate) async fn close(self) -> Result<(), StartError> {
        self.ticks.stop().await;
        self.services.stop().await?;
        self.stores.sql.flush_security().await?;
        self.stores.close().await
    }
}

fn gate(
    sql: &SqlStore,
    clock: Arc<TenantClock>,
    randomness: Arc<dyn Randomness>,
    ingest: IngestState,
) -> GateParts {
    let noted = sql.clone();
    GateParts {
        clock,
        randomness,
        keys: Arc::new(sql.clone()),
        directory: Arc::new(sql.clone()),
        store: Arc::new(sql.clone()),
        ingest,
        security: Arc::new(move |event| noted.note_security(event)),
    }
}

/// The database knows how far the log came, also behind a process that was killed.
fn keep_log_end(ticks: &mut Ticks, stores: &Stores) {
    let (sql, log) = (stores.sql.clone(), Arc::clone(&stores.log));
    ticks.every("log.end", Duration::from_secs(10), move || {
        let (sql, end) = (sql.clone(), log.durable().offset());
        async move { sql.keep_log_end(end).await }
    });
}

/// Security events reach the disk within seconds; old entries, and old answers to repeats, go.
fn keep_control(ticks: &mut Ticks, sql: &SqlStore, clock: &Arc<TenantClock>, config: &Config) {
    let store = sql.clone();
    ticks.every("audit.flush", Duration::from_secs(2), move || {
        let store = store.clone();
        async move { store.flush_security().await }
    });
    let (store, machine) = (sql.clone(), Arc::clone(clock));
    ticks.every("idempotency.prune", Duration::from_hours(1), move || {
        let horizon = machine
            .machine_now()
            .plus_micros(-IDEMPOTENT_ANSWER_DAYS * DAY_US);
        let store = store.clone();
        async move { store.prune_claims(horizon).await.map(|_| ()) }
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
