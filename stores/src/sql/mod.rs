//! The control store: catalog, customers, subscriptions, invoices, keys, audit; SQLite through sqlx.
//!
//! There is one writer. It decides a change against the directory in memory, writes effect, audit entry and idempotency
//! record in one transaction, and brings the directory up to date before it answers. Reads of single things come from
//! memory, lists from SQL. Statements keep to what SQLite and PostgreSQL both understand.

mod audit;
mod billing;
mod billing_read;
mod billing_runs;
mod billing_write;
mod catalog;
mod connect;
mod copy;
mod customer;
mod directory;
mod first_start;
mod idempotency;
mod integrity;
mod invoice_history;
mod key;
mod looks;
mod settings;
mod store;
mod subscription;
mod tenant;
mod uses;
mod write;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::identity::{NameKey, TenantId};
use turnpike_domain::port::directory::DirectoryListener;
use turnpike_domain::port::{BoxFuture, StoreError};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{Clock as _, Randomness};

pub use connect::SqlPlace;
pub use copy::{copy, settle};
pub use first_start::FirstKey;
pub use integrity::{Looked, check_integrity, look};
pub use key::{NewKey, hash_key};
pub use settings::Installation;
pub use write::Work;

use crate::embedded::log::ControlMark;
use crate::fault::FailPoints;
use crate::machine::TenantClock;
use connect::{Readers, lost};
use directory::MemoryDirectory;
use writer::Writer;

/// The control store on SQLite. Cheap to clone.
#[derive(Clone)]
pub struct SqlStore {
    inner: Arc<Inner>,
}

struct Inner {
    writer: tokio::sync::Mutex<Writer>,
    readers: Readers,
    directory: MemoryDirectory,
    clocks: Arc<TenantClock>,
    randomness: Arc<dyn Randomness>,
    fail: Arc<FailPoints>,
    /// The failure after which nothing is written any more.
    poisoned: Mutex<Option<String>>,
    security: Mutex<audit::SecurityNotes>,
    name_key: NameKey,
    /// Changes that were kept; changed by the writer alone.
    generation: AtomicU64,
    /// Where it is noted outside the database.
    mark: OnceLock<Arc<ControlMark>>,
}

impl SqlStore {
    /// Opens the database, brings its schema up to date, and loads the directory.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] names the file and what cannot be read; [`StoreError::Failed`] tells of a schema that a newer version
    /// of Turnpike made.
    pub async fn open(
        place: &SqlPlace,
        clocks: Arc<TenantClock>,
        randomness: Arc<dyn Randomness>,
        fail: Arc<FailPoints>,
    ) -> Result<Self, StoreError> {
        let opened = Self::opened(place, clocks, randomness, fail).await;
        opened.map_err(|error| integrity::named(place, error))
    }

    async fn opened(
        place: &SqlPlace,
        clocks: Arc<TenantClock>,
        randomness: Arc<dyn Randomness>,
        fail: Arc<FailPoints>,
    ) -> Result<Self, StoreError> {
        let mut connection = connect::writer(place).await?;
        integrity::refuse_damage(&mut connection).await?;
        connect::migrate(&mut connection).await?;
        let name_key = settings::name_key(&mut connection, randomness.as_ref()).await?;
        let directory = MemoryDirectory::default();
        load(&mut connection, &directory).await?;
        let generation = settings::generation(&mut connection).await?;
        directory.set_clocks(&clocks);
        Ok(Self {
            inner: Arc::new(Inner {
                readers: connect::readers(place).await?,
                writer: tokio::sync::Mutex::new(Writer::new(connection)),
                directory,
                clocks,
                randomness,
                fail,
                poisoned: Mutex::new(None),
                security: Mutex::default(),
                name_key,
                generation: AtomicU64::new(generation),
                mark: OnceLock::new(),
            }),
        })
    }

    /// What was kept of the data directory.
    pub async fn installation(&self) -> Result<Option<Installation>, StoreError> {
        settings::installation(&mut *self.inner.writer().await?).await
    }

    /// Keeps what the data directory is made of, so that a part that is lost or another's is noticed.
    pub async fn keep_installation(&self, installation: Installation) -> Result<(), StoreError> {
        settings::keep_installation(&mut *self.inner.writer().await?, installation).await
    }

    /// Changes that were kept so far.
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    /// Goes on with a branch of the database's history that no copy of it has, where the mark beside the log names the one that
    /// it is `marked` with.
    pub async fn next_branch(&self, marked: Option<u64>) -> Result<u64, StoreError> {
        let mut connection = self.inner.writer().await?;
        settings::next_branch(&mut connection, marked, self.inner.randomness.as_ref()).await
    }

