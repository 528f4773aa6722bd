use std::sync::Arc;

use super::access::{Provision, bounding, provision, provision_unpaused};
use super::{EffectiveLimit, Level, Windows, next_change};
use crate::catalog::{Catalog, Customer, LimitPeriod, Override, Subscription};
use crate::identity::TenantId;
use crate::limits::CUSTOMER_LEVELS_MAX;
use crate::port::directory::Directory;
use crate::quantity::Quantity;
use crate::time::{CalendarUnit, TimeRange, Timestamp, Zone};

/// How much of one window may be used before grants are drawn on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The window.
    pub window: TimeRange,
    /// How much.
    pub limit: Quantity,
}

/// What plan, add-ons and override gave at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Beyond what grants were drawn on; `None`: on nothing.
    pub bound: Option<Bound>,
    /// Whether it covers all usage: an unlimited feature, or one whose limits only bound the speed.
    pub covers: bool,
    /// Until when this holds: at most the window's end.
    pub until: Timestamp,
}

/// What one level was given of a feature, from the first event to now and on.
pub trait Course {
    /// What plan, add-ons and override gave at an instant.
    fn allowance_at(&self, at: Timestamp) -> Allowance;

    /// The stretch around `at` for which a grant that recurs with `period` is given. Those of one period follow one
    /// another without gaps.
    fn recurrence(&self, period: LimitPeriod, at: Timestamp) -> TimeRange;
}

/// The course of a level as the directory has it: subscriptions and overrides with their histories.
#[derive(Debug, Clone)]
pub struct LevelCourse {
    catalog: Arc<Catalog>,
    feature: String,
    zone: Zone,
    own: Given,
    /// Whose periods count where it has no subscription of its own.
    inherited: Option<Arc<Subscription>>,
}

/// What one customer was given of a feature, and by whom where it had nothing of its own.
#[derive(Debug, Clone, PartialEq)]
struct Given {
    /// Newest first.
    subscriptions: Vec<Arc<Subscription>>,
    /// Each over the time in which it stood; these do not overlap.
    overrides: Vec<(TimeRange, Override)>,
    /// Its parents, each over the time in which it was one.
    above: Vec<(TimeRange, Self)>,
}

impl Given {
    fn new(
        directory: &dyn Directory,
        tenant: TenantId,
        customer: &Customer,
        feature: &str,
        levels: usize,
    ) -> Self {
        let standing = directory.overrides(tenant, &customer.key).into_iter();
        let standing = standing.map(|over| (over.time(), Override::clone(&over)));
        let former = customer.former_overrides.iter();
        let former = former.map(|former| (former.time(), former.said.clone()));
        let ours = |(_, over): &(TimeRange, Override)| over.entitlement.feature == feature;
        // The store refuses circles; a bound holds even so.
        let parents = customer.parents().filter(|_| levels > 1);
        let above = parents.filter_map(|(parent, time)| {
            let parent = directory.customer(tenant, parent)?;
            Some((time, Self::new(directory, tenant, &parent, feature, levels - 1)))
        });
        Self {
            subscriptions: directory.subscriptions(tenant, &customer.key),
            overrides: former.chain(standing).filter(ours).collect(),
            above: above.collect(),
        }
    }

    /// Whether it, or one above it, had a subscription or an override.
    fn has_any(&self, at: Timestamp) -> bool {
        let above = || self.above.iter().filter(|(time, _)| time.contains(at));
        self.subscriptions.iter().any(|one| one.span().contains(at))
            || self.overrides.iter().any(|(time, _)| time.contains(at))
            || above().any(|(_, parent)| parent.has_any(at))
    }

    /// The next instant after `at` at which any of it changes.
    fn change_after(&self, at: Timestamp) -> Timestamp {
        let subscriptions = self.subscriptions.iter().map(|one| next_change(one, at));
        let overrides = self.overrides.iter().flat_map(|(time, _)| [time.start, time.end]);
        let moves = self.above.iter().flat_map(|(time, _)| [time.start, time.end]);
        let above = self.above.iter().map(|(_, parent)| parent.change_after(at));
        let edges = subscriptions.chain(overrides).chain(moves).chain(above);
        edges
            .filter(|change| *change > at)
            .min()
            .unwrap_or(Timestamp::MAX)
    }
}

