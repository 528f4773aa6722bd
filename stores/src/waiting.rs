//! Those who wait for a log to become durable, and are told once.

use parking_lot::Mutex;
use tokio::sync::oneshot;
use turnpike_domain::port::log::Told;
use turnpike_domain::port::{BoxFuture, StoreError};
use turnpike_domain::record::Position;

/// How a wait has ended.
type Ended = Result<(), StoreError>;

/// Who waits, and for which position.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Vec<(Position, Told)>>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiting({})", self.0.lock().len())
    }
}

impl Waiting {
    /// Calls `told` at once where `ended` says how the wait for `position` ends; else a later [`Waiting::tell`] does.
    pub(crate) fn add(&self, position: Position, told: Told, ended: impl Fn(Position) -> Option<Ended>) {
        let mut waiting = self.0.lock();
        // Looked at under the lock: whoever changes the answer tells behind that, and finds the entry.
        let Some(result) = ended(position) else {
            waiting.push((position, told));
            return;
        };
        drop(waiting);
        told(result);
    }

    /// Tells all whose wait has ended.
    pub(crate) fn tell(&self, ended: impl Fn(Position) -> Option<Ended>) {
        let mut over = Vec::new();
        let mut waiting = self.0.lock();
        for (position, told) in std::mem::take(&mut *waiting) {
            match ended(position) {
                Some(result) => over.push((told, result)),
                None => waiting.push((position, told)),
            }
        }
        drop(waiting);
        for (told, result) in over {
            told(result);
        }
    }
}

/// A future of the result that the one who is given to `add` is told.
pub(crate) fn wait(add: impl FnOnce(Told)) -> BoxFuture<'static, Ended> {
    let (sender, receiver) = oneshot::channel();
    // Who waits may have gone away.
    add(Box::new(move |result| drop(sender.send(result))));
    Box::pin(async move {
        let lost = |_| Err(StoreError::Failed("the log has ended".to_owned()));
        receiver.await.unwrap_or_else(lost)
    })
}
