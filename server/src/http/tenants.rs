//! Tenants: made, listed, limited and suspended by the tenant `default`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use turnpike_domain::catalog::{ApiKey, Findings, Tenant, field_changes};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::limits::CALLS_PER_SECOND_MAX;
use turnpike_domain::port::control::{AuditNote, ControlState, Decision, Effect, answer_of};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Timestamp, Zone};
use turnpike_http::{Answered, Caller, Changing, JsonBody, Page, PageQuery, ProblemBody, Reply};
use turnpike_stores::sql::NewKey;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::administration::{Administration, require_administrator};

pub(super) fn router() -> OpenApiRouter<Arc<Administration>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, put))
        .routes(routes!(suspend))
        .routes(routes!(resume))
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
struct TenantView {
    /// Its key.
    key: String,
    /// Its name for people.
    name: String,
    /// Whether it has its own clock.
    test: bool,
    /// What its own clock shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    clock: Option<Timestamp>,
    /// Whether its calls are refused.
    suspended: bool,
    /// Its IANA time zone.
    timezone: String,
    /// Calls per second at the most; null: no limit of its own.
    calls_per_second: Option<u32>,
    /// An admin key of it, shown once, when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
}

impl TenantView {
    fn of(tenant: &Tenant) -> Self {
        Self {
            key: tenant.key.clone(),
            name: tenant.name.clone(),
            test: tenant.test,
            clock: tenant.clock,
            suspended: tenant.suspended,
            timezone: tenant.timezone.clone(),
            calls_per_second: tenant.calls_per_second,
            api_key: None,
        }
    }
}

/// A tenant to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTenant {
    /// Its key.
    key: String,
    /// Its name for people; the key unless said.
    #[serde(default)]
    name: String,
    /// Whether it has its own clock, which stands still until it is moved.
    #[serde(default)]
    test: bool,
    /// What its own clock shows at first; now unless said.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    clock: Option<Timestamp>,
    /// Its IANA time zone; UTC unless said.
    #[serde(default)]
    timezone: Option<String>,
    /// Calls per second at the most; no limit of its own unless said.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000)]
    calls_per_second: Option<u32>,
}

/// What can be changed of a tenant. What is left out gets its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct TenantChange {
    /// Its key; optional, for the path has it.
    #[serde(default)]
    key: String,
    /// Its name for people; the key unless said.
    #[serde(default)]
    name: String,
    /// Its IANA time zone; UTC unless said.
    #[serde(default)]
    timezone: Option<String>,
    /// Calls per second at the most; no limit of its own unless said.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000)]
    calls_per_second: Option<u32>,
    /// Optional, as an answer has it: whether it has its own clock never changes.
    #[serde(default)]
    test: Option<bool>,
    /// Optional, as an answer has it: its own clock is moved with `POST /v1/test-clock/advance`.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    clock: Option<Timestamp>,
    /// Optional, as an answer has it: a tenant is suspended and resumed with calls of their own.
    #[serde(default)]
    suspended: Option<bool>,
}

impl TenantChange {
    /// What is sent of `tenant` that this call does not change.
    fn check_fixed(&self, tenant: &Tenant, findings: &mut Findings) {
        if self.test.is_some_and(|test| test != tenant.test) {
            findings.add("/test", "never changes: make another tenant");
        }
        if self.clock.is_some() && self.clock != tenant.clock {
            findings.add("/clock", "is moved with POST /v1/test-clock/advance");
        }
        if self
            .suspended
            .is_some_and(|suspended| suspended != tenant.suspended)
        {
            findings.add(
                "/suspended",
                "is changed with POST /v1/tenants/{key}/suspend and /resume",
            );
        }
    }
}

