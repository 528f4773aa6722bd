use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use turnpike_domain::identity::{EventName, Scope};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::Timestamp;
use turnpike_http::{Caller, Page, PageQuery, Params, ProblemBody, Reply};

use crate::Enforcer;
use crate::reservations::Reservation;

/// Which reservations are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ReservationFilter {
    /// Only those of this customer.
    customer: Option<String>,
    /// Only those of this feature.
    feature: Option<String>,
}

impl ReservationFilter {
    fn wants(&self, one: &Reservation) -> bool {
        let is = |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|wanted| wanted == own);
        is(&self.customer, &one.customer) && is(&self.feature, &one.feature)
    }
}

/// A reservation that holds its amount.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct OpenReservation {
    /// Its id.
    id: String,
    /// The customer's key.
    customer: String,
    /// The feature's key.
    feature: String,
    /// How much is held.
    #[schema(value_type = String)]
    amount: Quantity,
    /// The other data of the event that its commit becomes.
    #[schema(value_type = Object)]
    properties: Box<RawValue>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    made_at: Timestamp,
    /// When it ends unless it is committed or released before.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

impl TryFrom<&Reservation> for OpenReservation {
    type Error = Problem;

    fn try_from(one: &Reservation) -> Result<Self, Problem> {
        let properties = if one.properties.is_empty() {
            "{}"
        } else {
            &one.properties
        };
        let unreadable = |error| {
            Problem::new(
                Code::Internal,
                format!("the properties of a reservation are no JSON: {error}"),
            )
        };
        Ok(Self {
            id: one.id.clone(),
            customer: one.customer.clone(),
            feature: one.feature.clone(),
            amount: one.amount,
            properties: RawValue::from_string(properties.to_owned()).map_err(unreadable)?,
            made_at: one.made,
            expires_at: one.expires,
        })
    }
}

/// Lists reservations that are open, those that end first before the others.
#[utoipa::path(
    get, path = "/v1/quota/reservations", tag = "Quotas", params(PageQuery, ReservationFilter),
    responses(
        (status = 200, description = "The open reservations", body = Page<OpenReservation>),
        (status = 422, description = "A parameter is invalid", body = ProblemBody),
    ),
    security(("api_key" = ["check", "read"]))
)]
pub(super) async fn list_reservations(
    State(enforcer): State<Arc<Enforcer>>,
    caller: Caller,
    page: PageQuery,
    Params(filter): Params<ReservationFilter>,
) -> Reply<Json<Page<OpenReservation>>> {
    caller
        .require(Scope::Check)
        .or_else(|_| caller.require(Scope::Read))?;
    let after = page.after().map(read_place).transpose()?;
    let wants = |one: &Reservation| filter.wants(one);
    let found = enforcer.open_reservations(caller.tenant, after, &wants, page.rows() + 1);
    let Page { data, next_cursor } = page.cut(found, |last| place(last));
    let data = data.iter().map(|one| OpenReservation::try_from(&**one));
    Ok(Json(Page {
        data: data.collect::<Result<_, _>>()?,
        next_cursor,
    }))
}

/// Where a reservation stands in the list.
fn place(one: &Reservation) -> String {
    format!("{} {:x}", one.expires.micros(), one.name.0)
}

fn read_place(text: &str) -> Result<(Timestamp, EventName), Problem> {
    let read = || {
        let (micros, name) = text.split_once(' ')?;
        let micros = Timestamp::from_micros_clamped(micros.parse().ok()?);
        Some((micros, EventName(u128::from_str_radix(name, 16).ok()?)))
    };
    read().ok_or_else(|| Problem::invalid("/cursor", "is not a next_cursor of this list"))
}
