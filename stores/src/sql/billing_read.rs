//! Rows of invoices and their lines.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Invoice, InvoiceStatus, LateUsage, Line, LineKind, Totals};
use turnpike_domain::money::Currency;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::billing::{BilledFilter, Boundary, InvoiceFilter};
use turnpike_domain::port::control::PageAfter;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::{TimeRange, Timestamp};

use super::connect::lost;
use super::{number, read_body, write_body};

const INVOICE: &str = "SELECT id, number, customer, subscription, status, currency, period_start_us, period_end_us, round, \
     subtotal, discount, credits, tax, total, watermark, catalog_version, previous_hash, hash, created_us, locks_us, \
     finalized_us FROM invoices";

const LINE: &str = "SELECT l.kind, l.source, l.price, l.meter, l.description, l.quantity, l.amount, l.period_start_us, \
     l.period_end_us, l.basis, l.hash, l.invoice";

fn damaged(id: &str, what: &str) -> StoreError {
    StoreError::Damaged(format!("table invoices, row {id}: {what}"))
}

fn time(us: i64) -> Timestamp {
    Timestamp::from_micros_clamped(us)
}

fn get<'r, T>(row: &'r SqliteRow, at: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(at).map_err(lost)
}

/// An invoice without its lines.
fn head(row: &SqliteRow) -> Result<Invoice, StoreError> {
    let id: String = get(row, 0)?;
    let (status, currency): (String, String) = (get(row, 4)?, get(row, 5)?);
    let watermark: Option<String> = get(row, 14)?;
    let watermark = watermark.map(|text| text.parse().map_err(|_| damaged(&id, "watermark")));
    Ok(Invoice {
        number: get::<Option<i64>>(row, 1)?
            .map(|kept| number("invoices", &id, kept))
            .transpose()?,
        customer: get(row, 2)?,
        subscription: get(row, 3)?,
        status: InvoiceStatus::parse(&status).ok_or_else(|| damaged(&id, "status"))?,
        currency: Currency::parse(&currency).map_err(|_| damaged(&id, "currency"))?,
        period: TimeRange::new(time(get(row, 6)?), time(get(row, 7)?)),
        round: number("invoices", &id, get(row, 8)?)?,
        lines: Vec::new(),
        totals: Totals {
            subtotal: get(row, 9)?,
            discount: get(row, 10)?,
            credits: get(row, 11)?,
            tax: get(row, 12)?,
            total: get(row, 13)?,
        },
        watermark: watermark.transpose()?,
        catalog_version: number("invoices", &id, get(row, 15)?)?,
        previous_hash: get(row, 16)?,
        hash: get(row, 17)?,
        created: time(get(row, 18)?),
        locks_at: time(get(row, 19)?),
        finalized: get::<Option<i64>>(row, 20)?.map(time),
        id,
    })
}

fn line(row: &SqliteRow) -> Result<Line, StoreError> {
    let invoice: String = get(row, 11)?;
    let (kind, quantity, basis): (String, String, String) = (get(row, 0)?, get(row, 5)?, get(row, 9)?);
    Ok(Line {
        kind: LineKind::parse(&kind).ok_or_else(|| damaged(&invoice, "kind of a line"))?,
        source: get(row, 1)?,
        price: get(row, 2)?,
        meter: get(row, 3)?,
        description: get(row, 4)?,
        quantity: Quantity::parse(&quantity).map_err(|_| damaged(&invoice, "quantity of a line"))?,
        amount: get(row, 6)?,
        period: TimeRange::new(time(get(row, 7)?), time(get(row, 8)?)),
        basis: read_body("invoice_lines", &invoice, &basis)?,
        hash: get(row, 10)?,
    })
}

async fn with_lines(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    rows: &[SqliteRow],
) -> Result<Vec<Invoice>, StoreError> {
    let mut invoices = Vec::with_capacity(rows.len());
    for row in rows {
        let mut invoice = head(row)?;
        let sql =
            format!("{LINE} FROM invoice_lines l WHERE l.tenant = $1 AND l.invoice = $2 ORDER BY l.line");
        let lines = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(i64::from(tenant.0))
            .bind(&invoice.id)
            .fetch_all(&mut *connection)
            .await
            .map_err(lost)?;
        invoice.lines = lines.iter().map(line).collect::<Result<_, _>>()?;
        invoices.push(invoice);
    }
    Ok(invoices)
}

