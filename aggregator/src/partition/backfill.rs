//! A new meter fills itself from the past, slice by slice, while events keep coming.
//!
//! The owner noticed the meter at some position, and from there on counts every record for it as it comes. Here it
//! reads all earlier records of its partition. Because windows are sums, it does not matter that a void of an earlier
//! event may be counted before the event itself.

use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::{Only, StoredBlock};
use turnpike_domain::record::{Position, decode};

use super::Owner;
use crate::core::Changes;
use crate::registry::BackfillTask;

impl Owner {
    /// Whether there is a past to read now: not while memory is full, for what comes in has no other place to go.
    pub(super) fn backfill_is_open(&self) -> bool {
        let sound = !self.broken && !self.backfill_failed;
        sound && self.shared.budget.has_room() && self.registry.backfill().is_some()
    }

    /// Reads the next few blocks for the meters that need them.
    pub(super) fn backfill_slice(&mut self) {
        if !self.backfill_is_open() {
            return;
        }
        let Some(task) = self.registry.backfill() else {
            return;
        };
        if let Err(error) = self.backfill(&task) {
            // Other records can still be counted; the meters stay incomplete, and say so.
            tracing::error!(partition = self.number, %error, "the past cannot be read for new meters");
            self.backfill_failed = true;
        }
    }

    fn backfill(&mut self, task: &BackfillTask) -> Result<(), StoreError> {
        let readers = self.registry.readers_of(&task.meters);
        let log = std::sync::Arc::clone(&self.shared.log);
        // What lies before `until` may still be on its way to the disk.
        log.wait_durable_blocking(task.until)?;
        let mut next = task.until;
        let mut left = self.shared.options.backfill_blocks.max(1);
        for block in log.read(task.from, Only::partition(self.number)) {
            let block = block?;
            if block.position >= task.until {
                break;
            }
            if left == 0 {
                next = block.position;
                break;
            }
            left -= 1;
            self.backfill_block(&readers, &block)?;
        }
        if log.first() > task.from {
            self.registry.note_lack(&task.meters, log.horizon());
        }
        self.registry.advance(&task.meters, next);
        metrics::counter!("turnpike_backfill_slices_total").increment(1);
        Ok(())
    }

    fn backfill_block(
        &mut self,
        readers: &foldhash::HashMap<turnpike_domain::identity::TenantId, turnpike_domain::meter::Readers>,
        block: &StoredBlock,
    ) -> Result<(), StoreError> {
        let mut changes = Changes::new();
        for (at, bytes) in block.block.records().enumerate() {
            let record = decode(bytes).map_err(|problem| StoreError::Damaged(problem.detail))?;
            let position = Position(block.position.0 + at as u64);
            let wanted = readers.get(&record.tenant());
            let mut adder = Self::adder(
                &mut self.memory,
                &mut self.fields,
                &mut self.group,
                self.shared.key,
            );
            adder.record(wanted, position, &record, None, &mut changes);
        }
        self.tell(&changes);
        Ok(())
    }
}
