//! An invoice's lines, from what is due and one consistent reading of the meters.

use std::sync::Arc;

use turnpike_domain::catalog::{Catalog, Subscription};
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Basis, BilledUsage, Counted, LateUsage, Line, LineKind};
use turnpike_domain::money::Currency;
use turnpike_domain::port::usage::{GroupTotal, TotalRequest};
use turnpike_domain::problem::Problem;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::rating::{Exact, Price, Usage, prorate, rate};
use turnpike_domain::record::Watermark;
use turnpike_domain::time::{TimeRange, Timestamp};

use super::adjust::{self, Looked};
use super::charges::{Charge, Due, dues};
use super::commitment::Settling;
use super::engine::BillingSync;
use super::metered::{self, Cost};

/// The lines of an invoice, and what they were read at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Built {
    /// The lines, each with its hash.
    pub(super) lines: Vec<Line>,
    /// What of the log the usage contains; `None` without usage.
    pub(super) watermark: Option<Watermark>,
    /// Late usage of periods that are too old for an adjustment.
    pub(super) late: Vec<LateUsage>,
    /// Why some closed periods can no longer be corrected.
    pub(super) uncorrected: Option<Problem>,
}

/// What an invoice is to be built for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The tenant.
    pub(super) tenant: TenantId,
    /// The subscription.
    pub(super) subscription: &'a Arc<Subscription>,
    /// The period to close; empty at the subscription's start and behind its end.
    pub(super) period: TimeRange,
    /// What came before was looked at already: the boundary at which the period begins, or, when the subscription is over,
    /// the instant of the look before.
    pub(super) last_look: Timestamp,
    /// Whether the subscription is over, so that only adjustments are due.
    pub(super) over: bool,
}

/// What the lines of one invoice are made of, its usage apart.
struct Parts {
    due: Vec<Due>,
    looked: Looked,
    counted: Counted,
    requests: Vec<TotalRequest>,
}

impl BillingSync {
    /// The lines of one invoice.
    pub(super) async fn build(&self, scope: Scope<'_>) -> Result<Built, Problem> {
        let built = self.build_all(scope.tenant, &[scope]).await?;
        Ok(built.into_iter().next().unwrap_or_default())
    }

    /// The lines of several invoices of a tenant, in their order: all their usage is read with one call, so they share
    /// one watermark.
    pub(super) async fn build_all(
        &self,
        tenant: TenantId,
        scopes: &[Scope<'_>],
    ) -> Result<Vec<Built>, Problem> {
        let catalog = self.parts.directory.catalog(tenant);
        let mut parts = Vec::with_capacity(scopes.len());
        let mut requests = Vec::new();
        for scope in scopes {
            let mut one = self.parts_of(scope, &catalog).await?;
            let asked = std::mem::take(&mut one.requests);
            parts.push((asked.len(), one));
            requests.extend(asked);
        }
        let (rows, watermark) = self.totals(tenant, requests).await?;
        let mut rows = rows.into_iter();
        let mut all = Vec::with_capacity(scopes.len());
        for (scope, (asked, parts)) in scopes.iter().zip(parts) {
            let rows = rows.by_ref().take(asked).collect();
            let watermark = watermark.clone().filter(|_| asked > 0);
            let built = scope.lines(parts, rows, &catalog)?;
            all.push(Built { watermark, ..built });
        }
        Ok(all)
    }

    async fn parts_of(&self, scope: &Scope<'_>, catalog: &Catalog) -> Result<Parts, Problem> {
        let due = if scope.over {
            Vec::new()
        } else {
            dues(scope.subscription, catalog, scope.period)?
        };
        let looked = self.look_back(scope, catalog).await?;
        let counted = self.counted(scope.tenant, &scope.subscription.customer, scope.period)?;
        let mut requests = Vec::new();
        for due in &due {
            if let Due::Usage(charge) = due {
                requests.push(metered::request(&charge.price, &counted, scope.period)?);
            }
        }
        for billed in looked.adjusted.iter().chain(&looked.listed) {
            requests.push(metered::request(&billed.price, &billed.counted, billed.period)?);
        }
        Ok(Parts {
            due,
            looked,
            counted,
            requests,
        })
    }

    async fn totals(
        &self,
        tenant: TenantId,
        requests: Vec<TotalRequest>,
    ) -> Result<(Vec<Vec<GroupTotal>>, Option<Watermark>), Problem> {
        if requests.is_empty() {
            return Ok((Vec::new(), None));
        }
        let totals = self.parts.usage.totals(tenant, requests, None).await?;
        Ok((totals.rows, Some(totals.watermark)))
    }
}

impl Scope<'_> {
    /// The lines, from what is due and the rows that the meters gave for it.
    fn lines(&self, parts: Parts, rows: Vec<Vec<GroupTotal>>, catalog: &Catalog) -> Result<Built, Problem> {
        let maker = LineMaker {
            currency: self.subscription.currency,
            period: self.period,
            counted: parts.counted,
        };
        let mut built = maker.built(&parts.due, &parts.looked, rows, self.subscription)?;
        let settling = Settling {
            subscription: self.subscription,
            catalog,
            closing: (!self.over).then_some(self.period),
            earlier: &parts.looked.lines,
            lines: &built.lines,
        };
        let settled = settling.lines()?;
        built.lines.extend(settled.into_iter().map(Line::sealed));
        Ok(built)
    }
}

