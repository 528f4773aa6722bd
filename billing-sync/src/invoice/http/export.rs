use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::invoice::{Invoice, InvoiceView, number_text};
use turnpike_domain::port::billing::{Broken, InvoiceFilter};
use turnpike_domain::port::control::PageAfter;
use turnpike_domain::problem::Problem;
use turnpike_http::{Caller, Format, Params, ProblemBody, Reply, csv, ndjson};

use super::invoices::{DamagedInvoice, InvoiceQuery, id_of};
use crate::invoice::engine::BillingSync;

/// Invoices read at a time.
const BATCH: usize = 100;

/// How it is written.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportQuery {
    /// `csv` (one row per line of an invoice) or `ndjson` (one invoice per line), before `Accept`; `csv` unless said.
    format: Option<String>,
}

/// All invoices, newest first, as CSV or NDJSON. One that cannot be read has a row too: of kind `damaged` in CSV, with the one member
/// `damaged` in NDJSON. In CSV a text that a spreadsheet would take for a formula has a quote (`'`) before it, as in the export of
/// usage.
#[utoipa::path(
    get, path = "/v1/export/invoices", tag = "Billing", operation_id = "export_invoices",
    params(ExportQuery, InvoiceQuery),
    responses(
        (status = 200, description = "The invoices", content((String = "text/csv"), (String = "application/x-ndjson"))),
        (status = 422, description = "A parameter is invalid", body = ProblemBody),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn export_invoices(
    caller: Caller,
    State(billing): State<Arc<BillingSync>>,
    Params(export): Params<ExportQuery>,
    Params(query): Params<InvoiceQuery>,
    headers: HeaderMap,
) -> Reply<Response> {
    caller.require(Scope::Read)?;
    let format = Format::of_export(export.format.as_deref(), &headers)?;
    let pages = Pages {
        billing,
        tenant: caller.tenant,
        filter: query.filter()?,
        format,
        after: None,
        first: true,
    };
    let name = match format {
        Format::Csv => "attachment; filename=\"invoices.csv\"",
        Format::Ndjson | Format::Json => "attachment; filename=\"invoices.ndjson\"",
    };
    let body = Body::from_stream(stream::try_unfold(Some(pages), |pages| async move {
        match pages {
            Some(pages) => pages.next().await.map(Some),
            None => Ok(None),
        }
    }));
    Ok((
        [
            (header::CONTENT_TYPE, format.media_type()),
            (header::CONTENT_DISPOSITION, name),
        ],
        body,
    )
        .into_response())
}

struct Pages {
    billing: Arc<BillingSync>,
    tenant: TenantId,
    filter: InvoiceFilter,
    format: Format,
    after: Option<String>,
    first: bool,
}

impl Pages {
    /// The next bytes, and what comes behind them.
    async fn next(mut self) -> Result<(Bytes, Option<Self>), Problem> {
        let page = PageAfter {
            after: self.after.clone(),
            rows: BATCH,
        };
        let store = &self.billing.parts.store;
        let invoices = store.invoices(self.tenant, self.filter.clone(), page).await?;
        let bytes = match self.format {
            Format::Csv => csv_rows(&invoices, self.first)?,
            Format::Ndjson | Format::Json => ndjson(invoices.iter().map(ExportLine::from))?,
        };
        self.first = false;
        self.after = invoices.last().map(id_of);
        let more = invoices.len() == BATCH;
        Ok((Bytes::from(bytes), more.then_some(self)))
    }
}

/// An invoice, or what is known of one that cannot be read, as a line of NDJSON.
#[derive(Serialize)]
#[serde(untagged)]
enum ExportLine {
    Invoice(Box<InvoiceView>),
    Damaged { damaged: DamagedInvoice },
}

impl From<&Result<Invoice, Broken>> for ExportLine {
    fn from(invoice: &Result<Invoice, Broken>) -> Self {
        match invoice {
            Ok(invoice) => Self::Invoice(Box::new(InvoiceView::from(invoice))),
            Err(broken) => Self::Damaged {
                damaged: DamagedInvoice::from(broken.clone()),
            },
        }
    }
}

const COLUMNS: [&str; 17] = [
    "invoice",
    "number",
    "customer",
    "subscription",
    "status",
    "currency",
    "period_start",
    "period_end",
    "total",
    "line_kind",
    "price",
    "meter",
    "description",
    "quantity",
    "amount",
    "line_start",
    "line_end",
];

/// The row of an invoice that cannot be read: its name, and what is damaged in the place of a line's description.
fn damaged_row(broken: &Broken) -> [String; COLUMNS.len()] {
    let number = broken.number.map(number_text).unwrap_or_default();
    COLUMNS.map(|column| match column {
        "invoice" => broken.id.clone(),
        "number" => number.clone(),
        "line_kind" => "damaged".to_owned(),
        "description" => format!("{} cannot be read", broken.field.pointer),
        _ => String::new(),
    })
}

fn csv_rows(invoices: &[Result<Invoice, Broken>], with_header: bool) -> Result<Vec<u8>, Problem> {
    let head = with_header.then(|| COLUMNS.map(str::to_owned).to_vec());
    let rows = invoices.iter().flat_map(|invoice| match invoice {
        Ok(invoice) => line_rows(invoice),
        Err(broken) => vec![damaged_row(broken).to_vec()],
    });
    csv(head.into_iter().chain(rows))
}

/// A row for each line of an invoice.
fn line_rows(invoice: &Invoice) -> Vec<Vec<String>> {
    let view = InvoiceView::from(invoice);
    let head = [
        invoice.id.clone(),
        view.number.unwrap_or_default(),
        view.customer,
        view.subscription,
        invoice.status.as_str().to_owned(),
        view.currency.to_string(),
        view.period.start.to_string(),
        view.period.end.to_string(),
        view.total,
    ];
    let tails = view.lines.into_iter().map(|line| {
        [
            line.kind.as_str().to_owned(),
            line.price,
            line.meter.unwrap_or_default(),
            line.description,
            line.quantity,
            line.amount,
            line.period.start.to_string(),
            line.period.end.to_string(),
        ]
    });
    tails
        .map(|tail| head.iter().cloned().chain(tail).collect())
        .collect()
}
