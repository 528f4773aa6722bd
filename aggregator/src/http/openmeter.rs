//! `GET /api/v1/meters/{slug}/query` as OpenMeter's clients call it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{CalendarUnit, TimeRange, Timestamp, Zone};
use turnpike_http::{Caller, ProblemBody, Reply};

use super::params::{Format, Pairs, ceil_minute, end_of_now, time, unit, windows, zone};
use super::python::dict;
use super::table;
use super::usage::subjects;
use crate::Aggregator;
use crate::query::{Split, UsageQuery, UsageRow};

/// Usage in OpenMeter's shape.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueryResult {
    /// Start of the range, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// End of the range, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// The windows asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    window_size: Option<String>,
    /// The rows.
    data: Vec<QueryRow>,
}

/// One row in OpenMeter's shape.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueryRow {
    /// The value, as a JSON number with all its digits.
    #[schema(value_type = f64)]
    value: Box<RawValue>,
    /// Start of the window.
    #[schema(value_type = String, format = DateTime)]
    window_start: Timestamp,
    /// End of the window.
    #[schema(value_type = String, format = DateTime)]
    window_end: Timestamp,
    /// The subject, where rows are split by it.
    subject: Option<String>,
    /// The customer, where rows are split by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    customer_id: Option<String>,
    /// Values of the dimensions that rows are split by.
    group_by: BTreeMap<String, Option<String>>,
}

/// What the query string asks for.
struct Asked {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    window_size: Option<String>,
    unit: Option<CalendarUnit>,
    zone: Zone,
    /// Without `from`: over one window, from 1970 on.
    query: UsageQuery,
}

