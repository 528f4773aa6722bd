//! Connections, the schema, and what a failure of the database means.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, SqlSafeStr as _};
use turnpike_domain::port::StoreError;

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlPlace {
    /// An SQLite file; made when it is not there.
    File(PathBuf),
    /// In memory, gone with the store. For tests.
    Memory,
}

pub(super) enum Readers {
    Pool(SqlitePool),
    /// A database in memory belongs to one connection.
    Writer,
}

/// Every step of the schema, oldest first. A step that was released never changes.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "control",
        include_str!("../../migrations/sqlite/0001_control.sql"),
    ),
    (
        2,
        "billing",
        include_str!("../../migrations/sqlite/0002_billing.sql"),
    ),
    (
        3,
        "billing_looks",
        include_str!("../../migrations/sqlite/0003_billing_looks.sql"),
    ),
    (
        4,
        "billing_counts",
        include_str!("../../migrations/sqlite/0004_billing_counts.sql"),
    ),
    (
        5,
        "late_listed",
        include_str!("../../migrations/sqlite/0005_late_listed.sql"),
    ),
    (
        6,
        "invoice_parties",
        include_str!("../../migrations/sqlite/0006_invoice_parties.sql"),
    ),
    (
        7,
        "invoice_history",
        include_str!("../../migrations/sqlite/0007_invoice_history.sql"),
    ),
    (
        8,
        "key_successor",
        include_str!("../../migrations/sqlite/0008_key_successor.sql"),
    ),
    (
        9,
        "settled",
        include_str!("../../migrations/sqlite/0009_settled.sql"),
    ),
];

const READERS_MAX: u32 = 8;

fn options(place: &SqlPlace) -> SqliteConnectOptions {
    let options = match place {
        SqlPlace::File(path) => SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal),
        SqlPlace::Memory => SqliteConnectOptions::new().in_memory(true),
    };
    options
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        // What is erased is overwritten, not merely unlinked.
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

pub(super) async fn writer(place: &SqlPlace) -> Result<SqliteConnection, StoreError> {
    options(place).connect().await.map_err(lost)
}

/// A connection that only reads, to a database that exists.
pub(super) async fn reader(place: &SqlPlace) -> Result<SqliteConnection, StoreError> {
    let options = options(place).read_only(true).create_if_missing(false);
    options.connect().await.map_err(lost)
}

pub(super) async fn readers(place: &SqlPlace) -> Result<Readers, StoreError> {
    if *place == SqlPlace::Memory {
        return Ok(Readers::Writer);
    }
    let pool = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .connect_with(options(place).read_only(true).create_if_missing(false));
    Ok(Readers::Pool(pool.await.map_err(lost)?))
}

/// Brings the schema up to date; refuses one that is newer than this program.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let steps = MIGRATIONS.iter().map(|(version, name, sql)| {
        Migration::new(
            *version,
            (*name).into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    let migrator = Migrator::with_migrations(steps.collect());
    migrator.run(connection).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::VersionMissing(version) => newer(version),
        sqlx::migrate::MigrateError::VersionMismatch(version) => StoreError::Damaged(format!(
            "schema version {version} is not the one that was released"
        )),
        other => StoreError::Failed(format!("the database's schema: {other}")),
    })
}

fn newer(version: i64) -> StoreError {
    StoreError::Failed(format!(
        "the database has schema version {version}, which this version of Turnpike does not know: \
         start the newer version that made it"
    ))
}

/// How far the schema of a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    /// As this program has it.
    Current,
    /// The next start brings it up to date.
    Older,
}

/// Refuses a schema that is newer than this program, without changing an older one.
pub(super) async fn check_schema(connection: &mut SqliteConnection) -> Result<Schema, StoreError> {
    let last: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await
        .map_err(lost)?;
    match last {
        Some(version) if MIGRATIONS.iter().all(|(known, ..)| *known < version) => Err(newer(version)),
        last if last == MIGRATIONS.last().map(|(version, ..)| *version) => Ok(Schema::Current),
        _ => Ok(Schema::Older),
    }
}

/// What a failure of the database means to those above.
pub(super) fn lost(error: sqlx::Error) -> StoreError {
    let text = error.to_string();
    let Some(database) = error.as_database_error() else {
        return match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Damaged(text),
            _ => StoreError::Failed(text),
        };
    };
    if database.is_unique_violation() {
        return StoreError::Taken(text);
    }
    // The low byte is SQLite's primary result code. Source: sqlite.org/rescode.html.
    match database
        .code()
        .and_then(|code| code.parse::<u32>().ok())
        .map(|code| code & 0xff)
    {
        Some(13) => StoreError::Full(text),
        Some(11 | 26) => StoreError::Damaged(text),
        _ => StoreError::Failed(text),
    }
}
