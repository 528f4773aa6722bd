//! What keeps items of a catalog from being taken away: who refers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{AddOn, Catalog, CatalogItem, CatalogKind, CatalogPlan, Plan};
use crate::problem::{Code, Problem};
use crate::rating::Price;
use crate::time::Timestamp;

/// What refers to a catalog from outside of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogUse {
    /// Versions of plans of subscriptions that are not over, or still have to be billed: of all that they ran on, run on and
    /// will run on.
    pub plans: BTreeSet<(String, u32)>,
    /// The same for add-ons.
    pub add_ons: BTreeSet<(String, u32)>,
    /// Features that overrides and grants name.
    pub features: BTreeSet<String>,
    /// Versions of plans by which subscriptions that are over were billed, and until when late usage of those is billed or
    /// listed, past or not.
    pub closed_plans: BTreeMap<(String, u32), Timestamp>,
    /// The same for add-ons.
    pub closed_add_ons: BTreeMap<(String, u32), Timestamp>,
    /// The tenant's present.
    pub now: Timestamp,
}

/// Who uses a plan or an add-on.
const SUBSCRIPTION: &str =
    "a subscription that runs on it, or ran on it and is not over or not billed to its end";

impl CatalogPlan {
    /// An error when something that was taken away, or became another kind of feature, is still referred to.
    pub(crate) fn check_use(&self, current: &Catalog, used: &CatalogUse) -> Result<(), Problem> {
        for item in &self.diff.removed {
            if let Some(by) = self.user_of(item, used) {
                return Err(in_use(item.kind, &item.key, &by));
            }
        }
        let is_meter = |item: &&CatalogItem| item.kind == CatalogKind::Meter;
        for item in self.diff.removed.iter().filter(is_meter) {
            self.check_closed(&item.key, used)?;
        }
        for item in self.diff.created.iter().filter(is_meter) {
            self.check_new(&item.key, used)?;
        }
        for item in self
            .diff
            .changed
            .iter()
            .filter(|item| item.kind == CatalogKind::Feature)
        {
            let kind = |catalog: &Catalog| catalog.features.get(&item.key).map(|feature| feature.kind);
            let user = || self.user_of_feature(&item.key, used);
            if kind(current) != kind(&self.after)
                && let Some(by) = user()
            {
                return Err(in_use(item.kind, &item.key, &by));
            }
        }
        Ok(())
    }

    fn user_of(&self, item: &CatalogItem, used: &CatalogUse) -> Option<String> {
        let key = &item.key;
        match item.kind {
            CatalogKind::Meter => self.user_of_meter(key, used),
            CatalogKind::Feature => self.user_of_feature(key, used),
            CatalogKind::Plan => used
                .plans
                .iter()
                .any(|(plan, _)| plan == key)
                .then(|| SUBSCRIPTION.to_owned()),
            CatalogKind::AddOn => used
                .add_ons
                .iter()
                .any(|(add_on, _)| add_on == key)
                .then(|| SUBSCRIPTION.to_owned()),
        }
    }

    /// An error while late usage that a meter counts is still billed or listed, though no subscription runs on its prices.
    fn check_closed(&self, meter: &str, used: &CatalogUse) -> Result<(), Problem> {
        match self.billed_by(meter, used).filter(|last| last.0 > used.now) {
            None => Ok(()),
            Some((until, by)) => Err(Problem::new(
                Code::InUse,
                format!(
                    "meter \"{meter}\" stays as it is until {until}: late usage is billed or listed until then for closed \
                     periods of subscriptions on {by}, which has a price on it"
                ),
            )),
        }
    }

    /// An error where periods were billed by a meter of that key which is gone: another in its place would price them anew
    /// while they are looked at, and their invoices would be verified by what it counts.
    fn check_new(&self, meter: &str, used: &CatalogUse) -> Result<(), Problem> {
        match self.billed_by(meter, used) {
            None => Ok(()),
            Some((_, by)) => Err(Problem::new(
                Code::InUse,
                format!(
                    "a meter \"{meter}\" was deleted that priced what subscriptions ran on which are over ({by}), and its key \
                     stays theirs: give the new meter another key"
                ),
            )),
        }
    }

