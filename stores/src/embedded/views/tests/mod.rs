//! Tests of the views as a whole, against a simple model, on a disk that fails.

mod crash;
mod damage;
mod format;
mod kill;
mod model;
mod parallel;

use super::*;
use crate::contract::views::{AddValues, CHECKPOINT_IDS, Opener, contract};
use crate::disk::RealDisk;
use crate::fault::FaultDisk;

/// Small tables, and merges only when asked for.
fn options(directory: &Path) -> ViewsOptions {
    ViewsOptions {
        table_ids: CHECKPOINT_IDS,
        background: false,
        cache_bytes_max: 100_000,
        ..ViewsOptions::new(directory, 3)
    }
}

fn open_on(disk: &FaultDisk, fail: FailPoints) -> Result<Arc<EmbeddedViews>, StoreError> {
    let disk = Arc::new(disk.clone());
    EmbeddedViews::open(
        options(Path::new("/views")),
        Arc::new(AddValues),
        disk,
        Arc::new(fail),
    )
}

fn open_real(options: &ViewsOptions, fail: FailPoints) -> Result<Arc<EmbeddedViews>, StoreError> {
    EmbeddedViews::open(
        options.clone(),
        Arc::new(AddValues),
        Arc::new(RealDisk),
        Arc::new(fail),
    )
}

#[test]
fn keeps_the_contract() {
    for background in [false, true] {
        let mut directories = Vec::new();
        contract(&mut || {
            let directory = tempfile::tempdir().unwrap();
            let options = ViewsOptions {
                background,
                ..options(directory.path())
            };
            directories.push(directory);
            Box::new(move || Ok(open_real(&options, FailPoints::default())? as Arc<dyn Views>)) as Opener
        })
        .unwrap();
    }
}

#[test]
fn keeps_the_contract_when_the_power_goes() {
    let mut seed = 0;
    contract(&mut || {
        seed += 1;
        let mut disk = FaultDisk::new(seed);
        Box::new(move || {
            disk = disk.crash();
            Ok(open_on(&disk, FailPoints::default())? as Arc<dyn Views>)
        }) as Opener
    })
    .unwrap();
}
