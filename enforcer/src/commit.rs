use std::sync::Arc;

use turnpike_domain::identity::TenantId;
use turnpike_domain::port::intake::{Expect, QuotaOutcome};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::{Figures, Reason, granted};
use turnpike_domain::record::{EventRecord, Position, Record};
use turnpike_domain::time::Timestamp;

use crate::Enforcer;
use crate::consume::{Asked, Attempt, Consume, QUOTA_SOURCE, conflict, grant_record};
use crate::decide::Taking;
use crate::hold::{Hold, Holds};
use crate::known::{Past, PastGrant};
use crate::outcome::Outcome;
use crate::reservations::Reservation;
use crate::reserve::{Found, changed_meanwhile};
use crate::tally::Call;
use crate::waiting::{Refused, granted_at_us};

/// A commit as it was asked for.
struct Commit<'a> {
    reservation: &'a Arc<Reservation>,
    /// The newest record of the reservation.
    at: Position,
    amount: Quantity,
    /// The time that its event counts for.
    time: Timestamp,
}

impl Enforcer {
    /// Turns a reservation into usage: of what was reserved unless said, of less, or of more within the limits. After
    /// its end it is decided anew.
    ///
    /// In time, the event counts for the instant at which the reservation was granted, so that it lies in the windows
    /// that held it; decided anew, for the instant of that decision.
    pub(crate) async fn commit(
        &self,
        tenant: TenantId,
        id: &str,
        amount: Option<Quantity>,
    ) -> Result<Outcome, Problem> {
        if amount.is_some_and(Quantity::is_negative) {
            return Err(Problem::invalid("/amount", "must not be negative"));
        }
        let name = self.parts.key.name(tenant, QUOTA_SOURCE, id);
        let _turn = self.in_flight.enter(name).await;
        let now = self.parts.clock.now(tenant);
        let (reservation, at) = match self.find(id, name).await? {
            Found::Open(open, at) if now < open.expires => {
                let amount = amount.unwrap_or(open.amount);
                let time = open.made;
                return self
                    .commit_held(
                        Commit {
                            reservation: &open,
                            at,
                            amount,
                            time,
                        },
                        now,
                    )
                    .await;
            }
            Found::Open(open, at) => {
                let at = self.close(&open, at, open.expires, true).await?;
                (open, at)
            }
            Found::Past(Past::Closed {
                expired: true,
                at,
                reservation,
            }) => (reservation, at),
            Found::Past(Past::Closed { .. }) => {
                return Err(Problem::new(
                    Code::ReservationClosed,
                    "this reservation was released before",
                ));
            }
            Found::Past(Past::Committed {
                grant,
                reserved_amount,
                expires,
                ..
            }) => {
                let asked = amount.map_or(reserved_amount, Quantity::parts);
                let again = self.commit_again(tenant, &grant, asked).await?;
                return Ok(again.with_reservation(id, "committed", expires));
            }
            Found::Past(Past::Granted(grant)) => {
                let asked = amount.map_or(grant.amount, Quantity::parts);
                return self.commit_again(tenant, &grant, asked).await;
            }
            Found::Past(_) => return Err(conflict()),
        };
        let amount = amount.unwrap_or(reservation.amount);
        self.commit_anew(Commit {
            reservation: &reservation,
            at,
            amount,
            time: now,
        })
        .await
    }

    /// What was decided for `reason` and is written, with the figures of `now`: of a customer that was erased since, or a
    /// feature that is gone, without any, for it stands all the same.
    pub(crate) async fn written(
        &self,
        tenant: TenantId,
        (customer, feature): (&str, &str),
        reason: Reason,
        now: Timestamp,
    ) -> Result<Outcome, Problem> {
        let shown = async {
            let entry = self.entry(tenant, customer, feature)?;
            let resolved = self.resolve(&entry, now).await?;
            Ok(Outcome::granted(&entry, &resolved, reason, now))
        };
        let shown = unless_gone(shown.await)?;
        Ok(shown.unwrap_or_else(|| Outcome::without_figures(customer.into(), feature.into(), reason, now)))
    }

    /// Answers a commit that was granted before as it was answered first, if it is the same.
    async fn commit_again(
        &self,
        tenant: TenantId,
        grant: &PastGrant,
        amount: i128,
    ) -> Result<Outcome, Problem> {
        // A consume has another digest than a commit of its amount.
        if grant.digest != self.commit_digest(amount) {
            return Err(conflict());
        }
        let now = self.parts.clock.now(tenant);
        metrics::counter!("turnpike_quota_repeats_total").increment(1);
        self.written(tenant, (&grant.customer, &grant.feature), grant.reason, now)
            .await
    }

