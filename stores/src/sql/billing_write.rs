//! What billing writes, each inside one transaction.

use serde_json::json;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{
    BillingRun, Invoice, InvoiceStatus, InvoiceStep, InvoiceView, Line, number_text,
};
use turnpike_domain::limits::BILLING_RUNS_QUEUED_MAX;
use turnpike_domain::port::control::{AuditNote, Decision, answer_of};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::billing_read as read;
use super::connect::lost;
use super::{read_body, write_body};

/// Closes a period; a repeat changes nothing.
pub(super) async fn close(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    subscription: &str,
    period: TimeRange,
    invoice: Option<&str>,
    at: Timestamp,
) -> Result<(), Problem> {
    sqlx::query(
        "INSERT INTO closings (tenant, subscription, period_end_us, period_start_us, invoice, at_us) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(i64::from(tenant.0))
    .bind(subscription)
    .bind(period.end.micros())
    .bind(period.start.micros())
    .bind(invoice)
    .bind(at.micros())
    .execute(connection)
    .await
    .map_err(lost)?;
    Ok(())
}

pub(super) async fn put_draft(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    draft: &Invoice,
) -> Result<(), Problem> {
    let found = read::of_period(
        connection,
        tenant,
        &draft.subscription,
        draft.boundary(),
        draft.round,
    )
    .await?;
    match found {
        None => insert(connection, tenant, draft).await,
        Some(standing) if standing.is_draft() => {
            replace_lines(connection, tenant, &standing.id, draft).await?;
            update(
                connection,
                tenant,
                &Invoice {
                    id: standing.id,
                    ..draft.clone()
                },
            )
            .await
        }
        Some(_) => Ok(()),
    }
}

pub(super) async fn lock(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    locked: &Invoice,
    at: Timestamp,
) -> Result<(), Problem> {
    put_draft(connection, tenant, locked).await?;
    let found = read::of_period(
        connection,
        tenant,
        &locked.subscription,
        locked.boundary(),
        locked.round,
    )
    .await?;
    let Some(standing) = found.filter(Invoice::is_draft) else {
        return Ok(());
    };
    let finalizing = Invoice {
        status: InvoiceStatus::Finalizing,
        watermark: locked.watermark.clone(),
        ..standing
    };
    update(connection, tenant, &finalizing).await?;
    if finalizing.round == 0 {
        let (subscription, period) = (&finalizing.subscription, finalizing.period);
        close(connection, tenant, subscription, period, Some(&finalizing.id), at).await?;
    }
    Ok(())
}

async fn insert(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    invoice: &Invoice,
) -> Result<(), Problem> {
    sqlx::query(
        "INSERT INTO invoices (tenant, id, customer, subscription, status, currency, period_start_us, period_end_us, \
         round, subtotal, discount, credits, tax, total, catalog_version, previous_hash, hash, created_us, locks_us) \
         VALUES ($1, $2, $3, $4, 'draft', $5, $6, $7, $8, 0, 0, 0, 0, 0, $9, '', '', $10, $11)",
    )
    .bind(i64::from(tenant.0))
    .bind(&invoice.id)
    .bind(&invoice.customer)
    .bind(&invoice.subscription)
    .bind(invoice.currency.code())
    .bind(invoice.period.start.micros())
    .bind(invoice.period.end.micros())
    .bind(i64::from(invoice.round))
    .bind(invoice.catalog_version as i64)
    .bind(invoice.created.micros())
    .bind(invoice.locks_at.micros())
    .execute(&mut *connection)
    .await
    .map_err(lost)?;
    replace_lines(connection, tenant, &invoice.id, invoice).await?;
    let draft = Invoice {
        status: InvoiceStatus::Draft,
        watermark: None,
        ..invoice.clone()
    };
    update(connection, tenant, &draft).await
}

/// Writes what can change of an invoice. The database refuses to change a final one but for its status.
async fn update(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    invoice: &Invoice,
) -> Result<(), Problem> {
    sqlx::query(
        "UPDATE invoices SET status = $3, subtotal = $4, discount = $5, credits = $6, tax = $7, total = $8, \
         watermark = $9, catalog_version = $10, number = $11, previous_hash = $12, hash = $13, finalized_us = $14 \
         WHERE tenant = $1 AND id = $2",
    )
    .bind(i64::from(tenant.0))
    .bind(&invoice.id)
    .bind(invoice.status.as_str())
    .bind(invoice.totals.subtotal)
    .bind(invoice.totals.discount)
    .bind(invoice.totals.credits)
    .bind(invoice.totals.tax)
    .bind(invoice.totals.total)
    .bind(invoice.watermark.as_ref().map(ToString::to_string))
    .bind(invoice.catalog_version as i64)
    .bind(invoice.number.map(|number| number as i64))
    .bind(&invoice.previous_hash)
    .bind(&invoice.hash)
    .bind(invoice.finalized.map(Timestamp::micros))
    .execute(connection)
    .await
    .map_err(lost)?;
    Ok(())
}

async fn replace_lines(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    id: &str,
    invoice: &Invoice,
) -> Result<(), Problem> {
    sqlx::query("DELETE FROM invoice_lines WHERE tenant = $1 AND invoice = $2")
        .bind(i64::from(tenant.0))
        .bind(id)
        .execute(&mut *connection)
        .await
        .map_err(lost)?;
    for (at, line) in invoice.lines.iter().enumerate() {
        insert_line(connection, tenant, (id, at), line)
            .await
            .map_err(lost)?;
    }
    Ok(())
}

async fn insert_line(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    (invoice, at): (&str, usize),
    line: &Line,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO invoice_lines (tenant, invoice, line, kind, source, price, meter, description, quantity, amount, \
         period_start_us, period_end_us, basis, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(i64::from(tenant.0))
    .bind(invoice)
    .bind(at as i64)
    .bind(line.kind.as_str())
    .bind(&line.source)
    .bind(&line.price)
    .bind(line.meter.as_deref())
    .bind(&line.description)
    .bind(line.quantity.to_string())
    .bind(line.amount)
    .bind(line.period.start.micros())
    .bind(line.period.end.micros())
    .bind(write_body(&line.basis)?)
    .bind(&line.hash)
    .execute(connection)
    .await?;
    Ok(())
}

async fn find(connection: &mut SqliteConnection, tenant: TenantId, id: &str) -> Result<Invoice, Problem> {
    let found = read::by_id(connection, tenant, id).await?;
    found.ok_or_else(|| Problem::not_found("invoice", id))
}

pub(super) async fn finish(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    id: &str,
    at: Timestamp,
) -> Result<Decision, Problem> {
    let mut invoice = find(connection, tenant, id).await?;
    match invoice.status {
        InvoiceStatus::Finalizing => {}
        InvoiceStatus::Open => return Ok(Decision::unchanged(answer_of(&InvoiceView::from(&invoice))?)),
        status => {
            let detail = format!("an invoice that is {} cannot be finalized", status.as_str());
            return Err(Problem::new(Code::IllegalTransition, detail));
        }
    }
    let (last, hash) = last_number(connection, tenant).await?;
    invoice.number = Some(last + 1);
    invoice.previous_hash = hash;
    invoice.finalized = Some(at);
    invoice.hash = invoice.seal();
    invoice.status = if invoice.totals.total == 0 {
        InvoiceStatus::Paid
    } else {
        InvoiceStatus::Open
    };
    update(connection, tenant, &invoice).await?;
    sqlx::query(
        "INSERT INTO invoice_numbers (tenant, last, hash) VALUES ($1, $2, $3) \
         ON CONFLICT (tenant) DO UPDATE SET last = excluded.last, hash = excluded.hash",
    )
    .bind(i64::from(tenant.0))
    .bind((last + 1) as i64)
    .bind(&invoice.hash)
    .execute(connection)
    .await
    .map_err(lost)?;
    noted("invoice.finalize", &invoice)
}

async fn last_number(connection: &mut SqliteConnection, tenant: TenantId) -> Result<(u64, String), Problem> {
    let row = sqlx::query("SELECT last, hash FROM invoice_numbers WHERE tenant = $1")
        .bind(i64::from(tenant.0))
        .fetch_optional(connection)
        .await
        .map_err(lost)?;
    let Some(row) = row else {
        return Ok((0, String::new()));
    };
    let last: i64 = row.try_get(0).map_err(lost)?;
    Ok((last as u64, row.try_get(1).map_err(lost)?))
}

fn noted(action: &'static str, invoice: &Invoice) -> Result<Decision, Problem> {
    let detail = json!({
        "number": invoice.number.map(number_text),
        "status": invoice.status,
        "total": invoice.currency.format_amount(invoice.totals.total),
        "currency": invoice.currency,
    });
    let note = AuditNote::new(action, format!("invoice/{}", invoice.id)).with_detail(detail);
    let answer = answer_of(&InvoiceView::from(invoice))?;
    Ok(Decision::changed(Vec::new(), note, 200, answer))
}

pub(super) async fn step(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    id: &str,
    step: InvoiceStep,
) -> Result<Decision, Problem> {
    let invoice = find(connection, tenant, id).await?;
    let status = invoice.status.after(step)?;
    let invoice = Invoice { status, ..invoice };
    update(connection, tenant, &invoice).await?;
    let action = match step {
        InvoiceStep::Pay => "invoice.pay",
        InvoiceStep::Void => "invoice.void",
        InvoiceStep::Uncollectible => "invoice.uncollectible",
    };
    noted(action, &invoice)
}

pub(super) async fn begin_run(
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
    if waiting.len() as i64 >= BILLING_RUNS_QUEUED_MAX {
        return Err(Problem::new(
            Code::Overloaded,
            "too many billing runs of this tenant are waiting",
        ));
    }
    for (id, body) in waiting {
        let waiting: BillingRun = read_body("billing_runs", &id, &body)?;
        if waiting.period_end == run.period_end {
            return run_answer(&waiting, None);
        }
    }
    put_run(connection, tenant, run).await?;
    let note = AuditNote::new("billing.run", format!("billing_run/{}", run.id))
        .with_detail(json!({ "period_end": run.period_end }));
    run_answer(run, Some(note))
}

fn run_answer(run: &BillingRun, audit: Option<AuditNote>) -> Result<Decision, Problem> {
    Ok(Decision {
        audit,
        status: 202,
        ..Decision::unchanged(answer_of(run)?)
    })
}

pub(super) async fn put_run(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    run: &BillingRun,
) -> Result<(), Problem> {
    let status = serde_json::to_value(run.status).unwrap_or_default();
    sqlx::query(
        "INSERT INTO billing_runs (tenant, id, status, period_end_us, body) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (tenant, id) DO UPDATE SET status = excluded.status, body = excluded.body",
    )
    .bind(i64::from(tenant.0))
    .bind(&run.id)
    .bind(status.as_str())
    .bind(run.period_end.micros())
    .bind(write_body(run).map_err(lost)?)
    .execute(connection)
    .await
    .map_err(lost)?;
    Ok(())
}
