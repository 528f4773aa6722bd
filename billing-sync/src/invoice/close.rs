//! Closing periods: draft, lock, final. Those of many subscriptions are closed together, each step in one transaction,
//! and a step that was done is not done again.

use std::sync::Arc;

use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{BillTo, Invoice, InvoiceStatus, LateUsage, Parties, Totals};
use turnpike_domain::port::billing::{Boundary, Closing, Closings};
use turnpike_domain::port::control::{Answer, Change};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Timestamp;

use super::build::{Built, Scope};
use super::engine::BillingSync;

/// Who wants periods to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked<'r> {
    /// A billing run, by its id: what has ended and is beyond its grace time is made final, other drafts are made anew.
    ByRun(&'r str),
    /// The clock: as a run, but a draft also waits for its own grace time, and is not made anew until then.
    ByClock,
}

/// What became of one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Its invoice is final.
    Final,
    /// It had nothing to charge, and is closed.
    Empty,
    /// Its invoice is a draft, whose grace time ends then.
    Draft(Timestamp),
    /// It stays as it is until then.
    Waits(Timestamp),
}

/// What is to be done with a period.
enum Course {
    /// Its invoice is locked or final.
    Stands(Invoice),
    /// It stays as it is until then.
    Waits(Timestamp),
    /// Its lines are to be made.
    Build {
        standing: Option<Invoice>,
        may_lock: bool,
    },
}

/// What closing a period came to.
pub(super) struct Closed {
    /// What became of it.
    pub(super) step: Step,
    /// The late usage that is on no invoice.
    pub(super) late: Vec<LateUsage>,
    /// Why some closed periods can no longer be corrected.
    pub(super) uncorrected: Option<Problem>,
    /// How often its subscription was changed by that.
    pub(super) changes: i64,
}

/// What settling a subscription that is over came to.
pub(super) struct Settled {
    /// The late usage that is on no invoice.
    pub(super) late: Vec<LateUsage>,
    /// Why some closed periods can no longer be corrected.
    pub(super) uncorrected: Option<Problem>,
    /// Whether an invoice was made.
    pub(super) invoiced: bool,
}

/// What is to be written.
struct Writing {
    closings: Closings,
    /// Invoices that get their numbers, in this order.
    locked: Vec<String>,
}

