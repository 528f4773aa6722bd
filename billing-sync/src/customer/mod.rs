//! Customers, their overrides and their grants over HTTP.

mod grants;
mod overrides;
mod own;
mod rules;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use turnpike_domain::catalog::Customer;
use turnpike_domain::identity::Scope;
use turnpike_http::{Answered, Caller, Changing, JsonBody, Page, PageQuery, ProblemBody, Reply};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::{Control, agree};

/// The routes of customers.
pub(crate) fn router(control: Arc<Control>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put, remove))
        .merge(overrides::router())
        .merge(grants::router())
        .with_state(control)
}

/// Lists customers in the order of their keys.
#[utoipa::path(
    get, path = "/v1/customers", tag = "Customers", operation_id = "list_customers", params(PageQuery),
    responses((status = 200, body = Page<Customer>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    page: PageQuery,
) -> Reply<Json<Page<Customer>>> {
    caller.require(Scope::Read)?;
    let rows = control
        .store
        .list_customers(caller.tenant, page.with_one_more())
        .await?;
    let rows = rows.into_iter().map(Arc::unwrap_or_clone).collect();
    Ok(Json(page.cut(rows, |customer: &Customer| customer.key.clone())))
}

/// Shows a customer.
#[utoipa::path(
    get, path = "/v1/customers/{key}", tag = "Customers", operation_id = "get_customer", params(("key" = String, Path)),
    responses((status = 200, body = Customer), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn get(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(key): Path<String>,
) -> Reply<Json<Customer>> {
    caller.require(Scope::Read)?;
    Ok(Json(Customer::clone(&*control.customer(caller.tenant, &key)?)))
}

/// Puts a customer. Its subjects' events are its own from the beginning of time. A move is cut to its minute: a new parent
/// counts what is timed from then on, the one before keeps what was timed before.
#[utoipa::path(
    put, path = "/v1/customers/{key}", tag = "Customers", operation_id = "put_customer", params(("key" = String, Path)),
    request_body = Customer,
    responses(
        (status = 200, body = Customer), (status = 201, body = Customer),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
    ),
    security(("api_key" = ["billing"]))
)]
async fn put(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
    JsonBody(mut body): JsonBody<Customer>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    agree("/key", &key, &mut body.key)?;
    let at = control.at(&changing);
    let asked = body.clone();
    control
        .change(&changing, &asked, move |state| rules::put(state, at, body))
        .await
}

/// Erases a customer. One that had subscriptions, a parent or children keeps its key, subjects, usage and invoices and
/// loses all personal data but name and email on invoices that are final; another is gone altogether. Refused while a subscription runs or another customer has it as its parent.
#[utoipa::path(
    delete, path = "/v1/customers/{key}", tag = "Customers", operation_id = "delete_customer",
    params(("key" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)),
    security(("api_key" = ["billing"]))
)]
async fn remove(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let at = control.at(&changing);
    control
        .change(&changing, &(), move |state| rules::remove(state, at, &key))
        .await
}
