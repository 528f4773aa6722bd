use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwapOption;
use turnpike_domain::identity::TenantId;
use turnpike_domain::problem::Problem;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::{Decision, Figures, Reason, decide, granted};
use turnpike_domain::time::Timestamp;

use crate::Enforcer;
use crate::entry::{Entry, Resolved, Verdict};
use crate::hold::{Hold, HoldDraft};
use crate::row::{Key, Moment};

/// A decision in process: plain numbers, nothing allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Why; says whether it was granted.
    pub reason: Reason,
    /// The limit that describes it, unless the feature is not metered or access was refused altogether.
    pub figures: Option<Figures>,
    /// When the figures stood so.
    pub as_of: Timestamp,
}

impl Decided {
    /// By the only limit that there is.
    #[inline]
    fn by_limit(figures: Figures, amount: Quantity, now: Timestamp) -> Self {
        Self {
            reason: figures.reason(amount.parts()),
            figures: Some(figures),
            as_of: now,
        }
    }

    /// Whether it was granted.
    pub const fn allowed(&self) -> bool {
        self.reason.allows()
    }
}

/// What quota is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taking {
    /// An event that is written at once.
    Event,
    /// A reservation, whose event comes with its commit.
    Reservation,
}

/// What became of an attempt to take.
pub(crate) enum Taken {
    /// Taken; the decision as it stood right behind.
    Granted(Arc<Hold>, Decision),
    /// Nothing was taken; all limits as they stood.
    Refused(Decision, Vec<Figures>),
    /// What was compiled is out of date: resolve again.
    Stale,
}

impl Enforcer {
    /// Decides whether `amount` more would be granted at `now` (the tenant's time), from memory and without a trace.
    /// `None` when something must be read first: ask [`Enforcer::handle`] once, then again.
    pub fn decide(
        &self,
        tenant: TenantId,
        customer: &str,
        feature: &str,
        amount: Quantity,
        now: Timestamp,
    ) -> Option<Decided> {
        let moment = Moment {
            generation: self.generations.of(tenant),
            minute: minute_of(self.coarse_s.load(Ordering::Relaxed)),
            now,
        };
        if let Some(key) = &Key::new(tenant, customer, feature)
            && let Some(figures) = self.rows.figures(key, moment)
        {
            return Some(Decided::by_limit(figures, amount, now));
        }
        self.table
            .with(tenant, customer, feature, |entry| {
                self.decide_entry(entry, amount, now)
            })
            .flatten()
    }

    #[cold]
    fn decide_entry(&self, entry: &Arc<Entry>, amount: Quantity, now: Timestamp) -> Option<Decided> {
        let now_s = self.coarse_s.load(Ordering::Relaxed);
        entry.see(now_s);
        let resolved = entry.resolved.load();
        match resolved.as_deref() {
            Some(resolved) if self.stands(entry, resolved, now) => {
                self.rows.keep(entry, minute_of(now_s));
                Some(resolved.decide(amount, now))
            }
            _ => {
                // A window ended, or something changed: compiled anew here and now if that takes no reading.
                self.connected().ok()?;
                let resolved = self.resolve_at_once(entry, now).ok().flatten()?;
                self.rows.keep(entry, minute_of(now_s));
                Some(resolved.decide(amount, now))
            }
        }
    }

    /// A handle for many decisions on one customer's feature, with everything read that they need. 404 for an unknown
    /// customer or feature.
    pub async fn handle(
        self: &Arc<Self>,
        tenant: TenantId,
        customer: &str,
        feature: &str,
    ) -> Result<Handle, Problem> {
        let entry = self.entry(tenant, customer, feature)?;
        self.resolve(&entry, self.parts.clock.now(tenant)).await?;
        Ok(Handle {
            enforcer: self.clone(),
            entry: entry.clone(),
            cache: arc_swap::cache::Cache::new(EntryRef(entry)),
        })
    }