/// Equal ones give the same at every instant.
impl PartialEq for LevelCourse {
    fn eq(&self, other: &Self) -> bool {
        self.catalog.version == other.catalog.version
            && self.feature == other.feature
            && self.zone == other.zone
            && self.own == other.own
            && self.inherited == other.inherited
    }
}

impl LevelCourse {
    /// The course of `level` for a feature.
    pub fn new(directory: &dyn Directory, tenant: TenantId, level: &Level, feature: &str) -> Self {
        Self {
            catalog: directory.catalog(tenant),
            feature: feature.to_owned(),
            zone: level.zone.clone(),
            own: Given::new(directory, tenant, &level.customer, feature, CUSTOMER_LEVELS_MAX),
            inherited: level.subscription.clone(),
        }
    }

    fn windows_at(&self, at: Timestamp) -> Windows<'_> {
        Windows {
            zone: &self.zone,
            subscription: bounding(&self.own.subscriptions, at)
                .or(self.inherited.as_ref())
                .map(AsRef::as_ref),
        }
    }

    fn bound(&self, period: LimitPeriod, limit: Quantity, at: Timestamp) -> Bound {
        let window = self.windows_at(at).containing(period, at);
        Bound { window, limit }
    }

    fn provision_at(&self, at: Timestamp) -> Provision {
        let over = self.own.overrides.iter().find(|(time, _)| time.contains(at));
        let over = over.map(|(_, over)| over);
        match provision(&self.catalog, &self.own.subscriptions, over, &self.feature, at) {
            // What comes all the same is drawn as if it went on: what a pause ends or begins within a minute, no
            // grant feels.
            Provision::Paused => {
                provision_unpaused(&self.catalog, &self.own.subscriptions, &self.feature, at)
            }
            other => other,
        }
    }
}

impl Course for LevelCourse {
    /// The smallest of the limits that grants raised then. Where there was none, nothing was drawn: an unlimited feature, or
    /// one whose limits only bound the speed, needs no grants, what was revoked can use none, and what used the entitlement
    /// of a customer above drew there. Without one everything was, in the whole of time.
    fn allowance_at(&self, at: Timestamp) -> Allowance {
        let (bound, covers) = match self.provision_at(at) {
            Provision::Has { limits, .. } => {
                let raised = EffectiveLimit::raised_period(&limits);
                let bound = raised.map(|period| {
                    let same = limits.iter().filter(|limit| limit.period == period);
                    let least = same.map(|limit| limit.limit).min();
                    self.bound(period, least.unwrap_or(Quantity::MAX), at)
                });
                (bound, bound.is_none())
            }
            Provision::Revoked => (None, false),
            Provision::Nothing if self.own.has_any(at) => (None, false),
            Provision::Nothing | Provision::Lacks(_) | Provision::Paused => {
                (Some(self.bound(LimitPeriod::Ever, Quantity::ZERO, at)), false)
            }
        };
        let change = self.own.change_after(at);
        Allowance {
            bound,
            covers,
            until: bound.map_or(change, |bound| bound.window.end.min(change)),
        }
    }

    /// Periods of a subscription begin and end with it.
    fn recurrence(&self, period: LimitPeriod, at: Timestamp) -> TimeRange {
        let window = self.windows_at(at).containing(period, at);
        if CalendarUnit::of_limit(period).is_some() {
            return window;
        }
        let spans = self.own.subscriptions.iter().map(|one| one.span());
        let edges = spans.flat_map(|span| [span.start, span.end]);
        edges.fold(window, |window, edge| {
            if edge <= at {
                TimeRange::new(window.start.max(edge), window.end)
            } else {
                TimeRange::new(window.start, window.end.min(edge))
            }
        })
    }
}