/// Query a meter as OpenMeter's clients do.
///
/// Times are cut to their minute (`to` to the end of it). Without `from` the windows begin with the first usage, without
/// `to` they end with the minute that is now. A subject filter splits by subject, as OpenMeter does.
/// `advancedMeterGroupByFilters` is 422.
#[utoipa::path(
    get, path = "/api/v1/meters/{slug}/query", tag = "OpenMeter",
    params(
        ("slug" = String, Path, description = "The meter's key"),
        ("from" = Option<String>, Query, format = DateTime, description = "Start"),
        ("to" = Option<String>, Query, format = DateTime, description = "End; unless said the start of the minute after the one that is now"),
        ("windowSize" = Option<String>, Query, description = "MINUTE, HOUR, DAY or MONTH"),
        ("windowTimeZone" = Option<String>, Query, description = "IANA zone; UTC unless said"),
        ("subject" = Option<Vec<String>>, Query, description = "Only these subjects; may repeat"),
        ("filterCustomerId" = Option<Vec<String>>, Query, description = "Only these customers, by key; may repeat"),
        ("filterGroupBy" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode, description = "`filterGroupBy[dimension]=value`: only this value of the dimension"),
        ("groupBy" = Option<Vec<String>>, Query, description = "A dimension, subject or customer_id; may repeat"),
        ("clientId" = Option<String>, Query, description = "Taken and not used"),
    ),
    responses(
        (status = 200, body = QueryResult, description = "The rows; CSV where `Accept` says text/csv"),
        (status = 404, body = ProblemBody, description = "There is no such meter"),
        (status = 422, body = ProblemBody, description = "A parameter is invalid"),
    ),
    security(("api_key" = ["read"])),
)]
pub(crate) async fn query(
    State(aggregator): State<Arc<Aggregator>>,
    caller: Caller,
    Path(slug): Path<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Reply<Response> {
    caller.require(Scope::Read)?;
    let mut pairs = Pairs::parse(raw.as_deref())?;
    let mut asked = asked(&aggregator, caller.tenant, &slug, &mut pairs)?;
    pairs.end()?;
    if asked.from.is_none() {
        begin_with_usage(&aggregator, caller.tenant, &mut asked).await?;
    }
    let split = asked.query.split.clone();
    let answer = aggregator.usage(caller.tenant, asked.query).await;
    let answer = answer.map_err(in_its_names)?;
    let rows = answer
        .rows
        .iter()
        .filter_map(|row| query_row(&split, row).transpose());
    let data = rows.collect::<Result<Vec<_>, Problem>>()?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if Format::of(None, accept, Format::Json)? == Format::Csv {
        return Ok(as_csv(&split, &data)?);
    }
    let result = QueryResult {
        from: asked.from,
        to: asked.to,
        window_size: asked.window_size,
        data,
    };
    Ok(Json(result).into_response())
}

fn asked(aggregator: &Aggregator, tenant: TenantId, slug: &str, pairs: &mut Pairs) -> Result<Asked, Problem> {
    let meter = aggregator.meter(tenant, slug)?;
    let bound = |name: &str, text: Option<String>| text.map(|text| time(name, &text)).transpose();
    let from = bound("/from", pairs.one("from")?)?.map(Timestamp::floor_minute);
    let to = bound("/to", pairs.one("to")?)?.map(ceil_minute);
    let window_size = pairs.one("windowSize")?;
    let unit = match window_size.as_deref() {
        Some(text) => Some(unit("/windowSize", &text.to_lowercase())?),
        None => None,
    };
    let zone = zone("/windowTimeZone", pairs.one("windowTimeZone")?.as_deref())?;
    let start = from.unwrap_or(Timestamp::EPOCH);
    let end = to.unwrap_or_else(|| end_of_now(aggregator.shared.clock.now(tenant)));
    let range = TimeRange::new(start, end);
    let windows = if start >= end {
        Vec::new()
    } else if from.is_none() {
        vec![range]
    } else {
        windows(range, unit, &zone)?
    };
    let _ = pairs.one("clientId")?;
    if pairs.has("advancedMeterGroupByFilters") {
        let detail = "is not supported: filter by equal values with filterGroupBy, which may repeat";
        return Err(Problem::invalid("/advancedMeterGroupByFilters", detail));
    }
    let (named, customers) = (pairs.all("subject")?, pairs.all("filterCustomerId")?);
    let query = UsageQuery {
        split: splits(&pairs.all("groupBy")?, &named, &customers),
        filter: filters(pairs)?,
        subjects: subjects(aggregator.shared.directory.as_ref(), tenant, &customers, &named),
        meter,
        windows,
        always: Vec::new(),
    };
    Ok(Asked {
        from,
        to,
        window_size,
        unit,
        zone,
        query,
    })
}

/// Cuts a query over all time into its windows, from the first in which anything was used: found month by month, then
/// day by day within that month, for there may be more windows since 1970 than one query takes.
async fn begin_with_usage(
    aggregator: &Aggregator,
    tenant: TenantId,
    asked: &mut Asked,
) -> Result<(), Problem> {
    let (Some(unit), Some(mut range)) = (asked.unit, asked.query.windows.first().copied()) else {
        return Ok(());
    };
    for coarse in [CalendarUnit::Month, CalendarUnit::Day] {
        let query = UsageQuery {
            windows: windows(range, Some(coarse), &asked.zone)?,
            ..asked.query.clone()
        };
        let answer = aggregator.usage(tenant, query).await.map_err(in_its_names)?;
        let Some(first) = answer.rows.first() else {
            asked.query.windows = Vec::new();
            return Ok(());
        };
        range = TimeRange::new(first.window.start, first.window.end);
    }
    let end = asked.query.windows.last().map_or(range.end, |window| window.end);
    // A first window that is longer than a day is whole too.
    let start = asked.zone.window(unit, range.start).start.max(Timestamp::EPOCH);
    asked.query.windows = windows(TimeRange::new(start, end), Some(unit), &asked.zone)?;
    Ok(())
}

/// `problem` with its fields named as OpenMeter names them.
fn in_its_names(problem: Problem) -> Problem {
    let Some(field) = problem.fields.first() else {
        return problem;
    };
    let pointer = match field.pointer.strip_prefix("/filter[") {
        Some(rest) => format!("/filterGroupBy[{rest}"),
        None if field.pointer == "/group_by" => "/groupBy".to_owned(),
        None => return problem,
    };
    Problem::invalid(pointer, field.detail.clone())
}

fn splits(names: &[String], subjects: &[String], customers: &[String]) -> Vec<Split> {
    let mut split = Vec::new();
    let named = names
        .iter()
        .flat_map(|names| names.split(','))
        .map(|name| match name.trim() {
            "subject" => Split::Subject,
            "customer_id" | "customerId" => Split::Customer,
            dimension => Split::Dimension(dimension.to_owned()),
        });
    let implied = [
        (!subjects.is_empty(), Split::Subject),
        (!customers.is_empty(), Split::Customer),
    ];
    for one in named.chain(
        implied
            .into_iter()
            .filter(|(asked, _)| *asked)
            .map(|(_, split)| split),
    ) {
        if !split.contains(&one) {
            split.push(one);
        }
    }
    split
}

/// `filterGroupBy[model]=a`, or as a JSON object, or, as the Python client writes it, `filterGroupBy={'model': 'a'}`.
fn filters(pairs: &mut Pairs) -> Result<Vec<(String, Vec<String>)>, Problem> {
    let mut filters = pairs.keyed("filterGroupBy");
    for text in pairs.all("filterGroupBy")? {
        let json = serde_json::from_str::<BTreeMap<String, String>>(&text);
        let read = json.map_or_else(|_| dict(&text), |json| Some(json.into_iter().collect()));
        let read = read.ok_or_else(|| Problem::invalid("/filterGroupBy", "is no object of strings"))?;
        filters.extend(read.into_iter().map(|(name, value)| (name, vec![value])));
    }
    Ok(filters)
}

/// A row; `None` where the meter has no value.
fn query_row(split: &[Split], row: &UsageRow) -> Result<Option<QueryRow>, Problem> {
    let Some(value) = row.value else {
        return Ok(None);
    };
    let value = RawValue::from_string(value.to_string())
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let mut out = QueryRow {
        value,
        window_start: row.window.start,
        window_end: row.window.end,
        subject: None,
        customer_id: None,
        group_by: BTreeMap::new(),
    };
    for (split, text) in split.iter().zip(&row.group) {
        match split {
            Split::Subject => out.subject = Some(text.clone()),
            Split::Customer => out.customer_id = Some(text.clone()),
            Split::Dimension(name) => {
                out.group_by.insert(name.clone(), Some(text.clone()));
            }
        }
    }
    Ok(Some(out))
}

fn as_csv(split: &[Split], rows: &[QueryRow]) -> Result<Response, Problem> {
    let dimensions: Vec<&String> = split
        .iter()
        .filter_map(|split| match split {
            Split::Dimension(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut head: Vec<String> = ["window_start", "window_end", "subject"]
        .map(str::to_owned)
        .to_vec();
    head.extend(dimensions.iter().map(|name| (*name).clone()));
    head.push("value".to_owned());
    let cells = |row: &QueryRow| {
        let mut cells = vec![row.window_start.to_string(), row.window_end.to_string()];
        cells.push(row.subject.clone().unwrap_or_default());
        cells.extend(
            dimensions
                .iter()
                .map(|name| row.group_by.get(*name).cloned().flatten().unwrap_or_default()),
        );
        cells.push(row.value.get().to_owned());
        cells
    };
    let lines = table::csv(std::iter::once(head).chain(rows.iter().map(cells)))?;
    Ok(([(header::CONTENT_TYPE, table::CSV)], lines).into_response())
}
