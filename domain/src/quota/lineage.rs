use std::collections::HashMap;
use std::sync::Arc;

use super::access::{Provision, bounding, provision, provision_unpaused};
use super::grants::grants_of;
use super::{Windows, next_change, zone_of};
use crate::catalog::{Catalog, Customer, Override, Subscription};
use crate::identity::TenantId;
use crate::limits::CUSTOMER_LEVELS_MAX;
use crate::port::directory::Directory;
use crate::time::{TimeRange, Timestamp, Zone};

/// What one customer itself was given of a feature.
#[derive(Debug, PartialEq)]
pub(super) struct Given {
    customer: String,
    zone: Zone,
    /// Newest first.
    subscriptions: Vec<Arc<Subscription>>,
    /// Each over the time in which it stood; these do not overlap.
    overrides: Vec<(TimeRange, Override)>,
    /// When each of its grants counts.
    granted: Vec<TimeRange>,
    /// Where what it gives changes, ascending.
    changes: Vec<Timestamp>,
}

/// A customer and those that were above it, with what each was given of a feature.
#[derive(Debug, Clone)]
pub(super) struct Lineage {
    own: Arc<Given>,
    /// Those above, each over a time in which it was, level by level.
    above: Vec<(TimeRange, Arc<Given>)>,
    /// Where any of it changes, ascending.
    changes: Vec<Timestamp>,
    /// Where a subscription begins or ends to be one of its own or of one above, ascending.
    turns: Vec<Timestamp>,
}

/// Equal ones give the same at every instant.
impl PartialEq for Lineage {
    fn eq(&self, other: &Self) -> bool {
        self.own == other.own && self.above == other.above
    }
}

impl Given {
    fn new(directory: &dyn Directory, tenant: TenantId, customer: &Customer, feature: &str) -> Self {
        let standing = directory.overrides(tenant, &customer.key).into_iter();
        let standing = standing.map(|over| (over.time(), Override::clone(&over)));
        let former = customer.former_overrides.iter();
        let former = former.map(|former| (former.time(), former.said.clone()));
        let ours = |(_, over): &(TimeRange, Override)| over.entitlement.feature == feature;
        let subscriptions = directory.subscriptions(tenant, &customer.key);
        let overrides: Vec<_> = former.chain(standing).filter(ours).collect();
        let grants = grants_of(directory, tenant, customer, feature);
        let granted: Vec<_> = grants.iter().map(|grant| grant.active_time()).collect();
        let times = overrides.iter().map(|(time, _)| time).chain(&granted);
        Self {
            customer: customer.key.clone(),
            zone: zone_of(directory, tenant, customer),
            changes: changes(&subscriptions, times),
            subscriptions,
            overrides,
            granted,
        }
    }

    fn provision_at(&self, catalog: &Catalog, feature: &str, at: Timestamp) -> Provision {
        let over = self.overrides.iter().find(|(time, _)| time.contains(at));
        let over = over.map(|(_, over)| over);
        match provision(catalog, &self.subscriptions, over, feature, at) {
            // What comes all the same is drawn as if it went on: what a pause ends or begins within a minute, no
            // grant feels.
            Provision::Paused => provision_unpaused(catalog, &self.subscriptions, feature, at),
            other => other,
        }
    }
}

/// Where subscriptions change and times begin or end, ascending.
fn changes<'a>(
    subscriptions: &[Arc<Subscription>],
    times: impl Iterator<Item = &'a TimeRange>,
) -> Vec<Timestamp> {
    let subscriptions = subscriptions.iter().flat_map(|one| {
        let next = |at: &Timestamp| Some(next_change(one, *at)).filter(|next| *next < Timestamp::MAX);
        std::iter::successors(next(&Timestamp::EPOCH), next)
    });
    let times = times.flat_map(|time| [time.start, time.end]);
    let mut changes: Vec<_> = subscriptions.chain(times).collect();
    changes.sort_unstable();
    changes.dedup();
    changes
}

impl Lineage {
    /// That of `customer` for a feature. Each stretch of time is followed upwards on its own, so that there are no more
    /// of them on a level than moves below it. `given` keeps what customers were given for the next one.
    pub(super) fn new(
        directory: &dyn Directory,
        tenant: TenantId,
        customer: &Arc<Customer>,
        feature: &str,
        given: &mut HashMap<String, Arc<Given>>,
    ) -> Self {
        let mut given_to = |customer: &Customer| {
            let new = || Arc::new(Given::new(directory, tenant, customer, feature));
            Arc::clone(given.entry(customer.key.clone()).or_insert_with(new))
        };
        let own = given_to(customer);
        let (mut above, mut level) = (Vec::new(), vec![(TimeRange::ALL, Arc::clone(customer))]);
        // The store refuses circles; a bound holds even so.
        for _ in 1..CUSTOMER_LEVELS_MAX {
            let parents = level.iter().flat_map(|(time, customer)| {
                let parents = customer.parents();
                let within = parents.filter_map(|(parent, since)| Some((since.intersect(time)?, parent)));
                within.filter_map(|(time, parent)| Some((time, directory.customer(tenant, parent)?)))
            });
            level = parents.collect();
            above.extend(level.iter().map(|(time, parent)| (*time, given_to(parent))));
        }
        Self::of(own, above)
    }

