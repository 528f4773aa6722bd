//! Whether the database's pages are sound, and its rows are what was written.

use std::path::Path;

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::port::StoreError;

use super::connect::{Schema, check_schema, lost, reader};
use super::directory::MemoryDirectory;
use super::settings::{self, Installation};
use super::{SqlPlace, load};
use crate::embedded::log::Branch;

/// Refuses a database of which SQLite's quick check finds a page that is damaged: one with invoices is not written to
/// before somebody has looked.
pub(super) async fn refuse_damage(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let checked = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection);
    let found: String = checked.await.map_err(lost)?;
    if found == "ok" {
        Ok(())
    } else {
        Err(StoreError::Damaged(found))
    }
}

/// Damage with the file where it is, and what to do.
pub(super) fn named(place: &SqlPlace, error: StoreError) -> StoreError {
    match (place, error) {
        (SqlPlace::File(path), StoreError::Damaged(what)) => StoreError::Damaged(format!(
            "{}: {what}; look with `turnpike doctor`, and restore a backup",
            path.display()
        )),
        (_, error) => error,
    }
}

/// What SQLite's own check finds in a database, and the first row that a start cannot read; nothing for a sound one, or where
/// none has been made yet. The rows of an older schema are not read: a start brings it up to date before. Changes nothing.
///
/// # Errors
/// [`StoreError::Failed`] when the database cannot be opened or read, or has a newer schema.
pub async fn check_integrity(place: &SqlPlace) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    if is_unborn(place) {
        return Ok(found);
    }
    let mut connection = reader(place).await?;
    for check in ["PRAGMA integrity_check", "PRAGMA foreign_key_check"] {
        let rows = sqlx::query(check)
            .fetch_all(&mut connection)
            .await
            .map_err(lost)?;
        for row in rows {
            // A row of the second check names the table that refers to what is not there.
            let text: String = row.try_get(0).map_err(lost)?;
            if text != "ok" {
                found.push(format!("{check}: {text}"));
            }
        }
    }
    // What SQLite finds broken is told already.
    if found.is_empty()
        && has_table(&mut connection, "_sqlx_migrations").await?
        && check_schema(&mut connection).await? == Schema::Current
    {
        match read_rows(&mut connection).await {
            Err(StoreError::Damaged(what)) => found.push(what),
            read => read?,
        }
    }
    Ok(found)
}

/// Reads all that a start reads.
async fn read_rows(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    settings::kept_name_key(connection).await?;
    load(connection, &MemoryDirectory::default()).await
}

/// What a database knows of the data directory that it lies in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// What the directory is made of, where that was kept.
    pub installation: Option<Installation>,
    /// Whether the database has been in use.
    pub used: bool,
    /// Changes that it has kept.
    pub generation: u64,
    /// The highest offset of the event log that it has seen durable.
    pub log_end: u64,
    /// The branch of its history that it is on, where it keeps that.
    pub branch: Option<Branch>,
}

/// What a database knows of the data directory that it lies in; nothing where there is none, or one whose making was
/// interrupted. Changes nothing.
///
/// # Errors
/// [`StoreError::Failed`] when the database cannot be opened, or has a newer schema; [`StoreError::Damaged`] names the file.
pub async fn look(place: &SqlPlace) -> Result<Looked, StoreError> {
    looked(place).await.map_err(|error| named(place, error))
}

async fn looked(place: &SqlPlace) -> Result<Looked, StoreError> {
    if is_unborn(place) {
        return Ok(Looked::default());
    }
    let mut connection = reader(place).await?;
    if !has_table(&mut connection, "_sqlx_migrations").await? {
        return Ok(Looked::default());
    }
    check_schema(&mut connection).await?;
    // The first step of the schema is one transaction.
    if !has_table(&mut connection, "tenants").await? {
        return Ok(Looked::default());
    }
    let used = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM tenants)");
    Ok(Looked {
        used: used.fetch_one(&mut connection).await.map_err(lost)?,
        installation: settings::installation(&mut connection).await?,
        generation: settings::generation(&mut connection).await?,
        log_end: settings::log_end(&mut connection).await?,
        branch: settings::branch(&mut connection).await?,
    })
}

/// Whether the database is not there, or nothing was committed to it yet: SQLite begins with an empty file, and has a
/// rollback journal only until it has been told to keep a write-ahead log. Neither can be opened for reading alone.
fn is_unborn(place: &SqlPlace) -> bool {
    let SqlPlace::File(path) = place else {
        return false;
    };
    let len = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let mut journal = path.clone().into_os_string();
    journal.push("-journal");
    len(path) == 0 || len(Path::new(&journal)) > 0
}

