//! What was answered to calls with an idempotency key. Of changes it is kept for good, in the transaction of their effect:
//! a repeat answers as the call did first, however late it comes. Of calls whose effect is elsewhere (claims) it is kept
//! for a time.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{Answer, Change, Claim, Decision, Idempotent};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Timestamp;

use super::connect::lost;
use super::{execute, read_body, write_body};

/// Stands as `object` of a claim; those of changes are empty or have a kind and a slash.
const CLAIM: &str = "claim";
/// Stands as the status of a call that has not ended.
const RUNNING: u16 = 0;

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
    let status: u16 = row.try_get(1).map_err(lost)?;
    Ok(Some(Answer {
        status,
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
    .bind(decision.audit.first().map_or("", |note| note.object.as_str()))
    .bind(change.recorded_at.micros())
    .execute(connection)
    .await?;
    Ok(())
}

/// What the call was answered before, if it is a repeat of one that has ended.
pub(super) async fn ended(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    call: &Idempotent,
) -> Result<Option<Answer>, Problem> {
    let kept = repeated(connection, tenant, call).await?;
    Ok(kept.filter(|answer| answer.status != RUNNING))
}

/// Takes the key of `call`, or finds what it was answered.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    call: &Idempotent,
    at: Timestamp,
) -> Result<Claim, Problem> {
    match repeated(connection, tenant, call).await? {
        Some(answer) if answer.status == RUNNING => return Ok(Claim::Taken),
        Some(answer) => return Ok(Claim::Answered(answer)),
        None => {}
    }
    sqlx::query(
        "INSERT INTO idempotency (tenant, key, request_hash, status, answer, object, at_us) \
         VALUES ($1, $2, $3, $4, 'null', $5, $6)",
    )
    .bind(i64::from(tenant.0))
    .bind(&call.key)
    .bind(hex(call.request_hash))
    .bind(i64::from(RUNNING))
    .bind(CLAIM)
    .bind(at.micros())
    .execute(connection)
    .await
    .map_err(lost)?;
    Ok(Claim::Taken)
}

/// Keeps the answer to a claimed call.
pub(super) async fn answered(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    key: &str,
    (status, body): &(u16, serde_json::Value),
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE idempotency SET status = $1, answer = $2 WHERE tenant = $3 AND key = $4 AND object = $5",
    )
    .bind(i64::from(*status))
    .bind(write_body(body)?)
    .bind(i64::from(tenant.0))
    .bind(key)
    .bind(CLAIM)
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives the key of a claimed call back.
pub(super) async fn given_back(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    key: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM idempotency WHERE tenant = $1 AND key = $2 AND object = $3 AND status = $4")
        .bind(i64::from(tenant.0))
        .bind(key)
        .bind(CLAIM)
        .bind(i64::from(RUNNING))
        .execute(connection)
        .await?;
    Ok(())
}

/// Drops claims made before `horizon`; their number.
pub(super) async fn prune(connection: &mut SqliteConnection, horizon: Timestamp) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM idempotency WHERE object = $1 AND at_us < $2")
        .bind(CLAIM)
        .bind(horizon.micros())
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
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
