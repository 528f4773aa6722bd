//! What became of a final invoice: the one thing of it that its own hash leaves out.

use super::seal::{canonical, digest};
use super::{Difference, Invoice, InvoiceStatus};
use crate::time::Timestamp;

/// A status of a final invoice, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusEntry {
    /// The status, as it is kept.
    pub status: String,
    /// Since when.
    pub at: Timestamp,
    /// The seal; empty on the first entry of an invoice that was final before histories were kept.
    pub hash: String,
}

impl StatusEntry {
    /// The entry behind `history` of the invoice with this id, sealed.
    pub fn next(invoice: &str, history: &[Self], status: InvoiceStatus, at: Timestamp) -> Self {
        let mut entry = Self {
            status: status.as_str().to_owned(),
            at,
            hash: String::new(),
        };
        entry.hash = entry.seal(invoice, history);
        entry
    }

    /// The hash over the invoice's id, the seal of the entry before, and this entry.
    fn seal(&self, invoice: &str, before: &[Self]) -> String {
        let before = before.last().map_or("", |last| last.hash.as_str());
        let at = self.at.micros().to_string();
        digest(&canonical(&[
            "turnpike.status.1",
            invoice,
            before,
            &self.status,
            &at,
        ]))
    }
}

/// Compares the status of a final invoice with the last of its history, and the history with its seals.
pub fn compare_history(invoice: &Invoice, history: &[StatusEntry]) -> Option<Difference> {
    let found = invoice.status.as_str();
    for (at, entry) in history.iter().enumerate() {
        let (before, unsealed) = (&history[..at], at == 0 && entry.hash.is_empty());
        if !unsealed && entry.hash != entry.seal(&invoice.id, before) {
            let sealed = "a status whose history is sealed";
            return Difference::of("/status", sealed, format!("{found}, behind {}", entry.status));
        }
    }
    let last = history
        .last()
        .map_or("a status with a history", |last| &last.status);
    Difference::of("/status", last, found)
}
