//! A batch that is all or nothing: what its partitions found new goes to the log as one, so that neither a failure nor
//! the end of the process can keep a part of it.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::{Block, EventLog, Placed};

/// Where the owners of the partitions meet that a batch touches.
struct Joint {
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Default)]
struct State {
    /// Partitions that have not come.
    missing: usize,
    /// What each brought.
    parts: Vec<Vec<Block>>,
    /// Why one came with nothing: then nothing of the batch is taken.
    failure: Option<StoreError>,
    /// What became of it, for each part.
    result: Option<Result<Vec<Vec<Placed>>, StoreError>>,
}

/// One partition's part in a batch that is all or nothing. Dropped unused it fails the batch, so that the others never
/// wait for a partition that cannot decide or is gone.
pub(crate) struct JointTicket {
    joint: Arc<Joint>,
    part: usize,
    used: bool,
}

/// A ticket for each of the partitions that a batch touches.
pub(crate) fn tickets(partitions: usize) -> Vec<JointTicket> {
    let state = State {
        missing: partitions,
        parts: vec![Vec::new(); partitions],
        ..State::default()
    };
    let joint = Arc::new(Joint {
        state: Mutex::new(state),
        settled: Condvar::new(),
    });
    let ticket = |part| JointTicket {
        joint: Arc::clone(&joint),
        part,
        used: false,
    };
    (0..partitions).map(ticket).collect()
}

impl JointTicket {
    /// Brings this partition's blocks and waits for the others; the last to come appends them all. Returns the places of
    /// the own blocks.
    pub(super) fn append(
        mut self,
        blocks: Vec<Block>,
        log: &dyn EventLog,
    ) -> Result<Vec<Placed>, StoreError> {
        self.used = true;
        let mut state = self.joint.state.lock();
        state.parts[self.part] = blocks;
        state.missing -= 1;
        if state.missing == 0 {
            self.joint.settle(&mut state, Some(log));
        }
        while state.result.is_none() {
            self.joint.settled.wait(&mut state);
        }
        match state.result.as_mut() {
            Some(Ok(placed)) => Ok(std::mem::take(&mut placed[self.part])),
            Some(Err(error)) => Err(error.clone()),
            None => Err(StoreError::Failed("a batch was not settled".to_owned())),
        }
    }
}

impl Drop for JointTicket {
    fn drop(&mut self) {
        if self.used {
            return;
        }
        let mut state = self.joint.state.lock();
        let why = "a part of the batch could not be decided, so nothing of it was taken";
        state.failure = Some(StoreError::Failed(why.to_owned()));
        state.missing -= 1;
        if state.missing == 0 {
            self.joint.settle(&mut state, None);
        }
    }
}

impl Joint {
    /// Does what is to be done once all have come. `log` is absent only where there is a failure.
    fn settle(&self, state: &mut State, log: Option<&dyn EventLog>) {
        let result = match (state.failure.take(), log) {
            (None, Some(log)) => append(log, &mut state.parts),
            (failure, _) => Err(failure.unwrap_or_else(|| StoreError::Failed("no log".to_owned()))),
        };
        state.result = Some(result);
        self.settled.notify_all();
    }
}

fn append(log: &dyn EventLog, parts: &mut [Vec<Block>]) -> Result<Vec<Vec<Placed>>, StoreError> {
    let counts: Vec<usize> = parts.iter().map(Vec::len).collect();
    let blocks = parts.iter_mut().flat_map(std::mem::take).collect();
    let mut placed = log.append_all(blocks)?.into_iter();
    Ok(counts
        .into_iter()
        .map(|count| placed.by_ref().take(count).collect())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnpike_domain::port::log::Only;
    use turnpike_domain::record::Position;
    use turnpike_stores::memory::MemoryLog;

    fn block(partition: u32) -> Block {
        let mut block = Block {
            partition,
            ..Block::default()
        };
        block.push(b"record");
        block
    }

    #[test]
    fn all_parts_are_appended_by_the_last_to_come() {
        let log = Arc::new(MemoryLog::new());
        let threads: Vec<_> = tickets(3)
            .into_iter()
            .zip(0..)
            .map(|(ticket, part)| {
                let log = Arc::clone(&log);
                std::thread::spawn(move || {
                    let blocks = (0..part).map(|_| block(part)).collect();
                    ticket.append(blocks, log.as_ref()).unwrap()
                })
            })
            .collect();
        let placed: Vec<Vec<Placed>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let counts: Vec<usize> = placed.iter().map(Vec::len).collect();
        assert_eq!(counts, [0, 1, 2]);
        for stored in log.read(Position::START, Only::ALL).map(Result::unwrap) {
            let own = &placed[stored.block.partition as usize];
            assert!(own.contains(&(stored.position, stored.next)));
        }
    }

    #[test]
    fn one_that_cannot_decide_fails_all_and_nothing_is_taken() {
        let log = MemoryLog::new();
        let end = log.end();
        let mut all = tickets(2);
        drop(all.pop());
        let error = all.remove(0).append(vec![block(0)], &log).unwrap_err();
        assert!(error.to_string().contains("nothing of it was taken"), "{error}");
        assert_eq!(log.end(), end);
    }
}
