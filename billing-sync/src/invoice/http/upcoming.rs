use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use turnpike_domain::identity::Scope;
use turnpike_domain::invoice::InvoiceView;
use turnpike_http::{Caller, Params, ProblemBody, Reply};

use crate::control::living_customer;
use crate::invoice::engine::BillingSync;

/// Of which subscription.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UpcomingQuery {
    /// The subscription; the one whose invoice falls due first unless said.
    subscription: Option<String>,
}

/// The next invoice of a customer as it would be now: a draft without id and number. Nothing is kept.
#[utoipa::path(
    get, path = "/v1/customers/{key}/invoices/upcoming", tag = "Billing", operation_id = "upcoming_invoice",
    params(("key" = String, Path, description = "The customer's key"), UpcomingQuery),
    responses(
        (status = 200, description = "The invoice to come", body = InvoiceView),
        (status = 404, description = "There is no such customer, or nothing is to come", body = ProblemBody),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn upcoming_invoice(
    caller: Caller,
    State(billing): State<Arc<BillingSync>>,
    Path(key): Path<String>,
    Params(query): Params<UpcomingQuery>,
) -> Reply<Json<InvoiceView>> {
    caller.require(Scope::Read)?;
    living_customer(billing.parts.directory.as_ref(), caller.tenant, &key)?;
    let invoice = billing
        .upcoming(caller.tenant, &key, query.subscription.as_deref())
        .await?;
    Ok(Json(InvoiceView::from(&invoice)))
}
