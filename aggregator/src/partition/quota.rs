use turnpike_domain::port::intake::{Expect, QuotaRecord};
use turnpike_domain::problem::Problem;
use turnpike_domain::record::{Position, decode};

use super::Owner;
use super::command::Written;
use crate::core::id_entry;

impl Owner {
    /// Writes a quota record if its name is in the state that it expects.
    ///
    /// A name goes from free to an event (`consume`) or to a reservation, from a reservation to its event (`commit`) or
    /// back to free (`release`, expiry).
    pub(super) fn quota(&mut self, quota: &QuotaRecord) -> Result<Written, Problem> {
        let known = self.probe(quota.name)?;
        let expected = match (quota.expect, known) {
            (Expect::Free, None) => true,
            (Expect::Free, Some(entry)) => self.is_free(entry)?,
            (Expect::At(position), Some(entry)) => entry.position == position,
            (Expect::At(_), None) => {
                return Err(Problem::not_found(
                    "reservation",
                    &format!("{:032x}", quota.name.0),
                ));
            }
        };
        match known {
            Some(entry) if !expected => Ok(Written::Occupied(entry)),
            _ => self.write_quota(quota),
        }
    }

    fn write_quota(&mut self, quota: &QuotaRecord) -> Result<Written, Problem> {
        let record = decode(&quota.record)?;
        let key = self.shared.key;
        // The digest is derived from the record, as a replay derives it.
        let entry = id_entry(&key, Position::default(), &record, |_| None);
        let name = entry.map(|(_, entry)| (quota.name, entry.digest));
        debug_assert!(entry.is_some_and(|(name, _)| name == quota.name));
        let (position, _) = self.write(&record, name, quota.hold.as_ref())?;
        Ok(Written::At(position))
    }
}
