//! An invoice as the API shows it.

use serde::{Deserialize, Serialize};

use super::{BillTo, Invoice, InvoiceStatus, Line, LineKind, number_text};
use crate::money::Currency;
use crate::rating::Price;
use crate::time::{TimeRange, Timestamp};

/// A time from `start` until before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PeriodView {
    /// The first instant.
    #[schema(value_type = String, format = DateTime)]
    pub start: Timestamp,
    /// The instant behind the last.
    #[schema(value_type = String, format = DateTime)]
    pub end: Timestamp,
}

impl From<TimeRange> for PeriodView {
    fn from(range: TimeRange) -> Self {
        Self {
            start: range.start,
            end: range.end,
        }
    }
}

/// A line. Amounts are decimals of the invoice's currency.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct LineView {
    /// What it is for.
    pub kind: LineKind,
    /// The price's key.
    pub price: String,
    /// The meter, for usage.
    pub meter: Option<String>,
    /// For people.
    pub description: String,
    /// How much; 1 for a flat price.
    pub quantity: String,
    /// The amount.
    pub amount: String,
    /// The time that it is for.
    pub period: PeriodView,
    /// Where the price is declared: `plan/<key>@<version>` or `add_on/<key>@<version>`.
    pub source: String,
    /// The price as it was applied.
    pub terms: Option<Price>,
    /// What of the log its usage contains; none for a flat price.
    pub watermark: Option<String>,
    /// The hash of the line.
    pub hash: String,
}

/// An invoice. Amounts are decimals of its currency.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct InvoiceView {
    /// Its id; null for an upcoming one.
    pub id: Option<String>,
    /// Its number in the tenant's gapless series; null before it is final.
    pub number: Option<String>,
    /// The customer's key.
    pub customer: String,
    /// Whom it is addressed to. It stays as it was when the invoice was locked.
    pub bill_to: Option<BillTo>,
    /// The name of the tenant, whose invoice it is; it stays likewise.
    pub seller: Option<String>,
    /// The subscription's id.
    pub subscription: String,
    /// Where it stands.
    pub status: InvoiceStatus,
    /// The currency.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$")]
    pub currency: Currency,
    /// The period that it closes.
    pub period: PeriodView,
    /// What it is made of.
    pub lines: Vec<LineView>,
    /// The sum before discounts, credits and taxes.
    pub subtotal: String,
    /// What discounts take off.
    pub discount: String,
    /// What credits take off.
    pub credits: String,
    /// Taxes.
    pub tax: String,
    /// What is owed.
    pub total: String,
    /// What is still to be paid; below zero, what is owed to the customer.
    pub amount_due: String,
    /// What of the log its usage contains: the position in each partition; null for a draft.
    pub watermark: Option<String>,
    /// The version of the catalog that it was made with.
    pub catalog_version: u64,
    /// The hash of the invoice with the number before; null for the first, and before it is final.
    pub previous_hash: Option<String>,
    /// The hash of the invoice; null before it is final.
    pub hash: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Until when late usage still changes a draft.
    #[schema(value_type = String, format = DateTime)]
    pub locks_at: Timestamp,
    /// When it became final.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finalized: Option<Timestamp>,
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl From<&Invoice> for InvoiceView {
    fn from(invoice: &Invoice) -> Self {
        let amount = |minor: i64| invoice.currency.format_amount(minor);
        let watermark = invoice.watermark.as_ref().map(ToString::to_string);
        let line = |line: &Line| LineView {
            kind: line.kind,
            price: line.price.clone(),
            meter: line.meter.clone(),
            description: line.description.clone(),
            quantity: line.quantity.to_string(),
            amount: amount(line.amount),
            period: line.period.into(),
            source: line.source.clone(),
            terms: line.basis.price().cloned(),
            watermark: line.basis.usage().and(watermark.clone()),
            hash: line.hash.clone(),
        };
        Self {
            id: filled(&invoice.id),
            number: invoice.number.map(number_text),
            customer: invoice.customer.clone(),
            bill_to: invoice.parties.as_ref().map(|parties| parties.bill_to.clone()),
            seller: invoice.parties.as_ref().map(|parties| parties.seller.clone()),
            subscription: invoice.subscription.clone(),
            status: invoice.status,
            currency: invoice.currency,
            period: invoice.period.into(),
            lines: invoice.lines.iter().map(line).collect(),
            subtotal: amount(invoice.totals.subtotal),
            discount: amount(invoice.totals.discount),
            credits: amount(invoice.totals.credits),
            tax: amount(invoice.totals.tax),
            total: amount(invoice.totals.total),
            amount_due: amount(invoice.amount_due()),
            watermark,
            catalog_version: invoice.catalog_version,
            previous_hash: filled(&invoice.previous_hash),
            hash: filled(&invoice.hash),
            created: invoice.created,
            locks_at: invoice.locks_at,
            finalized: invoice.finalized,
        }
    }
}
