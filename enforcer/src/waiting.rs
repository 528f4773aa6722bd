//! Whether, and until when, a refused call has to wait.

use turnpike_domain::catalog::{Grant, LimitPeriod};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::Figures;

use crate::entry::{LimitCell, Pool, Resolved};
use crate::outcome::Outcome;

/// What was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    /// All that was asked for.
    pub(crate) whole: Quantity,
    /// What of it is not held already.
    pub(crate) more: Quantity,
}

/// When the same call may be granted, microseconds since 1970: when the last of the limits that refuse it resets or is
/// raised anew by a grant that recurs, whichever is earlier. `None` where no waiting helps.
pub(crate) fn granted_at_us(resolved: &Resolved, outcome: &Outcome, refused: Refused) -> Option<i64> {
    let limits = || {
        outcome
            .limits
            .iter()
            .map(|told| told.figures)
            .zip(&resolved.limits)
    };
    let fits = |figures: Figures, limit: &LimitCell, at_us: i64| {
        let fresh = when_unused(resolved, limit, figures, at_us);
        fresh.admits(refused.whole.parts())
    };
    let refusing = limits().filter(|(figures, _)| !figures.admits(refused.more.parts()));
    let mut last = None;
    for (figures, limit) in refusing {
        let reset = Some(figures.resets_us).filter(|us| *us != i64::MAX && fits(figures, limit, *us));
        let renewed = renewed_at_us(resolved, outcome, (figures, limit), refused.more);
        let at = reset.into_iter().chain(renewed).min()?;
        last = last.max(Some(at));
    }
    // Each that resets by then, also one that admits it now, has to admit it then, when grants may have ended.
    last.filter(|at| limits().all(|(figures, limit)| figures.resets_us > *at || fits(figures, limit, *at)))
}

/// The grants that raise a limit: of the limits of a customer, those with the longest period.
fn pool_of<'a>(resolved: &'a Resolved, limit: &LimitCell) -> Option<&'a Pool> {
    let theirs = resolved
        .limits
        .iter()
        .filter(|one| one.customer == limit.customer);
    let longest = theirs.map(|one| one.period).max();
    let mut pools = resolved.pools.iter();
    pools.find(|pool| pool.customer == limit.customer && longest == Some(limit.period))
}

/// When a grant that recurs raises a limit within its window so that `more` is granted.
fn renewed_at_us(
    resolved: &Resolved,
    outcome: &Outcome,
    (figures, limit): (Figures, &LimitCell),
    more: Quantity,
) -> Option<i64> {
    let (pool, ceiling) = (pool_of(resolved, limit)?, figures.ceiling?);
    let free = ceiling.saturating_sub(figures.total);
    // With nothing but grants, what was used beyond them is held against no later one.
    let endless = pool
        .grants
        .current()
        .bound
        .is_some_and(|bound| bound.is_endless());
    let free = if endless { free.max(0) } else { free };
    let short = more.parts().saturating_sub(free);
    let at = pool.grants.gives_at(&resolved.left(pool), outcome.as_of, short)?;
    Some(at.micros()).filter(|us| *us < figures.resets_us)
}

/// A limit at a later instant, in a window in which nothing was used yet: of the grants that raise it there is what lasts
/// until then or is given anew, and not what was drawn.
fn when_unused(resolved: &Resolved, limit: &LimitCell, figures: Figures, at_us: i64) -> Figures {
    let pool = pool_of(resolved, limit);
    let given = pool.map_or(0, |pool| {
        let left = resolved.left(pool).into_iter();
        let given = left.map(|(grant, left)| given_later(&grant, left, at_us));
        given.fold(0, i128::saturating_add)
    });
    let later = |limit_now: i128| limit_now.saturating_sub(limit.raised).saturating_add(given);
    Figures {
        ceiling: figures
            .ceiling
            .map(|ceiling| if pool.is_some() { later(ceiling) } else { ceiling }),
        total: 0,
        ..figures
    }
}

/// The most that a grant of which `left` is left gives behind `from_us`.
fn given_later(grant: &Grant, left: Quantity, from_us: i64) -> i128 {
    if grant.ends_at().is_some_and(|end| end.micros() <= from_us) {
        return 0;
    }
    match grant.recurrence {
        None | Some(LimitPeriod::Ever) => left.parts(),
        Some(_) => {
            let carried = grant.rollover_max.map_or(0, Quantity::parts);
            grant.amount.parts().saturating_add(carried)
        }
    }
}
