//! Events on their way in: batches in the log's own encoding, and equality by meaning.

mod batch;
mod meaning;

pub use batch::{BatchEntry, EventBatch};
pub use meaning::same_meaning;
