//! Whose usage a subscription is charged for: its customer's own, and that of the customers below which have no
//! subscription of their own, over the times in which that was so.

use turnpike_domain::catalog::Customer;
use turnpike_domain::hierarchy::{Member, members};
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{BilledUsage, Counted, SubjectTime};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{TimeRange, Timestamp};

use super::engine::BillingSync;

impl BillingSync {
    /// Whose events a period of a subscription of `customer` counts.
    pub(super) fn counted(
        &self,
        tenant: TenantId,
        customer: &str,
        period: TimeRange,
    ) -> Result<Counted, Problem> {
        let directory = &*self.parts.directory;
        let found = directory.customer(tenant, customer);
        let found = found.ok_or_else(|| Problem::not_found("customer", customer))?;
        // From the beginning of time: a sum over time carries in what stood at the period's start.
        let until = TimeRange::new(Timestamp::EPOCH, period.end);
        let part = |child: &Customer, time| without_own(directory, tenant, child, time);
        let members = members(directory, tenant, found, until, &part);
        let (own, below) = members.split_at(1);
        let mut below: Vec<_> = below
            .iter()
            .filter(|member| member.time.end > period.start)
            .flat_map(times)
            .collect();
        below.sort_unstable();
        let own = own.iter().flat_map(|member| subjects_of(&member.customer));
        Ok(Counted {
            subjects: own.collect(),
            below,
        })
    }

    /// Whose events a closed period counts as it is known now: a customer below may since have got a subscription that
    /// began earlier, and a subject may belong to another customer. One that nobody has any more stays where it was billed.
    pub(super) fn counted_now(
        &self,
        tenant: TenantId,
        customer: &str,
        billed: &BilledUsage,
    ) -> Result<Counted, Problem> {
        let mut now = self.counted(tenant, customer, billed.period)?;
        let directory = &self.parts.directory;
        let is_left = |subject: &str| directory.customer_of_subject(tenant, subject).is_none();
        let before = &billed.counted;
        let left = before.subjects.iter().filter(|subject| is_left(subject));
        now.subjects.extend(left.cloned());
        let left = before.below.iter().filter(|one| is_left(&one.subject));
        now.below.extend(left.cloned());
        Ok(now)
    }
}

fn subjects_of(customer: &Customer) -> Vec<String> {
    if customer.subjects.is_empty() {
        vec![customer.key.clone()]
    } else {
        customer.subjects.clone()
    }
}

fn times(member: &Member) -> impl Iterator<Item = SubjectTime> {
    let TimeRange { start, end } = member.time;
    let subjects = subjects_of(&member.customer).into_iter();
    subjects.map(move |subject| SubjectTime { subject, start, end })
}

/// The parts of `time` in which a customer has no subscription of its own that has begun and not ended. A paused one is
/// its own too.
fn without_own(
    directory: &dyn Directory,
    tenant: TenantId,
    customer: &Customer,
    time: TimeRange,
) -> Vec<TimeRange> {
    let mut parts = vec![time];
    for subscription in directory.subscriptions(tenant, &customer.key) {
        let own = subscription.span();
        parts = parts.iter().flat_map(|part| part.without(&own)).collect();
    }
    parts
}
