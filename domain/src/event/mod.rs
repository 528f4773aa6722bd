//! Events on their way in: what an envelope must satisfy, batches in the log's own encoding, and equality by meaning.

mod batch;
mod envelope;
mod meaning;

pub use batch::{BatchEntry, EventBatch, payload_digest};
pub use envelope::{Attribute, check_kept, read_time};
pub use meaning::same_meaning;
