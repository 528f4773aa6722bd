use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use turnpike_domain::catalog::{Feature, FeatureKind};
use turnpike_domain::identity::Scope;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::Timestamp;
use turnpike_http::{Caller, ProblemBody, Reply};

use super::answer::QuotaAnswer;
use crate::Enforcer;
use crate::consume::Asked;
use crate::outcome::GrantOutcome;
use crate::resolve::meter_of;

/// What a customer is entitled to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Entitlements {
    /// One for each feature that it has, in the order of their keys.
    data: Vec<EntitlementAnswer>,
    /// Always null: all are told at once.
    next_cursor: Option<String>,
}

/// A feature that a customer has.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct EntitlementAnswer {
    /// The feature's name.
    name: String,
    /// What the feature is.
    kind: FeatureKind,
    /// What stands against it now; `allowed` says whether anything is left, were 0 more asked for.
    #[serde(flatten)]
    answer: QuotaAnswer,
    /// The grants that raise its limits now, in the order in which they are drawn.
    grants: Vec<EntitlementGrant>,
}

/// A grant that counts, of the customer or of one that shares its entitlement.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct EntitlementGrant {
    /// Its id.
    id: String,
    /// Whose grant it is.
    customer: String,
    /// How much was granted: of a recurring one, each time.
    amount: Quantity,
    /// What is left of it; what is reserved from it is no longer left.
    balance: Quantity,
    /// When it ends; null for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

impl From<&GrantOutcome> for EntitlementGrant {
    fn from(outcome: &GrantOutcome) -> Self {
        let grant = &outcome.grant;
        Self {
            id: grant.id.clone(),
            customer: grant.customer.clone(),
            amount: grant.amount,
            balance: outcome.balance,
            expires_at: grant.expires_at,
        }
    }
}

/// What a customer is entitled to now, with values, limits and usage.
///
/// A metered feature whose meter is neither a sum nor a count is left out: nothing can be decided about it.
#[utoipa::path(
    get, path = "/v1/customers/{key}/entitlements", tag = "Quotas",
    params(("key" = String, Path, description = "The customer")),
    responses(
        (status = 200, description = "Its entitlements", body = Entitlements),
        (status = 404, description = "No such customer", body = ProblemBody),
    ),
    security(("api_key" = ["check", "read"]))
)]
pub(super) async fn entitlements(
    State(enforcer): State<Arc<Enforcer>>,
    caller: Caller,
    Path(key): Path<String>,
) -> Reply<Json<Entitlements>> {
    caller
        .require(Scope::Check)
        .or_else(|_| caller.require(Scope::Read))?;
    let directory = &enforcer.parts.directory;
    enforcer.known_customer(caller.tenant, &key)?;
    let mut data = Vec::new();
    let catalog = directory.catalog(caller.tenant);
    let decided =
        |feature: &&Feature| feature.kind != FeatureKind::Metered || meter_of(&catalog, feature).is_ok();
    for feature in catalog.features.values().map(AsRef::as_ref).filter(decided) {
        let asked = Asked {
            tenant: caller.tenant,
            customer: &key,
            feature: &feature.key,
            amount: Quantity::ZERO,
        };
        let outcome = enforcer.entitlement(asked).await?;
        if outcome.allowed() || outcome.described.is_some() {
            data.push(EntitlementAnswer {
                name: feature.name.clone(),
                kind: feature.kind,
                answer: QuotaAnswer::from(&outcome),
                grants: outcome.grants.iter().map(EntitlementGrant::from).collect(),
            });
        }
    }
    Ok(Json(Entitlements {
        data,
        next_cursor: None,
    }))
}
