//! The contract of [`EventLog`].
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "called by tests only; a broken promise panics"
)]

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use turnpike_domain::limits::BLOCK_RECORDS_MAX;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::{Block, EventLog, LogHealth, Only, StoredBlock};
use turnpike_domain::record::Position;
use turnpike_domain::time::{TimeRange, Timestamp};

type Reopen = Box<dyn FnOnce() -> Arc<dyn EventLog>>;

/// A log under test, and how to stop it in good order and open what it left.
pub struct Subject {
    /// The log.
    pub log: Arc<dyn EventLog>,
    reopen: Reopen,
}

impl Subject {
    /// A log and the function that stops it and opens it anew.
    pub fn new<L: EventLog + 'static>(log: Arc<L>, reopen: impl FnOnce(Arc<L>) -> Arc<L> + 'static) -> Self {
        Self {
            log: Arc::clone(&log) as Arc<dyn EventLog>,
            reopen: Box::new(move || reopen(log)),
        }
    }

    /// Stops the log and opens it anew.
    pub fn reopen(self) -> Arc<dyn EventLog> {
        drop(self.log);
        (self.reopen)()
    }
}

/// Runs every test of the contract, each on a new empty log.
pub fn all(subject: &dyn Fn() -> Subject) {
    an_empty_log_is_healthy_and_has_nothing(&subject());
    positions_grow_and_name_records(&subject());
    readers_see_what_was_durable_at_the_call(&subject());
    reading_starts_at_or_behind_a_position(&subject());
    reading_back_is_reading_turned_round(&subject());
    only_the_wanted_blocks_are_read(&subject());
    bad_blocks_are_refused_and_change_nothing(&subject());
    blocks_taken_together_have_places_of_their_own(&subject());
    blocks_of_all_shapes_come_back_as_they_were(&subject());
    what_is_durable_survives_a_restart(subject());
    waiting_ends_with_durability(&subject());
    retention_deletes_only_what_lies_before(&subject());
    appenders_do_not_disturb_each_other(&subject());
}

/// A block of `records` short records that differ.
pub fn block(partition: u32, records: usize) -> Block {
    let mut block = Block {
        partition,
        ..Block::default()
    };
    for at in 0..records {
        block.push(format!("record {at} of {records} in {partition}").as_bytes());
    }
    block
}

/// The same with the times `[start, end)` in microseconds.
pub fn block_at(partition: u32, records: usize, start: i64, end: i64) -> Block {
    Block {
        times: Some(range(start, end)),
        ..block(partition, records)
    }
}

fn range(start: i64, end: i64) -> TimeRange {
    TimeRange::new(
        Timestamp::from_micros_clamped(start),
        Timestamp::from_micros_clamped(end),
    )
}

/// Appends `block` and waits until it is durable.
pub fn append(log: &dyn EventLog, block: Block) -> StoredBlock {
    let (position, next) = log.append(block.clone()).expect("append");
    log.wait_durable_blocking(next).expect("durable");
    StoredBlock {
        position,
        next,
        block,
    }
}

/// All durable blocks.
pub fn read_all(log: &dyn EventLog) -> Vec<StoredBlock> {
    log.read(Position::START, Only::ALL)
        .collect::<Result<_, _>>()
        .expect("read")
}

fn an_empty_log_is_healthy_and_has_nothing(subject: &Subject) {
    let log = &subject.log;
    assert_eq!(log.health(), LogHealth::Healthy);
    assert_eq!(read_all(&**log), []);
    assert_eq!(log.read_back(log.end(), Only::ALL).count(), 0);
    assert!(log.first() <= log.end() && log.durable() <= log.end());
    assert!(log.end() > Position::START, "no record stands at the start");
    assert_eq!(log.wait_durable_blocking(Position::START), Ok(()));
    assert!(matches!(log.fetch(Position::START), Err(StoreError::Gone(_))));
    assert!(matches!(log.fetch(log.end()), Err(StoreError::Gone(_))));
}

fn positions_grow_and_name_records(subject: &Subject) {
    let log = &subject.log;
    let mut behind = log.end();
    for size in [1, 2, 300, 7] {
        let block = block(1, size);
        let (position, next) = log.append(block.clone()).unwrap();
        assert!(position >= behind && next > position && position.index() == 0);
        assert_eq!(log.end(), next);
        behind = next;
        // Durable or not.
        for (at, record) in block.records().enumerate() {
            let at = Position(position.0 + at as u64);
            assert_eq!(log.fetch(at).as_deref(), Ok(record));
        }
        let outside = Position(position.0 + size as u64);
        assert!(matches!(log.fetch(outside), Err(StoreError::Gone(_))));
    }
    log.wait_durable_blocking(behind).unwrap();
    assert!(log.durable() >= behind);
    for stored in read_all(&**log) {
        for (at, record) in stored.block.records().enumerate() {
            assert_eq!(
                log.fetch(Position(stored.position.0 + at as u64)).as_deref(),
                Ok(record)
            );
        }
        let between = Position::new(stored.position.offset() + 1, 0);
        assert!(matches!(log.fetch(between), Err(StoreError::Gone(_))));
    }
}

