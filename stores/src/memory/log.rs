use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use turnpike_domain::limits::BLOCK_RECORDS_MAX;
use turnpike_domain::port::log::{Block, Blocks, EventLog, LogHealth, Only, Placed, StoredBlock, Told};
use turnpike_domain::port::{BoxFuture, StoreError};
use turnpike_domain::record::Position;
use turnpike_domain::time::Timestamp;

use crate::waiting::{self, Waiting};

/// Where the first block starts, so that no record stands at [`Position::START`].
const FIRST_OFFSET: u64 = 64;
/// Counted for each block beside its records.
const BLOCK_OVERHEAD: u64 = 16;

/// An event log in memory, with switches that make it fail.
///
/// A block is durable at once, unless [`MemoryLog::hold`] is on. Each block is a segment of its own for
/// [`EventLog::retain`].
#[derive(Debug)]
pub struct MemoryLog {
    state: Mutex<State>,
    waiting: Waiting,
}

#[derive(Debug)]
struct State {
    blocks: Vec<Arc<StoredBlock>>,
    /// Offset behind the last block.
    end: u64,
    /// Everything before this offset is durable.
    durable: u64,
    held: bool,
    full: bool,
    poisoned: bool,
    /// The partition whose blocks are refused.
    refused: Option<u32>,
    horizon: Option<Timestamp>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::with_blocks(Vec::new(), FIRST_OFFSET)
    }
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    fn with_blocks(blocks: Vec<Arc<StoredBlock>>, end: u64) -> Self {
        Self {
            state: Mutex::new(State {
                blocks,
                end,
                durable: end,
                held: false,
                full: false,
                poisoned: false,
                refused: None,
                horizon: None,
            }),
            waiting: Waiting::default(),
        }
    }

    /// What a restart after a crash finds: the durable blocks, and all switches off.
    pub fn reopen(&self) -> Self {
        let state = self.state.lock();
        let durable = state.durable;
        let kept = state.blocks.iter().filter(|block| block.next.offset() <= durable);
        let log = Self::with_blocks(kept.cloned().collect(), durable);
        log.state.lock().horizon = state.horizon;
        log
    }

    /// Holds durability back: what is appended from now on stays not durable until it is switched off.
    pub fn hold(&self, on: bool) {
        let mut state = self.state.lock();
        state.held = on;
        if !on && !state.poisoned {
            state.durable = state.end;
        }
        drop(state);
        self.waiting.tell(|position| self.reached(position));
    }

    /// Makes the disk full, or not.
    pub fn set_full(&self, on: bool) {
        self.state.lock().full = on;
    }

    /// Refuses what has blocks of a partition, or takes them all again.
    pub fn refuse(&self, partition: Option<u32>) {
        self.state.lock().refused = partition;
    }

    /// Makes the next write fail, as a failed sync does: nothing becomes durable any more.
    pub fn poison(&self) {
        self.state.lock().poisoned = true;
        self.waiting.tell(|position| self.reached(position));
    }

    fn reached(&self, position: Position) -> Option<Result<(), StoreError>> {
        let state = self.state.lock();
        if position <= Position::new(state.durable, 0) {
            return Some(Ok(()));
        }
        state.poisoned.then(|| Err(poisoned()))
    }
}

impl State {
    fn place(&mut self, block: Block) -> Placed {
        let position = Position::new(self.end, 0);
        self.end += block.bytes.len() as u64 + BLOCK_OVERHEAD;
        let next = Position::new(self.end, 0);
        self.blocks.push(Arc::new(StoredBlock {
            position,
            next,
            block,
        }));
        (position, next)
    }

    /// Index of the first block at or behind `offset`.
    fn index_of(&self, offset: u64) -> usize {
        self.blocks
            .partition_point(|block| block.position.offset() < offset)
    }
}

fn poisoned() -> StoreError {
    StoreError::Poisoned("switched on by a test".to_owned())
}

impl EventLog for MemoryLog {
    fn append_all(&self, blocks: Vec<Block>) -> Result<Vec<Placed>, StoreError> {
        let bad = |block: &&Block| block.ends.is_empty() || block.ends.len() > BLOCK_RECORDS_MAX;
        if let Some(block) = blocks.iter().find(bad) {
            return Err(StoreError::Failed(format!(
                "a block holds 1 to {BLOCK_RECORDS_MAX} records, not {}",
                block.ends.len()
            )));
        }
        let mut state = self.state.lock();
        if state.poisoned {
            return Err(poisoned());
        }
        if state.full {
            return Err(StoreError::Full("switched on by a test".to_owned()));
        }
        if blocks.iter().any(|block| state.refused == Some(block.partition)) {
            return Err(StoreError::Failed("switched on by a test".to_owned()));
        }
        let placed = blocks.into_iter().map(|block| state.place(block)).collect();
        if !state.held {
            state.durable = state.end;
        }
        drop(state);
        self.waiting.tell(|position| self.reached(position));
        Ok(placed)
    }

    fn durable(&self) -> Position {
        Position::new(self.state.lock().durable, 0)
    }

