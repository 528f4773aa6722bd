use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use turnpike_domain::identity::MeterId;
use turnpike_domain::meter::aggregate::Cell;
use turnpike_domain::port::views::Rows;
use turnpike_domain::record::Position;

use super::Reach;
use super::copies::CopyShare;
use crate::rows::Counts;
use crate::windows::{Memory, Minutes, cell_bytes};

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
    /// Windows of a meter in minutes `[from, to)`, of the series in reach.
    Windows {
        meter: MeterId,
        reach: Reach,
        minutes: Range<u32>,
        /// Ascending minutes: those between two of them may be added up. Without any, minutes stay apart.
        bounds: Option<Arc<[u32]>>,
    },
    /// The notes with the last keys of these, so many of each partition's memory at the most.
    Notes { keys: Range<Vec<u8>>, last: usize },
}

/// Selections of one reader.
pub(crate) struct Wanted {
    pub selections: Vec<Selection>,
    /// What copies of memory are counted against; `None` where nobody else's demand makes them large.
    pub share: Option<Mutex<CopyShare>>,
}

/// What readers have copied already leaves no room for one more of this tenant.
#[derive(Debug)]
pub(crate) struct CopiesFull;

/// What a partition had in memory for a [`Selection`].
#[derive(Debug, Clone)]
pub(crate) enum Picked {
    Windows(Vec<PickedSeries>),
    Notes(PickedNotes),
}

/// Notes with their keys, in no order.
#[derive(Debug, Clone, Default)]
pub(crate) struct PickedNotes {
    pub all: Vec<(Vec<u8>, Counts)>,
    /// Where there were more of them: none with a key before this were picked.
    pub from: Option<Vec<u8>>,
}

impl PickedNotes {
    fn of(memory: &Memory, keys: &Range<Vec<u8>>, last: usize) -> Self {
        let picked = memory.notes(keys.clone()).rev().take(last);
        let all: Vec<_> = picked
            .map(|(key, counts)| (key.clone(), counts.clone()))
            .collect();
        let first = all.last().filter(|_| all.len() == last);
        let from = first.map(|(key, _)| key.clone());
        Self { all, from }
    }
}

/// The cells of one series.
#[derive(Debug, Clone)]
pub(crate) struct PickedSeries {
    pub subject: String,
    pub group: Vec<u8>,
    /// By minute, ascending. Minutes that were added up stand at the first of them.
    pub cells: Vec<(u32, Cell)>,
}

impl PickedSeries {
    /// The cells of some minutes.
    pub(crate) fn range(&self, minutes: Range<u32>) -> &[(u32, Cell)] {
        let before = |minute| self.cells.partition_point(|(at, _)| *at < minute);
        let (from, to) = (before(minutes.start), before(minutes.end));
        self.cells.get(from..to).unwrap_or_default()
    }

    /// Lets go of the cells before a minute.
    pub(crate) fn forget_before(&mut self, minute: u32) {
        let behind = self.cells.partition_point(|(at, _)| *at < minute);
        self.cells.drain(..behind);
        if self.cells.len() < self.cells.capacity() / 2 {
            self.cells.shrink_to_fit();
        }
    }

    /// Estimated bytes.
    fn bytes(&self) -> usize {
        let cells = self.cells.iter();
        let cells: usize = cells.map(|(_, cell)| size_of::<u32>() + cell_bytes(cell)).sum();
        size_of::<Self>() + self.subject.len() + self.group.len() + cells
    }
}

impl Wanted {
    /// Selections that need no room.
    pub(crate) fn of(selections: Vec<Selection>) -> Self {
        Self {
            selections,
            share: None,
        }
    }

    /// What `memory` holds for each selection.
    pub(crate) fn of_memory(&self, memory: &Memory) -> Result<Vec<Picked>, CopiesFull> {
        let all = self.selections.iter();
        all.map(|selection| self.pick(selection, memory)).collect()
    }

    fn pick(&self, selection: &Selection, memory: &Memory) -> Result<Picked, CopiesFull> {
        match selection {
            Selection::Windows {
                meter,
                reach,
                minutes,
                bounds,
            } => {
                let mut picked = Vec::new();
                let mut room = Ok(());
                let mut take = |subject: &str, group: &[u8], all: &Minutes| {
                    if room.is_err() {
                        return;
                    }
                    let cells = cells(all.range(minutes.clone()), bounds.as_deref());
                    if !cells.is_empty() {
                        let series = PickedSeries {
                            subject: subject.to_owned(),
                            group: group.to_vec(),
                            cells,
                        };
                        room = self.take_room(series.bytes());
                        picked.push(series);
                    }
                };
                for subject in &reach.first {
                    memory.series_of(*meter, subject, |group, all| take(subject, group, all));
                }
                if let Some(then) = &reach.then {
                    let wanted = |subject: &str| then.contains(subject) && !reach.first.contains(subject);
                    memory.series_where(*meter, wanted, take);
                }
                room.map(|()| Picked::Windows(picked))
            }
            Selection::Notes { keys, last } => Ok(Picked::Notes(PickedNotes::of(memory, keys, *last))),
        }
    }

