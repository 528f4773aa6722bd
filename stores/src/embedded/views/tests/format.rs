//! Views that were written by every released format are still read: one directory in `stores/fixtures` for each.

use super::model::{NAMES, ROUNDS, checkpoints, finish, play, remember};
use super::*;
use crate::disk::Disk;

/// The last round in the fixture: with a merge, and with meta in a file of its own.
const FIXTURE_ROUND: u64 = 9;
/// Identity of the log in fixtures that name it.
const LOG: u64 = 0x7475_726e;

fn fixture(version: u32) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/views-{version}"))
}

/// A disk with the views that were written in `version`.
fn disk_of(version: u32) -> FaultDisk {
    let disk = FaultDisk::new(0);
    let mut kinds = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(fixture(version)).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        kinds.insert(name.split('-').next().unwrap().to_owned());
        let path = Path::new("/views/partition-00003").join(name);
        disk.put(&path, &std::fs::read(file.path()).unwrap());
    }
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["ids", "manifest", "meta", "rows"]
    );
    disk
}

fn open_of(disk: &FaultDisk, log: u64) -> Result<Arc<EmbeddedViews>, StoreError> {
    let options = ViewsOptions {
        log: Some(log),
        ..options(Path::new("/views"))
    };
    EmbeddedViews::open(
        options,
        Arc::new(AddValues),
        Arc::new(disk.clone()),
        Arc::default(),
    )
}

fn goes_on(disk: &FaultDisk) {
    let views = open_of(disk, LOG).unwrap();
    let states = checkpoints();
    assert_eq!(views.position(), Position(FIXTURE_ROUND));
    states[FIXTURE_ROUND as usize].check(&views, NAMES);
    views.verify().unwrap();
    play(&views, |_| {}).unwrap();
    states[ROUNDS as usize].check(&views, NAMES);
}

#[test]
fn version_1_is_read_and_goes_on() {
    let disk = disk_of(1);
    let of_any: Arc<dyn Disk> = Arc::new(disk.clone());
    let position = look(&of_any, Path::new("/views"), 3, Some(5)).unwrap();
    assert_eq!(position, Position(FIXTURE_ROUND), "it names no log");
    goes_on(&disk);
    assert!(open_of(&disk, 5).is_err(), "now it does");
}

#[test]
fn version_2_is_read_and_goes_on_and_is_of_its_log_alone() {
    let disk = disk_of(2);
    let before = disk.list(Path::new("/views/partition-00003")).unwrap();
    let all: Arc<dyn Disk> = Arc::new(disk.clone());
    assert!(look(&all, Path::new("/views"), 3, Some(LOG)).is_ok());
    for refused in [
        look(&all, Path::new("/views"), 3, Some(5)).err(),
        open_of(&disk, 5).err(),
    ] {
        let told = matches!(&refused, Some(StoreError::Damaged(text)) if text.contains("another log"));
        assert!(told, "{refused:?}");
    }
    assert_eq!(disk.list(Path::new("/views/partition-00003")).unwrap(), before);
    goes_on(&disk);
}

/// Run by hand, once for each new version: `cargo test --workspace --lib write_fixture -- --ignored`.
#[test]
#[ignore = "writes the fixture of the current version"]
fn write_fixture() {
    let disk = FaultDisk::new(0);
    let views = open_of(&disk, LOG).unwrap();
    for round in 1..=FIXTURE_ROUND {
        remember(&views, round).unwrap();
        finish(&views, round).unwrap();
        views.merge_all().unwrap();
    }
    let directory = fixture(manifest::VERSION);
    std::fs::create_dir_all(&directory).unwrap();
    drop(views);
    for file in disk.list(Path::new("/views/partition-00003")).unwrap() {
        let name = file.file_name().unwrap();
        std::fs::write(directory.join(name), disk.contents(&file).unwrap()).unwrap();
    }
}
