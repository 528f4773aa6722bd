//! A copy of a database that a process may be using.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _};
use turnpike_domain::port::StoreError;

use super::SqlPlace;
use super::connect::{lost, reader, writer};
use super::integrity::named;

/// How often it is looked whether a copy has begun, and for how long: the process that uses the database waits for its turn to
/// write for 5 s before it refuses a change.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
const LOOKS_MAX: u32 = 1_500;

/// Writes the database at `place`, as it is at one instant, to the new file `to`; what `then` came to at that same instant.
///
/// Nothing is changed in the database from before the copy is fixed until `then` has returned, which must be soon: whoever wants
/// to change something waits. After that the copy goes on beside all changes, and has none of them.
///
/// # Errors
/// [`StoreError::Full`] where there is no space for the copy; what `then` returns; [`StoreError::Damaged`] names the database.
pub async fn copy<T>(
    place: &SqlPlace,
    to: &Path,
    then: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let copied = copied(place, to, then).await;
    copied.map_err(|error| named(place, error))
}

async fn copied<T>(
    place: &SqlPlace,
    to: &Path,
    then: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let file = to
        .to_str()
        .ok_or_else(|| StoreError::Failed(format!("{} is not UTF-8", to.display())))?;
    let mut held = writer(place).await?;
    let mut source = reader(place).await?;
    held.execute("BEGIN IMMEDIATE").await.map_err(lost)?;
    let outcome = {
        let copying = sqlx::query("VACUUM INTO $1").bind(file).execute(&mut source);
        let mut copying = pin!(copying);
        let ended = tokio::select! {
            ended = &mut copying => Some(ended),
            begun = begun(to) => { begun?; None }
        };
        let outcome = then();
        held.execute("ROLLBACK").await.map_err(lost)?;
        close(held).await?;
        let outcome = outcome?;
        match ended {
            Some(ended) => ended,
            None => copying.await,
        }
        .map_err(lost)?;
        outcome
    };
    close(source).await?;
    settle(&SqlPlace::File(to.to_owned())).await?;
    Ok(outcome)
}

/// Waits until SQLite has written the first byte of a copy: by then it has begun to read, and by that fixed what it reads.
async fn begun(to: &Path) -> Result<(), StoreError> {
    for _ in 0..LOOKS_MAX {
        if std::fs::metadata(to).is_ok_and(|file| file.len() > 0) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let why = "the copy of the database did not begin: the disk is too slow or too busy; try again";
    Err(StoreError::Failed(why.to_owned()))
}

/// Makes the database a single file that nobody has open, and makes it durable.
pub async fn settle(place: &SqlPlace) -> Result<(), StoreError> {
    close(writer(place).await?).await?;
    let SqlPlace::File(path) = place else {
        return Ok(());
    };
    let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| StoreError::Failed(format!("syncing {}: {error}", path.display())))
}

async fn close(connection: SqliteConnection) -> Result<(), StoreError> {
    connection.close().await.map_err(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn count(place: &SqlPlace) -> i64 {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM t");
        count.fetch_one(&mut reader(place).await.unwrap()).await.unwrap()
    }

    /// Others go on writing: the copy has what was there when `then` ran, and nothing else.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_copy_is_of_the_instant_at_which_others_were_held() {
        let directory = tempfile::tempdir().unwrap();
        let place = SqlPlace::File(directory.path().join("t.db"));
        let mut first = writer(&place).await.unwrap();
        first.execute("CREATE TABLE t (x BLOB)").await.unwrap();
        for _ in 0..20 {
            first
                .execute("INSERT INTO t VALUES (zeroblob(300000))")
                .await
                .unwrap();
        }
        let place_of_others = place.clone();
        let others = tokio::spawn(async move {
            let mut connection = writer(&place_of_others).await.unwrap();
            loop {
                connection
                    .execute("INSERT INTO t VALUES (zeroblob(1000))")
                    .await
                    .unwrap();
                tokio::task::yield_now().await;
            }
        });
        for at in 0..5 {
            let to = directory.path().join(format!("copy-{at}.db"));
            let runtime = tokio::runtime::Handle::current();
            let counted = copy(&place, &to, || {
                let counted = || runtime.block_on(count(&place));
                let at_first = tokio::task::block_in_place(counted);
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(tokio::task::block_in_place(counted), at_first, "others wait");
                Ok(at_first)
            });
            let counted = counted.await.unwrap();
            assert_eq!(count(&SqlPlace::File(to)).await, counted);
            assert!(count(&place).await >= counted);
        }
        others.abort();
        assert!(count(&place).await > 20, "vacuous: the others wrote nothing");
    }

    #[tokio::test]
    async fn what_then_refuses_is_told_and_a_file_that_is_there_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let place = SqlPlace::File(directory.path().join("t.db"));
        let mut first = writer(&place).await.unwrap();
        first.execute("CREATE TABLE t (x BLOB)").await.unwrap();
        let refuse = || Err::<(), _>(StoreError::Gone("no".to_owned()));
        let to = directory.path().join("copy.db");
        assert_eq!(
            copy(&place, &to, refuse).await,
            Err(StoreError::Gone("no".to_owned()))
        );
        std::fs::write(&to, "mine").unwrap();
        assert!(copy(&place, &to, || Ok(())).await.is_err());
        assert_eq!(std::fs::read(&to).unwrap(), b"mine");
        first.execute("INSERT INTO t VALUES (1)").await.unwrap();
    }
}
