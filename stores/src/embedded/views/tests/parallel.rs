//! Readers, the owner and the merging threads at the same time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::contract::views::{checkpoint, entry, name, row};

const BATCH: u64 = 100;
const ROUNDS: u64 = 120;

/// Whatever is remembered is found at every moment, whichever way it goes from table to run to larger run.
#[test]
fn nothing_is_ever_missing() {
    let directory = tempfile::tempdir().unwrap();
    let options = ViewsOptions {
        background: true,
        table_ids: 200,
        ..options(directory.path())
    };
    let views = open_real(&options, FailPoints::default()).unwrap();
    let (known, done, probes) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (views, known, done, probes) = (&views, &known, &done, &probes);
            scope.spawn(move || {
                let mut at = reader;
                while !done.load(Ordering::Acquire) {
                    let known = known.load(Ordering::Acquire);
                    let numbers: Vec<u64> = (0..50)
                        .map(|n| (at * 7_919 + n * 613) % (known + 1_000))
                        .collect();
                    let names: Vec<_> = numbers.iter().map(|n| name(*n)).collect();
                    for (number, found) in numbers.iter().zip(views.probe(&names).unwrap()) {
                        match found {
                            Some(found) => assert_eq!(found.digest, *number),
                            None => assert!(*number >= known, "{number} of {known} is missing"),
                        }
                    }
                    let rows: Vec<_> = views
                        .rows()
                        .scan(vec![]..b"~".to_vec())
                        .map(Result::unwrap)
                        .collect();
                    assert!(
                        rows.iter().all(|row| row.value == rows[0].value),
                        "half a checkpoint is shown"
                    );
                    probes.fetch_add(1, Ordering::Relaxed);
                    at += 1;
                }
            });
        }
        for round in 0..ROUNDS {
            let entries: Vec<_> = (round * BATCH..(round + 1) * BATCH)
                .map(|n| (name(n), entry(n, n)))
                .collect();
            views.remember(&entries).unwrap();
            known.store((round + 1) * BATCH, Ordering::Release);
            views.begin_checkpoint().unwrap();
            let rows = ["a", "b", "c"].map(|key| row(key, 1)).to_vec();
            checkpoint(views.as_ref(), round + 1, rows, vec![]).unwrap();
        }
        done.store(true, Ordering::Release);
    });
    assert!(probes.load(Ordering::Relaxed) > 10);
    // The threads that merge may have been late on a busy machine.
    let merged = || views.store.version().ids.len() < 30;
    let in_time = (0..600).any(|_| {
        thread::sleep(Duration::from_millis(50));
        merged()
    });
    assert!(in_time, "merged in the background");
    drop(views);
    let views = open_real(&options, FailPoints::default()).unwrap();
    let names: Vec<_> = (0..BATCH * ROUNDS).map(name).collect();
    assert!(
        views
            .probe(&names)
            .unwrap()
            .iter()
            .zip(0..)
            .all(|(found, n)| *found == Some(entry(n, n)))
    );
    views.verify().unwrap();
}

/// A drop in the middle of a merge ends it, and leaves nothing behind.
#[test]
fn closing_does_not_wait_for_merges() {
    let directory = tempfile::tempdir().unwrap();
    let options = ViewsOptions {
        table_ids: 20_000,
        ..options(directory.path())
    };
    let views = open_real(&options, FailPoints::default()).unwrap();
    for round in 0..8 {
        let entries: Vec<_> = (round * 20_000..(round + 1) * 20_000)
            .map(|n| (name(n), entry(n, n)))
            .collect();
        views.remember(&entries).unwrap();
        views.begin_checkpoint().unwrap();
        checkpoint(views.as_ref(), round + 1, vec![], vec![]).unwrap();
    }
    drop(views);
    let background = ViewsOptions {
        background: true,
        ..options.clone()
    };
    drop(open_real(&background, FailPoints::default()).unwrap());
    let views = open_real(&options, FailPoints::default()).unwrap();
    assert_eq!(views.stats().ids, 160_000);
    let files = std::fs::read_dir(directory.path().join("partition-00003"))
        .unwrap()
        .count();
    assert_eq!(files, views.store.version().files().count() + 1);
    views.verify().unwrap();
}
