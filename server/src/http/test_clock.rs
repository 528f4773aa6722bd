//! The clock of a test tenant: it stands still until it is moved forward, and all that falls due on the way is done.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use turnpike_domain::catalog::Tenant;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::invoice::RunFailure;
use turnpike_domain::limits::TEST_CLOCK_ADVANCE_DAYS_MAX;
use turnpike_domain::port::control::{AuditNote, Change, ControlState, Decision, Effect, Undone, answer_of};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Timestamp;
use turnpike_http::{Answered, Caller, Changing, JsonBody, ProblemBody, Reply};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::administration::Administration;

const DAY_US: i64 = 86_400_000_000;

pub(super) fn router() -> OpenApiRouter<Arc<Administration>> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(advance))
}

/// What a test tenant's clock shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
struct ClockView {
    /// Now.
    #[schema(value_type = String, format = DateTime)]
    now: Timestamp,
}

/// What moving the clock came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
struct Advanced {
    /// Now.
    #[schema(value_type = String, format = DateTime)]
    now: Timestamp,
    /// Number of subscriptions that fell due and could not be billed. They are tried again when the clock is moved next.
    failed: u64,
    /// Which, and why; the first 100.
    failures: Vec<RunFailure>,
}

/// Where to move the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Advance {
    /// An instant that is not before what the clock shows.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
}

/// Shows the clock of a test tenant.
#[utoipa::path(
    get, path = "/v1/test-clock", tag = "Tenants", operation_id = "get_test_clock",
    responses((status = 200, body = ClockView), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn show(State(administration): State<Arc<Administration>>, caller: Caller) -> Reply<Json<ClockView>> {
    caller.require(Scope::Read)?;
    Ok(Json(ClockView {
        now: administration.own_clock(caller.tenant)?.1,
    }))
}

/// Moves the clock of a test tenant forward. What falls due on the way is done at its instant, one behind the other,
/// before this answers. A subscription that cannot be billed does not stop the clock: the answer names it in `failures`.
/// When the call itself fails on the way, the clock stands where it failed, and the call can be made again.
#[utoipa::path(
    post, path = "/v1/test-clock/advance", tag = "Tenants", operation_id = "advance_test_clock",
    request_body = Advance,
    responses((status = 200, body = Advanced), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn advance(
    State(administration): State<Arc<Administration>>,
    changing: Changing,
    JsonBody(body): JsonBody<Advance>,
) -> Reply<Answered> {
    changing.require(Scope::Admin)?;
    let tenant = changing.tenant();
    let to = body.to;
    let lock = administration.advancing.of(tenant);
    let _alone = lock.lock().await;
    let (_, mut now) = administration.own_clock(tenant)?;
    if to > now.plus_micros(TEST_CLOCK_ADVANCE_DAYS_MAX * DAY_US) {
        let detail = format!("lies more than {TEST_CLOCK_ADVANCE_DAYS_MAX} days ahead: move in steps");
        return Err(Problem::invalid("/to", detail).into());
    }
    let change = changing.change(administration.clock.as_ref(), &body);
    let mut undone = Undone::default();
    if now <= to {
        // What failed at this instant in an earlier call comes before all that is later.
        undone = administration.run_due(tenant, now).await?;
    }
    while now < to {
        let next = administration.next_due(tenant, now).await?;
        now = next.map_or(to, |next| next.min(to));
        let step = Change {
            idempotency: None,
            ..change.clone()
        };
        administration.set_clock(step, now, None).await?;
        // What could not be done before is tried again here, so only what is left at last is told.
        undone = administration.run_due(tenant, now).await?;
    }
    Ok(administration.set_clock(change, to, Some(undone)).await?)
}

impl Administration {
    fn own_clock(&self, tenant: TenantId) -> Result<(Arc<Tenant>, Timestamp), Problem> {
        let found = self.directory.tenant(tenant);
        let found = found.and_then(|tenant| tenant.clock.filter(|_| tenant.test).map(|now| (tenant, now)));
        found.ok_or_else(|| {
            Problem::new(
                Code::NotFound,
                "this tenant has no clock of its own: it is no test tenant",
            )
        })
    }

    async fn next_due(&self, tenant: TenantId, after: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let mut next: Option<Timestamp> = None;
        for work in &self.due {
            let due = work.next_due(tenant, after).await?.filter(|due| *due > after);
            next = match (next, due) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(next)
    }

    async fn run_due(&self, tenant: TenantId, now: Timestamp) -> Result<Undone, Problem> {
        let mut all = Undone::default();
        for work in &self.due {
            let undone = work.run_due(tenant, now).await?;
            all.failed += undone.failed;
            all.failures.extend(undone.failures);
        }
        Ok(all)
    }

    /// Sets the clock. Only the last step of a call, which says what is left undone, is noted in the audit log.
    async fn set_clock(
        &self,
        change: Change,
        to: Timestamp,
        last: Option<Undone>,
    ) -> Result<Answered, Problem> {
        let tenant = change.tenant;
        let decide = move |state: &dyn ControlState| {
            let before = state
                .tenant(tenant)
                .ok_or_else(|| Problem::not_found("tenant", ""))?;
            if before.clock.is_some_and(|now| to < now) {
                return Err(Problem::invalid(
                    "/to",
                    "lies before what the clock shows: it only moves forward",
                ));
            }
            let after = Tenant {
                clock: Some(to),
                ..Tenant::clone(&before)
            };
            let Some(Undone { failed, failures }) = last else {
                return Ok(Decision {
                    effects: vec![Effect::Tenant(after)],
                    ..Decision::unchanged(Value::Null)
                });
            };
            let answer = answer_of(&Advanced {
                now: to,
                failed,
                failures,
            })?;
            let note = AuditNote::new("test_clock.advance", format!("tenant/{}", before.key))
                .with_detail(json!({ "to": to }));
            Ok(Decision::changed(vec![Effect::Tenant(after)], note, 200, answer))
        };
        Ok(Answered(self.store.change(change, Box::new(decide)).await?))
    }
}
