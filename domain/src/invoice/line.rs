use serde::{Deserialize, Serialize};

use super::seal::{canonical, digest};
use crate::port::usage::SubjectSpan;
use crate::quantity::Quantity;
use crate::rating::Price;
use crate::time::{TimeRange, Timestamp};

/// What a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// A flat price for a whole period.
    Recurring,
    /// Usage of a meter.
    Usage,
    /// What is missing to a minimum.
    Minimum,
    /// A flat price for a part of a period.
    Proration,
    /// A difference to what was billed for an earlier period.
    Adjustment,
    /// A discount.
    Discount,
    /// A credit that was used.
    Credit,
    /// A tax.
    Tax,
}

impl LineKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Recurring,
        Self::Usage,
        Self::Minimum,
        Self::Proration,
        Self::Adjustment,
        Self::Discount,
        Self::Credit,
        Self::Tax,
    ];

    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recurring => "recurring",
            Self::Usage => "usage",
            Self::Minimum => "minimum",
            Self::Proration => "proration",
            Self::Adjustment => "adjustment",
            Self::Discount => "discount",
            Self::Credit => "credit",
            Self::Tax => "tax",
        }
    }

    /// Reads what [`LineKind::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A line of an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is for.
    pub kind: LineKind,
    /// Where the price is declared: `plan/<key>@<version>` or `add_on/<key>@<version>`.
    pub source: String,
    /// The price's key.
    pub price: String,
    /// The meter's key, for usage.
    pub meter: Option<String>,
    /// For people.
    pub description: String,
    /// How much; 1 for a flat price.
    pub quantity: Quantity,
    /// The amount in minor units of the invoice's currency.
    pub amount: i64,
    /// The time that it is for.
    pub period: TimeRange,
    /// What it is derived from.
    pub basis: Basis,
    /// The hash of everything above.
    pub hash: String,
}

/// Whose events a line counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The subjects of the subscription's own customer, over the whole period.
    pub subjects: Vec<String>,
    /// Those of customers below it, over the times in which they used the subscription.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<SubjectTime>,
}

/// A subject over a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SubjectTime {
    /// The subject.
    pub subject: String,
    /// From when on.
    pub start: Timestamp,
    /// Until when.
    pub end: Timestamp,
}

impl Counted {
    /// The same as it is asked of a meter.
    pub fn spans(&self) -> Vec<SubjectSpan> {
        // All of time: a sum over time carries the value in that stood at the period's start.
        let own = self.subjects.iter().map(|subject| (subject, TimeRange::ALL));
        let below = self.below.iter();
        let below = below.map(|one| (&one.subject, TimeRange::new(one.start, one.end)));
        own.chain(below)
            .map(|(subject, span)| SubjectSpan {
                subject: subject.clone(),
                span,
            })
            .collect()
    }
}

/// What a line can be derived from again, beside the raw events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Basis {
    /// A flat price, for `part_us` of a period of `whole_us`.
    Recurring {
        /// The price as it was.
        price: Price,
        /// Microseconds that are charged.
        part_us: i64,
        /// Microseconds of the whole period.
        whole_us: i64,
    },
    /// The usage of the line's period, at the invoice's watermark.
    Usage {
        /// The price as it was.
        price: Price,
        /// Whose events.
        #[serde(flatten)]
        counted: Counted,
    },
    /// What is missing to the price's minimum, at the same usage.
    Minimum {
        /// The price as it was.
        price: Price,
        /// Whose events.
        #[serde(flatten)]
        counted: Counted,
    },
    /// The usage of the line's period at this invoice's watermark, less what earlier invoices billed for it.
    Adjustment {
        /// The price as it was.
        price: Price,
        /// Whose events.
        #[serde(flatten)]
        counted: Counted,
        /// Quantity billed before.
        billed_quantity: Quantity,
        /// Minor units billed before.
        billed_amount: i64,
    },
    /// What is missing to the plan's minimum commitment for the line's period: the share of the commitment, less what
    /// earlier invoices and the other lines of this one charge for that period, never below zero, less what was settled.
    Commitment {
        /// The commitment of a whole period, in minor units.
        commitment: i64,
        /// Microseconds of the line's period.
        part_us: i64,
        /// Microseconds of the whole period.
        whole_us: i64,
        /// Minor units that earlier invoices charge for the period, without its commitment.
        billed_amount: i64,
        /// Minor units that earlier invoices charge for the period's commitment.
        settled_amount: i64,
    },
}

impl Basis {
    /// The price as it was; none for a commitment.
    pub const fn price(&self) -> Option<&Price> {
        match self {
            Self::Commitment { .. } => None,
            Self::Recurring { price, .. }
            | Self::Usage { price, .. }
            | Self::Minimum { price, .. }
            | Self::Adjustment { price, .. } => Some(price),
        }
    }

    /// The price of a line that counts events, and whose; none for another.
    pub const fn usage(&self) -> Option<(&Price, &Counted)> {
        match self {
            Self::Recurring { .. } | Self::Commitment { .. } => None,
            Self::Usage { price, counted }
            | Self::Minimum { price, counted }
            | Self::Adjustment { price, counted, .. } => Some((price, counted)),
        }
    }
}

impl Line {
    /// The hash over all fields but the hash itself.
    pub fn seal(&self) -> String {
        // A basis is made of texts and numbers in a fixed order: writing it cannot fail.
        let basis = serde_json::to_string(&self.basis).unwrap_or_default();
        digest(&canonical(&[
            "turnpike.line.1",
            self.kind.as_str(),
            &self.source,
            &self.price,
            self.meter.as_deref().unwrap_or(""),
            &self.description,
            &self.quantity.to_string(),
            &self.amount.to_string(),
            &self.period.start.micros().to_string(),
            &self.period.end.micros().to_string(),
            &basis,
        ]))
    }

    /// The line with its hash.
    #[must_use]
    pub fn sealed(self) -> Self {
        Self {
            hash: self.seal(),
            ..self
        }
    }
}