/// Lists tenants in the order of their keys.
#[utoipa::path(
    get, path = "/v1/tenants", tag = "Tenants", operation_id = "list_tenants", params(PageQuery),
    responses((status = 200, body = Page<TenantView>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn list(
    State(administration): State<Arc<Administration>>,
    caller: Caller,
    page: PageQuery,
) -> Reply<Json<Page<TenantView>>> {
    require_administrator(&caller)?;
    let after = page.after().unwrap_or_default();
    let mut rows: Vec<_> = administration
        .directory
        .tenants()
        .iter()
        .map(|tenant| TenantView::of(tenant))
        .collect();
    rows.retain(|tenant| tenant.key.as_str() > after);
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Json(page.cut(rows, |tenant| tenant.key.clone())))
}

/// Makes a tenant with an admin key, which is shown this once.
#[utoipa::path(
    post, path = "/v1/tenants", tag = "Tenants", operation_id = "create_tenant", request_body = NewTenant,
    responses((status = 201, body = TenantView), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn create(
    State(administration): State<Arc<Administration>>,
    changing: Changing,
    JsonBody(body): JsonBody<NewTenant>,
) -> Reply<Answered> {
    require_administrator(&changing.caller)?;
    let key = NewKey::make(administration.randomness.as_ref());
    let now = administration.clock.machine_now();
    let asked = body.clone();
    administration
        .change(&changing, &asked, move |state| {
            decide_create(state, body, &key, now)
        })
        .await
}

fn decide_create(
    state: &dyn ControlState,
    asked: NewTenant,
    key: &NewKey,
    now: Timestamp,
) -> Result<Decision, Problem> {
    let mut findings = Findings::default();
    findings.key("/key", &asked.key);
    check(
        &asked.name,
        asked.timezone.as_deref(),
        asked.calls_per_second,
        &mut findings,
    );
    if asked.clock.is_some() && !asked.test {
        findings.add("/clock", "belongs to test tenants only");
    }
    findings.into_result()?;
    if state.tenant_by_key(&asked.key).is_some() {
        return Err(Problem::new(
            Code::AlreadyExists,
            format!("there is a tenant \"{}\"", asked.key),
        ));
    }
    let tenant = Tenant {
        id: state.next_tenant_id(),
        name: named(asked.name, &asked.key),
        key: asked.key,
        test: asked.test,
        clock: asked.test.then(|| asked.clock.unwrap_or(now)),
        suspended: false,
        timezone: asked.timezone.unwrap_or_else(|| "UTC".to_owned()),
        calls_per_second: asked.calls_per_second,
    };
    let admin = ApiKey {
        id: key.id.clone(),
        tenant: tenant.id,
        name: "first admin key".to_owned(),
        hash: key.hash,
        scopes: [Scope::Admin].into(),
        created: now,
        expires: None,
        revoked: None,
        replaced_by: None,
        calls_per_second: None,
    };
    let mut view = TenantView::of(&tenant);
    // A repeat of the call is answered without the key: only its hash is kept.
    let kept_answer = Some(answer_of(&view)?);
    view.api_key = Some(key.text.clone());
    let note = AuditNote::new("tenant.create", format!("tenant/{}", tenant.key))
        .with_detail(json!({ "test": tenant.test }));
    let effects = vec![Effect::Tenant(tenant), Effect::ApiKey(admin)];
    Ok(Decision {
        kept_answer,
        ..Decision::changed(effects, note, 201, answer_of(&view)?)
    })
}

fn check(name: &str, timezone: Option<&str>, calls_per_second: Option<u32>, findings: &mut Findings) {
    findings.text("/name", name);
    if let Some(Err(error)) = timezone.map(Zone::parse) {
        findings.add("/timezone", error.to_string());
    }
    check_rate(calls_per_second, findings);
}

pub(super) fn check_rate(calls_per_second: Option<u32>, findings: &mut Findings) {
    if calls_per_second.is_some_and(|calls| !(1..=CALLS_PER_SECOND_MAX).contains(&calls)) {
        findings.add(
            "/calls_per_second",
            format!("must be 1 to {CALLS_PER_SECOND_MAX}"),
        );
    }
}

fn named(name: String, key: &str) -> String {
    if name.is_empty() { key.to_owned() } else { name }
}

/// Shows a tenant.
#[utoipa::path(
    get, path = "/v1/tenants/{key}", tag = "Tenants", operation_id = "get_tenant", params(("key" = String, Path)),
    responses((status = 200, body = TenantView), (status = 404, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn get(
    State(administration): State<Arc<Administration>>,
    caller: Caller,
    Path(key): Path<String>,
) -> Reply<Json<TenantView>> {
    require_administrator(&caller)?;
    Ok(Json(TenantView::of(&*administration.tenant(&key)?)))
}

/// Changes a tenant's name, time zone and limit. Whether it has its own clock never changes. What an answer shows can be sent
/// as it is; what this call does not change must be as it stands.
#[utoipa::path(
    put, path = "/v1/tenants/{key}", tag = "Tenants", operation_id = "put_tenant", params(("key" = String, Path)),
    request_body = TenantChange,
    responses((status = 200, body = TenantView), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn put(
    State(administration): State<Arc<Administration>>,
    changing: Changing,
    Path(key): Path<String>,
    JsonBody(body): JsonBody<TenantChange>,
) -> Reply<Answered> {
    require_administrator(&changing.caller)?;
    if !body.key.is_empty() && body.key != key {
        return Err(Problem::invalid(
            "/key",
            format!("is \"{}\", but the path says \"{key}\"", body.key),
        )
        .into());
    }
    let asked = body.clone();
    administration
        .change(&changing, &asked, move |state| {
            let mut findings = Findings::default();
            check(
                &body.name,
                body.timezone.as_deref(),
                body.calls_per_second,
                &mut findings,
            );
            if let Some(tenant) = state.tenant_by_key(&key) {
                body.check_fixed(&tenant, &mut findings);
            }
            findings.into_result()?;
            alter(state, &key, "tenant.put", |tenant| {
                tenant.name = named(body.name, &tenant.key);
                tenant.timezone = body.timezone.unwrap_or_else(|| "UTC".to_owned());
                tenant.calls_per_second = body.calls_per_second;
            })
        })
        .await
}

/// Suspends a tenant: its calls are refused, its data stays.
#[utoipa::path(
    post, path = "/v1/tenants/{key}/suspend", tag = "Tenants", operation_id = "suspend_tenant",
    params(("key" = String, Path)),
    responses((status = 200, body = TenantView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn suspend(
    State(administration): State<Arc<Administration>>,
    changing: Changing,
    Path(key): Path<String>,
) -> Reply<Answered> {
    require_administrator(&changing.caller)?;
    administration
        .change(&changing, &(), move |state| {
            let is_default = state
                .tenant_by_key(&key)
                .is_some_and(|tenant| tenant.id == TenantId::DEFAULT);
            if is_default {
                let detail = "the tenant \"default\" administers the others and cannot be suspended";
                return Err(Problem::new(Code::IllegalTransition, detail));
            }
            alter(state, &key, "tenant.suspend", |tenant| tenant.suspended = true)
        })
        .await
}

/// Takes the calls of a suspended tenant again.
#[utoipa::path(
    post, path = "/v1/tenants/{key}/resume", tag = "Tenants", operation_id = "resume_tenant",
    params(("key" = String, Path)),
    responses((status = 200, body = TenantView), (status = 404, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn resume(
    State(administration): State<Arc<Administration>>,
    changing: Changing,
    Path(key): Path<String>,
) -> Reply<Answered> {
    require_administrator(&changing.caller)?;
    administration
        .change(&changing, &(), move |state| {
            alter(state, &key, "tenant.resume", |tenant| tenant.suspended = false)
        })
        .await
}

/// Decides a change of a tenant that is there.
fn alter(
    state: &dyn ControlState,
    key: &str,
    action: &'static str,
    change: impl FnOnce(&mut Tenant),
) -> Result<Decision, Problem> {
    let before = state
        .tenant_by_key(key)
        .ok_or_else(|| Problem::not_found("tenant", key))?;
    let mut after = Tenant::clone(&before);
    change(&mut after);
    let answer = answer_of(&TenantView::of(&after))?;
    if *before == after {
        return Ok(Decision::unchanged(answer));
    }
    let changes = field_changes(&answer_of(&TenantView::of(&before))?, &answer);
    let fields: Vec<Value> = changes.into_iter().map(|change| change.pointer.into()).collect();
    let note = AuditNote::new(action, format!("tenant/{key}")).with_detail(json!({ "fields": fields }));
    Ok(Decision::changed(vec![Effect::Tenant(after)], note, 200, answer))
}
