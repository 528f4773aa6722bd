//! What billing writes, each inside one transaction.

use serde_json::json;
use sqlx::QueryBuilder;
use sqlx::sqlite::{Sqlite, SqliteConnection};
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Invoice, InvoiceStatus, InvoiceStep, InvoiceView, Line, number_text};
use turnpike_domain::port::billing::{Boundary, Closing, Closings};
use turnpike_domain::port::control::{AuditNote, Decision, answer_of};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::billing_read as read;
use super::connect::lost;
use super::{invoice_history, settings, write_body};
use crate::width::integer;

/// Lines written with one statement: SQLite takes 32,766 parameters in one.
const LINES_INSERTED_MAX: usize = 1_000;

/// What was closed.
#[derive(Default)]
struct Closed<'c> {
    /// Subscriptions, and until when they are billed by that.
    billed: Vec<(&'c str, Timestamp)>,
    /// Invoices that were locked.
    locked: i64,
    /// Periods without an invoice.
    empty: i64,
}

/// Closes periods, and their run counts them. Answers the subscriptions and until when they are billed by that.
pub(super) async fn close_all<'c>(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    closings: &'c Closings,
    at: Timestamp,
) -> Result<Vec<(&'c str, Timestamp)>, Problem> {
    let mut closed = Closed::default();
    let boundaries: Vec<Boundary> = closings.closings.iter().filter_map(boundary).collect();
    let mut standing = read::of_boundaries(connection, tenant, &boundaries)
        .await?
        .into_iter();
    for closing in &closings.closings {
        let standing = boundary(closing).and_then(|_| standing.next().flatten());
        close(connection, tenant, (closing, standing, at), &mut closed).await?;
    }
    if let Some(run) = &closings.run {
        sqlx::query(
            "UPDATE billing_runs SET invoices = invoices + $3, empty_periods = empty_periods + $4 \
             WHERE tenant = $1 AND id = $2",
        )
        .bind(i64::from(tenant.0))
        .bind(run)
        .bind(closed.locked)
        .bind(closed.empty)
        .execute(connection)
        .await
        .map_err(lost)?;
    }
    Ok(closed.billed)
}

/// Where the invoice of a period is to stand.
fn boundary(closing: &Closing) -> Option<Boundary> {
    match closing {
        Closing::Empty { .. } => None,
        Closing::Draft(invoice) | Closing::Locked(invoice) => Some(Boundary::of(invoice)),
    }
}

async fn close<'c>(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    (closing, standing, at): (&'c Closing, Option<Invoice>, Timestamp),
    closed: &mut Closed<'c>,
) -> Result<(), Problem> {
    match closing {
        Closing::Empty { subscription, period } => {
            note_closing(connection, tenant, (subscription, *period, None), at).await?;
            closed.empty += 1;
            closed.billed.push((subscription, period.end));
        }
        Closing::Draft(draft) => {
            put(connection, tenant, (draft, standing), InvoiceStatus::Draft).await?;
        }
        Closing::Locked(invoice) => {
            let put = put(connection, tenant, (invoice, standing), InvoiceStatus::Finalizing).await?;
            if let Some(id) = put {
                closed.locked += 1;
                if invoice.round == 0 {
                    let period = (invoice.subscription.as_str(), invoice.period, Some(id.as_str()));
                    note_closing(connection, tenant, period, at).await?;
                }
            }
            closed.billed.push((&invoice.subscription, invoice.boundary()));
        }
    }
    Ok(())
}

