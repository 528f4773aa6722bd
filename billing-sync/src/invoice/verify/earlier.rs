//! What an invoice says of those before it.

use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Basis, BilledUsage, Difference, Invoice, Line, sum_billed};
use turnpike_domain::port::billing::BilledFilter;
use turnpike_domain::problem::Problem;

use super::Verifier;
use crate::invoice::commitment;

impl Verifier {
    /// The invoice with the number before must have the hash that this one was chained to.
    pub(super) async fn compare_chain(
        &self,
        tenant: TenantId,
        invoice: &Invoice,
    ) -> Result<Option<Difference>, Problem> {
        let before = match invoice.number.unwrap_or_default() {
            0 | 1 => None,
            number => self.store.invoice_by_number(tenant, number - 1).await?,
        };
        let expected = before.map(|before| before.seal()).unwrap_or_default();
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
        let lines = self.store.billed_lines(tenant, filter).await?;
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
