//! Retention: whole segments of the log go once all that they hold is past the horizon and stands in the views.

use turnpike_domain::limits::RESERVATION_TTL_S_MAX;
use turnpike_domain::port::log::{EventLog, Only, StoredBlock};
use turnpike_domain::problem::Problem;
use turnpike_domain::record::{Position, decode};
use turnpike_domain::time::Timestamp;

use crate::Aggregator;
use crate::query::{on_another_thread, received_us};
use crate::registry::Registry;

/// The first block that may not go, and from which horizon on it may: it need not be read again before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeper {
    position: Position,
    until: Timestamp,
}

impl Aggregator {
    /// Deletes whole segments of the log in which every event counts for a time before `horizon`, as far as all
    /// partitions' checkpoints contain them and no meter has yet to count them. Never the last segment. Returns the
    /// first position that is still kept.
    ///
    /// # Errors
    /// Where the log cannot be read, or a segment cannot be deleted; what was deleted until then stays so.
    pub async fn delete_before(&self, horizon: Timestamp) -> Result<Position, Problem> {
        let keeper = *self.keeper.lock();
        let first = self.shared.log.first();
        if keeper.is_some_and(|keeper| keeper.position >= first && horizon < keeper.until) {
            return Ok(first);
        }
        let (log, limit) = (std::sync::Arc::clone(&self.shared.log), self.contained());
        let (kept, found) = on_another_thread(move || {
            let (before, keeper) = past(log.as_ref(), limit, horizon)?;
            Ok((log.retain(before, horizon)?, keeper))
        })
        .await?;
        *self.keeper.lock() = found;
        Ok(kept)
    }

    /// Everything before this stands in the checkpoints of all partitions, for all meters.
    fn contained(&self) -> Position {
        let of = |partition: &crate::partition::Partition| {
            let written = partition.views.position();
            Registry::unread(&partition.extents).map_or(written, |unread| unread.min(written))
        };
        self.partitions.iter().map(of).min().unwrap_or(Position::START)
    }
}

/// The position before which everything is past `horizon`, at most `limit`; and the block that stands there, if it is
/// its time that keeps it.
fn past(
    log: &dyn EventLog,
    limit: Position,
    horizon: Timestamp,
) -> Result<(Position, Option<Keeper>), Problem> {
    let mut before = log.first();
    for block in log.read(before, Only::ALL) {
        let block = block?;
        if block.next > limit {
            break;
        }
        let until = deletable_from(&block)?;
        if until > horizon {
            let position = block.position;
            return Ok((before, Some(Keeper { position, until })));
        }
        before = block.next;
    }
    Ok((before, None))
}

/// The horizon from which on a block may go. What has no event (reservations, refused events) is kept by the time of its
/// making, and as long as a reservation may live.
fn deletable_from(block: &StoredBlock) -> Result<Timestamp, Problem> {
    if let Some(times) = block.block.times {
        return Ok(times.end);
    }
    let mut made_us = i64::MIN;
    for bytes in block.block.records() {
        made_us = made_us.max(received_us(&decode(bytes)?));
    }
    let lived_us = i64::from(RESERVATION_TTL_S_MAX) * 1_000_000;
    Ok(Timestamp::from_micros_clamped(made_us.saturating_add(lived_us)))
}
