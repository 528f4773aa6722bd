use serde::Serialize;

use crate::catalog::LimitMode;
use crate::quantity::Quantity;

/// Why a call was granted or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Granted: within every limit.
    WithinLimit,
    /// Granted: the feature has no limit.
    Unlimited,
    /// Granted: above a soft limit, within its grace.
    WithinGrace,
    /// Granted: above a limit beyond which usage is overage.
    Overage,
    /// Granted: the feature is not metered.
    Entitled,
    /// Refused: a limit would be exceeded.
    LimitReached,
    /// Refused: the subscription does not have the feature, or it was revoked.
    NotEntitled,
    /// Refused: no subscription runs, of the customer or of an ancestor.
    NoSubscription,
    /// Refused: the subscription is paused, or the customer or an ancestor is suspended.
    Suspended,
    /// Refused: prepaid credit does not cover it.
    InsufficientCredit,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::WithinLimit,
        Self::Unlimited,
        Self::WithinGrace,
        Self::Overage,
        Self::Entitled,
        Self::LimitReached,
        Self::NotEntitled,
        Self::NoSubscription,
        Self::Suspended,
        Self::InsufficientCredit,
    ];

    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WithinLimit => "within_limit",
            Self::Unlimited => "unlimited",
            Self::WithinGrace => "within_grace",
            Self::Overage => "overage",
            Self::Entitled => "entitled",
            Self::LimitReached => "limit_reached",
            Self::NotEntitled => "not_entitled",
            Self::NoSubscription => "no_subscription",
            Self::Suspended => "suspended",
            Self::InsufficientCredit => "insufficient_credit",
        }
    }

    /// The reason that [`Self::as_str`] names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Whether it is a grant.
    pub const fn allows(self) -> bool {
        matches!(
            self,
            Self::WithinLimit | Self::Unlimited | Self::WithinGrace | Self::Overage | Self::Entitled
        )
    }
}

/// One limit with what stands against it, in parts of 10⁻¹².
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// What happens at it.
    pub mode: LimitMode,
    /// The limit; `None`: unlimited.
    pub limit: Option<i128>,
    /// The most that is granted; `None`: no bound.
    pub ceiling: Option<i128>,
    /// What was used and is reserved.
    pub total: i128,
    /// What of it is reserved.
    pub reserved: i128,
    /// When its window ends, microseconds since 1970; `i64::MAX` for never.
    pub resets_us: i64,
}

impl Figures {
    /// What was used.
    pub const fn used(&self) -> i128 {
        self.total - self.reserved
    }

    /// What is left below the limit; `None` for unlimited.
    pub fn remaining(&self) -> Option<i128> {
        self.limit.map(|limit| limit.saturating_sub(self.total).max(0))
    }

    /// What is above the limit.
    pub fn overage(&self) -> i128 {
        self.limit
            .map_or(0, |limit| self.total.saturating_sub(limit).max(0))
    }

    /// Whether `amount` more is granted.
    pub fn admits(&self, amount: i128) -> bool {
        // Beyond the greatest quantity nothing can be counted, whatever the limit.
        let ceiling = self.ceiling.unwrap_or(Quantity::MAX.parts());
        self.total
            .checked_add(amount)
            .is_some_and(|after| after <= ceiling)
    }

    /// What this limit alone decides about `amount` more.
    #[inline]
    pub fn reason(&self, amount: i128) -> Reason {
        if self.admits(amount) {
            self.grant_reason(amount)
        } else {
            Reason::LimitReached
        }
    }

    /// Why `amount` more is granted, where it is.
    fn grant_reason(&self, amount: i128) -> Reason {
        let beyond = |limit| self.total.saturating_add(amount) > limit;
        match (self.limit, self.mode) {
            (None, _) => Reason::Unlimited,
            (Some(limit), LimitMode::Soft) if beyond(limit) => Reason::WithinGrace,
            (Some(limit), LimitMode::Overage) if beyond(limit) => Reason::Overage,
            _ => Reason::WithinLimit,
        }
    }

    /// Smaller describes a grant of `amount` better: least left, then a limit that the grant goes beyond (so that
    /// an overage never reads as within the limits), then the stricter mode, then the later reset.
    fn rank(&self, amount: i128) -> (i128, u8, u8, i64) {
        let beyond = match self.grant_reason(amount) {
            Reason::Overage => 0,
            Reason::WithinGrace => 1,
            _ => 2,
        };
        let mode = match self.mode {
            LimitMode::Hard => 0,
            LimitMode::Soft => 1,
            LimitMode::Overage => 2,
        };
        let left = self.remaining().unwrap_or(i128::MAX);
        (left, beyond, mode, -self.resets_us)
    }
}

/// What was decided, and by which limit it is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Why; says whether it was granted.
    pub reason: Reason,
    /// The limit that describes it: the one that refused, else the one with the least left.
    pub index: usize,
    /// That limit.
    pub figures: Figures,
}