/// A period is closed; a repeat changes nothing.
async fn note_closing(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    (subscription, period, invoice): (&str, TimeRange, Option<&str>),
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

/// Keeps an invoice that has no number yet, or replaces the draft that stands at its boundary. Answers the id that it is kept under;
/// `None` where one is locked already.
async fn put(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    (invoice, standing): (&Invoice, Option<Invoice>),
    status: InvoiceStatus,
) -> Result<Option<String>, Problem> {
    let id = match standing {
        None => {
            insert(connection, tenant, invoice).await?;
            invoice.id.clone()
        }
        Some(standing) if standing.is_draft() => {
            remove_lines(connection, tenant, &standing.id).await?;
            standing.id
        }
        Some(_) => return Ok(None),
    };
    let written = insert_lines(connection, tenant, &id, &invoice.lines).await;
    written.map_err(lost)?;
    let locked = status == InvoiceStatus::Finalizing;
    let kept = Invoice {
        id,
        status,
        watermark: invoice.watermark.clone().filter(|_| locked),
        ..invoice.clone()
    };
    update(connection, tenant, &kept).await?;
    if let Some(watermark) = &kept.watermark {
        // What was billed must stay in the log: it is derived again from there.
        let billed = settings::reach_log_end(connection, watermark.highest().offset());
        billed.await.map_err(lost)?;
    }
    Ok(Some(kept.id))
}

/// Writes what never changes of an invoice.
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
    .bind(integer(invoice.catalog_version))
    .bind(invoice.created.micros())
    .bind(invoice.locks_at.micros())
    .execute(connection)
    .await
    .map_err(lost)?;
    Ok(())
}

/// Writes what can change of an invoice. The database refuses to change a final one but for its status.
async fn update(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    invoice: &Invoice,
) -> Result<(), Problem> {
    let parties = invoice.parties.as_ref().map(write_body);
    let parties = parties.transpose().map_err(lost)?;
    sqlx::query(
        "UPDATE invoices SET status = $3, subtotal = $4, discount = $5, credits = $6, tax = $7, total = $8, \
         watermark = $9, catalog_version = $10, number = $11, previous_hash = $12, hash = $13, finalized_us = $14, \
         parties = $15 \
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
    .bind(integer(invoice.catalog_version))
    .bind(invoice.number.map(integer))
    .bind(&invoice.previous_hash)
    .bind(&invoice.hash)
    .bind(invoice.finalized.map(Timestamp::micros))
    .bind(parties)
    .execute(connection)
    .await
    .map_err(lost)?;
    Ok(())
}

/// Writes an invoice that is final, with a status that it gets now.
async fn move_on(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    invoice: &Invoice,
    at: Timestamp,
) -> Result<(), Problem> {
    invoice_history::add(connection, tenant, invoice, at).await?;
    update(connection, tenant, invoice).await
}

async fn remove_lines(connection: &mut SqliteConnection, tenant: TenantId, id: &str) -> Result<(), Problem> {
    sqlx::query("DELETE FROM invoice_lines WHERE tenant = $1 AND invoice = $2")
        .bind(i64::from(tenant.0))
        .bind(id)
        .execute(connection)
        .await
        .map_err(lost)?;
    Ok(())
}

async fn insert_lines(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    invoice: &str,
    lines: &[Line],
) -> Result<(), sqlx::Error> {
    let bases: Vec<String> = lines
        .iter()
        .map(|line| write_body(&line.basis))
        .collect::<Result<_, _>>()?;
    let rows: Vec<(usize, (&Line, &String))> = lines.iter().zip(&bases).enumerate().collect();
    for rows in rows.chunks(LINES_INSERTED_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO invoice_lines (tenant, invoice, line, kind, source, price, meter, description, quantity, amount, \
             period_start_us, period_end_us, basis, hash) ",
        );
        insert.push_values(rows, |mut row, (at, (line, basis))| {
            row.push_bind(i64::from(tenant.0))
                .push_bind(invoice)
                .push_bind(integer(*at))
                .push_bind(line.kind.as_str())
                .push_bind(&line.source)
                .push_bind(&line.price)
                .push_bind(line.meter.as_deref())
                .push_bind(&line.description)
                .push_bind(line.quantity.to_string())
                .push_bind(line.amount)
                .push_bind(line.period.start.micros())
                .push_bind(line.period.end.micros())
                .push_bind(*basis)
                .push_bind(&line.hash);
        });
        insert.build().execute(&mut *connection).await?;
    }
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
    let invoice = find(connection, tenant, id).await?;
    match invoice.status {
        InvoiceStatus::Finalizing => {}
        InvoiceStatus::Open => return Ok(Decision::unchanged(answer_of(&InvoiceView::from(&invoice))?)),
        status => {
            let detail = format!("an invoice that is {} cannot be finalized", status.as_str());
            return Err(Problem::new(Code::IllegalTransition, detail));
        }
    }
    let mut series = Series::read(connection, tenant).await?;
    let invoice = series.number(invoice, at);
    move_on(connection, tenant, &invoice, at).await?;
    series.keep(connection, tenant).await?;
    let answer = answer_of(&InvoiceView::from(&invoice))?;
    Ok(Decision::changed(
        Vec::new(),
        noted("invoice.finalize", &invoice),
        200,
        answer,
    ))
}