pub(super) async fn by_id(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    id: &str,
) -> Result<Option<Invoice>, StoreError> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{INVOICE} WHERE tenant = $1 AND id = $2"
    )))
    .bind(i64::from(tenant.0))
    .bind(id)
    .fetch_all(&mut *connection)
    .await
    .map_err(lost)?;
    Ok(with_lines(connection, tenant, &rows).await?.pop())
}

pub(super) async fn by_number(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    number: u64,
) -> Result<Option<Invoice>, StoreError> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{INVOICE} WHERE tenant = $1 AND number = $2"
    )))
    .bind(i64::from(tenant.0))
    .bind(number as i64)
    .fetch_all(&mut *connection)
    .await
    .map_err(lost)?;
    Ok(with_lines(connection, tenant, &rows).await?.pop())
}

pub(super) async fn of_boundary(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    boundary: &Boundary,
) -> Result<Option<Invoice>, StoreError> {
    let sql =
        format!("{INVOICE} WHERE tenant = $1 AND subscription = $2 AND period_end_us = $3 AND round = $4");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::from(tenant.0))
        .bind(&boundary.subscription)
        .bind(boundary.at.micros())
        .bind(i64::from(boundary.round))
        .fetch_all(&mut *connection)
        .await
        .map_err(lost)?;
    Ok(with_lines(connection, tenant, &rows).await?.pop())
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    filter: &InvoiceFilter,
    page: &PageAfter,
) -> Result<Vec<Invoice>, StoreError> {
    let ends = filter.ends.unwrap_or(TimeRange::ALL);
    let sql = format!(
        "{INVOICE} WHERE tenant = $1 AND ($2 IS NULL OR id < $2) AND ($3 IS NULL OR customer = $3) \
         AND ($4 IS NULL OR subscription = $4) AND ($5 IS NULL OR status = $5) \
         AND period_end_us >= $6 AND period_end_us < $7 ORDER BY id DESC LIMIT $8"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::from(tenant.0))
        .bind(page.after.as_deref())
        .bind(filter.customer.as_deref())
        .bind(filter.subscription.as_deref())
        .bind(filter.status.map(InvoiceStatus::as_str))
        .bind(ends.start.micros())
        .bind(ends.end.micros())
        .bind(page.rows as i64)
        .fetch_all(&mut *connection)
        .await
        .map_err(lost)?;
    with_lines(connection, tenant, &rows).await
}

pub(super) async fn billed(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    filter: &BilledFilter,
) -> Result<Vec<Line>, StoreError> {
    // The order of a cross join is kept: from the subscription's invoices to their lines, never through all lines.
    let sql = format!(
        "{LINE} FROM invoices i CROSS JOIN invoice_lines l \
         WHERE l.tenant = i.tenant AND l.invoice = i.id AND i.tenant = $1 AND i.subscription = $2 AND i.status <> 'draft' \
         AND l.kind IN ('recurring', 'proration', 'usage', 'minimum', 'adjustment') AND l.period_end_us > $3 \
         AND ($4 IS NULL OR i.number < $4) ORDER BY i.period_end_us, i.round, l.line"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::from(tenant.0))
        .bind(&filter.subscription)
        .bind(filter.ends_after.micros())
        .bind(filter.number_below.map(|number| number as i64))
        .fetch_all(connection)
        .await
        .map_err(lost)?;
    rows.iter().map(line).collect()
}

pub(super) async fn closed_until(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    subscriptions: &[String],
) -> Result<Vec<Option<Timestamp>>, sqlx::Error> {
    let mut until = Vec::with_capacity(subscriptions.len());
    for subscription in subscriptions {
        let last: Option<i64> = sqlx::query_scalar(
            "SELECT MAX(period_end_us) FROM closings WHERE tenant = $1 AND subscription = $2",
        )
        .bind(i64::from(tenant.0))
        .bind(subscription)
        .fetch_one(&mut *connection)
        .await?;
        until.push(last.map(time));
    }
    Ok(until)
}

pub(super) async fn finalizing(
    connection: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM invoices WHERE tenant = $1 AND status = 'finalizing' ORDER BY id")
        .bind(i64::from(tenant.0))
        .fetch_all(connection)
        .await
}

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
