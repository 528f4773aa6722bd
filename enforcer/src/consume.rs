use std::sync::Arc;

use turnpike_domain::catalog::FeatureKind;
use turnpike_domain::identity::{EventName, TenantId};
use turnpike_domain::limits::{NAME_BYTES_MAX, PROPERTIES_BYTES_MAX};
use turnpike_domain::port::intake::{Expect, Hold as IntakeHold, Known, QuotaOutcome, QuotaRecord};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::{Reason, decide};
use turnpike_domain::record::{EventRecord, GrantRecord, Record, encode};
use turnpike_domain::time::Timestamp;

use crate::Enforcer;
use crate::decide::{Taken, Taking};
use crate::entry::{Entry, Resolved, Verdict};
use crate::hold::{Hold, Holds};
use crate::known::{self, Past, PastGrant};
use crate::outcome::{LimitOutcome, Outcome};
use crate::resolve::meter_of;
use crate::tally::Call;
use crate::writer::{Writer, canonical};

/// The source of every event that a decision makes.
pub const QUOTA_SOURCE: &str = "turnpike:quota";

/// How often a take starts over when what it counts against changes under it.
const ATTEMPTS: usize = 8;

/// A question about a customer's feature.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// The customer's key.
    pub customer: &'a str,
    /// The feature's key.
    pub feature: &'a str,
    /// How much.
    pub amount: Quantity,
}

/// A consume, or the consuming half of a reservation.
#[derive(Debug, Clone, Copy)]
pub struct Consume<'a> {
    /// Its id: the id of the event that it becomes.
    pub id: &'a str,
    /// What is asked for.
    pub asked: Asked<'a>,
    /// The event's other data, a JSON object.
    pub properties: &'a str,
}

/// What a question was about, and its answer.
struct Looked {
    entry: Arc<Entry>,
    resolved: Arc<Resolved>,
    outcome: Outcome,
}

/// The result of taking quota: what to write, or the refusal.
pub(crate) enum Attempt {
    Granted {
        resolved: Arc<Resolved>,
        hold: Arc<Hold>,
        reason: Reason,
    },
    Refused(Arc<Resolved>, Box<Outcome>),
}

impl Enforcer {
    /// Answers without consuming. The amount may be 0: the figures alone.
    pub async fn check(&self, asked: Asked<'_>) -> Result<Outcome, Problem> {
        let Looked {
            entry,
            resolved,
            outcome,
        } = self.look(asked).await?;
        self.tally.count(Call::Check, outcome.reason);
        if outcome.allowed() {
            return Ok(outcome);
        }
        // In a box, so that the futures of grants need not have room for it.
        Box::pin(self.with_options(&entry, &resolved, asked.amount, outcome)).await
    }

    /// As a check, but counted as no decision, and with the grants in place of what would allow more.
    pub(crate) async fn entitlement(&self, asked: Asked<'_>) -> Result<Outcome, Problem> {
        let looked = self.look(asked).await?;
        Ok(looked.outcome.with_grants(&looked.resolved))
    }

    async fn look(&self, asked: Asked<'_>) -> Result<Looked, Problem> {
        if asked.amount.is_negative() {
            return Err(Problem::invalid("/amount", "must not be negative"));
        }
        let entry = self.entry(asked.tenant, asked.customer, asked.feature)?;
        entry.see(self.coarse_s.load(std::sync::atomic::Ordering::Relaxed));
        let now = self.parts.clock.now(asked.tenant);
        let resolved = self.resolve(&entry, now).await?;
        let outcome = match &resolved.verdict {
            Verdict::Denied(reason) => Outcome::plain(&entry, &resolved, *reason, now),
            Verdict::Entitled(_) => Outcome::plain(&entry, &resolved, Reason::Entitled, now),
            Verdict::Metered(_) => {
                let limits = LimitOutcome::of_all(&resolved, resolved.figures());
                let decision = decide(asked.amount.parts(), limits.iter().map(|limit| limit.figures));
                let decision = decision.map_or((Reason::Unlimited, None), |d| (d.reason, Some(d.index)));
                Outcome::new(&entry, &resolved, limits, decision, now)
            }
        };
        Ok(Looked {
            entry,
            resolved,
            outcome,
        })
    }

