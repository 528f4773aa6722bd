//! Whether, and until when, a refused call has to wait.

use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::{Ahead, Figures, LevelCourse};
use turnpike_domain::time::Timestamp;

use crate::entry::{LimitCell, Pool, Resolved};
use crate::outcome::Outcome;

/// How many instants are looked at one behind the other: more are needed only where a great rollover fills up from a small
/// amount.
const INSTANTS_MAX: usize = 100;

/// What was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    /// All that was asked for.
    pub(crate) whole: Quantity,
    /// What of it is not held already.
    pub(crate) more: Quantity,
}

/// When the same call may be granted, microseconds since 1970: the first instant at which all limits grant it, for some of
/// them were reset by then, or were raised by a grant that recurs, and nothing else was used. `None` where no waiting helps.
/// Where it takes very many recurrences, an earlier instant.
pub(crate) fn granted_at_us(resolved: &Resolved, outcome: &Outcome, refused: Refused) -> Option<i64> {
    let mut pools: Vec<_> = resolved
        .pools
        .iter()
        .map(|pool| Raising::new(resolved, pool, outcome.as_of))
        .collect();
    let figures = outcome.limits.iter().map(|told| told.figures);
    let limits: Vec<_> = figures
        .zip(&resolved.limits)
        .map(|(figures, limit)| Standing {
            figures,
            limit,
            pool: pool_of(resolved, limit),
        })
        .collect();
    let mut at = outcome.as_of;
    for _ in 0..INSTANTS_MAX {
        if !limits.iter().all(|limit| limit.may_admit(&pools, refused)) {
            return None;
        }
        let resets = limits.iter().map(|limit| limit.figures.resets_us);
        let resets = resets.filter(|us| (at.micros() + 1..i64::MAX).contains(us)).min();
        let raised = pools.iter().filter_map(|pool| pool.ahead.next()).min();
        let raised = raised.map(Timestamp::micros);
        at = Timestamp::from_micros_clamped(resets.into_iter().chain(raised).min()?);
        for pool in &mut pools {
            pool.ahead.pass(at);
        }
        if limits.iter().all(|limit| limit.admits(&pools, at, refused)) {
            return Some(at.micros());
        }
    }
    Some(at.micros())
}

/// The place among the pools of that whose grants raise a limit: of the limits of a customer, those with the longest period.
fn pool_of(resolved: &Resolved, limit: &LimitCell) -> Option<usize> {
    let theirs = resolved
        .limits
        .iter()
        .filter(|one| one.customer == limit.customer);
    let longest = theirs.map(|one| one.period).max();
    let mut pools = resolved.pools.iter();
    pools.position(|pool| pool.customer == limit.customer && longest == Some(limit.period))
}

/// The grants of a pool as they go on.
struct Raising<'r> {
    /// What is left of them now.
    now: i128,
    ahead: Ahead<'r, LevelCourse>,
    /// Whether there is nothing but grants: what was used beyond them is then held against no later one.
    endless: bool,
}

impl<'r> Raising<'r> {
    fn new(resolved: &Resolved, pool: &'r Pool, now: Timestamp) -> Self {
        let ahead = pool.grants.ahead(resolved.left(pool), now);
        let bound = pool.grants.current().bound;
        Self {
            now: ahead.left(),
            ahead,
            endless: bound.is_some_and(|bound| bound.is_endless()),
        }
    }
}

/// A limit as it stands now.
struct Standing<'r> {
    figures: Figures,
    limit: &'r LimitCell,
    pool: Option<usize>,
}

impl Standing<'_> {
    /// Whether it admits what was refused at a later instant.
    fn admits(&self, pools: &[Raising<'_>], at: Timestamp, refused: Refused) -> bool {
        let pool = self.pool.and_then(|pool| pools.get(pool));
        let given = pool.map(|pool| (pool, pool.ahead.left()));
        if at.micros() < self.figures.resets_us {
            self.admits_within(given, refused)
        } else {
            self.admits_anew(given, refused)
        }
    }

    /// Whether it may admit that at any later instant, with the most that there can be of grants.
    fn may_admit(&self, pools: &[Raising<'_>], refused: Refused) -> bool {
        let pool = self.pool.and_then(|pool| pools.get(pool));
        let most = pool.map(|pool| (pool, pool.ahead.most()));
        let resets = self.figures.resets_us != i64::MAX;
        self.admits_within(most, refused) || resets && self.admits_anew(most, refused)
    }

    /// Within its window of now, where `given` is left of the grants that raise it.
    fn admits_within(&self, given: Option<(&Raising<'_>, i128)>, refused: Refused) -> bool {
        let mut then = self.figures;
        if let (Some(ceiling), Some((pool, given))) = (then.ceiling, given) {
            if pool.endless {
                then.total = then.total.min(ceiling);
            }
            then.ceiling = Some(ceiling.saturating_add(given.saturating_sub(pool.now)));
        }
        then.admits(refused.more.parts())
    }

    /// In a later window, in which nothing was used yet.
    fn admits_anew(&self, given: Option<(&Raising<'_>, i128)>, refused: Refused) -> bool {
        let mut then = Figures {
            total: 0,
            ..self.figures
        };
        if let (Some(ceiling), Some((_, given))) = (then.ceiling, given) {
            let own = ceiling.saturating_sub(self.limit.raised);
            then.ceiling = Some(own.saturating_add(given));
        }
        then.admits(refused.whole.parts())
    }
}
