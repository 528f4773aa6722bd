use crate::catalog::{LimitPeriod, Subscription};
use crate::time::{CalendarUnit, TimeRange, Timestamp, Zone};

/// Where the windows of a customer's limits begin and end.
#[derive(Debug, Clone, Copy)]
pub struct Windows<'a> {
    /// The zone of its calendar windows.
    pub zone: &'a Zone,
    /// The subscription whose periods its `billing` windows are.
    pub subscription: Option<&'a Subscription>,
}

impl Windows<'_> {
    /// The window of `period` that contains `at`. Without a running subscription a billing window is the calendar month.
    pub fn containing(&self, period: LimitPeriod, at: Timestamp) -> TimeRange {
        if let Some(unit) = CalendarUnit::of_limit(period) {
            return self.zone.window(unit, at);
        }
        match period {
            LimitPeriod::Ever => TimeRange::ALL,
            _ => self
                .subscription
                .and_then(|subscription| subscription.period_at(at))
                .unwrap_or_else(|| self.zone.window(CalendarUnit::Month, at)),
        }
    }

    /// Whether the window of `period` that contains `at` ends before its time, with the subscription or for a change in it.
    pub(super) fn is_cut(&self, period: LimitPeriod, at: Timestamp) -> bool {
        let billing = period == LimitPeriod::Billing;
        billing && self.subscription.is_some_and(|one| one.is_period_cut(at))
    }
}

/// The next instant after `at` at which what a subscription entitles to may change.
pub(crate) fn next_change(subscription: &Subscription, at: Timestamp) -> Timestamp {
    let pauses = subscription
        .pauses
        .iter()
        .flat_map(|pause| [Some(pause.from), pause.until].into_iter().flatten());
    let phases = subscription.phases().map(|phase| phase.from);
    let edges = [
        Some(subscription.start),
        subscription.trial_end,
        subscription.ends_at,
    ];
    pauses
        .chain(phases)
        .chain(edges.into_iter().flatten())
        .filter(|edge| *edge > at)
        .min()
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Interval, Pause, Phase};
    use crate::money::Currency;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn subscription() -> Subscription {
        let start = at("2026-01-31T10:00:00Z");
        Subscription {
            id: "s".to_owned(),
            customer: "acme".to_owned(),
            currency: Currency::USD,
            start,
            trial_end: None,
            timezone: "UTC".to_owned(),
            first: Phase {
                from: start,
                plan: "pro".to_owned(),
                plan_version: 1,
                interval: Interval::Month,
                interval_count: 1,
                anchor: start,
                add_ons: Vec::new(),
            },
            later: Vec::new(),
            pauses: Vec::new(),
            past_due: false,
            ends_at: None,
            expires: false,
            billed_until: start,
        }
    }

    #[test]
    fn a_billing_window_is_the_subscriptions_own_period() {
        let (zone, subscription) = (Zone::parse("Europe/Berlin").unwrap(), subscription());
        let with = Windows {
            zone: &zone,
            subscription: Some(&subscription),
        };
        let window = with.containing(LimitPeriod::Billing, at("2026-02-28T09:59:59Z"));
        assert_eq!(window.end, at("2026-02-28T10:00:00Z"));
        assert_eq!(
            with.containing(LimitPeriod::Billing, window.end).start,
            window.end
        );
        let without = Windows {
            zone: &zone,
            subscription: None,
        };
        let month = without.containing(LimitPeriod::Billing, at("2026-02-10T00:00:00Z"));
        assert_eq!(
            month,
            TimeRange::new(at("2026-01-31T23:00:00Z"), at("2026-02-28T23:00:00Z"))
        );
        assert_eq!(
            with.containing(LimitPeriod::Ever, at("2026-02-10T00:00:00Z")),
            TimeRange::ALL
        );
    }

    #[test]
    fn days_follow_the_zone_through_clock_changes() {
        let zone = Zone::parse("Europe/Berlin").unwrap();
        let windows = Windows {
            zone: &zone,
            subscription: None,
        };
        for (instant, hours) in [
            ("2026-03-29T12:00:00Z", 23),
            ("2026-10-25T12:00:00Z", 25),
            ("2026-06-01T12:00:00Z", 24),
        ] {
            let day = windows.containing(LimitPeriod::Day, at(instant));
            assert_eq!(
                day.end.micros() - day.start.micros(),
                hours * 3_600_000_000,
                "{instant}"
            );
        }
    }

    #[test]
    fn every_edge_of_a_subscription_is_a_change() {
        let mut s = subscription();
        s.pauses.push(Pause {
            from: at("2026-03-01T00:00:00Z"),
            until: Some(at("2026-03-05T00:00:00Z")),
        });
        s.ends_at = Some(at("2026-04-01T00:00:00Z"));
        let mut edges = vec![];
        let mut from = Timestamp::EPOCH;
        while from < Timestamp::MAX {
            from = next_change(&s, from);
            edges.push(from.to_string());
        }
        assert_eq!(
            edges[..4],
            [
                "2026-01-31T10:00:00Z",
                "2026-03-01T00:00:00Z",
                "2026-03-05T00:00:00Z",
                "2026-04-01T00:00:00Z"
            ]
        );
    }
}
