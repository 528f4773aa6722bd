//! How often subscriptions, overrides and grants refer to items of a catalog. Counted as they change, so that a change of
//! the catalog need not look at any customer.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use turnpike_domain::catalog::{CatalogUse, Subscription};
use turnpike_domain::time::Timestamp;

const DAY_US: i64 = 86_400_000_000;

/// Something that is referred to → how often; never 0.
type Counts<K> = BTreeMap<K, u64>;

/// The references into one tenant's catalog.
#[derive(Default)]
pub(super) struct Uses(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    plans: Counts<(String, u32)>,
    add_ons: Counts<(String, u32)>,
    features: Counts<String>,
    /// Subscriptions that end where they begin, by id: billed from the first, they are in use until then.
    never_begun: BTreeMap<String, Arc<Subscription>>,
    /// Versions by which subscriptions that are over were billed, and when the last such period ended.
    closed_plans: BTreeMap<(String, u32), Timestamp>,
    closed_add_ons: BTreeMap<(String, u32), Timestamp>,
}

impl Uses {
    /// A subscription is made, or replaces what it was before.
    pub(super) fn subscription(&self, before: Option<&Subscription>, after: &Arc<Subscription>) {
        let mut counted = self.0.lock();
        if let Some(before) = before.filter(|before| !is_billed_to_its_end(before)) {
            counted.count(before, false);
        }
        counted.never_begun.remove(&after.id);
        if !is_billed_to_its_end(after) {
            counted.count(after, true);
        } else if after.ends_at == Some(after.start) {
            counted.never_begun.insert(after.id.clone(), Arc::clone(after));
        } else {
            counted.close(after);
        }
    }

    /// An override or a grant names this feature from now on, or no longer.
    pub(super) fn feature(&self, feature: &str, named: bool) {
        shift(&mut self.0.lock().features, feature.to_owned(), named);
    }

    /// What is in use at `now`, when late usage is billed or listed for `late_days` behind the end of its period.
    pub(super) fn at(&self, now: Timestamp, late_days: u32) -> CatalogUse {
        let counted = self.0.lock();
        let mut used = CatalogUse {
            plans: counted.plans.keys().cloned().collect(),
            add_ons: counted.add_ons.keys().cloned().collect(),
            features: counted.features.keys().cloned().collect(),
            closed_plans: late_until(&counted.closed_plans, late_days),
            closed_add_ons: late_until(&counted.closed_add_ons, late_days),
            now,
        };
        let waiting = counted.never_begun.values().filter(|one| !one.is_settled(now));
        for phase in waiting.flat_map(|one| one.phases()) {
            used.plans.insert((phase.plan.clone(), phase.plan_version));
            let add_ons = phase.add_ons.iter();
            used.add_ons
                .extend(add_ons.map(|add_on| (add_on.key.clone(), add_on.version)));
        }
        used
    }
}

/// Nothing is billed before it is past, so that what is billed to its end is over.
fn is_billed_to_its_end(subscription: &Subscription) -> bool {
    subscription
        .ends_at
        .is_some_and(|end| end <= subscription.billed_until)
}

/// Until when what ended is late.
fn late_until(
    ended: &BTreeMap<(String, u32), Timestamp>,
    late_days: u32,
) -> BTreeMap<(String, u32), Timestamp> {
    let until = |end: &Timestamp| end.plus_micros(i64::from(late_days) * DAY_US);
    ended
        .iter()
        .map(|(item, end)| (item.clone(), until(end)))
        .collect()
}

impl Counted {
    /// A subscription is billed to its end, which it then keeps.
    fn close(&mut self, subscription: &Subscription) {
        let Some(end) = subscription.ends_at else { return };
        let later = subscription.phases().skip(1).map(|phase| phase.from);
        let ends = later.chain([end]).map(|until| until.min(end));
        for (phase, until) in subscription.phases().zip(ends) {
            if phase.from >= end {
                continue;
            }
            put_latest(&mut self.closed_plans, (&phase.plan, phase.plan_version), until);
            for add_on in &phase.add_ons {
                put_latest(&mut self.closed_add_ons, (&add_on.key, add_on.version), until);
            }
        }
    }

    fn count(&mut self, subscription: &Subscription, more: bool) {
        for phase in subscription.phases() {
            shift(&mut self.plans, (phase.plan.clone(), phase.plan_version), more);
            for add_on in &phase.add_ons {
                shift(&mut self.add_ons, (add_on.key.clone(), add_on.version), more);
            }
        }
    }
}

fn put_latest(ends: &mut BTreeMap<(String, u32), Timestamp>, (key, version): (&str, u32), end: Timestamp) {
    let latest = ends.entry((key.to_owned(), version)).or_insert(end);
    *latest = end.max(*latest);
}

