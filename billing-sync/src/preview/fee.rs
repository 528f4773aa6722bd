use axum::Json;
use serde::{Deserialize, Serialize};
use turnpike_domain::identity::Scope;
use turnpike_domain::money::Money;
use turnpike_domain::problem::Problem;
use turnpike_domain::rating::{Commission, Fee, check_fee, split_fee};
use turnpike_http::{Caller, JsonBody, ProblemBody, Reply};

/// An amount of one currency.
#[derive(Debug, utoipa::ToSchema)]
#[schema(as = Money)]
#[expect(
    dead_code,
    reason = "only describes the wire shape of `Money` in the OpenAPI document"
)]
pub(super) struct MoneyShape {
    /// A decimal of the currency's major unit.
    amount: String,
    /// An ISO 4217 code.
    currency: String,
}

/// A gross amount and what is taken of it.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FeePreviewRequest {
    /// What the buyer pays; above zero.
    #[schema(value_type = MoneyShape)]
    gross: Money,
    /// The platform's fee; none unless said.
    #[serde(default)]
    fee: Fee,
    /// The provider's commission; none unless said.
    #[serde(default)]
    commission: Commission,
}

/// How the gross amount is shared; the three parts sum to it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct FeePreview {
    /// Rate of gross, rounded half up, plus the fixed part.
    #[schema(value_type = MoneyShape)]
    platform_fee: Money,
    /// Rate of gross, rounded half up.
    #[schema(value_type = MoneyShape)]
    provider_commission: Money,
    /// What is left.
    #[schema(value_type = MoneyShape)]
    net_seller: Money,
}

/// Shares a gross amount between platform, provider and seller. Shares of currencies of three decimals are rounded to
/// ten minor units, the smallest step that payment providers move. Nothing is charged or kept.
#[utoipa::path(
    post, path = "/v1/fees/preview", tag = "Billing", operation_id = "preview_fees",
    request_body = FeePreviewRequest,
    responses(
        (status = 200, description = "The shares", body = FeePreview),
        (status = 422, description = "The amounts are invalid, or leave nothing for the seller", body = ProblemBody),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn preview_fees(
    caller: Caller,
    JsonBody(request): JsonBody<FeePreviewRequest>,
) -> Reply<Json<FeePreview>> {
    caller.require(Scope::Read)?;
    if request.gross.minor() <= 0 {
        return Err(Problem::invalid("/gross/amount", "must be above zero").into());
    }
    let errors = check_fee(&request.fee, &request.commission, request.gross.currency());
    if let Some(first) = errors.first() {
        let problem = Problem::invalid(first.pointer.clone(), first.detail.clone());
        return Err(Problem {
            fields: errors,
            ..problem
        }
        .into());
    }
    let split = split_fee(request.gross, &request.fee, &request.commission)?;
    Ok(Json(FeePreview {
        platform_fee: split.platform_fee,
        provider_commission: split.provider_commission,
        net_seller: split.net_seller,
    }))
}
