//! A full disk (R5).

use std::process::Command;
use std::time::Instant;

use turnpike_domain::time::Timestamp;

use super::*;
use crate::contract::log::{append, read_all};
use turnpike_domain::port::log::StoredBlock;

fn quick(directory: impl Into<PathBuf>) -> LogOptions {
    LogOptions {
        tick: Duration::from_millis(5),
        compression: Compression::None,
        ..options(directory)
    }
}

/// A block of `bytes` bytes.
fn long(bytes: usize) -> Block {
    let mut block = Block::default();
    block.push(&vec![7; bytes]);
    block
}

/// Appends until the disk is full.
fn fill(log: &SegmentedLog, stored: &mut Vec<StoredBlock>) {
    let began = stored.len();
    loop {
        let block = long(100 + stored.len() % 7 * 300);
        match log.append(block.clone()) {
            Ok((position, next)) => {
                log.wait_durable_blocking(next)
                    .expect("what was taken becomes durable");
                stored.push(StoredBlock {
                    position,
                    next,
                    block,
                });
            }
            Err(StoreError::Full(why)) => {
                assert!(why.contains("free some space"), "{why}");
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(stored.len() > began, "something fitted");
}

#[expect(clippy::disallowed_methods, reason = "a deadline of the test")]
fn wait_for_health(log: &SegmentedLog) {
    let began = Instant::now();
    while log.health() != LogHealth::Healthy {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "takes records again within 10 s"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_used_again_once_there_is_space() {
    let mut full = 0;
    for capacity in (40..100).map(|kib| kib * 1024 + 7) {
        let disk = FaultDisk::new(capacity);
        disk.set_capacity(capacity);
        let log = open_with(quick(DIRECTORY), disk.clone()).unwrap();
        let mut stored = Vec::new();
        for more in 1..4 {
            fill(&log, &mut stored);
            full += 1;
            assert!(matches!(log.health(), LogHealth::Full(_)));
            let (free, total) = disk.space(Path::new(DIRECTORY)).unwrap();
            assert!((total - free) * 100 <= total * 95, "intake stops at 95 %");
            assert!(
                stored.last().unwrap().next.offset() > total / 2,
                "most of it can be used"
            );
            disk.set_capacity(capacity + more * 20_000);
            wait_for_health(&log);
        }
        append(&*log, long(200));
        assert_eq!(read_all(&*log).len(), stored.len() + 1);
        let found = read_all(&*open(&disk.crash()).unwrap());
        assert!(found.starts_with(&stored));
    }
    println!("{full} times full");
    assert_eq!(full, 180);
}

#[test]
fn what_others_write_counts_too() {
    let disk = FaultDisk::new(0);
    disk.set_capacity(1 << 20);
    let log = open_with(quick(DIRECTORY), disk.clone()).unwrap();
    append(&*log, long(100));
    let ballast = Path::new("/data/ballast");
    disk.put(ballast, &vec![1; 1_000_000]);
    #[expect(clippy::disallowed_methods, reason = "a deadline of the test")]
    let began = Instant::now();
    while log.health() == LogHealth::Healthy {
        assert!(began.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(
        matches!(log.append(long(1)), Err(StoreError::Full(_))),
        "also where space was taken ahead"
    );
    disk.remove(ballast).unwrap();
    wait_for_health(&log);
    append(&*log, long(100));
}

#[test]
fn a_small_file_system_fills_up_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&mount)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a tmpfs cannot be mounted here; the disk in memory alone has shown R5");
        return;
    }
    let result = std::panic::catch_unwind(|| fill_and_free(&mount));
    assert!(Command::new("umount").arg(&mount).status().unwrap().success());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn fill_and_free(mount: &Path) {
    let ballast = mount.join("ballast");
    std::fs::write(&ballast, vec![1; 700_000]).unwrap();
    let options = LogOptions {
        ahead_bytes: 16 << 20,
        segment_bytes: 300_000,
        ..quick(mount.join("log"))
    };
    let log = open_with(options.clone(), RealDisk).unwrap();
    let mut stored = Vec::new();
    fill(&log, &mut stored);
    std::fs::remove_file(&ballast).unwrap();
    wait_for_health(&log);
    fill(&log, &mut stored);
    assert!(log.bytes() > 1_800_000, "{} of 2 MiB used", log.bytes());
    log.close().unwrap();
    drop(log);
    let log = open_with(options, RealDisk).unwrap();
    assert_eq!(read_all(&*log), stored, "a full disk can be opened and read");
    let middle = stored[stored.len() / 2].position;
    log.retain(middle, Timestamp::MAX).unwrap();
    wait_for_health(&log);
    append(&*log, long(100));
}