/// The same for many, those left out that are not `finalizing`. The answer is how many were.
pub(super) async fn finish_all(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    ids: &[String],
    at: Timestamp,
) -> Result<Decision, Problem> {
    let mut series = Series::read(connection, tenant).await?;
    let mut notes = Vec::with_capacity(ids.len());
    let found = read::by_ids(connection, tenant, ids).await?.into_iter();
    for invoice in found.filter(|found| found.status == InvoiceStatus::Finalizing) {
        let invoice = series.number(invoice, at);
        move_on(connection, tenant, &invoice, at).await?;
        notes.push(noted("invoice.finalize", &invoice));
    }
    series.keep(connection, tenant).await?;
    let count = json!(notes.len());
    Ok(Decision {
        audit: notes,
        ..Decision::unchanged(count)
    })
}

/// A tenant's series of numbers: the last one, and the hash of its invoice.
struct Series {
    last: u64,
    hash: String,
}

impl Series {
    async fn read(connection: &mut SqliteConnection, tenant: TenantId) -> Result<Self, Problem> {
        let kept = read::series(connection, tenant).await?;
        Ok(Self {
            last: kept.last,
            hash: kept.hash,
        })
    }

    /// The invoice with the next number; paid, when nothing is owed.
    fn number(&mut self, mut invoice: Invoice, at: Timestamp) -> Invoice {
        self.last += 1;
        invoice.number = Some(self.last);
        invoice.previous_hash = std::mem::take(&mut self.hash);
        invoice.finalized = Some(at);
        invoice.hash = invoice.seal();
        invoice.status = if invoice.totals.total == 0 {
            InvoiceStatus::Paid
        } else {
            InvoiceStatus::Open
        };
        self.hash.clone_from(&invoice.hash);
        invoice
    }

    async fn keep(self, connection: &mut SqliteConnection, tenant: TenantId) -> Result<(), Problem> {
        if self.last == 0 {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO invoice_numbers (tenant, last, hash) VALUES ($1, $2, $3) \
             ON CONFLICT (tenant) DO UPDATE SET last = excluded.last, hash = excluded.hash",
        )
        .bind(i64::from(tenant.0))
        .bind(integer(self.last))
        .bind(self.hash)
        .execute(connection)
        .await
        .map_err(lost)?;
        Ok(())
    }
}

fn noted(action: &'static str, invoice: &Invoice) -> AuditNote {
    let detail = json!({
        "number": invoice.number.map(number_text),
        "status": invoice.status,
        "total": invoice.currency.format_amount(invoice.totals.total),
        "currency": invoice.currency,
    });
    AuditNote::new(action, format!("invoice/{}", invoice.id)).with_detail(detail)
}

pub(super) async fn step(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    id: &str,
    (step, at): (InvoiceStep, Timestamp),
) -> Result<Decision, Problem> {
    let invoice = find(connection, tenant, id).await?;
    let status = invoice.status.after(step)?;
    let invoice = Invoice { status, ..invoice };
    move_on(connection, tenant, &invoice, at).await?;
    let action = match step {
        InvoiceStep::Pay => "invoice.pay",
        InvoiceStep::Void => "invoice.void",
        InvoiceStep::Uncollectible => "invoice.uncollectible",
    };
    let answer = answer_of(&InvoiceView::from(&invoice))?;
    Ok(Decision::changed(
        Vec::new(),
        noted(action, &invoice),
        200,
        answer,
    ))
}
