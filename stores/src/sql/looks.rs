//! When billing is to look at subscriptions.

use crate::width::integer;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Row as _};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::billing::Look;
use turnpike_domain::time::Timestamp;

pub(super) async fn due(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    now: Timestamp,
    after: Option<Look>,
    rows: usize,
) -> Result<Vec<Look>, sqlx::Error> {
    let (at, id) = after.map_or((-1, String::new()), |last| (last.at.micros(), last.subscription));
    let found = sqlx::query(
        "SELECT id, look_us, changes FROM subscriptions \
         WHERE tenant = $1 AND look_us <= $2 AND (look_us, id) > ($3, $4) ORDER BY look_us, id LIMIT $5",
    )
    .bind(i64::from(tenant.0))
    .bind(now.micros())
    .bind(at)
    .bind(id)
    .bind(integer(rows))
    .fetch_all(connection)
    .await?;
    let look = |row: &sqlx::sqlite::SqliteRow| {
        Ok(Look {
            subscription: row.try_get(0)?,
            at: Timestamp::from_micros_clamped(row.try_get(1)?),
            change: row.try_get(2)?,
        })
    };
    found.iter().map(look).collect()
}

pub(super) async fn put(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    looks: &[Look],
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    for look in looks {
        sqlx::query(
            "UPDATE subscriptions SET look_us = $3 WHERE tenant = $1 AND id = $2 AND changes = $4 AND look_us <> $3",
        )
        .bind(i64::from(tenant.0))
        .bind(&look.subscription)
        .bind(look.at.micros())
        .bind(look.change)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}
