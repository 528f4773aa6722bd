//! What the server answers, beside what the oracle says.

use serde_json::Value;

use crate::app::Caller;
use crate::instant::{time, us};
use crate::oracle::{Oracle, OracleEvent, OracleMeter, Select, Verdict};

/// How a batch is decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Events that count from now on.
    pub accepted: u64,
    /// Events that were there before.
    pub duplicates: u64,
    /// Events whose id was there before, with other content.
    pub conflicts: u64,
}

impl Verdicts {
    /// Tells the oracle a batch that was answered.
    pub fn of(oracle: &mut Oracle, batch: &[OracleEvent]) -> Self {
        let mut all = Self::default();
        for event in batch {
            match oracle.send(event.clone()) {
                Verdict::Accepted => all.accepted += 1,
                Verdict::Duplicate => all.duplicates += 1,
                Verdict::Conflict => all.conflicts += 1,
            }
        }
        all
    }

    /// The answer must say the same. `again`: the batch may have been taken before without an answer, so what counts
    /// now may have counted then.
    pub fn assert_said(self, answer: &Value, again: bool) {
        let says = |name: &str| {
            answer[name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name} in {answer}"))
        };
        let said = Self {
            accepted: says("accepted"),
            duplicates: says("duplicates"),
            conflicts: says("conflicts"),
        };
        let known = |one: Self| {
            if again {
                Self {
                    accepted: 0,
                    duplicates: one.accepted + one.duplicates,
                    ..one
                }
            } else {
                one
            }
        };
        assert_eq!(known(said), known(self), "{answer}");
    }
}

impl std::ops::AddAssign for Verdicts {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
    }
}

/// Events as NDJSON.
pub fn ndjson<'e>(events: impl IntoIterator<Item = &'e OracleEvent>) -> Vec<u8> {
    let mut lines = Vec::new();
    for event in events {
        lines.extend_from_slice(event.to_json().to_string().as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// Sends valid events, tells the oracle, and compares. None: there was no answer, or one that says to try again, and
/// nothing was told; the caller sends the same batch again, with `again`.
pub async fn send(
    caller: &Caller,
    oracle: &mut Oracle,
    batch: &[OracleEvent],
    again: bool,
) -> Option<Verdicts> {
    let (status, answer) = caller.send_lines(ndjson(batch)).await?;
    if status == 503 || status == 429 {
        return None;
    }
    assert_eq!((status, &answer["rejected"]), (200, &Value::from(0)), "{answer}");
    let verdicts = Verdicts::of(oracle, batch);
    verdicts.assert_said(&answer, again);
    Some(verdicts)
}

/// The same, where an answer must come.
pub async fn must_send(caller: &Caller, oracle: &mut Oracle, batch: &[OracleEvent]) -> Verdicts {
    let sent = send(caller, oracle, batch, false).await;
    sent.expect("an answer to a batch")
}

/// A selection as the query of a usage call.
pub fn query(select: &Select) -> String {
    let mut query = format!("from={}&to={}", time(select.from_us), time(select.to_us));
    for (name, values) in [
        ("subject", select.subjects.as_slice()),
        ("group_by", &select.group_by),
        ("window", select.window.as_slice()),
        ("tz", select.zone.as_slice()),
    ] {
        for value in values {
            query.extend(["&", name, "=", value]);
        }
    }
    query
}

/// The one value of a meter over a range must be the oracle's; nothing and zero are the same here.
pub async fn assert_total(
    caller: &Caller,
    oracle: &Oracle,
    (key, meter): (&str, &OracleMeter),
    select: &Select,
) {
    let known = |value: Option<String>| value.filter(|value| value != "0");
    let found = caller.total(key, &query(select)).await;
    assert_eq!(
        known(found),
        known(oracle.total(meter, select)),
        "{key}, {select:?}"
    );
}

/// A row of usage by subject: start of the window in microseconds, subject, value.
pub type SubjectRow = (i64, String, String);

/// The rows of a meter's usage by subject must be the oracle's; what they are.
pub async fn assert_rows(
    caller: &Caller,
    oracle: &Oracle,
    (key, meter): (&str, &OracleMeter),
    select: &Select,
) -> Vec<SubjectRow> {
    let select = Select {
        group_by: vec!["subject".into()],
        ..select.clone()
    };
    let found = rows(caller, &format!("/v1/meters/{key}/usage?{}", query(&select))).await;
    let shown = |value: Option<String>| value.unwrap_or_else(|| "null".to_owned());
    let expected = oracle.usage(meter, &select).into_iter();
    let mut expected: Vec<_> = expected
        .map(|(start, group, value)| (start, group.concat(), shown(value)))
        .collect();
    expected.sort();
    assert_eq!(found, expected, "{key}, {select:?}");
    found
}

/// Rows of an answer through all its pages, in order.
async fn rows(caller: &Caller, path: &str) -> Vec<SubjectRow> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, body) = caller.get(&format!("{path}{cursor}")).await;
        assert_eq!(status, 200, "{path}: {body}");
        for row in body["data"].as_array().expect("rows") {
            let start_us = us(row["start"].as_str().expect("a start"));
            let subject = row["subject"].as_str().or(row["group"]["subject"].as_str());
            let value = row["value"].as_str().unwrap_or("null").to_owned();
            found.push((start_us, subject.expect("a subject").to_owned(), value));
        }
        match body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_repeat_may_find_what_was_taken_before() {
        let decided = Verdicts {
            accepted: 2,
            duplicates: 1,
            conflicts: 1,
        };
        decided.assert_said(&json!({"accepted": 2, "duplicates": 1, "conflicts": 1}), false);
        decided.assert_said(&json!({"accepted": 0, "duplicates": 3, "conflicts": 1}), true);
    }

    #[test]
    #[should_panic(expected = "accepted")]
    fn a_count_that_differs_is_seen() {
        Verdicts::default().assert_said(&json!({"accepted": 1, "duplicates": 0, "conflicts": 0}), false);
    }

    #[test]
    #[should_panic(expected = "conflicts")]
    fn a_conflict_is_one_in_a_repeat_too() {
        Verdicts::default().assert_said(&json!({"accepted": 0, "duplicates": 0, "conflicts": 1}), true);
    }
}
