//! Blocks that were read lately, bounded in bytes. A block that is used again gets a second chance before it goes (CLOCK).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use turnpike_domain::port::StoreError;

use super::block::Block;

/// The number of a run, and of a block in it.
type Key = (u64, usize);

/// A cache of blocks.
pub(in super::super) struct BlockCache {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    blocks: HashMap<Key, (Arc<Block>, bool)>,
    /// Keys in the order in which they will be looked at.
    queue: VecDeque<Key>,
    bytes: usize,
}

impl BlockCache {
    /// An empty cache that keeps at most `bytes_max` bytes.
    pub(in super::super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            state: Mutex::default(),
        }
    }

    /// Bytes kept.
    pub(in super::super) fn memory_bytes(&self) -> u64 {
        self.state.lock().bytes as u64
    }

    /// Forgets all.
    #[cfg(test)]
    pub(in super::super) fn clear(&self) {
        *self.state.lock() = State::default();
    }

    /// A block from the cache, else from `load`.
    pub(super) fn get(
        &self,
        key: Key,
        load: impl FnOnce() -> Result<Block, StoreError>,
    ) -> Result<Arc<Block>, StoreError> {
        if let Some((block, used)) = self.state.lock().blocks.get_mut(&key) {
            *used = true;
            return Ok(Arc::clone(block));
        }
        let block = Arc::new(load()?);
        if block.memory_bytes() <= self.bytes_max {
            self.state.lock().keep(key, &block, self.bytes_max);
        }
        Ok(block)
    }
}

impl State {
    fn keep(&mut self, key: Key, block: &Arc<Block>, bytes_max: usize) {
        if self.blocks.contains_key(&key) {
            return;
        }
        self.bytes += block.memory_bytes();
        while self.bytes > bytes_max {
            let Some(oldest) = self.queue.pop_front() else {
                break;
            };
            match self.blocks.get_mut(&oldest) {
                Some((_, used)) if *used => {
                    *used = false;
                    self.queue.push_back(oldest);
                }
                _ => {
                    if let Some((block, _)) = self.blocks.remove(&oldest) {
                        self.bytes -= block.memory_bytes();
                    }
                }
            }
        }
        self.blocks.insert(key, (Arc::clone(block), false));
        self.queue.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::views::rows::block::BlockBuilder;

    fn block() -> Block {
        let mut builder = BlockBuilder::default();
        builder.push(b"key", &[7; 1_000]).unwrap();
        Block::parse(&builder.finish()).unwrap()
    }

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let size = block().memory_bytes();
        let cache = BlockCache::new(size * 10);
        let mut loads = 0;
        for n in 0..1_000 {
            for key in [(1, 0), (2, n)] {
                let load = || {
                    loads += usize::from(key == (1, 0));
                    Ok(block())
                };
                cache.get(key, load).unwrap();
                assert!(cache.memory_bytes() <= (size * 10) as u64);
            }
        }
        assert_eq!(loads, 1, "what is used all the time is never loaded again");
        assert!(cache.memory_bytes() > (size * 8) as u64);
    }

    #[test]
    fn a_block_that_cannot_be_loaded_is_not_kept() {
        let cache = BlockCache::new(1 << 20);
        assert!(cache.get((1, 1), || Err(StoreError::Failed("x".into()))).is_err());
        assert!(cache.get((1, 1), || Ok(block())).is_ok());
    }
}
