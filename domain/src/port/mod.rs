//! What the engine needs of the world: one file per port. Each has a contract suite that every adapter passes.

pub mod billing;
pub mod control;
pub mod directory;
pub mod history;
pub mod intake;
pub mod log;
pub mod usage;
pub mod views;

use std::pin::Pin;

/// A future behind a port, without a runtime's name in it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or nearly so. Nothing was written; a retry helps once there is space.
    #[error("storage is full: {0}")]
    Full(String),
    /// An earlier write or sync failed: the store refuses to write until the process has started anew.
    #[error("storage is poisoned by an earlier failure: {0}")]
    Poisoned(String),
    /// Bytes on disk are not what was written. Names the file and the offset.
    #[error("damaged data: {0}")]
    Damaged(String),
    /// What is asked for is no longer kept.
    #[error("no longer kept: {0}")]
    Gone(String),
    /// Something else has the same key.
    #[error("already there: {0}")]
    Taken(String),
    /// The store is not reachable or failed in another way.
    #[error("storage failed: {0}")]
    Failed(String),
}

impl From<StoreError> for crate::problem::Problem {
    /// Callers are told what it means to them; files and offsets are for the one who runs the server.
    fn from(error: StoreError) -> Self {
        use crate::problem::Code;
        let (code, detail) = match &error {
            StoreError::Full(_) => (
                Code::StorageFull,
                "storage is full: calls that write are taken again once there is space",
            ),
            StoreError::Poisoned(_) => (
                Code::StoragePoisoned,
                "storage takes nothing more after an earlier failure, until the server is started anew",
            ),
            StoreError::Damaged(_) => (
                Code::Damaged,
                "damaged data: a part of what is stored is not what was written; the server's log names it",
            ),
            StoreError::Failed(_) => (Code::Unavailable, "storage failed; the server's log tells how"),
            StoreError::Gone(_) => (Code::Unavailable, "what is asked for is no longer kept"),
            StoreError::Taken(_) => (Code::AlreadyExists, "something else has the same key"),
        };
        Self::new(code, detail).because(error.to_string())
    }
}
