//! What was answered to calls with an idempotency key. Kept for good: a repeat answers as the call did first, however
//! late it comes.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{Answer, Change, Decision, Idempotent};
use turnpike_domain::problem::{Code, Problem};

use super::connect::lost;
use super::{execute, read_body, write_body};

fn hex(hash: [u8; 32]) -> String {
    blake3::Hash::from_bytes(hash).to_hex().to_string()
}

/// What the call was answered before, if it is a repeat.
pub(super) async fn repeated(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    call: &Idempotent,
) -> Result<Option<Answer>, Problem> {
    let row =
        sqlx::query("SELECT request_hash, status, answer FROM idempotency WHERE tenant = $1 AND key = $2")
            .bind(i64::from(tenant.0))
            .bind(&call.key)
            .fetch_optional(connection)
            .await
            .map_err(lost)?;
    let Some(row) = row else { return Ok(None) };
    let hash: String = row.try_get(0).map_err(lost)?;
    if hash != hex(call.request_hash) {
        return Err(Problem::new(
            Code::IdempotencyConflict,
            format!(
                "the Idempotency-Key \"{}\" was used with another request; use a new key for a new request",
                call.key
            ),
        ));
    }
    let status: i64 = row.try_get(1).map_err(lost)?;
    Ok(Some(Answer {
        status: status as u16,
        body: read_body("idempotency", &call.key, row.try_get(2).map_err(lost)?)?,
        repeated: true,
    }))
}

pub(super) async fn keep(
    connection: &mut SqliteConnection,
    change: &Change,
    call: &Idempotent,
    decision: &Decision,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO idempotency (tenant, key, request_hash, status, answer, object, at_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(i64::from(change.tenant.0))
    .bind(&call.key)
    .bind(hex(call.request_hash))
    .bind(i64::from(decision.status))
    .bind(write_body(
        decision.kept_answer.as_ref().unwrap_or(&decision.answer),
    )?)
    .bind(decision.audit.as_ref().map_or("", |note| note.object.as_str()))
    .bind(change.at.micros())
    .execute(connection)
    .await?;
    Ok(())
}

/// Drops the answers that show `object`.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    object: &str,
) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM idempotency WHERE tenant = $1 AND object = $2";
    execute(connection, sql, tenant, &[object]).await
}
