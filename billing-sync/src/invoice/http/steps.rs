use std::sync::Arc;

use axum::extract::{Path, State};
use turnpike_domain::identity::Scope;
use turnpike_domain::invoice::{InvoiceStep, InvoiceView};
use turnpike_http::{Answered, Changing, ProblemBody, Reply};

use super::invoices::{InvoicePath, find};
use crate::invoice::engine::BillingSync;

type Billing = State<Arc<BillingSync>>;

/// What a step answers.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, clippy::large_enum_variant, reason = "describes answers, is none")]
enum Stepped {
    /// The invoice
    #[response(status = 200)]
    Done(InvoiceView),
    /// There is no such invoice
    #[response(status = 404)]
    Unknown(ProblemBody),
    /// Its state does not allow it
    #[response(status = 409)]
    Illegal(ProblemBody),
}

/// Locks a draft whose period has ended, and gives it its number. An invoice that is already open is answered as it is.
#[utoipa::path(
    post, path = "/v1/invoices/{id}/finalize", tag = "Billing", operation_id = "finalize_invoice",
    params(InvoicePath), responses(Stepped), security(("api_key" = ["billing"])),
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
    params(InvoicePath), responses(Stepped), security(("api_key" = ["billing"])),
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
    params(InvoicePath), responses(Stepped), security(("api_key" = ["billing"])),
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
    params(InvoicePath), responses(Stepped), security(("api_key" = ["billing"])),
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
