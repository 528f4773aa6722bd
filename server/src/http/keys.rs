//! API keys: made and shown once, rotated with a time of grace, revoked.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use turnpike_domain::catalog::{ApiKey, Findings};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::limits::KEY_GRACE_DAYS_MAX;
use turnpike_domain::port::control::{AuditNote, ControlState, Decision, Effect, answer_of};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Timestamp;
use turnpike_http::{
    Answered, Caller, Changing, JsonBody, MaybeJson, Page, PageQuery, Params, ProblemBody, Reply,
};
use turnpike_stores::sql::NewKey;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::administration::Administration;
use super::tenants::check_rate;

const DAY_S: u32 = 86_400;

pub(super) fn router() -> OpenApiRouter<Arc<Administration>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, revoke))
        .routes(routes!(rotate))
}

/// An API key. Its text is never kept: it is shown once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
struct KeyView {
    /// Its id.
    id: String,
    /// Its name for people.
    name: String,
    /// What it may do.
    scopes: BTreeSet<Scope>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created: Timestamp,
    /// When it ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires: Option<Timestamp>,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked: Option<Timestamp>,
    /// The id of the key that was made in its place, where it was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced_by: Option<String>,
    /// Calls per second at the most; null: no limit of its own.
    calls_per_second: Option<u32>,
    /// The key itself, shown this once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The key in whose place it was made, which goes on until `replaced_until`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
    /// When the key in whose place it was made ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    replaced_until: Option<Timestamp>,
}

impl KeyView {
    fn of(key: &ApiKey) -> Self {
        Self {
            id: key.id.clone(),
            name: key.name.clone(),
            scopes: key.scopes.clone(),
            created: key.created,
            expires: key.expires,
            revoked: key.revoked,
            replaced_by: key.replaced_by.clone(),
            calls_per_second: key.calls_per_second,
            key: None,
            replaces: None,
            replaced_until: None,
        }
    }
}

/// A key to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewApiKey {
    /// Its name for people.
    #[serde(default)]
    name: String,
    /// What it may do; at least one.
    #[schema(min_items = 1)]
    scopes: BTreeSet<Scope>,
    /// When it ends; never unless said.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires: Option<Timestamp>,
    /// Calls per second at the most; no limit of its own unless said.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000)]
    calls_per_second: Option<u32>,
    /// The tenant's key; the caller's own unless said. Only the tenant `default` can name another.
    #[serde(default)]
    tenant: Option<String>,
}

/// How a key is rotated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// Seconds for which the old key goes on; a day unless said.
    #[serde(default)]
    #[schema(maximum = 2_592_000)]
    grace_s: Option<u32>,
}

/// What is listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// The tenant's key; the caller's own unless said. Only the tenant `default` can name another.
    tenant: Option<String>,
}

