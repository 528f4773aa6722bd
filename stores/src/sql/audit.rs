//! The audit log: control changes, and security events counted together.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::control::{AuditEntry, AuditFilter, PageAfter, SecurityEvent};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::connect::lost;
use super::{number, read_body};
use crate::width::integer;

/// Different security events that are held until they are written, every few seconds. What is beyond is counted in one
/// entry, so that a flood from many addresses cannot fill the disk.
const NOTES_MAX: usize = 100;

/// Security events that wait to be written: how often each happened.
#[derive(Debug, Default)]
pub(super) struct SecurityNotes {
    counts: BTreeMap<SecurityEvent, u64>,
    beyond: u64,
}

impl SecurityNotes {
    pub(super) fn note(&mut self, event: SecurityEvent) {
        if self.counts.len() < NOTES_MAX || self.counts.contains_key(&event) {
            *self.counts.entry(event).or_default() += 1;
        } else {
            self.beyond += 1;
        }
    }

    /// Gives events back that could not be written.
    pub(super) fn give_back(&mut self, notes: Self) {
        self.beyond += notes.beyond;
        for (event, count) in notes.counts {
            if self.counts.len() < NOTES_MAX || self.counts.contains_key(&event) {
                *self.counts.entry(event).or_default() += count;
            } else {
                self.beyond += count;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.beyond == 0
    }

    /// The rows that the events make; those beyond the bound belong to the tenant `administration`.
    pub(super) fn rows(&self, at: Timestamp, administration: TenantId) -> Vec<(TenantId, AuditEntry)> {
        let entry = |(actor, action, object): (&str, &str, &str), detail: Value| AuditEntry {
            id: 0,
            at,
            actor: actor.to_owned(),
            request_id: String::new(),
            action: action.to_owned(),
            object: object.to_owned(),
            detail,
        };
        let single = self.counts.iter().map(|(event, count)| {
            let what = (event.actor.as_str(), event.action, event.object.as_str());
            let detail = json!({ "count": count, "client": event.client });
            (event.tenant, entry(what, detail))
        });
        let more = || entry(("-", "security.more", "-"), json!({ "count": self.beyond }));
        let beyond = (self.beyond > 0).then(|| (administration, more()));
        single.chain(beyond).collect()
    }
}

pub(super) async fn append(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    entry: &AuditEntry,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO audit (id, tenant, at_us, actor, request_id, action, object, detail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(integer(entry.id))
    .bind(i64::from(tenant.0))
    .bind(entry.at.micros())
    .bind(&entry.actor)
    .bind(&entry.request_id)
    .bind(&entry.action)
    .bind(&entry.object)
    .bind(entry.detail.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    filter: &AuditFilter,
    before: u64,
    rows: usize,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    let range = filter.range.unwrap_or(TimeRange::ALL);
    // A dot behind the action, and the character behind the dot, bound the actions that begin with it.
    let action = filter.action.as_deref();
    sqlx::query(
        "SELECT id, at_us, actor, request_id, action, object, detail FROM audit \
         WHERE tenant = $1 AND id < $2 AND at_us >= $3 AND at_us < $4 \
         AND ($5 IS NULL OR actor = $5) AND ($6 IS NULL OR object = $6) \
         AND ($7 IS NULL OR action = $7 OR (action >= $8 AND action < $9)) \
         ORDER BY id DESC LIMIT $10",
    )
    .bind(i64::from(tenant.0))
    .bind(i64::try_from(before).unwrap_or(i64::MAX))
    .bind(range.start.micros())
    .bind(range.end.micros())
    .bind(filter.actor.as_deref())
    .bind(filter.object.as_deref())
    .bind(action)
    .bind(action.map(|action| format!("{action}.")))
    .bind(action.map(|action| format!("{action}/")))
    .bind(integer(rows))
    .fetch_all(connection)
    .await
}

/// The number of the entry that a page begins before.
pub(super) fn before(page: &PageAfter) -> u64 {
    page.after
        .as_deref()
        .map_or(u64::MAX, |after| after.parse().unwrap_or(0))
}

pub(super) fn read(row: &SqliteRow) -> Result<AuditEntry, StoreError> {
    let id: i64 = row.try_get(0).map_err(lost)?;
    let detail: Value = read_body("audit", &id.to_string(), row.try_get(6).map_err(lost)?)?;
    Ok(AuditEntry {
        id: number("audit", &id.to_string(), id)?,
        at: Timestamp::from_micros_clamped(row.try_get(1).map_err(lost)?),
        actor: row.try_get(2).map_err(lost)?,
        request_id: row.try_get(3).map_err(lost)?,
        action: row.try_get(4).map_err(lost)?,
        object: row.try_get(5).map_err(lost)?,
        detail,
    })
}

pub(super) async fn prune(connection: &mut SqliteConnection, horizon: Timestamp) -> Result<u64, sqlx::Error> {
    // The newest entry stays, so that numbers are never given twice.
    let done = sqlx::query("DELETE FROM audit WHERE at_us < $1 AND id < (SELECT MAX(id) FROM audit)")
        .bind(horizon.micros())
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(object: usize) -> SecurityEvent {
        SecurityEvent {
            tenant: TenantId(2),
            action: "security.wrong_key",
            actor: "-".to_owned(),
            object: format!("GET /{object}"),
            client: Some([192, 0, 2, 1].into()),
        }
    }

    #[test]
    fn security_events_are_bounded_and_none_is_lost_from_the_count() {
        let mut notes = SecurityNotes::default();
        for n in 0..3 * NOTES_MAX {
            notes.note(event(n));
            notes.note(event(0));
        }
        let rows = notes.rows(Timestamp::EPOCH, TenantId(1));
        assert_eq!(rows.len(), NOTES_MAX + 1);
        let counted: u64 = rows
            .iter()
            .map(|(_, row)| row.detail["count"].as_u64().unwrap())
            .sum();
        assert_eq!(counted, 6 * NOTES_MAX as u64);
        assert_eq!(rows.last().unwrap().0, TenantId(1));

        let mut later = SecurityNotes::default();
        later.note(event(7));
        later.give_back(notes);
        let counted: u64 = later
            .rows(Timestamp::EPOCH, TenantId(1))
            .iter()
            .map(|(_, row)| row.detail["count"].as_u64().unwrap())
            .sum();
        assert_eq!(counted, 6 * NOTES_MAX as u64 + 1);
        assert!(later.counts.len() <= NOTES_MAX);
    }
}
