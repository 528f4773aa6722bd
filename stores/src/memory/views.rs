//! The views of a partition in memory.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use parking_lot::Mutex;
use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{
    IdEntry, IdIter, MergeRows, Next, Row, RowIter, RowSource, Rows, TakeSummand, ViewStats, Views,
};
use turnpike_domain::record::Position;

type Ids = BTreeMap<EventName, IdEntry>;
type RowMap = BTreeMap<Vec<u8>, Vec<u8>>;

/// Views in memory. [`MemoryViews::reopen`] gives what a process finds after a crash: the last finished checkpoint.
pub struct MemoryViews {
    merge: Arc<dyn MergeRows>,
    checkpoint_ids: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    active: Ids,
    frozen: Ids,
    checkpoint: Checkpoint,
}

#[derive(Clone, Default)]
struct Checkpoint {
    ids: Arc<Ids>,
    rows: Arc<RowMap>,
    position: Position,
    meta: Vec<u8>,
}

impl MemoryViews {
    /// Empty views that want a checkpoint after a million new ids.
    pub fn new(merge: Arc<dyn MergeRows>) -> Self {
        Self::with_checkpoint_ids(merge, 1_000_000)
    }

    /// Empty views that want a checkpoint after `checkpoint_ids` new ids.
    pub fn with_checkpoint_ids(merge: Arc<dyn MergeRows>, checkpoint_ids: usize) -> Self {
        Self {
            merge,
            checkpoint_ids,
            state: Mutex::default(),
        }
    }

    /// Other views that start from the last finished checkpoint of these.
    pub fn reopen(&self) -> Self {
        Self {
            merge: Arc::clone(&self.merge),
            checkpoint_ids: self.checkpoint_ids,
            state: Mutex::new(State {
                checkpoint: self.state.lock().checkpoint.clone(),
                ..State::default()
            }),
        }
    }

    fn add(&self, sums: &mut RowMap, rows: Vec<Row>) -> Result<(), StoreError> {
        for Row { key, value } in rows {
            let sum = match sums.get(&key) {
                Some(old) => self.merge.merge(&key, old, &value)?,
                None => Some(value),
            };
            match sum {
                Some(sum) => sums.insert(key, sum),
                None => sums.remove(&key),
            };
        }
        Ok(())
    }
}

impl Views for MemoryViews {
    fn position(&self) -> Position {
        self.state.lock().checkpoint.position
    }

    fn meta(&self) -> Vec<u8> {
        self.state.lock().checkpoint.meta.clone()
    }

    fn probe(&self, names: &[EventName]) -> Result<Vec<Option<IdEntry>>, StoreError> {
        let state = self.state.lock();
        let tables = [&state.active, &state.frozen, state.checkpoint.ids.as_ref()];
        let find = |name| tables.iter().find_map(|table| table.get(name)).copied();
        Ok(names.iter().map(find).collect())
    }

    fn remember(&self, entries: &[(EventName, IdEntry)]) -> Result<(), StoreError> {
        self.state.lock().active.extend(entries.iter().copied());
        Ok(())
    }

    fn ids(&self) -> IdIter {
        let ids = Arc::clone(&self.state.lock().checkpoint.ids);
        let ids: Vec<_> = ids.iter().map(|(name, entry)| Ok((*name, *entry))).collect();
        Box::new(ids.into_iter())
    }

    fn rows(&self) -> Arc<dyn Rows> {
        Arc::new(MemoryRows(Arc::clone(&self.state.lock().checkpoint.rows)))
    }

    fn wants_checkpoint(&self) -> bool {
        self.state.lock().active.len() >= self.checkpoint_ids
    }

    fn begin_checkpoint(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let active = std::mem::take(&mut state.active);
        state.frozen.extend(active);
        Ok(())
    }

