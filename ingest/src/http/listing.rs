//! `GET /v1/events`.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::history::EventQuery;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{TimeRange, Timestamp};
use turnpike_http::{Caller, Page, PageQuery, Params, ProblemBody, Reply};

use super::view::EventBody;
use crate::IngestState;

/// Which events to show.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only events of this customer's subjects, as in usage: a subject that is no customer's is its own customer, and where
    /// there is neither there are no events.
    customer: Option<String>,
    /// Only this subject.
    subject: Option<String>,
    /// Only this type.
    r#type: Option<String>,
    /// Only this source.
    source: Option<String>,
    /// Only this id. With `source` the event is looked up directly.
    id: Option<String>,
    /// Only events that count for this time or a later one.
    #[param(value_type = Option<String>, format = DateTime)]
    #[serde(default, deserialize_with = "turnpike_http::optional_time")]
    from: Option<Timestamp>,
    /// Only events that count for a time before this.
    #[param(value_type = Option<String>, format = DateTime)]
    #[serde(default, deserialize_with = "turnpike_http::optional_time")]
    to: Option<Timestamp>,
}

/// List events.
///
/// Accepted events as they count now, the one accepted last first; an amended or voided one keeps its place. Only one whose time
/// was moved into the range of `from` and `to` from outside stands where that amendment was accepted, among the events
/// accepted around it, and keeps that place. A page has as many events as `limit` says as long as there are any, but ends after 8 MiB of data, and after looking through 512 MiB of events
/// that are not asked for: such a page has fewer events, perhaps none, and a `next_cursor` that looks on. Narrow it with `from`
/// and `to`, or name `source` and `id`.
#[utoipa::path(
    get, path = "/v1/events", tag = "Events", params(PageQuery, ListQuery),
    responses(
        (status = 200, body = Page<EventBody>, description = "A page of events"),
        (status = 422, body = ProblemBody, description = "A parameter is invalid"),
        (status = 503, body = ProblemBody, description = "Too many readings are under way: try again later"),
    ),
    security(("api_key" = ["read"])),
)]
pub(crate) async fn list(
    State(state): State<IngestState>,
    caller: Caller,
    page: PageQuery,
    Params(query): Params<ListQuery>,
) -> Reply<Json<Page<EventBody>>> {
    caller.require(Scope::Read)?;
    let query = query.resolve(&state, caller.tenant, &page)?;
    let found = state.history.events(caller.tenant, query).await?;
    let data = found
        .events
        .into_iter()
        .map(EventBody::of)
        .collect::<Result<_, _>>()?;
    Ok(Json(page.page(data, found.next_cursor)))
}

impl ListQuery {
    fn resolve(self, state: &IngestState, tenant: TenantId, page: &PageQuery) -> Result<EventQuery, Problem> {
        for (name, value) in [
            ("customer", &self.customer),
            ("subject", &self.subject),
            ("type", &self.r#type),
            ("source", &self.source),
            ("id", &self.id),
        ] {
            if value.as_deref() == Some("") {
                let detail = "is empty: give it a value or leave it out";
                return Err(Problem::invalid(format!("/{name}"), detail));
            }
        }
        let range = TimeRange::new(
            self.from.unwrap_or(Timestamp::EPOCH),
            self.to.unwrap_or(Timestamp::MAX),
        );
        if range.start > range.end {
            return Err(Problem::invalid("/from", "lies behind to"));
        }
        let subjects = match (&self.customer, self.subject) {
            (None, subject) => subject.map(|subject| vec![subject]),
            (Some(customer), subject) => {
                let mut subjects = state.directory.subjects_read_as(tenant, customer);
                subjects.retain(|one| subject.as_ref().is_none_or(|subject| one == subject));
                Some(subjects)
            }
        };
        Ok(EventQuery {
            subjects,
            kind: self.r#type,
            range,
            source: self.source,
            id: self.id,
            limit: page.rows(),
            cursor: page.after().map(str::to_owned),
        })
    }
}
