//! Losses of power and kills at random moments, with a disk that fails: what was acknowledged is there.

use super::*;
use crate::contract::log::read_all;
use crate::fault::{FaultCounts, Operation};
use turnpike_domain::port::log::StoredBlock;

const SEEDS: u64 = 400;
const ROUNDS: u64 = 6;

/// A small generator for the test's own choices (xorshift64*, Vigna 2016).
struct Choice(u64);

impl Choice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// What the log must hold.
#[derive(Default)]
struct Oracle {
    /// Everything that was ever taken and not shown to be lost, in order.
    taken: Vec<StoredBlock>,
    /// So many of them were acknowledged.
    acknowledged: usize,
}

impl Oracle {
    /// Compares with what a new process finds.
    fn check(&mut self, found: &[StoredBlock], seed: u64) {
        let told = format!(
            "seed {seed}: {} taken, {} acknowledged, {} found",
            self.taken.len(),
            self.acknowledged,
            found.len()
        );
        assert!(
            found.len() >= self.acknowledged,
            "acknowledged blocks are lost; {told}"
        );
        assert!(
            self.taken.starts_with(found),
            "blocks are invented or out of order; {told}"
        );
        self.taken.truncate(found.len());
        // What a process has found it builds upon.
        self.acknowledged = found.len();
    }
}

/// One life of a process: appends until something fails or it has done enough.
fn live(log: &SegmentedLog, choice: &mut Choice, oracle: &mut Oracle) {
    for _ in 0..choice.below(60) {
        let mut block = crate::contract::log::block(choice.below(3) as u32, choice.below(30) as usize + 1);
        for _ in 0..choice.below(200) {
            block.push(&choice.below(u64::MAX).to_le_bytes());
        }
        let Ok((position, next)) = log.append(block.clone()) else {
            return;
        };
        oracle.taken.push(StoredBlock {
            position,
            next,
            block,
        });
        if choice.below(3) == 0 {
            if log.wait_durable_blocking(next).is_err() {
                break;
            }
            oracle.acknowledged = oracle.taken.len();
        }
    }
    // Durable is a promise too.
    let durable = log.durable();
    let promised = oracle
        .taken
        .iter()
        .take_while(|stored| stored.next <= durable)
        .count();
    oracle.acknowledged = oracle.acknowledged.max(promised);
}

fn run(seed: u64) -> FaultCounts {
    let mut choice = Choice(seed * 2 + 1);
    let mut disk = FaultDisk::new(seed);
    let mut oracle = Oracle::default();
    for _ in 0..ROUNDS {
        match choice.below(6) {
            0 => disk.fail(Operation::Sync, choice.below(20)),
            1 => disk.fail(Operation::Write, choice.below(20)),
            2 => disk.fail(Operation::Allocate, choice.below(6)),
            _ => disk.cut_power_after(choice.below(80)),
        }
        match open(&disk) {
            Ok(log) => {
                oracle.check(&read_all(&*log), seed);
                live(&log, &mut choice, &mut oracle);
                if choice.below(4) == 0 {
                    // A good stop, unless the disk has failed.
                    if log.close().is_ok() {
                        oracle.acknowledged = oracle.taken.len();
                    }
                }
                disk = if choice.below(3) == 0 {
                    disk.kill()
                } else {
                    disk.crash()
                };
                drop(log);
            }
            Err(StoreError::Failed(_)) => disk = disk.crash(),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    let log = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    oracle.check(&read_all(&*log), seed);
    log.close().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    drop(log);
    let verified = verify(&disk, Path::new(DIRECTORY), &mut |_, _| {}).unwrap();
    assert_eq!(verified.blocks as usize, oracle.taken.len(), "seed {seed}");
    disk.counts()
}

#[test]
fn whatever_was_acknowledged_survives_crashes_and_nothing_is_invented() {
    let mut faults = FaultCounts::default();
    for seed in 0..SEEDS {
        faults += run(seed);
    }
    println!("{SEEDS} seeds: {faults}");
    assert!(
        faults.crashes > SEEDS && faults.lost_sectors > SEEDS && faults.errors > SEEDS / 4,
        "{faults}"
    );
}
