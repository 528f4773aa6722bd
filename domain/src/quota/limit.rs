use crate::catalog::{Limit, LimitMode, LimitPeriod};
use crate::quantity::{Quantity, UNIT};

/// A limit as it stands after plan, add-ons, override and grants were put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectiveLimit {
    /// Its window.
    pub period: LimitPeriod,
    /// What happens at it.
    pub mode: LimitMode,
    /// How much; what is above it is overage.
    pub limit: Quantity,
    /// The most that is granted: the limit, with its grace for `soft`; `None` for `overage`.
    pub ceiling: Option<Quantity>,
}

impl EffectiveLimit {
    /// A declared limit. The grace (0 per cent unless said) is cut to a part of 10⁻¹².
    pub fn of(limit: &Limit) -> Self {
        let ceiling = match limit.mode {
            LimitMode::Hard => Some(limit.limit),
            LimitMode::Soft => Some(with_grace(limit)),
            LimitMode::Overage => None,
        };
        Self {
            period: limit.period,
            mode: limit.mode,
            limit: limit.limit,
            ceiling,
        }
    }

    /// This limit with `extra` on top; at the greatest quantity it stays.
    #[must_use]
    pub fn raised(self, extra: Quantity) -> Self {
        Self {
            limit: saturating(self.limit, extra),
            ceiling: self.ceiling.map(|ceiling| saturating(ceiling, extra)),
            ..self
        }
    }

    /// The period of those of `limits` that grants raise: the longest, if that is a day or more. Shorter limits only bound
    /// the speed, and an unlimited feature needs no grants.
    pub fn raised_period(limits: &[Self]) -> Option<LimitPeriod> {
        let longest = limits.iter().map(|limit| limit.period).max();
        longest.filter(|period| *period >= LimitPeriod::Day)
    }

    /// Adds `other` to the limit of the same window and mode in `limits`, or as a limit of its own.
    pub(crate) fn add_to(limits: &mut Vec<Self>, other: Self) {
        let same = limits
            .iter_mut()
            .find(|limit| limit.period == other.period && limit.mode == other.mode);
        match same {
            Some(limit) => {
                limit.limit = saturating(limit.limit, other.limit);
                limit.ceiling = limit
                    .ceiling
                    .zip(other.ceiling)
                    .map(|(one, two)| saturating(one, two));
            }
            None => limits.push(other),
        }
    }
}

fn saturating(a: Quantity, b: Quantity) -> Quantity {
    a.checked_add(b).unwrap_or(Quantity::MAX)
}

/// limit × (100 + grace) ÷ 100, cut.
fn with_grace(limit: &Limit) -> Quantity {
    let percent = limit.grace_percent.map_or(0, Quantity::parts).max(0);
    // Divided first in whole and rest, so that no product leaves 128 bits for percentages that make sense.
    let hundred = 100 * UNIT;
    let (whole, rest) = (limit.limit.parts() / hundred, limit.limit.parts() % hundred);
    let grace = whole
        .checked_mul(percent)
        .zip(rest.checked_mul(percent))
        .and_then(|(whole, rest)| whole.checked_add(rest / hundred));
    grace
        .and_then(|grace| grace.checked_add(limit.limit.parts()))
        .and_then(|parts| Quantity::from_parts(parts).ok())
        .unwrap_or(Quantity::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn q(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    fn limit(amount: &str, period: LimitPeriod, mode: LimitMode, grace: Option<&str>) -> Limit {
        Limit {
            limit: q(amount),
            period,
            mode,
            grace_percent: grace.map(q),
        }
    }

    #[test]
    fn the_grace_is_a_share_of_the_limit() {
        for (amount, grace, ceiling) in [
            ("100", Some("10"), "110"),
            ("100", None, "100"),
            ("100", Some("0"), "100"),
            ("0.000000000003", Some("50"), "0.000000000004"),
            (
                "99999999999999999999999999",
                Some("100"),
                "99999999999999999999999999.999999999999",
            ),
        ] {
            let soft = EffectiveLimit::of(&limit(amount, LimitPeriod::Day, LimitMode::Soft, grace));
            assert_eq!(soft.ceiling, Some(q(ceiling)), "{amount} {grace:?}");
            assert_eq!(soft.limit, q(amount));
        }
        let hard = EffectiveLimit::of(&limit("5", LimitPeriod::Day, LimitMode::Hard, Some("50")));
        assert_eq!(hard.ceiling, Some(q("5")));
        let overage = EffectiveLimit::of(&limit("5", LimitPeriod::Day, LimitMode::Overage, None));
        assert_eq!(overage.ceiling, None);
    }

    #[test]
    fn limits_of_the_same_window_and_mode_add_up() {
        let mut limits = Vec::new();
        for (amount, period, mode) in [
            ("100", LimitPeriod::Month, LimitMode::Hard),
            ("20", LimitPeriod::Day, LimitMode::Hard),
            ("50", LimitPeriod::Month, LimitMode::Hard),
            ("70", LimitPeriod::Month, LimitMode::Overage),
        ] {
            EffectiveLimit::add_to(
                &mut limits,
                EffectiveLimit::of(&limit(amount, period, mode, None)),
            );
        }
        let shown: Vec<_> = limits
            .iter()
            .map(|l| (l.limit.to_string(), l.ceiling.is_some()))
            .collect();
        assert_eq!(
            shown,
            [("150".into(), true), ("20".into(), true), ("70".into(), false)]
        );
    }

    proptest! {
        #[test]
        fn the_ceiling_is_never_below_the_limit(parts in 0i128..1_000_000_000_000_000_000, grace in 0i128..500 * UNIT) {
            let soft = EffectiveLimit::of(&Limit {
                limit: Quantity::from_parts(parts).unwrap(),
                period: LimitPeriod::Day,
                mode: LimitMode::Soft,
                grace_percent: Some(Quantity::from_parts(grace).unwrap()),
            });
            let ceiling = soft.ceiling.unwrap().parts();
            prop_assert_eq!(ceiling, parts + parts * grace / (100 * UNIT));
        }
    }
}
