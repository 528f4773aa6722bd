//! The id store alone: batches of 1,000 absent names are looked up and remembered, with a checkpoint whenever the table is
//! full, as a partition's owner does it. Then old names are looked up.
//!
//! `cargo bench -p turnpike-benches --bench ids -- [--ids N]… [--large] [--table N] [--directory D]`; without `--ids`: 1 M and 10 M,
//! with `--large` 100 M too (about 4 GB of disk, some minutes).

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{IdEntry, Views};
use turnpike_domain::record::Position;
use turnpike_stores::contract::views::{AddValues, name};
use turnpike_stores::disk::RealDisk;
use turnpike_stores::embedded::{EmbeddedViews, ViewsOptions};
use turnpike_stores::fault::FailPoints;

const BATCH: u64 = 1_000;

struct Arguments {
    ids: Vec<u64>,
    table: usize,
    directory: PathBuf,
}

fn main() -> Result<(), StoreError> {
    let Some(arguments) = arguments() else {
        eprintln!("usage: ids [--ids N]… [--large] [--table N] [--directory D]");
        std::process::exit(2);
    };
    println!(
        "ids\tids/s in all\tids/s in the last tenth\tbytes an id on disk\twritten\tmemory MB\tslowest batch\told names/s"
    );
    for ids in arguments.ids {
        let directory = tempfile::tempdir_in(&arguments.directory)
            .map_err(|error| StoreError::Failed(format!("making a directory: {error}")))?;
        let options = ViewsOptions {
            table_ids: arguments.table,
            filter_bytes_max: 1 << 30,
            ..ViewsOptions::new(directory.path(), 0)
        };
        run(ids, options)?;
    }
    Ok(())
}

fn arguments() -> Option<Arguments> {
    let mut found = Arguments {
        ids: Vec::new(),
        table: 1_800_000,
        directory: std::env::temp_dir(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--ids" => found.ids.push(words.next()?.parse().ok()?),
            "--large" => found.ids.extend([1_000_000, 10_000_000, 100_000_000]),
            "--table" => found.table = words.next()?.parse().ok()?,
            "--directory" => found.directory = words.next()?.into(),
            // Given by cargo.
            "--bench" => {}
            _ => return None,
        }
    }
    if found.ids.is_empty() {
        found.ids = vec![1_000_000, 10_000_000];
    }
    Some(found)
}

fn run(ids: u64, options: ViewsOptions) -> Result<(), StoreError> {
    let views = EmbeddedViews::open(
        options,
        Arc::new(AddValues),
        Arc::new(RealDisk),
        Arc::new(FailPoints::default()),
    )?;
    let written_before = bytes_written();
    let start = now();
    let last_tenth = ids - ids / 10;
    let mut before_last_tenth = Duration::ZERO;
    let mut slowest = Duration::ZERO;
    let mut checkpoint = None;
    for first in (0..ids).step_by(BATCH as usize) {
        if first <= last_tenth {
            before_last_tenth = start.elapsed();
        }
        let batch = now();
        insert(&views, first)?;
        slowest = slowest.max(batch.elapsed());
        if views.wants_checkpoint() {
            checkpoint = take_checkpoint(&views, checkpoint, first)?;
        }
    }
    let all = start.elapsed();
    join(checkpoint)?;
    views.begin_checkpoint()?;
    views.finish_checkpoint(Position(ids), &Vec::new(), Vec::new())?;
    let memory = resident_bytes();
    let old = old_names(&views, ids)?;
    views.merge_all()?;
    let stats = views.stats();
    println!(
        "{ids}\t{}\t{}\t{}\t{}\t{}\t{} ms\t{}",
        per_second(ids, all),
        per_second(ids / 10, all.saturating_sub(before_last_tenth)),
        tenths(stats.disk_bytes, ids),
        tenths(bytes_written() - written_before, ids),
        memory / 1_000_000,
        slowest.as_millis(),
        per_second(old.0, old.1),
    );
    Ok(())
}

fn insert(views: &EmbeddedViews, first: u64) -> Result<(), StoreError> {
    let names: Vec<EventName> = (first..first + BATCH).map(name).collect();
    let found = views.probe(&names)?;
    if found.iter().any(Option::is_some) {
        return Err(StoreError::Failed("an absent name was found".into()));
    }
    let entry = |(name, at): (&EventName, u64)| {
        let position = Position::new(first * 90, at as u16);
        let digest = name.0 as u64 ^ first;
        (*name, IdEntry { digest, position })
    };
    let entries: Vec<_> = names.iter().zip(0..).map(entry).collect();
    views.remember(&entries)
}

type Checkpoint = Option<JoinHandle<Result<(), StoreError>>>;

/// Starts a checkpoint on another thread, unless the last one is still under way.
fn take_checkpoint(views: &Arc<EmbeddedViews>, last: Checkpoint, at: u64) -> Result<Checkpoint, StoreError> {
    if last.as_ref().is_some_and(|last| !last.is_finished()) {
        return Ok(last);
    }
    join(last)?;
    views.begin_checkpoint()?;
    let views = Arc::clone(views);
    Ok(Some(std::thread::spawn(move || {
        views.finish_checkpoint(Position(at), &Vec::new(), Vec::new())
    })))
}

fn join(checkpoint: Checkpoint) -> Result<(), StoreError> {
    let ended = checkpoint.map(JoinHandle::join).transpose();
    ended
        .map_err(|_| StoreError::Failed("a checkpoint panicked".into()))?
        .unwrap_or(Ok(()))
}

/// Looks up a sample of old names, most of them in runs.
fn old_names(views: &EmbeddedViews, ids: u64) -> Result<(u64, Duration), StoreError> {
    let sample = 200_000.min(ids);
    let start = now();
    for first in (0..sample).step_by(BATCH as usize) {
        let names: Vec<_> = (first..first + BATCH).map(|at| name(at * 7_919 % ids)).collect();
        if views.probe(&names)?.iter().any(Option::is_none) {
            return Err(StoreError::Failed("an old name was not found".into()));
        }
    }
    Ok((sample, start.elapsed()))
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn per_second(count: u64, time: Duration) -> u128 {
    u128::from(count) * 1_000_000_000 / time.as_nanos().max(1)
}

/// `bytes / ids` with one digit behind the point.
fn tenths(bytes: u64, ids: u64) -> String {
    let tenths = bytes * 10 / ids;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Bytes that this process has written to disks.
fn bytes_written() -> u64 {
    number_in("/proc/self/io", "write_bytes:")
}

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    number_in("/proc/self/status", "VmRSS:") * 1024
}

/// The number behind `label`, 0 where the system has no such file.
fn number_in(path: &str, label: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
