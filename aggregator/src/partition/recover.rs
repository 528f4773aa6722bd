//! Start: the last checkpoint, and the log behind it.

use std::sync::Arc;

use crossbeam_channel::Sender;
use turnpike_domain::meter::Fields;
use turnpike_domain::port::log::{EventLog, Only, StoredBlock};
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{Position, decode};

use super::checkpoint::Checkpoints;
use super::command::Command;
use super::{Owner, Shared};
use crate::core::{Changes, id_entry};
use crate::registry::Registry;
use crate::windows::Memory;

/// Views are never newer than the log, nor older than its beginning: else what lies between is missing, and a sum would
/// silently be wrong.
fn check_positions(number: u32, log: &dyn EventLog, views: Position) -> Result<(), Problem> {
    let (first, end) = (log.first(), log.end());
    if views > end {
        let detail = format!(
            "the views of partition {number} contain the log up to offset {}, but the log ends at offset {}: segments are \
             missing at its end, or log/ and views/ are of different backups; restore both from the same one",
            views.offset(),
            end.offset()
        );
        return Err(Problem::new(Code::Internal, detail));
    }
    if views < first && log.horizon().is_some() {
        let detail = format!(
            "the views of partition {number} contain the log up to offset {}, but the log begins at offset {}: what lay \
             before was deleted by retention and stood in the views alone; restore views/ from a backup",
            views.offset(),
            first.offset()
        );
        return Err(Problem::new(Code::Internal, detail));
    }
    if views < first && first.offset() > crate::query::ORIGIN_OFFSET_MAX {
        let detail = format!(
            "the log begins at offset {}, but the views of partition {number} contain it up to offset {} only: segments \
             are missing at its beginning; restore log/ from a backup",
            first.offset(),
            views.offset()
        );
        return Err(Problem::new(Code::Internal, detail));
    }
    Ok(())
}

impl Owner {
    /// An owner that stands at the last checkpoint of `views`.
    pub(crate) fn open(
        number: u32,
        shared: Arc<Shared>,
        views: Arc<dyn Views>,
        commands: Sender<Command>,
    ) -> Result<Self, Problem> {
        check_positions(number, shared.log.as_ref(), views.position())?;
        let registry = Registry::restore(&views.meta())?;
        let mut owner = Self {
            number,
            registry,
            memory: Memory::default(),
            frozen: None,
            rows: views.rows(),
            applied: views.position(),
            checkpoints: Checkpoints::default(),
            share: shared.budget.share(0),
            broken: false,
            backfill_failed: false,
            fields: Fields::default(),
            group: Vec::new(),
            shared,
            views,
            commands,
        };
        for tenant in owner.shared.directory.tenants() {
            owner.refresh(tenant.id);
        }
        owner.registry.keep_declared();
        Ok(owner)
    }

    /// Adds what the log holds behind the checkpoint.
    pub(crate) fn replay(&mut self) -> Result<(), Problem> {
        let log = Arc::clone(&self.shared.log);
        let mut records = 0;
        for block in log.read(self.applied, Only::partition(self.number)) {
            let block = block?;
            self.replay_block(&block)?;
            records += block.block.ends.len();
            self.account();
            if self.is_full() {
                self.checkpoint_at(self.applied)?;
            }
        }
        if records > 0 {
            tracing::info!(
                partition = self.number,
                records,
                "replayed the log behind the last checkpoint"
            );
        }
        Ok(())
    }

    fn replay_block(&mut self, block: &StoredBlock) -> Result<(), Problem> {
        let mut names = Vec::with_capacity(block.block.ends.len());
        for (at, bytes) in block.block.records().enumerate() {
            let record = decode(bytes)?;
            let position = Position(block.position.0 + at as u64);
            let key = self.shared.key;
            let views = Arc::clone(&self.views);
            let first = |name| {
                let here = names
                    .iter()
                    .rev()
                    .find(|(known, _)| *known == name)
                    .map(|(_, e): &(_, _)| *e);
                let entry = here.or_else(|| views.probe(&[name]).ok()?.into_iter().next()?);
                entry.map(|entry: turnpike_domain::port::views::IdEntry| entry.digest)
            };
            if let Some(entry) = id_entry(&key, position, &record, first) {
                names.push(entry);
            }
            let mut unheard = Changes::new();
            self.add(position, &record, (None, None), &mut unheard);
        }
        self.applied = block.next;
        self.remember(&names)
    }
}
