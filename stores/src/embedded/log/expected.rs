use std::path::Path;

use turnpike_domain::port::StoreError;

use super::control::{self, Mark};
use super::format::SEGMENT_HEADER;
use super::horizon::{self, Horizon};
use super::recovery::Chain;
use crate::disk::Disk;

/// What is known of a log by what was made from it. A log that is another one, or that has lost a part, would silently
/// count again what was counted, or forget it; it is refused before anything is changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expected {
    /// Nothing is known: any sound log will do.
    #[default]
    Any,
    /// Nothing can have been written: the database that knows of the log was made only now.
    Nothing {
        /// The highest offset up to which a partition's views contain a log.
        views_to: u64,
    },
    /// There is one.
    Log(Known),
}

/// What views and database know of their log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its identity, where the database knows it.
    pub identity: Option<u64>,
    /// The offset up to which all partitions' views contain it.
    pub views_from: u64,
    /// The highest offset up to which a partition's views contain it.
    pub views_to: u64,
    /// The highest offset that the database has seen durable.
    pub database_to: u64,
    /// Changes that the database has kept.
    pub generation: u64,
    /// The branch of its history that the database is on, where it keeps that.
    pub branch: Option<Branch>,
}

/// Where a database stands in its history. Each start goes on with a branch that it draws at random, so that two copies of one
/// database that were both gone on with are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// The one that it is on.
    pub now: u64,
    /// The one before: the mark beside the log names it still where a start was interrupted.
    pub before: u64,
}

/// The small files among the segments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside {
    pub(super) horizon: Option<Horizon>,
    mark: Option<Mark>,
}

impl Beside {
    pub(super) fn read(disk: &dyn Disk, directory: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            horizon: horizon::read(disk, directory)?,
            mark: control::read(disk, directory)?,
        })
    }

    /// The offset behind which the log must not begin.
    fn begins(&self) -> Option<u64> {
        self.horizon.map_or(Some(0), |horizon| horizon.first)
    }
}

impl Expected {
    pub(super) fn check(
        self,
        directory: &Path,
        chain: Option<&Chain>,
        beside: &Beside,
    ) -> Result<(), StoreError> {
        let refused = match (self, chain) {
            (_, Some(chain)) if chain.is_cut_before(beside) => Some(begins_late(chain, beside)),
            (Self::Any, _) => None,
            (Self::Nothing { .. }, chain) if beside.holds(chain) => Some(
                "holds what was written with a database, but turnpike.db beside it is missing or new: restore it from a \
                 backup"
                    .to_owned(),
            ),
            (Self::Nothing { views_to: 0 }, _) => None,
            (Self::Nothing { .. }, _) => Some(
                "is missing or new, and so is turnpike.db beside it, but there are views: restore all three from the \
                 same backup"
                    .to_owned(),
            ),
            (Self::Log(known), None) => known.wants_a_log().then(|| {
                "is not there, though it was: restore log/ from a backup".to_owned()
            }),
            (Self::Log(known), Some(chain)) => known.refusal(chain, beside),
        };
        refused.map_or(Ok(()), |what| {
            Err(StoreError::Damaged(format!(
                "the log in {} {what}",
                directory.display()
            )))
        })
    }
}

impl Beside {
    /// Whether anything was ever written to the log, or to a database beside it.
    fn holds(&self, chain: Option<&Chain>) -> bool {
        chain.is_some_and(|chain| !chain.is_empty()) || self.mark.is_some_and(|mark| mark.generation > 0)
    }
}

impl Known {
    /// Whether there was one: a process that is killed within its first start may have made the database alone.
    const fn wants_a_log(&self) -> bool {
        self.identity.is_some() || self.views_to > 0 || self.database_to > 0
    }

    /// Why `chain` is not the log that is known.
    fn refusal(&self, chain: &Chain, beside: &Beside) -> Option<String> {
        let (end, first) = (chain.tail.end, chain.first());
        let marked = beside.mark.map_or(0, |mark| mark.generation);
        let is_other = |identity| identity != chain.identity;
        if self.identity.is_some_and(is_other) || beside.mark.is_some_and(|mark| is_other(mark.log)) {
            return Some(
                "is not the one that the database beside it was made with: restore log/ and turnpike.db from the same \
                 backup"
                    .to_owned(),
            );
        }
        if self.generation < marked {
            return Some(format!(
                "was written with a newer database: {marked} changes had been kept, turnpike.db beside it has {}. It \
                 is an older copy, or has lost its turnpike.db-wal: restore turnpike.db, log/ and views/ from the same \
                 backup",
                self.generation
            ));
        }
        if self.generation > 0 && beside.mark.is_none() {
            return Some(
                "has lost its file `control`, which says how far the database beside it had come: restore log/ and \
                 turnpike.db from the same backup"
                    .to_owned(),
            );
        }
        let marked = beside.mark.and_then(|mark| mark.branch);
        let goes_on = |marked| {
            self.branch
                .is_some_and(|branch| [branch.now, branch.before].contains(&marked))
        };
        if marked.is_some_and(|marked| !goes_on(marked)) {
            return Some(
                "was written with another copy of the database: the one beside it is older, went on elsewhere, or has lost its turnpike.db-wal. Restore \
                 turnpike.db, log/ and views/ from the same backup"
                    .to_owned(),
            );
        }
        for (who, to) in [
            ("views contain it", self.views_to),
            ("database knows it", self.database_to),
        ] {
            if end < to {
                return Some(format!(
                    "ends at offset {end}, but the {who} up to offset {to}: its end was cut off, segments are missing at \
                     its end, or it is of an older backup; restore log/, views/ and turnpike.db from the same one"
                ));
            }
        }
        let deleted = beside.horizon.is_some() && self.views_from < first;
        deleted.then(|| {
            format!(
                "begins at offset {first}, but the views of a partition contain it up to offset {} only: what lay \
                 between was deleted by retention and stood in the views alone; restore views/ from a backup",
                self.views_from
            )
        })
    }
}

/// Why a log that begins too late is refused.
fn begins_late(chain: &Chain, beside: &Beside) -> String {
    let first = chain.first();
    let kept = match beside.begins() {
        Some(begins) if begins > 0 => format!("retention has kept it from offset {begins} on"),
        _ => "retention has deleted nothing".to_owned(),
    };
    format!(
        "begins at offset {first}, though {kept}: segments are missing at its beginning; restore log/ from a backup"
    )
}

impl Chain {
    fn first(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.start)
    }

    /// Whether nothing was ever written.
    fn is_empty(&self) -> bool {
        self.segments.len() == 1 && self.tail.end <= SEGMENT_HEADER as u64
    }

    /// Whether it begins behind what retention has kept.
    fn is_cut_before(&self, beside: &Beside) -> bool {
        beside.begins().is_some_and(|begins| self.first() > begins)
    }
}
