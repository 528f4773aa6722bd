//! Subscriptions over HTTP.

mod create;
mod steps;
mod view;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use turnpike_domain::catalog::Subscription;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::control::{
    AuditNote, ControlState, Decision, Effect, SubscriptionFilter, answer_of,
};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;
use turnpike_http::{
    Answered, Caller, Changing, JsonBody, MaybeJson, Page, PageQuery, Params, ProblemBody, Reply,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::Control;
pub use create::NewSubscription;
pub use steps::{CancelRequest, ChangeRequest};
pub use view::{ScheduledChange, SubscriptionView};

/// The routes of subscriptions.
pub(crate) fn router(control: Arc<Control>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get))
        .routes(routes!(change))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(reactivate))
        .with_state(control)
}

/// What is listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only those of one customer.
    customer: Option<String>,
}

/// Lists subscriptions, oldest first.
#[utoipa::path(
    get, path = "/v1/subscriptions", tag = "Subscriptions", operation_id = "list_subscriptions", params(PageQuery, ListQuery),
    responses((status = 200, body = Page<SubscriptionView>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    page: PageQuery,
    Params(query): Params<ListQuery>,
) -> Reply<Json<Page<SubscriptionView>>> {
    caller.require(Scope::Read)?;
    let filter = SubscriptionFilter {
        customer: query.customer,
    };
    let rows = control
        .store
        .list_subscriptions(caller.tenant, filter, page.with_one_more())
        .await?;
    let now = control.clock.now(caller.tenant);
    let rows = rows
        .iter()
        .map(|subscription| SubscriptionView::at(subscription, now))
        .collect();
    Ok(Json(page.cut(rows, |view: &SubscriptionView| view.id.clone())))
}

/// Subscribes a customer to a plan. A customer has one subscription at a time.
#[utoipa::path(
    post, path = "/v1/subscriptions", tag = "Subscriptions", operation_id = "create_subscription",
    request_body = NewSubscription,
    responses(
        (status = 201, body = SubscriptionView), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
    ),
    security(("api_key" = ["billing"]))
)]
async fn create(
    State(control): State<Arc<Control>>,
    changing: Changing,
    JsonBody(body): JsonBody<NewSubscription>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let at = control.at(&changing);
    let (asked, id) = (body.clone(), control.randomness.new_id());
    control
        .change(&changing, &asked, move |state| {
            create::decide(state, at, id, body)
        })
        .await
}

/// Shows a subscription.
#[utoipa::path(
    get, path = "/v1/subscriptions/{id}", tag = "Subscriptions", operation_id = "get_subscription",
    params(SubscriptionPath),
    responses((status = 200, body = SubscriptionView), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn get(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Reply<Json<SubscriptionView>> {
    caller.require(Scope::Read)?;
    let subscription = find(control.directory.as_ref(), caller.tenant, &id)?;
    Ok(Json(SubscriptionView::at(
        &subscription,
        control.clock.now(caller.tenant),
    )))
}

/// One subscription.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes a part of paths, is none")]
struct SubscriptionPath {
    /// The subscription's id.
    id: String,
}

/// What a step answers.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "describes answers, is none")]
enum Stepped {
    /// The subscription
    #[response(status = 200)]
    Done(SubscriptionView),
    /// There is no such subscription
    #[response(status = 404)]
    Unknown(ProblemBody),
    /// Where it stands does not allow it
    #[response(status = 409)]
    Illegal(ProblemBody),
}

/// Changes plan, version or add-ons at the end of the period. Before the start and in a trial, where nothing has been
/// charged, a change can take effect now. A later call replaces a change that waits.
#[utoipa::path(
    post, path = "/v1/subscriptions/{id}/change", tag = "Subscriptions", operation_id = "change_subscription",
    params(SubscriptionPath), request_body = ChangeRequest,
    responses(
        (status = 200, body = SubscriptionView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody),
    ),
    security(("api_key" = ["billing"]))
)]
async fn change(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ChangeRequest>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let asked = body.clone();
    step(
        &control,
        &changing,
        &asked,
        id,
        "subscription.change",
        move |state, tenant, subscription, now| {
            steps::change(&state.catalog(tenant), subscription, now, &body)
        },
    )
    .await
}

