use std::sync::Arc;

use super::grants::grants_of;
use super::{EffectiveLimit, Reason, Windows, next_change};
use crate::catalog::{
    AddOnUse, Catalog, Customer, Entitlement, Feature, FeatureKind, Grant, LimitPeriod, Override,
    Subscription,
};
use crate::hierarchy::chain_at;
use crate::identity::TenantId;
use crate::port::directory::Directory;
use crate::time::{Timestamp, Zone};

/// What a customer may do with a feature, before anything is counted.
#[derive(Debug, Clone)]
pub enum Access {
    /// Nothing.
    Denied(Reason),
    /// Have it: the feature is boolean or static.
    Entitled {
        /// The value of a static feature.
        value: Option<String>,
    },
    /// Use it within limits.
    Metered(MeteredAccess),
}

/// The limits of a metered feature: every level must agree.
#[derive(Debug, Clone)]
pub struct MeteredAccess {
    /// The levels that count, from the customer upwards; the first is the one that the entitlement comes from.
    pub levels: Vec<Level>,
}

/// A customer whose limits count.
#[derive(Debug, Clone)]
pub struct Level {
    /// The customer.
    pub customer: Arc<Customer>,
    /// The zone of its calendar windows.
    pub zone: Zone,
    /// The subscription whose periods its billing windows are.
    pub subscription: Option<Arc<Subscription>>,
    /// Its limits without grants; none: unlimited.
    pub limits: Vec<EffectiveLimit>,
    /// Grants that raise its limits.
    pub grants: Vec<Arc<Grant>>,
    /// Whether there is nothing but grants.
    pub only_grants: bool,
}

/// What subscription and override of one customer give of one feature.
#[derive(Debug, Clone)]
pub enum Provision {
    /// The customer has no subscription that began and did not end, and no override.
    Nothing,
    /// Its subscription is paused, and no override stands: it has nothing until it goes on.
    Paused,
    /// Its subscription does not have the feature.
    Lacks(Arc<Subscription>),
    /// An override takes the feature away.
    Revoked,
    /// It has the feature.
    Has {
        /// The limits of a metered feature; none: unlimited.
        limits: Vec<EffectiveLimit>,
        /// The value of a static feature.
        value: Option<String>,
        /// The subscription that runs.
        subscription: Option<Arc<Subscription>>,
        /// Whether an override says so, in place of plan and add-ons.
        overridden: bool,
    },
}

/// What subscription and override of one customer give of `feature` at `at`.
///
/// An override replaces plan and add-ons. Of several running subscriptions, the newest that has the feature counts.
/// Limits of plan and add-ons with the same period and mode add up; an entitlement without limits makes it unlimited; of
/// a static feature's values, the last add-on's stands.
pub fn provision(
    catalog: &Catalog,
    subscriptions: &[Arc<Subscription>],
    overridden: Option<&Override>,
    feature: &str,
    at: Timestamp,
) -> Provision {
    let running = subscriptions.iter().filter(|s| s.span().contains(at));
    let entitling: Vec<_> = running.clone().filter(|s| s.entitles(at)).collect();
    if let Some(over) = overridden {
        if over.revoked {
            return Provision::Revoked;
        }
        return Provision::Has {
            limits: over.entitlement.limits.iter().map(EffectiveLimit::of).collect(),
            value: over.entitlement.value.clone(),
            subscription: entitling.first().map(|s| Arc::clone(s)),
            overridden: true,
        };
    }
    if let Some(given) = first_that_has(catalog, entitling.iter().copied(), feature, at) {
        return given;
    }
    match (entitling.first(), running.clone().next()) {
        (Some(subscription), _) => Provision::Lacks(Arc::clone(subscription)),
        (None, Some(_)) => Provision::Paused,
        (None, None) => Provision::Nothing,
    }
}

/// What running subscriptions would give if none were paused, and no override stood.
pub(super) fn provision_unpaused(
    catalog: &Catalog,
    subscriptions: &[Arc<Subscription>],
    feature: &str,
    at: Timestamp,
) -> Provision {
    let running = subscriptions.iter().filter(|s| s.span().contains(at));
    first_that_has(catalog, running, feature, at).unwrap_or(Provision::Paused)
}

