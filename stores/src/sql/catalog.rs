//! Meters, features, plans and add-ons.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::catalog::{AddOn, Catalog, Feature, Plan};
use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::Meter;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::control::Change;

use super::connect::lost;
use super::directory::MemoryDirectory;
use super::{each, execute, number, read_body, write_body};
use crate::width::integer;

pub(super) async fn put_meter(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    meter: &Meter,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO meters (tenant, key, id, body) VALUES ($1, $2, $3, $4)")
        .bind(i64::from(tenant.0))
        .bind(&meter.key)
        .bind(i64::from(meter.id.0))
        .bind(write_body(meter)?)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn remove_meter(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    key: &str,
) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM meters WHERE tenant = $1 AND key = $2";
    execute(connection, sql, tenant, &[key]).await
}

pub(super) async fn put_feature(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    feature: &Feature,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO features (tenant, key, body) VALUES ($1, $2, $3) \
               ON CONFLICT (tenant, key) DO UPDATE SET body = excluded.body";
    execute(connection, sql, tenant, &[&feature.key, &write_body(feature)?]).await
}

pub(super) async fn remove_feature(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    key: &str,
) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM features WHERE tenant = $1 AND key = $2";
    execute(connection, sql, tenant, &[key]).await
}

pub(super) async fn put_plan(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    plan: &Plan,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO plans (tenant, key, version, body) VALUES ($1, $2, $3, $4)")
        .bind(i64::from(tenant.0))
        .bind(&plan.key)
        .bind(i64::from(plan.version))
        .bind(write_body(plan)?)
        .execute(&mut *connection)
        .await?;
    revive(connection, tenant, "plan", &plan.key).await
}

pub(super) async fn put_add_on(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    add_on: &AddOn,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO add_ons (tenant, key, version, body) VALUES ($1, $2, $3, $4)")
        .bind(i64::from(tenant.0))
        .bind(&add_on.key)
        .bind(i64::from(add_on.version))
        .bind(write_body(add_on)?)
        .execute(&mut *connection)
        .await?;
    revive(connection, tenant, "add_on", &add_on.key).await
}

/// Takes a plan (`plan`) or add-on (`add_on`) away; its versions stay.
pub(super) async fn retire(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    kind: &str,
    key: &str,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO retired (tenant, kind, key) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    execute(connection, sql, tenant, &[kind, key]).await
}

async fn revive(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    kind: &str,
    key: &str,
) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM retired WHERE tenant = $1 AND kind = $2 AND key = $3";
    execute(connection, sql, tenant, &[kind, key]).await
}

pub(super) async fn put_version(
    connection: &mut SqliteConnection,
    change: &Change,
    version: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO catalog_versions (tenant, version, at_us, actor) VALUES ($1, $2, $3, $4)")
        .bind(i64::from(change.tenant.0))
        .bind(integer(version))
        .bind(change.at.micros())
        .bind(change.actor.as_ref())
        .execute(connection)
        .await?;
    Ok(())
}

type Catalogs = BTreeMap<TenantId, Catalog>;

pub(super) async fn load(
    connection: &mut SqliteConnection,
    directory: &MemoryDirectory,
) -> Result<(), StoreError> {
    let mut catalogs = Catalogs::new();
    load_definitions(connection, &mut catalogs).await?;
    load_priced(connection, &mut catalogs).await?;
    load_versions(connection, &mut catalogs).await?;
    for (tenant, catalog) in catalogs {
        directory.put_catalog(tenant, catalog);
    }
    Ok(())
}

async fn load_definitions(
    connection: &mut SqliteConnection,
    catalogs: &mut Catalogs,
) -> Result<(), StoreError> {
    let sql = "SELECT tenant, key, body FROM meters";
    each(connection, sql, |tenant, key, body| {
        let meter: Meter = read_body("meters", key, body)?;
        let meters = &mut catalogs.entry(tenant).or_default().meters;
        meters.insert(key.to_owned(), Arc::new(meter));
        Ok(())
    })
    .await?;
    let sql = "SELECT tenant, key, body FROM features";
    each(connection, sql, |tenant, key, body| {
        let feature: Feature = read_body("features", key, body)?;
        let features = &mut catalogs.entry(tenant).or_default().features;
        features.insert(key.to_owned(), Arc::new(feature));
        Ok(())
    })
    .await
}

async fn load_priced(connection: &mut SqliteConnection, catalogs: &mut Catalogs) -> Result<(), StoreError> {
    let sql = "SELECT tenant, key, body FROM plans ORDER BY version";
    each(connection, sql, |tenant, key, body| {
        let plan: Plan = read_body("plans", key, body)?;
        catalogs.entry(tenant).or_default().add_plan(plan);
        Ok(())
    })
    .await?;
    let sql = "SELECT tenant, key, body FROM add_ons ORDER BY version";
    each(connection, sql, |tenant, key, body| {
        let add_on: AddOn = read_body("add_ons", key, body)?;
        catalogs.entry(tenant).or_default().add_add_on(add_on);
        Ok(())
    })
    .await?;
    let sql = "SELECT tenant, kind, key FROM retired";
    each(connection, sql, |tenant, kind, key| {
        let catalog = catalogs.entry(tenant).or_default();
        if kind == "plan" {
            catalog.retire_plan(key);
        } else {
            catalog.retire_add_on(key);
        }
        Ok(())
    })
    .await
}

async fn load_versions(connection: &mut SqliteConnection, catalogs: &mut Catalogs) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT tenant, MAX(version) FROM catalog_versions GROUP BY tenant")
        .fetch_all(connection)
        .await
        .map_err(lost)?;
    for row in rows {
        let tenant: i64 = row.try_get(0).map_err(lost)?;
        let version: i64 = row.try_get(1).map_err(lost)?;
        let tenant = TenantId(number("catalog_versions", "of a tenant", tenant)?);
        catalogs.entry(tenant).or_default().version = number("catalog_versions", "newest", version)?;
    }
    Ok(())
}