    fn of(own: Arc<Given>, above: Vec<(TimeRange, Arc<Given>)>) -> Self {
        let (mut changes, mut turns) = (Vec::new(), Vec::new());
        for (time, given) in std::iter::once(&(TimeRange::ALL, Arc::clone(&own))).chain(&above) {
            let from = given.changes.partition_point(|change| *change < time.start);
            let within = given.changes[from..].iter();
            let within = within.take_while(|change| **change < time.end);
            changes.extend(within.chain([&time.start, &time.end]));
            let spans = given.subscriptions.iter().map(|one| one.span());
            let spans = spans.filter_map(|span| span.intersect(time));
            turns.extend(spans.flat_map(|span| [span.start, span.end]));
        }
        for edges in [&mut changes, &mut turns] {
            edges.sort_unstable();
            edges.dedup();
        }
        Self {
            own,
            above,
            changes,
            turns,
        }
    }

    /// The customer and those above it at an instant, nearest first.
    fn at(&self, at: Timestamp) -> impl Iterator<Item = &Given> {
        let above = self.above.iter().filter(move |(time, _)| time.contains(at));
        std::iter::once(&*self.own).chain(above.map(|(_, given)| &**given))
    }

    /// What plan, add-ons and override gave at an instant, and the windows of the one that it came from: the customer
    /// itself where none gave anything.
    pub(super) fn provision_at(
        &self,
        catalog: &Catalog,
        feature: &str,
        at: Timestamp,
    ) -> (Provision, Windows<'_>) {
        let given = self.at(at).zip(0..);
        let mut given = given.map(|(one, place)| (place, one.provision_at(catalog, feature, at)));
        let found = given.find(|(_, given)| !matches!(given, Provision::Nothing));
        let (place, provision) = found.unwrap_or((0, Provision::Nothing));
        (provision, self.windows_of(place, at))
    }

    /// The key of the customer itself.
    pub(super) fn customer(&self) -> &str {
        &self.own.customer
    }

    /// Whether a customer is this one or above it at an instant.
    pub(super) fn has_above(&self, customer: &str, at: Timestamp) -> bool {
        self.at(at).any(|one| one.customer == customer)
    }

    /// Whose limits and grants counted for the customer over time: one behind the other, without gaps.
    ///
    /// It is the nearest that had anything but grants; where none had, the topmost that had a grant, so that whatever was
    /// used below it is drawn once; else the customer itself.
    pub(super) fn providers(&self, catalog: &Catalog, feature: &str) -> Vec<(TimeRange, &str)> {
        let mut found: Vec<(TimeRange, &str)> = Vec::new();
        let mut at = TimeRange::ALL.start;
        while at < TimeRange::ALL.end {
            let until = self.change_after(at);
            let provider = self.provider_at(catalog, feature, at);
            match found.last_mut() {
                Some((time, last)) if *last == provider => time.end = until,
                _ => found.push((TimeRange::new(at, until), provider)),
            }
            at = until;
        }
        found
    }

    fn provider_at(&self, catalog: &Catalog, feature: &str, at: Timestamp) -> &str {
        let has = |one: &&Given| !matches!(one.provision_at(catalog, feature, at), Provision::Nothing);
        let holds = |one: &&Given| one.granted.iter().any(|time| time.contains(at));
        let provider = self.at(at).find(has);
        let provider = provider.or_else(|| self.at(at).filter(holds).last());
        &provider.unwrap_or(&self.own).customer
    }

    /// Its own windows.
    pub(super) fn windows_at(&self, at: Timestamp) -> Windows<'_> {
        self.windows_of(0, at)
    }

    fn windows_of(&self, place: usize, at: Timestamp) -> Windows<'_> {
        let mut upwards = self.at(at).skip(place).peekable();
        let zone = upwards.peek().map_or(&self.own.zone, |one| &one.zone);
        let subscription = upwards.find_map(|one| bounding(&one.subscriptions, at));
        Windows {
            zone,
            subscription: subscription.map(AsRef::as_ref),
        }
    }

    /// The next instant after `at` at which any of it changes.
    pub(super) fn change_after(&self, at: Timestamp) -> Timestamp {
        let next = self.changes.partition_point(|change| *change <= at);
        self.changes.get(next).copied().unwrap_or(Timestamp::MAX)
    }

    /// The stretch around `at` in which subscriptions neither begin nor end.
    pub(super) fn turn(&self, at: Timestamp) -> TimeRange {
        let next = self.turns.partition_point(|turn| *turn <= at);
        let start = next.checked_sub(1).map(|last| self.turns[last]);
        TimeRange::new(
            start.unwrap_or(TimeRange::ALL.start),
            self.turns.get(next).copied().unwrap_or(TimeRange::ALL.end),
        )
    }
}
