mod crash;
mod full;
mod running;
mod together;
mod torn;

use std::path::Path;

use super::format::{SEGMENT_HEADER, SegmentHeader, VERSION};
use super::*;
use crate::contract::log as contract;
use crate::disk::RealDisk;
use crate::fault::FaultDisk;
use crate::machine::{MachineClock, MachineRandomness};

const DIRECTORY: &str = "/data/log";

fn options(directory: impl Into<PathBuf>) -> LogOptions {
    LogOptions {
        segment_bytes: 16 * 1024,
        ahead_bytes: 8 * 1024,
        tick: Duration::from_mins(1),
        ..LogOptions::new(directory)
    }
}

fn open_with(options: LogOptions, disk: impl Disk + 'static) -> Result<Arc<SegmentedLog>, StoreError> {
    open_failing(options, disk, FailPoints::default())
}

fn open_failing(
    options: LogOptions,
    disk: impl Disk + 'static,
    fail: FailPoints,
) -> Result<Arc<SegmentedLog>, StoreError> {
    SegmentedLog::open(
        options,
        Arc::new(disk),
        Arc::new(MachineClock),
        &MachineRandomness,
        Arc::new(fail),
    )
}

fn open(disk: &FaultDisk) -> Result<Arc<SegmentedLog>, StoreError> {
    open_with(options(DIRECTORY), disk.clone())
}

/// The error of an opening that must fail.
fn refused(disk: &FaultDisk) -> StoreError {
    open(disk).err().expect("the log must not open")
}

/// The segment files on the disk.
fn files(disk: &FaultDisk) -> Vec<PathBuf> {
    disk.list(Path::new(DIRECTORY)).unwrap()
}

#[test]
fn keeps_the_contract_on_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let made = std::cell::Cell::new(0);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1)] {
        contract::all(&|| {
            made.set(made.get() + 1);
            let path = directory.path().join(made.get().to_string());
            let options = LogOptions {
                compression,
                ..options(path)
            };
            let log = open_with(options.clone(), RealDisk).unwrap();
            contract::Subject::new(log, move |log: Arc<SegmentedLog>| {
                log.close().unwrap();
                open_with(options, RealDisk).unwrap()
            })
        });
    }
}

#[test]
fn keeps_the_contract_on_a_disk_in_memory() {
    contract::all(&|| {
        let disk = FaultDisk::new(0);
        let log = open(&disk).unwrap();
        contract::Subject::new(log, move |log: Arc<SegmentedLog>| {
            log.close().unwrap();
            open(&disk.kill()).unwrap()
        })
    });
}
