use std::path::Path;

use turnpike_domain::port::StoreError;
use turnpike_domain::time::Timestamp;

use super::format::SEGMENT_HEADER;
use super::recovery::Chain;

/// What is known of a log by what was made from it. A log that is another one, or that has lost a part, would silently
/// count again what was counted, or forget it; it is refused before anything is changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expected {
    /// Nothing is known: any sound log will do.
    #[default]
    Any,
    /// Nothing can have been written: what knows of the log was made only now.
    Nothing,
    /// There is one.
    Log {
        /// Its identity, where that is known.
        identity: Option<u64>,
        /// The offset that it reaches at least.
        reaches: u64,
    },
}

impl Expected {
    pub(super) fn check(
        self,
        directory: &Path,
        chain: Option<&Chain>,
        horizon: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let at = directory.display();
        if let Some(first) = chain.and_then(|chain| chain.segments.first())
            && first.start > 0
            && horizon.is_none()
        {
            return Err(StoreError::Damaged(format!(
                "the log in {at} begins at offset {}, though retention has deleted nothing: segments are missing at its \
                 beginning; restore log/ from a backup",
                first.start
            )));
        }
        match (self, chain) {
            (Self::Any, _)
            | (
                Self::Nothing
                | Self::Log {
                    identity: None,
                    reaches: 0,
                },
                None,
            ) => Ok(()),
            (Self::Nothing, Some(chain)) if chain.is_empty() => Ok(()),
            (Self::Nothing, Some(_)) => Err(StoreError::Damaged(format!(
                "the log in {at} holds records, but the database beside it is new: it was lost or is another one's; \
                 restore turnpike.db from a backup"
            ))),
            (Self::Log { .. }, None) => Err(StoreError::Damaged(format!(
                "there is no log in {at}, though there was one: restore log/ from a backup"
            ))),
            (Self::Log { identity, reaches }, Some(chain)) => {
                if identity.is_some_and(|identity| identity != chain.identity) {
                    return Err(StoreError::Damaged(format!(
                        "the log in {at} is not the one that the database beside it was made with: restore log/ and \
                         turnpike.db from the same backup"
                    )));
                }
                if chain.tail.end < reaches {
                    return Err(StoreError::Damaged(format!(
                        "the views contain the log up to offset {reaches}, but the log in {at} ends at offset {}: its \
                         end was cut off, segments are missing at its end, or log/ and views/ are of different \
                         backups; restore both from the same one",
                        chain.tail.end
                    )));
                }
                Ok(())
            }
        }
    }
}

impl Chain {
    /// Whether nothing was ever written.
    fn is_empty(&self) -> bool {
        self.segments.len() == 1 && self.tail.end <= SEGMENT_HEADER as u64
    }
}
