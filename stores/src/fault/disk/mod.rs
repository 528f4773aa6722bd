mod counts;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

pub use self::counts::{FaultCounts, Operation};
use super::file::{FileState, Random};
use crate::disk::{Disk, DiskFile};
use crate::width::in_memory;

/// A disk in memory that fails as told and forgets at a crash what was not synced.
///
/// The same seed and the same sequence of operations give the same faults. Clones are the same disk. Handles from
/// before a crash fail, as a process that is gone cannot write any more.
#[derive(Debug, Clone)]
pub struct FaultDisk {
    state: Arc<Mutex<State>>,
    gate: Arc<Gate>,
    life: u64,
}

/// Where syncs wait while a test holds them.
#[derive(Debug, Default)]
struct Gate {
    held: Mutex<bool>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    files: BTreeMap<u64, FileState>,
    names: BTreeMap<PathBuf, u64>,
    /// Names as they would be found after a crash, before `changes`.
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that no sync has made durable: the path, and the file it leads to from then on.
    changes: Vec<Vec<(PathBuf, Option<u64>)>>,
    next_id: u64,
    life: u64,
    capacity: u64,
    /// Operations to fail: which, and how many of its kind come before.
    armed: Vec<(Operation, u64)>,
    /// Changing operations until the power goes.
    power: Option<u64>,
    counts: FaultCounts,
    random: Random,
}

impl FaultDisk {
    /// An empty disk of 2⁵⁰ bytes.
    pub fn new(seed: u64) -> Self {
        let state = State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            next_id: 0,
            life: 0,
            capacity: 1 << 50,
            armed: Vec::new(),
            power: None,
            counts: FaultCounts::default(),
            random: Random::new(seed),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            gate: Arc::default(),
            life: 0,
        }
    }

    /// Limits all files together to `bytes`.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity = bytes;
    }

    /// Leaves room for `bytes` more than all files have now.
    pub fn leave_free(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.capacity = state.used() + bytes;
    }

    /// Makes one operation of this kind fail with EIO, after `before` more that succeed.
    pub fn fail(&self, operation: Operation, before: u64) {
        self.state.lock().armed.push((operation, before));
    }

    /// Cuts the power after `operations` more that change something: everything fails from then on, until
    /// [`FaultDisk::crash`].
    pub fn cut_power_after(&self, operations: u64) {
        self.state.lock().power = Some(operations);
    }

    /// The disk after a loss of power: of each sector written since its last sync any version may be there, of the
    /// changes of names since their last sync a beginning.
    pub fn crash(&self) -> Self {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.counts.crashes += 1;
        let kept = in_memory(state.random.below(state.changes.len() as u64 + 1));
        state.counts.lost_names += (state.changes.len() - kept) as u64;
        for (path, id) in state.changes.drain(..).take(kept).flatten() {
            set_name(&mut state.durable_names, path, id);
        }
        state.names.clone_from(&state.durable_names);
        for file in state.files.values_mut() {
            state.counts.lost_sectors += file.tear(&mut state.random);
            file.forget();
        }
        self.next_life(state)
    }

    /// The disk after the process alone was killed: what was written is there, synced or not.
    pub fn kill(&self) -> Self {
        self.next_life(&mut self.state.lock())
    }

    fn next_life(&self, state: &mut State) -> Self {
        let State { files, names, .. } = state;
        files.retain(|id, _| names.values().any(|name| name == id));
        state.armed.clear();
        state.power = None;
        state.life += 1;
        Self {
            state: Arc::clone(&self.state),
            gate: Arc::clone(&self.gate),
            life: state.life,
        }
    }

    /// The harm done so far.
    pub fn counts(&self) -> FaultCounts {
        self.state.lock().counts
    }

    /// The contents of a file as a process sees them.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        Some(state.files.get(state.names.get(path)?)?.live().to_vec())
    }

    /// Replaces the contents of a file, durably, and makes the file where there is none.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state.lock();
        let id = state.names.get(path).copied().unwrap_or(state.next_id);
        state.next_id = state.next_id.max(id + 1);
        state.files.insert(id, FileState::durable(bytes));
        state.names.insert(path.to_owned(), id);
        state.durable_names.insert(path.to_owned(), id);
    }

    /// Removes a file, durably, as someone else's hand would.
    pub fn lose(&self, path: &Path) {
        let mut state = self.state.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Turns bit `bit` of a file over.
    pub fn flip(&self, path: &Path, bit: u64) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let file = state.names.get(path).and_then(|id| state.files.get_mut(id));
        if let Some(file) = file {
            file.flip(bit);
            state.counts.flips += 1;
        }
    }

    /// Lets syncs wait, or go on.
    pub fn hold_syncs(&self, on: bool) {
        *self.gate.held.lock() = on;
        self.gate.changed.notify_all();
    }

    /// Begins an operation: fails it where that was planned.
    fn begin(&self, operation: Operation) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if state.life != self.life {
            return Err(io::Error::other("the process is gone"));
        }
        if operation != Operation::Read
            && let Some(left) = &mut state.power
        {
            if *left == 0 {
                return Err(io::Error::other("the power is cut"));
            }
            *left -= 1;
        }
        let mut due = false;
        state.armed.retain_mut(|(armed, before)| {
            let hit = *armed == operation && *before == 0;
            if *armed == operation && !hit {
                *before -= 1;
            }
            due |= hit;
            !hit
        });
        if !due {
            return Ok(state);
        }
        state.counts.errors += 1;
        drop(state);
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    fn change_names(state: &mut State, change: Vec<(PathBuf, Option<u64>)>) {
        for (path, id) in change.clone() {
            set_name(&mut state.names, path, id);
        }
        state.changes.push(change);
    }

    fn handle(&self, id: u64) -> Box<dyn DiskFile> {
        Box::new(FaultFile {
            disk: self.clone(),
            id,
        })
    }
}

