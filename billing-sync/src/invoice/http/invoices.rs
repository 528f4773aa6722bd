use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::invoice::{Difference, Invoice, InvoiceStatus, InvoiceView, number_text};
use turnpike_domain::port::billing::{Broken, InvoiceFilter, InvoiceName, Kept};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{TimeRange, Timestamp};
use turnpike_http::{Caller, Page, PageQuery, Params, ProblemBody, Reply};

use super::html;
use crate::invoice::engine::BillingSync;

/// One invoice.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes a part of paths, is none")]
pub(super) struct InvoicePath {
    /// The invoice's id or number.
    id: String,
}

/// Which invoices are wanted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct InvoiceQuery {
    /// Of one customer.
    customer: Option<String>,
    /// Of one subscription.
    subscription: Option<String>,
    /// In one state.
    status: Option<InvoiceStatus>,
    /// Whose period ends then or later.
    #[param(value_type = Option<String>, format = DateTime)]
    #[serde(default, deserialize_with = "turnpike_http::optional_time")]
    from: Option<Timestamp>,
    /// Whose period ends before then.
    #[param(value_type = Option<String>, format = DateTime)]
    #[serde(default, deserialize_with = "turnpike_http::optional_time")]
    to: Option<Timestamp>,
}

impl InvoiceQuery {
    pub(super) fn filter(self) -> Result<InvoiceFilter, Problem> {
        let ends = TimeRange::new(
            self.from.unwrap_or(Timestamp::EPOCH),
            self.to.unwrap_or(Timestamp::MAX),
        );
        if ends.end <= ends.start {
            return Err(Problem::invalid("/to", "must be later than from"));
        }
        Ok(InvoiceFilter {
            customer: self.customer,
            subscription: self.subscription,
            status: self.status,
            ends: (self.from.is_some() || self.to.is_some()).then_some(ends),
        })
    }
}

/// A page of invoices.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct InvoicePage {
    #[serde(flatten)]
    page: Page<InvoiceView>,
    /// Those of this page of which a stored value cannot be read, and which `data` therefore lacks. Left out where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<DamagedInvoice>,
}

/// An invoice of which a stored value cannot be read.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct DamagedInvoice {
    /// Its id.
    pub(super) id: String,
    /// Its number, where it has one that can be read.
    pub(super) number: Option<String>,
    /// The first field that cannot be read.
    pub(super) field: Difference,
}

impl From<Broken> for DamagedInvoice {
    fn from(broken: Broken) -> Self {
        Self {
            id: broken.id,
            number: broken.number.map(number_text),
            field: broken.field,
        }
    }
}

/// The id behind which a list goes on.
pub(super) fn id_of(invoice: &Result<Invoice, Broken>) -> String {
    match invoice {
        Ok(invoice) => invoice.id.clone(),
        Err(broken) => broken.id.clone(),
    }
}

/// Invoices, newest first.
#[utoipa::path(
    get, path = "/v1/invoices", tag = "Billing", operation_id = "list_invoices",
    params(PageQuery, InvoiceQuery),
    responses(
        (status = 200, description = "A page of invoices", body = InvoicePage),
        (status = 422, description = "A parameter is invalid", body = ProblemBody),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn list_invoices(
    caller: Caller,
    State(billing): State<Arc<BillingSync>>,
    page: PageQuery,
    Params(query): Params<InvoiceQuery>,
) -> Reply<Json<InvoicePage>> {
    caller.require(Scope::Read)?;
    let found = billing
        .parts
        .store
        .invoices(caller.tenant, query.filter()?, page.with_one_more())
        .await?;
    let page = page.cut(found, id_of);
    let (mut data, mut damaged) = (Vec::new(), Vec::new());
    for invoice in page.data {
        match invoice {
            Ok(invoice) => data.push(InvoiceView::from(&invoice)),
            Err(broken) => damaged.push(broken.into()),
        }
    }
    let next_cursor = page.next_cursor;
    Ok(Json(InvoicePage {
        page: Page { data, next_cursor },
        damaged,
    }))
}

/// An invoice by its id or number. With `.html` behind it, a page that prints well.
#[utoipa::path(
    get, path = "/v1/invoices/{id}", tag = "Billing", operation_id = "get_invoice",
    params(("id" = String, Path, description = "The invoice's id or number; `<id>.html` for a page to read and print")),
    responses(
        (status = 200, description = "The invoice", content((InvoiceView = "application/json"), (String = "text/html"))),
        (status = 404, description = "There is no such invoice", body = ProblemBody),
        (status = 500, description = "A stored value of it cannot be read: `errors` names it", body = ProblemBody),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn get_invoice(
    caller: Caller,
    State(billing): State<Arc<BillingSync>>,
    Path(id): Path<String>,
) -> Reply<Response> {
    caller.require(Scope::Read)?;
    if id.strip_suffix(".pdf").is_some() {
        let detail = "invoices are not offered as PDF; take the same path with .html and print it";
        return Err(Problem::new(Code::NotFound, detail).into());
    }
    let Some(id) = id.strip_suffix(".html") else {
        let invoice = find(&billing, caller.tenant, &id).await?;
        return Ok(Json(InvoiceView::from(&invoice)).into_response());
    };
    let invoice = find(&billing, caller.tenant, id).await?;
    let page = html::page(&billing, caller.tenant, &invoice)?;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, page).into_response())
}

/// An invoice by its id or number.
pub(super) async fn find(billing: &BillingSync, tenant: TenantId, id: &str) -> Result<Invoice, Problem> {
    match find_kept(billing, tenant, id).await? {
        Kept::Whole(invoice) => Ok(invoice),
        Kept::Broken(broken) => Err(broken.into()),
        Kept::Missing(_) => Err(Problem::not_found("invoice", id)),
    }
}

/// What there is of an invoice, by its id or number.
pub(super) async fn find_kept(billing: &BillingSync, tenant: TenantId, id: &str) -> Result<Kept, Problem> {
    let found = billing.parts.store.kept(tenant, InvoiceName::parse(id)).await?;
    found.ok_or_else(|| Problem::not_found("invoice", id))
}