    /// By what closed periods were billed that a meter counted, and until when late usage of them is billed or listed: the last
    /// of all.
    fn billed_by(&self, meter: &str, used: &CatalogUse) -> Option<(Timestamp, String)> {
        let plans = used.closed_plans.iter().filter(|((key, version), _)| {
            let plan = self.after.plan(key, *version);
            plan.is_some_and(|plan| plan_names(plan, meter))
        });
        let add_ons = used.closed_add_ons.iter().filter(|((key, version), _)| {
            let add_on = self.after.add_on(key, *version);
            add_on.is_some_and(|add_on| names(&add_on.prices, meter))
        });
        let plans = plans.map(|(item, until)| (*until, "plan", item));
        let add_ons = add_ons.map(|(item, until)| (*until, "add-on", item));
        let (until, kind, (key, version)) = plans.chain(add_ons).max()?;
        Some((until, format!("{kind} \"{key}\" version {version}")))
    }

    fn user_of_meter(&self, key: &str, used: &CatalogUse) -> Option<String> {
        let feature = self
            .after
            .features
            .values()
            .find(|feature| feature.meter.as_deref() == Some(key));
        let plan = || self.plans(used).find(|plan| plan_names(plan, key));
        let add_on = || self.add_ons(used).find(|add_on| names(&add_on.prices, key));
        feature
            .map(|feature| format!("feature \"{}\"", feature.key))
            .or_else(|| plan().map(|plan| format!("plan \"{}\" version {}", plan.key, plan.version)))
            .or_else(|| {
                add_on().map(|add_on| format!("add-on \"{}\" version {}", add_on.key, add_on.version))
            })
    }

    fn user_of_feature(&self, key: &str, used: &CatalogUse) -> Option<String> {
        let plan = || {
            self.plans(used)
                .find(|plan| plan.entitlements.iter().any(|e| e.feature == key))
        };
        let add_on = || {
            self.add_ons(used)
                .find(|add_on| add_on.entitlements.iter().any(|e| e.feature == key))
        };
        plan()
            .map(|plan| format!("plan \"{}\" version {}", plan.key, plan.version))
            .or_else(|| {
                add_on().map(|add_on| format!("add-on \"{}\" version {}", add_on.key, add_on.version))
            })
            .or_else(|| {
                used.features
                    .contains(key)
                    .then(|| "an override or grant of a customer".to_owned())
            })
    }

    /// Current versions of plans, and others that are in use.
    fn plans<'a>(&'a self, used: &'a CatalogUse) -> impl Iterator<Item = &'a Arc<Plan>> {
        let current = self.after.plans.values().filter_map(|all| all.last());
        current.chain(
            used.plans
                .iter()
                .filter_map(|(key, version)| self.after.plan(key, *version)),
        )
    }

    /// Current versions of add-ons, and others that are in use.
    fn add_ons<'a>(&'a self, used: &'a CatalogUse) -> impl Iterator<Item = &'a Arc<AddOn>> {
        let current = self.after.add_ons.values().filter_map(|all| all.last());
        current.chain(
            used.add_ons
                .iter()
                .filter_map(|(key, version)| self.after.add_on(key, *version)),
        )
    }
}

/// Whether one of these prices is for what the meter counts.
fn names(prices: &[Price], meter: &str) -> bool {
    prices.iter().any(|price| price.meter.as_deref() == Some(meter))
}

fn plan_names(plan: &Plan, meter: &str) -> bool {
    let mut others = plan.prices_by_currency.values();
    names(&plan.prices, meter) || others.any(|prices| names(prices, meter))
}

fn in_use(kind: CatalogKind, key: &str, by: &str) -> Problem {
    Problem::new(Code::InUse, format!("{} \"{key}\" is used by {by}", kind.name()))
}
