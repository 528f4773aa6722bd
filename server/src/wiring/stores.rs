use std::path::Path;
use std::sync::Arc;

use turnpike_domain::port::StoreError;
use turnpike_domain::port::directory::Directory as _;
use turnpike_domain::port::views::Views;
use turnpike_stores::disk::{Disk, RealDisk};
use turnpike_stores::embedded::log::{self, Expected};
use turnpike_stores::embedded::{EmbeddedViews, LogOptions, SegmentedLog, ViewsOptions};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::TenantClock;
use turnpike_stores::sql::{Installation, SqlPlace, SqlStore, look};

use super::data_dir::DataDir;
use super::embedded::{EngineParts, StartError};
use crate::config::Config;

/// Memory for the filters of all partitions' ids, in bytes.
const FILTER_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Memory for blocks of rows that were read lately, of all partitions, in bytes.
const CACHE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The open stores of a data directory.
pub(crate) struct Stores {
    pub(crate) sql: SqlStore,
    pub(crate) log: Arc<SegmentedLog>,
    pub(crate) views: Vec<Arc<EmbeddedViews>>,
}

impl Stores {
    /// Opens all of them, the log last: the others know how far it reaches, and which one it is.
    pub(crate) async fn open(
        config: &Config,
        data_dir: &DataDir,
        clock: &Arc<TenantClock>,
        parts: &EngineParts,
    ) -> Result<Self, StartError> {
        data_dir.check_database()?;
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
        let known = sql.installation().await?;
        if let Some(known) = known {
            data_dir.check_partitions(known.partitions)?;
        }
        let views = open_views(&data_dir.views(), data_dir.partitions(), &disk, fail)
            .map_err(StartError::UnreadableViews)?;
        let options = LogOptions {
            segment_bytes: config.engine.segment_bytes,
            expected: expected(known, !sql.tenants().is_empty(), &views),
            ..LogOptions::new(data_dir.log())
        };
        let log = SegmentedLog::open(
            options,
            Arc::clone(&disk),
            clock.clone(),
            parts.randomness.as_ref(),
            Arc::clone(fail),
        )?;
        if known.is_none() {
            sql.keep_installation(Installation {
                log: log.identity(),
                partitions: data_dir.partitions(),
            })
            .await?;
        }
        Ok(Self { sql, log, views })
    }

    /// Whether the parts of a directory that nobody has open belong together, as [`Self::open`] demands. Changes nothing.
    pub(crate) async fn check_together(data_dir: &DataDir) -> Result<(), StartError> {
        data_dir.check_database()?;
        if !data_dir.database().exists() {
            return Ok(());
        }
        let (known, used) = look(&SqlPlace::File(data_dir.database())).await?;
        if let Some(known) = known {
            data_dir.check_partitions(known.partitions)?;
        }
        // Views that cannot be opened know nothing.
        let views = Self::views_in(&data_dir.views(), data_dir.partitions()).unwrap_or_default();
        let expected = expected(known, used, &views);
        Ok(log::check(&RealDisk, &data_dir.log(), expected)?)
    }

    /// The views of a directory alone, to be read.
    pub(crate) fn views_in(directory: &Path, partitions: u32) -> Result<Vec<Arc<EmbeddedViews>>, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        open_views(directory, partitions, &disk, &Arc::default())
    }

    /// The views as the partition owners see them.
    pub(crate) fn views(&self) -> Vec<Arc<dyn Views>> {
        self.views
            .iter()
            .map(|views| views.clone() as Arc<dyn Views>)
            .collect()
    }
}

/// What the log must be: `used` says whether the database has been in use.
fn expected(known: Option<Installation>, used: bool, views: &[Arc<EmbeddedViews>]) -> Expected {
    let reaches = views
        .iter()
        .map(|views| views.position().offset())
        .max()
        .unwrap_or(0);
    match known {
        None if !used => Expected::Nothing,
        known => Expected::Log {
            identity: known.map(|known| known.log),
            reaches,
        },
    }
}

fn open_views(
    directory: &Path,
    partitions: u32,
    disk: &Arc<dyn Disk>,
    fail: &Arc<FailPoints>,
) -> Result<Vec<Arc<EmbeddedViews>>, StoreError> {
    let open = |partition| {
        let options = ViewsOptions::new(directory, partition);
        let options = ViewsOptions {
            filter_bytes_max: FILTER_BYTES_MAX / u64::from(partitions),
            cache_bytes_max: options.cache_bytes_max.min(CACHE_BYTES_MAX / partitions as usize),
            ..options
        };
        EmbeddedViews::open(
            options,
            turnpike_aggregator::rows::merge(),
            Arc::clone(disk),
            Arc::clone(fail),
        )
    };
    (0..partitions).map(open).collect()
}
