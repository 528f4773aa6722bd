use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use turnpike_domain::identity::Scope;
use turnpike_domain::invariant::{Invariant, VIOLATIONS};
use turnpike_domain::invoice::{InvoiceStep, InvoiceView};
use turnpike_http::{Answered, Caller, Changing, ProblemBody, Reply};

use super::invoices::find;
use crate::invoice::engine::BillingSync;
use crate::invoice::verify::Verification;

type Billing = State<Arc<BillingSync>>;

/// Locks a draft whose period has ended, and gives it its number. An invoice that is already open is answered as it is.
#[utoipa::path(
    post, path = "/v1/invoices/{id}/finalize", tag = "Billing", operation_id = "finalize_invoice",
    params(("id" = String, Path, description = "The invoice's id or number")),
    responses(
        (status = 200, description = "The final invoice", body = InvoiceView),
        (status = 404, description = "There is no such invoice", body = ProblemBody),
        (status = 409, description = "Its state does not allow it", body = ProblemBody),
    ),
    security(("api_key" = ["billing"])),
)]
pub(super) async fn finalize_invoice(
    changing: Changing,
    State(billing): Billing,
    Path(id): Path<String>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let invoice = find(&billing, changing.tenant(), &id).await?;
    let change = changing.change(billing.parts.clock.as_ref(), &());
    Ok(Answered(billing.finalize(change, invoice.id).await?))
}

/// Notes that an open or uncollectible invoice is paid.
#[utoipa::path(
    post, path = "/v1/invoices/{id}/pay", tag = "Billing", operation_id = "pay_invoice",
    params(("id" = String, Path, description = "The invoice's id or number")),
    responses(
        (status = 200, description = "The invoice", body = InvoiceView),
        (status = 404, description = "There is no such invoice", body = ProblemBody),
        (status = 409, description = "Its state does not allow it", body = ProblemBody),
    ),
    security(("api_key" = ["billing"])),
)]
pub(super) async fn pay_invoice(
    changing: Changing,
    State(billing): Billing,
    Path(id): Path<String>,
) -> Reply<Answered> {
    step(changing, &billing, &id, InvoiceStep::Pay).await
}

/// Voids an open or uncollectible invoice: it is owed no more. It keeps its number.
#[utoipa::path(
    post, path = "/v1/invoices/{id}/void", tag = "Billing", operation_id = "void_invoice",
    params(("id" = String, Path, description = "The invoice's id or number")),
    responses(
        (status = 200, description = "The invoice", body = InvoiceView),
        (status = 404, description = "There is no such invoice", body = ProblemBody),
        (status = 409, description = "Its state does not allow it", body = ProblemBody),
    ),
    security(("api_key" = ["billing"])),
)]
pub(super) async fn void_invoice(
    changing: Changing,
    State(billing): Billing,
    Path(id): Path<String>,
) -> Reply<Answered> {
    step(changing, &billing, &id, InvoiceStep::Void).await
}

/// Notes that an open invoice is not expected to be paid.
#[utoipa::path(
    post, path = "/v1/invoices/{id}/uncollectible", tag = "Billing", operation_id = "give_up_invoice",
    params(("id" = String, Path, description = "The invoice's id or number")),
    responses(
        (status = 200, description = "The invoice", body = InvoiceView),
        (status = 404, description = "There is no such invoice", body = ProblemBody),
        (status = 409, description = "Its state does not allow it", body = ProblemBody),
    ),
    security(("api_key" = ["billing"])),
)]
pub(super) async fn give_up_invoice(
    changing: Changing,
    State(billing): Billing,
    Path(id): Path<String>,
) -> Reply<Answered> {
    step(changing, &billing, &id, InvoiceStep::Uncollectible).await
}

async fn step(changing: Changing, billing: &BillingSync, id: &str, step: InvoiceStep) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let invoice = find(billing, changing.tenant(), id).await?;
    let change = changing.change(billing.parts.clock.as_ref(), &());
    Ok(Answered(
        billing.parts.store.step(change, invoice.id, step).await?,
    ))
}

/// Derives a final invoice again from the raw events, at its watermark and with its prices, and compares it to the last
/// minor unit.
#[utoipa::path(
    post, path = "/v1/invoices/{id}/verify", tag = "Billing", operation_id = "verify_invoice",
    params(("id" = String, Path, description = "The invoice's id or number")),
    responses(
        (status = 200, description = "Whether it is the same", body = Verification),
        (status = 404, description = "There is no such invoice", body = ProblemBody),
        (status = 409, description = "It is not final", body = ProblemBody),
    ),
    security(("api_key" = ["billing"])),
)]
pub(super) async fn verify_invoice(
    caller: Caller,
    State(billing): Billing,
    Path(id): Path<String>,
) -> Reply<Json<Verification>> {
    caller.require(Scope::Billing)?;
    let invoice = find(&billing, caller.tenant, &id).await?;
    let verification = billing.verifier().verify(caller.tenant, &invoice).await?;
    for difference in &verification.differences {
        let broken = Invariant::of_invoice_difference(&difference.pointer);
        metrics::counter!(VIOLATIONS, "invariant" => broken.name()).increment(1);
    }
    Ok(Json(verification))
}
