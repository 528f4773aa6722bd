//! What the installation as a whole keeps: its format, its secret for names, and numbers that are never given twice.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::identity::NameKey;
use turnpike_domain::port::StoreError;
use turnpike_domain::time::{Randomness, Timestamp};

use super::connect::lost;
use super::directory::MemoryDirectory;
use super::number;
use crate::embedded::log::Branch;

/// The format of bodies in this store.
const FORMAT: &str = "1";

pub(super) async fn get(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM settings WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await
}

async fn set(connection: &mut SqliteConnection, name: &str, value: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(connection)
    .await?;
    Ok(())
}

/// The secret for names of events, where it has been made.
pub(super) async fn kept_name_key(connection: &mut SqliteConnection) -> Result<Option<NameKey>, StoreError> {
    match get(connection, "format").await.map_err(lost)?.as_deref() {
        None | Some(FORMAT) => {}
        Some(other) => {
            return Err(StoreError::Failed(format!(
                "the database has format {other}, this version of Turnpike reads {FORMAT}"
            )));
        }
    }
    let kept = get(connection, "name_key").await.map_err(lost)?;
    let read = |text: String| {
        u128::from_str_radix(&text, 16).map_err(|_| {
            StoreError::Damaged("table settings, row name_key: not 32 hexadecimal digits".to_owned())
        })
    };
    let key = kept.map(read).transpose()?;
    Ok(key.map(|key| NameKey(key.to_be_bytes())))
}

/// The secret for names of events: made at the first start, the same ever after.
pub(super) async fn name_key(
    connection: &mut SqliteConnection,
    randomness: &dyn Randomness,
) -> Result<NameKey, StoreError> {
    if let Some(kept) = kept_name_key(connection).await? {
        return Ok(kept);
    }
    set(connection, "format", FORMAT).await.map_err(lost)?;
    let mut key = [0; 16];
    randomness.fill(&mut key);
    set(
        connection,
        "name_key",
        &format!("{:032x}", u128::from_be_bytes(key)),
    )
    .await
    .map_err(lost)?;
    Ok(NameKey(key))
}

/// What the database knows of the data directory that it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installation {
    /// The identity of the event log.
    pub log: u64,
    /// The number of partitions of the views.
    pub partitions: u32,
}

const INSTALLATION: &str = "installation";
const GENERATION: &str = "generation";
const LOG_END: &str = "log_end";
const BRANCH: &str = "branch";
const PROBED: &str = "probed";

/// Writes what nobody reads, to see whether anything can be written. A value that stays the same would not be.
pub(super) async fn probe(connection: &mut SqliteConnection, at: Timestamp) -> Result<(), sqlx::Error> {
    set(connection, PROBED, &at.micros().to_string()).await
}

/// Changes that were kept so far. Each is kept together with its own number, so that a copy of the database tells its age.
pub(super) async fn generation(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    whole_number(connection, GENERATION).await
}

pub(super) async fn keep_generation(
    connection: &mut SqliteConnection,
    generation: u64,
) -> Result<(), sqlx::Error> {
    set(connection, GENERATION, &padded(generation)).await
}

/// The highest offset of the event log that is known to be durable.
pub(super) async fn log_end(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    whole_number(connection, LOG_END).await
}

/// Keeps that the event log is durable up to `offset`; nothing where it is known further.
pub(super) async fn reach_log_end(connection: &mut SqliteConnection, offset: u64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value \
         WHERE excluded.value > settings.value",
    )
    .bind(LOG_END)
    .bind(padded(offset))
    .execute(connection)
    .await?;
    Ok(())
}

/// With as many digits as the largest has, so that texts sort as their numbers.
fn padded(number: u64) -> String {
    format!("{number:020}")
}

/// 0 where none was kept yet.
async fn whole_number(connection: &mut SqliteConnection, name: &str) -> Result<u64, StoreError> {
    let Some(text) = get(connection, name).await.map_err(lost)? else {
        return Ok(0);
    };
    let damaged = |_| StoreError::Damaged(format!("table settings, row {name}: {text:?}"));
    text.parse().map_err(damaged)
}

/// The branch of its history that the database is on; `None` where none was kept yet.
pub(super) async fn branch(connection: &mut SqliteConnection) -> Result<Option<Branch>, StoreError> {
    let Some(text) = get(connection, BRANCH).await.map_err(lost)? else {
        return Ok(None);
    };
    let number = |text| u64::from_str_radix(text, 16).ok();
    let read = text.split_once(' ').and_then(|(now, before)| {
        Some(Branch {
            now: number(now)?,
            before: number(before)?,
        })
    });
    let damaged = || StoreError::Damaged(format!("table settings, row {BRANCH}: {text:?}"));
    read.ok_or_else(damaged).map(Some)
}

/// Goes on with a branch of its own, unless the mark beside the log does not name yet the one that the database is on: then the
/// start that drew it was interrupted.
pub(super) async fn next_branch(
    connection: &mut SqliteConnection,
    marked: Option<u64>,
    randomness: &dyn Randomness,
) -> Result<u64, StoreError> {
    let known = branch(connection).await?;
    if let Some(known) = known
        && marked != Some(known.now)
    {
        return Ok(known.now);
    }
    let mut drawn = [0; 8];
    randomness.fill(&mut drawn);
    let now = u64::from_le_bytes(drawn);
    let text = format!("{now:016x} {:016x}", known.map_or(0, |known| known.now));
    set(connection, BRANCH, &text).await.map_err(lost)?;
    Ok(now)
}

/// `None` where none was kept yet.
pub(super) async fn installation(
    connection: &mut SqliteConnection,
) -> Result<Option<Installation>, StoreError> {
    let Some(text) = get(connection, INSTALLATION).await.map_err(lost)? else {
        return Ok(None);
    };
    let read = text.split_once(' ').and_then(|(log, partitions)| {
        Some(Installation {
            log: u64::from_str_radix(log, 16).ok()?,
            partitions: partitions.parse().ok()?,
        })
    });
    let damaged = || StoreError::Damaged(format!("table settings, row {INSTALLATION}: {text:?}"));
    read.ok_or_else(damaged).map(Some)
}

pub(super) async fn keep_installation(
    connection: &mut SqliteConnection,
    installation: Installation,
) -> Result<(), StoreError> {
    let text = format!("{:016x} {}", installation.log, installation.partitions);
    set(connection, INSTALLATION, &text).await.map_err(lost)
}

pub(super) async fn load_counters(
    connection: &mut SqliteConnection,
    directory: &MemoryDirectory,
) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT name, value FROM counters")
        .fetch_all(&mut *connection)
        .await
        .map_err(lost)?;
    for row in rows {
        let name: String = row.try_get(0).map_err(lost)?;
        let value: i64 = row.try_get(1).map_err(lost)?;
        directory.set_counter(&name, number("counters", &name, value)?);
    }
    let last: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM audit")
        .fetch_one(connection)
        .await
        .map_err(lost)?;
    directory.set_last_audit(number("audit", "newest", last)?);
    Ok(())
}

pub(super) async fn keep_counter(
    connection: &mut SqliteConnection,
    name: &str,
    value: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO counters (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(i64::from(value))
    .execute(connection)
    .await?;
    Ok(())
}
