//! How far a log reaches that a process may be writing to, for those who copy it.

use std::path::{Path, PathBuf};

use turnpike_domain::port::StoreError;

use super::recovery;
use crate::disk::Disk;

/// The files of a log, and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// What tells the log from every other one.
    pub identity: u64,
    /// The start of each segment and its file, in order. Each but the last is whole and never written to again.
    pub segments: Vec<(u64, PathBuf)>,
    /// The offset behind the last whole frame: everything that was durable before the call lies before it.
    pub end: u64,
}

/// What there is of the log in a directory; `None` where there is none yet. Changes nothing.
///
/// Under a process that writes, a frame may be met that is written just now, or a segment that retention deletes. That is no
/// damage, so it is looked again: what was whole behind such a frame proves that the frame is whole by now, and a deleted
/// segment is listed no more. Only what is found a second time is told.
///
/// # Errors
/// [`StoreError::Damaged`] names the file and the byte.
pub fn extent(disk: &dyn Disk, directory: &Path) -> Result<Option<Extent>, StoreError> {
    let mut met = None;
    loop {
        match recovery::chain(disk, directory) {
            Err(error) if met.as_ref() != Some(&error) => met = Some(error),
            Err(error) => return Err(error),
            Ok(Err(_)) => return Ok(None),
            Ok(Ok(chain)) => {
                let segments = chain.segments.iter();
                return Ok(Some(Extent {
                    identity: chain.identity,
                    segments: segments
                        .map(|segment| (segment.start, segment.path.clone()))
                        .collect(),
                    end: chain.tail.end,
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use turnpike_domain::port::log::EventLog as _;
    use turnpike_domain::record::Position;
    use turnpike_domain::time::Timestamp;

    use super::*;
    use crate::contract::log::block;
    use crate::disk::RealDisk;
    use crate::embedded::{LogOptions, SegmentedLog};
    use crate::fault::FailPoints;
    use crate::machine::{MachineClock, MachineRandomness};

    fn open(directory: &Path) -> Arc<SegmentedLog> {
        let options = LogOptions {
            segment_bytes: 256 * 1024,
            ..LogOptions::new(directory)
        };
        let (clock, fail) = (Arc::new(MachineClock), Arc::new(FailPoints::default()));
        SegmentedLog::open(options, Arc::new(RealDisk), clock, &MachineRandomness, fail).unwrap()
    }

    /// Whoever writes and deletes meanwhile, what was durable before lies within, and it is whole frames.
    #[test]
    fn a_log_that_is_written_to_is_no_damaged_one() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(extent(&RealDisk, directory.path()).unwrap(), None);
        let log = open(directory.path());
        let (written, place) = (Arc::clone(&log), directory.path().to_owned());
        let looking = std::thread::spawn(move || {
            for _ in 0..30 {
                let durable = written.durable().offset();
                let found = extent(&RealDisk, &place).unwrap().unwrap();
                assert_eq!(found.identity, written.identity());
                assert!(found.end >= durable, "{} < {durable}", found.end);
                assert!(found.segments.is_sorted());
            }
        });
        for at in 0.. {
            let blocks = (0..8).map(|partition| block(partition, 2_000)).collect();
            let placed = log.append_all(blocks).unwrap();
            if at % 20 == 19 {
                let before = Position::new(placed[0].0.offset().saturating_sub(600_000), 0);
                log.retain(before, Timestamp::from_micros_clamped(0)).unwrap();
            }
            log.wait_durable_blocking(placed[7].1).unwrap();
            if looking.is_finished() && at > 100 {
                break;
            }
        }
        looking.join().unwrap();
        let deleted = log.first().offset();
        assert!(
            deleted > 0 && log.durable().offset() > 1_000_000,
            "vacuous: {deleted}"
        );
        log.close().unwrap();
    }

    #[test]
    fn damage_is_told_once_it_is_met_again() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        for _ in 0..5 {
            let (_, behind) = log.append_all(vec![block(0, 100)]).unwrap()[0];
            log.wait_durable_blocking(behind).unwrap();
        }
        log.close().unwrap();
        let whole = extent(&RealDisk, directory.path()).unwrap().unwrap();
        assert_eq!(whole.end, std::fs::metadata(&whole.segments[0].1).unwrap().len());
        let mut bytes = std::fs::read(&whole.segments[0].1).unwrap();
        bytes[200] ^= 1;
        std::fs::write(&whole.segments[0].1, bytes).unwrap();
        let told = extent(&RealDisk, directory.path()).unwrap_err();
        assert!(
            matches!(&told, StoreError::Damaged(text) if text.contains("byte ")),
            "{told}"
        );
    }
}
