use std::path::Path;
use std::sync::Arc;

use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::EventLog as _;
use turnpike_domain::port::views::Views;
use turnpike_domain::record::Position;
use turnpike_stores::disk::{Disk, RealDisk};
use turnpike_stores::embedded::log::{self as event_log, ControlMark, Expected, Known};
use turnpike_stores::embedded::{EmbeddedViews, LogOptions, SegmentedLog, ViewsOptions, views};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::TenantClock;
use turnpike_stores::sql::{Installation, Looked, SqlPlace, SqlStore, look};

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
    /// Opens all of them, once it is known that they belong together: before that nothing is changed.
    pub(crate) async fn open(
        config: &Config,
        data_dir: &DataDir,
        clock: &Arc<TenantClock>,
        parts: &EngineParts,
    ) -> Result<Self, StartError> {
        let fail = &parts.fail_points;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let database = look(&SqlPlace::File(data_dir.database())).await?;
        let options = LogOptions {
            segment_bytes: config.engine.segment_bytes,
            expected: expected(data_dir, &database, &disk)?,
            ..LogOptions::new(data_dir.log())
        };
        let log = SegmentedLog::open(
            options,
            Arc::clone(&disk),
            clock.clone(),
            parts.randomness.as_ref(),
            Arc::clone(fail),
        )?;
        let sql = open_database(data_dir, &log, clock, parts).await?;
        let views = open_views(
            &data_dir.views(),
            data_dir.partitions(),
            Some(log.identity()),
            fail,
        )
        .map_err(StartError::UnreadableViews)?;
        Ok(Self { sql, log, views })
    }

    /// Whether the parts of a directory that nobody has open belong together, as [`Self::open`] demands. Changes nothing.
    pub(crate) async fn check_together(data_dir: &DataDir) -> Result<(), StartError> {
        let database = look(&SqlPlace::File(data_dir.database())).await?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let expected = expected(data_dir, &database, &disk)?;
        Ok(event_log::check(&*disk, &data_dir.log(), expected)?)
    }

    /// Ends the log and then the database, which keeps how far the log came.
    pub(crate) async fn close(&self) -> Result<(), StartError> {
        self.log.close()?;
        if let Err(error) = self.sql.keep_log_end(self.log.durable().offset()).await {
            // It takes nothing any more, and has said why.
            tracing::warn!(%error, "the database does not know how far the log came");
        }
        Ok(self.sql.close().await?)
    }

    /// The views of a directory alone, to be read.
    pub(crate) fn views_in(directory: &Path, partitions: u32) -> Result<Vec<Arc<EmbeddedViews>>, StoreError> {
        open_views(directory, partitions, None, &Arc::default())
    }

    /// The views as the partition owners see them.
    pub(crate) fn views(&self) -> Vec<Arc<dyn Views>> {
        self.views
            .iter()
            .map(|views| views.clone() as Arc<dyn Views>)
            .collect()
    }
}

/// What the log must be, by what database and views know of it.
///
/// # Errors
/// [`StartError::UnreadableViews`] also where the views are another log's.
fn expected(data_dir: &DataDir, database: &Looked, disk: &Arc<dyn Disk>) -> Result<Expected, StartError> {
    let made = database.installation;
    if let Some(made) = made {
        data_dir.check_partitions(made.partitions)?;
    }
    let identity = made.map(|made| made.log);
    let positions: Result<Vec<u64>, _> = (0..data_dir.partitions())
        .map(|partition| views::look(disk, &data_dir.views(), partition, identity).map(Position::offset))
        .collect();
    let positions = positions.map_err(StartError::UnreadableViews)?;
    let views_to = positions.iter().copied().max().unwrap_or(0);
    if made.is_none() && !database.used {
        return Ok(Expected::Nothing { views_to });
    }
    Ok(Expected::Log(Known {
        identity,
        views_from: positions.into_iter().min().unwrap_or(0),
        views_to,
        database_to: database.log_end,
        generation: database.generation,
        branch: database.branch,
    }))
}

/// Opens the database and ties it to the log.
async fn open_database(
    data_dir: &DataDir,
    log: &SegmentedLog,
    clock: &Arc<TenantClock>,
    parts: &EngineParts,
) -> Result<SqlStore, StartError> {
    let sql = SqlStore::open(
        &SqlPlace::File(data_dir.database()),
        Arc::clone(clock),
        Arc::clone(&parts.randomness),
        Arc::clone(&parts.fail_points),
    )
    .await?;
    if sql.installation().await?.is_none() {
        sql.keep_installation(Installation {
            log: log.identity(),
            partitions: data_dir.partitions(),
        })
        .await?;
    }
    let marked = event_log::branch(&RealDisk, &data_dir.log())?;
    let branch = sql.next_branch(marked).await?;
    let age = (sql.generation(), branch);
    let mark = ControlMark::open(&RealDisk, &data_dir.log(), log.identity(), age)?;
    sql.mark_in(mark);
    Ok(sql)
}

fn open_views(
    directory: &Path,
    partitions: u32,
    log: Option<u64>,
    fail: &Arc<FailPoints>,
) -> Result<Vec<Arc<EmbeddedViews>>, StoreError> {
    let open = |partition| {
        let options = ViewsOptions::new(directory, partition);
        let options = ViewsOptions {
            log,
            filter_bytes_max: FILTER_BYTES_MAX / u64::from(partitions),
            cache_bytes_max: options.cache_bytes_max.min(CACHE_BYTES_MAX / partitions as usize),
            ..options
        };
        EmbeddedViews::open(
            options,
            turnpike_aggregator::rows::merge(),
            Arc::new(RealDisk),
            Arc::clone(fail),
        )
    };
    (0..partitions).map(open).collect()
}
