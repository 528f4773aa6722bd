//! Tenants.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::catalog::Tenant;
use turnpike_domain::port::StoreError;

use super::connect::lost;
use super::directory::MemoryDirectory;
use super::{read_body, write_body};

pub(super) async fn put(connection: &mut SqliteConnection, tenant: &Tenant) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO tenants (id, key, body) VALUES ($1, $2, $3) \
         ON CONFLICT (id) DO UPDATE SET key = excluded.key, body = excluded.body",
    )
    .bind(i64::from(tenant.id.0))
    .bind(&tenant.key)
    .bind(write_body(tenant)?)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn load(
    connection: &mut SqliteConnection,
    directory: &MemoryDirectory,
) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT key, body FROM tenants ORDER BY id")
        .fetch_all(connection)
        .await
        .map_err(lost)?;
    for row in rows {
        let key: String = row.try_get(0).map_err(lost)?;
        directory.put_tenant(read_body("tenants", &key, row.try_get(1).map_err(lost)?)?);
    }
    Ok(())
}