    /// Decides and records in one durable step, once per id.
    pub async fn consume(&self, call: Consume<'_>) -> Result<Outcome, Problem> {
        let Asked { tenant, amount, .. } = call.asked;
        let (entry, writer) = self.prepare_call(&call)?;
        let data = writer.data(call.properties, amount)?;
        let digest = self.digest("consume", &call, &[])?;
        let name = self.parts.key.name(tenant, QUOTA_SOURCE, call.id);
        let _turn = self.in_flight.enter(name).await;
        if let Some(known) = self.lookup(name).await? {
            match known::read(&known, name)? {
                Past::Closed { .. } => {}
                past => return self.repeated(&entry, past, digest).await,
            }
        }
        let now = self.parts.clock.now(tenant);
        let (resolved, hold, reason) = match self.attempt(&entry, amount, now, Taking::Event).await? {
            Attempt::Granted {
                resolved,
                hold,
                reason,
            } => (resolved, hold, reason),
            Attempt::Refused(resolved, outcome) => {
                self.tally.count(Call::Consume, outcome.reason);
                return self.with_options(&entry, &resolved, amount, *outcome).await;
            }
        };
        let subject = hold.subject.clone();
        let event = self.event(&call, &writer, &subject, now, &data);
        let grant = grant_record(&call.asked, reason, digest);
        let record = Record::Event(EventRecord {
            grant: Some(grant),
            ..event
        });
        let holds = Arc::new(Holds {
            holds: vec![hold],
            meter: writer.meter.id,
        });
        let written = self.write(name, digest, &record, Expect::Free, Some(&holds));
        match written.await? {
            QuotaOutcome::Written(_) => {
                // It ended as its event was applied, unless the event's meter was being taken away.
                holds.give_back();
                self.tally.count(Call::Consume, reason);
                Ok(Outcome::granted(&entry, &resolved, reason, now))
            }
            QuotaOutcome::Occupied(known) => {
                holds.give_back();
                self.repeated(&entry, known::read(&known, name)?, digest).await
            }
        }
    }

    /// Takes `amount` at `time` from what stands for that instant.
    pub(crate) async fn attempt(
        &self,
        entry: &Arc<Entry>,
        amount: Quantity,
        time: Timestamp,
        what: Taking,
    ) -> Result<Attempt, Problem> {
        entry.see(self.coarse_s.load(std::sync::atomic::Ordering::Relaxed));
        for _ in 0..ATTEMPTS {
            let resolved = self.resolve(entry, time).await?;
            let plain = |reason| Outcome::plain(entry, &resolved, reason, time);
            let refused = match &resolved.verdict {
                Verdict::Denied(reason) => plain(*reason),
                Verdict::Entitled(_) => plain(Reason::Entitled),
                Verdict::Metered(_) => match self.take(entry, &resolved, amount, time, what) {
                    Taken::Granted(hold, decision) => {
                        let reason = decision.reason;
                        return Ok(Attempt::Granted {
                            resolved,
                            hold,
                            reason,
                        });
                    }
                    Taken::Refused(decision, figures) => Outcome::new(
                        entry,
                        &resolved,
                        LimitOutcome::of_all(&resolved, figures.into_iter()),
                        (decision.reason, Some(decision.index)),
                        time,
                    ),
                    Taken::Stale => continue,
                },
            };
            return Ok(Attempt::Refused(resolved, Box::new(refused)));
        }
        Err(Problem::new(
            Code::Unavailable,
            "limits change faster than they can be taken from; try again",
        ))
    }

    /// Checks what a call that consumes sends, and finds its entry and the writer of its events.
    pub(crate) fn prepare_call(&self, call: &Consume<'_>) -> Result<(Arc<Entry>, Arc<Writer>), Problem> {
        self.connected()?;
        if call.id.is_empty() || call.id.len() > NAME_BYTES_MAX {
            return Err(Problem::invalid(
                "/id",
                format!("must be 1 to {NAME_BYTES_MAX} bytes"),
            ));
        }
        if call.asked.amount <= Quantity::ZERO {
            return Err(Problem::invalid("/amount", "must be above 0"));
        }
        if call.properties.len() > PROPERTIES_BYTES_MAX {
            return Err(Problem::invalid(
                "/properties",
                format!("has more than {PROPERTIES_BYTES_MAX} bytes"),
            ));
        }
        let Asked {
            tenant,
            customer,
            feature,
            ..
        } = call.asked;
        let entry = self.entry(tenant, customer, feature)?;
        let writer = self.writer(tenant, feature)?;
        writer.check_amount(call.asked.amount)?;
        Ok((entry, writer))
    }