    /// Gives room back.
    pub(crate) fn give_back(&self, bytes: usize) {
        if let Some(share) = &self.share {
            share.lock().shrink(bytes);
        }
    }

    fn take_room(&self, bytes: usize) -> Result<(), CopiesFull> {
        match &self.share {
            Some(share) if !share.lock().grow(bytes) => Err(CopiesFull),
            _ => Ok(()),
        }
    }
}

/// The cells of some minutes, added up between `bounds`.
fn cells<'m>(
    minutes: impl Iterator<Item = (u32, Cow<'m, Cell>)>,
    bounds: Option<&[u32]>,
) -> Vec<(u32, Cell)> {
    let Some(bounds) = bounds else {
        return minutes.map(|(at, cell)| (at, cell.into_owned())).collect();
    };
    let mut cells: Vec<(u32, Cell)> = Vec::new();
    let mut next_bound = 0;
    for (at, cell) in minutes {
        match cells.last_mut() {
            Some((_, sum)) if at < next_bound => {
                // Cannot fail: cells of one series are of one kind.
                let _ = sum.merge(&cell);
            }
            _ => {
                let behind = bounds.partition_point(|bound| *bound <= at);
                next_bound = bounds.get(behind).copied().unwrap_or(u32::MAX);
                if cells.is_empty() {
                    // Most series have one, and there may be millions of them.
                    cells.reserve_exact(1);
                }
                cells.push((at, cell.into_owned()));
            }
        }
    }
    cells
}

/// A partition at a cut: what it held in memory for each selection, what a checkpoint is writing, and the rows that go
/// with both.
pub(crate) struct Snapshot {
    pub position: Position,
    pub rows: Arc<dyn Rows>,
    pub frozen: Option<Arc<Memory>>,
    pub picked: Vec<Picked>,
}

impl Snapshot {
    /// Takes from what a checkpoint is writing what is needed of it, so that nothing else of it is held. May take long.
    pub(crate) fn settle(&mut self, wanted: &Wanted) -> Result<(), CopiesFull> {
        let Some(frozen) = self.frozen.take() else {
            return Ok(());
        };
        for (picked, more) in self.picked.iter_mut().zip(wanted.of_memory(&frozen)?) {
            match (picked, more) {
                (Picked::Windows(all), Picked::Windows(more)) => all.extend(more),
                (Picked::Notes(notes), Picked::Notes(more)) => {
                    notes.all.extend(more.all);
                    notes.from = notes.from.take().max(more.from);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Brings the series of each selection into their order. What was in memory and in a checkpoint stays apart, side by side.
    pub(crate) fn sort(&mut self) {
        for picked in &mut self.picked {
            if let Picked::Windows(all) = picked {
                all.sort_unstable_by(|a, b| (&a.subject, &a.group).cmp(&(&b.subject, &b.group)));
            }
        }
    }

    /// The series in memory for selection `at`.
    pub(crate) fn series(&self, at: usize) -> &[PickedSeries] {
        match self.picked.get(at) {
            Some(Picked::Windows(all)) => all,
            _ => &[],
        }
    }

    /// Lets go of the series in memory for selection `at` that are not to be kept. Returns how many bytes (estimated) they took,
    /// and what else `keep` let go of.
    pub(crate) fn retain(&mut self, at: usize, mut keep: impl FnMut(&mut PickedSeries) -> bool) -> usize {
        let Some(Picked::Windows(all)) = self.picked.get_mut(at) else {
            return 0;
        };
        let mut freed = 0;
        all.retain_mut(|series| {
            freed += series.bytes();
            let kept = keep(series);
            freed -= if kept { series.bytes() } else { 0 };
            kept
        });
        if all.len() < all.capacity() / 2 {
            all.shrink_to_fit();
        }
        freed
    }

    /// The notes in memory for selection `at`.
    pub(crate) fn notes(&self, at: usize) -> Option<&PickedNotes> {
        match self.picked.get(at)? {
            Picked::Notes(notes) => Some(notes),
            Picked::Windows(_) => None,
        }
    }
}

/// Makes snapshots ready to be read, away from their owners.
pub(crate) fn settle(snapshots: &mut [Snapshot], wanted: &Wanted) -> Result<(), CopiesFull> {
    for snapshot in snapshots {
        snapshot.settle(wanted)?;
        snapshot.sort();
    }
    Ok(())
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
