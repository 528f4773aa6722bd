//! Named invariants that are checked while the engine runs. ARCHITECTURE.md lists all of them; those that are not here hold
//! by construction and are checked by tests alone, so they have no counter that could only ever show 0.

/// The counter of violations; its label `invariant` is [`Invariant::name`].
pub const VIOLATIONS: &str = "turnpike_invariant_violations_total";

/// An invariant with a check at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// A window's total is the sum of its events.
    WindowSums,
    /// What is granted stays within limits: every hold that ends was held.
    HoldsBalance,
    /// The lines of an invoice sum to its total.
    LinesSum,
    /// A final invoice never changes.
    FinalStays,
    /// A stored offset never passes uncommitted state.
    OffsetCommitted,
    /// Every rejected event has a reason on record.
    ReasonKept,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::WindowSums,
        Self::HoldsBalance,
        Self::LinesSum,
        Self::FinalStays,
        Self::OffsetCommitted,
        Self::ReasonKept,
    ];

    /// Its number in ARCHITECTURE.md.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WindowSums => "I3",
            Self::HoldsBalance => "I4",
            Self::LinesSum => "I5",
            Self::FinalStays => "I6",
            Self::OffsetCommitted => "I9",
            Self::ReasonKept => "I10",
        }
    }

    /// What checks it, and when.
    pub const fn checked_by(self) -> &'static str {
        match self {
            Self::WindowSums => {
                "verification of an invoice: a line's quantity is not the sum of the log's events"
            }
            Self::HoldsBalance => "the end of each quota hold: more is given back than the slot holds",
            Self::LinesSum => "verification of an invoice: its sums are not those of its lines",
            Self::FinalStays => {
                "verification of an invoice: a line, the whole, or the invoice before does not have its hash"
            }
            Self::OffsetCommitted => {
                "each checkpoint: the log is not durable up to the position that the views contain"
            }
            Self::ReasonKept => {
                "each refused event: its dead letter could not be kept, within the configured rate"
            }
        }
    }

    /// The invariant that a difference at `pointer` of a verified invoice breaks.
    pub fn of_invoice_difference(pointer: &str) -> Self {
        match pointer.rsplit('/').next().unwrap_or("") {
            "hash" | "previous_hash" | "billed_before" | "status" => Self::FinalStays,
            "quantity" => Self::WindowSums,
            _ => Self::LinesSum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_what_they_break() {
        for (pointer, name) in [
            ("/hash", "I6"),
            ("/previous_hash", "I6"),
            ("/lines/0/hash", "I6"),
            ("/lines/3/billed_before", "I6"),
            ("/status", "I6"),
            ("/lines/0/quantity", "I3"),
            ("/lines/0/amount", "I5"),
            ("/total", "I5"),
        ] {
            assert_eq!(
                Invariant::of_invoice_difference(pointer).name(),
                name,
                "{pointer}"
            );
        }
    }
}
