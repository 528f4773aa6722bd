use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FormerOverride, LimitPeriod};
use crate::limits::CUSTOMER_FORMER_GRANTS_MAX;
use crate::money::Currency;
use crate::quantity::Quantity;
use crate::time::{TimeRange, Timestamp};

/// Who uses and pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    /// Its key.
    #[serde(default)]
    pub key: String,
    /// Its name for people; the key unless said.
    #[serde(default)]
    pub name: String,
    /// Where invoices go.
    #[serde(default)]
    pub email: Option<String>,
    /// The currency it pays in; its plan's unless said.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^[A-Z]{3}$")]
    pub currency: Option<Currency>,
    /// Its IANA time zone; the tenant's unless said.
    #[serde(default)]
    pub timezone: Option<String>,
    /// The customer above it.
    #[serde(default)]
    pub parent: Option<String>,
    /// Since when it has had this parent: usage timed before does not count for the parent. None where it never was
    /// without it. Given by the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, read_only, format = DateTime)]
    pub parent_since: Option<Timestamp>,
    /// The parents that it had before, oldest first: usage timed then counts for them for good. Given by the engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(read_only)]
    pub former_parents: Vec<FormerParent>,
    /// The overrides that it had before, as far back as is kept: what usage drew on grants then is told by them. Given by
    /// the engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(read_only)]
    pub former_overrides: Vec<FormerOverride>,
    /// The grants that were taken back from it, each as it was and with when that happened (`deleted_at`), oldest first, as far
    /// back as is kept: what was drawn on them stays drawn on them. Given by the engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(read_only)]
    pub former_grants: Vec<Grant>,
    /// The subjects whose events are its own; its key unless said.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Whether its quota calls are refused.
    #[serde(default)]
    pub suspended: bool,
    /// What the caller keeps with it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// When it was erased: its personal data is gone, its usage and invoices stay, with the names on those that are final. Given by the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, read_only, format = DateTime)]
    pub erased_at: Option<Timestamp>,
}

/// A customer that was above another one for a while, `[since, until)`, on whole minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FormerParent {
    /// The key of the customer that was above it.
    pub parent: String,
    /// From when on; none where it never was without it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

impl Customer {
    /// The keys of its parents over time, oldest first: the times do not overlap, and in those that are missing it had
    /// none.
    pub fn parents(&self) -> impl DoubleEndedIterator<Item = (&str, TimeRange)> {
        let from = |since: Option<Timestamp>| since.unwrap_or(Timestamp::EPOCH);
        let former = self.former_parents.iter();
        let former = former.map(move |one| (one.parent.as_str(), TimeRange::new(from(one.since), one.until)));
        let since = from(self.parent_since);
        let now = self.parent.as_deref();
        former.chain(now.map(move |parent| (parent, TimeRange::new(since, Timestamp::MAX))))
    }

    /// The key of the customer that usage timed `at` counts for too.
    pub(crate) fn parent_at(&self, at: Timestamp) -> Option<&str> {
        let found = self.parents().rev().find(|(_, time)| at >= time.start)?;
        (at < found.1.end || found.1.end == Timestamp::MAX).then_some(found.0)
    }

    /// Whether it has, or ever had, a parent.
    pub fn was_below_another(&self) -> bool {
        self.parents().next().is_some()
    }

    /// Keeps a grant that is taken back at `now`, as one that counted until that minute. One that never began to count
    /// leaves no trace. Returns whether there was anything to keep.
    pub fn keep_grant(&mut self, grant: &Grant, now: Timestamp) -> bool {
        let former = Grant {
            deleted_at: Some(now.floor_minute()),
            ..grant.clone()
        };
        let counted = former.active_time();
        if counted.end <= counted.start {
            return false;
        }
        self.former_grants.push(former);
        let beyond = self
            .former_grants
            .len()
            .saturating_sub(CUSTOMER_FORMER_GRANTS_MAX);
        self.former_grants.drain(..beyond);
        true
    }

    /// Takes over the former overrides, the former grants and the parents of `before`, the same customer as it was, and notes at the minute of `now` that the parent
    /// is another one. A parent that it did not have for a minute leaves no trace, and one that it leaves and comes back
    /// to within a minute was never left.
    pub fn follow(&mut self, before: &Self, now: Timestamp) {
        self.former_overrides.clone_from(&before.former_overrides);
        self.former_grants.clone_from(&before.former_grants);
        self.former_parents.clone_from(&before.former_parents);
        self.parent_since = before.parent_since;
        if before.parent == self.parent {
            return;
        }
        // A clock that went back cannot make the times overlap.
        let last_end = self.former_parents.last().map(|former| former.until);
        let at = now
            .floor_minute()
            .max(before.parent_since.or(last_end).unwrap_or(Timestamp::EPOCH));
        if let Some(parent) = &before.parent
            && before.parent_since.is_none_or(|since| since < at)
        {
            self.former_parents.push(FormerParent {
                parent: parent.clone(),
                since: before.parent_since,
                until: at,
            });
        }
        self.parent_since = self.parent.is_some().then_some(at);
        let back = self
            .former_parents
            .pop_if(|last| last.until == at && self.parent.as_ref() == Some(&last.parent));
        if let Some(back) = back {
            self.parent_since = back.since;
        }
    }
}