/// Lists keys, oldest first, the revoked ones included.
#[utoipa::path(
    get, path = "/v1/keys", tag = "Keys", operation_id = "list_keys", params(PageQuery, ListQuery),
    responses((status = 200, body = Page<KeyView>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn list(
    State(administration): State<Arc<Administration>>,
    caller: Caller,
    page: PageQuery,
    Params(query): Params<ListQuery>,
) -> Reply<Json<Page<KeyView>>> {
    caller.require(Scope::Admin)?;
    let tenant = administration.tenant_named(&caller, query.tenant.as_deref())?;
    let keys = administration.keys.keys(tenant.id);
    let from = match page.after() {
        None => 0,
        // Keys are never taken away, so the row of a cursor stays where it is.
        Some(cursor) => keys
            .iter()
            .position(|key| key.id == cursor)
            .map(|at| at + 1)
            .ok_or_else(|| Problem::invalid("/cursor", "is not a next_cursor of this list"))?,
    };
    let rows = keys
        .iter()
        .skip(from)
        .take(page.rows() + 1)
        .map(|key| KeyView::of(key))
        .collect();
    Ok(Json(page.cut(rows, |key: &KeyView| key.id.clone())))
}

/// Makes a key. Its text is shown this once.
#[utoipa::path(
    post, path = "/v1/keys", tag = "Keys", operation_id = "create_key", request_body = NewApiKey,
    responses((status = 201, body = KeyView), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn create(
    State(administration): State<Arc<Administration>>,
    changing: Changing,
    JsonBody(body): JsonBody<NewApiKey>,
) -> Reply<Answered> {
    changing.require(Scope::Admin)?;
    let tenant = administration.tenant_named(&changing.caller, body.tenant.as_deref())?;
    let made = NewKey::make(administration.randomness.as_ref());
    let now = administration.clock.machine_now();
    let asked = body.clone();
    administration
        .change(&changing, &asked, move |_| {
            decide_create(tenant.id, body, &made, now)
        })
        .await
}

fn decide_create(
    tenant: TenantId,
    asked: NewApiKey,
    made: &NewKey,
    now: Timestamp,
) -> Result<Decision, Problem> {
    let mut findings = Findings::default();
    findings.text("/name", &asked.name);
    check_rate(asked.calls_per_second, &mut findings);
    if asked.scopes.is_empty() {
        findings.add(
            "/scopes",
            "must name at least one of ingest, check, read, billing, admin",
        );
    }
    if asked.expires.is_some_and(|expires| expires <= now) {
        findings.add("/expires", "lies in the past");
    }
    findings.into_result()?;
    let key = ApiKey {
        id: made.id.clone(),
        tenant,
        name: asked.name,
        hash: made.hash,
        scopes: asked.scopes,
        created: now,
        expires: asked.expires,
        revoked: None,
        replaced_by: None,
        calls_per_second: asked.calls_per_second,
    };
    let view = KeyView::of(&key);
    let note =
        AuditNote::new("key.create", format!("key/{}", key.id)).with_detail(json!({ "scopes": key.scopes }));
    shown_once(vec![Effect::ApiKey(key)], note, view, made)
}

/// A decision whose answer shows the new key's text, which is not kept.
fn shown_once(
    effects: Vec<Effect>,
    note: AuditNote,
    mut view: KeyView,
    made: &NewKey,
) -> Result<Decision, Problem> {
    let kept_answer = Some(answer_of(&view)?);
    view.key = Some(made.text.clone());
    Ok(Decision {
        kept_answer,
        ..Decision::changed(effects, note, 201, answer_of(&view)?)
    })
}

/// Shows a key, but not its text.
#[utoipa::path(
    get, path = "/v1/keys/{id}", tag = "Keys", operation_id = "get_key", params(("id" = String, Path)),
    responses((status = 200, body = KeyView), (status = 404, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn get(
    State(administration): State<Arc<Administration>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Reply<Json<KeyView>> {
    caller.require(Scope::Admin)?;
    let key = administration
        .keys
        .key(caller.tenant, &id)
        .ok_or_else(|| Problem::not_found("key", &id))?;
    Ok(Json(KeyView::of(&key)))
}

/// Makes a key in the place of another, which goes on for a time of grace. A key is rotated once: where the answer was lost, and
/// with it the text of the new key, rotate that one, which is `replaced_by` of the old one, while the old one goes on.
#[utoipa::path(
    post, path = "/v1/keys/{id}/rotate", tag = "Keys", operation_id = "rotate_key", params(("id" = String, Path)),
    request_body = Option<Rotation>,
    responses(
        (status = 201, body = KeyView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody),
    ),
    security(("api_key" = ["admin"]))
)]
async fn rotate(
    State(administration): State<Arc<Administration>>,
    changing: Changing,
    Path(id): Path<String>,
    MaybeJson(body): MaybeJson<Rotation>,
) -> Reply<Answered> {
    changing.require(Scope::Admin)?;
    let grace_s = body.grace_s.unwrap_or(DAY_S);
    if grace_s > KEY_GRACE_DAYS_MAX * DAY_S {
        let detail = format!("must be at most {} seconds", KEY_GRACE_DAYS_MAX * DAY_S);
        return Err(Problem::invalid("/grace_s", detail).into());
    }
    let (tenant, now) = (changing.tenant(), administration.clock.machine_now());
    let made = NewKey::make(administration.randomness.as_ref());
    let grace_end = now.plus_micros(i64::from(grace_s) * 1_000_000);
    administration
        .change(&changing, &body, move |state| {
            let old = valid_key(state, tenant, &id, now)?;
            if let Some(next) = &old.replaced_by {
                let detail =
                    format!("key {id} was rotated before: rotate {next}, which was made in its place");
                return Err(Problem::new(Code::IllegalTransition, detail));
            }
            let until = old.expires.map_or(grace_end, |expires| expires.min(grace_end));
            let new = ApiKey {
                id: made.id.clone(),
                hash: made.hash,
                created: now,
                ..old.clone()
            };
            let view = KeyView {
                replaces: Some(id),
                replaced_until: Some(until),
                ..KeyView::of(&new)
            };
            let note = AuditNote::new("key.rotate", format!("key/{}", old.id))
                .with_detail(json!({ "new": new.id, "until": until }));
            let old = ApiKey {
                expires: Some(until),
                replaced_by: Some(new.id.clone()),
                ..old
            };
            shown_once(vec![Effect::ApiKey(old), Effect::ApiKey(new)], note, view, &made)
        })
        .await
}

/// Revokes a key: it opens nothing from now on.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "Keys", operation_id = "revoke_key", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn revoke(
    State(administration): State<Arc<Administration>>,
    changing: Changing,
    Path(id): Path<String>,
) -> Reply<Answered> {
    changing.require(Scope::Admin)?;
    let (tenant, now) = (changing.tenant(), administration.clock.machine_now());
    let others = administration.keys.keys(tenant);
    administration
        .change(&changing, &(), move |state| {
            let key = valid_key(state, tenant, &id, now)?;
            // Read again here: another call may have revoked one of them.
            let opens = |other: &ApiKey| {
                other.id != id
                    && other.scopes.contains(&Scope::Admin)
                    && other.expires.is_none()
                    && state
                        .api_key(&other.id)
                        .is_some_and(|other| other.revoked.is_none())
            };
            if key.scopes.contains(&Scope::Admin) && !others.iter().any(|other| opens(other)) {
                let detail = "is the last admin key of its tenant that does not end: make another first";
                return Err(Problem::new(Code::InUse, format!("key {id} {detail}")));
            }
            let note = AuditNote::new("key.revoke", format!("key/{id}"));
            let revoked = ApiKey {
                revoked: Some(now),
                ..key
            };
            Ok(Decision::changed(
                vec![Effect::ApiKey(revoked)],
                note,
                204,
                Value::Null,
            ))
        })
        .await
}

/// A key of the tenant that has not ended.
fn valid_key(
    state: &dyn ControlState,
    tenant: TenantId,
    id: &str,
    now: Timestamp,
) -> Result<ApiKey, Problem> {
    let key = state.api_key(id).filter(|key| key.tenant == tenant);
    let key = key.ok_or_else(|| Problem::not_found("key", id))?;
    if key.revoked.is_some() || key.expires.is_some_and(|expires| expires <= now) {
        return Err(Problem::new(
            Code::IllegalTransition,
            format!("key {id} has ended"),
        ));
    }
    Ok(ApiKey::clone(&key))
}
