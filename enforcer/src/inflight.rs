use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;
use turnpike_domain::identity::EventName;

/// The quota ids that are being worked on: one call at a time for each, so that a repeat finds what the first one did.
#[derive(Default)]
pub(crate) struct InFlight {
    names: Arc<DashMap<EventName, Arc<Notify>, foldhash::fast::RandomState>>,
}

/// Ends the turn when dropped.
pub(crate) struct Turn {
    name: EventName,
    names: Arc<DashMap<EventName, Arc<Notify>, foldhash::fast::RandomState>>,
}

impl InFlight {
    /// Waits for the turn of `name`.
    pub(crate) async fn enter(&self, name: EventName) -> Turn {
        loop {
            let other = match self.names.entry(name) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Arc::default());
                    return Turn {
                        name,
                        names: self.names.clone(),
                    };
                }
                Entry::Occupied(other) => other.get().clone(),
            };
            let ended = other.notified();
            tokio::pin!(ended);
            // Listening first, looking again second: the turn may have ended in between.
            ended.as_mut().enable();
            if self.names.get(&name).is_some_and(|now| Arc::ptr_eq(&now, &other)) {
                ended.await;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((_, waiting)) = self.names.remove(&self.name) {
            waiting.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_at_a_time_and_everybody_in_the_end() {
        let (in_flight, inside, done) = (
            Arc::new(InFlight::default()),
            Arc::new(AtomicU32::new(0)),
            Arc::new(AtomicU32::new(0)),
        );
        let mut calls = Vec::new();
        for call in 0..200u128 {
            let (in_flight, inside, done) = (in_flight.clone(), inside.clone(), done.clone());
            calls.push(tokio::spawn(async move {
                let turn = in_flight.enter(EventName(call % 2)).await;
                assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                done.fetch_add(1, Ordering::SeqCst);
                drop(turn);
            }));
        }
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(done.load(Ordering::SeqCst), 200);
        assert!(in_flight.names.is_empty());
    }
}