fn first_that_has<'a>(
    catalog: &Catalog,
    mut subscriptions: impl Iterator<Item = &'a Arc<Subscription>>,
    feature: &str,
    at: Timestamp,
) -> Option<Provision> {
    subscriptions.find_map(|subscription| {
        let given = entitlements(catalog, subscription, feature, at);
        (!given.is_empty()).then(|| combine(&given, subscription))
    })
}

fn entitlements<'a>(
    catalog: &'a Catalog,
    subscription: &Subscription,
    feature: &str,
    at: Timestamp,
) -> Vec<&'a Entitlement> {
    let phase = subscription.phase_at(at);
    given_by(
        catalog,
        (&phase.plan, phase.plan_version),
        &phase.add_ons,
        feature,
    )
}

fn given_by<'a>(
    catalog: &'a Catalog,
    (plan, version): (&str, u32),
    add_ons: &[AddOnUse],
    feature: &str,
) -> Vec<&'a Entitlement> {
    let plan = catalog.plan(plan, version);
    let plan = plan.into_iter().flat_map(|plan| &plan.entitlements);
    let add_ons = add_ons
        .iter()
        .filter_map(|used| catalog.add_on(&used.key, used.version));
    let add_ons = add_ons.flat_map(|add_on| &add_on.entitlements);
    plan.chain(add_ons)
        .filter(|given| given.feature == feature)
        .collect()
}

/// The limits that a plan and add-ons, each at a version, would give of a feature together; none in it: unlimited.
/// `None` where they do not have the feature.
pub fn offered(
    catalog: &Catalog,
    plan: (&str, u32),
    add_ons: &[AddOnUse],
    feature: &str,
) -> Option<Vec<EffectiveLimit>> {
    let given = given_by(catalog, plan, add_ons, feature);
    (!given.is_empty()).then(|| together(&given))
}

fn together(given: &[&Entitlement]) -> Vec<EffectiveLimit> {
    let mut limits = Vec::new();
    if given.iter().all(|entitlement| !entitlement.limits.is_empty()) {
        for limit in given.iter().flat_map(|entitlement| &entitlement.limits) {
            EffectiveLimit::add_to(&mut limits, EffectiveLimit::of(limit));
        }
    }
    limits
}

fn combine(given: &[&Entitlement], subscription: &Arc<Subscription>) -> Provision {
    Provision::Has {
        limits: together(given),
        value: given
            .iter()
            .rev()
            .find_map(|entitlement| entitlement.value.clone()),
        subscription: Some(subscription.clone()),
        overridden: false,
    }
}

/// What `customer` may do with `feature` at `at`, and until when that holds while nothing in the directory changes.
///
/// * The entitlement comes from the customer itself if it has an override or a subscription that has begun and not
///   ended, else from its nearest ancestor that has one, else from grants alone: those of the topmost that has one which
///   counts, and of those below it. While that subscription is paused and
///   no override stands, the customer is suspended, and its grants wait.
/// * Every ancestor above with limits of its own on the feature must agree as well.
/// * A suspended or revoked ancestor refuses for all below it.
/// * A grant raises the limits of the customer that the entitlement comes from.
pub fn access(
    directory: &dyn Directory,
    tenant: TenantId,
    customer: Arc<Customer>,
    feature: &Feature,
    at: Timestamp,
) -> (Access, Timestamp) {
    let chain = chain_at(directory, tenant, customer, at);
    let (provisions, mut until) = provisions(directory, tenant, &chain, feature, at);
    let resolver = Resolver {
        directory,
        tenant,
        feature,
        at,
        chain: &chain,
    };
    (resolver.decide(&provisions, &mut until), until)
}

/// The same if plan and add-ons gave the feature, without a limit, to `given`: the customer itself or one above it.
pub fn access_if_given(
    directory: &dyn Directory,
    tenant: TenantId,
    customer: Arc<Customer>,
    feature: &Feature,
    at: Timestamp,
    given: &str,
) -> Access {
    let chain = chain_at(directory, tenant, customer, at);
    let (mut provisions, mut until) = provisions(directory, tenant, &chain, feature, at);
    for (customer, provision) in chain.iter().zip(&mut provisions) {
        if customer.key == given {
            *provision = Provision::Has {
                limits: Vec::new(),
                value: None,
                subscription: None,
                overridden: false,
            };
        }
    }
    let resolver = Resolver {
        directory,
        tenant,
        feature,
        at,
        chain: &chain,
    };
    resolver.decide(&provisions, &mut until)
}

