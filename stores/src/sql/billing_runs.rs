//! Rows of billing runs.

use serde_json::json;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{BillingRun, LateUsage};
use turnpike_domain::limits::BILLING_RUNS_QUEUED_MAX;
use turnpike_domain::port::control::{AuditNote, Decision, PageAfter, answer_of};
use turnpike_domain::problem::{Code, Problem};

use super::connect::lost;
use super::{number, read_body, write_body};
use crate::width::integer;

/// A run by its id.
pub(super) async fn by_id(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    id: &str,
) -> Result<Option<BillingRun>, Problem> {
    let row = sqlx::query(
        "SELECT id, body, invoices, empty_periods FROM billing_runs WHERE tenant = $1 AND id = $2",
    )
    .bind(i64::from(tenant.0))
    .bind(id)
    .fetch_optional(connection)
    .await
    .map_err(lost)?;
    row.as_ref().map(read).transpose()
}

/// Runs, newest first.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    page: &PageAfter,
) -> Result<Vec<BillingRun>, Problem> {
    let rows = sqlx::query(
        "SELECT id, body, invoices, empty_periods FROM billing_runs WHERE tenant = $1 AND ($2 IS NULL OR id < $2) \
         ORDER BY id DESC LIMIT $3",
    )
    .bind(i64::from(tenant.0))
    .bind(page.after.as_deref())
    .bind(integer(page.rows))
    .fetch_all(connection)
    .await
    .map_err(lost)?;
    rows.iter().map(read).collect()
}

/// The oldest run that waits or was interrupted.
pub(super) async fn next(
    connection: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<Option<BillingRun>, Problem> {
    let row = sqlx::query(
        "SELECT id, body, invoices, empty_periods FROM billing_runs \
         WHERE tenant = $1 AND status IN ('queued', 'running') ORDER BY id LIMIT 1",
    )
    .bind(i64::from(tenant.0))
    .fetch_optional(connection)
    .await
    .map_err(lost)?;
    row.as_ref().map(read).transpose()
}

fn read(row: &SqliteRow) -> Result<BillingRun, Problem> {
    let (id, body): (&str, &str) = (row.try_get(0).map_err(lost)?, row.try_get(1).map_err(lost)?);
    let run: BillingRun = read_body("billing_runs", id, body)?;
    Ok(BillingRun {
        invoices: number("billing_runs", id, row.try_get(2).map_err(lost)?)?,
        empty_periods: number("billing_runs", id, row.try_get(3).map_err(lost)?)?,
        ..run
    })
}

/// Queues a run. One that waits already for the same periods is answered in its place.
pub(super) async fn begin(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    run: &BillingRun,
) -> Result<Decision, Problem> {
    let waiting: Vec<(String, String)> = sqlx::query_as(
        "SELECT id, body FROM billing_runs WHERE tenant = $1 AND status = 'queued' ORDER BY id",
    )
    .bind(i64::from(tenant.0))
    .fetch_all(&mut *connection)
    .await
    .map_err(lost)?;
    if integer(waiting.len()) >= BILLING_RUNS_QUEUED_MAX {
        return Err(Problem::new(
            Code::Overloaded,
            "too many billing runs of this tenant are waiting",
        ));
    }
    for (id, body) in waiting {
        let waiting: BillingRun = read_body("billing_runs", &id, &body)?;
        if waiting.period_end == run.period_end {
            return run_answer(&waiting, Vec::new());
        }
    }
    put(connection, tenant, run).await?;
    let note = AuditNote::new("billing.run", format!("billing_run/{}", run.id))
        .with_detail(json!({ "period_end": run.period_end }));
    run_answer(run, vec![note])
}

fn run_answer(run: &BillingRun, audit: Vec<AuditNote>) -> Result<Decision, Problem> {
    Ok(Decision {
        audit,
        status: 202,
        ..Decision::unchanged(answer_of(run)?)
    })
}

/// Keeps a run as it is now, but for what closing counts by itself, and the late usage that it lists.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    run: &BillingRun,
) -> Result<(), Problem> {
    let status = serde_json::to_value(run.status).unwrap_or_default();
    sqlx::query(
        "INSERT INTO billing_runs (tenant, id, status, period_end_us, body, invoices, empty_periods) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (tenant, id) DO UPDATE SET status = excluded.status, body = excluded.body",
    )
    .bind(i64::from(tenant.0))
    .bind(&run.id)
    .bind(status.as_str())
    .bind(run.period_end.micros())
    .bind(write_body(run).map_err(lost)?)
    .bind(integer(run.invoices))
    .bind(integer(run.empty_periods))
    .execute(&mut *connection)
    .await
    .map_err(lost)?;
    for late in &run.late_usage {
        sqlx::query("INSERT INTO late_listed (tenant, late) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(i64::from(tenant.0))
            .bind(write_body(late).map_err(lost)?)
            .execute(&mut *connection)
            .await
            .map_err(lost)?;
    }
    Ok(())
}

/// Those of `late` that no run has listed.
pub(super) async fn unlisted(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    late: Vec<LateUsage>,
) -> Result<Vec<LateUsage>, sqlx::Error> {
    let mut unlisted = Vec::new();
    for one in late {
        let listed = sqlx::query("SELECT 1 FROM late_listed WHERE tenant = $1 AND late = $2")
            .bind(i64::from(tenant.0))
            .bind(write_body(&one)?)
            .fetch_optional(&mut *connection)
            .await?;
        if listed.is_none() {
            unlisted.push(one);
        }
    }
    Ok(unlisted)
}
