use std::sync::Arc;

use arc_swap::ArcSwapOption;
use turnpike_domain::catalog::{AddOnUse, Catalog, Customer, Feature, FeatureKind, Phase};
use turnpike_domain::hierarchy::chain_at;
use turnpike_domain::meter::Meter;
use turnpike_domain::problem::Problem;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::{
    Access, EffectiveLimit, Provision, Reason, Windows, access_if_given, offered, provision, zone_of,
};
use turnpike_domain::time::{TimeRange, Timestamp};

use crate::Enforcer;
use crate::entry::{Entry, Pool, Resolved};
use crate::outcome::Outcome;
use crate::resolve::meter_of;
use crate::slot::Slot;
use crate::waiting::{Refused, granted_at_us};

/// A plan or an add-on that would have allowed what was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UpgradeOption {
    /// `plan` or `add_on`.
    pub kind: &'static str,
    /// Its key.
    pub key: String,
    /// Its current version.
    pub version: u32,
    /// Whose subscription it would be for: the customer, or the ancestor whose limit refused.
    pub customer: Arc<str>,
}

/// What a refusal may name: found when first asked for, and anew when a window of it ends.
#[derive(Default)]
pub(crate) struct Options {
    found: ArcSwapOption<Candidates>,
    /// One finds, and who comes meanwhile waits for it.
    finding: tokio::sync::Mutex<()>,
}

impl Options {
    fn at(&self, at: Timestamp) -> Option<Arc<Candidates>> {
        self.found.load_full().filter(|found| found.valid.contains(at))
    }
}

/// What could be had instead.
struct Candidates {
    /// While the windows last that they were found for.
    valid: TimeRange,
    by_customer: Vec<CandidatesOf>,
}

/// What one customer could have instead, itself or for those below it.
struct CandidatesOf {
    customer: Arc<str>,
    /// Whose limits count beside its own then.
    others: Vec<Arc<Entry>>,
    candidates: Vec<Candidate>,
}

/// A plan or an add-on, with the slots that decide whether it would help.
struct Candidate {
    option: UpgradeOption,
    limits: Vec<CandidateLimit>,
}

struct CandidateLimit {
    slot: Arc<Slot>,
    limit: EffectiveLimit,
    /// Whether grants raise it.
    raised: bool,
}

impl CandidateLimit {
    /// Whether it would admit `amount` more from now on, raised by the grants of `pool`.
    fn admits(&self, amount: Quantity, resolved: &Resolved, pool: Option<&Pool>) -> bool {
        let Some(ceiling) = self.limit.ceiling else {
            return true;
        };
        let total = self.slot.total();
        let extra = pool.filter(|_| self.raised).map_or(0, |pool| {
            let since = Quantity::from_parts(total).unwrap_or(Quantity::MAX);
            let extra = resolved.extra_of(pool, self.slot.range().start, since, ceiling);
            extra.parts()
        });
        total
            .checked_add(amount.parts())
            .is_some_and(|after| after <= ceiling.parts().saturating_add(extra))
    }
}

/// What a candidate would give, before its slots are at hand.
struct Offer {
    option: UpgradeOption,
    limits: Vec<(EffectiveLimit, TimeRange)>,
}

impl Enforcer {
    /// Notes on a refusal whether waiting helps, and adds the plans and add-ons that would allow `amount`, together with what is left of the grants that
    /// count now. They are found once for what was compiled, and anew when a window of theirs ends; between, a
    /// refusal only compares numbers.
    pub(crate) async fn with_options(
        &self,
        entry: &Arc<Entry>,
        resolved: &Arc<Resolved>,
        amount: Quantity,
        mut outcome: Outcome,
    ) -> Result<Outcome, Problem> {
        let helps = matches!(
            outcome.reason,
            Reason::LimitReached | Reason::NotEntitled | Reason::NoSubscription
        );
        let refused = Refused {
            whole: amount,
            more: amount,
        };
        outcome.granted_at_us = granted_at_us(resolved, &outcome, refused);
        if !helps {
            return Ok(outcome);
        }
        let at = outcome.as_of;
        let found = match resolved.options.at(at) {
            Some(found) => found,
            None => self.find_candidates(entry, resolved, at).await?,
        };
        for of in &found.by_customer {
            if !self.others_admit(entry, resolved, of, amount, at).await? {
                continue;
            }
            let pool = resolved.pools.iter().find(|pool| pool.customer == of.customer);
            let fits = |limit: &CandidateLimit| limit.admits(amount, resolved, pool);
            let fit = of.candidates.iter().filter(|one| one.limits.iter().all(fits));
            outcome.upgrade_options.extend(fit.map(|one| one.option.clone()));
        }
        Ok(outcome)
    }

