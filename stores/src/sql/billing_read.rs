//! Rows of invoices and their lines.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Difference, Invoice, InvoiceStatus, Line, LineKind, Totals};
use turnpike_domain::money::Currency;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::billing::{
    BilledFilter, Boundary, Broken, InvoiceFilter, InvoiceName, Kept, NumberSeries,
};
use turnpike_domain::port::control::PageAfter;
use turnpike_domain::problem::Problem;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::{TimeRange, Timestamp};

use super::connect::lost;
use super::{number, write_body};
use crate::width::integer;

const INVOICE: &str = "SELECT id, number, customer, subscription, status, currency, period_start_us, period_end_us, round, \
     subtotal, discount, credits, tax, total, watermark, catalog_version, previous_hash, hash, created_us, locks_us, \
     finalized_us, parties";

const LINE: &str = "SELECT l.kind, l.source, l.price, l.meter, l.description, l.quantity, l.amount, l.period_start_us, \
     l.period_end_us, l.basis, l.hash, l.invoice";

/// Where the columns of [`INVOICE`] stand on the invoice.
const INVOICE_FIELDS: &[&str] = &[
    "/id",
    "/number",
    "/customer",
    "/subscription",
    "/status",
    "/currency",
    "/period/start",
    "/period/end",
    "/round",
    "/subtotal",
    "/discount",
    "/credits",
    "/tax",
    "/total",
    "/watermark",
    "/catalog_version",
    "/previous_hash",
    "/hash",
    "/created",
    "/locks_at",
    "/finalized",
    "/bill_to",
];

/// The same for those of [`LINE`].
const LINE_FIELDS: &[&str] = &[
    "/kind",
    "/source",
    "/price",
    "/meter",
    "/description",
    "/quantity",
    "/amount",
    "/period/start",
    "/period/end",
    "/terms",
    "/hash",
    "/invoice",
];

/// Characters of a value that cannot be read that are shown.
const SHOWN_MAX: usize = 100;

fn time(us: i64) -> Timestamp {
    Timestamp::from_micros_clamped(us)
}

/// A row whose columns are fields of an invoice. What cannot be read is told as a difference at its field.
struct Fields<'r> {
    row: &'r SqliteRow,
    places: &'static [&'static str],
}

impl<'r> Fields<'r> {
    fn get<T>(&self, at: usize) -> Result<T, Difference>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        self.row.try_get(at).map_err(|_| self.broken(at))
    }

    fn read<T>(&self, at: usize, read: impl FnOnce(&str) -> Option<T>) -> Result<T, Difference> {
        read(self.get(at)?).ok_or_else(|| self.broken(at))
    }

    fn number<T: TryFrom<i64>>(&self, at: usize) -> Result<T, Difference> {
        T::try_from(self.get(at)?).map_err(|_| self.broken(at))
    }

    /// Reads a column that may be null.
    fn optional<T>(&self, at: usize, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Difference> {
        match self.get::<Option<&str>>(at)? {
            None => Ok(None),
            Some(text) => read(text).map(Some).ok_or_else(|| self.broken(at)),
        }
    }

    fn broken(&self, at: usize) -> Difference {
        let found: Option<String> = self.row.try_get_unchecked(at).unwrap_or_default();
        Difference {
            pointer: self.places.get(at).copied().unwrap_or_default().to_owned(),
            expected: "a value that can be read".to_owned(),
            found: found.unwrap_or_default().chars().take(SHOWN_MAX).collect(),
        }
    }
}

/// An invoice without its lines.
fn head(row: &SqliteRow) -> Result<Invoice, Difference> {
    let fields = Fields {
        row,
        places: INVOICE_FIELDS,
    };
    Ok(Invoice {
        id: fields.get(0)?,
        number: fields
            .get::<Option<i64>>(1)?
            .map(|_| fields.number(1))
            .transpose()?,
        customer: fields.get(2)?,
        subscription: fields.get(3)?,
        status: fields.read(4, InvoiceStatus::parse)?,
        currency: fields.read(5, |code| Currency::parse(code).ok())?,
        period: TimeRange::new(time(fields.get(6)?), time(fields.get(7)?)),
        round: fields.number(8)?,
        lines: Vec::new(),
        totals: Totals {
            subtotal: fields.get(9)?,
            discount: fields.get(10)?,
            credits: fields.get(11)?,
            tax: fields.get(12)?,
            total: fields.get(13)?,
        },
        watermark: fields.optional(14, |text| text.parse().ok())?,
        catalog_version: fields.number(15)?,
        previous_hash: fields.get(16)?,
        hash: fields.get(17)?,
        created: time(fields.get(18)?),
        locks_at: time(fields.get(19)?),
        finalized: fields.get::<Option<i64>>(20)?.map(time),
        parties: fields.optional(21, |text| serde_json::from_str(text).ok())?,
    })
}

