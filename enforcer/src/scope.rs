use std::sync::Arc;

use dashmap::DashMap;
use turnpike_domain::catalog::Customer;
use turnpike_domain::identity::TenantId;
use turnpike_domain::limits::CUSTOMER_LEVELS_MAX;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::usage::SubjectSpan;
use turnpike_domain::time::{TimeRange, Timestamp};

/// What of a customer decides whose usage counts where, as it stood when a track was made over it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    parent: Option<String>,
    parent_since: Option<Timestamp>,
    subjects: Vec<String>,
}

impl Place {
    fn of(customer: &Customer) -> Self {
        Self {
            parent: customer.parent.clone(),
            parent_since: customer.parent_since,
            subjects: customer.subjects.clone(),
        }
    }
}

/// Whose usage counts for whom.
#[derive(Default)]
pub(crate) struct Scopes {
    places: DashMap<(TenantId, String), Place, foldhash::fast::RandomState>,
}

/// From when a child's usage counts for its parent. Boundaries are whole minutes.
fn counts_from(child: &Customer) -> Timestamp {
    child.parent_since.unwrap_or(Timestamp::EPOCH).floor_minute()
}

impl Scopes {
    /// The subjects of a customer and of its descendants, each over the time in which it counts for the customer.
    pub(crate) fn spans(
        &self,
        directory: &dyn Directory,
        tenant: TenantId,
        customer: &str,
    ) -> Vec<SubjectSpan> {
        let mut spans = Vec::new();
        let first = directory.customer(tenant, customer);
        let mut open: Vec<_> = first.into_iter().map(|c| (c, Timestamp::EPOCH, 1)).collect();
        while let Some((customer, from, depth)) = open.pop() {
            self.places
                .insert((tenant, customer.key.clone()), Place::of(&customer));
            let span = TimeRange::new(from, Timestamp::MAX);
            let subjects = customer.subjects.iter().cloned();
            spans.extend(subjects.map(|subject| SubjectSpan { subject, span }));
            if depth < CUSTOMER_LEVELS_MAX {
                for child in directory.children(tenant, &customer.key) {
                    let from = from.max(counts_from(&child));
                    open.push((child, from, depth + 1));
                }
            }
        }
        spans
    }

    /// The customers whose tracks a change of `customer` puts out of date: none when it neither moved nor got other
    /// subjects; else itself and everyone above it, before and after.
    pub(crate) fn changed(&self, directory: &dyn Directory, tenant: TenantId, customer: &str) -> Vec<String> {
        let before = self
            .places
            .remove(&(tenant, customer.to_owned()))
            .map(|(_, place)| place);
        let now = directory.customer(tenant, customer);
        let after = now.as_deref().map(Place::of);
        if before.is_some() && before == after {
            if let Some(place) = before {
                self.places.insert((tenant, customer.to_owned()), place);
            }
            return Vec::new();
        }
        let mut concerned = vec![customer.to_owned()];
        for mut parent in [before, after].into_iter().flatten().map(|place| place.parent) {
            for _ in 0..CUSTOMER_LEVELS_MAX {
                let Some(key) = parent else { break };
                parent = directory
                    .customer(tenant, &key)
                    .and_then(|customer| customer.parent.clone());
                concerned.push(key);
            }
        }
        concerned.sort_unstable();
        concerned.dedup();
        concerned
    }
}

/// Runs `visit` on the customer of `subject` and on every ancestor for which its usage at `time` counts.
pub(crate) fn climb(
    directory: &dyn Directory,
    tenant: TenantId,
    subject: &str,
    time: Timestamp,
    mut visit: impl FnMut(&Arc<Customer>),
) {
    let mut next = directory.customer_of_subject(tenant, subject);
    for _ in 0..CUSTOMER_LEVELS_MAX {
        let Some(customer) = next else { return };
        visit(&customer);
        if time < counts_from(&customer) {
            return;
        }
        next = customer
            .parent
            .as_deref()
            .and_then(|parent| directory.customer(tenant, parent));
    }
}

/// Whether usage of `subject` at `time` counts for `customer`.
pub(crate) fn covers(
    directory: &dyn Directory,
    tenant: TenantId,
    customer: &str,
    subject: &str,
    time: Timestamp,
) -> bool {
    let mut found = false;
    climb(directory, tenant, subject, time, |one| {
        found |= one.key == customer;
    });
    found
}