    /// Whether all admit `amount` whose limits count beside those of a candidate. Where one refuses, nothing helps.
    async fn others_admit(
        &self,
        entry: &Entry,
        resolved: &Arc<Resolved>,
        of: &CandidatesOf,
        amount: Quantity,
        at: Timestamp,
    ) -> Result<bool, Problem> {
        for other in &of.others {
            let standing = if other.customer == entry.customer {
                Arc::clone(resolved)
            } else {
                self.resolve(other, at).await?
            };
            if !standing.admits_for(&other.customer, amount) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn find_candidates(
        &self,
        entry: &Arc<Entry>,
        resolved: &Resolved,
        at: Timestamp,
    ) -> Result<Arc<Candidates>, Problem> {
        let _finding = resolved.options.finding.lock().await;
        if let Some(found) = resolved.options.at(at) {
            return Ok(found);
        }
        let found = Arc::new(self.candidates(entry, at).await?);
        resolved.options.found.store(Some(Arc::clone(&found)));
        Ok(found)
    }

    async fn candidates(&self, entry: &Arc<Entry>, at: Timestamp) -> Result<Candidates, Problem> {
        let directory = &*self.parts.directory;
        let catalog = directory.catalog(entry.tenant);
        let mut found = Candidates {
            valid: TimeRange::ALL,
            by_customer: Vec::new(),
        };
        let Some(feature) = catalog.features.get(&*entry.feature) else {
            return Ok(found);
        };
        let meter = match feature.kind {
            FeatureKind::Metered => Some(meter_of(&catalog, feature)?),
            FeatureKind::Boolean | FeatureKind::Static => None,
        };
        let Some(asking) = directory.customer(entry.tenant, &entry.customer) else {
            return Ok(found);
        };
        for customer in chain_at(directory, entry.tenant, Arc::clone(&asking), at) {
            let offers = self.offers(entry, &catalog, &customer, at);
            let others = self.others(entry, feature, &asking, &customer, at)?;
            let (Some(others), false) = (others, offers.is_empty()) else {
                continue;
            };
            let mut candidates = Vec::new();
            for offer in offers {
                let windows = offer.limits.iter().map(|(_, range)| range);
                let valid = windows.fold(found.valid, |valid, range| {
                    valid.intersect(range).unwrap_or(valid)
                });
                found.valid = valid;
                candidates.push(self.candidate(entry, &customer, meter, offer, at).await?);
            }
            found.by_customer.push(CandidatesOf {
                customer: customer.key.as_str().into(),
                others,
                candidates,
            });
        }
        Ok(found)
    }

    /// Whose limits would count beside those of `given` if it had the feature by a plan; `None` where the call would be
    /// refused whatever that plan says.
    fn others(
        &self,
        entry: &Arc<Entry>,
        feature: &Feature,
        asking: &Arc<Customer>,
        given: &Customer,
        at: Timestamp,
    ) -> Result<Option<Vec<Arc<Entry>>>, Problem> {
        let (tenant, directory) = (entry.tenant, &*self.parts.directory);
        let levels = match access_if_given(directory, tenant, Arc::clone(asking), feature, at, &given.key) {
            Access::Denied(_) => return Ok(None),
            Access::Entitled { .. } => Vec::new(),
            Access::Metered(metered) => metered.levels,
        };
        let others = levels.iter().filter(|level| level.customer.key != given.key);
        let entries = others.map(|level| self.entry(tenant, &level.customer.key, &entry.feature));
        entries.collect::<Result<_, _>>().map(Some)
    }

    /// What the customer could have instead of, or on top of, what it has. Nothing where an override decides; nothing
    /// above the customer itself where no subscription runs.
    fn offers(
        &self,
        entry: &Entry,
        catalog: &Catalog,
        customer: &Arc<Customer>,
        at: Timestamp,
    ) -> Vec<Offer> {
        let (tenant, directory) = (entry.tenant, &*self.parts.directory);
        let subscriptions = directory.subscriptions(tenant, &customer.key);
        let overrides = directory.overrides(tenant, &customer.key);
        let over = overrides
            .iter()
            .find(|over| *over.entitlement.feature == *entry.feature);
        let own = match provision(
            catalog,
            &subscriptions,
            over.map(AsRef::as_ref),
            &entry.feature,
            at,
        ) {
            Provision::Has { overridden: true, .. } | Provision::Revoked | Provision::Paused => {
                return Vec::new();
            }
            Provision::Has { subscription, .. } => subscription,
            Provision::Lacks(subscription) => Some(subscription),
            Provision::Nothing if *customer.key == *entry.customer => None,
            Provision::Nothing => return Vec::new(),
        };
        let zone = zone_of(directory, tenant, customer);
        let windows = Windows {
            zone: &zone,
            subscription: own.as_deref(),
        };
        let phase = own.as_deref().map(|subscription| subscription.phase_at(at));
        let customer: Arc<str> = customer.key.as_str().into();
        let offers = what_else(catalog, phase, &entry.feature).into_iter();
        offers
            .map(|(kind, key, version, limits)| Offer {
                option: UpgradeOption {
                    kind,
                    key,
                    version,
                    customer: customer.clone(),
                },
                limits: limits
                    .into_iter()
                    .map(|limit| (limit, windows.containing(limit.period, at)))
                    .collect(),
            })
            .collect()
    }

    async fn candidate(
        &self,
        entry: &Entry,
        customer: &Customer,
        meter: Option<&Arc<Meter>>,
        offer: Offer,
        at: Timestamp,
    ) -> Result<Candidate, Problem> {
        let mut limits = Vec::new();
        if let Some(meter) = meter {
            let track = self.track_of(entry, &customer.key, meter);
            let ranges = offer.limits.iter().map(|(_, range)| *range);
            let missing: Vec<_> = ranges
                .filter(|range| self.slot(&track, *range, at).is_none())
                .collect();
            if !missing.is_empty() {
                self.prepare(track.clone(), missing, None, at).await?;
            }
            let declared: Vec<_> = offer.limits.iter().map(|(limit, _)| *limit).collect();
            let raised = EffectiveLimit::raised_period(&declared);
            for (limit, range) in offer.limits {
                // A slot that went in the same moment belongs to what is being compiled anew.
                let slot = self
                    .slot(&track, range, at)
                    .unwrap_or_else(|| Arc::new(Slot::new(track.meter.id, range, i128::MAX)));
                limits.push(CandidateLimit {
                    slot,
                    limit,
                    raised: raised == Some(limit.period),
                });
            }
        }
        Ok(Candidate {
            option: offer.option,
            limits,
        })
    }
}

/// Kind, key, version and limits of the feature of each other plan, with the add-ons of now, and of each further add-on.
fn what_else(
    catalog: &Catalog,
    phase: Option<&Phase>,
    feature: &str,
) -> Vec<(&'static str, String, u32, Vec<EffectiveLimit>)> {
    let add_ons = phase.map_or(&[][..], |phase| &phase.add_ons);
    let plans = catalog.plans.values().filter_map(|versions| versions.last());
    let plans = plans
        .filter(|plan| phase.is_none_or(|phase| phase.plan != plan.key))
        .filter_map(|plan| {
            let limits = offered(catalog, (&plan.key, plan.version), add_ons, feature)?;
            Some(("plan", plan.key.clone(), plan.version, limits))
        });
    let more = catalog.add_ons.values().filter_map(|versions| versions.last());
    let more = more
        .filter(|add_on| !add_ons.iter().any(|used| used.key == add_on.key))
        .filter_map(|add_on| {
            let phase = phase?;
            add_on
                .entitlements
                .iter()
                .find(|given| given.feature == feature)?;
            let used = AddOnUse {
                key: add_on.key.clone(),
                version: add_on.version,
            };
            let with: Vec<_> = add_ons.iter().cloned().chain([used]).collect();
            let limits = offered(catalog, (&phase.plan, phase.plan_version), &with, feature)?;
            Some(("add_on", add_on.key.clone(), add_on.version, limits))
        });
    plans.chain(more).collect()
}