fn readers_see_what_was_durable_at_the_call(subject: &Subject) {
    let log = &subject.log;
    let first = append(&**log, block(0, 3));
    let mut reader = log.read(Position::START, Only::ALL);
    append(&**log, block(0, 2));
    assert_eq!(reader.next(), Some(Ok(first)));
    assert_eq!(reader.next(), None);
}

fn reading_starts_at_or_behind_a_position(subject: &Subject) {
    let log = &subject.log;
    let stored: Vec<_> = (1..6).map(|size| append(&**log, block(0, size))).collect();
    for at in 0..stored.len() {
        let inside = Position(stored[at].position.0 + at as u64);
        let starts = [
            (stored[at].position, at),
            // A position in a block reads that block.
            (inside, at),
            (stored[at].next, at + 1),
            (Position::new(stored[at].position.offset() + 1, 0), at + 1),
        ];
        for (from, expected) in starts {
            let read: Result<Vec<_>, _> = log.read(from, Only::ALL).collect();
            assert_eq!(read.unwrap(), stored[expected..], "from {from:?}");
        }
    }
    assert_eq!(log.read(log.end(), Only::ALL).count(), 0);
}

fn reading_back_is_reading_turned_round(subject: &Subject) {
    let log = &subject.log;
    let mut stored: Vec<_> = (1..40).map(|size| append(&**log, block(size % 3, 5))).collect();
    stored.reverse();
    let back: Vec<_> = log.read_back(log.end(), Only::ALL).map(Result::unwrap).collect();
    assert_eq!(back, stored);
    let until = stored[10].position;
    let back: Vec<_> = log
        .read_back(until, Only::partition(1))
        .map(Result::unwrap)
        .collect();
    let expected: Vec<_> = stored[11..]
        .iter()
        .filter(|stored| stored.block.partition == 1)
        .cloned()
        .collect();
    assert_eq!(back, expected);
    let inside = Position(until.0 + 1);
    let newest = log.read_back(inside, Only::ALL).next().unwrap().unwrap();
    assert_eq!(newest, stored[10], "a position in a block reads that block too");
}

fn only_the_wanted_blocks_are_read(subject: &Subject) {
    let log = &subject.log;
    let early = append(&**log, block_at(0, 2, 100, 200));
    let late = append(&**log, block_at(1, 2, 200, 300));
    let timeless = append(&**log, block(1, 2));
    let read = |only| {
        log.read(Position::START, only)
            .map(Result::unwrap)
            .collect::<Vec<_>>()
    };
    assert_eq!(read(Only::partition(0)), std::slice::from_ref(&early));
    assert_eq!(read(Only::partition(2)), []);
    let times = Some(range(150, 200));
    assert_eq!(
        read(Only {
            partition: None,
            times
        }),
        [early, timeless.clone()]
    );
    let times = Some(range(299, 1_000));
    assert_eq!(
        read(Only {
            partition: Some(1),
            times
        }),
        [late, timeless]
    );
}

fn bad_blocks_are_refused_and_change_nothing(subject: &Subject) {
    let log = &subject.log;
    let end = log.end();
    let mut large = Block::default();
    for _ in 0..=BLOCK_RECORDS_MAX {
        large.push(b"");
    }
    assert!(log.append(Block::default()).is_err(), "an empty block");
    assert!(log.append(large).is_err(), "too many records");
    assert_eq!(log.end(), end);
    assert_eq!(log.health(), LogHealth::Healthy);
}

fn blocks_taken_together_have_places_of_their_own(subject: &Subject) {
    let log = &subject.log;
    assert_eq!(log.append_all(Vec::new()), Ok(Vec::new()));
    let before = append(&**log, block(0, 2));
    let blocks = vec![block(2, 3), block(0, 1), block(1, 200), block(2, 4)];
    let placed = log.append_all(blocks.clone()).unwrap();
    assert_eq!(log.end(), placed.last().unwrap().1);
    log.wait_durable_blocking(log.end()).unwrap();
    let stored: Vec<_> = blocks
        .into_iter()
        .zip(placed)
        .map(|(block, (position, next))| StoredBlock {
            position,
            next,
            block,
        })
        .collect();
    let ascend = stored.windows(2).all(|pair| pair[0].next <= pair[1].position);
    assert!(ascend && before.next <= stored[0].position);
    assert_eq!(read_all(&**log)[1..], stored);
    let end = log.end();
    assert!(log.append_all(vec![block(0, 1), Block::default()]).is_err());
    assert_eq!(log.end(), end, "one bad block refuses all");
}