    fn finish_checkpoint(
        &self,
        position: Position,
        rows: &dyn RowSource,
        meta: Vec<u8>,
    ) -> Result<(), StoreError> {
        let mut all = Vec::new();
        rows.each(&mut |key, value| {
            all.push(Row {
                key: key.to_vec(),
                value: value.to_vec(),
            });
            Ok(())
        })?;
        if !all.is_sorted_by(|a, b| a.key <= b.key) {
            return Err(StoreError::Failed(
                "rows of a checkpoint must have ascending keys".into(),
            ));
        }
        let mut state = self.state.lock();
        let mut sums = state.checkpoint.rows.as_ref().clone();
        self.add(&mut sums, all)?;
        let frozen = std::mem::take(&mut state.frozen);
        let checkpoint = &mut state.checkpoint;
        Arc::make_mut(&mut checkpoint.ids).extend(frozen);
        checkpoint.rows = Arc::new(sums);
        checkpoint.position = position;
        checkpoint.meta = meta;
        Ok(())
    }

    fn unwritten_bytes(&self) -> usize {
        let state = self.state.lock();
        (state.active.len() + state.frozen.len()) * size_of::<(EventName, IdEntry)>()
    }

    fn stats(&self) -> ViewStats {
        let state = self.state.lock();
        let ids = state.active.len() + state.frozen.len() + state.checkpoint.ids.len();
        let row_bytes: usize = state
            .checkpoint
            .rows
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        ViewStats {
            ids: ids as u64,
            memory_bytes: (ids * size_of::<(EventName, IdEntry)>() + row_bytes) as u64,
            disk_bytes: 0,
        }
    }
}

struct MemoryRows(Arc<RowMap>);

impl MemoryRows {
    fn collect(&self, keys: Range<Vec<u8>>) -> Vec<Result<Row, StoreError>> {
        if keys.start >= keys.end {
            return Vec::new();
        }
        let row = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            Ok(Row {
                key: key.clone(),
                value: value.clone(),
            })
        };
        self.0.range(keys).map(row).collect()
    }
}

impl Rows for MemoryRows {
    fn scan(&self, keys: Range<Vec<u8>>) -> RowIter {
        Box::new(self.collect(keys).into_iter())
    }

    fn scan_back(&self, keys: Range<Vec<u8>>) -> RowIter {
        Box::new(self.collect(keys).into_iter().rev())
    }

    fn summands(&self, keys: Range<&[u8]>, take: &mut TakeSummand<'_>) -> Result<(), StoreError> {
        if keys.start >= keys.end {
            return Ok(());
        }
        let mut from = Vec::new();
        let bounds = (Bound::Included(keys.start), Bound::Excluded(keys.end));
        for (key, value) in self.0.range::<[u8], _>(bounds) {
            if *key < from {
                continue;
            }
            match take(key, value)? {
                Next::Row => {}
                Next::At(key) => from = key,
                Next::End => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::views::{AddValues, CHECKPOINT_IDS, Opener, checkpoint, contract};

    #[test]
    fn keeps_the_contract() {
        contract(&mut || {
            let mut views = Arc::new(MemoryViews::with_checkpoint_ids(
                Arc::new(AddValues),
                CHECKPOINT_IDS,
            ));
            Box::new(move || {
                views = Arc::new(views.reopen());
                Ok(Arc::clone(&views) as Arc<dyn Views>)
            }) as Opener
        })
        .unwrap();
    }

    #[test]
    fn a_merge_that_fails_changes_nothing() {
        let views = MemoryViews::new(Arc::new(AddValues));
        let row = |value: &[u8]| {
            vec![Row {
                key: b"k".to_vec(),
                value: value.to_vec(),
            }]
        };
        checkpoint(&views, 5, row(&1_i64.to_le_bytes()), vec![1]).unwrap();
        assert!(checkpoint(&views, 6, row(b"not 8 bytes"), vec![2]).is_err());
        assert_eq!((views.position(), views.meta()), (Position(5), vec![1]));
    }
}
