use std::sync::Arc;

use turnpike_domain::port::views::Views;
use turnpike_stores::disk::{Disk, RealDisk};
use turnpike_stores::embedded::{EmbeddedViews, LogOptions, SegmentedLog, ViewsOptions};
use turnpike_stores::machine::TenantClock;
use turnpike_stores::sql::{SqlPlace, SqlStore};

use super::data_dir::DataDir;
use super::embedded::{EngineParts, StartError};
use crate::config::Config;

/// Memory for the filters of all partitions' ids, in bytes.
const FILTER_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The open stores of a data directory.
pub(crate) struct Stores {
    pub(crate) sql: SqlStore,
    pub(crate) log: Arc<SegmentedLog>,
    pub(crate) views: Vec<Arc<EmbeddedViews>>,
}

impl Stores {
    /// Opens all of them, the SQL store first: it knows the meters that the log is counted by.
    pub(crate) async fn open(
        config: &Config,
        data_dir: &DataDir,
        clock: &Arc<TenantClock>,
        parts: &EngineParts,
    ) -> Result<Self, StartError> {
        let place = SqlPlace::File(data_dir.database());
        let fail = &parts.fail_points;
        let sql = SqlStore::open(
            &place,
            Arc::clone(clock),
            Arc::clone(&parts.randomness),
            Arc::clone(fail),
        )
        .await?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let options = LogOptions {
            segment_bytes: config.engine.segment_bytes,
            ..LogOptions::new(data_dir.log())
        };
        let log = SegmentedLog::open(
            options,
            Arc::clone(&disk),
            clock.clone(),
            parts.randomness.as_ref(),
            Arc::clone(fail),
        )?;
        let mut views = Vec::new();
        for partition in 0..data_dir.partitions() {
            let options = ViewsOptions {
                filter_bytes_max: FILTER_BYTES_MAX / u64::from(data_dir.partitions()),
                ..ViewsOptions::new(data_dir.views(), partition)
            };
            let merge = turnpike_aggregator::rows::merge();
            views.push(EmbeddedViews::open(
                options,
                merge,
                Arc::clone(&disk),
                Arc::clone(fail),
            )?);
        }
        Ok(Self { sql, log, views })
    }

    /// The views as the partition owners see them.
    pub(crate) fn views(&self) -> Vec<Arc<dyn Views>> {
        self.views
            .iter()
            .map(|views| views.clone() as Arc<dyn Views>)
            .collect()
    }
}