struct LineMaker {
    currency: Currency,
    period: TimeRange,
    counted: Counted,
}

impl LineMaker {
    fn built(
        &self,
        due: &[Due],
        looked: &Looked,
        rows: Vec<Vec<GroupTotal>>,
        subscription: &Subscription,
    ) -> Result<Built, Problem> {
        let mut rows = rows.into_iter();
        let mut next_rows = || rows.next().unwrap_or_default();
        let mut lines = Vec::new();
        for due in due {
            match due {
                Due::Flat {
                    charge,
                    period,
                    part_us,
                    whole_us,
                } => {
                    lines.push(self.flat(charge, *period, *part_us, *whole_us)?);
                }
                Due::Usage(charge) => {
                    let cost = metered::cost(&charge.price, &next_rows(), self.currency)?;
                    lines.extend(self.usage(charge, cost));
                }
            }
        }
        for billed in &looked.adjusted {
            let cost = metered::cost(&billed.price, &next_rows(), self.currency)?;
            lines.extend(adjust::line(billed, cost)?);
        }
        let mut late = Vec::new();
        for billed in &looked.listed {
            let cost = metered::cost(&billed.price, &next_rows(), self.currency)?;
            late.extend(self.late(billed, cost, &subscription.id)?);
        }
        Ok(Built {
            lines: lines.into_iter().map(Line::sealed).collect(),
            watermark: None,
            late,
            uncorrected: looked.uncorrected.clone(),
        })
    }

    fn flat(&self, charge: &Charge, period: TimeRange, part_us: i64, whole_us: i64) -> Result<Line, Problem> {
        let amount = flat_amount(&charge.price, part_us, whole_us, self.currency)?;
        let partly = part_us != whole_us;
        let basis = Basis::Recurring {
            price: charge.price.clone(),
            part_us,
            whole_us,
        };
        Ok(Line {
            kind: if partly {
                LineKind::Proration
            } else {
                LineKind::Recurring
            },
            quantity: Quantity::ONE,
            amount,
            period,
            ..plain_line(charge, basis)
        })
    }

    fn usage(&self, charge: &Charge, cost: Cost) -> Vec<Line> {
        let (price, counted) = (charge.price.clone(), self.counted.clone());
        let usage = Line {
            quantity: cost.quantity,
            amount: cost.usage,
            period: self.period,
            ..plain_line(
                charge,
                Basis::Usage {
                    price: price.clone(),
                    counted: counted.clone(),
                },
            )
        };
        let minimum = Line {
            kind: LineKind::Minimum,
            description: format!("{}: {} up to its minimum", charge.name, charge.price.key),
            amount: cost.missing,
            period: self.period,
            ..plain_line(charge, Basis::Minimum { price, counted })
        };
        let mut lines = vec![usage];
        if cost.missing != 0 {
            lines.push(minimum);
        }
        lines
    }

    fn late(
        &self,
        billed: &BilledUsage,
        cost: Cost,
        subscription: &str,
    ) -> Result<Option<LateUsage>, Problem> {
        let Some(line) = adjust::line(billed, cost)? else {
            return Ok(None);
        };
        Ok(Some(LateUsage {
            subscription: subscription.to_owned(),
            period: billed.period.into(),
            price: billed.price.key.clone(),
            quantity: line.quantity.to_string(),
            amount: self.currency.format_amount(line.amount),
            currency: self.currency.to_string(),
        }))
    }
}

/// A line of usage with nothing in it yet.
fn plain_line(charge: &Charge, basis: Basis) -> Line {
    Line {
        kind: LineKind::Usage,
        source: charge.source.clone(),
        price: charge.price.key.clone(),
        meter: charge.price.meter.clone(),
        description: format!("{}: {}", charge.name, charge.price.key),
        quantity: Quantity::ZERO,
        amount: 0,
        period: TimeRange::new(Timestamp::EPOCH, Timestamp::EPOCH),
        basis,
        hash: String::new(),
    }
}

/// A flat price for a part of its period, rounded once.
pub(super) fn flat_amount(
    price: &Price,
    part_us: i64,
    whole_us: i64,
    currency: Currency,
) -> Result<i64, Problem> {
    let whole: Exact = rate(price, &Usage::Total(Quantity::ZERO), currency)?.unrounded;
    Ok(prorate(&whole, part_us, whole_us)?.to_minor(currency)?)
}
