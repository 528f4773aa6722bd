//! The threads that merge runs: one for small merges, one for large ones, so that small ones never wait.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use turnpike_domain::port::StoreError;

use super::store::Store;

/// Bytes of inputs from which a merge is large.
const LARGE_BYTES: u64 = 256 * 1024 * 1024;

/// The threads. Dropped, they end at once and leave what they were doing.
pub(super) struct Background {
    store: Arc<Store>,
    wakes: Vec<Arc<Wake>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Wake {
    pending: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    fn wake(&self) {
        *self.pending.lock() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut pending = self.pending.lock();
        while !*pending {
            self.changed.wait(&mut pending);
        }
        *pending = false;
    }
}

impl Background {
    /// Starts the threads, unless the options say that there are none.
    pub(super) fn start(store: &Arc<Store>) -> Result<Self, StoreError> {
        let mut background = Self {
            store: Arc::clone(store),
            wakes: Vec::new(),
            threads: Vec::new(),
        };
        if !store.options.background {
            return Ok(background);
        }
        for (name, bytes) in [("small", 0..LARGE_BYTES), ("large", LARGE_BYTES..u64::MAX)] {
            // Woken from the start: what was due when the process ended is still due.
            let wake = Arc::new(Wake::default());
            wake.wake();
            background.wakes.push(Arc::clone(&wake));
            let store = Arc::clone(store);
            let thread = std::thread::Builder::new()
                .name(format!("views-{}-{name}", store.options.partition))
                .spawn(move || run(&store, &wake, &bytes))
                .map_err(|error| StoreError::Failed(format!("starting a thread: {error}")))?;
            background.threads.push(thread);
        }
        Ok(background)
    }

    /// Says that there may be something to merge.
    pub(super) fn wake(&self) {
        self.wakes.iter().for_each(|wake| wake.wake());
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.store.stopped.store(true, Ordering::Relaxed);
        self.wake();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; nothing is lost with it.
            let _ = thread.join();
        }
    }
}

fn run(store: &Store, wake: &Wake, bytes: &Range<u64>) {
    let partition = store.options.partition;
    loop {
        wake.wait();
        loop {
            if store.stopped.load(Ordering::Relaxed) {
                return;
            }
            match store.merge_due(bytes) {
                Ok(true) => metrics::counter!("turnpike_views_merges_total").increment(1),
                Ok(false) => break,
                Err(error) => {
                    // Tried again after the next checkpoint; until then there are more runs than there should be.
                    metrics::counter!("turnpike_views_merge_failures_total").increment(1);
                    tracing::error!(partition, %error, "runs of views could not be merged");
                    break;
                }
            }
        }
    }
}