/// An amount of a feature given to one customer on top.
///
/// It raises the longest of the feature's limits that lasts a day or more; limits of a second, a minute or an hour bound the
/// speed and stay as they are. Where the customer uses the entitlement of a customer above, it raises that one's limit, and
/// all who share that limit can use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its id; made by the engine unless said.
    #[serde(default)]
    pub id: String,
    /// The customer's key; taken from the path.
    #[serde(default)]
    pub customer: String,
    /// The metered feature.
    pub feature: String,
    /// How much.
    pub amount: Quantity,
    /// Smaller is used first; 0 to 100.
    #[serde(default = "fifty")]
    pub priority: u8,
    /// From when it counts; now unless said. Not before 2000.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub effective_at: Option<Timestamp>,
    /// When it ends; never unless said.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// How often it is given anew: `hour` (at most 366 days long), `day`, `week`, `month` or `billing`; once unless said.
    #[serde(default)]
    pub recurrence: Option<LimitPeriod>,
    /// For a recurring one: how much of what is left is carried into the next period, at the most.
    #[serde(default)]
    pub rollover_max: Option<Quantity>,
    /// When it was taken back, on a whole minute: it counts until then at the most. Its place in the order of drawing stays
    /// that of `expires_at`, for what was drawn before is not drawn anew. Given by the engine, in `former_grants` of a customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, read_only, format = DateTime)]
    pub deleted_at: Option<Timestamp>,
}

impl Grant {
    /// When it ends, taken back or not; `None`: never.
    pub fn ends_at(&self) -> Option<Timestamp> {
        [self.expires_at, self.deleted_at].into_iter().flatten().min()
    }

    /// When it counts: its bounds are whole minutes.
    pub fn active_time(&self) -> TimeRange {
        let start = self.effective_at.unwrap_or(Timestamp::EPOCH).floor_minute();
        let end = self.ends_at().map_or(Timestamp::MAX, Timestamp::floor_minute);
        TimeRange::new(start, end)
    }
}

const fn fifty() -> u8 {
    50
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn customer(parent: Option<&str>) -> Customer {
        let body = serde_json::json!({"key": "c", "parent": parent});
        serde_json::from_value(body).unwrap()
    }

    fn minute(n: u32) -> Timestamp {
        Timestamp::from_minute(n)
    }

    fn moved(before: &Customer, parent: Option<&str>, now: Timestamp) -> Customer {
        let mut after = customer(parent);
        after.follow(before, now);
        after
    }

    #[test]
    fn a_move_ends_one_time_and_begins_another() {
        let first = customer(Some("a"));
        let away = moved(&first, None, minute(10).plus_micros(59_999_999));
        assert_eq!(
            (away.parent_at(minute(9)), away.parent_at(minute(10))),
            (Some("a"), None)
        );
        let back = moved(&away, Some("b"), minute(20));
        let shown: Vec<_> = back
            .parents()
            .map(|(key, time)| (key, time.start, time.end))
            .collect();
        assert_eq!(
            shown,
            [
                ("a", Timestamp::EPOCH, minute(10)),
                ("b", minute(20), Timestamp::MAX)
            ]
        );
        assert_eq!(back.parent_at(minute(15)), None);
        assert_eq!(back.parent_at(Timestamp::MAX), Some("b"));
        // What the engine gives cannot be sent, and another change keeps it.
        let mut renamed = customer(Some("b"));
        renamed.former_parents = vec![];
        renamed.parent_since = Some(minute(1));
        renamed.follow(&back, minute(99));
        assert_eq!(renamed, back);
    }

    #[test]
    fn a_minute_has_one_parent() {
        let first = customer(Some("a"));
        let within = minute(10).plus_micros(30_000_000);
        let there = moved(&moved(&first, Some("b"), minute(10)), Some("c"), within);
        assert_eq!(
            there.parents().count(),
            2,
            "b was left in the minute in which it came"
        );
        assert_eq!(there.parent_at(minute(10)), Some("c"));
        assert_eq!(moved(&there, Some("a"), within), first, "it never left");
    }

    #[test]
    fn what_was_kept_without_a_history_is_read() {
        let old = r#"{"key":"c","parent":"a","parent_since":"2026-01-01T00:00:00Z"}"#;
        let read: Customer = serde_json::from_str(old).unwrap();
        assert_eq!(read.parents().count(), 1);
        assert!(!serde_json::to_string(&read).unwrap().contains("former_parents"));
    }

    proptest! {
        /// A plain list of the parent of each minute.
        #[test]
        fn parents_follow_a_plain_model(moves in prop::collection::vec((0u8..4, 0i64..200), 0..20)) {
            let (mut customer, mut now) = (customer(None), 0i64);
            let mut model: Vec<Option<String>> = vec![None; 100];
            for (parent, seconds) in moves {
                now += seconds;
                let parent = (parent > 0).then(|| format!("p{parent}"));
                customer = moved(&customer, parent.as_deref(), Timestamp::from_micros_clamped(now * 1_000_000));
                for minute in model.iter_mut().skip(now as usize / 60) {
                    minute.clone_from(&parent);
                }
            }
            for (n, expected) in model.iter().enumerate() {
                prop_assert_eq!(customer.parent_at(minute(n as u32)), expected.as_deref(), "minute {}", n);
            }
        }

        #[test]
        fn a_clock_that_goes_back_makes_no_overlap(moves in prop::collection::vec((0u8..4, -200i64..200), 0..20)) {
            let (mut customer, mut now) = (customer(None), 1_000i64);
            for (parent, seconds) in moves {
                now += seconds;
                let parent = (parent > 0).then(|| format!("p{parent}"));
                customer = moved(&customer, parent.as_deref(), Timestamp::from_micros_clamped(now * 1_000_000));
                let times: Vec<_> = customer.parents().map(|(_, time)| time).collect();
                prop_assert!(times.iter().all(|time| time.start < time.end));
                prop_assert!(times.windows(2).all(|pair| pair[0].end <= pair[1].start));
            }
        }
    }
}