/// What each of the chain has of a feature, and until when their subscriptions leave it so.
fn provisions(
    directory: &dyn Directory,
    tenant: TenantId,
    chain: &[Arc<Customer>],
    feature: &Feature,
    at: Timestamp,
) -> (Vec<Provision>, Timestamp) {
    let catalog = directory.catalog(tenant);
    let mut until = Timestamp::MAX;
    let mut provisions = Vec::with_capacity(chain.len());
    for customer in chain {
        let subscriptions = directory.subscriptions(tenant, &customer.key);
        let change = subscriptions.iter().map(|s| next_change(s, at)).min();
        until = until.min(change.unwrap_or(Timestamp::MAX));
        let overrides = directory.overrides(tenant, &customer.key);
        let over = overrides
            .iter()
            .find(|over| over.entitlement.feature == feature.key);
        provisions.push(provision(
            &catalog,
            &subscriptions,
            over.map(AsRef::as_ref),
            &feature.key,
            at,
        ));
    }
    (provisions, until)
}

struct Resolver<'a> {
    directory: &'a dyn Directory,
    tenant: TenantId,
    feature: &'a Feature,
    at: Timestamp,
    chain: &'a [Arc<Customer>],
}

impl Resolver<'_> {
    fn decide(&self, provisions: &[Provision], until: &mut Timestamp) -> Access {
        if self.chain.iter().any(|customer| customer.suspended) {
            return Access::Denied(Reason::Suspended);
        }
        if provisions
            .iter()
            .any(|provision| matches!(provision, Provision::Revoked))
        {
            return Access::Denied(Reason::NotEntitled);
        }
        let metered = self.feature.kind == FeatureKind::Metered;
        let provider = provisions.iter().position(|p| !matches!(p, Provision::Nothing));
        match provider.map(|at| (at, &provisions[at])) {
            Some((_, Provision::Paused)) => Access::Denied(Reason::Suspended),
            Some((_, Provision::Has { value, .. })) if !metered => Access::Entitled { value: value.clone() },
            Some((at, Provision::Has { .. })) => self.metered(at, provisions, until),
            Some((at, _)) => self.granted(at, provisions, until, Reason::NotEntitled),
            None => match self.topmost_holder(until) {
                Some(holder) => self.granted(holder, provisions, until, Reason::NoSubscription),
                None => Access::Denied(Reason::NoSubscription),
            },
        }
    }

    /// Where nobody has anything but grants: the topmost customer that has one which counts now, for what is used below it is
    /// drawn once.
    fn topmost_holder(&self, until: &mut Timestamp) -> Option<usize> {
        let mut holds = |customer: &Arc<Customer>| self.any_counts(&self.grants(customer), until);
        let holding: Vec<_> = self.chain.iter().map(&mut holds).collect();
        holding.iter().rposition(|holds| *holds)
    }

    /// Whether any of the grants counts now, and until when that stays so.
    fn any_counts(&self, grants: &[Arc<Grant>], until: &mut Timestamp) -> bool {
        let times = grants.iter().map(|grant| grant.active_time());
        let edges = times.clone().flat_map(|time| [time.start, time.end]);
        let next = edges.filter(|edge| *edge > self.at).min();
        *until = (*until).min(next.unwrap_or(Timestamp::MAX));
        times.into_iter().any(|time| time.contains(self.at))
    }

    /// The entitlement of a customer that has nothing but grants, if it has any.
    fn granted(&self, at: usize, provisions: &[Provision], until: &mut Timestamp, refusal: Reason) -> Access {
        let counts = self.any_counts(&self.pool_grants(&self.chain[at]), until);
        if self.feature.kind == FeatureKind::Metered && counts {
            self.metered(at, provisions, until)
        } else {
            Access::Denied(refusal)
        }
    }

    fn metered(&self, provider: usize, provisions: &[Provision], until: &mut Timestamp) -> Access {
        let mut levels = Vec::new();
        for (at, provision) in provisions.iter().enumerate().skip(provider) {
            let customer = &self.chain[at];
            let (limits, only_grants) = match provision {
                Provision::Has { limits, .. } if at == provider || !limits.is_empty() => {
                    (limits.clone(), false)
                }
                _ if at == provider => (Vec::new(), true),
                _ => continue,
            };
            let mut level = Level {
                customer: customer.clone(),
                zone: self.zone(customer),
                subscription: self.billing_subscription(at, until),
                limits,
                grants: Vec::new(),
                only_grants,
            };
            if only_grants || level.allowance_period().is_some() {
                level.grants = self.pool_grants(customer);
            }
            levels.push(level);
        }
        Access::Metered(MeteredAccess { levels })
    }

    fn zone(&self, customer: &Customer) -> Zone {
        zone_of(self.directory, self.tenant, customer)
    }

    /// The nearest subscription that runs, from level `at` upwards.
    fn billing_subscription(&self, at: usize, until: &mut Timestamp) -> Option<Arc<Subscription>> {
        self.chain[at..].iter().find_map(|customer| {
            let subscriptions = self.directory.subscriptions(self.tenant, &customer.key);
            let found = bounding(&subscriptions, self.at).cloned();
            if let Some(subscription) = &found {
                *until = (*until).min(next_change(subscription, self.at));
            }
            found
        })
    }

    fn grants(&self, customer: &Customer) -> Vec<Arc<Grant>> {
        grants_of(self.directory, self.tenant, customer, &self.feature.key)
    }

    /// The grants of a customer and of those descendants that use its entitlement. Found from those that have grants, who
    /// are few, and not by a walk over all that are below.
    fn pool_grants(&self, customer: &Customer) -> Vec<Arc<Grant>> {
        let mut grants = self.grants(customer);
        if !self.directory.is_parent(self.tenant, &customer.key) {
            return grants;
        }
        let catalog = self.directory.catalog(self.tenant);
        for holder in self.directory.grant_holders(self.tenant, &self.feature.key) {
            let chain = chain_at(self.directory, self.tenant, holder.clone(), self.at);
            let Some(depth) = chain.iter().position(|above| above.key == customer.key) else {
                continue;
            };
            let shares = |below: &Arc<Customer>| self.has_nothing_of_its_own(&catalog, &below.key);
            if depth > 0 && chain[..depth].iter().all(shares) {
                grants.extend(self.grants(&holder));
            }
        }
        grants
    }

    /// Whether neither plan, add-on nor override gives the customer itself anything of the feature.
    fn has_nothing_of_its_own(&self, catalog: &Catalog, customer: &str) -> bool {
        let subscriptions = self.directory.subscriptions(self.tenant, customer);
        let overrides = self.directory.overrides(self.tenant, customer);
        let over = overrides
            .iter()
            .find(|over| over.entitlement.feature == self.feature.key);
        let own = provision(
            catalog,
            &subscriptions,
            over.map(AsRef::as_ref),
            &self.feature.key,
            self.at,
        );
        matches!(own, Provision::Nothing)
    }
}

