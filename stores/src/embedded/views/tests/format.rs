//! Views that were written by every released format are still read: one directory in `stores/fixtures` for each.

use super::model::{NAMES, ROUNDS, checkpoints, finish, play, remember};
use super::*;
use crate::disk::Disk;

/// The last round in the fixture: with a merge, and with meta in a file of its own.
const FIXTURE_ROUND: u64 = 9;

fn fixture(version: u32) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/views-{version}"))
}

#[test]
fn version_1_is_read_and_goes_on() {
    let disk = FaultDisk::new(0);
    let mut kinds = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(fixture(1)).unwrap() {
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
    let views = open_on(&disk, FailPoints::default()).unwrap();
    let states = checkpoints();
    assert_eq!(views.position(), Position(FIXTURE_ROUND));
    states[FIXTURE_ROUND as usize].check(&views, NAMES);
    views.verify().unwrap();
    play(&views, |_| {}).unwrap();
    states[ROUNDS as usize].check(&views, NAMES);
}

/// Run by hand, once for each new version: `cargo test --workspace --lib write_fixture -- --ignored`.
#[test]
#[ignore = "writes the fixture of the current version"]
fn write_fixture() {
    let disk = FaultDisk::new(0);
    let views = open_on(&disk, FailPoints::default()).unwrap();
    for round in 1..=FIXTURE_ROUND {
        remember(&views, round).unwrap();
        finish(&views, round).unwrap();
        views.merge_all().unwrap();
    }
    let directory = fixture(footer::VERSION);
    std::fs::create_dir_all(&directory).unwrap();
    drop(views);
    for file in disk.list(Path::new("/views/partition-00003")).unwrap() {
        let name = file.file_name().unwrap();
        std::fs::write(directory.join(name), disk.contents(&file).unwrap()).unwrap();
    }
}
