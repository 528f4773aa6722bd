//! Hashes of invoices.
//!
//! Canonical bytes are a list of texts, each as its length in bytes (8 bytes, little-endian) and its UTF-8. A line's hash
//! is BLAKE3 over its fields; an invoice's hash is BLAKE3 over its own fields, the hash of the invoice with the number
//! before, and the hashes of its lines in order. So the invoices of a tenant form a chain: none can be changed, taken out
//! or put in between without every later hash being another.

use serde::Serialize;

use super::{Invoice, Totals};

pub(super) fn canonical(parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

pub(super) fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// A number as it stands on the invoice: `INV-000001`.
pub fn number_text(number: u64) -> String {
    format!("INV-{number:06}")
}

impl Invoice {
    /// The hash over everything that never changes once the invoice is final: all but its status.
    pub fn seal(&self) -> String {
        // Names are made of texts in a fixed order: writing them cannot fail.
        let names = |parties| serde_json::to_string(parties).unwrap_or_default();
        let version = if self.parties.is_some() { 2 } else { 1 };
        let texts = [
            format!("turnpike.invoice.{version}"),
            self.id.clone(),
            self.number.map(number_text).unwrap_or_default(),
            self.customer.clone(),
            self.subscription.clone(),
            self.currency.to_string(),
            self.period.start.micros().to_string(),
            self.period.end.micros().to_string(),
            self.round.to_string(),
            self.totals.subtotal.to_string(),
            self.totals.discount.to_string(),
            self.totals.credits.to_string(),
            self.totals.tax.to_string(),
            self.totals.total.to_string(),
            self.watermark
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            self.catalog_version.to_string(),
            self.created.micros().to_string(),
            self.locks_at.micros().to_string(),
            self.finalized
                .map(|at| at.micros().to_string())
                .unwrap_or_default(),
            self.previous_hash.clone(),
        ];
        let names = self.parties.as_ref().map(names);
        let parts: Vec<&str> = texts
            .iter()
            .chain(&names)
            .map(String::as_str)
            .chain(self.lines.iter().map(|line| line.hash.as_str()))
            .collect();
        digest(&canonical(&parts))
    }
}

/// Something on an invoice that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Difference {
    /// RFC 6901 pointer into the invoice.
    pub pointer: String,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl Difference {
    /// A difference, unless both are the same.
    pub fn of(pointer: impl Into<String>, expected: impl ToString, found: impl ToString) -> Option<Self> {
        let (expected, found) = (expected.to_string(), found.to_string());
        (expected != found).then(|| Self {
            pointer: pointer.into(),
            expected,
            found,
        })
    }
}

/// Compares an invoice with itself: each line's hash, the sums, that a number goes with a final status, and the
/// invoice's hash.
pub fn compare_seals(invoice: &Invoice) -> Vec<Difference> {
    let lines = invoice.lines.iter().enumerate();
    let mut found: Vec<Difference> = lines
        .filter_map(|(at, line)| Difference::of(format!("/lines/{at}/hash"), line.seal(), &line.hash))
        .collect();
    let amount = |minor: i64| invoice.currency.format_amount(minor);
    match Totals::of(&invoice.lines) {
        Err(error) => found.extend(Difference::of("/total", error, amount(invoice.totals.total))),
        Ok(totals) => {
            for (pointer, expected, stored) in [
                ("/subtotal", totals.subtotal, invoice.totals.subtotal),
                ("/discount", totals.discount, invoice.totals.discount),
                ("/credits", totals.credits, invoice.totals.credits),
                ("/tax", totals.tax, invoice.totals.tax),
                ("/total", totals.total, invoice.totals.total),
            ] {
                found.extend(Difference::of(pointer, amount(expected), amount(stored)));
            }
        }
    }
    if invoice.number.is_some() && !invoice.status.is_final() {
        let expected = "a status of a final invoice";
        found.extend(Difference::of("/status", expected, invoice.status.as_str()));
    }
    found.extend(Difference::of("/hash", invoice.seal(), &invoice.hash));
    found
}
