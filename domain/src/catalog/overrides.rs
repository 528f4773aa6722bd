use serde::{Deserialize, Serialize};

use super::{Customer, Entitlement, Limit};
use crate::limits::{CUSTOMER_FORMER_OVERRIDES_MAX, FEATURE_FORMER_OVERRIDES_MAX};
use crate::time::{TimeRange, Timestamp};

/// What replaces a plan's entitlement for one customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(from = "FlatOverride", deny_unknown_fields)]
pub struct Override {
    /// The customer's key; taken from the path.
    #[serde(default)]
    pub customer: String,
    /// What it is entitled to instead of plan and add-ons; one per feature.
    #[serde(flatten)]
    pub entitlement: Entitlement,
    /// Whether the feature is taken away altogether.
    #[serde(default)]
    pub revoked: bool,
    /// Since when it says so, on a whole minute; none where it always did. Given by the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, read_only)]
    pub since: Option<Timestamp>,
}

/// An override as it is read: field by field, for serde's `flatten` forgets where in the text a wrong one stood.
#[derive(Deserialize)]
#[serde(rename = "Override", deny_unknown_fields)]
struct FlatOverride {
    #[serde(default)]
    customer: String,
    #[serde(default)]
    feature: String,
    #[serde(default)]
    limits: Vec<Limit>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    revoked: bool,
    #[serde(default)]
    since: Option<Timestamp>,
}

impl From<FlatOverride> for Override {
    fn from(flat: FlatOverride) -> Self {
        let FlatOverride {
            customer,
            feature,
            limits,
            value,
            revoked,
            since,
        } = flat;
        Self {
            customer,
            entitlement: Entitlement {
                feature,
                limits,
                value,
            },
            revoked,
            since,
        }
    }
}

/// An override that stood for a while, `[since, until)`, on whole minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(from = "FlatFormerOverride", deny_unknown_fields)]
pub struct FormerOverride {
    /// What it said.
    #[serde(flatten)]
    pub said: Override,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// A former override as it is read, field by field too.
#[derive(Deserialize)]
#[serde(rename = "FormerOverride", deny_unknown_fields)]
struct FlatFormerOverride {
    #[serde(default)]
    customer: String,
    #[serde(default)]
    feature: String,
    #[serde(default)]
    limits: Vec<Limit>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    revoked: bool,
    #[serde(default)]
    since: Option<Timestamp>,
    until: Timestamp,
}

impl From<FlatFormerOverride> for FormerOverride {
    fn from(flat: FlatFormerOverride) -> Self {
        let FlatFormerOverride {
            customer,
            feature,
            limits,
            value,
            revoked,
            since,
            until,
        } = flat;
        let said = FlatOverride {
            customer,
            feature,
            limits,
            value,
            revoked,
            since,
        };
        Self {
            said: said.into(),
            until,
        }
    }
}

impl Override {
    /// The time for which it says so, while nobody changes it.
    pub fn time(&self) -> TimeRange {
        TimeRange::new(self.since.unwrap_or(Timestamp::EPOCH), Timestamp::MAX)
    }

    /// Notes since when it says so: as `before`, the one that stood until `now`, where it says the same, else from the
    /// minute of `now` on.
    pub fn follow(&mut self, before: Option<&Self>, now: Timestamp) {
        let same = before.filter(|before| before.says(self));
        self.since = match same {
            Some(before) => before.since,
            None => Some(before.map_or(now.floor_minute(), |before| before.ended_by(now))),
        };
    }

    fn says(&self, other: &Self) -> bool {
        self.entitlement == other.entitlement && self.revoked == other.revoked
    }