fn blocks_of_all_shapes_come_back_as_they_were(subject: &Subject) {
    let log = &subject.log;
    let mut most = block(u32::MAX, 0);
    for at in 0..BLOCK_RECORDS_MAX {
        most.push(&at.to_le_bytes()[..at % 9 % 8]);
    }
    let mut noise = block(0, 0);
    let mut seed = 1_u64;
    for _ in 0..1_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.push(&seed.to_le_bytes());
    }
    let mut huge = block_at(3, 1, i64::MIN, i64::MAX);
    huge.push(&vec![7; 3 * 1024 * 1024]);
    let mut empty = block(0, 0);
    empty.push(b"");
    let stored: Vec<_> = [most, noise, huge, empty]
        .map(|block| append(&**log, block))
        .to_vec();
    assert_eq!(read_all(&**log), stored);
    let last = &stored[0].block.records().last().unwrap().to_vec();
    let at = Position::new(stored[0].position.offset(), u16::MAX - 1);
    assert_eq!(log.fetch(at).as_ref(), Ok(last));
}

fn what_is_durable_survives_a_restart(subject: Subject) {
    let mut stored: Vec<_> = (1..20)
        .map(|size| append(&*subject.log, block(size, 9)))
        .collect();
    let end = subject.log.end();
    let log = subject.reopen();
    assert!(log.end() >= end && log.durable() == log.end());
    assert_eq!(read_all(&*log), stored);
    stored.push(append(&*log, block(0, 1)));
    assert!(stored[19].position >= end);
    assert_eq!(read_all(&*log), stored);
}

fn waiting_ends_with_durability(subject: &Subject) {
    let log = &subject.log;
    let next = append(&**log, block(0, 1)).next;
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(
        log.wait_durable(next).as_mut().poll(&mut context),
        Poll::Ready(Ok(()))
    );
    let mut ahead = log.wait_durable(Position(next.0 + 1));
    assert!(ahead.as_mut().poll(&mut context).is_pending());
    append(&**log, block(0, 1));
    // The wake-up may come a moment behind the blocking waiter's.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(ahead), Ok(()));
}

fn retention_deletes_only_what_lies_before(subject: &Subject) {
    let log = &subject.log;
    let stored: Vec<_> = (1..50).map(|size| append(&**log, block(size, 20))).collect();
    let keep = stored[30].position;
    assert_eq!(log.horizon(), None);
    log.retain(Position::START, Timestamp::from_micros_clamped(9))
        .unwrap();
    assert_eq!(log.horizon(), None, "nothing was deleted");
    let horizon = Timestamp::from_micros_clamped(7_000_000);
    let first = log.retain(keep, horizon).unwrap();
    assert_eq!(log.horizon(), (first > stored[0].position).then_some(horizon));
    assert_eq!(log.first(), first);
    let kept = read_all(&**log);
    assert!(
        kept.ends_with(&stored[30..]),
        "nothing at or behind the position is deleted"
    );
    for stored in &stored[..stored.len() - kept.len()] {
        assert!(stored.position < first);
        assert!(matches!(log.fetch(stored.position), Err(StoreError::Gone(_))));
    }
    log.retain(Position(u64::MAX), Timestamp::MAX).unwrap();
    assert!(log.first() <= log.end());
    append(&**log, block(0, 1));
    assert_eq!(log.health(), LogHealth::Healthy);
}

fn appenders_do_not_disturb_each_other(subject: &Subject) {
    let log = &subject.log;
    let mut stored: Vec<_> = std::thread::scope(|scope| {
        let appender = |partition| {
            scope.spawn(move || {
                (1..60)
                    .map(|size| append(&**log, block(partition, size)))
                    .collect::<Vec<_>>()
            })
        };
        let appenders: Vec<_> = (0..8).map(appender).collect();
        appenders
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    stored.sort_by_key(|stored| stored.position);
    assert_eq!(read_all(&**log), stored);
    for partition in 0..8 {
        let mine = log
            .read(Position::START, Only::partition(partition))
            .map(Result::unwrap);
        let sizes: Vec<_> = mine.map(|stored| stored.block.ends.len()).collect();
        assert_eq!(sizes, (1..60).collect::<Vec<_>>(), "in the order of appending");
    }
}
