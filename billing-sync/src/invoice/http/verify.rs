use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use turnpike_domain::identity::Scope;
use turnpike_domain::invariant::{Invariant, VIOLATIONS};
use turnpike_domain::limits::INVOICES_VERIFIED_MAX;
use turnpike_domain::problem::Problem;
use turnpike_http::{Caller, JsonBody, ProblemBody, Reply};

use super::invoices::{InvoicePath, find};
use crate::invoice::engine::BillingSync;
use crate::invoice::verify::Verification;

/// Which invoices are to be verified.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyRequest {
    /// Ids or numbers of final invoices: 1 to 1,000.
    #[schema(min_items = 1, max_items = 1000)]
    invoices: Vec<String>,
}

/// What came of verifying one invoice.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct VerifiedInvoice {
    /// Its id or number, as it was asked for.
    invoice: String,
    #[serde(flatten)]
    verification: Verification,
}

/// What came of verifying invoices.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct VerifiedInvoices {
    /// One for each that was asked for, in that order.
    data: Vec<VerifiedInvoice>,
}

/// Derives a final invoice again from the raw events, at its watermark and with its prices, and compares it to the last
/// minor unit.
#[utoipa::path(
    post, path = "/v1/invoices/{id}/verify", tag = "Billing", operation_id = "verify_invoice",
    params(InvoicePath),
    responses(
        (status = 200, description = "Whether it is the same", body = Verification),
        (status = 404, description = "There is no such invoice", body = ProblemBody),
        (status = 409, description = "It is not final", body = ProblemBody),
    ),
    security(("api_key" = ["billing"])),
)]
pub(super) async fn verify_invoice(
    caller: Caller,
    State(billing): State<Arc<BillingSync>>,
    Path(id): Path<String>,
) -> Reply<Json<Verification>> {
    caller.require(Scope::Billing)?;
    let invoice = find(&billing, caller.tenant, &id).await?;
    let verification = billing.verifier().verify(caller.tenant, &invoice).await?;
    count_violations(&verification);
    Ok(Json(verification))
}

/// Derives many final invoices again, as the call for one does, but reads the raw events once for all of them.
#[utoipa::path(
    post, path = "/v1/invoices/verify", tag = "Billing", operation_id = "verify_invoices",
    request_body = VerifyRequest,
    responses(
        (status = 200, description = "Whether each is the same", body = VerifiedInvoices),
        (status = 404, description = "There is no such invoice", body = ProblemBody),
        (status = 409, description = "One is not final", body = ProblemBody),
        (status = 422, description = "The request is invalid", body = ProblemBody),
    ),
    security(("api_key" = ["billing"])),
)]
pub(super) async fn verify_invoices(
    caller: Caller,
    State(billing): State<Arc<BillingSync>>,
    JsonBody(request): JsonBody<VerifyRequest>,
) -> Reply<Json<VerifiedInvoices>> {
    caller.require(Scope::Billing)?;
    let asked = request.invoices;
    if asked.is_empty() || asked.len() > INVOICES_VERIFIED_MAX {
        let detail = format!("must name 1 to {INVOICES_VERIFIED_MAX} invoices");
        return Err(Problem::invalid("/invoices", detail).into());
    }
    let mut invoices = Vec::with_capacity(asked.len());
    for id in &asked {
        invoices.push((caller.tenant, find(&billing, caller.tenant, id).await?));
    }
    let found = billing.verifier().verify_all(&invoices).await?;
    found.iter().for_each(count_violations);
    let data = asked.into_iter().zip(found);
    let data = data.map(|(invoice, verification)| VerifiedInvoice {
        invoice,
        verification,
    });
    Ok(Json(VerifiedInvoices { data: data.collect() }))
}

fn count_violations(verification: &Verification) {
    for difference in &verification.differences {
        let broken = Invariant::of_invoice_difference(&difference.pointer);
        metrics::counter!(VIOLATIONS, "invariant" => broken.name()).increment(1);
    }
}
