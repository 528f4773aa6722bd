use std::sync::Arc;

use super::access::{Provision, bounding, provision, provision_unpaused};
use super::{EffectiveLimit, Level, Windows, next_change};
use crate::catalog::{Catalog, LimitPeriod, Override, Subscription};
use crate::identity::TenantId;
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
    /// Its customer's own, newest first.
    subscriptions: Vec<Arc<Subscription>>,
    /// Whose periods count where it has none of its own.
    inherited: Option<Arc<Subscription>>,
    /// The overrides of the feature, each over the time in which it stood; these do not overlap.
    overrides: Vec<(TimeRange, Override)>,
}

/// Equal ones give the same at every instant.
impl PartialEq for LevelCourse {
    fn eq(&self, other: &Self) -> bool {
        self.catalog.version == other.catalog.version
            && self.feature == other.feature
            && self.zone == other.zone
            && self.subscriptions == other.subscriptions
            && self.inherited == other.inherited
            && self.overrides == other.overrides
    }
}

impl LevelCourse {
    /// The course of `level` for a feature.
    pub fn new(directory: &dyn Directory, tenant: TenantId, level: &Level, feature: &str) -> Self {
        let customer = &level.customer;
        let standing = directory.overrides(tenant, &customer.key).into_iter();
        let standing = standing
            .filter(|over| over.entitlement.feature == feature)
            .map(|over| (TimeRange::ALL, Override::clone(&over)));
        Self {
            catalog: directory.catalog(tenant),
            feature: feature.to_owned(),
            zone: level.zone.clone(),
            subscriptions: directory.subscriptions(tenant, &customer.key),
            inherited: level.subscription.clone(),
            overrides: standing.collect(),
        }
    }

    fn windows_at(&self, at: Timestamp) -> Windows<'_> {
        Windows {
            zone: &self.zone,
            subscription: bounding(&self.subscriptions, at)
                .or(self.inherited.as_ref())
                .map(AsRef::as_ref),
        }
    }

    /// The next instant after `at` at which what it gives may be something else.
    fn change_after(&self, at: Timestamp) -> Timestamp {
        let subscriptions = self.subscriptions.iter().map(|one| next_change(one, at));
        let overrides = self.overrides.iter().flat_map(|(time, _)| [time.start, time.end]);
        let next = subscriptions.chain(overrides).filter(|change| *change > at).min();
        next.unwrap_or(Timestamp::MAX)
    }

    fn provision_at(&self, at: Timestamp) -> Provision {
        let over = self.overrides.iter().find(|(time, _)| time.contains(at));
        let over = over.map(|(_, over)| over);
        match provision(&self.catalog, &self.subscriptions, over, &self.feature, at) {
            // What comes all the same is drawn as if it went on: what a pause ends or begins within a minute, no
            // grant feels.
            Provision::Paused => provision_unpaused(&self.catalog, &self.subscriptions, &self.feature, at),
            other => other,
        }
    }
}

impl Course for LevelCourse {
    /// The smallest of the limits that grants raised then. Where there was none, nothing was drawn: an unlimited feature, or
    /// one whose limits only bound the speed, needs no grants, and what was revoked can use none. Without an entitlement
    /// everything was, in the whole of time.
    fn allowance_at(&self, at: Timestamp) -> Allowance {
        let (period, limit) = match self.provision_at(at) {
            Provision::Has { limits, .. } => match EffectiveLimit::raised_period(&limits) {
                Some(period) => {
                    let same = limits.iter().filter(|limit| limit.period == period);
                    let least = same.map(|limit| limit.limit).min();
                    (Some(period), least.unwrap_or(Quantity::MAX))
                }
                None => (None, Quantity::MAX),
            },
            Provision::Revoked => (None, Quantity::MAX),
            Provision::Nothing | Provision::Lacks(_) | Provision::Paused => {
                (Some(LimitPeriod::Ever), Quantity::ZERO)
            }
        };
        let change = self.change_after(at);
        let window = period.map(|period| self.windows_at(at).containing(period, at));
        Allowance {
            bound: window.map(|window| Bound { window, limit }),
            until: window.map_or(change, |window| window.end.min(change)),
        }
    }

    /// Periods of a subscription begin and end with it.
    fn recurrence(&self, period: LimitPeriod, at: Timestamp) -> TimeRange {
        let window = self.windows_at(at).containing(period, at);
        if CalendarUnit::of_limit(period).is_some() {
            return window;
        }
        let spans = self.subscriptions.iter().map(|one| one.span());
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