async fn has_table(connection: &mut SqliteConnection, name: &str) -> Result<bool, StoreError> {
    let found =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1)");
    found.bind(name).fetch_one(connection).await.map_err(lost)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::SqlStore;
    use super::*;
    use crate::fault::FailPoints;
    use crate::machine::{MachineClock, MachineRandomness, TenantClock};

    async fn open(place: &SqlPlace) -> Result<SqlStore, StoreError> {
        let clocks = Arc::new(TenantClock::new(Arc::new(MachineClock)));
        let fail = Arc::new(FailPoints::default());
        SqlStore::open(place, clocks, Arc::new(MachineRandomness), fail).await
    }

    async fn assert_refused(place: &SqlPlace) {
        let refused = open(place).await.err();
        let told = matches!(&refused, Some(StoreError::Damaged(text)) if text.contains("t.db") && text.contains("turnpike doctor"));
        assert!(told, "{refused:?}");
    }

    #[tokio::test]
    async fn a_sound_database_passes_and_a_broken_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        let place = SqlPlace::File(path.clone());
        assert_eq!(look(&place).await, Ok(Looked::default()), "there is none");
        let store = open(&place).await.unwrap();
        store.first_start(None, &|_| Ok(())).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        assert_eq!(check_integrity(&place).await, Ok(Vec::new()));
        let looked = look(&place).await.unwrap();
        assert_eq!((looked.used, looked.generation), (true, 1), "{looked:?}");
        let mut newer = super::super::connect::writer(&place).await.unwrap();
        let step = "INSERT INTO _sqlx_migrations SELECT 99, description, installed_on, success, checksum, \
                    execution_time FROM _sqlx_migrations WHERE version = 1";
        sqlx::query(step).execute(&mut newer).await.unwrap();
        drop(newer);
        let refused = look(&place).await.unwrap_err().to_string();
        assert!(refused.contains("schema version 99"), "{refused}");
        let mut bytes = std::fs::read(&path).unwrap();
        for page in bytes.chunks_mut(4_096).skip(1) {
            page[..512].fill(0xA5);
        }
        std::fs::write(&path, bytes).unwrap();
        let damaged = look(&place).await.unwrap_err().to_string();
        assert!(
            damaged.contains("t.db") && damaged.contains("turnpike doctor"),
            "{damaged}"
        );
        let broken = check_integrity(&place).await;
        assert!(broken.is_err() || broken.is_ok_and(|found| !found.is_empty()));
        assert_refused(&place).await;
        // Not even the first page.
        std::fs::write(&path, vec![0xA5; 20_000]).unwrap();
        assert_refused(&place).await;
    }

    #[tokio::test]
    async fn a_row_that_a_start_cannot_read_is_named_by_the_check_too() {
        let directory = tempfile::tempdir().unwrap();
        let place = SqlPlace::File(directory.path().join("t.db"));
        let store = open(&place).await.unwrap();
        store.first_start(None, &|_| Ok(())).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let mut writer = super::super::connect::writer(&place).await.unwrap();
        let plan = "INSERT INTO plans (tenant, key, version, body) SELECT id, 'p', 1, '{}' FROM tenants";
        for (damage, mend, named) in [
            (plan, "DELETE FROM plans", "table plans, row p: "),
            (
                "UPDATE tenants SET body = '!' || body",
                "UPDATE tenants SET body = substr(body, 2)",
                "table tenants, row ",
            ),
            (
                "UPDATE settings SET value = '!' || value WHERE name = 'name_key'",
                "UPDATE settings SET value = substr(value, 2) WHERE name = 'name_key'",
                "table settings, row name_key: ",
            ),
        ] {
            sqlx::query(damage).execute(&mut writer).await.unwrap();
            assert_refused(&place).await;
            let found = check_integrity(&place).await.unwrap();
            assert!(
                matches!(&found[..], [one] if one.starts_with(named)),
                "{damage}: {found:?}"
            );
            sqlx::query(mend).execute(&mut writer).await.unwrap();
            assert_eq!(check_integrity(&place).await, Ok(Vec::new()), "{mend}");
        }
        // A start brings an older schema up to date before it reads the rows.
        let older = "DELETE FROM _sqlx_migrations WHERE version > 7";
        sqlx::query(older).execute(&mut writer).await.unwrap();
        for column in [
            "api_keys DROP COLUMN replaced_by",
            "subscriptions DROP COLUMN settled_us",
        ] {
            let sql = format!("ALTER TABLE {column}");
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .execute(&mut writer)
                .await
                .unwrap();
        }
        assert_eq!(check_integrity(&place).await, Ok(Vec::new()));
        assert!(open(&place).await.is_ok());
    }

    /// A process that is killed within its first start leaves one of these.
    #[tokio::test]
    async fn a_database_whose_making_was_interrupted_is_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        let place = SqlPlace::File(path.clone());
        let journal = directory.path().join("t.db-journal");
        std::fs::write(&path, []).unwrap();
        assert_eq!(look(&place).await, Ok(Looked::default()), "an empty file");
        std::fs::write(&path, vec![0; 4_096]).unwrap();
        std::fs::write(&journal, [7; 512]).unwrap();
        assert_eq!(
            look(&place).await,
            Ok(Looked::default()),
            "a page that is not committed"
        );
        assert_eq!(check_integrity(&place).await, Ok(Vec::new()));
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&journal).unwrap();
        drop(super::super::connect::writer(&place).await.unwrap());
        assert!(std::fs::metadata(&path).unwrap().len() > 0);
        assert_eq!(
            look(&place).await,
            Ok(Looked::default()),
            "a database without a table"
        );
        let store = open(&place).await.unwrap();
        assert_eq!(
            look(&place).await,
            Ok(Looked::default()),
            "a schema without a tenant"
        );
        store.first_start(None, &|_| Ok(())).await.unwrap();
        assert!(look(&place).await.unwrap().used);
    }

    #[tokio::test]
    async fn it_counts_its_changes_and_keeps_how_far_the_log_was_seen() {
        let directory = tempfile::tempdir().unwrap();
        let place = SqlPlace::File(directory.path().join("t.db"));
        let store = open(&place).await.unwrap();
        for (seen, kept) in [(90, 90), (9, 90), (1_000, 1_000), (0, 1_000)] {
            store.keep_log_end(seen).await.unwrap();
            assert_eq!(look(&place).await.unwrap().log_end, kept);
        }
        assert_eq!(store.generation(), 0);
        store.first_start(None, &|_| Ok(())).await.unwrap();
        assert_eq!(
            (store.generation(), look(&place).await.unwrap().generation),
            (1, 1)
        );
        drop(store);
        assert_eq!(open(&place).await.unwrap().generation(), 1);
    }
}
