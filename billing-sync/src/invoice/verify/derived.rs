//! Quantity and amount of each line, from its basis and the log.

use turnpike_domain::invoice::{Basis, Difference, Invoice, Line};
use turnpike_domain::port::usage::GroupTotal;
use turnpike_domain::problem::Problem;
use turnpike_domain::quantity::Quantity;

use crate::invoice::build::flat_amount;
use crate::invoice::commitment;
use crate::invoice::metered::{self, Cost};

/// Compares all lines; `rows` are what the log gave for those that count events, in their order.
pub(super) fn compare(invoice: &Invoice, rows: &[Vec<GroupTotal>]) -> Vec<Difference> {
    let mut rows = rows.iter();
    let mut differences = Vec::new();
    for (at, line) in invoice.lines.iter().enumerate() {
        let rows = line.basis.usage().and_then(|_| rows.next());
        let rows = rows.map(Vec::as_slice).unwrap_or_default();
        differences.extend(compare_line(invoice, (at, line), rows));
    }
    differences
}

fn compare_line(invoice: &Invoice, (at, line): (usize, &Line), rows: &[GroupTotal]) -> Vec<Difference> {
    let amount_at = format!("/lines/{at}/amount");
    let text = |minor: i64| invoice.currency.format_amount(minor);
    let (quantity, amount) = match figures(invoice, line, rows) {
        Ok(figures) => figures,
        // A basis that was tampered with may have no amount at all.
        Err(problem) => {
            let difference = Difference::of(amount_at, problem.detail, text(line.amount));
            return difference.into_iter().collect();
        }
    };
    let quantity = Difference::of(format!("/lines/{at}/quantity"), quantity, line.quantity);
    let amount = Difference::of(amount_at, text(amount), text(line.amount));
    quantity.into_iter().chain(amount).collect()
}

fn figures(invoice: &Invoice, line: &Line, rows: &[GroupTotal]) -> Result<(Quantity, i64), Problem> {
    let cost = |price| metered::cost(price, rows, invoice.currency);
    Ok(match &line.basis {
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
    })
}