    /// Commits what is held, and takes what is asked for beyond it.
    async fn commit_held(&self, commit: Commit<'_>, now: Timestamp) -> Result<Outcome, Problem> {
        let Commit {
            reservation,
            amount,
            time,
            ..
        } = commit;
        let mut holds: Vec<_> = reservation.hold.iter().cloned().collect();
        let beyond = amount.checked_sub(reservation.amount).unwrap_or_default();
        let mut reason = Reason::parse(&reservation.reason).unwrap_or(Reason::WithinLimit);
        if beyond > Quantity::ZERO {
            let entry = self.entry(reservation.tenant, &reservation.customer, &reservation.feature)?;
            match self.attempt(&entry, beyond, time, Taking::Event).await? {
                Attempt::Granted {
                    hold,
                    reason: granted,
                    ..
                } => {
                    holds.push(hold);
                    reason = granted;
                }
                Attempt::Refused(resolved, outcome) => {
                    self.tally.count(Call::Commit, outcome.reason);
                    let outcome = outcome.with_reservation(&reservation.id, "open", reservation.expires);
                    let outcome = self.with_options(&entry, &resolved, beyond, outcome).await?;
                    // While it is open, the windows that held it decide, whatever resets; once it has ended, those of
                    // then decide on all of it.
                    let refused = Refused {
                        whole: amount,
                        more: beyond,
                    };
                    return Ok(Outcome {
                        granted_at_us: granted_at_us(&resolved, &outcome, refused),
                        as_of: now,
                        ..outcome
                    });
                }
            }
        } else if beyond.is_negative() && matches!(reason, Reason::Overage | Reason::WithinGrace) {
            let less = unless_gone(self.reason_of_less(reservation, beyond, time).await)?;
            reason = less.flatten().unwrap_or(reason);
        }
        self.write_commit(&commit, holds, reason).await?;
        self.reservations.remove(reservation);
        let of = (&*reservation.customer, &*reservation.feature);
        let outcome = self.written(reservation.tenant, of, reason, now).await?;
        Ok(outcome.with_reservation(&reservation.id, "committed", reservation.expires))
    }

    /// Why less is granted than was held beyond a limit: by what stands at `time` without what is given back.
    async fn reason_of_less(
        &self,
        reservation: &Reservation,
        less: Quantity,
        time: Timestamp,
    ) -> Result<Option<Reason>, Problem> {
        let entry = self.entry(reservation.tenant, &reservation.customer, &reservation.feature)?;
        let resolved = self.resolve(&entry, time).await?;
        let after = resolved.figures().map(|figures| Figures {
            total: figures.total.saturating_add(less.parts()),
            ..figures
        });
        Ok(granted(after).map(|decision| decision.reason))
    }

    /// Decides a commit that came too late, as a consume of its own.
    async fn commit_anew(&self, commit: Commit<'_>) -> Result<Outcome, Problem> {
        let Commit {
            reservation,
            amount,
            time,
            ..
        } = commit;
        let entry = self.entry(reservation.tenant, &reservation.customer, &reservation.feature)?;
        match self.attempt(&entry, amount, time, Taking::Event).await? {
            Attempt::Granted {
                resolved,
                hold,
                reason,
            } => {
                self.write_commit(&commit, vec![hold], reason).await?;
                let outcome = Outcome::granted(&entry, &resolved, reason, time);
                Ok(outcome.with_reservation(&reservation.id, "committed", reservation.expires))
            }
            Attempt::Refused(resolved, outcome) => {
                self.tally.count(Call::Commit, outcome.reason);
                let outcome = outcome.with_reservation(&reservation.id, "expired", reservation.expires);
                self.with_options(&entry, &resolved, amount, outcome).await
            }
        }
    }

    fn commit_digest(&self, amount: i128) -> u64 {
        self.parts.key.digest(&[b"commit", &amount.to_le_bytes()])
    }

    async fn write_commit(
        &self,
        commit: &Commit<'_>,
        holds: Vec<Arc<Hold>>,
        reason: Reason,
    ) -> Result<(), Problem> {
        let Commit {
            reservation,
            at,
            amount,
            time,
        } = *commit;
        let writer = self.writer(reservation.tenant, &reservation.feature)?;
        let data = writer.data(&reservation.properties, amount)?;
        let directory = &*self.parts.directory;
        let customer = directory.customer(reservation.tenant, &reservation.customer);
        let customer = customer.ok_or_else(|| Problem::not_found("customer", &reservation.customer))?;
        let asked = Asked {
            tenant: reservation.tenant,
            customer: &reservation.customer,
            feature: &reservation.feature,
            amount,
        };
        let call = Consume {
            id: &reservation.id,
            asked,
            properties: &reservation.properties,
        };
        let subject = customer.subjects.first().unwrap_or(&customer.key);
        let event = self.event(&call, &writer, subject, time, &data);
        let grant = grant_record(&asked, reason, self.commit_digest(amount.parts()));
        let record = Record::Committed {
            reservation: reservation.record(),
            event: EventRecord {
                grant: Some(grant),
                ..event
            },
        };
        let meter = writer.meter.id;
        let holds = Arc::new(Holds { holds, meter });
        match self
            .write(
                reservation.name,
                reservation.digest,
                &record,
                Expect::At(at),
                Some(&holds),
            )
            .await?
        {
            QuotaOutcome::Written(_) => {
                // They ended as the event was applied, unless its meter was being taken away.
                holds.give_back();
                self.tally.count(Call::Commit, reason);
                Ok(())
            }
            QuotaOutcome::Occupied(_) => {
                self.forget(reservation);
                Err(changed_meanwhile())
            }
        }
    }
}

/// Nothing where the customer or the feature is gone.
fn unless_gone<T>(found: Result<T, Problem>) -> Result<Option<T>, Problem> {
    match found {
        Err(problem) if problem.code == Code::NotFound => Ok(None),
        found => found.map(Some),
    }
}