    /// When it ends if it is replaced at `now`: not before it began, though a clock goes back.
    fn ended_by(&self, now: Timestamp) -> Timestamp {
        now.floor_minute().max(self.since.unwrap_or(Timestamp::EPOCH))
    }
}

impl FormerOverride {
    /// The time for which it said so.
    pub fn time(&self) -> TimeRange {
        TimeRange::new(self.said.since.unwrap_or(Timestamp::EPOCH), self.until)
    }
}

impl Customer {
    /// Keeps an override that another one replaces, or that is taken away, at `now`. One that did not stand for a minute
    /// leaves no trace. Returns whether there was anything to keep.
    pub fn keep_override(&mut self, before: &Override, now: Timestamp) -> bool {
        let until = before.ended_by(now);
        if before.since == Some(until) {
            return false;
        }
        self.former_overrides.push(FormerOverride {
            said: before.clone(),
            until,
        });
        let feature = &before.entitlement.feature;
        let same = |one: &FormerOverride| one.said.entitlement.feature == *feature;
        let kept = &self.former_overrides;
        let most = kept.iter().filter(|one| same(one)).count() > FEATURE_FORMER_OVERRIDES_MAX;
        if let Some(oldest) = kept.iter().position(same).filter(|_| most) {
            self.former_overrides.remove(oldest);
        }
        let beyond = self
            .former_overrides
            .len()
            .saturating_sub(CUSTOMER_FORMER_OVERRIDES_MAX);
        self.former_overrides.drain(..beyond);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn over(limit: u8) -> Override {
        let limits = serde_json::json!([{"limit": limit, "period": "day"}]);
        serde_json::from_value(serde_json::json!({"feature": "f", "limits": limits})).unwrap()
    }

    #[test]
    fn what_stood_before_is_written_and_read() {
        let mut customer: Customer = serde_json::from_str(r#"{"key": "c"}"#).unwrap();
        assert!(customer.keep_override(&over(7), Timestamp::from_minute(3)));
        let text = serde_json::to_string(&customer).unwrap();
        assert_eq!(serde_json::from_str::<Customer>(&text).unwrap(), customer);
        let shown = serde_json::to_value(&customer.former_overrides[0]).unwrap();
        assert_eq!(
            (&shown["feature"], &shown["until"]),
            (&"f".into(), &"1970-01-01T00:03:00Z".into())
        );
    }

    #[test]
    fn the_changes_of_one_feature_drop_nothing_of_another() {
        let mut customer: Customer = serde_json::from_str(r#"{"key": "c"}"#).unwrap();
        let of = |feature: String| {
            let mut one = over(7);
            one.entitlement.feature = feature;
            one
        };
        let kept = |customer: &Customer, feature: &str| {
            let former = customer.former_overrides.iter();
            let same = former.filter(|one| one.said.entitlement.feature == feature);
            same.map(|one| one.until).collect::<Vec<_>>()
        };
        customer.keep_override(&of("rare".to_owned()), Timestamp::from_minute(3));
        for n in 0..200 {
            customer.keep_override(&of("f".to_owned()), Timestamp::from_minute(n + 10));
        }
        assert_eq!(kept(&customer, "rare"), [Timestamp::from_minute(3)]);
        let last = kept(&customer, "f");
        assert_eq!(last.len(), FEATURE_FORMER_OVERRIDES_MAX);
        assert_eq!(last[0], Timestamp::from_minute(110), "the newest are kept");
        for n in 0..2_000 {
            customer.keep_override(&of(format!("f{n}")), Timestamp::from_minute(n + 300));
        }
        assert_eq!(customer.former_overrides.len(), CUSTOMER_FORMER_OVERRIDES_MAX);
    }

    proptest! {
        /// A plain list of what stood in each minute: the last that was put or taken away in it or before.
        #[test]
        fn the_times_follow_a_plain_model(changes in prop::collection::vec((prop::option::of(0u8..3), 0i64..200), 0..20)) {
            let mut customer: Customer = serde_json::from_str(r#"{"key": "c"}"#).unwrap();
            let (mut standing, mut now) = (None::<Override>, 0i64);
            let mut model: Vec<Option<u8>> = vec![None; 100];
            for (change, seconds) in changes {
                now += seconds;
                let at = Timestamp::from_micros_clamped(now * 1_000_000);
                let next = change.map(over).map(|mut next| {
                    next.follow(standing.as_ref(), at);
                    next
                });
                if let Some(before) = standing.filter(|before| next.as_ref() != Some(before)) {
                    customer.keep_override(&before, at);
                }
                standing = next;
                model[now as usize / 60..].fill(change);
            }
            let former = customer.former_overrides.iter().map(|former| (former.time(), &former.said));
            let times: Vec<_> = former.chain(standing.as_ref().map(|standing| (standing.time(), standing))).collect();
            prop_assert!(times.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start));
            for (n, expected) in (0u32..).zip(&model) {
                let at = Timestamp::from_minute(n);
                let found = times.iter().find(|(time, _)| time.contains(at)).map(|(_, said)| &said.entitlement);
                let expected = expected.map(|limit| over(limit).entitlement);
                prop_assert_eq!(found, expected.as_ref(), "minute {}", n);
            }
        }
    }
}