    /// Takes `amount` from every slot, or from none; and counts it in every other live slot that it lies in, of the customer
    /// and of those above it, for limits that come into force later.
    pub(crate) fn take(
        &self,
        entry: &Entry,
        resolved: &Resolved,
        amount: Quantity,
        time: Timestamp,
        what: Taking,
    ) -> Taken {
        let Verdict::Metered(metering) = &resolved.verdict else {
            return Taken::Stale;
        };
        let epoch = self.parts.directory.epoch();
        let hold = self.book.enter(HoldDraft {
            tenant: entry.tenant,
            feature: entry.feature.clone(),
            meter: metering.meter,
            subject: metering.subject.clone(),
            reserved_by: (what == Taking::Reservation).then(|| entry.customer.clone()),
            time,
            amount: amount.parts(),
        });
        // Looked at behind the entering: a slot made under a newer directory counts this hold, or is seen here.
        if !self.stands(entry, resolved, time) {
            return Taken::Stale;
        }
        for (at, cell) in resolved.cells.iter().enumerate() {
            if let Err(total) = hold.take(&cell.slot, cell.ceiling) {
                hold.give_back();
                let figures = resolved.figures_with(at, total);
                return match decide(amount.parts(), figures.iter().copied()) {
                    Some(decision) => Taken::Refused(decision, figures),
                    None => Taken::Stale,
                };
            }
        }
        self.attach_to_live_slots(&hold);
        // Had the directory changed meanwhile, it might be counted for others than those that it is for, or have come to a
        // slot behind somebody who took from it under another plan: given back, and decided anew.
        if self.parts.directory.epoch() != epoch || resolved.generation != self.generations.of(entry.tenant) {
            return Taken::Stale;
        }
        match granted(resolved.figures()) {
            Some(decision) => Taken::Granted(hold, decision),
            None => Taken::Stale,
        }
    }
}

impl Resolved {
    /// Decides on `amount` without a trace.
    #[expect(
        clippy::inline_always,
        reason = "else its answer of 128 bytes is copied once more"
    )]
    #[inline(always)]
    pub(crate) fn decide(&self, amount: Quantity, now: Timestamp) -> Decided {
        if let (Verdict::Metered(_), [limit]) = (&self.verdict, &*self.limits) {
            let counts = self.cells[limit.cell].slot.counts();
            let figures = limit.figures(counts.total, counts.reserved);
            return Decided::by_limit(figures, amount, now);
        }
        self.decide_otherwise(amount, now)
    }

    /// The same where there is not one limit alone.
    fn decide_otherwise(&self, amount: Quantity, now: Timestamp) -> Decided {
        let plain = |reason| Decided {
            reason,
            figures: None,
            as_of: now,
        };
        match &self.verdict {
            Verdict::Denied(reason) => plain(*reason),
            Verdict::Entitled(_) => plain(Reason::Entitled),
            Verdict::Metered(_) => match decide(amount.parts(), self.figures()) {
                Some(decision) => Decided {
                    reason: decision.reason,
                    figures: Some(decision.figures),
                    as_of: now,
                },
                None => plain(Reason::Unlimited),
            },
        }
    }

    /// All limits as they stand, with the total that was seen against the cell that refused.
    fn figures_with(&self, refused: usize, total: i128) -> Vec<Figures> {
        let limits = self.limits.iter().zip(self.figures());
        limits
            .map(|(limit, figures)| {
                let total = if limit.cell == refused {
                    total
                } else {
                    figures.total
                };
                Figures { total, ..figures }
            })
            .collect()
    }
}

/// The lowest byte of the coarse minute.
fn minute_of(coarse_s: u32) -> u8 {
    let [minute, ..] = (coarse_s / 60).to_le_bytes();
    minute
}

struct EntryRef(Arc<Entry>);

impl Deref for EntryRef {
    type Target = ArcSwapOption<Resolved>;

    fn deref(&self) -> &ArcSwapOption<Resolved> {
        &self.0.resolved
    }
}

/// One customer's feature, kept by a caller that decides on it often.
pub struct Handle {
    enforcer: Arc<Enforcer>,
    entry: Arc<Entry>,
    cache: arc_swap::cache::Cache<EntryRef, Option<Arc<Resolved>>>,
}

impl Handle {
    /// As [`Enforcer::decide`].
    pub fn decide(&mut self, amount: Quantity, now: Timestamp) -> Option<Decided> {
        match self.cache.load().as_deref() {
            Some(resolved) if self.enforcer.stands(&self.entry, resolved, now) => {
                self.entry.see(self.enforcer.coarse_s.load(Ordering::Relaxed));
                Some(resolved.decide(amount, now))
            }
            _ => self.enforcer.decide_entry(&self.entry, amount, now),
        }
    }
}
