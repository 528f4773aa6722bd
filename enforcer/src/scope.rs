use std::collections::BTreeSet;

use dashmap::DashMap;
use turnpike_domain::catalog::{Customer, FormerParent};
use turnpike_domain::hierarchy::{climb, members, spans};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::usage::SubjectSpan;
use turnpike_domain::time::{TimeRange, Timestamp};

/// What of a customer decides whose usage counts where, as it stood when a track was made over it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    parent: Option<String>,
    parent_since: Option<Timestamp>,
    former_parents: Vec<FormerParent>,
    subjects: Vec<String>,
}

impl Place {
    fn of(customer: &Customer) -> Self {
        Self {
            parent: customer.parent.clone(),
            parent_since: customer.parent_since,
            former_parents: customer.former_parents.clone(),
            subjects: customer.subjects.clone(),
        }
    }

    /// All that are, or once were, right above it.
    fn parents(&self) -> impl Iterator<Item = &String> {
        let former = self.former_parents.iter().map(|former| &former.parent);
        former.chain(&self.parent)
    }
}

/// Whose usage counts for whom.
#[derive(Default)]
pub(crate) struct Scopes {
    places: DashMap<(TenantId, String), Place, foldhash::fast::RandomState>,
}

impl Scopes {
    /// The subjects of a customer and of its descendants, each over the times in which it counts for the customer.
    pub(crate) fn spans(
        &self,
        directory: &dyn Directory,
        tenant: TenantId,
        customer: &str,
    ) -> Vec<SubjectSpan> {
        let Some(customer) = directory.customer(tenant, customer) else {
            return Vec::new();
        };
        let members = members(directory, tenant, customer, TimeRange::ALL, &|_, time| vec![time]);
        for member in &members {
            let customer = &member.customer;
            self.places
                .insert((tenant, customer.key.clone()), Place::of(customer));
        }
        spans(&members)
    }

    /// How many places are kept.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The customers whose tracks a change of `customer` puts out of date: none when it neither moved nor got other
    /// subjects; else itself and everyone that is, or once was, above it.
    pub(crate) fn changed(
        &self,
        directory: &dyn Directory,
        tenant: TenantId,
        customer: &str,
    ) -> BTreeSet<String> {
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
            return BTreeSet::new();
        }
        let places = [before, after].into_iter().flatten();
        with_all_above(directory, tenant, customer, places)
    }

    /// Forgets the places that no track depends on any more; `tracked` says whether a customer has one. Returns how many
    /// stay.
    pub(crate) fn sweep(&self, directory: &dyn Directory, tracked: impl Fn(TenantId, &str) -> bool) -> usize {
        // Each is asked about with its place at hand: who makes a track enters it before its places.
        self.places.retain(|(tenant, customer), place| {
            let concerned = with_all_above(directory, *tenant, customer, [place.clone()]);
            concerned.iter().any(|one| tracked(*tenant, one))
        });
        self.places.len()
    }
}

/// A customer, and everyone that is, or once was, above it by `places`.
fn with_all_above(
    directory: &dyn Directory,
    tenant: TenantId,
    customer: &str,
    places: impl IntoIterator<Item = Place>,
) -> BTreeSet<String> {
    let mut concerned = BTreeSet::from([customer.to_owned()]);
    let mut open: Vec<String> = places
        .into_iter()
        .flat_map(|place| place.parents().cloned().collect::<Vec<_>>())
        .collect();
    while let Some(key) = open.pop() {
        if let Some(above) = directory.customer(tenant, &key) {
            open.extend(
                Place::of(&above)
                    .parents()
                    .filter(|one| !concerned.contains(*one))
                    .cloned(),
            );
        }
        concerned.insert(key);
    }
    concerned
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
