//! Customers with their subjects, overrides and grants.

use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;
use turnpike_domain::catalog::{Customer, Grant, Override};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::control::PageAfter;
use turnpike_domain::time::Timestamp;

use super::directory::MemoryDirectory;
use super::{each, execute, read_body, write_body};
use crate::width::integer;

/// Makes or replaces a customer.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    customer: &Customer,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO customers (tenant, key, erased_us, body) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant, key) DO UPDATE SET erased_us = excluded.erased_us, body = excluded.body",
    )
    .bind(i64::from(tenant.0))
    .bind(&customer.key)
    .bind(customer.erased_at.map(Timestamp::micros))
    .bind(write_body(customer)?)
    .execute(&mut *connection)
    .await?;
    remove_subjects(connection, tenant, &customer.key).await?;
    for subject in &customer.subjects {
        let sql = "INSERT INTO subjects (tenant, subject, customer) VALUES ($1, $2, $3)";
        execute(connection, sql, tenant, &[subject, &customer.key]).await?;
    }
    Ok(())
}

async fn remove_subjects(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    key: &str,
) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM subjects WHERE tenant = $1 AND customer = $2";
    execute(connection, sql, tenant, &[key]).await
}

/// Takes a customer's overrides and grants away.
pub(super) async fn remove_entitlements(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    key: &str,
) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM overrides WHERE tenant = $1 AND customer = $2";
    execute(connection, sql, tenant, &[key]).await?;
    let sql = "DELETE FROM grants WHERE tenant = $1 AND customer = $2";
    execute(connection, sql, tenant, &[key]).await
}

pub(super) async fn remove(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    key: &str,
) -> Result<(), sqlx::Error> {
    remove_entitlements(connection, tenant, key).await?;
    remove_subjects(connection, tenant, key).await?;
    let sql = "DELETE FROM customers WHERE tenant = $1 AND key = $2";
    execute(connection, sql, tenant, &[key]).await
}

pub(super) async fn put_override(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    entry: &Override,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO overrides (tenant, customer, feature, body) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (tenant, customer, feature) DO UPDATE SET body = excluded.body";
    let texts = [
        entry.customer.as_str(),
        &entry.entitlement.feature,
        &write_body(entry)?,
    ];
    execute(connection, sql, tenant, &texts).await
}

pub(super) async fn remove_override(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    customer: &str,
    feature: &str,
) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM overrides WHERE tenant = $1 AND customer = $2 AND feature = $3";
    execute(connection, sql, tenant, &[customer, feature]).await
}

pub(super) async fn put_grant(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    grant: &Grant,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO grants (tenant, customer, id, body) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (tenant, customer, id) DO UPDATE SET body = excluded.body";
    let texts = [grant.customer.as_str(), &grant.id, &write_body(grant)?];
    execute(connection, sql, tenant, &texts).await
}

pub(super) async fn remove_grant(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    customer: &str,
    id: &str,
) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM grants WHERE tenant = $1 AND customer = $2 AND id = $3";
    execute(connection, sql, tenant, &[customer, id]).await
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    page: &PageAfter,
) -> Result<Vec<(String, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT key, body FROM customers WHERE tenant = $1 AND key > $2 AND erased_us IS NULL ORDER BY key LIMIT $3",
    )
    .bind(i64::from(tenant.0))
    .bind(page.after.as_deref().unwrap_or(""))
    .bind(integer(page.rows))
    .fetch_all(connection)
    .await
}

pub(super) fn read(key: &str, body: &str) -> Result<Arc<Customer>, StoreError> {
    read_body("customers", key, body).map(Arc::new)
}

pub(super) async fn load(
    connection: &mut SqliteConnection,
    directory: &MemoryDirectory,
) -> Result<(), StoreError> {
    let sql = "SELECT tenant, key, body FROM customers";
    each(connection, sql, |tenant, key, body| {
        directory.put_customer(tenant, read_body("customers", key, body)?);
        Ok(())
    })
    .await?;
    let sql = "SELECT tenant, customer, body FROM overrides";
    each(connection, sql, |tenant, customer, body| {
        directory.put_override(tenant, read_body("overrides", customer, body)?);
        Ok(())
    })
    .await?;
    let sql = "SELECT tenant, customer, body FROM grants";
    each(connection, sql, |tenant, customer, body| {
        directory.put_grant(tenant, read_body("grants", customer, body)?);
        Ok(())
    })
    .await
}
