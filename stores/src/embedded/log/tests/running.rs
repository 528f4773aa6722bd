//! A log at work: groups, many appenders, failures of the disk (R4), retention.

use turnpike_domain::time::Timestamp;

use super::*;
use crate::contract::log::{append, block, read_all};
use crate::fault::Operation;

#[test]
fn blocks_that_wait_for_the_disk_become_durable_together_and_can_be_fetched() {
    let disk = FaultDisk::new(0);
    let log = open(&disk).unwrap();
    disk.hold_syncs(true);
    let appended: Vec<_> = (1..30)
        .map(|size| (block(1, size), log.append(block(1, size)).unwrap()))
        .collect();
    for (block, (position, _)) in &appended {
        let last = block.ends.len() - 1;
        let record = log.fetch(Position(position.0 + last as u64));
        assert_eq!(record.as_deref(), Ok(block.records().last().unwrap()));
    }
    assert_eq!(read_all(&*log), []);
    assert!(log.durable() < log.end());
    disk.hold_syncs(false);
    log.wait_durable_blocking(log.end()).unwrap();
    assert_eq!(read_all(&*log).len(), 29);
    log.close().unwrap();
    drop(log);
    let verified = verify(&disk.kill(), Path::new(DIRECTORY), &mut |_, _| {}).unwrap();
    assert_eq!(verified.blocks, 29);
    assert!(
        verified.frames <= 4,
        "two groups and two seals at the most, not {}",
        verified.frames
    );
}

#[test]
fn those_who_append_wait_while_too_much_is_pending() {
    let disk = FaultDisk::new(0);
    let bounded = LogOptions {
        pending_bytes_max: 1_000,
        compression: Compression::None,
        ..options(DIRECTORY)
    };
    let log = open_with(bounded, disk.clone()).unwrap();
    disk.hold_syncs(true);
    let taken = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    log.append(block(0, 10)).unwrap();
                    taken.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        let held = taken.load(Ordering::SeqCst);
        assert!(held > 0 && held < 20, "{held} blocks were taken");
        disk.hold_syncs(false);
    });
    log.wait_durable_blocking(log.end()).unwrap();
    assert_eq!(read_all(&*log).len(), 80);
}

#[test]
fn a_block_longer_than_the_bound_is_taken_alone() {
    let disk = FaultDisk::new(0);
    let log = open_with(
        LogOptions {
            pending_bytes_max: 100,
            ..options(DIRECTORY)
        },
        disk,
    )
    .unwrap();
    let stored: Vec<_> = (0..5).map(|_| append(&*log, block(0, 400))).collect();
    assert_eq!(read_all(&*log), stored);
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_acknowledged_and_nothing_durable_is_lost() {
    let mut faults = crate::fault::FaultCounts::default();
    for (seed, operation) in (0..40).flat_map(|seed| [(seed, Operation::Sync), (seed, Operation::Write)]) {
        let disk = FaultDisk::new(seed);
        let log = open(&disk).unwrap();
        let mut acknowledged: Vec<_> = (1..5).map(|size| append(&*log, block(0, size))).collect();
        disk.fail(operation, seed % 5);
        let waiters: Vec<_> = (0..3).map(|_| log.append(block(1, 40))).collect();
        for result in waiters.into_iter().flatten() {
            if log.wait_durable_blocking(result.1).is_ok() {
                let block = block(1, 40);
                acknowledged.push(turnpike_domain::port::log::StoredBlock {
                    position: result.0,
                    next: result.1,
                    block,
                });
            }
        }
        // Some faults wait for a later group.
        for _ in 0..10 {
            let Ok((position, next)) = log.append(block(2, 7)) else {
                break;
            };
            if log.wait_durable_blocking(next).is_ok() {
                acknowledged.push(turnpike_domain::port::log::StoredBlock {
                    position,
                    next,
                    block: block(2, 7),
                });
            }
        }
        assert!(matches!(log.health(), LogHealth::Poisoned(_)));
        assert!(matches!(log.append(block(0, 1)), Err(StoreError::Poisoned(_))));
        let last = acknowledged.last().unwrap();
        assert_eq!(log.durable(), last.next);
        assert_eq!(
            log.wait_durable_blocking(last.next),
            Ok(()),
            "what is durable stays so"
        );
        assert!(matches!(
            log.wait_durable_blocking(Position(last.next.0 + 1)),
            Err(StoreError::Poisoned(_))
        ));
        assert_eq!(read_all(&*log), acknowledged);
        assert!(matches!(log.close(), Err(StoreError::Poisoned(_))));
        let disk = disk.crash();
        let found = read_all(&*open(&disk).unwrap());
        assert!(found.starts_with(&acknowledged));
        faults += disk.counts();
    }
    println!("{faults}");
    assert_eq!(faults.errors, 80);
}

#[tokio::test]
async fn futures_that_wait_hear_of_the_failure() {
    let disk = FaultDisk::new(0);
    let log = open(&disk).unwrap();
    disk.hold_syncs(true);
    disk.fail(Operation::Sync, 0);
    let (_, next) = log.append(block(0, 1)).unwrap();
    let waiting = (0..10).map(|_| {
        let log = Arc::clone(&log);
        tokio::spawn(async move { log.wait_durable(next).await })
    });
    let waiting: Vec<_> = waiting.collect();
    tokio::task::yield_now().await;
    disk.hold_syncs(false);
    for waiting in waiting {
        assert!(matches!(waiting.await.unwrap(), Err(StoreError::Poisoned(_))));
    }
}

#[tokio::test]
async fn closing_drains_and_ends_all_waiting() {
    let disk = FaultDisk::new(0);
    let log = open(&disk).unwrap();
    let ends: Vec<_> = (1..50)
        .map(|size| log.append(block(0, size)).unwrap().1)
        .collect();
    let ahead = Position(u64::MAX);
    let waiting = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.wait_durable(ahead).await }
    });
    tokio::task::yield_now().await;
    log.close().unwrap();
    assert!(log.durable() >= *ends.last().unwrap());
    assert!(matches!(waiting.await.unwrap(), Err(StoreError::Failed(_))));
    assert!(matches!(
        log.wait_durable_blocking(ahead),
        Err(StoreError::Failed(_))
    ));
    assert!(matches!(log.append(block(0, 1)), Err(StoreError::Failed(_))));
    assert_eq!(log.close(), Ok(()), "twice does no harm");
    let disk = disk.crash();
    assert_eq!(read_all(&*open(&disk).unwrap()).len(), 49);
}

