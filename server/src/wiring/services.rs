use std::sync::Arc;

use turnpike_aggregator::Aggregator;
use turnpike_billing_sync::{BillingOptions, BillingParts, BillingSync, Control, control_router};
use turnpike_domain::port::control::{ControlStore as _, DueWork};
use turnpike_domain::port::usage::SharedListener;
use turnpike_domain::time::Randomness;
use turnpike_enforcer::{Enforcer, EnforcerParts};
use turnpike_ingest::{IngestOptions, IngestParts, IngestState};
use turnpike_stores::machine::TenantClock;
use utoipa_axum::router::OpenApiRouter;

use super::embedded::StartError;
use super::stores::Stores;
use crate::config::Config;
use crate::http::{Administration, AdvanceLocks, administration_router};

/// The services of one engine, connected to each other.
pub(crate) struct Services {
    pub(crate) aggregator: Arc<Aggregator>,
    pub(crate) enforcer: Arc<Enforcer>,
    pub(crate) billing: Arc<BillingSync>,
}

impl Services {
    /// Replays what the log holds behind the views, restores quota state, and goes on with interrupted billing runs.
    pub(crate) async fn start(
        config: &Config,
        stores: &Stores,
        clock: &Arc<TenantClock>,
        randomness: &Arc<dyn Randomness>,
    ) -> Result<Self, StartError> {
        let sql = Arc::new(stores.sql.clone());
        let enforcer = Enforcer::new(EnforcerParts {
            directory: sql.clone(),
            clock: clock.clone(),
            key: sql.name_key(),
        });
        let aggregator = start_aggregator(config, stores, clock, enforcer.clone()).await?;
        sql.listen(aggregator.clone());
        sql.listen(enforcer.clone());
        enforcer.connect(aggregator.clone(), aggregator.clone()).await?;
        let billing = BillingSync::start(BillingParts {
            directory: sql.clone(),
            control: sql.clone(),
            store: sql,
            usage: aggregator.clone(),
            clock: clock.clone(),
            randomness: Arc::clone(randomness),
            options: billing_options(config),
        });
        Ok(Self {
            aggregator,
            enforcer,
            billing,
        })
    }

    /// The gateway of events.
    pub(crate) fn ingest(
        &self,
        config: &Config,
        stores: &Stores,
        clock: &Arc<TenantClock>,
        randomness: &Arc<dyn Randomness>,
    ) -> IngestState {
        let sql = Arc::new(stores.sql.clone());
        IngestState::new(IngestParts {
            intake: self.aggregator.clone(),
            history: self.aggregator.clone(),
            directory: sql.clone(),
            clock: clock.clone(),
            randomness: Arc::clone(randomness),
            key: sql.name_key(),
            options: ingest_options(config),
        })
    }

    /// The routers of all services.
    pub(crate) fn router(
        &self,
        ingest: IngestState,
        stores: &Stores,
        clock: &Arc<TenantClock>,
        randomness: &Arc<dyn Randomness>,
    ) -> OpenApiRouter {
        let sql = Arc::new(stores.sql.clone());
        let control = Arc::new(Control {
            store: sql.clone(),
            directory: sql.clone(),
            clock: clock.clone(),
            randomness: Arc::clone(randomness),
            history: self.aggregator.clone(),
            late_days: self.billing.late_days(),
        });
        let due: Vec<Arc<dyn DueWork>> = vec![self.enforcer.clone(), self.billing.clone()];
        let administration = Arc::new(Administration {
            store: sql.clone(),
            keys: sql.clone(),
            directory: sql.clone(),
            clock: clock.clone(),
            randomness: Arc::clone(randomness),
            due,
            advancing: AdvanceLocks::default(),
        });
        OpenApiRouter::new()
            .merge(turnpike_ingest::router(ingest))
            .merge(turnpike_aggregator::router(Arc::clone(&self.aggregator)))
            .merge(turnpike_enforcer::router(Arc::clone(&self.enforcer)))
            .merge(turnpike_billing_sync::router(Arc::clone(&self.billing)))
            .merge(control_router(control))
            .merge(administration_router(administration))
    }

    /// Ends all threads; the views then contain the whole log.
    pub(crate) async fn stop(&self) -> Result<(), StartError> {
        self.billing.stop().await;
        self.aggregator.shutdown().await?;
        Ok(())
    }
}

/// Starts the partition owners; returns once they have counted all of the log.
pub(crate) async fn start_aggregator(
    config: &Config,
    stores: &Stores,
    clock: &Arc<TenantClock>,
    listener: SharedListener,
) -> Result<Arc<Aggregator>, StartError> {
    let parts = turnpike_aggregator::Parts {
        log: stores.log.clone(),
        views: stores.views(),
        directory: Arc::new(stores.sql.clone()),
        listener,
        clock: clock.clone(),
        key: stores.sql.name_key(),
        options: aggregator_options(config),
    };
    // It reads the log, which takes the disk's time and must not hold up a thread of the runtime.
    let started = tokio::task::spawn_blocking(move || Aggregator::start(parts)).await;
    Ok(started.map_err(|error| StartError::Thread(error.to_string()))??)
}

fn aggregator_options(config: &Config) -> turnpike_aggregator::Options {
    turnpike_aggregator::Options {
        queue_records_max: config.engine.queue_events_max,
        queue_bytes_max: config.engine.queue_bytes_max,
        checkpoint_records: config.engine.checkpoint_events,
        memory_bytes_max: config.engine.memory_bytes_max,
        queries_max: config.engine.queries_max,
        query_memory_bytes_max: config.engine.query_memory_bytes_max,
        checkpoint_interval_us: config.engine.checkpoint_interval_s.saturating_mul(1_000_000),
        ..turnpike_aggregator::Options::default()
    }
}

fn ingest_options(config: &Config) -> IngestOptions {
    IngestOptions {
        in_flight_bytes_max: config.ingest.in_flight_bytes_max,
        dead_letters_per_s: config.ingest.dead_letters_per_s,
        dead_letters_burst: config.ingest.dead_letters_burst,
        retention_days: config.engine.retention_days,
        body_idle_s_max: u64::from(config.http.body_idle_timeout_s),
        ..IngestOptions::default()
    }
}

fn billing_options(config: &Config) -> BillingOptions {
    BillingOptions {
        grace_s: config.billing.grace_s,
        test_grace_s: config.billing.test_grace_s,
        look_back_days: config.billing.look_back_days,
        check_interval_s: config.billing.check_interval_s,
        ..BillingOptions::default()
    }
}
