use std::sync::Arc;

use super::lineage::Lineage;
use super::{EffectiveLimit, Provision};
use crate::catalog::{Catalog, LimitPeriod};
use crate::quantity::Quantity;
use crate::time::{CalendarUnit, TimeRange, Timestamp};

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
    /// Whether the window ends before its time, for something changes there.
    pub cut: bool,
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

/// The course of a level as the directory has it: subscriptions and overrides with their histories, its customer's own and
/// those of the customers above.
#[derive(Debug, Clone)]
pub struct LevelCourse {
    catalog: Arc<Catalog>,
    feature: String,
    lineage: Lineage,
}

/// Equal ones give the same at every instant.
impl PartialEq for LevelCourse {
    fn eq(&self, other: &Self) -> bool {
        self.catalog.version == other.catalog.version
            && self.feature == other.feature
            && self.lineage == other.lineage
    }
}

impl LevelCourse {
    pub(super) fn new(catalog: Arc<Catalog>, feature: &str, lineage: Lineage) -> Self {
        Self {
            catalog,
            feature: feature.to_owned(),
            lineage,
        }
    }

    /// The key of the customer whose course it is.
    pub fn customer(&self) -> &str {
        self.lineage.customer()
    }
}

/// The smallest of the limits that grants raised; `None` where they raised none.
fn raised(limits: &[EffectiveLimit]) -> Option<(LimitPeriod, Quantity)> {
    let period = EffectiveLimit::raised_period(limits)?;
    let same = limits.iter().filter(|limit| limit.period == period);
    let least = same.map(|limit| limit.limit).min();
    Some((period, least.unwrap_or(Quantity::MAX)))
}

impl Course for LevelCourse {
    /// The smallest of the limits that grants raised then. Where there was none, nothing was drawn: an unlimited feature, or
    /// one whose limits only bound the speed, needs no grants, and what was revoked can use none. Without an entitlement
    /// everything was, in the whole of time. While it came from a customer above, its limits count.
    fn allowance_at(&self, at: Timestamp) -> Allowance {
        let (provision, windows) = self.lineage.provision_at(&self.catalog, &self.feature, at);
        let (limit, covers) = match provision {
            Provision::Has { limits, .. } => {
                let raised = raised(&limits);
                (raised, raised.is_none())
            }
            Provision::Revoked => (None, false),
            Provision::Nothing | Provision::Lacks(_) | Provision::Paused => {
                (Some((LimitPeriod::Ever, Quantity::ZERO)), false)
            }
        };
        let bound = limit.map(|(period, limit)| Bound {
            window: windows.containing(period, at),
            limit,
        });
        let change = self.lineage.change_after(at);
        Allowance {
            bound,
            covers,
            cut: limit.is_some_and(|(period, _)| windows.is_cut(period, at)),
            until: bound.map_or(change, |bound| bound.window.end.min(change)),
        }
    }

    /// Periods of a subscription begin and end with it.
    fn recurrence(&self, period: LimitPeriod, at: Timestamp) -> TimeRange {
        let window = self.lineage.windows_at(at).containing(period, at);
        if CalendarUnit::of_limit(period).is_some() {
            return window;
        }
        let turn = self.lineage.turn(at);
        TimeRange::new(window.start.max(turn.start), window.end.min(turn.end))
    }
}
