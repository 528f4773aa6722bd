//! Invoices: their lines, states, hashes, and the runs that make them.

mod billed;
mod history;
mod line;
mod run;
mod seal;
mod status;
mod view;

pub use billed::{BilledUsage, sum_billed};
pub use history::{StatusEntry, compare_history};
pub use line::{Basis, Counted, Line, LineKind, SubjectTime};
pub use run::{BillingRun, LateUsage, RunFailure, RunStatus};
pub use seal::{Difference, compare_seals, number_text};
pub use status::{InvoiceStatus, InvoiceStep};
pub use view::{InvoiceView, LineView, PeriodView};

use serde::{Deserialize, Serialize};

use crate::money::Currency;
use crate::rating::RatingError;
use crate::record::Watermark;
use crate::time::{TimeRange, Timestamp};

/// What a customer owes for a period of a subscription.
///
/// A draft changes until it is locked; from `finalizing` on nothing but its status changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// Its id.
    pub id: String,
    /// Its number in the tenant's gapless series, from 1; none before it is final.
    pub number: Option<u64>,
    /// The customer's key.
    pub customer: String,
    /// Who owes and who is owed, by name, as it was when the invoice was locked (of a draft: when it was made). None on
    /// one that was locked before names were kept.
    pub parties: Option<Parties>,
    /// The subscription's id.
    pub subscription: String,
    /// Where it stands.
    pub status: InvoiceStatus,
    /// The currency of all its amounts.
    pub currency: Currency,
    /// The period that it closes. Empty for what is charged in advance at the subscription's start, and for one that
    /// only adjusts after the subscription's end.
    pub period: TimeRange,
    /// 0 for the invoice of the period; adjustments after the subscription's end count from 1.
    pub round: u32,
    /// What it is made of.
    pub lines: Vec<Line>,
    /// The sums.
    pub totals: Totals,
    /// What of the log its usage contains; none for a draft.
    pub watermark: Option<Watermark>,
    /// The version of the catalog at the lock (of a draft: when it was made).
    pub catalog_version: u64,
    /// The hash of the tenant's invoice with the number before; empty for the first.
    pub previous_hash: String,
    /// The hash of the invoice; empty before it is final.
    pub hash: String,
    /// When it was made.
    pub created: Timestamp,
    /// When the grace time for its period ends.
    pub locks_at: Timestamp,
    /// When it became final.
    pub finalized: Option<Timestamp>,
}

/// The names that an invoice shows. They stay when the customer or the tenant is renamed or erased.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parties {
    /// The tenant's name.
    pub seller: String,
    /// The customer.
    pub bill_to: BillTo,
}

/// Whom an invoice is addressed to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BillTo {
    /// The customer's name.
    pub name: String,
    /// Where the invoice goes.
    pub email: Option<String>,
}

/// The sums of an invoice in minor units: total = subtotal − discount − credits + tax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// The lines that are neither discount, credit nor tax.
    pub subtotal: i64,
    /// What discounts take off.
    pub discount: i64,
    /// What credits take off.
    pub credits: i64,
    /// Taxes.
    pub tax: i64,
    /// What is owed.
    pub total: i64,
}

impl Totals {
    /// The sums of `lines`. An error beyond 64 bits of minor units.
    pub fn of(lines: &[Line]) -> Result<Self, RatingError> {
        let mut totals = Self::default();
        for line in lines {
            let (sum, amount) = match line.kind {
                LineKind::Discount => (&mut totals.discount, line.amount.checked_neg()),
                LineKind::Credit => (&mut totals.credits, line.amount.checked_neg()),
                LineKind::Tax => (&mut totals.tax, Some(line.amount)),
                _ => (&mut totals.subtotal, Some(line.amount)),
            };
            *sum = amount
                .and_then(|amount| sum.checked_add(amount))
                .ok_or(RatingError::Overflow)?;
        }
        totals.total = totals
            .subtotal
            .checked_sub(totals.discount)
            .and_then(|sum| sum.checked_sub(totals.credits))
            .and_then(|sum| sum.checked_add(totals.tax))
            .ok_or(RatingError::Overflow)?;
        Ok(totals)
    }
}

impl Invoice {
    /// The instant at which it falls due to be made: the end of its period.
    pub const fn boundary(&self) -> Timestamp {
        self.period.end
    }

    /// Whether its lines can still change.
    pub fn is_draft(&self) -> bool {
        self.status == InvoiceStatus::Draft
    }

    /// What is still to be paid, in minor units. Below zero: what is owed to the customer.
    pub fn amount_due(&self) -> i64 {
        match self.status {
            InvoiceStatus::Paid | InvoiceStatus::Void => 0,
            _ => self.totals.total,
        }
    }
}

#[cfg(test)]
mod tests;
