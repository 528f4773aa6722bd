//! Usage of a period: what to ask the meters, and what the answer costs.

use turnpike_domain::invoice::Counted;
use turnpike_domain::money::Currency;
use turnpike_domain::port::usage::{GroupTotal, TotalRequest};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::rating::{Model, Price, Usage, rate};
use turnpike_domain::time::TimeRange;

/// What a price asks of its meter.
pub(super) fn request(price: &Price, counted: &Counted, period: TimeRange) -> Result<TotalRequest, Problem> {
    let Some(meter) = &price.meter else {
        let detail = format!("the price \"{}\" has no meter", price.key);
        return Err(Problem::new(Code::Invalid, detail));
    };
    if price.per_event() {
        let detail = format!(
            "the price \"{}\" is a percentage of each event, which invoices do not have yet: take graduated_percentage",
            price.key
        );
        return Err(Problem::new(Code::Invalid, detail));
    }
    let group_by = match &price.model {
        Model::Matrix(matrix) => matrix.dimensions.clone(),
        _ => Vec::new(),
    };
    Ok(TotalRequest {
        meter: meter.clone(),
        subjects: counted.spans(),
        range: period,
        cuts: Vec::new(),
        filter: price.filter.clone().into_iter().collect(),
        group_by,
    })
}

/// What a period's usage costs, in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    /// How much was used. An empty window counts as zero.
    pub(super) quantity: Quantity,
    /// Without what is missing to the price's minimum.
    pub(super) usage: i64,
    /// What is missing to the price's minimum.
    pub(super) missing: i64,
}

impl Cost {
    /// All of it.
    pub(super) fn whole(self) -> Result<i64, Problem> {
        self.usage.checked_add(self.missing).ok_or_else(overflow)
    }
}

pub(super) fn overflow() -> Problem {
    Problem::new(Code::Overflow, "the amount is beyond 64 bits of minor units")
}

/// Rates the rows that [`request`] was answered with.
pub(super) fn cost(price: &Price, rows: &[GroupTotal], currency: Currency) -> Result<Cost, Problem> {
    let value = |row: &GroupTotal| row.value.unwrap_or_default();
    let quantity = rows
        .iter()
        .try_fold(Quantity::ZERO, |sum, row| sum.checked_add(value(row)))
        .ok_or_else(overflow)?;
    let usage = match price.model {
        Model::Matrix(_) => Usage::Groups(rows.iter().map(|row| (row.group.clone(), value(row))).collect()),
        _ => Usage::Total(quantity),
    };
    let rated = rate(price, &usage, currency)?;
    // A maximum lowers the usage itself; a minimum is shown on a line of its own.
    let usage = rated.unbounded_minor.min(rated.minor);
    Ok(Cost {
        quantity,
        usage,
        missing: rated.minor - usage,
    })
}
