//! The log's reader: segments that are not what was written, and records.
//!
//! Input: a first byte that says which, and
//! * 0: the encoding of one record;
//! * 1: the bytes of a segment;
//! * else: how a log is written and then harmed. A byte with the number of blocks, a byte with records and size for each,
//!   and then places of three bytes: an offset, and what the byte there is turned over with, or 0: the file ends there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::{Block, EventLog as _, Only, StoredBlock};
use turnpike_domain::record::{Position, decode, encode};
use turnpike_domain::time::Timestamp;
use turnpike_stores::disk::Disk as _;
use turnpike_stores::embedded::log::{Compression, LogOptions, SegmentedLog, verify};
use turnpike_stores::fault::{FailPoints, FaultDisk};
use turnpike_stores::machine::{ManualClock, SeededRandomness};

const DIRECTORY: &str = "/log";
/// The one segment of a small log.
const SEGMENT: &str = "/log/00000000000000000000.log";

/// See [`super::Target`].
///
/// # Panics
/// Where the reader gives what was not written, leaves out more than a torn end, or refuses without naming a place.
pub fn enter(input: &[u8]) -> bool {
    let Some((kind, rest)) = input.split_first() else {
        return false;
    };
    match kind {
        0 => record(rest),
        1 => segment(rest),
        _ => harmed(*kind, rest),
    }
}

/// A record that is read is written as one that reads the same.
fn record(bytes: &[u8]) -> bool {
    let Ok(record) = decode(bytes) else {
        return false;
    };
    let mut written = Vec::new();
    encode(&record, &mut written);
    assert!(
        written.len() <= bytes.len(),
        "there is a shorter encoding than the one written"
    );
    assert_eq!(decode(&written).as_ref(), Ok(&record));
    true
}

/// Any bytes in the place of a segment.
fn segment(bytes: &[u8]) -> bool {
    let disk = FaultDisk::new(0);
    disk.put(Path::new(SEGMENT), bytes);
    let Some(found) = opened(&disk, Compression::Lz4) else {
        return false;
    };
    !found.is_empty()
}

/// A log with damage made by hand.
fn harmed(kind: u8, input: &[u8]) -> bool {
    let compression = [Compression::None, Compression::Lz4, Compression::Zstd(1)][usize::from(kind) % 3];
    let Some((blocks, rest)) = input.split_first() else {
        return false;
    };
    let (shapes, harm) = rest.split_at(rest.len().min(usize::from(blocks % 8)));
    let (disk, path, written) = written(compression, shapes);
    let mut bytes = disk.contents(&path).expect("the segment");
    let end = written.last().map_or(0, |last| last.next.offset());
    for edit in harm.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len().max(1);
        match edit[2] {
            0 => bytes.truncate(at),
            turned => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= turned;
                }
            }
        }
    }
    let whole = disk.contents(&path).as_deref() == Some(&bytes[..]);
    disk.put(&path, &bytes);
    let Some(found) = opened(&disk.kill(), compression) else {
        assert!(!whole, "an unharmed log is refused");
        return false;
    };
    assert_eq!(
        found,
        written[..found.len().min(written.len())],
        "not what was written"
    );
    let lost = written.len() - found.len();
    assert!(
        !whole || lost == 0,
        "an unharmed log has lost {lost} blocks before {end}"
    );
    true
}

/// A log with a block for each shape, each in a frame of its own, whose process was killed.
fn written(compression: Compression, shapes: &[u8]) -> (FaultDisk, PathBuf, Vec<StoredBlock>) {
    let disk = FaultDisk::new(0);
    let log = open(&disk, compression).expect("an empty log");
    let mut written = Vec::new();
    for (number, shape) in shapes.iter().enumerate() {
        let mut block = Block {
            partition: number as u32 % 3,
            ..Block::default()
        };
        for record in 0..=shape % 16 {
            let text = format!("record {record} of block {number}, ");
            block.push(text.repeat(1 + usize::from(shape / 16)).as_bytes());
        }
        let (position, next) = log.append(block.clone()).expect("room");
        log.wait_durable_blocking(next).expect("a disk that works");
        written.push(StoredBlock {
            position,
            next,
            block,
        });
    }
    let disk = disk.kill();
    drop(log);
    let path = disk.list(Path::new(DIRECTORY)).expect("a directory").remove(0);
    (disk, path, written)
}

fn open(disk: &FaultDisk, compression: Compression) -> Result<Arc<SegmentedLog>, StoreError> {
    let clock = Arc::new(ManualClock::new(Timestamp::EPOCH));
    let options = LogOptions {
        ahead_bytes: 512,
        compression,
        tick: Duration::from_hours(1),
        ..LogOptions::new(DIRECTORY)
    };
    let randomness = SeededRandomness::new(1, clock.clone());
    SegmentedLog::open(
        options,
        Arc::new(disk.clone()),
        clock,
        &randomness,
        Arc::new(FailPoints::default()),
    )
}

/// The blocks of the log on `disk`, up to the first that is damaged; none where it does not open. What cannot be read is
/// refused by its place, forwards as well as backwards, and by the verification too.
fn opened(disk: &FaultDisk, compression: Compression) -> Option<Vec<StoredBlock>> {
    let verified = verify(disk, Path::new(DIRECTORY), &mut |_, _| {});
    if let Err(error) = &verified {
        assert_names_a_place(error);
    }
    let log = match open(disk, compression) {
        Ok(log) => log,
        Err(error) => {
            assert_names_a_place(&error);
            assert!(
                verified.is_err() || matches!(error, StoreError::Failed(_)),
                "{error}"
            );
            return None;
        }
    };
    let read: Result<Vec<_>, _> = log.read(Position::START, Only::ALL).collect();
    let back: Result<Vec<_>, _> = log.read_back(log.end(), Only::ALL).collect();
    match (read, back) {
        (Ok(read), Ok(mut back)) => {
            assert!(
                verified.is_ok(),
                "the verification refuses what is read: {verified:?}"
            );
            back.reverse();
            assert_eq!(read, back, "backwards it reads otherwise");
            for (block, position) in read.iter().map(|block| (block, block.position)) {
                let first = block.block.records().next().map(<[u8]>::to_vec);
                assert_eq!(log.fetch(position).ok(), first, "at {position:?}");
            }
            Some(read)
        }
        (Err(one), Err(_)) => {
            assert_names_a_place(&one);
            assert!(
                verified.is_err(),
                "the verification takes what is not read: {one}"
            );
            let read = log.read(Position::START, Only::ALL);
            Some(read.map_while(Result::ok).collect())
        }
        (read, back) => panic!("one way it is read, the other not: {read:?} {back:?}"),
    }
}

fn assert_names_a_place(error: &StoreError) {
    let text = error.to_string();
    assert!(text.contains(DIRECTORY), "{text}");
    if matches!(error, StoreError::Damaged(_)) {
        assert!(text.contains("byte ") || text.contains("offset"), "{text}");
    }
}
