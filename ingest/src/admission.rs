//! How many bytes of requests may be in memory at once, over all and for each tenant.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use metrics::Gauge;
use turnpike_domain::identity::TenantId;
use turnpike_domain::problem::{Code, Problem};

/// Counts bytes in flight and refuses what would be too much.
///
/// Each tenant may hold as much as is still free for all others, so that one tenant alone comes to half of the bound
/// and always leaves the other half to those who come later. Source: A. K. Choudhury and E. L. Hahne, "Dynamic Queue
/// Length Thresholds for Shared-Memory Packet Switches", 1998, with α = 1.
pub(crate) struct Admission {
    bound: usize,
    used: AtomicUsize,
    tenants: DashMap<TenantId, Arc<AtomicUsize>>,
    gauge: Gauge,
}

impl Admission {
    pub(crate) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self {
            bound,
            used: AtomicUsize::new(0),
            tenants: DashMap::new(),
            gauge: metrics::gauge!("turnpike_ingest_in_flight_bytes"),
        })
    }

    /// A ticket of no bytes for a request of `tenant`.
    pub(crate) fn ticket(self: &Arc<Self>, tenant: TenantId) -> Ticket {
        let known = self.tenants.get(&tenant).map(|share| Arc::clone(&share));
        let share = known.unwrap_or_else(|| Arc::clone(&self.tenants.entry(tenant).or_default()));
        Ticket {
            admission: Arc::clone(self),
            share,
            bytes: 0,
        }
    }

    /// Counts `bytes` more, and says how many all hold now, and this tenant.
    fn count(&self, share: &AtomicUsize, bytes: usize) -> (usize, usize) {
        let used = self
            .used
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        let held = share.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.show(used);
        (used, held)
    }

    fn add(&self, share: &AtomicUsize, bytes: usize) -> Result<(), Problem> {
        let (used, held) = self.count(share, bytes);
        let free = self.bound.checked_sub(used);
        if free.is_some_and(|free| held <= free) {
            return Ok(());
        }
        self.remove(share, bytes);
        Err(match free {
            Some(_) => Problem::new(
                Code::RateLimited,
                "this tenant has too many bytes of events in flight: send fewer requests at once",
            ),
            None => Problem::new(
                Code::Overloaded,
                "too many bytes of events are in flight: send again later",
            ),
        })
    }

    fn remove(&self, share: &AtomicUsize, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        share.fetch_sub(bytes, Ordering::Relaxed);
        self.show(before.saturating_sub(bytes));
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float; it is exact below 2^53 bytes"
    )]
    fn show(&self, used: usize) {
        self.gauge.set(used as f64);
    }
}

/// Bytes that a request holds; given back when it is dropped.
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    share: Arc<AtomicUsize>,
    bytes: usize,
}

impl Ticket {
    /// Takes `bytes` more, or refuses with 429 (this tenant has too much) or 503 (all together have).
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        self.admission.add(&self.share, bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes what is missing to `bytes` in all, which are in memory already: others are refused rather than these.
    pub(crate) fn cover(&mut self, bytes: usize) {
        let missing = bytes.saturating_sub(self.bytes);
        self.admission.count(&self.share, missing);
        self.bytes += missing;
    }

    /// A ticket of its own for `bytes`, for a part that lives longer or shorter.
    pub(crate) fn branch(&self, bytes: usize) -> Result<Self, Problem> {
        self.admission.add(&self.share, bytes)?;
        Ok(Self {
            admission: Arc::clone(&self.admission),
            share: Arc::clone(&self.share),
            bytes,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.remove(&self.share, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_takes_half_and_leaves_half() {
        let admission = Admission::new(1_000);
        let mut one = admission.ticket(TenantId(1));
        one.grow(500).unwrap();
        assert_eq!(one.grow(1).unwrap_err().code, Code::RateLimited);
        let mut other = admission.ticket(TenantId(2));
        other.grow(250).unwrap();
        assert_eq!(other.grow(1).unwrap_err().code, Code::RateLimited);
        let mut third = admission.ticket(TenantId(3));
        assert_eq!(third.grow(251).unwrap_err().code, Code::Overloaded);
        third.grow(125).unwrap();
    }

    #[test]
    fn what_is_dropped_is_free_again() {
        let admission = Admission::new(1_000);
        for _ in 0..100 {
            let mut ticket = admission.ticket(TenantId(1));
            ticket.grow(300).unwrap();
            let part = ticket.branch(200).unwrap();
            assert_eq!(ticket.branch(1).err().unwrap().retry_after_s, Some(1));
            drop(ticket);
            assert_eq!(admission.used.load(Ordering::Relaxed), 200);
            drop(part);
        }
        assert_eq!(admission.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_in_memory_already_is_counted_beyond_the_bound() {
        let admission = Admission::new(1_000);
        let mut ticket = admission.ticket(TenantId(1));
        ticket.grow(400).unwrap();
        ticket.cover(300);
        assert_eq!(admission.used.load(Ordering::Relaxed), 400);
        ticket.cover(2_000);
        let mut other = admission.ticket(TenantId(2));
        assert_eq!(other.grow(1).unwrap_err().code, Code::Overloaded);
        drop(ticket);
        other.grow(1).unwrap();
    }

    #[test]
    fn threads_never_exceed_the_bound() {
        let admission = Admission::new(10_000);
        let granted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for tenant in 0..4 {
                let (admission, granted) = (&admission, &granted);
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        let mut ticket = admission.ticket(TenantId(tenant));
                        for _ in 0..3 {
                            if ticket.grow(1_500).is_ok() {
                                assert!(granted.fetch_add(1_500, Ordering::SeqCst) < 10_000);
                            }
                        }
                        granted.fetch_sub(ticket.bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(admission.used.load(Ordering::Relaxed), 0);
    }
}
