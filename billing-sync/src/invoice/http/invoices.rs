use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::invoice::{Invoice, InvoiceStatus, InvoiceView};
use turnpike_domain::port::billing::{InvoiceFilter, InvoiceName, Kept};
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
    from: Option<Timestamp>,
    /// Whose period ends before then.
    #[param(value_type = Option<String>, format = DateTime)]
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

/// Invoices, newest first.
#[utoipa::path(
    get, path = "/v1/invoices", tag = "Billing", operation_id = "list_invoices",
    params(PageQuery, InvoiceQuery),
    responses(
        (status = 200, description = "A page of invoices", body = Page<InvoiceView>),
        (status = 422, description = "A parameter is invalid", body = ProblemBody),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn list_invoices(
    caller: Caller,
    State(billing): State<Arc<BillingSync>>,
    page: PageQuery,
    Params(query): Params<InvoiceQuery>,
) -> Reply<Json<Page<InvoiceView>>> {
    caller.require(Scope::Read)?;
    let found = billing
        .parts
        .store
        .invoices(caller.tenant, query.filter()?, page.with_one_more())
        .await?;
    let page = page.cut(found, |invoice| invoice.id.clone());
    Ok(Json(Page {
        data: page.data.iter().map(InvoiceView::from).collect(),
        next_cursor: page.next_cursor,
    }))
}

/// An invoice by its id or number. With `.html` behind it, a page that prints well.
#[utoipa::path(
    get, path = "/v1/invoices/{id}", tag = "Billing", operation_id = "get_invoice",
    params(("id" = String, Path, description = "The invoice's id or number; `<id>.html` for a page to read and print")),
    responses(
        (status = 200, description = "The invoice", content((InvoiceView = "application/json"), (String = "text/html"))),
        (status = 404, description = "There is no such invoice", body = ProblemBody),
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