/// Pauses a subscription from now on: it entitles to nothing, and periods that begin in the pause have no recurring
/// prices. Usage goes on being counted and charged; boundaries stay.
#[utoipa::path(
    post, path = "/v1/subscriptions/{id}/pause", tag = "Subscriptions", operation_id = "pause_subscription",
    params(SubscriptionPath), responses(Stepped), security(("api_key" = ["billing"]))
)]
async fn pause(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(id): Path<String>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    step(
        &control,
        &changing,
        &(),
        id,
        "subscription.pause",
        |_, _, subscription, now| steps::pause(subscription, now),
    )
    .await
}

/// Resumes a paused subscription from now on.
#[utoipa::path(
    post, path = "/v1/subscriptions/{id}/resume", tag = "Subscriptions", operation_id = "resume_subscription",
    params(SubscriptionPath), responses(Stepped), security(("api_key" = ["billing"]))
)]
async fn resume(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(id): Path<String>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    step(
        &control,
        &changing,
        &(),
        id,
        "subscription.resume",
        |_, _, subscription, now| steps::resume(subscription, now),
    )
    .await
}

/// Cancels a subscription, at the end of its period unless said. What was charged in advance stays charged, and a change that
/// was to come with that end or later does not come.
#[utoipa::path(
    post, path = "/v1/subscriptions/{id}/cancel", tag = "Subscriptions", operation_id = "cancel_subscription",
    params(SubscriptionPath), request_body = Option<CancelRequest>,
    responses(Stepped), security(("api_key" = ["billing"]))
)]
async fn cancel(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(id): Path<String>,
    MaybeJson(body): MaybeJson<CancelRequest>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    step(
        &control,
        &changing,
        &body,
        id,
        "subscription.cancel",
        move |_, _, subscription, now| steps::cancel(subscription, now, body.at),
    )
    .await
}

/// Takes a cancellation back that has not taken effect. A change that it kept from coming is to come again.
#[utoipa::path(
    post, path = "/v1/subscriptions/{id}/reactivate", tag = "Subscriptions", operation_id = "reactivate_subscription",
    params(SubscriptionPath), responses(Stepped), security(("api_key" = ["billing"]))
)]
async fn reactivate(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(id): Path<String>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    step(
        &control,
        &changing,
        &(),
        id,
        "subscription.reactivate",
        |state, tenant, subscription, now| {
            steps::reactivate(subscription, now)?;
            create::check_alone(state, tenant, subscription)
        },
    )
    .await
}

/// Takes a step of a subscription: `change` alters it or refuses.
async fn step<B: serde::Serialize>(
    control: &Control,
    changing: &Changing,
    body: &B,
    id: String,
    action: &'static str,
    change: impl FnOnce(&dyn ControlState, TenantId, &mut Subscription, Timestamp) -> Result<(), Problem>
    + Send
    + 'static,
) -> Reply<Answered> {
    let (tenant, now) = control.at(changing);
    let decide = move |state: &dyn ControlState| {
        let before = find(state, tenant, &id)?;
        let mut after = Subscription::clone(&before);
        change(state, tenant, &mut after, now)?;
        let answer = answer_of(&SubscriptionView::at(&after, now))?;
        if *before == after {
            return Ok(Decision::unchanged(answer));
        }
        let note = AuditNote::new(action, format!("subscription/{id}"));
        Ok(Decision::changed(
            vec![Effect::Subscription(after)],
            note,
            200,
            answer,
        ))
    };
    control.change(changing, body, decide).await
}

fn find(directory: &dyn Directory, tenant: TenantId, id: &str) -> Result<Arc<Subscription>, Problem> {
    directory
        .subscription(tenant, id)
        .ok_or_else(|| Problem::not_found("subscription", id))
}
