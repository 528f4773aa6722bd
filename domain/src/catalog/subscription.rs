use serde::{Deserialize, Serialize};

use super::Interval;
use crate::money::Currency;
use crate::time::{Cycle, TimeRange, Timestamp, Zone};

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionStatus {
    /// It begins later.
    Scheduled,
    /// Not yet charged.
    Trial,
    /// Running.
    Active,
    /// Neither entitled nor charged a recurring price for now.
    Paused,
    /// An invoice was not paid in time.
    PastDue,
    /// Ended by somebody.
    Cancelled,
    /// Ended by itself.
    Expired,
}

/// A customer's use of a plan.
///
/// Only facts are kept: what follows from them and the time (status, plan, period) is derived when asked, so that
/// nothing grows stale. Every instant in it is on a whole minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id.
    pub id: String,
    /// The customer's key.
    pub customer: String,
    /// The currency that it is billed in.
    pub currency: Currency,
    /// When it began or begins.
    pub start: Timestamp,
    /// When its trial ends; the trial is a period of its own.
    pub trial_end: Option<Timestamp>,
    /// The zone of its periods, kept from its start.
    pub timezone: String,
    /// What it began with.
    pub first: Phase,
    /// What followed or will follow, ascending by `from`.
    pub later: Vec<Phase>,
    /// When it was or is paused, ascending.
    pub pauses: Vec<Pause>,
    /// Whether an invoice was not paid in time.
    pub past_due: bool,
    /// When it ended or will end.
    pub ends_at: Option<Timestamp>,
    /// Whether it ends by itself rather than by a cancellation.
    pub expires: bool,
    /// Everything before this is billed.
    pub billed_until: Timestamp,
}

/// What a subscription consists of from an instant on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// From when: the subscription's start, or the boundary of a period.
    pub from: Timestamp,
    /// The plan's key.
    pub plan: String,
    /// The plan's version, which stays.
    pub plan_version: u32,
    /// The unit of the billing interval, as in that version.
    pub interval: Interval,
    /// Units per period, as in that version.
    pub interval_count: u32,
    /// The instant whose day and time of day, in the subscription's zone, its periods begin at.
    pub anchor: Timestamp,
    /// Add-ons: key and version.
    pub add_ons: Vec<AddOnUse>,
}

/// An add-on in a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AddOnUse {
    /// The add-on's key.
    pub key: String,
    /// Its version, which stays.
    pub version: u32,
}

/// A time without entitlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// From when.
    pub from: Timestamp,
    /// Until when, once it was resumed.
    pub until: Option<Timestamp>,
}

impl Subscription {
    /// All phases, ascending: also those that a cancellation keeps from beginning, for it may be taken back.
    pub fn phases(&self) -> impl DoubleEndedIterator<Item = &Phase> {
        std::iter::once(&self.first).chain(&self.later)
    }

    /// What it consists of at `at`; before its start what it will begin with.
    pub fn phase_at(&self, at: Timestamp) -> &Phase {
        self.changes()
            .rev()
            .find(|phase| phase.from <= at)
            .unwrap_or(&self.first)
    }

    /// What it changes to next after `at`, unless it ends first.
    pub fn change_after(&self, at: Timestamp) -> Option<&Phase> {
        self.changes().find(|phase| phase.from > at)
    }

    /// The phases behind the first that begin before it ends, ascending.
    fn changes(&self) -> impl DoubleEndedIterator<Item = &Phase> {
        let begins = |phase: &&Phase| self.ends_at.is_none_or(|end| phase.from < end);
        self.later.iter().filter(begins)
    }

    /// The time that it runs.
    pub fn span(&self) -> TimeRange {
        TimeRange::new(self.start, self.ends_at.unwrap_or(Timestamp::MAX))
    }

    /// Whether it is over at `at`.
    pub fn has_ended(&self, at: Timestamp) -> bool {
        self.ends_at.is_some_and(|end| end <= at)
    }

    /// Whether it is over at `at` and billed to its end, so that nothing more comes of it.
    pub fn is_settled(&self, at: Timestamp) -> bool {
        self.ends_at
            .is_some_and(|end| end <= at && end <= self.billed_until)
    }

    /// Whether `other` is the same but for until when it is billed.
    pub fn is_as(&self, other: &Self) -> bool {
        let billed = Self {
            billed_until: self.billed_until,
            ..other.clone()
        };
        *self == billed
    }

    /// Whether it is paused at `at`. A period that begins while it is paused has no recurring prices; usage in a pause
    /// is charged as it happens, and a pause changes no boundary.
    pub fn is_paused(&self, at: Timestamp) -> bool {
        self.pauses
            .iter()
            .any(|pause| pause.from <= at && pause.until.is_none_or(|until| at < until))
    }

