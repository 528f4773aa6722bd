//! What an invoice says of those before it.

use std::cmp::Ordering;

use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Basis, BilledUsage, Difference, Invoice, Line, number_text, sum_billed};
use turnpike_domain::port::billing::{BilledFilter, InvoiceName, Kept};
use turnpike_domain::problem::Problem;

use super::Verifier;
use crate::invoice::commitment;

impl Verifier {
    /// The last number that was given stands beside the invoices, with the hash of its invoice.
    pub(super) async fn compare_series(
        &self,
        tenant: TenantId,
        invoice: &Invoice,
    ) -> Result<Option<Difference>, Problem> {
        let series = self.store.series(tenant).await?;
        let number = invoice.number.unwrap_or_default();
        Ok(match number.cmp(&series.last) {
            Ordering::Less => None,
            Ordering::Equal => Difference::of("/hash", series.hash, &invoice.hash),
            Ordering::Greater => {
                let given = format!("a number that was given: {} is the last", series.last);
                Difference::of("/number", given, number_text(number))
            }
        })
    }

    /// The invoice with the number before must have the hash that this one was chained to.
    pub(super) async fn compare_chain(
        &self,
        tenant: TenantId,
        invoice: &Invoice,
    ) -> Result<Option<Difference>, Problem> {
        let before = match invoice.number.unwrap_or_default() {
            0 | 1 => None,
            number => self.store.kept(tenant, InvoiceName::Number(number - 1)).await?,
        };
        let expected = match before {
            None => String::new(),
            Some(Kept::Whole(before)) => before.seal(),
            Some(Kept::Broken(broken)) => format!("that of {broken}"),
            Some(Kept::Missing(number)) => format!("that of {}, which is not there", number_text(number)),
        };
        Ok(Difference::of("/previous_hash", expected, &invoice.previous_hash))
    }

    /// What corrections say was billed before must be what earlier invoices say.
    pub(super) async fn compare_earlier(
        &self,
        tenant: TenantId,
        invoice: &Invoice,
    ) -> Result<Vec<Difference>, Problem> {
        let corrects =
            |line: &&Line| matches!(line.basis, Basis::Adjustment { .. } | Basis::Commitment { .. });
        let corrected = invoice.lines.iter().filter(corrects);
        let Some(first) = corrected.map(|line| line.period.start).min() else {
            return Ok(Vec::new());
        };
        let filter = BilledFilter {
            subscription: invoice.subscription.clone(),
            ends_after: first,
            number_below: invoice.number,
        };
        let lines = match self.store.billed_lines(tenant, filter).await? {
            Ok(lines) => lines,
            Err(broken) => {
                let readable = "lines of earlier invoices that can be read";
                return Ok(Difference::of("/lines", readable, broken).into_iter().collect());
            }
        };
        let billed = sum_billed(lines.iter())?;
        let mut differences = Vec::new();
        for (at, line) in invoice.lines.iter().enumerate() {
            differences.extend(compare_line((at, line), &lines, &billed)?);
        }
        Ok(differences)
    }
}

fn compare_line(
    (at, line): (usize, &Line),
    earlier: &[Line],
    billed: &[BilledUsage],
) -> Result<Vec<Difference>, Problem> {
    let pointer = || format!("/lines/{at}/billed_before");
    let found = match &line.basis {
        Basis::Adjustment {
            billed_quantity,
            billed_amount,
            ..
        } => {
            let same = billed.iter().find(|billed| same_price(billed, line));
            let before = same.map(|billed| (billed.quantity, billed.amount));
            let (quantity, amount) = before.unwrap_or_default();
            [
                Difference::of(pointer(), quantity, billed_quantity),
                Difference::of(pointer(), amount, billed_amount),
            ]
        }
        Basis::Commitment {
            billed_amount,
            settled_amount,
            ..
        } => {
            let before = commitment::charged(earlier, line.period.start)?;
            [
                Difference::of(pointer(), before.others, billed_amount),
                Difference::of(pointer(), before.settled, settled_amount),
            ]
        }
        _ => [None, None],
    };
    Ok(found.into_iter().flatten().collect())
}

fn same_price(billed: &BilledUsage, line: &Line) -> bool {
    billed.period == line.period && billed.source == line.source && billed.price.key == line.price
}
