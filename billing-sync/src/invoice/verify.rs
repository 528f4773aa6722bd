//! Deriving an invoice again from the raw log, with the prices and the watermark that it was made with.

use std::sync::Arc;

use serde::Serialize;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Basis, Difference, Invoice, Line, compare_seals, sum_billed};
use turnpike_domain::port::billing::{BilledFilter, BillingStore};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::usage::{GroupTotal, UsageReader};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::record::Watermark;

use super::build::flat_amount;
use super::commitment;
use super::metered::{self, Cost};

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
    /// For meters that were taken away.
    pub directory: Arc<dyn Directory>,
    /// Invoices.
    pub store: Arc<dyn BillingStore>,
    /// The raw log.
    pub usage: Arc<dyn UsageReader>,
}

impl Verifier {
    /// Derives one invoice again. An error for one that is not final, and where the log or the store cannot be read.
    pub async fn verify(&self, tenant: TenantId, invoice: &Invoice) -> Result<Verification, Problem> {
        if invoice.number.is_none() {
            let detail = "an invoice is verified once it is final: finalize it first";
            return Err(Problem::new(Code::IllegalTransition, detail));
        }
        let mut differences = compare_seals(invoice);
        differences.extend(self.compare_chain(tenant, invoice).await?);
        differences.extend(self.compare_earlier(tenant, invoice).await?);
        let rows = match self.rows(tenant, invoice).await? {
            Ok(rows) => rows,
            Err(reason) => return Ok(Self::unknown(reason, differences)),
        };
        let mut rows = rows.into_iter();
        for (at, line) in invoice.lines.iter().enumerate() {
            let rows = line.basis.usage().and_then(|_| rows.next());
            differences.extend(compare_line(invoice, at, line, rows.as_deref())?);
        }
        Ok(Verification {
            verified: Some(differences.is_empty()),
            reason: None,
            differences,
        })
    }

    /// Without the raw events nothing is certain but what is already found to be wrong.
    fn unknown(reason: &str, differences: Vec<Difference>) -> Verification {
        Verification {
            verified: (!differences.is_empty()).then_some(false),
            reason: Some(reason.to_owned()),
            differences,
        }
    }

    /// The invoice with the number before must have the hash that this one was chained to.
    async fn compare_chain(
        &self,
        tenant: TenantId,
        invoice: &Invoice,
    ) -> Result<Option<Difference>, Problem> {
        let before = match invoice.number.unwrap_or_default() {
            0 | 1 => None,
            number => self.store.invoice_by_number(tenant, number - 1).await?,
        };
        let expected = before.map(|before| before.seal()).unwrap_or_default();
        Ok(Difference::of("/previous_hash", expected, &invoice.previous_hash))
    }

    /// What adjustments say was billed before must be what earlier invoices say.
    async fn compare_earlier(&self, tenant: TenantId, invoice: &Invoice) -> Result<Vec<Difference>, Problem> {
        let adjusts =
            |line: &&Line| matches!(line.basis, Basis::Adjustment { .. } | Basis::Commitment { .. });
        let Some(first) = invoice
            .lines
            .iter()
            .filter(adjusts)
            .map(|line| line.period.start)
            .min()
        else {
            return Ok(Vec::new());
        };
        let filter = BilledFilter {
            subscription: invoice.subscription.clone(),
            ends_after: first,
            number_below: invoice.number,
        };
        let lines = self.store.billed_lines(tenant, filter).await?;
        let billed = sum_billed(lines.iter())?;
        let mut differences = Vec::new();
        for (at, line) in invoice.lines.iter().enumerate() {
            let pointer = format!("/lines/{at}/billed_before");
            match &line.basis {
                Basis::Adjustment {
                    billed_quantity,
                    billed_amount,
                    ..
                } => {
                    let same = billed.iter().find(|billed| same_price(billed, line));
                    let before = same.map(|billed| (billed.quantity, billed.amount));
                    let (quantity, amount) = before.unwrap_or_default();
                    differences.extend(Difference::of(&pointer, quantity, billed_quantity));
                    differences.extend(Difference::of(pointer, amount, billed_amount));
                }
                Basis::Commitment {
                    billed_amount,
                    settled_amount,
                    ..
                } => {
                    let before = commitment::charged(&lines, line.period.start)?;
                    differences.extend(Difference::of(&pointer, before.others, billed_amount));
                    differences.extend(Difference::of(pointer, before.settled, settled_amount));
                }
                _ => {}
            }
        }
        Ok(differences)
    }

    /// The usage of each line that has one, from the log alone; or why it cannot be told.
    async fn rows(
        &self,
        tenant: TenantId,
        invoice: &Invoice,
    ) -> Result<Result<Vec<Vec<GroupTotal>>, &'static str>, Problem> {
        let mut requests = Vec::new();
        let catalog = self.directory.catalog(tenant);
        for line in &invoice.lines {
            let Some((price, counted)) = line.basis.usage() else {
                continue;
            };
            let request = metered::request(price, counted, line.period)?;
            if !catalog.meters.contains_key(&request.meter) {
                return Ok(Err("meter_deleted"));
            }
            requests.push(request);
        }
        if requests.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let watermark: Watermark = invoice.watermark.clone().unwrap_or_default();
        match self.usage.totals_from_log(tenant, requests, watermark).await {
            Ok(totals) => Ok(Ok(totals.rows)),
            Err(problem) if problem.code == Code::NotFound => Ok(Err("raw_events_deleted")),
            Err(problem) => Err(problem),
        }
    }
}

fn same_price(billed: &turnpike_domain::invoice::BilledUsage, line: &Line) -> bool {
    billed.period == line.period && billed.source == line.source && billed.price.key == line.price
}

/// Compares quantity and amount of a line with what its basis and the log give.
fn compare_line(
    invoice: &Invoice,
    at: usize,
    line: &Line,
    rows: Option<&[GroupTotal]>,
) -> Result<Vec<Difference>, Problem> {
    let cost = |price| metered::cost(price, rows.unwrap_or_default(), invoice.currency);
    let (quantity, amount) = match &line.basis {
        Basis::Recurring {
            price,
            part_us,
            whole_us,
        } => (
            Quantity::ONE,
            flat_amount(price, *part_us, *whole_us, invoice.currency)?,
        ),
        Basis::Usage { price, .. } => {
            let Cost { quantity, usage, .. } = cost(price)?;
            (quantity, usage)
        }
        Basis::Minimum { price, .. } => (Quantity::ZERO, cost(price)?.missing),
        Basis::Adjustment {
            price,
            billed_quantity,
            billed_amount,
            ..
        } => {
            let now = cost(price)?;
            let quantity = now.quantity.checked_sub(*billed_quantity);
            let amount = now.whole()?.checked_sub(*billed_amount);
            (
                quantity.ok_or_else(metered::overflow)?,
                amount.ok_or_else(metered::overflow)?,
            )
        }
        Basis::Commitment { .. } => {
            let others = commitment::charged(&invoice.lines, line.period.start)?.others;
            let amount = commitment::amount(&line.basis, others, invoice.currency)?;
            (Quantity::ZERO, amount)
        }
    };
    let text = |minor: i64| invoice.currency.format_amount(minor);
    let quantity = Difference::of(format!("/lines/{at}/quantity"), quantity, line.quantity);
    let amount = Difference::of(format!("/lines/{at}/amount"), text(amount), text(line.amount));
    Ok(quantity.into_iter().chain(amount).collect())
}
