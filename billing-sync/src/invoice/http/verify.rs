use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::invariant::{Invariant, VIOLATIONS};
use turnpike_domain::limits::INVOICES_VERIFIED_MAX;
use turnpike_domain::port::billing::{InvoiceName, Kept};
use turnpike_domain::problem::Problem;
use turnpike_http::{Caller, Cursor, JsonBody, ProblemBody, Reply};

use super::invoices::{InvoicePath, find_kept};
use crate::invoice::engine::BillingSync;
use crate::invoice::verify::Verification;

/// The list that cursors of this call belong to.
const SERIES: &str = "/v1/invoices/verify";

/// Which invoices are to be verified.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyRequest {
    /// Ids or numbers of final invoices: 1 to 1,000. Without it all numbers that were given, in their order, 1,000 to an
    /// answer.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 1000)]
    invoices: Option<Vec<String>>,
    /// `next_cursor` of the answer before, without `invoices`.
    #[serde(default)]
    cursor: Option<String>,
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
    /// Send as `cursor` for the next ones; null behind the last number.
    #[schema(value_type = Option<String>)]
    next_cursor: Option<Cursor>,
}

/// Derives a final invoice again from the raw events, at its watermark and with its prices, and compares it to the last
/// minor unit. A field that cannot be read, and a number under which nothing is kept any more, are differences.
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
    let kept = find_kept(&billing, caller.tenant, &id).await?;
    let verification = billing.verifier().verify(caller.tenant, kept).await?;
    count_violations(&verification);
    Ok(Json(verification))
}

/// Derives many final invoices again, as the call for one does, but reads the raw events once for all of them. Without
/// `invoices` the whole series of numbers is verified, so that none can be gone without a word.
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
    let (kept, next_cursor) = match &request.invoices {
        Some(_) if request.cursor.is_some() => {
            return Err(Problem::invalid("/cursor", "goes without invoices").into());
        }
        Some(asked) => (named(&billing, caller.tenant, asked).await?, None),
        None => numbered(&billing, caller.tenant, request.cursor.as_deref()).await?,
    };
    let names: Vec<String> = match request.invoices {
        Some(asked) => asked,
        None => kept.iter().map(|(_, kept)| kept.name()).collect(),
    };
    let found = billing.verifier().verify_all(&kept).await?;
    found.iter().for_each(count_violations);
    let data = names.into_iter().zip(found);
    let data = data.map(|(invoice, verification)| VerifiedInvoice {
        invoice,
        verification,
    });
    Ok(Json(VerifiedInvoices {
        data: data.collect(),
        next_cursor,
    }))
}

async fn named(
    billing: &BillingSync,
    tenant: TenantId,
    asked: &[String],
) -> Result<Vec<(TenantId, Kept)>, Problem> {
    if asked.is_empty() || asked.len() > INVOICES_VERIFIED_MAX {
        let detail = format!("must name 1 to {INVOICES_VERIFIED_MAX} invoices");
        return Err(Problem::invalid("/invoices", detail));
    }
    let mut kept = Vec::with_capacity(asked.len());
    for id in asked {
        kept.push((tenant, find_kept(billing, tenant, id).await?));
    }
    Ok(kept)
}

/// What there is under the next numbers of the series.
async fn numbered(
    billing: &BillingSync,
    tenant: TenantId,
    cursor: Option<&str>,
) -> Result<(Vec<(TenantId, Kept)>, Option<Cursor>), Problem> {
    let store = &billing.parts.store;
    let end = store.series(tenant).await?.end();
    let after = match Cursor::after(SERIES, cursor)? {
        None => 0,
        Some(place) => place
            .parse()
            .map_err(|_| Problem::invalid("/cursor", "is not of this list"))?,
    };
    let last = end.min(after + INVOICES_VERIFIED_MAX as u64);
    let mut kept = Vec::new();
    for number in after + 1..=last {
        let found = store.kept(tenant, InvoiceName::Number(number)).await?;
        kept.extend(found.map(|found| (tenant, found)));
    }
    Ok((kept, (last < end).then(|| Cursor::of(SERIES, &last.to_string()))))
}

fn count_violations(verification: &Verification) {
    for difference in &verification.differences {
        let broken = Invariant::of_invoice_difference(&difference.pointer);
        metrics::counter!(VIOLATIONS, "invariant" => broken.name()).increment(1);
    }
}
