//! Periods that are closed, looked at again: what came late, was voided or amended.

use turnpike_domain::catalog::Catalog;
use turnpike_domain::invoice::{Basis, BilledUsage, Line, LineKind, sum_billed};
use turnpike_domain::port::billing::BilledFilter;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use super::build::Scope;
use super::engine::BillingSync;
use super::metered::{Cost, overflow};

/// Microseconds of a day of 24 hours.
pub(super) const DAY_US: i64 = 86_400_000_000;

/// Closed periods to look at.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// A difference becomes a line.
    pub(super) adjusted: Vec<BilledUsage>,
    /// A difference is told, but not billed: too long ago.
    pub(super) listed: Vec<BilledUsage>,
    /// The lines that say so.
    pub(super) lines: Vec<Line>,
    /// Why some can no longer be corrected.
    pub(super) uncorrected: Option<Problem>,
}

pub(super) fn days_before(at: Timestamp, days: u32) -> Timestamp {
    at.plus_micros(-i64::from(days) * DAY_US)
}

/// The beginning of a day of UTC: what comes late for a subscription that is over is looked for then.
pub(super) const fn midnight(of: Timestamp) -> Timestamp {
    Timestamp::from_micros_clamped(of.micros() - of.micros().rem_euclid(DAY_US))
}

impl BillingSync {
    /// What was billed for closed periods of the look-back time, and for those before it that are still listed.
    ///
    /// The time goes back from the last look: what came since then for a period that had ended less than that long before
    /// was on no invoice yet, however long either period is.
    pub(super) async fn look_back(&self, scope: &Scope<'_>, catalog: &Catalog) -> Result<Looked, Problem> {
        let options = &self.parts.options;
        let horizon = days_before(scope.last_look, options.look_back_days);
        let filter = BilledFilter {
            subscription: scope.subscription.id.clone(),
            ends_after: days_before(horizon, options.listed_days),
            number_below: None,
        };
        let lines = self.parts.store.billed_lines(scope.tenant, filter).await??;
        let earlier = lines.iter().filter(|line| line.period.end <= scope.period.end);
        let billed = sum_billed(earlier)?.into_iter();
        let is_gone = |meter: &String| !catalog.meters.contains_key(meter);
        let (gone, mut billed): (Vec<_>, Vec<_>) =
            billed.partition(|one| one.price.meter.as_ref().is_some_and(is_gone));
        for one in &mut billed {
            one.counted = self.counted_now(scope.tenant, &scope.subscription.customer, one)?;
        }
        let (adjusted, listed) = billed
            .into_iter()
            .partition(|billed| billed.period.end >= horizon);
        Ok(Looked {
            adjusted,
            listed,
            lines,
            uncorrected: gone.first().map(uncorrected),
        })
    }
}

/// Meters stay while what they counted is looked at, but earlier builds let them go.
fn uncorrected(billed: &BilledUsage) -> Problem {
    let meter = billed.price.meter.as_deref().unwrap_or_default();
    let mut problem = Problem::not_found("meter", meter);
    problem
        .detail
        .push_str(": late usage of closed periods that it counted cannot be found any more");
    problem
}

/// The line for a difference between what was billed and what the period costs now; `None` without one.
pub(super) fn line(billed: &BilledUsage, cost: Cost) -> Result<Option<Line>, Problem> {
    let amount = cost.whole()?.checked_sub(billed.amount).ok_or_else(overflow)?;
    if amount == 0 {
        return Ok(None);
    }
    let quantity = cost.quantity.checked_sub(billed.quantity).ok_or_else(overflow)?;
    let (start, end) = (billed.period.start, billed.period.end);
    Ok(Some(Line {
        kind: LineKind::Adjustment,
        source: billed.source.clone(),
        price: billed.price.key.clone(),
        meter: billed.price.meter.clone(),
        description: format!("{}: correction of {start} to {end}", billed.price.key),
        quantity,
        amount,
        period: billed.period,
        basis: Basis::Adjustment {
            price: billed.price.clone(),
            counted: billed.counted.clone(),
            billed_quantity: billed.quantity,
            billed_amount: billed.amount,
        },
        hash: String::new(),
    }))
}
