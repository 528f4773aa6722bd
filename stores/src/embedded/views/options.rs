//! How a partition's views are set up.

use std::path::PathBuf;

/// Options of [`super::EmbeddedViews`].
#[derive(Debug, Clone)]
pub struct ViewsOptions {
    /// The directory of all views; each partition has one of its own in it.
    pub directory: PathBuf,
    /// The partition.
    pub partition: u32,
    /// Identity of the log that they are derived from: views of another one are refused. `None` where it does not matter.
    pub log: Option<u64>,
    /// New ids after which a checkpoint is wanted. A full table takes about 50 bytes of memory for each, and while a checkpoint is
    /// written there are two.
    pub table_ids: usize,
    /// Bytes of memory for the filters of this partition. Filters have 16 bits for each id, those of large runs 24 while
    /// they take at most half of this; as the bound comes near they get coarser, but never less than 8 bits.
    pub filter_bytes_max: u64,
    /// Bytes of memory for blocks of rows that were read lately.
    pub cache_bytes_max: usize,
    /// Whether runs are merged by threads in the background. Else they are merged by [`super::EmbeddedViews::merge_all`].
    pub background: bool,
}

impl ViewsOptions {
    /// The defaults for one partition of a few.
    pub fn new(directory: impl Into<PathBuf>, partition: u32) -> Self {
        Self {
            directory: directory.into(),
            partition,
            log: None,
            table_ids: 500_000,
            filter_bytes_max: 256 * 1024 * 1024,
            cache_bytes_max: 16 * 1024 * 1024,
            background: true,
        }
    }
}
