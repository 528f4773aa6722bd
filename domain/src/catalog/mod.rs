//! What is declared: meters, features, plans, add-ons; and who it is for: customers and subscriptions.
//! The same shapes in JSON (API) and TOML (catalog files).

mod apply;
mod check;
mod customer;
mod document;
mod feature;
mod in_use;
mod overrides;
mod plan;
mod subscription;
mod tenant;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use apply::{CatalogPlan, apply_document, change_catalog};
pub use check::Findings;
pub use customer::{Customer, FormerParent, Grant};
pub use document::{
    CatalogDiff, CatalogDocument, CatalogItem, CatalogKind, ChangedItem, FieldChange, field_changes,
};
pub use feature::{Entitlement, Feature, FeatureKind, Limit, LimitMode, LimitPeriod};
pub use in_use::CatalogUse;
pub use overrides::{FormerOverride, Override};
pub use plan::{AddOn, Interval, Plan, PlanCredits};
pub use subscription::{AddOnUse, Pause, Phase, Subscription, SubscriptionStatus};
pub use tenant::{ApiKey, Tenant};

use crate::meter::Meter;

/// Everything that is declared for a tenant, at one version. Small; replaced as a whole.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Counts up with every change.
    pub version: u64,
    /// Meters by key.
    pub meters: BTreeMap<String, Arc<Meter>>,
    /// Features by key.
    pub features: BTreeMap<String, Arc<Feature>>,
    /// Plans by key: all versions, ascending from 1; the last is current.
    pub plans: BTreeMap<String, Vec<Arc<Plan>>>,
    /// Add-ons by key: all versions, ascending from 1; the last is current.
    pub add_ons: BTreeMap<String, Vec<Arc<AddOn>>>,
    /// Plans that were taken away, for what still refers to their versions.
    pub retired_plans: BTreeMap<String, Vec<Arc<Plan>>>,
    /// Add-ons that were taken away, for what still refers to their versions.
    pub retired_add_ons: BTreeMap<String, Vec<Arc<AddOn>>>,
}

impl Catalog {
    /// A plan at a version, retired or not.
    pub fn plan(&self, key: &str, version: u32) -> Option<&Arc<Plan>> {
        let versions = self.plans.get(key).or_else(|| self.retired_plans.get(key))?;
        versions.get(version.checked_sub(1)? as usize)
    }

    /// An add-on at a version, retired or not.
    pub fn add_on(&self, key: &str, version: u32) -> Option<&Arc<AddOn>> {
        let versions = self.add_ons.get(key).or_else(|| self.retired_add_ons.get(key))?;
        versions.get(version.checked_sub(1)? as usize)
    }

    /// Takes a plan away; its versions stay for what refers to them.
    pub fn retire_plan(&mut self, key: &str) {
        if let Some((key, versions)) = self.plans.remove_entry(key) {
            self.retired_plans.insert(key, versions);
        }
    }

    /// Takes an add-on away; its versions stay for what refers to them.
    pub fn retire_add_on(&mut self, key: &str) {
        if let Some((key, versions)) = self.add_ons.remove_entry(key) {
            self.retired_add_ons.insert(key, versions);
        }
    }

    /// Adds a version of a plan, which is no longer retired.
    pub fn add_plan(&mut self, plan: Plan) {
        let retired = self.retired_plans.remove(&plan.key);
        let versions = self.plans.entry(plan.key.clone()).or_default();
        versions.extend(retired.into_iter().flatten());
        versions.push(Arc::new(plan));
    }

    /// Adds a version of an add-on, which is no longer retired.
    pub fn add_add_on(&mut self, add_on: AddOn) {
        let retired = self.retired_add_ons.remove(&add_on.key);
        let versions = self.add_ons.entry(add_on.key.clone()).or_default();
        versions.extend(retired.into_iter().flatten());
        versions.push(Arc::new(add_on));
    }

    /// The current version of an add-on.
    pub fn current_add_on(&self, key: &str) -> Option<&Arc<AddOn>> {
        self.add_ons.get(key)?.last()
    }

    /// The current version of a plan.
    pub fn current_plan(&self, key: &str) -> Option<&Arc<Plan>> {
        self.plans.get(key)?.last()
    }
}

/// What [`is_key`] asks for, for a person.
pub(crate) const KEY_RULE: &str =
    "must be 1 to 128 letters, digits, or _ - . : @ / +, and not \".\" or \"..\"";

/// Whether `key` may name a meter, feature, plan, add-on or customer: 1 to 128 letters, digits, `_`, `-`, `.`, `:`, `@`,
/// `/`, `+`. `.` and `..` may not: clients take them out of a path before they send it, also where they are encoded.
pub(crate) fn is_key(key: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@' | '/' | '+');
    !matches!(key, "" | "." | "..") && key.len() <= crate::limits::KEY_CHARS_MAX && key.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::is_key;

    #[test]
    fn a_key_can_stand_in_a_path() {
        for key in ["a", "...", ".a", "a/../b", "A-z_0.9:@+"] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", ".", "..", "a b", "é", &"x".repeat(129)] {
            assert!(!is_key(key), "{key}");
        }
    }
}
