//! The one connection that writes, and its transactions.
//!
//! They are begun and ended by plain statements, not by sqlx's own: at a full disk SQLite may end a transaction by itself,
//! which sqlx does not notice. It would make each later one a savepoint inside of a transaction that nobody commits.

use std::ops::{Deref, DerefMut};

use sqlx::Executor as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::port::StoreError;

use super::connect::lost;

/// The connection that writes. Whoever has it has no transaction on it but one that it began itself.
pub(super) struct Writer {
    connection: SqliteConnection,
    /// Whether a transaction may be open.
    open: bool,
}

impl Writer {
    pub(super) const fn new(connection: SqliteConnection) -> Self {
        Self {
            connection,
            open: false,
        }
    }

    /// Ends a transaction that its caller left open: one that stopped waiting. Nothing of it was acknowledged.
    pub(super) async fn clear(&mut self) -> Result<(), StoreError> {
        if self.open { self.roll_back().await } else { Ok(()) }
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        self.clear().await?;
        self.open = true;
        self.connection.execute("BEGIN IMMEDIATE").await.map_err(lost)?;
        Ok(())
    }

    /// Makes durable what was done since [`Self::begin`]; nothing of it when that fails.
    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        let committed = self.connection.execute("COMMIT").await.map_err(lost);
        if committed.is_ok() {
            self.open = false;
            return Ok(());
        }
        self.roll_back().await?;
        committed.map(|_| ())
    }

    /// Takes back what was done since [`Self::begin`].
    pub(super) async fn roll_back(&mut self) -> Result<(), StoreError> {
        match self.connection.execute("ROLLBACK").await {
            Ok(_) => {}
            // SQLite has done it by itself. Source: sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction".
            Err(error) if error.to_string().contains("no transaction is active") => {}
            Err(error) => return Err(lost(error)),
        }
        self.open = false;
        Ok(())
    }
}

impl Deref for Writer {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use super::super::SqlPlace;
    use super::super::connect::{reader, writer};
    use super::*;

    async fn insert(writer: &mut Writer, bytes: i64) -> Result<(), StoreError> {
        let insert = sqlx::query("INSERT INTO t (x) VALUES (zeroblob($1))").bind(bytes);
        insert.execute(&mut **writer).await.map_err(lost)?;
        Ok(())
    }

    async fn rows(place: &SqlPlace) -> i64 {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM t");
        count.fetch_one(&mut reader(place).await.unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn behind_a_full_disk_and_a_caller_who_left_a_commit_is_a_commit() {
        let directory = tempfile::tempdir().unwrap();
        let place = SqlPlace::File(directory.path().join("t.db"));
        let mut writer = Writer::new(writer(&place).await.unwrap());
        writer.execute("CREATE TABLE t (x BLOB)").await.unwrap();
        writer.execute("PRAGMA max_page_count = 20").await.unwrap();
        for refused in 0..3 {
            writer.begin().await.unwrap();
            insert(&mut writer, 10).await.unwrap();
            let full = insert(&mut writer, 1_000_000).await;
            assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
            if refused < 2 {
                writer.roll_back().await.unwrap();
            }
        }
        assert_eq!(rows(&place).await, 0);
        writer.execute("PRAGMA max_page_count = 20000").await.unwrap();
        for kept in 1..3 {
            writer.begin().await.unwrap();
            insert(&mut writer, 1_000_000).await.unwrap();
            writer.commit().await.unwrap();
            assert_eq!(rows(&place).await, kept, "seen by another connection");
            writer.begin().await.unwrap();
            insert(&mut writer, 10).await.unwrap();
            // And its caller stops waiting.
        }
        writer.clear().await.unwrap();
        insert(&mut writer, 10).await.unwrap();
        assert_eq!(rows(&place).await, 3, "kept without a transaction around it");
    }
}