fn line(row: &SqliteRow) -> Result<Line, Difference> {
    let fields = Fields {
        row,
        places: LINE_FIELDS,
    };
    Ok(Line {
        kind: fields.read(0, LineKind::parse)?,
        source: fields.get(1)?,
        price: fields.get(2)?,
        meter: fields.get(3)?,
        description: fields.get(4)?,
        quantity: fields.read(5, |text| Quantity::parse(text).ok())?,
        amount: fields.get(6)?,
        period: TimeRange::new(time(fields.get(7)?), time(fields.get(8)?)),
        basis: fields.read(9, |text| serde_json::from_str(text).ok())?,
        hash: fields.get(10)?,
    })
}

/// Lines in their order; the first that cannot be read is named by its place.
fn lines(rows: &[SqliteRow]) -> Result<Vec<Line>, Difference> {
    let read = |(at, row)| {
        line(row).map_err(|field| Difference {
            pointer: format!("/lines/{at}{}", field.pointer),
            ..field
        })
    };
    rows.iter().enumerate().map(read).collect()
}

/// Texts as one parameter, for `json_each`: a statement for each would cost far more than what it does.
pub(super) fn list_of<T: serde::Serialize>(values: impl Iterator<Item = T>) -> Result<String, StoreError> {
    write_body(&values.collect::<Vec<T>>()).map_err(lost)
}

/// The invoices of these rows, their lines read together.
async fn with_lines(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    rows: &[SqliteRow],
) -> Result<Vec<Result<Invoice, Broken>>, StoreError> {
    let id_of = |row: &SqliteRow| -> String { row.try_get_unchecked(0).unwrap_or_default() };
    let sql = format!(
        "{LINE} FROM invoice_lines l WHERE l.tenant = $1 AND l.invoice IN (SELECT value FROM json_each($2)) \
         ORDER BY l.invoice, l.line"
    );
    let found = match rows {
        [] => Vec::new(),
        _ => sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(i64::from(tenant.0))
            .bind(list_of(rows.iter().map(id_of))?)
            .fetch_all(connection)
            .await
            .map_err(lost)?,
    };
    let mut lines_of: HashMap<String, Vec<SqliteRow>> = HashMap::new();
    for line in found {
        let invoice = line.try_get(11).map_err(lost)?;
        lines_of.entry(invoice).or_default().push(line);
    }
    let invoice = |row: &SqliteRow| {
        let id = id_of(row);
        let found = lines_of.remove(&id).unwrap_or_default();
        let read = head(row).and_then(|head| {
            Ok(Invoice {
                lines: lines(&found)?,
                ..head
            })
        });
        let number = row.try_get::<Option<i64>, _>(1).ok().flatten();
        read.map_err(|field| Broken {
            id,
            number: number.and_then(|number| u64::try_from(number).ok()),
            field,
        })
    };
    Ok(rows.iter().map(invoice).collect())
}

/// For those who can do nothing with an invoice that is not whole.
fn whole(invoices: Vec<Result<Invoice, Broken>>) -> Result<Vec<Invoice>, Problem> {
    invoices
        .into_iter()
        .map(|one| one.map_err(Problem::from))
        .collect()
}

pub(super) async fn by_id(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    id: &str,
) -> Result<Option<Invoice>, Problem> {
    let name = InvoiceName::Id(id.to_owned());
    let found = by_name(connection, tenant, &name).await?;
    Ok(found.transpose()?)
}

async fn by_name(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    name: &InvoiceName,
) -> Result<Option<Result<Invoice, Broken>>, StoreError> {
    let (column, id, number) = match name {
        InvoiceName::Id(id) => ("id", Some(id), None),
        InvoiceName::Number(number) => ("number", None, Some(integer(*number))),
    };
    let sql = format!("{INVOICE} FROM invoices WHERE tenant = $1 AND {column} = COALESCE($2, $3)");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::from(tenant.0))
        .bind(id)
        .bind(number)
        .fetch_all(&mut *connection)
        .await
        .map_err(lost)?;
    Ok(with_lines(connection, tenant, &rows).await?.pop())
}

pub(super) async fn kept(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    name: &InvoiceName,
) -> Result<Option<Kept>, StoreError> {
    let found = by_name(connection, tenant, name).await?;
    let kept = found.map(|found| found.map_or_else(Kept::Broken, Kept::Whole));
    match name {
        InvoiceName::Number(number) if kept.is_none() => {
            let series = series(connection, tenant).await?;
            let given = (1..=series.end()).contains(number);
            Ok(given.then_some(Kept::Missing(*number)))
        }
        _ => Ok(kept),
    }
}

