use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::place::Place;

/// Places in one chunk.
const CHUNK: u32 = 4_096;
/// So that a place's number fits 24 bits with one to spare.
const CHUNKS: usize = 4_095;

/// All places of the process, in chunks, so that few pages hold many.
pub(crate) struct Places {
    chunks: [OnceLock<Box<[Place]>>; CHUNKS],
    unused: Mutex<Unused>,
}

struct Unused {
    /// Places whose slots are gone.
    again: Vec<Taken>,
    /// The first that nobody had yet.
    next: u32,
}

/// A place in use, and its number if it has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) place: &'static Place,
    pub(crate) number: Option<u32>,
}

pub(crate) static PLACES: Places = Places {
    chunks: [const { OnceLock::new() }; CHUNKS],
    unused: Mutex::new(Unused {
        again: Vec::new(),
        next: 0,
    }),
};

impl Places {
    /// The place of a number.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&Place> {
        let chunk = self.chunks.get((number / CHUNK) as usize)?;
        chunk.get()?.get((number % CHUNK) as usize)
    }

    /// A place that nobody uses. Its counts are its last user's, and its row is nobody's.
    pub(crate) fn take(&'static self) -> Taken {
        let mut unused = self.unused.lock();
        if let Some(taken) = unused.again.pop() {
            return taken;
        }
        let number = unused.next;
        let Some(chunk) = self.chunks.get((number / CHUNK) as usize) else {
            // Sixteen million live windows: what comes on top has no number, hence is not found by a key.
            return Taken {
                place: Box::leak(Box::default()),
                number: None,
            };
        };
        unused.next += 1;
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| Place::default()).collect());
        Taken {
            place: &chunk[(number % CHUNK) as usize],
            number: Some(number),
        }
    }

    /// Its slot is gone.
    pub(crate) fn give_back(&self, taken: Taken) {
        taken.place.clear_row();
        self.unused.lock().again.push(taken);
    }
}
