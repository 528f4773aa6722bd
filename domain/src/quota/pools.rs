//! Which pools grants went through: whose usage drew on them when.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::course::LevelCourse;
use super::grants::{Placed, Pool, Pools, Stay, grants_of};
use super::lineage::{Given, Lineage};
use crate::catalog::{Catalog, Customer, Grant};
use crate::identity::TenantId;
use crate::limits::CUSTOMER_LEVELS_MAX;
use crate::port::directory::Directory;
use crate::time::{MINUTE_US, TimeRange, Timestamp};

/// A customer with all in whose pools it was.
struct Followed {
    lineage: Lineage,
    /// By their keys; one behind the other, without gaps.
    providers: Vec<(TimeRange, String)>,
}

/// Pools that are being gathered: from one backwards through all that its grants came from, and the grants of those.
struct Gathering<'a> {
    directory: &'a dyn Directory,
    tenant: TenantId,
    feature: &'a str,
    now: Timestamp,
    catalog: Arc<Catalog>,
    given: HashMap<String, Arc<Given>>,
    followed: HashMap<String, Arc<Followed>>,
    /// Keys of pools with until when each decides, the first of the pool that was asked about.
    pools: Vec<(String, Timestamp)>,
    open: Vec<usize>,
    grants: Vec<Arc<Grant>>,
    /// The customer of each and its place among that one's, for an id may have been another grant's that was taken back.
    known: HashSet<(String, usize)>,
}

/// The pool of `customer` for a feature, with those that its grants went through.
pub fn pools(
    directory: &dyn Directory,
    tenant: TenantId,
    customer: &Customer,
    feature: &str,
    now: Timestamp,
) -> Pools<LevelCourse> {
    let mut gathering = Gathering {
        directory,
        tenant,
        feature,
        now,
        catalog: directory.catalog(tenant),
        given: HashMap::new(),
        followed: HashMap::new(),
        pools: Vec::new(),
        open: Vec::new(),
        grants: Vec::new(),
        known: HashSet::new(),
    };
    gathering.raise(&customer.key, Timestamp::MAX);
    while let Some(pool) = gathering.open.pop() {
        gathering.gather(pool);
    }
    gathering.into_pools()
}

/// Whether grants of those that are, or once were, below a customer may have been in its pool, though none is now. Its own
/// grants, with those that were taken back, tell by themselves.
pub fn granted_below(directory: &dyn Directory, tenant: TenantId, customer: &str, feature: &str) -> bool {
    let holders = || directory.grant_holders(tenant, feature);
    directory.is_parent(tenant, customer)
        && holders()
            .iter()
            .any(|one| was_below(directory, tenant, one, customer))
}

/// Whether a customer is, or once was, below `above`.
fn was_below(directory: &dyn Directory, tenant: TenantId, customer: &Arc<Customer>, above: &str) -> bool {
    let mut level = vec![Arc::clone(customer)];
    // The store refuses circles; a bound holds even so.
    for _ in 1..CUSTOMER_LEVELS_MAX {
        if level
            .iter()
            .any(|one| one.parents().any(|(parent, _)| parent == above))
        {
            return true;
        }
        let parents = level.iter().flat_map(|one| {
            let parents = one.parents();
            parents.filter_map(|(parent, _)| directory.customer(tenant, parent))
        });
        level = parents.collect();
    }
    false
}

