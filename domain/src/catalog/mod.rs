//! What is declared: meters, features, plans, add-ons; and who it is for: customers and subscriptions.
//! The same shapes in JSON (API) and TOML (catalog files).

mod customer;
mod feature;
mod plan;
mod subscription;
mod tenant;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use customer::{Customer, Grant, Override};
pub use feature::{Entitlement, Feature, FeatureKind, Limit, LimitMode, LimitPeriod};
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

    /// The current version of an add-on.
    pub fn current_add_on(&self, key: &str) -> Option<&Arc<AddOn>> {
        self.add_ons.get(key)?.last()
    }

    /// The current version of a plan.
    pub fn current_plan(&self, key: &str) -> Option<&Arc<Plan>> {
        self.plans.get(key)?.last()
    }
}

/// Whether `key` may name a meter, feature, plan, add-on or customer: 1 to 128 letters, digits, `_`, `-`, `.`, `:`.
pub fn is_key(key: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@' | '/' | '+');
    !key.is_empty() && key.len() <= crate::limits::KEY_CHARS_MAX && key.chars().all(allowed)
}
