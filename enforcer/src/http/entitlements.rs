use std::ops::Bound;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use turnpike_domain::catalog::{Feature, FeatureKind};
use turnpike_domain::identity::Scope;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::Timestamp;
use turnpike_http::{Caller, Page, PageQuery, ProblemBody, Reply};

use super::answer::QuotaAnswer;
use crate::Enforcer;
use crate::consume::Asked;
use crate::outcome::GrantOutcome;
use crate::resolve::meter_of;

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

/// What a customer is entitled to now, with values, limits and usage: a row for each feature that it has, in the order of
/// their keys.
///
/// A metered feature whose meter is neither a sum nor a count is left out: nothing can be decided about it.
#[utoipa::path(
    get, path = "/v1/customers/{key}/entitlements", tag = "Quotas",
    params(("key" = String, Path, description = "The customer"), PageQuery),
    responses(
        (status = 200, description = "Its entitlements", body = Page<EntitlementAnswer>),
        (status = 404, description = "No such customer", body = ProblemBody),
    ),
    security(("api_key" = ["check", "read"]))
)]
pub(super) async fn entitlements(
    State(enforcer): State<Arc<Enforcer>>,
    caller: Caller,
    Path(key): Path<String>,
    page: PageQuery,
) -> Reply<Json<Page<EntitlementAnswer>>> {
    caller
        .require(Scope::Check)
        .or_else(|_| caller.require(Scope::Read))?;
    let directory = &enforcer.parts.directory;
    enforcer.known_customer(caller.tenant, &key)?;
    let mut data = Vec::new();
    let catalog = directory.catalog(caller.tenant);
    let decided =
        |feature: &&Feature| feature.kind != FeatureKind::Metered || meter_of(&catalog, feature).is_ok();
    let begin = page.after().map_or(Bound::Unbounded, Bound::Excluded);
    let features = catalog.features.range::<str, _>((begin, Bound::Unbounded));
    for feature in features.map(|(_, feature)| feature.as_ref()).filter(decided) {
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
        if data.len() > page.rows() {
            break;
        }
    }
    Ok(Json(page.cut(data, |row| row.answer.feature.clone())))
}
