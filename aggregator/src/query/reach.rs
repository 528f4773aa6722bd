//! Which series a part of an answer is read from, and in which order.

use std::collections::BTreeSet;
use std::ops::{Bound, Range};
use std::sync::Arc;

use turnpike_domain::catalog::Customer;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::directory::Directory;

use super::GroupPlace;
use super::cut::PickedSeries;
use crate::rows::key;

/// The subjects that are read: some first, one by one, then all others of a stretch of their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    pub first: BTreeSet<String>,
    pub then: Option<Between>,
    /// Whether none of the stretch gives a row whose group begins with less than its subject: those behind the last wanted
    /// group need not be read.
    pub in_order_of_groups: bool,
}

/// Subjects side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Between {
    pub from: String,
    /// The one behind the last; `None` is behind all.
    pub until: Option<String>,
}

/// Groups side by side, and what they are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub reach: Reach,
    /// All groups of it begin with less than this text; `None`: it goes on to the last.
    pub before: Option<String>,
    /// Whether it begins with the first.
    pub from_first: bool,
}

impl Reach {
    /// All series, in no order of groups.
    pub(crate) fn all() -> Self {
        Self {
            then: Some(Between::default()),
            ..Self::default()
        }
    }

    /// Those of some subjects.
    pub(crate) fn of(subjects: impl Iterator<Item = String>) -> Self {
        Self {
            first: subjects.collect(),
            ..Self::default()
        }
    }

    pub(super) fn contains(&self, subject: &str) -> bool {
        self.first.contains(subject) || self.then.as_ref().is_some_and(|then| then.contains(subject))
    }
}

impl Between {
    pub(crate) fn contains(&self, subject: &str) -> bool {
        *self.from <= *subject && self.until.as_ref().is_none_or(|until| *subject < **until)
    }

    /// The keys behind `head` that begin with these subjects.
    pub(super) fn keys(&self, head: &[u8]) -> Range<Vec<u8>> {
        let end = self.until.as_ref().map(|until| beginning(head, until));
        beginning(head, &self.from)..end.unwrap_or_else(|| key::all(head.to_vec()).end)
    }

    /// Their series among `all`, which ascend.
    pub(super) fn of<'s>(&self, all: &'s [PickedSeries]) -> &'s [PickedSeries] {
        let before = |subject: &str| all.partition_point(|series| *series.subject < *subject);
        let end = self.until.as_deref().map_or(all.len(), before);
        all.get(before(&self.from)..end).unwrap_or_default()
    }
}

/// The keys behind `head` that begin with a subject.
pub(super) fn keys_of(head: &[u8], subject: &str) -> Range<Vec<u8>> {
    key::all(beginning(head, subject))
}

fn beginning(head: &[u8], subject: &str) -> Vec<u8> {
    let mut key = head.to_vec();
    key::put_text(&mut key, subject);
    key
}

/// The series of a subject among `all`, which ascend.
pub(super) fn series_of<'s>(all: &'s [PickedSeries], subject: &str) -> &'s [PickedSeries] {
    let start = all.partition_point(|series| *series.subject < *subject);
    let rest = &all[start..];
    &rest[..rest.partition_point(|series| *series.subject == *subject)]
}

impl Stretch {
    /// The groups from `from` on where the first of their texts is the subject.
    pub(super) fn of_subjects(from: &Bound<GroupPlace>) -> Self {
        let from = first_text(from);
        Self {
            from_first: from.is_empty(),
            reach: Reach {
                first: BTreeSet::new(),
                then: Some(Between {
                    from: from.to_owned(),
                    until: None,
                }),
                in_order_of_groups: true,
            },
            before: None,
        }
    }

    /// The groups from `from` on where the first of their texts is the customer: as far as the next `number` customers reach,
    /// with the subjects between them that are no customer's.
    pub(super) fn of_customers(
        directory: &dyn Directory,
        tenant: TenantId,
        from: &Bound<GroupPlace>,
        number: usize,
    ) -> Self {
        let from = first_text(from);
        let mut customers: Vec<Arc<Customer>> = directory.customers_from(tenant, from, number + 1);
        let before = customers.get(number).map(|next| next.key.clone());
        customers.truncate(number);
        // What stands before the stretch, or behind its customer, would come too late or never in the order of subjects.
        let elsewhere = |customer: &Arc<Customer>| {
            let subjects = customer.subjects.iter();
            let elsewhere = subjects.filter(|subject| **subject > customer.key || subject.as_str() < from);
            elsewhere.cloned().collect::<Vec<_>>()
        };
        Self {
            from_first: from.is_empty(),
            reach: Reach {
                first: customers.iter().flat_map(elsewhere).collect(),
                then: Some(Between {
                    from: from.to_owned(),
                    until: before.clone(),
                }),
                in_order_of_groups: true,
            },
            before,
        }
    }

    /// Whether it lacks any groups.
    pub(super) fn is_cut(&self) -> bool {
        !self.from_first || self.before.is_some()
    }
}

fn first_text(from: &Bound<GroupPlace>) -> &str {
    match from {
        Bound::Unbounded => "",
        Bound::Included(group) | Bound::Excluded(group) => group.first().unwrap_or_default(),
    }
}