    /// The writer of a metered feature's events.
    pub(crate) fn writer(&self, tenant: TenantId, feature: &str) -> Result<Arc<Writer>, Problem> {
        let catalog = self.parts.directory.catalog(tenant);
        let declared = catalog
            .features
            .get(feature)
            .ok_or_else(|| Problem::not_found("feature", feature))?;
        if declared.kind != FeatureKind::Metered {
            let detail = format!("\"{feature}\" is not metered: ask /v1/quota/check");
            return Err(Problem::invalid("/feature", detail));
        }
        let meter = meter_of(&catalog, declared)?;
        if let Some(writer) = self
            .writers
            .get(&meter.id)
            .filter(|writer| writer.meter == *meter)
        {
            return Ok(writer.clone());
        }
        let writer = Arc::new(Writer::new(meter)?);
        self.writers.insert(meter.id, writer.clone());
        Ok(writer)
    }

    /// A hash of what a call asks for, so that a repeat is told from another call with its id. Spelling does not matter.
    pub(crate) fn digest(&self, what: &str, call: &Consume<'_>, more: &[&[u8]]) -> Result<u64, Problem> {
        let properties = canonical(call.properties)?;
        let amount = call.asked.amount.parts().to_le_bytes();
        let Asked {
            customer, feature, ..
        } = call.asked;
        let mut parts: Vec<&[u8]> = vec![
            what.as_bytes(),
            customer.as_bytes(),
            feature.as_bytes(),
            &amount,
            properties.as_bytes(),
        ];
        parts.extend(more);
        Ok(self.parts.key.digest(&parts))
    }

    pub(crate) async fn lookup(&self, name: EventName) -> Result<Option<Known>, Problem> {
        let known = self.connected()?.intake.lookup(vec![name]).await?;
        Ok(known.into_iter().next().flatten())
    }

    pub(crate) async fn write(
        &self,
        name: EventName,
        digest: u64,
        record: &Record<'_>,
        expect: Expect,
        holds: Option<&Arc<Holds>>,
    ) -> Result<QuotaOutcome, Problem> {
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        let hold = holds.cloned().map(|holds| holds as IntakeHold);
        let record = QuotaRecord {
            name,
            digest,
            record: bytes,
            expect,
            hold,
        };
        // After a failure nobody knows the holds any more once the partition has let go of them, and so they end.
        self.connected()?.intake.quota(record).await
    }

    pub(crate) fn event<'a>(
        &self,
        call: &Consume<'a>,
        writer: &'a Writer,
        subject: &'a str,
        time: Timestamp,
        data: &'a str,
    ) -> EventRecord<'a> {
        EventRecord {
            tenant: call.asked.tenant.0,
            source: QUOTA_SOURCE,
            id: call.id,
            kind: &writer.meter.event_type,
            subject,
            time_us: time.micros(),
            time_sent: false,
            received_us: self.parts.clock.now(call.asked.tenant).micros(),
            data,
            extensions: "",
            grant: None,
        }
    }

    /// Answers a consume whose id is taken: as it was answered first, if it is the same call.
    async fn repeated(&self, entry: &Arc<Entry>, past: Past, digest: u64) -> Result<Outcome, Problem> {
        match past {
            Past::Granted(grant) if grant.digest == digest => self.again(entry, &grant).await,
            _ => Err(conflict()),
        }
    }

    /// A grant as it was answered first, with current figures.
    pub(crate) async fn again(&self, entry: &Arc<Entry>, grant: &PastGrant) -> Result<Outcome, Problem> {
        let now = self.parts.clock.now(entry.tenant);
        let resolved = self.resolve(entry, now).await?;
        metrics::counter!("turnpike_quota_repeats_total").increment(1);
        Ok(Outcome::granted(entry, &resolved, grant.reason, now))
    }
}

/// The decision behind an event or a reservation.
pub(crate) fn grant_record<'a>(asked: &Asked<'a>, reason: Reason, digest: u64) -> GrantRecord<'a> {
    GrantRecord {
        customer: asked.customer,
        feature: asked.feature,
        amount: asked.amount.parts(),
        reason: reason.as_str(),
        body_digest: digest,
    }
}

pub(crate) fn conflict() -> Problem {
    Problem::new(
        Code::EventConflict,
        "this id was used before for something else; the first one stands: use another id",
    )
}