    /// Whether `at` lies in its trial.
    pub fn is_trial(&self, at: Timestamp) -> bool {
        self.start <= at && self.trial_end.is_some_and(|end| at < end)
    }

    /// Where it stands at `at`.
    pub fn status_at(&self, at: Timestamp) -> SubscriptionStatus {
        if self.has_ended(at) {
            if self.expires {
                SubscriptionStatus::Expired
            } else {
                SubscriptionStatus::Cancelled
            }
        } else if at < self.start {
            SubscriptionStatus::Scheduled
        } else if self.is_paused(at) {
            SubscriptionStatus::Paused
        } else if self.is_trial(at) {
            SubscriptionStatus::Trial
        } else if self.past_due {
            SubscriptionStatus::PastDue
        } else {
            SubscriptionStatus::Active
        }
    }

    /// Whether it entitles its customer at `at`: it runs and is not paused.
    pub fn entitles(&self, at: Timestamp) -> bool {
        self.span().contains(at) && !self.is_paused(at)
    }

    /// The billing period that contains `at`, cut to the subscription's own time and to its trial; `None` before its
    /// start and after its end. The period behind it is that at its `end`.
    pub fn period_at(&self, at: Timestamp) -> Option<TimeRange> {
        let bounds = match self.trial_end {
            Some(end) if at < end => self.span(),
            _ => {
                let from = self.phase_at(at).from.max(self.trial_end.unwrap_or(self.start));
                let next = self.change_after(at).map(|phase| phase.from);
                TimeRange::new(from, next.unwrap_or(Timestamp::MAX)).intersect(&self.span())?
            }
        };
        self.whole_period_at(at)?.intersect(&bounds)
    }

    /// Whether the period that contains `at` ends before its time, with the subscription or for a change in it.
    pub fn is_period_cut(&self, at: Timestamp) -> bool {
        let ends = self.period_at(at).zip(self.whole_period_at(at));
        ends.is_some_and(|(period, whole)| period.end < whole.end)
    }

