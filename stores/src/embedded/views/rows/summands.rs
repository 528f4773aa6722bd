//! The rows of several runs, run by run, borrowed from their blocks.

use std::ops::Range;
use std::sync::Arc;

use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{Next, TakeSummand};

use super::block::RowAt;
use super::cache::BlockCache;
use super::run::RowRun;

/// Gives the rows of `runs` with keys in `keys` to `take`, each run's for itself.
pub(in super::super) fn summands(
    runs: &[Arc<RowRun>],
    cache: &BlockCache,
    keys: Range<&[u8]>,
    take: &mut TakeSummand<'_>,
) -> Result<(), StoreError> {
    if keys.start >= keys.end {
        return Ok(());
    }
    runs.iter()
        .try_for_each(|run| of_run(run, cache, keys.clone(), take))
}

fn of_run(
    run: &RowRun,
    cache: &BlockCache,
    keys: Range<&[u8]>,
    take: &mut TakeSummand<'_>,
) -> Result<(), StoreError> {
    let blocks = run.blocks_before(keys.end);
    let mut from = keys.start.to_vec();
    // The block before the first one that starts at or behind the key may hold it.
    let mut at = run.blocks_before(&from).saturating_sub(1);
    let mut row = RowAt::default();
    while at < blocks {
        let block = cache.get((run.named().number, at), || run.read(at))?;
        // Only the last block reaches behind the keys.
        let is_last = at + 1 == blocks;
        let mut found = block.find(&from, &mut row);
        while found {
            if is_last && row.key() >= keys.end {
                return Ok(());
            }
            match take(row.key(), block.value(&row))? {
                Next::At(key) if *key > *row.key() => {
                    found = block.find(&key, &mut row);
                    from = key;
                }
                Next::Row | Next::At(_) => found = block.next(&mut row),
                Next::End => return Ok(()),
            }
        }
        at = run.blocks_before(&from).saturating_sub(1).max(at + 1);
    }
    Ok(())
}
