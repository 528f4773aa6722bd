use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::log::StoredBlock;
use turnpike_domain::problem::Problem;
use turnpike_domain::record::{Position, decode};

/// Tenants of one stretch at the most; a block with more is not remembered.
const TENANTS_MAX: usize = 16;
/// Stretches that are remembered; about 20 MB with as many tenants as they may have.
const STRETCHES_MAX: usize = 100_000;

/// Whose records lie in which stretches of the log, as far as lists have read it: so that the events of others are read through
/// once, and not for every page of a tenant that has few.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By the position behind their last record.
    stretches: Mutex<BTreeMap<Position, Stretch>>,
}

#[derive(Debug)]
struct Stretch {
    from: Position,
    tenants: BTreeSet<TenantId>,
}

impl Seen {
    /// The beginning of the stretch before `until`, where it is known to have nothing of the tenant.
    pub(super) fn nothing_since(&self, tenant: TenantId, until: Position) -> Option<Position> {
        let stretches = self.stretches.lock();
        let (_, stretch) = stretches.range(until..).next()?;
        (stretch.from < until && !stretch.tenants.contains(&tenant)).then_some(stretch.from)
    }

    /// Remembers whose records a durable block holds. `first` is where the log begins.
    pub(super) fn note(&self, block: &StoredBlock, first: Position) -> Result<(), Problem> {
        if self.knows(block.position) {
            return Ok(());
        }
        let mut tenants = BTreeSet::new();
        for record in block.block.records() {
            tenants.insert(decode(record)?.tenant());
            if tenants.len() > TENANTS_MAX {
                return Ok(());
            }
        }
        let (from, end) = (block.position, block.next);
        let mut stretches = self.stretches.lock();
        // Lists are read backwards: what lies behind was mostly remembered just before.
        if let Some((_, behind)) = stretches.range_mut(end..).next()
            && behind.from == end
            && behind.tenants.union(&tenants).count() <= TENANTS_MAX
        {
            behind.from = from;
            behind.tenants.append(&mut tenants);
            return Ok(());
        }
        if stretches.len() >= STRETCHES_MAX {
            // What retention has deleted is never asked for again.
            stretches.retain(|end, _| *end > first);
        }
        if stretches.len() < STRETCHES_MAX {
            stretches.insert(end, Stretch { from, tenants });
        }
        Ok(())
    }

    fn knows(&self, position: Position) -> bool {
        let stretches = self.stretches.lock();
        let behind = stretches.range(Position(position.0 + 1)..).next();
        behind.is_some_and(|(_, stretch)| stretch.from <= position)
    }
}

#[cfg(test)]
mod tests {
    use turnpike_domain::port::log::Block;
    use turnpike_domain::record::{Record, encode};

    use super::*;

    /// A block at `from` with a record of each of these tenants.
    fn block(from: u64, end: u64, tenants: impl IntoIterator<Item = u32>) -> StoredBlock {
        let mut block = Block::default();
        for tenant in tenants {
            let mut bytes = Vec::new();
            encode(&Record::Resolved { tenant, rejected: 1 }, &mut bytes);
            block.push(&bytes);
        }
        StoredBlock {
            position: Position(from),
            next: Position(end),
            block,
        }
    }

    #[test]
    fn only_what_is_known_to_be_of_others_is_left_out() {
        let seen = Seen::default();
        let note = |block| seen.note(&block, Position::START).unwrap();
        let nothing = |tenant, until| {
            seen.nothing_since(TenantId(tenant), Position(until))
                .map(|from| from.0)
        };
        assert_eq!(nothing(1, 40), None, "nothing is known");
        note(block(30, 40, [2, 3]));
        note(block(20, 30, [2]));
        assert_eq!(
            (nothing(1, 40), nothing(1, 25), nothing(1, 21)),
            (Some(20), Some(20), Some(20))
        );
        assert_eq!((nothing(2, 40), nothing(3, 40)), (None, None));
        assert_eq!(
            (nothing(1, 41), nothing(1, 20)),
            (None, None),
            "what lies behind or before is not known"
        );
        note(block(10, 18, [1]));
        assert_eq!((nothing(2, 18), nothing(1, 18)), (Some(10), None));
        assert_eq!(nothing(1, 20), None, "between the two something may lie");
        note(block(10, 18, [2]));
        assert_eq!(nothing(2, 18), Some(10), "what is known stays");
        note(block(50, 60, 0..20));
        assert_eq!(nothing(99, 60), None, "too many to remember");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let seen = Seen::default();
        for at in 0..2 * STRETCHES_MAX as u64 {
            // They do not touch, so each is a stretch.
            seen.note(&block(at * 4, at * 4 + 1, [1]), Position::START)
                .unwrap();
        }
        assert_eq!(seen.stretches.lock().len(), STRETCHES_MAX);
        let end = 8 * STRETCHES_MAX as u64;
        seen.note(&block(end, end + 1, [1]), Position(end)).unwrap();
        assert_eq!(seen.stretches.lock().len(), 1, "what was deleted is forgotten");
    }
}
