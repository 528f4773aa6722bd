use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use turnpike_domain::identity::MeterId;
use turnpike_domain::port::views::Rows;
use turnpike_domain::record::Position;

use crate::rows::Counts;
use crate::windows::{Memory, Minutes};

type AtCut = Box<dyn FnOnce() + Send>;

/// A moment at which all partitions stand still.
pub(crate) struct CutPoint {
    state: Mutex<State>,
    passed: Condvar,
}

struct State {
    /// Partitions that have not come to the cut.
    missing: usize,
    at_cut: Option<AtCut>,
    done: bool,
}

/// One partition's way to a [`CutPoint`]. A partition that drops it unused counts as having come, so that the others
/// never wait for one that is gone.
pub(crate) struct CutTicket(Arc<CutPoint>);

impl CutPoint {
    /// A ticket for each partition.
    pub(crate) fn tickets(partitions: usize, at_cut: Option<AtCut>) -> Vec<CutTicket> {
        let point = Arc::new(Self {
            state: Mutex::new(State {
                missing: partitions,
                at_cut,
                done: false,
            }),
            passed: Condvar::new(),
        });
        (0..partitions).map(|_| CutTicket(Arc::clone(&point))).collect()
    }

    /// The last to come does what is to be done at the cut, while all others stand still.
    fn arrive(&self) {
        let mut state = self.state.lock();
        state.missing = state.missing.saturating_sub(1);
        if state.missing == 0 && !state.done {
            if let Some(at_cut) = state.at_cut.take() {
                at_cut();
            }
            state.done = true;
            self.passed.notify_all();
        }
    }
}

impl CutTicket {
    /// Waits until all partitions have come to the cut.
    pub(crate) fn stop(self) {
        let point = Arc::clone(&self.0);
        drop(self);
        let mut state = point.state.lock();
        while !state.done {
            point.passed.wait(&mut state);
        }
    }
}

impl Drop for CutTicket {
    fn drop(&mut self) {
        self.0.arrive();
    }
}

/// What a reader needs of a partition's memory.
#[derive(Debug, Clone)]
pub(crate) enum Selection {
    /// Windows of a meter in minutes `[from, to)`; of some subjects only, where they are named.
    Windows {
        meter: MeterId,
        subjects: Option<Vec<String>>,
        minutes: Range<u32>,
    },
    /// Notes.
    Notes(Range<Vec<u8>>),
}

/// What a partition had in memory for a [`Selection`].
#[derive(Debug, Clone)]
pub(crate) enum Picked {
    Windows(Vec<PickedSeries>),
    Notes(Vec<(Vec<u8>, Counts)>),
}

/// The cells of one series.
#[derive(Debug, Clone)]
pub(crate) struct PickedSeries {
    pub subject: String,
    pub group: Vec<u8>,
    pub minutes: Minutes,
}

impl Selection {
    pub(crate) fn of(&self, memory: &Memory) -> Picked {
        match self {
            Self::Windows {
                meter,
                subjects,
                minutes,
            } => {
                let mut picked = Vec::new();
                memory.series(*meter, subjects.as_deref(), |subject, group, all| {
                    let minutes: Minutes = all
                        .range(minutes.clone())
                        .map(|(at, cell)| (*at, cell.clone()))
                        .collect();
                    if !minutes.is_empty() {
                        picked.push(PickedSeries {
                            subject: subject.to_owned(),
                            group: group.to_vec(),
                            minutes,
                        });
                    }
                });
                Picked::Windows(picked)
            }
            Self::Notes(keys) => Picked::Notes(
                memory
                    .notes(keys.clone())
                    .map(|(key, counts)| (key.clone(), counts.clone()))
                    .collect(),
            ),
        }
    }
}

/// A partition at a cut: what it held in memory for each selection, what a checkpoint is writing, and the rows that go
/// with both.
pub(crate) struct Snapshot {
    pub position: Position,
    pub rows: Arc<dyn Rows>,
    pub frozen: Option<Arc<Memory>>,
    pub active: Vec<Picked>,
}

impl Snapshot {
    /// The parts of memory for selection `at`: what a checkpoint is writing, and what came since.
    pub(crate) fn memory(&self, at: usize, selection: &Selection) -> impl Iterator<Item = Cow<'_, Picked>> {
        let frozen = self
            .frozen
            .as_ref()
            .map(|frozen| Cow::Owned(selection.of(frozen)));
        frozen.into_iter().chain(self.active.get(at).map(Cow::Borrowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn all_stand_still_while_the_cut_is_made() {
        let running = Arc::new(AtomicUsize::new(3));
        let seen = Arc::new(AtomicUsize::new(99));
        let (at_running, at_seen) = (Arc::clone(&running), Arc::clone(&seen));
        let at_cut: AtCut =
            Box::new(move || at_seen.store(at_running.load(Ordering::SeqCst), Ordering::SeqCst));
        let threads: Vec<_> = CutPoint::tickets(3, Some(at_cut))
            .into_iter()
            .map(|ticket| {
                let running = Arc::clone(&running);
                std::thread::spawn(move || {
                    running.fetch_sub(1, Ordering::SeqCst);
                    ticket.stop();
                    running.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(
            seen.load(Ordering::SeqCst),
            0,
            "none had gone on when the cut was made"
        );
    }

    #[test]
    fn nobody_waits_for_a_partition_that_is_gone() {
        let mut tickets = CutPoint::tickets(2, None);
        drop(tickets.pop());
        tickets.pop().unwrap().stop();
    }
}
