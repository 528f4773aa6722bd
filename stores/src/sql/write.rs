//! The one way in which anything is written: one transaction behind the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sqlx::sqlite::SqliteConnection;
use tokio::sync::MutexGuard;
use turnpike_domain::catalog::Catalog;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{Answer, AuditEntry, Change, ControlState, Decision, Effect};
use turnpike_domain::port::{BoxFuture, StoreError};
use turnpike_domain::problem::{Code, Problem};

use super::connect::lost;
use super::writer::Writer;
use super::{Inner, SqlStore, audit, catalog, customer, idempotency, key, settings, subscription, tenant};

/// What is done in a transaction: reads and writes of its own, and a decision whose effects the store writes and takes
/// over. An error leaves everything as it was.
pub type Work = Box<
    dyn for<'c> FnOnce(
            &'c mut SqliteConnection,
            &'c dyn ControlState,
        ) -> BoxFuture<'c, Result<Decision, Problem>>
        + Send,
>;

impl SqlStore {
    /// Runs `work` and keeps what it did, its decision's effects, its audit note and its answer in one transaction. A
    /// repeat of `change` does not run it. Goes on to its end even when the caller no longer waits.
    pub(crate) async fn write(&self, change: Change, work: Work) -> Result<Answer, Problem> {
        let inner = Arc::clone(&self.inner);
        match tokio::spawn(async move { inner.write(change, work).await }).await {
            Ok(answer) => answer,
            Err(error) => Err(Problem::new(
                Code::Internal,
                format!("a change ended early: {error}"),
            )),
        }
    }
}

impl Inner {
    pub(super) fn check_health(&self) -> Result<(), StoreError> {
        self.poisoned
            .lock()
            .clone()
            .map_or(Ok(()), |why| Err(StoreError::Poisoned(why)))
    }