/// Decides whether `amount` more fits into all of `limits`. `None` without limits.
///
/// Where several refuse, the one that resets last describes the refusal, for before that no retry can succeed.
pub fn decide(amount: i128, limits: impl Iterator<Item = Figures>) -> Option<Decision> {
    let mut chosen: Option<Decision> = None;
    for (index, figures) in limits.enumerate() {
        let reason = figures.reason(amount);
        let better = chosen.is_none_or(|best| match (reason.allows(), best.reason.allows()) {
            (false, true) => true,
            (true, false) => false,
            (false, false) => figures.resets_us > best.figures.resets_us,
            (true, true) => figures.rank(amount) < best.figures.rank(amount),
        });
        if better {
            chosen = Some(Decision {
                reason,
                index,
                figures,
            });
        }
    }
    chosen
}

/// Describes a grant by the limits as they stand after it, whatever was added to them since. `None` without limits.
pub fn granted(limits: impl Iterator<Item = Figures>) -> Option<Decision> {
    let described = limits.enumerate().min_by_key(|(_, figures)| figures.rank(0));
    described.map(|(index, figures)| Decision {
        reason: figures.grant_reason(0),
        index,
        figures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn figures(mode: LimitMode, limit: i128, ceiling: Option<i128>, total: i128) -> Figures {
        Figures {
            mode,
            limit: Some(limit),
            ceiling,
            total,
            reserved: 0,
            resets_us: 1,
        }
    }

    #[test]
    fn reasons_follow_the_limit() {
        use LimitMode::{Hard, Overage, Soft};
        for (limit, amount, reason) in [
            (figures(Hard, 10, Some(10), 9), 1, Reason::WithinLimit),
            (figures(Hard, 10, Some(10), 10), 0, Reason::WithinLimit),
            (figures(Hard, 10, Some(10), 10), 1, Reason::LimitReached),
            (figures(Soft, 10, Some(12), 10), 2, Reason::WithinGrace),
            (figures(Soft, 10, Some(12), 10), 3, Reason::LimitReached),
            (figures(Overage, 10, None, 10), 5, Reason::Overage),
            (figures(Overage, 10, None, 4), 5, Reason::WithinLimit),
            (
                Figures {
                    limit: None,
                    ..figures(Overage, 0, None, 4)
                },
                5,
                Reason::Unlimited,
            ),
            (figures(Overage, 10, None, i128::MAX), 5, Reason::LimitReached),
        ] {
            assert_eq!(
                decide(amount, [limit].into_iter()).unwrap().reason,
                reason,
                "{limit:?} {amount}"
            );
        }
        assert_eq!(decide(1, [].into_iter()), None);
    }

    #[test]
    fn the_limit_that_refused_describes_a_refusal_and_the_tightest_a_grant() {
        let tight = figures(LimitMode::Hard, 10, Some(10), 8);
        let wide = figures(LimitMode::Hard, 100, Some(100), 8);
        let granted = decide(1, [wide, tight].into_iter()).unwrap();
        assert_eq!((granted.index, granted.figures.remaining()), (1, Some(2)));
        let refused = decide(3, [wide, tight].into_iter()).unwrap();
        assert_eq!((refused.index, refused.reason), (1, Reason::LimitReached));
        let later = Figures {
            resets_us: 9,
            ..tight
        };
        assert_eq!(decide(3, [tight, later, tight].into_iter()).unwrap().index, 1);
    }

    #[test]
    fn what_goes_beyond_a_limit_is_not_called_within_limit_because_another_is_exhausted() {
        let over = figures(LimitMode::Overage, 10, None, 12);
        let exact = figures(LimitMode::Hard, 15, Some(15), 15);
        let after = [exact, Figures { total: 15, ..over }];
        assert_eq!(granted(after.into_iter()).unwrap().reason, Reason::Overage);
        let grace = figures(LimitMode::Soft, 10, Some(15), 12);
        let full = figures(LimitMode::Hard, 12, Some(12), 12);
        for order in [[grace, full], [full, grace]] {
            assert_eq!(granted(order.into_iter()).unwrap().reason, Reason::WithinGrace);
            assert_eq!(decide(0, order.into_iter()).unwrap().reason, Reason::WithinGrace);
        }
    }

    #[test]
    fn names_are_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
            assert_eq!(
                serde_json::to_string(&reason).unwrap(),
                format!("\"{}\"", reason.as_str())
            );
        }
        assert_eq!(Reason::parse("maybe"), None);
    }

    proptest! {
        #[test]
        fn granted_means_that_every_limit_admits(
            limits in prop::collection::vec((0i128..50, 0i128..60, 0u8..3), 1..5), amount in 0i128..30,
        ) {
            let limits: Vec<_> = limits.into_iter().map(|(limit, total, mode)| match mode {
                0 => figures(LimitMode::Hard, limit, Some(limit), total),
                1 => figures(LimitMode::Soft, limit, Some(limit + limit / 10), total),
                _ => figures(LimitMode::Overage, limit, None, total),
            }).collect();
            let decision = decide(amount, limits.iter().copied()).unwrap();
            let admitted = limits.iter().all(|l| l.admits(amount));
            prop_assert_eq!(decision.reason.allows(), admitted);
            prop_assert_eq!(decision.figures, limits[decision.index]);
            if admitted {
                prop_assert!(limits.iter().all(|l| l.remaining() >= decision.figures.remaining()));
            } else {
                prop_assert!(!decision.figures.admits(amount));
            }
        }
    }
}