fn set_name(names: &mut BTreeMap<PathBuf, u64>, path: PathBuf, id: Option<u64>) {
    match id {
        Some(id) => names.insert(path, id),
        None => names.remove(&path),
    };
}

fn absent(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl State {
    fn used(&self) -> u64 {
        self.files.values().map(|file| file.live().len() as u64).sum()
    }

    /// Lets file `id` grow to `len`, if there is space.
    fn grow(&mut self, id: u64, len: u64) -> io::Result<&mut FileState> {
        let used = self.used();
        let file = self
            .files
            .get_mut(&id)
            .ok_or_else(|| io::Error::other("no such file"))?;
        let more = len.saturating_sub(file.live().len() as u64);
        if more > 0 && used + more > self.capacity {
            self.counts.full += 1;
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(file)
    }
}

impl Disk for FaultDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.begin(Operation::Create)?;
        if state.names.contains_key(path) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                path.display().to_string(),
            ));
        }
        let id = state.next_id;
        state.next_id += 1;
        state.files.insert(id, FileState::default());
        Self::change_names(&mut state, vec![(path.to_owned(), Some(id))]);
        Ok(self.handle(id))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.begin(Operation::Read)?;
        let id = state.names.get(path).copied().ok_or_else(|| absent(path))?;
        Ok(self.handle(id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::Rename)?;
        let id = state.names.get(from).copied().ok_or_else(|| absent(from))?;
        let replaced = state.names.get(to).copied();
        if let Some(file) = replaced
            .filter(|replaced| *replaced != id)
            .and_then(|id| state.files.get_mut(&id))
        {
            file.unlink();
        }
        Self::change_names(
            &mut state,
            vec![(from.to_owned(), None), (to.to_owned(), Some(id))],
        );
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::Remove)?;
        let id = state.names.get(path).copied().ok_or_else(|| absent(path))?;
        Self::change_names(&mut state, vec![(path.to_owned(), None)]);
        // Kept for open handles and for a crash that brings the name back, but it takes no space.
        if let Some(file) = state.files.get_mut(&id) {
            file.unlink();
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.begin(Operation::Read)?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.cloned().collect())
    }

    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::SyncDirectory)?;
        let changes = std::mem::take(&mut state.changes);
        for change in changes {
            if change.iter().any(|(name, _)| name.parent() == Some(path)) {
                for (name, id) in change {
                    set_name(&mut state.durable_names, name, id);
                }
            } else {
                state.changes.push(change);
            }
        }
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<(u64, u64)> {
        let state = self.begin(Operation::Read)?;
        Ok((state.capacity.saturating_sub(state.used()), state.capacity))
    }
}

struct FaultFile {
    disk: FaultDisk,
    id: u64,
}

impl FaultFile {
    fn with<T>(&self, operation: Operation, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        act(&mut *self.disk.begin(operation)?)
    }

    fn file<'a>(&self, state: &'a mut State) -> io::Result<&'a mut FileState> {
        state
            .files
            .get_mut(&self.id)
            .ok_or_else(|| io::Error::other("no such file"))
    }
}

impl DiskFile for FaultFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(Operation::Read, |state| self.file(state)?.read(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.disk.begin(Operation::Write) {
            Ok(mut state) => {
                state
                    .grow(self.id, offset + bytes.len() as u64)?
                    .write(offset, bytes);
                Ok(())
            }
            Err(error) => {
                let mut state = self.disk.state.lock();
                if state.life == self.disk.life && state.power != Some(0) {
                    let part = in_memory(state.random.below(bytes.len() as u64 + 1));
                    self.file(&mut state)?.write(offset, &bytes[..part]);
                }
                Err(error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut held = self.disk.gate.held.lock();
        while *held {
            self.disk.gate.changed.wait(&mut held);
        }
        drop(held);
        match self.disk.begin(Operation::Sync) {
            Ok(mut state) => {
                self.file(&mut state)?.sync();
                Ok(())
            }
            Err(error) => {
                let mut state = self.disk.state.lock();
                let state = &mut *state;
                if state.life == self.disk.life
                    && state.power != Some(0)
                    && let Some(file) = state.files.get_mut(&self.id)
                {
                    // The pages are marked clean: what did not reach the disk now never will.
                    state.counts.lost_sectors += file.tear(&mut state.random);
                }
                Err(error)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.with(Operation::Read, |state| Ok(self.file(state)?.live().len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(Operation::SetLen, |state| {
            state.grow(self.id, len)?.set_len(in_memory(len));
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(Operation::Allocate, |state| {
            let file = state.grow(self.id, len)?;
            if file.live().len() < in_memory(len) {
                file.set_len(in_memory(len));
            }
            Ok(())
        })
    }

    fn drop_cache(&self) {}
}

#[cfg(test)]
mod tests;
