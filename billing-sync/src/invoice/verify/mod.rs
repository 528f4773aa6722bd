//! Deriving invoices again from the raw log, with the prices and the watermarks that they were made with.

mod declared;
mod derived;
mod earlier;

use std::sync::Arc;

use serde::Serialize;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Difference, Invoice, compare_history, compare_seals, number_text};
use turnpike_domain::port::billing::{BillingStore, Kept};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::usage::{Derivation, GroupTotal, Totals, Underivable, UsageReader};
use turnpike_domain::problem::{Code, Problem};

use super::metered;

/// What came of deriving an invoice again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Verification {
    /// Whether everything is the same; null when it cannot be told.
    pub verified: Option<bool>,
    /// Why it cannot be told: `raw_events_deleted`, `meter_deleted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is not as it should be.
    pub differences: Vec<Difference>,
}

/// Derives invoices again. Shares no state with what made them.
#[derive(Clone)]
pub struct Verifier {
    /// For plans, subscriptions, and meters that were taken away.
    pub directory: Arc<dyn Directory>,
    /// Invoices.
    pub store: Arc<dyn BillingStore>,
    /// The raw log.
    pub usage: Arc<dyn UsageReader>,
}

/// What is known of an invoice before the log is read.
struct Begun {
    differences: Vec<Difference>,
    /// Why its usage cannot be derived.
    reason: Option<&'static str>,
    /// Whether it has a derivation.
    derives: bool,
}

impl Begun {
    fn different(difference: Difference) -> Self {
        Self {
            differences: vec![difference],
            reason: None,
            derives: false,
        }
    }

    fn told(self) -> Verification {
        Verification {
            // Without the raw events nothing is certain but what is already found to be wrong.
            verified: match (self.differences.is_empty(), self.reason) {
                (false, _) => Some(false),
                (true, None) => Some(true),
                (true, Some(_)) => None,
            },
            reason: self.reason.map(str::to_owned),
            differences: self.differences,
        }
    }
}

/// A number of the series under which nothing is kept.
fn missing(number: u64) -> Difference {
    Difference {
        pointer: "/number".to_owned(),
        expected: number_text(number),
        found: "no invoice".to_owned(),
    }
}

impl Verifier {
    /// Derives one invoice again. An error for one that is not final, and where the log or the store cannot be read.
    pub async fn verify(&self, tenant: TenantId, invoice: Kept) -> Result<Verification, Problem> {
        let found = self.verify_all(&[(tenant, invoice)]).await?;
        let none = || Problem::new(Code::Internal, "an invoice was not verified");
        found.into_iter().next().ok_or_else(none)
    }

    /// Derives these invoices again, in their order, with one pass over the log. Its memory grows with their lines. One
    /// that is gone, or that cannot be read, is told as a difference.
    pub async fn verify_all(&self, invoices: &[(TenantId, Kept)]) -> Result<Vec<Verification>, Problem> {
        let mut begun = Vec::with_capacity(invoices.len());
        let mut derivations = Vec::new();
        for (tenant, kept) in invoices {
            let (one, derivation) = match kept {
                Kept::Whole(invoice) => self.begin(*tenant, invoice).await?,
                Kept::Broken(broken) => (Begun::different(broken.field.clone()), None),
                Kept::Missing(number) => (Begun::different(missing(*number)), None),
            };
            derivations.extend(derivation);
            begun.push(one);
        }
        let totals = if derivations.is_empty() {
            Vec::new()
        } else {
            self.usage.totals_from_log(derivations).await?
        };
        let mut totals = totals.into_iter();
        let mut found = Vec::with_capacity(invoices.len());
        for (begun, (_, kept)) in begun.into_iter().zip(invoices) {
            let totals = begun.derives.then(|| totals.next()).flatten();
            found.push(match kept {
                Kept::Whole(invoice) => end(begun, invoice, totals),
                Kept::Broken(_) | Kept::Missing(_) => begun.told(),
            });
        }
        Ok(found)
    }

    /// Everything but the log.
    async fn begin(
        &self,
        tenant: TenantId,
        invoice: &Invoice,
    ) -> Result<(Begun, Option<Derivation>), Problem> {
        if invoice.number.is_none() {
            let detail = format!(
                "the invoice \"{}\" is verified once it is final: finalize it first",
                invoice.id
            );
            return Err(Problem::new(Code::IllegalTransition, detail));
        }
        let mut differences = compare_seals(invoice);
        differences.extend(match self.store.history(tenant, invoice.id.clone()).await? {
            Ok(history) => compare_history(invoice, &history),
            Err(broken) => Some(broken.field),
        });
        differences.extend(self.compare_series(tenant, invoice).await?);
        differences.extend(self.compare_chain(tenant, invoice).await?);
        differences.extend(self.compare_earlier(tenant, invoice).await?);
        differences.extend(self.compare_subscription(tenant, invoice));
        differences.extend(self.compare_declared(tenant, invoice));
        let mut begun = Begun {
            differences,
            reason: None,
            derives: false,
        };
        let catalog = self.directory.catalog(tenant);
        let mut requests = Vec::new();
        for (at, line) in invoice.lines.iter().enumerate() {
            let Some((price, counted)) = line.basis.usage() else {
                continue;
            };
            match metered::request(price, counted, line.period) {
                Ok(request) if !catalog.meters.contains_key(&request.meter) => {
                    begun.reason = Some("meter_deleted");
                }
                Ok(request) => requests.push(request),
                Err(problem) => {
                    let pointer = format!("/lines/{at}/price");
                    let derivable = "a price whose usage can be derived";
                    let difference = Difference::of(pointer, derivable, problem.detail);
                    begun.differences.extend(difference);
                    begun.reason = Some("not_derivable");
                }
            }
        }
        begun.derives = begun.reason.is_none() && !requests.is_empty();
        let derivation = begun.derives.then(|| Derivation {
            tenant,
            requests,
            watermark: invoice.watermark.clone().unwrap_or_default(),
        });
        Ok((begun, derivation))
    }
}

/// Compares the lines with what the log gave.
fn end(begun: Begun, invoice: &Invoice, totals: Option<Result<Totals, Underivable>>) -> Verification {
    let (mut differences, mut reason) = (begun.differences.clone(), begun.reason);
    let mut rows: Vec<Vec<GroupTotal>> = Vec::new();
    match totals {
        None => {}
        Some(Ok(totals)) => rows = totals.rows,
        Some(Err(Underivable::Deleted(_))) => reason = Some("raw_events_deleted"),
        Some(Err(Underivable::BehindTheEnd(end))) => {
            let watermark = invoice.watermark.clone().unwrap_or_default();
            let inside = format!("at most {}, where the log ends", end.0);
            differences.extend(Difference::of("/watermark", inside, watermark));
            reason = Some("not_derivable");
        }
        Some(Err(Underivable::Invalid(problem))) => {
            let derivable = "prices whose usage can be derived";
            differences.extend(Difference::of("/lines", derivable, problem.detail));
            reason = Some("not_derivable");
        }
    }
    if reason.is_none() {
        differences.extend(derived::compare(invoice, &rows));
    }
    let ended = Begun {
        differences,
        reason,
        ..begun
    };
    ended.told()
}