impl Gathering<'_> {
    /// Notes that what a pool used before `until` decides.
    fn raise(&mut self, key: &str, until: Timestamp) {
        let known = self.pools.iter().position(|(one, _)| one == key);
        let place = known.unwrap_or_else(|| {
            self.pools.push((key.to_owned(), Timestamp::EPOCH));
            self.pools.len() - 1
        });
        let before = &mut self.pools[place].1;
        if *before < until {
            *before = until;
            self.open.push(place);
        }
    }

    /// Takes in the grants that were ever drawn on in a pool while it decides, and the pools that they were in before.
    fn gather(&mut self, pool: usize) {
        let (key, until) = self.pools[pool].clone();
        for holder in self.holders(&key) {
            let Some(followed) = self.follow(&holder.key) else {
                continue;
            };
            let grants = grants_of(self.directory, self.tenant, &holder, self.feature);
            for (place, grant) in grants.iter().enumerate() {
                self.gather_grant((&key, until), (place, grant), &followed.providers);
            }
        }
    }

    fn gather_grant(
        &mut self,
        (pool, until): (&str, Timestamp),
        (place, grant): (usize, &Arc<Grant>),
        providers: &[(TimeRange, String)],
    ) {
        let active = grant.active_time();
        let mut before: Option<&str> = None;
        for (time, key) in providers {
            let Some(stay) = time.intersect(&active) else {
                continue;
            };
            if key == pool && stay.start < until && stay.start <= self.now {
                if self.known.insert((grant.customer.clone(), place)) {
                    self.grants.push(Arc::clone(grant));
                }
                if let Some(before) = before {
                    self.raise(before, self.settled(stay.start));
                }
                self.raise_before_own(pool, stay.start);
            }
            before = Some(key);
        }
    }

    /// In the minute in which a customer gets its own pool, the one that it was in before decides too.
    fn raise_before_own(&mut self, pool: &str, at: Timestamp) {
        let Some(followed) = self.follow(pool) else { return };
        let next = followed.providers.partition_point(|(time, _)| time.end <= at);
        let began = followed.providers.get(next).map(|(time, _)| time.start);
        if let Some(began) = began.filter(|began| at < began.plus_micros(MINUTE_US))
            && let Some(before) = next.checked_sub(1)
        {
            self.raise(&followed.providers[before].1, self.settled(began));
        }
    }

    /// The end of the minute that begins with a change; the change itself while that minute is not over, for what a
    /// pool used in it is not known yet.
    fn settled(&self, change: Timestamp) -> Timestamp {
        let end = change.plus_micros(MINUTE_US);
        if end <= self.now { end } else { change }
    }

    /// The customers whose grants may ever have been in a pool.
    fn holders(&self, pool: &str) -> Vec<Arc<Customer>> {
        let mut holders: Vec<_> = self.directory.customer(self.tenant, pool).into_iter().collect();
        if self.directory.is_parent(self.tenant, pool) {
            let all = self.directory.grant_holders(self.tenant, self.feature);
            let below = |one: &Arc<Customer>| was_below(self.directory, self.tenant, one, pool);
            holders.extend(all.into_iter().filter(|one| one.key != pool && below(one)));
        }
        holders
    }

    fn follow(&mut self, key: &str) -> Option<Arc<Followed>> {
        if let Some(followed) = self.followed.get(key) {
            return Some(Arc::clone(followed));
        }
        let customer = self.directory.customer(self.tenant, key)?;
        let lineage = Lineage::new(
            self.directory,
            self.tenant,
            &customer,
            self.feature,
            &mut self.given,
        );
        let providers = lineage.providers(&self.catalog, self.feature).into_iter();
        let providers = providers.map(|(time, key)| (time, key.to_owned())).collect();
        let followed = Arc::new(Followed { lineage, providers });
        self.followed.insert(key.to_owned(), Arc::clone(&followed));
        Some(followed)
    }

    fn into_pools(mut self) -> Pools<LevelCourse> {
        let keys = std::mem::take(&mut self.pools);
        let places: HashMap<_, _> = keys
            .iter()
            .zip(0..)
            .map(|((key, _), place)| (key.clone(), place))
            .collect();
        let stays = |followed: &Followed| {
            let stays = followed.providers.iter().map(|(range, key)| Stay {
                range: *range,
                pool: places.get(key).copied(),
            });
            stays.collect::<Vec<_>>()
        };
        // Where it went away from those above, its usage of that minute went with it: nothing there covers it.
        let providers = |followed: &Followed| {
            let stays = stays(followed).into_iter().zip(&followed.providers);
            let stays = stays.map(|(stay, (time, key))| Stay {
                pool: stay.pool.filter(|_| followed.lineage.has_above(key, time.end)),
                ..stay
            });
            stays.collect::<Vec<_>>()
        };
        let grants = std::mem::take(&mut self.grants);
        let placed = grants.into_iter().filter_map(|grant| {
            let stays = stays(&*self.follow(&grant.customer)?);
            Some(Placed { grant, stays })
        });
        let grants = placed.collect();
        let pools = keys.iter().filter_map(|(key, until)| {
            let followed = self.follow(key)?;
            Some(Pool {
                providers: providers(&followed),
                course: LevelCourse::new(Arc::clone(&self.catalog), self.feature, followed.lineage.clone()),
                until: *until,
            })
        });
        Pools {
            pools: pools.collect(),
            grants,
        }
    }
}
