//! A plan's minimum commitment: what a period's other lines leave missing to it is a line of its own, made when the
//! period is closed and corrected when late usage changes what the period comes to.

use std::collections::BTreeSet;

use turnpike_domain::catalog::{Catalog, Subscription};
use turnpike_domain::invoice::{Basis, Line, LineKind};
use turnpike_domain::money::Currency;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::rating::{Exact, prorate};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::charges::whole_period;
use super::metered::overflow;

/// The price's key on lines of a commitment.
pub(super) const KEY: &str = "minimum_commitment";

/// What a period's lines come to: its commitment apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Charged {
    /// Minor units of recurring prices, usage and their corrections.
    pub(super) others: i64,
    /// Minor units of the commitment.
    pub(super) settled: i64,
}

/// Sums the lines for the period that begins at `start`. The start tells a period: its end can move, when a
/// subscription ends within a period that was charged in advance.
pub(super) fn charged<'a>(
    lines: impl IntoIterator<Item = &'a Line>,
    start: Timestamp,
) -> Result<Charged, Problem> {
    let mut sums = Charged::default();
    for line in lines.into_iter().filter(|line| line.period.start == start) {
        let sum = match line.basis {
            Basis::Commitment { .. } => &mut sums.settled,
            _ => &mut sums.others,
        };
        *sum = sum.checked_add(line.amount).ok_or_else(overflow)?;
    }
    Ok(sums)
}

/// The amount of a commitment's line, from its basis and what the other lines of its invoice charge for the period.
pub(super) fn amount(basis: &Basis, others: i64, currency: Currency) -> Result<i64, Problem> {
    let Basis::Commitment {
        commitment,
        part_us,
        whole_us,
        billed_amount,
        settled_amount,
    } = basis
    else {
        return Ok(0);
    };
    let share = prorate(&Exact::from_minor(*commitment, currency), *part_us, *whole_us)?;
    let charged = billed_amount.checked_add(others).ok_or_else(overflow)?;
    let missing = share.to_minor(currency)?.checked_sub(charged);
    let missing = missing.ok_or_else(overflow)?.max(0);
    missing.checked_sub(*settled_amount).ok_or_else(overflow)
}

/// What commitments are settled against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settling<'a> {
    /// The subscription.
    pub(super) subscription: &'a Subscription,
    /// For its plans.
    pub(super) catalog: &'a Catalog,
    /// The period that is closed; `None` when only earlier ones are corrected.
    pub(super) closing: Option<TimeRange>,
    /// Lines of the subscription's earlier invoices.
    pub(super) earlier: &'a [Line],
    /// The other lines of the invoice.
    pub(super) lines: &'a [Line],
}

impl Settling<'_> {
    /// The lines for the period that is closed, and for each earlier one that the invoice corrects.
    pub(super) fn lines(&self) -> Result<Vec<Line>, Problem> {
        let corrected = self.lines.iter().filter(|line| line.kind == LineKind::Adjustment);
        let mut periods: BTreeSet<TimeRange> = corrected.map(|line| line.period).collect();
        periods.extend(self.closing.filter(|period| period.start < period.end));
        let lines = periods.into_iter().map(|period| self.line(period));
        lines.filter_map(Result::transpose).collect()
    }

    /// The line for one period; `None` where nothing is missing, and where the subscription commits to nothing: in a
    /// trial, in a period that begins in a pause, and under a plan without a commitment.
    fn line(&self, period: TimeRange) -> Result<Option<Line>, Problem> {
        let subscription = self.subscription;
        let currency = subscription.currency;
        if subscription.is_trial(period.start) || subscription.is_paused(period.start) {
            return Ok(None);
        }
        let phase = subscription.phase_at(period.start);
        let plan = self.catalog.plan(&phase.plan, phase.plan_version);
        let Some(plan) = plan.filter(|plan| plan.currency == currency) else {
            return Ok(None);
        };
        let Some(commitment) = &plan.minimum_commitment else {
            return Ok(None);
        };
        let length = |range: TimeRange| range.end.micros() - range.start.micros();
        let earlier = charged(self.earlier, period.start)?;
        let commitment = currency
            .parse_amount(commitment)
            .map_err(|error| Problem::new(Code::Invalid, format!("minimum_commitment: {error}")))?;
        let basis = Basis::Commitment {
            commitment,
            part_us: length(period),
            whole_us: length(whole_period(subscription, phase, period.start)),
            billed_amount: earlier.others,
            settled_amount: earlier.settled,
        };
        let amount = amount(&basis, charged(self.lines, period.start)?.others, currency)?;
        let kind = if self.closing == Some(period) {
            LineKind::Minimum
        } else {
            LineKind::Adjustment
        };
        let name = if plan.name.is_empty() {
            &plan.key
        } else {
            &plan.name
        };
        Ok((amount != 0).then(|| Line {
            kind,
            source: format!("plan/{}@{}", plan.key, plan.version),
            price: KEY.to_owned(),
            meter: None,
            description: described(kind, name, period),
            quantity: Quantity::ZERO,
            amount,
            period,
            basis,
            hash: String::new(),
        }))
    }
}

fn described(kind: LineKind, plan: &str, period: TimeRange) -> String {
    match kind {
        LineKind::Minimum => format!("{plan}: up to its minimum commitment"),
        _ => format!(
            "{plan}: correction of the minimum commitment of {} to {}",
            period.start, period.end
        ),
    }
}