    /// Notes from now on in `mark` how far the database has come, behind each change and before its answer.
    pub fn mark_in(&self, mark: ControlMark) {
        // There is one directory, and so one mark.
        let _ = self.inner.mark.set(Arc::new(mark));
    }

    /// Keeps that the event log is durable up to `offset`, so that a log that ends before it is noticed.
    pub async fn keep_log_end(&self, offset: u64) -> Result<(), Problem> {
        let mut connection = self.inner.writer().await?;
        self.inner.check_health()?;
        Ok(settings::reach_log_end(&mut connection, offset)
            .await
            .map_err(lost)?)
    }

    /// Whether changes can be kept, by keeping one that nobody reads. Whoever is changing something meanwhile finds out
    /// without it.
    pub async fn probe(&self) -> Result<(), Problem> {
        let Ok(mut connection) = self.inner.writer.try_lock() else {
            return Ok(());
        };
        self.inner.check_health()?;
        connection.clear().await?;
        let at = self.inner.clocks.machine_now();
        Ok(settings::probe(&mut connection, at).await.map_err(lost)?)
    }

    /// Tells `listener` of every change from now on.
    pub fn listen(&self, listener: Arc<dyn DirectoryListener>) {
        self.inner.directory.listen(listener);
    }

    /// Runs `read` on a connection for reading.
    pub(crate) async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
    {
        match &self.inner.readers {
            Readers::Pool(pool) => {
                let mut connection = pool.acquire().await.map_err(lost)?;
                read(&mut connection).await.map_err(lost)
            }
            Readers::Writer => {
                let mut connection = self.inner.writer().await?;
                read(&mut connection).await.map_err(lost)
            }
        }
    }

    /// Closes the database once the change that is being written has ended: what is in its write-ahead log is moved into
    /// the file, and later changes are refused.
    pub async fn close(&self) -> Result<(), StoreError> {
        let mut connection = self.inner.writer().await?;
        self.inner
            .poisoned
            .lock()
            .get_or_insert_with(|| "the store is closed".to_owned());
        if let Readers::Pool(pool) = &self.inner.readers {
            pool.close().await;
        }
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut **connection)
            .await
            .map_err(lost)?;
        Ok(())
    }
}

async fn load(connection: &mut SqliteConnection, directory: &MemoryDirectory) -> Result<(), StoreError> {
    tenant::load(connection, directory).await?;
    key::load(connection, directory).await?;
    catalog::load(connection, directory).await?;
    customer::load(connection, directory).await?;
    subscription::load(connection, directory).await?;
    settings::load_counters(connection, directory).await
}

/// Runs a statement whose `$1` is the tenant and whose further parameters are `texts`.
async fn execute(
    connection: &mut SqliteConnection,
    sql: &'static str,
    tenant: TenantId,
    texts: &[&str],
) -> Result<(), sqlx::Error> {
    let mut query = sqlx::query(sql).bind(i64::from(tenant.0));
    for text in texts {
        query = query.bind(*text);
    }
    query.execute(connection).await?;
    Ok(())
}

/// Runs `take` for each row of three columns: the tenant and two texts, most often a key and a body.
async fn each(
    connection: &mut SqliteConnection,
    sql: &'static str,
    mut take: impl FnMut(TenantId, &str, &str) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for row in sqlx::query(sql).fetch_all(connection).await.map_err(lost)? {
        let tenant: i64 = row.try_get(0).map_err(lost)?;
        let (key, body): (&str, &str) = (row.try_get(1).map_err(lost)?, row.try_get(2).map_err(lost)?);
        take(TenantId(number("of a tenant", key, tenant)?), key, body)?;
    }
    Ok(())
}

/// A number that is kept as a signed one. Damaged when it does not fit.
fn number<T: TryFrom<i64>>(table: &str, key: &str, kept: i64) -> Result<T, StoreError> {
    let damaged = |_| StoreError::Damaged(format!("table {table}, row {key}: {kept} is out of range"));
    T::try_from(kept).map_err(damaged)
}

/// A body as the domain reads it.
fn read_body<T: serde::de::DeserializeOwned>(table: &str, key: &str, body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body)
        .map_err(|error| StoreError::Damaged(format!("table {table}, row {key}: {error}")))
}

/// A body as it is kept.
fn write_body<T: serde::Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

#[cfg(test)]
mod billing_tests;
#[cfg(test)]
mod tests;
