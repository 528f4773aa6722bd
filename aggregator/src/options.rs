use std::sync::Arc;

use turnpike_domain::identity::NameKey;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::log::EventLog;
use turnpike_domain::port::usage::UsageListener;
use turnpike_domain::port::views::Views;
use turnpike_domain::time::Clock;

/// What an [`crate::Aggregator`] is built from.
pub struct Parts {
    /// The log of all partitions.
    pub log: Arc<dyn EventLog>,
    /// The views of each partition, in order. Their number is the number of partitions.
    pub views: Vec<Arc<dyn Views>>,
    /// Tenants, meters and customers.
    pub directory: Arc<dyn Directory>,
    /// Who is told of changes.
    pub listener: Arc<dyn UsageListener>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The installation's key for names and payload hashes.
    pub key: NameKey,
    /// Bounds and intervals.
    pub options: Options,
}

/// Bounds and intervals of the partition owners.
#[derive(Debug, Clone)]
pub struct Options {
    /// Records that may wait for one partition; beyond it calls are refused with `overloaded`.
    pub queue_records_max: usize,
    /// Bytes of records that may wait for one partition.
    pub queue_bytes_max: usize,
    /// Records after which a partition writes a checkpoint.
    pub checkpoint_records: u64,
    /// Bytes of windows in memory (estimated) after which a partition writes a checkpoint.
    pub checkpoint_bytes: usize,
    /// Microseconds after which a partition writes a checkpoint, unless the log has not moved since its last one.
    pub checkpoint_interval_us: u64,
    /// Bytes (estimated) that all partitions together may hold of what is not in a finished checkpoint yet, and of what waits for
    /// them; beyond it calls are refused with `overloaded`. From half of it on, partitions write checkpoints earlier.
    pub memory_bytes_max: usize,
    /// Readings of usage and events that work at once; others wait.
    pub queries_max: usize,
    /// Bytes (estimated) that queries may hold of what they copied of the partitions' memory; beyond it they are refused with
    /// `overloaded`.
    pub query_memory_bytes_max: usize,
    /// Bytes of the log's records that a page of events looks through; where they do not fill it, it ends and says where to go on.
    pub events_looked_bytes_max: usize,
    /// Blocks of the log that a partition reads in one slice of a backfill, between batches.
    pub backfill_blocks: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_records_max: 200_000,
            queue_bytes_max: 128 * 1024 * 1024,
            checkpoint_records: 2_000_000,
            checkpoint_bytes: 128 * 1024 * 1024,
            checkpoint_interval_us: 60_000_000,
            memory_bytes_max: 1024 * 1024 * 1024,
            queries_max: 4,
            query_memory_bytes_max: 256 * 1024 * 1024,
            events_looked_bytes_max: 512 * 1024 * 1024,
            backfill_blocks: 4,
        }
    }
}