    /// The connection that writes, with no transaction on it.
    pub(super) async fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        let mut writer = self.writer.lock().await;
        writer.clear().await?;
        Ok(writer)
    }

    async fn write(&self, change: Change, work: Work) -> Result<Answer, Problem> {
        let mut writer = self.writer().await?;
        self.check_health()?;
        if let Some(call) = &change.idempotency
            && let Some(answer) = idempotency::repeated(&mut writer, change.tenant, call).await?
        {
            return Ok(answer);
        }
        let generation = self.generation.load(Ordering::Acquire) + 1;
        writer.begin().await?;
        let done = match self.decide(&mut writer, &change, work, generation).await {
            Ok(done) => done,
            Err(problem) => {
                writer.roll_back().await?;
                return Err(problem);
            }
        };
        writer.commit().await.map_err(|error| self.commit_failed(error))?;
        self.generation.store(generation, Ordering::Release);
        let (mut decision, catalog) = done;
        let effects = std::mem::take(&mut decision.effects);
        self.directory
            .apply(change.tenant, effects, catalog, &self.clocks);
        self.fail.pass("sql.after_commit")?;
        self.mark(generation).await;
        self.fail.pass("sql.marked")?;
        Ok(Answer {
            status: decision.status,
            body: decision.answer,
            repeated: false,
        })
    }

    /// Runs `work` and writes what it decided; what is left is to commit.
    async fn decide(
        &self,
        connection: &mut SqliteConnection,
        change: &Change,
        work: Work,
        generation: u64,
    ) -> Result<(Decision, Option<Catalog>), Problem> {
        let decision = work(connection, &self.directory).await?;
        let catalog = self.directory.catalog_after(change.tenant, &decision.effects);
        self.keep(connection, change, &decision, catalog.as_ref())
            .await
            .map_err(lost)?;
        let counted = settings::keep_generation(connection, generation);
        counted.await.map_err(lost)?;
        self.fail.pass("sql.before_commit")?;
        Ok((decision, catalog))
    }

    /// Notes outside the database that it has come to `generation`. The change stands whether that succeeds or not: until
    /// the next one an older copy might not be noticed, no more.
    async fn mark(&self, generation: u64) {
        let Some(mark) = self.mark.get().cloned() else {
            return;
        };
        let kept = tokio::task::spawn_blocking(move || mark.keep(generation)).await;
        if let Err(error) = kept.unwrap_or_else(|ended| Err(StoreError::Failed(ended.to_string()))) {
            tracing::error!(%error, "the mark of the control store's age was not kept");
        }
    }

    /// What a full disk did not take is taken back. After any other failure nobody knows what is on disk: nothing more is written
    /// until the process has started anew and read it.
    fn commit_failed(&self, error: StoreError) -> StoreError {
        if matches!(error, StoreError::Full(_)) {
            return error;
        }
        tracing::error!(%error, "a commit of the control store failed; it refuses changes until it is restarted");
        let why = error.to_string();
        *self.poisoned.lock() = Some(why.clone());
        StoreError::Poisoned(why)
    }

    async fn keep(
        &self,
        connection: &mut SqliteConnection,
        change: &Change,
        decision: &Decision,
        catalog: Option<&Catalog>,
    ) -> Result<(), sqlx::Error> {
        for effect in &decision.effects {
            self.keep_effect(connection, change.tenant, effect).await?;
        }
        for (name, value) in self.directory.counters(&decision.effects) {
            settings::keep_counter(connection, name, value).await?;
        }
        if let Some(catalog) = catalog {
            catalog::put_version(connection, change, catalog.version).await?;
        }
        for note in &decision.audit {
            let entry = AuditEntry {
                id: self.directory.next_audit(),
                at: change.recorded_at,
                actor: change.actor.to_string(),
                request_id: change.request_id.to_string(),
                action: note.action.to_owned(),
                object: note.object.clone(),
                detail: note.detail.clone(),
            };
            audit::append(connection, change.tenant, &entry).await?;
        }
        if let Some(call) = &change.idempotency {
            idempotency::keep(connection, change, call, decision).await?;
        }
        Ok(())
    }

    async fn keep_effect(
        &self,
        connection: &mut SqliteConnection,
        tenant: TenantId,
        effect: &Effect,
    ) -> Result<(), sqlx::Error> {
        match effect {
            Effect::Tenant(made) => tenant::put(connection, made).await,
            Effect::ApiKey(made) => key::put(connection, made).await,
            Effect::Meter(made) => catalog::put_meter(connection, tenant, made).await,
            Effect::RemoveMeter(key) => catalog::remove_meter(connection, tenant, key).await,
            Effect::Feature(made) => catalog::put_feature(connection, tenant, made).await,
            Effect::RemoveFeature(key) => catalog::remove_feature(connection, tenant, key).await,
            Effect::Plan(made) => catalog::put_plan(connection, tenant, made).await,
            Effect::RetirePlan(key) => catalog::retire(connection, tenant, "plan", key).await,
            Effect::AddOn(made) => catalog::put_add_on(connection, tenant, made).await,
            Effect::RetireAddOn(key) => catalog::retire(connection, tenant, "add_on", key).await,
            Effect::Customer(made) => customer::put(connection, tenant, made).await,
            Effect::RemoveCustomer(key) => {
                customer::remove(connection, tenant, key).await?;
                idempotency::forget(connection, tenant, &format!("customer/{key}")).await
            }
            Effect::EraseCustomer(left) => {
                customer::put(connection, tenant, left).await?;
                customer::remove_entitlements(connection, tenant, &left.key).await?;
                idempotency::forget(connection, tenant, &format!("customer/{}", left.key)).await
            }
            Effect::Subscription(made) => subscription::put(connection, tenant, made).await,
            Effect::Override(made) => customer::put_override(connection, tenant, made).await,
            Effect::RemoveOverride { customer, feature } => {
                customer::remove_override(connection, tenant, customer, feature).await
            }
            Effect::Grant(made) => customer::put_grant(connection, tenant, made).await,
            Effect::RemoveGrant { customer, id } => {
                customer::remove_grant(connection, tenant, customer, id).await
            }
        }
    }
}
