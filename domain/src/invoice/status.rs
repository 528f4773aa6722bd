use serde::{Deserialize, Serialize};

use crate::problem::{Code, Problem};

/// Where an invoice stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceStatus {
    /// Its lines can still change.
    Draft,
    /// Its lines are locked; it is about to get its number.
    Finalizing,
    /// Final, to be paid.
    Open,
    /// Final, paid.
    Paid,
    /// Final, but owed no more.
    Void,
    /// Final, but not expected to be paid.
    Uncollectible,
}

/// What is done to an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvoiceStep {
    /// It is paid.
    Pay,
    /// It is owed no more.
    Void,
    /// It is not expected to be paid.
    Uncollectible,
}

impl InvoiceStatus {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Draft,
        Self::Finalizing,
        Self::Open,
        Self::Paid,
        Self::Void,
        Self::Uncollectible,
    ];

    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Finalizing => "finalizing",
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Void => "void",
            Self::Uncollectible => "uncollectible",
        }
    }

    /// Reads what [`InvoiceStatus::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether an invoice in this state has its number, and nothing changes any more but the state.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Draft | Self::Finalizing)
    }

    /// Where `step` leads from here. Everything that is not named is refused: open → paid, void or uncollectible;
    /// uncollectible → paid or void.
    pub fn after(self, step: InvoiceStep) -> Result<Self, Problem> {
        match (self, step) {
            (Self::Open | Self::Uncollectible, InvoiceStep::Pay) => Ok(Self::Paid),
            (Self::Open | Self::Uncollectible, InvoiceStep::Void) => Ok(Self::Void),
            (Self::Open, InvoiceStep::Uncollectible) => Ok(Self::Uncollectible),
            _ => Err(Problem::new(
                Code::IllegalTransition,
                format!("an invoice that is {} cannot {}", self.as_str(), step.words()),
            )),
        }
    }
}

impl InvoiceStep {
    /// As it stands in paths and the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pay => "pay",
            Self::Void => "void",
            Self::Uncollectible => "uncollectible",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Pay => "be paid",
            Self::Void => "be voided",
            Self::Uncollectible => "be given up as uncollectible",
        }
    }
}