pub(super) async fn series(
    connection: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<NumberSeries, StoreError> {
    let last: Option<(i64, String)> =
        sqlx::query_as("SELECT last, hash FROM invoice_numbers WHERE tenant = $1")
            .bind(i64::from(tenant.0))
            .fetch_optional(&mut *connection)
            .await
            .map_err(lost)?;
    // The highest whole number: to SQLite any text is more than that.
    let highest = sqlx::query(
        "SELECT number FROM invoices WHERE tenant = $1 AND number <= $2 ORDER BY number DESC LIMIT 1",
    )
    .bind(i64::from(tenant.0))
    .bind(i64::MAX)
    .fetch_optional(connection)
    .await
    .map_err(lost)?;
    let highest = highest.and_then(|row| row.try_get::<i64, _>(0).ok());
    let (last, hash) = last.unwrap_or_default();
    Ok(NumberSeries {
        last: number("invoice_numbers", "last", last)?,
        hash,
        highest: highest.map_or(0, |highest| u64::try_from(highest).unwrap_or_default()),
    })
}

/// The invoices with these ids, in their order; those that are unknown left out.
pub(super) async fn by_ids(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    ids: &[String],
) -> Result<Vec<Invoice>, Problem> {
    let sql =
        format!("{INVOICE} FROM invoices WHERE tenant = $1 AND id IN (SELECT value FROM json_each($2))");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::from(tenant.0))
        .bind(list_of(ids.iter())?)
        .fetch_all(&mut *connection)
        .await
        .map_err(lost)?;
    let found = whole(with_lines(connection, tenant, &rows).await?)?;
    let mut found: HashMap<String, Invoice> = found
        .into_iter()
        .map(|invoice| (invoice.id.clone(), invoice))
        .collect();
    Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
}

/// What stands at these boundaries, in their order.
pub(super) async fn of_boundaries(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    boundaries: &[Boundary],
) -> Result<Vec<Option<Invoice>>, Problem> {
    let sql = format!(
        // The order of a cross join is kept: from each boundary to its invoice, however many the subscription has.
        "{INVOICE} FROM (SELECT json_extract(value, '$[0]') AS at_subscription, json_extract(value, '$[1]') AS at_end, \
         json_extract(value, '$[2]') AS at_round FROM json_each($2)) CROSS JOIN invoices \
         WHERE tenant = $1 AND subscription = at_subscription AND period_end_us = at_end AND round = at_round"
    );
    let asked = boundaries.iter();
    let asked = asked.map(|boundary| (&boundary.subscription, boundary.at.micros(), boundary.round));
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::from(tenant.0))
        .bind(list_of(asked)?)
        .fetch_all(&mut *connection)
        .await
        .map_err(lost)?;
    let found = whole(with_lines(connection, tenant, &rows).await?)?.into_iter();
    let mut found: HashMap<Boundary, Invoice> =
        found.map(|invoice| (Boundary::of(&invoice), invoice)).collect();
    Ok(boundaries.iter().map(|boundary| found.remove(boundary)).collect())
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    filter: &InvoiceFilter,
    page: &PageAfter,
) -> Result<Vec<Result<Invoice, Broken>>, StoreError> {
    let sql = format!(
        "{INVOICE} FROM invoices WHERE tenant = $1 AND ($2 IS NULL OR id < $2) AND ($3 IS NULL OR customer = $3) \
         AND ($4 IS NULL OR subscription = $4) AND ($5 IS NULL OR status = $5) \
         AND ($6 IS NULL OR period_end_us >= $6) AND ($7 IS NULL OR period_end_us < $7) ORDER BY id DESC LIMIT $8"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::from(tenant.0))
        .bind(page.after.as_deref())
        .bind(filter.customer.as_deref())
        .bind(filter.subscription.as_deref())
        .bind(filter.status.map(InvoiceStatus::as_str))
        .bind(filter.ends.map(|ends| ends.start.micros()))
        .bind(filter.ends.map(|ends| ends.end.micros()))
        .bind(integer(page.rows))
        .fetch_all(&mut *connection)
        .await
        .map_err(lost)?;
    with_lines(connection, tenant, &rows).await
}

pub(super) async fn billed(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    filter: &BilledFilter,
) -> Result<Result<Vec<Line>, Broken>, StoreError> {
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
        .bind(filter.number_below.map(integer))
        .fetch_all(connection)
        .await
        .map_err(lost)?;
    let broken = |row: &SqliteRow, field| Broken {
        id: row.try_get_unchecked(11).unwrap_or_default(),
        number: None,
        field,
    };
    let lines = rows
        .iter()
        .map(|row| line(row).map_err(|field| broken(row, field)));
    Ok(lines.collect())
}

pub(super) async fn closed_until(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    subscriptions: &[String],
) -> Result<Vec<Option<Timestamp>>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT subscription, MAX(period_end_us) FROM closings \
         WHERE tenant = $1 AND subscription IN (SELECT value FROM json_each($2)) GROUP BY subscription",
    )
    .bind(i64::from(tenant.0))
    .bind(write_body(&subscriptions)?)
    .fetch_all(connection)
    .await?;
    let mut until: HashMap<String, Timestamp> = HashMap::with_capacity(rows.len());
    for row in rows {
        until.insert(row.try_get(0)?, time(row.try_get(1)?));
    }
    let in_order = subscriptions.iter();
    Ok(in_order
        .map(|subscription| until.get(subscription).copied())
        .collect())
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