    fn wait_durable(&self, position: Position) -> BoxFuture<'_, Result<(), StoreError>> {
        waiting::wait(|told| self.when_durable(position, told))
    }

    fn when_durable(&self, position: Position, told: Told) {
        self.waiting
            .add(position, told, |position| self.reached(position));
    }

    fn wait_durable_blocking(&self, position: Position) -> Result<(), StoreError> {
        loop {
            if let Some(result) = self.reached(position) {
                return result;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    fn read(&self, from: Position, only: Only) -> Blocks<'_> {
        let state = self.state.lock();
        let found = wanted(&state, only, |block| block.position.offset() >= from.offset());
        Box::new(found.into_iter().map(|block| Ok((*block).clone())))
    }

    fn read_back(&self, until: Position, only: Only) -> Blocks<'_> {
        let state = self.state.lock();
        let found = wanted(&state, only, |block| block.position < until);
        Box::new(found.into_iter().rev().map(|block| Ok((*block).clone())))
    }

    fn fetch(&self, position: Position) -> Result<Vec<u8>, StoreError> {
        let state = self.state.lock();
        let block = state.blocks.get(state.index_of(position.offset()));
        block
            .filter(|block| block.position.offset() == position.offset())
            .and_then(|block| block.block.records().nth(usize::from(position.index())))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| StoreError::Gone(format!("no record at position {}", position.0)))
    }

    fn retain(&self, before: Position, horizon: Timestamp) -> Result<Position, StoreError> {
        let mut state = self.state.lock();
        let keep = state
            .blocks
            .partition_point(|block| block.next.offset() <= before.offset());
        let keep = keep.min(state.blocks.len().saturating_sub(1));
        if keep > 0 {
            state.horizon = state.horizon.max(Some(horizon));
        }
        state.blocks.drain(..keep);
        Ok(first(&state))
    }

    fn horizon(&self) -> Option<Timestamp> {
        self.state.lock().horizon
    }

    fn first(&self) -> Position {
        first(&self.state.lock())
    }

    fn end(&self) -> Position {
        Position::new(self.state.lock().end, 0)
    }

    fn health(&self) -> LogHealth {
        let state = self.state.lock();
        if state.poisoned {
            LogHealth::Poisoned("switched on by a test".to_owned())
        } else if state.full {
            LogHealth::Full("switched on by a test".to_owned())
        } else {
            LogHealth::Healthy
        }
    }

    fn bytes(&self) -> u64 {
        let state = self.state.lock();
        state.end - first(&state).offset()
    }
}

fn first(state: &MutexGuard<'_, State>) -> Position {
    let offset = state
        .blocks
        .first()
        .map_or(state.end, |block| block.position.offset());
    Position::new(offset, 0)
}

/// The durable blocks that `only` and `place` want, in order.
fn wanted(state: &State, only: Only, place: impl Fn(&StoredBlock) -> bool) -> Vec<Arc<StoredBlock>> {
    let durable = state
        .blocks
        .iter()
        .take_while(|block| block.next.offset() <= state.durable);
    durable
        .filter(|block| place(block) && only.wants(block.block.partition, block.block.times))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::log as contract;

    #[test]
    fn keeps_the_contract() {
        contract::all(&|| {
            let log = Arc::new(MemoryLog::new());
            contract::Subject::new(log, |log: Arc<MemoryLog>| Arc::new(log.reopen()))
        });
    }

    #[test]
    fn nothing_held_back_is_durable_or_read() {
        let log = MemoryLog::new();
        log.hold(true);
        let (position, next) = log.append(contract::block(0, 3)).unwrap();
        assert!(log.durable() <= position);
        assert_eq!(log.read(Position::START, Only::ALL).count(), 0);
        assert!(log.fetch(position).is_ok(), "what is pending can be fetched");
        log.hold(false);
        log.wait_durable_blocking(next).unwrap();
        assert_eq!(log.read(Position::START, Only::ALL).count(), 1);
    }

    #[test]
    fn a_poisoned_log_fails_those_who_wait_and_keeps_what_was_durable() {
        let log = MemoryLog::new();
        let (_, durable) = log.append(contract::block(0, 1)).unwrap();
        log.hold(true);
        let (_, lost) = log.append(contract::block(0, 1)).unwrap();
        log.poison();
        assert!(matches!(
            log.wait_durable_blocking(lost),
            Err(StoreError::Poisoned(_))
        ));
        assert_eq!(log.wait_durable_blocking(durable), Ok(()));
        log.hold(false);
        assert!(matches!(
            log.append(contract::block(0, 1)),
            Err(StoreError::Poisoned(_))
        ));
        assert_eq!(log.reopen().end(), durable);
    }

    #[test]
    fn a_full_log_takes_nothing_until_there_is_space() {
        let log = MemoryLog::new();
        log.set_full(true);
        assert!(matches!(
            log.append(contract::block(0, 1)),
            Err(StoreError::Full(_))
        ));
        assert!(matches!(log.health(), LogHealth::Full(_)));
        log.set_full(false);
        assert!(log.append(contract::block(0, 1)).is_ok());
    }
}
