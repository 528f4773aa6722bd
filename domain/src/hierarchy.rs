//! Whose usage counts for whom, at which time: customers one above the other, from now back to the first event.
//!
//! A customer's usage at an instant counts for itself and for all that were above it at that instant. So a move takes no
//! usage along: what was timed before it stays where it was counted.

use std::sync::Arc;

use crate::catalog::Customer;
use crate::identity::TenantId;
use crate::limits::CUSTOMER_LEVELS_MAX;
use crate::port::directory::Directory;
use crate::port::usage::SubjectSpan;
use crate::time::{TimeRange, Timestamp};

/// A customer over a time in which its usage counts for the one that was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The customer: the one asked about, or one that was below it then.
    pub customer: Arc<Customer>,
    /// When.
    pub time: TimeRange,
}

/// Runs `visit` on the customer of `subject` and on everyone that was above it at `time`, nearest first.
pub fn climb(
    directory: &dyn Directory,
    tenant: TenantId,
    subject: &str,
    time: Timestamp,
    mut visit: impl FnMut(&Arc<Customer>),
) {
    let mut next = directory.customer_of_subject(tenant, subject);
    // The store refuses circles; a bound holds even so.
    for _ in 0..CUSTOMER_LEVELS_MAX {
        let Some(customer) = next else { return };
        visit(&customer);
        next = customer
            .parent_at(time)
            .and_then(|parent| directory.customer(tenant, parent));
    }
}

/// The customer and those that were above it `at`, nearest first.
pub fn chain_at(
    directory: &dyn Directory,
    tenant: TenantId,
    customer: Arc<Customer>,
    at: Timestamp,
) -> Vec<Arc<Customer>> {
    let mut chain = vec![customer];
    while let Some(parent) = chain.last().and_then(|customer| customer.parent_at(at)) {
        if chain.len() >= CUSTOMER_LEVELS_MAX || chain.iter().any(|one| one.key == parent) {
            break;
        }
        match directory.customer(tenant, parent) {
            Some(parent) => chain.push(parent),
            None => break,
        }
    }
    chain
}

/// The customer over `time`, and everyone that was below it in it, each over the times in which it was. `part` says which
/// of those times count, for the one and for all below it; the customer itself is not asked about.
pub fn members(
    directory: &dyn Directory,
    tenant: TenantId,
    customer: Arc<Customer>,
    time: TimeRange,
    part: &dyn Fn(&Customer, TimeRange) -> Vec<TimeRange>,
) -> Vec<Member> {
    let mut found = Vec::new();
    let mut open = vec![(Member { customer, time }, 1)];
    while let Some((member, level)) = open.pop() {
        if level < CUSTOMER_LEVELS_MAX {
            let key = member.customer.key.as_str();
            for child in directory.children(tenant, key) {
                let below = child.parents().filter(|(parent, _)| *parent == key);
                let below = below.filter_map(|(_, time)| time.intersect(&member.time));
                let times: Vec<_> = below.flat_map(|time| part(&child, time)).collect();
                open.extend(times.into_iter().map(|time| {
                    let customer = Arc::clone(&child);
                    (Member { customer, time }, level + 1)
                }));
            }
        }
        found.push(member);
    }
    found
}

/// The subjects of members, each over its time.
pub fn spans(members: &[Member]) -> Vec<SubjectSpan> {
    let spans = members.iter().flat_map(|member| {
        let subjects = member.customer.subjects.iter().cloned();
        subjects.map(|subject| SubjectSpan {
            subject,
            span: member.time,
        })
    });
    spans.collect()
}