#[test]
fn an_error_at_any_fail_point_acknowledges_nothing_more() {
    let mut fired = 0;
    for point in [
        "before_append",
        "before_write",
        "after_write",
        "after_sync",
        "segment_created",
    ] {
        for at in 1..4 {
            let disk = FaultDisk::new(at);
            let fail = FailPoints::parse(&format!("log.{point}:{at}:error")).unwrap();
            let log = open_failing(options(DIRECTORY), disk.clone(), fail).unwrap();
            let mut acknowledged = Vec::new();
            for _ in 0..200 {
                let mut long = block(0, 500);
                long.push(&vec![7; 9_000]);
                match log.append(long.clone()) {
                    Ok((_, next)) if log.wait_durable_blocking(next).is_ok() => acknowledged.push(long),
                    _ => break,
                }
            }
            assert!(acknowledged.len() < 200, "{point} fires");
            fired += 1;
            let refused = log.append(block(0, 1));
            assert_eq!(
                refused.is_ok(),
                point == "before_append",
                "one refused block harms no other"
            );
            drop(log);
            let found = read_all(&*open(&disk.crash()).unwrap());
            let found: Vec<_> = found.into_iter().map(|stored| stored.block).collect();
            assert!(found.starts_with(&acknowledged));
        }
    }
    assert_eq!(fired, 15);
}

