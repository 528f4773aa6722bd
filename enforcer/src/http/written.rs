//! The answer to a quota call as JSON, written by hand: through derived code it is most of the work of a decision over HTTP.
//! It has the shape of [`super::answer::QuotaAnswer`], byte for byte.

use std::ops::Range;

use turnpike_domain::quantity::push_whole;
use turnpike_domain::quota::Figures;

use super::answer::{quantity, resets_at};
use crate::outcome::{LimitOutcome, Outcome, ReservationOutcome};
use crate::upgrade::UpgradeOption;

/// Appends the answer.
pub(super) fn push_answer(outcome: &Outcome, json: &mut Vec<u8>) {
    json.push(b'{');
    push_members(outcome, json);
    json.push(b'}');
}

/// Appends the members of the answer, without the braces around them.
pub(super) fn push_members(outcome: &Outcome, json: &mut Vec<u8>) {
    put(
        json,
        if outcome.allowed() {
            r#""allowed":true,"customer":"#
        } else {
            r#""allowed":false,"customer":"#
        },
    );
    push_text(&outcome.customer, json);
    put(json, r#","feature":"#);
    push_text(&outcome.feature, json);
    json.push(b',');
    let described = push_described(outcome, json);
    put(json, r#","reason":""#);
    put(json, outcome.reason.as_str());
    put(json, r#"","as_of":""#);
    outcome.as_of.push_to(json);
    put(json, r#"","max_overshoot":"0""#);
    if let Some(value) = &outcome.value {
        put(json, r#","value":"#);
        push_text(value, json);
    }
    put(json, r#","limits":"#);
    push_list(&outcome.limits, json, |at, limit, json| {
        let same = described.clone().filter(|_| outcome.described == Some(at));
        push_limit(limit, same, json);
    });
    if !outcome.allowed() {
        put(json, r#","upgrade_options":"#);
        push_list(&outcome.upgrade_options, json, |_, option, json| {
            push_upgrade(option, json);
        });
    }
    if let Some(reservation) = &outcome.reservation {
        push_reservation(reservation, json);
    }
}

/// Appends the figures of the limit that describes the answer, and tells where they stand: among the limits are the same ones.
fn push_described(outcome: &Outcome, json: &mut Vec<u8>) -> Option<Range<usize>> {
    let Some(limit) = outcome.figures() else {
        put(
            json,
            r#""limit":null,"used":null,"reserved":null,"remaining":null,"overage":null,"resets_at":null"#,
        );
        return None;
    };
    let start = json.len();
    push_figures(&limit.figures, json);
    Some(start..json.len())
}

fn push_limit(limit: &LimitOutcome, same: Option<Range<usize>>, json: &mut Vec<u8>) {
    put(json, r#"{"customer":"#);
    push_text(&limit.customer, json);
    put(json, r#","period":""#);
    put(json, limit.period.as_str());
    put(json, r#"","mode":""#);
    put(json, limit.figures.mode.as_str());
    put(json, r#"","#);
    match same {
        Some(written) => json.extend_from_within(written),
        None => push_figures(&limit.figures, json),
    }
    json.push(b'}');
}

fn push_figures(figures: &Figures, json: &mut Vec<u8>) {
    push_count(r#""limit":"#, figures.limit, json);
    push_count(r#","used":"#, Some(figures.used()), json);
    push_count(r#","reserved":"#, Some(figures.reserved), json);
    push_count(r#","remaining":"#, figures.remaining(), json);
    push_count(r#","overage":"#, Some(figures.overage()), json);
    put(json, r#","resets_at":"#);
    match resets_at(figures) {
        Some(time) => push_quoted(json, |json| time.push_to(json)),
        None => put(json, "null"),
    }
}

fn push_count(name: &str, count: Option<i128>, json: &mut Vec<u8>) {
    put(json, name);
    match count {
        Some(count) => push_quoted(json, |json| quantity(count).push_to(json)),
        None => put(json, "null"),
    }
}

fn push_upgrade(option: &UpgradeOption, json: &mut Vec<u8>) {
    put(json, r#"{"kind":"#);
    push_text(option.kind, json);
    put(json, r#","key":"#);
    push_text(&option.key, json);
    put(json, r#","version":"#);
    push_whole(option.version.into(), json);
    put(json, r#","customer":"#);
    push_text(&option.customer, json);
    json.push(b'}');
}

fn push_reservation(reservation: &ReservationOutcome, json: &mut Vec<u8>) {
    put(json, r#","reservation":{"id":"#);
    push_text(&reservation.id, json);
    put(json, r#","status":"#);
    push_text(reservation.status, json);
    put(json, r#","expires_at":"#);
    push_quoted(json, |json| reservation.expires_at.push_to(json));
    json.push(b'}');
}

/// Appends a list, of which `push` appends each item.
fn push_list<T>(items: &[T], json: &mut Vec<u8>, mut push: impl FnMut(usize, &T, &mut Vec<u8>)) {
    json.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        push(at, item, json);
    }
    json.push(b']');
}

fn push_quoted(json: &mut Vec<u8>, push: impl FnOnce(&mut Vec<u8>)) {
    json.push(b'"');
    push(json);
    json.push(b'"');
}

fn put(json: &mut Vec<u8>, text: &str) {
    json.extend_from_slice(text.as_bytes());
}

/// Appends any text. What needs escaping is seldom.
fn push_text(text: &str, json: &mut Vec<u8>) {
    if text
        .bytes()
        .any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\'))
    {
        // A text can always be written.
        put(json, &serde_json::to_string(text).unwrap_or_default());
    } else {
        push_quoted(json, |json| put(json, text));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use turnpike_domain::catalog::{LimitMode, LimitPeriod};
    use turnpike_domain::quota::Reason;
    use turnpike_domain::time::{TimeRange, Timestamp};

    use super::super::answer::QuotaAnswer;
    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z0-9_-]{1,20}", any::<String>()]
    }

    fn time() -> impl Strategy<Value = Timestamp> {
        let micros = prop_oneof![any::<i64>(), 0..2_000_000_000_000_000_i64];
        micros.prop_map(Timestamp::from_micros_clamped)
    }

    /// A count of any size, also beyond what a quantity can be.
    fn count() -> impl Strategy<Value = i128> {
        (any::<i128>(), 1u32..127).prop_map(|(count, shift)| count >> shift)
    }

    fn limit() -> impl Strategy<Value = LimitOutcome> {
        use LimitPeriod::{Billing, Day, Ever, Hour, Minute, Month, Second, Week};
        let periods = vec![Second, Minute, Hour, Day, Week, Month, Billing, Ever];
        let modes = vec![LimitMode::Hard, LimitMode::Soft, LimitMode::Overage];
        let kind = (prop::sample::select(periods), prop::sample::select(modes));
        let counts = (prop::option::of(count()), count(), count());
        let resets_us = prop_oneof![Just(i64::MAX), time().prop_map(Timestamp::micros)];
        (text(), kind, counts, resets_us).prop_map(|(customer, (period, mode), counts, resets_us)| {
            let (limit, total, reserved) = counts;
            LimitOutcome {
                customer: customer.into(),
                period,
                window: TimeRange::ALL,
                figures: Figures {
                    mode,
                    limit,
                    ceiling: limit,
                    total,
                    reserved,
                    resets_us,
                },
            }
        })
    }

    fn upgrade() -> impl Strategy<Value = UpgradeOption> {
        let kind = prop::sample::select(vec!["plan", "add_on"]);
        (kind, text(), any::<u32>(), text()).prop_map(|(kind, key, version, customer)| UpgradeOption {
            kind,
            key,
            version,
            customer: customer.into(),
        })
    }

    fn reservation() -> impl Strategy<Value = ReservationOutcome> {
        let status = prop::sample::select(vec!["open", "committed", "released", "expired"]);
        (text(), status, time()).prop_map(|(id, status, expires_at)| ReservationOutcome {
            id,
            status,
            expires_at,
        })
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        let limits = prop::collection::vec(limit(), 0..4);
        let who = (text(), text(), prop::sample::select(Reason::ALL.to_vec()), time());
        let more = (
            prop::option::of(0usize..4),
            prop::option::of(text()),
            prop::collection::vec(upgrade(), 0..3),
            prop::option::of(reservation()),
        );
        (who, limits, more).prop_map(|((customer, feature, reason, as_of), limits, more)| {
            let (described, value, upgrade_options, reservation) = more;
            Outcome {
                described: described.filter(|at| *at < limits.len()),
                limits,
                value,
                upgrade_options,
                reservation,
                ..Outcome::without_figures(Arc::from(customer), Arc::from(feature), reason, as_of)
            }
        })
    }

    proptest! {
        #[test]
        fn an_answer_is_as_derived_code_writes_it(outcome in outcome()) {
            let mut json = Vec::new();
            push_answer(&outcome, &mut json);
            prop_assert_eq!(String::from_utf8(json).unwrap(), serde_json::to_string(&QuotaAnswer::from(&outcome)).unwrap());
        }
    }
}
