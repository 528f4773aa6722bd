//! When billing is to look at subscriptions.

use std::collections::HashMap;

use crate::width::integer;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::billing::Look;
use turnpike_domain::time::Timestamp;

use super::connect::lost;
use super::writer::Writer;
use super::{subscription, write_body};

/// The subscription comes from the same row as the number of its changes: the directory may be one change behind.
pub(super) async fn due(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    now: Timestamp,
    after: Option<Look>,
    rows: usize,
) -> Result<Vec<Look>, StoreError> {
    let (at, id) = after.map_or((-1, String::new()), |last| {
        (last.at.micros(), last.subscription.id.clone())
    });
    let found = sqlx::query(
        "SELECT id, look_us, changes, body FROM subscriptions \
         WHERE tenant = $1 AND look_us <= $2 AND (look_us, id) > ($3, $4) ORDER BY look_us, id LIMIT $5",
    )
    .bind(i64::from(tenant.0))
    .bind(now.micros())
    .bind(at)
    .bind(id)
    .bind(integer(rows))
    .fetch_all(connection)
    .await
    .map_err(lost)?;
    let look = |row: &sqlx::sqlite::SqliteRow| {
        let (id, body) = (row.try_get(0).map_err(lost)?, row.try_get(3).map_err(lost)?);
        Ok(Look {
            subscription: subscription::read(id, body)?,
            at: Timestamp::from_micros_clamped(row.try_get(1).map_err(lost)?),
            change: row.try_get(2).map_err(lost)?,
        })
    };
    found.iter().map(look).collect()
}

pub(super) async fn next(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    after: Timestamp,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let next: Option<i64> =
        sqlx::query_scalar("SELECT MIN(look_us) FROM subscriptions WHERE tenant = $1 AND look_us > $2")
            .bind(i64::from(tenant.0))
            .bind(after.micros())
            .fetch_one(connection)
            .await?;
    Ok(next.map(Timestamp::from_micros_clamped))
}

/// Until when these subscriptions are settled, in the order asked.
pub(super) async fn settled_until(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    subscriptions: &[String],
) -> Result<Vec<Option<Timestamp>>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT id, settled_us FROM subscriptions \
         WHERE tenant = $1 AND id IN (SELECT value FROM json_each($2)) AND settled_us IS NOT NULL",
    )
    .bind(i64::from(tenant.0))
    .bind(write_body(&subscriptions)?)
    .fetch_all(connection)
    .await?;
    let until: HashMap<String, i64> = rows.into_iter().collect();
    let time = |id| until.get(id).copied().map(Timestamp::from_micros_clamped);
    Ok(subscriptions.iter().map(time).collect())
}

/// A change of a subscription meanwhile does not matter: what was looked at stays so.
pub(super) async fn settle(
    writer: &mut Writer,
    tenant: TenantId,
    settled: &[(String, Timestamp)],
) -> Result<(), StoreError> {
    writer.begin().await?;
    for (id, until) in settled {
        sqlx::query("UPDATE subscriptions SET settled_us = $3 WHERE tenant = $1 AND id = $2")
            .bind(i64::from(tenant.0))
            .bind(id)
            .bind(until.micros())
            .execute(&mut **writer)
            .await
            .map_err(lost)?;
    }
    writer.commit().await
}

pub(super) async fn put(writer: &mut Writer, tenant: TenantId, looks: &[Look]) -> Result<(), StoreError> {
    writer.begin().await?;
    for look in looks {
        sqlx::query(
            "UPDATE subscriptions SET look_us = $3 WHERE tenant = $1 AND id = $2 AND changes = $4 AND look_us <> $3",
        )
        .bind(i64::from(tenant.0))
        .bind(&look.subscription.id)
        .bind(look.at.micros())
        .bind(look.change)
        .execute(&mut **writer)
        .await
        .map_err(lost)?;
    }
    writer.commit().await
}