#[test]
fn a_reader_beside_many_appenders_sees_each_durable_block_once_and_in_order() {
    let disk = FaultDisk::new(0);
    let log = open(&disk).unwrap();
    let done = AtomicU64::new(0);
    let (stored, read) = std::thread::scope(|scope| {
        let appenders: Vec<_> = (0..6)
            .map(|partition| {
                let (log, done) = (&log, &done);
                scope.spawn(move || {
                    let stored: Vec<_> = (1..120)
                        .map(|size| append(&**log, block(partition, size)))
                        .collect();
                    done.fetch_add(1, Ordering::SeqCst);
                    stored
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let (mut read, mut from) = (Vec::new(), Position::START);
            loop {
                let last = done.load(Ordering::SeqCst) == 6;
                for stored in log.read(from, Only::ALL) {
                    let stored = stored.unwrap();
                    assert!(stored.position >= from);
                    from = stored.next;
                    read.push(stored);
                }
                if last {
                    return read;
                }
            }
        });
        let stored: Vec<_> = appenders
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        (stored, reader.join().unwrap())
    });
    let mut stored = stored;
    stored.sort_by_key(|stored| stored.position);
    assert!(files(&disk).len() > 2, "through several segments");
    assert_eq!(read, stored);
    let back: Vec<_> = log
        .read_back(log.end(), Only::partition(3))
        .map(Result::unwrap)
        .collect();
    let expected: Vec<_> = stored
        .into_iter()
        .rev()
        .filter(|stored| stored.block.partition == 3)
        .collect();
    assert_eq!(back, expected);
}

#[test]
fn retention_deletes_whole_segments_and_open_readers_finish() {
    let disk = FaultDisk::new(0);
    let log = open(&disk).unwrap();
    let long = |size| {
        let mut block = block(0, size);
        block.times = None;
        for at in 0..2_000_u64 {
            block.push(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        }
        block
    };
    let stored: Vec<_> = (1..12).map(|size| append(&*log, long(size))).collect();
    let before = files(&disk).len();
    assert!(before > 4);
    let mut reader = log.read(Position::START, Only::ALL);
    assert_eq!(reader.next(), Some(Ok(stored[0].clone())));
    let bytes = log.bytes();
    let first = log.retain(stored[6].position, Timestamp::MAX).unwrap();
    assert!(first <= stored[6].position && first > Position::START && log.bytes() < bytes);
    assert!(files(&disk).len() < before);
    let rest: Vec<_> = reader.collect();
    assert!(
        matches!(rest.last(), Some(Ok(_) | Err(StoreError::Gone(_)))),
        "never damage"
    );
    assert!(matches!(log.fetch(stored[0].position), Err(StoreError::Gone(_))));
    log.close().unwrap();
    drop(log);
    let disk = disk.crash();
    let log = open(&disk).unwrap();
    assert_eq!(log.first(), first);
    assert!(read_all(&*log).ends_with(&stored[6..]));
    log.retain(Position(u64::MAX), Timestamp::MAX).unwrap();
    let kept = files(&disk);
    let kept = kept
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "log"));
    assert_eq!(kept.count(), 1, "the last segment stays");
    append(&*log, block(0, 1));
}

#[test]
fn a_crash_while_segments_are_deleted_leaves_no_gap() {
    let mut lost = 0;
    for seed in 0..30 {
        let disk = FaultDisk::new(seed);
        let log = open(&disk).unwrap();
        let mut noise = block(0, 1);
        noise.push(&vec![1; 17_000]);
        let uncompressed = LogOptions {
            compression: Compression::None,
            ..options(DIRECTORY)
        };
        drop(log);
        let log = open_with(uncompressed.clone(), disk.clone()).unwrap();
        let stored: Vec<_> = (0..8).map(|_| append(&*log, noise.clone())).collect();
        disk.cut_power_after(seed % 12);
        let cut = log.retain(stored[6].position, Timestamp::MAX).is_err();
        let disk = disk.crash();
        lost += u32::from(cut);
        let log = open_with(uncompressed, disk).unwrap();
        assert!(read_all(&*log).ends_with(&stored[6..]));
    }
    assert!(lost > 10, "the power was cut {lost} times");
}

#[test]
fn nothing_is_deleted_before_the_horizon_is_in_place() {
    let disk = FaultDisk::new(0);
    let uncompressed = LogOptions {
        compression: Compression::None,
        ..options(DIRECTORY)
    };
    let fail = FailPoints::parse("log.horizon_written:1:error").unwrap();
    let log = open_failing(uncompressed.clone(), disk.clone(), fail).unwrap();
    let mut noise = block(0, 1);
    noise.push(&vec![1; 17_000]);
    let stored: Vec<_> = (0..4).map(|_| append(&*log, noise.clone())).collect();
    let horizon = Timestamp::from_micros_clamped(5);
    let stopped = log.retain(stored[2].position, horizon);
    assert!(stopped.unwrap_err().to_string().contains("log.horizon_written"));
    assert_eq!((log.horizon(), log.first()), (None, Position::new(0, 0)));
    drop(log);
    let log = open_with(uncompressed, disk.crash()).unwrap();
    assert_eq!(log.horizon(), None);
    assert_eq!(read_all(&*log), stored, "all is still there");
    assert!(log.retain(stored[2].position, horizon).unwrap() > stored[0].position);
    assert_eq!(log.horizon(), Some(horizon));
}

#[test]
fn a_horizon_of_version_1_learns_where_the_log_begins_and_what_is_lost_since_is_told() {
    let disk = FaultDisk::new(0);
    let uncompressed = LogOptions {
        compression: Compression::None,
        ..options(DIRECTORY)
    };
    let log = open_with(uncompressed.clone(), disk.clone()).unwrap();
    let mut noise = block(0, 1);
    noise.push(&vec![1; 17_000]);
    let stored: Vec<_> = (0..8).map(|_| append(&*log, noise.clone())).collect();
    let before = Timestamp::from_micros_clamped(5);
    let first = log.retain(stored[2].position, before).unwrap().offset();
    log.close().unwrap();
    drop(log);
    // As version 1 wrote it.
    let mut bytes = b"TPHORIZ1".to_vec();
    bytes.extend_from_slice(&before.micros().to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    disk.put(&Path::new(DIRECTORY).join("horizon"), &bytes);
    let log = open_with(uncompressed, disk.clone()).unwrap();
    assert_eq!((log.horizon(), log.first().offset()), (Some(before), first));
    log.close().unwrap();
    drop(log);
    let kept = horizon::read(&disk, Path::new(DIRECTORY)).unwrap();
    let expected = Horizon {
        before,
        first: Some(first),
    };
    assert_eq!(kept, Some(expected));
    let segments: Vec<_> = files(&disk)
        .into_iter()
        .filter(|path| path.extension().is_some())
        .collect();
    disk.remove(&segments[0]).unwrap();
    let told = refused(&disk).to_string();
    assert!(
        told.contains("missing at its beginning") && told.contains(&first.to_string()),
        "{told}"
    );
}