    /// The period that contains `at` as it would be if nothing changed.
    fn whole_period_at(&self, at: Timestamp) -> Option<TimeRange> {
        if !self.span().contains(at) {
            return None;
        }
        if let Some(end) = self.trial_end.filter(|end| at < *end) {
            return Some(TimeRange::new(self.start, end));
        }
        let phase = self.phase_at(at);
        // Kept as it was validated; an unknown zone would be a defect, and UTC still gives whole periods.
        let zone = Zone::parse(&self.timezone).unwrap_or(Zone::UTC);
        let cycle = Cycle::new(phase.anchor, zone, phase.interval, phase.interval_count);
        Some(cycle.period_at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn phase(from: &str, plan: &str, interval: Interval) -> Phase {
        Phase {
            from: at(from),
            plan: plan.to_owned(),
            plan_version: 1,
            interval,
            interval_count: 1,
            anchor: at(from),
            add_ons: Vec::new(),
        }
    }

    fn monthly(start: &str) -> Subscription {
        Subscription {
            id: "s".to_owned(),
            customer: "acme".to_owned(),
            currency: Currency::USD,
            start: at(start),
            trial_end: None,
            timezone: "UTC".to_owned(),
            first: phase(start, "pro", Interval::Month),
            later: Vec::new(),
            pauses: Vec::new(),
            past_due: false,
            ends_at: None,
            expires: false,
            billed_until: at(start),
        }
    }

    fn range(start: &str, end: &str) -> TimeRange {
        TimeRange::new(at(start), at(end))
    }

    #[test]
    fn periods_roll_with_the_time() {
        let s = monthly("2026-01-31T00:00:00Z");
        assert_eq!(s.period_at(at("2026-01-30T23:59:59Z")), None);
        assert_eq!(
            s.period_at(at("2026-02-27T23:59:59Z")),
            Some(range("2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"))
        );
        assert_eq!(
            s.period_at(at("2026-02-28T00:00:00Z")),
            Some(range("2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"))
        );
    }

    #[test]
    fn a_trial_is_a_period_of_its_own() {
        let mut s = monthly("2026-01-01T00:00:00Z");
        s.trial_end = Some(at("2026-01-15T00:00:00Z"));
        s.first.anchor = at("2026-01-15T00:00:00Z");
        assert_eq!(s.status_at(at("2026-01-14T00:00:00Z")), SubscriptionStatus::Trial);
        assert_eq!(
            s.status_at(at("2026-01-15T00:00:00Z")),
            SubscriptionStatus::Active
        );
        assert_eq!(
            s.period_at(at("2026-01-02T00:00:00Z")),
            Some(range("2026-01-01T00:00:00Z", "2026-01-15T00:00:00Z"))
        );
        assert_eq!(
            s.period_at(at("2026-01-15T00:00:00Z")),
            Some(range("2026-01-15T00:00:00Z", "2026-02-15T00:00:00Z"))
        );
    }

    #[test]
    fn what_begins_behind_the_end_never_comes() {
        let mut s = monthly("2026-01-01T00:00:00Z");
        let later = phase("2026-03-01T00:00:00Z", "big", Interval::Year);
        s.later = vec![later.clone()];
        let (before, after) = (at("2026-02-01T00:00:00Z"), at("2026-04-01T00:00:00Z"));
        assert_eq!(
            (s.change_after(before), s.phase_at(after)),
            (Some(&later), &later)
        );
        for end in ["2026-03-01T00:00:00Z", "2026-02-20T00:00:00Z"] {
            s.ends_at = Some(at(end));
            assert_eq!(
                (s.change_after(before), s.phase_at(after)),
                (None, &s.first),
                "{end}"
            );
        }
        s.ends_at = Some(at("2026-03-01T00:01:00Z"));
        assert_eq!(
            (s.change_after(before), s.phase_at(after)),
            (Some(&later), &later)
        );
    }

    #[test]
    fn an_end_and_a_later_phase_cut_the_period() {
        let mut s = monthly("2026-01-01T00:00:00Z");
        s.later = vec![phase("2026-03-01T00:00:00Z", "big", Interval::Year)];
        assert_eq!(s.phase_at(at("2026-02-28T23:59:59Z")).plan, "pro");
        assert_eq!(s.phase_at(at("2026-03-01T00:00:00Z")).plan, "big");
        assert_eq!(
            s.period_at(at("2026-03-01T00:00:00Z")),
            Some(range("2026-03-01T00:00:00Z", "2027-03-01T00:00:00Z"))
        );
        s.ends_at = Some(at("2026-03-10T12:00:00Z"));
        assert_eq!(
            s.period_at(at("2026-03-02T00:00:00Z")),
            Some(range("2026-03-01T00:00:00Z", "2026-03-10T12:00:00Z"))
        );
        assert_eq!(s.period_at(at("2026-03-10T12:00:00Z")), None);
        assert_eq!(
            s.status_at(at("2026-03-10T12:00:00Z")),
            SubscriptionStatus::Cancelled
        );
    }

    #[test]
    fn a_pause_takes_the_entitlement_and_moves_no_boundary() {
        let mut s = monthly("2026-01-01T00:00:00Z");
        let whole = s.period_at(at("2026-01-10T00:00:00Z"));
        s.pauses.push(Pause {
            from: at("2026-01-10T00:00:00Z"),
            until: None,
        });
        assert!(!s.entitles(at("2026-01-10T00:00:00Z")));
        assert_eq!(
            s.status_at(at("2026-01-10T00:00:00Z")),
            SubscriptionStatus::Paused
        );
        s.pauses[0].until = Some(at("2026-01-12T00:00:00Z"));
        assert!(s.entitles(at("2026-01-12T00:00:00Z")));
        assert_eq!(s.period_at(at("2026-01-10T00:00:00Z")), whole);
    }

    proptest! {
        #[test]
        fn periods_lie_one_behind_the_other(
            trial in 0u32..40, change in 1u32..6, minutes in 0i64..1_000_000, yearly in any::<bool>(), steps in 1usize..14,
        ) {
            let mut s = monthly("2026-01-31T00:00:00Z");
            if trial > 0 {
                let end = s.start.plus_micros(i64::from(trial) * 86_400_000_000);
                s.trial_end = Some(end);
                s.first.anchor = end;
            }
            let mut boundary = s.start;
            for _ in 0..change {
                boundary = s.period_at(boundary).unwrap().end;
            }
            let interval = if yearly { Interval::Year } else { Interval::Month };
            s.later = vec![Phase { from: boundary, ..phase("2026-01-31T00:00:00Z", "b", interval) }];
            s.later[0].anchor = if yearly { boundary } else { s.first.anchor };
            let end = boundary.plus_micros(minutes * crate::time::MINUTE_US);
            s.ends_at = Some(end);
            let mut from = s.start;
            for _ in 0..steps {
                let Some(period) = s.period_at(from) else {
                    prop_assert_eq!(from, end);
                    break;
                };
                prop_assert_eq!(period.start, from);
                prop_assert!(period.end > from && period.end <= end);
                prop_assert_eq!(s.period_at(period.end.plus_micros(-1)), Some(period));
                from = period.end;
            }
        }
    }
}