/// The subscription whose periods count at `at`: one that entitles, else one that is paused, for a pause moves no
/// boundary.
pub(super) fn bounding(subscriptions: &[Arc<Subscription>], at: Timestamp) -> Option<&Arc<Subscription>> {
    let running = || subscriptions.iter().filter(|s| s.span().contains(at));
    running().find(|s| s.entitles(at)).or_else(|| running().next())
}

/// The zone of a customer's calendar windows: its own, else the tenant's, else UTC.
pub fn zone_of(directory: &dyn Directory, tenant: TenantId, customer: &Customer) -> Zone {
    let own = customer
        .timezone
        .as_deref()
        .and_then(|name| Zone::parse(name).ok());
    let tenants = || Zone::parse(&directory.tenant(tenant)?.timezone).ok();
    own.or_else(tenants).unwrap_or(Zone::UTC)
}

impl Level {
    /// Its windows.
    pub fn windows(&self) -> Windows<'_> {
        Windows {
            zone: &self.zone,
            subscription: self.subscription.as_deref(),
        }
    }

    /// The period of the limits that grants raise; `ever` where there is nothing but grants.
    pub fn allowance_period(&self) -> Option<LimitPeriod> {
        if self.only_grants {
            return Some(LimitPeriod::Ever);
        }
        EffectiveLimit::raised_period(&self.limits)
    }
}
