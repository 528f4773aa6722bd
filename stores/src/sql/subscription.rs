//! Subscriptions.

use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;
use turnpike_domain::catalog::Subscription;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::control::{PageAfter, SubscriptionFilter};

use super::directory::MemoryDirectory;
use super::{each, read_body, write_body};
use crate::width::integer;

/// Makes or replaces a subscription, which stays its customer's for good. Billing is to look at it at once.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    subscription: &Subscription,
) -> Result<(), sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO subscriptions (tenant, id, customer, body) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant, id) DO UPDATE SET body = excluded.body, look_us = 0, changes = changes + 1 \
         WHERE subscriptions.customer = excluded.customer",
    )
    .bind(i64::from(tenant.0))
    .bind(&subscription.id)
    .bind(&subscription.customer)
    .bind(write_body(subscription)?)
    .execute(connection)
    .await?;
    match done.rows_affected() {
        0 => Err(sqlx::Error::Protocol(format!(
            "subscription {} belongs to another customer than \"{}\"",
            subscription.id, subscription.customer
        ))),
        _ => Ok(()),
    }
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    filter: &SubscriptionFilter,
    page: &PageAfter,
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let after = page.after.as_deref().unwrap_or("");
    let query = match &filter.customer {
        None => sqlx::query_as(
            "SELECT id, body FROM subscriptions WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(i64::from(tenant.0))
        .bind(after)
        .bind(integer(page.rows)),
        Some(customer) => sqlx::query_as(
            "SELECT id, body FROM subscriptions WHERE tenant = $1 AND id > $2 AND customer = $4 ORDER BY id LIMIT $3",
        )
        .bind(i64::from(tenant.0))
        .bind(after)
        .bind(integer(page.rows))
        .bind(customer),
    };
    query.fetch_all(connection).await
}

pub(super) fn read(id: &str, body: &str) -> Result<Arc<Subscription>, StoreError> {
    read_body("subscriptions", id, body).map(Arc::new)
}

pub(super) async fn load(
    connection: &mut SqliteConnection,
    directory: &MemoryDirectory,
) -> Result<(), StoreError> {
    let sql = "SELECT tenant, id, body FROM subscriptions";
    each(connection, sql, |tenant, id, body| {
        directory.put_subscription(tenant, read_body("subscriptions", id, body)?);
        Ok(())
    })
    .await
}
