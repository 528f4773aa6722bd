//! Whether the database's pages are sound.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::port::StoreError;

use super::SqlPlace;
use super::connect::{check_schema, lost, reader};
use super::settings::{self, Installation};

/// Refuses a database of which SQLite's quick check finds a page that is damaged: one with invoices is not written to
/// before somebody has looked.
pub(super) async fn refuse_damage(
    connection: &mut SqliteConnection,
    place: &SqlPlace,
) -> Result<(), StoreError> {
    let checked = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection);
    let found: String = checked.await.map_err(|error| named(place, lost(error)))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(named(place, StoreError::Damaged(found)))
    }
}

/// Damage with the file where it is, and what to do.
pub(super) fn named(place: &SqlPlace, error: StoreError) -> StoreError {
    match (place, error) {
        (SqlPlace::File(path), StoreError::Damaged(what)) => StoreError::Damaged(format!(
            "{}: {what}; `turnpike doctor` lists all that is wrong; restore the file from a backup",
            path.display()
        )),
        (_, error) => error,
    }
}

/// What SQLite's own check finds in a database that exists; nothing for a sound one. Changes nothing.
///
/// # Errors
/// [`StoreError::Failed`] when the database cannot be opened or read.
pub async fn check_integrity(place: &SqlPlace) -> Result<Vec<String>, StoreError> {
    let mut connection = reader(place).await?;
    let mut found = Vec::new();
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
    Ok(found)
}

/// What a database that exists knows of the data directory that it lies in, and whether it has been in use. Changes
/// nothing.
///
/// # Errors
/// [`StoreError::Failed`] when the database cannot be opened or read, or has a newer schema.
pub async fn look(place: &SqlPlace) -> Result<(Option<Installation>, bool), StoreError> {
    if let SqlPlace::File(path) = place
        && std::fs::metadata(path).is_ok_and(|file| file.len() == 0)
    {
        // SQLite takes an empty file for a new database, but opens none for reading alone.
        return Ok((None, false));
    }
    let mut connection = reader(place).await?;
    check_schema(&mut connection).await?;
    let used = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM tenants)");
    let used: bool = used.fetch_one(&mut connection).await.map_err(lost)?;
    Ok((settings::installation(&mut connection).await?, used))
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
        assert!(check_integrity(&place).await.is_err(), "there is none");
        let store = open(&place).await.unwrap();
        store.first_start(None, &|_| Ok(())).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        assert_eq!(check_integrity(&place).await, Ok(Vec::new()));
        assert_eq!(look(&place).await, Ok((None, true)));
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
        let broken = check_integrity(&place).await;
        assert!(broken.is_err() || broken.is_ok_and(|found| !found.is_empty()));
        assert_refused(&place).await;
        // Not even the first page.
        std::fs::write(&path, vec![0xA5; 20_000]).unwrap();
        assert_refused(&place).await;
    }
}