impl BillingSync {
    /// Closes one period of each of several subscriptions. Answers what became of each; `None`, and nothing is closed,
    /// where a subscription was changed meanwhile. With an error some may be closed and others not: a repeat goes on.
    /// The caller holds the tenant's turn.
    pub(super) async fn close(
        &self,
        tenant: TenantId,
        scopes: &[Scope<'_>],
        asked: Asked<'_>,
    ) -> Result<Option<Vec<Closed>>, Problem> {
        let boundaries = scopes.iter().map(|scope| Boundary {
            subscription: scope.subscription.id.clone(),
            at: scope.period.end,
            round: 0,
        });
        let standing = self.parts.store.invoices_of(tenant, boundaries.collect()).await?;
        let courses = scopes.iter().zip(standing);
        let courses: Vec<Course> = courses
            .map(|(scope, standing)| self.course(scope, standing, asked))
            .collect();
        let building = scopes.iter().zip(&courses);
        let building = building.filter(|(_, course)| matches!(course, Course::Build { .. }));
        let building: Vec<Scope<'_>> = building.map(|(scope, _)| *scope).collect();
        let mut built = self.build_all(tenant, &building).await?.into_iter();
        let mut writing = Writing::of(scopes, asked);
        let mut steps = Vec::with_capacity(scopes.len());
        for (scope, course) in scopes.iter().zip(courses) {
            steps.push(match course {
                Course::Waits(until) => (Step::Waits(until), Vec::new(), None),
                Course::Stands(invoice) => {
                    writing.finish(&invoice);
                    (Step::Final, Vec::new(), None)
                }
                Course::Build { standing, may_lock } => {
                    let mut built = built.next().unwrap_or_default();
                    let (late, uncorrected) = (std::mem::take(&mut built.late), built.uncorrected.take());
                    let step = self.step(scope, built, (standing, may_lock), &mut writing)?;
                    (step, late, uncorrected)
                }
            });
        }
        let Some(changed) = self.write(tenant, writing).await? else {
            return Ok(None);
        };
        let closed = scopes
            .iter()
            .zip(steps)
            .map(|(scope, (step, late, uncorrected))| {
                let its = changed.iter().filter(|id| **id == scope.subscription.id);
                Closed {
                    step,
                    late,
                    uncorrected,
                    changes: i64::try_from(its.count()).unwrap_or(i64::MAX),
                }
            });
        Ok(Some(closed.collect()))
    }

    fn course(&self, scope: &Scope<'_>, standing: Option<Invoice>, asked: Asked<'_>) -> Course {
        let now = self.parts.clock.now(scope.tenant);
        let grace_us = self.grace_us(scope.tenant);
        let grace_over = scope.period.end.plus_micros(grace_us) <= now;
        match (asked, standing) {
            (_, Some(invoice)) if !invoice.is_draft() => Course::Stands(invoice),
            (Asked::ByRun(_), standing) => Course::Build {
                standing,
                may_lock: grace_over,
            },
            (Asked::ByClock, Some(draft)) if draft.locks_at > now => Course::Waits(draft.locks_at),
            (Asked::ByClock, Some(draft)) => Course::Build {
                standing: Some(draft),
                may_lock: true,
            },
            (Asked::ByClock, None) => Course::Build {
                standing: None,
                may_lock: grace_over && grace_us == 0,
            },
        }
    }

    fn step(
        &self,
        scope: &Scope<'_>,
        built: Built,
        (standing, may_lock): (Option<Invoice>, bool),
        writing: &mut Writing,
    ) -> Result<Step, Problem> {
        if built.lines.is_empty() && standing.is_none() {
            let grace_end = scope.period.end.plus_micros(self.grace_us(scope.tenant));
            if grace_end > self.parts.clock.now(scope.tenant) {
                return Ok(Step::Waits(grace_end));
            }
            writing.closings.closings.push(Closing::Empty {
                subscription: scope.subscription.id.clone(),
                period: scope.period,
            });
            return Ok(Step::Empty);
        }
        let mut invoice = self.draft(scope, 0, built)?;
        if let Some(standing) = standing {
            invoice.id = standing.id;
            (invoice.created, invoice.locks_at) = (standing.created, standing.locks_at);
        }
        if may_lock {
            writing.lock(invoice);
            return Ok(Step::Final);
        }
        let locks_at = invoice.locks_at;
        writing.closings.closings.push(Closing::Draft(invoice));
        Ok(Step::Draft(locks_at))
    }

    /// The subscriptions that were changed by writing it; `None`, and nothing is written, where one was changed meanwhile.
    async fn write(&self, tenant: TenantId, writing: Writing) -> Result<Option<Vec<String>>, Problem> {
        let mut changed = Vec::new();
        if !writing.closings.closings.is_empty() {
            let change = self.own_change(tenant);
            match self.parts.store.close(change, writing.closings).await? {
                Some(by_it) => changed = by_it,
                None => return Ok(None),
            }
        }
        self.number(tenant, writing.locked).await?;
        Ok(Some(changed))
    }

    /// Goes on with what is locked, whether just now or before a crash: it gets its number.
    pub(super) async fn number(&self, tenant: TenantId, locked: Vec<String>) -> Result<(), Problem> {
        if locked.is_empty() {
            return Ok(());
        }
        let finished = self
            .parts
            .store
            .finish_all(self.own_change(tenant), locked)
            .await?;
        metrics::counter!("turnpike_invoices_finalized_total").increment(finished);
        Ok(())
    }

    /// The invoice as it is before it has a number.
    pub(super) fn draft(&self, scope: &Scope<'_>, round: u32, built: Built) -> Result<Invoice, Problem> {
        let now = self.parts.clock.now(scope.tenant);
        Ok(Invoice {
            id: self.parts.randomness.new_id(),
            number: None,
            customer: scope.subscription.customer.clone(),
            parties: Some(self.parties(scope.tenant, &scope.subscription.customer)),
            subscription: scope.subscription.id.clone(),
            status: InvoiceStatus::Draft,
            currency: scope.subscription.currency,
            period: scope.period,
            round,
            totals: Totals::of(&built.lines)?,
            lines: built.lines,
            watermark: built.watermark,
            catalog_version: self.parts.directory.catalog(scope.tenant).version,
            previous_hash: String::new(),
            hash: String::new(),
            created: now,
            locks_at: scope.period.end.max(now).plus_micros(self.grace_us(scope.tenant)),
            finalized: None,
        })
    }

    /// The names as they are now.
    fn parties(&self, tenant: TenantId, customer: &str) -> Parties {
        let directory = &self.parts.directory;
        let known = directory.customer(tenant, customer);
        let name = known.as_ref().map(|known| known.name.clone());
        let name = name.filter(|name| !name.is_empty());
        Parties {
            seller: directory
                .tenant(tenant)
                .map_or_else(String::new, |tenant| tenant.name.clone()),
            bill_to: BillTo {
                name: name.unwrap_or_else(|| customer.to_owned()),
                email: known.and_then(|known| known.email.clone()),
            },
        }
    }

    /// A subscription that is over has no next invoice: what came late gets an invoice of its own. `None`, and nothing is
    /// written, where it was changed meanwhile.
    pub(super) async fn settle(
        &self,
        scope: Scope<'_>,
        asked: Asked<'_>,
    ) -> Result<Option<Settled>, Problem> {
        let mut built = self.build(scope).await?;
        let mut settled = Settled {
            late: std::mem::take(&mut built.late),
            uncorrected: built.uncorrected.take(),
            invoiced: false,
        };
        if built.lines.is_empty() {
            return Ok(Some(settled));
        }
        let round = self.next_round(&scope).await?;
        let mut writing = Writing::of(&[scope], asked);
        writing.lock(self.draft(&scope, round, built)?);
        settled.invoiced = true;
        Ok(self.write(scope.tenant, writing).await?.map(|_| settled))
    }

    pub(super) async fn next_round(&self, scope: &Scope<'_>) -> Result<u32, Problem> {
        let mut round = 1;
        loop {
            let boundary = Boundary {
                subscription: scope.subscription.id.clone(),
                at: scope.period.end,
                round,
            };
            let found = self.parts.store.invoices_of(scope.tenant, vec![boundary]).await?;
            if found.iter().all(Option::is_none) {
                return Ok(round);
            }
            round += 1;
        }
    }

    /// Makes an invoice final, at once. The answer is the invoice; a repeat answers the same.
    pub(super) async fn finalize(&self, change: Change, id: String) -> Result<Answer, Problem> {
        let tenant = change.tenant;
        let _turn = self.turn(tenant).await;
        while !self.lock_draft(tenant, &id).await? {}
        self.parts.store.finish(change, id).await
    }

    /// Locks an invoice that is a draft, at once. `false` where its subscription was changed meanwhile.
    async fn lock_draft(&self, tenant: TenantId, id: &str) -> Result<bool, Problem> {
        let found = self.parts.store.invoice(tenant, id.to_owned()).await?;
        let invoice = found.ok_or_else(|| Problem::not_found("invoice", id))?;
        if !invoice.is_draft() {
            return Ok(true);
        }
        let found = self.parts.directory.subscription(tenant, &invoice.subscription);
        let subscription = found.ok_or_else(|| Problem::not_found("subscription", &invoice.subscription))?;
        if invoice.boundary() > self.parts.clock.now(tenant) {
            let detail = "an invoice cannot be finalized before its period has ended";
            return Err(Problem::new(Code::IllegalTransition, detail));
        }
        let scope = Scope {
            tenant,
            subscription: &subscription,
            period: invoice.period,
            last_look: invoice.period.start,
            over: false,
        };
        let built = self.build(scope).await?;
        let locked = self.draft(&scope, invoice.round, built)?;
        let closings = Closings {
            closings: vec![Closing::Locked(locked)],
            seen: vec![Arc::clone(&subscription)],
            run: None,
        };
        let closed = self.parts.store.close(self.own_change(tenant), closings).await?;
        Ok(closed.is_some())
    }
}

impl Writing {
    fn of(scopes: &[Scope<'_>], asked: Asked<'_>) -> Self {
        let seen = scopes.iter().map(|scope| Arc::clone(scope.subscription));
        let run = match asked {
            Asked::ByRun(id) => Some(id.to_owned()),
            Asked::ByClock => None,
        };
        Self {
            closings: Closings {
                closings: Vec::new(),
                seen: seen.collect(),
                run,
            },
            locked: Vec::new(),
        }
    }

    fn lock(&mut self, invoice: Invoice) {
        self.locked.push(invoice.id.clone());
        self.closings.closings.push(Closing::Locked(invoice));
    }

    /// Goes on with what a crash left between lock and number.
    fn finish(&mut self, invoice: &Invoice) {
        if invoice.status == InvoiceStatus::Finalizing {
            self.locked.push(invoice.id.clone());
        }
    }
}
