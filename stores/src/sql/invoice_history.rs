//! The statuses of final invoices.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Difference, Invoice, StatusEntry};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::billing::Broken;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use super::connect::lost;
use crate::width::integer;

/// The statuses of an invoice, oldest first.
pub(super) async fn read(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    invoice: &str,
) -> Result<Result<Vec<StatusEntry>, Broken>, StoreError> {
    let rows = sqlx::query(
        "SELECT status, at_us, hash FROM invoice_history WHERE tenant = $1 AND invoice = $2 ORDER BY step",
    )
    .bind(i64::from(tenant.0))
    .bind(invoice)
    .fetch_all(connection)
    .await
    .map_err(lost)?;
    let entries: Result<_, sqlx::Error> = rows.iter().map(entry).collect();
    Ok(entries.map_err(|_| Broken {
        id: invoice.to_owned(),
        number: None,
        field: Difference {
            pointer: "/status".to_owned(),
            expected: "a status whose history can be read".to_owned(),
            found: "one that cannot".to_owned(),
        },
    }))
}

fn entry(row: &SqliteRow) -> Result<StatusEntry, sqlx::Error> {
    Ok(StatusEntry {
        status: row.try_get(0)?,
        at: Timestamp::from_micros_clamped(row.try_get(1)?),
        hash: row.try_get(2)?,
    })
}

/// Adds the status that the invoice has from now on. The database refuses to give it one that its history lacks.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    invoice: &Invoice,
    at: Timestamp,
) -> Result<(), Problem> {
    let history = read(connection, tenant, &invoice.id).await??;
    let next = StatusEntry::next(&invoice.id, &history, invoice.status, at);
    sqlx::query(
        "INSERT INTO invoice_history (tenant, invoice, step, status, at_us, hash) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(i64::from(tenant.0))
    .bind(&invoice.id)
    .bind(integer(history.len()))
    .bind(next.status)
    .bind(next.at.micros())
    .bind(next.hash)
    .execute(connection)
    .await
    .map_err(lost)?;
    Ok(())
}