fn shift<K: Ord>(counts: &mut Counts<K>, key: K, more: bool) {
    use std::collections::btree_map::Entry;
    match (counts.entry(key), more) {
        (entry, true) => *entry.or_default() += 1,
        (Entry::Occupied(mut count), false) if *count.get() > 1 => *count.get_mut() -= 1,
        (Entry::Occupied(count), false) => drop(count.remove()),
        (Entry::Vacant(_), false) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use turnpike_domain::catalog::{AddOnUse, Interval, Phase};
    use turnpike_domain::money::Currency;

    fn at(minute: u32) -> Timestamp {
        Timestamp::from_minute(minute)
    }

    fn phase(plan: u8) -> Phase {
        Phase {
            from: at(10),
            plan: format!("p{}", plan % 3),
            plan_version: u32::from(plan % 2) + 1,
            interval: Interval::Month,
            interval_count: 1,
            anchor: at(10),
            add_ons: (0..plan % 3)
                .map(|n| AddOnUse {
                    key: format!("a{n}"),
                    version: 1,
                })
                .collect(),
        }
    }

    fn subscription(id: u8, plans: &[u8], ends_at: Option<u32>, billed_until: u32) -> Arc<Subscription> {
        Arc::new(Subscription {
            id: format!("s{id}"),
            customer: format!("c{id}"),
            currency: Currency::USD,
            start: at(10),
            trial_end: None,
            timezone: "UTC".to_owned(),
            first: phase(plans[0]),
            later: plans[1..].iter().map(|plan| phase(*plan)).collect(),
            pauses: Vec::new(),
            past_due: false,
            ends_at: ends_at.map(at),
            expires: false,
            billed_until: at(billed_until),
        })
    }

    /// What walking over all subscriptions finds.
    fn walked(all: &BTreeMap<String, Arc<Subscription>>, now: Timestamp) -> CatalogUse {
        let mut used = CatalogUse::default();
        for phase in all
            .values()
            .filter(|one| !one.is_settled(now))
            .flat_map(|one| one.phases())
        {
            used.plans.insert((phase.plan.clone(), phase.plan_version));
            for add_on in &phase.add_ons {
                used.add_ons.insert((add_on.key.clone(), add_on.version));
            }
        }
        used
    }

    proptest! {
        #[test]
        fn counting_finds_what_walking_finds(
            steps in prop::collection::vec(
                (0..5u8, prop::collection::vec(any::<u8>(), 1..4), prop::option::of(10..30u32), 10..30u32), 1..40),
        ) {
            let (uses, mut all) = (Uses::default(), BTreeMap::new());
            for (id, plans, ends_at, billed_until) in steps {
                // Billing stops at the end.
                let billed_until = ends_at.map_or(billed_until, |end| billed_until.min(end));
                let after = subscription(id, &plans, ends_at, billed_until);
                let before = all.insert(after.id.clone(), Arc::clone(&after));
                uses.subscription(before.as_deref(), &after);
                for now in [30, 5] {
                    // Nothing but what never began is billed to its end before that is past.
                    let possible = now == 30
                        || all.values().all(|one| one.ends_at.is_none_or(|end| end == one.start || end > one.billed_until));
                    let used = CatalogUse {
                        closed_plans: BTreeMap::new(),
                        closed_add_ons: BTreeMap::new(),
                        now: Timestamp::default(),
                        ..uses.at(at(now), 0)
                    };
                    prop_assert!(!possible || used == walked(&all, at(now)));
                }
            }
        }
    }

    #[test]
    fn features_are_in_use_while_anything_names_them() {
        let uses = Uses::default();
        for (named, used) in [
            (true, true),
            (true, true),
            (false, true),
            (false, false),
            (false, false),
        ] {
            uses.feature("tokens", named);
            assert_eq!(uses.at(at(0), 0).features.contains("tokens"), used);
        }
    }

    #[test]
    fn what_closed_periods_were_billed_by_is_known_for_its_days() {
        let day = 24 * 60;
        let uses = Uses::default();
        let of = |now: u32| uses.at(at(now), 2).closed_plans;
        let named = |plan: &str, version, end| ((plan.to_owned(), version), at(end + 2 * day));
        let mut changed = Subscription::clone(&subscription(1, &[0, 1, 2], Some(30), 20));
        changed.later[0].from = at(20);
        // It ends before this begins.
        changed.later[1].from = at(30);
        uses.subscription(None, &Arc::new(changed.clone()));
        assert_eq!(of(30), BTreeMap::new(), "its last period is not billed");
        let billed = Subscription {
            billed_until: at(30),
            ..changed.clone()
        };
        uses.subscription(Some(&changed), &Arc::new(billed));
        let both = [named("p0", 1, 20), named("p1", 2, 30)];
        assert_eq!(of(30), both.clone().into());
        assert_eq!(of(30 + 2 * day), both.into(), "also behind that");
        // The last of several counts.
        uses.subscription(None, &subscription(2, &[0], Some(25), 25));
        uses.subscription(None, &subscription(3, &[0], Some(24), 24));
        assert_eq!(of(24 + 2 * day), [named("p0", 1, 25), named("p1", 2, 30)].into());
        assert!(
            uses.at(at(29), 2)
                .closed_add_ons
                .contains_key(&("a0".to_owned(), 1))
        );
    }
}
